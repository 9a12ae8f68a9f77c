"""The view of each strategy's profit, against sums made by hand."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

from streamapp.clickhouse.client import ClickHouse
from streamapp.clickhouse.writer import Writer
from streamapp.messages.envelope import Message
from tests.clickhouse import samples

NEXT_DAY = samples.AT + timedelta(days=1)


async def written(clickhouse: ClickHouse, *messages: Message) -> list[dict[str, Any]]:
    """The view's rows after these messages."""

    async def bury(refusal: Any) -> None:
        raise AssertionError(refusal)

    records = [samples.record(message, offset=offset) for offset, message in enumerate(messages)]
    await Writer(clickhouse, "both", bury).write(records)
    return await clickhouse.query("SELECT * FROM pnl_by_strategy ORDER BY day, account, strategy, symbol")


def fill(deal: int, profit: str = "0", **changes: Any) -> Message:
    return samples.fill(deal, profit=Decimal(profit), **changes)


async def test_a_strategys_profit_is_all_that_its_deals_booked_and_its_positions_won_and_lost(
    clickhouse: ClickHouse,
) -> None:
    # 20.66 - 5 = 15.66 of profit; commission 3 * -0.35 = -1.05; swap -0.12; fee -0.02: 14.47.
    rows = await written(
        clickhouse,
        fill(1),
        fill(2, "20.66", entry="out", side="sell", swap=Decimal("-0.12"), fee=Decimal("-0.02")),
        fill(3, "-5", entry="out", side="sell", order_id=None, signal_id=None, reason="sl"),
        samples.position(2, side=None, volume=Decimal(0), average_price=None, realized_profit=Decimal("19.8")),
        samples.position(3, position_id=6, side=None, volume=Decimal(0), realized_profit=Decimal(-5)),
        samples.position(3, position_id=7, realized_profit=Decimal(-9)),
    )
    [row] = rows
    assert row == {
        "day": samples.AT.date(),
        "account": "demo-hedging",
        "strategy": "breakout",
        "symbol": "EURUSD",
        "currency": "USD",
        "profit": Decimal("15.66"),
        "commission": Decimal("-1.05"),
        "swap": Decimal("-0.12"),
        "fee": Decimal("-0.02"),
        "realized_profit": Decimal("14.47"),
        "fills": 3,
        "volume": Decimal("0.3"),
        "wins": 1,
        "losses": 1,
    }


async def test_each_day_account_strategy_symbol_and_currency_is_a_row_of_its_own(clickhouse: ClickHouse) -> None:
    rows = await written(
        clickhouse,
        fill(1),
        fill(2, at=NEXT_DAY),
        fill(3, strategy=None),
        fill(4, symbol="XAUUSD"),
        samples.fill(5, fill_id="other:5", account="other", currency="EUR"),
    )
    assert [(row["day"], row["account"], row["strategy"], row["symbol"], row["currency"]) for row in rows] == [
        (samples.AT.date(), "demo-hedging", "", "EURUSD", "USD"),
        (samples.AT.date(), "demo-hedging", "breakout", "EURUSD", "USD"),
        (samples.AT.date(), "demo-hedging", "breakout", "XAUUSD", "USD"),
        (samples.AT.date(), "other", "breakout", "EURUSD", "EUR"),
        (NEXT_DAY.date(), "demo-hedging", "breakout", "EURUSD", "USD"),
    ]


async def test_what_was_corrected_or_taken_back_counts_as_it_is_now(clickhouse: ClickHouse) -> None:
    rows = await written(
        clickhouse, fill(1, "10"), fill(1, "4", revision=1), fill(2, "7"), fill(2, "7", revision=1, busted=True)
    )
    assert [(row["profit"], row["fills"]) for row in rows] == [(Decimal(4), 1)]


async def test_what_was_charged_to_a_position_without_a_trade_is_its_openings_strategys(clickhouse: ClickHouse) -> None:
    # Profit 20; charged to the position: a commission of 1.50 and a fee of 0.75. 100 was paid in: no strategy made it.
    rows = await written(
        clickhouse,
        fill(2, "20", entry="out", side="sell", commission=Decimal(0)),
        samples.position(2, side=None, volume=Decimal(0), average_price=None, realized_profit=Decimal("17.75")),
        samples.operation(11, type="commission", amount=Decimal("-1.50"), position_id=samples.position(1).position_id),
        samples.operation(12, type="charge", amount=Decimal("-0.75"), position_id=samples.position(1).position_id),
        samples.operation(13, type="balance", amount=Decimal(100), position_id=None),
    )
    [row] = rows
    assert (row["strategy"], row["profit"], row["commission"], row["fee"], row["realized_profit"]) == (
        "breakout",
        Decimal(20),
        Decimal("-1.50"),
        Decimal("-0.75"),
        Decimal("17.75"),
    )
