"""Alarms stand in their account's row, through restarts, until a person has dealt with them."""

from __future__ import annotations

from streamapp.domain.vocabulary import time_text
from tables.accounts import StandingAlarm
from tests.kit.desk import ACCOUNT, DeskWorld
from tests.kit.examples import accepted, deal


def standing(world: DeskWorld, name: str = "overfilled") -> list[StandingAlarm]:
    row = world.account_row()
    assert row is not None
    assert [(ACCOUNT, alarm) for alarm in row.alarms] == list(world.alarms.alarms)
    return [alarm for alarm in row.alarms if alarm.name == name]


async def acknowledge(world: DeskWorld, request_id: str, alarm_id: str, reason: str = "closed by hand") -> object:
    await world.command("alarm.acknowledge", request_id, values={"alarm_id": alarm_id}, reason=reason, issued_by="ann")
    return world.results(request_id)[-1]


async def overfill(world: DeskWorld, signal_id: str, ticket: int) -> str:
    """Let the broker execute more than an order asked for."""
    order_id = await world.signal(signal_id)
    await world.report(
        ("accepted", order_id, accepted(ticket).body),
        ("deal", order_id, deal(ticket, "2", ticket=ticket)),
        first_seq=ticket,
    )
    return order_id


async def test_an_alarm_stands_in_every_life_until_it_is_acknowledged_as_it_was_seen(world: DeskWorld) -> None:
    order_id = await overfill(world, "s-1", 7)
    [first] = standing(world)
    assert (first.name, first.count, first.order_id) == ("overfilled", 1, order_id)
    await world.restart()
    assert standing(world) == [first]
    await world.command("account.resume")
    world.later(1)
    second_id = await overfill(world, "s-2", 9)
    [second] = standing(world)
    assert (second.count, second.order_id, second.first_at) == (2, second_id, first.at)
    assert await acknowledge(world, "a-1", first.alarm_id) == ("refused", "unknown_alarm")
    assert f"overfilled rang again at {time_text(second.at)}" in world.published("command_result/1")[-1]["detail"]
    assert standing(world) == [second]
    assert await acknowledge(world, "a-2", second.alarm_id, reason="") == ("refused", "invalid")
    assert await acknowledge(world, "a-3", second.alarm_id) == ("done", None)
    told = world.published("command_result/1")[-1]
    assert (told["issued_by"], told["reason"], told["values"]) == (
        "ann",
        "closed by hand",
        {"alarm_id": second.alarm_id},
    )
    await world.restart()
    assert standing(world) == []
    assert await acknowledge(world, "a-4", second.alarm_id) == ("refused", "unknown_alarm")
    # It changes nothing else: what orders have shown still halts the account.
    assert world.desk.index.halting(ACCOUNT)
