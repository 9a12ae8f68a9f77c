"""Guards: the one list of what refuses an order that opens, whoever approved it; nothing here keeps one in a position.

Those before a quote are the desk's, who knows the account; those with a quote are the terminal's, which sees the
market. Each is a small function of the facts; what it returns names the guard, the limit and the value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from streamapp.domain.limits import AccountLimits, Limits, QuoteLimits
from streamapp.domain.parameters import OrderParameters, plain
from streamapp.domain.vocabulary import Side, time_text
from streamapp.domain.windows import window


@dataclass(frozen=True, slots=True)
class BrokenGuard:
    """A guard that an order breaks.

    Attributes:
        guard: Its name in the settings.
        limit: What was expected.
        value: What came.
        may_pass: It may hold in a moment: it is the market that breaks it, not the order.
    """

    guard: str
    limit: str
    value: str
    may_pass: bool = False

    def __str__(self) -> str:
        """Return the sentence that a refusal is told with."""
        return f"{self.guard}: expected {self.limit}, got {self.value}"


@dataclass(frozen=True, slots=True)
class OpenExposure:
    """The lots of a symbol: ``net``, signed, of its positions; ``buying`` and ``selling``, of orders on their way."""

    net: Decimal = Decimal(0)
    buying: Decimal = Decimal(0)
    selling: Decimal = Decimal(0)

    def side(self, side: Side) -> Decimal:
        """Return the lots to this side if all of its orders are filled and none of the other's; less than 0: none."""
        return self.net + self.buying if side == "buy" else self.selling - self.net

    @property
    def largest(self) -> Decimal:
        """The most lots that it may come to, whichever orders are filled."""
        return max(self.side("buy"), self.side("sell"), Decimal(0))

    def plus(self, side: Side, volume: Decimal) -> OpenExposure:
        """Return it with one more order on its way."""
        if side == "buy":
            return OpenExposure(self.net, self.buying + volume, self.selling)
        return OpenExposure(self.net, self.buying, self.selling + volume)


class AccountFacts(Protocol):
    """What guards may ask of an account; asked only where a limit is set, for it may cost a look at its orders."""

    def open_orders(self, symbol: str | None) -> int:
        """Return how many orders are not over, of a symbol or of all."""
        ...

    def symbols(self) -> Iterable[str]:
        """Return the symbols that have orders or positions."""
        ...

    def exposure(self, symbol: str) -> OpenExposure:
        """Return the lots of a symbol."""
        ...

    @property
    def orders_today(self) -> int:
        """The orders that were opened since the broker's midnight."""
        ...

    @property
    def orders_last_second(self) -> int:
        """The orders that were opened within the last second."""
        ...

    @property
    def server_offset_s(self) -> int | None:
        """What the server's clock is ahead of UTC by, None while nobody knows."""
        ...


@dataclass(frozen=True, slots=True)
class OrderToOpen:
    """An order that is about to be opened; nothing of it is in ``account`` yet.

    ``limits`` are those of its account, ``order`` what it must keep itself (:meth:`AccountLimits.of_order`).
    """

    parameters: OrderParameters
    approved_at: datetime
    now: datetime
    limits: AccountLimits
    order: Limits
    account: AccountFacts


@dataclass(frozen=True, slots=True)
class QuotedOrder:
    """An order that is about to be sent, and the market.

    Attributes:
        market: The price at which it trades now.
        price: The price that it asks for, the market's for a market order.
        rate: What one of the symbol's currency is worth in ``currency``, the account's; None: nobody knows.
        equity: The account's now; None: nobody knows.
        opens: The lots of it that open: where a symbol has one position, those beyond what it closes of that.
        age_s: Of the last tick, less than 0 for one from the future.
        has_moved: The quote has moved while the order waited: it is fresh, whatever the server's clock says.
    """

    parameters: OrderParameters
    limits: QuoteLimits
    market: Decimal
    price: Decimal
    spread_points: Decimal
    contract_size: Decimal
    rate: Decimal | None
    currency: str
    equity: Decimal | None
    opens: Decimal
    age_s: float
    has_moved: bool = False


# --- without a quote: the desk's


def before_quote(opening: OrderToOpen) -> BrokenGuard | None:
    """Return the first guard before a quote that an order breaks, None if it keeps them all."""
    return next((broken for guard in BEFORE_QUOTE if (broken := guard(opening)) is not None), None)


