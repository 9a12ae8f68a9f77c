"""The trade server: quotes, accounts, tables, tickets, and what each tick sets off. Pure of sockets and threads."""

import itertools
import json
import math
import random
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from streamapp.mt5 import constants as mt5
from streamapp.mt5.enums import MARGIN_MODES
from streamapp.simulator.accounts import MARGIN_MODE_NUMBERS, Account, AccountSettings
from streamapp.simulator.bars import Bars
from streamapp.simulator.clock import Action, Agenda, Clock, VirtualClock
from streamapp.simulator.dealing import Dealing
from streamapp.simulator.deeds import Deeds
from streamapp.simulator.effects import Effects
from streamapp.simulator.expiry import expires_ms
from streamapp.simulator.faults import Faults
from streamapp.simulator.feed import Feed, Quoted, Tick
from streamapp.simulator.ledger import Ledger
from streamapp.simulator.matching import Matching
from streamapp.simulator.money import ZERO, Conversion, Valuation
from streamapp.simulator.positions import Positions
from streamapp.simulator.restoring import FIRST_DEAL, FIRST_ORDER, restore
from streamapp.simulator.rollover import Rollover
from streamapp.simulator.rows import Deal, Order, Position, dump
from streamapp.simulator.storage import NoStore, Store
from streamapp.simulator.symbols import Profile, Symbol, read_profiles, read_symbols
from streamapp.simulator.triggers import Triggers
from streamapp.simulator.validation import known_checks

# Of the terminal, September 2026. The fault `terminal_update` raises it.
FIRST_BUILD = 6199


@dataclass(frozen=True, slots=True)
class MarketSettings:
    """How the whole market behaves. `latency_ms`: median and 95th percentile of an order's way, 0 for none."""

    seed: int = 1
    latency_ms: tuple[float, float] = (0.0, 0.0)
    always_open: bool = True
    slippage: bool = True
    hold_gil: bool = True


