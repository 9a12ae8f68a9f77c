"""The guards before a quote, on the desk's own rows."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from streamapp import topics
from streamapp.desk.decide import State, decide
from streamapp.desk.inputs import Incoming, parse
from streamapp.desk.limits import MOST_SYMBOLS, set_limits
from streamapp.desk.policy import Policy
from streamapp.desk.state import Draft
from streamapp.domain.day import TradingDay
from streamapp.domain.identifiers import partition_of
from streamapp.domain.limits import NO_OVERRIDES, said
from streamapp.domain.trading import TradingState
from streamapp.errors import Unusable
from streamapp.messages.account import AccountMessage
from streamapp.messages.command import read_command
from streamapp.settings import AccountGuardSettings, AccountSettings, GuardSettings, Settings
from tables.accounts import AccountRow, account_key
from tests.kit.desk import ACCOUNT, NOW, SIGNAL, DeskWorld
from tests.kit.market import Market
from tests.kit.records import event

EXIT: dict[str, Any] = {"side": None, "order_type": None, "volume": None}


async def world_of(guards: dict[str, Any], own: dict[str, Any] | None = None, **more: Any) -> DeskWorld:
    account = AccountSettings(login=1, guards=AccountGuardSettings.model_validate(own or {}))
    settings = Settings(accounts={ACCOUNT: account}, guards=GuardSettings.model_validate(guards), **more)
    return await DeskWorld(settings).start()


def refusals(world: DeskWorld) -> dict[str, str]:
    return {each["signal_id"]: each["detail"] for each in world.published("refused/1")}


def draft_of(world: DeskWorld) -> Draft:
    """Return a commit in the making on the account's durable rows."""
    return Draft(ACCOUNT, world.clock.now, world.policy, world.row)


async def override(world: DeskWorld, changes: dict[str, Any], symbol: str | None = None) -> None:
    """Let a person set limits, as a command does."""
    draft = draft_of(world)
    set_limits(draft, changes, by="mara", symbol=symbol)
    await world.store.commit(partition_of(ACCOUNT, 8), {key: row.encode() for key, row in draft.changed.items()})
    await world.restart()


async def test_the_accounts_own_limit_and_the_houses_hold_both() -> None:
    world = await world_of(
        {"max_volume": "2", "by_symbol": {"XAUUSD": {"max_volume": "0.5"}}},
        {"max_volume": "3", "max_open_orders": 1, "by_symbol": {"XAUUSD": {"max_volume": "0.7"}}},
    )
    await world.signal("s-1", volume="2.5")
    await world.signal("s-2", volume="0.6", symbol="XAUUSD")
    await world.signal("s-3", volume="2")
    await world.signal("s-4", volume="0.1", symbol="GBPUSD")
    assert refusals(world) == {
        "s-1": "max_volume: expected 2 lots at most for EURUSD, got 2.5",
        "s-2": "max_volume: expected 0.5 lots at most for XAUUSD, got 0.6",
        "s-4": "max_open_orders: expected 1 at most for the account, got 2",
    }
    assert world.metrics.guards.labels("max_volume")._value.get() == 2


async def test_open_orders_are_counted_with_those_of_the_same_commit_and_without_those_that_are_over() -> None:
    world = await world_of({"by_symbol": {"EURUSD": {"max_open_orders": 2}}})
    market = Market(world)
    for name in ("s-1", "s-2", "s-3"):
        await world.give_signal(name)
    await world.settled()
    assert list(refusals(world)) == ["s-3"]
    await market.run()
    await world.signal("s-4")
    assert list(refusals(world)) == ["s-3"]


