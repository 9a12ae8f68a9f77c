"""The symbols that a broker offers: loaded from the package's data or from a file of the user."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any

from streamapp.mt5 import constants as mt5

FUTURES = (mt5.SYMBOL_CALC_MODE_FUTURES, mt5.SYMBOL_CALC_MODE_EXCH_FUTURES)
# What prices are counted in and money is converted by: it stays as it is while the market runs.
FIXED = frozenset({"name", "feed", "digits", "point", "calc", "base", "profit", "margin"})
_POSITIVE = ("point", "tick_size", "contract", "volume_min", "volume_step", "price", "tick_ms")
LARGEST = 10**12


@dataclass(frozen=True, slots=True)
class SymbolSpec:
    """One instrument. Prices, volumes and rates are Decimal; levels and spreads are in points."""

    name: str
    feed: str
    description: str
    path: str
    exchange: str
    digits: int
    point: Decimal
    tick_size: Decimal
    tick_price: Decimal
    contract: Decimal
    volume_min: Decimal
    volume_max: Decimal
    volume_step: Decimal
    volume_limit: Decimal
    spread: tuple[int, int]
    stops_level: int
    freeze_level: int
    exemode: int
    filling: int
    order_mode: int
    expiration_mode: int
    gtc_mode: int
    trade_mode: int
    calc: int
    margin_rate: Decimal
    margin_initial: Decimal
    margin_hedged: Decimal
    base: str
    profit: str
    margin: str
    swap_mode: int
    swap_long: Decimal
    swap_short: Decimal
    rollover3days: int
    price: Decimal
    sigma: float
    tick_ms: int
    usd_factor: float
    session: str
    liquidity: Decimal | None
    # How long after its selection a symbol that was hidden has its first tick.
    first_tick_ms: int
    # ORDER_FILLING_* that the server refuses although ``filling`` and the terminal allow them.
    refused_fillings: tuple[int, ...]

    @property
    def multiplier(self) -> Decimal:
        """Profit in the profit currency of one lot for a price move of 1."""
        return self.tick_price / self.tick_size if self.calc in FUTURES else self.contract

    @property
    def tick_value(self) -> Decimal:
        """Profit in the profit currency of one lot for a tick."""
        return self.multiplier * self.tick_size

    @property
    def is_currency_pair(self) -> bool:
        """Whether money is converted at its price, which is never 0 or less."""
        return self.calc in (mt5.SYMBOL_CALC_MODE_FOREX, mt5.SYMBOL_CALC_MODE_FOREX_NO_LEVERAGE)

    def rounded(self, price: Decimal) -> Decimal:
        """Return the nearest price on the tick grid, halves away from zero."""
        return (price / self.tick_size).quantize(Decimal(1), ROUND_HALF_UP) * self.tick_size

    def on_grid(self, price: Decimal) -> bool:
        """Return whether the price is a multiple of the tick size (floats come with noise below 1e-8)."""
        return abs(self.rounded(price) - price) < Decimal("1e-8")


def symbol_from(row: dict[str, Any]) -> SymbolSpec:
    """Return a symbol from a row of symbols.json; what is left out has a default."""
    digits = int(row["digits"])
    point = Decimal(1).scaleb(-digits)
    tick_size = Decimal(row["tick_size"]) if "tick_size" in row else point
    contract, futures = Decimal(row["contract"]), int(row["calc"]) in FUTURES
    low, high, step = (Decimal(v) for v in row["volume"])
    base, profit, margin = row["currencies"]
    swap_mode, swap_long, swap_short = row["swap"]
    return SymbolSpec(
        name=row["name"],
        feed=row["name"],
        description=row.get("description", ""),
        path=row.get("path", row["name"]),
        exchange=row.get("exchange", ""),
        digits=digits,
        point=point,
        tick_size=tick_size,
        # The parameter of the formulas for futures and indices, not the value of a tick that the terminal reckons.
        tick_price=Decimal(row["tick_value"]) if "tick_value" in row else tick_size * (contract if futures else 1),
        contract=contract,
        volume_min=low,
        volume_max=high,
        volume_step=step,
        volume_limit=Decimal(row.get("volume_limit", "0")),
        spread=(int(row["spread"][0]), int(row["spread"][1])),
        stops_level=int(row.get("stops_level", 0)),
        freeze_level=int(row.get("freeze_level", 0)),
        exemode=int(row["exemode"]),
        filling=int(row["filling"]),
        order_mode=int(row.get("order_mode", 127)),
        expiration_mode=int(row.get("expiration_mode", 15)),
        gtc_mode=int(row.get("gtc_mode", mt5.SYMBOL_ORDERS_GTC)),
        trade_mode=int(row.get("trade_mode", mt5.SYMBOL_TRADE_MODE_FULL)),
        calc=int(row["calc"]),
        margin_rate=Decimal(row.get("margin_rate", "1")),
        margin_initial=Decimal(row.get("margin_initial", "0")),
        margin_hedged=Decimal(row.get("margin_hedged", contract)),
        base=base,
        profit=profit,
        margin=margin,
        swap_mode=int(swap_mode),
        swap_long=Decimal(swap_long),
        swap_short=Decimal(swap_short),
        rollover3days=int(row.get("rollover3days", mt5.DAY_OF_WEEK_WEDNESDAY)),
        price=Decimal(row["price"]),
        sigma=float(row["sigma"]),
        tick_ms=int(row["tick_ms"]),
        usd_factor=float(row.get("usd_factor", 0)),
        session=row.get("session", "always"),
        liquidity=Decimal(row["liquidity"]) if "liquidity" in row else None,
        first_tick_ms=int(row.get("first_tick_ms", 0)),
        refused_fillings=tuple(row.get("refused_fillings", ())),
    )


def changed(symbol: SymbolSpec, values: dict[str, Any]) -> SymbolSpec:
    """Return the symbol with some of its fields changed; numbers may be given as text.

    Raises:
        ValueError: There is no such field, or its value is none; the message says which.
    """
    if unknown := set(values) - set(SymbolSpec.__slots__):
        raise ValueError(f"expected fields of a symbol, as in symbols.json, got {sorted(unknown)}")
    own: dict[str, Any] = {}
    for name, value in values.items():
        kind = type(getattr(symbol, name))
        try:
            own[name] = Decimal(str(value)) if kind is Decimal or name == "liquidity" else kind(value)
        except (TypeError, ValueError, ArithmeticError) as error:
            raise ValueError(f"expected {name} of {symbol.name} as {kind.__name__}, got {value!r}") from error
    whole = replace(symbol, **own)
    _must_be_possible(whole)
    return whole


def _must_be_possible(symbol: SymbolSpec) -> None:
    """What would end the market in the middle of a tick is refused while somebody is there to hear it."""
    for name in SymbolSpec.__slots__:
        value = getattr(symbol, name)
        if isinstance(value, Decimal | float) and not -LARGEST < value < LARGEST:
            raise ValueError(f"expected {name} of {symbol.name} below {LARGEST} either way, got {value}")
    for name in _POSITIVE:
        if getattr(symbol, name) <= 0:
            raise ValueError(f"expected {name} of {symbol.name} above 0, got {getattr(symbol, name)}")
    spread: tuple[int, ...] = symbol.spread  # of any length where a file or a request gave it
    if len(spread) != 2 or not 0 <= spread[0] <= spread[1]:
        raise ValueError(f"expected spread of {symbol.name} as two numbers of points, got {symbol.spread}")


def _read(path: Path | None, packaged: str) -> Any:
    text = path.read_text("utf-8") if path else (files("streamapp.simulator") / "data" / packaged).read_text("utf-8")
    return json.loads(text)


def read_symbols(path: Path | None = None) -> dict[str, SymbolSpec]:
    """Return the symbols of a file, or the package's own, by name."""
    return {row["name"]: symbol_from(row) for row in _read(path, "symbols.json")}


