"""Quotes as the field has them: late, quiet, below zero, by a clock that changes; none keeps an order out or in."""

from __future__ import annotations

import json
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from streamapp.messages.terminal import HelloReply
from tests.kit.waiting import PATIENCE_S, eventually
from tests.terminal.desk import ACCEPTED, Desk
from tests.terminal.field.conftest import Start
from tests.terminal.field.trading import closed, position_of

AN_HOUR_S = 3600
QUIET_S = 2.0
"""After so long without a tick these terminals take a quote for old."""
LATE_MS = 500
"""Within the time that an order waits for the first tick of its symbol."""
NEVER_MS = 3_600_000


# -- the server's clock


@pytest.mark.parametrize("mode", ["hedging", "netting"])
@pytest.mark.parametrize("by_s", [-AN_HOUR_S, AN_HOUR_S, -1234], ids=["back", "forth", "odd"])
async def test_orders_go_on_when_the_servers_clock_changes_and_all_times_stay_utc(
    start: Start, mode: str, by_s: int
) -> None:
    desk = await start(mode=mode)
    await desk.open()
    await desk.submits(*ACCEPTED)
    desk.market.shift_clock(by_s)

    async def goes() -> dict[str, Any] | None:
        order = await desk.submit()
        await desk.comes_to(order, "deal", "refused")
        bodies: dict[str, Any] = {report.kind: report.body for report in desk.terminal.told(order.order_id)}
        return bodies if "deal" in bodies else None

    bodies = await eventually(goes, "an order that is executed by the new clock")
    assert abs(bodies["deal"].time.timestamp() - time.time()) < PATIENCE_S
    assert abs(bodies["started"].quote_at.timestamp() - time.time()) < PATIENCE_S
    assert desk.connections() == []
    await desk.submits(*ACCEPTED)
    await desk.close(sends=len(desk.market.ledger()))


# -- an empty Market Watch


async def test_with_an_empty_market_watch_the_terminal_is_ready_by_symbols_of_its_own_choice(start: Start) -> None:
    desk = await start(profile="empty_watch")
    await desk.open()
    await desk.submits(*ACCEPTED)
    await desk.close(sends=1)


async def test_with_an_empty_market_watch_the_symbols_of_the_settings_are_selected(start: Start) -> None:
    desk = await start(profile="empty_watch", settings={"GUARDS__SYMBOLS": '["XAUUSD"]'})
    desk.market.change("XAUUSD", first_tick_ms=NEVER_MS)
    await eventually(lambda: "now it has XAUUSD;" in "".join(desk.terminal.status().get("reasons", [])), "the cause")
    desk.market.change("XAUUSD", first_tick_ms=0)
    await desk.open()
    await desk.submits(*ACCEPTED, symbol="XAUUSD")
    await desk.close(sends=1)


@pytest.mark.parametrize(
    ("own", "name"), [('guards.symbols = ["XAUUSD"]', "XAUUSD"), ('symbols = { GOLD = "XAUUSD" }', "GOLD")]
)
async def test_with_an_empty_market_watch_the_symbols_of_the_account_are_selected(
    start: Start, own: str, name: str
) -> None:
    desk = await start(profile="empty_watch", own=own)
    desk.market.change("XAUUSD", first_tick_ms=NEVER_MS)
    await eventually(lambda: f"now it has {name};" in "".join(desk.terminal.status().get("reasons", [])), "the cause")
    desk.market.change("XAUUSD", first_tick_ms=0)
    await desk.open()
    await desk.submits(*ACCEPTED, symbol=name)
    await desk.close(sends=1)


async def test_where_nothing_in_market_watch_is_quoted_the_symbol_of_an_order_that_waits_is_selected(
    start: Start, tmp_path: Path
) -> None:
    profile = {"market_watch": [], "symbols": {"*": {"first_tick_ms": NEVER_MS}, "BTCUSD": {"first_tick_ms": 0}}}
    profiles = tmp_path / "profiles.json"
    profiles.write_text(json.dumps({"asleep": profile}))
    desk = await start("--profiles", str(profiles), profile="asleep")
    await eventually(lambda: "no fresh tick" in "".join(desk.terminal.status().get("reasons", [])), "the cause")
    desk.epoch = HelloReply.decode(await desk.terminal.request("hello")).epoch
    waits = await desk.submit(symbol="BTCUSD")
    await desk.says(waits, *ACCEPTED)
    await desk.terminal.ready()
    assert len(desk.orders_of(waits)) == 1


