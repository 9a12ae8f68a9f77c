"""Role execution alone: the real stack asks somebody else's connector by NATS, and believes what it answers."""

from __future__ import annotations

import asyncio
import json
import secrets
import urllib.request
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from streamapp.audit.verify import verify
from streamapp.domain.identifiers import order_id_for
from streamapp.local.own import OwnStack
from tests.kit.waiting import eventually
from tests.roles.foreign import DEADLINE_S, Connector, Ears, Habit

HABITS: dict[str, Habit] = {
    "EURUSD": "fills",
    "USDCHF": "fills_twice",
    "GBPUSD": "rejects",
    "AUDUSD": "can_t_connect",
    "USDJPY": "keeps_silent",
    "NZDUSD": "times_out",
    "USDCAD": "fills_half",
}
ORIGIN = "streamapp/execution"


class Desk:
    """The risk engine, the foreign connector and a listener, on one stack."""

    def __init__(self, stack: OwnStack, connector: Connector, ears: Ears) -> None:
        self.stack, self.connector, self.ears = stack, connector, ears

    async def approve(self, symbol: str, *, valid_s: float = 30.0, volume: str = "0.10", **fields: Any) -> str:
        """Approve a signal and return the id of the order it must become."""
        signal_id = f"s-{secrets.token_hex(4)}"
        now = datetime.now(UTC)
        body = {
            "signal_id": signal_id,
            "status": "approved",
            "account": "demo-hedging",
            "symbol": symbol,
            "side": "buy",
            "order_type": "market",
            "volume": volume,
            "expected_price": "1.0999",
            "approved_at": now.isoformat(),
            "valid_until": (now + timedelta(seconds=valid_s)).isoformat(),
            **fields,
        }
        await self.ears.say(f"signals.approved.{symbol}", body)
        return order_id_for("streamapp", "demo-hedging", signal_id)

    async def told(self, status: str, order_id: str) -> dict[str, Any]:
        """Return order/1 of this status as soon as it is published."""
        await self.ears.until(lambda: self.ears.on(f"orders.{status}.", order_id))
        return self.ears.on(f"orders.{status}.", order_id)[-1].body

    async def shows(self, order_id: str, **expected: str) -> dict[str, Any]:
        """Return the order as soon as the web view says what is expected of it."""
        url = f"http://127.0.0.1:{self.stack.settings.ports.trading()}/orders/{order_id}"

        async def as_expected() -> dict[str, Any] | None:
            order = await asyncio.to_thread(_get, url)
            return order if expected.items() <= order.items() else None

        found: dict[str, Any] = await eventually(as_expected, f"{order_id} with {expected}", DEADLINE_S)
        return found


def _get(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=5) as response:
        return dict(json.load(response))


@pytest.fixture
async def desk(execution_stack: OwnStack) -> AsyncIterator[Desk]:
    url = execution_stack.settings.nats_url
    async with Connector(url, HABITS) as connector, Ears(url, "orders.>", "broker.>", "mt5.>", "positions.>") as ears:
        yield Desk(execution_stack, connector, ears)


async def test_an_order_is_asked_for_once_and_its_fills_are_counted(desk: Desk) -> None:
    order_ids = [await desk.approve("EURUSD") for _ in range(20)]
    for order_id in order_ids:
        order = await desk.told("filled", order_id)
        assert (order["filled_volume"], Decimal(order["average_price"])) == ("0.10", Decimal("1.1001"))
        cost = order["slippage"]["expected"]
        assert (cost["points"], round(Decimal(cost["bps"]), 2)) == (None, Decimal("1.82"))  # no terminal, no point
    for order_id in order_ids:
        [asked] = desk.connector.on("orders.submitted.", order_id)
        assert asked.body["executor"] == "foreign"
        assert asked.headers["Streamapp-Origin"] == ORIGIN
        assert asked.at < datetime.fromisoformat(asked.body["not_after"])
    fills = desk.ears.on("broker.fill.")
    assert not [fill for fill in fills if fill.headers.get("Streamapp-Origin") == ORIGIN], "theirs, said again by us"
    assert not desk.ears.on("mt5."), "there is no terminal in this role"


