"""What this worker knows by itself: the rows of its own partitions."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from agents.updates import current_order
from streamapp.errors import Transient
from streamapp.messages.envelope import Message
from streamapp.messages.fact import FactMessage
from streamapp.web.indexes import AccountStates, OpenPositions
from tables.accounts import AccountRow
from tables.durable import DurableTable
from tables.orders import OrderIndex, OrderRow, order_key
from tables.positions import PositionRow

Answer = dict[str, Any]

# Rows decoded and folded between two turns of the event loop, which has orders to send: some milliseconds.
_SLICE = 10


@dataclass(frozen=True)
class Filter:
    """Which orders, positions or accounts are wanted; None: any."""

    status: str | None = None
    symbol: str | None = None
    account: str | None = None
    limit: int = 100


class Local:
    """Answers from the tables of this worker.

    Raises (every method):
        Transient: the tables, or their indexes, are being recovered; "there is none" would be a guess.
    """

    def __init__(
        self,
        orders: DurableTable[OrderRow],
        order_index: OrderIndex,
        positions: DurableTable[PositionRow],
        accounts: DurableTable[AccountRow],
    ) -> None:
        self._orders = orders
        self._order_index = order_index
        self._positions = positions
        self._open_positions = OpenPositions()
        self._accounts = accounts
        self._account_states = AccountStates()
        positions.watch(self._open_positions)
        accounts.watch(self._account_states)

    def order(self, order_id: str) -> Answer | None:
        """Return order/1 with ``facts``, None if no partition of this worker has it.

        ``facts`` are the newest; ``older_facts`` counts those that only ClickHouse still has.
        """
        _require(self._orders.recovered, "orders")
        row = self._orders.confirmed(order_key(order_id))
        message = None if row is None else current_order(row)
        if row is None or message is None:
            return None
        facts = [_object(FactMessage.of(fact)) for fact in row.facts]
        return {**_object(message), "facts": facts, "older_facts": row.rev - len(facts)}

    async def orders(self, wanted: Filter) -> list[Answer]:
        """Return open orders as order/1, those that came last."""
        _require(self._orders.indexed, "orders")
        matching = [
            (order_id, order.partition)
            for order_id, order in self._order_index.open.items()
            if _matches(order.status, wanted.status)
            and _matches(order.symbol, wanted.symbol)
            and _matches(order.account, wanted.account)
        ]
        found: list[Answer] = []
        for count, (order_id, partition) in enumerate(reversed(matching), start=1):
            if len(found) >= wanted.limit:
                break
            row = self._orders.confirmed(order_key(order_id), partition=partition)
            if row is not None and (message := current_order(row)) is not None:
                found.append(_object(message))
            if count % _SLICE == 0:
                await asyncio.sleep(0)
        return found

    def positions(self, wanted: Filter) -> list[Answer]:
        """Return open positions as position/1."""
        _require(self._positions.indexed, "positions")
        return [
            _object(message)
            for message in self._open_positions.messages
            if _matches(message.account, wanted.account) and _matches(message.symbol, wanted.symbol)
        ]

    def accounts(self) -> list[Answer]:
        """Return account/1 of each account whose terminal was heard."""
        _require(self._accounts.indexed, "accounts")
        return [_object(row.state) for row in self._account_states.rows]

    def account(self, account: str) -> Answer | None:
        """Return account/1 of one account, None if its terminal was never heard here."""
        _require(self._accounts.indexed, "accounts")
        row = self._account_states.of(account)
        return None if row is None else _object(row.state)


def _matches(value: str | None, wanted: str | None) -> bool:
    return wanted is None or value == wanted


def _require(ready: asyncio.Event, table: str) -> None:
    if not ready.is_set():
        raise Transient(f"table {table} of this worker is being recovered")


def _object(message: Message) -> Answer:
    found: Answer = json.loads(message.encode())
    return found