# -- a symbol that was hidden


async def test_the_first_order_of_a_hidden_symbol_waits_for_its_first_tick(start: Start) -> None:
    desk = await start(profile="empty_watch")
    await desk.open()
    desk.market.change("BTCUSD", first_tick_ms=LATE_MS)
    hidden = await desk.submit(symbol="BTCUSD")
    others = await desk.submit()  # they go on meanwhile
    await desk.says(others, *ACCEPTED)
    await desk.says(hidden, *ACCEPTED)
    assert desk.orders_of(others)[0]["ticket"] < desk.orders_of(hidden)[0]["ticket"]
    await desk.close()


@pytest.mark.parametrize("valid_s", [30.0, 1.0])
async def test_an_order_of_a_symbol_without_any_tick_is_refused_for_that(start: Start, valid_s: float) -> None:
    desk = await start(profile="empty_watch")
    await desk.open()
    desk.market.change("BTCUSD", first_tick_ms=NEVER_MS)
    bodies = await desk.submits("refused", symbol="BTCUSD", valid_s=valid_s)
    assert bodies["refused"].reason == ("guard" if valid_s > 1 else "stale")
    assert "expected a quote of BTCUSD, got none" in bodies["refused"].message
    await desk.close(sends=0)


# -- a symbol without a tick for long


@pytest.fixture
async def quiet(start: Start) -> Desk:
    """A netting account with a position in a symbol that has not had a tick for longer than a quote may be old."""
    desk = await start(mode="netting", settings={"GUARDS__MAX_TICK_AGE_S": str(QUIET_S)})
    await desk.open()
    desk.market.pin("GBPUSD", "1.26990", "1.27000")
    pinned_at = time.monotonic()
    await desk.submits(*ACCEPTED, symbol="GBPUSD")
    await eventually(lambda: time.monotonic() - pinned_at > QUIET_S, "a quote that is old")
    return desk


async def test_a_position_in_a_quiet_symbol_can_be_closed(quiet: Desk) -> None:
    await closed(quiet, await position_of(quiet, "GBPUSD"))
    await quiet.close(sends=2)


async def test_a_pending_order_of_a_quiet_symbol_is_taken(quiet: Desk) -> None:
    await quiet.submits(*ACCEPTED[:3], symbol="GBPUSD", order_type="limit", price=Decimal("1.26"))
    await quiet.close()


async def test_a_market_order_that_opens_in_a_quiet_symbol_is_refused_until_it_has_a_tick(quiet: Desk) -> None:
    bodies = await quiet.submits("refused", symbol="GBPUSD")
    assert bodies["refused"].reason == "guard"
    assert f"expected a quote of GBPUSD not older than {QUIET_S:g} s" in bodies["refused"].message
    waiting = await quiet.submit(symbol="GBPUSD")
    await eventually(lambda: quiet.terminal.status()["metrics"]["waiting"] == 0)
    quiet.market.pin("GBPUSD", "1.26990", "1.27000")
    await quiet.says(waiting, *ACCEPTED)
    await quiet.close(sends=2)


# -- prices below zero


@pytest.mark.parametrize("mode", ["hedging", "netting"])
async def test_below_zero_positions_are_closed_and_opened_and_orders_wait(start: Start, mode: str) -> None:
    desk = await start(mode=mode)
    await desk.open()
    desk.market.pin("XAUUSD", "10.00", "10.10")
    await desk.submits(*ACCEPTED, symbol="XAUUSD")
    desk.market.pin("XAUUSD", "-37.66", "-37.56")
    await closed(desk, await position_of(desk, "XAUUSD"))
    (closing,) = [row for row in desk.market.ledger("deal") if row["entry"] == "out"]
    assert closing["price"] == "-37.66"
    bodies = await desk.submits(*ACCEPTED, symbol="XAUUSD")
    assert (bodies["started"].bid, bodies["deal"].price) == (Decimal("-37.66"), Decimal("-37.56"))
    wanted = {"order_type": "limit", "price": Decimal(-40), "stop_loss": Decimal(-50), "take_profit": Decimal(-30)}
    limit = await desk.submit(symbol="XAUUSD", **wanted)
    await desk.says(limit, *ACCEPTED[:3])
    desk.market.pin("XAUUSD", "-40.10", "-40.00")
    bodies = await desk.says(limit, *ACCEPTED)
    assert bodies["deal"].price == Decimal(-40)
    await desk.close(sends=4)
