from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.domain.identifiers import magic_of, tag_of
from streamapp.domain.parameters import OrderParameters
from streamapp.settings import AccountSettings, GuardSettings
from streamapp.terminal.admission import judge
from streamapp.terminal.request import Prepared, RefusedError, build, number, to_tick
from streamapp.terminal.servertime import ServerTime
from tests.terminal.scripted import LOGIN, OWNER, SERVER, SERVER_AHEAD_S, SYMBOL, TERMINAL, submit_request, tick

KEYS = {
    "action",
    "symbol",
    "volume",
    "type",
    "price",
    "sl",
    "tp",
    "deviation",
    "type_filling",
    "type_time",
    "magic",
    "comment",
}


PENDING_KEYS = KEYS - {"deviation"}
OPEN = {"ticket": 78, "identifier": 77, "symbol": "EURUSD", "type": 1, "volume": 0.1}
"""A sell, which the order of submit_request can close; its broker gave it another ticket."""
TIME = ServerTime(SERVER_AHEAD_S)
BID, ASK = "1.08500", "1.08510"  # of scripted.tick


def seen(
    *,
    terminal: dict[str, Any] | None = None,
    account: dict[str, Any] | None = None,
    symbol: dict[str, Any] | None = None,
    age_s: float = 0.0,
) -> Prepared:
    return Prepared(
        terminal=TERMINAL | (terminal or {}),
        account=OWNER | (account or {}),
        symbol=SYMBOL | (symbol or {}),
        tick=tick(age_s),
        rate=1.0,
    )


def refusal(
    prepared: Prepared, guards: GuardSettings | None = None, *, update: dict[str, Any] | None = None, **wanted: Any
) -> tuple[str, str]:
    order = submit_request(epoch="e", **wanted).model_copy(update=update or {})
    account = AccountSettings(login=LOGIN, server=SERVER)
    with pytest.raises(RefusedError) as refused:
        judge(order, prepared, account, guards or GuardSettings(), time=TIME, now=datetime.now(UTC))
    return refused.value.reason, refused.value.message


def passes(prepared: Prepared, *, update: dict[str, Any] | None = None, **wanted: Any) -> None:
    order = submit_request(epoch="e", **wanted).model_copy(update=update or {})
    account = AccountSettings(login=LOGIN, server=SERVER)
    judge(order, prepared, account, GuardSettings(), time=TIME, now=datetime.now(UTC))


def test_an_ordinary_order_passes() -> None:
    passes(seen(), stop_loss=Decimal("1.08"), take_profit=Decimal("1.09"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"terminal": {"connected": False}},
        {"terminal": {"trade_allowed": False}},
        {"terminal": {"tradeapi_disabled": True}},
        {"account": {"login": 43}},
        {"account": {"server": "Other-Live"}},
        {"account": {"trade_allowed": False}},
        {"account": {"trade_expert": False}},
    ],
)
def test_an_account_that_may_not_trade_refuses_as_not_connected(wrong: dict[str, Any]) -> None:
    assert refusal(seen(**wrong))[0] == "not_connected"


def test_an_unknown_symbol_is_invalid() -> None:
    prepared = Prepared(terminal=TERMINAL, account=OWNER, symbol=None, tick=None, rate=None)
    assert refusal(prepared)[0] == "invalid"


@pytest.mark.parametrize(("mode", "side"), [(0, "buy"), (0, "sell"), (1, "sell"), (2, "buy"), (3, "buy"), (3, "sell")])
def test_a_symbol_that_is_closed_for_the_side_is_invalid(mode: int, side: str) -> None:
    assert refusal(seen(symbol={"trade_mode": mode}), side=side)[0] == "invalid"


@pytest.mark.parametrize("volume", ["0.001", "500.01", "0.015", "1000"])
def test_a_volume_off_the_grid_is_invalid_and_never_rounded(volume: str) -> None:
    assert refusal(seen(), volume=Decimal(volume))[0] == "invalid"


