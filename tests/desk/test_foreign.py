"""What somebody else's connector reports of our orders, and what it is answered."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streamapp import topics
from streamapp.domain.fold import is_foreign
from streamapp.domain.identifiers import order_id_for, partition_of
from streamapp.domain.positions import symbol_position_id
from streamapp.messages.fact import FactMessage
from streamapp.settings import AccountSettings, Settings
from tests.kit.desk import ACCOUNT, NOW, DeskWorld
from tests.kit.records import PARTITIONS

ORDER = order_id_for("test", ACCOUNT, "s-1")
ELSEWHERE = order_id_for("test", "demo-1", "s-1")
FILL = {"order_id": ORDER, "fill_id": "x-1", "volume": "0.5", "price": "1.1"}


async def a_world(*, side: str | None = "buy") -> DeskWorld:
    """Return the world of an execution service, with an order of one lot that was handed over; none without a side."""
    world = DeskWorld(Settings(role="execution", deployment="test", accounts={ACCOUNT: AccountSettings(login=1)}))
    await world.start()
    if side is not None:
        assert await world.signal(volume="1", side=side) == ORDER
        world.outlet.stored.clear()
    return world


async def fill(world: DeskWorld, more: dict[str, Any] | None = None, **where: Any) -> None:
    await world.give(json.dumps(FILL | (more or {})).encode(), topics.BROKER_REPORTS, "fill", **where)
    await world.settled()


def foreign_facts(world: DeskWorld) -> list[FactMessage]:
    return [fact for commit in world.commits for fact in commit.facts if is_foreign(fact)]


async def test_a_foreign_fill_needs_only_an_order_an_id_a_volume_and_a_price() -> None:
    world = await a_world(side="sell")
    # The mirror writes an order's report without an account to the partition that the order id leads to.
    await fill(world, account=ORDER, partition=partition_of(ACCOUNT, PARTITIONS))
    (fact,) = foreign_facts(world)
    body: Any = fact.body
    assert (fact.account, body.symbol, body.side, str(body.volume)) == (ACCOUNT, "EURUSD", "sell", "0.5")
    assert body.position_id == symbol_position_id(ACCOUNT, "EURUSD")
    assert body.deal >= 2**51
    assert str(world.order_row(ORDER).state.filled) == "0.5"
    row = world.account_row()
    assert row is not None
    assert (row.epoch, row.watermark) == ("", 0)  # no report of a terminal of ours: there is no watermark to move


async def test_what_a_foreign_connector_said_is_archived_but_not_published_again() -> None:
    world = await a_world()
    await fill(world)
    assert [fill["fill_id"] for fill in world.archived("fill/1")] == [f"{ACCOUNT}:{foreign_facts(world)[0].body.deal}"]  # type: ignore[union-attr]
    assert world.subjects == ["orders.partially_filled.EURUSD", "positions.EURUSD"]


@pytest.mark.parametrize(
    ("more", "fact_id"),
    [
        ({"deal": 12}, f"{ACCOUNT}:deal:12"),
        ({"fill_id": f"{ACCOUNT}:13"}, f"{ACCOUNT}:deal:13"),
        ({"deal": 14, "revision": 2}, f"{ACCOUNT}:deal:14:corrected:2"),
    ],
)
@pytest.mark.parametrize("is_reborn", [False, True])
async def test_a_foreign_fill_is_known_by_its_deal(more: dict[str, Any], fact_id: str, is_reborn: bool) -> None:
    world = await a_world()
    await fill(world, more)
    stored, row = list(world.outlet.stored), world.order_row(ORDER)
    if is_reborn:
        await world.restart()
    commits = len(world.store.commits)
    await fill(world, more)
    assert {fact.fact_id for fact in foreign_facts(world)} == {fact_id}
    assert (len(world.store.commits), world.outlet.stored, world.order_row(ORDER)) == (commits, stored, row)
    assert len(world.acked) == 3


async def test_a_fill_of_an_order_not_yet_known_carries_what_is_there_and_is_published_when_the_order_comes() -> None:
    world = await a_world(side=None)
    await fill(world, {"account": ACCOUNT, "symbol": "EURUSD", "side": "buy"})
    assert [fact.order_id for fact in foreign_facts(world)] == [ORDER]
    assert world.archived("order/1") == []
    await world.restart()
    await world.signal(volume="1")
    revisions = [(each["rev"], each["status"], each["filled_volume"]) for each in world.archived("order/1")]
    assert revisions == [
        (1, "partially_filled", "0.5"),
        (2, "partially_filled", "0.5"),
        (3, "partially_filled", "0.5"),
    ]


@pytest.mark.parametrize(
    ("said", "fact", "word"),
    [
        ({"kind": "rejected", "final": True, "retcode": 10019}, "BrokerRejected", "rejected"),
        ({"kind": "invalid", "final": True}, "SubmitRefused", "invalid"),
        ({"kind": "not_connected", "final": True}, "SubmitRefused", "not_connected"),
        ({"kind": "cancelled", "final": True}, "BrokerCancelled", "broker"),
        ({"kind": "expired", "final": True}, "BrokerExpired", '"ticket":0'),
        ({"kind": "timeout", "final": True}, "OutcomeUnknown", "foreign_timeout"),
        ({"kind": "in_doubt"}, "OutcomeUnknown", "foreign_timeout"),
    ],
)
async def test_a_foreign_error_ends_an_order_or_is_a_doubt(said: dict[str, Any], fact: str, word: str) -> None:
    world = await a_world()
    await world.foreign("error", order_id=ORDER, **said)
    (made,) = foreign_facts(world)
    assert made.fact == fact
    assert word in made.body.model_dump_json()
    is_over = world.order_row(ORDER).status in {"rejected", "failed", "cancelled"}
    assert is_over == (fact != "OutcomeUnknown")


@pytest.mark.parametrize("said", [{"kind": "rejected"}, {"kind": "disconnected", "final": True}])
async def test_a_foreign_error_that_decides_nothing_is_archived_and_not_published(said: dict[str, Any]) -> None:
    world = await a_world()
    await world.foreign("error", order_id=ORDER, **said)
    (told,) = world.archived("error/1")
    assert (told["kind"], told["symbol"], told["final"], told["executor"]) == (said["kind"], "EURUSD", False, "foreign")
    assert (foreign_facts(world), world.subjects) == ([], [])


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"{", b"not_json"),
        ({"order_id": ORDER, "fill_id": "x", "volume": "-1", "price": "1"}, b"invalid"),
        (FILL | {"fill_id": None}, b"no_fill_id"),
        (FILL | {"volume": "1e20"}, b"out_of_range"),
        (FILL | {"price": "1e20"}, b"out_of_range"),
        (FILL | {"volume": "1_0"}, b"invalid"),
        (FILL | {"side": "up"}, b"invalid"),
        (FILL | {"deal": "1_0"}, b"invalid"),
        (FILL | {"account": "somebody"}, b"wrong_account"),
        (FILL | {"order_id": "unknown"}, b"unknown_order"),
        (FILL | {"order_id": "unknown", "account": ACCOUNT}, b"unknown_order"),
        (FILL | {"order_id": ELSEWHERE, "account": ACCOUNT}, b"wrong_account"),
    ],
)
async def test_a_foreign_fill_nobody_can_use_is_a_dead_letter_and_answered(payload: Any, reason: bytes) -> None:
    world = await a_world()
    value = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    await world.give(value, topics.BROKER_REPORTS, "fill")
    await fill(world)
    assert [letter["reason"] for letter in world.dead_letters()] == [reason]
    assert len(foreign_facts(world)) == 1
    (told,) = world.published("error/1")
    assert (told["kind"], told["final"], told["at"]) == ("invalid", False, "2026-11-20T12:00:00.000000Z")
    assert world.subjects[0].startswith("broker.error.")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("commission", "free"),
        ("swap", "1_0"),
        ("profit", "-1e20"),
        ("fee", []),
        ("currency", 5),
        ("reason", "robot"),
        ("at", "yesterday"),
        ("ticket", "none"),
    ],
)
async def test_no_executed_volume_is_lost_for_a_field_beside_it(field: str, value: Any) -> None:
    world = await a_world()
    await fill(world, {field: value})
    assert str(world.order_row(ORDER).state.filled) == "0.5"
    assert [letter["reason"] for letter in world.dead_letters()] == [b"invalid"]
    (told,) = world.published("error/1")
    assert (told["order_id"], told["kind"], told["final"]) == (ORDER, "invalid", False)
    assert told["message"].startswith(f"invalid: {field}: ")
    assert told["message"].endswith(f"; booked without {field}")


async def test_a_fill_is_read_as_its_connector_writes_it() -> None:
    world = await a_world()
    odd = {"fill_id": 77, "price": 1.0947000000000002, "side": "BUY", "entry": "In", "commission": None, "at": ""}
    await fill(world, odd | {"ticket": None, "deal": None, "currency": "", "account": None})
    (fact,) = foreign_facts(world)
    body: Any = fact.body
    assert (body.deal, str(body.price), body.side, body.entry, body.commission) == (77, "1.0947", "buy", "in", 0)
    assert world.dead_letters() == []


async def test_an_error_is_read_as_its_connector_writes_it() -> None:
    world = await a_world()
    await world.foreign("error", order_id=ORDER, kind="Rejected", final=True, retcode=None, message=None, attempt=None)
    assert world.order_row(ORDER).status == "rejected"


async def test_an_answer_that_is_given_again_is_the_same_to_the_byte() -> None:
    world = await a_world()
    for _ in range(2):
        await world.give(b"{", topics.BROKER_REPORTS, "fill", sequence=7, at=NOW)
        await world.settled()
        world.later(60)
    one, other = (each for commit in world.commits for each in commit.messages if each.message["schema"] == "error/1")
    assert one == other


async def test_an_order_without_an_account_that_nobody_knows_is_answered_too() -> None:
    world = await a_world(side=None)
    await world.foreign("error", account="unknown", order_id="unknown", kind="timeout")
    assert [letter["reason"] for letter in world.dead_letters()] == [b"unknown_order"]
    assert [told["order_id"] for told in world.published("error/1")] == ["unknown"]
