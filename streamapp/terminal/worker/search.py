"""Orders in doubt, looked for in all four tables at once: only what may be one of them is told.

Of 20,000 rows a handful is carried through the pipe; the rest is counted and digested.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any

from streamapp.domain.identifiers import SHORTEST_TAG, TAG_BEGINS
from streamapp.mt5 import constants as mt5
from streamapp.mt5.enums import SIDES
from streamapp.terminal.pipe.answers import Match, SearchResult
from streamapp.terminal.pipe.calls import Search, Wanted
from streamapp.terminal.pipe.structs import TradeDeal
from streamapp.terminal.worker.mt5_client import VOLUME_DIGITS, Mt5Client, models_of, plain

LAST_ORDER_TYPE, LAST_DEAL_TYPE = mt5.ORDER_TYPE_SELL_STOP_LIMIT, mt5.DEAL_TYPE_SELL
"""The last types with a side: close-by orders (8) have none, and deals from 2 on are no trades."""
WHOLE_TAG = re.compile("g1[a-z2-7]{12}")
"""What carries another order's whole tag is that order, not a wanted one that lost its name."""


@dataclass(frozen=True)
class _Table:
    """How one table is read; ``ended`` is the time of what is over, in the tables that only grow.

    ``shows_parts``: a row may be a part of its order only, and be there before the order's own row is.
    """

    function: str
    ticket: str
    volume: str
    time: str
    last_type: int
    ended: str | None = None
    shows_parts: bool = False


TABLES = {
    # What lives is read before what ended, so that an order which moves meanwhile is seen in one of them.
    "orders": _Table("orders_get", "ticket", "volume_initial", "time_setup", LAST_ORDER_TYPE),
    "positions": _Table("positions_get", "identifier", "volume", "time", LAST_DEAL_TYPE, shows_parts=True),
    "history_orders": _Table(
        "history_orders_get", "ticket", "volume_initial", "time_setup", LAST_ORDER_TYPE, "time_done"
    ),
    "history_deals": _Table("history_deals_get", "order", "volume", "time", LAST_DEAL_TYPE, "time", shows_parts=True),
}


class _Sieve:
    """Tells the rows that may be wanted orders from all others."""

    def __init__(self, orders: Iterable[Wanted]) -> None:
        self._magics: set[int] = set()
        self._tags: set[str] = set()
        self._alike_from: dict[tuple[str, str], dict[float, int]] = {}
        self._tickets: set[int] = set()
        for order in orders:
            self._magics.add(order.magic)
            self._tags.add(order.tag[:SHORTEST_TAG])
            if order.alike_from is not None:
                volumes = self._alike_from.setdefault((order.symbol, order.side), {})
                volume = round(order.volume, VOLUME_DIGITS)
                volumes[volume] = min(order.alike_from, volumes.get(volume, order.alike_from))

    def is_sighted(self, row: Any, table: _Table) -> bool:
        """Return whether a row may be a wanted order, or belongs to one seen before; its ticket is remembered."""
        # The reason of what a program sends: all of ours has it; what a person, a stop or a stop-out does has not.
        if row.reason != mt5.ORDER_REASON_EXPERT or row.type > table.last_type:
            return False
        ticket = getattr(row, table.ticket)
        if ticket and ticket in self._tickets:
            return True
        if row.magic not in self._magics and not self._is_tagged(row.comment) and not self._is_alike(row, table):
            return False
        self._tickets.add(ticket)
        return True

    def _is_tagged(self, comment: str) -> bool:
        at = comment.find(TAG_BEGINS)
        while at >= 0 and comment[at : at + SHORTEST_TAG] not in self._tags:
            at = comment.find(TAG_BEGINS, at + 1)
        return at >= 0

    def _is_alike(self, row: Any, table: _Table) -> bool:
        volumes = self._alike_from.get((row.symbol, SIDES[row.type & 1]))
        if not volumes or WHOLE_TAG.search(row.comment):
            return False
        volume, at = round(getattr(row, table.volume), VOLUME_DIGITS), getattr(row, table.time)
        if not table.shows_parts:
            return volume in volumes and at >= volumes[volume]
        return any(volume <= whole and at >= since for whole, since in volumes.items())


def look(calls: Mt5Client, asked: Search) -> SearchResult:
    """Return what the tables show of the wanted orders."""
    sieve = _Sieve(asked.orders)
    note = {"since": asked.since, "until": asked.until, "wanted": len(asked.orders)}
    counts: dict[str, int] = {}
    matches, digests, deals = list[Match](), list[int](), tuple[TradeDeal, ...]()
    for name, table in TABLES.items():
        interval = (asked.since, asked.until) if table.ended else ()
        see = partial(_seen, sieve, table, asked.settled_until)
        seen = calls.call(table.function, *interval, see=see, request=note, log=True)
        if seen is None:
            return SearchResult(read=False, counts=counts)
        counts[name] = seen["rows"]
        digests.append(seen["digest"])
        matches += [_match(name, table, row) for row in seen["found"]]
        if name == "history_deals":
            deals = models_of(TradeDeal, seen["found"])
    return SearchResult(True, counts, tuple(matches), deals, hash(tuple(digests)))


def _seen(sieve: _Sieve, table: _Table, settled_until: int, rows: Any) -> dict[str, Any] | None:
    """Return what stands in the broker log of a table: how many rows it has, and those that were found."""
    if rows is None:
        return None
    digest = 0
    if table.ended:
        ended = attrgetter(table.ended)
        digest = hash(tuple(row.ticket for row in rows if ended(row) <= settled_until))
    return {"rows": len(rows), "found": [plain(row) for row in rows if sieve.is_sighted(row, table)], "digest": digest}


def _match(name: str, table: _Table, row: dict[str, Any]) -> Match:
    return Match(
        table=name,
        ticket=row[table.ticket],
        **{key: row[key] for key in ("magic", "comment", "symbol", "type", "reason")},
        entry=row.get("entry"),
        volume=row[table.volume],
        position_id=row.get("position_id", 0),
        time_msc=row[f"{table.time}_msc"],
        may_be_part=table.shows_parts,
    )
