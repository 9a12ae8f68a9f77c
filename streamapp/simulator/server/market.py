"""One simulated broker: puts its parts together and tells of their state. Pure of sockets and threads."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

from streamapp.mt5.enums import MARGIN_MODES
from streamapp.simulator.books.accounts import AccountEntry
from streamapp.simulator.books.books import Books
from streamapp.simulator.books.positions import Positions
from streamapp.simulator.books.store import MarketStore, NoStore
from streamapp.simulator.prices.bars import Bars
from streamapp.simulator.prices.feed import Feed, Quoted
from streamapp.simulator.prices.server_clock import Clock
from streamapp.simulator.prices.symbols import FIXED, BrokerProfile, SymbolSpec, changed, read_profiles, read_symbols
from streamapp.simulator.server.executor import RequestExecutor
from streamapp.simulator.server.faults import Faults, TerminalRegistry
from streamapp.simulator.server.gateway import OrderGateway
from streamapp.simulator.server.matching import Matching
from streamapp.simulator.server.recovery import Recovery
from streamapp.simulator.server.schedule import ScheduledEvents, Timeline
from streamapp.simulator.server.third_party import ThirdParty
from streamapp.simulator.server.triggers import Rollover, Triggers
from streamapp.simulator.server.validation import known_checks


@dataclass(frozen=True, slots=True)
class MarketSettings:
    """How the whole market behaves.

    Attributes:
        seed: Of prices, slippage, latency and the chance of faults.
        latency_ms: Median and 95th percentile of an order's way, 0 for none.
        always_open: Trading hours are not kept.
        slippage: Market orders slip where the price moves by itself.
        hold_gil: The module holds the GIL in a call, as the original does.
    """

    seed: int = 1
    latency_ms: tuple[float, float] = (0.0, 0.0)
    always_open: bool = True
    slippage: bool = True
    hold_gil: bool = True


class Market:
    """All parts of one simulated broker, restored from its store. Single-threaded: its callers take turns.

    Raises:
        ValueError: An account names a profile that there is not, or can't be; the message says which.
    """

    def __init__(
        self,
        accounts: list[AccountEntry],
        *,
        settings: MarketSettings | None = None,
        clock: Clock | None = None,
        store: MarketStore | None = None,
        symbols: dict[str, SymbolSpec] | None = None,
        profiles: dict[str, BrokerProfile] | None = None,
    ) -> None:
        self.settings = settings = settings or MarketSettings()
        self._random = random.Random(f"{settings.seed}:market")  # noqa: S311  # repeatable on purpose
        self.clock = clock = clock or Clock()
        self.feed = feed = Feed(symbols or read_symbols(), settings.seed, clock, always_open=settings.always_open)
        self.bars = Bars(feed, settings.seed)
        self.books = books = Books(clock, feed, store or NoStore())
        self._open_accounts(accounts, profiles or read_profiles())
        self.timeline = timeline = Timeline(clock, feed)
        self.terminals = TerminalRegistry()
        self.faults = faults = Faults(books, timeline, self.terminals, settings.seed)
        books.lag_ms = faults.lag_ms
        schedule = ScheduledEvents(timeline, books.store)
        self.positions = positions = Positions(books)
        self.matching = matching = Matching(
            books, positions, faults, schedule, timeline, draws=self._random, slippage=settings.slippage
        )
        self.executor = executor = RequestExecutor(books, positions, matching, schedule)
        self.third_party = ThirdParty(books, positions, matching, executor)
        self.gateway = OrderGateway(
            books,
            timeline,
            faults,
            schedule,
            executor=executor,
            third_party=self.third_party,
            latency_ms=self._draw_latency_ms,
        )
        self._triggers = Triggers(books, matching, faults)
        feed.on_tick = self._on_tick
        Recovery(books, positions, matching, schedule, faults).restore()
        books.commit()
        self._rollover = Rollover(books, positions, timeline)
        self._rollover.check()

    def _open_accounts(self, accounts: list[AccountEntry], profiles: dict[str, BrokerProfile]) -> None:
        for entry in accounts:
            if entry.profile not in profiles:
                known = sorted(profiles)
                raise ValueError(f"expected profile of {entry.name} to be one of {known}, got {entry.profile!r}")
            profile = profiles[entry.profile]
            known_checks(profile.terminal_checks + profile.server_checks)
            self.books.open_account(entry, profile)

    def change_symbol(self, name: str, values: dict[str, Any]) -> None:
        """Change fields of a symbol, in the feed and for every account, until the market ends.

        Raises:
            ValueError: There is no such field, or its value is none; nothing is changed.
        """
        if fixed := FIXED & set(values):
            raise ValueError(f"expected fields that can change while the market runs, got {sorted(fixed)}")
        quoted = self.feed.quotes[name]
        base = changed(quoted.symbol, values)
        theirs = [
            (account, changed(account.symbols[name + account.profile.suffix], values))
            for account in self.books.accounts.values()
        ]
        quoted.symbol = base
        for account, symbol in theirs:
            account.symbols[symbol.name] = symbol

    def shift_clock(self, shift_ms: int) -> None:
        """Put the server's clock forward, or back, by so much: what waits for a server time waits anew.

        Ticks, orders and deals keep the times that they have, and no day ends for a second time.
        """
        self.clock.shift_ms += shift_ms
        self.books.store.put("clock", "", 0, json.dumps(self.clock.shift_ms))
        for account in self.books.accounts.values():
            for order in list(account.orders.live.values()):
                self.matching.watch_expiry(account, order)
        self._rollover.check()

    def save_quotes(self) -> None:
        """Keep the present prices for the next start."""
        prices = {name: [str(q.bid), str(q.ask), q.pinned] for name, q in self.feed.quotes.items()}
        self.books.store.put("quotes", "", 0, json.dumps(prices))

    def close(self) -> None:
        """Make all durable and let go of the store."""
        self.save_quotes()
        self.books.commit()
        self.books.store.close()

    def _draw_latency_ms(self) -> float:
        """How long a request takes to the dealing desk: lognormal by median and 95th percentile."""
        median, high = self.settings.latency_ms
        if not median:
            return 0.0
        return median * math.exp(self._random.gauss(0, 1) * math.log(max(high / median, 1)) / 1.645)

    def _on_tick(self, quoted: Quoted) -> None:
        self.timeline.move(quoted.utc_ms)
        self.bars.add(quoted)
        self._triggers.on_tick(quoted)

    def metrics(self) -> str:
        """Return what GET /metrics says, for Prometheus."""
        lines = []
        for name, account in self.books.accounts.items():
            labels = f'{{account="{name}"}}'
            lines += [
                f"streamapp_market_orders_total{labels} {len(account.orders.live) + len(account.history_orders.live)}",
                f"streamapp_market_deals_total{labels} {len(account.history_deals.live)}",
                f"streamapp_market_positions{labels} {len(account.positions.live)}",
            ]
        lines.append(f"streamapp_market_terminals {len(self.terminals.logged_in)}")
        lines.append(f"streamapp_market_repeated_intents {len(self.books.ledger.invariants()['violations'])}")
        return "".join(line + "\n" for line in lines)

    def health(self) -> dict[str, Any]:
        """Return what GET /health says."""
        return {
            "status": "ok",
            "accounts": {
                name: {
                    "login": account.entry.login,
                    "server": account.entry.server,
                    "margin_mode": MARGIN_MODES[account.margin_mode],
                    "balance": str(account.balance),
                    "positions": len(account.positions.live),
                    "orders": len(account.orders.live),
                    "history_orders": len(account.history_orders.live),
                    "history_deals": len(account.history_deals.live),
                }
                for name, account in self.books.accounts.items()
            },
            "terminals": dict(Counter(account.name for account, _ in self.terminals.logged_in.values())),
            "invariants": self.books.ledger.invariants(),
            "faults": [fault.shown() for fault in self.faults.active],
        }
