"""What the desk may ask of the world once a commit is durable, and the port to the terminals that carries it out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from streamapp.messages.operation import OperationReply, ProtectRequest
from streamapp.messages.terminal import (
    AckReply,
    AckRequest,
    HelloReply,
    ReplayReply,
    ReplayRequest,
    SubmitReply,
    SubmitRequest,
)


@dataclass(frozen=True, slots=True)
class Submit:
    """Hand the order to its terminal; the journal answers the second time as it did the first."""

    request: SubmitRequest


@dataclass(frozen=True, slots=True)
class AckReports:
    """Let the terminal forget every report of ``epoch`` up to ``watermark``: they are durable with us.

    ``is_missing``: a report before one that we have has not come; ask for a replay of everything after the watermark.
    """

    account: str
    epoch: str
    watermark: int
    is_missing: bool = False


@dataclass(frozen=True, slots=True)
class Protect:
    """Ask a terminal for the levels of a position; it answers the second time as it did the first."""

    signal_id: str
    request: ProtectRequest


Effect = Submit | AckReports | Protect


class Terminals(Protocol):
    """The terminals, one for each account. None is silence: nobody knows whether the request arrived.

    Silence includes an answer that can't be read and a terminal that answers ``error``.
    """

    async def hello(self, account: str, *, timeout_s: float) -> HelloReply | None:
        """Ask who the account's terminal is now."""
        ...

    async def submit(self, request: SubmitRequest, *, timeout_s: float) -> SubmitReply | None:
        """Hand an order over. Requests of one account arrive in the order in which the calls were made."""
        ...

    async def protect(self, request: ProtectRequest, *, timeout_s: float) -> OperationReply | None:
        """Ask for a position's levels; the answer may be asked for again until it is final."""
        ...

    async def ack(self, account: str, request: AckRequest, *, timeout_s: float) -> AckReply | None:
        """Say which reports are durable with us."""
        ...

    async def replay(self, account: str, request: ReplayRequest, *, timeout_s: float) -> ReplayReply | None:
        """Ask for reports again."""
        ...
