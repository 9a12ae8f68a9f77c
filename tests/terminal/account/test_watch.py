"""What is seen at the broker is reported once, and only what is seen, on a scripted worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, cast

import nats
import pytest

from streamapp import subjects
from streamapp.domain import facts
from streamapp.domain.identifiers import magic_of
from streamapp.domain.vocabulary import time_text
from streamapp.messages.account import SnapshotMessage
from streamapp.messages.report import Report
from streamapp.settings import AccountSettings, TerminalSettings
from streamapp.terminal.account import watch as module
from streamapp.terminal.account.connection import BrokerConnection
from streamapp.terminal.account.deals import unprotected
from streamapp.terminal.account.snapshots import Snapshots
from streamapp.terminal.account.synchronisation import watermark
from streamapp.terminal.account.watch import Watch
from streamapp.terminal.journal.book import Book
from streamapp.terminal.journal.database import Journal
from streamapp.terminal.journal.orders import Expected
from streamapp.terminal.pipe.calls import Look
from streamapp.terminal.pipe.structs import TradePosition
from tests.kit.waiting import PATIENCE_S, eventually
from tests.terminal.conftest import Account, wired
from tests.terminal.fake_broker import BEGAN, PromptJournal, VirtualLoop
from tests.terminal.scripted import (
    LOGIN,
    OWNER,
    SERVER,
    SERVER_AHEAD_S,
    TERMINAL,
    ScriptedWorker,
    deal,
    result,
    struct,
    submit_request,
    tick,
)

MAGIC = magic_of(submit_request(epoch="").order_id)
LIMIT: dict[str, Any] = {"order_type": "limit", "price": Decimal("1.05")}


def shows(account: Account, *deals: dict[str, Any]) -> None:
    """Let the broker show these deals from now on; those that were told already are told again, as after a restart."""
    answer = {"read": True, "deals": list(deals), "more": False, "digest": hash(str(deals))}
    account.worker.answers["deals"] = lambda _: answer


def shows_order(account: Account, state: int, **changes: Any) -> None:
    """Let history show the order 1001."""
    order = {"ticket": 1001, "type": 2, "type_filling": 2, "volume_initial": 0.1, "volume_current": 0.1} | changes
    account.worker.answers["ended"] = lambda asked: {
        "read": True,
        "orders": [order | {"state": state}] if 1001 in asked["tickets"] else [],
        "looked": asked["tickets"],
    }


def asked(account: Account, operation: str) -> list[dict[str, Any]]:
    return [arguments for name, arguments in account.worker.asked if name == operation]


async def rounds(account: Account, number: int, operation: str = "deals") -> None:
    """Wait until the watch has looked so many times more."""
    until = len(asked(account, operation)) + number
    await eventually(lambda: len(asked(account, operation)) >= until, operation)


async def placed(account: Account, **levels: Any) -> str:
    """Return the id of a limit order that works at the broker under the ticket 1001."""
    working = {"ticket": 1001, "type": 2, "state": 1}
    account.worker.answers["ticket"] = lambda _: {"deals": [], "order": working, "done": False}
    account.worker.answers["check"] = lambda _: {"retcode": 0}
    order = await account.submit(**LIMIT, **levels)
    await account.said("started", "returned", "accepted")
    await eventually(lambda: asked(account, "ended") and not account.watch._confirming)
    return order.order_id


# -- deals


async def test_a_position_that_was_open_before_the_journals_first_day_is_reported_with_all_its_deals(
    account: Account,
) -> None:
    old, known = deal(7, 70, 0, reason=0, position=70), deal(9, 90, 0, reason=0, position=90)
    shows(account, known)
    await account.said("deal")
    account.worker.answers["positions"] = lambda _: [
        {"ticket": 70, "identifier": 70, "volume": 0.1, "type": 0},
        {"ticket": 90, "identifier": 90, "volume": 0.1, "type": 0},
    ]
    account.worker.answers["position_now"] = lambda _: {"read": True, "deals": [old]}
    await account.connection.renew()
    told = await account.said("deal", "deal")
    assert [body.deal for report in told if isinstance(body := report.body, facts.Filled)] == [9, 7]
    assert asked(account, "position_now") == [{"position_id": 70, "with_market": False}]
    await rounds(account, 3)
    assert len(asked(account, "position_now")) == 1


async def test_nothing_is_read_before_the_terminal_is_believed(account: Account) -> None:
    await rounds(account, 2)
    account.worker.answers["past"] = lambda _: {"digest": None, "lacking": "a table can't be read"}
    await account.connection.renew()
    seen = len(asked(account, "deals"))
    shows(account, deal(7, 1001, 0))
    await rounds(account, 5, "past")
    assert len(asked(account, "deals")) == seen
    assert await account.kinds() == []
    account.worker.answers["past"] = lambda _: {"digest": 1, "lacking": ""}
    await account.said("deal")


async def test_an_account_that_may_not_trade_is_watched_all_the_same(account: Account) -> None:
    off = TERMINAL | {"trade_allowed": False}
    account.worker.answers["pulse"] = lambda _: {"terminal": off, "account": OWNER, "tick": tick()}
    await eventually(lambda: account.connection.health.connection == "no_algo_trading")
    shows(account, deal(7, 1001, 0))
    await account.said("deal")


@pytest.mark.parametrize(
    "changes",
    [
        {"reason": 4, "entry": 1, "type": 1},
        {"reason": 5, "entry": 1, "type": 1},
        {"reason": 6, "entry": 1, "type": 1},
        {"reason": 0, "entry": 1, "type": 1},
        {"reason": 1, "entry": 1, "type": 1},
        {"reason": 3, "entry": 3, "type": 1},
        {"reason": 4},
        {"reason": 0},
    ],
)
async def test_what_closes_a_position_is_no_orders_deal_though_it_carries_its_magic(
    account: Account, changes: dict[str, Any]
) -> None:
    order = await account.submit()
    opening, closing = deal(7, 1001, MAGIC), deal(8, 1002, MAGIC, position_id=1001, **changes)
    account.worker.answers["ticket"] = lambda _: {"deals": [opening], "order": None, "done": False}
    await account.said("started", "returned", "accepted", "deal")
    shows(account, opening, closing)
    reports = await account.said("started", "returned", "accepted", "deal", "deal")
    assert [report.order_id for report in reports[3:]] == [order.order_id, None]


async def test_a_deal_that_is_taken_back_is_busted_after_its_corrections(account: Account) -> None:
    order = await account.submit()
    await account.said("started", "returned", "accepted")
    first = deal(7, 1001, MAGIC)
    shows(account, first)
    await account.said("started", "returned", "accepted", "deal")
    shows(account, first | {"price": 1.09})
    await account.said("started", "returned", "accepted", "deal", "deal_correction")
    shows(account, first | {"price": 1.09, "type": 13, "profit": 0.0})
    life = ("started", "returned", "accepted", "deal", "deal_correction", "deal_busted", "cancelled")
    busted, ended = (await account.said(*life))[-2:]
    assert isinstance(busted.body, facts.FillBusted)
    assert (busted.body.deal, busted.body.revision, busted.order_id) == (7, 2, order.order_id)
    assert ended.body == facts.BrokerCancelled(ticket=1001, reason="broker")  # it was done: nobody fills it any more
    await rounds(account, 3)
    assert len(await account.kinds()) == len(life)
    assert await account.journal.write(lambda book: book.filled(1001)) == 0


async def test_a_deal_that_is_given_again_is_a_correction_above_its_bust(account: Account) -> None:
    one = deal(7, 555, 0, reason=0)
    shows(account, one)
    await account.said("deal")
    shows(account, one | {"type": 14})
    await account.said("deal", "deal_busted")
    shows(account, one)
    reports = await account.said("deal", "deal_busted", "deal_correction")
    assert isinstance(reports[2].body, facts.FillCorrected)
    assert reports[2].body.revision == 2


async def test_a_deal_that_was_taken_back_before_we_saw_it_is_no_trade(account: Account) -> None:
    shows(account, deal(7, 1001, MAGIC, type=13), deal(8, 555, 0, reason=0))
    reports = await account.said("deal")
    assert isinstance(reports[0].body, facts.Filled)
    assert reports[0].body.deal == 8


async def test_a_deal_of_a_kind_that_nobody_knows_is_volume_all_the_same(account: Account) -> None:
    shows(account, deal(7, 555, 0, reason=77, entry=9))
    (report,) = await account.said("deal")
    assert isinstance(report.body, facts.Filled)
    assert (report.body.entry, report.body.reason, report.body.volume) == ("in", "other", Decimal("0.1"))


def charge(number: int = 7, **changes: Any) -> dict[str, Any]:
    """Return a deal that did not trade, as the module shows it."""
    nothing = {"volume": 0.0, "price": 0.0, "commission": 0.0, "symbol": "", "position_id": 0, "reason": 0}
    return deal(number, 0, 0) | nothing | {"type": 4, "profit": -5.0} | changes


async def test_money_that_was_booked_without_a_trade_is_told_once_and_each_correction_of_it(account: Account) -> None:
    shows(account, charge())
    (report,) = await account.said("account_operation")
    assert isinstance(report.body, facts.AccountOperation)
    assert (report.order_id, report.body.deal, report.body.type) == (None, 7, "charge")
    assert (report.body.amount, report.body.currency, report.body.position_id) == (Decimal(-5), "USD", None)
    shows(account, charge(comment="rewritten", time_msc=tick()["time_msc"]))
    await rounds(account, 3)
    shows(account, charge(profit=-4.5))
    _, corrected = await account.said("account_operation", "account_operation")
    assert isinstance(corrected.body, facts.AccountOperation)
    assert (corrected.body.amount, corrected.body.revision) == (Decimal("-4.5"), 1)


async def test_all_the_money_of_a_deal_that_names_a_position_is_told_with_it(account: Account) -> None:
    shows(account, charge(type=7, position_id=9, order=8, symbol="EURUSD", profit=0.0, commission=-3.5, swap=-0.25))
    (report,) = await account.said("account_operation")
    assert isinstance(report.body, facts.AccountOperation)
    named = (report.body.position_id, report.body.symbol, report.body.ticket)
    assert (report.body.type, report.body.amount, named) == ("commission", Decimal("-3.75"), (9, "EURUSD", 8))


async def test_money_of_a_deal_of_a_type_that_nobody_knows_is_told_all_the_same(account: Account) -> None:
    shows(account, charge(7, type=18), charge(8, type=0))
    reports = await account.said("account_operation", "account_operation")
    bodies = [report.body for report in reports if isinstance(report.body, facts.AccountOperation)]
    assert [(body.deal, body.type) for body in bodies] == [(7, "other"), (8, "other")]


async def test_a_deal_that_is_not_shown_any_more_is_not_taken_back(account: Account) -> None:
    shows(account, deal(7, 555, 0, reason=0))
    await account.said("deal")
    shows(account)
    await account.connection.renew()
    await rounds(account, 5)
    assert await account.kinds() == ["deal"]


async def test_an_order_does_not_get_a_deal_that_was_taken_back_before_its_ticket_was_known(account: Account) -> None:
    foreign = deal(7, 1001, 0, reason=0)
    shows(account, foreign)
    await account.said("deal")
    shows(account, foreign | {"type": 13})
    await account.said("deal", "deal_busted")
    await account.submit()
    await account.said("deal", "deal_busted", "started", "returned", "accepted")


async def test_a_history_that_lacks_deals_does_not_move_the_watermark(account: Account) -> None:
    long_ago = datetime(2026, 1, 1, tzinfo=UTC)
    answer: dict[str, Any] = {"read": True, "deals": [], "more": False, "digest": None}
    account.worker.answers["deals"] = lambda _: answer
    await rounds(account, 2)
    account.watch._watermark = long_ago
    await eventually(lambda: len([each for each in asked(account, "deals") if each["wide"]]) > 5)
    assert account.watch._watermark == long_ago
    answer["digest"] = 1
    await eventually(lambda: account.watch._watermark > long_ago)


# -- orders that work


async def test_the_watermark_goes_with_the_servers_clock_not_with_ours(account: Account) -> None:
    await rounds(account, 1)
    account.watch._watermark = datetime(2026, 1, 1, tzinfo=UTC)
    account.watch._clock = lambda: datetime.now(UTC) + timedelta(days=10)
    await eventually(lambda: account.watch._watermark.year > 2026 or account.watch._watermark.month > 1)
    await rounds(account, 5)
    assert account.watch._watermark <= datetime.now(UTC) + timedelta(minutes=1)


async def test_a_watermark_that_lies_ahead_of_now_is_not_believed(account: Account) -> None:
    ahead = time_text(datetime.now(UTC) + timedelta(days=10))
    await account.journal.write(lambda book: book.set_meta("history_watermark", ahead))
    assert await account.journal.write(watermark) <= datetime.now(UTC)


async def test_a_clock_that_was_ahead_and_came_back_leaves_no_deal_unread(account: Account) -> None:
    await rounds(account, 1)
    now = datetime.now(UTC)
    account.watch._watermark = account.watch._newest = now + timedelta(days=30)  # as a clock that was ahead left them
    await rounds(account, 3)
    for look in asked(account, "deals")[-2:]:
        assert max(look["wide_from"], look["near_from"]) <= account.connection.time.server_s(now + timedelta(minutes=1))


async def test_a_working_order_is_left_to_the_table_of_orders(account: Account) -> None:
    await placed(account)
    await rounds(account, 5, "ended")
    assert len(asked(account, "ticket")) <= 1  # a market order is looked for at once, others wait for their price
    assert asked(account, "ended")[-1] == {"tickets": [1001]}
    assert await account.kinds() == ["started", "returned", "accepted"]


@pytest.mark.parametrize(
    ("state", "changes", "body"),
    [
        (2, {}, facts.BrokerCancelled(ticket=1001, reason="broker")),
        (2, {"volume_current": 0.04}, facts.BrokerCancelled(ticket=1001, reason="broker")),
        (6, {}, facts.BrokerExpired(ticket=1001)),
        (4, {"volume_current": 0.02}, facts.BrokerCancelled(ticket=1001, reason="broker")),
        (4, {"volume_initial": 0.09, "volume_current": 0.0}, facts.BrokerCancelled(ticket=1001, reason="broker")),
    ],
)
async def test_the_end_of_a_working_order_is_what_history_says(
    account: Account, state: int, changes: dict[str, Any], body: Any
) -> None:
    order_id = await placed(account)
    shows_order(account, state, **changes)
    reports = await account.said("started", "returned", "accepted", "expired" if state == 6 else "cancelled")
    assert (reports[3].order_id, reports[3].body) == (order_id, body)
    await rounds(account, 3)
    assert len(await account.kinds()) == 4


async def test_an_order_that_the_broker_could_not_activate_is_rejected(account: Account) -> None:
    await placed(account)
    shows_order(account, 5)
    reports = await account.said("started", "returned", "accepted", "rejected")
    assert isinstance(reports[3].body, facts.BrokerRejected)
    assert reports[3].body.ticket == 1001


@pytest.mark.parametrize("state", [0, 1, 7, 8, 9, 77])
async def test_a_state_that_is_no_end_ends_nothing_wherever_it_is_shown(account: Account, state: int) -> None:
    await placed(account)
    shows_order(account, state)
    await rounds(account, 3, "ended")
    assert await account.journal.write(lambda book: book.is_live(1001))
    shows_order(account, 2)
    await account.said("started", "returned", "accepted", "cancelled")


async def test_an_order_in_neither_table_is_not_known_and_nothing_is_said(account: Account) -> None:
    await placed(account)
    account.worker.answers["ended"] = lambda asked: {"read": True, "orders": [], "looked": asked["tickets"]}
    await rounds(account, 10, "ended")
    assert await account.kinds() == ["started", "returned", "accepted"]
    assert await account.journal.write(lambda book: book.is_live(1001))


async def test_partial_fills_of_a_working_order_come_by_its_deals_and_leave_it_alive(account: Account) -> None:
    order_id = await placed(account)
    parts = [deal(7, 1001, MAGIC, 0.03), deal(8, 1001, MAGIC, 0.04)]
    shows(account, *parts)
    await account.said("started", "returned", "accepted", "deal", "deal")
    assert await account.journal.write(lambda book: book.is_live(1001))
    shows(account, *parts, deal(9, 1001, MAGIC, 0.03))
    reports = await account.said("started", "returned", "accepted", "deal", "deal", "deal")
    assert {report.order_id for report in reports} == {order_id}
    assert not await account.journal.write(lambda book: book.is_live(1001))


async def test_what_was_filled_before_the_rest_was_cancelled_still_counts(account: Account) -> None:
    order_id = await placed(account)
    shows_order(account, 2, volume_current=0.06)
    await account.said("started", "returned", "accepted", "cancelled")
    shows(account, deal(7, 1001, MAGIC, 0.04))
    reports = await account.said("started", "returned", "accepted", "cancelled", "deal")
    assert reports[4].order_id == order_id


async def test_an_order_that_history_calls_filled_waits_for_its_deals(account: Account) -> None:
    await placed(account)
    shows_order(account, 4, volume_current=0.0)
    await rounds(account, 5, "ended")
    assert await account.kinds() == ["started", "returned", "accepted"]
    shows(account, deal(7, 1001, MAGIC))
    await account.said("started", "returned", "accepted", "deal")


async def test_tickets_that_are_not_found_take_turns(account: Account) -> None:
    tickets = iter(range(1001, 1006))
    account.worker.answers["send"] = lambda _: account.worker.sent(result(10008, order=next(tickets)))
    working = {"type": 2, "state": 1}
    account.worker.answers["ticket"] = lambda asked: {"deals": [], "order": working | asked, "done": False}
    account.worker.answers["check"] = lambda _: {"retcode": 0}
    for number in range(5):
        await account.submit(str(number), **LIMIT)
    account.worker.answers["ended"] = lambda asked: {"read": True, "orders": [], "looked": asked["tickets"][:2]}
    await eventually(lambda: asked(account, "ended") and len(asked(account, "ended")[-1]["tickets"]) == 5)
    await rounds(account, 6, "ended")
    firsts = [each["tickets"][0] for each in asked(account, "ended")[-6:]]
    assert set(firsts) == {1001, 1002, 1003, 1004, 1005}


# -- what was asked for and is not there


POSITION: dict[str, Any] = {"identifier": 1001, "ticket": 1001, "sl": 1.07, "tp": 1.1, "time_update_msc": 1 << 42}
"""As it is after whatever was filled."""
LEVELS: dict[str, Any] = {"stop_loss": Decimal("1.07"), "take_profit": Decimal("1.1")}
FILLED = ("started", "returned", "accepted", "deal")


ONCE = 1
"""A new connection reads the positions once: are there any of which the journal has no deals?"""


async def with_levels(account: Account, position: dict[str, Any] | None, **wanted: Any) -> str:
    """Return the id of an order that is filled, its position being shown so."""
    opening = deal(7, 1001, MAGIC)
    account.worker.answers["ticket"] = lambda _: {"deals": [opening], "order": None, "done": False}
    account.worker.answers["positions"] = lambda _: [] if position is None else [position]
    return (await account.submit(**(LEVELS | wanted))).order_id


@pytest.mark.parametrize(
    "found", [{"sl": 0.0}, {"tp": 0.0}, {"sl": 0.0, "tp": 0.0}, {"sl": 1.05}], ids=["stop", "profit", "both", "other"]
)
async def test_a_level_that_the_broker_left_out_is_told_with_the_order_and_what_it_asked_for(
    account: Account, found: dict[str, float]
) -> None:
    order_id = await with_levels(account, POSITION | found)
    told = (await account.said(*FILLED, "unprotected"))[-1]
    assert (told.order_id, told.at.tzinfo) == (order_id, UTC)
    assert told.body == facts.Unprotected(
        ticket=1001,
        position_id=1001,
        stop_loss=Decimal("1.07"),
        take_profit=Decimal("1.1"),
        found_stop_loss=Decimal(str((POSITION | found)["sl"])) if (POSITION | found)["sl"] else None,
        found_take_profit=Decimal(str((POSITION | found)["tp"])) if (POSITION | found)["tp"] else None,
    )
    await rounds(account, 3)
    assert (await account.kinds())[-1] == "unprotected"  # once
    assert len(await account.kinds()) == 5


async def compared(account: Account) -> None:
    """Wait until no levels wait to be compared."""

    async def none() -> bool:
        return not await account.journal.write(lambda book: book.levels_to_compare()) and bool(
            asked(account, "positions")
        )

    await eventually(none)


async def test_levels_that_are_there_are_compared_once_and_nothing_is_said(account: Account) -> None:
    await with_levels(account, POSITION)
    await account.said(*FILLED)
    await compared(account)
    looked = len(asked(account, "positions"))
    await rounds(account, 3)
    assert len(asked(account, "positions")) == looked
    assert await account.kinds() == list(FILLED)


@pytest.mark.parametrize("volume", [0.1, 0.4], ids=["closed", "more than its deals, after a split"])
async def test_a_position_that_its_deals_closed_needs_no_protection(account: Account, volume: float) -> None:
    await with_levels(account, None)
    await account.said(*FILLED)
    await rounds(account, 3, "positions")
    assert await account.journal.write(Book.levels_to_compare)
    shows(account, deal(8, 1002, 0, volume, position_id=1001, type=1, entry=1, reason=4))
    await compared(account)
    assert await account.kinds() == [*FILLED, "deal"]


@pytest.mark.parametrize("found", [{"sl": 0.0}, {}], ids=["without its stop", "as asked for"])
@pytest.mark.parametrize("before", [None, {}, {"sl": 0.0}], ids=["not shown", "with levels", "without"])
async def test_levels_are_compared_by_no_row_that_is_older_than_the_order(
    account: Account, before: dict[str, float] | None, found: dict[str, float]
) -> None:
    older = POSITION | {"time_update_msc": tick(age_s=1)["time_msc"]}
    await with_levels(account, None if before is None else older | before)
    await account.said(*FILLED)
    await rounds(account, 3, "positions")
    assert await account.kinds() == list(FILLED)
    account.worker.answers["positions"] = lambda _: [POSITION | found]
    await account.said(*FILLED, *(["unprotected"] if found else []))
    await compared(account)


async def test_a_position_that_is_shown_late_is_looked_for_seldom_and_told_all_the_same(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHOWN_WITHIN_S", 0.0)
    monkeypatch.setattr(module, "LATE_EVERY_S", 0.5)
    await with_levels(account, None)
    await account.said(*FILLED)
    await rounds(account, 1, "positions")
    looked, began = len(asked(account, "positions")), len(asked(account, "deals"))
    await rounds(account, 2, "positions")
    assert len(asked(account, "deals")) - began > 2 * (len(asked(account, "positions")) - looked)
    account.worker.answers["positions"] = lambda _: [POSITION | {"sl": 0.0}]
    await account.said(*FILLED, "unprotected")


async def test_a_row_that_stays_as_its_deals_leave_it_is_compared_whatever_its_time_says(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHOWN_WITHIN_S", 0.0)
    older = POSITION | {"sl": 0.0, "time_update_msc": tick(age_s=3600)["time_msc"]}
    monkeypatch.setattr(module, "LATE_EVERY_S", 0.1)
    await with_levels(account, older | {"volume": 0.3})
    await account.said(*FILLED)
    await rounds(account, 2, "positions")
    assert await account.kinds() == list(FILLED)
    account.worker.answers["positions"] = lambda _: [older | {"volume": 0.1}]
    await account.said(*FILLED, "unprotected")


async def test_a_pending_order_that_was_placed_without_its_levels_is_told_once_it_is_filled(account: Account) -> None:
    await placed(account, stop_loss=Decimal("1.04"))
    await rounds(account, 3)
    assert len(asked(account, "positions")) == ONCE
    shows(account, deal(7, 1001, MAGIC))
    await rounds(account, 2, "positions")
    account.worker.answers["positions"] = lambda _: [POSITION | {"sl": 0.0, "tp": 0.0}]
    told = (await account.said(*FILLED, "unprotected"))[-1]
    assert isinstance(told.body, facts.Unprotected)
    assert (told.body.stop_loss, told.body.found_stop_loss) == (Decimal("1.04"), None)


async def test_an_order_without_levels_is_not_compared(account: Account) -> None:
    await with_levels(account, POSITION | {"sl": 0.0, "tp": 0.0}, stop_loss=None, take_profit=None)
    await account.said(*FILLED)
    await rounds(account, 3)
    assert len(asked(account, "positions")) == ONCE


async def test_levels_that_were_changed_before_the_fill_are_what_is_expected(account: Account) -> None:
    order_id = await placed(account)
    changes: dict[str, str | None] = {"stop_loss": "1.02", "take_profit": None}
    await account.journal.write(lambda book: book.modified(order_id, changes))
    account.worker.answers["positions"] = lambda _: [POSITION | {"sl": 0.0}]
    shows(account, deal(7, 1001, MAGIC))
    told = (await account.said(*FILLED, "unprotected"))[-1]
    assert isinstance(told.body, facts.Unprotected)
    assert (told.body.stop_loss, told.body.take_profit) == (Decimal("1.02"), None)


@pytest.mark.parametrize(("hedging", "levels", "said"), [(False, (1.05, 1.2), False), (False, (0.0, 1.2), True)])
def test_where_a_symbol_has_one_position_another_orders_levels_are_levels(
    hedging: bool, levels: tuple[float, float], said: bool
) -> None:
    expected = Expected("o", 1, 1, Decimal("1.07"), Decimal("1.1"), datetime.now(UTC))
    position = POSITION | dict(zip(("sl", "tp"), levels, strict=True))
    assert (unprotected(expected, struct(TradePosition, position), hedging=hedging) is not None) is said


async def test_a_ticket_that_is_filled_and_shows_no_deal_raises_an_alarm_with_its_order(tmp_path: Path) -> None:
    async with wired(tmp_path, ScriptedWorker(), deals_within_s=0.1) as account:
        order_id = await placed(account)
        shows_order(account, 4, volume_current=0.0)
        told = (await account.said("started", "returned", "accepted", "unknown"))[-1]
        assert isinstance(told.body, facts.OutcomeUnknown)
        assert (told.order_id, told.body.why, "ticket 1001" in told.body.message) == (order_id, "no_deals", True)
        assert f"order {order_id}, ticket 1001" in account.watch.problem
        await rounds(account, 3, "ended")
        assert len(await account.kinds()) == 4
        shows(account, deal(7, 1001, MAGIC))
        await account.said("started", "returned", "accepted", "unknown", "deal")
        await eventually(lambda: account.watch.problem == "")


async def test_a_ticket_in_no_table_raises_the_alarm_too_and_its_time_begins_when_it_was_shown_last(
    tmp_path: Path,
) -> None:
    async with wired(tmp_path, ScriptedWorker(), deals_within_s=1.0) as account:
        await placed(account)
        nowhere = {"read": True, "orders": [], "looked": [1001]}
        account.worker.answers["ended"] = lambda _: nowhere
        await rounds(account, 2, "ended")
        missed_at = time.monotonic()
        account.worker.answers["ended"] = lambda _: {"read": True, "orders": [], "looked": [], "working": [1001]}
        await eventually(lambda: time.monotonic() - missed_at > 1.1)
        account.worker.answers["ended"] = lambda _: nowhere
        await rounds(account, 3, "ended")
        assert account.watch.problem == ""
        told = (await account.said("started", "returned", "accepted", "unknown"))[-1]
        assert isinstance(told.body, facts.OutcomeUnknown)
        assert "neither at work nor in history" in told.body.message


@pytest.mark.parametrize("changes", [{"comment": "[sl 1.08]"}, {"magic": 0}, {"magic": 5, "comment": "x"}])
async def test_a_comment_or_magic_alone_is_no_correction(account: Account, changes: dict[str, Any]) -> None:
    one = deal(7, 555, 0, reason=0)
    shows(account, one)
    await account.said("deal")
    shows(account, one | changes)
    await rounds(account, 3)
    assert await account.kinds() == ["deal"]
    shows(account, one | changes | {"commission": -1.0})
    await account.said("deal", "deal_correction")


# -- how soon


T = TypeVar("T")
APART_S = 7.3
"""Between two deals by hand: they fall anywhere between two looks."""
HANDMADE = 20


def in_virtual_time(story: Callable[[VirtualLoop], Coroutine[Any, Any, T]]) -> T:
    """Return what a story comes to whose waits take no time."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(story(loop))
    finally:
        loop.close()


