"""A Kafka with topics of a test's own, and dead letters in it as mirror and the desk write them."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from streamapp import topics
from streamapp.clock import utc_now
from streamapp.kafka.admin import create_topics
from streamapp.kafka.producer import ClientProducer, Record, dead_letter_record
from streamapp.kafka.reader import TopicReader
from streamapp.kafka.security import Cluster
from streamapp.letters.ledger import LetterLedger
from streamapp.letters.letter import letter_id
from streamapp.messages.dead_letter import DeadLetter
from streamapp.mirror.routing import Arrival, dead_letter
from streamapp.settings import AccountSettings, ExecutionSettings, KafkaSettings, Settings

PARTITIONS = 2
HOSTILE = b"<img src=x onerror=document.title='owned'>"
SUBJECT = "signals.approved.EURUSD"
SIGNAL: Mapping[str, Any] = {
    "signal_id": "s-1",
    "status": "approved",
    "account": "a",
    "symbol": "EURUSD",
    "side": "buy",
    "order_type": "market",
    "volume": "0.1",
}
THEIRS = {("id" if name == "signal_id" else name): value for name, value in SIGNAL.items()}
"""A signal whose sender calls its id otherwise: nobody can use it until the settings say so."""


@dataclass
class LetterHouse:
    """Where dead letters are. ``settings`` read signals as the messages say; ``mended`` know ``THEIRS`` too."""

    settings: Settings
    producer: ClientProducer

    @property
    def mended(self) -> Settings:
        return self.settings.model_copy(update={"execution": ExecutionSettings(field_names={"signal_id": "id"})})

    @property
    def environment(self) -> dict[str, str]:
        kafka = self.settings.kafka
        return {
            "STREAMAPP_KAFKA__BOOTSTRAP": kafka.bootstrap or "",
            "STREAMAPP_KAFKA__TOPIC_PREFIX": kafka.topic_prefix,
            "STREAMAPP_KAFKA__PARTITIONS": str(PARTITIONS),
        }

    def ledger(self, settings: Settings | None = None) -> LetterLedger:
        return LetterLedger(settings or self.settings, self.producer, utc_now)

    async def bury(
        self,
        payload: bytes | Mapping[str, Any],
        reason: str = "no_signal_id",
        *,
        subject: str = SUBJECT,
        sequence: int = 7,
        at: datetime | None = None,
    ) -> str:
        """Keep a message of NATS as mirror does; return its id."""
        said = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        arrival = Arrival(subject, said, "EXECUTION_IN", sequence, at or utc_now())
        found = dead_letter(arrival, reason, f"detail of {reason}", PARTITIONS)
        return await self._keep(Record(found.topic, found.key, found.value, found.headers, found.partition))

    async def bury_ours(self, letter: DeadLetter, account: str = "a") -> str:
        """Keep what the desk, the publisher or the warehouse could not use; return its id."""
        return await self._keep(dead_letter_record(letter, account.encode(), 1))

    async def _keep(self, record: Record) -> str:
        [place] = await self.producer.send_all([record])
        return letter_id(place.partition, place.offset)

    async def read(self, topic: str) -> list[tuple[bytes | None, bytes, dict[str, bytes]]]:
        async with TopicReader(self.settings, topic) as reader:
            return [(each.key, each.value, dict(each.headers)) async for each in reader.read()]


@asynccontextmanager
async def letter_house(bootstrap: str, **settings: Any) -> AsyncIterator[LetterHouse]:
    kafka = KafkaSettings(bootstrap=bootstrap, partitions=PARTITIONS, topic_prefix=f"letters-{secrets.token_hex(4)}.")
    found = Settings(kafka=kafka, accounts={"a": AccountSettings(login=1)}, **settings)
    names = {kafka.prefixed(name) for name in (topics.SIGNALS_APPROVED, topics.DEAD_LETTERS)}
    specs = [each for each in topics.own_topics(kafka.topic_prefix) if each.name in names]
    await create_topics(bootstrap, specs, partitions=PARTITIONS, replication_factor=1)
    async with ClientProducer(Cluster.of(found), "test-letters") as producer:
        yield LetterHouse(found, producer)
