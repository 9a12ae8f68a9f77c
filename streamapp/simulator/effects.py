"""What the broker has begun and will do later. It survives a restart of the market, as a broker's word does."""

import itertools
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamapp.simulator.market import Market

Handler = Callable[..., None]


class Effects:
    """Things to do at a time, each a name with arguments of JSON, kept in the market's store until it is done."""

    def __init__(self, market: "Market") -> None:
        """Nothing is due; `handlers` gives what to do for each name."""
        self._market = market
        self._numbers = itertools.count(1)
        self.handlers: dict[str, Handler] = {}

    def after(self, delay_ms: float, name: str, *arguments: Any) -> None:
        """Has the handler `name` called with `arguments` in `delay_ms`, even if the market restarts meanwhile."""
        due_ms = self._market.clock.utc_ms() + max(1, round(delay_ms))
        number = next(self._numbers)
        self._market.store.put("effect", "", number, json.dumps([due_ms, name, *arguments]))
        self._schedule(number, due_ms, name, arguments)

    def restore(self) -> None:
        """Takes back what an earlier life of the market had begun; what is overdue happens at once."""
        last = 0
        for _, number, body in list(self._market.store.rows("effect")):
            due_ms, name, *arguments = json.loads(body)
            last = max(last, number)
            self._schedule(number, due_ms, name, tuple(arguments))
        self._numbers = itertools.count(last + 1)

    def kept(self, name: str | None = None) -> Iterator[list[Any]]:
        """The arguments of what was kept in the store at the start."""
        for _, _, body in self._market.store.rows("effect"):
            _, kind, *arguments = json.loads(body)
            if name in {None, kind}:
                yield arguments

    def _schedule(self, number: int, due_ms: int, name: str, arguments: tuple[Any, ...]) -> None:
        def act() -> None:
            self._market.store.delete("effect", "", number)
            self.handlers[name](*arguments)

        self._market.agenda.at(due_ms, act)
