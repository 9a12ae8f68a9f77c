"""The records on ``updates`` that say what facts made, with the headers by which each is published once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from agents.folding import DEALS, Entry, Told
from agents.updates import (
    Context,
    error_message,
    fill_message,
    is_news,
    is_published_by_us,
    order_message,
    position_message,
)
from streamapp import subjects, topics
from streamapp.domain.facts import BrokerCancelled, BrokerExpired
from streamapp.kafka.producer import Record
from streamapp.messages.envelope import Message
from streamapp.messages.fill import FillMessage
from tables.orders import Revision


class Teller:
    """Renders what was folded; a function of the facts, so that it may be said again.

    Args:
        deployment: Our name in message ids.
        tells_all: Whether orders and positions are ours to tell, not only fills and errors.
    """

    def __init__(self, deployment: str, *, tells_all: bool) -> None:
        self._deployment = deployment
        self._tells_all = tells_all

    def records(self, several: Iterable[Told]) -> list[Record]:
        """Return the updates of a group in its order: of each fact the order, the fill or error, the position."""
        return [record for told in several for record in self._of(told)]

    def _of(self, told: Told) -> Iterator[Record]:
        entry = told.entry
        for revision in told.revisions:
            yield from self._order(told, revision)
        if entry.fact.order_id is None and isinstance(entry.fact.body, DEALS):
            message = fill_message(entry.fact.account, entry.fact, None)
            if message is not None:
                yield self._fill(entry, message, ours=is_published_by_us(entry.fact))
        if told.position is not None and self._tells_all:
            for move in told.moves:
                position = position_message(told.position, move)
                if position is not None:
                    parts = ("position", subjects.token(position.account), position.position_id, position.rev)
                    yield self._update(entry, position, subjects.position(position.symbol), *parts)

    def _order(self, told: Told, revision: Revision) -> Iterator[Record]:
        entry, row = told.entry, told.order
        assert row is not None
        context = Context(row.order_id, row.account)
        if self._tells_all:
            order = order_message(context, revision)
            subject = subjects.order_status(order.status, order.symbol) if is_news(revision) else None
            yield self._update(entry, order, subject, "order", subjects.token(row.order_id), order.rev)
        ours = is_published_by_us(revision.fact)
        if isinstance(revision.fact.body, DEALS):
            fill = fill_message(row.account, revision.fact, revision.state)
            if fill is not None:
                yield self._fill(entry, fill, ours=ours)
        elif self._is_told(revision) and (error := error_message(context, revision)) is not None:
            subject = subjects.error(error.symbol) if ours else None
            yield self._update(entry, error, subject, "error", *map(subjects.token, error.error_id.split(":")))

    def _is_told(self, revision: Revision) -> bool:
        # To everybody else `orders.cancelled` says it.
        return not self._tells_all or not isinstance(revision.fact.body, (BrokerCancelled, BrokerExpired))

    def _fill(self, entry: Entry, fill: FillMessage, *, ours: bool) -> Record:
        parts = ("fill", subjects.token(fill.account), fill.deal, fill.revision)
        return self._update(entry, fill, subjects.fill(fill.symbol) if ours else None, *parts)

    def _update(self, entry: Entry, message: Message, subject: str | None, *parts: object) -> Record:
        incoming = entry.incoming
        headers = incoming.trace
        if subject is not None:
            message_id = subjects.message_id(self._deployment, *parts)
            headers = headers | {topics.PUBLISH_SUBJECT: subject.encode(), topics.PUBLISH_ID: message_id.encode()}
        key = entry.fact.account.encode()
        return Record(topics.UPDATES, key, message.encode(), headers, incoming.partition)