def broken_by_itself(parameters: OrderParameters, limits: Limits) -> BrokenGuard | None:
    """Return the guard that an order breaks by its own words: desk and terminal ask it."""
    if limits.symbols and parameters.symbol not in limits.symbols:
        return BrokenGuard("symbols", f"one of {', '.join(limits.symbols)}", parameters.symbol)
    most = limits.max_volume
    if most is not None and parameters.volume > most:
        limit = f"{plain(most)} lots at most for {parameters.symbol}"
        return BrokenGuard("max_volume", limit, f"{plain(parameters.volume)}")
    return None


def _by_itself(opening: OrderToOpen) -> BrokenGuard | None:
    return broken_by_itself(opening.parameters, opening.order)


def _signal_age(opening: OrderToOpen) -> BrokenGuard | None:
    most = opening.order.max_signal_age_s
    if most is None:
        return None
    age_s = (opening.now - opening.approved_at).total_seconds()
    return (
        None if age_s <= most else BrokenGuard("max_signal_age_s", f"a signal of {most:g} s at most", f"{age_s:.1f} s")
    )


def _window(opening: OrderToOpen) -> BrokenGuard | None:
    for text in opening.order.no_trade:
        closed, offset_s = window(text), opening.account.server_offset_s
        if closed.by_broker and offset_s is None:
            return BrokenGuard("no_trade", "the server's clock known", "none yet: its terminal has not shown it")
        if closed.has(opening.now, offset_s or 0):
            return BrokenGuard(
                "no_trade", f"{opening.parameters.symbol} at a time out of {text}", time_text(opening.now)
            )
    return None


def _open_orders(opening: OrderToOpen) -> BrokenGuard | None:
    symbol, limits = opening.parameters.symbol, opening.limits
    for most, of, name in (
        (limits.account.max_open_orders, None, "the account"),
        (limits.of_symbol(symbol).max_open_orders, symbol, symbol),
    ):
        if most is not None and (orders := opening.account.open_orders(of)) >= most:
            return BrokenGuard("max_open_orders", f"{most} at most for {name}", f"{orders + 1}")
    return None


def _orders_per_second(opening: OrderToOpen) -> BrokenGuard | None:
    most = opening.limits.account.max_orders_per_second
    if most is None or (orders := opening.account.orders_last_second) < most:
        return None
    return BrokenGuard("max_orders_per_second", f"{most} at most for the account", f"{orders + 1}")


def _orders_per_day(opening: OrderToOpen) -> BrokenGuard | None:
    most = opening.limits.account.max_orders_per_day
    if most is None or (orders := opening.account.orders_today) < most:
        return None
    return BrokenGuard("max_orders_per_day", f"{most} at most for the account", f"{orders + 1}")


def _position_volume(opening: OrderToOpen) -> BrokenGuard | None:
    asked = opening.parameters
    most = opening.order.max_position_volume
    if most is None:
        return None
    lots = opening.account.exposure(asked.symbol).plus(asked.side, asked.volume).side(asked.side)
    if lots <= most:
        return None
    word = "long" if asked.side == "buy" else "short"
    return BrokenGuard("max_position_volume", f"{plain(most)} lots at most for {asked.symbol}", f"{plain(lots)} {word}")


def _total_volume(opening: OrderToOpen) -> BrokenGuard | None:
    asked, most = opening.parameters, opening.limits.account.max_total_volume
    if most is None:
        return None
    here = opening.account.exposure(asked.symbol)
    after = here.plus(asked.side, asked.volume)
    if after.largest <= here.largest:  # it makes less of what is open the other way: never held back
        return None
    others = (symbol for symbol in opening.account.symbols() if symbol != asked.symbol)
    lots = after.largest + sum((opening.account.exposure(symbol).largest for symbol in others), Decimal(0))
    return None if lots <= most else BrokenGuard("max_total_volume", f"{plain(most)} lots at most", f"{plain(lots)}")


DeskGuard = Callable[[OrderToOpen], BrokenGuard | None]
BEFORE_QUOTE: tuple[DeskGuard, ...] = (
    _by_itself,
    _signal_age,
    _window,
    _orders_per_second,
    _orders_per_day,
    _open_orders,
    _position_volume,
    _total_volume,
)


# --- with a quote: the terminal's


UNKNOWN_WORTH = "an order that nobody can value: the rate is not known"


def with_quote(quoted: QuotedOrder) -> BrokenGuard | None:
    """Return the first guard with a quote that an order breaks, None if it keeps them all."""
    return next((broken for guard in WITH_QUOTE if (broken := guard(quoted)) is not None), None)


