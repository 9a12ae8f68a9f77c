from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.domain.limits import QuoteLimits
from streamapp.settings import AccountSettings, GuardSettings
from streamapp.terminal.account.pretrade import judge
from streamapp.terminal.account.request import NotYetError, RefusedError, build
from streamapp.terminal.account.servertime import ServerTime
from streamapp.terminal.pipe.structs import Tick, TradePosition
from tests.terminal.judged import KEYS, OPEN, TIME, passes, pending, refusal, seen
from tests.terminal.scripted import (
    LOGIN,
    OWNER,
    SERVER,
    SERVER_AHEAD_S,
    SYMBOL,
    TERMINAL,
    prepare,
    showing,
    struct,
    submit_request,
    tick,
)


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
    prepared = prepare(terminal=TERMINAL, account=OWNER, symbol=None, tick=None, rate=None)
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


def test_a_stale_tick_is_refused_by_the_guard() -> None:
    assert refusal(seen(age_s=61))[0] == "guard"


def test_a_tick_from_the_future_shows_that_our_clock_was_set_back_and_every_not_after_with_it() -> None:
    reason, message = refusal(seen(age_s=-600))
    assert (reason, "a clock that is right" in message) == ("guard", True)
    assert refusal(prepare(terminal=TERMINAL, account=OWNER, symbol=SYMBOL, tick=None, rate=None))[0] == "guard"


@pytest.mark.parametrize("age_s", [61.0, 86400.0, -600.0])
def test_the_age_of_a_quote_holds_no_order_back_that_closes(age_s: float) -> None:
    passes(showing(seen(age_s=age_s), position=OPEN), update={"position_id": 77})


def test_the_age_of_a_quote_holds_no_pending_order_back_but_a_clock_that_is_wrong_does() -> None:
    passes(seen(age_s=7200), **pending("limit", "buy", "1.08000"))
    assert "a clock that is right" in refusal(seen(age_s=-600), **pending("limit", "buy", "1.08000"))[1]


def test_a_quote_that_moves_while_we_look_is_fresh_whatever_the_servers_clock_says() -> None:
    order, account = submit_request(epoch="e"), AccountSettings(login=LOGIN, server=SERVER)
    judged = partial(judge, order, seen(age_s=3600), account, GuardSettings(), time=TIME, now=datetime.now(UTC))
    judged(quote_moved=True)
    with pytest.raises(NotYetError):
        judged()


@pytest.mark.parametrize(
    ("bid", "ask", "time_msc", "quoted"),
    [(-37.66, -37.60, 1, True), (-0.01, 0.0, 1, True), (0.0, 0.0, 1, False), (1.0, 1.1, 0, False)],
)
def test_no_quote_is_no_tick_or_one_without_a_time(bid: float, ask: float, time_msc: int, quoted: bool) -> None:
    assert prepare(TERMINAL, OWNER, SYMBOL, {"bid": bid, "ask": ask, "time_msc": time_msc}, 1.0).has_quote is quoted
    assert not prepare(TERMINAL, OWNER, SYMBOL, None, 1.0).has_quote


def test_a_position_is_closed_at_a_negative_price() -> None:
    oil = showing(seen(symbol={"trade_tick_size": 0.01, "point": 0.01}), position=OPEN | {"type": 0})
    oil = showing(oil, tick=tick(age_s=600) | {"bid": -37.66, "ask": -37.60})
    order = submit_request(epoch="e", side="sell").model_copy(update={"position_id": 77})
    passes(oil, side="sell", update={"position_id": 77})
    assert build(order, oil, 1, TIME)["price"] == -37.66


@pytest.mark.parametrize("volume", ["0.105", "0.005", "0.013"])
def test_what_is_open_is_closed_whole_though_it_is_off_the_grid_and_a_part_of_it_is_not(volume: str) -> None:
    odd = showing(seen(), position=OPEN | {"volume": float(volume)})
    passes(odd, volume=Decimal(volume), update={"position_id": 77})
    more = showing(seen(), position=OPEN | {"volume": 1.0})
    assert "lots" in refusal(more, volume=Decimal(volume), update={"position_id": 77})[1]
    assert "at most" in refusal(odd, GuardSettings(max_volume=Decimal("0.001")), volume=Decimal(volume))[1]


