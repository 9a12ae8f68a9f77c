"""How an error notice is said for an order that never became one of ours: error/1 on ``updates``, published once."""

from __future__ import annotations

from datetime import datetime

from agents.incoming import Incoming
from streamapp import subjects, topics
from streamapp.domain.identifiers import error_id_for
from streamapp.kafka.producer import Record
from streamapp.messages.error import ErrorKind, ErrorMessage
from streamapp.settings import Settings


def error_record(
    settings: Settings,
    incoming: Incoming,
    *,
    order_id: str,
    account: str,
    symbol: str,
    kind: ErrorKind,
    message: str,
    final: bool,
    at: datetime,
) -> Record:
    """Return the record of an error/1 about what ``incoming`` asked for; the same id whenever it is said again."""
    error = ErrorMessage(
        error_id=error_id_for(order_id, 1, kind if final else f"{kind}:{incoming.sequence}"),
        order_id=order_id,
        account=account,
        symbol=symbol,
        kind=kind,
        message=message[:2000],
        attempt=1,
        final=final,
        at=at,
        executor=settings.deployment,
    )
    headers = {
        topics.PUBLISH_SUBJECT: subjects.error(symbol).encode(),
        topics.PUBLISH_ID: subjects.message_id(settings.deployment, "error", error.error_id).encode(),
    }
    return Record(topics.UPDATES, incoming.key, error.encode(), headers | incoming.trace, incoming.partition)
