"""Commands on the real stack: from the fault that halts an account to its next order, and through a terminal's absence.

The broker's own book is the judge.
"""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import pytest

from streamapp import subjects
from streamapp.audit.verify import verify
from streamapp.clickhouse.client import ClickHouse
from streamapp.domain.vocabulary import time_text
from streamapp.local.own import OwnStack
from tests.e2e.desk import Desk, desk_at
from tests.e2e.test_exits import at_broker, filled, holds
from tests.kit.stacks import running_stack
from tests.kit.waiting import eventually

SETTINGS = """
[terminal]
settle_window_s = 3.0

[accounts.one]
login = 64000001

[accounts.two]
login = 64000002
"""
LIMIT: dict[str, Any] = {"order_type": "limit", "price": "1.05"}


@pytest.fixture(scope="module")
def stack_of_two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnStack]:
    with running_stack(tmp_path_factory.mktemp("commands"), SETTINGS) as stack:
        yield stack


@pytest.fixture
async def desk(stack_of_two: OwnStack) -> AsyncIterator[Desk]:
    async with desk_at(stack_of_two.settings) as desk:
        yield desk


class Commander:
    """Gives commands and hears what becomes of them."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.results: dict[str, list[dict[str, Any]]] = {}

    async def listen(self) -> None:
        await self._desk.nats.subscribe(subjects.command_result("*").replace("%2A", "*"), cb=self._heard)
        await self._desk.nats.flush()

    async def _heard(self, message: Any) -> None:
        said = json.loads(message.data)
        self.results.setdefault(said["request_id"], []).append(said)

    async def give(self, name: str, request_id: str, account: str = "one", **fields: Any) -> None:
        said = {"request_id": request_id, "account": account, "issued_by": "tests", **fields}
        await self._desk.publish(subjects.command(name, account), json.dumps(said).encode())

    async def became(self, request_id: str, state: str) -> dict[str, Any]:
        """Return the newest answer once it is this one."""

        def newest() -> dict[str, Any] | None:
            said = self.results.get(request_id, [None])[-1]
            return said if said is not None and said["state"] == state else None

        found: dict[str, Any] = await eventually(newest, lambda: f"{request_id} {state}; {self.results}")
        return found


@pytest.fixture
async def commander(desk: Desk) -> Commander:
    commander = Commander(desk)
    await commander.listen()
    return commander


async def refused(desk: Desk, name: str, account: str) -> dict[str, Any]:
    await desk.send(name, account)
    found: dict[str, Any] = await eventually(lambda: desk.refusals.get(desk.signal_id(name)), f"{name} refused")
    return found


async def test_a_person_halts_an_account_and_lets_it_open_again(desk: Desk, commander: Commander) -> None:
    await commander.give("account.halt", "halt-1", reason="news")
    await commander.became("halt-1", "done")
    assert "by tests: news" in (await refused(desk, "h-refused", "one"))["detail"]
    shown = await desk.view("/accounts/one")
    assert (shown["trading"], shown["trading_cause"], shown["trading_by"]) == ("halted", "news", "tests")
    await filled(desk, "h-other", "two", "EURUSD")
    await commander.give("account.resume", "resume-1")
    await commander.became("resume-1", "done")
    await filled(desk, "h-again", "one", "EURUSD")


async def test_an_account_that_executed_an_order_twice_is_halted_and_a_person_lets_it_open_again(
    desk: Desk, commander: Commander
) -> None:
    await desk.fault("duplicate_fill", "two")
    await desk.send("d-twice", "two", "GBPUSD")
    await holds(desk, "two", "GBPUSD", "0.10", "0.10")

    async def is_halted() -> bool:
        return bool((await desk.view("/accounts/two"))["trading"] == "halted")

    await eventually(is_halted, "the account halted by the order that was executed twice")
    assert desk.order_id("d-twice") in (await refused(desk, "d-refused", "two"))["detail"]
    await commander.give("account.resume", "resume-2", account="two")
    await commander.became("resume-2", "done")
    await filled(desk, "d-again", "two", "EURUSD")


async def test_an_order_that_works_is_modified_and_then_cancelled(desk: Desk, commander: Commander) -> None:
    await desk.send("l-1", "one", "EURUSD", **LIMIT)
    await desk.works("l-1")
    await commander.give("order.modify", "modify-1", order_id=desk.order_id("l-1"), values={"price": "1.04"})
    await commander.became("modify-1", "done")
    await commander.give("order.cancel", "cancel-1", order_id=desk.order_id("l-1"))
    await desk.ended("l-1", "cancelled", "user")
    await commander.became("cancel-1", "done")


@contextmanager
def away(stack: OwnStack) -> Iterator[None]:
    """Let the terminals stand still meanwhile."""
    parent = psutil.Process(stack.pid_of("terminals"))
    still = [parent, *parent.children(recursive=True)]
    for process in still:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in still:
            process.send_signal(signal.SIGCONT)


async def test_a_command_that_is_given_while_the_terminal_is_away_is_carried_out_when_it_is_back(
    stack_of_two: OwnStack, desk: Desk, commander: Commander
) -> None:
    await desk.send("a-1", "one", "EURUSD", **LIMIT)
    await desk.works("a-1")
    until = time_text(datetime.now(UTC) + timedelta(minutes=10))
    with away(stack_of_two):
        await commander.give("order.cancel", "cancel-2", order_id=desk.order_id("a-1"), valid_until=until)
        await commander.became("cancel-2", "accepted")
    await commander.became("cancel-2", "done")
    await desk.ended("a-1", "cancelled", "user")


async def test_flatten_leaves_nothing_of_ours_open_and_nothing_at_work(desk: Desk, commander: Commander) -> None:
    await desk.send("f-1", "one", "EURUSD", **LIMIT)
    await desk.works("f-1")
    await filled(desk, "f-2", "one", "USDJPY")
    await commander.give("account.flatten", "flatten-1", reason="end of the day")
    await commander.became("flatten-1", "done")
    await desk.ended("f-1", "cancelled", "user")
    assert await at_broker(desk, "one", "USDJPY") == []
    assert await at_broker(desk, "one", "EURUSD") == []
    assert "end of the day" in (await refused(desk, "f-3", "one"))["detail"]


async def limited(commander: Commander, request_id: str, **limits: Any) -> None:
    await commander.give("account.limits", request_id, account="two", values={"limits": limits})
    await commander.became(request_id, "done")


async def test_limits_that_a_person_sets_hold_at_the_desk_and_at_the_terminal(desk: Desk, commander: Commander) -> None:
    await limited(commander, "limits-1", max_volume="0.05", max_notional=1000)
    expected = "max_volume: expected 0.05 lots at most for EURUSD, got 0.1"
    assert (await refused(desk, "g-lots", "two"))["detail"] == expected
    await limited(commander, "limits-2", max_volume=None)
    await desk.send("g-worth", "two")
    await eventually(lambda: "failed" in desk.statuses("g-worth"), "an order that is worth too much failed")
    order = await desk.view(f"/orders/{desk.order_id('g-worth')}")
    assert any("max_notional: expected 1000 USD at most" in json.dumps(fact) for fact in order["facts"])
    assert (await desk.view("/limits?account=two"))["override"] == {"max_notional": "1000"}
    await limited(commander, "limits-3", max_notional=None)
    await filled(desk, "g-again", "two", "EURUSD")


async def test_an_account_that_has_lost_too_much_is_flattened_and_locked_until_the_brokers_midnight(
    desk: Desk, commander: Commander
) -> None:
    async def has_begun() -> bool:
        return bool(((await desk.view("/limits?account=two"))["today"] or {}).get("begun_at"))

    await eventually(has_begun, "the day's money of the account begun")
    await filled(desk, "l-loss", "two", "EURUSD", volume="1.00")  # and the spread is lost
    await limited(commander, "limits-4", max_daily_loss="0.5")
    await holds(desk, "two", "EURUSD")
    shown = await desk.view("/limits?account=two")
    assert (shown["trading"]["state"], shown["trading"]["by"]) == ("halted", "guard max_daily_loss")
    assert (shown["trading"]["until"], shown["today"]["reached"]) == (shown["today"]["ends_at"], "locked")
    assert "max_daily_loss: expected a loss of 0.5 USD" in (await refused(desk, "l-refused", "two"))["detail"]
    await limited(commander, "limits-5", max_daily_loss=None)
    await commander.give("account.resume", "resume-3", account="two")
    await commander.became("resume-3", "done")
    await filled(desk, "l-again", "two", "EURUSD")


async def test_the_warehouse_has_every_command_with_its_end_and_all_places_agree(stack_of_two: OwnStack) -> None:
    given = ("halt-1", "resume-1", "resume-2", "modify-1", "cancel-1", "cancel-2", "flatten-1")
    clickhouse = ClickHouse.of(stack_of_two.settings)

    async def known() -> bool:
        rows = await clickhouse.query("SELECT request_id, state, issued_by FROM commands FINAL")
        found = {(row["request_id"], row["state"], row["issued_by"]) for row in rows}
        return found >= {(request_id, "done", "tests") for request_id in given}

    try:
        await eventually(known, "every command in ClickHouse")
    finally:
        await clickhouse.close()
    verdict = await verify(stack_of_two.settings)
    assert verdict.agrees, verdict
