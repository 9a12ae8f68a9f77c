"""What a terminal lists of its account: active orders, open positions, and the history of both."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from streamapp.simulator.money import Valuation
from streamapp.simulator.rows import Deal, Order, Position
from streamapp.simulator.tables import History, Table

if TYPE_CHECKING:
    from streamapp.simulator.sessions import Session

Row = TypeVar("Row", Order, Position, Deal)
Done = TypeVar("Done", Order, Deal)


def array(rows: Iterable[str]) -> str:
    """A JSON array of rows that are JSON already."""
    return "[" + ",".join(rows) + "]"


class Listings:
    """The functions of the module that read tables, each as the terminal sees its table now."""

    def __init__(self, session: "Session") -> None:
        """Lists for the account of `session`."""
        self._session = session

    def orders_total(self) -> str:
        """How many orders are active."""
        return str(sum(1 for _ in self._seen(self._session.account.orders)))

    def orders_get(self, symbol: str | None, ticket: int) -> str:
        """Active orders, all or of a symbol or by ticket."""
        rows = (row for row in self._seen(self._session.account.orders) if not ticket or row.ticket == ticket)
        return array(row.wire() for row in rows if symbol is None or row.symbol == symbol)

    def positions_total(self) -> str:
        """How many positions are open."""
        return str(sum(1 for _ in self._seen(self._session.account.positions)))

    def positions_get(self, symbol: str | None, ticket: int) -> str:
        """Open positions, all or of a symbol or by ticket."""
        positions = self._session.account.positions
        if ticket:
            row = None if self._session.is_cold() else positions.seen_row(ticket, self._session.now())
            return array(self._valued([row] if row else []))
        return array(self._valued(row for row in self._seen(positions) if symbol is None or row.symbol == symbol))

    def history_orders_total(self, date_from: int, date_to: int) -> str:
        """How many orders were done in a span of server time."""
        return str(len(self._done(self._session.account.history_orders, date_from, date_to, 0)))

    def history_deals_total(self, date_from: int, date_to: int) -> str:
        """How many deals were made in a span of server time."""
        return str(len(self._done(self._session.account.history_deals, date_from, date_to, 0)))

    def history_orders_get(self, date_from: int, date_to: int, ticket: int, position: int) -> str:
        """Orders that are done: by ticket, by position, or of a span of server time in seconds."""
        history = self._session.account.history_orders
        if ticket:
            row = None if self._session.is_cold() else history.seen_row(ticket, self._session.now())
            return array([row.wire()] if row else [])
        return array(row.wire() for row in self._done(history, date_from, date_to, position))

    def history_deals_get(self, date_from: int, date_to: int, ticket: int, position: int) -> str:
        """Deals: by order ticket (at most one), by position, or of a span of server time in seconds."""
        history = self._session.account.history_deals
        if ticket:
            of_order = (row.wire() for row in self._seen(history) if row.order == ticket)
            return array(list(of_order)[:1])
        return array(row.wire() for row in self._done(history, date_from, date_to, position))

    def _seen(self, table: Table[Row]) -> Iterator[Row]:
        """The rows of a table that the terminal shows: none before it has loaded them."""
        if self._session.is_cold():
            return
        for _, row in table.seen(self._session.now()):
            yield row

    def _done(self, history: History[Done], date_from: int, date_to: int, position: int) -> list[Done]:
        """Rows of a position, or of a span in seconds, as far as the terminal has fetched them."""
        session, now = self._session, self._session.now()
        if session.is_cold():
            return []
        span = date_from * 1000, date_to * 1000 + 999
        rows = history.of_position(position, now) if position else history.between(*span, now)
        partial = session.stands("history_partial")
        if partial is None or now >= session.joined_ms + int(partial.params.get("after_login_ms", 1 << 50)):
            return rows
        return rows[: int(len(rows) * float(partial.params.get("share", 0.5)))]

    def _valued(self, rows: Iterable[Position]) -> Iterator[str]:
        """Positions at the prices of now; a symbol's rates are looked up once for all of its positions."""
        valuations: dict[str, Valuation] = {}
        account = self._session.account
        off = self._session.stands("disconnect")
        for row in rows:
            valuation = valuations.get(row.symbol)
            if valuation is None:
                frozen = off.quotes.get(account.symbols[row.symbol].feed) if off else None
                valuation = valuations[row.symbol] = self._session.market.valuation(account, row.symbol, frozen)
            price, profit = valuation.of(row.side, row.volume, row.price_open)
            yield row.wire(price, account.round(profit))
