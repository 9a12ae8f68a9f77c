"""The figures of a period, from its records: pure, exact, and nothing is added up across currencies."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from pydantic import Field

from streamapp.domain.facts import SubmitStarted
from streamapp.domain.orders import EXACT, exact_sum
from streamapp.domain.steps import Moment, Step, steps_between
from streamapp.domain.vocabulary import FINAL_STATUSES, Frozen, Money
from streamapp.messages.order import OrderCost, OrderMessage
from streamapp.report.records import LastPrice, OrderRecord, Profit, Records, Refusals
from streamapp.report.shortfall import Shortfall, mid, shortfall

Benchmark = Literal["expected", "touch"]
Dimension = Literal["symbol", "strategy", "hour", "order_type"]

_FINE = Decimal("0.0001")
_DIMENSIONS: dict[Dimension, Callable[[OrderMessage], str]] = {
    "symbol": lambda order: order.symbol,
    "strategy": lambda order: order.strategy or "",
    "hour": lambda order: f"{(order.submitted_at or order.created_at):%H}:00",
    "order_type": lambda order: order.order_type,
}


class Spread(Frozen):
    """How values are spread: their mean, median and 95th percentile, rounded to four digits."""

    mean: Money
    median: Money
    p95: Money


class SlippageRow(Frozen):
    """The slippage of ``n`` orders against one benchmark; positive is adverse.

    ``points`` is None where the orders are of more than one symbol, whose points are not the same, or where it is not
    known; ``money``, in ``currency``, where somebody else's connector has shown none.
    """

    benchmark: Benchmark
    dimension: Dimension
    key: str
    currency: str
    n: int
    points: Spread | None
    bps: Spread
    money: Spread | None


class ShortfallParts(Frozen):
    """An implementation shortfall in ``currency``, its parts, and their exact sum (:mod:`streamapp.report.shortfall`).

    ``opportunity`` is None where no price is known, and is then not in the total.
    """

    strategy: str
    currency: str
    delay: Money
    execution: Money
    fees: Money
    opportunity: Money | None
    total: Money
    bps: Money | None


class ShortfallRow(ShortfallParts):
    """The shortfall of one order."""

    order_id: str
    symbol: str


class ShortfallSum(ShortfallParts):
    """The shortfall of ``orders`` orders of a strategy; of ``not_known`` of them the opportunity cost is not in it."""

    orders: int
    not_known: int


class FillRatios(Frozen):
    """What became of a strategy's orders of a symbol, those that are over.

    ``sent``: those that were at the broker, with their ``volume``; ``fill_ratio``: the lots filled of that, None where
    nothing was sent. ``rejected``: those that the broker rejected, or that never came to it; ``reject_ratio``: of all.
    """

    strategy: str
    symbol: str
    orders: int
    sent: int
    filled: int
    rejected: int
    volume: Money
    filled_volume: Money
    fill_ratio: Money | None
    reject_ratio: Money


class Reason(Frozen):
    """How often something did not go as asked, and why; ``what`` is the order's status, or ``signal refused``."""

    what: str
    reason: str
    count: int


class Latency(Frozen):
    """How long a step took, in milliseconds."""

    step: Step
    n: int
    p50: Money
    p95: Money
    p99: Money


class TradingReport(Frozen):
    """All figures of a period.

    ``unmeasured``: how many orders have no shortfall, by why. ``slippage_bps``: each order's, against its expected
    price; not in the JSON.
    """

    first: date
    last: date
    account: str | None
    strategy: str | None
    profits: tuple[Profit, ...]
    slippage: tuple[SlippageRow, ...]
    shortfall: tuple[ShortfallSum, ...]
    shortfall_by_order: tuple[ShortfallRow, ...]
    unmeasured: dict[str, int]
    ratios: tuple[FillRatios, ...]
    reasons: tuple[Reason, ...]
    latency: tuple[Latency, ...]
    slippage_bps: tuple[Money, ...] = Field(exclude=True)


def report_of(records: Records) -> TradingReport:
    """Return the figures of a period."""
    orders = [record.order for record in records.orders]
    measured, unmeasured = _shortfalls(records)
    return TradingReport(
        first=records.first,
        last=records.last,
        account=records.account,
        strategy=records.strategy,
        profits=records.profits,
        slippage=tuple(_slippage(orders)),
        shortfall=tuple(_sums(measured)),
        shortfall_by_order=tuple(
            ShortfallRow(order_id=order.order_id, symbol=order.symbol, **_parts(order.strategy, currency, cost))
            for (order, _, _), currency, cost in measured
        ),
        unmeasured=unmeasured,
        ratios=tuple(_ratios(orders)),
        reasons=tuple(_reasons(orders, records.refusals)),
        latency=tuple(_latency(records.orders)),
        slippage_bps=tuple(cost.bps for order in orders if (cost := _cost(order, "expected")) is not None),
    )


