"""What the page's plots are drawn from, on a real engine with rows that are known."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

from streamapp.clickhouse.client import ClickHouse
from streamapp.clickhouse.plots import MOST_POINTS, PLOTS, Period, plot
from streamapp.clickhouse.writer import Writer
from streamapp.messages.envelope import Message
from streamapp.messages.history import AccountHistoryMessage
from tests.clickhouse import samples
from tests.clickhouse.samples import AT
from tests.messages.golden import golden, text

DAY = Period(AT.date())


async def write(clickhouse: ClickHouse, messages: Sequence[Message]) -> None:
    async def bury(refusal: Any) -> None:
        raise AssertionError(refusal)

    records = [samples.record(message, offset=offset) for offset, message in enumerate(messages)]
    await Writer(clickhouse, "both", bury).write(records)


def equity(account: str, second: float, value: int) -> AccountHistoryMessage:
    at = AT + timedelta(seconds=second)
    return AccountHistoryMessage(account=account, equity=Decimal(value), currency="USD", at=at)


def columns(found: dict[str, Any]) -> dict[str, list[Any]]:
    return {each["name"]: each["values"] for each in found["series"]}


async def test_every_plot_of_a_day_on_which_nothing_happened_is_empty(clickhouse: ClickHouse) -> None:
    for name in PLOTS:
        found = await plot(clickhouse, name, DAY)
        assert (found["plot"], found["x"]["values"], found["left_out"]) == (name, [], 0)
        assert all(each["values"] == [] for each in found["series"])


async def test_equity_is_the_last_of_each_place_and_bounded_however_much_there_is(clickhouse: ClickHouse) -> None:
    many = 3 * MOST_POINTS
    await write(clickhouse, [equity("one", second, second) for second in range(many)])
    await write(clickhouse, [equity("two", 0, 7), equity("two", 86_400, 9)])
    found = await plot(clickhouse, "equity", DAY)
    assert len(found["x"]["values"]) <= MOST_POINTS
    shown = columns(found)
    assert max(value for value in shown["one"] if value is not None) == many - 1
    assert [value for value in shown["two"] if value is not None] == [7]  # the other one is of the next day
    one = await plot(clickhouse, "equity", Period(AT.date() + timedelta(days=1), days=2, account="two"))
    assert columns(one) == {"two": [7, 9]}


async def test_fills_stand_over_the_quotes_that_their_orders_were_sent_at(clickhouse: ClickHouse) -> None:
    later = AT + timedelta(milliseconds=20)
    busted = samples.fill(13, busted=True, price=Decimal(9))
    sold = samples.fill(12, at=later, side="sell", entry="out", price=Decimal("1.08510"))
    await write(clickhouse, [samples.order(), samples.fill(at=later), sold, busted])
    found = await plot(clickhouse, "fills", Period(AT.date(), symbol="EURUSD"))
    [expected, _] = golden("views/plots")
    assert text(found) == text(expected)
    assert (await plot(clickhouse, "fills", Period(AT.date(), symbol="XAUUSD")))["x"]["values"] == []


async def test_latency_has_the_steps_that_orders_and_fills_show(clickhouse: ClickHouse) -> None:
    moments: dict[str, Any] = {
        "created_at": AT + timedelta(milliseconds=2),
        "submitted_at": AT + timedelta(milliseconds=5),
    }
    waiting = samples.order("o-2", status="filled", **moments)  # a limit order: its wait says nothing
    filled = samples.order("o-1", status="filled", order_type="market", **moments)
    deals = [samples.fill(11, at=AT + timedelta(milliseconds=25)), samples.fill(12, at=AT + timedelta(milliseconds=90))]
    await write(clickhouse, [filled, waiting, *deals])
    shown = columns(await plot(clickhouse, "latency", DAY))
    took = {"signal to created": 2, "created to order_send": 3, "order_send to fill": 20, "signal to fill": 25}
    assert shown == {f"{step} {share}": [ms] for step, ms in took.items() for share in ("p50", "p99")}


async def test_slippage_and_rejects_are_summed_up_by_their_words(clickhouse: ClickHouse) -> None:
    await write(
        clickhouse,
        [
            samples.order("o-1", status="filled"),
            samples.order("o-2", status="filled", symbol="XAUUSD", strategy=None),
            samples.order("o-3", status="filled"),
            samples.sparse_order("o-4").model_copy(update={"status": "rejected", "detail": "NO_MONEY"}),
            samples.decision(1, decision="refused", reason="stale", order_id=None),
            samples.decision(2, signal_id="s-2", decision="refused", reason="stale", order_id=None),
        ],
    )
    by_symbol = await plot(clickhouse, "slippage-by-symbol", DAY)
    assert by_symbol["x"] == {"name": "symbol", "values": ["EURUSD", "XAUUSD"]}
    assert columns(by_symbol)["orders"] == [2, 1]
    assert columns(by_symbol)["mean against the expected price"] == [0.1843, 0.1843]
    by_strategy = await plot(clickhouse, "slippage-by-strategy", DAY)
    assert by_strategy["x"]["values"] == ["breakout", "(none)"]
    rejects = await plot(clickhouse, "rejects", DAY)
    [_, expected] = golden("views/plots")
    assert text(rejects) == text(expected)
