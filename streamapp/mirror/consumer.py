"""One stream's way into Kafka, in order.

The promise: a record of a message is in Kafka for the first time only when the records of all earlier messages of its
stream are. It holds over crashes, freezes and two mirrors that both believe they are the active one, because of what
one session does:

1. It sets the consumer back to its ack floor F. A message is acknowledged only when Kafka has it, so everything up to F
   is in Kafka.
2. It accepts messages only without a gap, in the consumer's count and in the stream's: F+1, F+2, ... If one is missing
   (another mirror's request got it, or the connection broke while it was on its way) or is redelivered, the session
   ends and the next one begins at 1.
3. It writes group after group, each awaited whole, with one batch a partition (:mod:`streamapp.mirror.kafka`): a group
   on its way means that everything before it is in Kafka.
4. Then it acknowledges the group.

The interleaving that this is made for, A frozen with m5-m8 in its hands and B taking over::

    A  receive m5-m8                                      wakes: write m5-m8
    B                 reset to m4, receive m5-m20, write m5 m6 .......... m7-m20

Kafka has m5 m6 (B) m5-m8 (A) m7-m20 (B): the first sight of each is in order, since A's group began where everything
before was in Kafka. The seconds are harmless, every reader drops them by id. If A wakes before it has begun a group,
with m21-m30 that its open request still got, A's lease has run out and it drops them; B sees the gap after m20 and
begins anew at m21. A's late acknowledgements are of messages that Kafka has.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self, TypeVar

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import api

from streamapp import crashpoints, topics
from streamapp.errors import StreamappError, Transient
from streamapp.mirror.gauges import Gauges
from streamapp.mirror.kafka import GroupWriter, TooLarge
from streamapp.mirror.lease import Lease
from streamapp.mirror.routing import TRACE_HEADER, Arrival, Dropped, MirrorRecord, RoutingRules, dead_letter, route
from streamapp.tracing import Spans

logger = logging.getLogger(__name__)

PULL = 200
"""Messages that one pull request may bring. A group of so many is being written while the next is received; both
together are far below max_ack_pending, beyond which a request would wait though there are messages."""
PULL_S = 1.0
"""How long a request stays open. Far below the lease's five seconds: a dead mirror's request is over before its lease
is."""
PULL_GRACE_S = 0.5
"""How late the server's word that a request is over may be. After that the request is lost, as by a reconnect, and made
anew; meanwhile nothing is received."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0

_T = TypeVar("_T")
_NATS_ERRORS = (nats.errors.Error, TimeoutError, OSError)


class SequenceGap(Exception):  # noqa: N818  not an error: the session begins anew at once
    """A message is missing, or was redelivered."""


@dataclass
class _Expected:
    """The next message by both counts; ``stream`` None: whatever the first one has."""

    consumer: int = 1
    stream: int | None = None