@dataclass(frozen=True, slots=True)
class BrokerProfile:
    """How a broker behaves: levels, fees, rules, and what its symbols have that others' have not."""

    name: str
    company: str
    leverage: int
    margin_mode: str
    stop_out_in_money: bool
    margin_call: Decimal
    stop_out: Decimal
    limit_orders: int
    limit_positions: int
    commission_per_lot: Decimal
    commission_currency: str
    commission_apart: bool
    fifo_close: bool
    hedge_prohibited: bool
    placed_first: bool
    suffix: str
    stops_magic: bool
    reopen_at_rollover: bool
    pending_return: bool
    slippage: tuple[float, float, float]
    market_watch: frozenset[str] | None
    terminal_checks: tuple[str, ...]
    server_checks: tuple[str, ...]
    symbols: dict[str, dict[str, Any]]

    def offer(self, symbols: dict[str, SymbolSpec]) -> dict[str, SymbolSpec]:
        """Return the symbols as this broker has them: with its suffix and its own values."""
        return {symbol.name + self.suffix: self._own(symbol) for symbol in symbols.values()}

    def _own(self, symbol: SymbolSpec) -> SymbolSpec:
        values = {**self.symbols.get("*", {}), **self.symbols.get(symbol.name, {})}
        return replace(changed(symbol, values), name=symbol.name + self.suffix)


def profile_from(name: str, row: dict[str, Any]) -> BrokerProfile:
    """Return a profile from an entry of profiles.json."""
    unit, call, out = row.get("stop_out", ["percent", "100", "50"])
    fee, currency = row.get("commission", ["0", "USD"])
    none, adverse, favourable = row.get("slippage", [0.85, 0.10, 0.03])
    order = {**_read(None, "validation.json"), **row.get("validation", {})}
    return BrokerProfile(
        name=name,
        company=row.get("company", "Simulated Broker Ltd."),
        leverage=int(row.get("leverage", 500)),
        margin_mode=row.get("margin_mode", "hedging"),
        stop_out_in_money=unit == "money",
        margin_call=Decimal(call),
        stop_out=Decimal(out),
        limit_orders=int(row.get("limit_orders", 0)),
        limit_positions=int(row.get("limit_positions", 0)),
        commission_per_lot=Decimal(fee),
        commission_currency=currency,
        commission_apart=bool(row.get("commission_apart", False)),
        fifo_close=bool(row.get("fifo_close", False)),
        hedge_prohibited=bool(row.get("hedge_prohibited", False)),
        placed_first=bool(row.get("placed_first", False)),
        suffix=row.get("suffix", ""),
        stops_magic=bool(row.get("stops_magic", True)),
        reopen_at_rollover=bool(row.get("reopen_at_rollover", False)),
        pending_return=row.get("pending_filling", "any") == "any",
        slippage=(float(none), float(adverse), float(favourable)),
        market_watch=frozenset(row["market_watch"]) if "market_watch" in row else None,
        terminal_checks=tuple(order["terminal"]),
        server_checks=tuple(order["server"]),
        symbols=row.get("symbols", {}),
    )


def read_profiles(path: Path | None = None) -> dict[str, BrokerProfile]:
    """Return the package's profiles, with those of a file beside them or in their place."""
    rows = dict(_read(None, "profiles.json"))
    if path:
        rows.update(_read(path, ""))
    return {name: profile_from(name, row) for name, row in rows.items()}