@given(st.integers(min_value=1, max_value=50_000))
def test_every_volume_on_the_grid_passes_and_is_sent_as_its_float(steps: int) -> None:
    volume = Decimal(steps) / 100
    passes(seen(), volume=volume)
    assert build(submit_request(epoch="e", volume=volume), seen(), 1, TIME)["volume"] == steps / 100


@pytest.mark.parametrize(
    ("side", "levels"),
    [
        ("buy", {"stop_loss": "1.08500"}),  # the bid
        ("buy", {"stop_loss": "1.09"}),
        ("buy", {"take_profit": "1.08"}),
        ("sell", {"stop_loss": "1.08"}),
        ("sell", {"take_profit": "1.09"}),
    ],
)
def test_stops_on_the_wrong_side_are_invalid(side: str, levels: dict[str, str]) -> None:
    wanted: dict[str, Any] = {"side": side, **{name: Decimal(price) for name, price in levels.items()}}
    assert refusal(seen(), **wanted)[0] == "invalid"


def test_stops_nearer_than_the_stops_level_are_invalid() -> None:
    symbol = {"trade_stops_level": 50}
    assert refusal(seen(symbol=symbol), stop_loss=Decimal("1.08451"))[0] == "invalid"
    passes(seen(symbol=symbol), stop_loss=Decimal("1.08450"))


def test_a_stale_tick_is_refused_by_the_guard() -> None:
    assert refusal(seen(age_s=61))[0] == "guard"
    assert refusal(Prepared(terminal=TERMINAL, account=OWNER, symbol=SYMBOL, tick=None, rate=None))[0] == "guard"


def test_guards_refuse_by_symbol_and_by_volume() -> None:
    assert refusal(seen(), GuardSettings(symbols=("GBPUSD",)))[0] == "guard"
    assert refusal(seen(), GuardSettings(max_volume=Decimal("0.05")))[0] == "guard"


def test_a_price_too_far_from_the_expected_one_is_refused_by_the_guard() -> None:
    far = {"expected_price": "1.08400", "max_slippage_points": 100}
    assert refusal(seen(), update=far)[0] == "guard"
    passes(seen(), update=far | {"max_slippage_points": 110})
    passes(seen(), side="sell", update=far)


def test_the_request_has_the_known_keys_and_the_types_that_the_module_takes() -> None:
    order = submit_request(epoch="e", volume=Decimal(1), stop_loss=Decimal("1.0800004"), take_profit=Decimal("1.09"))
    request = build(order, seen(), 1, TIME)
    assert request.keys() == KEYS
    assert all(type(request[name]) is float for name in ("volume", "price", "sl", "tp"))
    assert all(
        type(request[name]) is int for name in ("action", "type", "deviation", "type_filling", "type_time", "magic")
    )
    assert (request["volume"], request["price"], request["sl"], request["tp"]) == (1.0, 1.0851, 1.08, 1.09)
    assert request["magic"] == magic_of(order.order_id)
    assert 0 < request["magic"] < 2**63
    assert request["comment"].startswith(tag_of(order.order_id))
    assert len(request["comment"]) <= 25
    assert request["comment"].isascii()


@given(
    st.decimals(min_value=Decimal("0.1"), max_value=Decimal(100000), places=7),
    st.sampled_from(["0.01", "0.25", "0.00001", "5"]),
)
def test_a_price_goes_to_the_nearest_tick(price: Decimal, grid: str) -> None:
    on_grid = to_tick(price, {"trade_tick_size": float(grid), "point": 1e-05})
    assert on_grid % Decimal(grid) == 0
    assert abs(on_grid - price) <= Decimal(grid) / 2


def test_the_noise_of_floats_stays_outside() -> None:
    assert number(1.0851200000000001) == Decimal("1.08512")
    assert number(0.1 + 0.2) == Decimal("0.3")


def test_what_is_asked_for_is_not_changed_by_time() -> None:
    order = submit_request(epoch="e")
    later = order.model_copy(update={"not_after": order.not_after + timedelta(days=1)})
    prepared = seen()
    assert build(order, prepared, 1, TIME) == build(later, prepared, 1, TIME)
    assert isinstance(order.parameters, OrderParameters)


