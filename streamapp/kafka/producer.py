"""Sends that are finished when every replica has the record, not when it was handed over."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from streamapp import topics
from streamapp.errors import Definite
from streamapp.kafka.receipts import ACK_TIMEOUT_S, settle
from streamapp.kafka.security import Cluster
from streamapp.messages.dead_letter import DeadLetter

MAX_RECORD_BYTES = 900_000
"""Key and value together. Faust's producer dies of a record beyond 1,000,000 bytes, so we refuse earlier and say so."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record to send, its topic by our name; without ``partition`` its key's hash decides."""

    topic: str
    key: bytes | None
    value: bytes
    headers: Mapping[str, bytes] = field(default_factory=dict)
    partition: int | None = None

    def __post_init__(self) -> None:
        size = len(self.key or b"") + len(self.value)
        if size > MAX_RECORD_BYTES:
            raise Definite(
                f"a record for {self.topic} has {size} bytes, expected {MAX_RECORD_BYTES} at most: nothing was sent"
            )


def dead_letter_record(letter: DeadLetter, key: bytes | None, partition: int) -> Record:
    """Return the record that keeps ``letter``."""
    return Record(topics.DEAD_LETTERS, key, letter.value, letter.headers, partition)


class Producer(Protocol):
    """What agents send with. Its fake is :class:`streamapp.kafka.memory.MemoryProducer`."""

    def begin(self, record: Record) -> asyncio.Future[Any]:
        """Put ``record`` on its way now; :func:`~streamapp.kafka.receipts.settle` awaits its receipt, with others."""
        ...

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes,
        *,
        headers: Mapping[str, bytes] | None = None,
        partition: int | None = None,
        timeout_s: float = ACK_TIMEOUT_S,
    ) -> Any:
        """Send one record and return its metadata once all replicas have it.

        Raises:
            Definite: Kafka refused it.
            Ambiguous: No answer within ``timeout_s``: it may have been written.
        """
        ...

    async def send_all(self, records: Iterable[Record], *, timeout_s: float = ACK_TIMEOUT_S) -> list[Any]:
        """Send several with one await, in their order within each partition; errors as of ``send``."""
        ...


class _Sends(ABC):
    """``send`` and ``send_all`` on top of ``begin``."""

    @abstractmethod
    def begin(self, record: Record) -> asyncio.Future[Any]: ...

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes,
        *,
        headers: Mapping[str, bytes] | None = None,
        partition: int | None = None,
        timeout_s: float = ACK_TIMEOUT_S,
    ) -> Any:
        record = Record(topic, key, value, headers or {}, partition)
        return (await settle([self.begin(record)], timeout_s=timeout_s))[0]

    async def send_all(self, records: Iterable[Record], *, timeout_s: float = ACK_TIMEOUT_S) -> list[Any]:
        return await settle([self.begin(record) for record in records], timeout_s=timeout_s)


class AppProducer(_Sends):
    """Sends through a Faust app's own producer, in one line with the writes of its tables."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._topics: dict[str, Any] = {}

    def begin(self, record: Record) -> asyncio.Future[Any]:
        """Put ``record`` on its way; a process whose event loop stood still for too long ends here instead."""
        self._app.pulse.check()
        receipt: asyncio.Future[Any] = self._topic(record.topic).send_soon(
            key=record.key, value=record.value, headers=dict(record.headers), partition=record.partition
        )
        return receipt

    def _topic(self, name: str) -> Any:
        if name not in self._topics:
            self._topics[name] = self._app.raw_topic(name)
        return self._topics[name]


class ClientProducer(_Sends):
    """The same for a process without Faust: ``async with ClientProducer(kafka, client_id) as producer``.

    Args:
        kafka: Where it is.
        client_id: See :meth:`streamapp.kafka.security.Cluster.client_options`.
        linger_ms: How long a record may wait for others, where nobody waits for it: one request for all of them costs
            Kafka and us a fraction of one for each.
    """

    def __init__(self, kafka: Cluster | str, client_id: str, *, linger_ms: int = 0) -> None:
        self._cluster = Cluster.at(kafka)
        self._client_id = client_id
        self._linger_ms = linger_ms
        self._backlog: asyncio.Queue[tuple[Record, asyncio.Future[Any]]] = asyncio.Queue()
        self._client: AIOKafkaProducer | None = None
        self._sender: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Connect; raises ConfigurationError where Kafka does not let us in or write, Transient where it is away."""
        self._client = AIOKafkaProducer(
            acks="all",
            enable_idempotence=True,
            linger_ms=self._linger_ms,
            **self._cluster.client_options(self._client_id),
        )
        try:
            await self._client.start()
        except (KafkaError, OSError) as error:
            await self._client.stop()
            raise await self._cluster.explained(error) from error
        self._sender = asyncio.create_task(self._send_backlog(self._client))
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._client is None or self._sender is None:  # it was never let in
            return
        self._sender.cancel()
        await asyncio.gather(self._sender, return_exceptions=True)
        await self._client.stop()

    def begin(self, record: Record) -> asyncio.Future[Any]:
        """Put ``record`` on its way, after all that were begun before it."""
        receipt: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._backlog.put_nowait((record, receipt))
        return receipt

    async def _send_backlog(self, client: AIOKafkaProducer) -> None:
        while True:
            record, receipt = await self._backlog.get()
            try:
                sent = await client.send(
                    self._cluster.settings.prefixed(record.topic),
                    record.value,
                    key=record.key,
                    partition=record.partition,
                    headers=list(record.headers.items()),
                )
            except Exception as error:  # noqa: BLE001  whatever it is, it belongs to whoever awaits the receipt
                receipt.set_exception(error)
            else:
                sent.add_done_callback(lambda done, receipt=receipt: _pass_on(done, receipt))


def _pass_on(done: asyncio.Future[Any], receipt: asyncio.Future[Any]) -> None:
    if receipt.done():
        return
    error = _cancelled() if done.cancelled() else done.exception()
    if error is None:
        receipt.set_result(done.result())
    else:
        receipt.set_exception(error)


def _cancelled() -> BaseException:
    return ConnectionAbortedError("the producer was stopped before Kafka answered")
