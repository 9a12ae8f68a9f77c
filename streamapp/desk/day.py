"""An account's trading day in a commit: it begins at the broker's midnight, is watched, and leads to steps.

A step never weakens what a person has set, and what a person has set is never lifted by a new day; what a step has set
ends with its day, and leaves the account as it was before it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

from streamapp import subjects
from streamapp.desk.commands import order_command
from streamapp.desk.state import Draft
from streamapp.desk.trading import restore_trading, set_trading
from streamapp.domain.day import Funds, Taken, TradingDay, observed, with_operation
from streamapp.domain.facts import AccountOperation
from streamapp.domain.limits import Limits
from streamapp.domain.trading import TRADING, TradingState
from streamapp.domain.vocabulary import time_text
from streamapp.messages.account import SnapshotMessage
from streamapp.messages.command import CommandRequest

GUARD = "guard "
"""Begins the name of whoever set a trading state, where it was a guard."""
NO_STREAM = 0
"""The place in their stream of commands that came by none."""


def keep_time(draft: Draft) -> None:
    """End a trading state whose end has come, before anything else of a commit."""
    trading = draft.account_row().trading
    if trading.until is not None and draft.now >= trading.until:
        _end(draft, trading)


def book_operation(draft: Draft, said: AccountOperation) -> None:
    """Take what the broker booked out of the day's profit and loss, if somebody paid it in or out."""
    day = draft.today
    if (after := with_operation(day, said)) is not day:
        _put_day(draft, after)


def watch_money(draft: Draft, limits: Limits) -> TradingDay | None:
    """Judge the day by this commit's snapshot, and take the steps that are due; return the day, None without money.

    Its highest equity is durable at once where a limit depends on it; otherwise whenever the account's row is written.
    """
    assert draft.snapshot is not None
    snapshot = draft.snapshot.snapshot
    funds, day = _funds(snapshot), draft.today
    if funds is None or snapshot.at < day.ends_at - timedelta(days=1):  # one that waited shows another day's money
        return None
    result = observed(day, draft.memory.cash, funds, limits)
    draft.memory = replace(draft.memory, cash=result.recent)
    known, after = draft.account_row().day, result.day
    is_limited = limits.max_drawdown is not None or limits.max_drawdown_share is not None
    is_news = known is None or is_limited or after.model_copy(update={"highest": known.highest}) != known
    if is_news and after is not known:
        _put_day(draft, after)
    for taken in result.taken:
        _take(draft, taken)
    return draft.account_row().day if result.taken else after


def _funds(snapshot: SnapshotMessage) -> Funds | None:
    state = snapshot.state
    if state.balance is None or state.equity is None:
        return None
    return Funds(snapshot.at, state.balance, state.equity, state.credit or Decimal(0), state.currency or "")


def _take(draft: Draft, taken: Taken) -> None:
    draft.alarm(f"day_{taken.step}", f"account {draft.account}: {taken.cause}")
    draft.counts["day_steps", taken.step] += 1
    row = draft.account_row()
    day, was = row.day, row.trading
    assert day is not None
    if taken.step == "warned" or (taken.step == "reducing" and was.state != "trading"):
        return
    if was.state != "halted" and not _is_guards(was):
        _put_day(draft, day.model_copy(update={"replaced": None if was.state == "trading" else was}))
    by = f"{GUARD}{taken.guard}"
    if taken.step == "locked":
        _flatten(draft, taken.cause, by, until=day.ends_at)
    else:
        set_trading(draft, "reducing", taken.cause, by=by, until=day.ends_at)


def _flatten(draft: Draft, cause: str, by: str, *, until: datetime) -> None:
    """Halt the account until a moment, unless it is halted already, and let all that is open be closed until then.

    Called once for each day's lock, in the commit that takes the step. The command ``account.flatten`` closes positions
    and cancels orders, whether or not the account was halted before; it ends with the lock, for what is opened on the
    next day is not its business.
    """
    was = draft.account_row().trading
    request = CommandRequest(
        request_id=f"day.{subjects.token(draft.account)}.{time_text(draft.now)}"[:128],
        account=draft.account,
        reason=cause[:500],
        issued_by=by[:128],
        valid_until=until,
    )
    order_command(draft, "account.flatten", request, sequence=NO_STREAM)
    locked = TradingState(state="halted", cause=cause[:500], by=by[:128], since=draft.now, until=until)
    restore_trading(draft, was if was.state == "halted" else locked)


def _put_day(draft: Draft, day: TradingDay) -> None:
    """Put the day; where it is a new one, what the last one's steps have set is over."""
    row = draft.account_row()
    is_new = row.day is not None and day.on > row.day.on
    draft.put_account(row.model_copy(update={"day": day}))
    if is_new and _is_guards(row.trading):
        _restore(draft, day)


def _end(draft: Draft, trading: TradingState) -> None:
    known = draft.account_row().day
    day = None if known is None else draft.today
    if known is not None and day is not None and _is_guards(trading):
        if day.on > known.on:
            _put_day(draft, day)
        else:  # the server's clock was set back since: its midnight is still to come
            restore_trading(draft, trading.model_copy(update={"until": day.ends_at}))
    elif day is not None and day.reached in {"reducing", "locked"}:
        # A person's shorter halt is over, and the day's step goes on.
        by, word = f"{GUARD}{day.cause.partition(':')[0]}", "halted" if day.reached == "locked" else "reducing"
        again = TradingState(state=word, cause=day.cause, by=by, since=draft.now, until=day.ends_at)
        restore_trading(draft, again)
    else:
        restore_trading(draft, _trading(draft))


def _restore(draft: Draft, day: TradingDay) -> None:
    """Let the account be as it was before the guard; what orders show of it stays unlifted."""
    draft.put_account(draft.account_row().model_copy(update={"day": day.model_copy(update={"replaced": None})}))
    restore_trading(draft, day.replaced or _trading(draft))


def _trading(draft: Draft) -> TradingState:
    return TRADING.model_copy(update={"since": draft.now})


def _is_guards(trading: TradingState) -> bool:
    # A step's state has an end always; a person may call himself a guard.
    return trading.until is not None and trading.by.startswith(GUARD)
