"""Signals that close, reduce, reverse and modify: each position an order of its own, and nothing opened by an exit."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from streamapp.domain import facts
from streamapp.domain.identifiers import order_id_for
from streamapp.messages.account import AccountMessage
from streamapp.settings import AccountSettings, GuardSettings, Settings
from tests.kit.desk import ACCOUNT, DeskWorld
from tests.kit.examples import deal
from tests.kit.market import Market

EXIT: dict[str, Any] = {"side": None, "order_type": None, "volume": None, "intent": "close"}


async def leave(world: DeskWorld, signal_id: str = "x-1", **changes: Any) -> None:
    """Give an exit: by default one that closes all of what signals without a strategy opened in EURUSD."""
    await world.signal(signal_id, **(EXIT | changes))


async def hold(market: Market, signal_id: str, volume: str = "1", side: str = "buy", **changes: Any) -> int:
    """Open a position; return its id."""
    before = set(market.open)
    await market.world.signal(signal_id, volume=volume, side=side, **changes)
    await market.run()
    return next(iter(set(market.open) - before), 0) or next(iter(market.open))


def closed(world: DeskWorld) -> list[tuple[int | None, str, Decimal]]:
    """Return what was asked of the terminal to be closed, in order: position, side, lots."""
    asked = [each for each in world.terminals.submits if each.position_id is not None]
    return [(each.position_id, each.parameters.side, each.parameters.volume) for each in asked]


def answer(world: DeskWorld, signal_id: str = "x-1") -> tuple[str, str | None]:
    """Return what an exit's row says of its end."""
    row = world.signal_row(signal_id)
    assert row is not None
    assert row.goal is None, "not done yet"
    return row.verdict.decision, row.verdict.reason


def is_open(world: DeskWorld, signal_id: str = "x-1") -> bool:
    row, account = world.signal_row(signal_id), world.account_row()
    assert row is not None
    assert account is not None
    assert (row.goal is not None) == (signal_id in account.goals)
    return row.goal is not None


# --- which positions, and how much of them


async def test_a_close_closes_all_that_the_strategy_opened_the_oldest_first_and_nothing_else(
    world: DeskWorld, market: Market
) -> None:
    first = await hold(market, "s-1", "1", strategy="breakout")
    await hold(market, "s-2", "2", strategy="other")
    third = await hold(market, "s-3", "0.5", side="sell", strategy="breakout")
    await market.trade("4", "buy", 900)
    await leave(world, strategy="breakout")
    await market.run()
    assert closed(world) == [(first, "sell", Decimal(1)), (third, "buy", Decimal("0.5"))]
    assert {abs(lots) for lots in market.open.values()} == {Decimal(2), Decimal(4)}
    assert answer(world) == ("accepted", None)


async def test_each_position_closed_is_an_order_of_its_own_that_names_signal_and_position(
    world: DeskWorld, market: Market
) -> None:
    position = await hold(market, "s-1", strategy="breakout")
    await leave(world, strategy="breakout", metadata={"why": "target"})
    await market.run()
    own = order_id_for("streamapp", ACCOUNT, f"x-1\x00{position}\x001")
    last = [each for each in world.published("order/1") if each["order_id"] == own][-1]
    assert (last["status"], last["intent"], last["position_id"], last["signal_id"]) == (
        "filled",
        "close",
        position,
        "x-1",
    )
    row = world.signal_row("x-1")
    assert row is not None
    assert row.order_id == own


async def test_a_reduce_takes_its_lots_from_the_oldest_position_and_then_the_next(
    world: DeskWorld, market: Market
) -> None:
    first, second = await hold(market, "s-1", "1"), await hold(market, "s-2", "1")
    await leave(world, intent="reduce", volume="1.3")
    await market.run()
    assert closed(world) == [(first, "sell", Decimal(1)), (second, "sell", Decimal("0.3"))]
    assert market.open == {second: Decimal("0.7")}


async def test_more_than_there_is_closes_what_there_is_and_says_so(world: DeskWorld, market: Market) -> None:
    await hold(market, "s-1", "1")
    await leave(world, volume="1.5")
    await market.run()
    row = world.signal_row("x-1")
    assert row is not None
    assert (market.open, row.verdict.decision) == ({}, "accepted")
    assert row.verdict.detail == "no more is open: 0.5 of the lots were not there"


