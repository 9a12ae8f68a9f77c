"""An order's way to its terminal: held, claimed, submitted, asked again, or refused by us (design: submission, 1-4).

The commit is the durable claim. What is to be submitted is an effect of the commit that claims it, or of a later one
that asks again; where an order stands is read from its row alone (:attr:`tables.orders.OrderRow.standing`).
"""

from __future__ import annotations

from datetime import datetime

from streamapp.desk.effects import Submit
from streamapp.desk.guards import count_opening, overrides_of
from streamapp.desk.inputs import SubmitAnswered, SubmitUnanswered, Sweep
from streamapp.desk.projection import add_fact
from streamapp.desk.state import Draft
from streamapp.domain.facts import Body, OrderCreated, OutcomeUnknown, SubmitClaimed, SubmitRefused, make_fact
from streamapp.domain.vocabulary import decimal_text
from streamapp.messages.terminal import SubmitRequest
from tables.orders import HANDED_OVER, OrderRow

FIRST_ATTEMPT = 1


def create_order(draft: Draft, order_id: str, created: OrderCreated, *, cause: str, trace: str | None) -> None:
    """Create an order, and claim it if its terminal is ready; otherwise it is held.

    For somebody else's connector the claim is the submission: the revision that it makes is ``orders.submitted``.
    """
    add_fact(draft, make_fact(draft.account, order_id, created, at=draft.now, causation_id=cause), trace)
    row = _known(draft, order_id)
    if created.position_id is None:
        count_opening(draft)
    assert row.state.created is not None
    if draft.policy.executes:
        if _may_be_claimed(draft, row.state.created):
            _claim(draft, row, trace)
        return
    if draft.now < row.state.created.not_after:
        _add(draft, row, _claimed(row, HANDED_OVER), draft.now, trace)
    else:
        message = "past not_after before it could be handed over"
        _add(draft, row, SubmitRefused(attempt=FIRST_ATTEMPT, reason="stale", message=message), draft.now, trace)


def sweep(draft: Draft, due: Sweep) -> None:
    """Take the next step with orders that wait for a terminal; nothing for those whose row has moved on meanwhile."""
    for order_id in due.order_ids:
        row = draft.order(order_id)
        if row is None or row.state.created is None:
            continue
        match row.standing:
            case "held":
                _step_of_held(draft, row)
            case "unanswered":
                _submit(draft, row)
            case "recorded" if draft.terminal.epoch not in {None, row.journal_epoch}:
                # That journal is lost: asked with its epoch, the new one makes it a doubt and resolves it.
                _submit(draft, row)
            case "handed_over" if draft.now - draft.policy.max_skew > row.state.created.not_after:
                _doubt(draft, row, "no_answer", row.state.created.not_after)
            case _:
                pass


def call_off(draft: Draft, row: OrderRow, why: str) -> None:
    """End an order that was never handed to a terminal, because somebody cancelled it."""
    _add(draft, row, SubmitRefused(attempt=FIRST_ATTEMPT, reason="cancelled", message=why), draft.now, None)


def take_answer(draft: Draft, answer: SubmitAnswered | SubmitUnanswered) -> None:
    """Make the fact of an answer that is one: a conflict, or silence about a claim that no report has answered yet.

    Everything else that the journal holds comes back as a report.
    """
    row = draft.order(answer.order_id)
    if row is None:
        return
    if isinstance(answer, SubmitAnswered):
        if answer.state == "conflict":
            _doubt(draft, row, "conflict", draft.now)
    elif row.standing == "unanswered":
        _doubt(draft, row, "no_answer", draft.now)


def _step_of_held(draft: Draft, row: OrderRow) -> None:
    """Claim a held order in time, or refuse it: too late wherever the terminal's clock may be, or halted meanwhile."""
    assert row.state.created is not None
    if row.state.created.position_id is None and (why := draft.halted) is not None:
        _add(draft, row, SubmitRefused(attempt=FIRST_ATTEMPT, reason="halted", message=why), draft.now, None)
    elif _may_be_claimed(draft, row.state.created) and draft.now < row.state.created.not_after:
        _claim(draft, row, None)
    elif draft.now - draft.policy.max_skew > row.state.created.not_after:
        why = "" if draft.terminal.reconciled else ": the account's books were never compared with the broker's"
        message = f"never handed to a terminal{why}"
        refusal = SubmitRefused(attempt=FIRST_ATTEMPT, reason="not_connected", message=message)
        _add(draft, row, refusal, draft.now, None)


def _may_be_claimed(draft: Draft, created: OrderCreated) -> bool:
    """Return whether the terminal may get an order now; one that opens waits for the account's first reconciliation."""
    return draft.terminal.ready and (draft.terminal.reconciled or created.position_id is not None)


def _claim(draft: Draft, row: OrderRow, trace: str | None) -> None:
    _add(draft, row, _claimed(row, _journal_of(draft, row)), draft.now, trace)
    draft.counts[("claimed",)] += 1
    _submit(draft, _known(draft, row.order_id))


def _journal_of(draft: Draft, row: OrderRow) -> str:
    """Return the epoch that a claim is for: that of the terminal, or what a rebuilt account had before.

    A store that was lost may have claimed the same order already. The same journal answers for it; another one makes
    it a doubt, and looks for it at the broker.
    """
    assert draft.terminal.epoch is not None
    assert row.state.created is not None
    rebuilt = draft.account_row().rebuilt
    if rebuilt is None or not rebuilt.epoch or not rebuilt.is_after(row.state.created.signal_at):
        return draft.terminal.epoch
    return rebuilt.epoch


def _claimed(row: OrderRow, epoch: str) -> SubmitClaimed:
    assert row.state.created is not None
    return SubmitClaimed(attempt=FIRST_ATTEMPT, epoch=epoch, not_after=row.state.created.not_after)


def _submit(draft: Draft, row: OrderRow) -> None:
    created, epoch = row.state.created, row.claim_epoch or row.journal_epoch
    assert created is not None
    assert epoch is not None
    draft.effects.append(
        Submit(
            SubmitRequest(
                order_id=row.order_id,
                account=row.account,
                hash=created.parameters_hash,
                epoch=epoch,
                attempt=max(FIRST_ATTEMPT, row.state.last_attempt),
                not_after=created.not_after,
                parameters=created.parameters,
                expected_price=None if created.expected_price is None else decimal_text(created.expected_price),
                max_slippage_points=created.max_slippage_points,
                position_id=created.position_id,
                limits=overrides_of(draft, created.parameters.symbol) if created.position_id is None else None,
            )
        )
    )


def _doubt(draft: Draft, row: OrderRow, why: str, at: datetime) -> None:
    attempt = max(FIRST_ATTEMPT, row.state.last_attempt)
    known = len(draft.facts)
    _add(draft, row, OutcomeUnknown(attempt=attempt, why=why), at, None)
    if len(draft.facts) > known:
        draft.counts["unknown", why] += 1


def _add(draft: Draft, row: OrderRow, body: Body, at: datetime, trace: str | None) -> None:
    add_fact(draft, make_fact(row.account, row.order_id, body, at=at, causation_id=f"order:{row.order_id}"), trace)


def _known(draft: Draft, order_id: str) -> OrderRow:
    row = draft.order(order_id)
    assert row is not None
    return row
