"""An account's trading state in a commit: who sets it, and what is told."""

from __future__ import annotations

from datetime import datetime

from streamapp.desk.state import Draft
from streamapp.domain.trading import TRADING, TradingState, TradingWord


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
    return row.trading


def restore_trading(draft: Draft, state: TradingState) -> None:
    """Let the account be in a trading state again when another one is over; what orders have shown is not lifted."""
    draft.put_account(draft.account_row().model_copy(update={"trading": state}))