def server_ms(at_s: float) -> int:
    return int((BEGAN.timestamp() + SERVER_AHEAD_S + at_s) * 1000)


def pulse(loop: VirtualLoop) -> dict[str, Any]:
    """Return what a look always shows: permissions, the account, and a tick of this moment."""
    return {"terminal": TERMINAL, "account": OWNER, "tick": tick() | {"time_msc": server_ms(loop.now_s)}}


async def made_by_hand(
    loop: VirtualLoop, settings: TerminalSettings, *, working: bool
) -> tuple[list[float], list[Report]]:
    """Return when the deals were looked at while one after another was made, and what was reported."""
    worker, journal = ScriptedWorker(), cast(Journal, PromptJournal(loop.utc))
    looks: list[float] = []

    def read(_: dict[str, Any]) -> dict[str, Any]:
        looks.append(loop.now_s)
        made = range(1, int(loop.now_s / APART_S) + 1)
        deals = [deal(number, number, 0, reason=0, time_msc=server_ms(number * APART_S)) for number in made]
        return {"read": True, "deals": deals, "more": False, "digest": len(deals)}

    works = {"read": True, "orders": [], "looked": [], "working": [1001]}
    worker.answers |= {"pulse": lambda _: pulse(loop), "deals": read, "ended": lambda _: works}
    if working:
        order = submit_request(epoch=journal.book.epoch, **LIMIT)
        await journal.write(lambda book: book.record(order) and book.accept(order.order_id, 1001))
    owner = AccountSettings(login=LOGIN, server=SERVER)
    connection = BrokerConnection(worker, journal, owner, settings, clock=loop.utc, password=None)
    tasks = [asyncio.create_task(connection.run())]
    tasks.append(asyncio.create_task(Watch(journal, connection, settings, clock=loop.utc).run()))
    await asyncio.sleep((HANDMADE + 0.9) * APART_S)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert any(name == "ended" for name, _ in worker.asked) is working
    rows = await journal.write(lambda book: book.outbox(0, 10_000))
    return looks, [Report.model_validate_json(payload) for _, payload in rows]


