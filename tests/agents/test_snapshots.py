from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

from agents.snapshots import Snapshots
from streamapp import topics
from streamapp.kafka.memory import MemoryProducer
from streamapp.messages.account import AccountMessage, SnapshotMessage
from streamapp.metrics import TradingMetrics
from streamapp.settings import Settings
from tables.accounts import AccountRow, AccountStateRow, account_key
from tables.memory import memory_table
from tests.agents.records import NOW, event


def snapshot(seconds: float, equity: str = "100.00", account: str = "demo") -> Any:
    at = NOW + timedelta(seconds=seconds)
    state = AccountMessage(account=account, connection="ready", equity=Decimal(equity), at=at)
    said = SnapshotMessage(account=account, state=state, at=at)
    return event(said.encode(), account="demo", topic=topics.ACCOUNT_SNAPSHOTS, partition=0)


class World:
    def __init__(self) -> None:
        self.accounts, self.log = memory_table("accounts", AccountRow)
        self.producer = MemoryProducer()
        self.agent = Snapshots(self.accounts, self.producer, Settings(deployment="test"), TradingMetrics())

    @property
    def told(self) -> list[str]:
        return [str(AccountMessage.decode(one.value).equity) for one in self.producer.on(topics.UPDATES)]


async def test_an_account_at_rest_costs_nothing() -> None:
    world = World()
    for seconds in range(5):
        await world.agent.handle([snapshot(seconds)])
    assert world.told == ["100.00"]
    assert len(world.log.appended) == 1


async def test_a_change_is_put_and_told_and_only_the_newest_of_a_group_counts() -> None:
    world = World()
    await world.agent.handle([snapshot(1, "1"), snapshot(3, "3"), snapshot(2, "2")])
    await world.agent.handle([snapshot(4, "4")])
    assert world.told == ["3", "4"]
    (first, _) = world.producer.on(topics.UPDATES)
    assert first.headers[topics.PUBLISH_SUBJECT] == b"accounts.demo"
    assert first.headers[topics.PUBLISH_ID] == b"test:account:demo:2026-11-20T12:00:03.000000Z"


async def test_the_same_snapshot_again_is_told_again_and_an_older_one_is_not() -> None:
    world = World()
    await world.agent.handle([snapshot(2, "2")])
    await world.agent.handle([snapshot(2, "2")])
    await world.agent.handle([snapshot(1, "1")])
    assert world.told == ["2", "2"]
    row = world.accounts.get(account_key("demo"), partition=0)
    assert row is not None
    assert isinstance(row.root, AccountStateRow)
    assert str(row.root.state.equity) == "2"


async def test_a_broken_snapshot_is_a_dead_letter() -> None:
    world = World()
    broken = event(b"{}", account="demo", topic=topics.ACCOUNT_SNAPSHOTS, partition=0)
    await world.agent.handle([broken, snapshot(1, account="other"), snapshot(1)])
    assert [one.headers["reason"] for one in world.producer.on(topics.DEAD_LETTERS)] == [b"invalid", b"wrong_key"]
    assert world.told == ["100.00"]