async def test_exposure_counts_what_is_open_and_what_is_on_its_way_and_an_exit_is_never_held_back() -> None:
    world = await world_of({"max_position_volume": "1", "max_total_volume": "1.5"})
    market = Market(world)
    await world.signal("s-1", volume="0.6")
    await market.run()
    await world.signal("s-2", volume="0.3")  # on its way
    await world.signal("s-3", volume="0.2")
    await world.signal("s-4", volume="0.7", symbol="GBPUSD")
    await world.signal("s-5", volume="0.6", symbol="GBPUSD")
    assert refusals(world) == {
        "s-3": "max_position_volume: expected 1 lots at most for EURUSD, got 1.1 long",
        "s-4": "max_total_volume: expected 1.5 lots at most, got 1.6",
    }
    await market.run()
    await world.signal("x-1", intent="close", **EXIT)
    await market.run()
    assert market.open == {}


async def test_orders_of_a_second_are_counted_in_memory() -> None:
    world = await world_of({"max_orders_per_second": 2})
    for name in ("s-1", "s-2", "s-3"):
        await world.signal(name)
    world.later(0.999)
    await world.signal("s-4")
    world.later(0.001)
    await world.signal("s-5")
    assert refusals(world) == dict.fromkeys(
        ("s-3", "s-4"), "max_orders_per_second: expected 2 at most for the account, got 3"
    )


async def test_orders_of_a_day_are_counted_durably_and_from_the_brokers_midnight_anew() -> None:
    world = await world_of({"max_orders_per_day": 2}, execution={"signal_ttl_s": 1e6})
    ahead = AccountMessage(account=ACCOUNT, connection="ready", server_offset_s=3600, at=NOW)
    await world.snapshot(ahead)
    for name in ("s-1", "s-2", "s-3"):
        await world.signal(name)
        await world.restart()
    row = world.account_row()
    assert row is not None
    assert row.day == TradingDay(on=NOW.date(), ends_at=NOW + timedelta(hours=11), offset_s=3600, orders=2)
    world.later(11 * 3600 - 1)
    await world.signal("s-4")
    world.later(1)
    await world.signal("s-5")
    text = "max_orders_per_day: expected 2 at most for the account, got 3"
    assert refusals(world) == {"s-3": text, "s-4": text}


async def test_what_closes_counts_as_no_opening() -> None:
    world = await world_of({"max_orders_per_day": 1})
    market = Market(world)
    await world.signal("s-1")
    await market.run()
    await world.signal("x-1", intent="close", **EXIT)
    await market.run()
    row = world.account_row()
    assert row is not None
    assert row.day is not None
    assert (row.day.orders, market.open) == (1, {})


async def test_a_window_by_the_brokers_clock_is_closed_until_that_is_known() -> None:
    world = await world_of({"no_trade": ["14:00-15:00 broker"]})
    await world.signal("s-1")
    await world.snapshot(AccountMessage(account=ACCOUNT, connection="ready", server_offset_s=7200, at=NOW))
    await world.signal("s-2")
    await world.snapshot(
        AccountMessage(account=ACCOUNT, connection="ready", server_offset_s=10_800, at=NOW), at=later(1)
    )
    await world.signal("s-3")
    assert refusals(world) == {
        "s-1": "no_trade: expected the server's clock known, got none yet: its terminal has not shown it",
        "s-2": "no_trade: expected EURUSD at a time out of 14:00-15:00 broker, got 2026-11-20T12:00:00.000000Z",
    }


def later(seconds: float) -> Any:
    return NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize("how", ["guard", "halted"])
async def test_an_order_of_another_execution_service_that_closes_is_held_back_by_nothing(how: str) -> None:
    world = await world_of({"max_volume": "0.01"} if how == "guard" else {}, role="connector")
    if how == "halted":
        row = AccountRow(account=ACCOUNT, trading=TradingState(state="halted", cause="a person's"))
        await world.store.commit(partition_of(ACCOUNT, 8), {account_key(ACCOUNT): row.encode()})
        await world.restart()
    await world.order("o-1")
    await world.order("o-2", position_id=7, intent="close")
    assert [each.order_id for each in world.terminals.submits] == ["o-2"]
    [error] = world.published("error/1")
    assert (error["order_id"], how in error["message"] or "max_volume" in error["message"]) == ("o-1", True)


# --- what persons change


