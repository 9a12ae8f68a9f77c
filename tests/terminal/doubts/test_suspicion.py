"""What is not adopted silently: an order that is there twice, and one that may be there without its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from streamapp.domain import facts
from tests.kit.waiting import eventually
from tests.terminal.conftest import Account
from tests.terminal.doubts.doubtful import (
    DOUBT,
    ORDER,
    Tables,
    comes_to,
    of_order,
    order_row,
    position_row,
    searches,
    shows,
    state,
)
from tests.terminal.scripted import OWNER, TERMINAL, deal, result, submit_request, tick


async def test_more_than_one_ticket_is_adopted_whole_and_halts_the_account(account: Account) -> None:
    order = submit_request(epoch="")
    shows(account, lambda: {"history_orders": [order_row(7, order), order_row(8, order)]})
    await account.submit()
    reports = await comes_to(account, order, *DOUBT, "accepted", "accepted")
    assert {report.body.ticket for report in reports if isinstance(report.body, facts.BrokerAccepted)} == {7, 8}
    refused = await account.submit("another")
    (report,) = await comes_to(account, refused, "refused")
    assert isinstance(report.body, facts.SubmitRefused)
    assert report.body.reason == "halted"
    assert "7, 8" in report.body.message
    assert len(account.worker.sends) == 1


async def test_a_second_ticket_that_shows_later_halts_as_well(account: Account) -> None:
    order = submit_request(epoch="")
    rows = [order_row(7, order)]
    shows(account, lambda: {"orders": rows})
    await account.submit()
    await comes_to(account, order, *DOUBT, "accepted")
    rows.append(order_row(8, order))
    await comes_to(account, order, *DOUBT, "accepted", "accepted")
    assert account.journal.book.halted() is not None


async def test_a_halted_account_closes_and_opens_again_when_it_is_resumed(account: Account) -> None:
    await account.journal.write(lambda book: book.halt("a test"))
    account.worker.answers["send"] = lambda _: account.worker.sent(result(10009, order=1001))
    closing = submit_request("close", epoch=account.journal.book.epoch).model_copy(update={"position_id": 5})
    await account.journal.write(lambda book: book.submit(closing))
    account.execution.add(closing)
    opening = await account.submit("open")
    await comes_to(account, opening, "refused")
    assert await account.journal.write(lambda book: book.resume())
    assert not await account.journal.write(lambda book: book.resume())
    after = await account.submit("after")
    await comes_to(account, after, "started", "returned", "accepted")
    assert "started" in [report.kind for report in await of_order(account, closing)] or (
        (await state(account, closing))[1] != "halted"
    )


async def test_a_halt_is_in_the_journal(account: Account) -> None:
    await account.journal.write(lambda book: book.halt("a test"))
    (value,) = account.journal.book.db.execute("SELECT value FROM meta WHERE key = 'halted'").fetchone()
    assert value == "a test"


NAMELESS = {"magic": 0, "comment": ""}


@pytest.mark.parametrize(
    "tables",
    [
        lambda: {"history_orders": [order_row(7, ORDER, **NAMELESS)]},
        lambda: {"history_deals": [deal(70, 7, 0, time=0)]},
        lambda: {"orders": [order_row(7, ORDER, magic=5, comment="other")]},
        lambda: {"positions": [position_row(7, ORDER, magic=0)]},
    ],
    ids=["history", "deal", "another magic", "position"],
)
async def test_what_may_be_the_order_without_its_name_is_left_to_a_person_and_said_once(
    account: Account, tables: Callable[[], Tables]
) -> None:
    shows(account, tables)  # made now: a row of minutes ago could not be the order
    order = await account.submit()
    reports = await comes_to(account, order, *DOUBT, "unknown")
    assert isinstance(reports[3].body, facts.OutcomeUnknown)
    assert reports[3].body.why == "suspicion"
    assert " 7, magic" in reports[3].body.message
    looks = len(searches(account))
    account.resolver._settling.next_s = 0.0
    await eventually(lambda: len(searches(account)) > looks)
    await comes_to(account, order, *DOUBT, "unknown")
    assert await state(account, order) == ("doubt", "suspicion")
    assert (await account.journal.write(lambda book: book.counts()))["suspicion"] == 1


async def test_a_message_names_some_of_many_and_their_number(account: Account) -> None:
    shows(account, lambda: {"history_orders": [order_row(7000 + at, ORDER, **NAMELESS) for at in range(3000)]})
    order = await account.submit()
    reports = await comes_to(account, order, *DOUBT, "unknown")
    assert isinstance(reports[3].body, facts.OutcomeUnknown)
    assert " 7000, magic" in reports[3].body.message
    assert "and 2980 more" in reports[3].body.message
    assert len(reports[3].model_dump_json()) < 10_000


@pytest.mark.parametrize(
    "other",
    [
        {"type": 1},
        {"volume_initial": 0.2},
        {"symbol": "GBPUSD"},
        {"reason": 0},
        {"position_id": 3},
        {"time_setup_msc": tick(3600)["time_msc"]},
    ],
    ids=["side", "volume", "symbol", "by hand", "closes a position", "an hour before"],
)
async def test_what_cannot_be_the_order_is_no_suspicion(account: Account, other: dict[str, Any]) -> None:
    shows(account, lambda: {"history_orders": [order_row(7, ORDER, **{**NAMELESS, **other})]})
    order = await account.submit()
    await comes_to(account, order, *DOUBT, "absent")


async def test_a_suspicion_ends_when_another_order_explains_it(account: Account) -> None:
    shows(account, lambda: {"history_orders": [order_row(7, ORDER, **NAMELESS)]})
    order = await account.submit()
    await comes_to(account, order, *DOUBT, "unknown")
    account.worker.answers["send"] = lambda _: account.worker.sent(result(10009, order=7))
    await account.submit("its true owner")
    account.resolver._settling.next_s = 0.0
    await comes_to(account, order, *DOUBT, "unknown", "absent")


async def test_a_netting_position_with_our_magic_and_no_order_is_left_to_a_person(account: Account) -> None:
    netting = OWNER | {"margin_mode": 0}
    account.worker.answers["pulse"] = lambda _: {"terminal": TERMINAL, "account": netting, "tick": tick()}
    order = submit_request(epoch="")
    shows(account, lambda: {"positions": [position_row(3, order)]})
    await account.submit()
    await comes_to(account, order, *DOUBT, "unknown")
