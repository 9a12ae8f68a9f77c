"""The trading worker as a process, on a real Kafka and NATS, with terminals that only record."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from streamapp.domain.identifiers import order_id_for
from streamapp.local import kafka, nats
from streamapp.local.ports import free_port
from tests.conftest import running
from tests.kafka.workers import until
from tests.trading_house import TradingHouse, trading_house


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A Kafka and a NATS of this module: the worker's topics and streams have names of their own."""
    folder = tmp_path_factory.mktemp("servers")
    kafka_spec = kafka.prepare(folder / "kafka", free_port(), free_port())
    nats_spec = nats.prepare(folder / "nats", free_port(), free_port())
    with running(kafka_spec, folder / "logs"), running(nats_spec, folder / "logs"):
        yield kafka_spec.address, nats_spec.address


@pytest.fixture
async def house(servers: tuple[str, str], tmp_path: Path) -> AsyncIterator[TradingHouse]:
    async with trading_house(*servers, tmp_path) as house:
        yield house


def order_of(house: TradingHouse, signal_id: str, account: str = "acc-1") -> str:
    return order_id_for(house.settings.deployment, account, signal_id)


async def all_recorded(house: TradingHouse, orders: dict[str, str]) -> None:
    """Return when every order (id: account) is in its terminal's journal."""
    await until(
        lambda: all(order_id in house.terminals[account].rows for order_id, account in orders.items()),
        "every order at its terminal",
    )


async def test_signals_become_orders_that_reach_their_terminals_once_in_order(house: TradingHouse) -> None:
    for terminal in house.terminals.values():
        await terminal.start()
    await house.started()
    accounts = list(house.terminals)
    names = {f"ok-{number}": accounts[number % 3] for number in range(60)}
    for name, account in names.items():
        await house.signal(name, account)
    await house.signal("ok-0")
    await house.signal("ok-0", volume="5")
    await house.signal("ok-bad", volume="NaN")
    orders = {order_of(house, name, account): account for name, account in names.items()}
    await all_recorded(house, orders)
    decisions = await until(lambda: house.decisions("ok-"), "decisions")
    assert sum(map(len, decisions.values())) <= 63
    for account, terminal in house.terminals.items():
        mine = [order_id for order_id, owner in orders.items() if owner == account]
        assert list(terminal.rows) == mine
        assert terminal.submits == dict.fromkeys(mine, 1)
    facts = await house.facts()
    for order_id in orders:
        assert [fact.fact for fact in facts[order_id]] == ["OrderCreated", "SubmitClaimed"]

    async def all_decided() -> bool:
        found = await house.decisions("ok-")
        return sum(map(len, found.values())) == 63

    await until(all_decided, "63 decisions")
    words = [decision.decision for decision in (await house.decisions("ok-0"))["ok-0"]]
    assert words == ["accepted", "duplicate", "conflict"]


@pytest.mark.crash
@pytest.mark.parametrize(
    "point", ["execution.after_put", "execution.after_emit", "broker.after_claim", "broker.after_reply"]
)
async def test_a_worker_killed_at_a_named_point_loses_nothing_and_repeats_nothing(
    house: TradingHouse, point: str
) -> None:
    for terminal in house.terminals.values():
        await terminal.start()
    await house.started(STREAMAPP_CRASH_AT=f"{point}:3")
    names = {f"{point}-{number}": f"acc-{number % 3 + 1}" for number in range(30)}
    for name, account in names.items():
        await house.signal(name, account)
    assert await house.died() == -signal.SIGKILL
    await house.started()
    orders = {order_of(house, name, account): account for name, account in names.items()}
    await all_recorded(house, orders)

    async def all_claimed() -> bool:
        facts = await house.facts()
        return all({f.fact for f in facts.get(o, ())} >= {"OrderCreated", "SubmitClaimed"} for o in orders)

    await until(all_claimed, "both facts of every order")
    decisions = await house.decisions(point)
    assert decisions.keys() == names.keys()
    assert {decision.decision for found in decisions.values() for decision in found} == {"accepted"}
    for found in decisions.values():
        assert len({decision.model_dump_json() for decision in found}) == 1, "a redelivery said something else"


async def test_an_absent_terminal_holds_its_own_account_only_and_what_is_late_is_refused(house: TradingHouse) -> None:
    present, absent = house.terminals["acc-1"], house.terminals["acc-2"]
    for terminal in house.terminals.values():
        await terminal.start()
    await house.started()
    await absent.stop()

    async def unhealthy() -> bool:
        status, body = await house.health()
        return status == 503 and any("acc-2" in reason for reason in body["reasons"])

    await until(unhealthy, "a health that names the silent terminal")
    soon = datetime.now(UTC) + timedelta(seconds=2)
    await house.signal("h-late", "acc-2", valid_until=soon.isoformat())
    await house.signal("h-kept", "acc-2")
    await house.signal("h-other", "acc-1")
    late, kept, other = (
        order_of(house, f"h-{n}", a) for n, a in (("late", "acc-2"), ("kept", "acc-2"), ("other", "acc-1"))
    )
    await all_recorded(house, {other: "acc-1"})

    async def refused() -> bool:
        return "SubmitRefused" in {fact.fact for fact in (await house.facts()).get(late, ())}

    await until(refused, "the refusal of the late order")
    await absent.start()
    await all_recorded(house, {kept: "acc-2"})
    assert late not in absent.rows
    assert (present.submits[other], absent.submits[kept]) == (1, 1)
    facts = await house.facts()
    assert [fact.fact for fact in facts[late]] == ["OrderCreated", "SubmitRefused"]


async def test_a_lost_journal_is_asked_about_what_it_held_under_the_old_epoch(house: TradingHouse) -> None:
    for terminal in house.terminals.values():
        await terminal.start()
    await house.started()
    terminal = house.terminals["acc-3"]
    await house.signal("e-1", "acc-3")
    order_id = order_of(house, "e-1", "acc-3")
    await all_recorded(house, {order_id: "acc-3"})
    terminal.rows.clear()
    terminal.epoch = "e2"
    await all_recorded(house, {order_id: "acc-3"})
    assert terminal.rows[order_id].state == "doubt"
    assert [epoch for name, epoch in terminal.epochs if name == order_id] == ["e1", "e1"]