@pytest.mark.parametrize("working", [False, True], ids=["no order works", "an order works"])
@pytest.mark.parametrize(
    ("settings", "within_s"), [({}, 1.0), ({"poll_interval_s": 2.5}, 5.0)], ids=["by default", "as rarely as may be"]
)
def test_a_deal_made_by_hand_is_told_at_the_next_look_and_looks_are_as_far_apart_as_the_settings_say(
    settings: dict[str, float], within_s: float, working: bool
) -> None:
    terminal = TerminalSettings(**settings)
    looks, reports = in_virtual_time(lambda loop: made_by_hand(loop, terminal, working=working))
    apart_s = {round(later - earlier, 6) for earlier, later in pairwise(looks)}
    assert apart_s == {terminal.poll_interval_s}
    told = [(report.at, report.body) for report in reports if isinstance(report.body, facts.Filled)]
    assert [body.deal for _, body in told] == list(range(1, HANDMADE + 1))
    late_s = max((at - body.time).total_seconds() for at, body in told)
    assert late_s <= terminal.poll_interval_s + 0.001 < within_s  # a deal's time is in milliseconds


QUIET_S, BUSY_S = 2.7, 0.9
"""Between two looks by default: as often as the lesser fits into ``quiet_interval_s``, and that."""


async def looked_at(
    loop: VirtualLoop,
    shown: Callable[[float], dict[str, Any]],
    *,
    is_in_doubt: bool = False,
    tables_every_s: float = TerminalSettings().snapshot_interval_s,
    written_at_s: float | None = None,
) -> list[float]:
    """Return when an account was looked at whose tables show these parts at a time, for a minute.

    ``tables_every_s``: how often somebody asks for them; ``written_at_s``: when something is written in the journal.
    """
    worker, journal = ScriptedWorker(), cast(Journal, PromptJournal(loop.utc))
    looks: list[float] = []

    def table(name: str) -> Callable[[dict[str, Any]], list[dict[str, Any]]]:
        return lambda _: shown(loop.now_s).get(name, [])

    def look(_: dict[str, Any]) -> dict[str, Any]:
        looks.append(loop.now_s)
        return pulse(loop)

    worker.answers |= {"pulse": look, "positions": table("positions"), "working": table("working")}
    if is_in_doubt:
        await journal.write(lambda book: book.record(submit_request(epoch="another's", **LIMIT)))
    owner = AccountSettings(login=LOGIN, server=SERVER)
    connection = BrokerConnection(worker, journal, owner, TerminalSettings(), clock=loop.utc, password=None)

    async def as_snapshots_do() -> None:
        while True:
            await connection.readable()
            await connection.ride(Look(positions=True, orders=True))
            await asyncio.sleep(tables_every_s)

    tasks = [asyncio.create_task(part) for part in (connection.run(), as_snapshots_do())]
    if written_at_s is not None:
        await asyncio.sleep(written_at_s)
        await journal.write(lambda book: book.set_meta("anything", "new"))
    await asyncio.sleep(60.0 - loop.now_s)  # of the virtual loop's time
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return looks


