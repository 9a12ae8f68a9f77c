"""What the page's plots show, summed up by ClickHouse: a few thousand points at most, however much was traded.

Points that stand side by side are one: of a level (equity, a quote) the last of them, of fills their mean price by
volume. How many that is follows from what there is, so a quiet day, or one that lasted a minute, is shown as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, get_args

from streamapp.clickhouse.client import ClickHouse
from streamapp.domain.vocabulary import time_text

PlotName = Literal["equity", "fills", "latency", "slippage-by-symbol", "slippage-by-strategy", "rejects"]
PLOTS: tuple[PlotName, ...] = get_args(PlotName)
MOST_POINTS = 2000
"""Places on the x-axis of one plot."""
_MOST_SERIES = 12
_MOST_BARS = 30
_LATENCY_POINTS = 200  # a percentile wants more than a few orders
_OF_THE_PERIOD = "{column} >= {{first:Date}} AND {column} < {{end:Date}}"
_ACCOUNT = "({account:String} = '' OR account = {account:String})"
_SYMBOL = "({symbol:String} = '' OR symbol = {symbol:String})"
_STEPS = ("signal to created", "created to order_send", "order_send to fill", "signal to fill")
"""Those of :mod:`streamapp.domain.steps` that orders and fills show, as `streamapp report` has them."""


@dataclass(frozen=True)
class Period:
    """``days`` days of UTC, the last of which is ``last``; of one account and one symbol, or of all."""

    last: date
    days: int = 1
    account: str | None = None
    symbol: str | None = None

    @property
    def parameters(self) -> dict[str, str]:
        """For the server to bind."""
        return {
            "first": (self.last - timedelta(days=self.days - 1)).isoformat(),
            "end": (self.last + timedelta(days=1)).isoformat(),
            "account": self.account or "",
            "symbol": self.symbol or "",
        }


async def plot(clickhouse: ClickHouse, name: PlotName, period: Period) -> dict[str, Any]:
    """Return a plot as columns: ``x`` and each series have as many values, null where there is none.

    ``{"plot": ..., "x": {"name": ..., "values": [...]}, "series": [{"name": ..., "unit": ..., "values": [...]}],
    "left_out": ...}``. The x of a plot over time is RFC 3339, otherwise a word; ``left_out`` counts series or words
    that there was no room for.

    Raises:
        Transient: ClickHouse did not answer in time, is away, or has not our tables.
    """
    match name:
        case "equity":
            return await _equity(clickhouse, period)
        case "fills":
            return await _fills(clickhouse, period)
        case "latency":
            return await _latency(clickhouse, period)
        case "rejects":
            return await _rejects(clickhouse, period)
        case "slippage-by-symbol" | "slippage-by-strategy":
            return await _slippage(clickhouse, name, period)


async def _equity(clickhouse: ClickHouse, period: Period) -> dict[str, Any]:
    where = f"{_OF_THE_PERIOD.format(column='at')} AND {_ACCOUNT} AND equity IS NOT NULL"
    rows = await clickhouse.query(
        f"""
        WITH (SELECT (min(at), max(at)) FROM account_history WHERE {where}) AS span,
            greatest(1, intDiv(dateDiff('second', span.1, span.2), {MOST_POINTS}) + 1) AS width
        SELECT account, any(currency) AS unit, intDiv(toUnixTimestamp(at), width) * width AS bucket,
            argMax(equity, at) AS value
        FROM account_history FINAL WHERE {where}
        GROUP BY account, bucket ORDER BY account, bucket
        LIMIT {MOST_POINTS + 1} BY account LIMIT {(_MOST_SERIES + 1) * (MOST_POINTS + 1)}
        """,
        period.parameters,
    )
    named: dict[str, tuple[str, dict[Any, Any]]] = {}
    for row in rows:
        named.setdefault(row["account"], (row["unit"] or "", {}))[1][row["bucket"]] = row["value"]
    shown = dict(list(named.items())[:_MOST_SERIES])
    return _over_time("equity", [(name, unit, points) for name, (unit, points) in shown.items()], len(named))


async def _fills(clickhouse: ClickHouse, period: Period) -> dict[str, Any]:
    most = MOST_POINTS // 4
    chosen = f"{_ACCOUNT} AND symbol = {{symbol:String}}"
    group = f"intDiv((row_number() OVER (ORDER BY at) - 1) * least({most}, n), n)"
    quotes = await clickhouse.query(
        f"""
        SELECT max(moment) AS at, argMax(quoted_bid, moment) AS bid, argMax(quoted_ask, moment) AS ask
        FROM (
            SELECT at AS moment, bid AS quoted_bid, ask AS quoted_ask, {group} AS place
            FROM (
                SELECT quote_at AS at, quote_bid AS bid, quote_ask AS ask, count() OVER () AS n FROM orders FINAL
                WHERE {_OF_THE_PERIOD.format(column="signal_at")} AND {chosen} AND quote_at IS NOT NULL
            )
        )
        GROUP BY place ORDER BY at
        """,
        period.parameters,
    )
    deals = await clickhouse.query(
        f"""
        SELECT side, max(moment) AS at, sum(paid * lots) / sum(lots) AS price
        FROM (
            SELECT side, at AS moment, toFloat64(price) AS paid, toFloat64(volume) AS lots,
                intDiv((row_number() OVER (PARTITION BY side ORDER BY at) - 1) * least({most}, n), n) AS place
            FROM (
                SELECT side, at, price, volume, count() OVER (PARTITION BY side) AS n FROM executions FINAL
                WHERE {_OF_THE_PERIOD.format(column="at")} AND {chosen} AND NOT busted
            )
        )
        GROUP BY side, place ORDER BY at
        """,
        period.parameters,
    )
    sides = {side: {row["at"]: row["price"] for row in deals if row["side"] == side} for side in ("buy", "sell")}
    series = [
        ("bid", "", {row["at"]: row["bid"] for row in quotes}),
        ("ask", "", {row["at"]: row["ask"] for row in quotes}),
        ("bought", "", sides["buy"]),
        ("sold", "", sides["sell"]),
    ]
    return _over_time("fills", series, len(series))


async def _latency(clickhouse: ClickHouse, period: Period) -> dict[str, Any]:
    where = f"{_OF_THE_PERIOD.format(column='signal_at')} AND {_ACCOUNT} AND {_SYMBOL}"
    waits = "order_type = 'market' AND filled_at IS NOT NULL AND submitted_at IS NOT NULL"
    took = {
        _STEPS[0]: ("signal_at", "created_at", "true"),
        _STEPS[1]: ("created_at", "submitted_at", "submitted_at IS NOT NULL"),
        _STEPS[2]: ("submitted_at", "filled_at", waits),
        _STEPS[3]: ("signal_at", "filled_at", waits),
    }
    figures = ", ".join(
        f"quantilesIf(0.5, 0.99)(dateDiff('microsecond', {first}, {last}) / 1000, {known}) AS s{number}, "
        f"countIf({known}) AS n{number}"
        for number, (first, last, known) in enumerate(took.values())
    )
    rows = await clickhouse.query(
        f"""
        WITH (SELECT (min(signal_at), max(signal_at)) FROM orders WHERE {where}) AS span,
            greatest(1, intDiv(dateDiff('second', span.1, span.2), {_LATENCY_POINTS}) + 1) AS width
        SELECT intDiv(toUnixTimestamp(signal_at), width) * width AS bucket, {figures}
        FROM (
            SELECT * FROM (SELECT * FROM orders FINAL WHERE {where}) AS orders
            LEFT JOIN (
                SELECT assumeNotNull(order_id) AS order_id, toNullable(min(at)) AS filled_at FROM executions FINAL
                WHERE {_OF_THE_PERIOD.format(column="at")} AND {_ACCOUNT} AND NOT busted AND order_id IS NOT NULL
                GROUP BY order_id
            ) AS deals USING (order_id)
        )
        GROUP BY bucket ORDER BY bucket
        """,
        period.parameters,
    )
    series = []
    for number, step in enumerate(took):
        for place, share in enumerate(("p50", "p99")):
            points = {row["bucket"]: round(row[f"s{number}"][place], 3) for row in rows if row[f"n{number}"]}
            series.append((f"{step} {share}", "ms", points))
    return _over_time("latency", series, len(series))


async def _slippage(clickhouse: ClickHouse, name: PlotName, period: Period) -> dict[str, Any]:
    key = "symbol" if name == "slippage-by-symbol" else "ifNull(strategy, '')"
    rows = await clickhouse.query(
        f"""
        SELECT {key} AS word, count() AS orders, round(avg(slippage_expected_bps), 4) AS mean,
            round(quantile(0.95)(slippage_expected_bps), 4) AS p95, round(avg(slippage_touch_bps), 4) AS touch
        FROM orders FINAL
        WHERE {_OF_THE_PERIOD.format(column="signal_at")} AND {_ACCOUNT} AND {_SYMBOL}
            AND slippage_expected_bps IS NOT NULL
        GROUP BY word ORDER BY orders DESC, word LIMIT {_MOST_BARS + 1}
        """,
        period.parameters,
    )
    series = (
        ("mean against the expected price", "bps", "mean"),
        ("p95 against the expected price", "bps", "p95"),
        ("mean against the quote at sending", "bps", "touch"),
        ("orders", "", "orders"),
    )
    return _by_word(name, rows, "symbol" if name == "slippage-by-symbol" else "strategy", series)


async def _rejects(clickhouse: ClickHouse, period: Period) -> dict[str, Any]:
    chosen = f"{_ACCOUNT} AND {_SYMBOL}"
    rows = await clickhouse.query(
        f"""
        SELECT word, countIf(what = 'rejected') AS rejected, countIf(what = 'failed') AS failed,
            countIf(what = 'refused') AS refused
        FROM (
            SELECT detail AS word, status AS what FROM orders FINAL
            WHERE {_OF_THE_PERIOD.format(column="signal_at")} AND {chosen} AND status IN ('rejected', 'failed')
            UNION ALL
            SELECT ifNull(reason, '') AS word, 'refused' AS what FROM signals FINAL
            WHERE {_OF_THE_PERIOD.format(column="at")} AND {chosen} AND decision IN ('refused', 'conflict')
        )
        GROUP BY word ORDER BY count() DESC, word LIMIT {_MOST_BARS + 1}
        """,
        period.parameters,
    )
    series = (
        ("orders rejected by the broker", "", "rejected"),
        ("orders that failed before it", "", "failed"),
        ("signals refused", "", "refused"),
    )
    return _by_word("rejects", rows, "reason", series)


def _over_time(name: PlotName, series: Sequence[tuple[str, str, Mapping[Any, Any]]], there_are: int) -> dict[str, Any]:
    places = sorted({place for _, _, points in series for place in points})
    columns = [_column(title, unit, [points.get(place) for place in places]) for title, unit, points in series]
    return _answer(name, "time", [_moment(place) for place in places], columns, there_are - len(series))


def _by_word(
    name: PlotName, rows: Sequence[Mapping[str, Any]], x: str, series: Sequence[tuple[str, str, str]]
) -> dict[str, Any]:
    shown = rows[:_MOST_BARS]
    columns = [_column(title, unit, [row[field] for row in shown]) for title, unit, field in series]
    return _answer(name, x, [row["word"] or "(none)" for row in shown], columns, len(rows) - len(shown))


def _answer(name: PlotName, x: str, values: list[str], series: list[dict[str, Any]], left_out: int) -> dict[str, Any]:
    return {"plot": name, "x": {"name": x, "values": values}, "series": series, "left_out": left_out}


def _column(name: str, unit: str, values: list[Any]) -> dict[str, Any]:
    # Floats, for what is drawn: a plot is no source of exact money.
    numbers = [None if value is None else float(value) for value in values]
    return {"name": name, "unit": unit, "values": numbers}


def _moment(place: Any) -> str:
    return time_text(place if isinstance(place, datetime) else datetime.fromtimestamp(place, UTC))
