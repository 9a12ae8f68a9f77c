"""What terminals report becomes facts; the watermark of what is durable moves with them (design: submission "Reports").

A report beyond a gap is used at once; the watermark waits for the gap. Facts are known by their ids, so a report that
is redelivered adds nothing.
"""

from __future__ import annotations

from dataclasses import replace

from streamapp import subjects
from streamapp.desk.effects import AckReports
from streamapp.desk.exits import close_in_parts
from streamapp.desk.inputs import Released, Snapshot, TerminalReport
from streamapp.desk.projection import BOOKED, add_fact
from streamapp.desk.state import Draft
from streamapp.desk.trading import as_traded
from streamapp.domain.facts import AccountOperation, SubmitRefused, make_fact
from streamapp.domain.reports import ReportProgress
from streamapp.domain.vocabulary import time_text
from streamapp.errors import Unusable
from streamapp.messages.account import AccountMessage
from streamapp.messages.report import ConnectionChange, Report
from tables.accounts import AccountRow

STATE_KEPT_S = 60.0
"""How often the account's state is made durable while only its money moves."""


def take_report(draft: Draft, new: TerminalReport) -> None:
    """Add what a terminal reported, and count it as seen; what can't be used is a dead letter and seen as well."""
    progress = _progress(draft) or ReportProgress(new.epoch)
    try:
        if new.report is None:
            assert new.bad is not None
            raise Unusable(new.bad.reason, new.bad.detail)
        _apply(draft, new, new.report, is_current=new.epoch not in progress.earlier)
        draft.counts["reports", new.report.kind] += 1
    except Unusable as error:
        # Durable like any other once it is a dead letter: the watermark may pass it, or it would wait for ever.
        incoming = new.incoming
        draft.bury(incoming.dead(error.reason, f"seq {new.seq}: {error.detail}"), incoming.key, incoming.partition)
    count_seen(draft, new)


def count_seen(draft: Draft, new: TerminalReport) -> None:
    """Count a report as durable with this commit."""
    draft.progress = (_progress(draft) or ReportProgress(new.epoch)).seen(new.epoch, new.seq)


def take_released(draft: Draft, new: Released) -> None:
    """Wait no longer for reports that the journal of a rebuilt account has forgotten (design: rebuild).

    It forgets only what a store of ours had made durable. Of a store that was not rebuilt they would be lost, so that
    one goes on asking, and it shows.
    """
    if draft.account_row().rebuilt is not None:
        draft.progress = (_progress(draft) or ReportProgress(new.epoch)).released(new.epoch, new.seq)


def finish_reports(draft: Draft) -> None:
    """Put the watermark that this commit's reports have reached, and let the terminal forget them."""
    progress, row = draft.progress, draft.account_row()
    if progress is None:
        return
    if (progress.epoch, progress.watermark) != (row.epoch, row.watermark):
        draft.put_account(
            row.model_copy(
                update={"epoch": progress.epoch, "watermark": progress.watermark, "earlier": progress.earlier}
            )
        )
    draft.memory = replace(draft.memory, ahead=progress.ahead)
    draft.effects.append(AckReports(draft.account, progress.epoch, progress.watermark, is_missing=progress.has_gap))


def take_snapshot(draft: Draft, new: Snapshot) -> None:
    """Note a snapshot; of several only the newest counts."""
    if draft.snapshot is None or new.snapshot.at > draft.snapshot.snapshot.at:
        draft.snapshot = new


