"""The page: whole, of one file, and no name gets out of its cell."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from streamapp.report.charts import Bar, bar_chart, histogram
from streamapp.report.figures import TradingReport, report_of
from streamapp.report.page import page_of
from streamapp.report.records import OrderRecord, Profit, Records, Refusals
from streamapp.report.tables import tables_of, title_of
from tests.report.examples import fill, market, order, slipped

EVIL = [
    "<script>alert(1)</script>",
    "</td></table><img src=x onerror=alert(1)>",
    "\"'><svg onload=alert(1)>",
    "]]></style><b>&lt;b&gt;",
    "a\x00b\x1b[31m\ud800",
    "http://elsewhere.example/x.js",
]


def profit(strategy: str, **changes: Any) -> Profit:
    zero = dict.fromkeys(("profit", "commission", "swap", "fee"), Decimal(0))
    fields: dict[str, Any] = {"account": "demo", "symbol": "EURUSD", "currency": "USD", "fills": 1, "wins": 1}
    money = {"realized_profit": Decimal("-3.456"), "volume": Decimal("0.10"), "losses": 0}
    return Profit(strategy=strategy, **(zero | fields | money | changes))


def report(name: str = "breakout", orders: int = 3) -> TradingReport:
    """A report in which everything that is a name is this one."""
    called = {"strategy": name, "symbol": name}
    costly = [OrderRecord(order(f"o-{n}", **called), (fill("102.004", "2"),), market()) for n in range(orders)]
    return report_of(
        Records(
            date(2026, 11, 20),
            date(2026, 11, 21),
            account=name,
            strategy=name,
            profits=(profit(name, account=name, symbol=name, currency=name), profit("")),
            orders=(
                *costly,
                slipped("o-9", "1.5", touch="0.5", currency=name, **called),
                OrderRecord(order(status="failed", detail="stale")),
            ),
            refusals=(Refusals(reason=name, count=2),),
        )
    )


class Tags(HTMLParser):
    """What a browser would take the page for."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def body_of(page: str) -> ET.Element:
    return ET.fromstring(page.removeprefix("<!DOCTYPE html>\n"))


def test_a_page_is_well_formed_and_shows_every_table_and_plot() -> None:
    shown = report()
    root = body_of(page_of(shown))
    expected = tables_of(shown, orders=1000)
    assert len(root.findall(".//table")) == len(expected) == 8
    cells = [tuple(cell.text for cell in row) for row in root.iter("tr")]
    assert [row for table in expected for row in ((*table.texts, *table.numbers), *table.rows)] == cells
    assert len(root.findall(".//svg")) == 5  # two currencies of profit, slippage, shortfall, latency
    assert [heading.text for heading in root.iter("h1")] == [
        "Trading of 2026-11-20 to 2026-11-21 (UTC), account breakout, strategy breakout"
    ]


def test_a_page_asks_for_nothing_from_anywhere_and_runs_nothing() -> None:
    page = page_of(report())
    assert "//" not in page
    seen = Tags(page)
    assert seen.tags.isdisjoint({"script", "img", "link", "iframe", "object", "base", "form", "a"})
    assert seen.attributes.isdisjoint({"src", "href", "xlink:href", "style", "action"})
    assert "default-src 'none'" in page


@pytest.mark.parametrize("name", EVIL)
def test_no_name_gets_out_of_its_cell(name: str) -> None:
    harmless, evil = Tags(page_of(report())), Tags(page_of(report(name)))
    assert (evil.tags, evil.attributes) == (harmless.tags, harmless.attributes)
    cells = {cell.text for cell in body_of(page_of(report(name))).iter("td")}
    if name.isprintable():
        assert name in cells


def test_of_the_orders_the_costliest_are_shown_and_the_note_says_so() -> None:
    shown = tables_of(report(orders=3), orders=2)
    [table] = [one for one in shown if one.title.endswith("by order")]
    assert (len(table.rows), table.note) == (2, "The 2 costliest of 4.")


def test_what_is_shown_of_a_shortfall_adds_up_to_the_last_digit() -> None:
    # Delay and execution are 20.005 each, shown as 20.00; with the 3 of fees they are 43.01, which would not add up.
    record = OrderRecord(order(), (fill("102.0005", "2"),), market("100.0005"))
    shown = tables_of(report_of(Records(date(2026, 11, 20), date(2026, 11, 20), orders=(record,))), orders=10)
    [by_order] = [table for table in shown if table.title.endswith("by order")]
    [row] = by_order.rows
    assert row[-6:] == ("20.00", "20.00", "3.00", "0.00", "43.00", "215.05")


def test_a_report_of_nothing_has_no_table_and_still_a_page() -> None:
    nothing = report_of(Records(date(2026, 11, 20), date(2026, 11, 20)))
    assert tables_of(nothing, orders=10) == []
    assert title_of(nothing) == "Trading of 2026-11-20 (UTC)"
    assert body_of(page_of(nothing)).findall(".//svg") == []


def test_bars_begin_at_a_common_zero_and_are_as_long_as_their_values() -> None:
    # 370 units of width for 40 of value: zero a quarter of the way along.
    drawn = bar_chart([Bar("gain", Decimal(30), "30"), Bar("l" * 99, Decimal(-10), "-10")])
    boxes = [(box.get("class"), box.get("x"), box.get("width")) for box in drawn.iter("rect")]
    assert boxes == [("plus", "332.5", "277.5"), ("minus", "240.0", "92.5")]
    assert [text.text for text in drawn.iter("text")] == ["gain", "30", "l" * 33 + "…", "-10"]
    assert [box.get("width") for box in bar_chart([Bar("", Decimal(0), "0")]).iter("rect")] == ["0.0"]


def test_a_histogram_has_every_value_in_a_part_and_the_fullest_at_full_height() -> None:
    drawn = histogram([Decimal(0), Decimal(0), Decimal(24)], "bps")
    heights = [box.get("height") for box in drawn.iter("rect")]
    assert (len(heights), heights[0], heights[-1]) == (24, "160.0", "80.0")
    assert [text.text for text in drawn.iter("text")] == ["0.00 bps", "24.00 bps, 3 orders"]
    assert next(box.get("height") for box in histogram([Decimal(1)], "").iter("rect")) == "160.0"