def test_guards_refuse_by_symbol_and_by_volume() -> None:
    assert refusal(seen(), GuardSettings(symbols=("GBPUSD",)))[0] == "guard"
    assert refusal(seen(), GuardSettings(max_volume=Decimal("0.05")))[0] == "guard"


def test_a_price_too_far_from_the_expected_one_is_refused_by_the_guard() -> None:
    far = {"expected_price": "1.08400", "max_slippage_points": 100}
    assert refusal(seen(), update=far)[0] == "guard"
    passes(seen(), update=far | {"max_slippage_points": 110})
    passes(seen(), side="sell", update=far)


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
    full = prepare(TERMINAL, OWNER, SYMBOL | symbol, tick(), 1.0, held=(0.95, 0.0))
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
    prepared = prepare(TERMINAL, OWNER, SYMBOL | {"trade_mode": 3, "volume_limit": 0.1}, tick(), 1.0, held=(9.0, 9.0))
    prepared = showing(prepared, position=OPEN)
    guards = GuardSettings(symbols=("GBPUSD",), max_volume=Decimal("0.01"))
    account = AccountSettings(login=LOGIN, server=SERVER)
    judge(order, prepared, account, guards, time=TIME, now=datetime.now(UTC))
    request = build(order, prepared, 1, TIME)
    assert request.keys() == KEYS | {"position"}
    assert request["position"] == 78  # its ticket now
    assert refusal(seen(symbol={"trade_mode": 0}), update={"position_id": 77})[0] == "invalid"


def test_an_order_that_closes_is_refused_when_a_newer_deal_has_closed_what_is_shown() -> None:
    shown = OPEN | {"time_update_msc": 2}
    deals = [{"type": 1, "volume": 0.1, "time_msc": 1}]
    passes(showing(seen(), position=shown, deals=deals), update={"position_id": 77})
    deals = [*deals, {"type": 0, "volume": 0.1, "time_msc": 3}]
    reason, message = refusal(showing(seen(), position=shown, deals=deals), update={"position_id": 77})
    assert (reason, "older view" in message) == ("guard", True)


@pytest.mark.parametrize("position", [OPEN | {"volume": 0.09}, OPEN | {"type": 0}], ids=["smaller", "turned round"])
def test_an_order_that_closes_is_refused_when_there_is_not_so_much_to_close(position: dict[str, Any] | None) -> None:
    reason, message = refusal(showing(seen(), position=position), update={"position_id": 77})
    assert reason == "invalid"
    assert "position 77" in message


SOLD: dict[str, Any] = {"ticket": 1, "type": 1, "volume": 0.1, "time_msc": 1, "entry": 0}
BOUGHT_BACK: dict[str, Any] = {"ticket": 2, "type": 0, "volume": 0.1, "time_msc": 2, "entry": 1}
CHARGE: dict[str, Any] = {"ticket": 3, "type": 7, "volume": 0.0, "time_msc": 3, "entry": 0}


def closing_of(*deals: dict[str, Any]) -> RefusedError:
    """Return why an order may not close a position that is not shown and has these deals."""
    order = submit_request(epoch="e").model_copy(update={"position_id": 77})
    account, prepared = AccountSettings(login=LOGIN, server=SERVER), showing(seen(), deals=deals)
    with pytest.raises(RefusedError) as refused:
        judge(order, prepared, account, GuardSettings(), time=TIME, now=datetime.now(UTC))
    return refused.value


