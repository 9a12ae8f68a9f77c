"""From a recorded order to its outcome, on a scripted worker."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from streamapp.domain import facts
from streamapp.domain.facts import make_fact
from streamapp.domain.fold import apply
from streamapp.domain.identifiers import magic_of
from streamapp.domain.orders import OrderState
from streamapp.domain.status import status_of
from streamapp.domain.vocabulary import time_text
from streamapp.messages.report import ConnectionChange
from streamapp.messages.terminal import SubmitRequest
from streamapp.terminal.account import judging
from streamapp.terminal.account import orders as module
from streamapp.terminal.account.deals import filled
from streamapp.terminal.account.orders import JUDGED_FOR_S
from streamapp.terminal.account.pretrade import judge
from streamapp.terminal.account.servertime import ServerTime
from streamapp.terminal.account.worker_client import NotHandedOverError, WorkerLostError
from streamapp.terminal.journal.book import Book
from streamapp.terminal.pipe.structs import TradeDeal
from tests.kit.waiting import eventually
from tests.terminal.conftest import Account, wired
from tests.terminal.scripted import (
    OWNER,
    SYMBOL,
    TERMINAL,
    ScriptedWorker,
    deal,
    result,
    seen,
    struct,
    submit_request,
    tick,
)

MAGIC = magic_of(submit_request(epoch="").order_id)


async def state(account: Account, order_id: str) -> tuple[str, str | None]:
    row = await account.journal.write(lambda book: book.row(order_id))
    assert row is not None
    return row.state, row.reason


async def test_an_accepted_order_is_started_sent_once_and_confirmed_by_its_deals(account: Account) -> None:
    magic = magic_of(submit_request(epoch="").order_id)
    account.worker.answers["ticket"] = lambda _: {"deals": [deal(7, 1001, magic)], "order": None, "done": False}
    order = await account.submit()
    reports = await account.said("started", "returned", "accepted", "deal")
    assert {report.order_id for report in reports} == {order.order_id}
    assert [request["magic"] for request in account.worker.sends] == [magic]
    started, filled = reports[0].body, reports[3].body
    assert isinstance(started, facts.SubmitStarted)
    assert (str(started.bid), str(started.ask), started.currency) == ("1.085", "1.0851", "USD")
    assert isinstance(filled, facts.Filled)
    assert (filled.deal, filled.ticket, str(filled.price), str(filled.commission)) == (7, 1001, "1.0851", "-0.35")
    assert await state(account, order.order_id) == ("result", "accepted")


# -- an order that nobody is before


async def ready(account: Account) -> None:
    await eventually(lambda: account.connection.is_readable)
    await account.reports()  # behind the report of it, which is being written


def order_of(account: Account, name: str = "s-1", **changes: Any) -> SubmitRequest:
    return submit_request(name, epoch=account.journal.book.epoch, **changes)


def held(account: Account) -> asyncio.Event:
    """Let the account's preparing wait for the event that is returned."""
    go, good = asyncio.Event(), account.worker.answers["prepare"]

    async def prepare(arguments: dict[str, Any]) -> Any:
        await go.wait()
        return good(arguments)

    account.worker.answers["prepare"] = prepare
    return go


async def test_intent_and_started_are_one_commit_and_the_answer_follows_it(account: Account) -> None:
    await ready(account)
    before = account.journal.revision
    account.worker.answers["send"] = lambda _: NotHandedOverError("ended before its turn")
    reply = await account.execution.submit(order_of(account))
    assert (reply.state, account.journal.revision) == ("started", before + 1)
    assert reply.row is not None
    assert reply.row.state == "started"


async def test_what_is_refused_when_it_is_judged_is_answered_so(account: Account) -> None:
    await ready(account)
    before = account.journal.revision
    reply = await account.execution.submit(order_of(account, symbol="EURUSD", volume=Decimal("0.001")))
    assert reply.row is not None
    assert (reply.state, reply.row.reason, account.journal.revision) == ("refused", "invalid", before + 1)
    assert await account.kinds() == ["refused"]


@pytest.mark.parametrize("connection", ["connecting", "ready"])
async def test_a_stale_one_a_foreign_one_and_a_conflict_are_answered_without_being_judged(
    account: Account, connection: str
) -> None:
    if connection == "ready":
        await ready(account)
    stale = await account.execution.submit(order_of(account, "late", valid_s=-1))
    foreign = await account.execution.submit(submit_request("foreign", epoch="other"))
    assert (stale.state, foreign.state) == ("refused", "doubt")
    first, other = order_of(account), order_of(account, volume=Decimal(2))
    answers = [account.execution.submit(first), account.execution.submit(other)]
    assert [(await answer).state for answer in answers] == ["recorded", "conflict"]
    await eventually(lambda: account.worker.sends)
    assert [request["volume"] for request in account.worker.sends] == [0.1]


