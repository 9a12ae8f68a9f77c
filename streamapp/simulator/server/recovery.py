"""Takes back what an earlier life of the market had kept, so that it goes on as if it had never stopped."""

from __future__ import annotations

import json
from decimal import Decimal

from streamapp.mt5.enums import MARKET_ORDERS
from streamapp.simulator.books.accounts import SimulatedAccount
from streamapp.simulator.books.books import FIRST_DEAL, FIRST_ORDER, Books
from streamapp.simulator.books.positions import Positions
from streamapp.simulator.books.tables import BrokerDeal, BrokerOrder, BrokerPosition, load
from streamapp.simulator.server.executor import EXCHANGE_FILL_MS
from streamapp.simulator.server.faults import Faults
from streamapp.simulator.server.matching import Matching
from streamapp.simulator.server.schedule import ScheduledEvents


class Recovery:
    """Reads the store of a market into its empty books, and opens the accounts that the store does not know."""

    def __init__(
        self, books: Books, positions: Positions, matching: Matching, schedule: ScheduledEvents, faults: Faults
    ) -> None:
        self._books = books
        self._positions = positions
        self._matching = matching
        self._schedule = schedule
        self._faults = faults

    def restore(self) -> None:
        """Do all of it; what is overdue happens at the next move of time."""
        books = self._books
        for _, _, body in books.store.rows("clock"):
            books.clock.shift_ms = json.loads(body)
        self._quotes()
        self._schedule.restore()
        known = set()
        for name, _, body in books.store.rows("account"):
            known.add(name)
            if account := books.accounts.get(name):
                account.balance, account.credit = (Decimal(text) for text in json.loads(body))
        last_order = max(self._orders(), self._open_positions())
        books.count_from(last_order + 1, self._deals() + 1)
        self._faults.restore()
        for name, line in books.store.lines():
            books.ledger.restore(name, line)
        for name, account in books.accounts.items():
            if name not in known:
                self._positions.balance(account, account.entry.balance, "Initial deposit")

    def _quotes(self) -> None:
        now = self._books.clock.utc_ms()
        for _, _, body in self._books.store.rows("quotes"):
            for name, (bid, ask, pinned) in json.loads(body).items():
                if name in self._books.feed.quotes:
                    self._books.feed.pin(name, Decimal(bid), Decimal(ask), now, hold=pinned)

    def _orders(self) -> int:
        """Active and done orders; gives the last ticket."""
        last = FIRST_ORDER - 1
        done: list[tuple[SimulatedAccount, BrokerOrder]] = []
        for name, ticket, body in self._books.store.rows("order"):
            last = max(last, ticket)
            if account := self._books.accounts.get(name):
                order = load(BrokerOrder, body)
                if order.time_done_msc:
                    done.append((account, order))
                else:
                    account.add_working(order)
                    self._resume(account, order)
        for account, order in sorted(done, key=lambda entry: (entry[1].time_done_msc, entry[1].ticket)):
            account.history_orders.add(order.ticket, order, order.time_done_msc, order.position_id)
        return last

    def _resume(self, account: SimulatedAccount, order: BrokerOrder) -> None:
        """An order that was working when the market ended goes on working, as the broker had begun it."""
        self._matching.watch_expiry(account, order)
        begun = any(arguments[:2] == [account.name, order.ticket] for arguments in self._schedule.kept())
        if order.type in MARKET_ORDERS and account.symbols[order.symbol].liquidity is None and not begun:
            self._schedule.after(EXCHANGE_FILL_MS, "go_on", account.name, order.ticket)

    def _deals(self) -> int:
        last = FIRST_DEAL - 1
        for name, ticket, body in self._books.store.rows("deal"):
            last = max(last, ticket)
            if account := self._books.accounts.get(name):
                deal = load(BrokerDeal, body)
                account.history_deals.add(ticket, deal, deal.time_msc, deal.position_id)
        return last

    def _open_positions(self) -> int:
        last = FIRST_ORDER - 1
        for name, ticket, body in self._books.store.rows("position"):
            last = max(last, ticket)
            if account := self._books.accounts.get(name):
                position = load(BrokerPosition, body)
                account.positions.put(position.ticket, position)
                exposure = account.exposure(position.symbol)
                exposure.add(position.side, position.volume, position.price_open, position.margin)
                exposure.swap += position.swap
                account.track_stops(position)
        return last
