"""The figures as tables of text, which the terminal and the page show alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import NamedTuple

from streamapp.domain.orders import EXACT, exact_sum
from streamapp.domain.vocabulary import decimal_text
from streamapp.report.figures import ShortfallParts, SlippageRow, Spread, TradingReport

_CENT = Decimal("0.01")
_UNKNOWN = "not known"
_NOTHING = "-"
# A terminal obeys some of these, and no XML has them, escaped or not.
_BENCHMARKS = {
    "expected": "Slippage against the expected price",
    "touch": "Slippage against the touch at sending (ask for a buy, bid for a sell)",
}


class Table(NamedTuple):
    """A table: the names of its columns, texts first, then numbers; ``note`` says how to read it."""

    title: str
    texts: tuple[str, ...]
    numbers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def tables_of(report: TradingReport, *, orders: int) -> list[Table]:
    """Return the report's tables, those without a row left out; of the orders' shortfalls the ``orders`` costliest."""
    several = (
        _profits(report),
        *_slippage(report),
        _shortfall(report),
        _shortfall_by_order(report, orders),
        _ratios(report),
        _reasons(report),
        _latency(report),
    )
    return [table for table in several if table.rows]


def title_of(report: TradingReport) -> str:
    """Return what the report is of."""
    days = str(report.first) if report.first == report.last else f"{report.first} to {report.last}"
    chosen = [f"account {report.account}"] if report.account is not None else []
    chosen += [f"strategy {report.strategy or _NOTHING}"] if report.strategy is not None else []
    return ", ".join([f"Trading of {days} (UTC)", *chosen])


def _profits(report: TradingReport) -> Table:
    return Table(
        "Profit and loss by strategy",
        ("account", "strategy", "symbol", "currency"),
        ("realized", "profit", "commission", "swap", "fee", "fills", "lots", "won", "lost"),
        tuple(
            (
                *(row.account, row.strategy or _NOTHING, row.symbol, row.currency),
                *map(_money, (row.realized_profit, row.profit, row.commission, row.swap, row.fee)),
                *(str(row.fills), _plain(row.volume), str(row.wins), str(row.losses)),
            )
            for row in report.profits
        ),
        "realized is the sum of the next four; won and lost are positions that were closed.",
    )


def _slippage(report: TradingReport) -> Iterator[Table]:
    for benchmark, title in _BENCHMARKS.items():
        rows = [row for row in report.slippage if row.benchmark == benchmark]
        yield Table(
            title,
            ("by", "value", "currency"),
            ("n", *(f"{unit} {word}" for unit in ("points", "bps", "money") for word in ("mean", "median", "p95"))),
            tuple(map(_slippage_row, rows)),
            "Positive is adverse. Hours are UTC, of the sending. Points are shown where all orders are of one symbol.",
        )


def _slippage_row(row: SlippageRow) -> tuple[str, ...]:
    by = row.dimension.replace("_", " ")
    spreads = (*_spread(row.points, 1), *_spread(row.bps, 2), *_spread(row.money, 2))
    return (by, row.key or _NOTHING, row.currency or _NOTHING, str(row.n), *spreads)


def _shortfall(report: TradingReport) -> Table:
    without = ", ".join(f"{count} {why}" for why, count in report.unmeasured.items())
    note = "delay + execution + fees + opportunity = total; positive is adverse."
    return Table(
        "Implementation shortfall by strategy",
        ("strategy", "currency"),
        ("orders", "delay", "execution", "fees", "opportunity", "total", "bps", "opportunity not known"),
        tuple(
            (row.strategy or _NOTHING, row.currency, str(row.orders), *_parts(row), str(row.not_known))
            for row in report.shortfall
        ),
        f"{note} Orders without one: {without}." if without else note,
    )


def _shortfall_by_order(report: TradingReport, most: int) -> Table:
    known = report.shortfall_by_order
    return Table(
        "Implementation shortfall by order",
        ("order", "strategy", "symbol", "currency"),
        ("delay", "execution", "fees", "opportunity", "total", "bps"),
        tuple((row.order_id, row.strategy or _NOTHING, row.symbol, row.currency, *_parts(row)) for row in known[:most]),
        f"The {most} costliest of {len(known)}." if len(known) > most else "",
    )


def _ratios(report: TradingReport) -> Table:
    return Table(
        "Fill and reject ratios",
        ("strategy", "symbol"),
        ("orders", "sent", "filled", "rejected", "lots", "filled lots", "fill ratio", "reject ratio"),
        tuple(
            (
                *(row.strategy or _NOTHING, row.symbol),
                *map(str, (row.orders, row.sent, row.filled, row.rejected)),
                *(_plain(row.volume), _plain(row.filled_volume), _percent(row.fill_ratio), _percent(row.reject_ratio)),
            )
            for row in report.ratios
        ),
        "Of the orders that are over. Lots are of those that were at the broker; rejected are those that it rejected, "
        "and those that never came to it.",
    )


def _reasons(report: TradingReport) -> Table:
    rows = tuple((row.what, row.reason or _NOTHING, str(row.count)) for row in report.reasons)
    return Table("Why not filled", ("what", "reason"), ("n",), rows)


def _latency(report: TradingReport) -> Table:
    return Table(
        "Latency, milliseconds",
        ("step",),
        ("n", "p50", "p95", "p99"),
        tuple(
            (row.step, str(row.n), *(_places(value, 1) for value in (row.p50, row.p95, row.p99)))
            for row in report.latency
        ),
        "Steps to the fill are of market orders; a fill has the broker's time, so its clock is in them.",
    )


def _parts(row: ShortfallParts) -> tuple[str, ...]:
    """Return the parts in cents and the sum of what is shown, so that it adds up to the last digit."""
    parts = [None if part is None else _cents(part) for part in (row.delay, row.execution, row.fees, row.opportunity)]
    total = exact_sum(part for part in parts if part is not None)
    shown = (_UNKNOWN if part is None else decimal_text(part) for part in parts)
    return (*shown, decimal_text(total), _NOTHING if row.bps is None else _places(row.bps, 2))


def _spread(spread: Spread | None, places: int) -> Sequence[str]:
    if spread is None:
        return (_NOTHING,) * 3
    return tuple(_places(value, places) for value in (spread.mean, spread.median, spread.p95))


def _cents(amount: Decimal) -> Decimal:
    return amount.quantize(_CENT, context=EXACT)


def _money(amount: Decimal) -> str:
    return decimal_text(_cents(amount))


def _places(value: Decimal, places: int) -> str:
    return decimal_text(value.quantize(Decimal(1).scaleb(-places), context=EXACT))


def _plain(value: Decimal) -> str:
    return decimal_text(value.normalize(EXACT))


def _percent(ratio: Decimal | None) -> str:
    return _NOTHING if ratio is None else f"{_places(ratio * 100, 1)} %"