async def test_an_order_that_is_submitted_again_while_it_is_judged_is_sent_once(account: Account) -> None:
    await ready(account)
    go, order = held(account), order_of(account)
    first = account.execution.submit(order)
    await eventually(lambda: "prepare" in [name for name, _ in account.worker.asked])
    again = [account.execution.submit(order) for _ in range(3)]
    assert [(await answer).state for answer in [first, *again]] == ["recorded"] * 4
    go.set()
    await account.said("started", "returned", "accepted")
    assert (await account.execution.submit(order)).state == "result"
    assert len(account.worker.sends) == 1
    assert account.execution.depth == 0


async def test_a_judging_that_takes_long_does_not_hold_up_the_answer(account: Account) -> None:
    await ready(account)
    go = held(account)
    assert (await account.execution.submit(order_of(account))).state == "recorded"
    assert account.worker.sends == []
    go.set()
    await account.said("started", "returned", "accepted")


async def test_an_order_that_comes_while_another_is_judged_stands_behind_it(account: Account) -> None:
    await ready(account)
    go, orders = held(account), [order_of(account, str(number)) for number in range(3)]
    answers = [account.execution.submit(order) for order in orders]
    assert {(await answer).state for answer in answers} == {"recorded"}
    unsent = await account.journal.write(lambda book: book.unsent())
    assert [order.order_id for order in unsent] == [order.order_id for order in orders]
    go.set()
    await eventually(lambda: len(account.worker.sends) == 3)
    assert [request["magic"] for request in account.worker.sends] == [magic_of(order.order_id) for order in orders]


async def test_a_look_that_is_lost_is_made_again_and_the_order_is_sent_once(account: Account) -> None:
    await ready(account)
    good = account.worker.answers["prepare"]

    def lost_once(_: dict[str, Any]) -> Any:
        account.worker.answers["prepare"] = good
        return WorkerLostError("the worker ended", deadline=False)

    account.worker.answers["prepare"] = lost_once
    await account.execution.submit(order_of(account))
    await account.said("started", "returned", "accepted")
    assert len(account.worker.sends) == 1


