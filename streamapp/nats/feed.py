"""What the house says, for whoever watches it live: followed from two streams, and read again from a place in them."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from streamapp import subjects
from streamapp.errors import Transient
from streamapp.settings import NatsSettings

HEARTBEAT_S = 5.0
SILENCE_S = 2.5 * HEARTBEAT_S
"""A consumer that has not even sent a heartbeat for so long is gone."""
_TIMEOUT_S = 2.0
_MOST_HEARD = 10000
_LAST_CONSUMER = "Nats-Last-Consumer"
_PLACE = re.compile(r"(\d{1,18})-(\d{1,18})")
_FILLS: Final = (f"{subjects.BROKER_FILL}.>", f"{subjects.BROKER_ERROR}.>")
_STREAMS: Final = ((subjects.EXECUTION_OUT.name, ()), (subjects.EXECUTION_IN.name, _FILLS))


@dataclass(frozen=True)
class Place:
    """Up to where somebody has read: a sequence of EXECUTION_OUT, and one of EXECUTION_IN."""

    out: int
    into: int

    def __str__(self) -> str:
        return f"{self.out}-{self.into}"

    @classmethod
    def read(cls, text: str) -> Place | None:
        """Return the place of a text, None if it is none."""
        found = _PLACE.fullmatch(text)
        return None if found is None else cls(int(found[1]), int(found[2]))

    def after(self, said: Heard) -> Place:
        """Return the place once a message was read."""
        return replace(self, out=said.sequence) if said.stream == 0 else replace(self, into=said.sequence)


@dataclass(frozen=True)
class Heard:
    """A message: ``stream`` 0 is EXECUTION_OUT, 1 is EXECUTION_IN; ``at`` is when it was stored."""

    stream: int
    sequence: int
    subject: str
    payload: bytes
    at: datetime


class NatsFeed:
    """Follows and reads; nothing is asked of NATS while nobody does.

    Raises (every method):
        Transient: NATS is away, or something was not delivered.

    Args:
        client: Returns the connected client, None before the first connection.
        settings: What our streams and subjects are called.
    """

    def __init__(self, client: Callable[[], Client | None], settings: NatsSettings) -> None:
        self._client = client
        self._streams = [
            (settings.prefixed(name), [settings.subject(each) for each in filters]) for name, filters in _STREAMS
        ]
        self._numbers = {name: number for number, (name, _) in enumerate(self._streams)}

    async def end(self) -> Place:
        """Return the place behind all that was said."""
        return Place(*[state.last_seq for state in await self._states()])

    @asynccontextmanager
    async def following(self, place: Place) -> AsyncIterator[AsyncIterator[Heard]]:
        """Yield what is said after a place, for as long as it is said without a gap."""
        async with self._consuming(place) as (heard, _):
            yield self._messages(heard)

    async def between(self, place: Place, end: Place, most: int) -> list[Heard] | None:
        """Return what was said after ``place`` and up to ``end``, in order of time.

        None if it is more than ``most``, or no longer all there.
        """
        states = await self._states()
        for state, had, upto in zip(states, (place.out, place.into), (end.out, end.into), strict=True):
            if had > upto or had + 1 < state.first_seq:
                return None
        async with self._consuming(place) as (heard, pending):
            if pending > most:
                return None
            messages = self._messages(heard)
            found = [await anext(messages) for _ in range(pending)]
        upto_end = [said for said in found if said.sequence <= (end.out, end.into)[said.stream]]
        return sorted(upto_end, key=lambda said: said.at)

    async def _states(self) -> list[Any]:
        js = self._connected().jetstream(timeout=_TIMEOUT_S)
        with _explained():
            return [(await js.stream_info(name)).state for name, _ in self._streams]

    @asynccontextmanager
    async def _consuming(self, place: Place) -> AsyncIterator[tuple[asyncio.Queue[Msg], int]]:
        """Yield what comes of both streams, and how many messages were waiting."""
        client = self._connected()
        js, inbox = client.jetstream(timeout=_TIMEOUT_S), client.new_inbox()
        heard: asyncio.Queue[Msg] = asyncio.Queue(_MOST_HEARD)
        subscriptions: list[Subscription] = []
        made: list[tuple[str, str]] = []
        try:
            pending = 0
            for number, had in enumerate((place.out, place.into)):
                stream, filters = self._streams[number]
                with _explained():
                    # Each its own, by its whole name: the server delivers nothing to whom a wildcard alone subscribes.
                    subscriptions.append(await client.subscribe(f"{inbox}.{number}", cb=heard.put))
                    info = await js.add_consumer(stream, _config(f"{inbox}.{number}", had + 1, filters))
                made.append((stream, info.name))
                pending += info.num_pending or 0
            yield heard, pending
        finally:
            # What can't be taken back now, the server forgets by itself.
            with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
                for subscription in subscriptions:
                    await subscription.unsubscribe()
                for stream, name in made:
                    await js.delete_consumer(stream, name)

    def _connected(self) -> Client:
        client = self._client()
        if client is None or not client.is_connected:
            raise Transient("NATS: not connected; try again")
        return client

    async def _messages(self, heard: asyncio.Queue[Msg]) -> AsyncIterator[Heard]:
        """Yield the messages of both streams as long as none is missing."""
        delivered = [0 for _ in _STREAMS]
        while True:
            try:
                async with asyncio.timeout(SILENCE_S):
                    message = await heard.get()
            except TimeoutError:
                raise Transient("NATS: nothing is heard any more") from None
            if not message.reply:  # a heartbeat, on the consumer's own subject: it says how many messages there were
                number = int(message.subject.rpartition(".")[2])
                if int((message.headers or {}).get(_LAST_CONSUMER, "0")) > delivered[number]:
                    raise Transient("NATS: messages were not delivered")
                continue
            place = message.metadata
            number = self._numbers[place.stream]
            if place.sequence.consumer != delivered[number] + 1:
                raise Transient("NATS: messages were not delivered")
            delivered[number] += 1
            yield Heard(number, place.sequence.stream, message.subject, message.data, place.timestamp)


def _config(deliver_subject: str, first: int, filters: list[str]) -> ConsumerConfig:
    return ConsumerConfig(
        deliver_subject=deliver_subject,
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=first,
        ack_policy=AckPolicy.NONE,
        max_deliver=1,
        filter_subjects=filters or None,
        idle_heartbeat=HEARTBEAT_S,
        inactive_threshold=30.0,
        mem_storage=True,
        num_replicas=1,
    )


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (nats.errors.Error, TimeoutError, OSError) as error:
        raise Transient(f"NATS: {str(error) or type(error).__name__}; try again") from None
