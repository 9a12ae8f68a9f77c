"""The topic of dead letters as a ledger: letters, and behind each in its partition what persons decided about it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from streamapp import topics
from streamapp.clock import Clock
from streamapp.errors import StreamappError, Unusable
from streamapp.kafka.producer import ClientProducer, Producer, Record
from streamapp.kafka.reader import TopicReader
from streamapp.kafka.security import Cluster
from streamapp.letters.letter import KeptLetter, decision_in, is_decision, kept_letter, letter_id, place_of_letter
from streamapp.letters.redriving import record_again, why_not
from streamapp.messages.dead_letter import DECISION, LetterDecision, LetterDecisionMessage
from streamapp.messages.envelope import reason_and_detail
from streamapp.settings import Settings

LAST = 500
"""Records of a partition that are looked at for a list: of 64 KiB each they are what a process may read and hold."""
FRESH_S = 5.0
"""How old a list may be, and how soon a Kafka that was away is asked again: many browsers ask at once, and one look
serves them all."""
_SLICE = 100
"""Records between two turns of the event loop, which has orders to send."""


class LetterLedger:
    """Reads letters, and records decisions about them, each before its effect.

    Raises (every method):
        Transient: Kafka is away.
        ConfigurationError: There is no such topic, or Kafka does not let us in.

    Args:
        settings: Where Kafka is, and how signals are read.
        producer: Writes decisions, and letters that are sent again; only used by :meth:`redrive`, :meth:`acknowledge`.
        clock: The time.
    """

    def __init__(self, settings: Settings, producer: Producer, clock: Clock) -> None:
        self._settings = settings
        self._producer = producer
        self._clock = clock
        self._letters: dict[str, KeptLetter] = {}
        self._read_to: dict[int, int] = {}
        self._looked_s: float | None = None
        self._fault: StreamappError | None = None
        self._looking = asyncio.Lock()
        self.is_cut = False
        """Whether the topic has letters that :meth:`newest` does not return: older ones."""

    async def newest(self) -> list[KeptLetter]:
        """Return the letters among the last ``LAST`` records of each partition, the newest first, payloads trimmed."""
        async with self._looking:
            if self._looked_s is None or time.monotonic() - self._looked_s >= FRESH_S:
                self._fault = None
                try:
                    await self._look()
                except StreamappError as error:
                    self._fault = error
                self._looked_s = time.monotonic()
            if self._fault is not None:
                raise self._fault.with_traceback(None)
        return sorted(self._letters.values(), key=lambda letter: (letter.at, letter.id), reverse=True)

    def shown(self, letter: KeptLetter) -> dict[str, Any]:
        """Return a letter for JSON; ``not_redrivable`` says why it can't be sent again, null where it seems to be."""
        said = None if letter.settled_by is not None else why_not(letter, self._settings, self._clock())
        return {**letter.shown(self._settings.execution), "not_redrivable": said}

    async def find(self, identifier: str) -> KeptLetter:
        """Return a letter whole, with all decisions about it.

        Raises:
            Unusable: ``bad_id``, or ``unknown_letter``: there is none of this id, or Kafka has forgotten it.
        """
        partition, offset = place_of_letter(identifier, self._settings.kafka.partitions)
        found: KeptLetter | None = None
        async with TopicReader(self._settings, topics.DEAD_LETTERS, partition=partition) as reader:
            await reader.begin(at={partition: offset})
            async for record in reader.read():
                if record.offset == offset and not is_decision(record):
                    found = kept_letter(record)
                elif found is None:
                    break
                elif (decision := decision_in(record)) is not None and decision.letter_id == found.id:
                    found = found.decided(decision)
        if found is None:
            raise Unusable(
                "unknown_letter", f"there is no dead letter {identifier}, or Kafka has forgotten it: list them"
            )
        return found

    async def redrive(self, identifier: str, *, by: str, reason: str) -> KeptLetter:
        """Send a letter again, to where it came in; who wanted it and why is recorded before.

        After a crash between the two, or silence, it may be done again: the desk knows the message by its place.

        Raises:
            Unusable: as :meth:`find`; ``settled``, or it must not be sent again, or would be no use: in a sentence.
            Ambiguous: Kafka did not say that it has it; do it again.
        """
        letter = await self.find(identifier)
        _require_open(letter)
        record = record_again(letter, self._settings, self._clock())
        letter = await self._record(letter, "redrive", by=by, reason=reason)
        await self._producer.send_all([record])
        return await self._record(letter, "redriven", by=by, reason=reason, topic=record.topic)

    async def acknowledge(self, identifier: str, *, by: str, reason: str) -> KeptLetter:
        """Record that a person has dealt with a letter; it has no other effect.

        Raises:
            Unusable: as :meth:`find`, or ``settled``.
            Ambiguous: Kafka did not say that it has it; do it again.
        """
        letter = await self.find(identifier)
        _require_open(letter)
        return await self._record(letter, "acknowledge", by=by, reason=reason)

    async def _record(
        self, letter: KeptLetter, what: LetterDecision, *, by: str, reason: str, topic: str | None = None
    ) -> KeptLetter:
        try:
            decision = LetterDecisionMessage(
                letter_id=letter.id, decision=what, by=by, reason=reason, topic=topic, at=self._clock()
            )
        except ValidationError as error:
            raise Unusable("invalid", reason_and_detail(error)[1]) from None
        partition, _ = place_of_letter(letter.id, self._settings.kafka.partitions)
        headers = {DECISION: what.encode()}
        await self._producer.send_all([Record(topics.DEAD_LETTERS, letter.key, decision.encode(), headers, partition)])
        self._looked_s = None
        return letter.decided(decision)

    async def _look(self) -> None:
        """Take in what stands behind what was read; the first time, the last records of each partition."""
        count = 0
        async with TopicReader(self._settings, topics.DEAD_LETTERS) as reader:
            self.is_cut |= await reader.begin(at=self._read_to, last=LAST) > 0 and not self._read_to
            async for record in reader.read():
                self._read_to[record.partition] = record.offset + 1
                if (decision := decision_in(record)) is not None:
                    if (known := self._letters.get(decision.letter_id)) is not None:
                        self._letters[decision.letter_id] = known.decided(decision)
                elif not is_decision(record):
                    self._letters[letter_id(record.partition, record.offset)] = kept_letter(record).trimmed()
                count += 1
                if count % _SLICE == 0:
                    await asyncio.sleep(0)
        self._forget()

    def _forget(self) -> None:
        """Keep no more than the first look would find, however long we run."""
        if len(self._letters) > LAST * len(self._read_to):
            newest = sorted(self._letters.values(), key=lambda letter: letter.at)[-LAST * len(self._read_to) :]
            self._letters = {letter.id: letter for letter in newest}
            self.is_cut = True


@asynccontextmanager
async def ledger(settings: Settings, clock: Callable[[], datetime], *, writes: bool) -> AsyncIterator[LetterLedger]:
    """Be connected for as long as the block, outside a worker.

    Raises:
        Transient: Kafka is away.
        ConfigurationError: Kafka does not let us in, or write.
    """
    producer = ClientProducer(Cluster.of(settings), f"{settings.kafka_deployment}-letters")
    if not writes:
        yield LetterLedger(settings, producer, clock)
        return
    async with producer:
        yield LetterLedger(settings, producer, clock)


def _require_open(letter: KeptLetter) -> None:
    if (settled := letter.settled_by) is not None:
        what = "re-driven" if settled.decision == "redriven" else "acknowledged"
        raise Unusable(
            "settled",
            f"{letter.id} was {what} already, by {settled.by} at {settled.at:%Y-%m-%d %H:%M:%S} UTC "
            f"({settled.reason}): nothing was done",
        )
