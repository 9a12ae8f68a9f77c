"""A broker of few rules under a clock of its own: requests that land late, tables that lag, connections that break.

The resolver, the book and the worker's search on it are the real ones; only journal thread, processes and time are not.
"""

from __future__ import annotations

import asyncio
import selectors
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, TypeVar

from streamapp.terminal.account.servertime import ServerTime
from streamapp.terminal.account.worker_client import NotHandedOverError
from streamapp.terminal.journal.book import Book
from streamapp.terminal.journal.database import MIGRATIONS, SCHEMA
from streamapp.terminal.pipe.answers import Answered
from streamapp.terminal.pipe.calls import Call, Search
from streamapp.terminal.pipe.structs import TradeDeal
from streamapp.terminal.worker import search
from streamapp.terminal.worker.mt5_client import Mt5Client, models_of, plain
from tests.terminal.scripted import ACCOUNT, SERVER_AHEAD_S

T = TypeVar("T")
BEGAN = datetime(2026, 11, 20, 12, tzinfo=UTC)
TABLES = ("orders", "positions", "history_orders", "history_deals")


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next timer instead of waiting for it. Nothing in it may use a thread."""

    def __init__(self) -> None:
        super().__init__(selectors.SelectSelector())
        self.now_s = 0.0
        wait = self._selector.select  # type: ignore[attr-defined]

        def select(timeout: float | None) -> Any:
            self.now_s += timeout or 0.0
            return wait(0)

        self._selector.select = select  # type: ignore[attr-defined]

    def time(self) -> float:
        return self.now_s

    def utc(self) -> datetime:
        return BEGAN + timedelta(seconds=self.now_s)


class PromptJournal:
    """Writes at once: one transaction for each."""

    def __init__(self, clock: Callable[[], datetime], epoch: str = "e1") -> None:
        db = sqlite3.connect(":memory:", isolation_level=None)
        db.executescript(";".join((SCHEMA, *MIGRATIONS.values())))
        db.executemany("INSERT INTO meta VALUES (?, ?)", [("account", ACCOUNT), ("epoch", epoch)])
        self.book = Book(db, ACCOUNT, clock)

    @property
    def revision(self) -> int:
        return self.book.db.total_changes

    async def write(self, action: Callable[[Book], T]) -> T:
        await asyncio.sleep(0)
        return action(self.book)


class Row(SimpleNamespace):
    """A struct of the module's."""

    def _asdict(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass
class Broker:
    """What is at the broker, and when each table shows it (seconds of the loop)."""

    loop: VirtualLoop
    shown: dict[str, list[tuple[float, float, Row]]] = field(default_factory=lambda: {name: [] for name in TABLES})
    tickets: int = 1000

    def execute(
        self, magic: int, comment: str, lags: dict[str, float], *, part: float = 1.0, pending: bool = False
    ) -> int:
        """Take an order now: a deal of ``part`` of it, the rest cancelled; or keep it working."""
        self.tickets += 1
        now, at = self.loop.now_s, int(self.loop.utc().timestamp()) + SERVER_AHEAD_S
        common = {"magic": magic, "comment": comment, "symbol": "EURUSD", "reason": 3, "ticket": self.tickets}
        order = Row(
            **common, type=2 if pending else 0, volume_initial=0.1, volume_current=0.1 * (1 - part), position_id=0,
            time_setup=at, time_setup_msc=at * 1000, time_done=at, state=4, type_filling=1,
        )  # fmt: skip
        if pending:
            self.show("orders", order, lags)
            return self.tickets
        # For as long as its end lags, the order is shown as one that lives, unless that lags as well.
        self.shown["orders"].append((now + lags["orders"], now + lags["history_orders"], order))
        self.show("history_orders", order, lags)
        if part:
            rest = {"time": at, "time_msc": at * 1000, "volume": 0.1 * part, "price": 1.1, "swap": 0.0, "profit": 0.0}
            deal = Row(**{**common, "ticket": self.tickets + 100_000}, **rest, order=self.tickets, type=0, entry=0,
                       position_id=self.tickets, commission=0.0, fee=0.0)  # fmt: skip
            self.show("history_deals", deal, lags)
            self.show("positions", Row(**common, **rest, type=0, identifier=self.tickets), lags)
        return self.tickets

    def show(self, table: str, row: Row, lags: dict[str, float]) -> None:
        self.shown[table].append((self.loop.now_s + lags[table], float("inf"), row))

    def rows(self, table: str) -> tuple[Row, ...]:
        now = self.loop.now_s
        return tuple(row for since, until, row in self.shown[table] if since <= now < until)


class Module:
    """As much of the module as a search calls."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.partial_until_s = 0.0

    def last_error(self) -> tuple[int, str]:
        return 1, "Success"

    def orders_get(self) -> tuple[Row, ...]:
        return self.broker.rows("orders")

    def positions_get(self) -> tuple[Row, ...]:
        return self.broker.rows("positions")

    def history_orders_get(self, since: int, until: int) -> tuple[Row, ...]:
        return tuple(row for row in self.broker.rows("history_orders") if since <= row.time_done <= until)

    def history_deals_get(self, since: int, until: int) -> tuple[Row, ...]:
        return tuple(row for row in self.broker.rows("history_deals") if since <= row.time <= until)


class Connection:
    """Readable or not; each time it becomes so in a generation of its own."""

    currency = "USD"

    def __init__(self, broker: Broker, *, hedging: bool = True) -> None:
        self.hedging = hedging
        self.time = ServerTime(SERVER_AHEAD_S)
        self.generation = 1
        self.looks = 0
        self.calls = Mt5Client(Module(broker))
        self.calls.broken = None
        self._broken = 0
        self._up = asyncio.Event()
        self._up.set()

    def breaks(self) -> None:
        self.generation += 1
        self._broken += 1
        self._up.clear()

    def comes_back(self) -> None:
        self._broken -= 1
        if not self._broken:
            self._up.set()

    async def readable(self) -> None:
        await self._up.wait()

    async def read_now(self, call: Call[Any]) -> Answered[Any]:
        assert isinstance(call, Search)
        if not self._up.is_set():
            raise NotHandedOverError("disconnected")
        generation = self.generation
        await asyncio.sleep(0.01)
        value = search.look(self.calls, call)
        await asyncio.sleep(0.01)
        if generation != self.generation:
            raise NotHandedOverError("made again")
        self.looks += 1
        return Answered(value, log=self.calls.taken_notes())


def deals_of(broker: Broker) -> tuple[TradeDeal, ...]:
    """Every deal that the terminal shows now."""
    return models_of(TradeDeal, [plain(row) for row in broker.rows("history_deals")])
