"""What closed orders cost a trading worker's store, as they are and put away: bytes, disk, a start, and the walk."""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from rocksdict import AccessType, Options, Rdict, WriteBatch

from agents.pruning import PAUSE_S, Pruner
from streamapp.desk.pruning import row_of
from streamapp.domain import facts
from streamapp.domain.identifiers import partition_of
from streamapp.messages.report import REPORT_BODIES
from tables.row import is_put_away
from tables.store import ENDED, KeyValue
from tests.kit.desk import ACCOUNT, NOW, DeskWorld
from tests.kit.examples import accepted, deal, returned, started

PARTITION = partition_of(ACCOUNT, 8)
_KINDS = {body: kind for kind, body in REPORT_BODIES.items()}
_AT_ONCE = 3000
_WALKED = 6000
"""Rows that the walk is timed on."""


class LocalCopy:
    """The rows of one partition in RocksDB alone, as :class:`tables.changelog.FencedStore` keeps its local copy."""

    def __init__(self, folder: Path, *, is_read_only: bool = False) -> None:
        access = AccessType.read_only() if is_read_only else AccessType.read_write()
        self.db: Any = Rdict(str(folder), Options(raw_mode=True), access_type=access)
        self.owned = frozenset({PARTITION})

    def get(self, key: bytes, *, partition: int) -> bytes | None:
        value: bytes | None = self.db.get(key)
        return value

    def find(self, key: bytes) -> tuple[int, bytes] | None:
        value = self.db.get(key)
        return None if value is None else (PARTITION, value)

    def scan(self, partition: int, prefix: bytes, after: bytes = b"") -> Iterator[KeyValue]:
        for key, value in self.db.items(from_key=max(prefix, after)):
            if not key.startswith(prefix):
                return
            if key != after:
                yield key, value

    async def commit(self, partition: int, rows: Mapping[bytes, bytes]) -> None:
        batch = WriteBatch(raw_mode=True)
        for key, value in rows.items():
            if value == ENDED:
                batch.delete(key)
            else:
                batch.put(key, value)
        self.db.write(batch)

    def attach(self, listener: Any) -> None: ...


@dataclass(frozen=True)
class StoreCost:
    """``rows`` of how many bytes, of what size on disk, and what a start takes of them."""

    rows: int
    row_bytes: int
    disk_bytes: int
    start_s: float
    start_mib: float


def measure(folder: Path, show: Callable[[str], None], *, orders: int) -> None:
    """Print what closed orders, each with its signal and its closed position, cost as they are and put away."""
    whole = _made(folder / "whole", orders, lambda _, value: value)
    away = _made(folder / "away", orders, _away)
    show(f"\n{orders} closed orders, each with its signal and its position: {whole.rows} rows.\n")
    show("| | as they are | put away |\n|---|---|---|")
    show(f"| rows, MiB | {whole.row_bytes / 2**20:.0f} | {away.row_bytes / 2**20:.0f} |")
    show(f"| local copy on disk, MiB | {whole.disk_bytes / 2**20:.0f} | {away.disk_bytes / 2**20:.0f} |")
    show(f"| reading the rows at a start, s of a core | {whole.start_s:.1f} | {away.start_s:.1f} |")
    show(f"| memory of the worker after it, MiB more | {whole.start_mib:.0f} | {away.start_mib:.0f} |")
    per_row_us, step_ms = _apart(_walk, folder / "whole")
    show(f"\nThe walk: {per_row_us:.0f} µs of a core for a row that is put away; the longest step {step_ms:.1f} ms.")


def _made(folder: Path, orders: int, form: Callable[[bytes, bytes], bytes]) -> StoreCost:
    copy, count, size = LocalCopy(folder), 0, 0
    batch: dict[bytes, bytes] = {}
    for key, value in _rows(orders):
        batch[key] = form(key, value)
        count, size = count + 1, size + len(key) + len(batch[key])
        if len(batch) >= _AT_ONCE:
            asyncio.run(copy.commit(PARTITION, batch))
            batch = {}
    asyncio.run(copy.commit(PARTITION, batch))
    copy.db.flush()
    copy.db.compact_range(None, None)
    copy.db.close()
    disk = sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())
    seconds, mib = _apart(_start, folder)
    return StoreCost(count, size, disk, seconds, mib)


def _away(key: bytes, value: bytes) -> bytes:
    row = row_of(key, value)
    if row is None or row.over_since is None:
        return value
    return row.put_away(row.over_since)


