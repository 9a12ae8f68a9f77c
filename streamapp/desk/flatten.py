"""Getting an account out of everything, as a guard orders it."""

from __future__ import annotations

from datetime import datetime

from streamapp import subjects
from streamapp.desk.commands import order_command
from streamapp.desk.state import Draft
from streamapp.desk.trading import restore_trading
from streamapp.domain.trading import TradingState
from streamapp.domain.vocabulary import time_text
from streamapp.messages.command import CommandRequest

NO_STREAM = 0
"""The place in their stream of commands that came by none."""


def order_flatten(draft: Draft, cause: str, by: str, *, until: datetime) -> None:
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
