"""``streamapp rebuild``: the store from the archive alone, into a name of its own (design: rebuild).

::

    archive ──fold, project──▶ rows ──┬── compared with the tables of the workers ──▶ differences
    signals_approved ──bindings──▶    └── written into an empty changelog, read back, compared ──▶ a store to start on
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from aiokafka import ConsumerRecord

from streamapp import topics
from streamapp.audit.archive import ArchiveFault
from streamapp.audit.rows import RowFold
from streamapp.audit.verify import MOST_NAMED, SETTLED_S, Verification, compare_tables
from streamapp.clock import utc_now
from streamapp.desk.inputs import Incoming
from streamapp.desk.policy import Policy
from streamapp.errors import ConfigurationError, Definite, Unusable
from streamapp.kafka.reader import Progress, TopicReader, place_of
from streamapp.settings import Settings
from tables.rebuilding import refuse_unless_fresh, write_store

_HOLES = frozenset({"missing", "two_contents"})
_NAMED = 5
"""What is wrong, in one sentence."""


@dataclass(frozen=True)
class Rebuilt:
    """A store that was made, and what a person must know of it.

    Attributes:
        store: Its name.
        changelog: Its topic in Kafka.
        group: The consumer group of the workers that have it.
        records: How many the archive had.
        numbers: The number of the last commit of each account; 0 for a configured one of which nothing is there.
        rows: How many there are of each kind.
        halted: The accounts that open nothing until a person has looked.
        standings: How many orders wait for a terminal, by where they stand.
        undecided: Signals (account, signal_id) with orders, whose decision the archive does not have: they are over.
        left_out: Commits that were made after the moment that was asked for.
        faults: What is wrong with the archive, which was allowed.
    """

    store: str
    changelog: str
    group: str
    records: int
    numbers: dict[str, int]
    rows: dict[str, int]
    halted: tuple[str, ...]
    standings: dict[str, int]
    undecided: tuple[tuple[str, str], ...]
    left_out: int
    faults: tuple[ArchiveFault, ...]


async def rebuild(
    settings: Settings,
    store: str,
    *,
    until: datetime | None = None,
    opening: Collection[str] = (),
    allow_missing: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Rebuilt:
    """Make the store ``store`` from the archive as it is, and return what it has; nothing else may write meanwhile.

    Args:
        settings: Of the deployment. Ids are made of its name, so the store belongs to it.
        store: Its name, for ``kafka.store``.
        until: Commits after it make no rows.
        opening: Accounts that may open orders at once, by the word of a person who has compared them with the broker.
        allow_missing: Go on although commits are missing.
        progress: Told how much of a topic has been read.
        tell: Called with a sentence for what is done.

    Raises:
        ConfigurationError: A trading worker is running, the name was used, the archive has holes or records that this
            version can't read, or an account is not in it.
        Definite: The rows are not what the archive says: a fault of ours, and nothing was written.
        Transient, Ambiguous: Kafka does not answer.
    """
    _require_decisions(settings)
    if until is not None and opening:
        raise ConfigurationError("--may-open: expected none with --until, for what came after is not in the store")
    await refuse_unless_fresh(settings, store)
    with closing(RowFold(Policy.of(settings), until=until)) as fold:
        async with TopicReader(settings, topics.ARCHIVE, progress=progress) as reader:
            await _read_all(reader, fold)
        async with TopicReader(settings, topics.SIGNALS_APPROVED, progress=progress) as reader:
            await _read_bindings(reader, fold)
        faults = _judged(fold, opening, allow_missing=allow_missing)
        undecided = fold.finish(utc_now(), opening)
        if until is None:
            _require_agreement(fold)
        tell(f"{fold.records} records read, {sum(fold.scratch.counts().values())} rows to write")
        await write_store(settings, store, fold.scratch.rows, tell)
        return Rebuilt(
            store=store,
            changelog=topics.changelog(settings.kafka_deployment, topics.TABLES[0], store),
            group=topics.app_id(settings.kafka_deployment, topics.trading_part(store)),
            records=fold.records,
            numbers=fold.numbers(),
            rows=fold.scratch.counts(),
            halted=tuple(account for account in fold.numbers() if account not in opening),
            standings=dict(fold.standings()),
            undecided=tuple(undecided),
            left_out=fold.left_out,
            faults=faults,
        )


async def compare(
    settings: Settings, *, progress: Progress | None = None, settled_s: float = SETTLED_S
) -> Verification:
    """Return whether the rows that the archive makes and the tables of the workers agree; they may be at work.

    Raises:
        ConfigurationError: The archive is empty, or has records that this version can't read.
        Transient: Kafka or a worker does not answer.
    """
    _require_decisions(settings)
    with closing(RowFold(Policy.of(settings))) as fold:
        async with TopicReader(settings, topics.ARCHIVE, progress=progress) as reader:
            await _read_all(reader, fold)
            _judged(fold, (), allow_missing=True)
            return await compare_tables(settings, fold, reader, settled_s=settled_s)


def _require_decisions(settings: Settings) -> None:
    if settings.role == "connector":
        raise ConfigurationError(
            "role: expected both or execution, got connector: which orders it refused stands nowhere in its archive, "
            "so one that comes again could be executed after its sender was told no"
        )


async def _read_all(reader: TopicReader, fold: RowFold) -> None:
    """Read until there is nothing more: whoever was still writing at the beginning has had its time."""
    known = -1
    while fold.records > known:
        known = fold.records
        async for record in reader.read():
            fold.take(record.value, place_of(record))


async def _read_bindings(reader: TopicReader, fold: RowFold) -> None:
    async for record in reader.read():
        try:
            fold.bindings.take_forwarded(_signal(record))
        except Unusable:
            continue  # the desk can't use it either


def _signal(record: ConsumerRecord) -> Incoming:
    at = datetime.fromtimestamp(record.timestamp / 1000, UTC)
    headers = dict(record.headers)
    return Incoming(record.value, record.key, headers, topics.SIGNALS_APPROVED, record.partition, record.offset, at)


def _judged(fold: RowFold, opening: Collection[str], *, allow_missing: bool) -> tuple[ArchiveFault, ...]:
    """Return what is wrong with the archive, if a store may be made of it all the same."""
    accounts, faults = fold.numbers(), list(fold.faults())
    if unreadable := [fault for fault in faults if fault.kind == "unreadable"]:
        raise ConfigurationError(
            f"the archive has {_named(unreadable)}. A newer version may have written it: rebuild with that one"
        )
    if not any(accounts.values()):
        raise ConfigurationError("expected commits in the archive, got none: there is nothing to rebuild from")
    if unknown := sorted(set(opening) - accounts.keys()):
        names = ", ".join(accounts)
        raise ConfigurationError(f"--may-open: expected accounts that are known ({names}), got {unknown[0]}")
    holes = [fault for fault in faults if fault.kind in _HOLES]
    if holes and not allow_missing:
        raise ConfigurationError(
            f"the archive is not whole: {_named(holes)}. Restore the topic's records first; with --allow-missing the "
            "store is made of what is there, and these accounts lack what the rest said"
        )
    if broken := sorted({fault.account for fault in holes} & set(opening)):
        raise ConfigurationError(f"--may-open: expected accounts whose archive is whole, got {broken[0]}")
    return tuple(islice(faults, MOST_NAMED))


def _require_agreement(fold: RowFold) -> None:
    if found := list(islice(fold.contradictions(), _NAMED)):
        raise Definite(f"nothing was written, for the rows are not what the archive says: {'; '.join(found)}")


def _named(faults: Iterable[ArchiveFault]) -> str:
    every = list(map(str, faults))
    more = f"; and {len(every) - _NAMED} more" if len(every) > _NAMED else ""
    return "; ".join(every[:_NAMED]) + more
