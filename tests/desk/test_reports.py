"""What terminals report: facts, the watermark and the acknowledgement, whatever dies in between."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

import pytest

from agents.broker import GREETING_S, REPLAY_PAUSE_S
from streamapp import topics
from streamapp.desk.effects import AckReports
from streamapp.domain import facts
from streamapp.domain.identifiers import order_id_for, partition_of
from streamapp.errors import Ambiguous, Definite, Transient
from streamapp.messages.account import AccountMessage
from streamapp.messages.report import REPORT_BODIES, ConnectionChange
from streamapp.messages.terminal import AckReply, AckRequest, ReplayReply, ReplayRequest
from tables.accounts import account_key
from tables.orders import order_key
from tables.positions import position_key
from tests.kit.desk import ACCOUNT, NOW, DeskWorld
from tests.kit.examples import accepted, cancelled, created, deal, operation, returned, started
from tests.kit.records import PARTITIONS
from tests.kit.terminals import ScriptedTerminals

ORDER = order_id_for("streamapp", ACCOUNT, "s-1")
KINDS = {body: kind for kind, body in REPORT_BODIES.items()}
Said = tuple[str, str | None, Any]


def said(body: Any, order_id: str | None = ORDER) -> Said:
    return KINDS[type(body)], order_id, body


def ticket(number: int) -> Said:
    return said(facts.BrokerAccepted(ticket=number))


def connection(word: str, **more: Any) -> Said:
    return said(ConnectionChange(connection=word, **more), None)


async def a_world() -> DeskWorld:
    return await DeskWorld().start()


def watermark(world: DeskWorld) -> tuple[str, int] | None:
    row = world.account_row()
    return None if row is None else (row.epoch, row.watermark)


def acks(world: DeskWorld) -> list[tuple[str, int]]:
    return [(ack.epoch, ack.watermark) for ack in world.terminals.acks]


def replays(world: DeskWorld) -> list[tuple[str, int]]:
    return [(asked.epoch, asked.after_seq) for asked in world.terminals.replays]


# --- facts, watermark, acknowledgement


async def test_what_was_done_to_an_order_and_an_order_that_closes_become_facts() -> None:
    world = await a_world()
    bodies: list[Any] = [
        created("1").body,
        facts.CancelRequested(request_id="r-1", issued_by="trader"),
        facts.CancelRejected(request_id="r-1", message="frozen"),
        facts.ModifyRequested(request_id="r-2", changes={"price": "1.07"}),
        facts.Modified(request_id="r-2", changes={"price": "1.07000", "stop_loss": None}),
        facts.ModifyRejected(request_id="r-3"),
    ]
    await world.report(*map(said, bodies))
    (commit,) = world.commits
    assert [fact.fact_id for fact in commit.facts] == [
        f"{ORDER}:created",
        f"{ORDER}:CancelRequested:r-1",
        f"{ORDER}:CancelRejected:r-1",
        f"{ORDER}:ModifyRequested:r-2",
        f"{ORDER}:Modified:r-2",
        f"{ORDER}:ModifyRejected:r-3",
    ]
    assert [fact.body for fact in commit.facts] == bodies
    assert (world.dead_letters(), watermark(world)) == ([], ("e1", 6))


async def test_the_facts_of_a_batch_its_rows_and_the_watermark_are_one_commit_and_then_comes_the_ack() -> None:
    world = await a_world()
    await world.report(ticket(1), said(deal(9, "0.1")), said(deal(10, "0.1", position_id=8), None))
    ((_, rows),) = world.store.commits
    assert set(rows) == {
        order_key(ORDER),
        position_key(ACCOUNT, 7),
        position_key(ACCOUNT, 8),
        account_key(ACCOUNT),
    }
    (commit,) = world.commits
    assert [(fact.fact_id, fact.order_id, fact.causation_id) for fact in commit.facts] == [
        (f"{ORDER}:BrokerAccepted:1", ORDER, f"report:{ACCOUNT}:e1:1"),
        (f"{ACCOUNT}:deal:9", ORDER, f"report:{ACCOUNT}:e1:2"),
        (f"{ACCOUNT}:deal:10", None, f"report:{ACCOUNT}:e1:3"),
    ]
    assert (watermark(world), acks(world)) == (("e1", 3), [("e1", 3)])


async def test_money_without_a_trade_is_told_once_whatever_is_redelivered() -> None:
    world = await a_world()
    batch = (said(operation(5, position_id=None), None), said(operation(6), None), said(deal(9, "0.1"), None))
    for _ in range(2):
        await world.report(*batch)
        await world.restart()
    # A commit may be said again after a death; no other one has anything.
    assert {commit.number for commit in world.commits if commit.facts or commit.messages} == {1}
    assert [fact.fact_id for fact in world.commits[0].facts] == [
        f"{ACCOUNT}:operation:5",
        f"{ACCOUNT}:operation:6",
        f"{ACCOUNT}:deal:9",
    ]
    assert [message["deal"] for message in world.published("account_operation/1")] == [5, 6]
    assert watermark(world) == ("e1", 3)


async def test_money_that_a_new_journal_reports_again_is_said_under_its_id_and_counts_once() -> None:
    world = await a_world()
    batch = (said(operation(5, position_id=None), None), said(operation(6), None), said(deal(9, "0.1"), None))
    await world.report(*batch)
    await world.report(*batch, epoch="e2")
    assert [message["deal"] for message in world.archived("account_operation/1")] == [5, 6, 5]
    assert [message["deal"] for message in world.published("account_operation/1")] == [5, 6]
    row = world.position_row(7)
    assert row is not None
    assert (str(row.state.realized_profit), row.rev) == ("-3.5", 2)


async def test_money_without_a_trade_is_no_orders() -> None:
    world = await a_world()
    await world.report(said(operation(5)), said(operation(6), None))
    (letter,) = world.dead_letters()
    assert letter["reason"] == b"invalid"
    assert b"expected null for account_operation" in letter["detail"]
    assert (world.facts(), watermark(world)) == (["AccountOperation"], ("e1", 2))


@pytest.mark.parametrize("error", [Definite("no Kafka"), Ambiguous("no acknowledgement")])
async def test_without_a_durable_commit_there_is_neither_fact_nor_watermark_nor_ack(error: Exception) -> None:
    world = await a_world()
    world.store.refuse = error
    await world.report(ticket(1))
    assert world.failures == [error]
    assert (world.commits, world.effects, watermark(world), world.acked) == ([], [], None, [])
    world.store.refuse = None
    await world.restart()
    await world.report(ticket(1))
    assert (world.facts(), watermark(world), acks(world)) == (["BrokerAccepted"], ("e1", 1), [("e1", 1)])


async def test_a_batch_that_was_committed_before_a_death_is_published_and_acknowledged_by_the_next_life() -> None:
    world, witness = await a_world(), await a_world()
    batch = (said(created("1").body), ticket(7), said(deal(9, "1")))
    await witness.report(*batch)
    world.outlet.refuse = Transient("NATS is away")
    world.producer.silent = True
    world.terminals.silent = True
    await world.report(*batch)
    assert (world.outlet.stored, world.commits, acks(world)) == ([], [], [])
    world.outlet.refuse, world.producer.silent, world.terminals.silent = None, False, False
    await world.restart()
    await world.report(*batch)
    assert world.outlet.stored == witness.outlet.stored
    assert [record.value for record in world.producer.on(topics.ARCHIVE)] == [
        record.value for record in witness.producer.on(topics.ARCHIVE)
    ]
    assert (watermark(world), set(acks(world))) == (("e1", 3), {("e1", 3)})


@pytest.mark.parametrize("is_reborn", [False, True])
async def test_a_report_that_comes_again_adds_nothing_and_is_acknowledged_again(is_reborn: bool) -> None:
    world = await a_world()
    batch = (
        said(created("1").body),
        ticket(7),
        said(deal(9, "1")),
        said(deal(10, "0.3", side="sell"), None),
        said(facts.FillBusted(deal=10, revision=1, was=deal(10, "0.3", side="sell")), None),
        connection("ready"),
    )
    await world.report(*batch)
    commits, stored, seen = len(world.store.commits), list(world.outlet.stored), world.commits
    if is_reborn:
        await world.restart()
        seen = world.commits  # the new life repeats its last commit, under the same number
    await world.report(*batch)
    assert (len(world.store.commits), world.outlet.stored, world.commits) == (commits, stored, seen)
    assert acks(world)[-1] == ("e1", 6)
    assert len(world.acked) == 2


async def test_batches_that_overlap_add_each_report_once() -> None:
    world = await a_world()
    await world.report(ticket(1), ticket(2))
    await world.report(ticket(2), ticket(3), first_seq=2)
    await world.report(ticket(1), ticket(2), ticket(3), ticket(4))
    assert world.facts() == ["BrokerAccepted"] * 4
    assert world.order_row(ORDER).state.accepted_tickets == [1, 2, 3, 4]
    assert watermark(world) == ("e1", 4)


# --- gaps and replays


async def test_a_report_beyond_a_gap_is_used_at_once_and_the_gap_is_asked_for() -> None:
    world = await a_world()
    world.terminals.last_seq = 4
    await world.report(ticket(1))
    assert replays(world) == []
    await world.report(ticket(3), first_seq=3)
    assert len(world.facts()) == 2
    assert watermark(world) == ("e1", 1)
    assert replays(world) == [("e1", 1)]
    assert world.effects[-1] == AckReports(ACCOUNT, "e1", 1, is_missing=True)
    await world.report(ticket(2), ticket(3), ticket(4), first_seq=2)
    assert watermark(world) == ("e1", 4)
    assert world.effects[-1] == AckReports(ACCOUNT, "e1", 4)


async def test_a_gap_that_fills_moves_the_watermark_over_what_was_beyond_it() -> None:
    world = await a_world()
    await world.report(ticket(1), ticket(2))
    await world.report(ticket(4), ticket(5), first_seq=4)
    await world.report(ticket(3), first_seq=3)
    assert (watermark(world), len(world.facts())) == (("e1", 5), 5)


async def test_replays_are_not_asked_for_again_while_one_is_on_its_way() -> None:
    world = await a_world()
    world.terminals.last_seq = 9
    await world.report(ticket(5), first_seq=5)
    await world.report(ticket(6), first_seq=6)
    assert len(world.terminals.replays) == 1
    world.later(REPLAY_PAUSE_S)
    await world.report(ticket(7), first_seq=7)
    assert replays(world) == [("e1", 0), ("e1", 0)]
    assert len({asked.replay_id for asked in world.terminals.replays}) == 2


async def test_what_was_beyond_a_gap_is_forgotten_by_a_restart_and_comes_again() -> None:
    world = await a_world()
    world.terminals.last_seq = 3
    await world.report(ticket(1))
    await world.report(ticket(3), first_seq=3)
    await world.restart()
    assert replays(world)[-1] == ("e1", 1)
    await world.report(ticket(2), first_seq=2)
    assert watermark(world) == ("e1", 2)
    await world.report(ticket(3), first_seq=3)
    assert (watermark(world), len(world.facts())) == (("e1", 3), 3)


async def test_a_new_journal_begins_anew_and_the_old_ones_reports_are_still_facts() -> None:
    world = await a_world()
    await world.report(ticket(1), ticket(2))
    await world.report(ticket(3), epoch="e2")
    assert watermark(world) == ("e2", 1)
    assert world.order_row(ORDER).journal_epoch == "e2"
    await world.restart()
    await world.report(ticket(4), first_seq=3)
    assert watermark(world) == ("e2", 1)
    assert (len(world.facts()), world.order_row(ORDER).journal_epoch) == (4, "e2")


async def test_two_hellos_find_a_lost_last_report_and_leave_a_busy_terminal_alone() -> None:
    world = await a_world()
    world.terminals.last_seq = 2
    await world.report(ticket(1))
    world.later(GREETING_S)
    await world.tick()  # the watermark moved since the last hello
    assert replays(world) == []
    world.later(GREETING_S)
    await world.tick()
    assert replays(world) == [("e1", 1)]


async def test_a_start_asks_for_everything_beyond_the_watermark_and_for_all_of_another_journal() -> None:
    world = await a_world()
    await world.report(ticket(1))
    world.terminals.last_seq = 2
    await world.restart()
    await world.broker.settled()
    world.terminals.epoch = "e2"
    await world.restart()
    await world.broker.settled()
    assert replays(world) == [("e1", 1), ("e2", 0)]


async def test_a_terminal_that_did_not_hear_the_watermark_is_told_it_with_the_next_hello() -> None:
    world = await a_world()
    world.terminals.silent = True
    world.terminals.last_seq = 1
    await world.report(ticket(1))
    world.terminals.silent = False
    world.later(GREETING_S)
    await world.tick()
    assert acks(world) == [("e1", 1)]


async def test_a_silent_terminal_may_be_asked_again_at_once() -> None:
    world = await a_world()
    world.terminals.last_seq = 3
    world.terminals.silent = True
    await world.report(ticket(2), first_seq=2)
    assert replays(world) == []
    world.terminals.silent = False
    await world.report(ticket(3), first_seq=3)
    assert replays(world) == [("e1", 0)]


async def test_a_silent_replay_is_no_error() -> None:
    class Mute(ScriptedTerminals):
        async def replay(self, account: str, request: ReplayRequest, *, timeout_s: float) -> ReplayReply | None:
            await super().replay(account, request, timeout_s=timeout_s)
            return None

    world = DeskWorld()
    world.terminals = Mute(world.clock)
    world.terminals.last_seq = 5
    await world.restart()
    await world.settled()
    assert (replays(world), world.failures) == ([("e1", 0)], [])


# --- acknowledgements beside the lane


class Stuck(ScriptedTerminals):
    """A terminal whose answers to acks wait for ``free``."""

    free: asyncio.Event

    async def ack(self, account: str, request: AckRequest, *, timeout_s: float) -> AckReply | None:
        await self.free.wait()
        return await super().ack(account, request, timeout_s=timeout_s)


async def a_stuck_world() -> tuple[DeskWorld, Stuck]:
    world = DeskWorld()
    stuck = Stuck(world.clock)
    stuck.free = asyncio.Event()
    world.terminals = stuck
    await world.restart()
    return world, stuck


async def test_a_hung_terminal_delays_no_report_and_acks_are_coalesced_to_the_newest() -> None:
    world, stuck = await a_stuck_world()
    for seq in range(1, 5):
        await world.give(batch(ticket(seq), first_seq=seq), topics.BROKER_REPORTS, "reports")
        await world.desk.drain()
    assert watermark(world) == ("e1", 4)
    stuck.free.set()
    await world.settled()
    assert acks(world) == [("e1", 1), ("e1", 4)]


async def test_closing_lets_go_of_a_terminal_that_never_answers() -> None:
    world, _ = await a_stuck_world()
    await world.give(batch(ticket(1)), topics.BROKER_REPORTS, "reports")
    await world.desk.drain()
    await asyncio.sleep(0)
    await world.broker.close()
    assert (acks(world), world.failures) == ([], [])


def batch(*reports: Said, first_seq: int = 1) -> bytes:
    return encoded([report_of(seq, *each) for seq, each in enumerate(reports, first_seq)], first_seq)


def report_of(seq: int, kind: str, order_id: str | None, body: Any) -> dict[str, Any]:
    content = json.loads(body.model_dump_json())
    return {"seq": seq, "at": NOW.isoformat(), "kind": kind, "order_id": order_id, "body": content}


def encoded(reports: list[Any], first_seq: int = 1, **more: Any) -> bytes:
    place = {"schema": "reports/1", "account": ACCOUNT, "epoch": "e1", "first_seq": first_seq}
    return json.dumps(place | {"reports": reports} | more).encode()


# --- what can't be used


async def test_a_broken_report_is_a_dead_letter_and_the_watermark_passes_it() -> None:
    world = await a_world()
    reports = [
        report_of(1, *ticket(1)),
        {"seq": 2, "kind": "nonsense"},
        report_of(3, *said(facts.BrokerAccepted(ticket=3), None)),
        report_of(4, *ticket(4)),
    ]
    await world.give(encoded(reports), topics.BROKER_REPORTS, "reports")
    await world.settled()
    assert len(world.facts()) == 2
    assert [letter["reason"] for letter in world.dead_letters()] == [b"invalid", b"no_order"]
    assert watermark(world) == ("e1", 4)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"[1]", b"invalid"),
        (b"{", b"not_json"),
        (encoded([report_of(1, *ticket(1))], account="other"), b"wrong_key"),
        (encoded([report_of(1, *ticket(1))], first_seq=0), b"invalid"),
        (encoded([]), b"invalid"),
    ],
)
async def test_a_batch_whose_place_is_wrong_is_a_dead_letter_and_the_next_is_used(
    payload: bytes, reason: bytes
) -> None:
    world = await a_world()
    await world.give(payload, topics.BROKER_REPORTS, "reports")
    await world.report(ticket(1))
    assert [letter["reason"] for letter in world.dead_letters()] == [reason]
    assert (world.facts(), watermark(world)) == (["BrokerAccepted"], ("e1", 1))


async def test_an_order_of_another_account_is_not_touched() -> None:
    world = await a_world()
    neighbour = next(
        name
        for name in map("b{}".format, range(100))
        if partition_of(name, PARTITIONS) == partition_of(ACCOUNT, PARTITIONS)
    )
    await world.report(said(created("1").body, "o-9"), account=neighbour)
    before = world.order_row("o-9", neighbour)
    await world.report(said(deal(1, "0.5"), "o-9"), ticket(7))
    assert [letter["reason"] for letter in world.dead_letters()] == [b"wrong_account"]
    assert (world.order_row("o-9", neighbour), watermark(world)) == (before, ("e1", 2))


# --- connections


def ready(**more: Any) -> AccountMessage:
    return AccountMessage(account=ACCOUNT, connection="ready", balance=Decimal("5.00"), at=NOW, **more)


async def test_a_change_of_connection_is_published_with_the_money_last_known() -> None:
    world = await a_world()
    await world.snapshot(ready())
    await world.restart()
    await world.report(connection("disconnected", detail="no route"))
    subject, told, headers = world.outlet.stored[-1]
    assert (told["connection"], told["detail"], told["trading"], told["balance"]) == (
        "disconnected",
        "no route",
        "not_ready",
        "5.00",
    )
    assert (subject, headers["Nats-Msg-Id"]) == (f"accounts.{ACCOUNT}", f"streamapp:account:{ACCOUNT}:e1:1")
    assert watermark(world) == ("e1", 1)


async def test_a_snapshot_after_a_change_of_connection_is_published_although_it_equals_the_one_before() -> None:
    world = await a_world()
    await world.snapshot(ready())
    world.later(1)
    await world.report(connection("disconnected"))
    world.later(1)
    await world.snapshot(ready())
    assert [told["connection"] for told in world.published("account/1")] == ["ready", "disconnected", "ready"]


async def test_a_late_snapshot_does_not_take_back_a_change_of_connection() -> None:
    world = await a_world()
    await world.snapshot(ready())
    world.later(2)
    await world.report(connection("disconnected"))
    world.later(-1)
    await world.snapshot(ready(detail="late"))
    assert [told["connection"] for told in world.published("account/1")] == ["ready", "disconnected"]
    assert world.desk.states()[ACCOUNT].connection == "disconnected"


async def test_a_connection_reported_again_is_not_published_again_whatever_the_money_is_by_then() -> None:
    world = await a_world()
    await world.report(connection("disconnected"))
    await world.report(connection("ready"), first_seq=2)
    await world.snapshot(ready())
    world.outlet.stored.clear()  # beyond JetStream's window for duplicates
    await world.report(connection("disconnected"), connection("ready"))
    assert world.published("account/1") == []


# --- an order's whole life through the terminal


async def test_reports_move_an_order_of_ours_from_claimed_to_its_end() -> None:
    world = await a_world()
    order_id = await world.signal(volume="1")
    assert world.order_row(order_id).standing == "unanswered"
    await world.report(*(said(each.body, order_id) for each in (started(), returned(), accepted())))
    assert world.order_row(order_id).standing == "recorded"
    await world.report(said(deal(9, "0.4"), order_id), said(cancelled().body, order_id), first_seq=4)
    assert (world.order_row(order_id).status, str(world.order_row(order_id).state.filled)) == ("cancelled", "0.4")
    assert world.subjects == [
        "signals.accepted.EURUSD",
        "orders.pending.EURUSD",
        "orders.submitted.EURUSD",
        "orders.partially_filled.EURUSD",
        "broker.fill.EURUSD",
        "positions.EURUSD",
        "orders.cancelled.EURUSD",
    ]


async def test_more_executed_than_asked_for_halts_the_account_until_it_is_taken_back_also_for_the_next_life() -> None:
    world = await a_world()
    order_id = await world.signal(volume="1")
    await world.report(said(accepted().body, order_id), said(deal(9, "1"), order_id), said(deal(10, "1"), order_id))
    for number in (2, 3):
        await world.signal(f"s-{number}")
        assert [refused["reason"] for refused in world.published("refused/1")] == ["halted"] * (number - 1)
        await world.restart()
    await world.report(said(facts.FillBusted(deal=10, revision=1), order_id), first_seq=4)
    await world.signal("s-4")
    assert world.order_row(order_id_for("streamapp", ACCOUNT, "s-4")).standing == "unanswered"
