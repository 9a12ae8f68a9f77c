"""When rows leave the journal: not before every clock says so, nor while an order is in hand; on a scripted worker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta

import pytest

from streamapp.clock import Clock, utc_now
from streamapp.domain import facts
from streamapp.domain.vocabulary import time_text
from streamapp.settings import RetentionSettings
from streamapp.terminal.account import pruning
from streamapp.terminal.account.pruning import JournalPruner
from streamapp.terminal.journal.book import Book
from streamapp.terminal.journal.pruning import Due, PrunePlace, PruneStep, prune
from tests.kit.waiting import eventually
from tests.terminal.account.test_watch import asked, rounds
from tests.terminal.conftest import Account
from tests.terminal.scripted import submit_request, tick

YEARS = timedelta(days=800)
KEPT = timedelta(days=400)


def pruner_of(account: Account, clock: Clock = utc_now) -> JournalPruner:
    return JournalPruner(account.journal, account.connection, account.execution, RetentionSettings(), clock=clock)


async def our_clock_is_ahead(account: Account) -> JournalPruner:
    await account.journal.write(lambda book: book.set_meta("history_watermark", time_text(utc_now() + YEARS)))
    return pruner_of(account, lambda: utc_now() + YEARS)


async def the_brokers_clock_is_ahead(account: Account) -> JournalPruner:
    account.worker.answers["pulse"] = ahead(account.worker.answers["pulse"])
    shown = account.connection.time
    await eventually(lambda: shown.newest_shown > utc_now() + KEPT, "the tick")
    return pruner_of(account)


def ahead(pulse: Callable[[dict[str, object]], dict[str, object]]) -> Callable[[dict[str, object]], dict[str, object]]:
    later = {"time_msc": tick()["time_msc"] + round(YEARS.total_seconds() * 1000)}
    return lambda asked: {**pulse(asked), "tick": {**tick(), **later}}


@pytest.mark.parametrize("jump", [our_clock_is_ahead, the_brokers_clock_is_ahead])
async def test_a_clock_that_jumps_ahead_makes_nothing_old(
    account: Account, jump: Callable[[Account], Awaitable[JournalPruner]]
) -> None:
    await account.connection.readable()
    pruner = await jump(account)
    assert abs(await pruner._before() - (utc_now() - KEPT)) < timedelta(days=1)


async def test_nothing_leaves_while_an_order_is_in_hand(account: Account) -> None:
    await account.connection.readable()
    old = utc_now() - YEARS

    def an_old_order(book: Book) -> None:
        request = submit_request("old", epoch=book.epoch)
        book.record(request)
        book.refuse(request.order_id, facts.SubmitRefused(attempt=1, reason="guard"))
        book.db.execute("UPDATE rows SET recorded_at = ?1, not_after = ?1", (time_text(old),))

    await account.journal.write(an_old_order)
    account.journal.release("reports", account.journal.last_seq)
    account.execution.idle.clear()
    pruner = pruner_of(account)
    walk = asyncio.create_task(pruner.run())
    await eventually(lambda: asked(account, "working"), "a look at what works")
    await rounds(account, 3)
    assert pruner.left == 0
    account.execution.idle.set()
    await eventually(lambda: pruner.left == 1, "the order left")
    assert await account.journal.write(lambda book: book.row(submit_request("old", epoch="").order_id)) is None
    walk.cancel()
    with suppress(asyncio.CancelledError):
        await walk


async def test_a_journal_whose_reports_wait_for_the_desk_is_not_written_to_over_and_over(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    await account.connection.readable()
    steps: list[PrunePlace] = []

    def step(book: Book, place: PrunePlace, due: Due) -> PruneStep:
        steps.append(place)
        return prune(book, place, due)

    def an_order(book: Book) -> None:
        request = submit_request("new", epoch=book.epoch)
        book.record(request)
        book.refuse(request.order_id, facts.SubmitRefused(attempt=1, reason="guard"))

    monkeypatch.setattr(pruning, "prune", step)
    monkeypatch.setattr(pruning, "PAUSE_S", 0.0)
    monkeypatch.setattr(pruning, "HELD_S", 3600.0)
    await account.journal.write(an_order)
    walk = asyncio.create_task(pruner_of(account).run())
    await eventually(lambda: steps, "a step")
    await rounds(account, 2)
    assert len(steps) == 1
    walk.cancel()
    with suppress(asyncio.CancelledError):
        await walk


async def test_deals_that_may_have_left_are_not_read_again_whatever_our_clock_says(account: Account) -> None:
    await account.connection.readable()
    since = round((utc_now() + KEPT).timestamp())
    await account.journal.write(lambda book: book.forget_history(since))
    await rounds(account, 2)
    assert asked(account, "deals")[-1]["wide_from"] == since
    assert asked(account, "deals")[-1]["near_from"] == since
