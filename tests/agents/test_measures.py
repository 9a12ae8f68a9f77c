"""What a worker measures of orders and accounts, for Prometheus."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

from streamapp.domain.steps import STEPS
from streamapp.messages.account import AccountMessage
from streamapp.metrics import TradingMetrics
from tests.kit.desk import DeskWorld
from tests.kit.examples import accepted, deal, returned, started
from tests.kit.records import NOW


def steps(world: DeskWorld) -> dict[str, tuple[float, float]]:
    """Return how often each step was measured, and the sum of its seconds."""
    value = world.metrics.registry.get_sample_value
    found: dict[str, tuple[float, float]] = {}
    for step in STEPS:
        count, total = (value(f"streamapp_step_seconds_{part}", {"step": step}) for part in ("count", "sum"))
        if count:
            found[step] = count, round(total or 0, 3)
    return found


async def test_each_step_of_an_order_is_measured_once_though_its_facts_come_again() -> None:
    world = await DeskWorld().start()
    order_id = await world.signal(at=NOW)
    world.later(2)
    body: dict[str, Any] = {"sent_at": NOW + timedelta(seconds=0.5)}
    facts = (
        ("started", order_id, started().body.model_copy(update=body)),
        ("returned", order_id, returned().body.model_copy(update={"returned_at": NOW + timedelta(seconds=1)})),
        ("accepted", order_id, accepted().body),
        ("deal", order_id, deal(9, "0.1").model_copy(update={"time": NOW - timedelta(seconds=1)})),
    )
    for _ in range(2):
        await world.report(*facts)
    assert steps(world) == {
        "signal to created": (1, 0),
        "created to committed": (1, 0),
        "committed to submitted": (1, 0),
        "created to order_send": (1, 0.5),
        "order_send to answer": (1, 0.5),
        "answer to reported": (1, 1),
        # The broker's clock is behind ours: no time at all, and no negative one.
        "order_send to fill": (1, 0),
        "signal to fill": (1, 0),
    }


async def test_orders_are_counted_by_each_status_that_they_come_to() -> None:
    world = await DeskWorld().start()
    order_id = await world.signal()
    await world.report(("accepted", order_id, accepted().body), ("deal", order_id, deal(9, "0.1")))

    def counted(status: str) -> float | None:
        return world.metrics.registry.get_sample_value("streamapp_orders_total", {"status": status})

    assert [counted(status) for status in ("pending", "submitted", "filled", "rejected")] == [1, 1, 1, None]


def test_the_money_of_accounts_is_shown_as_it_is_now_and_of_no_account_that_went_away() -> None:
    metrics = TradingMetrics()

    def shown(name: str, account: str) -> float | None:
        labels = {"account": account, "currency": "USD"}
        return metrics.registry.get_sample_value(f"streamapp_account_{name}", labels)

    known = AccountMessage(
        account="a",
        connection="ready",
        currency="USD",
        balance=Decimal(1000),
        credit=Decimal(50),
        equity=Decimal("1040.50"),
        margin=Decimal(10),
        margin_free=Decimal("1030.50"),
        at=NOW,
    )
    unknown = AccountMessage(account="b", connection="connecting", trading="halted", currency="USD", at=NOW)
    metrics.show_accounts([known, unknown])
    names = ("equity", "balance", "margin", "margin_free", "floating_profit")
    assert [shown(name, "a") for name in names] == [1040.5, 1000, 10, 1030.5, -9.5]
    assert [shown(name, "b") for name in names] == [None] * 5
    trading = {"account": "b", "state": "halted"}
    assert metrics.registry.get_sample_value("streamapp_account_trading", trading) == 1
    metrics.show_accounts([unknown])
    assert shown("equity", "a") is None