def percentile(values: Iterable[Decimal], share: Decimal) -> Decimal:
    """Return the value below which ``share`` of the values lie, interpolated between two of them.

    The place of it, from 0, is ``share`` times one less than their number. Of 1, 2, 3, 10 the place of the median is
    1.5: halfway from 2 to 3. The place of the 95th percentile is 2.85: 3 + 0.85 * (10 - 3).

    >>> four = [Decimal(10), Decimal(1), Decimal(3), Decimal(2)]
    >>> percentile(four, Decimal("0.5"))
    Decimal('2.5')
    >>> percentile(four, Decimal("0.95"))
    Decimal('8.95')
    """
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    lower = ordered[below]
    if place == below:
        return lower
    return EXACT.fma(EXACT.subtract(ordered[below + 1], lower), place - below, lower)


def spread(values: Sequence[Decimal]) -> Spread:
    """Return how values, at least one, are spread.

    >>> spread([Decimal(1), Decimal(2), Decimal(6)])
    Spread(mean=Decimal('3.0000'), median=Decimal('2.0000'), p95=Decimal('5.6000'))
    """
    mean = EXACT.divide(exact_sum(values), Decimal(len(values)))
    return Spread(
        mean=_fine(mean),
        median=_fine(percentile(values, Decimal("0.5"))),
        p95=_fine(percentile(values, Decimal("0.95"))),
    )


def _fine(value: Decimal) -> Decimal:
    return value.quantize(_FINE, context=EXACT)


# --- slippage


def _slippage(orders: Sequence[OrderMessage]) -> Iterable[SlippageRow]:
    for benchmark in ("expected", "touch"):
        for dimension, key_of in _DIMENSIONS.items():
            groups: defaultdict[tuple[str, str], list[tuple[str, OrderCost]]] = defaultdict(list)
            for order in orders:
                if (cost := _cost(order, benchmark)) is not None:
                    currency = (order.slippage and order.slippage.currency) or ""
                    groups[key_of(order), currency].append((order.symbol, cost))
            for (key, currency), several in sorted(groups.items()):
                yield _slippage_row(benchmark, dimension, key, currency, several)


def _slippage_row(
    benchmark: Benchmark, dimension: Dimension, key: str, currency: str, several: Sequence[tuple[str, OrderCost]]
) -> SlippageRow:
    costs = [cost for _, cost in several]
    points = [cost.points for cost in costs if cost.points is not None]
    money = [cost.money for cost in costs if cost.money is not None]
    one_symbol = len({symbol for symbol, _ in several}) == 1
    return SlippageRow(
        benchmark=benchmark,
        dimension=dimension,
        key=key,
        currency=currency,
        n=len(costs),
        points=spread(points) if one_symbol and points else None,
        bps=spread([cost.bps for cost in costs]),
        money=spread(money) if money else None,
    )


def _cost(order: OrderMessage, benchmark: Benchmark) -> OrderCost | None:
    if order.slippage is None:
        return None
    return order.slippage.expected if benchmark == "expected" else order.slippage.touch


# --- implementation shortfall


def _shortfalls(records: Records) -> tuple[list[tuple[OrderRecord, str, Shortfall]], dict[str, int]]:
    """Return the orders' shortfalls with their currencies, the costliest first, and how many have none, by why."""
    markets, prices = _last_markets(records.orders), _last_prices(records)
    found: list[tuple[OrderRecord, str, Shortfall]] = []
    without: Counter[str] = Counter()
    for record in records.orders:
        place = (record.order.account, record.order.symbol)
        market = record.market or markets.get(place)
        cost = shortfall(record, prices.get(place), market)
        if isinstance(cost, Shortfall):
            found.append((record, "" if market is None else market.currency, cost))
        else:
            without[cost] += 1
    return sorted(found, key=lambda one: (-one[2].total, one[0].order.order_id)), dict(sorted(without.items()))


def _last_markets(orders: Iterable[OrderRecord]) -> dict[tuple[str, str], SubmitStarted]:
    shown = [(record.order, record.market) for record in orders if record.market is not None]
    return {
        (order.account, order.symbol): market for order, market in sorted(shown, key=lambda shown: shown[1].sent_at)
    }


