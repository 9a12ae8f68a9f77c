"""A signal, or a foreign order, gets one decision, and what is accepted becomes an order (design: order-status)."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from streamapp import subjects
from streamapp.desk.inputs import NewSignal
from streamapp.desk.notices import notify_sender
from streamapp.desk.projection import add_fact
from streamapp.desk.state import Draft
from streamapp.desk.submission import submit_new
from streamapp.domain.facts import OrderCreated, make_fact
from streamapp.domain.identifiers import order_id_for
from streamapp.domain.parameters import parameters_hash
from streamapp.domain.signals import ACCEPTED, Verdict, judge, judge_again, not_after, signal_time, size_of
from streamapp.errors import Unusable
from streamapp.messages.answer import CopyDecision, CopyMessage
from streamapp.messages.decision import DecisionMessage, RefusedMessage
from streamapp.messages.signal import Signal
from tables.signals import SignalRow


def decide_signal(draft: Draft, new: NewSignal) -> None:
    """Decide on the first message of a signal, answer another one, and pass over a redelivery."""
    row = draft.signal(new.id)
    if row is None:
        _decide(draft, new)
    elif row.stream_seq != new.incoming.sequence:
        _answer_again(draft, new, row)


def _decide(draft: Draft, new: NewSignal) -> None:
    verdict = _judge(draft, new)
    order_id = None
    if verdict.decision == "accepted":
        order_id = new.order_id or order_id_for(draft.policy.deployment, new.account, new.id)
    row = SignalRow(
        stream_seq=new.incoming.sequence,
        verdict=verdict,
        fingerprint=new.fingerprint,
        parameters_hash=None if new.signal is None else new.fingerprint,
        order_id=order_id,
        decided_at=draft.now,
    )
    draft.put_signal(new.id, row)
    _answer(draft, new, row, verdict, at=draft.now)
    if order_id is not None and new.signal is not None:
        _create(draft, new, new.signal, order_id)


def _judge(draft: Draft, new: NewSignal) -> Verdict:
    if new.signal is None:
        return Verdict("refused", "bad_field", new.fault)
    standing = None if new.order_id is None else draft.order(new.order_id)
    if standing is not None and standing.account != new.account:
        return Verdict("refused", "bad_field", "order_id: expected one that no order of another account has")
    verdict = judge(
        new.signal,
        draft.policy.rules,
        stream_time=new.incoming.at,
        now=draft.now,
        halted=draft.halted or draft.halting,
        weight=new.weight,
    )
    return verdict if verdict.decision != "accepted" or new.approval in {None, ACCEPTED} else new.approval


def _answer_again(draft: Draft, new: NewSignal, row: SignalRow) -> None:
    # Of a message that made no row only the stream's time is the same every time it is delivered.
    _answer(draft, new, row, judge_again(row.recorded, new.fingerprint), at=new.incoming.at)


def _create(draft: Draft, new: NewSignal, signal: Signal, order_id: str) -> None:
    asked, lots = signal.parameters, _lots(draft, new, signal)
    parameters = asked if lots == asked.volume else asked.model_copy(update={"volume": lots})
    created = OrderCreated(
        parameters=parameters,
        # What the sender sent is known by its fingerprint, the order by what is sent on.
        parameters_hash=new.fingerprint if parameters is asked else parameters_hash(parameters),
        signal_id=new.signal_id,
        strategy=signal.strategy,
        expected_price=signal.expected_price,
        max_slippage_points=signal.max_slippage_points,
        signal_at=signal_time(signal, new.incoming.at),
        not_after=not_after(signal, draft.policy.rules, new.incoming.at),
        executor=draft.policy.executor,
        metadata=signal.metadata,
    )
    cause = f"signal:{new.account}:{new.id}:{new.incoming.sequence}"
    trace = new.incoming.trace
    add_fact(draft, make_fact(new.account, order_id, created, at=draft.now, causation_id=cause), trace)
    submit_new(draft, order_id, trace)


def _lots(draft: Draft, new: NewSignal, signal: Signal) -> Decimal:
    return size_of(signal, draft.policy.rules, new.weight).volume


# --- answers


def _answer(draft: Draft, new: NewSignal, row: SignalRow, verdict: Verdict, *, at: datetime) -> None:
    if new.order_id is not None:
        _answer_order(draft, new, verdict)
        return
    draft.counts["decisions", verdict.decision, verdict.reason or ""] += 1
    draft.publish(_decision(new, row, verdict, at), trace=new.incoming.trace)
    answer_copy(draft, new, verdict, order_id=row.order_id, at=at)
    if verdict.decision in {"refused", "conflict"}:
        publish_refusal(
            draft,
            RefusedMessage(
                signal_id=new.signal_id,
                account=new.account,
                symbol=new.symbol,
                reason=verdict.reason or verdict.decision,
                detail=verdict.detail,
                order_id=row.order_id,
                at=at,
            ),
            new.incoming.sequence,
            new.incoming.trace,
        )


def answer_copy(draft: Draft, new: NewSignal, verdict: Verdict, *, order_id: str | None, at: datetime) -> None:
    """Tell completion what was decided, if this is one of a signal's copies: it answers when all of them are."""
    if new.weight is None:
        return
    decision = CopyDecision(
        account=new.account,
        weight=new.weight,
        decision=verdict.decision,
        reason=verdict.reason,
        detail=verdict.detail,
        order_id=order_id,
        volume=_lots(draft, new, new.signal) if verdict.decision == "accepted" and new.signal is not None else None,
    )
    message = CopyMessage(signal_id=new.signal_id, symbol=new.symbol, copy_=decision, at=at)
    draft.publish(message, trace=new.incoming.trace, copy_of=new.signal_id)


def publish_refusal(draft: Draft, refused: RefusedMessage, sequence: int, trace: str | None) -> None:
    """Publish a refusal once; the account is escaped in its id, for it is whatever was sent."""
    parts = ("refused", subjects.token(refused.account), refused.signal_id, sequence)
    draft.publish(refused, subject=subjects.signal_refused(refused.symbol), id_parts=parts, trace=trace)


def _decision(new: NewSignal, row: SignalRow, verdict: Verdict, at: datetime) -> DecisionMessage:
    is_same = verdict.decision != "conflict"
    return DecisionMessage(
        account=new.account,
        signal_id=new.signal_id,
        stream_seq=new.incoming.sequence,
        symbol=new.symbol,
        strategy=new.strategy,
        decision=verdict.decision,
        reason=verdict.reason,
        detail=verdict.detail,
        order_id=row.order_id,
        parameters_hash=row.parameters_hash if is_same else (None if new.signal is None else new.fingerprint),
        at=at,
        payload=new.incoming.payload.decode("utf-8", "replace"),
    )


def _answer_order(draft: Draft, new: NewSignal, verdict: Verdict) -> None:
    draft.counts["foreign_orders", verdict.decision] += 1
    if verdict.decision in {"refused", "conflict"}:
        error = Unusable(verdict.reason or verdict.decision, verdict.detail or "")
        # A conflict is not final: the first order stands, whatever becomes of it.
        notify_sender(draft, new.incoming, error, final=verdict.decision == "refused")