async def test_a_side_leaves_the_positions_of_the_other_side_alone(world: DeskWorld, market: Market) -> None:
    long, short = await hold(market, "s-1", "1"), await hold(market, "s-2", "1", side="sell")
    await leave(world, side="sell")
    assert [each[0] for each in closed(world)] == [long]
    assert short in market.open


async def test_the_scope_symbol_closes_what_every_strategy_of_ours_opened(world: DeskWorld, market: Market) -> None:
    own = [await hold(market, "s-1", strategy="a"), await hold(market, "s-2", strategy="b")]
    await market.trade("1", "buy", 900)
    await leave(world, scope="symbol")
    await market.run()
    assert [each[0] for each in closed(world)] == own
    assert list(market.open) == [900]
    strategies = {each["strategy"] for each in world.published("order/1") if each["intent"] == "close"}
    assert strategies == {"a", "b"}


async def test_a_position_by_its_ticket_is_closed_whoever_of_ours_opened_it(world: DeskWorld, market: Market) -> None:
    await hold(market, "s-1", strategy="a")
    second = await hold(market, "s-2", strategy="b")
    await leave(world, position_id=second, volume="0.4")
    await market.run()
    assert closed(world) == [(second, "sell", Decimal("0.4"))]


async def test_on_a_netting_account_a_strategy_closes_its_own_share_and_never_beyond_zero() -> None:
    world = await DeskWorld().start()
    market = Market(world, netting=True)
    position = await hold(market, "s-1", "1", strategy="a")
    await hold(market, "s-2", "2", strategy="b")
    await leave(world, "x-1", strategy="a")
    await market.run()
    assert market.open == {position: Decimal(2)}
    await market.trade("1.5", "sell", position)
    await leave(world, "x-2", strategy="b")
    await market.run()
    assert closed(world) == [(position, "sell", Decimal(1)), (position, "sell", Decimal("0.5"))]
    assert market.open == {}


# --- nothing to close, twice, and what is under way


async def test_an_exit_for_nothing_is_answered_and_makes_no_order(world: DeskWorld) -> None:
    await leave(world, strategy="breakout")
    assert answer(world) == ("accepted", None)
    assert world.published("order/1") == []
    assert world.archived("signal/1")[0]["decision"] == "accepted"


async def test_an_exit_waits_for_an_order_of_its_strategy_that_is_under_way(world: DeskWorld, market: Market) -> None:
    await world.signal("s-1", volume="1", strategy="a")
    await leave(world, strategy="a")
    assert is_open(world)
    assert closed(world) == []
    await market.run()
    assert market.open == {}
    assert answer(world) == ("accepted", None)


async def test_an_exit_does_not_wait_for_another_strategy_nor_for_a_pending_order(
    world: DeskWorld, market: Market
) -> None:
    position = await hold(market, "s-1", strategy="a")
    await world.signal("s-2", strategy="b")
    await world.signal("s-3", strategy="a", order_type="limit", price="1.07")
    await leave(world, strategy="a")
    assert [each[0] for each in closed(world)] == [position]
    assert answer(world) == ("accepted", None)


async def test_what_is_known_is_closed_at_once_where_another_order_is_in_doubt_and_the_rest_when_it_shows(
    world: DeskWorld, market: Market
) -> None:
    known = await hold(market, "s-1", "1")
    await world.signal("s-2", volume="2")
    doubtful = market.waiting[0]
    await market.execute(doubtful, "doubt")
    await leave(world)
    await market.run()
    assert [each[0] for each in closed(world)] == [known]
    assert is_open(world)
    await market.execute(doubtful)
    await market.run()
    assert (market.open, answer(world)) == ({}, ("accepted", None))


async def test_two_exits_at_once_close_once(world: DeskWorld, market: Market) -> None:
    position = await hold(market, "s-1", "1")
    await leave(world, "x-1")
    await leave(world, "x-2")
    assert is_open(world, "x-2")
    await market.run()
    assert closed(world) == [(position, "sell", Decimal(1))]
    assert (answer(world, "x-1"), answer(world, "x-2")) == (("accepted", None), ("accepted", None))


async def test_a_second_exit_closes_what_the_first_one_could_not(world: DeskWorld, market: Market) -> None:
    position = await hold(market, "s-1", "1")
    await leave(world, "x-1")
    await leave(world, "x-2")
    await market.run("reject")
    assert closed(world) == [(position, "sell", Decimal(1))] * 2
    assert market.open == {}


