"""Limits: what orders that open may not exceed, as settings and commands say it, and which of several holds.

A limit may stand in four places: for the house, for an account, and each of them for one symbol alone. What holds is
the strictest of them, so that a narrower place adds to a wider one and never loosens it. Only what a person sets while
it runs stands in place of the file's, stricter or not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from streamapp.domain.vocabulary import BoundedDecimal, Frozen, Lots, UtcTime
from streamapp.domain.windows import window

Amount = Annotated[BoundedDecimal, Field(gt=0)]
"""Money in the account's currency."""
Share = Annotated[BoundedDecimal, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=0)]
NoTrade = Annotated[str, AfterValidator(lambda text: window(text).text)]
OFF: Literal["off"] = "off"


def _multiple(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    """Return the value; raises ValueError with one sentence where pydantic has one for each kind that it might be."""
    try:
        return read(value)
    except ValidationError:
        raise ValueError(f'expected a number above 0, or "{OFF}", got {value!s:.40}') from None


Multiple = Annotated[Literal["off"] | Amount, WrapValidator(_multiple)]
"""How many times something; ``off`` takes a limit away that has a default."""


class QuoteLimits(Frozen):
    """What a terminal judges one order by, with the live quote in its hand."""

    max_volume: Lots | None = Field(None, description="Most lots in one order.")
    symbols: tuple[str, ...] = Field((), description="If given, no other symbol is traded.")
    max_notional: Amount | None = Field(
        None, description="Most that one order may be worth: price x contract size x lots, in the account's currency."
    )
    max_order_leverage: Multiple | None = Field(
        None,
        description="Most that one order may be worth, as a multiple of the account's equity; `off`: any.",
    )
    max_spread_points: Count | None = Field(
        None, description="A market order waits, and is refused, while the spread is wider than so many points."
    )
    max_price_distance: Share | None = Field(
        None, description="A limit or stop price further from the market than this share of it is refused."
    )
    max_tick_age_s: float | None = Field(
        None,
        gt=0,
        description="A terminal refuses a market order that opens when its last tick is older and no newer one comes.",
    )
    max_level_distance: Decimal | None = Field(
        None,
        gt=0,
        description="Prices and levels further from the market than this share of it are refused as implausible.",
    )


class SymbolLimits(QuoteLimits):
    """What may be limited for one symbol alone; for an account it counts for each of its symbols, orders for all."""

    model_config = ConfigDict(extra="forbid")

    max_signal_age_s: float | None = Field(
        None, gt=0, description="A signal is refused so long after approved_at, however long it is valid."
    )
    max_open_orders: Count | None = Field(
        None, description="Most orders that are not over: of an account, or of one symbol at it."
    )
    max_position_volume: Lots | None = Field(
        None, description="Most lots, long or short, of one symbol, with all that is on its way."
    )
    no_trade: tuple[NoTrade, ...] = Field(
        (), description='When nothing is opened: "21:55-22:10", "fri 20:00-24:00", "23:55-00:10 broker".'
    )


class Limits(SymbolLimits):
    """What may be limited for a house or an account."""

    max_total_volume: Lots | None = Field(
        None, description="Most lots of all symbols together, long and short, with all that is on its way."
    )
    max_orders_per_second: Count | None = Field(None, description="Most orders that an account opens within a second.")
    max_orders_per_day: Count | None = Field(
        None, description="Most orders that an account opens from the broker's midnight on."
    )
    max_daily_loss: Amount | None = Field(
        None, description="Most that an account may lose from the broker's midnight on, open positions included: money."
    )
    max_daily_loss_share: Share | None = Field(
        None, description="The same as a share of the balance at the start of the day."
    )
    max_drawdown: Amount | None = Field(
        None, description="Most that an account may fall below its highest equity of the day: money."
    )
    max_drawdown_share: Share | None = Field(None, description="The same as a share of that highest equity.")
    warn_at: Share | None = Field(
        None, description="The share of a day's loss or drawdown limit at which there is an alarm."
    )
    reduce_at: Share | None = Field(
        None, description="The share at which nothing is opened any more until the broker's midnight."
    )


class LimitOverrides(Frozen):
    """What persons have set for an account while it runs, in place of the file's; ``by`` whom last, and when."""

    model_config = ConfigDict(extra="forbid")

    account: Limits = Limits()
    by_symbol: dict[str, SymbolLimits] = Field(default_factory=dict)
    by: str = ""
    at: UtcTime | None = None


NO_LIMITS = Limits()
NO_SYMBOL_LIMITS = SymbolLimits()
NO_OVERRIDES = LimitOverrides()
DAY_LIMITS = frozenset(
    {"max_daily_loss", "max_daily_loss_share", "max_drawdown", "max_drawdown_share", "warn_at", "reduce_at"}
)
LimitsT = TypeVar("LimitsT", bound=QuoteLimits)


@dataclass(frozen=True, slots=True)
class AccountLimits:
    """What holds at one account: for all of its orders, and more for those of some symbols."""

    account: Limits = NO_LIMITS
    by_symbol: Mapping[str, SymbolLimits] = field(default_factory=dict)

    def of_symbol(self, symbol: str) -> SymbolLimits:
        """Return what is said for this symbol alone."""
        return self.by_symbol.get(symbol, NO_SYMBOL_LIMITS)

    def of_order(self, symbol: str) -> Limits:
        """Return what one order of a symbol must keep."""
        own = self.by_symbol.get(symbol)
        return self.account if own is None else strictest(Limits, (self.account, own))

    def replaced(self, overrides: LimitOverrides) -> AccountLimits:
        """Return what holds with what persons have set in place of the file's."""
        if overrides.at is None:  # nobody has set anything
            return self
        symbols = {**self.by_symbol, **overrides.by_symbol}
        return AccountLimits(
            self.account.model_copy(update=said(overrides.account)),
            {name: self.of_symbol(name).model_copy(update=_of(overrides, name)) for name in symbols},
        )


def said(limits: QuoteLimits) -> dict[str, Any]:
    """Return the limits that are set, by name."""
    values = ((name, getattr(limits, name)) for name in type(limits).model_fields)
    return {name: value for name, value in values if value is not None and value != ()}


def needs_terminal(limits: SymbolLimits) -> frozenset[str]:
    """Return the names of what is set and only a terminal of ours can keep: it shows quotes, equity, and the clock."""
    wanted = set(QuoteLimits.model_fields) - {"max_volume", "symbols"} | DAY_LIMITS
    if any(window(text).by_broker for text in limits.no_trade):
        wanted.add("no_trade")
    return frozenset(wanted & said(limits).keys())


def quote_overrides(overrides: LimitOverrides, limits: AccountLimits, symbol: str) -> QuoteLimits | None:
    """Return what the terminal must judge an order by in place of its own file, None where nothing was changed."""
    names = {*said(overrides.account), *_of(overrides, symbol)} & set(QuoteLimits.model_fields)
    if not names:
        return None
    holds = limits.of_order(symbol)
    return QuoteLimits.model_construct(**{name: getattr(holds, name) for name in names})


def strictest(kind: type[LimitsT], several: Iterable[QuoteLimits]) -> LimitsT:
    """Return the limits of a kind that keep all of ``several``: the least number, every window, the common symbols."""
    known = tuple(several)
    values: dict[str, Any] = {}
    for name in kind.model_fields:
        given = [value for each in known if (value := getattr(each, name, None)) is not None and value != ()]
        if given:
            values[name] = _strictest(name, given)
    return cast(LimitsT, kind.model_construct(**values))


def _strictest(name: str, given: list[Any]) -> Any:
    if name == "no_trade":
        return tuple(dict.fromkeys(each for windows in given for each in windows))
    if name == "symbols":
        return tuple(each for each in given[0] if all(each in others for others in given))
    return min((each for each in given if each != OFF), default=OFF)


def _of(overrides: LimitOverrides, symbol: str) -> dict[str, Any]:
    own = overrides.by_symbol.get(symbol)
    return {} if own is None else said(own)
