"""The desk's agents: what happens to an account enters its lane, is decided, committed, and only then acted upon.

For each group of an account's inputs:

1. decide, purely, from the durable rows (:func:`streamapp.desk.decide.decide`);
2. commit the rows and what the commit says in one atomic write, awaited; dead letters are awaited with it;
3. hand the words to the outbox and the effects to the broker, neither awaited;
4. acknowledge the records, in the order of each topic.

Facts before effects is this one place: nothing else gives the broker anything to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

from agents.lanes import Lanes
from agents.outbox import Outbox
from streamapp import logs
from streamapp.clock import Clock
from streamapp.crashpoints import reach
from streamapp.desk.decide import Decided, State, decide, halt
from streamapp.desk.effects import Effect
from streamapp.desk.inputs import (
    Broken,
    ForeignReport,
    Incoming,
    Input,
    Internal,
    NewCommand,
    NewSignal,
    Prune,
    Sweep,
    kind_of,
    parse,
)
from streamapp.desk.policy import Policy
from streamapp.desk.state import Comparing, Letter, Memory, TerminalStatus
from streamapp.domain.facts import Fact
from streamapp.domain.identifiers import partition_of
from streamapp.domain.signals import Verdict
from streamapp.domain.steps import steps_ended
from streamapp.errors import ConfigurationError, Transient
from streamapp.kafka.abort import end_worker
from streamapp.kafka.producer import Producer, Record, dead_letter_record
from streamapp.kafka.window import Unfinished, take_all
from streamapp.messages.account import AccountMessage
from streamapp.messages.commit import encode_commit
from streamapp.messages.fact import FactMessage
from streamapp.metrics import TradingMetrics
from streamapp.tracing import Spans
from tables.accounts import ACCOUNT, AccountRow, account_key, outbox_of
from tables.breaks import BREAK, BreakRow
from tables.cache import RowCache, RowT, decode_row
from tables.orders import ORDER, OrderIndex, OrderRow, order_key
from tables.positions import POSITION, PositionIndex, PositionRow
from tables.row import Row, is_passed_over
from tables.store import COMMIT_BYTES, Store, size_of

logger = logging.getLogger(__name__)

SLICE = 100
"""Rows that a recovery looks at between two turns of the event loop."""
INTERNAL_BYTES = 500
"""What an input from within the worker counts as."""


class Watcher(Protocol):
    """Who is told of durable rows, for the views."""

    def put(self, row: Row, partition: int) -> None:
        """Take over a durable row."""
        ...

    def said(self, facts: Iterable[Fact]) -> None:
        """Take over the facts of a durable commit."""
        ...

    def drop(self, partitions: frozenset[int]) -> None:
        """Forget the rows of ``partitions``."""
        ...


Approve = Callable[[NewSignal], Awaitable[Verdict]]
"""Asks for a second approval of a signal; never raises, refusals are verdicts too."""


@dataclass(eq=False, slots=True)
class Item:
    """One input in its lane, and the record that is finished with it; None for what comes from within the worker."""

    new: Input | Tidy
    partition: int
    generation: int
    record: Unfinished | None = None


@dataclass(frozen=True, slots=True)
class Tidy:
    """Nothing was said for a while: the durable outbox should be emptied, unless something is unsaid again."""


class Desk:
    """The accounts of one worker.

    Args:
        store: The rows.
        outbox: Where commits go that are durable.
        carry_out: Takes effects; never waits.
        terminal: What is known of an account's terminal now.
        policy: What decisions depend on.
        producer: For dead letters.
        clock: The time.
        metrics: What is counted.
        spans: What is told of orders' way, None where nothing is.
        approve: The second approval (``execution.require_row``), None where none is asked for.
        watchers: Who is told of durable rows.
        on_failure: As of :class:`agents.lanes.Lanes`.
    """

    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        *,
        carry_out: Callable[[Effect], None],
        terminal: Callable[[str], TerminalStatus],
        policy: Policy,
        producer: Producer,
        clock: Clock,
        metrics: TradingMetrics,
        spans: Spans | None = None,
        approve: Approve | None = None,
        watchers: Iterable[Watcher] = (),
        on_failure: Callable[[BaseException], None] = end_worker,
    ) -> None:
        self.index = OrderIndex()
        self._positions = PositionIndex()
        self._pursuing: set[str] = set()
        self.recovered = asyncio.Event()
        self.ready = asyncio.Event()
        self._store = store
        self._rows = RowCache(store)
        self._outbox = outbox
        self._carry_out = carry_out
        self._terminal = terminal
        self._policy = policy
        self._producer = producer
        self._clock = clock
        self._metrics = metrics
        self._spans = spans
        self._approve = approve
        self._watchers = tuple(watchers)
        self._lanes: Lanes[Item] = Lanes(self.handle, cost=_cost, on_failure=on_failure)
        self._memories: dict[str, Memory] = {}
        self._approving: set[asyncio.Task[None]] = set()
        self._generation = 0

    # --- inputs

    async def run(self, stream: Any) -> None:
        """Take in the records of a stream of one partition of one topic, until it ends: an agent's whole body."""
        await take_all(stream, lambda event, record: self.take(Incoming.of(event, self._policy.topic_prefix), record))

    async def take(self, incoming: Incoming, record: Unfinished) -> None:
        """Let what a record says happen at its account; the record is finished when all of it is durable."""
        news = self._parse(incoming)
        record.parts = max(1, len(news))
        if not news:
            await record.finish()
        for new in news:
            account = self._account_of(new, incoming)
            item = Item(new, incoming.partition, self._generation, record)
            if self._approve is not None and isinstance(new, NewSignal) and new.signal is not None:
                self._ask_approval(account, item, new)
            else:
                self._lanes.put(account, item)

    def put(self, account: str, new: Internal) -> None:
        """Let something from within the worker happen at an account; dropped if it is another worker's by now."""
        partition = self._partition_of(account)
        if partition in self._store.owned:
            self._lanes.put(account, Item(new, partition, self._generation))

    def prune(self, account: str, due: Prune) -> bool:
        """Let rows leave that are over for long; False while the account has something else to do or to say."""
        if not self.ready.is_set() or self._lanes.is_busy(account) or self._owes(account):
            return False
        self.put(account, due)
        return True

    def tidy(self, account: str, partition: int) -> None:
        """Let the account's lane empty its durable outbox in ``partition``, should all be said by then."""
        self._lanes.put(account, Item(Tidy(), partition, self._generation))

    @property
    def is_busy(self) -> bool:
        """Whether anything waits or is being handled."""
        return bool(self._approving) or self._lanes.is_busy()

    async def drain(self) -> None:
        """Return when every lane is empty."""
        while self._approving:
            await asyncio.wait(self._approving)
        await self._lanes.drain()

    def _parse(self, incoming: Incoming) -> list[Any]:
        try:
            return list(parse(incoming, self._policy))
        except Exception:  # noqa: BLE001  a rule of ours broke: the account pays for it, not the worker
            return [Broken(incoming, traceback.format_exc(limit=-8))]

    def _account_of(self, new: Input, incoming: Incoming) -> str:
        """Return whose lane it enters: what names an order alone enters its order's."""
        order_id = None
        match new:
            case ForeignReport(message=message) if message.account is None:
                order_id = message.order_id
            case NewCommand(request=request) if request.account is None:
                order_id = request.order_id
        if order_id is not None:
            with contextlib.suppress(Transient):  # reassigned: whoever owns it now is given it again
                row = self._rows.read(order_key(order_id), OrderRow, incoming.partition)
                if row is not None:
                    return row.account
            if isinstance(new, NewCommand):
                return ""  # no account's: it is refused
        return (incoming.key or b"").decode("utf-8", "replace")

    def _ask_approval(self, account: str, item: Item, new: NewSignal) -> None:
        """Ask for the second approval beside the lane: it may take seconds, and reports must not wait for it."""

        async def ask(approve: Approve) -> None:
            try:
                item.new = replace(new, approval=await approve(new))
            except Exception:  # noqa: BLE001  as in parsing: without an input the signal would wait for ever, unseen
                item.new = Broken(new.incoming, traceback.format_exc(limit=-8))
            self._lanes.put(account, item)

        assert self._approve is not None
        task = asyncio.get_running_loop().create_task(ask(self._approve))
        self._approving.add(task)
        task.add_done_callback(self._approving.discard)

    # --- the lane

    async def handle(self, account: str, items: list[Item]) -> None:
        """Decide and commit a group of an account's inputs; see the module.

        Raises:
            Ambiguous, Definite: Kafka did not take something. Let it end the worker; everything is redelivered.
        """
        partition = items[0].partition
        try:
            with logs.about(account=account, **(_subject(items) if logs.is_json() else {})):
                await self._handle(account, partition, items)
        except Transient as error:
            if partition in self._store.owned and self.ready.is_set():
                raise
            logger.info("account %s: what was begun is the next owner's: %s", account, error)

    async def _handle(self, account: str, partition: int, items: list[Item]) -> None:
        await self.ready.wait()
        await self._outbox.room(account)
        # What came before a rebalance is redelivered, to whoever owns it now.
        items = [item for item in items if item.generation == self._generation]
        if not items or partition not in self._store.owned:
            return
        new = [item for item in items if not isinstance(item.new, Tidy)]
        if new:
            for group, decided in self._decide(account, partition, new):
                await self._commit(account, partition, group, decided)
        if len(new) < len(items):
            await self._empty_outbox(account, partition)

    def _decide(self, account: str, partition: int, items: list[Item]) -> Iterable[tuple[list[Item], Decided]]:
        """Return what the items come to: one commit, or, where a rule breaks, one an item."""
        try:
            yield items, self._decide_together(account, partition, items)
            return
        except (Transient, ConfigurationError):
            raise
        except Exception:
            logger.exception("account %s: a rule broke; each input is tried by itself, on rows read anew", account)
        self._rows.forget(partition)
        for item in items:
            try:
                decided = self._decide_together(account, partition, [item])
            except (Transient, ConfigurationError):
                raise
            except Exception:  # noqa: BLE001  the account pays for it, not the worker
                reason = traceback.format_exc(limit=-8)
                decided = halt(self._state(account, partition), _inputs([item]), self._clock(), reason)
            yield [item], decided

    def _decide_together(self, account: str, partition: int, items: list[Item]) -> Decided:
        return decide(self._state(account, partition), _inputs(items), self._clock())

    def _state(self, account: str, partition: int) -> State:
        def rows(key: bytes, model: type[RowT]) -> RowT | None:
            return self._rows.read(key, model, partition)

        memory = self._memory(account, partition)
        return State(
            account,
            self._policy,
            rows,
            self._status(account, memory),
            memory,
            self.index.halting(account),
            _Open(account, self.index, self._positions),
        )

    def _sweep_held(self, account: str) -> None:
        """Let the orders go that waited for the account's first comparison: in commits of their own, of any size."""
        held = tuple(name for name, order in self.index.waiting(account) if order.standing == "held")
        if held:
            self.put(account, Sweep(held))

    def _status(self, account: str, memory: Memory) -> TerminalStatus:
        status = self._terminal(account)
        compared = memory.comparing.epoch is not None and memory.comparing.epoch == status.epoch
        return replace(status, reconciled=compared or not self._policy.execution.reconcile_first)

    async def _commit(self, account: str, partition: int, items: list[Item], decided: Decided) -> None:
        if not account and not decided.rows:
            await self._say_aside(partition, items, decided)
            return
        kinds = {kind_of(item.new) for item in items if not isinstance(item.new, Tidy)}
        now = self._clock()
        says = bool(decided.facts or decided.publications)
        # News that changes no row is said without a commit of its own: an account's money as it is now.
        is_news = kinds == {"snapshot"} and not decided.rows
        number = self._outbox.next_number(account) if (decided.rows or decided.away or says) and not is_news else 0
        facts = (FactMessage.of(fact).encode() for fact in decided.facts)
        commit = encode_commit(account, number, now, facts, decided.publications) if says else b""
        rows = {key: row.encode() for key, row in decided.rows.items()} | decided.away if number else {}
        if number and says:
            own = self._account_row(account, partition, decided).model_copy(update={"number": number})
            decided.rows[account_key(account)] = own
            rows[account_key(account)] = own.with_outbox([*self._outbox.commits(account), commit])
        if size_of(rows.items()) > COMMIT_BYTES and (len(items) > 1 or _is_divisible(items[0]) or self._owes(account)):
            await self._commit_apart(account, partition, items)
            return
        reach("desk.before_commit", kinds)
        work: list[Awaitable[Any]] = [self._store.commit(partition, rows)] if number else []
        if decided.letters:
            work.append(self._producer.send_all(_records(decided.letters)))
        generation = self._generation
        await asyncio.gather(*work)
        if generation != self._generation:
            return  # durable, and reassigned: what it says and asks for is the next owner's to say and to ask
        epoch = self._memory(account, partition).comparing.epoch
        self._remember(account, partition, decided)
        reach("desk.after_commit", kinds)
        if decided.memory.comparing.epoch != epoch:
            self._sweep_held(account)
        if says:
            self._outbox.say(account, partition, number, commit, decided.publications)
        for effect in decided.effects:
            self._carry_out(effect)
        self._count(decided)
        self._time(items, decided, now)
        await _finish(items)

    async def _say_aside(self, partition: int, items: list[Item], decided: Decided) -> None:
        """Say what is no account's, which no row keeps: its records are finished when everybody has it."""
        work: list[Awaitable[Any]] = []
        if decided.publications:
            work.append(self._outbox.say_aside(partition, decided.publications, self._clock()))
        if decided.letters:
            work.append(self._producer.send_all(_records(decided.letters)))
        await asyncio.gather(*work)
        self._count(decided)
        await _finish(items)

    async def _commit_apart(self, account: str, partition: int, items: list[Item]) -> None:
        """Handle in halves what does not fit into one commit; a single input when all words before it are said.

        How large a commit becomes shows only once it is decided: a sweep of some bytes claims orders of any size, and
        what is not said yet is written with it.
        """
        if len(items) == 1 and not _is_divisible(items[0]):
            await self._outbox.said([account])
        for part in _halves(items):
            await self._handle(account, partition, part)

    def _owes(self, account: str) -> bool:
        return self._outbox.unsaid().get(account, 0) > 0

    async def _empty_outbox(self, account: str, partition: int) -> None:
        if self._outbox.is_kept(account):
            key = account_key(account)
            row = self._rows.read(key, AccountRow, partition)
            assert row is not None, "an outbox is in its account's row"
            await self._store.commit(partition, {key: row.encode()})
            self._outbox.tidied(account)

    def _account_row(self, account: str, partition: int, decided: Decided) -> AccountRow:
        key = account_key(account)
        row = decided.rows.get(key) or self._rows.read(key, AccountRow, partition) or AccountRow(account=account)
        assert isinstance(row, AccountRow)
        return row

    # --- what is remembered

    def accounts(self, configured: Iterable[str]) -> list[str]:
        """Return the accounts of this worker: of the configured ones, and those that have orders waiting."""
        known = {*configured, *self.index.accounts()}
        return sorted(account for account in known if self._partition_of(account) in self._store.owned)

    def reported(self, account: str) -> tuple[str, int] | None:
        """Return the epoch and number up to which an account's reports are durable; None: another worker's account."""
        try:
            row = self._rows.read(account_key(account), AccountRow, self._partition_of(account))
        except Transient:
            return None
        return ("", 0) if row is None else (row.epoch, row.watermark)

    def is_pursuing(self, account: str) -> bool:
        """Return whether an exit or a command of the account is not done."""
        return account in self._pursuing

    def states(self) -> dict[str, AccountMessage]:
        """Return the accounts of this worker as they were published last."""
        return {account: known.state for account, known in self._memories.items() if known.state is not None}

    def is_unreconciled(self, account: str) -> bool:
        """Return whether an account of this worker opens nothing yet, because its books were not compared once."""
        partition = self._partition_of(account)
        if partition not in self._store.owned or not self.recovered.is_set():
            return False
        return not self._status(account, self._memory(account, partition)).reconciled

    def comparings(self) -> dict[str, Comparing]:
        """Return how the comparisons of this worker's accounts with their brokers' books stand."""
        return {account: known.comparing for account, known in self._memories.items()}

    def _memory(self, account: str, partition: int) -> Memory:
        known = self._memories.get(account)
        if known is None:
            row = self._rows.read(account_key(account), AccountRow, partition)
            known = self._memories[account] = (
                Memory() if row is None else Memory(state=row.state, state_at=row.state_at)
            )
        return known

    def _remember(self, account: str, partition: int, decided: Decided) -> None:
        self._memories[account] = decided.memory
        for key, row in decided.rows.items():
            self._rows.put(partition, key, row)
            self._tell(row, partition)
        for key in decided.away:
            self._rows.drop(partition, key)
        for watcher in self._watchers:
            watcher.said(decided.facts)

    def _tell(self, row: Row, partition: int) -> None:
        match row:
            case OrderRow():
                self.index.put(row, partition)
            case PositionRow():
                self._positions.put(row, partition)
            case AccountRow(goals=(), commands=()):
                self._pursuing.discard(row.account)
            case AccountRow():
                self._pursuing.add(row.account)
        for watcher in self._watchers:
            watcher.put(row, partition)

    # --- rebalances

    def revoked(self, partitions: Iterable[int]) -> None:
        """Stop: somebody else owns ``partitions`` from now on; what waits is redelivered to whoever owns it then."""
        self.ready.clear()
        self.recovered.clear()
        self._generation += 1
        for task in self._approving:
            task.cancel()
        lost = frozenset(partitions)
        self._lanes.drop(lambda account: self._partition_of(account) in lost)
        self._memories = {name: known for name, known in self._memories.items() if self._partition_of(name) not in lost}
        for partition in lost:
            self._rows.forget(partition)
        self.index.drop(lost)
        self._positions.drop(lost)
        self._pursuing = {name for name in self._pursuing if self._partition_of(name) not in lost}
        self._outbox.drop(lost)
        for watcher in self._watchers:
            watcher.drop(lost)

    async def recover(self, partitions: Iterable[int]) -> None:
        """Build what is kept in memory of ``partitions``, and say again what is not known to be said.

        The lanes start when :attr:`ready` is set, by whoever knows that the rest of the worker is there as well.
        """
        accounts: list[str] = []
        for partition in partitions:
            async for key, value in self._sliced(partition, ORDER):
                if not is_passed_over(value):
                    self._tell(decode_row(key, value, OrderRow), partition)
            async for key, value in self._sliced(partition, POSITION):
                if not is_passed_over(value):
                    self._tell(decode_row(key, value, PositionRow), partition)
            async for key, value in self._sliced(partition, BREAK):
                self._tell(decode_row(key, value, BreakRow), partition)
            async for key, value in self._sliced(partition, ACCOUNT):
                row, commits = decode_row(key, value, AccountRow), outbox_of(value)
                self._tell(row, partition)
                self._memory(row.account, partition)
                if commits:
                    logger.info("account %s: %s commits are said again", row.account, len(commits))
                self._outbox.restore(row.account, partition, row.number, commits)
                accounts.append(row.account)
        self.recovered.set()
        await self._outbox.said(accounts)

    async def _sliced(self, partition: int, prefix: bytes) -> AsyncIterator[tuple[bytes, bytes]]:
        for count, (key, value) in enumerate(self._store.scan(partition, prefix), start=1):
            yield key, value
            if count % SLICE == 0:
                await asyncio.sleep(0)

    # --- small things

    def _partition_of(self, account: str) -> int:
        return partition_of(account, self._policy.partitions)

    def _count(self, decided: Decided) -> None:
        for alarm in decided.alarms:
            with logs.about(order_id=alarm.order_id):
                logger.warning("%s: %s", alarm.name, alarm.text)
            self._metrics.alarms.labels(alarm.name).inc()
        for (name, *labels), count in decided.counts.items():
            self._metrics.count(name, labels, count)

    def _time(self, items: list[Item], decided: Decided, decided_at: datetime) -> None:
        """Note how long the steps took that the facts of a durable commit end."""
        durable_at = self._clock()
        traces = {} if self._spans is None else _traces(items)
        for fact in decided.facts:
            row = None if fact.order_id is None else decided.rows.get(order_key(fact.order_id))
            if isinstance(row, OrderRow):
                for step, took in steps_ended(fact, row.state, durable_at):
                    self._metrics.took(step, took)
                if self._spans is not None:
                    self._spans.committed(fact, row.state, traces, decided_at=decided_at, durable_at=durable_at)


