"""Accounts: what they own, what they may do, and their equity, margin and tables."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from streamapp.mt5 import constants as mt5
from streamapp.mt5.enums import MARGIN_MODES
from streamapp.simulator.books.money import Exposure, rounded
from streamapp.simulator.books.tables import ZERO, BrokerDeal, BrokerOrder, BrokerPosition, HistoryTable, LaggingTable
from streamapp.simulator.prices.symbols import BrokerProfile, SymbolSpec

MARGIN_MODE_NUMBERS = {word: number for number, word in MARGIN_MODES.items()}
# Currencies whose accounts are not kept to two digits.
CURRENCY_DIGITS = {"JPY": 0, "BTC": 8}

DEFAULT_ACCOUNTS: list[dict[str, Any]] = [
    {"name": "demo-hedging", "login": 50000001, "margin_mode": "hedging"},
    {"name": "demo-netting", "login": 50000002, "margin_mode": "netting"},
]


@dataclass(frozen=True, slots=True)
class AccountEntry:
    """An entry of the accounts file."""

    name: str
    login: int
    server: str
    password: str | None
    profile: str
    balance: Decimal
    currency: str
    leverage: int | None
    margin_mode: str | None
    trade_mode: int


def entry_from(row: dict[str, Any]) -> AccountEntry:
    """Read one account.

    Raises:
        ValueError: a field is missing or unknown, or no such account can be; the message says which.
    """
    allowed = set(AccountEntry.__slots__)
    if unknown := set(row) - allowed:
        raise ValueError(
            f"expected account fields {sorted(allowed)}, got also {sorted(unknown)}; remove or correct them"
        )
    if "name" not in row or "login" not in row:
        raise ValueError(f"expected an account with name and login, got {sorted(row)}; add what is missing")
    mode = row.get("margin_mode")
    if mode is not None and mode not in MARGIN_MODE_NUMBERS:
        known = sorted(MARGIN_MODE_NUMBERS)
        raise ValueError(f"expected margin_mode of {row['name']} to be one of {known}, got {mode!r}")
    balance, leverage = Decimal(str(row.get("balance", "1000000"))), row.get("leverage")
    if not balance.is_finite() or not 0 <= balance < 10**12:
        raise ValueError(f"expected balance of {row['name']} from 0 to 10^12, got {balance}")
    if leverage is not None and int(leverage) < 1:
        raise ValueError(f"expected leverage of {row['name']} of at least 1, got {leverage}")
    return AccountEntry(
        name=str(row["name"]),
        login=int(row["login"]),
        server=row.get("server", "Simulated-Demo"),
        password=row.get("password"),
        profile=row.get("profile", "default"),
        balance=balance,
        currency=row.get("currency", "USD"),
        leverage=int(leverage) if leverage is not None else None,
        margin_mode=mode,
        trade_mode=int(row.get("trade_mode", mt5.ACCOUNT_TRADE_MODE_DEMO)),
    )


def read_accounts(path: Path | None) -> list[AccountEntry]:
    """Return the accounts of a JSON file (an array, or an object with "accounts"), or the two default ones."""
    rows = json.loads(path.read_text("utf-8")) if path else DEFAULT_ACCOUNTS
    entries = [entry_from(row) for row in (rows["accounts"] if isinstance(rows, dict) else rows)]
    for field_name in ("name", "login"):
        values = [getattr(entry, field_name) for entry in entries]
        if len(set(values)) != len(values):
            raise ValueError(f"expected every account to have its own {field_name}, got {values}")
    return entries


@dataclass(slots=True)
class SimulatedAccount:
    """One trading account and its tables. Changed only by ``Books``, ``Positions`` and what a broker does by hand."""

    entry: AccountEntry
    profile: BrokerProfile
    symbols: dict[str, SymbolSpec]
    margin_mode: int
    leverage: int
    balance: Decimal = ZERO
    credit: Decimal = ZERO
    orders: LaggingTable[BrokerOrder] = field(default_factory=LaggingTable)
    positions: LaggingTable[BrokerPosition] = field(default_factory=LaggingTable)
    history_orders: HistoryTable[BrokerOrder] = field(default_factory=HistoryTable)
    history_deals: HistoryTable[BrokerDeal] = field(default_factory=HistoryTable)
    exposures: dict[str, Exposure] = field(default_factory=dict)
    stops: dict[str, dict[int, BrokerPosition]] = field(default_factory=dict)
    pending: dict[str, dict[int, BrokerOrder]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The account's name in the accounts file and in the ledger."""
        return self.entry.name

    @property
    def digits(self) -> int:
        """Digits of the account's currency."""
        return CURRENCY_DIGITS.get(self.entry.currency, 2)

    @property
    def hedging(self) -> bool:
        """Whether a symbol can have several positions."""
        return self.margin_mode == mt5.ACCOUNT_MARGIN_MODE_RETAIL_HEDGING

    def round(self, amount: Decimal) -> Decimal:
        """Return an amount to the digits of the account's currency."""
        return rounded(amount, self.digits)

    def exposure(self, symbol: str) -> Exposure:
        """Return the sums over the positions of a symbol."""
        found = self.exposures.get(symbol)
        if found is None:
            found = self.exposures[symbol] = Exposure()
        return found

    def net_position(self, symbol: str) -> BrokerPosition | None:
        """Return the one position of a symbol on a netting account."""
        return next((p for p in self.positions.live.values() if p.symbol == symbol), None)

    def margin(self) -> Decimal:
        """Return margin held by all positions."""
        held = (exposure.held(self.symbols[name]) for name, exposure in self.exposures.items())
        return self.round(sum(held, ZERO))

    def add_working(self, order: BrokerOrder) -> None:
        """Put an order among the active ones."""
        self.orders.put(order.ticket, order)
        self.pending.setdefault(order.symbol, {})[order.ticket] = order

    def side_volume(self, symbol: str, side: int) -> Decimal:
        """Return lots open and pending in one direction."""
        waiting = (o for o in self.pending.get(symbol, {}).values() if o.type % 2 == side)
        return self.exposure(symbol).volume[side] + sum((o.volume_current for o in waiting), ZERO)

    def track_stops(self, position: BrokerPosition) -> None:
        """Keep the index of positions that a price can close."""
        index = self.stops.setdefault(position.symbol, {})
        if position.ticket in self.positions.live and (position.sl or position.tp):
            index[position.ticket] = position
        else:
            index.pop(position.ticket, None)

    def margin_level(self, equity: Decimal, margin: Decimal) -> Decimal:
        """Return equity as a percentage of margin; 0 without margin, as the terminal shows it."""
        return equity / margin * 100 if margin else ZERO


def open_account(entry: AccountEntry, profile: BrokerProfile, symbols: dict[str, SymbolSpec]) -> SimulatedAccount:
    """Return the account of an entry, with the symbols as its broker has them and nothing in its tables."""
    return SimulatedAccount(
        entry=entry,
        profile=profile,
        symbols=profile.offer(symbols),
        margin_mode=MARGIN_MODE_NUMBERS[entry.margin_mode or profile.margin_mode],
        leverage=entry.leverage or profile.leverage,
    )
