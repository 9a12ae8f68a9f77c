"""What is over leaves the store, in two steps (design: desk "Pruning").

After ``retention.closed_days`` a row is put away: it says what it said, in a quarter of the bytes, and is read like any
other. So whatever comes late finds all that it needs, and the row is written whole again with it. After
``retention.keys_days`` it ends. A signal or a command that may have had a row is refused for its age then
(:func:`streamapp.domain.signals.is_forgotten`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from streamapp.desk.inputs import Prune
from streamapp.desk.policy import Policy
from streamapp.desk.state import Draft
from tables.breaks import BREAK, BreakRow, place_of
from tables.cache import decode_row
from tables.commands import COMMAND, CommandRow
from tables.orders import ORDER, OrderRow
from tables.positions import POSITION, PositionRow
from tables.row import Row, is_put_away, put_away_since
from tables.signals import SIGNAL, SignalRow
from tables.store import ENDED

Step = Literal["away", "ends"]

FAMILIES: dict[bytes, type[Row]] = {
    BREAK: BreakRow,
    COMMAND: CommandRow,
    ORDER: OrderRow,
    POSITION: PositionRow,
    SIGNAL: SignalRow,
}
"""The rows that grow in number, by how their keys begin. Bindings (``b/``) are completion's, and stay."""


def step_of(key: bytes, value: bytes, policy: Policy, now: datetime) -> tuple[Step, str] | None:
    """Return what a stored row is due for by itself and its account, None for nothing.

    One that was put away is not decoded before it is due.
    """
    is_away = is_put_away(value)
    if is_away and now.timestamp() - put_away_since(value) < _kept_s(policy):
        return None
    row = row_of(key, value)
    if row is None or not _is_over(row, policy, now):
        return None
    return ("ends" if is_away or isinstance(row, BreakRow) else "away"), _account_of(key, row)


def row_of(key: bytes, value: bytes) -> Row | None:
    """Return the row in ``value``, None for one of no family that may leave."""
    model = FAMILIES.get(key[:2])
    return None if model is None else decode_row(key, value, model)


def _account_of(key: bytes, row: Row) -> str:
    if isinstance(row, OrderRow | PositionRow):
        return row.account
    if isinstance(row, BreakRow):
        return row.message.account
    return key[2:].partition(b"\0")[0].decode()


def prune(draft: Draft, due: Prune) -> None:
    """Put rows away or end them, all but those that this commit changes, or that are not over after all.

    Called last in a commit.
    """
    for key in due.away:
        if (row := _unchanged(draft, key)) is not None and (since := row.over_since) is not None:
            draft.away[key] = row.put_away(since)
            draft.counts["pruned", "away"] += 1
    for key in due.ending:
        if (row := _unchanged(draft, key)) is not None and not _is_needed(draft, row):
            draft.away[key] = ENDED
            draft.counts["pruned", "ended"] += 1


def _unchanged(draft: Draft, key: bytes) -> Row | None:
    row = None if key in draft.changed else draft.rows(key, FAMILIES[key[:2]])
    return row if row is not None and _is_over(row, draft.policy, draft.now) else None


def _is_over(row: Row, policy: Policy, now: datetime) -> bool:
    since = row.over_since
    return since is not None and now - since >= policy.closed_for


def _kept_s(policy: Policy) -> float:
    """Return for how long a row stays at all: a moment longer than what it decided on could still be accepted."""
    return policy.rules.remembered_s + policy.max_skew.total_seconds()


def _is_needed(draft: Draft, row: Row) -> bool:
    """Return whether something that is not over rests on a row that is."""
    account = draft.account_row()
    if isinstance(row, BreakRow):
        return place_of(draft.account, row.message.break_id) in account.breaks
    if (draft.now - (row.over_since or draft.now)).total_seconds() < _kept_s(draft.policy):
        return True
    # Exits and commands under way look at orders and positions of theirs.
    if account.goals or account.commands:
        return True
    if isinstance(row, OrderRow):
        return any(_is_open(draft, deal.filled.position_id) for deal in row.state.deals.values() if deal.filled)
    if isinstance(row, SignalRow):
        orders = row.order_ids or ((row.order_id,) if row.order_id else ())
        return any(draft.order(order_id) is not None for order_id in orders)
    return False


def _is_open(draft: Draft, position_id: int) -> bool:
    row = draft.position(position_id)
    return row is not None and bool(row.state.net)
