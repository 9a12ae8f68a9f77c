"""The journal's file: its lock, its schema, and group commit. What is written in it: book.py.

Every write is a function of the :class:`~streamapp.terminal.journal.book.Book`. Those that wait at the same time are
one transaction, and so one fsync; each is answered after it (SQLite, WAL, synchronous=FULL).
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar
from uuid import uuid4

from streamapp.clock import Clock, utc_now
from streamapp.errors import ConfigurationError
from streamapp.processes.folders import sync_folder
from streamapp.processes.locks import FileLock, LockHeldError
from streamapp.subjects import token
from streamapp.terminal.journal import broker_log
from streamapp.terminal.journal.book import Book

T = TypeVar("T")
Waiting = list[tuple[Callable[[Book], Any], asyncio.Future[Any]]]
Listener = Callable[[list[tuple[int, bytes]]], None]

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE rows (
    position INTEGER PRIMARY KEY, order_id TEXT NOT NULL UNIQUE, hash TEXT NOT NULL, state TEXT NOT NULL, attempt
    INTEGER NOT NULL, magic INTEGER NOT NULL, not_after TEXT NOT NULL, recorded_at TEXT NOT NULL, boot TEXT, reason
    TEXT, ticket INTEGER, request BLOB NOT NULL);
CREATE INDEX rows_by_magic ON rows (magic);
CREATE INDEX rows_unfinished ON rows (state) WHERE state IN ('recorded', 'started', 'doubt');
CREATE TABLE tickets (ticket INTEGER PRIMARY KEY, order_id TEXT NOT NULL, volume TEXT NOT NULL, state TEXT NOT NULL);
CREATE INDEX tickets_live ON tickets (state) WHERE state = 'live';
CREATE TABLE deals (
    deal INTEGER PRIMARY KEY, ticket INTEGER NOT NULL, magic INTEGER NOT NULL, expert INTEGER NOT NULL, order_id TEXT,
    at TEXT NOT NULL, volume TEXT NOT NULL, revision INTEGER NOT NULL, body TEXT NOT NULL);
CREATE INDEX deals_by_ticket ON deals (ticket);
CREATE INDEX deals_by_magic ON deals (magic);
CREATE INDEX deals_by_time ON deals (at);
CREATE TABLE outbox (seq INTEGER PRIMARY KEY, payload BLOB NOT NULL);
CREATE TABLE log (seq INTEGER PRIMARY KEY, payload BLOB NOT NULL);
"""
"""Version 1, as the first journals were made. What came later is in :data:`MIGRATIONS`, and so made in one way only."""
MIGRATIONS = {
    1: """
CREATE TABLE operations (
    position INTEGER PRIMARY KEY, request_id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, hash TEXT NOT NULL, at TEXT NOT
    NULL, order_id TEXT, ticket INTEGER, outcome TEXT, reply BLOB, request BLOB NOT NULL);
CREATE INDEX operations_by_ticket ON operations (ticket);
CREATE INDEX operations_unfinished ON operations (position) WHERE outcome IS NULL;
CREATE TABLE sendings (magic INTEGER PRIMARY KEY, request_id TEXT NOT NULL, at TEXT NOT NULL);
CREATE INDEX sendings_by_request ON sendings (request_id);
CREATE INDEX rows_absent ON rows (recorded_at) WHERE state = 'absent';
""",
    2: """
CREATE INDEX tickets_by_order ON tickets (order_id);
""",
    # A report was a message of its own; now the batch around it names account and epoch. The cast: newer SQLites take
    # a blob for their own binary JSON.
    3: """
UPDATE outbox SET payload = CAST(json_remove(CAST(payload AS TEXT), '$.schema', '$.account', '$.epoch') AS BLOB);
""",
    4: """
CREATE TABLE expected_levels (order_id TEXT PRIMARY KEY, stop_loss TEXT NOT NULL, take_profit TEXT NOT NULL);
""",
    5: """
CREATE TABLE account_operations (deal INTEGER PRIMARY KEY, at TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX account_operations_by_time ON account_operations (at);
""",
    6: """
CREATE INDEX deals_by_position ON deals (json_extract(body, '$.position_id'));
CREATE TABLE leaving (deal INTEGER PRIMARY KEY);
""",
}
"""What makes a journal of one version one of the next."""
SCHEMA_VERSION = 7
CHECKPOINT_ROWS = 4000
"""The WAL is written back after so many rows were changed, in a moment when nobody waits: SQLite's own way does it
inside somebody's commit, which would be the slowest order of every hundred. At about a page a row, of an order's
commits as of a step of pruning.py, the WAL stays near 15 MB."""
CHECKPOINT_ROWS_BUSY = 40_000
"""The same where there never is such a moment."""


