"""What becomes of a doubt, on a scripted worker: adopted, absent, or left to a person; and what others do meanwhile."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from streamapp.domain import facts
from streamapp.domain.identifiers import magic_of, tag_of
from streamapp.terminal.account.resolver import WHOLE_DAY_S
from streamapp.terminal.account.worker_client import NotHandedOverError, WorkerLostError
from tests.kit.waiting import eventually
from tests.terminal.conftest import Account
from tests.terminal.doubts.doubtful import (
    DOUBT,
    ORDER,
    WINDOW_S,
    Tables,
    comes_to,
    of_order,
    order_row,
    position_row,
    searches,
    shows,
    state,
)
from tests.terminal.scripted import OWNER, TERMINAL, deal, seen, submit_request, tick


@pytest.mark.parametrize(
    "tables",
    [
        {"orders": [order_row(7, ORDER)]},
        {"history_orders": [order_row(7, ORDER)]},
        {"positions": [position_row(7, ORDER)]},
        {"history_deals": [deal(70, 7, magic_of(ORDER.order_id), time=0)]},
        {"history_orders": [order_row(7, ORDER, comment="")]},
        {"history_orders": [order_row(7, ORDER, magic=0)]},
        {"history_orders": [order_row(7, ORDER, magic=0, comment=tag_of(ORDER.order_id)[:10])]},
        {"history_orders": [order_row(7, ORDER, magic=0, comment=f"x {tag_of(ORDER.order_id)} partner")]},
        {"history_orders": [order_row(7, ORDER, magic=5)]},
    ],
    ids=["orders", "history", "position", "deal", "magic", "tag", "cut tag", "tag within", "tag beside a magic"],
)
async def test_a_doubt_is_adopted_from_any_table_by_magic_or_tag(account: Account, tables: Tables) -> None:
    shows(account, lambda: tables)
    order = await account.submit()
    deals = ["deal"] if "history_deals" in tables else []
    reports = await comes_to(account, order, *DOUBT, "accepted", *deals)
    assert reports[3].body == facts.BrokerAccepted(ticket=7)
    assert await state(account, order) == ("result", "accepted")
    assert len(account.worker.sends) == 1


@pytest.mark.parametrize(
    "row",
    [
        order_row(7, ORDER, type=1),
        order_row(7, ORDER, reason=1),
        order_row(7, ORDER, magic=0, comment=tag_of(ORDER.order_id)[:7], symbol="GBPUSD"),
        order_row(7, ORDER, magic=5, comment=tag_of(ORDER.order_id)[:10], symbol="GBPUSD"),
    ],
    ids=["other side", "by hand", "seven letters", "cut tag beside a magic"],
)
async def test_what_another_did_is_not_adopted(account: Account, row: dict[str, Any]) -> None:
    shows(account, lambda: {"history_orders": [row]})
    order = await account.submit()
    await comes_to(account, order, *DOUBT, "absent")


async def test_absence_is_proved_by_a_whole_window_of_one_connection(account: Account) -> None:
    order = await account.submit()
    reports = await comes_to(account, order, *DOUBT, "absent")
    assert isinstance(reports[3].body, facts.ProvenAbsent)
    evidence = reports[3].body.evidence
    began, ended = (datetime.fromisoformat(evidence[name]) for name in ("window_from", "window_until"))
    assert (ended - began).total_seconds() >= WINDOW_S
    assert began >= reports[2].at
    assert evidence["polls"] >= 2
    assert evidence["rows_looked_at"] == {"orders": 0, "positions": 0, "history_orders": 0, "history_deals": 0}
    assert evidence["generation"] == account.connection.generation
    assert await state(account, order) == ("absent", "absent")


async def test_a_clock_that_is_set_back_hides_no_order(account: Account) -> None:
    order = await account.submit()
    await comes_to(account, order, *DOUBT)
    account.resolver._clock = lambda: datetime.now(UTC) - timedelta(days=10)
    looks = len(searches(account))
    await eventually(lambda: len(searches(account)) > looks + 1)
    assert searches(account)[-1]["until"] > tick()["time"]


async def test_the_worker_that_gave_a_doubtful_answer_is_not_asked_again(account: Account) -> None:
    starts: list[int] = []

    def search(_: dict[str, Any]) -> Any:
        starts.append(account.worker.starts)
        return seen()

    account.worker.answers["search"] = search
    first, second = await account.submit("1"), await account.submit("2")
    for order in (first, second):
        await comes_to(account, order, *DOUBT, "absent")
    sent_by = [operation for operation, _ in account.worker.asked if operation in {"send", "initialize"}]
    assert sent_by[:4] == ["initialize", "send", "initialize", "send"]
    assert starts[-1] == 3


async def test_an_order_that_shows_in_the_last_look_is_adopted(account: Account) -> None:
    order = submit_request(epoch="")
    began = asyncio.get_running_loop().time

    def tables() -> Tables:
        window = account.resolver._settling.windows.get(order.order_id)
        due = window is not None and window.began_s is not None and began() - window.began_s >= WINDOW_S
        return {"history_orders": [order_row(7, order)]} if due else {}

    shows(account, tables)
    await account.submit()
    await comes_to(account, order, *DOUBT, "accepted")


@pytest.mark.parametrize(
    "broken",
    [WorkerLostError("gone", deadline=True), NotHandedOverError("away"), {**seen(), "read": False}],
    ids=["worker lost", "not handed over", "a table without an answer"],
)
async def test_an_interruption_begins_the_window_anew(account: Account, broken: Any) -> None:
    broke_at: list[datetime] = []

    def search(_: dict[str, Any]) -> Any:
        windows = account.resolver._settling.windows.values()
        if not broke_at and any(window.looks for window in windows):
            broke_at.append(datetime.now().astimezone())
            return broken
        return seen()

    account.worker.answers["search"] = search
    order = await account.submit()
    reports = await comes_to(account, order, *DOUBT, "absent")
    assert isinstance(reports[3].body, facts.ProvenAbsent)
    assert datetime.fromisoformat(reports[3].body.evidence["window_from"]) > broke_at[0]


async def test_histories_that_differ_prove_nothing(account: Account) -> None:
    digests = iter(range(1_000_000))
    account.worker.answers["search"] = lambda _: seen(next(digests) if len(searches(account)) < 40 else 0)
    order = await account.submit()
    await eventually(lambda: len(searches(account)) >= 5)
    if len(searches(account)) < 40:
        assert await state(account, order) == ("doubt", "ambiguous_answer")
    await comes_to(account, order, *DOUBT, "absent")
    assert len(searches(account)) > 40


@pytest.mark.parametrize(("final", "kind"), [(5, "rejected"), (2, "cancelled"), (6, "expired")])
async def test_an_order_that_ended_without_volume_is_adopted_and_ended(account: Account, final: int, kind: str) -> None:
    order = submit_request(epoch="")
    row = order_row(7, order, state=final, volume_current=0.1)
    shows(account, lambda: {"history_orders": [row]})
    account.worker.answers["ticket"] = lambda _: {"deals": [], "order": row, "done": True}
    await account.submit()
    await comes_to(account, order, *DOUBT, "accepted", kind)


async def test_an_order_partly_filled_is_adopted_with_its_deals(account: Account) -> None:
    order = submit_request(epoch="")
    magic = magic_of(order.order_id)
    deals = [deal(70, 7, magic, 0.03, time=0), deal(71, 7, magic, 0.02, time=0)]
    shows(account, lambda: {"orders": [order_row(7, order, volume_current=0.05)], "history_deals": deals})
    await account.submit()
    reports = await comes_to(account, order, *DOUBT, "accepted", "deal", "deal")
    assert sum(report.body.volume for report in reports if isinstance(report.body, facts.Filled)) == Decimal("0.05")


async def test_an_order_whose_position_another_terminal_closed_meanwhile_is_adopted(account: Account) -> None:
    order = submit_request(epoch="")
    opened, closed = deal(70, 7, magic_of(order.order_id), time=0), deal(71, 9, 0, time=0, type=1, entry=1, reason=1)
    shows(account, lambda: {"history_orders": [order_row(7, order)], "history_deals": [opened, closed]})
    await account.submit()
    reports = await comes_to(account, order, *DOUBT, "accepted", "deal")
    assert isinstance(reports[4].body, facts.Filled)
    assert reports[4].body.deal == 70


async def test_a_closing_order_in_doubt_is_adopted_as_the_order_that_it_is(account: Account) -> None:
    closing = submit_request("close", epoch="another", side="sell").model_copy(update={"position_id": 5})
    magic = magic_of(closing.order_id)
    rows = [deal(70, 7, magic, time=0, type=1, entry=1, position_id=5)]
    shows(account, lambda: {"history_deals": rows, "positions": [position_row(5, ORDER)]})
    await account.journal.write(lambda book: book.submit(closing))
    await comes_to(account, closing, "unknown", "accepted", "deal")


async def test_an_absent_order_that_appears_is_adopted_and_alarmed(
    account: Account, caplog: pytest.LogCaptureFixture
) -> None:
    order = await account.submit()
    await comes_to(account, order, *DOUBT, "absent")
    shows(account, lambda: {"orders": [order_row(7, order)]})
    await comes_to(account, order, *DOUBT, "absent", "accepted")
    assert "appeared after" in caplog.text
    counts = await account.journal.write(lambda book: book.counts())
    assert (counts["absent"], counts["late_appearances"]) == (1, 1)
    assert await state(account, order) == ("result", "accepted")


async def test_a_deal_of_an_absent_order_is_adopted_by_the_watch(account: Account) -> None:
    order = await account.submit()
    await comes_to(account, order, *DOUBT, "absent")
    rows = [deal(70, 7, magic_of(order.order_id))]
    account.worker.answers["deals"] = lambda _: {"read": True, "deals": rows, "more": False, "digest": 2}
    await comes_to(account, order, *DOUBT, "absent", "accepted", "deal")


async def test_the_watch_adopts_while_the_resolver_looks_and_it_is_said_once(account: Account) -> None:
    order = submit_request(epoch="")
    executed = [deal(70, 7, magic_of(order.order_id), time=0)]

    def rows() -> list[dict[str, Any]]:
        return executed if account.worker.sends else []

    account.worker.answers["deals"] = lambda _: {"read": True, "deals": rows(), "more": False, "digest": 2}
    shows(account, lambda: {"history_deals": rows()})
    await account.submit()
    await comes_to(account, order, *DOUBT, "accepted", "deal")


async def test_an_order_that_is_at_the_broker_already_is_not_sent(account: Account) -> None:
    order = submit_request(epoch=account.journal.book.epoch)
    await account.journal.write(lambda book: book.submit(order))
    await account.journal.write(lambda book: book.accept(order.order_id, 7))
    account.execution.add(order)
    after = await account.submit("after")
    await comes_to(account, after, *DOUBT)
    assert await state(account, order) == ("result", "accepted")
    assert [request["magic"] for request in account.worker.sends] == [magic_of(after.order_id)]


@pytest.mark.parametrize("first", ["absent", "accepted"])
async def test_absence_and_acceptance_in_one_transaction_leave_the_order_accepted(account: Account, first: str) -> None:
    order = submit_request(epoch="another")
    absent = facts.ProvenAbsent(attempt=1)
    await account.journal.write(lambda book: book.submit(order))
    actions = {
        "absent": lambda: account.journal.write(lambda book: book.absent(order.order_id, absent)),
        "accepted": lambda: account.journal.write(lambda book: book.accept(order.order_id, 7)),
    }
    await asyncio.gather(*(actions[name]() for name in sorted(actions, key=lambda name: name != first)))
    assert await state(account, order) == ("result", "accepted")
    kinds = [report.kind for report in await of_order(account, order)]
    assert kinds == (["unknown", "absent", "accepted"] if first == "absent" else ["unknown", "accepted"])


async def test_a_submit_is_answered_by_the_row_of_the_doubt_and_of_the_absent_order(account: Account) -> None:
    order = await account.submit()
    await comes_to(account, order, *DOUBT)
    doubt = await account.journal.write(lambda book: book.submit(order))
    await comes_to(account, order, *DOUBT, "absent")
    absent = await account.journal.write(lambda book: book.submit(order))
    assert (doubt.state, absent.state) == ("doubt", "absent")
    assert len(account.worker.sends) == 1


async def test_two_doubts_are_looked_for_at_once_and_each_has_its_own_end(account: Account) -> None:
    there, gone = submit_request("there", epoch=""), submit_request("gone", epoch="")
    both: list[int] = []

    def search(asked: dict[str, Any]) -> Any:
        both.append(len(asked["orders"]))
        return seen(history_orders=[order_row(7, there)] if both.count(2) > 1 else [])

    account.worker.answers["search"] = search
    await account.submit("there")
    await account.submit("gone")
    await comes_to(account, there, *DOUBT, "accepted")
    await comes_to(account, gone, *DOUBT, "absent")
    assert 2 in both


async def test_a_claim_for_a_lost_journal_is_looked_for_in_all_of_history(account: Account) -> None:
    order = submit_request(epoch="lost")
    long_ago = deal(70, 7, magic_of(order.order_id), time=0, time_msc=86_400_000)
    shows(account, lambda: {"history_deals": [long_ago]})
    await account.journal.write(lambda book: book.submit(order))
    await comes_to(account, order, "unknown", "accepted", "deal")
    assert searches(account)[0]["since"] == WHOLE_DAY_S


async def test_a_nameless_order_of_any_age_may_be_the_one_of_a_lost_journal(account: Account) -> None:
    order = submit_request(epoch="lost")
    await account.journal.write(lambda book: book.submit(order))
    await comes_to(account, order, "unknown", "absent")
    assert searches(account)[0]["orders"][0].alike_from == 0


async def test_doubts_are_resolved_while_the_account_may_not_trade(account: Account) -> None:
    off = TERMINAL | {"trade_allowed": False}
    order = await account.submit()
    await comes_to(account, order, *DOUBT)
    account.worker.answers["pulse"] = lambda _: {"terminal": off, "account": OWNER, "tick": tick()}
    await eventually(lambda: account.connection.health.connection == "no_algo_trading")
    await comes_to(account, order, *DOUBT, "absent")


async def test_nothing_is_looked_for_before_the_servers_clock_is_known(account: Account) -> None:
    order = submit_request(epoch="lost")
    account.worker.answers["pulse"] = lambda _: {"terminal": TERMINAL, "account": OWNER, "tick": None}
    account.connection.time.offset_s = None
    await account.journal.write(lambda book: book.submit(order))
    pulses = len(account.worker.asked)
    await eventually(lambda: len(account.worker.asked) > pulses + 20)
    assert searches(account) == []
    account.worker.answers["pulse"] = lambda _: {"terminal": TERMINAL, "account": OWNER, "tick": tick()}
    await comes_to(account, order, "unknown", "absent")


async def test_a_pending_order_is_adopted_and_left_to_the_watch(account: Account) -> None:
    order = submit_request(epoch="lost", order_type="limit", price=Decimal("1.05"))
    shows(account, lambda: {"orders": [order_row(7, order, type=2, volume_current=0.1)]})
    await account.journal.write(lambda book: book.submit(order))
    await comes_to(account, order, "unknown", "accepted")
    assert not account.watch._confirming
