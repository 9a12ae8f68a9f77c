"""The report as one HTML file that needs nothing from anywhere: no script, no address, and every text escaped."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from decimal import Decimal
from xml.etree.ElementTree import Element, SubElement, tostring

from streamapp.domain.orders import exact_sum
from streamapp.domain.vocabulary import decimal_text, visible
from streamapp.report.charts import Bar, bar_chart, histogram
from streamapp.report.figures import TradingReport
from streamapp.report.tables import Table, tables_of, title_of

_ORDERS = 1000
"""Orders in the table of shortfalls: a browser shows so many rows at once; all of them are in the JSON."""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = """
body { font: 14px system-ui, sans-serif; color: #1b1f24; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2.5rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { padding: .2rem .7rem; text-align: left; border-bottom: 1px solid #d8dee4; white-space: nowrap; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
p { color: #59636e; } svg { width: 100%; max-width: 46rem; display: block; }
svg text { font-size: 12px; fill: #1b1f24; } .plus { fill: #2f6fb5; } .minus { fill: #c2571a; }
"""


def page_of(report: TradingReport) -> str:
    """Return the page: the tables of the report, and its plots."""
    html = Element("html", {"lang": "en"})
    head, body = SubElement(html, "head"), SubElement(html, "body")
    SubElement(head, "meta", {"charset": "utf-8"})
    SubElement(head, "meta", {"http-equiv": "Content-Security-Policy", "content": _POLICY})
    SubElement(head, "title").text = SubElement(body, "h1").text = title_of(report)
    SubElement(head, "style").text = _STYLE
    for title, drawing in _plots(report):
        SubElement(body, "h2").text = title
        body.append(drawing)
    for table in tables_of(report, orders=_ORDERS):
        _add_table(body, table)
    for element in html.iter():
        element.text = None if element.text is None else visible(element.text, "\t\n")
    # An end tag for every element: in HTML, `<td />` would be one that never ends.
    return "<!DOCTYPE html>\n" + tostring(html, encoding="unicode", short_empty_elements=False)


def _plots(report: TradingReport) -> Iterator[tuple[str, Element]]:
    for currency, bars in _profits(report).items():
        yield f"Realized profit by strategy, {currency}", bar_chart(bars)
    if report.slippage_bps:
        yield "Slippage against the expected price, basis points", histogram(report.slippage_bps, "bps")
    for currency, bars in _shortfalls(report).items():
        yield f"Implementation shortfall by part, {currency}", bar_chart(bars)
    if report.latency:
        steps = [
            Bar(f"{row.step}, {name}", value, f"{value:.1f} ms")
            for row in report.latency
            for name, value in (("p50", row.p50), ("p95", row.p95), ("p99", row.p99))
        ]
        yield "Latency", bar_chart(steps)


def _profits(report: TradingReport) -> dict[str, list[Bar]]:
    several: defaultdict[str, defaultdict[str, list[Decimal]]] = defaultdict(lambda: defaultdict(list))
    for row in report.profits:
        several[row.currency][row.strategy or "-"].append(row.realized_profit)
    return {
        currency: [_money_bar(name, amounts) for name, amounts in by_strategy.items()]
        for currency, by_strategy in several.items()
    }


def _shortfalls(report: TradingReport) -> dict[str, list[Bar]]:
    currencies = sorted({row.currency for row in report.shortfall})
    sums = {currency: [row for row in report.shortfall if row.currency == currency] for currency in currencies}
    return {
        currency: [
            _money_bar("delay", [row.delay for row in rows]),
            _money_bar("execution", [row.execution for row in rows]),
            _money_bar("fees", [row.fees for row in rows]),
            _money_bar("opportunity", [row.opportunity or Decimal(0) for row in rows]),
        ]
        for currency, rows in sums.items()
    }


def _money_bar(label: str, amounts: Sequence[Decimal]) -> Bar:
    amount = exact_sum(amounts)
    return Bar(label, amount, decimal_text(amount.quantize(Decimal("0.01"))))


def _add_table(body: Element, table: Table) -> None:
    SubElement(body, "h2").text = table.title
    shown = SubElement(body, "table")
    kinds: list[dict[str, str]] = [{}] * len(table.texts) + [{"class": "number"}] * len(table.numbers)
    _add_row(shown, "th", (*table.texts, *table.numbers), kinds)
    for row in table.rows:
        _add_row(shown, "td", row, kinds)
    if table.note:
        SubElement(body, "p").text = table.note


def _add_row(table: Element, tag: str, cells: Sequence[str], kinds: Sequence[dict[str, str]]) -> None:
    row = SubElement(table, "tr")
    for cell, kind in zip(cells, kinds, strict=True):
        SubElement(row, tag, kind).text = cell