def _tick_age(quoted: QuotedOrder) -> BrokenGuard | None:
    most, symbol = quoted.limits.max_tick_age_s, quoted.parameters.symbol
    if most is None:
        return None
    # A pending order waits for its price: how old the last one is says nothing against it.
    if quoted.age_s > most and quoted.parameters.order_type == "market" and not quoted.has_moved:
        limit = f"a quote of {symbol} not older than {most:g} s"
        return BrokenGuard("max_tick_age_s", limit, f"one of {quoted.age_s:.0f} s ago", may_pass=True)
    # No tick is from the future: our clock was set back, and every not_after with it.
    if -quoted.age_s > most:
        what_to_do = "set the clock of the terminal's machine, or restart the terminal if it is right now"
        value = f"a quote of {symbol} {-quoted.age_s:.0f} s from now: {what_to_do}"
        return BrokenGuard("max_tick_age_s", "a clock that is right", value, may_pass=True)
    return None


def _spread(quoted: QuotedOrder) -> BrokenGuard | None:
    most = quoted.limits.max_spread_points
    if most is None or quoted.parameters.order_type != "market" or quoted.spread_points <= most:
        return None
    limit = f"{most} points at most for {quoted.parameters.symbol}"
    return BrokenGuard("max_spread_points", limit, f"{quoted.spread_points:.1f}", may_pass=True)


def _price_distance(quoted: QuotedOrder) -> BrokenGuard | None:
    asked = quoted.parameters
    if asked.order_type == "market":
        return None
    return price_distance((asked.price, asked.stop_limit_price), quoted.market, quoted.limits)


def price_distance(prices: Iterable[Decimal | None], market: Decimal, limits: QuoteLimits) -> BrokenGuard | None:
    """Return whether one of these prices, as an order has them or shall have, is too far from the market."""
    most = limits.max_price_distance
    if most is None or not market:
        return None
    for price in prices:
        if price is not None and abs(price - market) > abs(market) * most:
            limit = f"a price within {percent(most)} of the market at {plain(market)}"
            return BrokenGuard("max_price_distance", limit, f"{plain(price)}")
    return None


def _notional(quoted: QuotedOrder) -> BrokenGuard | None:
    most, asked = quoted.limits.max_notional, quoted.parameters
    if most is None:
        return None
    limit = f"{plain(most)} {quoted.currency} at most for {asked.symbol}"
    worth = _worth(quoted, asked.volume)
    if worth is None:
        return BrokenGuard("max_notional", limit, UNKNOWN_WORTH, may_pass=True)
    return None if worth <= most else BrokenGuard("max_notional", limit, f"{worth:.2f}")


def _order_leverage(quoted: QuotedOrder) -> BrokenGuard | None:
    """Catch what is wrong by an order of magnitude, as a volume in ounces where lots are meant."""
    most, currency, guard = quoted.limits.max_order_leverage, quoted.currency, "max_order_leverage"
    if not isinstance(most, Decimal) or not quoted.opens:  # not set, or off; or it closes and reduces
        return None
    if quoted.equity is None or quoted.equity <= 0:
        got = "one that is not known" if quoted.equity is None else f"{quoted.equity:.2f}"
        return BrokenGuard(guard, f"an equity above 0 {currency} to measure what opens by", got, may_pass=True)
    allowed, worth = most * quoted.equity, _worth(quoted, quoted.opens)
    limit = f"{allowed:.2f} {currency} at most for {quoted.parameters.symbol}, {plain(most)} times the equity"
    if worth is None:
        return BrokenGuard(guard, limit, UNKNOWN_WORTH, may_pass=True)
    value = f"{worth:.2f} by {plain(quoted.opens)} lots of {plain(quoted.contract_size)}"
    return None if worth <= allowed else BrokenGuard(guard, limit, value)


def _worth(quoted: QuotedOrder, volume: Decimal) -> Decimal | None:
    if quoted.rate is None or not quoted.contract_size:
        return None
    return notional(volume, quoted.price, quoted.contract_size, quoted.rate)


def notional(volume: Decimal, price: Decimal, contract_size: Decimal, rate: Decimal) -> Decimal:
    """Return what lots are worth in the account's currency; a price may be less than 0, a worth is not."""
    return abs(volume * price * contract_size * rate)


def percent(share: Decimal) -> str:
    """Return a share as text: ``50 %``."""
    return f"{float(share * 100):g} %"


TerminalGuard = Callable[[QuotedOrder], BrokenGuard | None]
WITH_QUOTE: tuple[TerminalGuard, ...] = (_tick_age, _spread, _price_distance, _notional, _order_leverage)
