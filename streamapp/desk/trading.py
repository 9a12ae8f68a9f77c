"""An account's trading state in a commit: who sets it, and what is told."""

from __future__ import annotations

from datetime import datetime

from streamapp import subjects
from streamapp.desk.state import Draft, Memory
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
    if (before := draft.memory.state or row.state) is not None:
        # What the terminal itself says of opening is known again with its next snapshot.
        opens = {"trading": "open" if before.connection == "ready" else "not_ready", "at": draft.now}
        told = as_traded(draft, before.model_copy(update={**_UNSTOPPED, **opens}))
        draft.memory = Memory(draft.memory.ahead, told, draft.memory.state_at)
        subject, account = subjects.account_state(draft.account), subjects.token(draft.account)
        # Halted, resumed and halted again in one commit are three messages, and the last must not be dropped.
        parts = ("account", account, "trading", time_text(draft.now), len(draft.publications), state)
        draft.publish(told, subject=subject, id_parts=parts)
    return row.trading


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