@pytest.mark.parametrize(
    ("shown", "is_in_doubt", "apart_s"),
    [
        ({}, False, QUIET_S),
        ({"positions": [{"ticket": 5, "identifier": 5, "volume": 0.1, "type": 0}]}, False, BUSY_S),
        ({"working": [{"ticket": 5, "type": 2, "state": 1}]}, False, BUSY_S),
        ({}, True, BUSY_S),
    ],
    ids=["nothing", "a position", "a working order", "a doubt"],
)
def test_an_account_at_which_nothing_is_open_works_or_is_in_doubt_is_looked_at_less_often(
    shown: dict[str, Any], is_in_doubt: bool, apart_s: float
) -> None:
    looks = in_virtual_time(lambda loop: looked_at(loop, lambda _: shown, is_in_doubt=is_in_doubt))
    settled = [at for at in looks if at > 10.0]
    assert {round(later - earlier, 6) for earlier, later in pairwise(settled)} == {apart_s}


def test_a_position_that_somebody_opens_at_a_quiet_account_ends_its_quiet_at_the_next_look() -> None:
    position = {"ticket": 5, "identifier": 5, "volume": 0.1, "type": 0}

    def shown(now_s: float) -> dict[str, Any]:
        return {"positions": [position]} if 30.0 <= now_s < 45.0 else {}

    looks = in_virtual_time(lambda loop: looked_at(loop, shown))
    apart = [(earlier, round(later - earlier, 6)) for earlier, later in pairwise(looks)]
    first = next(at for at in looks if at >= 30.0)
    assert first - 30.0 < QUIET_S
    assert {apart_s for at, apart_s in apart if first <= at < 45.0} == {BUSY_S}
    assert {apart_s for at, apart_s in apart if 10.0 < at < 27.0 or at > 48.0} == {QUIET_S}


