"""What an execution cost against the expected price and the touch (design: messages).

Positive is adverse. With s = +1 for a buy and -1 for a sell, price p, benchmark b and volume q::

    points = s (p - b) / point
    bps    = 10^4 s (p - b) / b
    money  = s (p - b) q contract_size account_rate          in the account's currency

Rounding, half to even, once and at the end:

- points to 1 digit: an arrival mid lies between two points at most, and an average over fills needs no more.
- bps to 4 digits: a tenth of a point is 0.01 bps on EURUSD and 0.0004 on gold, so nothing that points show is lost.
- money to 4 digits: accounts are kept in currencies of 0 to 3 digits, and with a ten-thousandth the rounded costs of 99
  fills still add up to the cost of their order within half a cent. The order's own is computed from the unrounded sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from streamapp.domain.facts import Filled, SubmitStarted
from streamapp.domain.orders import EXACT, OrderState
from streamapp.domain.vocabulary import ExpectedPriceSource, Side

_POINTS = Decimal("0.1")
_FINE = Decimal("0.0001")
_MOST_DIGITS = (
    27  # before the point, as the warehouse keeps them; a cost beyond that is nonsense from outside and left out
)


class Cost(NamedTuple):
    """A cost against one benchmark; ``points`` and ``money`` are None where the point and the rate are not known."""

    points: Decimal | None
    bps: Decimal
    money: Decimal | None


class Costs(NamedTuple):
    """The cost against both benchmarks; ``currency`` is that of ``money``."""

    expected: Cost | None
    touch: Cost | None
    currency: str | None


def expected_price(state: OrderState) -> tuple[Decimal, ExpectedPriceSource] | None:
    """Return what the order is measured against: the signal's price, or else the mid at sending; None before either."""
    if state.created is None:
        return None
    if state.created.expected_price is not None:
        return state.created.expected_price, "signal"
    market = state.started
    return None if market is None else ((market.bid + market.ask) / 2, "arrival_mid")


def touch_price(side: Side, market: SubmitStarted) -> Decimal:
    """Return what a market order meets at sending: the ask for a buy, the bid for a sell."""
    return market.ask if side == "buy" else market.bid


def order_slippage(state: OrderState) -> Costs | None:
    """Return the cost of all fills of the order together, None without one."""
    return slippage(state, state.fills)


def slippage(state: OrderState, fills: Sequence[Filled]) -> Costs | None:
    """Return the cost of some of the order's fills together, None without a fill or before OrderCreated."""
    parameters = state.parameters
    if parameters is None or not fills:
        return None
    market = state.started
    expected = expected_price(state)
    return Costs(
        expected=None if expected is None else cost(parameters.side, fills, expected[0], market),
        touch=None if market is None else cost(parameters.side, fills, touch_price(parameters.side, market), market),
        currency=None if market is None else market.currency,
    )


def cost(side: Side, fills: Sequence[Filled], benchmark: Decimal, market: SubmitStarted | None) -> Cost | None:
    """Return the cost of ``fills`` against ``benchmark``; None where that is no price, or the result no amount.

    Args:
        side: Of the order.
        fills: At least one.
        benchmark: A price in the symbol's quote.
        market: Gives point, contract size and account rate; None from a foreign connector.
    """
    if not benchmark:  # prices may be negative, as oil's were; against 0 there are no basis points
        return None
    paid = volume = Decimal(0)
    for filled in fills:
        paid = EXACT.fma(filled.price, filled.volume, paid)
        volume = EXACT.add(volume, filled.volume)
    adverse = EXACT.subtract(
        paid, EXACT.multiply(benchmark, volume)
    )  # s (p - b) q, exact: no average was rounded on the way
    adverse = adverse if side == "buy" else EXACT.minus(adverse)
    per_lot = EXACT.divide(adverse, volume)
    bps = _rounded(EXACT.divide(EXACT.multiply(per_lot, Decimal(10_000)), abs(benchmark)), _FINE)
    if bps is None or market is None:
        return None if bps is None else Cost(None, bps, None)
    points = None if market.point <= 0 else _rounded(EXACT.divide(per_lot, market.point), _POINTS)
    money = EXACT.multiply(EXACT.multiply(adverse, market.contract_size), market.account_rate)
    return Cost(points, bps, _rounded(money, _FINE))


def _rounded(value: Decimal, step: Decimal) -> Decimal | None:
    return None if value.adjusted() >= _MOST_DIGITS else value.quantize(step, context=EXACT)