async def test_an_exit_whose_order_was_refused_does_not_try_again(world: DeskWorld, market: Market) -> None:
    await hold(market, "s-1", "1")
    await leave(world)
    await market.run("reject")
    world.later(1)
    await world.tick()
    assert len(closed(world)) == 1
    assert answer(world) == ("accepted", None)


async def test_two_exits_of_one_strategy_never_close_anothers_share_of_a_net_position() -> None:
    world = await DeskWorld().start()
    market = Market(world, netting=True)
    await hold(market, "s-1", "1", strategy="a")
    position = await hold(market, "s-2", "2", strategy="b")
    await leave(world, "x-1", strategy="a")
    await leave(world, "x-2", strategy="a")
    await market.run()
    assert market.open == {position: Decimal(2)}


async def test_an_exit_whose_time_is_over_before_it_could_begin_is_refused(world: DeskWorld, market: Market) -> None:
    await world.signal("s-1")
    await leave(world)
    world.later(60)
    await world.tick()
    assert answer(world) == ("refused", "stale")
    assert [each["reason"] for each in world.published("refused/1")] == ["stale"]
    await market.run()
    assert closed(world) == []


async def test_an_exit_is_known_by_its_signal_id(world: DeskWorld, market: Market) -> None:
    await hold(market, "s-1", "1")
    await leave(world, volume="0.4")
    await market.run()
    await leave(world, volume="0.40")
    await leave(world, volume="0.5")
    await market.run()
    assert [each["decision"] for each in world.archived("signal/1")][1:] == ["accepted", "duplicate", "conflict"]
    assert len(closed(world)) == 1


async def test_a_halted_account_lets_an_exit_pass(world: DeskWorld, market: Market) -> None:
    position = await hold(market, "s-1", "1")
    order_id = market.done[0]
    more = deal(99, "0.1", position_id=position, ticket=position)
    market.open[position] += more.volume
    await market.report(("deal", order_id, more))
    await world.signal("s-3")
    assert world.published("refused/1")[-1]["reason"] == "halted"
    await leave(world)
    await market.run()
    assert market.open == {}


async def test_what_is_more_than_one_order_may_have_is_closed_by_several(world: DeskWorld, market: Market) -> None:
    position = await hold(market, "s-1", "2.5")
    market.largest = Decimal(1)
    await leave(world)
    await market.run()
    assert [volume for _, _, volume in closed(world)] == [Decimal("2.5"), Decimal(1), Decimal(1), Decimal("0.5")]
    assert (market.open, {each[0] for each in closed(world)}) == ({}, {position})
    orders = {each["order_id"]: each for each in world.published("order/1") if each["intent"] == "close"}
    assert sorted(each["status"] for each in orders.values()) == ["failed", "filled", "filled", "filled"]
    assert {each["signal_id"] for each in orders.values()} == {"x-1"}


async def test_an_order_that_opens_is_not_sent_in_parts(world: DeskWorld, market: Market) -> None:
    market.largest = Decimal(1)
    await world.signal("s-1", volume="2.5")
    await market.run()
    assert (len(world.terminals.submits), market.open) == (1, {})


async def test_a_refusal_that_is_reported_again_closes_no_second_time(world: DeskWorld, market: Market) -> None:
    await hold(market, "s-1", "2")
    market.largest = Decimal(1)
    await leave(world)
    seq = market._seq
    await market.execute(market.waiting[0])
    order_id = world.terminals.submits[1].order_id
    again = facts.SubmitRefused(attempt=1, reason="invalid", message="too large", largest=Decimal(1))
    await world.report(("refused", order_id, again), first_seq=seq)
    await world.restart()
    await market.run()
    assert (len(closed(world)), market.open) == (3, {})


# --- reverse


async def netting() -> Market:
    world = await DeskWorld().start()
    state = AccountMessage(account=ACCOUNT, connection="ready", margin_mode="netting", at=world.clock.now)
    await world.snapshot(state)
    return Market(world, netting=True)


async def test_a_reverse_closes_what_is_open_and_then_opens_as_much_on_the_other_side() -> None:
    market = await netting()
    await hold(market, "s-1", "1", strategy="a")
    await leave(market.world, intent="reverse", strategy="a", stop_loss="1.2")
    assert closed(market.world) == [(next(iter(market.open)), "sell", Decimal(1))]
    assert is_open(market.world)
    await market.run()
    assert list(market.open.values()) == [Decimal(-1)]
    last = market.world.terminals.submits[-1]
    assert (last.position_id, last.parameters.stop_loss, last.order_id) == (
        None,
        Decimal("1.2"),
        order_id_for("streamapp", ACCOUNT, "x-1\x00reverse"),
    )
    assert answer(market.world) == ("accepted", None)


