"""Pending orders, every lifetime, partial fills, and positions that the broker closes: on the real stack."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from streamapp.audit.agreement import disagreements, unsettled
from streamapp.audit.sources import settled_evidence
from streamapp.domain.vocabulary import time_text
from streamapp.local.own import OwnStack
from tests.e2e.desk import Desk, desk_at
from tests.kit.stacks import running_stack
from tests.kit.waiting import eventually

ACCOUNTS = """
[accounts.hedge]
login = 61000001

[accounts.net]
login = 61000002
margin_mode = "netting"

[accounts.exchange]
login = 61000003
margin_mode = "exchange"
profile = "exchange"

[accounts.flagged]
login = 61000004
profile = "suffix_broker"

[accounts.small]
login = 61000005
balance = 2000
"""
# A pinned price grows old, and doubts end soon: the simulated market shows everything within a second.
# A small account opens what its margin can't bear.
SETTINGS = "[guards]\nmax_tick_age_s = 3600\nmax_order_leverage = 'off'\n[terminal]\nsettle_window_s = 3.0\n"
SETTLE_WITHIN_S = 90.0
TYPES = {("limit", "buy"): 2, ("limit", "sell"): 3, ("stop", "buy"): 4, ("stop", "sell"): 5}
STOP_LIMITS = {("stop_limit", "buy"): 6, ("stop_limit", "sell"): 7}

# The market of EURUSD, and where it goes: up, then down through where it was, then back.
START, UP, DOWN = ("1.10000", "1.10010"), ("1.10200", "1.10210"), ("1.09800", "1.09810")
PRICES = {
    ("limit", "buy"): {"price": "1.09900"},
    ("limit", "sell"): {"price": "1.10100"},
    ("stop", "buy"): {"price": "1.10100"},
    ("stop", "sell"): {"price": "1.09900"},
    ("stop_limit", "buy"): {"price": "1.10100", "stop_limit_price": "1.10050"},
    ("stop_limit", "sell"): {"price": "1.09900", "stop_limit_price": "1.09950"},
}


@pytest.fixture(scope="module")
def pending_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnStack]:
    with running_stack(tmp_path_factory.mktemp("pending"), SETTINGS + ACCOUNTS) as stack:
        yield stack


@pytest.fixture
async def desk(pending_stack: OwnStack) -> AsyncIterator[Desk]:
    async with desk_at(pending_stack.settings) as desk:
        yield desk


@pytest.mark.parametrize("account", ["hedge", "net"])
async def test_each_order_type_waits_at_the_broker_for_its_price_and_is_filled_there(desk: Desk, account: str) -> None:
    await desk.pin("EURUSD", *START)
    for (kind, side), prices in PRICES.items():
        await desk.send(f"{kind}-{side}", account, side=side, order_type=kind, **prices)
    for (kind, side), prices in PRICES.items():
        order = await desk.works(f"{kind}-{side}")
        assert (order["status"], Decimal(order["filled_volume"])) == ("submitted", Decimal(0))
        assert {name: order[name] for name in prices} == prices
        (at_broker,) = await desk.ledger(f"{kind}-{side}")
        assert at_broker["ticket"] == order["ticket"]
        assert at_broker["type"] == (TYPES | STOP_LIMITS)[kind, side]
        assert Decimal(at_broker["price"]) == Decimal(prices["price"])
    for quote in (UP, START, DOWN, START):
        await desk.pin("EURUSD", *quote)
    # A limit gets its price or a better one; a stop what the market shows when it is reached.
    filled_at = {
        "limit-buy": DOWN[1],
        "limit-sell": UP[0],
        "stop-buy": UP[1],
        "stop-sell": DOWN[0],
        "stop_limit-buy": START[1],
        "stop_limit-sell": START[0],
    }
    for name, price in filled_at.items():
        order = await desk.ended(name, "filled")
        assert desk.statuses(name)[-2:] == ["submitted", "filled"]
        assert Decimal(order["average_price"]) == Decimal(price), name
        _, deal = await desk.ledger(name)
        assert (Decimal(deal["volume"]), Decimal(deal["price"])) == (Decimal("0.10"), Decimal(price))


async def test_an_order_lives_as_long_as_it_was_asked_to(desk: Desk) -> None:
    await desk.pin("USDCHF", "0.90000", "0.90010")
    until = (datetime.now(UTC) + timedelta(seconds=10)).replace(microsecond=0)
    lifetimes = {"gtc": None, "day": None, "until": time_text(until)}
    limit = {"order_type": "limit", "price": "0.89900"}
    for name, expiration in lifetimes.items():
        await desk.send(name, "hedge", "USDCHF", time_in_force=name, expiration=expiration, **limit)
    for name in lifetimes:
        await desk.works(name)
    expired = await desk.ended("until", "cancelled", "expired")
    assert Decimal(expired["filled_volume"]) == 0
    assert datetime.fromisoformat(expired["updated_at"]) >= until
    await desk.pin("USDCHF", "0.89800", "0.89810")
    for name in ("gtc", "day"):
        await desk.ended(name, "filled")
    assert [len(await desk.ledger(name)) for name in lifetimes] == [2, 2, 1]
    assert [(await desk.sent(name))["type_time"] for name in lifetimes] == [0, 1, 2]
    ahead_s = (await desk.sent("until"))["expiration"] - until.timestamp()
    assert ahead_s % 1800 == 0  # said by the server's clock


async def test_a_pending_that_can_t_be_placed_ends_without_the_broker(desk: Desk) -> None:
    await desk.pin("EURUSD", *START)
    gone = time_text(datetime.now(UTC) - timedelta(seconds=1))
    await desk.send("over", "hedge", order_type="limit", price="1.09", time_in_force="until", expiration=gone)
    await desk.send("wrong-side", "hedge", order_type="limit", price="1.20")
    order = await desk.ended("wrong-side", "failed", "invalid")
    assert "below" in order["reason"]
    assert await desk.ledger("wrong-side") == []
    refused = await eventually(lambda: desk.refusals.get(desk.signal_id("over")), "the refusal")
    assert (refused["reason"], refused["detail"].split(":")[0]) == ("stale", "expiration")


async def test_a_partial_fill_is_booked_and_the_rest_ends_as_the_broker_says(desk: Desk) -> None:
    await desk.pin("EURUSD", *START)
    await desk.fault("partial", "hedge", params={"share": 0.3})
    await desk.send("rest-cancelled", "hedge")
    cut = await desk.ended("rest-cancelled", "cancelled", "ioc_remainder")
    assert (Decimal(cut["filled_volume"]), Decimal(cut["remaining_volume"])) == (Decimal("0.03"), Decimal(0))
    await desk.fault("partial_then_rest", "net", params={"share": 0.3, "ms": 2000})
    await desk.send("rest-later", "net")
    whole = await desk.ended("rest-later", "filled")
    assert "partially_filled" in desk.statuses("rest-later")
    assert Decimal(whole["filled_volume"]) == Decimal("0.10")
    _, first, second = await desk.ledger("rest-later")
    assert [Decimal(first["volume"]), Decimal(second["volume"])] == [Decimal("0.03"), Decimal("0.07")]


@pytest.mark.parametrize(
    ("rest", "status", "detail", "volumes"), [("go_on", "filled", "", [4, 6]), ("cancel", "cancelled", "broker", [4])]
)
async def test_a_pending_order_can_be_filled_in_part_when_its_price_comes(
    desk: Desk, rest: str, status: str, detail: str, volumes: list[int]
) -> None:
    await desk.pin("EURUSD", *START)
    await desk.send("in-part", "net", order_type="limit", price="1.09900")
    await desk.works("in-part")
    async with desk.broken("activation_partial", "net", share="0.4", rest=rest, after_ms=2000):
        await desk.pin("EURUSD", *DOWN)
        order = await desk.ended("in-part", status, detail)
    assert "partially_filled" in desk.statuses("in-part")
    assert [Decimal(deal["volume"]) * 100 for deal in (await desk.ledger("in-part"))[1:]] == volumes
    assert Decimal(order["filled_volume"]) * 100 == sum(volumes)


@pytest.mark.parametrize("fault", ["drop_after", "timeout_executed", "timeout_late"])
async def test_a_pending_order_whose_reply_is_lost_is_found_at_the_broker_and_goes_on(desk: Desk, fault: str) -> None:
    await desk.pin("EURUSD", *START)
    await desk.fault(fault, "hedge")
    await desk.send("lost-reply", "hedge", order_type="stop", price="1.10100")
    await desk.works("lost-reply")
    await desk.pin("EURUSD", *UP)
    await desk.ended("lost-reply", "filled")


@pytest.mark.parametrize("fault", ["drop_before", "timeout_lost", "conn_lost"])
async def test_a_pending_order_that_never_arrived_is_proven_absent_and_not_sent_again(desk: Desk, fault: str) -> None:
    await desk.pin("EURUSD", *START)
    await desk.fault(fault, "hedge")
    await desk.send("never-arrived", "hedge", order_type="limit", price="1.09900")
    await desk.ended("never-arrived", "failed", "absent")
    assert await desk.ledger("never-arrived") == []


async def test_an_exchange_places_first_and_fills_later(desk: Desk) -> None:
    await desk.pin("EURUSD", *START)
    await desk.send("at-market", "exchange")
    await desk.ended("at-market", "filled")
    await desk.fault("partial_then_rest", "exchange", params={"share": 0.5, "ms": 1000})
    await desk.send("in-parts", "exchange", volume="0.20")
    await desk.ended("in-parts", "filled")
    await desk.send("waits", "exchange", side="sell", order_type="limit", price="1.10100", volume="0.30")
    await desk.works("waits")
    await desk.pin("EURUSD", *UP)
    await desk.ended("waits", "filled")
    assert (await desk.sent("waits"))["type_filling"] == 2


async def test_a_broker_that_takes_only_flagged_fillings_gets_what_order_check_passed(desk: Desk) -> None:
    await desk.pin("EURUSD", *START)
    await desk.send("flagged", "flagged", "EURUSD.r", order_type="limit", price="1.09900")
    await desk.works("flagged")
    assert (await desk.sent("flagged"))["type_filling"] != 2
    await desk.pin("EURUSD", *DOWN)
    await desk.ended("flagged", "filled")


@pytest.mark.parametrize("account", ["hedge", "net"])
@pytest.mark.parametrize(("reason", "quote"), [("sl", ("1.29400", "1.29410")), ("tp", ("1.30600", "1.30610"))])
async def test_a_stop_loss_or_take_profit_moves_the_position_and_no_order_s_volume(
    desk: Desk, account: str, reason: str, quote: tuple[str, str]
) -> None:
    await desk.pin("GBPUSD", "1.30000", "1.30010")
    protected = {"stop_loss": "1.29500", "take_profit": "1.30500"}
    asked = {"order_type": "limit", "price": "1.29990", "strategy": "breakout"}
    await desk.send("opens", account, "GBPUSD", **asked, **protected)
    await desk.works("opens")
    await desk.pin("GBPUSD", "1.29980", "1.29990")
    order = await desk.ended("opens", "filled")
    await desk.pin("GBPUSD", *quote)
    closing = await desk.closed(order["position_id"], reason)
    assert (closing["order_id"], closing["entry"], closing["side"]) == (None, "out", "sell")
    assert (closing["opening_order_id"], closing["strategy"]) == (order["order_id"], "breakout")
    await eventually(lambda: _is_flat(desk, account, order["position_id"]), "a flat position")
    known = await desk.view(f"/orders/{order['order_id']}")
    assert (known["status"], Decimal(known["filled_volume"])) == ("filled", Decimal("0.10"))


async def _is_flat(desk: Desk, account: str, position_id: int) -> bool:
    return not await desk.position(account, position_id)


async def test_a_stop_out_moves_the_position_and_no_order_s_volume(desk: Desk) -> None:
    await desk.pin("AUDUSD", "0.65000", "0.65010")
    await desk.send("too-much", "small", "AUDUSD", volume="5.00")
    order = await desk.ended("too-much", "filled")
    await desk.pin("AUDUSD", "0.64650", "0.64660")
    closing = await desk.closed(order["position_id"], "so")
    assert (closing["order_id"], Decimal(closing["volume"])) == (None, Decimal(5))
    assert closing["opening_signal_id"] == order["signal_id"]
    known = await desk.view(f"/orders/{order['order_id']}")
    assert (known["status"], Decimal(known["filled_volume"])) == ("filled", Decimal("5.00"))


async def test_a_working_order_that_the_money_does_not_suffice_for_is_rejected_when_its_price_comes(desk: Desk) -> None:
    await desk.pin("NZDUSD", "0.60000", "0.60010")
    await desk.send("unaffordable", "small", "NZDUSD", order_type="stop", price="0.60100", volume="50.00")
    await desk.works("unaffordable")
    await desk.pin("NZDUSD", "0.60200", "0.60210")
    order = await desk.ended("unaffordable", "rejected", "reject")
    assert Decimal(order["filled_volume"]) == 0


async def test_a_working_order_is_changed_and_withdrawn_on_request(desk: Desk) -> None:
    await desk.pin("EURUSD", *START)
    for name in ("changed", "withdrawn"):
        await desk.send(name, "net", order_type="limit", price="1.09900")
        await desk.works(name)
    changes = {"price": "1.09950", "stop_loss": "1.09000"}
    changed = await desk.ask("modify", "net", order_id=desk.order_id("changed"), **changes)
    withdrawn = await desk.ask("cancel", "net", order_id=desk.order_id("withdrawn"))
    assert (changed["outcome"], withdrawn["outcome"]) == ("done", "done")
    assert Decimal((await desk.ended("withdrawn", "cancelled", "user"))["filled_volume"]) == 0
    await desk.pin("EURUSD", "1.09930", "1.09940")
    order = await desk.ended("changed", "filled")
    assert (Decimal(order["price"]), Decimal(order["stop_loss"])) == (Decimal("1.09950"), Decimal("1.09000"))


@pytest.mark.parametrize(("account", "volume"), [("hedge", "0.04"), ("hedge", None), ("net", None)])
async def test_a_position_is_closed_on_request_and_the_order_that_opened_it_stays_filled(
    desk: Desk, account: str, volume: str | None
) -> None:
    await desk.pin("USDCAD", "1.36000", "1.36010")
    await desk.send("opened", account, "USDCAD", strategy="breakout")
    opened = await desk.ended("opened", "filled")
    position_id, epoch = opened["position_id"], await desk.epoch(account)
    left = Decimal(0) if volume is None else Decimal("0.10") - Decimal(volume)
    reply = await desk.ask("close", account, position_id=position_id, volume=volume, epoch=epoch)
    assert reply["outcome"] in {"done", "recorded"}

    async def closed() -> bool:
        return await desk.position(account, position_id) == left

    await eventually(closed, lambda: f"{left} lots left")
    fill = await eventually(
        lambda: next((one for one in desk.fills if (one["position_id"], one["side"]) == (position_id, "sell")), None),
        "the fill that closed",
    )
    assert (fill["opening_order_id"], fill["strategy"]) == (opened["order_id"], "breakout")
    assert fill["order_id"] != opened["order_id"]
    known = await desk.view(f"/orders/{opened['order_id']}")
    assert (known["status"], Decimal(known["filled_volume"])) == ("filled", Decimal("0.10"))


async def test_a_deal_that_the_broker_corrects_and_takes_back_changes_order_and_position_everywhere(desk: Desk) -> None:
    await desk.pin("EURGBP", "0.85000", "0.85010")
    for name, action in (("corrected", "correct"), ("taken-back", "bust")):
        await desk.send(name, "hedge", "EURGBP")
        await desk.ended(name, "filled")
        _, deal = await desk.ledger(name)
        await desk.intervene("hedge", action=action, deal=deal["ticket"], price="0.85020")
    order = await desk.ended("taken-back", "cancelled", "broker")
    assert desk.statuses("taken-back")[-3:] == ["filled", "submitted", "cancelled"]
    assert (Decimal(order["filled_volume"]), order["average_price"]) == (Decimal(0), None)
    await eventually(lambda: _is_flat(desk, "hedge", order["position_id"]), "a flat position")

    async def corrected() -> bool:
        known = await desk.view(f"/orders/{desk.order_id('corrected')}")
        return known["status"] == "filled" and Decimal(known["average_price"]) == Decimal("0.85020")

    await eventually(corrected, "the corrected price")


async def test_every_witness_tells_the_same_story_of_all_of_them(desk: Desk) -> None:
    evidence = await settled_evidence(desk.settings, desk.nats, within_s=SETTLE_WITHIN_S)
    assert disagreements(evidence) == []
    assert unsettled(evidence) == []
    assert evidence.ledger is not None
    assert {entry.reason for entry in evidence.ledger if entry.kind == "deal"} >= {"expert", "sl", "tp", "so"}
    assert (await desk.health())["invariants"]["one_order_per_intent"]
