"""When a rule of ours breaks: its account pays for it, and nobody else notices (design: desk)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from streamapp.desk.acceptance import decide_signal
from streamapp.desk.inputs import Incoming, Sweep, parse
from streamapp.desk.reports import take_report
from streamapp.errors import Ambiguous, Definite
from streamapp.settings import AccountSettings, Settings
from tests.kit.desk import ACCOUNT, DeskWorld
from tests.kit.examples import deal

BROKEN = "the rule that broke"
ERROR = f"KeyError: '{BROKEN}'"
BAD = {"this": "is bad"}
DECIDE_SIGNAL = "streamapp.desk.decide.decide_signal"


@pytest.fixture
async def world() -> DeskWorld:
    accounts = {ACCOUNT: AccountSettings(login=1), "b": AccountSettings(login=2)}
    return await DeskWorld(Settings(accounts=accounts)).start()


def broken(rule: Callable[..., Any], *, times: int = 1000) -> Callable[..., Any]:
    """Return ``rule`` as it is when it breaks, ``times`` times, on records of account ``a`` that hold the word bad."""
    left = times

    def breaks(*given: Any) -> Any:
        nonlocal left
        for each in given:
            incoming = each if isinstance(each, Incoming) else getattr(each, "incoming", None)
            if incoming is not None and incoming.key == ACCOUNT.encode() and b"bad" in incoming.payload and left:
                left -= 1
                raise KeyError(BROKEN)
        return rule(*given)

    return breaks


def alarms(world: DeskWorld) -> float:
    count: float = world.metrics.alarms.labels("internal")._value.get()
    return count


def check_letter(world: DeskWorld) -> None:
    [letter] = world.dead_letters()
    assert letter["reason"] == b"internal"
    assert b", line " in letter["detail"]
    assert letter["detail"].rstrip().endswith(ERROR.encode())


@pytest.mark.parametrize("where", ["decide", "parse"])
async def test_a_signal_on_which_a_rule_breaks_halts_its_account_and_no_other(
    world: DeskWorld, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    if where == "parse":
        monkeypatch.setattr("agents.desk.parse", broken(parse))
    else:
        monkeypatch.setattr(DECIDE_SIGNAL, broken(decide_signal))
    for account in (ACCOUNT, "b"):
        await world.give_signal("s-1", account=account)
        await world.give_signal("s-2", account=account, metadata=BAD)
        await world.give_signal("s-3", account=account)
    await world.settled()
    check_letter(world)
    assert (world.failures, len(world.acked), alarms(world)) == ([], 6, 1)
    assert [request.account for request in world.terminals.submits].count("b") == 3
    assert [request.order_id for request in world.terminals.submits if request.account == ACCOUNT] == [
        row.order_id for row in [world.signal_row("s-1")] if row is not None
    ]
    [(account, alarm)] = world.alarms.alarms
    assert (account, alarm.name, alarm.count) == (ACCOUNT, "internal", 1)
    assert alarm.text.startswith(f"account {ACCOUNT} opens nothing any more: ")
    assert alarm.text.rstrip().endswith(ERROR)
    row = world.account_row()
    assert row is not None
    assert row.trading.cause.startswith("internal: ")
    assert row.trading.cause.rstrip().endswith(ERROR)
    neighbour = world.account_row("b")
    assert neighbour is not None
    assert neighbour.trading.state == "trading"
    broke, refused = world.published("refused/1")
    assert (broke["signal_id"], broke["account"], broke["reason"], broke["detail"]) == ("s-2", "a", "internal", ERROR)
    assert (refused["signal_id"], refused["reason"]) == ("s-3", "halted")


async def test_a_halted_account_goes_on_taking_reports_and_stays_halted_in_the_next_life(
    world: DeskWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = await world.signal("s-1")
    with monkeypatch.context() as patch:
        patch.setattr(DECIDE_SIGNAL, broken(decide_signal))
        await world.signal("s-2", metadata=BAD)
    await world.restart()
    await world.report(("accepted", order_id, {"ticket": 7}), ("deal", order_id, deal(9, "0.1")))
    assert (world.order_row(order_id).status, world.terminals.acks[-1].watermark) == ("filled", 2)
    await world.signal("s-3")
    assert [refused["reason"] for refused in world.published("refused/1")] == ["internal", "halted"]
    assert len(world.terminals.submits) == 1


async def test_an_account_that_a_broken_rule_halted_is_opened_again_by_a_person(
    world: DeskWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(DECIDE_SIGNAL, broken(decide_signal))
        await world.signal("s-1", metadata=BAD)
    await world.command("account.resume", issued_by="ops")
    await world.signal("s-2")
    assert world.results() == [("accepted", None), ("done", None)]
    assert len(world.terminals.submits) == 1


async def test_a_report_on_which_a_rule_breaks_is_kept_and_the_watermark_passes_it(
    world: DeskWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = await world.signal()

    def breaks(draft: Any, new: Any) -> None:
        if new.seq == 2:
            raise KeyError(BROKEN)
        take_report(draft, new)

    monkeypatch.setattr("streamapp.desk.decide.take_report", breaks)
    reports = [("accepted", order_id, {"ticket": 7}), ("deal", order_id, deal(9, "0.05"))]
    await world.report(*reports, ("deal", order_id, deal(10, "0.05")))
    check_letter(world)
    assert (world.order_row(order_id).state.filled, world.terminals.acks[-1].watermark) == (deal(10, "0.05").volume, 3)
    row = world.account_row()
    assert row is not None
    assert (row.watermark, row.trading.state == "trading", alarms(world), world.failures) == (3, False, 1, [])
    assert len(world.acked) == 2


async def test_an_input_that_breaks_a_rule_is_tried_once_more_on_rows_read_anew(
    world: DeskWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.signal("s-1")
    reads, get = list[bytes](), world.store.get

    def read(key: bytes, *, partition: int) -> bytes | None:
        reads.append(key)
        return get(key, partition=partition)

    monkeypatch.setattr(world.store, "get", read)
    monkeypatch.setattr(DECIDE_SIGNAL, broken(decide_signal, times=1))
    order_id = await world.signal("s-2", metadata=BAD)
    assert b"a/a" in reads
    assert (world.dead_letters(), alarms(world), world.failures) == ([], 0, [])
    assert world.facts(order_id) == ["OrderCreated", "SubmitClaimed"]


async def test_what_comes_from_within_and_breaks_a_rule_halts_the_account_without_a_dead_letter(
    world: DeskWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = await world.signal()

    def breaks(*_: Any) -> None:
        raise KeyError(BROKEN)

    monkeypatch.setattr("streamapp.desk.decide.sweep", breaks)
    world.desk.put(ACCOUNT, Sweep((order_id,)))
    await world.settled()
    assert (world.dead_letters(), alarms(world), world.failures) == ([], 1, [])
    row = world.account_row()
    assert row is not None
    assert row.trading.cause.startswith("internal: ")
    assert row.trading.cause.rstrip().endswith(ERROR)
    await world.report(("accepted", order_id, {"ticket": 7}))
    assert world.facts(order_id)[-1] == "BrokerAccepted"


@pytest.mark.parametrize("error", [Definite("too large"), Ambiguous("no answer")])
async def test_a_store_that_fails_ends_the_worker_also_when_a_rule_broke(
    world: DeskWorld, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(DECIDE_SIGNAL, broken(decide_signal))
    world.store.refuse = error
    await world.signal("s-1", metadata=BAD)
    assert (world.failures, world.acked, world.terminals.submits) == ([error], [], [])
    world.store.refuse = None
    await world.restart()
    row = world.account_row()
    assert row is None
    await world.signal("s-2")
    assert len(world.terminals.submits) == 1