async def test_a_reverse_may_name_the_lots_of_the_other_side() -> None:
    market = await netting()
    await hold(market, "s-1", "1", side="sell")
    await leave(market.world, intent="reverse", volume="0.3")
    await market.run()
    assert list(market.open.values()) == [Decimal("0.3")]


@pytest.mark.parametrize("fate", ["reject", "half"])
async def test_what_could_not_be_closed_whole_is_not_reversed(fate: Any) -> None:
    market = await netting()
    await hold(market, "s-1", "1")
    await leave(market.world, intent="reverse")
    await market.run(fate)
    assert sum(market.open.values()) > 0
    assert answer(market.world) == ("refused", "not_closed")
    assert market.world.published("refused/1")[0]["order_id"] is not None


async def test_a_reverse_of_nothing_opens_nothing() -> None:
    market = await netting()
    await leave(market.world, intent="reverse")
    assert answer(market.world) == ("accepted", None)
    assert market.world.terminals.submits == []


async def test_a_reverse_is_refused_on_a_hedging_account(world: DeskWorld, market: Market) -> None:
    state = AccountMessage(account=ACCOUNT, connection="ready", margin_mode="hedging", at=world.clock.now)
    await world.snapshot(state)
    await hold(market, "s-1")
    await leave(world, intent="reverse")
    assert answer(world) == ("refused", "bad_field")
    assert "send a close and an open" in world.published("refused/1")[0]["detail"]


async def test_the_other_side_is_not_opened_where_a_guard_forbids_it() -> None:
    settings = Settings(accounts={ACCOUNT: AccountSettings(login=1)}, guards=GuardSettings(max_volume=Decimal(1)))
    world = await DeskWorld(settings).start()
    market = Market(world, netting=True)
    await hold(market, "s-1", "1")
    await leave(world, intent="reverse", volume="3")
    await market.run()
    assert (market.open, answer(world)) == ({}, ("refused", "guard"))
    assert world.published("refused/1")[0]["detail"].startswith("closed, and not opened on the other side: max_volume:")


# --- modify


async def test_a_modify_sets_the_levels_of_every_position_and_is_answered_when_all_are_set(
    world: DeskWorld, market: Market
) -> None:
    positions = [await hold(market, "s-1"), await hold(market, "s-2")]
    await hold(market, "s-3", strategy="other")
    await leave(world, intent="modify", stop_loss="1.07", take_profit="0")
    asked = [(each.position_id, each.stop_loss, each.take_profit) for each in world.terminals.protects]
    assert asked == [(each, Decimal("1.07"), Decimal(0)) for each in positions]
    assert answer(world) == ("accepted", None)
    last = world.published("accepted/1")[-1]
    assert (last["order_id"], last["detail"]) == (None, "levels set at position {}, {}".format(*positions))


async def test_a_modify_is_asked_again_until_the_terminal_knows(world: DeskWorld, market: Market) -> None:
    await hold(market, "s-1")
    world.terminals.outcome = "unknown"
    await leave(world, intent="modify", stop_loss="1.07")
    assert is_open(world)
    await world.restart()
    world.terminals.outcome = "done"
    world.later(90)
    await world.tick()
    ids = {each.request_id for each in world.terminals.protects}
    assert (len(world.terminals.protects), len(ids)) == (2, 1)
    assert answer(world) == ("accepted", None)


async def test_levels_that_no_position_took_are_a_refusal_in_the_brokers_words(
    world: DeskWorld, market: Market
) -> None:
    position = await hold(market, "s-1")
    world.terminals.outcome = "rejected"
    await leave(world, intent="modify", stop_loss="1.07")
    assert answer(world) == ("refused", "not_modified")
    assert world.published("refused/1")[0]["detail"] == f"position {position} rejected: as told"


# --- bad input