def test_after_something_was_written_no_account_is_quiet_until_its_tables_were_seen_again() -> None:
    looks = in_virtual_time(lambda loop: looked_at(loop, lambda _: {}, tables_every_s=20.0, written_at_s=30.0))
    apart = [(earlier, round(later - earlier, 6)) for earlier, later in pairwise(looks)]
    assert {apart_s for at, apart_s in apart if 10.0 < at < 27.0} == {QUIET_S}
    assert {apart_s for at, apart_s in apart if 31.0 < at < 40.0} == {BUSY_S}
    assert {apart_s for at, apart_s in apart if at > 50.0} == {QUIET_S}


# -- snapshots


@pytest.fixture
def snapshots(account: Account) -> Snapshots:
    settings = TerminalSettings(snapshot_interval_s=0.02)
    return Snapshots(account.journal, account.connection, settings, "tests", clock=account.journal.book.clock)


async def test_a_snapshot_has_the_credit_and_the_clock_of_the_server(account: Account, snapshots: Snapshots) -> None:
    account.worker.answers["pulse"] = lambda _: {
        "terminal": TERMINAL,
        "account": OWNER | {"balance": 100.0, "credit": 7.0, "equity": 107.0},
        "tick": tick(),
    }
    await account.connection.ready()
    taken = await snapshots._taken()
    assert taken is not None
    state = taken.state
    assert (str(state.balance), str(state.credit), str(state.equity)) == ("100.0", "7.0", "107.0")
    assert state.server_offset_s == SERVER_AHEAD_S


