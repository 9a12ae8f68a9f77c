"""Publisher: what the ledger and the others tell, from Kafka to NATS, acknowledged when JetStream has it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from agents.dead_letters import dead_record
from agents.window import Batches
from streamapp import crashpoints, subjects, topics
from streamapp.clock import Clock
from streamapp.errors import Transient, Unusable
from streamapp.kafka.producer import Producer
from streamapp.messages.dead_letter import DeadLetter
from streamapp.metrics import SinkMetrics
from streamapp.settings import Role, Settings

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
TRACE = "traceparent"
_FOREIGN = f"{subjects.BROKER_FILL}."
_CONNECTORS = (f"{subjects.BROKER_FILL}.", f"{subjects.BROKER_ERROR}.")


class Outlet(Protocol):
    """Where it is said; :class:`streamapp.nats.outlet.Outlet`."""

    async def publish(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Return when it is stored; raises Unusable when it never will be, Transient when nobody knows."""
        ...


class Publisher:
    """The agent on ``updates``: run :meth:`run` for each partition's stream.

    What carries the header ``publish-subject`` is published, in order within an account and side by side between
    accounts. A publication that is not acknowledged is tried again for as long as it takes, nothing of its account
    overtakes it, and nothing is acknowledged to Kafka meanwhile; a rebalance does not wait for it.

    Each is said at least once. Said again with its id within JetStream's duplicate window (10 minutes) it is stored
    once. Beyond that (it was stored, the answer or our commit was lost, and we were away for longer) it is stored again
    with the same id, and readers drop it by what it says: an order's or position's rev, a fill_id with its revision, an
    error_id.

    Args:
        outlet: Where it is said.
        settings: Deployment and role.
        producer: For dead letters.
        clock: The time, against not_after.
        metrics: What is counted.
    """

    def __init__(
        self, outlet: Outlet, settings: Settings, *, producer: Producer, clock: Clock, metrics: SinkMetrics
    ) -> None:
        self._outlet = outlet
        self._role: Role = settings.role
        self._origin = subjects.origin(settings.deployment, settings.role)
        self._producer = producer
        self._clock = clock
        self._metrics = metrics
        self._troubles: dict[object, str] = {}
        self._oldest_s: dict[int, float] = {}

    @property
    def troubles(self) -> tuple[str, ...]:
        """Why publications wait now; empty when none does."""
        return tuple(sorted(set(self._troubles.values())))

    def lag_s(self) -> float:
        """Return the age of the oldest update that is being published."""
        return max((self._clock().timestamp() - since_s for since_s in self._oldest_s.values()), default=0.0)

    async def run(self, stream: Any) -> None:
        """Publish the updates of a stream of one partition, until it ends."""
        await Batches(stream.ack, self.publish, deadline_s=None).take_all(stream)

    async def publish(self, events: Sequence[Any]) -> None:
        """Return when everything in ``events`` that is to be said is stored, or a dead letter."""
        accounts: dict[bytes | None, list[Any]] = {}
        for event in events:
            if topics.PUBLISH_SUBJECT in (event.headers or {}):
                accounts.setdefault(event.message.key, []).append(event)
        if not accounts:
            return
        first = events[0].message
        self._oldest_s[first.partition] = first.timestamp
        try:
            async with asyncio.TaskGroup() as group:
                for updates in accounts.values():
                    group.create_task(self._account(updates))
        finally:
            del self._oldest_s[first.partition]
        crashpoints.reach("publisher.after_publish")

    async def _account(self, events: Sequence[Any]) -> None:
        for event in events:
            try:
                await self._say(event.message, event.headers)
            except Unusable as error:
                await self._bury(event.message, error)

    async def _say(self, message: Any, headers: Mapping[str, bytes]) -> None:
        subject, message_id = _text(headers, topics.PUBLISH_SUBJECT), _text(headers, topics.PUBLISH_ID)
        if not _is_ours_to_say(subject, self._role):
            self._metrics.left_out.labels("role").inc()
            return
        until = self._not_after(subject, message.value)
        said = {
            subjects.MESSAGE_ID_HEADER: message_id,
            subjects.ORIGIN_HEADER: self._origin,
            "Content-Type": "application/json",
            **({TRACE: _text(headers, TRACE)} if TRACE in headers else {}),
        }
        if await self._until_stored(subject, message.value, said, until):
            self._metrics.published.labels(message_id.split(":")[1] if ":" in message_id else "other").inc()
        else:
            self._metrics.left_out.labels("not_after").inc()

    async def _until_stored(
        self, subject: str, payload: bytes, headers: Mapping[str, str], until: datetime | None
    ) -> bool:
        """Return whether it was stored; False when ``until`` came first."""
        pause_s, me = FIRST_PAUSE_S, object()
        try:
            while until is None or self._clock() < until:
                try:
                    await self._outlet.publish(subject, payload, headers)
                    return True
                except Transient as error:
                    self._troubles[me] = str(error)
                    self._metrics.publish_retries.inc()
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            return False
        finally:
            self._troubles.pop(me, None)

    def _not_after(self, subject: str, payload: bytes) -> datetime | None:
        """Return until when a request to somebody else's connector may be said: never after the order's not_after."""
        if self._role != "execution" or not subject.startswith(f"{subjects.ORDERS_SUBMITTED}."):
            return None
        try:
            return datetime.fromisoformat(json.loads(payload)["not_after"])
        except (ValueError, KeyError, TypeError) as error:
            raise Unusable(
                "invalid", f"not_after: expected a time in what asks for an execution, got {error!r}"
            ) from None

    async def _bury(self, message: Any, error: Unusable) -> None:
        letter = DeadLetter(
            message.value or b"", error.reason, error.detail, topics.UPDATES, "", message.offset, self._clock()
        )
        await self._producer.send_all([dead_record(letter, message.key, message.partition)])
        self._metrics.dead_letters.labels(topics.UPDATES, error.reason).inc()


def _is_ours_to_say(subject: str, role: Role) -> bool:
    """Return whether this role says it.

    A connector publishes only fills and errors. An execution service keeps the fills that a foreign connector said
    itself to Kafka and ClickHouse: said a second time they would look like a second fill to whoever sums up messages.
    """
    if role == "connector":
        return subject.startswith(_CONNECTORS)
    return role != "execution" or not subject.startswith(_FOREIGN)


def _text(headers: Mapping[str, bytes], name: str) -> str:
    value = headers.get(name, b"")
    if not value or not all(0x20 < byte < 0x7F for byte in value):
        raise Unusable("bad_header", f"{name}: expected visible ASCII, got {value[:100]!r}")
    return value.decode()