@pytest.mark.parametrize(
    ("deals", "said"),
    [
        ((), "neither open nor in history"),
        ((SOLD,), "its deals leave it open"),
        ((SOLD, BOUGHT_BACK | {"volume": 0.04}), "its deals leave it open"),
        ((SOLD, CHARGE), "its deals leave it open"),
        ((SOLD, BOUGHT_BACK, BOUGHT_BACK | {"ticket": 4, "entry": 0, "time_msc": 4}), "its deals leave it open"),
    ],
    ids=["no deals", "open", "in part", "a charge", "opened again"],
)
def test_a_position_that_is_not_shown_is_looked_for_again_unless_its_deals_closed_it(
    deals: tuple[dict[str, Any], ...], said: str
) -> None:
    refused = closing_of(*deals)
    assert isinstance(refused, NotYetError)
    assert "position 77" in refused.message
    assert said in refused.message


@pytest.mark.parametrize(
    "deals",
    [(SOLD, BOUGHT_BACK), (BOUGHT_BACK, SOLD, CHARGE), (SOLD, BOUGHT_BACK | {"volume": 0.4})],
    ids=["closed", "and charged", "more than its deals, after a split"],
)
def test_a_position_that_its_deals_closed_is_refused_at_once(deals: tuple[dict[str, Any], ...]) -> None:
    refused = closing_of(*deals)
    assert not isinstance(refused, NotYetError)
    assert (refused.reason, refused.message) == ("invalid", "expected position 77 open, its deals have closed it")


def test_nothing_is_judged_by_a_read_that_failed() -> None:
    order, account = submit_request(epoch="e"), AccountSettings(login=LOGIN, server=SERVER)
    with pytest.raises(NotYetError, match=r"a read failed: account_info: Terminal: Call failed \(-1\)"):
        judge(
            order,
            prepare(None, None, None, None, None, unread="account_info: Terminal: Call failed (-1)"),
            account,
            GuardSettings(),
            time=TIME,
            now=datetime.now(UTC),
        )


# --- guards with a quote


LARGE = (
    "max_order_leverage: expected 10000.00 USD at most for EURUSD, 0.001 times the equity, "
    "got 10851.00 by 0.1 lots of 100000"
)
FAR = "max_price_distance: expected a price within 1 % of the market at 1.0851, got 1.05"


@pytest.mark.parametrize(
    ("limits", "wanted", "said"),
    [
        ({"symbols": ("GBPUSD",)}, {}, "symbols: expected one of GBPUSD, got EURUSD"),
        ({"max_volume": "0.05"}, {}, "max_volume: expected 0.05 lots at most for EURUSD, got 0.1"),
        ({"max_notional": "10000"}, {}, "max_notional: expected 10000 USD at most for EURUSD, got 10851.00"),
        ({"max_order_leverage": "0.001"}, {}, LARGE),
        ({"max_spread_points": 9}, {}, "max_spread_points: expected 9 points at most for EURUSD, got 10.0"),
        ({"max_price_distance": "0.01"}, pending("limit", "buy", "1.05"), FAR),
        (
            {"max_tick_age_s": 5},
            {},
            "max_tick_age_s: expected a quote of EURUSD not older than 5 s, got one of 30 s ago",
        ),
        (
            {"max_level_distance": "0.01"},
            {"stop_loss": Decimal("1.05")},
            "max_level_distance: expected stop_loss within 1 % of the market at 1.0851, got 1.05, which is implausible",
        ),
    ],
)
def test_each_guard_says_what_it_expected_and_holds_back_nothing_that_closes(
    limits: dict[str, Any], wanted: dict[str, Any], said: str
) -> None:
    market = seen(age_s=30)
    guards = GuardSettings.model_validate(limits)
    assert refusal(market, guards, **wanted) == ("guard", said)
    if not wanted:
        order = submit_request(epoch="e").model_copy(update={"position_id": 77})
        account = AccountSettings(login=LOGIN, server=SERVER)
        judge(order, showing(market, position=OPEN), account, guards, time=TIME, now=datetime.now(UTC))