class PullInbox:
    """What a durable consumer delivers to one session, by one pull request at a time that stays open.

    nats-py's ``fetch`` makes two requests for each message that comes alone. Here a request brings whatever comes
    within ``PULL_S``, and each message is handed on when it arrives, or ``linger_s`` later with those that follow it.
    """

    def __init__(self, client: Client, stream: str, durable: str, linger_s: float = 0.0) -> None:
        self._client = client
        self._linger_s = linger_s
        self._next_subject = f"{api.DEFAULT_PREFIX}.CONSUMER.MSG.NEXT.{stream}.{durable}"
        self._inbox = client.new_inbox()
        self._requests = 0
        self._left = 0  # messages that the open request may still bring
        self._over_s = 0.0  # when it is lost, by the loop's clock
        self._messages: list[Msg] = []
        self._refusal: str | None = None
        self._arrived = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._subscription = await self._client.subscribe(f"{self._inbox}.*", cb=self._receive)
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Give up the inbox: the server ends an open request, and delivers its messages to the next session."""
        with contextlib.suppress(*_NATS_ERRORS):
            await self._subscription.unsubscribe()

    async def next_group(self) -> list[Msg]:
        """Return all that has arrived, in order, as soon as it is one message and has lingered.

        Empty when a request brought nothing, or at :meth:`wake`.

        Raises:
            Transient: The server ended the request for another reason than its age.
            nats.errors.Error: There is no connection.
        """
        if self._left == 0 or asyncio.get_running_loop().time() >= self._over_s:
            await self._request()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._over_s):
                await self._arrived.wait()
        if self._refusal is not None:
            raise Transient(f"NATS: expected messages, got {self._refusal}")
        if self._messages and self._linger_s:
            await asyncio.sleep(self._linger_s)
        self._arrived.clear()
        group, self._messages = self._messages, []
        return group

    def wake(self) -> None:
        """Let :meth:`next_group` return at once."""
        self._arrived.set()

    async def _request(self) -> None:
        self._requests += 1
        self._left = PULL
        self._over_s = asyncio.get_running_loop().time() + PULL_S + PULL_GRACE_S
        request = json.dumps({"batch": PULL, "expires": int(PULL_S * 1e9)}).encode()
        await self._client.publish(self._next_subject, request, reply=self._reply())

    def _reply(self) -> str:
        # Each request has its own, so that the late end of one that was given up does not end the next.
        return f"{self._inbox}.{self._requests}"

    async def _receive(self, message: Msg) -> None:
        if message.reply:  # where to acknowledge it: a message of the stream, and the server's own words have none
            self._messages.append(message)
            self._left = max(0, self._left - 1)
        elif message.subject == self._reply() and self._left:
            self._left = 0
            headers = message.headers or {}
            if headers.get(api.Header.STATUS) != api.StatusCode.REQUEST_TIMEOUT:
                self._refusal = " ".join(headers.values()) or "an answer without a status"
        self._arrived.set()


class StreamMirror:
    """Carries one stream into Kafka while the lease is held.

    Args:
        client: The connection.
        stream: Its name.
        durable: The consumer's name.
        is_contiguous: Whether the stream keeps every message until it expires; False where a newer one replaces an
            older one.
        linger_s: How long a message may wait for those that follow it, where nobody waits for it.
        writer: Makes a producer for a session.
        rules: For routing.
        lease: Whether we are the active mirror.
        gauges: Where everything is counted.
        spans: What is told of messages' way, None where nothing is.
    """

    def __init__(
        self,
        client: Client,
        stream: str,
        durable: str,
        *,
        is_contiguous: bool,
        linger_s: float,
        writer: Callable[[], GroupWriter],
        rules: RoutingRules,
        lease: Lease,
        gauges: Gauges,
        spans: Spans | None = None,
    ) -> None:
        self.stream = stream
        self.is_contiguous = is_contiguous
        self.mirrored: int | None = None
        """The last sequence that Kafka has and we acknowledged."""
        self._client, self._js = client, client.jetstream()
        self._durable, self._writer = durable, writer
        self._rules, self._lease, self._gauges = rules, lease, gauges
        self._linger_s = linger_s
        self._spans = spans
        self._inbox: PullInbox | None = None
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Finish the group at hand and end."""
        self._stopping.set()
        if self._inbox is not None:
            self._inbox.wake()

    async def run(self) -> None:
        """Carry messages until ``stop``; whatever fails is tried again, with a growing pause, from the ack floor."""
        pause_s = FIRST_PAUSE_S
        while not self._stopping.is_set():
            await self._or_stop(self._lease.wait())
            if self._stopping.is_set():
                return
            began_s = time.monotonic()
            try:
                await self._session()
            except SequenceGap as gap:
                logger.info("%s: %s; beginning anew at the ack floor", self.stream, gap)
                pause_s = FIRST_PAUSE_S
            except (StreamappError, *_NATS_ERRORS) as error:
                self._trouble(str(error) or repr(error))
            if time.monotonic() - began_s > LONGEST_PAUSE_S:
                pause_s = FIRST_PAUSE_S
            await self._or_stop(asyncio.sleep(pause_s))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _trouble(self, text: str) -> None:
        if self._gauges.troubles[self.stream] != text:
            logger.warning("%s: stopped, trying again: %s", self.stream, text)
        self._gauges.troubles[self.stream] = text

    async def _or_stop(self, waiting: Coroutine[Any, Any, _T]) -> _T | None:
        """Return what ``waiting`` does, or None as soon as it is to stop."""
        task = asyncio.ensure_future(waiting)
        stop = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            for left in (task, stop):
                left.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)

    async def _session(self) -> None:
        self._inbox = PullInbox(self._client, self.stream, self._durable, self._linger_s)
        async with self._writer() as writer, self._inbox as inbox:
            expected = await self._begin()
            while self._lease.is_held and not self._stopping.is_set():
                if messages := await inbox.next_group():
                    self._check(messages, expected)
                    await self._carry(messages, writer)

    async def _begin(self) -> _Expected:
        """Set the consumer back to its ack floor."""
        reset = await self._js.reset_consumer(self.stream, self._durable)
        state = (await self._js.stream_info(self.stream)).state
        self.record_expired(state.first_seq)
        self._gauges.resets.labels(self.stream).inc()
        if self._gauges.troubles[self.stream]:
            logger.info("%s: carrying on from message %d", self.stream, reset.reset_seq)
        self._gauges.troubles[self.stream] = ""
        return _Expected()

    def record_expired(self, first_seq: int) -> None:
        """Raise the alarm if the stream's first message is beyond what is mirrored plus one: those between are lost."""
        last = self.mirrored if self.mirrored is not None else self._lease.found.get(self.stream)
        if not self.is_contiguous or last is None or first_seq <= last + 1:
            return
        count = first_seq - last - 1
        logger.critical("%s: %d messages from %d on expired before they were mirrored", self.stream, count, last + 1)
        self._gauges.count_lost(self.stream, count)
        self.mirrored = first_seq - 1

    def _check(self, messages: Sequence[Msg], expected: _Expected) -> None:
        """End the session if a message is missing or redelivered, or if the lease ran out while we waited for them."""
        if not self._lease.is_held:
            raise Transient("the lease ran out; standing by")
        for message in messages:
            metadata = message.metadata
            sequence = metadata.sequence
            if metadata.num_delivered > 1:
                self._gauges.redelivered.labels(self.stream).inc()
            if sequence.consumer != expected.consumer or (
                self.is_contiguous and expected.stream is not None and sequence.stream != expected.stream
            ):
                raise SequenceGap(f"expected delivery {expected.consumer} of message {expected.stream}, got {sequence}")
            expected.consumer, expected.stream = sequence.consumer + 1, sequence.stream + 1

    async def _carry(self, messages: Sequence[Msg], writer: GroupWriter) -> None:
        arrivals = [_arrival(message) for message in messages]
        outcomes = [route(arrival, self._rules) for arrival in arrivals]
        records = [outcome for outcome in outcomes if isinstance(outcome, MirrorRecord)]
        await self._write(writer, records, arrivals)
        if records:
            families = (record.headers[topics.FAMILY].decode() for record in records if topics.FAMILY in record.headers)
            crashpoints.reach("mirror.after_kafka_ack", families)
        for message in messages:
            await message.ack()
        self.mirrored = arrivals[-1].sequence
        self._count(outcomes)
        pairs = zip(arrivals, outcomes, strict=True)
        self._time([arrival for arrival, outcome in pairs if isinstance(outcome, MirrorRecord)])

    async def _write(self, writer: GroupWriter, records: list[MirrorRecord], arrivals: Sequence[Arrival]) -> None:
        while records:
            try:
                await writer.write(records)
            except TooLarge as error:
                at = next(index for index, record in enumerate(records) if record is error.record)
                sequence = error.record.headers.get(topics.NATS_SEQUENCE)
                arrival = next(a for a in arrivals if str(a.sequence).encode() == sequence)
                records[at] = dead_letter(arrival, "too_long", str(error), self._rules.partitions)
            else:
                return

    def _count(self, outcomes: Sequence[MirrorRecord | Dropped]) -> None:
        gauges, stream = self._gauges, self.stream
        records = [outcome for outcome in outcomes if isinstance(outcome, MirrorRecord)]
        for topic, count in Counter(record.topic for record in records).items():
            gauges.mirrored.labels(stream, topic).inc(count)
        for reason, count in Counter(record.reason for record in records if record.reason is not None).items():
            gauges.dead_letters.labels(stream, reason).inc(count)
        for why, count in Counter(outcome.reason for outcome in outcomes if isinstance(outcome, Dropped)).items():
            gauges.dropped.labels(stream, why).inc(count)

    def _time(self, arrivals: Iterable[Arrival]) -> None:
        seconds, now_s = self._gauges.seconds.labels(self.stream), time.time()
        for arrival in arrivals:
            seconds.observe(max(0.0, now_s - arrival.at.timestamp()))
            if self._spans is not None:
                now, trace = datetime.fromtimestamp(now_s, UTC), arrival.headers.get(TRACE_HEADER)
                self._spans.took("mirror", trace, arrival.at, now, subject=arrival.subject)


def _arrival(message: Msg) -> Arrival:
    metadata = message.metadata
    return Arrival(
        message.subject,
        message.data,
        metadata.stream,
        metadata.sequence.stream,
        metadata.timestamp,
        message.headers or {},
    )
