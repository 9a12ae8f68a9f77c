"""fact/1: a fact on the archive topic."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from streamapp.domain.facts import Fact
from streamapp.messages.envelope import Message


class FactMessage(Fact, Message):
    """fact/1: fact, fact_id, order_id, account, at, causation_id, body. Kafka key: the account."""

    schema_: Literal["fact/1"] = Field("fact/1", alias="schema")

    @classmethod
    def of(cls, fact: Fact) -> FactMessage:
        """Return ``fact`` as its message."""
        return cls.model_construct(**{name: getattr(fact, name) for name in Fact.model_fields})
