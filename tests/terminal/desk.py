"""A market and a terminal that the tests of one module share, and what every test of a fault must show."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from streamapp.domain import facts
from streamapp.domain.identifiers import magic_of
from streamapp.messages.log import BrokerLogEntry
from streamapp.messages.report import ConnectionChange, Report
from streamapp.messages.terminal import SubmitRequest
from tests.kit.waiting import eventually
from tests.terminal.conftest import Market, TerminalProcess, connected, running_market
from tests.terminal.scripted import ACCOUNT

Test = TypeVar("Test", bound=Callable[..., Any])

ACCEPTED = ["started", "returned", "accepted", "deal"]
NEVER = 1 << 40
"""A fault that waits for this call strikes none, and counts them all."""

PROVEN: dict[str, list[str]] = {}
"""Which tests show what becomes of which kind of fault."""


def proves(*kinds: str) -> Callable[[Test], Test]:
    """Say that a test shows what becomes of faults of these kinds."""

    def note(test: Test) -> Test:
        for kind in kinds:
            PROVEN.setdefault(kind, []).append(test.__name__)
        return test

    return note


@dataclass
class Desk:
    """One test's orders at a terminal, and the count of what reached the market since it began.

    Guarantees:
        :meth:`close` fails unless every call of ``order_send`` since the begin was expected.
    """

    terminal: TerminalProcess
    market: Market
    names: Iterator[int]
    epoch: str = ""
    counter: int = 0
    sent: int = 0
    since_seq: int = 0
    orders: list[SubmitRequest] = field(default_factory=list)

    async def open(self) -> None:
        """Begin with a terminal that is ready and a market without faults."""
        self.market.end_faults()
        hello = await self.terminal.ready()
        # A hello says ready a moment before the report of it is durable.
        seq = await eventually(self._ready_seq, "the report of ready")
        self.epoch, self.since_seq = hello.epoch, max(hello.last_seq, seq)
        self._count()

    def _ready_seq(self) -> int:
        """Return the seq of the report of ready, 0 unless it is the newest of its kind."""
        changes = [report for report in self.terminal.told(None) if isinstance(report.body, ConnectionChange)]
        ready = changes and isinstance(changes[-1].body, ConnectionChange) and changes[-1].body.connection == "ready"
        return changes[-1].seq if ready else 0

    def _count(self) -> None:
        self.counter = self.market.fault("reject", account=ACCOUNT, nth=NEVER)

    def fault(self, kind: str, **fields: Any) -> None:
        """Have the terminal's account struck."""
        self.market.fault(kind, account=ACCOUNT, **fields)

    def sends(self) -> int:
        """Return how often the terminal called ``order_send`` since the begin, by the market's own count."""
        (row,) = [row for row in self.market.faults() if row["id"] == self.counter]
        return self.sent + int(row["calls"])

    def end_faults(self) -> None:
        """Let the market be well again."""
        self.sent = self.sends()
        self.market.end_faults()
        self._count()

    async def submit(self, **changes: Any) -> SubmitRequest:
        """Submit an order of a new name."""
        return await self._submit(self._order(**changes))

    async def submit_exit(self, position_id: int, **changes: Any) -> SubmitRequest:
        """Submit a sell of a new name that closes a position."""
        order = self._order(side="sell", **changes)
        return await self._submit(order.model_copy(update={"position_id": position_id}))

    def _order(self, **changes: Any) -> SubmitRequest:
        return self.terminal.order(f"{os.urandom(4).hex()}-{next(self.names)}", self.epoch, **changes)

    async def _submit(self, order: SubmitRequest) -> SubmitRequest:
        self.orders.append(order)
        await self.terminal.submit(order)
        return order

    async def says(self, order: SubmitRequest, *kinds: str) -> dict[str, Any]:
        """Wait for exactly these reports of an order; return their bodies by kind, the last one of each."""
        order_id = order.order_id

        def said() -> bool:
            now = self.terminal.kinds(order_id)
            assert now == list(kinds[: len(now)]), "another report came"
            return len(now) == len(kinds)

        try:
            await eventually(said)
        except AssertionError as error:
            raise AssertionError(f"expected {kinds}, got {self._story(order_id)}") from error
        return {report.kind: report.body for report in self.terminal.told(order_id)}

    async def comes_to(self, order: SubmitRequest, *kinds: str) -> list[str]:
        """Wait until an order's last report is one of ``kinds``; return the kinds of them all."""
        await eventually(lambda: self.terminal.kinds(order.order_id)[-1:] in [[kind] for kind in kinds])
        return self.terminal.kinds(order.order_id)

    def _story(self, order_id: str) -> list[str]:
        return [f"{report.kind}: {report.body!r}" for report in self.terminal.told(order_id)]

    async def submits(self, *kinds: str, **changes: Any) -> dict[str, Any]:
        """Submit an order and wait for its reports, as :meth:`says`."""
        return await self.says(await self.submit(**changes), *kinds)

    def orders_of(self, order: SubmitRequest) -> list[dict[str, Any]]:
        """Return what the market took under an order's magic, by its own ledger."""
        return [row for row in self.market.ledger() if row["magic"] == magic_of(order.order_id)]

    def deals_of(self, order: SubmitRequest) -> list[dict[str, Any]]:
        """Return what the market executed under an order's magic, by its own ledger."""
        return [row for row in self.market.ledger("deal") if row["magic"] == magic_of(order.order_id)]

    def reported(self, order: SubmitRequest) -> list[int]:
        """Return the tickets of the deals that were reported as an order's."""
        bodies = [report.body for report in self.terminal.told(order.order_id)]
        return [body.deal for body in bodies if isinstance(body, facts.Filled)]

    def logged(self, order: SubmitRequest) -> list[BrokerLogEntry]:
        """Return the broker log's calls of ``order_send`` for an order."""
        entries = {entry.seq: entry for entry in self.terminal.entries if entry.function == "order_send"}
        return [entry for entry in entries.values() if entry.order_id == order.order_id]

    def connections(self) -> list[str]:
        """Return the states of the connection that were reported since the begin."""
        return [body.connection for body in self._changes()]

    def detail(self, connection: str) -> str:
        """Return what was said of a state, the last time."""
        return [body.detail for body in self._changes() if body.connection == connection][-1]

    def _changes(self) -> list[ConnectionChange]:
        told = [report for report in self.terminal.told(None) if report.seq > self.since_seq]
        return [report.body for report in told if isinstance(report.body, ConnectionChange)]

    async def becomes(self, connection: str) -> None:
        """Wait until a state of the connection was reported."""
        await eventually(lambda: connection in self.connections(), connection)

    def has_become(self, connection: str, after: int) -> bool:
        """Return whether a state of the connection was reported after so many others."""
        return connection in self.connections()[after:]

    def of_nobody(self, kind: str) -> list[Report]:
        """Return the reports of a kind since the begin that are no order's of ours."""
        return [report for report in self.terminal.told(None) if report.seq > self.since_seq and report.kind == kind]

    async def close(self, *, sends: int | None = None, violations: int = 0) -> None:
        """See that nothing was sent twice; ``sends``: as often as orders were submitted, unless told."""
        wanted = len(self.orders) if sends is None else sends
        assert self.sends() == wanted, f"expected {wanted} calls of order_send, got {self.sends()}"
        self.end_faults()
        await self.terminal.ready()
        assert self.sends() == wanted, f"expected {wanted} calls of order_send, got {self.sends()}"
        ours = {magic_of(order.order_id) for order in self.orders}
        assert len(ours & set(self.market.violations())) == violations
        for order in self.orders:
            attempts = self.terminal.kinds(order.order_id).count("started")
            assert len(self.logged(order)) <= max(1, attempts)
            assert sorted(self.reported(order)) == sorted(row["ticket"] for row in self.own_deals(order))

    def own_deals(self, order: SubmitRequest) -> list[dict[str, Any]]:
        """Return the market's deals of the orders that a program sent under an order's magic, on its side."""
        return [
            row for row in self.deals_of(order) if row["reason"] == "expert" and row["side"] == order.parameters.side
        ]


@asynccontextmanager
async def desks(
    folder: Path,
    nats_url: str,
    *options: str,
    mode: str = "hedging",
    profile: str = "default",
    settings: Mapping[str, str] | None = None,
    own: str = "",
) -> AsyncIterator[TerminalProcess]:
    """A market, a terminal that runs, and a client that listens, for as long as the block.

    ``options`` are the market's; ``settings`` are the terminal's, by their names in the environment; ``own`` are
    further ones of the account, as TOML.
    """
    with running_market(folder, mode, *options, profile=profile) as market:
        async with connected(nats_url) as client:
            account = f"d{folder.name.encode().hex()[-20:]}{os.getpid()}"
            terminal = TerminalProcess(folder, nats_url, market, client, account, own=own)
            terminal.environment |= {f"STREAMAPP_{name}": value for name, value in (settings or {}).items()}
            await terminal.listen()
            terminal.start()
            try:
                yield terminal
            finally:
                terminal.end()
            seqs = sorted({report.seq for report in terminal.reports})
            assert seqs == list(range(1, len(seqs) + 1)), "expected every seq of the journal to be said"