async def test_positions_that_are_not_believed_are_not_said_to_be_none(account: Account, snapshots: Snapshots) -> None:
    await account.connection.ready()
    taken = await snapshots._taken()
    assert taken is not None
    assert taken.state.connection == "ready"
    off = TERMINAL | {"connected": False}
    account.worker.answers["pulse"] = lambda _: {"terminal": off, "account": OWNER, "tick": tick()}
    assert await snapshots._taken() is None


async def test_more_positions_than_nats_takes_are_a_problem_and_not_half_a_snapshot(
    account: Account, snapshots: Snapshots, nats_url: str
) -> None:
    numbers = dict.fromkeys(("price_open", "sl", "tp", "profit", "swap"), 1.0)
    position = {"symbol": "EURUSD", "type": 0, "volume": 0.1, "magic": 2**60, **numbers}
    count = 10_000
    account.worker.answers["positions"] = lambda _: [
        position | {"identifier": 2**40 + number, "ticket": 2**40 + number} for number in range(count)
    ]
    client = await nats.connect(nats_url)
    told = await client.subscribe(subjects.snapshot(account.journal.book.account))
    await account.connection.ready()
    telling = asyncio.create_task(snapshots.run(client))
    await eventually(lambda: snapshots.problem)
    assert f"for {count} positions" in snapshots.problem
    assert told.pending_msgs == 0
    count = 10
    snapshot = SnapshotMessage.decode((await told.next_msg(PATIENCE_S)).data)
    assert (len(snapshot.positions), snapshots.problem) == (10, "")
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)
    await client.close()


