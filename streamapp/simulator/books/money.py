"""Profit, margin and currency conversion, in Decimal. Formulas: MQL5 reference, ENUM_SYMBOL_CALC_MODE."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal

from streamapp.mt5 import constants as mt5
from streamapp.simulator.books.tables import ZERO
from streamapp.simulator.prices.symbols import FUTURES, SymbolSpec

BUY, SELL = 0, 1
ONE = Decimal(1)
# Brokers count interest by the banker's year.
DAYS_OF_YEAR = 360

_UNITS = {digits: Decimal(1).scaleb(-digits) for digits in range(9)}

Quote = tuple[Decimal, Decimal]
"""Bid and ask."""


def rounded(amount: Decimal, digits: int) -> Decimal:
    """Return money to a currency's digits, halves away from zero."""
    return amount.quantize(_UNITS.get(digits) or Decimal(1).scaleb(-digits), ROUND_HALF_UP)


def price_profit(symbol: SymbolSpec, side: int, volume: Decimal, opened: Decimal, closed: Decimal) -> Decimal:
    """Return profit in the symbol's profit currency, not rounded."""
    move = closed - opened if side == BUY else opened - closed
    return move * symbol.multiplier * volume


def price_margin(symbol: SymbolSpec, volume: Decimal, price: Decimal, leverage: int) -> Decimal:
    """Return margin in the symbol's margin currency, not rounded. A price below 0 holds as much as one above."""
    price, nominal = abs(price), volume * symbol.contract * symbol.margin_rate
    if symbol.calc == mt5.SYMBOL_CALC_MODE_FOREX:
        return nominal / leverage
    if symbol.calc == mt5.SYMBOL_CALC_MODE_FOREX_NO_LEVERAGE:
        return nominal
    if symbol.calc == mt5.SYMBOL_CALC_MODE_CFDLEVERAGE:
        return nominal * price / leverage
    if symbol.calc in FUTURES:
        return volume * symbol.margin_initial * symbol.margin_rate
    if symbol.calc == mt5.SYMBOL_CALC_MODE_CFDINDEX:
        return nominal * price * symbol.tick_price / symbol.tick_size
    return nominal * price


def nightly_swap(
    symbol: SymbolSpec, side: int, volume: Decimal, price: Decimal, deposit_currency: str
) -> tuple[Decimal, str]:
    """Return the swap of one night and its currency, not rounded; ``price`` is what interest is reckoned on."""
    rate = symbol.swap_long if side == BUY else symbol.swap_short
    fixed = {
        mt5.SYMBOL_SWAP_MODE_CURRENCY_SYMBOL: symbol.base,
        mt5.SYMBOL_SWAP_MODE_CURRENCY_MARGIN: symbol.margin,
        mt5.SYMBOL_SWAP_MODE_CURRENCY_DEPOSIT: deposit_currency,
    }
    if symbol.swap_mode in fixed:
        return rate * volume, fixed[symbol.swap_mode]
    if symbol.swap_mode in (mt5.SYMBOL_SWAP_MODE_INTEREST_CURRENT, mt5.SYMBOL_SWAP_MODE_INTEREST_OPEN):
        return price * symbol.contract * volume * rate / 100 / DAYS_OF_YEAR, symbol.profit
    return rate * symbol.point * symbol.multiplier * volume, symbol.profit


