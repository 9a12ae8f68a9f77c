"""A signal, or a foreign order, gets one decision, and what is accepted becomes an order (design: order-status)."""

from __future__ import annotations

from datetime import datetime

from streamapp.desk.inputs import NewSignal
from streamapp.desk.notices import answer_sender, notify_sender
from streamapp.desk.state import Draft
from streamapp.desk.submission import create_order
from streamapp.domain.exits import Goal
from streamapp.domain.facts import OrderCreated
from streamapp.domain.parameters import OrderParameters, parameters_hash
from streamapp.domain.signals import (
    ACCEPTED,
    Verdict,
    judge,
    judge_again,
    not_after,
    signal_time,
    size_of,
    traded,
)
from streamapp.domain.vocabulary import time_text
from streamapp.errors import Unusable
from streamapp.messages.answer import CopyDecision, CopyMessage
from streamapp.messages.decision import AcceptedMessage, DecisionMessage, RefusedMessage
from streamapp.messages.signal import ExitSignal, Signal
from tables.positions import PositionRow
from tables.signals import SignalRow

MOST_GOALS = 500
"""Exits of one account that are not done: each is looked at after every input, and named in the account's row."""

_NO_REVERSE = "intent: expected reverse on a netting account; on a hedging one send a close and an open"
_NO_LEVELS = "intent: somebody else's connector can't be asked for the levels of a position"
_REBUILT = (
    "it came before the store was rebuilt from the archive, and nobody knows what was done of it: look at what is "
    "open, and send a new signal for what is left"
)
_TOO_MANY = f"expected at most {MOST_GOALS} exits of an account under way: its terminal answers none of them"


def decide_signal(draft: Draft, new: NewSignal) -> None:
    """Decide on the first message of a signal, answer another one, and pass over a redelivery."""
    row = draft.signal(new.id)
    if row is None:
        _decide(draft, new)
    elif row.stream_seq != new.incoming.sequence:
        _answer_again(draft, new, row)


def _decide(draft: Draft, new: NewSignal) -> None:
    verdict = _judge(draft, new)
    is_accepted, order_id = verdict.decision == "accepted", None
    goal = _goal(draft, new, new.signal, verdict) if is_accepted and isinstance(new.signal, ExitSignal) else None
    if is_accepted and goal is None:
        order_id = new.order_id or draft.order_id(new.id)
    row = SignalRow(
        stream_seq=new.incoming.sequence,
        verdict=verdict,
        fingerprint=new.fingerprint,
        parameters_hash=None if new.signal is None else new.fingerprint,
        order_id=order_id,
        decided_at=draft.now,
        goal=goal,
    )
    draft.put_signal(new.id, row)
    if goal is not None:
        account = draft.account_row()
        draft.put_account(account.model_copy(update={"goals": (*account.goals, new.id)}))
        return  # decided when all of its orders are made (exits.py)
    answer(draft, new, row, verdict, at=draft.now)
    if order_id is not None and isinstance(new.signal, Signal):
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
        halted=draft.halted,
        weight=new.weight,
    )
    if verdict.decision != "accepted":
        return verdict
    exit_ = new.signal if isinstance(new.signal, ExitSignal) else None
    further = (ACCEPTED if exit_ is None else _judge_exit(draft, exit_, new.incoming.at), new.approval)
    return next((each for each in further if each is not None and each != ACCEPTED), verdict)


def _judge_exit(draft: Draft, exit_: ExitSignal, at: datetime) -> Verdict:
    """Return whether an exit, which came ``at`` into the stream, can mean anything at this account as it is now."""
    rebuilt = draft.account_row().rebuilt
    checks = (
        # Nobody knows whether the lost store had begun it: done again it might close more than was asked.
        ("rebuilt", rebuilt is not None and rebuilt.is_after(at), _REBUILT),
        ("bad_field", exit_.intent == "reverse" and draft.margin_mode == "hedging", _NO_REVERSE),
        ("unsupported", exit_.intent == "modify" and not draft.policy.executes, _NO_LEVELS),
        ("too_many", len(draft.account_row().goals) >= MOST_GOALS, _TOO_MANY),
    )
    reason, detail = next(((reason, detail) for reason, holds, detail in checks if holds), (None, None))
    if reason is not None:
        return Verdict("refused", reason, detail)
    return ACCEPTED if exit_.position_id is None else _judge_position(exit_, draft.position(exit_.position_id))


def _judge_position(exit_: ExitSignal, row: PositionRow | None) -> Verdict:
    name = f"position {exit_.position_id}"
    if row is None:
        return Verdict("refused", "unknown_position", f"position_id: no deal of {name} is known here")
    if row.state.symbol != exit_.symbol:
        detail = f"position_id: expected one of {exit_.symbol}, {name} is of {row.state.symbol}"
        return Verdict("refused", "bad_field", detail)
    if row.state.net and not row.state.shares:
        detail = f"position_id: {name} was not opened by an order of ours, and is never touched"
        return Verdict("refused", "foreign_position", detail)
    return ACCEPTED