@pytest.mark.parametrize(
    ("said", "reason", "words"),
    [
        ({"position_id": 12345}, "unknown_position", "no deal of position 12345 is known"),
        ({"position_id": 900}, "foreign_position", "not opened by an order of ours"),
        ({"position_id": 900, "symbol": "GBPUSD"}, "bad_field", "expected one of GBPUSD, position 900 is of EURUSD"),
        ({"position_id": 900, "scope": "symbol"}, "bad_field", "expected one of them, got both"),
        ({"intent": "reduce"}, "bad_field", "expected the lots to reduce by"),
        ({"intent": "modify"}, "bad_field", "stop_loss, take_profit: expected one to set"),
        ({"intent": "modify", "stop_loss": "1", "volume": "1"}, "bad_field", "volume, side: expected none"),
        ({"stop_loss": "1.07"}, "bad_field", "expected none with intent close; modify sets them"),
        ({"position_id": "90_0"}, "bad_field", "position_id: expected digits without separators"),
        ({"stop_limit_price": "1.07"}, "bad_field", "stop_limit_price: expected none with intent close"),
        ({"volume": "0"}, "bad_field", "volume"),
        ({"intent": "flat"}, "bad_field", "intent"),
        ({"intent": ["close"]}, "bad_field", "intent"),
        (
            {"intent": "open", "side": "buy", "order_type": "market", "volume": "1", "scope": "symbol"},
            "bad_field",
            "scope",
        ),
    ],
)
async def test_an_exit_that_can_not_be_meant_is_refused_in_words(
    world: DeskWorld, market: Market, said: dict[str, Any], reason: str, words: str
) -> None:
    await market.trade("1", "buy", 900)
    await leave(world, **said)
    (refused,) = world.published("refused/1")
    assert refused["reason"] == reason
    assert words in refused["detail"]
    assert world.terminals.submits == []


async def test_the_words_of_a_chart_program_are_mapped_by_settings() -> None:
    settings = Settings.model_validate(
        {
            "accounts": {ACCOUNT: {"login": 1}},
            "execution": {"field_names": {"intent": "action"}, "value_names": {"flat": "close"}},
        }
    )
    world = await DeskWorld(settings).start()
    market = Market(world)
    await hold(market, "s-1")
    await world.signal("x-1", action="flat", side=None, order_type=None, volume=None)
    await market.run()
    assert market.open == {}


async def test_exits_that_no_terminal_answers_are_bounded(
    world: DeskWorld, market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamapp.desk.acceptance.MOST_GOALS", 1)
    await hold(market, "s-1")
    world.terminals.outcome = "unknown"
    await leave(world, "x-1", intent="modify", stop_loss="1.07")
    await leave(world, "x-2", intent="modify", stop_loss="1.08")
    assert (is_open(world, "x-1"), answer(world, "x-2")) == (True, ("refused", "too_many"))


# --- other roles, and deaths


async def test_an_execution_service_hands_over_an_exit_with_its_position_and_refuses_a_modify() -> None:
    settings = Settings(role="execution", accounts={ACCOUNT: AccountSettings(login=1)})
    world = await DeskWorld(settings).start()
    opened = await world.signal("s-1", volume="1")
    await world.foreign("fill", order_id=opened, fill_id="a:1", volume="1", price="1.1", position_id=7, side="buy")
    await leave(world)
    last = world.published("order/1")[-1]
    assert (last["status"], last["intent"], last["position_id"], last["side"]) == ("submitted", "close", 7, "sell")
    await leave(world, "x-2", intent="modify", stop_loss="1.07")
    assert answer(world, "x-2") == ("refused", "unsupported")


async def test_a_connector_closes_the_position_that_an_order_names() -> None:
    settings = Settings(role="connector", accounts={ACCOUNT: AccountSettings(login=1)})
    world = await DeskWorld(settings).start()
    await world.order("o-1", intent="close", position_id=7, side="sell", volume="0.4")
    (request,) = world.terminals.submits
    assert (request.position_id, request.parameters.volume) == (7, Decimal("0.4"))
    await world.order("o-2", intent="close", position_id="x")
    assert world.published("error/1")[-1]["message"].endswith("position_id: expected a position's ticket, got 'x'")


@pytest.mark.parametrize("carries_out", [True, False])
async def test_a_worker_that_dies_at_any_step_makes_the_same_orders(carries_out: bool) -> None:
    world = await DeskWorld(carries_out=carries_out).start()
    market = Market(world, netting=True)
    await world.signal("s-1", volume="1")
    await world.restart()
    await leave(world, intent="reverse")
    await world.restart()
    for _ in range(3):
        for request in market.waiting:
            await market.execute(request)
        await world.restart()
        world.later(6)
        await world.tick()
    if carries_out:
        assert list(market.open.values()) == [Decimal(-1)]
    assert len(market.done) == len(set(market.done))