class Conversion:
    """Turns an amount of one currency into another, by the symbols that trade the two, through USD if need be."""

    def __init__(self, symbols: dict[str, SymbolSpec], quote: Callable[[str], Quote]) -> None:
        """``quote`` gives bid and ask of a symbol by its feed name."""
        forex = [s for s in symbols.values() if s.calc == mt5.SYMBOL_CALC_MODE_FOREX]
        self._pairs = {(s.base, s.profit): s.feed for s in forex}
        self._quote = quote

    def profit(self, amount: Decimal, source: str, target: str) -> Decimal:
        """Convert a profit at the price at which it would be sold, a loss at that at which it is bought."""
        return amount if source == target else amount * self._rate(source, target, amount > 0)

    def margin(self, amount: Decimal, source: str, target: str, side: int) -> Decimal:
        """Convert the margin of a purchase at Ask, of a sale at Bid."""
        return amount if source == target else amount * self._rate(source, target, side == SELL)

    def rates(self, source: str, target: str) -> tuple[Decimal, Decimal]:
        """Return what one unit of profit and what one unit of loss are worth."""
        if source == target:
            return ONE, ONE
        return self._rate(source, target, sells=True), self._rate(source, target, sells=False)

    def _rate(self, source: str, target: str, sells: bool) -> Decimal:
        direct = self._direct(source, target, sells)
        if direct is not None:
            return direct
        first, second = self._direct(source, "USD", sells), self._direct("USD", target, sells)
        if first is None or second is None:
            raise LookupError(f"expected a symbol that trades {source} against {target} or both against USD, got none")
        return first * second

    def _direct(self, source: str, target: str, sells: bool) -> Decimal | None:
        if name := self._pairs.get((source, target)):
            bid, ask = self._quote(name)
            return bid if sells else ask
        if name := self._pairs.get((target, source)):
            bid, ask = self._quote(name)
            return 1 / ask if sells else 1 / bid
        return None


@dataclass(frozen=True, slots=True)
class Valuation:
    """What positions of one symbol are worth now: the sums of ``price_profit`` and ``Conversion.profit``, prepared."""

    bid: Decimal
    ask: Decimal
    multiplier: Decimal
    gain: Decimal
    loss: Decimal

    def of(self, side: int, volume: Decimal, opened: Decimal) -> tuple[Decimal, Decimal]:
        """Return the closing price, and the profit in the account's currency, not rounded."""
        price = self.bid if side == BUY else self.ask
        move = price - opened if side == BUY else opened - price
        amount = move * self.multiplier * volume
        return price, amount * (self.gain if amount > 0 else self.loss)


@dataclass(slots=True)
class Exposure:
    """The sums over an account's positions of one symbol: what makes equity and margin O(symbols), not O(positions)."""

    volume: list[Decimal] = field(default_factory=lambda: [ZERO, ZERO])
    cost: list[Decimal] = field(default_factory=lambda: [ZERO, ZERO])
    margin: list[Decimal] = field(default_factory=lambda: [ZERO, ZERO])
    swap: Decimal = ZERO

    def add(self, side: int, volume: Decimal, price: Decimal, margin: Decimal) -> None:
        """Add a position, or takes one away with negative volume and margin."""
        self.volume[side] += volume
        self.cost[side] += volume * price
        self.margin[side] += margin

    def profit(self, symbol: SymbolSpec, bid: Decimal, ask: Decimal) -> Decimal:
        """Return floating profit in the profit currency."""
        buys = self.volume[BUY] * bid - self.cost[BUY]
        sells = self.cost[SELL] - self.volume[SELL] * ask
        return (buys + sells) * symbol.multiplier

    def held(self, symbol: SymbolSpec, side: int = BUY, volume: Decimal = ZERO, margin: Decimal = ZERO) -> Decimal:
        """Return margin held, in the account's currency, as if ``volume`` more were open on ``side``.

        The uncovered lots hold their side's average margin; each covered pair holds ``margin_hedged`` of one lot
        (the contract size means one leg, 0 means nothing).
        """
        volumes, margins = list(self.volume), list(self.margin)
        volumes[side] += volume
        margins[side] += margin
        longer = BUY if volumes[BUY] >= volumes[SELL] else SELL
        total, paired = volumes[longer], volumes[1 - longer]
        if not paired:
            return margins[longer]
        per_lot = margins[longer] / total
        pair = (margins[BUY] + margins[SELL]) / (volumes[BUY] + volumes[SELL])
        return per_lot * (total - paired) + pair * paired * symbol.margin_hedged / symbol.contract
