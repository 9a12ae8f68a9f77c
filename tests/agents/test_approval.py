from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from agents.approval import ABSENT_WAIT_S, LONGEST_WAIT_S, ApprovalGate
from streamapp import topics
from streamapp.desk.inputs import NewSignal
from streamapp.domain.signals import ACCEPTED, Verdict
from streamapp.errors import Transient
from streamapp.settings import AccountSettings, ExecutionSettings, Settings
from tests.kit.desk import ACCOUNT, NOW, DeskWorld

DOWN, ABSENT, PENDING, APPROVED = {"down": True}, None, {"status": "pending"}, {"status": "approved"}
NO_ROW = Verdict("refused", "no_row")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.approval.FIRST_PAUSE_S", 0.0)


class Rows:
    """trading_signals with an outcome for each question, the last one for all that follow; each takes half a second."""

    def __init__(self, *outcomes: dict[str, Any] | None) -> None:
        self.outcomes = list(outcomes)
        self.asked: list[tuple[str, str | None]] = []
        self.world: DeskWorld | None = None

    async def signal(self, signal_id: str, account: str | None = None) -> dict[str, Any] | None:
        assert self.world is not None
        self.asked.append((signal_id, account))
        self.world.later(0.5)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if outcome is not None and "down" in outcome:
            raise Transient("no answer")
        return outcome


async def asking(rows: Rows, **execution: Any) -> DeskWorld:
    """Return a worker that asks ``rows`` for a second approval."""
    settings = Settings(accounts={ACCOUNT: AccountSettings(login=1)}, execution=ExecutionSettings(**execution))

    async def approve(new: NewSignal) -> Verdict:
        return await ApprovalGate(rows, world.clock, world.policy.rules).approve(new)

    rows.world = world = await approving(approve, settings)
    return world


async def approving(approve: Callable[[NewSignal], Awaitable[Verdict]], settings: Settings | None = None) -> DeskWorld:
    return await DeskWorld(settings, approve=approve).start()


def decisions(world: DeskWorld) -> list[tuple[str, str | None]]:
    return [(each["decision"], each["reason"]) for each in world.archived("signal/1")]


@pytest.mark.parametrize("outcomes", [[APPROVED], [ABSENT, APPROVED], [DOWN, PENDING, APPROVED]])
async def test_a_required_row_may_come_a_little_later(outcomes: list[dict[str, Any] | None]) -> None:
    world = await asking(rows := Rows(*outcomes))
    await world.signal()
    assert decisions(world) == [("accepted", None)]
    assert rows.asked == [("s-1", ACCOUNT)] * len(rows.asked)
    assert len(world.terminals.submits) == 1


@pytest.mark.parametrize(
    ("outcomes", "reason", "waited_s"),
    [
        ([ABSENT], "no_row", ABSENT_WAIT_S),
        ([PENDING], "not_approved", ABSENT_WAIT_S),
        ([DOWN], "row_unavailable", LONGEST_WAIT_S),
        ([DOWN, DOWN, DOWN, DOWN, DOWN, ABSENT], "no_row", 3.0),
    ],
)
async def test_without_its_required_row_a_signal_is_refused_in_the_end(
    outcomes: list[dict[str, Any] | None], reason: str, waited_s: float
) -> None:
    world = await asking(Rows(*outcomes))
    await world.signal(valid_until=(NOW + timedelta(seconds=60)).isoformat())
    assert decisions(world) == [("refused", reason)]
    assert [each["reason"] for each in world.published("refused/1")] == [reason]
    assert world.clock.now == NOW + timedelta(seconds=waited_s)
    assert world.terminals.submits == []


async def test_nobody_waits_for_a_row_beyond_the_signals_own_time() -> None:
    world = await asking(rows := Rows(DOWN))
    await world.signal(valid_until=(NOW + timedelta(seconds=1)).isoformat())
    assert len(rows.asked) == 2
    assert world.terminals.submits == []


async def test_where_the_subject_is_the_approval_it_is_enough_that_the_row_is_there() -> None:
    world = await asking(Rows({"symbol": "EURUSD"}), approval="subject")
    await world.signal(status=None)
    assert decisions(world) == [("accepted", None)]


async def test_an_approval_that_came_too_late_is_one_of_a_stale_signal() -> None:
    async def approve(new: NewSignal) -> Verdict:
        world.later(60)
        return ACCEPTED

    world = await approving(approve)
    await world.signal()
    assert decisions(world) == [("refused", "stale")]


async def test_what_can_not_be_read_is_refused_without_asking() -> None:
    world = await asking(rows := Rows(APPROVED))
    await world.signal(volume="NaN")
    assert decisions(world) == [("refused", "bad_field")]
    assert rows.asked == []


async def test_a_signal_that_is_refused_by_the_desk_is_not_saved_by_its_row() -> None:
    world = await asking(Rows(APPROVED))
    await world.signal(status="pending")
    assert decisions(world) == [("refused", "not_approved")]


async def test_a_redelivery_is_decided_by_nobody_whatever_its_row_says_by_now() -> None:
    world = await asking(Rows(APPROVED, ABSENT))
    await world.signal(sequence=7)
    await world.signal(sequence=7)
    await world.signal(sequence=8)
    assert decisions(world) == [("accepted", None), ("duplicate", None)]
    assert len(world.terminals.submits) == 1


class Slow:
    """An approval that comes when ``answer`` is set."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()

    async def approve(self, new: NewSignal) -> Verdict:
        return await self.answer


async def test_reports_do_not_wait_for_an_approval() -> None:
    world = await approving((slow := Slow()).approve)
    signal = asyncio.create_task(world.signal())
    await world.give(b"", topics.BROKER_REPORTS, "reports")
    while not world.acked:
        await asyncio.sleep(0)
    assert world.acked == [b""]
    assert world.desk.is_busy
    slow.answer.set_result(ACCEPTED)
    await signal
    assert decisions(world) == [("accepted", None)]


async def test_a_signal_whose_partition_is_given_up_before_its_approval_is_the_next_owners() -> None:
    world = await approving((slow := Slow()).approve)
    signal = asyncio.create_task(world.signal(sequence=7))
    while not world.desk.is_busy:
        await asyncio.sleep(0)
    world.store.revoke()
    await signal
    assert (world.acked, world.store.commits) == ([], [])
    slow.answer = asyncio.get_running_loop().create_future()
    slow.answer.set_result(NO_ROW)
    world.store.recover()
    await world.start()
    await world.signal(sequence=7)
    assert decisions(world) == [("refused", "no_row")]


async def test_an_approval_that_breaks_is_a_dead_letter_and_halts_its_account_alone() -> None:
    async def approve(new: NewSignal) -> Verdict:
        if new.account == ACCOUNT:
            raise RuntimeError("a rule of ours")
        return ACCEPTED

    accounts = {ACCOUNT: AccountSettings(login=1), "b": AccountSettings(login=2)}
    world = await approving(approve, Settings(accounts=accounts))
    await world.signal()
    await world.signal(account="b")
    [letter] = world.dead_letters()
    assert letter["reason"] == b"internal"
    assert b"a rule of ours" in letter["detail"]
    row = world.account_row()
    assert row is not None
    assert row.trading.state == "halted"
    assert "a rule of ours" in row.trading.cause
    assert decisions(world) == [("refused", "internal"), ("accepted", None)]
    assert [refused["detail"] for refused in world.published("refused/1")] == ["RuntimeError: a rule of ours"]
    assert (len(world.acked), world.failures) == (2, [])
