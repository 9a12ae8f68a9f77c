"""Writing groups of records to Kafka so that nothing can overtake anything within a partition."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Protocol, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError
from aiokafka.producer.message_accumulator import BatchBuilder

from streamapp.errors import ConfigurationError, Definite, Transient
from streamapp.kafka.security import Cluster
from streamapp.mirror.routing import MirrorRecord

MAX_BATCH_BYTES = 1_000_000
"""Kafka's own limit for a batch (message.max.bytes) is 1,048,588."""
STOP_S = 2.0
"""How long a producer may take to close when nothing is on its way."""

_Batches = dict[tuple[str, int], tuple[BatchBuilder, list[MirrorRecord]]]
_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)


class TooLarge(Definite):
    """Kafka refuses one record for its size, also alone, and will always; nothing after it was written."""

    def __init__(self, record: MirrorRecord) -> None:
        super().__init__(f"Kafka refuses a record of {len(record.value)} bytes for {record.topic}")
        self.record = record


class GroupWriter(Protocol):
    """Where a stream's mirror writes; entered anew for each session."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc: object) -> None: ...

    async def write(self, records: Sequence[MirrorRecord]) -> None:
        """Return when Kafka has all of ``records`` on all replicas, in their order within each partition.

        Raises:
            TooLarge: Kafka refuses one of them for its size.
            Transient: It failed, or gave no answer: some, in order and without a gap, may have been written.
        """
        ...


class KafkaWriter:
    """One idempotent producer, with one batch for each partition on the way at a time.

    That is the point of it. With more on the way a batch that failed could be overtaken by the next one of its
    partition; so the records of a group are laid into one batch a partition, all are awaited, and what did not fit
    follows after that.
    """

    def __init__(self, kafka: Cluster | str, client_id: str, *, timeout_s: float) -> None:
        self._cluster, self._client_id, self._timeout_s = Cluster.at(kafka), client_id, timeout_s
        self._producer: Any = None

    async def __aenter__(self) -> Self:
        """Connect with the secrets as they are now; raises Transient when no broker answers or lets us in.

        Also what a person must mend is waited for, in /health's words: then mirror goes on by itself.
        """
        try:
            options = self._cluster.client_options(self._client_id)
        except ConfigurationError as error:
            raise Transient(str(error)) from None
        self._producer = AIOKafkaProducer(
            acks="all",
            enable_idempotence=True,
            linger_ms=0,
            max_batch_size=MAX_BATCH_BYTES,
            request_timeout_ms=int(self._timeout_s * 1000),
            **options,
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._producer.start()
        except (KafkaError, OSError) as error:
            await self._stop()
            raise Transient(str(await self._cluster.explained(error))) from error
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close, and stop trying: what failed is read from NATS and written again by the next producer."""
        await self._stop()

    async def _stop(self) -> None:
        with contextlib.suppress(KafkaError, OSError):
            async with asyncio.timeout(STOP_S):
                # An idempotent producer of aiokafka tries for ever, also in the background of a stop: its sender must
                # end first.
                if self._producer._sender is not None:  # noqa: SLF001  there is no public way
                    await self._producer._sender.close()  # noqa: SLF001
                await self._producer.stop()

    async def write(self, records: Sequence[MirrorRecord]) -> None:
        """Write ``records``; see :class:`GroupWriter`."""
        rest = list(records)
        while rest:
            batches, rest = self._batches(rest)
            for refused in await self._send(batches):
                await self._write_singly(refused)

    async def _write_singly(self, records: Sequence[MirrorRecord]) -> None:
        for record in records:
            if await self._send(self._batches([record])[0]):
                raise TooLarge(record)

    def _batches(self, records: Sequence[MirrorRecord]) -> tuple[_Batches, list[MirrorRecord]]:
        """Return one batch for each partition and the records that found no room, both in order."""
        batches: _Batches = {}
        full: set[tuple[str, int]] = set()
        rest = []
        for record in records:
            place = (record.topic, record.partition)
            if place not in batches:
                batches[place] = (self._producer.create_batch(), [])
            builder, laid = batches[place]
            if place not in full and _lay(builder, record):
                laid.append(record)
            else:
                full.add(place)
                rest.append(record)
        return batches, rest

    async def _send(self, batches: _Batches) -> list[list[MirrorRecord]]:
        """Send the batches side by side and return the records of those that Kafka found too large."""
        try:
            async with asyncio.timeout(self._timeout_s):
                receipts = [
                    await self._producer.send_batch(
                        builder, self._cluster.settings.prefixed(topic), partition=partition
                    )
                    for (topic, partition), (builder, _) in batches.items()
                ]
                outcomes = await asyncio.gather(*receipts, return_exceptions=True)
        except (KafkaError, OSError) as error:
            raise self._failed(error) from error
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, _TOO_LARGE):
                raise self._failed(outcome) from outcome
        return [
            laid
            for (_, laid), outcome in zip(batches.values(), outcomes, strict=True)
            if isinstance(outcome, _TOO_LARGE)
        ]

    def _failed(self, error: BaseException) -> Transient:
        return Transient(str(self._cluster.denial(error) or f"Kafka: {error!r}"))


def _lay(builder: BatchBuilder, record: MirrorRecord) -> bool:
    headers = list(record.headers.items())
    laid = builder.append(timestamp=record.timestamp_ms, key=record.key, value=record.value, headers=headers)
    return laid is not None