def _answer_again(draft: Draft, new: NewSignal, row: SignalRow) -> None:
    # Of a message that made no row only the stream's time is the same every time it is delivered.
    answer(draft, new, row, judge_again(row.recorded, new.fingerprint), at=new.incoming.at)


def _goal(draft: Draft, new: NewSignal, exit_: ExitSignal, verdict: Verdict) -> Goal:
    parameters = traded(exit_.parameters, size_of(exit_, draft.policy.rules, new.weight))
    return Goal(
        parameters=parameters,
        strategy=exit_.strategy,
        expected_price=exit_.expected_price,
        max_slippage_points=exit_.max_slippage_points,
        signal_at=signal_time(exit_, new.incoming.at),
        not_after=not_after(exit_, draft.policy.rules, new.incoming.at),
        metadata=exit_.metadata,
        trace=new.incoming.trace,
        payload=new.incoming.payload.decode("utf-8", "replace"),
        left=None if exit_.intent == "reverse" else parameters.volume,
        weight=new.weight,
        how=verdict.detail,
    )


def _create(draft: Draft, new: NewSignal, signal: Signal, order_id: str) -> None:
    parameters = _traded(draft, new, signal)
    is_as_sent = new.closes is None and parameters.volume == signal.volume
    created = OrderCreated(
        parameters=parameters,
        # What the sender sent is known by its fingerprint, the order by what is sent on.
        parameters_hash=new.fingerprint if is_as_sent else parameters_hash(parameters, new.closes),
        intent="open" if new.closes is None else "close",
        position_id=new.closes,
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
    create_order(draft, order_id, created, cause=cause, trace=new.incoming.trace)


def _traded(draft: Draft, new: NewSignal, signal: Signal) -> OrderParameters:
    return traded(signal.parameters, size_of(signal, draft.policy.rules, new.weight))


# --- answers


def answer(draft: Draft, new: NewSignal, row: SignalRow, verdict: Verdict, *, at: datetime) -> None:
    """Say what was decided on a message: to the archive, and to whoever sent it."""
    if new.order_id is not None:
        _answer_order(draft, new, verdict)
        return
    draft.counts["decisions", verdict.decision, verdict.reason or ""] += 1
    draft.publish(_decision(new, row, verdict, at), trace=new.incoming.trace)
    if row.goal is None or row.goal.weight is None:  # else it is told when the exit is done
        answer_copy(draft, new, verdict, order_id=row.order_id, at=at)
    if verdict.reason is None:
        _confirm(draft, new, row, verdict, at)
    else:
        _refuse(draft, new, row, verdict, at)


def answer_copy(draft: Draft, new: NewSignal, verdict: Verdict, *, order_id: str | None, at: datetime) -> None:
    """Tell completion what was decided, if this is one of a signal's copies: it answers when all of them are."""
    if new.weight is None:
        return
    lots = None
    if verdict.decision == "accepted" and isinstance(new.signal, Signal):
        lots = _traded(draft, new, new.signal).volume
    decision = CopyDecision(
        account=new.account,
        weight=new.weight,
        decision=verdict.decision,
        reason=verdict.reason,
        detail=verdict.detail,
        order_id=order_id,
        volume=lots,
    )
    message = CopyMessage(signal_id=new.signal_id, symbol=new.symbol, copy_=decision, at=at)
    draft.publish(message, trace=new.incoming.trace, copy_of=new.signal_id)


def _confirm(draft: Draft, new: NewSignal, row: SignalRow, verdict: Verdict, at: datetime) -> None:
    """Tell the sender which order the signal is; sent again, it is the same one, and nothing more is sent."""
    is_first = row.stream_seq == new.incoming.sequence
    accepted = AcceptedMessage(
        signal_id=new.signal_id,
        account=new.account,
        symbol=new.symbol,
        strategy=new.strategy,
        order_id=row.order_id,
        order_ids=row.order_ids or (() if row.order_id is None else (row.order_id,)),
        detail=verdict.detail if is_first else _repeated(row),
        stream_seq=new.incoming.sequence,
        at=at,
    )
    answer_sender(draft, new.incoming, accepted)


def _repeated(row: SignalRow) -> str:
    since = f"accepted at {time_text(row.decided_at)}, message {row.stream_seq} of the stream"
    return since if row.goal is None else f"{since}; what it closes is still being found out"


def _refuse(draft: Draft, new: NewSignal, row: SignalRow, verdict: Verdict, at: datetime) -> None:
    """Tell the sender why; a refused signal that is sent again is refused for the recorded reason."""
    refused = RefusedMessage(
        signal_id=new.signal_id,
        account=new.account,
        symbol=new.symbol,
        reason=verdict.reason or verdict.decision,
        detail=verdict.detail,
        order_id=row.order_id,
        stream_seq=new.incoming.sequence,
        at=at,
    )
    answer_sender(draft, new.incoming, refused)


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