def pending(kind: str, side: str, price: str, limit: str | None = None, **more: Any) -> dict[str, Any]:
    stop_limit_price = None if limit is None else Decimal(limit)
    return {"order_type": kind, "side": side, "price": Decimal(price), "stop_limit_price": stop_limit_price} | more


@pytest.mark.parametrize(
    ("wanted", "number_of_type"),
    [
        (pending("limit", "buy", "1.08509"), 2),
        (pending("limit", "sell", "1.08501"), 3),
        (pending("stop", "buy", "1.08511"), 4),
        (pending("stop", "sell", "1.08499"), 5),
        (pending("stop_limit", "buy", "1.08520", "1.08515"), 6),
        (pending("stop_limit", "sell", "1.08490", "1.08495"), 7),
        (pending("stop_limit", "buy", "1.08520", "1.08520"), 6),
    ],
)
def test_a_pending_order_is_sent_at_its_own_price_as_one_of_six_types(
    wanted: dict[str, Any], number_of_type: int
) -> None:
    passes(seen(), **wanted)
    request = build(submit_request(epoch="e", **wanted), seen(), 2, TIME)
    assert (request["action"], request["type"], request["type_filling"]) == (5, number_of_type, 2)
    assert request["price"] == float(wanted["price"])
    limit = wanted["stop_limit_price"]
    assert request.keys() == (PENDING_KEYS if limit is None else PENDING_KEYS | {"stoplimit"})
    assert request.get("stoplimit") == (None if limit is None else float(limit))


@pytest.mark.parametrize(
    "wanted",
    [
        pending("limit", "buy", ASK),
        pending("limit", "buy", "1.08520"),
        pending("limit", "sell", BID),
        pending("limit", "sell", "1.08490"),
        pending("stop", "buy", ASK),
        pending("stop", "buy", "1.08490"),
        pending("stop", "sell", BID),
        pending("stop", "sell", "1.08520"),
        pending("stop_limit", "buy", "1.08500", "1.08490"),
        pending("stop_limit", "buy", "1.08520", "1.08521"),  # the limit above its stop
        pending("stop_limit", "sell", "1.08490", "1.08489"),
        pending("limit", "buy", "0.000004"),  # no tick at all: sent, it would be no price
        pending("stop_limit", "buy", "1.08520", "0.000004"),
    ],
)
def test_a_pending_price_on_the_wrong_side_of_the_market_is_invalid(wanted: dict[str, Any]) -> None:
    assert refusal(seen(), **wanted)[0] == "invalid"


@pytest.mark.parametrize(
    ("near", "far"),
    [
        (pending("limit", "buy", "1.08461"), pending("limit", "buy", "1.08460")),
        (pending("limit", "sell", "1.08549"), pending("limit", "sell", "1.08550")),
        (pending("stop", "buy", "1.08559"), pending("stop", "buy", "1.08560")),
        (pending("stop", "sell", "1.08451"), pending("stop", "sell", "1.08450")),
        (pending("stop_limit", "buy", "1.08559", "1.08500"), pending("stop_limit", "buy", "1.08560", "1.08510")),
        (pending("stop_limit", "buy", "1.08560", "1.08511"), pending("stop_limit", "sell", "1.08450", "1.08500")),
    ],
)
def test_a_pending_price_nearer_than_the_stops_level_is_invalid(near: dict[str, Any], far: dict[str, Any]) -> None:
    symbol = {"trade_stops_level": 50}
    assert refusal(seen(symbol=symbol), **near)[0] == "invalid"
    passes(seen(symbol=symbol), **far)


