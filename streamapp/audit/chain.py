"""The broker log's hash chains: whether a record was altered, left out, moved or written twice with two contents.

A chain is what one journal (account, epoch) has logged: its entries count from 1, and each carries the hash of the one
before (:mod:`streamapp.messages.log`). Batches may be stored in any order, overlap, and come again: an entry is known
by its seq. What a chain can't show is its own end: entries that are missing behind the last one, so the last seq and
hash are part of every verdict, for whoever keeps them elsewhere.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from streamapp.messages.log import GENESIS_HASH, BrokerLogEntry, entry_hash


@dataclass(frozen=True)
class ChainLink:
    """An entry as far as its chain is concerned.

    Attributes:
        hash: What it says its hash is.
        content: The hash that its content has, ``previous_hash`` included.
        place: Where it is stored.
    """

    account: str
    epoch: str
    seq: int
    previous_hash: str
    hash: str
    content: str
    place: str

    @classmethod
    def of(cls, entry: BrokerLogEntry, place: str) -> ChainLink:
        """Return the link of an entry that is stored at ``place``."""
        content = entry_hash(entry.previous_hash, entry.model_dump(exclude={"schema_", "previous_hash", "hash"}))
        return cls(entry.account, entry.epoch, entry.seq, entry.previous_hash, entry.hash, content, place)


@dataclass(frozen=True)
class Break:
    """The first place where a chain does not hold."""

    seq: int
    expected: str
    found: str


@dataclass(frozen=True)
class Chain:
    """The verdict on one chain: up to where it goes, the hash it ends in, and where it breaks first, if it does."""

    account: str
    epoch: str
    entries: int
    last_seq: int
    last_hash: str
    broken: Break | None


class Links:
    """The links of a log of any length, on disk: a private file of SQLite's, which ends with the process.

    The same entry again, from wherever, is the same link.
    """

    def __init__(self) -> None:
        self._db = sqlite3.connect("")
        self._db.executescript(
            "PRAGMA journal_mode = OFF;"
            "CREATE TABLE links (account, epoch, seq INTEGER, previous_hash, hash, content, place,"
            " PRIMARY KEY (account, epoch, seq, hash, content)) WITHOUT ROWID"
        )

    def add(self, link: ChainLink) -> None:
        """Add one, in whatever order they come."""
        values = (link.account, link.epoch, link.seq, link.previous_hash, link.hash, link.content, link.place)
        self._db.execute("INSERT OR IGNORE INTO links VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def __iter__(self) -> Iterator[ChainLink]:
        """Iterate by account, epoch and seq."""
        return (ChainLink(*row) for row in self._db.execute("SELECT * FROM links ORDER BY account, epoch, seq, place"))

    def close(self) -> None:
        """Drop them."""
        self._db.close()


def chains(links: Iterable[ChainLink]) -> Iterator[Chain]:
    """Yield the verdict on each chain; ``links`` are distinct, and sorted by account, epoch and seq."""
    for (account, epoch), own in groupby(links, key=lambda link: (link.account, link.epoch)):
        yield _chain(account, epoch, own)


def _chain(account: str, epoch: str, links: Iterable[ChainLink]) -> Chain:
    entries, seq, previous = 0, 0, GENESIS_HASH
    broken: Break | None = None
    for number, same in groupby(links, key=lambda link: link.seq):
        versions = list(same)
        broken = broken or _break(seq + 1, previous, versions)
        entries, seq, previous = entries + len(versions), number, versions[0].hash
    return Chain(account, epoch, entries, seq, previous, broken)


def _break(seq: int, previous: str, versions: list[ChainLink]) -> Break | None:
    """Return what is wrong with the entries that come next in the chain, of which there should be one."""
    link = versions[0]
    if link.seq != seq:
        return Break(seq, "an entry", f"none: the next one is {link.seq} ({link.place})")
    if len(versions) > 1:
        told = " and ".join(f"{each.content} ({each.place})" for each in versions)
        return Break(seq, "one content", f"{len(versions)} that differ: {told}")
    if link.hash != link.content:
        return Break(seq, f"hash {link.content}, which its content has", f"{link.hash} ({link.place})")
    if link.previous_hash != previous:
        return Break(seq, f"previous_hash {previous}, of the entry before", f"{link.previous_hash} ({link.place})")
    return None
