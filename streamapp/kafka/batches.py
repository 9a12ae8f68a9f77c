"""Record batches that Kafka appends wholly or not at all: the one write behind a commit of the store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from mode import Service

from streamapp.errors import Ambiguous, Definite
from streamapp.kafka.receipts import ACK_TIMEOUT_S, REFUSALS
from streamapp.kafka.security import Cluster

MAX_BATCH_BYTES = 1 << 20
"""What a batch may hold on the wire. aiokafka's own 16 KiB would close a larger batch without an error, and Kafka's
``message.max.bytes`` is a little more than this by default."""


class BatchProducer(Service):
    """An idempotent producer of whole batches, with a connection of its own.

    aiokafka has one request in flight a broker and producer, so a batch sent here waits for other batches only, never
    for whatever else the process publishes.

    Whoever sends has one batch in flight a partition: a second one would wait for the first all the same.
    """

    def __init__(self, cluster: Cluster, client_id: str, **options: Any) -> None:
        super().__init__(**options)
        self._cluster = cluster
        self._client_id = client_id
        self._client: AIOKafkaProducer = None
        self._renewing = asyncio.Lock()

    async def on_start(self) -> None:
        """Connect."""
        self._client = await self._connected()

    async def on_stop(self) -> None:
        """Wait for the batches in flight and disconnect."""
        if self._client is not None:
            await self._client.stop()

    async def send(self, topic: str, partition: int, records: Sequence[tuple[bytes, bytes]]) -> int:
        """Append ``records`` (key, value), in order, as one batch, and return the offset of the first.

        The offset is -1 if Kafka only remembers that it has the batch (a retry, long after the first try).

        Raises:
            Definite: The batch is too large, or Kafka refused this try. An earlier try whose answer was lost may have
                been written: only the end of the partition shows that.
            Ambiguous: No answer within ``ACK_TIMEOUT_S``, or one that leaves it open. The batch may still be written at
                any later time, because an idempotent batch is retried for ever.
        """
        client = self._client
        batch = client.create_batch()
        for key, value in records:
            if batch.append(key=key, value=value, timestamp=None) is None:
                raise Definite(f"expected a batch of {MAX_BATCH_BYTES} bytes at most, got more: nothing was sent")
        batch.close()
        try:
            async with asyncio.timeout(ACK_TIMEOUT_S):
                receipt = await client.send_batch(batch, topic, partition=partition)
                return int((await receipt).offset)
        except REFUSALS as error:
            await self._renew(client)
            raise Definite(f"Kafka refused a batch for partition {partition} of {topic}: {error!r}") from error
        except Exception as error:
            raise Ambiguous(
                f"expected Kafka to acknowledge a batch for partition {partition} of {topic} within {ACK_TIMEOUT_S} s, "
                f"got {error!r}: it may have been written, or be written later"
            ) from error

    async def _renew(self, refused: AIOKafkaProducer) -> None:
        """Go on with a new producer: Kafka now expects the sequence number of the batch that it refused."""
        async with self._renewing:
            if self._client is refused:
                self._client = await self._connected()
                await refused.stop()

    async def _connected(self) -> AIOKafkaProducer:
        client = AIOKafkaProducer(
            acks="all",
            enable_idempotence=True,
            linger_ms=0,
            max_batch_size=MAX_BATCH_BYTES,
            max_request_size=MAX_BATCH_BYTES,
            **self._cluster.client_options(self._client_id),
        )
        try:
            await client.start()
        except BaseException:
            await client.stop()
            raise
        return client