def _last_prices(records: Records) -> dict[tuple[str, str], LastPrice]:
    quotes = (
        ((order.account, order.symbol), LastPrice(mid(market), market.sent_at))
        for order, _, market in records.orders
        if market is not None
    )
    newest = sorted([*records.deals.items(), *quotes], key=lambda known: known[1].at)
    return dict(newest)


def _sums(measured: Iterable[tuple[OrderRecord, str, Shortfall]]) -> Iterable[ShortfallSum]:
    groups: defaultdict[tuple[str, str], list[Shortfall]] = defaultdict(list)
    for record, currency, cost in measured:
        groups[record.order.strategy or "", currency].append(cost)
    for (strategy, currency), several in sorted(groups.items()):
        whole = Shortfall(
            delay=exact_sum(cost.delay for cost in several),
            execution=exact_sum(cost.execution for cost in several),
            fees=exact_sum(cost.fees for cost in several),
            opportunity=exact_sum(cost.opportunity or Decimal(0) for cost in several),
            paper=exact_sum(abs(cost.paper) for cost in several),
        )
        not_known = sum(cost.opportunity is None for cost in several)
        yield ShortfallSum(orders=len(several), not_known=not_known, **_parts(strategy, currency, whole))


def _parts(strategy: str | None, currency: str, exact: Shortfall) -> dict[str, Any]:
    return {
        "strategy": strategy or "",
        "currency": currency,
        "delay": exact.delay,
        "execution": exact.execution,
        "fees": exact.fees,
        "opportunity": exact.opportunity,
        "total": exact.total,
        "bps": None if exact.bps is None else _fine(exact.bps),
    }


# --- ratios and latency


def _ratios(orders: Iterable[OrderMessage]) -> Iterable[FillRatios]:
    groups: defaultdict[tuple[str, str], list[OrderMessage]] = defaultdict(list)
    for order in orders:
        if order.status in FINAL_STATUSES:
            groups[order.strategy or "", order.symbol].append(order)
    for (strategy, symbol), several in sorted(groups.items()):
        rejected = sum(order.status in {"rejected", "failed"} for order in several)
        sent = [order for order in several if order.status != "failed"]
        volume = exact_sum(order.volume for order in sent)
        filled_volume = exact_sum(order.filled_volume for order in sent)
        yield FillRatios(
            strategy=strategy,
            symbol=symbol,
            orders=len(several),
            sent=len(sent),
            filled=sum(order.status == "filled" for order in several),
            rejected=rejected,
            volume=volume,
            filled_volume=filled_volume,
            fill_ratio=_fine(EXACT.divide(filled_volume, volume)) if volume else None,
            reject_ratio=_fine(EXACT.divide(Decimal(rejected), Decimal(len(several)))),
        )


def _reasons(orders: Iterable[OrderMessage], refusals: Iterable[Refusals]) -> list[Reason]:
    counts = Counter(
        (order.status, order.detail) for order in orders if order.status in {"rejected", "failed", "cancelled"}
    )
    found = [Reason(what=what, reason=reason, count=count) for (what, reason), count in counts.items()]
    found += [Reason(what="signal refused", reason=one.reason, count=one.count) for one in refusals]
    return sorted(found, key=lambda reason: (-reason.count, reason.what, reason.reason))


def _latency(records: Iterable[OrderRecord]) -> Iterable[Latency]:
    times: defaultdict[Step, list[Decimal]] = defaultdict(list)
    for order, fills, _ in records:
        moments: dict[Moment, datetime] = {"signal": order.signal_at, "created": order.created_at}
        if order.submitted_at is not None:
            moments["order_send"] = order.submitted_at
            # How long a pending order waits for its price says nothing about the road.
            if fills and order.order_type == "market":
                moments["fill"] = min(fill.at for fill in fills)
        for step, took in steps_between(moments):
            times[step].append(_milliseconds(took))
    for step, several in times.items():
        p50, p95, p99 = (_fine(percentile(several, Decimal(share))) for share in ("0.5", "0.95", "0.99"))
        yield Latency(step=step, n=len(several), p50=p50, p95=p95, p99=p99)


def _milliseconds(between: timedelta) -> Decimal:
    """Return the exact milliseconds of a time.

    >>> _milliseconds(datetime(2026, 11, 20, 12, 0, 1, 4000) - datetime(2026, 11, 20, 12, 0, 0, 1500))
    Decimal('1002.500')
    """
    return Decimal((between.days * 86_400 + between.seconds) * 1_000_000 + between.microseconds).scaleb(-3)
