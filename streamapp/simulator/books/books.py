"""All accounts of one simulated broker: their rows, the numbers that identify them, and their money."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from decimal import Decimal

from streamapp.mt5.enums import TRADES
from streamapp.simulator.books.accounts import AccountEntry, SimulatedAccount, open_account
from streamapp.simulator.books.ledger import Ledger
from streamapp.simulator.books.money import Conversion, Valuation, price_margin, price_profit
from streamapp.simulator.books.store import MarketStore, NoStore
from streamapp.simulator.books.tables import ZERO, BrokerDeal, BrokerOrder, BrokerPosition, dump
from streamapp.simulator.prices.feed import Feed, Tick
from streamapp.simulator.prices.server_clock import Clock
from streamapp.simulator.prices.symbols import BrokerProfile

# Tickets begin where no test confuses them with a count, and orders and deals never share a number by accident.
FIRST_ORDER, FIRST_DEAL = 100_000_001, 700_000_001


def _no_lag(account: SimulatedAccount, table: str) -> int:  # noqa: ARG001  # the hook's signature
    return 0


class Books:
    """The accounts of a market and every change of their tables. Single-threaded: its callers take turns.

    Changes become durable together, at ``commit``. ``lag_ms`` tells how long a change of an account's table stays
    unseen by its terminals, in milliseconds.
    """

    def __init__(self, clock: Clock, feed: Feed, store: MarketStore) -> None:
        self.clock = clock
        self.feed = feed
        self.store = store
        self.accounts: dict[str, SimulatedAccount] = {}
        self.conversion = Conversion({name: quoted.symbol for name, quoted in feed.quotes.items()}, feed.quote)
        self.ledger = Ledger(store.append)
        self.lag_ms: Callable[[SimulatedAccount, str], int] = _no_lag
        self._orders, self._deals = itertools.count(FIRST_ORDER), itertools.count(FIRST_DEAL)
        self._dirty: dict[tuple[str, str, int], BrokerOrder | BrokerPosition | BrokerDeal] = {}
        self._touched: dict[str, SimulatedAccount] = {}

    # -- accounts

    def open_account(self, entry: AccountEntry, profile: BrokerProfile) -> SimulatedAccount:
        """Add an account, without a deposit.

        Raises:
            ValueError: No symbols lead to its currency, so nobody could trade on it.
        """
        symbols = {name: quoted.symbol for name, quoted in self.feed.quotes.items()}
        named = {currency for symbol in symbols.values() for currency in (symbol.profit, symbol.margin)}
        try:
            for currency in sorted(named | {profile.commission_currency}):
                self.conversion.rates(currency, entry.currency)
        except LookupError as error:
            raise ValueError(f"expected a currency for {entry.name} that symbols lead to: {error}") from error
        account = self.accounts[entry.name] = open_account(entry, profile, symbols)
        return account

    def find(self, key: str | int) -> SimulatedAccount | None:
        """Return an account by its name or login."""
        found = self.accounts.get(str(key))
        return found or next((a for a in self.accounts.values() if str(a.entry.login) == str(key)), None)

    # -- money

    def money(self, account: SimulatedAccount) -> tuple[Decimal, Decimal, Decimal]:
        """Return equity, margin and floating profit (without swap) of an account, in its currency."""
        profit, swap = ZERO, ZERO
        for name, exposure in account.exposures.items():
            symbol = account.symbols[name]
            bid, ask = self.feed.quote(symbol.feed)
            amount = exposure.profit(symbol, bid, ask)
            profit += self.conversion.profit(amount, symbol.profit, account.entry.currency)
            swap += exposure.swap
        profit = account.round(profit)
        return account.balance + account.credit + profit + swap, account.margin(), profit

    def valuation(self, account: SimulatedAccount, name: str, frozen: Tick | None = None) -> Valuation:
        """Return how to value the positions of a symbol at the prices of now, or at a ``frozen`` quote."""
        symbol = account.symbols[name]
        bid, ask = frozen[1:] if frozen else self.feed.quote(symbol.feed)
        rates = self.conversion.rates(symbol.profit, account.entry.currency)
        return Valuation(bid, ask, symbol.multiplier, *rates)

    def floating(self, account: SimulatedAccount, position: BrokerPosition) -> Decimal:
        """Return a position's floating profit in the account's currency, without swap."""
        valuation = self.valuation(account, position.symbol)
        return account.round(valuation.of(position.side, position.volume, position.price_open)[1])

    def margin(  # as profit
        self, account: SimulatedAccount, name: str, side: int, volume: Decimal, price: Decimal
    ) -> Decimal:
        """Return what ``volume`` lots opened at ``price`` hold, in the account's currency, not rounded."""
        symbol = account.symbols[name]
        amount = price_margin(symbol, volume, price, account.leverage)
        return self.conversion.margin(amount, symbol.margin, account.entry.currency, side)

    def profit(  # noqa: PLR0917  # the words of every execution, in one order
        self, account: SimulatedAccount, name: str, side: int, volume: Decimal, opened: Decimal, at: Decimal
    ) -> Decimal:
        """Return the profit of ``volume`` lots in the account's currency, rounded."""
        symbol = account.symbols[name]
        amount = price_profit(symbol, side, volume, opened, at)
        return account.round(self.conversion.profit(amount, symbol.profit, account.entry.currency))

    # -- numbers

    def next_ticket(self) -> int:
        """Return a new order ticket."""
        return next(self._orders)

    def next_deal(self) -> int:
        """Return a new deal ticket."""
        return next(self._deals)

    def count_from(self, order: int, deal: int) -> None:
        """Set the tickets that come next."""
        self._orders, self._deals = itertools.count(order), itertools.count(deal)

    # -- rows

    def snapshot_for_lag(self, account: SimulatedAccount, table: str, ticket: int) -> None:
        """Have lagging terminals go on seeing a row as it is: called before it changes."""
        lag = self.lag_ms(account, table)
        if lag:
            getattr(account, table).keep_before(ticket, self.clock.utc_ms() + lag)

    def add_order(self, account: SimulatedAccount, order: BrokerOrder) -> None:
        """Enter a new order into the ledger and, active, into the account's orders."""
        self.ledger.order(account.name, self.clock.utc_text(), order)
        self.keep_working(account, order)

    def keep_working(self, account: SimulatedAccount, order: BrokerOrder) -> None:
        """Keep an order active."""
        if order.ticket not in account.orders.live:
            self.snapshot_for_lag(account, "orders", order.ticket)
        account.add_working(order)
        self.save("order", account, order)

    def finish_order(self, account: SimulatedAccount, order: BrokerOrder, state: int) -> None:
        """Move an order to the history, in its last state."""
        if order.ticket in account.orders.live:
            self.snapshot_for_lag(account, "orders", order.ticket)
            account.orders.remove(order.ticket)
            account.pending.get(order.symbol, {}).pop(order.ticket, None)
        order.state, order.time_done_msc = state, self.clock.server_ms()
        self.snapshot_for_lag(account, "history_orders", order.ticket)
        account.history_orders.add(order.ticket, order, order.time_done_msc, order.position_id)
        self.save("order", account, order)

    def add_deal(self, account: SimulatedAccount, deal: BrokerDeal) -> None:
        """Enter a deal into the history and into the ledger."""
        self.snapshot_for_lag(account, "history_deals", deal.ticket)
        account.history_deals.add(deal.ticket, deal, deal.time_msc, deal.position_id)
        if deal.type not in TRADES:
            self.save_operation(account, deal)
            return
        self.ledger.deal(account.name, self.clock.utc_text(), deal)
        self.save("deal", account, deal)

    def save_operation(self, account: SimulatedAccount, deal: BrokerDeal) -> None:
        """Have a deal that does not trade, or is another than it was, written and entered into the ledger."""
        self.ledger.operation(account.name, self.clock.utc_text(), deal)
        self.save("deal", account, deal)

    # -- durability

    def save(self, kind: str, account: SimulatedAccount, row: BrokerOrder | BrokerPosition | BrokerDeal) -> None:
        """Have a row written at the next commit, as it is then."""
        self._dirty[kind, account.name, row.ticket] = row
        self._touched[account.name] = account

    def forget(self, kind: str, account: SimulatedAccount, ticket: int) -> None:
        """Have a row removed at the next commit."""
        self._dirty.pop((kind, account.name, ticket), None)
        self._touched[account.name] = account
        self.store.delete(kind, account.name, ticket)

    def commit(self) -> None:
        """Make every change so far durable, together. Replies leave after it."""
        if isinstance(self.store, NoStore):
            self._dirty.clear()
            self._touched.clear()
            return
        dirty, self._dirty = self._dirty, {}
        for (kind, name, ticket), row in dirty.items():
            self.store.put(kind, name, ticket, dump(row))
        for account in self._touched.values():
            self.store.put("account", account.name, 0, json.dumps([str(account.balance), str(account.credit)]))
        self._touched.clear()
        self.store.commit()

    def has_changes(self) -> bool:
        """Return whether something waits for a commit."""
        return bool(self._dirty or self._touched)