def _rows(orders: int) -> Iterator[KeyValue]:
    """Yield the rows of one order over and over, each time with other ids and digests."""
    pattern = asyncio.run(_pattern())
    for number in range(orders):
        name = hashlib.sha256(b"%d" % number).hexdigest()
        for key, value in pattern:
            if key.startswith(b"a/"):
                continue
            yield _renamed(key, number, name), _renamed(value, number, name)
    yield next(row for row in pattern if row[0].startswith(b"a/"))


_ORDER, _SIGNAL, _TICKET = "00000000-0000-8000-8000-000000000000", "s-pattern-0000000000000000", "77777777"


def _renamed(text: bytes, number: int, name: str) -> bytes:
    order_id = f"{name[:8]}-{name[8:12]}-8{name[12:15]}-8{name[15:18]}-{name[18:30]}"
    new = text.replace(_ORDER.encode(), order_id.encode()).replace(_SIGNAL.encode(), f"s-{name[:24]}".encode())
    new = new.replace(_TICKET.encode(), b"%d" % (10_000_000 + number))
    for place in range(12):  # the digests of facts, and the hash of parameters
        mark = b"#%011d####" % place
        new = new.replace(mark, hashlib.sha256(f"{name}{place}".encode()).hexdigest()[:16].encode())
    return new


async def _pattern() -> list[KeyValue]:
    world = await DeskWorld().start()
    asked: dict[str, Any] = {
        "strategy": "trend-following",
        "stop_loss": "1.07",
        "take_profit": "1.1",
        "expected_price": "1.0851",
    }
    order_id = await world.signal(_SIGNAL, metadata={"model": "v3"}, **asked)
    number = int(_TICKET)
    closing = deal(number + 1, "0.1", ticket=number + 1, position_id=number, side="sell", entry="out", reason="sl")
    ours = [
        started().body,
        returned().body,
        accepted(number).body,
        deal(number, "0.1", ticket=number, position_id=number),
    ]
    said = [*((order_id, body) for body in ours), (None, closing)]
    await world.report(*((_KINDS[type(body)], of, body) for of, body in said))
    rows = [row for row in world.store.scan(PARTITION, b"") if row[0][:2] in {b"o/", b"p/", b"s/"}]
    found, state = dict[str, bytes](), world.order_row(order_id).state
    digests = [*state.facts.values(), *_in_parts(state.created)]
    for place, digest in enumerate(digests):
        found[digest] = b"#%011d####" % place
    renamed = [(_marked(key, order_id, found), _marked(value, order_id, found)) for key, value in rows]
    account = next(iter(world.store.scan(PARTITION, b"a/")))
    return [*renamed, account]


def _in_parts(created: facts.OrderCreated | None) -> list[str]:
    assert created is not None
    return [created.parameters_hash[at : at + 16] for at in range(0, 64, 16)]


def _marked(text: bytes, order_id: str, digests: Mapping[str, bytes]) -> bytes:
    new = text.replace(order_id.encode(), _ORDER.encode())
    for digest, mark in digests.items():
        new = new.replace(digest.encode(), mark)
    return new


# --- in processes of their own


def _apart(work: Callable[[Path], tuple[float, float]], folder: Path) -> tuple[float, float]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, (folder,))


def _start(folder: Path) -> tuple[float, float]:
    return asyncio.run(_started(folder))


async def _started(folder: Path) -> tuple[float, float]:
    world = _world(LocalCopy(folder, is_read_only=True))
    before, begun_s = _resident_mib(), time.process_time()
    await world.desk.recover([PARTITION])
    return time.process_time() - begun_s, _resident_mib() - before


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def _walk(folder: Path) -> tuple[float, float]:
    return asyncio.run(_walked(folder))


async def _walked(folder: Path) -> tuple[float, float]:
    copy = LocalCopy(folder)
    world = _world(copy)
    await world.start(greeted=False)
    world.clock.now = NOW + timedelta(days=40)
    pruner, longest_s, begun_s, steps = (
        Pruner(world.store, world.desk, world.policy, world.clock),
        0.0,
        time.process_time(),
        0,
    )
    while steps * 20 < _WALKED:
        step_s = time.process_time()
        if pruner.step() > PAUSE_S:
            break
        longest_s = max(longest_s, time.process_time() - step_s) if steps > 20 else 0.0
        await world.settled()
        steps += 1
    spent_s = time.process_time() - begun_s
    count = sum(is_put_away(value) for _, value in copy.scan(PARTITION, b""))
    copy.db.close()
    return spent_s / max(1, count) * 1e6, longest_s * 1000


def _world(store: LocalCopy) -> DeskWorld:
    world = DeskWorld()
    own: Any = store  # in place of the one in memory
    world.store = own
    world.policy = replace(world.policy, partitions=8)
    world._build()
    return world