@dataclass(frozen=True, slots=True)
class _Open:
    """What is open at an account (:class:`streamapp.desk.state.Open`)."""

    account: str
    index: OrderIndex
    held: PositionIndex

    def orders(self, symbol: str | None) -> frozenset[str]:
        return self.index.of(self.account, symbol)

    def positions(self, symbol: str | None) -> frozenset[int]:
        return self.held.open(self.account, symbol)

    def symbols(self) -> frozenset[str]:
        return self.index.symbols(self.account) | self.held.symbols(self.account)


def _subject(items: list[Item]) -> dict[str, str | None]:
    """Return what the lines of the log are about: of one input alone can that be said."""
    if len(items) > 1:
        return {}
    new = items[0].new
    incoming: Incoming | None = getattr(new, "incoming", None)
    return {
        "signal_id": new.signal_id if isinstance(new, NewSignal) else None,
        "trace": None if incoming is None else incoming.trace,
    }


def _traces(items: list[Item]) -> dict[str, str | None]:
    """Return the traceparents of signals, by signal_id."""
    return {item.new.signal_id: item.new.incoming.trace for item in items if isinstance(item.new, NewSignal)}


def _inputs(items: Iterable[Item]) -> list[Input]:
    return [item.new for item in items if not isinstance(item.new, Tidy)]


def _is_divisible(item: Item) -> bool:
    return isinstance(item.new, Sweep) and len(item.new.order_ids) > 1


def _halves(items: list[Item]) -> list[list[Item]]:
    """Return the two halves of a group, of a sweep's orders where it is alone, or a single input as it is."""
    item, middle = items[0], len(items) // 2
    if middle:
        return [items[:middle], items[middle:]]
    if not isinstance(item.new, Sweep):
        return [items]
    ids, middle = item.new.order_ids, len(item.new.order_ids) // 2
    return [[replace(item, new=Sweep(part))] for part in (ids[:middle], ids[middle:]) if part]


async def _finish(items: Iterable[Item]) -> None:
    for item in items:
        if item.record is not None:
            await item.record.finish()


def _cost(item: Item) -> int:
    if item.record is None:
        return INTERNAL_BYTES
    return len(item.record.event.message.value or b"") // item.record.parts if item.record.parts else INTERNAL_BYTES


def _records(letters: Iterable[Letter]) -> list[Record]:
    return [dead_letter_record(each.letter, each.key, each.partition) for each in letters]
