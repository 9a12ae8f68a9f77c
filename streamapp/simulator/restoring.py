"""Takes back what an earlier life of the market had kept, so that it goes on as if it had never stopped."""

import json
from decimal import Decimal
from typing import TYPE_CHECKING

from streamapp.mt5 import constants as mt5
from streamapp.simulator.accounts import Account
from streamapp.simulator.matching import EXCHANGE_FILL_MS
from streamapp.simulator.rows import Deal, Order, Position, load

if TYPE_CHECKING:
    from streamapp.simulator.market import Market

# Tickets begin where no test confuses them with a count, and orders and deals never share a number by accident.
FIRST_ORDER, FIRST_DEAL = 100_000_001, 700_000_001


def restore(market: "Market") -> None:
    """Reads the store of `market` into it, and opens the accounts that the store does not know."""
    _quotes(market)
    market.effects.restore()
    known = set()
    for name, _, body in market.store.rows("account"):
        known.add(name)
        if account := market.accounts.get(name):
            account.balance, account.credit = (Decimal(text) for text in json.loads(body))
    last_order = max(_orders(market), _positions(market))
    market.count_from(last_order + 1, _deals(market) + 1)
    market.faults.restore()
    for account_name, line in market.store.lines():
        market.ledger.restore(account_name, line)
    for name, account in market.accounts.items():
        if name not in known:
            market.positions.balance(account, account.settings.balance, "Initial deposit")


def _quotes(market: "Market") -> None:
    now = market.clock.utc_ms()
    for _, _, body in market.store.rows("quotes"):
        for name, (bid, ask, pinned) in json.loads(body).items():
            if name in market.feed.quotes:
                market.feed.pin(name, Decimal(bid), Decimal(ask), now, hold=pinned)


def _orders(market: "Market") -> int:
    """Active and done orders; gives the last ticket."""
    last = FIRST_ORDER - 1
    done: list[tuple[Account, Order]] = []
    for name, ticket, body in market.store.rows("order"):
        last = max(last, ticket)
        if account := market.accounts.get(name):
            order = load(Order, body)
            if order.time_done_msc:
                done.append((account, order))
            else:
                account.orders.put(ticket, order)
                account.pending.setdefault(order.symbol, {})[ticket] = order
                _resume(market, account, order)
    for account, order in sorted(done, key=lambda entry: (entry[1].time_done_msc, entry[1].ticket)):
        account.history_orders.add(order.ticket, order, order.time_done_msc, order.position_id)
    return last


def _resume(market: "Market", account: Account, order: Order) -> None:
    """An order that was working when the market ended goes on working, as the broker had begun it."""
    market.watch_expiry(account, order)
    begun = any(arguments[:2] == [account.name, order.ticket] for arguments in market.effects.kept())
    if order.type <= mt5.ORDER_TYPE_SELL and account.symbols[order.symbol].liquidity is None and not begun:
        market.effects.after(EXCHANGE_FILL_MS, "go_on", account.name, order.ticket)


def _deals(market: "Market") -> int:
    last = FIRST_DEAL - 1
    for name, ticket, body in market.store.rows("deal"):
        last = max(last, ticket)
        if account := market.accounts.get(name):
            deal = load(Deal, body)
            account.history_deals.add(ticket, deal, deal.time_msc, deal.position_id)
    return last


def _positions(market: "Market") -> int:
    last = FIRST_ORDER - 1
    for name, ticket, body in market.store.rows("position"):
        last = max(last, ticket)
        if account := market.accounts.get(name):
            position = load(Position, body)
            account.positions.put(position.ticket, position)
            exposure = account.exposure(position.symbol)
            exposure.add(position.side, position.volume, position.price_open, position.margin)
            exposure.swap += position.swap
            account.track_stops(position)
    return last
