"""One account's terminal, the composition root, as a process of its own; the parent starts one for each account."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from nats.aio.client import Client

from streamapp import crashpoints, logs, subjects
from streamapp.clock import utc_now
from streamapp.errors import ConfigurationError, StreamappError, Transient
from streamapp.nats.connection import ConnectionState, connect
from streamapp.nats.outlet import JetStreamPublisher
from streamapp.processes.guard import die_with_parent, keep_children
from streamapp.processes.locks import end_holder
from streamapp.processes.stalls import notice_stalls
from streamapp.settings import LogSettings, Settings, load_settings, secret
from streamapp.terminal.account.connection import BLIND_S, BrokerConnection
from streamapp.terminal.account.house_names import named
from streamapp.terminal.account.judging import OrderLimits
from streamapp.terminal.account.orders import Execution
from streamapp.terminal.account.outbox import OutboxPublisher, log_of, replay, reports_of
from streamapp.terminal.account.pruning import JournalPruner
from streamapp.terminal.account.resolver import Resolver
from streamapp.terminal.account.service import Service
from streamapp.terminal.account.snapshots import Snapshots
from streamapp.terminal.account.watch import Watch
from streamapp.terminal.account.worker_client import WorkerClient
from streamapp.terminal.journal.book import Book
from streamapp.terminal.journal.database import Journal, View, journal_path
from streamapp.terminal.operations.runner import Operations
from streamapp.terminal.status import ProcessStatus

logger = logging.getLogger(__name__)

T = TypeVar("T")
STATUS_EVERY_S = 0.5
"""How often it is looked whether the parent is to hear something new; it is what ``/health`` shows."""
STATUS_AT_LEAST_EVERY_S = 2.0
"""How often the parent hears of us though nothing is new: it calls us silent after 10 s."""
FINISH_DEADLINE_S = 10.0
"""How long a stop waits for the order that is being sent: longer, and it becomes a doubt of the next start."""
SIMULATOR_ADDRESS = "STREAMAPP_SIMULATOR_ADDRESS"


class Terminal:
    """Everything that one account needs, wired."""

    def __init__(self, settings: Settings, account: str) -> None:
        """Lock and open the journal, end a worker of an earlier life.

        Raises:
            ConfigurationError: the account is not configured, or another terminal owns it.
        """
        if account not in settings.accounts:
            raise ConfigurationError(f"expected one of the accounts {', '.join(settings.accounts)}, got {account}")
        self.settings = settings
        self.account = account
        own = settings.accounts[account]
        path = journal_path(settings.terminal_data, account)
        self.journal = Journal(path, account)
        worker_lock = path.with_name(path.name + ".worker")
        if (ended := end_holder(worker_lock)) is not None:
            logger.warning("ended worker process %s of an earlier life", ended)
        environment = {SIMULATOR_ADDRESS: settings.market_address} if own.module == "simulated" else {}
        self.link = WorkerClient(own.module, worker_lock, environment=environment, crash_at=settings.crash_at)
        password = secret(own.password_file)
        self.connection = BrokerConnection(
            named(self.link, own.symbol_names),
            self.journal,
            own,
            settings.terminal,
            clock=utc_now,
            password=password,
            symbols=settings.symbols_of(account),
        )
        self.watch = Watch(self.journal, self.connection, settings.terminal, clock=utc_now)
        limits = OrderLimits(own, settings.limits_of(account), settings.terminal)
        self.execution = Execution(self.journal, self.connection, limits, clock=utc_now, on_accepted=self.watch.expect)
        self.resolver = Resolver(
            self.journal, self.connection, settings.terminal, clock=utc_now, on_adopted=self.watch.confirm
        )
        self.operations = Operations(
            self.journal,
            self.connection,
            self.execution,
            limits,
            deployment=settings.deployment,
            clock=utc_now,
        )
        self.pruner = JournalPruner(self.journal, self.connection, self.execution, settings.retention, clock=utc_now)
        self.nats = ConnectionState()
        self._tasks: list[asyncio.Task[None]] = []
        self.service: Service | None = None
        self.publishers: dict[str, OutboxPublisher] = {}
        self.snapshots: Snapshots | None = None
        self._counts = View(self.journal, Book.counts)

    def start(self, work: Any, name: str) -> None:
        """Run a part for life; if it ends, so does the process."""
        self._tasks.append(asyncio.create_task(work, name=name))

    async def run(self, stop: asyncio.Event, say: Callable[[ProcessStatus], None]) -> None:
        """Work until ``stop`` is set.

        Raises:
            Exception: whatever ended a part that must not end; nothing is half done, the next start goes on from the
            journal.
        """
        self.start(self.journal.run(), "journal")
        for order_id in await self._first(lambda book: book.recover()):
            logger.error("order %s is in doubt: the terminal stopped between STARTED and the answer", order_id)
        for request in await self._first(lambda book: book.unsent()):
            self.execution.add(request)
        self.start(self.link.run(), "worker")
        self.start(self.connection.run(), "connection")
        self.start(notice_stalls(utc_now, self.connection.require_resync, longest_s=BLIND_S), "alertness")
        self.start(self.execution.run(), "execution")
        self.start(self.operations.run(), "operations")
        self.start(self.watch.run(), "watch")
        self.start(self.resolver.run(), "resolver")
        self.start(self.pruner.run(), "pruner")
        self.start(self._talk(), "nats")
        self.start(self._tell(say), "status")
        stopping = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait([*self._tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        try:
            for task in done - {stopping}:
                task.result()
                raise StreamappError(f"{task.get_name()} ended, and must not; starting again")
        finally:
            stopping.cancel()
            await self._stop()

    async def _first(self, action: Callable[[Book], list[T]]) -> list[T]:
        """Return what the journal answers, or raise what ended it: nobody else looks at its task yet."""
        answer, journal = self.journal.write(action), self._tasks[0]
        either: list[asyncio.Future[Any]] = [answer, journal]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            journal.result()
        return await answer

    async def _talk(self) -> None:
        client = await self._connected()
        book, deployment = self.journal.book, self.settings.deployment
        headers = {
            subjects.ORIGIN_HEADER: subjects.origin(deployment, "terminal"),
            "Content-Type": "application/json",
        }
        out = JetStreamPublisher(client, self.settings.nats.publish_timeout_s, headers)
        reports = reports_of(book, deployment)
        self.publishers = {
            name: OutboxPublisher(self.journal, out, source, name)
            for name, source in (("reports", reports), ("log", log_of(book, deployment)))
        }
        self.service = Service(
            self.journal,
            self.connection,
            self.execution,
            self.operations,
            lambda after, name: replay(self.journal, out, reports, after, name),
            clock=utc_now,
        )
        await self.service.start(client)
        snapshots = self.snapshots = Snapshots(
            self.journal, self.connection, self.settings.terminal, deployment, clock=utc_now
        )
        try:
            async with asyncio.TaskGroup() as group:
                for publisher in self.publishers.values():
                    group.create_task(publisher.run())
                group.create_task(snapshots.run(client))
        finally:
            await client.close()

    async def _connected(self) -> Client:
        while True:  # recorded orders go on without NATS; nothing but talking waits for it
            try:
                return await connect(self.settings, f"terminal-{subjects.token(self.account)}", on_state=self._on_nats)
            except Transient as error:
                logger.warning("%s", error)

    def _on_nats(self, state: ConnectionState) -> None:
        self.nats = state

    async def _tell(self, say: Callable[[ProcessStatus], None]) -> None:
        said, silent_since_s = None, 0.0
        while True:
            status, now_s = await self._status(), asyncio.get_running_loop().time()
            if status != said or now_s - silent_since_s >= STATUS_AT_LEAST_EVERY_S:
                say(status)
                said, silent_since_s = status, now_s
            await asyncio.sleep(STATUS_EVERY_S)

    async def _status(self) -> ProcessStatus:
        counts, health = await self._counts.get(), self.connection.health
        reasons = list(self.nats.reasons) or ([] if self.service else ["NATS: not connected yet"])
        if health.connection != "ready":
            reasons.append(f"broker: {health.connection}: {health.detail}")
        if (halted := self.journal.book.halted()) is not None:
            reasons.append(f"halted: {halted}; see docs/operations.md, Doubts")
        if waiting := counts.get("suspicion", 0):
            reasons.append(f"doubts that wait for a person: {waiting}; see docs/operations.md, Doubts")
        if self.watch.problem:
            reasons.append(f"deals: {self.watch.problem}")
        if self.snapshots is not None and self.snapshots.problem:
            reasons.append(f"snapshots: {self.snapshots.problem}")
        reasons += [f"{name}: {publisher.problem}" for name, publisher in self.publishers.items() if publisher.problem]
        service = self.service
        return ProcessStatus(
            account=self.account,
            epoch=self.journal.book.epoch,
            connection=health.connection,
            reasons=tuple(reasons),
            metrics={
                "recorded": counts.get("recorded", 0),
                "started": counts.get("started", 0),
                "doubts": counts.get("doubt", 0),
                "suspicions": counts.get("suspicion", 0),
                "absent": counts.get("absent", 0),
                "late_appearances": counts.get("late_appearances", 0),
                "halted": int(halted is not None),
                "waiting": self.execution.depth,
                "outbox": self.journal.last_seq - self.journal.released_seq,
                "journal_bytes": self.journal.size_b,
                "pruned": self.pruner.left,
                "conflicts": service.conflicts if service else 0,
                "broken_requests": service.broken_requests if service else 0,
                **{f"orders_{outcome}": count for outcome, count in self.execution.counts.items()},
                **{f"operations_{outcome}": count for outcome, count in self.operations.counts.items()},
            },
        )

    async def _stop(self) -> None:
        try:
            await asyncio.wait_for(self.execution.idle.wait(), FINISH_DEADLINE_S)
        except TimeoutError:
            logger.warning("an order is still being sent; it is a doubt at the next start")
        for task in self._tasks[1:]:
            task.cancel()
        await asyncio.gather(*self._tasks[1:], return_exceptions=True)
        await self.link.stop()
        self._tasks[0].cancel()
        await asyncio.gather(self._tasks[0], return_exceptions=True)
        self.journal.close()


def start_saying() -> Callable[[ProcessStatus], None]:
    """Return what tells the parent how we are: one JSON line on standard output. It never waits.

    A parent may stand still (stopped, or its console on Windows while somebody selects text), and its pipe is full
    then. What is said meanwhile is not said: the next status holds it.
    """
    lines: queue.Queue[bytes] = queue.Queue(1)

    def write() -> None:
        with contextlib.suppress(OSError):  # the parent is gone, and so are we in a moment
            while True:
                os.write(sys.stdout.fileno(), lines.get())

    def say(status: ProcessStatus) -> None:
        with contextlib.suppress(queue.Full):
            lines.put_nowait(status.encode() + b"\n")

    threading.Thread(target=write, daemon=True, name="status").start()
    return say


def stop_with_parent(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Set ``stop`` when the parent closes our standard input, which it does to stop us, or by ending."""

    def wait() -> None:
        while os.read(0, 4096):
            continue
        loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=wait, daemon=True, name="parent").start()