OPEN: dict[str, Any] = {
    "symbol": "EURUSD",
    "type": 0,
    "volume": 0.1,
    **dict.fromkeys(("price_open", "sl", "tp", "profit", "swap"), 1.0),
}


async def test_a_snapshot_names_whose_positions_and_working_orders_are(account: Account, snapshots: Snapshots) -> None:
    order_id = await placed(account)
    account.worker.answers["positions"] = lambda _: [
        OPEN | {"identifier": 5, "ticket": 5, "magic": MAGIC},
        OPEN | {"identifier": 6, "ticket": 6, "magic": 12345},
    ]
    account.worker.answers["working"] = lambda _: [
        {"ticket": 1001, "symbol": "EURUSD", "type": 2, "volume_current": 0.1, "price_open": 1.05, "magic": MAGIC},
        {"ticket": 1002, "symbol": "EURUSD", "type": 8, "volume_current": 0.1, "magic": 0},
    ]
    taken = await snapshots._taken()
    assert taken is not None
    assert [(each.position_id, each.order_id) for each in taken.positions] == [(5, order_id), (6, None)]
    shown = [(each.ticket, each.order_type, each.side, each.order_id) for each in taken.orders]
    assert shown == [(1001, "limit", "buy", order_id), (1002, "close_by", None, None)]
    assert (taken.state.epoch, taken.report_seq) == (account.journal.book.epoch, account.journal.last_seq)