async def test_a_limit_that_a_person_sets_holds_in_place_of_the_files_also_after_a_restart() -> None:
    world = await world_of({"max_volume": "1", "max_spread_points": 30})
    await override(world, {"max_volume": "2", "max_open_orders": 5})
    await override(world, {"max_volume": "0.2"}, symbol="GBPUSD")
    await world.signal("s-1", volume="1.5")
    await world.signal("s-2", volume="0.3", symbol="GBPUSD")
    await world.signal("s-3", volume="2.5")
    assert refusals(world) == {
        "s-2": "max_volume: expected 0.2 lots at most for GBPUSD, got 0.3",
        "s-3": "max_volume: expected 2 lots at most for EURUSD, got 2.5",
    }
    [asked] = world.terminals.submits
    assert asked.limits is not None
    assert said(asked.limits) == {"max_volume": 2}  # the terminal's own file says 1


@pytest.mark.parametrize(("given", "told"), [("off", "off"), ("300", 300)])
async def test_a_person_turns_a_default_off_or_raises_it_for_one_account(given: str, told: Any) -> None:
    world = await world_of({})
    await override(world, {"max_order_leverage": given})
    await world.restart()
    await world.signal("s-1")
    [asked] = world.terminals.submits
    assert asked.limits is not None
    assert said(asked.limits) == {"max_order_leverage": told}


async def test_a_limit_that_is_taken_back_is_the_files_again() -> None:
    world = await world_of({"max_volume": "1"})
    await override(world, {"max_volume": "0.1"}, symbol="EURUSD")
    await override(world, {"max_volume": None}, symbol="EURUSD")
    await world.signal("s-1", volume="1")
    assert refusals(world) == {}
    assert world.terminals.submits[0].limits is None


async def test_a_closing_order_goes_to_its_terminal_without_limits() -> None:
    world = await world_of({})
    market = Market(world)
    await override(world, {"max_volume": "3"})
    await world.signal("s-1")
    await market.run()
    await world.signal("x-1", intent="close", **EXIT)
    assert [each.limits is None for each in world.terminals.submits] == [False, True]


@pytest.mark.parametrize(
    ("changes", "symbol", "expected"),
    [
        ({}, None, "limits: expected one of "),
        ({"max_volumes": "1"}, None, "max_volumes: expected one of max_daily_loss, "),
        ({"max_daily_loss": "1"}, "EURUSD", "max_daily_loss: expected one of max_level_distance, "),
        ({"max_volume": "-1"}, None, "max_volume"),
        ({"max_open_orders": "many"}, None, "max_open_orders"),
        ({"no_trade": ["25:00-26:00"]}, None, "no_trade"),
        ({"reduce_at": "0.5"}, None, "warn_at: expected reduce_at (0.5) at most, got 0.8"),
    ],
)
async def test_nonsense_is_refused_with_its_field_and_changes_nothing(
    changes: dict[str, Any], symbol: str | None, expected: str
) -> None:
    draft = draft_of(await world_of({}))
    with pytest.raises(Unusable) as refused:
        set_limits(draft, changes, by="mara", symbol=symbol)
    assert refused.value.detail.startswith(expected)
    assert draft.account_row().limits == NO_OVERRIDES


async def test_symbols_with_limits_of_their_own_are_as_many_as_a_row_has_room_for() -> None:
    draft = draft_of(await world_of({}))
    for number in range(MOST_SYMBOLS):
        set_limits(draft, {"max_volume": "1"}, by="mara", symbol=f"S{number}")
    with pytest.raises(Unusable, match="200 symbols at most"):
        set_limits(draft, {"max_volume": "1"}, by="mara", symbol="ONE.MORE")
    set_limits(draft, {"max_volume": "2"}, by="mara", symbol="S1")


