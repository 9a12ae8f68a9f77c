"""How a fact is said: as fact/1 on the archive topic, keyed by its account."""

from __future__ import annotations

from collections.abc import Mapping

from streamapp import topics
from streamapp.domain.facts import Fact
from streamapp.kafka.producer import Record
from streamapp.messages.fact import FactMessage


def fact_record(fact: Fact, partition: int, headers: Mapping[str, bytes] | None = None) -> Record:
    """Return the record that says a fact in the archive; ``partition`` is that of the event it was said for."""
    return Record(topics.ARCHIVE, fact.account.encode(), FactMessage.of(fact).encode(), headers or {}, partition)
