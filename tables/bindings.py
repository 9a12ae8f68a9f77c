"""Rows ``b/``: which account an incomplete signal or order was given. Written by completion alone."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from streamapp.domain.vocabulary import UtcTime
from tables.row import Row


class BindingRow(Row):
    """The account of an id, bound before the message is forwarded to it; ``account`` is empty where none was found.

    ``fields`` are those that ClickHouse gave and the message did not, ``detail`` says what was missing.
    """

    kind: str
    id: str
    account: str
    fields: dict[str, Any] = Field(default_factory=dict)
    detail: str = ""
    bound_at: UtcTime


def binding_key(kind: str, identifier: str) -> bytes:
    """Return the row's key; ``kind`` is the topic that the message is completed for."""
    return f"b/{kind}/{identifier}".encode()
