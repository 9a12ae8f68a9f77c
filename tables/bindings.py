"""Rows ``b/``: which account or accounts an incomplete signal or order was given. Written by completion alone."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from streamapp.domain.vocabulary import Lots, UtcTime
from streamapp.messages.answer import CopyDecision
from tables.row import Row


class BindingRow(Row):
    """The account of an id, bound before the message is forwarded to it; ``account`` is empty where none was found.

    Attributes:
        weights: The accounts that get a copy of the signal each, with its weight, in place of one account.
        fields: Those that ClickHouse gave and the message did not.
        detail: What was missing.
        decided: The first decision of each account on its copy, in the order they came.
        answered_at: When the last of them was made, None while there are some to come.
    """

    kind: str
    id: str
    account: str
    weights: dict[str, Lots] = Field(default_factory=dict)
    fields: dict[str, Any] = Field(default_factory=dict)
    detail: str = ""
    bound_at: UtcTime
    decided: dict[str, CopyDecision] = Field(default_factory=dict)
    answered_at: UtcTime | None = None

    @property
    def is_bound(self) -> bool:
        """Whether there is an account for it."""
        return bool(self.account or self.weights)

    def with_decision(self, decision: CopyDecision, at: datetime) -> BindingRow:
        """Return the row with the first decision of one more account."""
        decided = self.decided | {decision.account: decision}
        changes = {"decided": decided, "answered_at": at if len(decided) == len(self.weights) else None}
        return self.model_copy(update=changes)


def binding_key(kind: str, identifier: str) -> bytes:
    """Return the row's key; ``kind`` is the topic that the message is completed for."""
    return f"b/{kind}/{identifier}".encode()