async def test_a_submit_that_the_journal_can_not_take_fails_alone(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ready(account)
    record = Book.record

    def failing(book: Book, request: SubmitRequest) -> bool:
        if request.parameters.symbol == "GBPUSD":
            raise UnicodeEncodeError("utf-8", "", 0, 1, "no")
        return record(book, request)

    monkeypatch.setattr(Book, "record", failing)
    with pytest.raises(UnicodeEncodeError):
        await account.execution.submit(order_of(account, "bad", symbol="GBPUSD"))
    await account.execution.submit(order_of(account, "good"))
    await account.said("started", "returned", "accepted")


async def test_a_submit_that_the_journal_can_not_take_is_forgotten_although_it_has_its_place_in_the_lane(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ready(account)
    go, record = held(account), Book.record

    def failing(book: Book, request: SubmitRequest) -> bool:
        if request.parameters.symbol == "GBPUSD":
            raise UnicodeEncodeError("utf-8", "", 0, 1, "no")
        return record(book, request)

    monkeypatch.setattr(Book, "record", failing)
    bad = account.execution.submit(order_of(account, "bad", symbol="GBPUSD"))
    good = account.execution.submit(order_of(account, "good"))
    with pytest.raises(UnicodeEncodeError):
        await bad
    assert (await good).state == "recorded"
    go.set()
    await account.said("started", "returned", "accepted")
    assert len(account.worker.sends) == 1


async def test_a_judging_that_fails_as_nobody_foresaw_leaves_no_intent_that_nobody_carries_out(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ready(account)
    good = judge

    def failing(order: SubmitRequest, *args: Any, **named: Any) -> None:
        if order.parameters.symbol == "GBPUSD":
            raise KeyError("a field that nobody foresaw")
        good(order, *args, **named)

    monkeypatch.setattr(judging, "judge", failing)
    bad = order_of(account, "bad", symbol="GBPUSD")
    with pytest.raises(KeyError):
        await account.execution.submit(bad)
    await account.execution.submit(order_of(account, "good"))
    await account.said("started", "returned", "accepted")
    assert await account.journal.write(lambda book: book.row(bad.order_id)) is None


# -- the deals that are there at once


def sent_with(account: Account, *deals: dict[str, Any], **changes: Any) -> None:
    """Let the answer to ``order_send`` bring these deals along."""
    account.worker.answers["send"] = lambda _: {
        **account.worker.sent(result(10009, order=1001)), "deals": list(deals), **changes,
    }  # fmt: skip


async def test_the_result_and_the_deals_that_came_with_it_are_one_commit_and_nothing_more_is_asked(
    account: Account,
) -> None:
    await ready(account)
    sent_with(account, deal(7, 1001, MAGIC))
    before = account.journal.revision
    order = await account.submit()
    reports = await account.said("started", "returned", "accepted", "deal")
    assert account.journal.revision == before + 2
    assert {report.order_id for report in reports} == {order.order_id}
    assert [operation for operation, _ in account.worker.asked if operation == "ticket"] == []


async def test_the_rest_of_an_order_whose_deals_are_not_all_there_is_looked_for(account: Account) -> None:
    await ready(account)
    parts = [deal(7, 1001, MAGIC, 0.04), deal(8, 1001, MAGIC, 0.06)]
    sent_with(account, parts[0])
    account.worker.answers["ticket"] = lambda _: {"deals": parts, "order": None, "done": False}
    await account.submit()
    reports = await account.said("started", "returned", "accepted", "deal", "deal")
    assert [report.body.deal for report in reports[3:] if isinstance(report.body, facts.Filled)] == [7, 8]


async def test_deals_that_were_read_over_a_connection_that_was_lost_are_not_believed(account: Account) -> None:
    await ready(account)

    def send(_: dict[str, Any]) -> Any:
        account.connection._doubt()
        return {**account.worker.sent(result(10009, order=1001)), "deals": [deal(7, 1001, MAGIC)]}

    account.worker.answers["send"] = send
    await account.submit()
    await account.said("started", "returned", "accepted")


async def test_a_deal_that_can_not_be_read_takes_no_result_with_it(account: Account) -> None:
    await ready(account)
    sent_with(account, deal(7, 1001, MAGIC) | {"price": float("nan")})
    await account.submit()
    await account.said("started", "returned", "accepted")


async def test_only_a_market_order_has_its_deals_looked_for_at_once(account: Account) -> None:
    await ready(account)
    account.worker.answers["check"] = lambda _: {"retcode": 0}
    await account.submit("market")
    await account.submit("limit", order_type="limit", price=Decimal("1.05"))
    await eventually(lambda: len(account.worker.sends) == 2)
    looks = [arguments["deals"] for operation, arguments in account.worker.asked if operation == "send"]
    assert looks[1] is None
    assert looks[0] is not None
    assert looks[0].hedging


async def test_orders_are_sent_in_their_order_of_arrival(account: Account) -> None:
    orders = [await account.submit(str(number)) for number in range(10)]
    await eventually(lambda: len(account.worker.sends) == 10)
    assert [request["magic"] for request in account.worker.sends] == [magic_of(order.order_id) for order in orders]


async def test_started_is_durable_before_the_request_is_handed_over(account: Account) -> None:
    seen: list[str] = []

    def send(_: dict[str, Any]) -> Any:
        seen.extend(row for (row,) in account.journal.book.db.execute("SELECT state FROM rows"))
        return account.worker.sent(result(10009, order=1001))

    account.worker.answers["send"] = send
    await account.submit()
    await eventually(lambda: seen)
    assert seen == ["started"]


async def test_a_refusal_of_the_broker_is_rejected_with_its_name(account: Account) -> None:
    account.worker.answers["send"] = lambda _: account.worker.sent(result(10019, comment="No money"))
    await account.submit()
    reports = await account.said("started", "returned", "rejected")
    assert reports[2].body == facts.BrokerRejected(
        attempt=1, retcode=10019, retcode_name="no_money", message="No money"
    )


@pytest.mark.parametrize(("retcode", "ticket"), [(10012, 0), (10031, 5), (10009, 0), (0, 0), (12345, 1)])
async def test_an_answer_that_proves_nothing_is_a_doubt_and_is_not_sent_again(
    account: Account, retcode: int, ticket: int
) -> None:
    account.worker.answers["send"] = lambda _: account.worker.sent(result(retcode, order=ticket))
    order = await account.submit()
    await account.said("started", "returned", "unknown")
    assert await state(account, order.order_id) == ("doubt", "ambiguous_answer")
    assert len(account.worker.sends) == 1


async def test_none_with_a_lost_reply_is_a_doubt_and_none_that_never_left_is_refused(account: Account) -> None:
    account.worker.answers["send"] = lambda _: account.worker.sent(None)
    account.worker.error = (-10002, "IPC recv failed")
    await account.submit("lost")
    await account.said("started", "returned", "unknown")
    account.worker.error = (-8, "Auto-Trading using Python API disabled in Terminal")
    await account.submit("off")
    reports = await account.said("started", "returned", "unknown", "started", "returned", "refused")
    assert isinstance(reports[5].body, facts.SubmitRefused)
    assert reports[5].body.reason == "not_connected"


@pytest.mark.parametrize(("deadline", "why"), [(True, "deadline"), (False, "worker_lost")])
async def test_a_worker_that_is_lost_with_the_request_leaves_a_doubt_and_is_started_again(
    account: Account, deadline: bool, why: str
) -> None:
    account.worker.answers["send"] = lambda _: WorkerLostError("gone", deadline=deadline)
    order = await account.submit()
    await account.said("started", "unknown")
    assert await state(account, order.order_id) == ("doubt", why)
    await eventually(lambda: account.worker.starts == 2 and account.connection.health.connection == "ready")
    assert len(account.worker.sends) == 1


async def test_a_request_that_was_never_handed_over_is_refused(account: Account) -> None:
    account.worker.answers["send"] = lambda _: NotHandedOverError("ended before its turn")
    order = await account.submit()
    await account.said("started", "refused")
    assert await state(account, order.order_id) == ("refused", "not_connected")


async def test_the_worker_refuses_what_is_past_its_time_at_the_last_moment(account: Account) -> None:
    account.worker.answers["send"] = lambda _: {"sent": False}
    order = await account.submit()
    await account.said("started", "refused")
    assert await state(account, order.order_id) == ("refused", "stale")


async def test_an_order_is_not_sent_over_a_connection_that_was_lost_while_its_start_was_recorded(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Book.start

    def slow(book: Book, order_id: str, body: facts.SubmitStarted) -> bool:
        account.connection._doubt()  # another account's login was seen, or a standstill noticed
        return start(book, order_id, body)

    monkeypatch.setattr(Book, "start", slow)
    order = await account.submit()
    await account.said("started", "refused")
    assert await state(account, order.order_id) == ("refused", "not_connected")
    assert account.worker.sends == []


async def test_an_order_that_was_held_up_after_it_was_judged_is_not_sent_by_then(account: Account) -> None:
    order = await account.submit(valid_s=3600)
    await account.said("started", "returned", "accepted")
    (handed,) = [arguments for operation, arguments in account.worker.asked if operation == "send"]
    left_s = handed["not_after"] - datetime.now(UTC).timestamp()
    assert left_s <= JUDGED_FOR_S
    assert handed["not_after"] < order.not_after.timestamp()


async def test_a_market_that_can_not_be_written_down_refuses_the_order_and_ends_nothing(account: Account) -> None:
    good = account.worker.answers["prepare"]
    account.worker.answers["prepare"] = lambda asked: {**good(asked), "rate": float("nan")}
    order = await account.submit()
    await account.said("refused")
    assert await state(account, order.order_id) == ("refused", "invalid")
    account.worker.answers["prepare"] = good
    await account.submit("after")
    await eventually(lambda: account.worker.sends)


async def test_an_answer_with_the_ticket_of_an_order_before_is_a_doubt_for_a_fresh_worker(account: Account) -> None:
    account.worker.answers["send"] = lambda _: account.worker.sent(result(10009, order=1001))
    await account.submit("first")
    await account.said("started", "returned", "accepted")
    second = await account.submit("second")
    await eventually(lambda: account.execution.counts.get("doubt"))
    assert (await state(account, second.order_id))[0] == "doubt"
    assert [report.kind for report in await account.reports() if report.order_id == second.order_id] == [
        "started",
        "returned",
        "unknown",
    ]
    await eventually(lambda: account.worker.starts == 2 and account.connection.is_believed)
    assert len(account.worker.sends) == 2


async def test_an_order_waits_for_a_connection_that_is_being_made(account: Account) -> None:
    released = asyncio.Event()
    account.worker.answers["initialize"] = lambda _: (
        {"done": True} if released.is_set() else NotHandedOverError("starting")
    )
    order = await account.submit()
    assert (await state(account, order.order_id))[0] == "recorded"
    released.set()
    await eventually(lambda: account.worker.sends)


async def test_an_order_whose_time_runs_out_while_connecting_is_stale(account: Account) -> None:
    await eventually(lambda: account.connection.health.connection == "ready")
    account.worker.answers["pulse"] = lambda _: {"terminal": TERMINAL, "account": OWNER, "tick": tick()}
    account.worker.answers["prepare"] = lambda _: NotHandedOverError("away")
    account.worker.answers["initialize"] = lambda _: NotHandedOverError("starting")
    order = await account.submit(valid_s=0.3)

    async def refused() -> bool:
        return (await state(account, order.order_id))[0] == "refused"

    await eventually(refused)
    assert account.worker.sends == []


async def test_an_account_that_may_not_trade_refuses_at_once(account: Account) -> None:
    off = TERMINAL | {"trade_allowed": False}
    account.worker.answers["pulse"] = lambda _: {"terminal": off, "account": OWNER, "tick": tick()}
    await eventually(lambda: account.connection.health.connection == "no_algo_trading")
    await account.submit()
    (report,) = await account.said("refused")
    assert isinstance(report.body, facts.SubmitRefused)
    assert report.body.reason == "not_connected"
    assert "Algo Trading" in report.body.message


async def test_a_symbol_without_flags_is_probed_by_order_check_and_never_by_sending(account: Account) -> None:
    symbol = SYMBOL | {"filling_mode": 0}
    account.worker.answers["prepare"] = lambda _: {
        "terminal": TERMINAL,
        "account": OWNER,
        "symbol": symbol,
        "tick": tick(),
        "rate": 1.0,
    }
    account.worker.answers["check"] = lambda asked: {"retcode": 0 if asked["request"]["type_filling"] == 1 else 10030}
    await account.submit()
    await eventually(lambda: account.worker.sends)
    assert [request["type_filling"] for request in account.worker.sends] == [1]


async def test_a_deal_that_comes_late_is_found_by_the_watch(account: Account) -> None:
    order = await account.submit()
    await account.said("started", "returned", "accepted")
    late = [deal(7, 1001, magic_of(order.order_id)), deal(8, 555, 0, reason=0)]
    account.worker.answers["deals"] = lambda _: {"read": True, "deals": late, "more": False, "digest": 2}
    reports = await account.said("started", "returned", "accepted", "deal", "deal")
    assert [report.order_id for report in reports[3:]] == [order.order_id, None]


@pytest.mark.parametrize(
    ("order", "kind", "reason"),
    [
        ({"state": 4, "volume_current": 0.06, "type_filling": 1}, "cancelled", "ioc_remainder"),
        ({"state": 2, "volume_current": 0.06, "type_filling": 1}, "cancelled", "ioc_remainder"),
        ({"state": 3, "volume_current": 0.06, "type_filling": 1}, "cancelled", "ioc_remainder"),
        ({"type": 2, "state": 3, "volume_current": 0.06, "type_filling": 1}, "cancelled", "ioc_remainder"),
        ({"type": 2, "state": 2, "volume_current": 0.1, "type_filling": 1}, "cancelled", "broker"),
        ({"state": 2, "volume_current": 0.1, "type_filling": 0}, "cancelled", "fok"),
        ({"state": 2, "volume_current": 0.1, "type_filling": 2}, "cancelled", "broker"),
        ({"state": 6, "volume_current": 0.1, "type_filling": 2}, "expired", None),
        ({"state": 5, "volume_current": 0.1, "type_filling": 2}, "rejected", None),
    ],
)
async def test_the_end_of_a_ticket_is_told_from_history(
    account: Account, order: dict[str, Any], kind: str, reason: str | None
) -> None:
    history = {"ticket": 1001, "type": 0, "volume_initial": 0.1, **order}
    account.worker.answers["send"] = lambda _: account.worker.sent(result(10010, order=1001))
    account.worker.answers["ticket"] = lambda _: {"deals": [], "order": history, "done": True}
    await account.submit()
    reports = await account.said("started", "returned", "accepted", kind)
    assert getattr(reports[3].body, "reason", None) == reason


async def test_an_order_done_in_history_is_waited_for_until_its_deals_are_there(account: Account) -> None:
    history = {"ticket": 1001, "type": 0, "state": 4, "volume_initial": 0.1, "volume_current": 0.0, "type_filling": 1}
    answers = [{"deals": [], "order": history, "done": True}] * 3
    magic = magic_of(submit_request(epoch="").order_id)
    found = {"deals": [deal(7, 1001, magic)], "order": history, "done": True}
    account.worker.answers["ticket"] = lambda _: answers.pop() if answers else found
    await account.submit()
    await account.said("started", "returned", "accepted", "deal")


async def test_after_an_ipc_error_nothing_is_asked_before_initialize(account: Account) -> None:
    await eventually(lambda: account.connection.health.connection == "ready")
    asked = len(account.worker.asked)
    account.worker.broken = (-10000, "IPC call failed")
    await eventually(lambda: any(operation == "initialize" for operation, _ in account.worker.asked[asked + 1 :]))
    after = [operation for operation, _ in account.worker.asked[asked:]]
    broke_at = next(at for at, operation in enumerate(after) if operation != "initialize")
    assert after.index("initialize") > broke_at


async def test_the_watermark_moves_after_two_equal_reads_of_everything(account: Account) -> None:
    wide: list[dict[str, Any]] = []

    def read(asked: dict[str, Any]) -> dict[str, Any]:
        wide.extend([asked] if asked["wide"] else [])
        return {"read": True, "deals": [], "more": False, "digest": min(len(wide), 3)}

    account.worker.answers["deals"] = read
    await eventually(lambda: wide)
    long_ago = account.watch._watermark = datetime(2026, 1, 1, tzinfo=UTC)
    await eventually(lambda: len(wide) == 3)
    assert account.watch._watermark == long_ago
    await eventually(lambda: account.watch._watermark != long_ago)
    assert wide[-1]["settled_until"] == wide[-2]["settled_until"]
    kept = await account.journal.write(lambda book: book.meta("history_watermark"))
    assert kept == time_text(account.watch._watermark)


async def test_no_password_stands_in_the_broker_log_or_the_journal(account: Account) -> None:
    await account.submit()
    await account.said("started", "returned", "accepted")
    assert account.worker.asked[0][1]["password"] == "secret"
    assert b"secret" not in account.journal.path.read_bytes()


# -- new attempts


def answers(account: Account, *retcodes: int) -> None:
    """Let the sends be answered so, and the last one for ever."""
    left = [result(retcode, order=1001 if retcode == 10009 else 0) for retcode in retcodes]
    account.worker.answers["send"] = lambda _: account.worker.sent(left.pop(0) if len(left) > 1 else left[0])


AGAIN = ("returned", "started", "rejected")


@pytest.mark.parametrize("retcode", [10004, 10020, 10024, 10030])
async def test_a_proof_that_nothing_was_executed_begins_a_new_attempt_of_which_all_is_told(
    account: Account, retcode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AGAIN_AFTER_S", {})
    answers(account, retcode, 10009)
    order = await account.submit()
    reports = await account.said("started", *AGAIN, "returned", "accepted")
    assert [getattr(report.body, "attempt", None) for report in reports] == [1, 1, 2, 1, 2, None]
    assert await state(account, order.order_id) == ("result", "accepted")
    assert {request["magic"] for request in account.worker.sends} == {magic_of(order.order_id)}
    modes = [request["type_filling"] for request in account.worker.sends]
    assert modes == ([1, 0] if retcode == 10030 else [1, 1])


async def test_an_order_is_never_over_between_two_attempts(account: Account) -> None:
    answers(account, 10004, 10004, 10004)
    order = await account.submit()
    reports = await account.said("started", *AGAIN, *AGAIN, "returned", "rejected")
    created = facts.OrderCreated(
        parameters=order.parameters, parameters_hash=order.hash, signal_id="s-1", signal_at=datetime.now(UTC),
        not_after=order.not_after, executor="tests",
    )  # fmt: skip
    folded, statuses = OrderState(), []
    for body in (created, *(report.body for report in reports)):
        assert not isinstance(body, ConnectionChange)
        folded = apply(folded, make_fact("a", order.order_id, body, at=datetime.now(UTC)))
        statuses.append(status_of(folded))
    assert statuses == ["pending", *["submitted"] * 8, "rejected"]
    assert len(account.worker.sends) == 3
    assert await state(account, order.order_id) == ("result", "requote")


@pytest.mark.parametrize(
    ("retcode", "fields"),
    [
        (10021, {}),  # seen of orders that were executed
        (10004, {"order": 1001}),  # it has come further than it says
        (10006, {}),
        (10018, {}),
        (10019, {}),
    ],
)
async def test_what_proves_less_is_rejected_and_not_sent_again(
    account: Account, retcode: int, fields: dict[str, Any]
) -> None:
    account.worker.answers["send"] = lambda _: account.worker.sent(result(retcode, **fields))
    await account.submit()
    await account.said("started", "returned", "rejected")
    assert len(account.worker.sends) == 1


async def test_an_order_of_which_anything_is_to_be_seen_is_not_sent_again(account: Account) -> None:
    answers(account, 10004)
    account.worker.answers["search"] = lambda _: seen(positions=[{"ticket": 1001}])
    await account.submit()
    reports = await account.said("started", "returned", "rejected")
    assert "does not show that there is nothing of it" in reports[2].body.message  # type: ignore[union-attr]
    assert len(account.worker.sends) == 1


async def test_a_deal_that_comes_between_two_attempts_ends_the_trying(account: Account) -> None:
    answers(account, 10004)
    magic = magic_of(submit_request(epoch="").order_id)

    async def adopted() -> bool:
        return (await account.kinds())[-1:] == ["deal"]

    good = account.worker.answers["prepare"]
    looks = []

    def prepare(asked: dict[str, Any]) -> Any:
        looks.append(asked)
        if len(looks) > 1:
            account.journal.write(
                lambda book: book.record_deal(filled(struct(TradeDeal, deal(7, 1001, magic)), "USD", ServerTime(0)))
            )
        return good(asked)

    account.worker.answers["prepare"] = prepare
    order = await account.submit()
    await eventually(adopted)
    assert len(account.worker.sends) == 1
    assert await state(account, order.order_id) == ("result", "accepted")


async def test_a_new_attempt_is_judged_anew_and_never_begins_after_not_after(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.5)
    answers(account, 10004)
    await account.submit(valid_s=0.4)
    reports = await account.said("started", "returned", "rejected")
    assert "not tried again: not after" in reports[2].body.message  # type: ignore[union-attr]
    assert len(account.worker.sends) == 1


async def test_a_life_that_ended_in_the_second_attempt_leaves_a_doubt_of_the_second_attempt(tmp_path: Path) -> None:
    worker, left = ScriptedWorker(), [result(10004)]
    worker.answers["send"] = lambda _: worker.sent(left.pop()) if left else WorkerLostError("gone", deadline=False)
    async with wired(tmp_path, worker) as parts:
        order = await parts.submit()
        doubted = await parts.said("started", *AGAIN, "unknown")
        assert getattr(doubted[-1].body, "attempt", None) == 2
        (doubt,) = await parts.journal.write(lambda book: book.sought([order.order_id]))
        assert doubt.order.attempt == 2


# -- what comes in a moment


def market(account: Account, *ticks: dict[str, Any] | None, **symbol: Any) -> list[int]:
    """Let the looks show these ticks, and the last one for ever; return the numbers of the looks."""
    good, looks = account.worker.answers["prepare"], list[int]()

    def prepare(asked: dict[str, Any]) -> Any:
        looks.append(len(looks))
        return good(asked) | {"tick": ticks[min(len(looks), len(ticks)) - 1], "symbol": SYMBOL | symbol}

    account.worker.answers["prepare"] = prepare
    return looks


@pytest.mark.parametrize("first", [None, tick() | {"time_msc": 0}], ids=["no tick", "a tick of no time"])
async def test_the_first_order_of_a_hidden_symbol_waits_for_its_first_tick(
    account: Account, first: dict[str, Any] | None
) -> None:
    market(account, first, first, tick())
    await account.submit()
    await account.said("started", "returned", "accepted")


async def test_a_quote_that_moves_while_an_order_waits_is_fresh_though_the_servers_clock_went_back(
    account: Account,
) -> None:
    looks = market(account, tick(3600), tick(3600) | {"time_msc": 1}, tick(3599))
    await account.submit()
    await account.said("started", "returned", "accepted")
    assert len(looks) >= 2


async def test_an_order_is_looked_at_again_though_the_process_stood_still_for_as_long_as_it_may_wait(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "QUOTE_WITHIN_S", 0.0)
    looks = market(account, tick(3600), tick(3600) | {"time_msc": 1}, tick(3599))
    await account.submit()
    await account.said("started", "returned", "accepted")
    assert len(looks) == 3


async def test_an_order_that_waits_for_a_quote_holds_no_other_one_up(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "QUOTE_WITHIN_S", 0.3)
    good = account.worker.answers["prepare"]
    account.worker.answers["prepare"] = lambda asked: (
        good(asked) | ({"tick": None} if asked["symbol"] == "HIDDEN" else {})
    )
    hidden = await account.submit("hidden", symbol="HIDDEN")
    other = await account.submit("other")
    await eventually(lambda: account.worker.sends)
    assert (await state(account, hidden.order_id))[0] == "recorded"
    assert account.worker.sends[0]["magic"] == magic_of(other.order_id)

    async def refused() -> bool:
        return (await state(account, hidden.order_id)) == ("refused", "guard")

    await eventually(refused)
    assert account.execution._judge._asides == {}


async def test_an_order_that_adds_to_a_netting_position_says_its_levels_again(account: Account) -> None:
    good = account.worker.answers["prepare"]
    held = {"type": 0, "volume": 0.1, "sl": 1.07, "tp": 1.1}
    account.worker.answers["prepare"] = lambda asked: good(asked) | {"netted": held}
    await account.submit()
    await eventually(lambda: account.worker.sends)
    assert (account.worker.sends[0]["sl"], account.worker.sends[0]["tp"]) == (1.07, 1.1)


CALL_FAILED = "positions_get: Terminal: Call failed (-1)"
UNREAD: dict[str, Any] = {"terminal": None, "account": None, "symbol": None, "tick": None, "unread": CALL_FAILED}


def shown_from(account: Account, look: int, late: dict[str, Any], before: dict[str, Any]) -> list[int]:
    """Let the looks show ``before`` until the one of a number, and ``late`` then; return their numbers."""
    good, looks = account.worker.answers["prepare"], list[int]()

    def prepare(asked: dict[str, Any]) -> Any:
        looks.append(len(looks))
        return good(asked) | (late if len(looks) >= look else before)

    account.worker.answers["prepare"] = prepare
    return looks


async def closing(account: Account) -> SubmitRequest:
    """Submit an order that closes a sell of 0.1 lots."""
    order = order_of(account).model_copy(update={"position_id": 77})
    await account.execution.submit(order)
    return order


SOLD = {"ticket": 1, "type": 1, "volume": 0.1, "time_msc": 1, "entry": 0}
HELD = {"ticket": 78, "identifier": 77, "symbol": "EURUSD", "type": 1, "volume": 0.1, "time_update_msc": 1}


@pytest.mark.parametrize(
    "before", [{"deals": [SOLD]}, {"deals": []}, UNREAD], ids=["a table behind", "both behind", "a read that fails"]
)
async def test_an_order_that_closes_is_looked_at_again_until_its_position_is_shown(
    account: Account, before: dict[str, Any]
) -> None:
    await ready(account)
    looks = shown_from(account, 3, {"position": HELD, "deals": [SOLD]}, before)
    await closing(account)
    await account.said("started", "returned", "accepted")
    assert len(looks) == 3
    assert account.worker.sends[0]["position"] == 78


@pytest.mark.parametrize(
    ("before", "reason", "said"),
    [
        ({"deals": [SOLD]}, "guard", "expected position 77 shown, as its deals leave it open, it is not"),
        (UNREAD, "not_connected", f"expected an answer of the terminal, a read failed: {CALL_FAILED}"),
    ],
)
async def test_an_order_that_closes_is_refused_with_the_true_cause_once_it_has_waited(
    account: Account, monkeypatch: pytest.MonkeyPatch, before: dict[str, Any], reason: str, said: str
) -> None:
    monkeypatch.setattr(judging, "QUOTE_WITHIN_S", 0.2)
    await ready(account)
    looks = shown_from(account, 1 << 40, {}, before)
    await closing(account)
    (refused,) = await account.said("refused")
    assert isinstance(refused.body, facts.SubmitRefused)
    assert (refused.body.reason, refused.body.message) == (reason, said)
    assert len(looks) > 2
    assert account.worker.sends == []


async def test_an_order_waits_for_a_read_that_fails_and_holds_no_other_one_up(account: Account) -> None:
    await ready(account)
    good = account.worker.answers["prepare"]
    account.worker.answers["prepare"] = lambda asked: (
        good(asked) | (UNREAD if asked["symbol"] == "GBPUSD" and not account.worker.sends else {})
    )
    await account.submit("late", symbol="GBPUSD")
    await account.submit("other")
    await eventually(lambda: len(account.worker.sends) == 2)
    assert [request["symbol"] for request in account.worker.sends] == ["EURUSD", "GBPUSD"]
