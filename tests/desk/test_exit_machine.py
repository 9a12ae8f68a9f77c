"""Random signals of every intent, fills, faults, strangers and deaths, against a small oracle of what must hold."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from decimal import Decimal
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.kit.market import Fate, market_of

STRATEGIES = st.sampled_from(["a", "b", ""])
LOTS = st.sampled_from(["0.1", "0.3", "1"])
FOREIGN = 900
FATES = st.sampled_from(["fill", "fill", "half", "reject", "doubt"])


class Exits(RuleBasedStateMachine):
    """One account, its desk and its broker.

    The oracle knows what each strategy holds from what was executed alone, and that nothing else moves it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.number = 0
        self.doubtful: list[Any] = []
        self.touched = False

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

    def _name(self) -> str:
        self.number += 1
        return f"s-{self.number}"

    # --- what happens

    @rule(strategy=STRATEGIES, volume=LOTS, side=st.sampled_from(["buy", "sell"]))
    def open(self, strategy: str, volume: str, side: str) -> None:
        self.run(self.world.signal(self._name(), strategy=strategy or None, volume=volume, side=side))

    @rule(strategy=STRATEGIES, volume=st.none() | LOTS, scope=st.sampled_from([None, "symbol"]))
    def close(self, strategy: str, volume: str | None, scope: str | None) -> None:
        self._leave("close", strategy, volume=volume, scope=scope or "strategy")

    @rule(strategy=STRATEGIES, volume=LOTS)
    def reduce(self, strategy: str, volume: str) -> None:
        self._leave("reduce", strategy, volume=volume)

    @rule(strategy=STRATEGIES, volume=st.none() | LOTS)
    def reverse(self, strategy: str, volume: str | None) -> None:
        self._leave("reverse", strategy, volume=volume)

    @rule(strategy=STRATEGIES)
    def modify(self, strategy: str) -> None:
        self._leave("modify", strategy, stop_loss="1.01")

    def _leave(self, intent: str, strategy: str, **changes: Any) -> None:
        nothing = {"side": None, "order_type": None, "volume": None}
        said = nothing | {"intent": intent, "strategy": strategy or None} | changes
        self.run(self.world.signal(self._name(), **said))

    @rule(fate=FATES)
    def execute(self, fate: Fate) -> None:
        if waiting := self.market.waiting:
            if fate == "doubt":
                self.doubtful.append(waiting[0])
            self.run(self.market.execute(waiting[0], fate))

    @rule()
    def resolve(self) -> None:
        if self.doubtful:
            # On a net position an opening order may be what takes away what an exit was to close.
            self.touched |= self.market.netting
            self.run(self.market.execute(self.doubtful.pop(0)))

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
                await self.market.execute(request)
            await self._quiet()
            self.world.later(60)
            await self._quiet()
            account = self.world.account_row()
            assert account is not None
            assert account.goals == ()
            await self.world.signal("last", side=None, order_type=None, volume=None, intent="close", scope="symbol")
            await self._quiet()
            assert not self.touched or self.market.open.keys() <= {FOREIGN, *self.market.open}
            if not self.touched:
                assert self.market.open.keys() <= {FOREIGN}
            decided = {each["signal_id"] for each in self.world.archived("signal/1")}
            assert decided == {*(f"s-{number}" for number in range(1, self.number + 1)), "last"}

        self.run(end())
        self.loop.close()

    async def _quiet(self) -> None:
        for _ in range(5):
            await self.market.run()
            await self.world.tick()


Exits.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestExits = Exits.TestCase
