"""What the broker showed of an account, for the archive: its money and positions once a minute and at every change."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from streamapp.desk.reconciliation import READABLE
from streamapp.desk.state import Draft
from streamapp.domain.orders import exact_sum
from streamapp.messages.account import SnapshotMessage, SnapshotPosition
from streamapp.messages.history import AccountHistoryMessage, PositionHistoryMessage

EVERY_S = 60.0
"""How often all of it is kept while only prices move."""
MOST = 200
"""Positions that one commit keeps, some 70 kB: more than 256 KiB unsaid would hold up the account. Where more are open
those beyond it are kept when they change, as far as there is room."""


def keep_history(draft: Draft) -> None:
    """Add to the archive what this commit's newest snapshot shows, if it is due: an account's money and positions."""
    if draft.snapshot is None or not draft.policy.owns_orders:
        return
    snapshot, known = draft.snapshot.snapshot, draft.memory
    before = known.recorded
    if snapshot.state.connection not in READABLE or (before is not None and snapshot.at <= before.at):
        return
    changed = _changed(before, snapshot)
    is_due = known.recorded_at is None or (snapshot.at - known.recorded_at).total_seconds() >= EVERY_S
    if not changed and not is_due:
        return
    draft.publish(_of_account(snapshot))
    told = {**changed, **({each.position_id: each for each in snapshot.positions} if is_due else {})}
    for message in _of_positions(snapshot, before, sorted(told)[:MOST]):
        draft.publish(message)
    draft.memory = replace(known, recorded=snapshot, recorded_at=snapshot.at if is_due else known.recorded_at)


def _changed(before: SnapshotMessage | None, now: SnapshotMessage) -> dict[int, SnapshotPosition]:
    """Return the positions that are new, other or gone, apart from what moves with every price."""
    was = {each.position_id: each for each in before.positions} if before is not None else {}
    there = {each.position_id: each for each in now.positions}
    found = {number: each for number, each in there.items() if number not in was or _held(each) != _held(was[number])}
    return found | {number: each for number, each in was.items() if number not in there}


def _held(position: SnapshotPosition) -> tuple[object, ...]:
    return position.symbol, position.side, position.volume, position.stop_loss, position.take_profit


def _of_account(snapshot: SnapshotMessage) -> AccountHistoryMessage:
    state = snapshot.state
    return AccountHistoryMessage(
        account=snapshot.account,
        balance=state.balance,
        equity=state.equity,
        margin=state.margin,
        margin_free=state.margin_free,
        margin_level=state.margin_level,
        currency=state.currency,
        positions=len(snapshot.positions),
        floating_profit=exact_sum(each.profit for each in snapshot.positions),
        floating_swap=exact_sum(each.swap for each in snapshot.positions),
        at=snapshot.at,
    )


def _of_positions(
    snapshot: SnapshotMessage, before: SnapshotMessage | None, numbers: Iterable[int]
) -> Iterable[PositionHistoryMessage]:
    there = {each.position_id: each for each in snapshot.positions}
    gone = {} if before is None else {each.position_id: each for each in before.positions}
    for number in numbers:
        position = there.get(number)
        yield (
            _of_position(snapshot.account, position, snapshot.at)
            if position
            else PositionHistoryMessage(
                account=snapshot.account,
                position_id=number,
                symbol=gone[number].symbol,
                order_id=gone[number].order_id,
                at=snapshot.at,
            )
        )


def _of_position(account: str, position: SnapshotPosition, at: datetime) -> PositionHistoryMessage:
    shared = PositionHistoryMessage.model_fields.keys() & SnapshotPosition.model_fields.keys()
    return PositionHistoryMessage(account=account, at=at, **{name: getattr(position, name) for name in shared})
