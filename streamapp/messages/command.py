"""command/1, in on ``commands.>``: captured by the stream and refused as unsupported until they are carried out."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from streamapp.domain.vocabulary import UtcTime
from streamapp.messages.envelope import Message


class CommandRequest(Message):
    """command/1 as it comes from outside; ``request_id`` is its idempotency key."""

    request_id: str = Field(min_length=1, max_length=128)
    account: str | None = None
    order_id: str | None = None
    position_id: int | None = None
    values: dict[str, Any] = Field(default_factory=dict)
    issued_by: str = ""
    issued_at: UtcTime | None = None
    valid_until: UtcTime | None = None
