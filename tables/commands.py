"""Rows ``c/``: each command by (account, request_id), what was answered, and how far it is carried out."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from streamapp.domain.vocabulary import UtcTime
from streamapp.messages.command import CommandName, CommandRequest, CommandState
from tables.row import Row


class CommandRow(Row):
    """A command.

    Attributes:
        stream_seq: Of the message that was decided on: the same one again is a redelivery.
        state: What was answered last, as ``revision``; it is being carried out while that is ``accepted``.
        order_ids: The orders that it made, the newest of them, in their order; ``made`` is how many there were.
        targets: What is asked of the terminal, by order_id or position_id: None while it is not answered, then what it
            said, empty where it is done.
        tried: When flatten began its last try to cancel an order, by order_id; ``closers`` is the order that it made
            last for a position, by position_id.
        not_after: Nothing is begun at or after it; None: until it is carried out.
        trace: The traceparent that everything caused by it carries on.
    """

    name: CommandName
    request: CommandRequest
    stream_seq: int
    state: CommandState
    revision: int = 1
    why: str | None = None
    detail: str | None = None
    order_ids: tuple[str, ...] = ()
    made: int = 0
    targets: dict[str, str | None] = Field(default_factory=dict)
    tried: dict[str, UtcTime] = Field(default_factory=dict)
    closers: dict[str, str] = Field(default_factory=dict)
    not_after: UtcTime | None = None
    trace: str | None = None
    at: UtcTime

    @property
    def over_since(self) -> datetime | None:
        """When it was given, None while it is being carried out."""
        return None if self.state == "accepted" else self.at


COMMAND = b"c/"


def command_key(account: str, request_id: str) -> bytes:
    """Return the row's key. No account holds a zero byte: a request_id is visible ASCII."""
    return f"c/{account}\x00{request_id}".encode()
