"""What ClickHouse and the trading workers' tables have, thing by thing, however much it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple, Self, get_args
from urllib.parse import quote

import aiohttp

from streamapp.audit.archive import KEYS, Key, Kind
from streamapp.audit.evidence import (
    OrderView,
    PositionView,
    View,
    decision_view,
    fill_view,
    operation_view,
    order_view,
    position_view,
)
from streamapp.clickhouse.client import ClickHouse
from streamapp.domain.parameters import OrderParameters
from streamapp.domain.vocabulary import FINAL_STATUSES, Status
from streamapp.errors import Transient
from streamapp.settings import Settings
from streamapp.web.wire import ANSWERED_BY, CLICKHOUSE, MOST_ROWS

_PAGE = 5000
_AT_ONCE = 16
"""Questions to a worker at a time: it has orders to send."""
_DEADLINE_S = 30.0
_PATIENCE_S, _PAUSE_S = 30.0, 1.0
"""As long as a restart takes, or a rebalance after a worker was lost."""
_OPEN = tuple(status for status in get_args(Status) if status not in FINAL_STATUSES)


class _Stored(NamedTuple):
    name: str
    columns: tuple[str, ...]
    view: Callable[[dict[str, Any]], View]


_ORDER = ("signal_id", "status", "detail", "filled_volume", "average_price", "rev", "magic", "facts_digest")
_FILL = ("order_id", "position_id", "volume", "price", "profit", "commission", "swap", "fee", "busted")
_TABLES: dict[Kind, _Stored] = {
    "order": _Stored("orders", (*_ORDER, *OrderParameters.model_fields), order_view),
    "fill": _Stored("executions", _FILL, fill_view),
    "position": _Stored("positions", ("side", "volume", "average_price", "realized_profit"), position_view),
    "operation": _Stored("account_operations", ("type", "position_id", "amount"), operation_view),
    "decision": _Stored("signals", ("decision", "reason", "order_id"), decision_view),
}


class WarehouseRows:
    """The newest rows of our tables in ClickHouse.

    Raises (every method):
        Transient: ClickHouse is away, or has no such table.
    """

    def __init__(self, settings: Settings, account: str | None = None) -> None:
        """``account``: only its rows."""
        self._clickhouse = ClickHouse.of(settings)
        self._account = account

    async def close(self) -> None:
        """Close the connection."""
        await self._clickhouse.close()

    async def entries(self, kind: Kind) -> AsyncIterator[tuple[Key, View]]:
        """Yield everything of a kind, sorted by key, page by page."""
        after: Key | None = None
        while True:
            page = await self._page(kind, ">", after)
            for known in page:
                yield known
            if len(page) < _PAGE:
                return
            after = page[-1][0]

    async def entry(self, kind: Kind, key: Key) -> View | None:
        """Return one thing, None if there is no row of it."""
        page = await self._page(kind, "=", key)
        return page[0][1] if page else None

    async def _page(self, kind: Kind, relation: str, key: Key | None) -> list[tuple[Key, View]]:
        table, names = _TABLES[kind], KEYS[kind]
        given: dict[str, Any] = {} if self._account is None else {"of": self._account}
        where = ["true" if self._account is None else "account = {of:String}"]
        if key is not None:
            words = (f"{{k{n}:{'UInt64' if isinstance(part, int) else 'String'}}}" for n, part in enumerate(key))
            where.append(f"({', '.join(names)}) {relation} ({', '.join(words)})")
            given |= {f"k{n}": part for n, part in enumerate(key)}
        columns = ", ".join(dict.fromkeys((*names, *table.columns)))
        rows = await self._clickhouse.query(
            f"SELECT {columns} FROM {table.name} FINAL WHERE {' AND '.join(where)}"
            f" ORDER BY {', '.join(names)} LIMIT {_PAGE}",
            given,
        )
        return [(tuple(row[name] for name in names), table.view(row)) for row in rows]


class WorkerTables:
    """The rows of all trading workers, as the web views of the first one answer for them.

    Raises (every method):
        Transient: a worker that might know it does not answer, or not for half a minute if it has before.
    """

    def __init__(self, settings: Settings, account: str | None = None) -> None:
        """``account``: only its orders and positions, in the lists."""
        self._base = settings.trading_url
        self._filter = {} if account is None else {"account": account}
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._has_answered = False

    async def __aenter__(self) -> Self:
        """Open the connections."""
        self._http = aiohttp.ClientSession(self._base, timeout=aiohttp.ClientTimeout(total=_DEADLINE_S))
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close them."""
        await self._http.close()

    async def orders(self, order_ids: Sequence[str]) -> list[OrderView | None]:
        """Return the orders of these ids, in their order; None for what no worker has a row of."""
        return list(await asyncio.gather(*map(self._order, order_ids)))

    async def open_orders(self) -> list[OrderView]:
        """Return the orders that are not over, at most the 1000 newest of each status."""
        found: list[OrderView] = []
        for status in _OPEN:
            answer, _ = await self._ask("/orders", {**self._filter, "status": status, "limit": str(MOST_ROWS)})
            found += map(order_view, (answer or {}).get("orders", ()))
        return found

    async def positions(self) -> list[PositionView]:
        """Return the open positions."""
        answer, _ = await self._ask("/positions", self._filter)
        return [position_view(row) for row in (answer or {}).get("positions", ())]

    async def _order(self, order_id: str) -> OrderView | None:
        async with self._room:
            answer, by = await self._ask(f"/orders/{quote(order_id, safe='')}", {"facts": "0"})
        return None if answer is None or by == CLICKHOUSE else order_view(answer)

    async def _ask(self, path: str, query: dict[str, str]) -> tuple[dict[str, Any] | None, str | None]:
        """Return the answer and who gave it; None where nobody knows of it.

        A worker that has answered is asked again for a while: it may be restarted, or partitions may move.
        """
        until_s = time.monotonic() + (_PATIENCE_S if self._has_answered else 0.0)
        while True:
            try:
                found = await self._ask_once(path, query)
            except Transient:
                if time.monotonic() >= until_s:
                    raise
                await asyncio.sleep(_PAUSE_S)
            else:
                self._has_answered = True
                return found

    async def _ask_once(self, path: str, query: dict[str, str]) -> tuple[dict[str, Any] | None, str | None]:
        try:
            async with self._http.get(path, params=query) as answer:
                body, by = await answer.json(), answer.headers.get(ANSWERED_BY)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise Transient(f"trading at {self._base} does not answer ({error!r}): is it up?") from error
        if answer.status == 404:
            return None, by
        if answer.status != 200 or body.get("missing"):
            raise Transient(f"{path}: expected an answer of all workers, got {body.get('error', body.get('missing'))}")
        return body, by