async def test_what_was_reported_while_the_terminal_was_read_leaves_the_snapshot_without_a_number(
    account: Account, snapshots: Snapshots
) -> None:
    await account.connection.ready()

    async def reporting(_: Any) -> list[dict[str, Any]]:
        body = facts.OutcomeUnknown(attempt=1, why="x")
        await account.journal.write(lambda book: book.report("unknown", None, body))
        return []

    account.worker.answers["positions"] = reporting
    taken = await snapshots._taken()
    assert taken is not None
    assert taken.report_seq is None
    account.worker.answers["positions"] = lambda _: None
    assert await snapshots._taken() is None


async def test_whose_a_position_is_may_be_known_only_later(account: Account, snapshots: Snapshots) -> None:
    await account.connection.ready()
    account.worker.answers["positions"] = lambda _: [OPEN | {"identifier": 5, "ticket": 5, "magic": MAGIC}]
    first = await snapshots._taken()
    order = await account.submit()
    second = await snapshots._taken()
    assert first is not None
    assert second is not None
    assert [first.positions[0].order_id, second.positions[0].order_id] == [None, order.order_id]


def _rows(shown: list[dict[str, Any]], _: Any) -> list[dict[str, Any]]:
    return shown


async def test_a_change_is_said_twice_in_a_row_and_what_rests_waits_its_turn(
    account: Account, snapshots: Snapshots
) -> None:
    await account.connection.ready()
    hurries = []
    for volume in (0.1, 0.1, 0.1, 0.2, 0.3):
        shown = OPEN | {"identifier": 5, "ticket": 5, "volume": volume, "magic": 0}
        account.worker.answers["positions"] = partial(_rows, [shown])
        await snapshots._taken()
        hurries.append(snapshots._is_second)
    assert hurries == [True, False, False, True, False]


async def test_a_snapshot_does_not_wait_its_turn_once_the_account_can_be_read(account: Account, nats_url: str) -> None:
    settings = TerminalSettings(snapshot_interval_s=3600)
    snapshots = Snapshots(account.journal, account.connection, settings, "tests", clock=account.journal.book.clock)
    client = await nats.connect(nats_url)
    told = await client.subscribe(subjects.snapshot(account.journal.book.account))
    account.worker.answers["past"] = lambda _: {"digest": None, "lacking": "a table can't be read"}
    await account.connection.renew()
    telling = asyncio.create_task(snapshots.run(client))
    first = SnapshotMessage.decode((await told.next_msg(PATIENCE_S)).data)
    account.worker.answers["past"] = lambda _: {"digest": 1, "lacking": ""}
    second = SnapshotMessage.decode((await told.next_msg(PATIENCE_S)).data)
    assert (first.report_seq, second.state.connection) == (None, "ready")
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)
    await client.close()