def journal_path(folder: Path, account: str) -> Path:
    """Return where the journal of an account is."""
    return folder / f"{token(account)}.sqlite3"


class Journal:
    """One account's journal, owned by this process for life.

    Guarantees:
        What :meth:`write` returned is on disk. Writes happen in the order in which they were asked for. A function that
        raises changes nothing, and hurts no other one of its transaction.

    Attributes:
        revision: How many commits changed something.
        last_seq: The highest seq of a report that is on disk.
    """

    def __init__(self, path: Path, account: str, *, clock: Clock = utc_now) -> None:
        """Lock the journal, then open it, creating it with a new epoch if it is not there.

        Raises:
            ConfigurationError: another process owns it, it is another account's, or it can't be read.
        """
        try:
            self._lock = FileLock(path.with_name(path.name + ".lock"))
        except LockHeldError as held:
            raise ConfigurationError(
                f"expected to be the only terminal of account {account}, "
                f"got a journal that another one owns (process {held.pid}): {path}. "
                "Stop that terminal first; one account has one terminal and one journal"
            ) from None
        self.path = path
        try:
            self._db = _open(path, account)
        except sqlite3.Error as error:
            raise _unusable(path, error) from error
        self.book = Book(self._db, account, clock)
        self._waiting: Waiting = []
        self._is_busy = False
        # A plain queue and a thread of our own: an executor's futures are chained through both sides' locks, which
        # costs more than the statements of an order.
        self._batches: queue.SimpleQueue[tuple[Waiting, dict[str, int]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._written_back = self._db.total_changes
        self.revision = 0
        self.last_seq = self.book.last_seq()
        self._released = {"reports": self.book.released_seq(), "log": 0}
        self._listeners: dict[str, Listener] = {}

    def listen(self, outbox: str, listener: Listener) -> None:
        """Tell ``listener`` what a commit put into an outbox of the book ("reports" or "log"), once it is durable."""
        self._listeners[outbox] = listener

    @property
    def released_seq(self) -> int:
        """Up to where reports may be forgotten."""
        return self._released["reports"]

    def release(self, outbox: str, seq: int) -> None:
        """Let what is in an outbox up to ``seq`` be forgotten.

        It goes from disk with the next commit that something else needs: until then, and after a kill before it, it is
        only published once more.
        """
        self._released[outbox] = max(seq, self._released[outbox])

    def write(self, action: Callable[[Book], T]) -> asyncio.Future[T]:
        """Return the future of ``action``'s result; it is done when the result is durable."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._waiting.append((action, future))
        self._hand_over_soon(loop)
        return future

    def _hand_over_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have what waits committed, together with what this turn of the loop still adds."""
        if self._waiting and not self._is_busy:
            self._is_busy = True
            loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        batch, self._waiting = self._waiting, []
        self._batches.put((batch, dict(self._released)))

    async def run(self) -> None:
        """Commit what waits, for ever.

        Raises:
            ConfigurationError: the journal can't be written; nothing of that transaction was answered, and the process
                must end.
        """
        loop = asyncio.get_running_loop()
        failed: asyncio.Future[None] = loop.create_future()
        self._thread = threading.Thread(target=self._work, args=(loop, failed), daemon=True, name="journal")
        self._thread.start()
        try:
            await failed
        finally:
            self._batches.put(None)

    def _work(self, loop: asyncio.AbstractEventLoop, failed: asyncio.Future[None]) -> None:
        while (handed := self._batches.get()) is not None:
            batch, released = handed
            try:
                done = self._commit([action for action, _ in batch], released)
                loop.call_soon_threadsafe(self._committed, loop, batch, done)
                self._checkpoint()
            except BaseException as error:  # noqa: BLE001 - raised by run()
                end = _unusable(self.path, error) if isinstance(error, sqlite3.Error) else error
                loop.call_soon_threadsafe(_resolve, failed, _Raised(end))
                return

    def _committed(self, loop: asyncio.AbstractEventLoop, batch: Waiting, done: _Done) -> None:
        self._is_busy = False
        self.revision += done.changed
        self.last_seq = done.last_seq
        for (_, future), result in zip(batch, done.results, strict=True):
            _resolve(future, result)
        for outbox, rows in done.fresh.items():
            if rows and outbox in self._listeners:
                self._listeners[outbox](rows)
        self._hand_over_soon(loop)

    def _commit(self, actions: list[Callable[[Book], Any]], released: dict[str, int]) -> _Done:
        fresh = self.book.fresh = {outbox: [] for outbox in self.book.fresh}
        before = self._db.total_changes
        self._db.execute("BEGIN")
        try:
            results = [self._one(action) for action in actions]
            if changed := self._db.total_changes > before:
                self.book.release(released["reports"])
                broker_log.release(self.book, released["log"])
            self._db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # a full disk has rolled it back already
                self._db.execute("ROLLBACK")
            raise
        return _Done(results, fresh, self.book.last_seq(), changed)

    def _one(self, action: Callable[[Book], Any]) -> Any:
        self._db.execute("SAVEPOINT one")
        lengths, ends = {outbox: len(rows) for outbox, rows in self.book.fresh.items()}, self.book.ends
        try:
            result: Any = action(self.book)
        except sqlite3.Error:
            raise
        except Exception as error:  # noqa: BLE001 - handed to the one who asked; the others of this transaction go on
            self._db.execute("ROLLBACK TO one")
            self.book.ends = ends
            for outbox, length in lengths.items():
                del self.book.fresh[outbox][length:]
            result = _Raised(error)
        self._db.execute("RELEASE one")
        return result

    def _checkpoint(self) -> None:
        rows = self._db.total_changes - self._written_back
        if rows >= (CHECKPOINT_ROWS_BUSY if self._waiting else CHECKPOINT_ROWS):
            self._written_back += rows
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    @property
    def size_b(self) -> int:
        """How large its file is. It never shrinks: pages of rows that left (pruning.py) are the next rows' pages."""
        return self.path.stat().st_size

    def close(self) -> None:
        """Close the file and give the lock back. What was still waiting is cancelled: it was never answered."""
        if self._thread is not None:
            self._thread.join()
        for _, future in self._waiting:
            future.cancel()
        self._db.close()
        self._lock.release()


@dataclass(frozen=True)
class _Done:
    """A commit: its results, what it put into each outbox, the last seq on disk, and whether it changed anything."""

    results: list[Any]
    fresh: dict[str, list[tuple[int, bytes]]]
    last_seq: int
    changed: bool


class View(Generic[T]):
    """What a read of the journal says, asked again only after a commit that changed something: for what looks often."""

    def __init__(self, journal: Journal, read: Callable[[Book], T]) -> None:
        self._journal = journal
        self._read = read
        self._revision = -1

    async def get(self) -> T:
        """Return what is on disk now."""
        if self._revision != self._journal.revision:
            revision = self._journal.revision
            self._value = await self._journal.write(self._read)
            self._revision = revision
        return self._value


class _Raised:
    def __init__(self, error: BaseException) -> None:
        self.error = error


def _resolve(future: asyncio.Future[Any], result: Any) -> None:
    if future.done():  # whoever asked was cancelled; it is written all the same
        return
    if isinstance(result, _Raised):
        future.set_exception(result.error)
    else:
        future.set_result(result)


def _unusable(path: Path, error: BaseException) -> ConfigurationError:
    return ConfigurationError(
        f"expected to read and write the journal {path}, got: {error}. See to its disk (full?) and its file. "
        "Nothing was promised that is not on it; the next start goes on from there"
    )


def _open(path: Path, account: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("PRAGMA fullfsync=1")  # macOS: fsync alone does not reach the disk there
    db.execute("PRAGMA wal_autocheckpoint=0")
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
        _create(db, path, account)
    meta = dict(db.execute("SELECT key, value FROM meta"))
    if meta.get("account") != account:
        raise ConfigurationError(
            f"expected the journal of account {account}, got that of {meta.get('account')}: {path}. "
            "Journals are never copied or renamed"
        )
    _migrate(db, path, int(meta.get("schema", 0)))
    return db


def _create(db: sqlite3.Connection, path: Path, account: str) -> None:
    values = {"account": account, "schema": "1", "epoch": uuid4().hex}
    with _transaction(db, SCHEMA):
        db.executemany("INSERT INTO meta VALUES (?, ?)", list(values.items()))
    sync_folder(path.parent)  # the file's name must outlive a power cut as well


def _migrate(db: sqlite3.Connection, path: Path, version: int) -> None:
    """Bring an older journal to this version, step by step; a kill leaves it at a whole version."""
    if not 1 <= version <= SCHEMA_VERSION:
        raise ConfigurationError(
            f"expected a journal of format 1 to {SCHEMA_VERSION}, got {version}: {path}. "
            "Run the version of streamapp that wrote it, or a newer one"
        )
    for before in range(version, SCHEMA_VERSION):
        with _transaction(db, MIGRATIONS[before]):
            db.execute("UPDATE meta SET value = ? WHERE key = 'schema'", (str(before + 1),))


@contextmanager
def _transaction(db: sqlite3.Connection, statements: str) -> Iterator[None]:
    db.execute("BEGIN")
    for statement in statements.split(";"):
        db.execute(statement)
    yield
    db.execute("COMMIT")