@pytest.mark.parametrize(
    ("wanted", "good", "bad"),
    [
        (pending("limit", "buy", "1.08000"), {"stop_loss": "1.07950"}, {"stop_loss": "1.07951"}),
        (pending("limit", "buy", "1.08000"), {"take_profit": "1.08050"}, {"take_profit": "1.08049"}),
        (pending("stop", "sell", "1.08000"), {"stop_loss": "1.08050"}, {"stop_loss": "1.08049"}),
        (pending("stop_limit", "buy", "1.09000", "1.08700"), {"stop_loss": "1.08650"}, {"stop_loss": "1.08651"}),
        (pending("stop_limit", "buy", "1.09000", "1.08700"), {"take_profit": "1.08750"}, {"take_profit": "1.08749"}),
    ],
)
def test_protection_of_a_pending_is_measured_from_where_it_is_filled(
    wanted: dict[str, Any], good: dict[str, str], bad: dict[str, str]
) -> None:
    prepared = seen(symbol={"trade_stops_level": 50})
    passes(prepared, **(wanted | {name: Decimal(price) for name, price in good.items()}))
    assert refusal(prepared, **(wanted | {name: Decimal(price) for name, price in bad.items()}))[0] == "invalid"


@pytest.mark.parametrize(
    ("kind", "bit"), [("market", 1), ("limit", 2), ("stop", 4), ("stop_limit", 8), ("stop_loss", 16), ("profit", 32)]
)
def test_what_order_mode_does_not_allow_is_invalid(kind: str, bit: int) -> None:
    wanted: dict[str, Any] = {
        "market": {},
        "limit": pending("limit", "buy", "1.08000"),
        "stop": pending("stop", "buy", "1.09000"),
        "stop_limit": pending("stop_limit", "buy", "1.09000", "1.08000"),
        "stop_loss": {"stop_loss": Decimal("1.07")},
        "profit": {"take_profit": Decimal("1.1")},
    }[kind]
    assert "order_mode" in refusal(seen(symbol={"order_mode": 127 - bit}), **wanted)[1]
    passes(seen(symbol={"order_mode": 127}), **wanted)


@pytest.mark.parametrize(("lifetime", "type_time", "bit"), [("gtc", 0, 1), ("day", 1, 2), ("until", 2, 4)])
def test_a_lifetime_is_sent_if_expiration_mode_allows_it(lifetime: str, type_time: int, bit: int) -> None:
    expiration = datetime.now(UTC) + timedelta(hours=1) if lifetime == "until" else None
    wanted = pending("limit", "buy", "1.08000", time_in_force=lifetime, expiration=expiration)
    passes(seen(symbol={"expiration_mode": bit}), **wanted)
    request = build(submit_request(epoch="e", **wanted), seen(), 2, TIME)
    assert request["type_time"] == type_time
    if expiration is not None:
        assert request["expiration"] == int(expiration.timestamp()) + SERVER_AHEAD_S
        assert type(request["expiration"]) is int
    else:
        assert "expiration" not in request
    assert refusal(seen(symbol={"expiration_mode": 15 - bit}), **wanted)[0] == "invalid"


@pytest.mark.parametrize("kind", ["market", "limit"])
def test_an_expiration_that_is_over_is_stale(kind: str) -> None:
    late: dict[str, Any] = {"time_in_force": "until", "expiration": datetime.now(UTC)}
    wanted = late if kind == "market" else pending("limit", "buy", "1.08000", **late)
    assert refusal(seen(), **wanted)[0] == "stale"


def test_an_expiration_waits_for_the_servers_clock_to_be_known() -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    order = submit_request(epoch="e", **pending("limit", "buy", "1.08000", time_in_force="until", expiration=until))
    account = AccountSettings(login=LOGIN, server=SERVER)
    with pytest.raises(RefusedError, match="server's clock") as refused:
        judge(order, seen(), account, GuardSettings(), time=ServerTime(), now=datetime.now(UTC))
    assert refused.value.reason == "not_connected"


def test_the_broker_limits_the_lots_in_one_direction() -> None:
    symbol = {"volume_limit": 1.0}
    full = Prepared(TERMINAL, OWNER, SYMBOL | symbol, tick(), 1.0, held=(0.95, 0.0))
    assert "in one direction" in refusal(full)[1]
    passes(full, side="sell")
    passes(full, volume=Decimal("0.05"))
    assert refusal(seen(symbol=symbol), volume=Decimal("1.01"))[0] == "invalid"


