"""A journal in memory, and on it the scripted terminals: the fake of the Terminals port."""

from __future__ import annotations

import asyncio
from datetime import datetime

from streamapp.desk.effects import OperationAnswer, Terminals
from streamapp.domain.identifiers import magic_of
from streamapp.messages.operation import OperationRequest, Outcome, ProtectRequest, ResumeRequest
from streamapp.messages.terminal import (
    AckReply,
    AckRequest,
    HelloReply,
    JournalRow,
    ReplayReply,
    ReplayRequest,
    SubmitReply,
    SubmitRequest,
)
from tests.kit.records import FakeClock


class MemoryJournal:
    """A terminal's journal in a dict.

    Attributes:
        epoch: Change it and empty ``rows`` to lose the journal.
        rows: By order id.
    """

    def __init__(self) -> None:
        self.epoch = "e1"
        self.rows: dict[str, JournalRow] = {}

    def record(self, request: SubmitRequest, now: datetime) -> JournalRow:
        """Return the order's row, which its first request makes: refused if late, a doubt if of another epoch."""
        fresh = "recorded" if now < request.not_after else "refused"
        new = JournalRow(
            order_id=request.order_id,
            hash=request.hash,
            state="doubt" if request.epoch != self.epoch else fresh,
            attempt=request.attempt,
            magic=magic_of(request.order_id),
            not_after=request.not_after,
            recorded_at=now,
        )
        return self.rows.setdefault(request.order_id, new)


class ScriptedTerminals(MemoryJournal, Terminals):
    """Answers like the terminals of all accounts, which share one journal.

    Attributes:
        silent: No answer to anything.
        deaf: Order ids whose submit is recorded, but whose answer is lost.
        gate: While it is closed (an event that is not set), the journal records submits but answers none.
        wrong_clock: The terminal's clock, if it is not ours.
        submits: What was asked, in order.
        acks: The watermarks it was told, in order.
        replays: The replays it was asked for.
        operations: The operations that it was asked for.
        outcome: What it answers to them.
        last_seq: The number of its last report.
    """

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.clock = clock
        self.wrong_clock: FakeClock | None = None
        self.silent = False
        self.deaf: set[str] = set()
        self.gate: asyncio.Event | None = None
        self.submits: list[SubmitRequest] = []
        self.hellos = 0
        self.acks: list[AckRequest] = []
        self.replays: list[ReplayRequest] = []
        self.operations: list[OperationRequest | ResumeRequest] = []
        self.outcome: Outcome = "done"
        self.last_seq = 0
        self.released_seq = 0

    def _now(self) -> FakeClock:
        return self.wrong_clock or self.clock

    async def hello(self, account: str, *, timeout_s: float) -> HelloReply | None:
        self.hellos += 1
        if self.silent:
            return None
        return HelloReply(
            account=account,
            epoch=self.epoch,
            clock=self._now()(),
            connection="ready",
            last_seq=self.last_seq,
            released_seq=self.released_seq,
        )

    async def submit(self, request: SubmitRequest, *, timeout_s: float) -> SubmitReply | None:
        self.submits.append(request)
        if self.silent:
            return None
        row = self.record(request, self._now()())
        if self.gate is not None:
            await self.gate.wait()
        if request.order_id in self.deaf:
            self.deaf.discard(request.order_id)
            return None
        state = row.state if row.hash == request.hash else "conflict"
        return SubmitReply(state=state, epoch=self.epoch, clock=self._now()(), row=row)

    async def operate(self, request: OperationRequest | ResumeRequest, *, timeout_s: float) -> OperationAnswer | None:
        self.operations.append(request)
        if self.silent:
            return None
        return OperationAnswer(self.outcome, "" if self.outcome == "done" else "as told")

    @property
    def protects(self) -> list[ProtectRequest]:
        """The levels it was asked for."""
        return [each for each in self.operations if isinstance(each, ProtectRequest)]

    async def ack(self, account: str, request: AckRequest, *, timeout_s: float) -> AckReply | None:
        if self.silent:
            return None
        self.acks.append(request)
        self.released_seq = max(self.released_seq, request.watermark)
        return AckReply(epoch=self.epoch, released_seq=self.released_seq, last_seq=self.last_seq)

    async def replay(self, account: str, request: ReplayRequest, *, timeout_s: float) -> ReplayReply | None:
        if self.silent:
            return None
        self.replays.append(request)
        return ReplayReply(epoch=self.epoch, published=max(0, self.last_seq - request.after_seq))
