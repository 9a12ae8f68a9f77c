"""Random signals of every intent, fills, faults, strangers and deaths, against a small oracle of what must hold."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Coroutine
from decimal import Decimal
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from streamapp.messages.terminal import SubmitRequest
from tests.kit.market import Fate, market_of

SIGNAL = {"strategy": None, "intent": "open", "scope": "strategy", "position_id": None, "volume": None}
"""What a signal says if it does not say otherwise."""
STRATEGIES = st.sampled_from(["a", "b", ""])
LOTS = st.sampled_from(["0.1", "0.3", "1"])
FOREIGN, UNKNOWN = 900, 12345
FATES = st.sampled_from(["fill", "fill", "half", "reject", "doubt"])


class Exits(RuleBasedStateMachine):
    """One account, its desk and its broker.

    The oracle knows what was asked, from what was executed which strategy opened a position, and what an exit may do.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.number = 0
        self.doubtful: list[Any] = []
        self.touched = False
        self.asked: dict[str, dict[str, Any]] = {}
        self.opened: dict[int, str | None] = {}
        self.seen, self.orders = 0, set[str]()
        self.openings: Counter[str] = Counter()
        self.closing: defaultdict[str, Decimal] = defaultdict(Decimal)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    @initialize(netting=st.booleans())
    def begin(self, netting: bool) -> None:
        async def start() -> None:
            self.market = await market_of(netting=netting)
            self.world = self.market.world
            if not netting:
                await self.market.trade("2", "buy", FOREIGN)

        self.run(start())

    def _send(self, **said: Any) -> str:
        self.number += 1
        name = f"s-{self.number}"
        self.asked[name] = SIGNAL | said
        self.run(self.world.signal(name, **said))
        return name

    # --- what happens

    @rule(strategy=STRATEGIES, volume=LOTS, side=st.sampled_from(["buy", "sell"]))
    def open(self, strategy: str, volume: str, side: str) -> None:
        self._send(strategy=strategy or None, volume=volume, side=side)

    @rule(strategy=STRATEGIES, volume=st.none() | LOTS, scope=st.sampled_from([None, "symbol"]))
    def close(self, strategy: str, volume: str | None, scope: str | None) -> None:
        self._leave("close", strategy, volume=volume, scope=scope or "strategy")

    @rule(strategy=STRATEGIES, volume=LOTS)
    def reduce(self, strategy: str, volume: str) -> None:
        self._leave("reduce", strategy, volume=volume)

    @rule(strategy=STRATEGIES, volume=st.none() | LOTS)
    def reverse(self, strategy: str, volume: str | None) -> None:
        name = self._leave("reverse", strategy, volume=volume)
        if not self.market.netting:
            assert self._answer(name) == ("refused", "bad_field")

    @rule(strategy=STRATEGIES)
    def modify(self, strategy: str) -> None:
        self._leave("modify", strategy, stop_loss="1.01")

    @rule(strategy=STRATEGIES, volume=st.none() | LOTS, data=st.data())
    def close_one(self, strategy: str, volume: str | None, data: st.DataObject) -> None:
        position = data.draw(st.sampled_from([UNKNOWN, *sorted(self.market.open)]))
        name = self._leave("close", strategy, volume=volume, position_id=position)
        if position == UNKNOWN:
            assert self._answer(name) == ("refused", "unknown_position")
        if position == FOREIGN:
            assert self._answer(name) == ("refused", "foreign_position")

    @rule(data=st.data(), differs=st.booleans())
    def send_again(self, data: st.DataObject, differs: bool) -> None:
        """The same signal in another message, or another one under its id: it asks for nothing more."""
        if self.asked:
            name = data.draw(st.sampled_from(sorted(self.asked)))
            said = self.asked[name] if self.asked[name]["intent"] != "open" else self._opening(name)
            self.run(self.world.signal(name, **(said | ({"volume": "7"} if differs else {}))))

    def _opening(self, name: str) -> dict[str, Any]:
        strangers = {"scope", "position_id"}
        return {field: value for field, value in self.asked[name].items() if field not in strangers}

    def _leave(self, intent: str, strategy: str, **changes: Any) -> str:
        nothing = {"side": None, "order_type": None, "volume": None}
        return self._send(**(nothing | {"intent": intent, "strategy": strategy or None} | changes))

    def _answer(self, name: str) -> tuple[str, str | None]:
        row = self.world.signal_row(name)
        assert row is not None
        return row.verdict.decision, row.verdict.reason

    @rule(fate=FATES)
    def execute(self, fate: Fate) -> None:
        if waiting := self.market.waiting:
            if fate == "doubt":
                self.doubtful.append(waiting[0])
            self.run(self._execute(waiting[0], fate))

    async def _execute(self, request: SubmitRequest, fate: Fate = "fill") -> None:
        before = set(self.market.open)
        await self.market.execute(request, fate)
        for position in self.market.open.keys() - before:
            self.opened[position] = self.asked[self._signal_of(request)]["strategy"]

    def _signal_of(self, request: SubmitRequest) -> str:
        created = self.world.order_row(request.order_id).state.created
        assert created is not None
        return str(created.signal_id)

    @rule()
    def resolve(self) -> None:
        if self.doubtful:
            # On a net position an opening order may be what takes away what an exit was to close.
            self.touched |= self.market.netting
            self.run(self._execute(self.doubtful.pop(0)))

    @rule(data=st.data())
    def stop_out(self, data: st.DataObject) -> None:
        """The broker closes a position: every order that was to close it finds nothing."""
        ours = sorted(set(self.market.open) - {FOREIGN})
        if ours:
            position = data.draw(st.sampled_from(ours))
            lots = self.market.open[position]
            self.touched = True
            side: Any = "sell" if lots > 0 else "buy"
            self.run(self.market.trade(str(abs(lots)), side, position, reason="so"))

    @rule(greeted=st.booleans())
    def die(self, greeted: bool) -> None:
        self.run(self.world.restart(greeted=greeted))

    @rule(seconds=st.sampled_from([1, 6, 40]))
    def wait(self, seconds: int) -> None:
        self.world.later(seconds)
        self.run(self.world.tick())

    # --- what must hold

    @invariant()
    def the_desk_knows_what_is_open(self) -> None:
        if self.number:
            for position, lots in self.market.open.items():
                row = self.world.position_row(position)
                assert row is not None
                assert row.state.net == lots

    @invariant()
    def an_exit_never_asks_for_more_than_is_there_unless_the_broker_took_it_away(self) -> None:
        if self.number:
            assert self.touched or not self.market.impossible

    @invariant()
    def what_is_not_ours_is_never_touched(self) -> None:
        if self.number and not self.market.netting:
            assert self.market.open[FOREIGN] == Decimal(2)

    @invariant()
    def an_order_does_what_its_signal_asked_and_no_more(self) -> None:
        new = {each.order_id: each for each in self.world.terminals.submits[self.seen :]} if self.number else {}
        self.seen += len(self.world.terminals.submits[self.seen :]) if self.number else 0
        for order_id in new.keys() - self.orders:
            self.orders.add(order_id)
            name = self._signal_of(new[order_id])
            if new[order_id].position_id is None:
                self.openings[name] += 1
                assert self.openings[name] <= (self.asked[name]["intent"] in {"open", "reverse"}), "an exit never opens"
            else:
                self._check_closing(name, new[order_id])

    def _check_closing(self, name: str, request: SubmitRequest) -> None:
        asked, position = self.asked[name], request.position_id
        assert position is not None
        assert asked["intent"] in {"close", "reduce", "reverse"}
        assert asked["position_id"] in {None, position}
        self.closing[name] += request.parameters.volume
        if asked["intent"] != "reverse" and asked["volume"] is not None:
            assert self.closing[name] <= Decimal(asked["volume"])
        if not self.market.netting and asked["position_id"] is None and asked["scope"] == "strategy":
            assert self.opened[position] == asked["strategy"], "it closes what its strategy opened"

    @invariant()
    def every_order_of_an_exit_has_an_id_of_its_own_and_is_executed_once(self) -> None:
        if self.number:
            assert len(self.market.done) == len(set(self.market.done))
            assert not self.world.failures

    def teardown(self) -> None:
        """In the end everything is answered, and a close of all leaves nothing of ours open."""
        if not self.number:
            self.loop.close()
            return

        async def end() -> None:
            self.world.terminals.silent = False
            await self.world.tick()
            for request in self.doubtful:
                await self._execute(request)
            await self._quiet()
            self.world.later(60)
            await self._quiet()
            account = self.world.account_row()
            assert account is not None
            assert account.goals == ()
            said: dict[str, Any] = {"intent": "close", "scope": "symbol"}
            said |= dict.fromkeys(("side", "order_type", "volume"))
            self.asked["last"] = SIGNAL | said
            await self.world.signal("last", **said)
            await self._quiet()
            if not self.touched:
                assert self.market.open.keys() <= {FOREIGN}
            first = {
                (each["signal_id"], each["stream_seq"])  # after a death a commit may be in the archive again
                for each in self.world.archived("signal/1")
                if each["decision"] in {"accepted", "refused"}
            }
            decisions = Counter(name for name, _ in first)
            assert decisions == Counter(self.asked.keys()), "each signal is decided once"

        self.run(end())
        self.loop.close()

    async def _quiet(self) -> None:
        for _ in range(5):
            while waiting := self.market.waiting:
                await self._execute(waiting[0])
            await self.world.tick()


Exits.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestExits = Exits.TestCase
