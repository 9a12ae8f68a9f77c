"""Tables of pydantic rows whose writes are awaited until every replica has them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel

from streamapp.errors import Transient
from streamapp.kafka.exits import leave
from streamapp.kafka.receipts import ACK_TIMEOUT_S, settle
from tables.changelog import Changelog

RowT = TypeVar("RowT", bound=BaseModel)
RowT_contra = TypeVar("RowT_contra", bound=BaseModel, contravariant=True)

SLICE = 200
"""Rows indexed between two turns of the event loop: about 2 ms of decoding."""


class Index(Protocol[RowT_contra]):
    """Something kept in memory about a table's rows, so that nobody has to iterate over the table."""

    def added(self, key: bytes, row: RowT_contra, partition: int) -> None:
        """``row`` is the durable row of ``key`` now: new, changed, or found after recovery. May come again."""
        ...

    def dropped(self, partition: int) -> None:
        """All rows of ``partition`` belong to another worker now."""
        ...


class DurableTable(Generic[RowT]):
    """Rows that are durable when ``put`` returns, of partitions that this worker owns alone.

    Guarantees:
        - ``put`` returns when all replicas have the row *and* nobody else wrote to the partition since; otherwise it
          raises or the process ends. So whatever follows an awaited ``put`` may rest on it.
        - A row that was not confirmed is never seen again after a restart.
        - ``get`` sees this worker's own writes at once, confirmed or not; ``confirmed`` only confirmed ones.

    Keys are bytes. Inside an agent (or a lane) the partition is the event's; elsewhere name it.
    """

    def __init__(self, log: Changelog, model: type[RowT]) -> None:
        self._log = log
        self._model = model
        self._ahead: dict[tuple[int, bytes], tuple[RowT, asyncio.Future[Any]]] = {}
        self._indexes: list[Index[RowT]] = []
        self._builds: dict[int, asyncio.Task[None]] = {}
        self._built: set[int] = set()
        self._newer: dict[int, set[bytes]] = {}
        self.recovered = asyncio.Event()
        """Set while the rows of all partitions this worker owns may be read and written."""
        self.indexed = asyncio.Event()
        """Set while the indexes hold every row of every partition this worker owns."""
        log.attach(_Ear(self))

    @classmethod
    def of(cls, app: Any, name: str, model: type[RowT]) -> DurableTable[RowT]:
        """Return the table ``name`` of ``app``, before it starts; its changelog is ``{app id}-{name}-changelog``."""
        return cls(app.Table(name), model)

    @property
    def name(self) -> str:
        """What the table is called."""
        return self._log.name

    # --- reading

    def get(self, key: bytes, *, partition: int | None = None) -> RowT | None:
        """Return the row of ``key``, our own unconfirmed write before the durable row; None if there is none.

        Raises:
            Transient: This worker does not own the partition, or is not recovered: it can't know whether there is one.
        """
        where = self._log.here() if partition is None else partition
        if where is not None and (ahead := self._ahead.get((where, key))):
            return ahead[0]
        return self.confirmed(key, partition=where)

    def confirmed(self, key: bytes, *, partition: int | None = None) -> RowT | None:
        """Return the durable row of ``key``; without event and partition all of this worker's are searched.

        Raises:
            Transient: As of ``get``.
        """
        value = self._log.read(self._log.here() if partition is None else partition, key)
        return None if value is None else self._model.model_validate_json(value)

    # --- writing

    def begin(self, key: bytes, row: RowT, *, partition: int | None = None) -> asyncio.Future[Any]:
        """Put a row on its way now; it counts once :func:`~streamapp.kafka.receipts.settle` of its receipt returned.

        For group commit over several tables and topics: ``await settle([orders.begin(...), sends.begin(...)])``. Calls
            are written in
        the order in which they are made.

        Raises:
            Definite: The row is too large. Nothing was written.
            Transient: This worker does not own the partition (any more). Nothing was written.
        """
        where = self._partition(partition)
        receipt = self._log.append(where, key, row.model_dump_json().encode())
        self._ahead[where, key] = (row, receipt)
        receipt.add_done_callback(partial(self._settled, where, key, row))
        return receipt

    async def put(
        self, key: bytes, row: RowT, *, partition: int | None = None, timeout_s: float = ACK_TIMEOUT_S
    ) -> None:
        """Write a row and return when it is durable.

        Raises:
            Definite, Transient: As of ``begin``, or Kafka refused it. Nothing was written.
            Ambiguous: No acknowledgement within ``timeout_s``; it may have been written. Nothing may be done that rests
                on it: let the error end the worker, and the event comes again.
        """
        await settle([self.begin(key, row, partition=partition)], timeout_s=timeout_s)

    async def put_all(
        self, rows: Iterable[tuple[bytes, RowT]], *, partition: int | None = None, timeout_s: float = ACK_TIMEOUT_S
    ) -> None:
        """Write several rows with one await; errors as of ``put``, and then any of them may have been written."""
        await settle([self.begin(key, row, partition=partition) for key, row in rows], timeout_s=timeout_s)

    def _partition(self, partition: int | None) -> int:
        where = self._log.here() if partition is None else partition
        if where is None:
            raise Transient(f"table {self.name} is written while an event is handled; elsewhere name the partition")
        return where

    def _settled(self, partition: int, key: bytes, row: RowT, receipt: asyncio.Future[Any]) -> None:
        """Runs before whoever awaits the receipt, because it was registered first."""
        if (ahead := self._ahead.get((partition, key))) and ahead[1] is receipt:
            del self._ahead[partition, key]
        if not receipt.cancelled() and receipt.exception() is None:
            self._index(key, row, partition)

    # --- indexes

    def watch(self, index: Index[RowT]) -> None:
        """Keep ``index`` up to date: all rows after each recovery, in slices, and every row that becomes durable."""
        self._indexes.append(index)

    def _index(self, key: bytes, row: RowT, partition: int) -> None:
        if partition in self._newer:
            self._newer[partition].add(key)
        if partition in self._newer or partition in self._built:
            self._tell(key, row, partition)

    def _tell(self, key: bytes, row: RowT, partition: int) -> None:
        try:
            for index in self._indexes:
                index.added(key, row, partition)
        except Exception as error:  # noqa: BLE001  a wrong index would go on being believed
            leave(f"an index of table {self.name} failed at {key!r}", cause=error)

    async def _build(self, partition: int) -> None:
        newer = self._newer[partition] = set()
        for count, (key, value) in enumerate(self._log.scan(partition), start=1):
            if key not in newer:
                self._tell(key, self._model.model_validate_json(value), partition)
            if count % SLICE == 0:
                await asyncio.sleep(0)
        del self._newer[partition]
        self._built.add(partition)

    def _finish_build(self, partition: int, task: asyncio.Task[None]) -> None:
        if self._builds.get(partition) is task:
            del self._builds[partition]
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            leave(f"the indexes of table {self.name} could not be built", cause=error)
        if not self._builds:
            self.indexed.set()

    def _revoked(self, partitions: Iterable[int]) -> None:
        self.recovered.clear()
        self.indexed.clear()
        for partition in partitions:
            if task := self._builds.pop(partition, None):
                task.cancel()
            self._built.discard(partition)
            self._newer.pop(partition, None)
            for index in self._indexes:
                index.dropped(partition)

    def _replayed(self, partition: int, rows: Iterable[tuple[bytes, bytes]]) -> None:
        if self._indexes and (partition in self._built or partition in self._newer):
            for key, value in rows:
                self._index(key, self._model.model_validate_json(value), partition)

    def _recovered(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            if self._indexes and partition not in self._built and partition not in self._builds:
                task = asyncio.get_running_loop().create_task(self._build(partition))
                self._builds[partition] = task
                task.add_done_callback(partial(self._finish_build, partition))
        if not self._builds:
            self.indexed.set()
        self.recovered.set()


class _Ear:
    """Passes a changelog's news to its table, whose own names stay private."""

    def __init__(self, table: DurableTable[Any]) -> None:
        self.revoked = table._revoked
        self.replayed = table._replayed
        self.recovered = table._recovered
