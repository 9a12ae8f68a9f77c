"""From a request to its outcome, on a scripted worker: what is remembered, what is sent again, and what never is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from streamapp.clock import utc_now
from streamapp.domain import facts
from streamapp.domain.identifiers import magic_of, order_id_for
from streamapp.domain.limits import AccountLimits, QuoteLimits
from streamapp.domain.vocabulary import time_text
from streamapp.messages.operation import OperationReply
from streamapp.settings import AccountSettings, GuardSettings, TerminalSettings
from streamapp.terminal.account.judging import OrderLimits
from streamapp.terminal.account.worker_client import NotHandedOverError, WorkerLostError
from streamapp.terminal.journal import operation_rows
from streamapp.terminal.operations.close import SOON, in_the_way
from streamapp.terminal.operations.runner import SENDS_AT_MOST, Operations
from tests.kit.waiting import eventually
from tests.terminal.asking import operation
from tests.terminal.conftest import Account, wired
from tests.terminal.scripted import (
    ACCOUNT,
    LOGIN,
    OWNER,
    SERVER,
    SYMBOL,
    TERMINAL,
    ScriptedWorker,
    deal,
    result,
    submit_request,
    tick,
)

ORDER: dict[str, Any] = {
    "ticket": 1001, "symbol": "EURUSD", "type": 2, "type_time": 0, "type_filling": 2, "time_expiration": 0, "state": 1,
    "volume_initial": 0.1, "volume_current": 0.1, "price_open": 1.08, "price_stoplimit": 0.0, "sl": 0.0, "tp": 0.0,
}  # fmt: skip
LIMIT: dict[str, Any] = {"order_type": "limit", "price": Decimal("1.08")}
SETTLE_S = 0.3


@dataclass
class Broker:
    """One order and one position of 0.3 lots, as scripted; ``script`` answers the sends, then each is carried out."""

    worker: ScriptedWorker
    order: dict[str, Any] | None = field(default_factory=lambda: dict(ORDER))
    past: dict[str, Any] | None = None
    position: dict[str, Any] | None = field(
        default_factory=lambda: {
            "ticket": 77, "identifier": 77, "symbol": "EURUSD", "type": 0, "volume": 0.3, "sl": 0.0, "tp": 0.0,
            "time_update_msc": tick()["time_msc"] + 60_000,
        }
    )  # fmt: skip
    deals: list[dict[str, Any]] = field(default_factory=lambda: [deal(1, 77, 9, 0.3)])
    script: list[Callable[[dict[str, Any]], Any]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.worker.answers |= {
            "order_now": lambda _: self._shown(live=self.order, past=self.past),
            "position_now": lambda _: self._shown(live=self.position, deals=self.deals),
            "send": self._sent,
            "check": lambda _: {"retcode": 0},
        }
        opening = self.worker.answers["prepare"]
        self.worker.answers["prepare"] = lambda asked: opening(asked) | {"position": self.position}

    def _shown(self, **found: Any) -> dict[str, Any]:
        live = found["live"]
        market = {"terminal": TERMINAL, "account": OWNER, "symbol": SYMBOL, "tick": tick(), "rate": 1.0}
        return {"read": True, **found, "prepared": market if live else None}

    def _sent(self, asked: dict[str, Any]) -> Any:
        if asked["request"]["action"] == 5:
            return self.worker.sent(result(10009, order=1001))
        self.requests.append(asked["request"])
        return (self.script.pop(0) if self.script else self.done)(asked["request"])

    def done(self, request: dict[str, Any]) -> Any:
        self.carry_out(request)
        return self.worker.sent(result(10009))

    def carry_out(self, request: dict[str, Any]) -> None:
        match request["action"]:
            case 8:
                self.past, self.order = {**ORDER, "state": 2}, None
            case 7 if self.order:
                self.order |= {"price_open": request["price"], "sl": request["sl"], "tp": request["tp"]}
            case 6 if self.position:
                self.position |= {"sl": request["sl"], "tp": request["tp"]}
            case 1 if self.position:
                self.close(request["volume"])

    def close(self, volume: float, **fields: Any) -> None:
        assert self.position is not None
        left = round(self.position["volume"] - volume, 8)
        self.position = {**self.position, "volume": left} if left else None
        self.deals = [*self.deals, deal(len(self.deals) + 1, 90, 9, volume, type=1, entry=1, position_id=77, **fields)]

    def says(self, retcode: int, *, executed: bool = False) -> Callable[[dict[str, Any]], Any]:
        def answer(request: dict[str, Any]) -> Any:
            if executed:
                self.carry_out(request)
            return self.worker.sent(result(retcode, comment="so"))

        return answer


@dataclass
class Desk:
    parts: Account
    operations: Operations
    broker: Broker

    async def once(self, kind: Any, request_id: str = "r-1", **fields: Any) -> OperationReply:
        if kind == "close":
            fields = {"epoch": self.parts.journal.book.epoch, "position_id": 77, **fields}
        fields = {"position_id": 77, **fields} if kind == "protect" else fields
        return await self.operations.answer(kind, operation(kind, request_id, account=ACCOUNT, **fields))

    async def ask(self, kind: Any, request_id: str = "r-1", **fields: Any) -> OperationReply:
        async def final() -> OperationReply | None:
            reply = await self.once(kind, request_id, **fields)
            return reply if reply.outcome != "unknown" else None

        reply: OperationReply = await eventually(final, f"{kind} {request_id}")
        return reply

    @property
    def sends(self) -> list[int]:
        return [request["action"] for request in self.broker.requests]

    async def an_order_of_ours(self) -> str:
        order = await self.parts.submit(**LIMIT)

        async def accepted() -> bool:
            return "accepted" in await self.parts.kinds()

        await eventually(accepted, "accepted")
        return order.order_id

    async def said(self) -> list[Any]:
        return [report.body for report in await self.parts.reports()][3:]


@asynccontextmanager
async def opened(
    folder: Path, broker: Broker | None = None, *, settle_s: float = SETTLE_S, **changes: float
) -> AsyncIterator[Desk]:
    broker = broker or Broker(ScriptedWorker())
    async with wired(folder, broker.worker, settle_window_s=SETTLE_S, **changes) as parts:
        terminal = TerminalSettings(poll_interval_s=0.02, settle_window_s=settle_s, order_send_deadline_s=1.0)
        limits = OrderLimits(AccountSettings(login=LOGIN, server=SERVER), AccountLimits(GuardSettings()), terminal)
        operations = Operations(
            parts.journal, parts.connection, parts.execution, limits,
            deployment="tests", clock=utc_now, answer_within_s=changes.get("answer_within_s", 0.5), patience_s=0.1,
        )  # fmt: skip
        parts.tasks.append(asyncio.create_task(operations.run()))
        yield Desk(parts, operations, broker)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with opened(tmp_path) as desk:
        yield desk


async def test_a_request_has_one_outcome_however_often_it_is_asked(desk: Desk) -> None:
    asked: dict[str, Any] = {"stop_loss": Decimal("1.08")}
    first = await desk.ask("protect", **asked)
    assert first.outcome == "done"
    desk.broker.position = dict(desk.broker.position or {}, sl=0.0)  # somebody else took it away
    others: dict[str, Any] = {"limits": QuoteLimits(max_level_distance=Decimal("0.001"))}
    again = await desk.ask("protect", stop_loss=Decimal("1.0800"), issued_by="another", valid_s=99, **others)
    assert again.model_dump(exclude={"clock"}) == first.model_dump(exclude={"clock"})
    assert desk.sends == [6]
    conflict = await desk.once("protect", stop_loss=Decimal("1.07"))
    assert (conflict.outcome, desk.sends) == ("conflict", [6])
    assert (await desk.once("close")).outcome == "conflict"


async def test_many_who_ask_for_the_same_get_the_same_answer_to_one_sending(desk: Desk) -> None:
    replies = await asyncio.gather(*(desk.ask("close") for _ in range(20)))
    assert {reply.outcome for reply in replies} == {"done"}
    assert desk.sends == [1]


async def test_operations_are_carried_out_one_at_a_time_in_order_of_arrival(desk: Desk) -> None:
    levels = [Decimal(f"1.0{number}") for number in range(1, 8)]
    await asyncio.gather(*(desk.ask("protect", f"r-{level}", stop_loss=level) for level in levels))
    assert [request["sl"] for request in desk.broker.requests] == [float(level) for level in levels]


async def test_an_operation_in_doubt_holds_up_only_those_of_its_own_positions(tmp_path: Path) -> None:
    async with opened(tmp_path, settle_s=600.0) as desk:
        other = {"ticket": 78, "identifier": 78, "symbol": "EURUSD", "type": 1, "volume": 0.3, "sl": 0.0, "tp": 0.0}
        desk.parts.worker.answers["position_now"] = lambda asked: desk.broker._shown(
            live=desk.broker.position if asked["position_id"] == 77 else other, deals=desk.broker.deals
        )
        desk.broker.script = [desk.broker.says(10012)]
        doubtful = asyncio.create_task(desk.once("close_by", "r-1", position_id=77, by_position_id=78))
        await eventually(lambda: desk.sends)
        behind = asyncio.create_task(desk.once("close", "r-2"))
        assert (await desk.ask("cancel", "r-3", ticket=1001)).outcome == "done"
        assert (await doubtful).outcome == "unknown"
        assert (await behind).outcome == "unknown"
        assert desk.sends == [10, 8]
        desk.broker.close(0.3)
        desk.broker.deals[-1]["entry"] = 3
        assert (await desk.ask("close_by", "r-1", position_id=77, by_position_id=78)).outcome == "done"
        assert (await desk.ask("close", "r-2")).outcome == "done"
        assert desk.sends == [10, 8]


async def test_a_sending_is_durable_before_it_is_handed_over(desk: Desk) -> None:
    seen: list[Any] = []

    def look(request: dict[str, Any]) -> Any:
        book = desk.parts.journal.book
        seen.extend(book.db.execute("SELECT magic, request_id FROM sendings").fetchall())
        return desk.broker.done(request)

    desk.broker.script = [look]
    await desk.ask("close")
    magic = operation_rows.magic_for("r-1", 1)
    assert seen == [(magic, "r-1")]
    assert desk.broker.requests[0]["magic"] == magic
    assert await desk.parts.journal.write(lambda book: book.explains(0, magic))


@pytest.mark.parametrize("kind", ["cancel", "modify", "protect", "close"])
@pytest.mark.parametrize("retcode", [10011, 10012, 10031, 0, 12345])
@pytest.mark.parametrize("executed", [True, False])
async def test_a_doubt_is_looked_at_and_sent_again_only_if_the_state_is_another(
    desk: Desk,
    kind: str,
    retcode: int,
    executed: bool,
) -> None:
    desk.broker.script = [desk.broker.says(retcode, executed=executed)]
    about: dict[str, dict[str, Any]] = {
        "modify": {"ticket": 1001, "price": Decimal("1.07")},
        "cancel": {"ticket": 1001},
    }
    asked = dict(about.get(kind, {}))
    asked |= {"stop_loss": Decimal("1.07")} if kind == "protect" else {}
    assert (await desk.ask(kind, **asked)).outcome == "done"
    assert len(desk.sends) == (1 if executed else 2)


@pytest.mark.parametrize("error", [WorkerLostError("hung", deadline=True), WorkerLostError("died", deadline=False)])
async def test_a_worker_that_is_lost_is_a_doubt_looked_at_with_the_next_one(desk: Desk, error: Exception) -> None:
    desk.broker.script = [lambda _: error]
    assert (await desk.ask("close")).outcome == "done"
    assert desk.sends == [1, 1]
    assert desk.parts.worker.starts == 2


async def test_what_was_never_handed_over_is_no_sending(desk: Desk) -> None:
    desk.broker.script = [lambda _: NotHandedOverError("no worker"), desk.broker.says(10012)]
    reply = await desk.ask("close_by", position_id=77, by_position_id=88, valid_s=0.6)
    assert reply.outcome in {"refused", "rejected"}
    rows = await desk.parts.journal.write(lambda book: book.db.execute("SELECT count(*) FROM sendings").fetchall())
    assert rows[0][0] <= 1


async def test_a_refusal_of_the_broker_ends_it_and_is_remembered(desk: Desk) -> None:
    desk.broker.script = [desk.broker.says(10018)]
    reply = await desk.ask("close")
    assert (reply.outcome, reply.retcode, reply.message) == ("rejected", 10018, "market_closed: so")
    assert (await desk.ask("close")).outcome == "rejected"
    assert desk.sends == [1]
    assert (await desk.ask("close", "r-2")).outcome == "done"


async def test_a_refusal_of_what_happened_all_the_same_is_done(desk: Desk) -> None:
    desk.broker.script = [desk.broker.says(10006, executed=True)]
    assert (await desk.ask("close")).outcome == "done"
    assert desk.sends == [1]


async def test_a_requoted_close_is_asked_again_at_the_new_price_but_not_for_ever(desk: Desk) -> None:
    desk.broker.script = [desk.broker.says(10004), desk.broker.says(10021)]
    assert (await desk.ask("close")).outcome == "done"
    assert len(desk.sends) == 3


async def test_an_operation_gives_up_after_so_many_sendings(desk: Desk) -> None:
    desk.broker.script = [desk.broker.says(10024)] * 99
    reply = await desk.ask("protect", stop_loss=Decimal("1.07"))
    assert (reply.outcome, reply.retcode, len(desk.sends)) == ("rejected", 10024, SENDS_AT_MOST)


async def test_a_close_in_part_goes_on_with_the_rest_and_never_with_more(desk: Desk) -> None:
    def partly(_: dict[str, Any]) -> Any:
        desk.broker.close(0.1)
        return desk.broker.worker.sent(result(10010, volume=0.1))

    desk.broker.script = [partly]
    assert (await desk.ask("close", volume=Decimal("0.3"))).outcome == "done"
    assert [request["volume"] for request in desk.broker.requests] == [0.3, 0.2]
    assert len({request["magic"] for request in desk.broker.requests}) == 2


async def test_a_position_that_a_stop_closed_meanwhile_is_closed(desk: Desk) -> None:
    def stopped(_: dict[str, Any]) -> Any:
        desk.broker.close(0.3, reason=4)
        return desk.broker.worker.sent(result(10036))

    desk.broker.script = [stopped]
    reply = await desk.ask("close")
    assert (reply.outcome, len(desk.sends)) == ("done", 1)
    assert "sl" in reply.message


async def test_no_changes_is_success_for_new_values(desk: Desk) -> None:
    desk.broker.script = [desk.broker.says(10025, executed=True)]
    assert (await desk.ask("protect", stop_loss=Decimal("1.07"))).outcome == "done"


async def test_close_by_is_sent_once_whatever_comes_of_it(desk: Desk) -> None:
    other = {"ticket": 88, "identifier": 88, "symbol": "EURUSD", "type": 1, "volume": 0.1, "sl": 0.0, "tp": 0.0}
    one = desk.broker.position
    desk.parts.worker.answers["position_now"] = lambda asked: desk.broker._shown(
        live=one if asked["position_id"] == 77 else other, deals=[]
    )
    desk.broker.script = [desk.broker.says(10012)] * 9
    asked: dict[str, Any] = {"position_id": 77, "by_position_id": 88}
    reply = await desk.ask("close_by", **asked)
    assert (reply.outcome, desk.sends) == ("rejected", [10])
    assert (await desk.ask("close_by", **asked)).outcome == "rejected"
    assert desk.sends == [10]


async def test_nothing_is_sent_past_its_time_and_what_was_sent_is_still_looked_for(desk: Desk) -> None:
    late = await desk.ask("close", valid_s=-1)
    assert (late.outcome, desk.sends) == ("refused", [])
    assert "not after" in late.message
    desk.broker.script = [desk.broker.says(10012)] * 99
    reply = await desk.ask("close", "r-2", valid_s=0.1)
    assert reply.outcome == "rejected"
    assert "timeout" in reply.message
    count = len(desk.sends)
    assert 1 <= count <= SENDS_AT_MOST
    assert (await desk.ask("close", "r-2", valid_s=9)).outcome == "rejected"
    assert len(desk.sends) == count


async def test_what_the_broker_took_and_does_not_show_is_unknown_until_it_does(desk: Desk) -> None:
    desk.broker.script = [desk.broker.says(10009)]
    reply = await desk.once("protect", stop_loss=Decimal("1.07"))
    assert (reply.outcome, reply.retcode, desk.sends) == ("unknown", 10009, [6])
    assert desk.broker.position is not None
    desk.broker.position["sl"] = 1.07
    assert (await desk.ask("protect", stop_loss=Decimal("1.07"))).outcome == "done"
    assert desk.sends == [6]


@pytest.mark.parametrize("kind", ["protect", "modify"])
async def test_what_was_set_later_is_not_taken_back_by_an_older_request(desk: Desk, kind: str) -> None:
    target: dict[str, Any] = {"ticket": 1001} if kind == "modify" else {}
    levels: dict[str, Any] = {"stop_loss": Decimal("1.07"), **target}
    desk.broker.script = [desk.broker.says(10009)]
    assert (await desk.once(kind, "older", **levels)).outcome == "unknown"
    assert (await desk.ask(kind, "newer", **{**levels, "stop_loss": Decimal("1.06")})).outcome == "done"
    reply = await desk.ask(kind, "older", **levels)
    assert reply.outcome == "rejected"
    assert "request newer came after it" in reply.message
    row = desk.broker.order if kind == "modify" else desk.broker.position
    assert row is not None
    assert (row["sl"], len(desk.sends)) == (1.06, 2)


@pytest.mark.parametrize("kind", ["protect", "modify"])
async def test_a_level_that_was_set_and_is_not_seen_yet_is_not_removed_by_keeping_it(tmp_path: Path, kind: str) -> None:
    async with opened(tmp_path, settle_s=600.0) as desk:
        target: dict[str, Any] = {"ticket": 1001} if kind == "modify" else {}
        desk.broker.script = [desk.broker.says(10009)]
        assert (await desk.once(kind, "r-1", stop_loss=Decimal("1.07"), **target)).outcome == "unknown"
        reply = await desk.ask(kind, "r-2", take_profit=Decimal("1.09"), **target)
        assert reply.outcome == "refused"
        assert "request r-1 may have set" in reply.message
        both = {"stop_loss": Decimal("1.06"), "take_profit": Decimal("1.09"), **target}
        assert (await desk.ask(kind, "r-3", **both)).outcome == "done"
        assert [(request["sl"], request["tp"]) for request in desk.broker.requests] == [(1.07, 0.0), (1.06, 1.09)]


async def test_what_was_found_set_later_stands_as_well(desk: Desk) -> None:
    desk.broker.script = [desk.broker.says(10009)]
    assert (await desk.once("protect", "older", stop_loss=Decimal("1.07"))).outcome == "unknown"
    assert (await desk.ask("protect", "newer", stop_loss=Decimal(0))).outcome == "done"
    assert (await desk.ask("protect", "older", stop_loss=Decimal("1.07"))).outcome == "rejected"
    assert desk.sends == [6]


async def test_what_nobody_knows_is_refused_after_a_while(desk: Desk) -> None:
    desk.broker.order, desk.broker.position, desk.broker.deals = None, None, []
    assert (await desk.ask("close")).outcome == "refused"
    assert (await desk.ask("cancel", "r-2", ticket=1001)).outcome == "refused"
    assert (await desk.ask("cancel", "r-3", order_id="no such")).outcome == "refused"
    assert desk.sends == []


async def test_what_could_not_look_in_its_time_is_refused_for_that(desk: Desk) -> None:
    async def hang(*args: Any, **named: Any) -> Any:
        await asyncio.Event().wait()

    desk.parts.worker.call = hang  # type: ignore[method-assign]
    reply = await desk.ask("cancel", ticket=1001, valid_s=0.1)
    assert reply.outcome == "refused"
    assert reply.message.startswith("nothing could be read in time; the account is ")


async def test_everything_is_answered_while_the_broker_hangs(desk: Desk) -> None:
    released = asyncio.Event()
    call = desk.parts.worker.call

    async def hang(*args: Any, **named: Any) -> Any:
        await released.wait()
        return await call(*args, **named)

    desk.parts.worker.call = hang  # type: ignore[method-assign]
    for number in range(3):
        reply = await desk.once("close", f"r-{number}")
        assert (reply.outcome, reply.row) == ("unknown", None)
        assert "Ask again with the same request_id" in reply.message
    released.set()
    assert (await desk.ask("close", "r-0")).outcome == "done"
    assert (await desk.ask("close", "r-2")).outcome == "done"
    assert desk.sends == [1]


async def test_our_orders_cancellation_is_reported_before_and_its_end_is_the_users(desk: Desk) -> None:
    order_id = await desk.an_order_of_ours()

    def end(request: dict[str, Any]) -> Any:
        done = desk.broker.done(request)
        desk.parts.worker.answers["ended"] = lambda _: {"read": True, "orders": [desk.broker.past], "looked": [1001]}
        return done

    desk.broker.script = [end]
    assert (await desk.ask("cancel", order_id=order_id, issued_by="trader")).outcome == "done"

    async def ended() -> bool:
        return len(await desk.said()) == 2

    await eventually(ended)
    assert await desk.said() == [
        facts.CancelRequested(request_id="r-1", issued_by="trader"),
        facts.BrokerCancelled(ticket=1001, reason="user"),
    ]


async def test_a_cancellation_that_was_rejected_is_not_the_reason_of_a_later_end(desk: Desk) -> None:
    await desk.an_order_of_ours()
    desk.broker.script = [desk.broker.says(10029)]
    assert (await desk.ask("cancel", ticket=1001)).outcome == "rejected"
    assert await desk.said() == [
        facts.CancelRequested(request_id="r-1"),
        facts.CancelRejected(request_id="r-1", message="frozen: so"),
    ]
    assert not await desk.parts.journal.write(lambda book: book.cancel_requested(1001))


async def test_new_values_of_our_order_are_reported_as_its_own_fields(desk: Desk) -> None:
    await desk.an_order_of_ours()
    assert (await desk.ask("modify", ticket=1001, price=Decimal("1.07"), stop_loss=Decimal("1.06"))).outcome == "done"
    changed = {"price": "1.07000", "stop_loss": "1.06000"}
    asked = {"price": "1.07", "stop_loss": "1.06"}
    assert await desk.said() == [
        facts.ModifyRequested(request_id="r-1", changes=asked),
        facts.Modified(request_id="r-1", changes=changed),
    ]
    assert (await desk.ask("modify", "r-2", ticket=1001, price=Decimal("1.09"))).outcome == "refused"
    assert isinstance((await desk.said())[-1], facts.ModifyRejected)


async def test_a_foreign_orders_cancellation_is_nobodys_report(desk: Desk) -> None:
    assert (await desk.ask("cancel", ticket=1001)).outcome == "done"
    assert await desk.parts.reports() == []


async def test_what_an_earlier_life_did_not_finish_is_finished_by_comparing(tmp_path: Path) -> None:
    broker = Broker(ScriptedWorker())
    async with opened(tmp_path, broker) as desk:

        def executed_and_killed(request: dict[str, Any]) -> Any:
            broker.carry_out(request)
            return asyncio.CancelledError()

        broker.script = [executed_and_killed]
        reply = asyncio.create_task(desk.once("protect", stop_loss=Decimal("1.07")))
        await eventually(lambda: desk.sends)
        reply.cancel()
        broker.worker.is_alive = False
        for task in desk.parts.tasks[1:]:
            task.cancel()
    broker.worker.is_alive = False
    async with opened(tmp_path, broker) as desk:
        assert (await desk.ask("protect", stop_loss=Decimal("1.07"))).outcome == "done"
        assert len(desk.sends) == 1


async def test_a_partial_close_is_recorded_as_an_order_and_answered_by_its_row(desk: Desk) -> None:
    reply = await desk.ask("close", volume=Decimal("0.1"))
    order_id = order_id_for("tests", ACCOUNT, "close:r-1")
    assert reply.outcome == "recorded"
    assert reply.row is not None
    assert reply.row.order_id == order_id
    await eventually(lambda: desk.sends)
    (request,) = desk.broker.requests
    assert (request["volume"], request["type"], request["position"], request["magic"]) == (
        0.1,
        1,
        77,
        magic_of(order_id),
    )

    async def settled() -> bool:
        row = (await desk.once("close", volume=Decimal("0.1"))).row
        return row is not None and row.state == "doubt"  # the answer had no ticket

    await eventually(settled)
    created = (await desk.parts.reports())[0]
    assert (created.kind, created.order_id) == ("created", order_id)
    assert isinstance(created.body, facts.OrderCreated)
    assert (created.body.signal_id, created.body.executor) == ("close:r-1", "tests")
    assert len(desk.sends) == 1


async def test_while_one_order_closes_a_position_no_other_is_recorded_for_it(desk: Desk) -> None:
    desk.broker.script = [desk.broker.says(10012)]
    await desk.ask("close", volume=Decimal("0.1"))
    await eventually(lambda: desk.sends)
    second = await desk.ask("close", "r-2", volume=Decimal("0.1"))
    assert second.outcome == "refused"
    assert "may still change this position" in second.message
    assert len(desk.sends) == 1


async def test_where_a_symbol_has_one_position_its_close_waits_for_the_deals_of_its_orders(desk: Desk) -> None:
    netting = OWNER | {"margin_mode": 0}
    desk.parts.worker.answers["pulse"] = lambda _: {"terminal": TERMINAL, "account": netting, "tick": tick()}
    await eventually(lambda: not desk.parts.connection.hedging)
    desk.broker.script = [lambda _: desk.broker.worker.sent(result(10009, order=5))]
    other = await desk.parts.submit("s-1", side="sell")
    later = submit_request("s-2", epoch=desk.parts.journal.book.epoch)
    await eventually(lambda: desk.sends)
    assert (await desk.ask("close")).outcome == "refused"  # the sell is accepted, and its deal is not here yet
    overdue = time_text(utc_now() - SOON)
    assert await desk.parts.journal.write(lambda book: in_the_way(book, later, hedging=False)) == other.order_id
    await desk.parts.journal.write(lambda book: book.db.execute("UPDATE rows SET not_after = ?", (overdue,)).rowcount)
    assert await desk.parts.journal.write(lambda book: in_the_way(book, later, hedging=False)) is None
    await desk.parts.journal.write(
        lambda book: book.db.execute("UPDATE rows SET not_after = ?", (time_text(other.not_after),)).rowcount
    )

    def seen(_: dict[str, Any]) -> dict[str, Any]:
        sold = deal(9, 5, magic_of(other.order_id), type=1)
        return {"read": True, "deals": [sold], "more": False, "digest": 2}

    desk.parts.worker.answers["deals"] = seen

    async def filled() -> bool:
        return not await desk.parts.journal.write(lambda book: book.is_live(5))

    await eventually(filled)
    assert (await desk.ask("close", "r-2")).outcome == "recorded"


async def test_a_part_for_a_lost_journal_is_a_doubt_and_a_gone_position_says_to_look(desk: Desk) -> None:
    reply = await desk.ask("close", volume=Decimal("0.1"), epoch="lost")
    assert reply.row is not None
    assert (reply.outcome, reply.row.state, reply.row.reason) == ("recorded", "doubt", "foreign_epoch")
    desk.broker.close(0.3)
    gone = await desk.once("close", "r-2", volume=Decimal("0.1"), epoch="lost")
    assert (gone.outcome, desk.sends) == ("unknown", [])
    assert "look at the position" in gone.message


async def test_an_order_waits_for_no_more_than_the_call_of_an_operation(desk: Desk) -> None:
    desk.broker.script = [desk.broker.says(10012)] * 99
    closing = asyncio.create_task(desk.ask("close", valid_s=1))
    await eventually(lambda: desk.sends)
    await desk.an_order_of_ours()
    assert not closing.done()
    assert (await closing).outcome == "rejected"


async def test_a_close_that_is_denied_its_filling_mode_is_asked_with_the_next_one(desk: Desk) -> None:
    desk.broker.script = [desk.broker.says(10030)] * 2
    assert (await desk.ask("close")).outcome == "done"
    assert [request["type_filling"] for request in desk.broker.requests] == [1, 0, 2]
    assert len({request["magic"] for request in desk.broker.requests}) == 3


async def test_a_close_that_is_denied_all_filling_modes_says_so(desk: Desk) -> None:
    desk.broker.script = [desk.broker.says(10030)] * 3
    reply = await desk.ask("close")
    assert (reply.outcome, reply.retcode, len(desk.sends)) == ("rejected", 10030, 3)


@pytest.mark.parametrize("margin_mode", [0, 2], ids=["netting", "hedging"])
async def test_more_than_one_order_may_close_is_closed_by_several(
    desk: Desk, margin_mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SYMBOL, "volume_max", 1.0)
    owner = OWNER | {"margin_mode": margin_mode}
    desk.parts.worker.answers["pulse"] = lambda _: {"terminal": TERMINAL, "account": owner, "tick": tick()}
    await eventually(lambda: desk.parts.connection.hedging is (margin_mode == 2))
    desk.broker.position = dict(desk.broker.position or {}, volume=2.505)
    desk.broker.deals = [deal(1, 77, 9, 2.505)]
    tickets = iter((501, 502, 503))

    def closed(request: dict[str, Any]) -> Any:
        ticket = next(tickets)
        desk.broker.close(request["volume"])
        return desk.broker.worker.sent(result(10009, order=ticket))

    desk.broker.script = [closed] * 3
    shown = [deal(ticket, ticket, 0, 1.0, type=1, entry=1, reason=3) for ticket in (501, 502, 503)]
    desk.parts.worker.answers["ticket"] = lambda asked: {
        "deals": [row | {"volume": asked["volume"]} for row in shown if row["order"] == asked["ticket"]],
        "order": None,
        "done": False,
    }
    reply = await desk.ask("close")
    assert reply.outcome == "recorded"
    await eventually(lambda: len(desk.broker.requests) == 3)
    assert [request["volume"] for request in desk.broker.requests] == [1.0, 1.0, 0.505]
    names = ("close:r-1", "close:r-1:2", "close:r-1:3")
    ids = [order_id_for("tests", ACCOUNT, name) for name in names]
    assert [request["magic"] for request in desk.broker.requests] == [magic_of(order_id) for order_id in ids]
    assert all(order_id in reply.message for order_id in ids)
    assert (await desk.once("close")).model_dump(exclude={"clock", "row", "ticket"}) == reply.model_dump(
        exclude={"clock", "row", "ticket"}
    )
    assert desk.broker.position is None


async def test_a_position_without_a_quote_is_closed_as_soon_as_there_is_one(desk: Desk) -> None:
    shown = desk.parts.worker.answers["position_now"]
    left = [None, tick() | {"time_msc": 0}]

    def quiet(asked: dict[str, Any]) -> Any:
        found = shown(asked)
        if left:
            found["prepared"] |= {"tick": left.pop(0)}
        return found

    desk.parts.worker.answers["position_now"] = quiet
    assert (await desk.ask("close")).outcome == "done"


async def test_what_may_have_left_the_journal_is_not_carried_out_again(desk: Desk) -> None:
    await desk.parts.journal.write(lambda book: book.forget_until(book.clock() + timedelta(hours=1)))
    reply = await desk.once("close", volume=Decimal("0.1"))
    assert (reply.outcome, desk.sends) == ("unknown", [])
    assert "have forgotten it" in reply.message
