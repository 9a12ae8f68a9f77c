"""What the desk may ask of the world once a commit is durable, and the port to the terminals that carries it out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from streamapp.messages.operation import OperationRequest, Outcome, ResumeRequest
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
class Asker:
    """Who asked a terminal for an operation, and is told what it answered: ``id`` of a signal, or of a command.

    ``target`` is what it is about, by the asker's own name: an order_id, a position_id.
    """

    kind: Literal["signal", "command"]
    id: str
    target: str


@dataclass(frozen=True, slots=True)
class Operate:
    """Ask a terminal to cancel, modify, protect, or open again; it answers the second time as it did the first."""

    asker: Asker
    request: OperationRequest | ResumeRequest


Effect = Submit | AckReports | Operate


class OperationAnswer(NamedTuple):
    """What a terminal answered to an operation."""

    outcome: Outcome
    message: str


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

    async def operate(self, request: OperationRequest | ResumeRequest, *, timeout_s: float) -> OperationAnswer | None:
        """Ask for an operation; it may be asked for again until the answer is final."""
        ...

    async def ack(self, account: str, request: AckRequest, *, timeout_s: float) -> AckReply | None:
        """Say which reports are durable with us."""
        ...

    async def replay(self, account: str, request: ReplayRequest, *, timeout_s: float) -> ReplayReply | None:
        """Ask for reports again."""
        ...
