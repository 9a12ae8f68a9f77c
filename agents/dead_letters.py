"""Where an agent puts what nobody can use."""

from __future__ import annotations

from streamapp import topics
from streamapp.kafka.producer import Record
from streamapp.messages.dead_letter import DeadLetter


def dead_record(letter: DeadLetter, key: bytes | None, partition: int) -> Record:
    """Return the record that keeps ``letter`` on ``dead_letters``."""
    return Record(topics.DEAD_LETTERS, key, letter.value, letter.headers, partition)
