from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.domain.identifiers import magic_of, tag_of
from streamapp.domain.parameters import OrderParameters
from streamapp.terminal.account.request import build, protection, to_tick
from streamapp.terminal.pipe.structs import number
from tests.terminal.judged import KEYS, PENDING_KEYS, TIME, passes, pending, seen
from tests.terminal.scripted import showing, submit_request, symbol, tick


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
    on_grid = to_tick(price, symbol(trade_tick_size=float(grid)))
    assert on_grid % Decimal(grid) == 0
    assert abs(on_grid - price) <= Decimal(grid) / 2


def test_the_noise_of_floats_stays_outside() -> None:
    assert number(1.0851200000000001) == Decimal("1.08512")
    assert number(0.1 + 0.2) == Decimal("0.3")


HELD: dict[str, Any] = {"type": 0, "volume": 0.1, "sl": 1.07, "tp": 1.1}


@pytest.mark.parametrize(
    ("wanted", "held", "levels"),
    [
        ({}, HELD, (1.07, 1.1)),
        ({"stop_loss": Decimal("1.075")}, HELD, (1.075, 1.1)),
        ({"take_profit": Decimal("1.12")}, HELD, (1.07, 1.12)),
        ({}, HELD | {"sl": 0.0}, (0.0, 1.1)),
        ({}, None, (0.0, 0.0)),
        ({"side": "sell"}, HELD, (0.0, 0.0)),  # it reduces: the levels stay; it turns round: they would be wrong
        ({"side": "sell"}, HELD | {"type": 1, "sl": 1.1, "tp": 1.07}, (1.1, 1.07)),
    ],
)
def test_an_order_that_adds_to_a_netting_position_names_the_levels_that_are_there(
    wanted: dict[str, Any], held: dict[str, Any] | None, levels: tuple[float, float]
) -> None:
    request = build(submit_request(epoch="e", **wanted), showing(seen(), netted=held), 1, TIME)
    assert (request["sl"], request["tp"]) == levels


def test_a_pending_order_names_its_own_levels_and_what_the_position_shall_keep_is_known() -> None:
    order = submit_request(epoch="e", **pending("limit", "buy", "1.08", stop_loss=Decimal("1.06")))
    held = showing(seen(), netted=HELD)
    request = build(order, held, 2, TIME)
    assert (request["sl"], request["tp"]) == (1.06, 0.0)
    assert protection(order, held) == (Decimal("1.06000"), Decimal("1.1"))


@pytest.mark.parametrize(
    ("limit", "of_symbol", "ask", "deviation"),
    [
        (None, None, 1.0851, 20),
        (None, None, 1.09, 500),  # the spread
        (None, 7, 1.09, 7),
        (30, 7, 1.09, 30),
        (-5, None, 1.09, 0),
    ],
)
def test_the_deviation_is_the_signals_or_the_symbols_or_the_spread(
    limit: int | None, of_symbol: int | None, ask: float, deviation: int
) -> None:
    order = submit_request(epoch="e").model_copy(update={"max_slippage_points": limit})
    prepared = showing(seen(), tick=tick() | {"ask": ask})
    assert build(order, prepared, 1, TIME, of_symbol)["deviation"] == deviation


def test_what_is_asked_for_is_not_changed_by_time() -> None:
    order = submit_request(epoch="e")
    later = order.model_copy(update={"not_after": order.not_after + timedelta(days=1)})
    prepared = seen()
    assert build(order, prepared, 1, TIME) == build(later, prepared, 1, TIME)
    assert isinstance(order.parameters, OrderParameters)


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


@given(
    st.decimals(min_value=Decimal("1E-10"), max_value=Decimal(10) ** 27, places=10),
    st.sampled_from(["0.01", "0.25", "0.00001", "5"]),
)
def test_no_price_from_outside_overflows_the_grid(price: Decimal, grid: str) -> None:
    assert abs(to_tick(price, symbol(trade_tick_size=float(grid))) - price) <= Decimal(grid) / 2
