"""What is to be done next for an operation: each rule, on rows as the module shows them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.domain.identifiers import magic_of, tag_of
from streamapp.domain.limits import AccountLimits, Limits, QuoteLimits, SymbolLimits
from streamapp.settings import AccountSettings, GuardSettings
from streamapp.terminal.account.deals import net_volume
from streamapp.terminal.account.request import NotYetError, RefusedError
from streamapp.terminal.account.servertime import ServerTime
from streamapp.terminal.operations import rules
from streamapp.terminal.operations.rules import Ask, AsOrder, Context, Done, Impossible, Step, Unknown
from streamapp.terminal.pipe.answers import OrderSeen, PositionSeen, Prepared
from streamapp.terminal.pipe.structs import TradeDeal, TradeOrder, TradePosition, TradeRequest
from tests.terminal.asking import operation
from tests.terminal.scripted import (
    ACCOUNT,
    LOGIN,
    OWNER,
    SERVER,
    SERVER_AHEAD_S,
    SYMBOL,
    TERMINAL,
    deal,
    maybe,
    prepare,
    structs,
    tick,
)

TIME = ServerTime(SERVER_AHEAD_S)
BID, ASK = "1.08500", "1.08510"  # of scripted.tick
ORDER: dict[str, Any] = {
    "ticket": 5, "symbol": "EURUSD", "type": 2, "type_time": 0, "type_filling": 2, "time_expiration": 0, "state": 1,
    "volume_initial": 0.1, "volume_current": 0.1, "price_open": 1.08, "price_stoplimit": 0.0, "sl": 1.07, "tp": 1.09,
}  # fmt: skip
BOUGHT = deal(1, 77, 9, 0.3)
POSITION: dict[str, Any] = {
    "ticket": 78, "identifier": 77, "symbol": "EURUSD", "type": 0, "volume": 0.3, "sl": 1.07, "tp": 1.1,
    "time_update_msc": BOUGHT["time_msc"],
}  # fmt: skip


def market(**symbol: Any) -> Prepared:
    return prepare(TERMINAL, OWNER, SYMBOL | symbol, tick(), 1.0)


@dataclass(frozen=True)
class Seen:
    """An order or position as the module shows it."""

    live: dict[str, Any] | None = None
    past: dict[str, Any] | None = None
    deals: list[dict[str, Any]] = field(default_factory=list)
    prepared: Prepared | None = None

    def order(self) -> OrderSeen:
        return OrderSeen(True, maybe(TradeOrder, self.live), maybe(TradeOrder, self.past), self.prepared)

    def position(self) -> PositionSeen:
        return PositionSeen(True, maybe(TradePosition, self.live), structs(TradeDeal, self.deals), self.prepared)


def an_order(symbol: dict[str, Any] | None = None, **changed: Any) -> Seen:
    return Seen(live=ORDER | changed, prepared=market(**symbol or {}))


def a_position(symbol: dict[str, Any] | None = None, deals: list[dict[str, Any]] | None = None, **changed: Any) -> Seen:
    return Seen(live=POSITION | changed, deals=[BOUGHT] if deals is None else deals, prepared=market(**symbol or {}))


def context(**changed: Any) -> Context:
    account = AccountSettings(login=LOGIN, server=SERVER)
    given: dict[str, Any] = {
        "account": account, "limits": AccountLimits(GuardSettings()), "hedging": True, "time": TIME,
        "now": datetime.now(UTC), "key": "k",
    }  # fmt: skip
    return Context(**{**given, **changed})


def step(kind: str, *seen: Seen, asked: dict[str, Any] | None = None, **judged: Any) -> Step:
    targets: dict[str, dict[str, Any]] = {
        "cancel": {"ticket": 5},
        "modify": {"ticket": 5},
        "protect": {"position_id": 77},
        "close": {"position_id": 77, "epoch": "e"},
        "close_by": {"position_id": 77, "by_position_id": 88},
    }
    request = operation(kind, account=ACCOUNT, **{**targets[kind], **(asked or {})})
    shown = [each.order() if kind in {"cancel", "modify"} else each.position() for each in seen]
    result: Step = getattr(rules, kind)(request, *shown, context(**judged))
    return result


def sent(kind: str, *seen: Seen, asked: dict[str, Any] | None = None, **judged: Any) -> TradeRequest:
    found = step(kind, *seen, asked=asked, **judged)
    assert isinstance(found, Ask), found
    (request,) = found.requests
    return request


def refusal(kind: str, *seen: Seen, asked: dict[str, Any] | None = None, **judged: Any) -> str:
    with pytest.raises(RefusedError) as refused:
        step(kind, *seen, asked=asked, **judged)
    return refused.value.message


def test_a_cancellation_names_the_order_and_nothing_else() -> None:
    assert sent("cancel", an_order()) == {"action": 8, "order": 5}


@pytest.mark.parametrize(
    ("past", "expected"),
    [
        ({"state": 2, "volume_current": 0.1}, Done),
        ({"state": 6, "volume_current": 0.1}, Done),
        ({"state": 5, "volume_current": 0.1}, Done),
        ({"state": 4, "volume_current": 0.05}, Done),
        ({"state": 4, "volume_current": 0.0}, Impossible),
        (None, Unknown),
    ],
)
def test_a_cancelled_order_is_one_that_history_shows_without_all_of_its_volume(
    past: dict[str, Any] | None, expected: type
) -> None:
    assert isinstance(step("cancel", Seen(past=past)), expected)


def test_a_modification_replaces_everything_and_keeps_what_was_not_named() -> None:
    request = sent("modify", an_order(), asked={"price": Decimal("1.081")})
    assert request == {"action": 7, "order": 5, "price": 1.081, "sl": 1.07, "tp": 1.09, "type_time": 0}
    assert {type(request[name]) for name in ("price", "sl", "tp")} == {float}


def test_a_modification_takes_a_level_away_with_0_and_rounds_to_the_grid() -> None:
    asked = {"price": Decimal("1.0810049"), "stop_loss": Decimal(0), "take_profit": Decimal("1.0949951")}
    request = sent("modify", an_order(), asked=asked)
    assert (request["price"], request["sl"], request["tp"]) == (1.081, 0.0, 1.095)


def test_a_modification_that_the_order_has_already_is_not_sent_and_says_what_it_is() -> None:
    asked = {"price": Decimal("1.0800000001"), "take_profit": Decimal("1.0900")}
    assert step("modify", an_order(), asked=asked) == Done(changes={"price": "1.08000", "take_profit": "1.09000"})
    assert step("modify", an_order(sl=0.0), asked={"stop_loss": 0}) == Done(changes={"stop_loss": None})


def test_an_expiration_is_sent_in_the_servers_time_and_makes_the_order_one_until_then() -> None:
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    request = sent("modify", an_order(), asked={"expiration": until})
    assert (request["type_time"], request["expiration"]) == (2, int(until.timestamp()) + SERVER_AHEAD_S)
    live = an_order(type_time=2, time_expiration=request["expiration"])
    held = step("modify", live, asked={"expiration": until})
    assert isinstance(held, Done)
    assert held.changes["time_in_force"] == "until"
    assert datetime.fromisoformat(held.changes["expiration"] or "") == until
    kept = sent("modify", live, asked={"price": Decimal("1.081")})
    assert (kept["type_time"], kept["expiration"]) == (2, request["expiration"])


def test_a_stop_limit_order_keeps_its_limit_and_no_other_order_gets_one() -> None:
    waiting = an_order(type=6, price_open=1.09, price_stoplimit=1.086, sl=0.0, tp=0.0)
    assert sent("modify", waiting, asked={"price": Decimal("1.091")})["stoplimit"] == 1.086
    assert sent("modify", waiting, asked={"stop_limit_price": Decimal("1.0865")})["stoplimit"] == 1.0865
    assert "stop-limit" in refusal("modify", an_order(), asked={"stop_limit_price": Decimal("1.0865")})


@pytest.mark.parametrize(
    ("asked", "symbol", "word"),
    [
        ({"price": Decimal("1.0852")}, {}, "below"),
        ({"price": Decimal("1.08505")}, {"trade_stops_level": 10}, "price at least"),
        ({"stop_loss": Decimal("1.0801")}, {}, "stop_loss"),
        ({"stop_loss": Decimal("1.07995")}, {"trade_stops_level": 10}, "stop_loss"),
        ({"take_profit": Decimal("1.0799")}, {}, "take_profit"),
        ({"stop_loss": Decimal("1.06")}, {"order_mode": 127 - 16}, "stop_loss allowed"),
        ({"take_profit": Decimal("1.2")}, {"order_mode": 127 - 32}, "take_profit allowed"),
        ({"expiration": datetime(2001, 1, 1, tzinfo=UTC)}, {}, "expiration after"),
        ({"expiration": datetime(2037, 1, 1, tzinfo=UTC)}, {"expiration_mode": 1}, "lifetime"),
        ({"expiration": datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)}, {}, "before the year 3001"),
        ({"take_profit": Decimal("1.2")}, {"trade_freeze_level": 600}, "frozen"),
    ],
)
def test_a_modification_that_the_broker_would_not_take_is_not_sent(
    asked: dict[str, Any], symbol: dict[str, Any], word: str
) -> None:
    assert word in refusal("modify", an_order(symbol), asked=asked)


def test_an_order_about_to_trigger_is_not_cancelled() -> None:
    assert "frozen" in refusal("cancel", an_order({"trade_freeze_level": 600}))
    assert isinstance(step("cancel", an_order({"trade_freeze_level": 400})), Ask)


@pytest.mark.parametrize(
    ("kind", "seen"),
    [("cancel", an_order()), ("modify", an_order()), ("protect", a_position()), ("close", a_position())],
)
def test_a_read_that_failed_is_looked_at_again_and_is_no_unknown_symbol_and_no_lost_connection(
    kind: str, seen: Seen
) -> None:
    failed = replace(seen, prepared=Prepared(unread="symbol_info: Terminal: Call failed (-1)"))
    with pytest.raises(NotYetError, match="a read failed: symbol_info: Terminal: Call failed"):
        step(kind, failed, asked={"price": 1} if kind == "modify" else {})


def test_an_order_that_is_over_is_not_modified() -> None:
    assert isinstance(step("modify", Seen(past={"state": 4, "volume_current": 0.0}), asked={"price": 1}), Impossible)
    assert isinstance(step("modify", Seen(), asked={"price": 1}), Unknown)


def test_protection_always_sends_both_levels_and_the_ticket_of_now() -> None:
    request = sent("protect", a_position(), asked={"stop_loss": Decimal("1.08")})
    assert request == {"action": 6, "symbol": "EURUSD", "position": 78, "sl": 1.08, "tp": 1.1}
    assert sent("protect", a_position(), asked={"take_profit": 0}) == request | {"sl": 1.07, "tp": 0.0}
    assert step("protect", a_position(), asked={"stop_loss": Decimal("1.07")}) == Done()


@pytest.mark.parametrize(
    ("seen", "asked", "word"),
    [
        (a_position(), {"stop_loss": Decimal("1.0851")}, "stop_loss"),
        (a_position(), {"take_profit": Decimal("1.0849")}, "take_profit"),
        (a_position({"trade_stops_level": 10}), {"stop_loss": Decimal("1.08495")}, "stop_loss"),
        (a_position(type=1, sl=1.1, tp=1.0), {"stop_loss": Decimal("1.085")}, "stop_loss"),
        (a_position({"trade_freeze_level": 100}, sl=1.0845), {"stop_loss": Decimal("1.08")}, "frozen"),
        (a_position({"order_mode": 127 - 16}), {"stop_loss": Decimal("1.08")}, "allowed"),
    ],
)
def test_protection_that_the_broker_would_not_take_is_not_sent(seen: Seen, asked: dict[str, Any], word: str) -> None:
    assert word in refusal("protect", seen, asked=asked)


def test_an_unchanged_level_does_not_stand_in_the_way_of_the_other() -> None:
    near = a_position({"trade_stops_level": 10}, sl=1.08495)
    assert sent("protect", near, asked={"take_profit": Decimal("1.2")})["sl"] == 1.08495


def test_a_whole_hedging_position_is_closed_with_its_id_and_what_is_open_of_it() -> None:
    request = sent("close", a_position())
    assert (request["action"], request["type"], request["position"], request["volume"]) == (1, 1, 78, 0.3)
    assert (request["price"], request["type_filling"]) == (float(BID), 1)
    assert (request["magic"], request["comment"]) == (magic_of("k"), tag_of("k"))
    assert type(request["volume"]) is float
    named = sent("close", a_position(), asked={"volume": Decimal("0.30")})
    assert named == request


def test_what_was_sent_for_the_whole_goes_on_with_what_is_left() -> None:
    left = a_position(volume=0.1)
    assert sent("close", left, asked={"volume": Decimal("0.3")}, sent=True)["volume"] == 0.1


@pytest.mark.parametrize(("kind", "side"), [(0, "sell"), (1, "buy")])
def test_a_partial_close_and_any_netting_close_is_an_order_of_its_own(kind: int, side: str) -> None:
    seen = a_position(type=kind, deals=[deal(1, 77, 9, 0.3, type=kind)])
    part = step("close", seen, asked={"volume": Decimal("0.1")})
    assert isinstance(part, AsOrder)
    assert (part.parameters.side, part.parameters.volume, part.parameters.order_type) == (
        side,
        Decimal("0.1"),
        "market",
    )
    whole = step("close", seen, hedging=False)
    assert isinstance(whole, AsOrder)
    assert (whole.parameters.side, whole.parameters.volume) == (side, Decimal("0.3"))


@pytest.mark.parametrize("hedging", [True, False])
def test_more_than_is_open_is_never_closed(hedging: bool) -> None:
    assert "0.3" in refusal("close", a_position(), asked={"volume": Decimal("0.31")}, hedging=hedging)


def test_a_position_that_its_deals_deny_is_looked_at_again_and_believed_only_if_it_is_the_newer_one() -> None:
    later = BOUGHT["time_msc"] + 1
    out = deal(2, 78, 9, 0.3, type=1, entry=1, time_msc=later)
    shown_late, deals_late = a_position(deals=[BOUGHT, out]), a_position(volume=0.2, time_update_msc=later)
    for seen in (shown_late, deals_late):
        assert isinstance(step("close", seen, hedging=False), Unknown)
    assert isinstance(step("close", shown_late, hedging=False, within_grace=False), Unknown)
    assert isinstance(step("close", deals_late, hedging=False, within_grace=False), AsOrder)


def test_a_position_is_closed_only_when_history_shows_its_end() -> None:
    out = deal(2, 78, 9, 0.3, type=1, entry=1, reason=4)
    assert step("close", Seen(deals=[BOUGHT, out])) == Done("the position is closed (the last deal's reason: sl)")
    assert isinstance(step("close", Seen(deals=[BOUGHT])), Unknown)
    assert isinstance(step("close", Seen()), Unknown)
    assert isinstance(step("close", Seen(deals=[BOUGHT, out]), asked={"volume": Decimal("0.3")}), Impossible)
    assert isinstance(step("close", Seen(deals=[BOUGHT, out]), asked={"volume": Decimal("0.3")}, sent=True), Done)
    assert isinstance(step("protect", Seen(deals=[BOUGHT, out]), asked={"stop_loss": 1}), Impossible)
    assert isinstance(step("protect", Seen(deals=[BOUGHT]), asked={"stop_loss": 1}), Unknown)


def test_a_position_that_closed_more_than_its_deals_say_was_open_is_closed_after_a_split() -> None:
    out = deal(2, 78, 9, 1.2, type=1, entry=1)
    assert isinstance(step("close", Seen(deals=[BOUGHT, out])), Done)
    turned = deal(2, 78, 9, 0.5, type=1, entry=2)
    part = deal(3, 79, 9, 0.1, entry=1, time_msc=turned["time_msc"] + 1)
    for deals in ([BOUGHT, turned], [BOUGHT, turned, part]):
        assert isinstance(step("close", Seen(deals=deals), hedging=False), Unknown)


OPPOSITE = Seen(live=POSITION | {"ticket": 88, "identifier": 88, "type": 1, "volume": 0.1}, prepared=market())


@pytest.mark.parametrize(
    ("kind", "seen", "asked"),
    [
        ("protect", a_position(), {"stop_loss": Decimal("0.005")}),
        ("protect", a_position(), {"take_profit": Decimal(500)}),
        ("modify", an_order(sl=0.0, tp=0.0), {"price": Decimal("0.3")}),
        ("modify", an_order(), {"stop_loss": Decimal("0.3")}),
    ],
)
def test_a_level_that_is_implausible_is_not_sent_but_one_that_stays_may_be_anywhere(
    kind: str, seen: Seen, asked: dict[str, Any]
) -> None:
    assert "implausible" in refusal(kind, seen, asked=asked)
    wide = AccountLimits(Limits(max_level_distance=Decimal(1000)))
    assert isinstance(step(kind, seen, asked=asked, limits=wide), Ask)


NEAR = Decimal("0.01")
FURTHER = {"price": Decimal("1.07")}


@pytest.mark.parametrize(
    ("kind", "seen", "asked", "guard"),
    [
        ("protect", a_position(), {"stop_loss": Decimal("1.05")}, "max_level_distance"),
        ("modify", an_order(), {"stop_loss": Decimal("1.05")}, "max_level_distance"),
        ("modify", an_order(sl=0.0), FURTHER, "max_level_distance"),
        ("modify", an_order(sl=0.0), FURTHER, "max_price_distance"),
        (
            "modify",
            an_order(type=6, sl=0.0, tp=0.0, price_open=1.09, price_stoplimit=1.088),
            {"stop_limit_price": Decimal("1.07")},
            "max_price_distance",
        ),
    ],
)
def test_an_operation_keeps_the_limits_of_its_account_and_of_its_symbol(
    kind: str, seen: Seen, asked: dict[str, Any], guard: str
) -> None:
    limit: dict[str, Any] = {guard: NEAR}
    for limits in (AccountLimits(Limits(**limit)), AccountLimits(by_symbol={"EURUSD": SymbolLimits(**limit)})):
        said = refusal(kind, seen, asked=asked, limits=limits)
        assert said.startswith(f"{guard}: expected ")
        assert "within 1 % of the market at 1.085" in said
    others = AccountLimits(by_symbol={"GBPUSD": SymbolLimits(**limit)})
    assert isinstance(step(kind, seen, asked=asked, limits=others), Ask)


@pytest.mark.parametrize(
    ("kind", "seen"), [("protect", a_position()), ("modify", an_order())], ids=["position", "order"]
)
def test_the_limits_that_an_operation_brings_stand_in_place_of_the_accounts(kind: str, seen: Seen) -> None:
    near = AccountLimits(Limits(max_level_distance=NEAR))
    asked: dict[str, Any] = {"stop_loss": Decimal("1.05"), "limits": QuoteLimits(max_level_distance=Decimal("0.1"))}
    assert isinstance(step(kind, seen, asked=asked, limits=near), Ask)
    asked["limits"] = QuoteLimits(max_level_distance=Decimal("0.02"))
    assert "within 2 % of the market" in refusal(kind, seen, asked=asked)
    asked["limits"] = QuoteLimits(max_volume=Decimal("0.01"))
    assert "within 1 % of the market" in refusal(kind, seen, asked=asked, limits=near)


def test_a_price_that_stays_is_not_measured_again() -> None:
    limits = AccountLimits(Limits(max_price_distance=NEAR, max_level_distance=NEAR))
    far = an_order(price_open=1.05, sl=0.0, tp=0.0)
    assert isinstance(step("modify", far, asked={"take_profit": Decimal("1.09")}, limits=limits), Ask)


def test_what_stays_as_it_is_may_be_anywhere() -> None:
    assert sent("protect", a_position(tp=99.0), asked={"stop_loss": Decimal("1.08")})["tp"] == 99.0
    assert sent("modify", an_order(tp=99.0), asked={"price": Decimal("1.081")})["tp"] == 99.0


def test_getting_out_needs_no_fresh_quote_and_a_cancellation_none_at_all() -> None:
    old = prepare(TERMINAL, OWNER, SYMBOL, tick(86400), 1.0)
    assert isinstance(step("close", Seen(live=POSITION, deals=[BOUGHT], prepared=old)), Ask)
    assert isinstance(step("close", Seen(live=POSITION, deals=[BOUGHT], prepared=old), hedging=False), AsOrder)
    none = prepare(TERMINAL, OWNER, SYMBOL, None, None)
    assert isinstance(step("cancel", Seen(live=ORDER, prepared=none)), Ask)
    with pytest.raises(NotYetError):
        step("close", Seen(live=POSITION, deals=[BOUGHT], prepared=none))


def test_a_position_is_closed_and_protected_at_prices_below_zero() -> None:
    oil = prepare(TERMINAL, OWNER, SYMBOL | {"trade_tick_size": 0.01}, tick() | {"bid": -37.66, "ask": -37.6}, 1.0)
    seen = Seen(live=POSITION | {"sl": 0.0, "tp": 0.0}, deals=[BOUGHT], prepared=oil)
    assert sent("close", seen)["price"] == -37.66
    assert sent("protect", seen, asked={"stop_loss": Decimal("-45.004")})["sl"] == -45.0


def test_a_whole_position_above_the_largest_order_is_several_orders_and_not_too_many() -> None:
    big = a_position({"volume_max": 0.1})
    whole = step("close", big)
    assert isinstance(whole, AsOrder)
    assert (whole.parameters.volume, whole.largest) == (Decimal("0.3"), Decimal("0.1"))
    assert "at most 50 orders" in refusal("close", a_position({"volume_max": 0.001}))
    off_the_grid = step("close", a_position({"volume_min": 0.01, "volume_step": 0.04, "volume_max": 0.1}))
    assert isinstance(off_the_grid, AsOrder)
    assert off_the_grid.largest == Decimal("0.09")


def test_close_by_names_both_positions_by_their_tickets() -> None:
    request = sent("close_by", a_position(), OPPOSITE)
    assert request == {
        "action": 10, "symbol": "EURUSD", "position": 78, "position_by": 88,
        "magic": magic_of("k"), "comment": tag_of("k"),
    }  # fmt: skip


def test_close_by_is_for_two_opposite_positions_of_one_symbol_on_a_hedging_account() -> None:
    assert "hedging" in refusal("close_by", a_position(), OPPOSITE, hedging=False)
    assert "opposite" in refusal("close_by", a_position(), a_position())
    other = Seen(live=POSITION | {"type": 1, "symbol": "GBPUSD"}, prepared=market())
    assert "one symbol" in refusal("close_by", a_position(), other)
    assert "two positions" in refusal("close_by", a_position(), OPPOSITE, asked={"by_position_id": 77})
    assert "allowed" in refusal("close_by", a_position({"order_mode": 63}), OPPOSITE)


def test_close_by_is_done_only_by_its_own_deals() -> None:
    def gone(entry: int) -> Seen:
        return Seen(deals=[BOUGHT, deal(2, 99, 9, 0.3, type=1, entry=entry)])

    assert isinstance(step("close_by", gone(3), OPPOSITE, sent=True), Done)
    assert isinstance(step("close_by", gone(3), OPPOSITE), Impossible)  # before we asked
    assert isinstance(step("close_by", gone(1), OPPOSITE, sent=True), Impossible)
    assert isinstance(step("close_by", Seen(deals=[BOUGHT]), OPPOSITE, sent=True), Unknown)


@pytest.mark.parametrize("kind", ["cancel", "modify", "protect", "close"])
def test_nothing_is_sent_where_programs_may_not_trade(kind: str) -> None:
    for terminal, owner in (
        (TERMINAL | {"trade_allowed": False}, OWNER),
        (TERMINAL, OWNER | {"trade_expert": False}),
        (TERMINAL, OWNER | {"login": 1}),
        (TERMINAL | {"connected": False}, OWNER),
    ):
        prepared = prepare(terminal, owner, SYMBOL, tick(), 1.0)
        live = ORDER if kind in {"cancel", "modify"} else POSITION
        asked = {"modify": {"price": Decimal("1.081")}, "protect": {"stop_loss": Decimal(1)}}.get(kind)
        with pytest.raises(RefusedError) as refused:
            step(kind, Seen(live=live, deals=[BOUGHT], prepared=prepared), asked=asked)
        assert refused.value.reason == "not_connected"


def test_what_holds_already_needs_no_permission_and_no_quote() -> None:
    prepared = prepare(TERMINAL | {"trade_allowed": False}, OWNER, SYMBOL, None, None)
    assert isinstance(step("protect", Seen(live=POSITION, prepared=prepared), asked={"stop_loss": 1.07}), Done)
    assert isinstance(step("modify", Seen(live=ORDER, prepared=prepared), asked={"price": 1.08}), Done)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 500)), max_size=20))
def test_what_deals_leave_open_is_what_was_bought_less_what_was_sold(trades: list[tuple[int, int]]) -> None:
    deals = [{"type": kind, "volume": lots / 100} for kind, lots in trades] + [{"type": 2, "volume": 5.0}]
    expected = sum((Decimal(lots) if kind == 0 else -Decimal(lots) for kind, lots in trades), Decimal(0)) / 100
    assert net_volume(structs(TradeDeal, deals)) == expected