async def run(account: str) -> int:
    """Run the terminal of ``account`` until it is asked to stop; return the exit code."""
    settings = load_settings()
    log_as(account, settings.log)
    crashpoints.arm(settings.crash_at)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    stop_with_parent(loop, stop)
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # a person's Ctrl-C reaches the whole group; the parent says when we stop
    signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(stop.set))
    try:
        await Terminal(settings, account).run(stop, start_saying())
    except ConfigurationError as error:
        logger.critical("%s", error)
        return 2
    return 0


def log_as(account: str, log: LogSettings) -> None:
    """Let this process log for its account."""
    logs.set_up(log, f"%(asctime)s %(levelname)s {account.replace('%', '%%')}: %(message)s", account=account)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return uvloop's loop where it is installed (it halves the time between an order's steps), else asyncio's own."""
    if sys.platform != "win32" and importlib.util.find_spec("uvloop") is not None:
        loop: asyncio.AbstractEventLoop = importlib.import_module("uvloop").new_event_loop()
        return loop
    return asyncio.new_event_loop()


def main() -> int:
    """Read the command line and run; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--account", required=True)
    parser.add_argument("--parent", type=int, help="process that started us; we end with it")
    arguments = parser.parse_args()
    log_as(arguments.account, LogSettings())
    if arguments.parent:
        die_with_parent(arguments.parent)
    keep_children()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(run(arguments.account))