async def test_a_fill_that_is_said_twice_counts_once(desk: Desk) -> None:
    order_id = await desk.approve("USDCHF")
    await desk.told("filled", order_id)
    probe = await desk.approve("USDCHF")
    await desk.told("filled", probe)
    order = await desk.shows(order_id, status="filled")
    assert order["filled_volume"] == "0.10"


async def test_what_somebody_else_executed_is_the_same_in_archive_tables_and_clickhouse(desk: Desk) -> None:
    await desk.told("filled", await desk.approve("EURUSD"))
    verdict = await verify(desk.stack.settings)
    # A connector that said a fill again with another time has contradicted itself, and that is all there is.
    assert [str(fault) for fault in verdict.faults if "has another content than in commit" not in fault.detail] == []
    assert verdict.differences == ()
    assert verdict.compared["order"]
    assert verdict.compared["fill"]


async def test_a_limit_order_is_asked_for_with_its_price_and_lifetime_and_ends_with_what_was_filled(desk: Desk) -> None:
    expiration = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
    limit: dict[str, Any] = {"order_type": "limit", "price": "1.36", "time_in_force": "until", "expiration": expiration}
    order_id = await desk.approve("USDCAD", **limit)
    order = await desk.told("cancelled", order_id)
    assert (order["detail"], Decimal(order["filled_volume"])) == ("expired", Decimal("0.05"))
    [asked] = desk.connector.on("orders.submitted.", order_id)
    assert {name: asked.body[name] for name in ("order_type", "price", "time_in_force")} == {
        name: limit[name] for name in ("order_type", "price", "time_in_force")
    }
    assert datetime.fromisoformat(asked.body["expiration"]) == datetime.fromisoformat(expiration)


@pytest.mark.parametrize(("symbol", "status"), [("GBPUSD", "rejected"), ("AUDUSD", "failed")])
async def test_a_final_error_ends_the_order(desk: Desk, symbol: str, status: str) -> None:
    order = await desk.told(status, await desk.approve(symbol))
    assert order["filled_volume"] == "0"


async def test_silence_is_a_doubt_and_a_late_fill_is_still_counted(desk: Desk) -> None:
    order_id = await desk.approve("USDJPY", valid_s=3)
    asked = await desk.told("submitted", order_id)
    await desk.shows(order_id, status="submitted", detail="in_doubt")
    assert len(desk.connector.on("orders.submitted.", order_id)) == 1
    await desk.connector.fill(asked)
    order = await desk.told("filled", order_id)
    assert order["filled_volume"] == "0.10"


async def test_a_timeout_is_a_doubt_and_not_an_end(desk: Desk) -> None:
    order_id = await desk.approve("NZDUSD")
    asked = await desk.told("submitted", order_id)
    await desk.shows(order_id, status="submitted", detail="in_doubt")
    await desk.connector.fill(asked)
    assert (await desk.told("filled", order_id))["filled_volume"] == "0.10"


@pytest.mark.parametrize(
    ("subject", "body"),
    [
        ("broker.fill.EURUSD", {"order_id": "nobody-knows", "fill_id": "f", "volume": "1", "price": "1"}),
        ("broker.fill.EURUSD", {"order_id": "ORDER", "fill_id": "f-bad", "volume": "-1", "price": "1"}),
        ("broker.error.EURUSD", {"order_id": "ORDER", "kind": "no such kind"}),
    ],
)
async def test_an_answer_that_can_t_be_used_is_said_to_be_so_and_changes_nothing(
    desk: Desk, subject: str, body: dict[str, Any]
) -> None:
    order_id = await desk.approve("EURUSD")
    await desk.told("filled", order_id)
    named = body | {"order_id": order_id if body["order_id"] == "ORDER" else body["order_id"]}
    await desk.ears.say(subject, named)

    def complaints() -> list[Any]:
        return [
            heard
            for heard in desk.ears.on("broker.error.", named["order_id"])
            if heard.headers.get("Streamapp-Origin") == ORIGIN
        ]

    await desk.ears.until(complaints)
    assert complaints()[0].body["final"] is False
    assert (await desk.shows(order_id, status="filled"))["filled_volume"] == "0.10"


async def test_a_broken_answer_stops_nothing(desk: Desk) -> None:
    for payload in (b"not json", b"[]", b"{}", b'{"volume": NaN}'):
        await desk.ears._client.publish("broker.fill.EURUSD", payload)
    await desk.told("filled", await desk.approve("EURUSD"))
