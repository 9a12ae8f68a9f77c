"""Commands: decided once, carried out until they are over, and answered."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from streamapp import subjects, topics
from streamapp.desk.commands import MOST_COMMANDS
from streamapp.domain import facts
from streamapp.domain.identifiers import order_id_for
from streamapp.domain.limits import said
from streamapp.domain.vocabulary import time_text
from streamapp.messages.operation import CancelRequest, ModifyRequest, ProtectRequest, ResumeRequest
from streamapp.settings import AccountSettings, Settings
from tables.store import COMMIT_BYTES
from tests.desk.test_exits import hold
from tests.desk.test_snapshots import state as account_state
from tests.kit.desk import ACCOUNT, DeskWorld
from tests.kit.market import Market

EXIT: dict[str, Any] = {"side": None, "order_type": None, "volume": None}
LIMIT: dict[str, Any] = {"order_type": "limit", "price": "1.05"}
DONE = [("accepted", None), ("done", None)]


async def work(market: Market, signal_id: str = "s-1", **changes: Any) -> str:
    """Let a limit order work at the broker; return its id."""
    order_id = await market.world.signal(signal_id, **(LIMIT | changes))
    await market.rest(order_id)
    return order_id


def asked(world: DeskWorld, kind: type[Any]) -> list[Any]:
    """Return what terminals were asked, without what was asked again."""
    return list({each.request_id: each for each in world.terminals.operations if isinstance(each, kind)}.values())


# --- orders


async def test_a_cancel_is_accepted_asked_of_the_terminal_and_done_when_the_broker_shows_it(
    world: DeskWorld, market: Market
) -> None:
    order_id = await work(market)
    world.terminals.outcome = "unknown"
    await world.command("order.cancel", order_id=order_id, issued_by="risk")
    (request,) = asked(world, CancelRequest)
    assert (request.order_id, request.issued_by) == (order_id, "risk")
    assert (world.results(), world.order_row(order_id).status) == ([("accepted", None)], "submitted")
    assert "CancelRequested" in world.facts(order_id)
    await market.withdraw(order_id)
    assert (world.results(), world.order_row(order_id).status) == (DONE, "cancelled")
    account = world.account_row()
    assert account is not None
    assert account.commands == ()


async def test_a_cancel_is_asked_again_with_the_same_id_until_there_is_a_final_answer(
    world: DeskWorld, market: Market
) -> None:
    order_id = await work(market)
    world.terminals.silent = True
    await world.command("order.cancel", order_id=order_id)
    world.terminals.silent = False
    world.later(1)
    await world.tick()
    world.later(1)
    await world.tick()
    assert world.results() == DONE
    assert len(world.terminals.operations) >= 2
    assert len(asked(world, CancelRequest)) == 1


async def test_a_command_survives_the_death_of_the_worker(world: DeskWorld, market: Market) -> None:
    order_id = await work(market)
    world.terminals.silent = True
    await world.command("order.cancel", order_id=order_id)
    world.terminals.silent = False
    await world.restart()
    await world.tick()
    assert world.results() == DONE


async def test_a_cancel_of_an_order_whose_submit_is_unanswered_waits_until_the_journal_has_it(
    world: DeskWorld, market: Market
) -> None:
    world.terminals.silent = True
    order_id = await world.signal(**LIMIT)
    assert world.order_row(order_id).standing == "unanswered"
    await world.command("order.cancel", order_id=order_id)
    world.terminals.silent = False
    world.later(6)
    await world.tick()
    assert (world.results(), asked(world, CancelRequest)) == ([("accepted", None)], [])
    await market.rest(order_id)
    await world.tick()
    assert (world.results(), len(asked(world, CancelRequest))) == (DONE, 1)


async def test_a_cancel_that_comes_too_late_for_a_fill_has_failed(world: DeskWorld, market: Market) -> None:
    order_id = await work(market)
    world.terminals.outcome = "unknown"
    await world.command("order.cancel", order_id=order_id)
    await market.execute(world.terminals.submits[0])
    assert world.results() == [("accepted", None), ("failed", "over")]


async def test_what_somebody_elses_connector_has_can_not_be_changed_by_a_command() -> None:
    settings = Settings(role="execution", accounts={ACCOUNT: AccountSettings(login=1)})
    world = await DeskWorld(settings).start()
    order_id = await world.signal(**LIMIT)
    await world.command("order.cancel", order_id=order_id)
    await world.command("order.modify", "c-2", order_id=order_id, values={"price": "1.04"})
    fill: dict[str, Any] = {"order_id": order_id, "position_id": 7, "symbol": "EURUSD", "side": "buy", "price": "1.05"}
    await world.foreign("fill", deal=1, volume="0.05", time=time_text(world.clock.now), **fill)
    assert world.order_row(order_id).status == "partially_filled"
    await world.command("order.cancel", "c-3", order_id=order_id)
    await world.command("position.modify", "c-4", position_id=7, values={"stop_loss": "1"})
    assert world.results() == world.results("c-3") == [("accepted", None), ("failed", "unsupported")]
    assert world.results("c-2") == world.results("c-4") == [("refused", "unsupported")]


async def test_a_cancel_that_the_broker_rejects_proves_nothing_about_the_order(
    world: DeskWorld, market: Market
) -> None:
    order_id = await work(market)
    world.terminals.outcome = "rejected"
    await world.command("order.cancel", order_id=order_id)
    assert world.results() == [("accepted", None), ("failed", "rejected")]
    assert world.order_row(order_id).status == "submitted"


async def test_an_order_that_no_terminal_has_yet_is_cancelled_without_one() -> None:
    world = DeskWorld()
    world.terminals.silent = True
    await world.start()
    order_id = await world.signal()
    await world.command("order.cancel", order_id=order_id, issued_by="ops")
    row = world.order_row(order_id)
    assert (row.status, world.results()) == ("cancelled", DONE)
    world.terminals.silent = False
    await world.broker.greet()
    await world.tick()
    assert world.terminals.submits == []
    last = [each for each in world.published("order/1") if each["order_id"] == order_id][-1]
    assert (last["status"], last["detail"]) == ("cancelled", "user")


async def test_an_order_leads_to_the_account_of_a_command_that_names_none(world: DeskWorld, market: Market) -> None:
    order_id = await work(market)
    await world.command("order.cancel", account=None, order_id=order_id)
    assert world.results() == DONE
    assert world.published("command_result/1")[0]["account"] == ACCOUNT


async def test_the_values_of_a_modification_reach_the_terminal(world: DeskWorld, market: Market) -> None:
    order_id = await work(market)
    await world.command("order.modify", order_id=order_id, values={"price": "1.04", "stop_loss": "1.03"})
    (request,) = asked(world, ModifyRequest)
    assert (request.price, request.stop_loss, request.take_profit) == (Decimal("1.04"), Decimal("1.03"), None)
    assert world.results() == DONE


async def test_what_is_changed_goes_to_its_terminal_with_the_limits_that_a_person_has_set(
    world: DeskWorld, market: Market
) -> None:
    order_id, position = await work(market), await hold(market, "s-2", "1")
    await world.command("account.limits", values={"limits": {"max_level_distance": "0.1"}})
    await world.command("account.limits", "c-2", values={"limits": {"max_price_distance": "0.05"}, "symbol": "EURUSD"})
    await world.command("order.modify", "c-3", order_id=order_id, values={"price": "1.04"})
    await world.command("position.modify", "c-4", position_id=position, values={"stop_loss": "1.08"})
    await world.signal("x-1", intent="modify", stop_loss="1.07", **EXIT)
    brought = [each.limits for each in asked(world, ModifyRequest) + asked(world, ProtectRequest)]
    both = {"max_level_distance": Decimal("0.1"), "max_price_distance": Decimal("0.05")}
    assert [said(limits) for limits in brought] == [both] * 3


# --- positions


async def test_a_position_is_closed_by_an_order_of_its_own(world: DeskWorld, market: Market) -> None:
    position = await hold(market, "s-1", "1", strategy="trend")
    await world.command("position.close", position_id=position)
    assert world.results() == [("accepted", None)]
    await market.run()
    assert (market.open, world.results()) == ({}, DONE)
    made = world.published("command_result/1")[-1]["order_ids"]
    assert made == [order_id_for("streamapp", ACCOUNT, "command\x00c-1\x001")]
    order = [each for each in world.published("order/1") if each["order_id"] == made[0]][-1]
    assert (order["intent"], order["signal_id"], order["strategy"]) == ("close", "command c-1", "trend")


async def test_a_close_of_some_lots_leaves_the_others(world: DeskWorld, market: Market) -> None:
    position = await hold(market, "s-1", "1")
    await world.command("position.close", position_id=position, values={"volume": "0.4"})
    await market.run()
    assert (market.open, world.results()) == ({position: Decimal("0.6")}, DONE)


async def test_a_close_of_more_than_one_order_takes_is_done_when_its_parts_are(
    world: DeskWorld, market: Market
) -> None:
    position = await hold(market, "s-1", "1")
    market.largest = Decimal("0.4")
    await world.command("position.close", position_id=position)
    await market.run()
    assert (market.open, world.results()) == ({}, DONE)


async def test_a_part_that_is_too_large_for_one_order_again_is_waited_for(world: DeskWorld, market: Market) -> None:
    position = await hold(market, "s-1", "1")
    market.largest = Decimal("0.5")
    await world.command("position.close", position_id=position)
    await market.execute(market.waiting[0])
    market.largest = Decimal("0.25")
    await market.run()
    assert (market.open, world.results()) == ({}, DONE)


async def test_two_commands_of_one_commit_never_close_the_same_lots(world: DeskWorld, market: Market) -> None:
    position = await hold(market, "s-1", "1")
    await world.give_command("position.close", "c-1", position_id=position, values={"volume": "0.7"})
    await world.give_command("position.close", "c-2", position_id=position, values={"volume": "0.7"})
    await world.give_command("position.close", "c-3", position_id=position)
    await world.settled()
    await market.run()
    assert (market.open, market.impossible) == ({}, [])
    assert (world.results("c-2"), world.results("c-3")) == ([("refused", "invalid")], DONE)


async def test_an_exit_and_a_flatten_of_one_commit_never_close_the_same_lots(world: DeskWorld, market: Market) -> None:
    await hold(market, "s-1", "1")
    await world.give_signal("x-1", side=None, order_type=None, volume=None, intent="close")
    await world.give_command("account.flatten")
    await world.settled()
    await market.run()
    assert (market.open, market.impossible, world.results()) == ({}, [], DONE)


async def test_of_a_net_position_only_our_share_is_closed_and_what_is_left_is_foreign(world: DeskWorld) -> None:
    market = Market(world, netting=True)
    position = await hold(market, "s-1", "1")
    await market.trade("2", "buy", position)
    await world.command("position.close", position_id=position)
    await market.run()
    assert (market.open, world.results()) == ({position: Decimal(2)}, DONE)
    await world.command("position.modify", "c-2", position_id=position, values={"stop_loss": "1"})
    await world.command("position.close", "c-3", position_id=position)
    await world.command("account.flatten", "c-4")
    assert world.results("c-2") == world.results("c-3") == [("refused", "foreign_position")]
    assert (market.open, world.results("c-4")) == ({position: Decimal(2)}, DONE)


async def test_a_close_that_was_not_filled_has_failed(world: DeskWorld, market: Market) -> None:
    position = await hold(market, "s-1", "1")
    await world.command("position.close", position_id=position)
    await market.run("reject")
    assert world.results() == [("accepted", None), ("failed", "not_closed")]


async def test_levels_of_a_position_are_set(world: DeskWorld, market: Market) -> None:
    position = await hold(market, "s-1", "1")
    await world.command("position.modify", position_id=position, values={"stop_loss": "1.08", "take_profit": "0"})
    (request,) = asked(world, ProtectRequest)
    assert (request.position_id, request.stop_loss, request.take_profit) == (position, Decimal("1.08"), Decimal(0))
    assert world.results() == DONE


# --- the account


def state(world: DeskWorld) -> tuple[str, str, str]:
    row = world.account_row()
    assert row is not None
    return row.trading.state, row.trading.cause, row.trading.by


async def opens(world: DeskWorld, signal_id: str) -> bool:
    await world.signal(signal_id)
    row = world.signal_row(signal_id)
    assert row is not None
    return row.verdict.decision == "accepted"


@pytest.mark.parametrize(("command", "word"), [("account.halt", "halted"), ("account.reduce", "reducing")])
async def test_an_account_that_is_stopped_opens_nothing_and_closes_all_the_same(
    world: DeskWorld, market: Market, command: str, word: str
) -> None:
    position = await hold(market, "s-1", "1")
    await world.command(command, reason="news", issued_by="ops")
    assert (state(world), world.results()) == ((word, "news", "ops"), DONE)
    await world.restart()
    assert not await opens(world, "s-2")
    assert f"{word} since" in world.published("refused/1")[-1]["detail"]
    await world.command("position.close", "c-2", position_id=position)
    await market.run()
    assert market.open == {}
    await world.command("account.resume", "c-3", issued_by="ops")
    assert (world.results("c-3"), await opens(world, "s-3")) == (DONE, True)
    (request,) = asked(world, ResumeRequest)
    assert (request.issued_by, request.request_id is not None) == ("ops", True)


async def test_a_held_order_that_opens_is_refused_when_its_account_is_halted_meanwhile() -> None:
    world = DeskWorld()
    world.terminals.silent = True
    await world.start()
    order_id = await world.signal(valid_until="2999-01-01T00:00:00Z")
    await world.command("account.halt")
    world.terminals.silent = False
    await world.broker.greet()
    await world.tick()
    refused = world.order_row(order_id).state.attempts[1].refused
    assert refused is not None
    assert (refused.reason, world.terminals.submits) == ("halted", [])


async def test_what_an_order_showed_is_lifted_by_a_person_and_more_of_it_halts_again(
    world: DeskWorld, market: Market
) -> None:
    await hold(market, "s-1", "1")
    order_id = order_id_for("streamapp", ACCOUNT, "s-1")
    more = facts.Filled.model_validate(
        {**dict(world.order_row(order_id).state.fills[0]), "deal": 77, "volume": Decimal("0.5")}
    )
    await market.report(("deal", order_id, more))
    assert not await opens(world, "s-2")
    await world.restart()
    await world.command("account.resume")
    await world.restart()
    assert await opens(world, "s-3")
    await market.report(("deal", order_id, more.model_copy(update={"deal": 78})))
    assert not await opens(world, "s-4")


async def test_the_state_is_told_when_it_changes_and_with_every_news_of_the_account(world: DeskWorld) -> None:
    await world.snapshot(account_state("5"))
    await world.command("account.halt", reason="news", issued_by="ops")
    world.later(2)
    await world.snapshot(account_state("6", at=world.clock.now))
    told = [(each["trading"], each["trading_cause"], each["trading_by"]) for each in world.published("account/1")]
    assert told == [("open", "", ""), ("halted", "news", "ops"), ("halted", "news", "ops")]


async def test_cancel_all_cancels_what_works_and_lets_the_rest_be(world: DeskWorld, market: Market) -> None:
    first, second = await work(market, "s-1"), await work(market, "s-2", symbol="GBPUSD")
    in_flight = await world.signal("s-3")
    await world.command("account.cancel_all")
    assert {each.order_id for each in asked(world, CancelRequest)} == {first, second}
    assert world.results() == DONE
    assert world.order_row(in_flight).status == "submitted"


async def test_flatten_cancels_closes_and_goes_on_trying_until_nothing_is_left(
    world: DeskWorld, market: Market
) -> None:
    position, foreign = await hold(market, "s-1", "1"), 900
    await market.trade("1", "buy", foreign)
    order_id = await work(market, "s-2")
    await world.command("account.flatten", reason="enough", issued_by="ops")
    assert state(world) == ("halted", "enough", "ops")
    assert [each.order_id for each in asked(world, CancelRequest)] == [order_id]
    await market.withdraw(order_id)
    await market.run("reject")
    last = world.published("command_result/1")[-1]
    assert (last["state"], f"position {position}" in last["detail"]) == ("accepted", True)
    world.later(10)
    await world.tick()
    assert market.waiting == []
    world.later(25)
    await world.tick()
    await market.run()
    assert (list(market.open), world.results()[-1]) == ([foreign], ("done", None))


async def test_a_resume_ends_a_flatten_that_goes_on_trying(world: DeskWorld, market: Market) -> None:
    await hold(market, "s-1", "1")
    await world.command("account.flatten")
    await market.run("reject")
    await world.command("account.resume", "c-2")
    assert world.results()[-1] == ("failed", "ended")
    world.later(60)
    await world.tick()
    assert market.waiting == []


async def test_an_order_that_flatten_made_for_a_terminal_that_is_away_waits_for_it(
    world: DeskWorld, market: Market
) -> None:
    await hold(market, "s-1", "1")
    world.terminals.silent = True
    world.later(10)
    await world.tick()
    await world.command("account.flatten")
    world.later(1)
    await world.tick()
    made = world.command_row().order_ids  # type: ignore[union-attr]
    assert [world.order_row(order_id).standing for order_id in made] == ["held"]
    world.terminals.silent = False
    await world.tick()
    await market.run()
    await world.tick()
    assert (market.open, world.results()[-1]) == ({}, ("done", None))


async def test_flatten_pauses_between_two_tries_to_cancel_and_remembers_only_the_last(
    world: DeskWorld, market: Market
) -> None:
    order_id = await work(market)
    world.terminals.outcome = "rejected"
    await world.command("account.flatten")
    for _ in range(100):
        world.later(1)
        await world.tick()
    row = world.command_row()
    assert row is not None
    assert (len(asked(world, CancelRequest)), len(row.targets)) == (4, 1)
    world.terminals.outcome = "unknown"
    world.later(30)
    await world.tick()
    await market.withdraw(order_id)
    assert world.results()[-1] == ("done", None)


async def test_flatten_tries_each_of_many_positions_only_once_in_its_pause(world: DeskWorld, market: Market) -> None:
    for number in range(8):
        await hold(market, f"s-{number}", "0.1")
    await world.command("account.flatten")
    for request in market.waiting:
        await market.execute(request, "reject")
    for _ in range(20):
        world.later(1)
        await world.tick()
    assert market.waiting == []
    world.later(15)
    await world.tick()
    assert len(market.waiting) == 8


async def test_a_flatten_ends_with_its_valid_until(world: DeskWorld, market: Market) -> None:
    await hold(market, "s-1", "1")
    until = time_text(world.clock.now + timedelta(seconds=40))
    await world.command("account.flatten", valid_until=until)
    await market.run("reject")
    world.later(41)
    await world.tick()
    assert world.results()[-1] == ("failed", "stale")
    assert market.waiting == []


async def test_a_second_flatten_takes_over_what_the_first_one_tries(world: DeskWorld, market: Market) -> None:
    await hold(market, "s-1", "1")
    await world.command("account.flatten", "c-1")
    await market.run("reject")
    await world.command("account.flatten", "c-2")
    assert world.results("c-1")[-1] == ("failed", "ended")
    await market.run()
    await world.tick()
    assert (market.open, world.results("c-2")[-1]) == ({}, ("done", None))


@pytest.mark.parametrize("later", ["account.halt", "account.reduce", "account.flatten", "account.resume"])
async def test_a_resume_that_no_terminal_has_answered_ends_with_the_next_word(world: DeskWorld, later: str) -> None:
    world.terminals.silent = True
    await world.command("account.resume", "c-1")
    await world.command(later, "c-2")
    assert world.results("c-1") == [("accepted", None), ("failed", "ended")]
    world.terminals.silent = False
    asked_before = len(world.terminals.operations)
    world.later(6)
    await world.tick()
    again = [each for each in world.terminals.operations[asked_before:] if isinstance(each, ResumeRequest)]
    assert (len(again), world.results("c-2")) == (later == "account.resume", DONE)


async def test_an_account_with_more_than_fits_a_commit_is_cancelled_and_flattened_bit_by_bit(
    world: DeskWorld, market: Market
) -> None:
    metadata = {"note": "x" * 3000}
    for number in range(60):
        await hold(market, f"s-{number}", "0.1", metadata=metadata)
    world.terminals.silent = True
    world.later(10)
    await world.tick()
    until = "9999-12-31T23:59:59.999999Z"
    for number in range(60):
        await world.signal(f"held-{number}", metadata=metadata, valid_until=until)
    await world.command("account.flatten")
    for _ in range(20):
        world.later(1)
        await world.tick()
    held = [world.order_row(order_id_for("streamapp", ACCOUNT, f"held-{number}")).status for number in range(60)]
    assert set(held) == {"cancelled"}
    world.terminals.silent = False
    for _ in range(5):
        world.later(6)
        await world.tick()
        await market.run()
    assert (market.open, world.results()[-1], world.failures) == ({}, ("done", None), [])
    assert max(sum(map(len, rows.values())) for _, rows in world.store.commits) < COMMIT_BYTES


async def test_hundreds_of_commands_that_end_with_one_report_fit_into_commits(world: DeskWorld, market: Market) -> None:
    order_id = await work(market)
    world.terminals.silent = True
    for number in range(MOST_COMMANDS):
        await world.give_command("order.cancel", f"{'c' * 100}-{number}", order_id=order_id, reason="x" * 400)
    await world.command("order.cancel", "one-more", order_id=order_id)
    assert world.results("one-more") == [("refused", "too_many")]
    await world.command("account.halt", "halt")
    await world.command("account.resume", "resume")
    await world.command("account.flatten", "flatten")
    assert [world.results(name)[0][0] for name in ("halt", "resume", "flatten")] == ["accepted"] * 3
    await market.withdraw(order_id)
    for _ in range(20):
        await world.tick()
    row = world.account_row()
    assert row is not None
    assert (row.commands, world.failures) == ((), [])
    assert max(sum(map(len, rows.values())) for _, rows in world.store.commits) < COMMIT_BYTES


async def test_the_last_of_several_states_in_one_commit_is_told(world: DeskWorld) -> None:
    await world.snapshot(account_state("5"))
    for number, name in enumerate(["halt", "resume", "halt"]):
        await world.give_command(f"account.{name}", f"c-{number}")
    await world.settled()
    assert [each["trading"] for each in world.published("account/1")] == ["open", "halted", "open", "halted"]
    assert state(world)[0] == "halted"


# --- said again, and said wrongly


async def test_a_command_that_is_redelivered_is_passed_over_and_one_that_is_repeated_is_answered_as_it_stands(
    world: DeskWorld, market: Market
) -> None:
    order_id = await work(market)
    await world.command("order.cancel", order_id=order_id, sequence=100)
    await world.command("order.cancel", order_id=order_id, sequence=100)
    assert world.results() == DONE
    await world.command("order.cancel", order_id=order_id, sequence=101)
    assert world.results() == [*DONE, ("done", None)]
    assert len(asked(world, CancelRequest)) == 1


async def test_a_request_id_with_other_content_is_a_conflict_and_the_first_stands(
    world: DeskWorld, market: Market
) -> None:
    first, second = await work(market, "s-1"), await work(market, "s-2")
    await world.command("order.cancel", order_id=first)
    await world.command("order.cancel", order_id=second)
    assert world.results() == [*DONE, ("refused", "conflict")]
    row = world.command_row()
    assert row is not None
    assert (row.state, row.request.order_id) == ("done", first)


async def test_a_second_cancel_of_an_order_is_done_and_one_of_a_filled_order_refused(
    world: DeskWorld, market: Market
) -> None:
    order_id = await work(market)
    await world.command("order.cancel", order_id=order_id)
    await market.withdraw(order_id)
    await world.command("order.cancel", "c-2", order_id=order_id)
    assert world.results("c-2") == DONE
    await hold(market, "s-7", "1")
    await world.command("order.cancel", "c-3", order_id=order_id_for("streamapp", ACCOUNT, "s-7"))
    assert world.results("c-3") == [("refused", "over")]


@pytest.mark.parametrize(
    ("name", "fields", "why"),
    [
        ("order.cancel", {"order_id": "nobody's"}, "unknown_order"),
        ("order.modify", {"order_id": "s-1", "values": {"price": "1"}}, "unknown_order"),
        ("position.close", {"position_id": 5}, "unknown_position"),
        ("position.close", {"position_id": 900}, "foreign_position"),
        ("position.modify", {"position_id": 900, "values": {"stop_loss": "1"}}, "foreign_position"),
        ("account.halt", {"valid_until": "2000-01-01T00:00:00Z"}, "stale"),
        ("order.cancel", {}, "invalid"),
        ("order.cancel", {"order_id": "x", "values": {"price": "1"}}, "invalid"),
        ("position.modify", {"position_id": 900}, "invalid"),
        ("position.modify", {"position_id": 900, "values": {"stop_los": "1"}}, "invalid"),
        ("position.close", {"position_id": 900, "values": {"volume": "-1"}}, "invalid"),
        ("account.explode", {}, "unknown_command"),
    ],
)
async def test_a_command_that_can_not_be_carried_out_is_refused_with_its_reason(
    world: DeskWorld, market: Market, name: str, fields: dict[str, Any], why: str
) -> None:
    await market.trade("1", "buy", 900)
    await world.command(name, **fields)
    assert world.results() == [("refused", why)]
    assert await opens(world, "s-9")


async def test_a_close_above_the_volume_and_one_of_what_is_being_closed_are_refused(
    world: DeskWorld, market: Market
) -> None:
    position = await hold(market, "s-1", "1")
    await world.command("position.close", position_id=position, values={"volume": "1.01"})
    assert world.results() == [("refused", "invalid")]
    await world.command("position.close", "c-2", position_id=position)
    await world.command("position.close", "c-3", position_id=position)
    assert world.results("c-3") == [("refused", "over")]


async def test_a_command_on_the_subject_of_another_account_or_symbol_is_refused(
    world: DeskWorld, market: Market
) -> None:
    position = await hold(market, "s-1", "1")
    await world.command("account.halt", target="other")
    await world.command("position.close", "c-2", position_id=position, target="GBPUSD")
    assert (world.results(), world.results("c-2")) == ([("refused", "invalid")], [("refused", "invalid")])
    await world.command("position.close", "c-3", position_id=position, target="EURUSD")
    assert world.results("c-3") == [("accepted", None)]


async def test_an_unknown_order_without_an_account_is_refused_and_leaves_no_row(world: DeskWorld) -> None:
    await world.command("order.cancel", account=None, order_id=order_id_for("streamapp", ACCOUNT, "s-0"))
    assert world.results() == [("refused", "unknown_order")]
    assert world.command_row() is None


async def test_an_account_that_is_not_ours_is_refused() -> None:
    world = await DeskWorld(Settings(accounts={ACCOUNT: AccountSettings(login=1)})).start()
    await world.command("account.halt", account="b")
    assert world.results() == [("refused", "unknown_account")]


@pytest.mark.parametrize("field", ["issued_at", "valid_until"])
async def test_a_command_may_hold_until_the_last_moment_that_there_is(world: DeskWorld, field: str) -> None:
    world.terminals.silent = True
    world.later(10)
    await world.tick()
    order_id = await world.signal(valid_until="9999-12-31T23:59:59.999999Z")
    await world.tick()
    last: dict[str, Any] = {field: "9999-12-31T23:59:59.999999Z"}
    await world.command("order.cancel", order_id=order_id, **last)
    assert (world.results(), world.dead_letters()) == (DONE, [])


async def test_whoever_gave_a_command_that_broke_a_rule_is_told(
    world: DeskWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a rule that broke")

    monkeypatch.setattr("streamapp.desk.decide.take_command", broken)
    await world.command("account.resume")
    assert world.results() == [("refused", "internal")]
    assert state(world)[0] == "halted"


async def test_a_command_that_is_no_object_is_a_dead_letter_with_an_answer(world: DeskWorld) -> None:
    headers = {topics.NATS_SUBJECT: subjects.command("account.halt", ACCOUNT).encode(), topics.MESSAGE_OF: b"c-1"}
    await world.give(b"[]", topics.ORDER_COMMANDS, "command", headers=headers)
    await world.settled()
    assert world.results() == [("refused", "not_an_object")]
    assert [each["reason"] for each in world.dead_letters()] == [b"not_an_object"]