def finish_snapshot(draft: Draft) -> None:
    """Publish the account's state where this commit's newest is newer and different; it is durable once a minute."""
    new, known = draft.snapshot, draft.memory
    if new is None or (known.state_at is not None and new.snapshot.at <= known.state_at):
        return
    snapshot = new.snapshot
    state = as_traded(draft, snapshot.state)
    is_same = known.state is not None and state.model_copy(update={"at": known.state.at}) == known.state
    draft.memory = replace(known, state=known.state if is_same else state, state_at=snapshot.at)
    if is_same:
        return
    account = subjects.token(snapshot.account)
    draft.publish(
        state,
        subject=subjects.account_state(snapshot.account),
        id_parts=("account", account, time_text(snapshot.at)),
        trace=new.incoming.trace,
    )
    row = draft.account_row()
    if _is_due(row, state, draft):
        draft.put_account(row.model_copy(update={"state": state, "state_at": snapshot.at}))


def _is_due(row: AccountRow, state: AccountMessage, draft: Draft) -> bool:
    if row.state is None or row.state_at is None or row.state.connection != state.connection:
        return True
    return (draft.now - row.state_at).total_seconds() >= STATE_KEPT_S


def _progress(draft: Draft) -> ReportProgress | None:
    """Return how far the account's reports are, None before the first; beyond a gap only the memory knows."""
    if draft.progress is not None:
        return draft.progress
    row = draft.account_row()
    return None if not row.epoch else ReportProgress(row.epoch, row.watermark, draft.memory.ahead, row.earlier)


def _apply(draft: Draft, new: TerminalReport, report: Report, *, is_current: bool) -> None:
    body, progress = report.body, _progress(draft)
    if _is_in_no_row(body) and progress and progress.has(new.epoch, new.seq):
        # No row need know them: the watermark does. What is reported again under another number, by a journal that was
        # lost and reads a day of history anew or from beyond a gap that a restart forgot, is said again under the same
        # ids, which NATS and ClickHouse drop. A position knows what was charged to it, which a watermark that was
        # rebuilt need not.
        return
    if isinstance(body, ConnectionChange):
        _publish_connection(draft, new, report, body)
        return
    if report.order_id is None and not isinstance(body, BOOKED):
        raise Unusable("no_order", f"order_id: expected one for {report.kind}, got null")
    if report.order_id is not None and isinstance(body, AccountOperation):
        raise Unusable("invalid", f"order_id: expected null for {report.kind}, got {report.order_id!r:.80}")
    known = None if report.order_id is None else draft.order(report.order_id)
    if known is not None and known.account != new.account:
        raise Unusable("wrong_account", f"order {report.order_id}: expected one of {new.account!r:.80}")
    cause = f"report:{new.account}:{new.epoch}:{new.seq}"
    fact = make_fact(new.account, report.order_id, body, at=report.at, causation_id=cause)
    add_fact(draft, fact, new.incoming.trace, journal_epoch=new.epoch if is_current else None)
    if isinstance(body, SubmitRefused) and report.order_id is not None:
        close_in_parts(draft, report.order_id)


def _is_in_no_row(body: object) -> bool:
    return isinstance(body, ConnectionChange) or (isinstance(body, AccountOperation) and body.position_id is None)


def _publish_connection(draft: Draft, new: TerminalReport, report: Report, change: ConnectionChange) -> None:
    """Publish a change of connection, unless a snapshot that is newer has shown how it stands since."""
    if draft.memory.state_at is not None and report.at < draft.memory.state_at:
        return
    known = draft.memory.state or AccountMessage(account=new.account, connection=change.connection, at=report.at)
    state = known.model_copy(
        update={
            "connection": change.connection,
            "detail": change.detail,
            "trading": "open" if change.connection == "ready" else "not_ready",
            "epoch": new.epoch,
            "at": report.at,
        }
    )
    state = as_traded(draft, state)
    draft.publish(
        state,
        subject=subjects.account_state(new.account),
        id_parts=("account", subjects.token(new.account), new.epoch, new.seq),
        trace=new.incoming.trace,
    )
    # Published last, so the next snapshot is compared with it; durable, or a restart would compare with the one before.
    draft.memory = replace(draft.memory, state=state, state_at=report.at)
    draft.put_account(draft.account_row().model_copy(update={"state": state, "state_at": report.at}))
