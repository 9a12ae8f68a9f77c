"""An account's tables and an order's result as a terminal shows them: JSON in the wire's shapes, perhaps late.

Here Decimal becomes float, as at the edge of the original.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import TypeVar

from streamapp.simulator.books.money import Valuation
from streamapp.simulator.books.tables import BrokerDeal, BrokerOrder, BrokerPosition, HistoryTable, LaggingTable, Row
from streamapp.simulator.server.requests import OrderResult
from streamapp.simulator.terminal.state import TerminalState

Done = TypeVar("Done", BrokerOrder, BrokerDeal)


def array(rows: Iterable[str]) -> str:
    """Return a JSON array of rows that are JSON already."""
    return "[" + ",".join(rows) + "]"


def order_json(order: BrokerOrder) -> str:
    """Return the values of a TradeOrder as a JSON array; kept once the order is done and can't change."""
    if order.rendered is not None:
        return order.rendered
    text = json.dumps([
        order.ticket, order.time_setup_msc // 1000, order.time_setup_msc, order.time_done_msc // 1000,
        order.time_done_msc, order.expiration, order.type, order.type_time, order.type_filling, order.state,
        order.magic, order.position_id, order.position_by_id, order.reason, float(order.volume_initial),
        float(order.volume_current), float(order.price_open), float(order.sl), float(order.tp),
        float(order.price_current), float(order.stoplimit), order.symbol, order.comment, order.external_id,
    ])  # fmt: skip
    order.rendered = text if order.time_done_msc else None
    return text


def position_json(position: BrokerPosition, price_current: Decimal, profit: Decimal) -> str:
    """Return the values of a TradePosition as a JSON array. What no price moves is kept until the position changes."""
    if position.rendered is None:
        head = json.dumps([
            position.ticket, position.time_msc // 1000, position.time_msc, position.time_update_msc // 1000,
            position.time_update_msc, position.side, position.magic, position.identifier, position.reason,
            float(position.volume), float(position.price_open), float(position.sl), float(position.tp),
        ])  # fmt: skip
        tail = json.dumps([position.symbol, position.comment, position.external_id])
        position.rendered = (head[:-1], tail[1:])
    head, tail = position.rendered
    return f"{head}, {float(price_current)!r}, {float(position.swap)!r}, {float(profit)!r}, {tail}"


def deal_json(deal: BrokerDeal) -> str:
    """Return the values of a TradeDeal as a JSON array; kept until the broker corrects the deal."""
    if deal.rendered is None:
        deal.rendered = json.dumps([
            deal.ticket, deal.order, deal.time_msc // 1000, deal.time_msc, deal.type, deal.entry, deal.magic,
            deal.position_id, deal.reason, float(deal.volume), float(deal.price), float(deal.commission),
            float(deal.swap), float(deal.profit), float(deal.fee), deal.symbol, deal.comment, deal.external_id,
        ])  # fmt: skip
    return deal.rendered


def result_json(result: OrderResult) -> str:
    """Return the values of an OrderSendResult without its request, as a JSON array."""
    return json.dumps([
        result.retcode, result.deal, result.order, float(result.volume), float(result.price), float(result.bid),
        float(result.ask), result.text(), result.request_id, result.retcode_external,
    ])  # fmt: skip


class TableViews:
    """The functions of the module that read tables, each as the terminal sees its table now."""

    def __init__(self, state: TerminalState) -> None:
        self._state = state

    def orders_total(self) -> str:
        """Return how many orders are active."""
        return str(sum(1 for _ in self._seen(self._state.account.orders)))

    def orders_get(self, symbol: str | None, ticket: int) -> str:
        """Return active orders, all or of a symbol or by ticket."""
        rows = (row for row in self._seen(self._state.account.orders) if not ticket or row.ticket == ticket)
        return array(order_json(row) for row in rows if symbol is None or row.symbol == symbol)

    def positions_total(self) -> str:
        """Return how many positions are open."""
        return str(sum(1 for _ in self._seen(self._state.account.positions)))

    def positions_get(self, symbol: str | None, ticket: int) -> str:
        """Return open positions, all or of a symbol or by ticket."""
        positions = self._state.account.positions
        if ticket:
            row = None if self._state.is_cold() else positions.seen_row(ticket, self._state.now())
            return array(self._valued([row] if row else []))
        return array(self._valued(row for row in self._seen(positions) if symbol is None or row.symbol == symbol))

    def history_orders_total(self, date_from: int, date_to: int) -> str:
        """Return how many orders were done in a span of server time."""
        return str(len(self._done(self._state.account.history_orders, date_from, date_to, 0)))

    def history_deals_total(self, date_from: int, date_to: int) -> str:
        """Return how many deals were made in a span of server time."""
        return str(len(self._done(self._state.account.history_deals, date_from, date_to, 0)))

    def history_orders_get(self, date_from: int, date_to: int, ticket: int, position: int) -> str:
        """Return orders that are done: by ticket, by position, or of a span of server time in seconds."""
        history = self._state.account.history_orders
        if ticket:
            row = None if self._state.is_cold() else history.seen_row(ticket, self._state.now())
            return array([order_json(row)] if row else [])
        return array(order_json(row) for row in self._done(history, date_from, date_to, position))

    def history_deals_get(self, date_from: int, date_to: int, ticket: int, position: int) -> str:
        """Return deals: by order ticket (at most one), by position, or of a span of server time in seconds."""
        history = self._state.account.history_deals
        if ticket:
            of_order = (deal_json(row) for row in self._seen(history) if row.order == ticket)
            return array(list(of_order)[:1])
        return array(deal_json(row) for row in self._done(history, date_from, date_to, position))

    def _seen(self, table: LaggingTable[Row]) -> Iterator[Row]:
        """The rows of a table that the terminal shows: none before it has loaded them."""
        if self._state.is_cold():
            return
        for _, row in table.seen(self._state.now()):
            yield row

    def _done(self, history: HistoryTable[Done], date_from: int, date_to: int, position: int) -> list[Done]:
        """Rows of a position, or of a span in seconds, as far as the terminal has fetched them."""
        state, now = self._state, self._state.now()
        if state.is_cold():
            return []
        span = date_from * 1000, date_to * 1000 + 999
        rows = history.of_position(position, now) if position else history.between(*span, now)
        partial = state.standing("history_partial")
        if partial is None or now >= state.joined_ms + int(partial.params.get("after_login_ms", 1 << 50)):
            return rows
        return rows[: int(len(rows) * float(partial.params.get("share", 0.5)))]

    def _valued(self, rows: Iterable[BrokerPosition]) -> Iterator[str]:
        """Positions at the prices of now; a symbol's rates are looked up once for all of its positions."""
        valuations: dict[str, Valuation] = {}
        account = self._state.account
        off = self._state.standing("disconnect")
        for row in rows:
            valuation = valuations.get(row.symbol)
            if valuation is None:
                frozen = off.quotes.get(account.symbols[row.symbol].feed) if off else None
                valuation = valuations[row.symbol] = self._state.market.books.valuation(account, row.symbol, frozen)
            price, profit = valuation.of(row.side, row.volume, row.price_open)
            yield position_json(row, price, account.round(profit))