def test_a_decision_without_limits_on_what_is_open_asks_for_nothing_of_it() -> None:
    class Untouched:
        def orders(self, symbol: str | None) -> frozenset[str]:
            raise AssertionError(symbol)

        def positions(self, symbol: str | None) -> frozenset[int]:
            raise AssertionError(symbol)

        def symbols(self) -> frozenset[str]:
            raise AssertionError

    guards = GuardSettings(max_volume=Decimal(1), max_orders_per_day=5, max_orders_per_second=5, max_signal_age_s=9)
    policy = Policy.of(Settings(accounts={ACCOUNT: AccountSettings(login=1)}, guards=guards))
    payload = json.dumps({"signal_id": "s-1", "account": ACCOUNT} | SIGNAL).encode()
    family = {topics.FAMILY: b"signal"}
    record = event(payload, account=ACCOUNT, topic=topics.SIGNALS_APPROVED, sequence=1, headers=family)
    state = State(ACCOUNT, policy, lambda key, model: None, open=Untouched())
    assert decide(state, parse(Incoming.of(record), policy), NOW).counts["decisions", "accepted", ""] == 1


# --- by command


async def test_a_command_sets_limits_that_hold_at_once_and_after_a_restart() -> None:
    world = await world_of({"max_volume": "1"})
    await world.command("account.limits", values={"limits": {"max_volume": 2}}, issued_by="mara")
    await world.command("account.limits", "c-2", values={"limits": {"max_volume": "0.2"}, "symbol": "GBPUSD"})
    await world.restart()
    await world.signal("s-1", volume="2")
    await world.signal("s-2", volume="0.3", symbol="GBPUSD")
    assert refusals(world) == {"s-2": "max_volume: expected 0.2 lots at most for GBPUSD, got 0.3"}
    results = [(each["request_id"], each["state"], each["values"]) for each in world.published("command_result/1")]
    first, second = {"limits": '{"max_volume":"2"}'}, {"limits": '{"max_volume":"0.2"}', "symbol": "GBPUSD"}
    assert results == [
        ("c-1", "accepted", first),
        ("c-1", "done", first),
        ("c-2", "accepted", second),
        ("c-2", "done", second),
    ]


@pytest.mark.parametrize(
    ("values", "why", "detail"),
    [
        ({"limits": {"max_volume": "-1"}}, "invalid", "max_volume"),
        ({"limits": {"max_volumes": "1"}}, "invalid", "max_volumes: expected one of"),
        ({"limits": {"max_daily_loss": "1"}, "symbol": "EURUSD"}, "invalid", "max_daily_loss: expected one of"),
    ],
)
async def test_a_command_with_a_limit_that_means_nothing_is_refused_and_changes_nothing(
    values: dict[str, Any], why: str, detail: str
) -> None:
    world = await world_of({"max_volume": "1"})
    await world.command("account.limits", values=values)
    [result] = world.published("command_result/1")
    assert (result["state"], result["why"], result["detail"].startswith(detail)) == ("refused", why, True)
    row = world.account_row()
    assert row is not None
    assert row.limits == NO_OVERRIDES


@pytest.mark.parametrize("values", [{}, {"limits": {}}, {"limits": {"max_volume": True}}, {"volume": "1"}])
async def test_a_command_that_sets_no_limit_is_no_command(values: dict[str, Any]) -> None:
    with pytest.raises(Unusable):
        read_command("account.limits", {"request_id": "c-1", "account": ACCOUNT, "values": values})


async def test_an_execution_service_takes_no_limit_that_only_a_terminal_can_keep() -> None:
    world = await world_of({}, role="execution")
    await world.command("account.limits", values={"limits": {"max_spread_points": 5}})
    await world.command("account.limits", "c-2", values={"limits": {"no_trade": ["21:00-22:00 broker"]}})
    await world.command("account.limits", "c-3", values={"limits": {"max_open_orders": 5}})
    said = {each["request_id"]: (each["state"], each["detail"]) for each in world.published("command_result/1")}
    assert said["c-1"][0] == said["c-2"][0] == "refused"
    assert str(said["c-1"][1]).startswith("max_spread_points: expected none in role execution")
    assert said["c-3"][0] == "done"
