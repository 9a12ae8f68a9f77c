from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.domain.identifiers import magic_of, tag_of
from streamapp.domain.parameters import OrderParameters
from streamapp.settings import AccountSettings, GuardSettings
from streamapp.terminal.request import Prepared, RefusedError, build, fillings, judge, number, to_tick
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
        judge(
            order, prepared, account, guards or GuardSettings(), time=ServerTime(SERVER_AHEAD_S), now=datetime.now(UTC)
        )
    return refused.value.reason, refused.value.message


def passes(prepared: Prepared, *, update: dict[str, Any] | None = None, **wanted: Any) -> None:
    order = submit_request(epoch="e", **wanted).model_copy(update=update or {})
    account = AccountSettings(login=LOGIN, server=SERVER)
    judge(order, prepared, account, GuardSettings(), time=ServerTime(SERVER_AHEAD_S), now=datetime.now(UTC))


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


@pytest.mark.parametrize("kind", ["limit", "stop", "stop_limit"])
def test_other_order_types_are_not_supported_yet(kind: str) -> None:
    assert refusal(seen(), order_type=kind, price=Decimal(1)) == ("invalid", f"order type not supported yet: {kind}")


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
    assert build(submit_request(epoch="e", volume=volume), seen(), 1)["volume"] == steps / 100


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


@pytest.mark.parametrize(
    ("execution", "flags", "policy", "chosen"),
    [
        (2, 2, "any", (1,)),
        (2, 1, "any", (0,)),
        (2, 3, "any", (1,)),
        (2, 0, "any", (0, 1, 2)),
        (2, 3, "fok", (0,)),
        (2, 3, "ioc", (1,)),
        (1, 1, "any", (0,)),
        (1, 0, "any", (0,)),
        (0, 1, "return", (2,)),
        (3, 0, "any", (2,)),
        (3, 2, "any", (1,)),
        (3, 2, "return", (2,)),
    ],
)
def test_the_filling_mode_follows_the_symbols_flags(
    execution: int, flags: int, policy: str, chosen: tuple[int, ...]
) -> None:
    wanted = submit_request(epoch="e", fill_policy=policy).parameters
    assert fillings(wanted, SYMBOL | {"trade_exemode": execution, "filling_mode": flags}) == chosen


@pytest.mark.parametrize(("flags", "policy"), [(2, "fok"), (1, "ioc"), (3, "return"), (0, "return")])
def test_a_fill_policy_that_the_symbol_does_not_allow_is_invalid(flags: int, policy: str) -> None:
    wanted = submit_request(epoch="e", fill_policy=policy).parameters
    with pytest.raises(RefusedError):
        fillings(wanted, SYMBOL | {"filling_mode": flags})


def test_the_request_has_the_known_keys_and_the_types_that_the_module_takes() -> None:
    order = submit_request(epoch="e", volume=Decimal(1), stop_loss=Decimal("1.0800004"), take_profit=Decimal("1.09"))
    request = build(order, seen(), 1)
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
    assert build(order, prepared, 1) == build(later, prepared, 1)
    assert isinstance(order.parameters, OrderParameters)
