from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.terminal.account.levels import refuse_frozen
from streamapp.terminal.account.request import RefusedError, build
from tests.terminal.judged import ASK, BID, TIME, passes, pending, refusal, seen
from tests.terminal.scripted import SYMBOL, submit_request


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


def test_a_stop_loss_that_would_be_rounded_away_is_invalid() -> None:
    assert refusal(seen(), stop_loss=Decimal("0.000004"))[0] == "invalid"


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


@pytest.mark.parametrize(("price", "frozen"), [("1.08480", False), ("1.08490", True), ("1.08510", True)])
def test_what_is_about_to_trigger_is_frozen(price: str, *, frozen: bool) -> None:
    symbol = SYMBOL | {"trade_freeze_level": 10}
    refuse_frozen("price", Decimal(price), Decimal(BID), SYMBOL)
    if frozen:
        with pytest.raises(RefusedError, match="frozen"):
            refuse_frozen("price", Decimal(price), Decimal(BID), symbol)
    else:
        refuse_frozen("price", Decimal(price), Decimal(BID), symbol)
