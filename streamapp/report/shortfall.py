"""Implementation shortfall: what an order has cost against a decision carried out at once, for nothing, at its price.

Perold, "The implementation shortfall: paper versus reality" (1988), in the parts of Wagner and Edwards. With s = +1 for
a buy and -1 for a sell, S the lots asked for, fills of q lots at p, F their sum, and m the mid of the market::

    delay        s F (arrival - decision)              from the decision to the sending
    execution    s (sum of q p - F arrival)            spread and impact, from the sending to the fills
    fees         commission and fee of the fills
    opportunity  s (S - F) (last - decision)           what was not filled, at the period's last known price

each but the fees times contract size and account rate: money in the account's currency. Positive is adverse. Decision
is the order's expected price, arrival the mid just before ``order_send``. Nothing is rounded, so the parts add up to

    s (sum of q p - F decision + (S - F) (last - decision)) + fees

exactly: paper return less real return.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal, NamedTuple

from streamapp.domain.facts import SubmitStarted
from streamapp.domain.orders import EXACT, exact_sum
from streamapp.domain.vocabulary import FINAL_STATUSES
from streamapp.report.records import LastPrice, OrderRecord

Unmeasured = Literal["still open", "invalid", "no expected price", "no market shown"]
"""Why an order has no shortfall. ``invalid``: no broker could have carried it out, so nothing was missed. ``no market
shown``: no terminal of ours has shown its symbol's contract size and rate."""

_BPS = Decimal(10_000)


class Shortfall(NamedTuple):
    """The parts, in the account's currency; ``opportunity`` None: no price is known after the signal.

    ``paper`` is the value that was to be traded, S times the decision's price, in the same currency.
    """

    delay: Decimal
    execution: Decimal
    fees: Decimal
    opportunity: Decimal | None
    paper: Decimal

    @property
    def total(self) -> Decimal:
        """The sum of the parts that are known."""
        return exact_sum((self.delay, self.execution, self.fees, self.opportunity or Decimal(0)))

    @property
    def bps(self) -> Decimal | None:
        """The total in basis points of what was to be traded; None where that was worth nothing."""
        if not self.paper:
            return None
        return EXACT.divide(EXACT.multiply(self.total, _BPS), abs(self.paper))


def shortfall(record: OrderRecord, last: LastPrice | None, market: SubmitStarted | None) -> Shortfall | Unmeasured:
    """Return what an order has cost, or why nobody can say.

    A buy of 2 lots at 100 of which 1 was filled: the mid was 101 at sending, the fill 102, the last price is 105, one
    unit of price is worth 10 a lot, and the commission was 3. The delay cost (101 - 100) * 1 * 10, the execution
    (102 - 101) * 1 * 10, and the lot that was missed (105 - 100) * 1 * 10::

        Shortfall(delay=10, execution=10, fees=3, opportunity=50, paper=2000), total 73, 365 bps

    Args:
        record: The order.
        last: The last price that the period shows of its symbol; one from before the signal says nothing of it.
        market: The last market shown of its symbol, for the contract size and rate of an order that was never sent.
    """
    order = record.order
    if order.status not in FINAL_STATUSES:
        return "still open"
    if (order.status, order.detail) == ("failed", "invalid"):
        return "invalid"
    decision, scale = order.expected_price, record.market or market
    if decision is None:
        return "no expected price"
    if scale is None or (record.fills and record.market is None):
        return "no market shown"
    unit = EXACT.multiply(scale.contract_size, scale.account_rate)
    filled = exact_sum(fill.volume for fill in record.fills)
    paid = exact_sum(EXACT.multiply(fill.price, fill.volume) for fill in record.fills)
    missed = max(Decimal(0), EXACT.subtract(order.volume, filled))
    arrival = decision if record.market is None else mid(record.market)

    def cost(paid: Decimal, lots: Decimal, price: Decimal) -> Decimal:
        adverse = EXACT.multiply(EXACT.subtract(paid, EXACT.multiply(lots, price)), unit)
        return adverse if order.side == "buy" else EXACT.minus(adverse)

    opportunity: Decimal | None = Decimal(0)
    if missed:
        known = last is not None and last.at >= order.signal_at
        opportunity = cost(EXACT.multiply(missed, last.price), missed, decision) if last and known else None
    return Shortfall(
        delay=cost(EXACT.multiply(filled, arrival), filled, decision),
        execution=cost(paid, filled, arrival),
        fees=EXACT.minus(exact_sum(amount for fill in record.fills for amount in (fill.commission, fill.fee))),
        opportunity=opportunity,
        paper=EXACT.multiply(EXACT.multiply(order.volume, decision), unit),
    )


def mid(market: SubmitStarted) -> Decimal:
    """Return the middle of the market at sending."""
    return EXACT.divide(EXACT.add(market.bid, market.ask), Decimal(2))