@pytest.mark.parametrize(
    ("wanted", "allowed"),
    [
        (pending("limit", "buy", "1.08000"), True),
        (pending("limit", "sell", "1.09000"), True),
        (pending("stop", "buy", "1.08600"), True),
        (pending("stop", "buy", "1.08601"), False),
        (pending("stop_limit", "buy", "1.09000", "1.08600"), True),
        (pending("stop_limit", "buy", "1.09000", "1.08601"), False),
    ],
)
def test_slippage_of_a_pending_is_judged_by_its_own_price(wanted: dict[str, Any], *, allowed: bool) -> None:
    bound = {"expected_price": "1.08500", "max_slippage_points": 100}
    if allowed:
        passes(seen(), update=bound, **wanted)
    else:
        assert refusal(seen(), update=bound, **wanted)[0] == "guard"


def test_an_order_that_closes_a_position_names_it_and_is_not_held_back_by_what_limits_opening() -> None:
    closing = {"position_id": 77, "expected_price": "1.00000", "max_slippage_points": 1}
    order = submit_request(epoch="e").model_copy(update=closing)
    prepared = Prepared(TERMINAL, OWNER, SYMBOL | {"trade_mode": 3, "volume_limit": 0.1}, tick(), 1.0, held=(9.0, 9.0))
    prepared = replace(prepared, position=OPEN)
    guards = GuardSettings(symbols=("GBPUSD",), max_volume=Decimal("0.01"))
    account = AccountSettings(login=LOGIN, server=SERVER)
    judge(order, prepared, account, guards, time=TIME, now=datetime.now(UTC))
    request = build(order, prepared, 1, TIME)
    assert request.keys() == KEYS | {"position"}
    assert request["position"] == 78  # its ticket now
    assert refusal(seen(symbol={"trade_mode": 0}), update={"position_id": 77})[0] == "invalid"
    assert refusal(seen(age_s=61), update={"position_id": 77})[0] == "guard"


@pytest.mark.parametrize(
    "position", [None, OPEN | {"volume": 0.09}, OPEN | {"type": 0}], ids=["closed", "smaller", "turned round"]
)
def test_an_order_that_closes_is_refused_when_there_is_not_so_much_to_close(position: dict[str, Any] | None) -> None:
    reason, message = refusal(replace(seen(), position=position), update={"position_id": 77})
    assert reason == "invalid"
    assert "position 77" in message


def test_a_stop_loss_that_would_be_rounded_away_is_invalid() -> None:
    assert refusal(seen(), stop_loss=Decimal("0.000004"))[0] == "invalid"


@given(
    st.decimals(min_value=Decimal("1E-10"), max_value=Decimal(10) ** 27, places=10),
    st.sampled_from(["0.01", "0.25", "0.00001", "5"]),
)
def test_no_price_from_outside_overflows_the_grid(price: Decimal, grid: str) -> None:
    assert abs(to_tick(price, {"trade_tick_size": float(grid), "point": 1e-05}) - price) <= Decimal(grid) / 2


@given(
    st.decimals(min_value=Decimal("0.5"), max_value=Decimal(2), places=7),
    st.decimals(min_value=Decimal("0.5"), max_value=Decimal(2), places=7),
    st.sampled_from(["limit", "stop"]),
    st.sampled_from(["buy", "sell"]),
)
def test_every_pending_that_passes_is_sent_on_the_right_side_of_the_market(
    price: Decimal, stop_loss: Decimal, kind: str, side: str
) -> None:
    wanted = pending(kind, side, str(price), stop_loss=stop_loss)
    try:
        passes(seen(), **wanted)
    except RefusedError:
        return
    request = build(submit_request(epoch="e", **wanted), seen(), 2, TIME)
    sign = 1 if side == "buy" else -1
    market = 1.0851 if side == "buy" else 1.085
    assert (request["price"] - market) * sign * (1 if kind == "stop" else -1) > 0
    assert (request["price"] - request["sl"]) * sign > 0