def test_what_an_order_may_be_worth_is_money_of_the_account() -> None:
    yen = replace(seen(), rate=0.0066)
    assert "got 71.62" in refusal(yen, GuardSettings(max_notional=Decimal(70)))[1]
    unknown = replace(seen(), rate=None)
    assert "nobody can value" in refusal(unknown, GuardSettings(max_notional=Decimal(70)))[1]


@pytest.mark.parametrize(
    ("lots", "contract", "price", "equity"),
    [(100, 100, 2350, 200_000), (1000, 100_000, 1.085, 1_000_000), (500, 5000, 28.4, 500_000)],
    ids=["ounces of gold", "units of a currency", "ounces of silver"],
)
def test_by_default_units_that_are_meant_are_too_much_where_lots_are_expected_and_lots_are_not(
    lots: int, contract: int, price: float, equity: int
) -> None:
    market = seen(account={"equity": float(equity)}, symbol={"trade_contract_size": float(contract), "volume_max": 1e6})
    market = replace(market, tick=struct(Tick, tick() | {"bid": price, "ask": price}))
    reason, message = refusal(market, volume=Decimal(lots))
    assert (reason, message.split(":")[0]) == ("guard", "max_order_leverage")
    assert f"got {Decimal(str(price)) * contract * lots:.2f} by {lots} lots of {contract}" in message
    passes(market, volume=Decimal(lots) / contract)


@pytest.mark.parametrize("equity", [0.0, -12.5])
def test_without_equity_nothing_is_opened_and_what_is_open_is_closed(equity: float) -> None:
    market = seen(account={"equity": equity})
    assert f"got {equity:.2f}" in refusal(market)[1]
    passes(showing(market, position=OPEN), update={"position_id": 77})


@pytest.mark.parametrize(
    ("held", "volume", "opened"),
    [
        ({"type": 1, "volume": 3.0}, "3", None),
        ({"type": 1, "volume": 3.0}, "4", None),
        ({"type": 1, "volume": 3.0}, "4.01", "1.01"),
        ({"type": 0, "volume": 3.0}, "1.01", "1.01"),
    ],
    ids=["closes", "turns round", "turns round too far", "enlarges"],
)
def test_where_a_symbol_has_one_position_only_what_opens_or_enlarges_it_is_measured(
    held: dict[str, Any], volume: str, opened: str | None
) -> None:
    market = replace(seen(account={"equity": 100_000.0}), netted=struct(TradePosition, OPEN | held))
    guards = GuardSettings(max_order_leverage=Decimal("1.09"))
    if opened is None:
        passes(market, guards, volume=Decimal(volume))
    else:
        assert f"by {opened} lots" in refusal(market, guards, volume=Decimal(volume))[1]


@pytest.mark.parametrize(
    ("given", "passing"),
    [({"max_spread_points": 9}, True), ({"max_tick_age_s": 5}, True), ({"max_notional": "1"}, False)],
)
def test_what_the_market_breaks_is_looked_at_again_and_what_the_order_breaks_is_not(
    given: dict[str, Any], passing: bool
) -> None:
    order, account = submit_request(epoch="e"), AccountSettings(login=LOGIN, server=SERVER)
    with pytest.raises(RefusedError) as refused:
        judge(order, seen(age_s=30), account, GuardSettings.model_validate(given), time=TIME, now=datetime.now(UTC))
    assert isinstance(refused.value, NotYetError) is passing


def test_what_an_order_brings_of_limits_stands_in_place_of_the_terminals_own() -> None:
    guards = GuardSettings(max_volume=Decimal("0.05"), max_spread_points=9, symbols=("GBPUSD",))
    wider = {"limits": QuoteLimits(max_volume=Decimal(1), symbols=("EURUSD",))}
    assert refusal(seen(), guards, update=wider)[1].startswith("max_spread_points: expected 9")
    stricter = {"limits": QuoteLimits(max_spread_points=3)}
    assert refusal(seen(), update=stricter)[1].startswith("max_spread_points: expected 3")
