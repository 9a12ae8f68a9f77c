from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.settings import GuardSettings
from streamapp.terminal.account.pretrade import refuse_frozen, refuse_implausible, refuse_prices
from streamapp.terminal.account.request import RefusedError, build
from tests.terminal.judged import ASK, BID, TIME, passes, pending, refusal, seen
from tests.terminal.scripted import OWNER, SYMBOL, TERMINAL, prepare, submit_request, symbol


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
    "wanted",
    [
        {"stop_loss": Decimal("1.08")},
        pending("limit", "buy", "1.08"),
        pending("stop_limit", "buy", "3", "1.08"),
    ],
)
def test_a_price_that_would_be_rounded_away_is_invalid(wanted: dict[str, Any]) -> None:
    guards = GuardSettings(max_level_distance=Decimal(5))
    reason, message = refusal(seen(symbol={"trade_tick_size": 3.0}), guards, **wanted)
    assert (reason, "at least one tick" in message) == ("invalid", True)


@pytest.mark.parametrize(
    "wanted",
    [
        {"stop_loss": Decimal(500)},  # points
        {"stop_loss": Decimal("0.005")},
        {"take_profit": Decimal("108.5")},
        {"side": "sell", "take_profit": Decimal("0.5424")},
        {"side": "sell", "stop_loss": Decimal("1.6276")},
        pending("stop", "buy", "108.5"),
        pending("limit", "sell", "-1.09"),
        pending("limit", "buy", "0.000004"),
        pending("stop_limit", "buy", "1.09", "0.01"),
    ],
)
def test_a_price_or_level_far_from_the_market_is_refused_as_implausible(wanted: dict[str, Any]) -> None:
    reason, message = refusal(seen(), **wanted)
    assert (reason, "implausible" in message) == ("guard", True)


def test_how_far_is_implausible_is_a_setting() -> None:
    passes(seen(), side="sell", stop_loss=Decimal("1.6274"), take_profit=Decimal("0.5426"))
    near = GuardSettings(max_level_distance=Decimal("0.01"))
    assert "within 1 % of the market at 1.0851" in refusal(seen(), near, stop_loss=Decimal("1.07"))[1]


NEGATIVE = {"bid": -37.66, "ask": -37.60, "time": 1, "time_msc": 1}


@pytest.mark.parametrize(
    ("side", "good", "bad"),
    [
        ("buy", {"stop_loss": "-45", "take_profit": "-30"}, {"stop_loss": "-37.66"}),
        ("sell", {"stop_loss": "-30", "take_profit": "-45"}, {"take_profit": "-37"}),
        ("buy", {"take_profit": "-20"}, {"take_profit": "20"}),
    ],
)
def test_levels_below_zero_are_judged_as_all_others(side: Any, good: dict[str, str], bad: dict[str, str]) -> None:
    oil = SYMBOL | {"trade_tick_size": 0.01, "point": 0.01}

    def judged(levels: dict[str, str]) -> None:
        market = prepare(TERMINAL, OWNER, oil, NEGATIVE, 1.0)
        prices: dict[str, Any] = {name: Decimal(price) for name, price in levels.items()}
        wanted = submit_request(epoch="e", side=side, **prices).parameters
        refuse_implausible(wanted, market.market(side), GuardSettings())
        refuse_prices(wanted, market)

    judged(good)
    with pytest.raises(RefusedError):
        judged(bad)


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
    freezing = symbol(trade_freeze_level=10)
    refuse_frozen("price", Decimal(price), Decimal(BID), symbol())
    if frozen:
        with pytest.raises(RefusedError, match="frozen"):
            refuse_frozen("price", Decimal(price), Decimal(BID), freezing)
    else:
        refuse_frozen("price", Decimal(price), Decimal(BID), freezing)
