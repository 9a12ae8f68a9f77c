"""An account's trading state in a commit: who sets it, and what is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from streamapp import subjects
from streamapp.desk.state import Draft
from streamapp.domain.trading import TRADING, TradingState, TradingWord
from streamapp.domain.vocabulary import time_text
from streamapp.messages.account import AccountMessage

_UNSTOPPED = {"trading_cause": "", "trading_by": "", "trading_since": None}


def set_trading(
    draft: Draft, state: TradingWord, cause: str, *, by: str, until: datetime | None = None
) -> TradingState:
    """Change the account's trading state; return what it was. ``trading`` lifts whatever orders have shown as well."""
    row = draft.account_row()
    if state == "trading":
        changes = {"trading": TRADING.model_copy(update={"since": draft.now}), "lifted": draft.shown_by_orders}
    else:
        new = TradingState(state=state, cause=cause[:500], by=by[:128], since=draft.now, until=until)
        changes = {"trading": new}
    draft.put_account(row.model_copy(update=changes))
    _publish(draft)
    return row.trading


def restore_trading(draft: Draft, state: TradingState) -> None:
    """Let the account be in a trading state again when another one is over; what orders have shown is not lifted."""
    draft.put_account(draft.account_row().model_copy(update={"trading": state}))
    _publish(draft)


def as_traded(draft: Draft, state: AccountMessage) -> AccountMessage:
    """Return the account as its terminal sees it, with our own trading state where that lets it open less."""
    row = draft.account_row()
    own = row.trading
    if own.state == "trading":
        why = draft.halted
        return state if why is None else state.model_copy(update={"trading": "halted", "trading_cause": why})
    word = "halted" if "halted" in {own.state, state.trading} else "reducing"
    said = {"trading": word, "trading_cause": own.cause, "trading_by": own.by, "trading_since": own.since}
    return state.model_copy(update=said)


def _publish(draft: Draft) -> None:
    row = draft.account_row()
    before = draft.memory.state or row.state
    if before is None:
        return
    # What the terminal itself says of opening is known again with its next snapshot.
    opens = {"trading": "open" if before.connection == "ready" else "not_ready", "at": draft.now}
    told = as_traded(draft, before.model_copy(update={**_UNSTOPPED, **opens}))
    draft.memory = replace(draft.memory, state=told)
    # Halted, resumed and halted again in one commit are three messages, and the last must not be dropped.
    place = (time_text(draft.now), len(draft.publications), row.trading.state)
    parts = ("account", subjects.token(draft.account), "trading", *place)
    draft.publish(told, subject=subjects.account_state(draft.account), id_parts=parts)
