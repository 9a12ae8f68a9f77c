"""Random commands among signals, fills, faults and deaths, against what must hold whatever happens to them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from streamapp.domain.identifiers import partition_of
from streamapp.domain.vocabulary import FINAL_STATUSES, time_text
from streamapp.messages.operation import CancelRequest, Outcome, ProtectRequest
from tables.accounts import AccountRow
from tables.commands import CommandRow
from tables.orders import OrderRow, order_key
from tests.desk.test_exits import EXIT
from tests.kit.desk import ACCOUNT
from tests.kit.market import Fate, market_of
from tests.kit.terminals import ScriptedTerminals

FOREIGN = 900
LOTS = st.sampled_from(["0.1", "0.3", "1"])
OUTCOMES = st.sampled_from(["done", "rejected", "refused", "conflict", "unknown"])
FATES = st.sampled_from(["fill", "fill", "half", "reject", "doubt"])
NAMES = ["order.cancel", "order.modify", "position.close", "position.modify"] * 2
NAMES += [f"account.{word}" for word in ("halt", "reduce", "resume", "cancel_all", "flatten")]
VALUES: dict[str, dict[str, str]] = {"order.modify": {"price": "1.04"}, "position.modify": {"stop_loss": "1"}}
VALID_FOR_S = st.sampled_from([None, None, None, 5, 45])
FIELDS = st.fixed_dictionaries({"pick": st.integers(0, 9), "volume": st.none() | LOTS, "for_s": VALID_FOR_S})


@dataclass(frozen=True, slots=True)
class Given:
    """A command as it was given first."""

    name: str
    request_id: str
    sequence: int
    fields: dict[str, Any]


class Commands(RuleBasedStateMachine):
    """One account, its desk, its terminal and its broker, which shows later what the terminal has confirmed."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.number = 0
        self.given: list[Given] = []
        self.orders: list[str] = []
        self.doubtful: list[Any] = []
        self.gone: list[str] = []
        self.touched = False
        self.operated = 0
        self.stopped = False
        self.resumed = False
        self.claimed: set[str] = set()
        self.flattened: set[str] = set()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        found = self.loop.run_until_complete(work)
        self._confirm()
        return found

    @property
    def terminals(self) -> ScriptedTerminals:
        return self.world.terminals

    def _confirm(self) -> None:
        """Let what the terminal has called done come true: the broker reports it later."""
        asked = self.terminals.operations[self.operated :]
        self.operated += len(asked)
        if self.terminals.outcome == "done" and not self.terminals.silent:
            wanted = [each.order_id for each in asked if isinstance(each, CancelRequest)]
            self.gone += [
                name for name in dict.fromkeys(wanted) if name in self.market.resting and name not in self.gone
            ]

    @initialize(netting=st.booleans(), begins_with=st.integers(0, 2))
    def begin(self, netting: bool, begins_with: int) -> None:
        async def start() -> None:
            self.market = await market_of(netting=netting)
            self.world = self.market.world
            if not netting:
                await self.market.trade("2", "buy", FOREIGN)

        self.loop.run_until_complete(start())
        for _ in range(begins_with):
            self.hold("0.3")
            self.work("0.1")

    def _name(self) -> str:
        self.number += 1
        return f"s-{self.number}"

    # --- what is given

    @rule(volume=LOTS, side=st.sampled_from(["buy", "sell"]), limit=st.booleans(), together=st.booleans())
    def open(self, volume: str, side: str, limit: bool, together: bool) -> None:
        kind: dict[str, Any] = {"order_type": "limit", "price": "1.05"} if limit else {}
        work = self.world.give_signal(self._name(), volume=volume, side=side, **kind)
        self.orders.append(self.run(work))
        self._settle(together)

    @rule(volume=LOTS)
    def hold(self, volume: str) -> None:
        self.orders.append(self.run(self.world.signal(self._name(), volume=volume)))
        while waiting := self.market.waiting:
            self._note(waiting[0])
            self.run(self.market.execute(waiting[0]))

    @rule(volume=LOTS)
    def work(self, volume: str) -> None:
        self.open(volume, "buy", limit=True, together=False)
        self.rest()

    @rule(together=st.booleans())
    def leave(self, together: bool) -> None:
        said: dict[str, Any] = EXIT | {"scope": "symbol"}
        self.run(self.world.give_signal(self._name(), **said))
        self._settle(together)

    @rule(name=st.sampled_from(NAMES), fields=FIELDS, together=st.booleans())
    def command(self, name: str, fields: dict[str, Any], together: bool) -> None:
        self._give(name, self._fields(name, **fields))
        self._settle(together)

    def _fields(self, name: str, *, pick: int, volume: str | None, for_s: int | None) -> dict[str, Any]:
        fields: dict[str, Any] = {"values": VALUES.get(name, {})}
        if name.startswith("order."):
            known = self.orders[-pick:] or ["nobody's"]
            fields["order_id"] = known[0]
        if name.startswith("position."):
            ours = sorted(set(self.market.open) - {FOREIGN})
            fields["position_id"] = [*ours, FOREIGN, 901][pick] if pick < len(ours) + 2 else (ours or [FOREIGN])[0]
        if name == "position.close" and volume is not None:
            fields["values"] = {"volume": volume}
        if for_s is not None:
            fields["valid_until"] = time_text(self.world.clock.now + timedelta(seconds=for_s))
        return fields

    def _give(self, name: str, fields: dict[str, Any]) -> None:
        given = Given(name, f"c-{len(self.given)}", 1000 + len(self.given), fields)
        self.given.append(given)
        self.resumed |= name == "account.resume"
        self.run(self.world.give_command(name, given.request_id, sequence=given.sequence, **fields))

    def _settle(self, together: bool) -> None:
        """Let everything be carried out, unless more is to come into the same commit."""
        if not together:
            self.run(self.world.settled())

    # --- what is given again

    @rule(pick=st.integers(0, 50), how=st.sampled_from(["redelivered", "repeated", "other values", "other name"]))
    def again(self, pick: int, how: str) -> None:
        """Nothing changes, whatever comes under a request_id that was used."""
        if not self.given:
            return
        self.run(self.world.tick())
        given = self.given[pick % len(self.given)]
        name, fields = given.name, given.fields
        if how == "other values":
            fields = {**fields, "valid_until": "2999-01-01T00:00:00Z"}
        if how == "other name":
            name = "account.halt" if name != "account.halt" else "account.resume"
            fields = {"valid_until": fields["valid_until"]} if "valid_until" in fields else {}
        sequence = given.sequence if how == "redelivered" else None
        before = self._everything()
        self.run(self.world.command(name, given.request_id, sequence=sequence, **fields))
        assert self._everything() == before

    def _everything(self) -> object:
        rows = {key: value for key, value in self.world.store.scan(self._partition, b"") if not key.startswith(b"a/")}
        account = self._account().model_copy(update={"number": 0})
        return rows, account, len(self.terminals.submits), {each.request_id for each in self.terminals.operations}

    # --- what the world does

    @rule(fate=FATES)
    def execute(self, fate: Fate) -> None:
        waiting = [each for each in self.market.waiting if each.parameters.order_type == "market"]
        if waiting:
            if fate == "doubt":
                self.doubtful.append(waiting[0])
            self._note(waiting[0])
            self.run(self.market.execute(waiting[0], fate))

    @rule()
    def rest(self) -> None:
        for request in self.market.waiting:
            if request.parameters.order_type != "market":
                self.run(self.market.rest(request.order_id))
                return

    @rule(pick=st.integers(0, 5), fate=st.sampled_from(["fill", "half"]))
    def trigger(self, pick: int, fate: Fate) -> None:
        """Let an order that works be executed: wholly, or partly just before its cancel that is on its way."""
        if working := sorted(self.market.resting):
            request = self.market.resting[working[pick % len(working)]]
            if request.order_id in self.gone:
                self.gone.remove(request.order_id)
                fate = "half"
            self._note(request)
            self.run(self.market.execute(request, fate))

    @rule()
    def show(self) -> None:
        """Let the broker show an order as cancelled."""
        if self.gone:
            self.run(self.market.withdraw(self.gone.pop(0)))

    @rule()
    def resolve(self) -> None:
        if self.doubtful:
            self._note(self.doubtful[0])
            self.run(self.market.execute(self.doubtful.pop(0)))

    def _note(self, request: Any) -> None:
        """On a net position an opening order may be what takes away what is being closed."""
        net = sum(self.market.open.values())
        is_against = bool(net) and (net > 0) != (request.parameters.side == "buy")
        self.touched |= self.market.netting and request.position_id is None and is_against

    @rule(pick=st.integers(0, 5))
    def stop_out(self, pick: int) -> None:
        """The broker closes a position: every order that was to close it finds nothing."""
        if ours := sorted(set(self.market.open) - {FOREIGN}):
            position = ours[pick % len(ours)]
            lots, self.touched = self.market.open[position], True
            side: Any = "sell" if lots > 0 else "buy"
            self.run(self.market.trade(str(abs(lots)), side, position, reason="so"))

    @rule(outcome=OUTCOMES, silent=st.booleans())
    def answers(self, outcome: Outcome, silent: bool) -> None:
        """Answer so from now on; a terminal that is silent is soon known to be, and orders wait for it."""
        self.terminals.outcome, self.terminals.silent = outcome, silent
        if silent:
            self.wait(6)

    @rule(greeted=st.booleans())
    def die(self, greeted: bool) -> None:
        self.run(self.world.restart(greeted=greeted, redelivers=True))

    @rule(name=st.sampled_from(NAMES), fields=FIELDS)
    def die_after_the_commit(self, name: str, fields: dict[str, Any]) -> None:
        """What a commit asks of the world is lost with the worker; its input is delivered again."""
        self.run(self.world.settled())
        self.world.carries_out = False
        self._give(name, self._fields(name, **fields))
        self.run(self.world.settled())
        self.world.carries_out = True
        self.run(self.world.restart(redelivers=True))
        last = self.given[-1]
        self.run(self.world.command(name, last.request_id, sequence=last.sequence, **last.fields))

    @rule(seconds=st.sampled_from([1, 6, 40]))
    def wait(self, seconds: int) -> None:
        self.world.later(seconds)
        self.run(self.world.tick())

    # --- what must hold

    @property
    def _partition(self) -> int:
        return partition_of(ACCOUNT, self.world.policy.partitions)

    def _account(self) -> AccountRow:
        row = self.world.account_row()
        assert row is not None
        return row

    @invariant()
    def what_is_under_way_is_named_and_what_is_named_is_under_way(self) -> None:
        if self.number or self.given:
            rows = [CommandRow.decode(value) for _, value in self.world.store.scan(self._partition, b"c/")]
            under_way = {row.request.request_id for row in rows if row.state == "accepted"}
            assert set(self._account().commands) == under_way
            assert len(under_way) == len(self._account().commands)

    @invariant()
    def a_command_has_one_decision_and_at_most_one_end(self) -> None:
        if self.given:
            places = {each.sequence for each in self.given}
            commits = {commit.number: commit for commit in self.world.commits}.values()
            said = Counter(
                (each.message["request_id"], each.message["revision"])
                for commit in commits
                for each in commit.messages
                if each.message["schema"] == "command_result/1" and each.message["stream_seq"] in places
            )
            assert set(said.values()) <= {1}
            for request_id, states in self._states().items():
                assert sum(state != "accepted" for state in states) <= 1, request_id
                assert "accepted" not in states[1:] or self._of(request_id).name == "account.flatten"

    def _states(self) -> dict[str, list[str]]:
        places, states = {each.sequence for each in self.given}, dict[str, list[str]]()
        for each in self.world.published("command_result/1"):
            if each["stream_seq"] in places:
                states.setdefault(each["request_id"], []).append(each["state"])
        return states

    def _of(self, request_id: str) -> Given:
        return next(each for each in self.given if each.request_id == request_id)

    @invariant()
    def the_desk_knows_what_is_open_and_nothing_is_closed_twice(self) -> None:
        if self.number or self.given:
            for position, lots in self.market.open.items():
                row = self.world.position_row(position)
                assert row is not None
                assert row.state.net == lots
            assert self.touched or not self.market.impossible
            assert len(self.market.done) == len(set(self.market.done))
            assert not self.world.failures
            assert not self.world.dead_letters()

    @invariant()
    def what_gets_out_waits_for_its_terminal_and_is_not_called_off(self) -> None:
        if not any(each.name == "account.cancel_all" for each in self.given):
            rows = [OrderRow.decode(value) for _, value in self.world.store.scan(self._partition, b"o/")]
            closing = [row for row in rows if row.state.created and row.state.created.position_id is not None]
            refused = [row.state.attempts[1].refused for row in closing if 1 in row.state.attempts]
            assert not [each for each in refused if each is not None and each.reason == "cancelled"]

    @invariant()
    def what_is_not_ours_is_never_touched(self) -> None:
        if (self.number or self.given) and not self.market.netting:
            assert str(self.market.open[FOREIGN]) == "2"
            asked = [each for each in self.terminals.operations if isinstance(each, ProtectRequest)]
            assert FOREIGN not in {each.position_id for each in asked}

    @invariant()
    def an_operation_is_the_same_whenever_it_is_asked_again(self) -> None:
        if self.given:
            asked = {each.model_dump_json() for each in self.terminals.operations}
            assert len(asked) == len({each.request_id for each in self.terminals.operations})

    @invariant()
    def an_account_that_is_stopped_hands_over_nothing_that_opens(self) -> None:
        if self.world.desk.is_busy:
            return  # a resume that is on its way was given before
        rows = [self.world.row(order_key(name), OrderRow) for name in self.orders]
        claimed = {row.order_id for row in rows if row is not None and row.claim_epoch is not None}
        if self.stopped and not self.resumed:
            assert claimed == self.claimed
        self.claimed, self.stopped, self.resumed = claimed, self._account().trading.state != "trading", False

    @invariant()
    def after_a_flatten_that_is_done_nothing_of_ours_is_there(self) -> None:
        if not self.given:
            return
        ends = {each["request_id"] for each in self.world.published("command_result/1") if each["state"] == "done"}
        done = {each for each in ends if self._of(each).name == "account.flatten"}
        if done - self.flattened and self.stopped:
            assert self.market.open.keys() <= {FOREIGN}
            assert self._working() == []
        self.flattened = done

    def _working(self) -> list[str]:
        rows = [OrderRow.decode(value) for _, value in self.world.store.scan(self._partition, b"o/")]
        return [row.order_id for row in rows if row.status not in FINAL_STATUSES]

    def teardown(self) -> None:
        """In the end the terminal answers, time passes, and every command has its one end."""
        if self.number or self.given:
            self._give("account.flatten", {})
            self.terminals.outcome, self.terminals.silent = "done", False
            for request in self.doubtful:
                self.run(self.market.execute(request))
            for _ in range(6):
                self.run(self._quiet())
                self.world.later(31)
            assert self._account().commands == ()
            assert self.market.open.keys() <= {FOREIGN}
            assert self._working() == []
            states = self._states()
            assert states.keys() == {each.request_id for each in self.given}
            assert {said[-1] for said in states.values()} <= {"refused", "done", "failed"}
            assert states[self.given[-1].request_id][-1] == "done"
            self.a_command_has_one_decision_and_at_most_one_end()
            self.what_is_not_ours_is_never_touched()
        self.loop.close()

    async def _quiet(self) -> None:
        for _ in range(3):
            await self.world.tick()
            for request in self.market.waiting:
                if request.parameters.order_type != "market":
                    await self.market.rest(request.order_id)
            await self.market.run()
            self._confirm()
            while self.gone:
                await self.market.withdraw(self.gone.pop())


Commands.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
TestCommands = Commands.TestCase
