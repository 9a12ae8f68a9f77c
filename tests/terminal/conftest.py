"""One account's parts on a scripted worker, and the real processes: market, NATS streams, terminal."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
import nats.errors
import psutil
import pytest
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from streamapp import subjects
from streamapp.clock import utc_now
from streamapp.domain.limits import AccountLimits
from streamapp.local.ports import free_port
from streamapp.messages.log import BrokerLogBatch, BrokerLogEntry
from streamapp.messages.report import Report, ReportBatch
from streamapp.messages.terminal import HelloReply, SubmitReply, SubmitRequest
from streamapp.processes.children import launched
from streamapp.settings import AccountSettings, GuardSettings, TerminalSettings
from streamapp.terminal.account.connection import BrokerConnection
from streamapp.terminal.account.judging import OrderLimits
from streamapp.terminal.account.orders import Execution
from streamapp.terminal.account.resolver import Resolver
from streamapp.terminal.account.watch import Watch
from streamapp.terminal.journal.database import Journal
from tests.kit.waiting import PATIENCE_S, eventually, eventually_blocking
from tests.terminal.scripted import ACCOUNT, LOGIN, SERVER, ScriptedWorker, submit_request

ANSWER_S = 5.0
"""How long one request waits: it is lost where the process was killed and NATS has not noticed yet."""
SETTLE_WINDOW_S = 1.0
"""How long the terminals of these tests look for a doubt."""


@dataclass
class Account:
    """The parts of one account's terminal, wired as the child does, on a scripted worker."""

    worker: ScriptedWorker
    journal: Journal
    connection: BrokerConnection
    execution: Execution
    watch: Watch
    resolver: Resolver
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)

    async def submit(self, name: str = "s-1", **changes: Any) -> SubmitRequest:
        request = submit_request(name, epoch=self.journal.book.epoch, **changes)
        await self.execution.submit(request)
        return request

    async def reports(self) -> list[Report]:
        rows = await self.journal.write(lambda book: book.outbox(0, 10_000))
        return [report for _, payload in rows if (report := Report.model_validate_json(payload)).kind != "connection"]

    async def kinds(self) -> list[str]:
        return [report.kind for report in await self.reports()]

    async def said(self, *kinds: str) -> list[Report]:
        said: list[str] = []

        async def all_there() -> bool:
            said[:] = [
                f"{report.kind} {getattr(report.body, 'message', '')}".strip() for report in await self.reports()
            ]
            return [text.partition(" ")[0] for text in said] == list(kinds)

        await eventually(all_there, lambda: f"{kinds}, got {said}")
        return await self.reports()


@asynccontextmanager
async def wired(folder: Path, worker: ScriptedWorker, **changes: float) -> AsyncIterator[Account]:
    """Run one life of an account's terminal; ``changes`` are of its settings."""
    journal = Journal(folder / "journal.sqlite3", ACCOUNT)
    settings = AccountSettings(login=LOGIN, server=SERVER)
    terminal = TerminalSettings(
        **{"poll_interval_s": 0.02, "equal_reads_s": 0.02, "order_send_deadline_s": 1.0, **changes}
    )
    connection = BrokerConnection(worker, journal, settings, terminal, clock=utc_now, password="secret")
    watch = Watch(journal, connection, terminal, clock=utc_now)
    limits = OrderLimits(settings, AccountLimits(GuardSettings()), terminal)
    execution = Execution(journal, connection, limits, clock=utc_now, on_accepted=watch.expect)
    resolver = Resolver(journal, connection, terminal, clock=utc_now, on_adopted=watch.confirm)
    parts = Account(worker, journal, connection, execution, watch, resolver)
    parts.tasks = [asyncio.create_task(part.run()) for part in (journal, connection, execution, watch, resolver)]
    yield parts
    for task in parts.tasks:
        task.cancel()
    await asyncio.gather(*parts.tasks, return_exceptions=True)
    journal.close()


@pytest.fixture
async def account(tmp_path: Path) -> AsyncIterator[Account]:
    async with wired(tmp_path, ScriptedWorker()) as parts:
        yield parts


OTHER_LOGIN = 43
"""An account beside ours at the same broker."""


