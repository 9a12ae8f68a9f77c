"""A scripted terminal: the fake of the Terminals port, with a journal in a dict."""

from __future__ import annotations

from agents.ports import Terminals
from streamapp.domain.identifiers import magic_of
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
from tests.agents.records import FakeClock


class ScriptedTerminals(Terminals):
    """Answers like a terminal whose journal is ``rows``.

    Attributes:
        epoch: The journal's; change it and empty ``rows`` to lose the journal.
        silent: No answer to anything.
        deaf: Order ids whose submit is recorded, but whose answer is lost.
        skew: The terminal's clock, if it is not ours.
        submits: What was asked, in order.
    """

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.wrong_clock: FakeClock | None = None
        self.epoch = "e1"
        self.silent = False
        self.deaf: set[str] = set()
        self.rows: dict[str, JournalRow] = {}
        self.submits: list[SubmitRequest] = []
        self.hellos = 0

    def _now(self) -> FakeClock:
        return self.wrong_clock or self.clock

    async def hello(self, account: str, *, timeout_s: float) -> HelloReply | None:
        self.hellos += 1
        if self.silent:
            return None
        return HelloReply(account=account, epoch=self.epoch, clock=self._now()(), connection="ready")

    async def submit(self, request: SubmitRequest, *, timeout_s: float) -> SubmitReply | None:
        self.submits.append(request)
        if self.silent:
            return None
        row = self.rows.get(request.order_id) or self._new_row(request)
        self.rows[request.order_id] = row
        if request.order_id in self.deaf:
            self.deaf.discard(request.order_id)
            return None
        state = row.state if row.hash == request.hash else "conflict"
        return SubmitReply(state=state, epoch=self.epoch, clock=self._now()(), row=row)

    def _new_row(self, request: SubmitRequest) -> JournalRow:
        now = self._now()()
        state = "recorded" if now < request.not_after else "refused"
        return JournalRow(
            order_id=request.order_id,
            hash=request.hash,
            state="doubt" if request.epoch != self.epoch else state,
            attempt=request.attempt,
            magic=magic_of(request.order_id),
            not_after=request.not_after,
            recorded_at=now,
        )

    async def ack(self, account: str, request: AckRequest, *, timeout_s: float) -> AckReply | None:
        return None

    async def replay(self, account: str, request: ReplayRequest, *, timeout_s: float) -> ReplayReply | None:
        return None
