from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from streamapp import topics
from streamapp.desk.reports import STATE_KEPT_S
from streamapp.messages.account import AccountMessage, SnapshotMessage
from tests.kit.desk import ACCOUNT, NOW, DeskWorld


@pytest.fixture
async def world() -> DeskWorld:
    return await DeskWorld().start()


def state(equity: str = "100.00", **changes: Any) -> AccountMessage:
    known = AccountMessage(account=ACCOUNT, connection="ready", equity=Decimal(equity), at=NOW)
    return known.model_copy(update=changes)


async def snapshot(world: DeskWorld, seconds: float, equity: str = "100.00", **changes: Any) -> None:
    """Give a snapshot that was made ``seconds`` after the start, and wait for nothing."""
    at = NOW + timedelta(seconds=seconds)
    made = SnapshotMessage(account=ACCOUNT, state=state(equity, at=at, **changes), at=at)
    await world.give(made.encode(), topics.ACCOUNT_SNAPSHOTS, "snapshot")


def published(world: DeskWorld) -> list[str]:
    return [each["equity"] for each in world.published("account/1")]


def durable(world: DeskWorld) -> str | None:
    row = world.account_row()
    return None if row is None or row.state is None else str(row.state.equity)


async def test_an_account_at_rest_costs_nothing(world: DeskWorld) -> None:
    for seconds in range(5):
        await snapshot(world, seconds)
        await world.settled()
    assert published(world) == ["100.00"]
    assert (len(world.store.commits), len(world.commits), len(world.acked)) == (1, 1, 5)


async def test_a_change_is_published_and_only_the_newest_of_a_group_counts(world: DeskWorld) -> None:
    for seconds in (1, 3, 2):
        await snapshot(world, seconds, str(seconds))
    await world.settled()
    await snapshot(world, 4, "4")
    await world.settled()
    assert published(world) == ["3", "4"]
    subject, _, headers = world.outlet.stored[0]
    assert subject == "accounts.a"
    assert headers["Nats-Msg-Id"] == "streamapp:account:a:2026-11-20T12:00:03.000000Z"


async def test_money_that_moves_is_published_at_once_and_durable_once_a_minute(world: DeskWorld) -> None:
    for seconds in range(0, int(2 * STATE_KEPT_S), 20):
        await snapshot(world, seconds, str(seconds))
        await world.settled()
        world.later(20)
    assert published(world) == ["0", "20", "40", "60", "80", "100"]
    assert durable(world) == "60"
    assert len(world.store.commits) == 2
    assert [commit.number for commit in world.commits] == [1, 0, 0, 2, 0, 0]
    assert str(world.desk.states()[ACCOUNT].equity) == "100"


async def test_a_connection_that_changed_is_durable_at_once(world: DeskWorld) -> None:
    for seconds, connection in enumerate(("ready", "no_algo_trading")):
        await snapshot(world, seconds, connection=connection)
        await world.settled()
    row = world.account_row()
    assert row is not None
    assert row.state is not None
    assert row.state.connection == "no_algo_trading"


async def test_the_same_snapshot_again_and_an_older_one_are_no_news(world: DeskWorld) -> None:
    for seconds, equity in ((2, "2"), (2, "2"), (1, "1")):
        await snapshot(world, seconds, equity)
        await world.settled()
    assert published(world) == ["2"]
    assert durable(world) == "2"
    assert len(world.acked) == 3


async def test_after_a_restart_what_is_durable_is_known_and_what_was_only_published_is_not_stored_twice(
    world: DeskWorld,
) -> None:
    await snapshot(world, 1, "1")
    await world.settled()
    await snapshot(world, 2, "2")
    await world.settled()
    await world.restart()
    assert str(world.desk.states()[ACCOUNT].equity) == "1"
    await snapshot(world, 1, "1")
    await snapshot(world, 2, "2")
    await world.settled()
    assert published(world) == ["1", "2"]
    assert str(world.desk.states()[ACCOUNT].equity) == "2"


async def test_news_does_not_keep_an_idle_lanes_outbox_from_being_emptied(world: DeskWorld) -> None:
    await snapshot(world, 1, "1")
    await world.settled()
    emptying = world.outbox._accounts[ACCOUNT].tidying
    await snapshot(world, 2, "2")
    await world.settled()
    assert emptying is not None
    assert not emptying.cancelled()


async def test_a_broken_snapshot_is_a_dead_letter(world: DeskWorld) -> None:
    await world.give(b"{}", topics.ACCOUNT_SNAPSHOTS, "snapshot")
    other = SnapshotMessage(account="other", state=state(account="other"), at=NOW)
    await world.give(other.encode(), topics.ACCOUNT_SNAPSHOTS, "snapshot")
    await snapshot(world, 1)
    await world.settled()
    assert [letter["reason"] for letter in world.dead_letters()] == [b"invalid", b"wrong_key"]
    assert published(world) == ["100.00"]