@dataclass(frozen=True)
class Market:
    """A simulated market of one test or of one module, reached over HTTP."""

    address: str

    def _ask(self, path: str, body: Any = None, method: str | None = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{self.address}{path}", data=data, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
            return bytes(response.read())

    def fault(self, kind: str, **fields: Any) -> int:
        """Set a fault; return its number."""
        (shown,) = json.loads(self._ask("/faults", {"kind": kind, **fields}))
        return int(shown["id"])

    def faults(self) -> list[dict[str, Any]]:
        """Return the faults as the market shows them."""
        return list(json.loads(self._ask("/faults")))

    def end_faults(self) -> None:
        """End them all."""
        self._ask("/faults", method="DELETE")

    def pin(self, symbol: str, bid: str, ask: str) -> None:
        """Hold a price."""
        self._ask(f"/quotes/{symbol}", {"bid": bid, "ask": ask})

    def change(self, symbol: str, **values: Any) -> None:
        """Change fields of a symbol."""
        self._ask(f"/symbols/{symbol}", values)

    def shift_clock(self, by_s: int) -> None:
        """Put the server's clock forward or back."""
        self._ask("/clock", {"shift_ms": by_s * 1000})

    def operate(self, kind: str, amount: str, **more: Any) -> int:
        """Book money without a trade; return its deal."""
        body = {"account": LOGIN, "type": kind, "amount": amount, "comment": f"by hand, {kind}", **more}
        return int(json.loads(self._ask("/operations", body))["deal"])

    def ledger(self, kind: str = "order", login: int = LOGIN) -> list[dict[str, Any]]:
        """Return what truly happened at an account."""
        lines = self._ask(f"/ledger?account={login}").decode().splitlines()
        return [row for line in lines if (row := json.loads(line))["kind"] == kind]

    def violations(self) -> list[int]:
        """Return the magics of which the market took more than one order."""
        return [row["magic"] for row in self.health()["invariants"]["violations"]]

    def health(self) -> dict[str, Any]:
        """Return what it says of itself and its accounts."""
        return dict(json.loads(self._ask("/health")))

    def is_up(self) -> bool:
        """Return whether it answers."""
        with suppress(OSError):
            return bool(self._ask("/health"))
        return False


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    with running_market(tmp_path) as market:
        yield market


@pytest.fixture
def netting_market(tmp_path: Path) -> Iterator[Market]:
    with running_market(tmp_path, "netting") as market:
        yield market


def _accounts(margin_mode: str, profile: str) -> list[dict[str, Any]]:
    shared = {
        "server": SERVER,
        "balance": "1000000",
        "margin_mode": margin_mode,
        "password": "s3cret",
        "profile": profile,
    }
    return [{"name": ACCOUNT, "login": LOGIN, **shared}, {"name": "other", "login": OTHER_LOGIN, **shared}]


def start_market(
    folder: Path, port: int, margin_mode: str = "hedging", *options: str, profile: str = "default"
) -> subprocess.Popen[bytes]:
    """Start a market process on ``port`` and see it answer."""
    accounts = folder / "accounts.json"
    accounts.write_text(json.dumps(_accounts(margin_mode, profile)))
    command = [sys.executable, "-m", "streamapp.simulator", "--port", str(port), "--accounts", str(accounts), *options]
    with (folder / "market.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)

    def is_up() -> bool:
        assert process.poll() is None, (folder / "market.log").read_text()
        return Market(f"127.0.0.1:{port}").is_up()

    eventually_blocking(is_up, "the market's answer")
    return process


@contextmanager
def running_market(
    folder: Path, margin_mode: str = "hedging", *options: str, profile: str = "default"
) -> Iterator[Market]:
    """A market process for as long as the block."""
    port = free_port()
    with start_market(folder, port, margin_mode, *options, profile=profile) as process:
        yield Market(f"127.0.0.1:{port}")
        process.terminate()


@asynccontextmanager
async def connected(nats_url: str) -> AsyncIterator[Client]:
    """A NATS client, and the streams that terminals publish to."""
    client = await nats.connect(nats_url)
    jetstream = client.jetstream()
    for stream in subjects.STREAMS:
        try:
            await jetstream.stream_info(stream.name)
        except NotFoundError:
            await jetstream.add_stream(
                name=stream.name, subjects=list(stream.subjects), max_msgs_per_subject=stream.max_msgs_per_subject
            )
    yield client
    await client.close()


@pytest.fixture
async def client(nats_url: str) -> AsyncIterator[Client]:
    async with connected(nats_url) as client:
        yield client


class TerminalProcess:
    """Lives of the real terminal process of one account, and what it says on NATS under a name of its own."""

    def __init__(
        self, folder: Path, nats_url: str, market: Market, client: Client, account: str, *, own: str = ""
    ) -> None:
        """``own``: further settings of the account, as TOML."""
        self.account = account
        self.log, self.said = folder / "terminal.log", folder / "status.jsonl"
        self.reports: list[Report] = []
        self.message_ids: list[str] = []
        self.entries: list[BrokerLogEntry] = []
        self.market = market
        self.client = client
        self._stack = ExitStack()
        password = folder / "password"
        password.write_text("s3cret\n")
        config = folder / "streamapp.toml"
        config.write_text(
            f'[nats]\nurl = "{nats_url}"\n[local]\ndata = "{folder}"\n'
            "[terminal]\npoll_interval_s = 0.05\nquiet_interval_s = 0.15\nequal_reads_s = 0.1\n"
            f"settle_window_s = {SETTLE_WINDOW_S}\n"
            "snapshot_interval_s = 0.2\norder_send_deadline_s = 3.0\nread_deadline_s = 3.0\n"
            f'[accounts.{account}]\nlogin = {LOGIN}\nserver = "{SERVER}"\npassword_file = "{password}"\n{own}\n'
        )
        self.environment = {
            **os.environ,
            "STREAMAPP_CONFIG": str(config),
            "STREAMAPP_SIMULATOR_ADDRESS": market.address,
        }
        self.process: subprocess.Popen[bytes] | None = None

    async def listen(self) -> None:
        async def on_report(message: Any) -> None:
            self.message_ids.append(message.headers["Nats-Msg-Id"])
            self.reports.extend(ReportBatch.decode(message.data).reports)

        async def on_entry(message: Any) -> None:
            self.entries.extend(BrokerLogBatch.decode(message.data).entries)

        await self.client.subscribe(subjects.report(self.account), cb=on_report)
        await self.client.subscribe(subjects.broker_log(self.account), cb=on_entry)
        await self.client.flush()

    def start(self, *, crash_at: str = "") -> subprocess.Popen[bytes]:
        log = self._stack.enter_context(self.log.open("ab"))
        said = self._stack.enter_context(self.said.open("ab"))
        command = [sys.executable, *launched("streamapp.terminal.account.process"), "--account", self.account]
        environment = {**self.environment, "STREAMAPP_CRASH_AT": crash_at}
        self.process = self._stack.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=said, stderr=log, env=environment)
        )
        return self.process

    async def request(self, operation: str, payload: bytes = b"") -> bytes:
        subject = subjects.terminal(self.account, operation)
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                return (await self.client.request(subject, payload, timeout=ANSWER_S)).data
            except (nats.errors.NoRespondersError, nats.errors.TimeoutError):  # every request may be repeated
                assert time.monotonic() < until, self.log.read_text()
                assert self.process is not None
                assert self.process.poll() is None, self.log.read_text()
                await asyncio.sleep(0.05 if until else 0)

    async def ready(self) -> HelloReply:
        async def hello() -> HelloReply | None:
            reply = HelloReply.decode(await self.request("hello"))
            return reply if reply.connection == "ready" else None

        reply: HelloReply = await eventually(hello, "ready")
        return reply

    async def submit(self, request: SubmitRequest) -> SubmitReply:
        return SubmitReply.decode(await self.request("submit", request.encode()))

    def order(self, name: str, epoch: str, **changes: Any) -> SubmitRequest:
        return submit_request(name, epoch=epoch, **changes).model_copy(update={"account": self.account})

    def told(self, order_id: str | None) -> list[Report]:
        """Return the reports of an order, or of no order of ours, each once, by seq."""
        seen = {report.seq: report for report in self.reports if report.order_id == order_id}
        return [report for _, report in sorted(seen.items())]

    def kinds(self, order_id: str) -> list[str]:
        """Return the kinds of an order's reports, by seq."""
        return [report.kind for report in self.told(order_id)]

    def status(self) -> dict[str, Any]:
        """Return what it last said to its parent; empty before the first word."""
        lines = self.said.read_bytes().split(b"\n")[:-1]
        return dict(json.loads(lines[-1])) if lines else {}

    def worker(self) -> psutil.Process | None:
        """Return the process that holds the module now, if there is one."""
        assert self.process is not None
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children():
                if "streamapp.terminal.worker.process" in child.cmdline():
                    return child
        return None

    async def stop(self) -> int:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.close()
        return await asyncio.to_thread(self.process.wait, PATIENCE_S)

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
        self._stack.close()


@pytest.fixture
async def terminal(tmp_path: Path, nats_url: str, market: Market, client: Client) -> AsyncIterator[TerminalProcess]:
    terminal = TerminalProcess(
        tmp_path, nats_url, market, client, f"t{tmp_path.name.encode().hex()[-20:]}{os.getpid()}"
    )
    await terminal.listen()
    yield terminal
    terminal.end()


@pytest.fixture
async def netting_terminal(
    tmp_path: Path, nats_url: str, netting_market: Market, client: Client
) -> AsyncIterator[TerminalProcess]:
    terminal = TerminalProcess(
        tmp_path, nats_url, netting_market, client, f"n{tmp_path.name.encode().hex()[-20:]}{os.getpid()}"
    )
    await terminal.listen()
    yield terminal
    terminal.end()
