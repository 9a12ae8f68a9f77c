"""The records of a period, read from ClickHouse."""

from __future__ import annotations

from collections import defaultdict
from datetime import date
from decimal import Decimal
from typing import Any

from streamapp.clickhouse.client import ClickHouse
from streamapp.clickhouse.reader import message_of
from streamapp.clickhouse.rows import columns
from streamapp.domain.facts import SubmitStarted
from streamapp.domain.parameters import plain
from streamapp.messages.fill import FillMessage
from streamapp.messages.order import OrderMessage
from streamapp.report.records import LastPrice, OrderRecord, Profit, Records, Refusals

_MONEY = ("realized_profit", "profit", "commission", "swap", "fee", "fills", "volume", "wins", "losses")
# The month of an order's partition is its signal's.
_OF_THE_PERIOD = "toDate(signal_at) BETWEEN {first:Date} AND {last:Date}"


class PeriodReader:
    """The UTC days from ``first`` to ``last``, both in it, of one account and one strategy, or of all.

    Raises (every method):
        Transient: ClickHouse did not answer in time, is away, or has not our tables.
    """

    def __init__(
        self,
        clickhouse: ClickHouse,
        first: date,
        last: date,
        *,
        account: str | None = None,
        strategy: str | None = None,
    ) -> None:
        self._clickhouse = clickhouse
        self._first, self._last = first, last
        self._account, self._strategy = account, strategy

    async def records(self, *, deals_only: bool = False) -> Records:
        """Return everything that the period shows. An order is of the day of its signal, whenever it was filled.

        Args:
            deals_only: Leave out orders and signals, which are somebody else's where we are a connector.
        """
        return Records(
            first=self._first,
            last=self._last,
            account=self._account,
            strategy=self._strategy,
            profits=tuple(await self._profits()),
            orders=() if deals_only else tuple(await self._orders()),
            refusals=() if deals_only else tuple(await self._refusals()),
            deals=await self._last_deals(),
        )

    async def _profits(self) -> list[Profit]:
        sums = ", ".join(f"sum(by_day.{name}) AS {name}" for name in _MONEY)
        rows = await self._rows(
            f"SELECT account, strategy, symbol, currency, {sums} FROM pnl_by_strategy AS by_day "
            f"WHERE day BETWEEN {{first:Date}} AND {{last:Date}} AND {self._chosen()} "
            "GROUP BY account, strategy, symbol, currency ORDER BY account, strategy, symbol, currency"
        )
        exact = (
            {name: plain(cell) if isinstance(cell, Decimal) else cell for name, cell in row.items()} for row in rows
        )
        return [Profit.model_validate(row) for row in exact]

    async def _orders(self) -> list[OrderRecord]:
        chosen = f"{_OF_THE_PERIOD} AND {self._chosen()}"
        orders = await self._rows(
            f"SELECT {', '.join(columns('orders'))} FROM orders FINAL WHERE {chosen} ORDER BY signal_at, order_id"
        )
        among = f"order_id IN (SELECT order_id FROM orders FINAL WHERE {chosen})"
        deals = await self._rows(
            f"SELECT {', '.join(columns('executions'))} FROM executions FINAL "
            f"WHERE NOT busted AND {among} ORDER BY at, deal"
        )
        sendings = await self._rows(
            "SELECT order_id, argMax(body, JSONExtractInt(body, 'attempt')) AS market FROM facts FINAL "
            f"WHERE fact = 'SubmitStarted' AND {among} GROUP BY order_id"
        )
        fills: defaultdict[str, list[FillMessage]] = defaultdict(list)
        for deal in deals:
            fills[deal["order_id"]].append(FillMessage.model_validate(message_of(FillMessage, deal)))
        markets = {row["order_id"]: SubmitStarted.model_validate_json(row["market"]) for row in sendings}
        read = (OrderMessage.model_validate(message_of(OrderMessage, order)) for order in orders)
        return [OrderRecord(order, tuple(fills[order.order_id]), markets.get(order.order_id)) for order in read]

    async def _refusals(self) -> list[Refusals]:
        rows = await self._rows(
            "SELECT ifNull(reason, '') AS reason, count() AS count FROM signals FINAL "
            "WHERE toDate(at) BETWEEN {first:Date} AND {last:Date} AND decision IN ('refused', 'conflict') "
            f"AND {self._chosen()} GROUP BY reason ORDER BY count DESC, reason"
        )
        return [Refusals.model_validate(row) for row in rows]

    async def _last_deals(self) -> dict[tuple[str, str], LastPrice]:
        # Of every strategy: a price is nobody's own.
        rows = await self._rows(
            "SELECT account, symbol, argMax(price, (at, deal)) AS price, max(at) AS moment FROM executions FINAL "
            "WHERE NOT busted AND toDate(at) BETWEEN {first:Date} AND {last:Date} GROUP BY account, symbol"
        )
        return {(row["account"], row["symbol"]): LastPrice(row["price"], row["moment"]) for row in rows}

    def _chosen(self) -> str:
        account = "true" if self._account is None else "account = {account:String}"
        strategy = "true" if self._strategy is None else "ifNull(strategy, '') = {strategy:String}"
        return f"{account} AND {strategy}"

    async def _rows(self, sql: str) -> list[dict[str, Any]]:
        given = {"first": self._first, "last": self._last, "account": self._account, "strategy": self._strategy}
        wanted = {name: str(value) for name, value in given.items() if value is not None}
        return await self._clickhouse.query(sql, wanted)
