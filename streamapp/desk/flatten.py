"""Getting an account out of everything, as a guard orders it."""

from __future__ import annotations

from datetime import datetime

from streamapp.desk.state import Draft
from streamapp.desk.trading import set_trading


def order_flatten(draft: Draft, cause: str, by: str, *, until: datetime) -> None:
    """Halt the account until a moment, unless it is halted already, and let all that is open be closed.

    Called once for each day's lock, in the commit that takes the step. Closing positions and cancelling working orders
    is what the command ``account.flatten`` does; it is queued here, whether or not the account was halted before.
    """
    if draft.account_row().trading.state != "halted":
        set_trading(draft, "halted", cause, by=by, until=until)
