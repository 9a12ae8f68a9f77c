"""Reading a stream by a consumer: from now on, from a place in it, or on from a position that NATS keeps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import APIError

from streamapp.errors import ConfigurationError
from streamapp.settings import NatsSettings

PULL_S = 5.0
"""How long one request for messages waits; then the consumer is looked after and asked again."""
AGAIN_S = 0.25
"""Between two tries while NATS is away."""
_NO_STREAM = 10059
"""JetStream's code for a stream that is not there."""
_GONE = frozenset({404, 503})
"""A consumer that a restarted server has forgotten; JetStream without a leader."""


class StreamReader:
    """Reads our streams.

    Args:
        client: The connection.
        settings: What our streams and subjects are called.
    """

    def __init__(self, client: Client, settings: NatsSettings) -> None:
        self._client = client
        self._settings = settings

    async def following(self, stream: str, names: list[str], position: str | None = None) -> AsyncGenerator[Msg]:
        """Yield a stream's messages in order, for ever; each is to be acknowledged where there is a position.

        Raises:
            ConfigurationError: There is no such stream, or NATS forbids it.
        """
        begin = ConsumerConfig(deliver_policy=DeliverPolicy.NEW)
        while True:
            try:
                pull = await self._consume(stream, names, begin, position)
                async with aclosing(_pulled(pull, 100 if position is None else 1)) as messages:
                    async for message in messages:
                        after = message.metadata.sequence.stream + 1
                        begin = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=after)
                        yield message
            except APIError as error:
                if error.err_code == _NO_STREAM or error.code not in _GONE:
                    raise ConfigurationError(
                        f"NATS gives us nothing of the stream {stream}: {error.description}. Run `streamapp init`, and "
                        "see docs/client.md for the permissions"
                    ) from None
                await asyncio.sleep(AGAIN_S)
            except (nats.errors.Error, OSError, TimeoutError):  # away, or the consumer is gone
                await asyncio.sleep(AGAIN_S)

    async def found(self, stream: str, names: list[str], begin: ConsumerConfig, within_s: float) -> list[Msg]:
        """Return what a stream has now from a place on; what can't be read now is left out."""
        found: list[Msg] = []
        with suppress(nats.errors.Error, OSError, TimeoutError):
            pull = await self._consume(stream, names, begin)
            left = (await pull.consumer_info()).num_pending
            while len(found) < (left or 0):
                found += await pull.fetch(min(100, (left or 0) - len(found)), timeout=within_s)
            await unsubscribe(pull)
        return found

    async def _consume(
        self, stream: str, names: list[str], begin: ConsumerConfig, position: str | None = None
    ) -> JetStreamContext.PullSubscription:
        """Return a consumer's messages: the one of a position, which is made at its first use, or one of our own."""
        ours = self._settings
        names, stream = [ours.subject(each) for each in names], ours.prefixed(stream)
        begin = begin.evolve(filter_subjects=names, ack_policy=AckPolicy.NONE, inactive_threshold=6 * PULL_S)
        if position is not None:
            # One at a time, so that a message that comes again comes before the ones after it.
            begin = begin.evolve(ack_policy=AckPolicy.EXPLICIT, max_ack_pending=1, inactive_threshold=None)
        js = self._client.jetstream(timeout=ours.publish_timeout_s)
        pull = await js.pull_subscribe(names[0], durable=position, stream=stream, config=begin)
        if position is not None:
            config = (await pull.consumer_info()).config
            if {*(config.filter_subjects or ()), *filter(None, [config.filter_subject])} != set(names):
                raise ConfigurationError(
                    f"the position that NATS keeps as {position} was begun with another symbol: choose another name"
                )
        return pull


async def unsubscribe(subscription: Subscription | JetStreamContext.PullSubscription) -> None:
    """End a subscription; where NATS is away the server has ended it."""
    with suppress(nats.errors.Error, OSError):
        await subscription.unsubscribe()


async def _pulled(pull: JetStreamContext.PullSubscription, batch: int) -> AsyncGenerator[Msg]:
    """Yield a consumer's messages until it is gone, which raises."""
    try:
        while True:
            try:
                messages = await pull.fetch(batch, timeout=PULL_S)
            except (nats.errors.TimeoutError, TimeoutError):
                await pull.consumer_info()  # raises where a restarted server does not know it any more
                continue
            for message in messages:
                yield message
    finally:
        await unsubscribe(pull)