class Market:
    """All accounts of one simulated broker. Single-threaded: its callers take turns."""

    def __init__(
        self,
        accounts: list[AccountSettings],
        *,
        settings: MarketSettings | None = None,
        clock: Clock | None = None,
        store: Store | None = None,
        symbols: dict[str, Symbol] | None = None,
        profiles: dict[str, Profile] | None = None,
    ) -> None:
        """Restores what `store` holds and opens the accounts that it does not know yet."""
        self.settings = settings or MarketSettings()
        self.always_open = self.settings.always_open
        self.clock = clock or Clock()
        self.agenda = Agenda()
        self.store: Store = store or NoStore()
        self.random = random.Random(f"{self.settings.seed}:market")  # noqa: S311  # repeatable on purpose
        self.symbols = symbols or read_symbols()
        self.feed = Feed(self.symbols, self.settings.seed, self.clock, always_open=self.always_open)
        self.bars = Bars(self.feed, self.settings.seed)
        self.feed.on_tick = self._on_tick
        self.conversion = Conversion(self.symbols, self.feed.quote)
        self.ledger = Ledger(self.store.append)
        self.effects = Effects(self)
        self.positions = Positions(self)
        self.matching = Matching(self)
        self.dealing = Dealing(self)
        self._triggers = Triggers(self)
        self.faults = Faults(self)
        self.deeds = Deeds(self)
        self.build = FIRST_BUILD
        self.sessions: dict[int, tuple[Account, Action]] = {}
        self._orders, self._deals = itertools.count(FIRST_ORDER), itertools.count(FIRST_DEAL)
        self._requests = itertools.count(1)
        self._dirty: dict[tuple[str, str, int], Order | Position | Deal] = {}
        self._touched: dict[str, Account] = {}
        known = profiles or read_profiles()
        self.accounts = {entry.name: self._account(entry, known) for entry in accounts}
        restore(self)
        self.commit()
        Rollover(self).schedule()

    # ---- accounts

    def _account(self, entry: AccountSettings, profiles: dict[str, Profile]) -> Account:
        if entry.profile not in profiles:
            raise ValueError(f"expected profile of {entry.name} to be one of {sorted(profiles)}, got {entry.profile!r}")
        profile = profiles[entry.profile]
        known_checks(profile.terminal_checks + profile.server_checks)
        self._convertible(entry, profile)
        return Account(
            settings=entry,
            profile=profile,
            symbols=profile.offer(self.symbols),
            margin_mode=MARGIN_MODE_NUMBERS[entry.margin_mode or profile.margin_mode],
            leverage=entry.leverage or profile.leverage,
        )

    def _convertible(self, entry: AccountSettings, profile: Profile) -> None:
        """Refuses an account whose currency can't be reckoned in before anybody trades on it."""
        named = {currency for symbol in self.symbols.values() for currency in (symbol.profit, symbol.margin)}
        try:
            for currency in sorted(named | {profile.commission_currency}):
                self.conversion.rates(currency, entry.currency)
        except LookupError as error:
            raise ValueError(f"expected a currency for {entry.name} that symbols lead to: {error}") from error

    def find(self, key: str | int) -> Account | None:
        """An account by name or login."""
        found = self.accounts.get(str(key))
        return found or next((a for a in self.accounts.values() if str(a.settings.login) == str(key)), None)

    def money(self, account: Account) -> tuple[Decimal, Decimal, Decimal]:
        """Equity, margin and floating profit (without swap) of an account."""
        profit, swap = ZERO, ZERO
        for name, exposure in account.exposures.items():
            symbol = account.symbols[name]
            bid, ask = self.feed.quote(symbol.feed)
            amount = exposure.profit(symbol, bid, ask)
            profit += self.conversion.profit(amount, symbol.profit, account.settings.currency)
            swap += exposure.swap
        profit = account.round(profit)
        return account.balance + account.credit + profit + swap, account.margin(), profit

    def valuation(self, account: Account, name: str, frozen: Tick | None = None) -> Valuation:
        """How to value the positions of a symbol at the prices of now, or at a `frozen` quote."""
        symbol = account.symbols[name]
        bid, ask = frozen[1:] if frozen else self.feed.quote(symbol.feed)
        rates = self.conversion.rates(symbol.profit, account.settings.currency)
        return Valuation(bid, ask, symbol.multiplier, *rates)

    def floating(self, account: Account, position: Position) -> Decimal:
        """A position's floating profit in the account's currency, without swap."""
        valuation = self.valuation(account, position.symbol)
        return account.round(valuation.of(position.side, position.volume, position.price_open)[1])

    # ---- terminals

    def join(self, session: int, account: Account, hang_up: Action) -> None:
        """A terminal is logged in; `hang_up` ends its connection."""
        self.sessions[session] = (account, hang_up)
        self.faults.reconnected(account)

    def leave(self, session: int) -> None:
        """A terminal is gone."""
        self.sessions.pop(session, None)

    def has_session(self, account: Account) -> bool:
        """Whether some terminal is logged in."""
        return any(joined is account for joined, _ in self.sessions.values())

    def hang_up(self, accounts: list[Account]) -> None:
        """Ends the connections of all terminals of some accounts."""
        for account, end in list(self.sessions.values()):
            if account in accounts:
                end()

    # ---- numbers

    def next_ticket(self) -> int:
        """A new order ticket."""
        return next(self._orders)

    def next_deal(self) -> int:
        """A new deal ticket."""
        return next(self._deals)

    def next_request(self) -> int:
        """A new request id."""
        return next(self._requests)

    # ---- tables

    def before(self, account: Account, table: str, ticket: int) -> None:
        """Is called before a row of a table changes, so that lagging terminals go on seeing it as it was."""
        lag = self.faults.lag_ms(account, table)
        if lag:
            getattr(account, table).keep_before(ticket, self.clock.utc_ms() + lag)

    def place(self, account: Account, order: Order) -> None:
        """Enters a new order into the ledger and, active, into the account's orders."""
        self.ledger.order(account.name, self.clock.utc_text(), order)
        self.work(account, order)

    def work(self, account: Account, order: Order) -> None:
        """Keeps an order active."""
        if order.ticket not in account.orders.live:
            self.before(account, "orders", order.ticket)
        account.orders.put(order.ticket, order)
        account.pending.setdefault(order.symbol, {})[order.ticket] = order
        self.save("order", account, order)

    def watch_expiry(self, account: Account, order: Order) -> None:
        """Has an order expire in time."""
        due = expires_ms(order)
        if due is not None:
            self.agenda.at(due - self.clock.offset_ms(), lambda: self.matching.expire(account, order))

    def finish(self, account: Account, order: Order, state: int) -> None:
        """Moves an order to the history, in its last state."""
        if order.ticket in account.orders.live:
            self.before(account, "orders", order.ticket)
            account.orders.remove(order.ticket)
            account.pending.get(order.symbol, {}).pop(order.ticket, None)
        order.state, order.time_done_msc = state, self.clock.server_ms()
        self.before(account, "history_orders", order.ticket)
        account.history_orders.add(order.ticket, order, order.time_done_msc, order.position_id)
        self.save("order", account, order)

    def add_deal(self, account: Account, deal: Deal) -> None:
        """Enters a deal into the history and, if it is a trade, into the ledger."""
        self.before(account, "history_deals", deal.ticket)
        account.history_deals.add(deal.ticket, deal, deal.time_msc, deal.position_id)
        if deal.type <= mt5.DEAL_TYPE_SELL:
            self.ledger.deal(account.name, self.clock.utc_text(), deal)
        self.save("deal", account, deal)

    # ---- durability

    def save(self, kind: str, account: Account, row: Order | Position | Deal) -> None:
        """Has a row written at the next commit, as it is then."""
        self._dirty[kind, account.name, row.ticket] = row
        self._touched[account.name] = account

    def forget(self, kind: str, account: Account, ticket: int) -> None:
        """Has a row removed at the next commit."""
        self._dirty.pop((kind, account.name, ticket), None)
        self._touched[account.name] = account
        self.store.delete(kind, account.name, ticket)

    def commit(self) -> None:
        """Makes every change so far durable, together. Replies leave after it."""
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
        """Whether something waits for a commit."""
        return bool(self._dirty or self._touched)

    def save_quotes(self) -> None:
        """Keeps the present prices for the next start."""
        prices = {n: [str(q.bid), str(q.ask), q.pinned] for n, q in self.feed.quotes.items()}
        self.store.put("quotes", "", 0, json.dumps(prices))

    def close(self) -> None:
        """Makes all durable and lets go of the store."""
        self.save_quotes()
        self.commit()
        self.store.close()

    def count_from(self, order: int, deal: int) -> None:
        """The tickets that come next."""
        self._orders, self._deals = itertools.count(order), itertools.count(deal)

    # ---- time

    def after(self, delay_ms: float, action: Action) -> None:
        """Does something in `delay_ms`, when the clock gets there."""
        self.agenda.at(self.clock.utc_ms() + max(1, round(delay_ms)), action)

    def wait(self, delay_ms: float, action: Action) -> None:
        """Does something for a client that waits for it: at once without a delay, and a virtual clock goes there."""
        if delay_ms <= 0:
            action()
            return
        self.after(delay_ms, action)
        if self.clock.virtual:
            self.run_until(self.clock.utc_ms() + max(1, round(delay_ms)))

    def draw_latency_ms(self) -> float:
        """How long this request takes to the dealing desk: lognormal by median and 95th percentile."""
        median, high = self.settings.latency_ms
        if not median:
            return 0.0
        return median * math.exp(self.random.gauss(0, 1) * math.log(max(high / median, 1)) / 1.645)

    def run_until(self, utc_ms: int) -> None:
        """Does all that is due by then, ticks and agenda in order of time."""
        while (action := self.agenda.take_due(self._next_due(utc_ms))) is not None:
            action()
        self._move(utc_ms)
        self.feed.advance(utc_ms)

    def _next_due(self, utc_ms: int) -> int:
        due = self.agenda.next_ms()
        if due is None or due > utc_ms:
            return -1
        self._move(due)
        self.feed.advance(due)
        return due

    def _move(self, utc_ms: int) -> None:
        if isinstance(self.clock, VirtualClock):
            self.clock.move_to(utc_ms)

    def _on_tick(self, quoted: Quoted) -> None:
        self._move(quoted.utc_ms)
        self.bars.add(quoted)
        self._triggers.on_tick(quoted)

    def metrics(self) -> str:
        """What GET /metrics says, for Prometheus."""
        lines = []
        for name, account in self.accounts.items():
            labels = f'{{account="{name}"}}'
            lines += [
                f"streamapp_market_orders_total{labels} {len(account.orders.live) + len(account.history_orders.live)}",
                f"streamapp_market_deals_total{labels} {len(account.history_deals.live)}",
                f"streamapp_market_positions{labels} {len(account.positions.live)}",
            ]
        lines.append(f"streamapp_market_terminals {len(self.sessions)}")
        lines.append(f"streamapp_market_repeated_intents {len(self.ledger.invariants()['violations'])}")
        return "".join(line + "\n" for line in lines)

    def health(self) -> dict[str, Any]:
        """What GET /health says."""
        return {
            "status": "ok",
            "accounts": {
                name: {
                    "login": account.settings.login,
                    "server": account.settings.server,
                    "margin_mode": MARGIN_MODES[account.margin_mode],
                    "balance": str(account.balance),
                    "positions": len(account.positions.live),
                    "orders": len(account.orders.live),
                    "history_orders": len(account.history_orders.live),
                    "history_deals": len(account.history_deals.live),
                }
                for name, account in self.accounts.items()
            },
            "terminals": dict(Counter(account.name for account, _ in self.sessions.values())),
            "invariants": self.ledger.invariants(),
            "faults": [fault.shown() for fault in self.faults.active],
        }
