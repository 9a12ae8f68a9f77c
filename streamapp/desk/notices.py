"""What is told to whoever sent something that can't be used: a dead letter, and refused/1 or error/1 to the sender."""

from __future__ import annotations

from streamapp import subjects, topics
from streamapp.desk.inputs import Incoming, read_order, shown_symbol
from streamapp.desk.state import Draft, unusable
from streamapp.domain.identifiers import error_id_for
from streamapp.errors import Unusable
from streamapp.messages.command import CommandResultMessage
from streamapp.messages.commit import Publication
from streamapp.messages.decision import AcceptedMessage, RefusedMessage, undecided
from streamapp.messages.envelope import json_object
from streamapp.messages.error import ErrorKind, ErrorMessage
from streamapp.messages.signal import account_of, signal_id_of

NO_SYMBOL = "-"
_MOST = 2000


def notify_sender(draft: Draft, incoming: Incoming, error: Unusable, *, final: bool = True) -> None:
    """Bury a record, and tell the strategy, execution service or connector that sent it why; the same words always."""
    draft.bury(incoming.dead(error.reason, error.detail), incoming.key, incoming.partition)
    if incoming.topic in {topics.SIGNALS_APPROVED, topics.ORDER_COMMANDS}:
        refuse_undecided(draft, incoming, error)
    elif incoming.topic == topics.ORDERS_SUBMITTED:
        _notify_execution(draft, incoming, error, final=final)
    elif incoming.text(topics.FAMILY) in {"fill", "error"}:
        _notify_connector(draft, incoming, error)


def refuse_undecided(draft: Draft, incoming: Incoming, error: Unusable) -> None:
    """Tell the sender of a signal or a command that can't be decided, by what mirror could read of it."""
    if incoming.topic == topics.ORDER_COMMANDS:
        _notify_commander(draft, incoming, error)
        return
    decision, refused = undecided(
        error,
        signal_id=incoming.text(topics.MESSAGE_OF),
        account=draft.account,
        symbol=incoming.approved_symbol or "",
        stream_seq=incoming.sequence,
        at=incoming.at,
        payload=incoming.payload,
    )
    draft.publish(decision, trace=incoming.trace)
    answer_sender(draft, incoming, refused)


def answer_sender(draft: Draft, incoming: Incoming, answer: AcceptedMessage | RefusedMessage) -> None:
    """Publish the one answer to a message of the stream; its account is escaped in its id, for it is what was sent."""
    if isinstance(answer, AcceptedMessage):
        word, subject = "accepted", subjects.signal_accepted(answer.symbol)
    else:
        word, subject = "refused", subjects.signal_refused(answer.symbol)
    parts = (word, subjects.token(answer.account), answer.signal_id or "", incoming.sequence)
    draft.publish(answer, subject=subject, id_parts=parts, trace=incoming.trace)


def _notify_commander(draft: Draft, incoming: Incoming, error: Unusable) -> None:
    if (request_id := incoming.text(topics.MESSAGE_OF)) is not None:
        draft.publications.append(command_refusal(incoming, error, request_id, draft.policy.deployment))


def command_refusal(incoming: Incoming, error: Unusable, request_id: str, deployment: str) -> Publication:
    """Return the answer to a command that can't be read."""
    result = CommandResultMessage(
        account=incoming.text(topics.ACCOUNT),
        request_id=request_id,
        command=subjects.command_name(incoming.text(topics.NATS_SUBJECT) or "")[:128],
        state="refused",
        revision=1,
        why=error.reason,
        detail=error.detail,
        stream_seq=incoming.sequence,
        at=incoming.at,
    )
    name = subjects.message_id(deployment, "command", "", request_id, incoming.sequence)
    return Publication(result.encode(), subjects.command_result(request_id), name, incoming.trace)


def _order_error(
    draft: Draft, incoming: Incoming, order_id: str, *, account: str, symbol: str, message: str, final: bool
) -> ErrorMessage:
    """Return error/1 about a foreign order that never became one of ours."""
    kind: ErrorKind = "invalid" if final else "duplicate"
    return ErrorMessage(
        error_id=error_id_for(order_id, 1, kind if final else f"{kind}:{incoming.sequence}"),
        order_id=order_id,
        account=account,
        symbol=symbol,
        kind=kind,
        message=message[:_MOST],
        attempt=1,
        final=final,
        at=incoming.at,
        executor=draft.policy.deployment,
    )


def _notify_execution(draft: Draft, incoming: Incoming, error: Unusable, *, final: bool) -> None:
    try:
        named = read_order(incoming)
    except Unusable:
        return
    order_id = signal_id_of({"signal_id": named.get("order_id")})
    if order_id is not None:
        notice = _order_error(
            draft,
            incoming,
            order_id,
            account=account_of(named) or "",
            symbol=shown_symbol(named),
            message=unusable(error),
            final=final,
        )
        parts = ("error", notice.error_id)
        draft.publish(notice, subject=subjects.error(notice.symbol), id_parts=parts, trace=incoming.trace)


def _notify_connector(draft: Draft, incoming: Incoming, error: Unusable) -> None:
    try:
        named = json_object(incoming.payload)
    except Unusable:
        named = {}
    order_id, account, symbol = (_text(named.get(name)) for name in ("order_id", "account", "symbol"))
    notice = ErrorMessage(
        error_id=error_id_for(subjects.token(order_id or NO_SYMBOL), 0, f"unusable:{incoming.sequence}"),
        order_id=order_id,
        account=account or "",
        symbol=symbol or NO_SYMBOL,
        kind="invalid",
        message=unusable(error)[:500],
        final=False,
        at=incoming.at,
        executor=draft.policy.deployment,
    )
    draft.publish(
        notice,
        subject=subjects.error(notice.symbol),
        id_parts=("error", *notice.error_id.split(":")),
        trace=incoming.trace,
    )


def _text(value: object) -> str | None:
    return value[:128] if isinstance(value, str) and value else None
