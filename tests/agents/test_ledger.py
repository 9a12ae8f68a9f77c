from __future__ import annotations

import json
import random
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.ledger import Ledger
from agents.updates import current_order
from streamapp import topics
from streamapp.domain import facts
from streamapp.domain.facts import Fact
from streamapp.kafka.memory import MemoryProducer
from streamapp.messages.error import ErrorMessage
from streamapp.messages.fact import FactMessage
from streamapp.messages.fill import FillMessage
from streamapp.messages.order import OrderMessage
from streamapp.messages.position import PositionMessage
from streamapp.metrics import TradingMetrics
from streamapp.settings import Settings
from tables.durable import DurableTable
from tables.memory import memory_table
from tables.orders import OrderIndex, OrderRow, order_key
from tables.positions import PositionRow, position_key
from tests.agents.records import event
from tests.domain.examples import (
    ACCOUNT,
    ORDER,
    absent,
    accepted,
    busted,
    cancelled,
    claimed,
    corrected,
    created,
    deal,
    doubt,
    expired,
    fact_sets,
    filled,
    refused,
    rejected,
    returned,
    says,
    started,
)

LIFE = [created("1", expected="1.085"), claimed(), started(), returned(), accepted(), filled(9, "1")]


class World:
    """A ledger on memory, whose process can die and start again on what is durable."""

    def __init__(self, role: str = "both") -> None:
        self.settings = Settings(role=role, deployment="test")
        self.orders, self.order_log = memory_table("orders", OrderRow)
        self.positions, self.position_log = memory_table("positions", PositionRow)
        self.metrics = TradingMetrics()
        self.producer = MemoryProducer()
        self.restart()

    def restart(self) -> None:
        """Forget everything but the tables' logs."""
        self.orders = DurableTable(self.order_log, OrderRow)
        self.positions = DurableTable(self.position_log, PositionRow)
        self.producer = MemoryProducer()
        self.ledger = Ledger(self.orders, self.positions, self.producer, self.settings, self.metrics)
        for log in (self.order_log, self.position_log):
            log.recover()

    def restart_on(self, producer: MemoryProducer) -> None:
        """The same, but what was sent is remembered."""
        self.restart()
        self.producer = producer
        self.ledger._producer = producer

    async def fold(self, *several: Fact) -> list[Any]:
        """Hand facts over as one group; return what was told about them."""
        before = len(self.told)
        await self.ledger.handle([recorded(fact) for fact in several])
        return self.told[before:]

    @property
    def told(self) -> list[Any]:
        return [message(record.value) for record in self.producer.on(topics.UPDATES)]

    @property
    def published(self) -> list[str]:
        """The subjects of what publisher would publish."""
        headers = [record.headers for record in self.producer.on(topics.UPDATES)]
        return [one[topics.PUBLISH_SUBJECT].decode() for one in headers if topics.PUBLISH_SUBJECT in one]

    @property
    def row(self) -> OrderRow:
        row = self.orders.get(order_key(ORDER), partition=0)
        assert row is not None
        return row

    @property
    def position(self) -> PositionRow:
        row = self.positions.get(position_key(ACCOUNT, 7), partition=0)
        assert row is not None
        return row

    def alarms(self, name: str) -> float:
        return float(self.metrics.alarms.labels(name)._value.get())


def recorded(fact: Fact) -> Any:
    return event(FactMessage.of(fact).encode(), account=fact.account, topic=topics.ARCHIVE, partition=0)


def message(value: bytes) -> Any:
    models: dict[str, Any] = {
        "order/1": OrderMessage,
        "fill/1": FillMessage,
        "error/1": ErrorMessage,
        "position/1": PositionMessage,
    }
    return models[json.loads(value)["schema"]].decode(value)


def orders_in(told: list[Any]) -> list[tuple[int, str, str]]:
    return [(one.rev, one.status, one.detail) for one in told if isinstance(one, OrderMessage)]


async def test_each_fact_is_a_revision_and_news_alone_is_published() -> None:
    world = World()
    told = []
    for fact in LIFE:
        told += await world.fold(fact)
    assert orders_in(told) == [
        (1, "pending", "created"),
        (2, "submitted", "claimed"),
        (3, "submitted", "in_flight"),
        (4, "submitted", "in_flight"),
        (5, "submitted", "working"),
        (6, "filled", ""),
    ]
    assert world.published == [
        "orders.pending.EURUSD",
        "orders.submitted.EURUSD",
        "orders.filled.EURUSD",
        "broker.fill.EURUSD",
        "positions.EURUSD",
    ]
    ids = [record.headers.get(topics.PUBLISH_ID) for record in world.producer.on(topics.UPDATES)]
    assert [one for one in ids if one] == [
        f"test:order:{ORDER}:1".encode(),
        f"test:order:{ORDER}:2".encode(),
        f"test:order:{ORDER}:6".encode(),
        f"test:fill:{ACCOUNT}:9:0".encode(),
        f"test:position:{ACCOUNT}:7:1".encode(),
    ]


async def test_new_values_are_published_and_a_request_that_changed_nothing_is_not() -> None:
    world = World()
    asked, taken = {"price": "1.07", "stop_loss": "0"}, {"price": "1.07000", "stop_loss": None}
    limit: dict[str, Any] = {"order_type": "limit", "price": "1.08", "stop_loss": "1.05", "take_profit": "1.2"}
    told = await world.fold(
        created("1", **limit), claimed(), started(), returned(), accepted(),
        says(facts.ModifyRequested(request_id="r-1", changes=asked), 4),
        says(facts.Modified(request_id="r-1", changes=taken), 5),
        says(facts.ModifyRequested(request_id="r-2", changes={"price": "9"}), 6),
        says(facts.ModifyRejected(request_id="r-2", message="invalid_price"), 7),
        says(facts.CancelRequested(request_id="r-3"), 8),
        cancelled(reason="user", seconds=9),
    )  # fmt: skip
    revisions = [one for one in told if isinstance(one, OrderMessage)]
    assert [one.detail for one in revisions[4:]] == [
        "working",
        "modify_pending",
        "working",
        "modify_pending",
        "working",
        "cancel_pending",
        "user",
    ]
    now = revisions[-1]
    assert (now.status, now.price, now.stop_loss, now.take_profit) == (
        "cancelled",
        Decimal("1.07"),
        None,
        Decimal("1.2"),
    )
    assert [subject.split(".")[1] for subject in world.published] == ["pending", "submitted", "submitted", "cancelled"]


async def test_an_order_that_closes_fills_by_its_own_ticket_and_leaves_the_one_that_opened() -> None:
    world = World()
    await world.fold(*LIFE)
    closing = "a" * 8 + "-0000-8000-8000-000000000000"
    body = created("1").body
    assert isinstance(body, facts.OrderCreated)
    body = body.model_copy(update={"signal_id": "close:r-1", "expected_price": None})
    out = deal(10, "1", ticket=8, side="sell", entry="out")
    several = (body, started().body, returned().body, facts.BrokerAccepted(ticket=8), out)
    told = await world.fold(*(says(said, 10 + second, order_id=closing) for second, said in enumerate(several)))
    revisions = [one for one in told if isinstance(one, OrderMessage)]
    assert [one.status for one in revisions] == ["pending", "submitted", "submitted", "submitted", "filled"]
    assert (revisions[-1].order_id, revisions[-1].signal_id) == (closing, "close:r-1")
    assert world.row.status == "filled"
    assert world.position.state.volume == 0
    assert world.alarms("unexpected_change") == world.alarms("overfilled") == 0


async def test_the_last_revision_says_all_that_is_known() -> None:
    world = World()
    await world.fold(*LIFE)
    last = [one for one in world.told if isinstance(one, OrderMessage)][-1]
    assert (last.filled_volume, last.remaining_volume, last.average_price) == (1, 0, filled().body.price)  # type: ignore[union-attr]
    assert (last.ticket, last.position_id, last.attempt, last.executor) == (7, 7, 1, "streamapp")
    assert (last.expected_price_source, last.causation_id) == ("signal", f"{ACCOUNT}:deal:9")
    assert last.slippage is not None
    assert last.slippage.expected is not None
    assert last.slippage.expected.points == 10
    assert last.quote is not None
    assert last.submitted_at == last.quote.at
    fill = next(one for one in world.told if isinstance(one, FillMessage))
    assert (fill.order_id, fill.signal_id, fill.slippage) == (ORDER, "s-1", last.slippage)


async def test_a_group_is_one_put_a_row_and_the_same_words() -> None:
    one, other = World(), World()
    await one.fold(*LIFE)
    for fact in LIFE:
        await other.fold(fact)
    assert [record.value for record in one.producer.records] == [record.value for record in other.producer.records]
    assert len(one.order_log.appended) == 1
    assert len(other.order_log.appended) == len(LIFE)
    assert (
        one.order_log.appended[-1][2][30:] == other.order_log.appended[-1][2][30:] or one.row.state == other.row.state
    )


@pytest.mark.parametrize("after_restart", [False, True])
async def test_a_redelivered_fact_puts_its_row_again_and_repeats_what_it_made_to_the_byte(after_restart: bool) -> None:
    world = World()
    for fact in LIFE:
        await world.fold(fact)
    first = [(record.value, dict(record.headers)) for record in world.producer.records]
    puts = len(world.order_log.appended)
    if after_restart:
        world.restart()
    before = len(world.producer.records)
    for fact in LIFE:
        await world.fold(fact)
    assert [(record.value, dict(record.headers)) for record in world.producer.records[before:]] == first
    assert len(world.order_log.appended) == puts + len(LIFE)
    assert world.row.rev == len(LIFE)
    assert world.position.rev == 1


async def test_whatever_was_put_but_never_told_is_told_when_it_comes_again() -> None:
    world, witness = World(), World()
    await witness.fold(*LIFE)
    world.producer.refuse = ConnectionError("Kafka went away between put and send")
    with pytest.raises(Exception, match="expected"):
        await world.fold(*LIFE)
    world.restart()
    await world.fold(*LIFE)
    assert [record.value for record in world.producer.records] == [record.value for record in witness.producer.records]


async def test_facts_before_the_creation_are_kept_and_all_told_when_it_comes() -> None:
    world = World()
    assert [
        one for one in await world.fold(claimed(), accepted(), filled(9, "1")) if isinstance(one, OrderMessage)
    ] == []
    assert world.row.symbol is None
    assert [type(one) for one in world.told] == [PositionMessage]
    told = await world.fold(created("1"))
    assert orders_in(told) == [
        (1, "submitted", "claimed"),
        (2, "submitted", "working"),
        (3, "filled", ""),
        (4, "filled", ""),
    ]
    assert [one.deal for one in told if isinstance(one, FillMessage)] == [9]
    assert world.row.symbol == "EURUSD"


async def test_a_group_in_which_the_creation_comes_late_tells_each_revision_once_and_in_order() -> None:
    world = World()
    told = await world.fold(claimed(), created("1"), accepted(), claimed())
    assert [rev for rev, _, _ in orders_in(told)] == [1, 2, 3]


async def test_any_order_of_the_facts_ends_in_the_same_order() -> None:
    digests = set()
    for seed in range(20):
        world = World()
        shuffled = random.Random(seed).sample(LIFE, len(LIFE))
        for fact in shuffled:
            await world.fold(fact)
        last = [one for one in world.told if isinstance(one, OrderMessage)][-1]
        digests.add((last.status, last.filled_volume, last.facts_digest, last.rev, last.updated_at))
    assert len(digests) == 1


async def test_an_order_of_many_deals_keeps_fifty_facts_whole_and_still_knows_them_all() -> None:
    world = World()
    await world.fold(created("100"), claimed(), accepted())
    deals = [filled(number, "0.5") for number in range(100, 220)]
    await world.fold(*deals)
    assert len(world.row.texts) == 50
    assert world.row.rev == 123
    assert world.position.rev == 120
    assert [rev for rev, _, _ in orders_in(world.told)] == list(range(1, 124))
    last = [one for one in world.told if isinstance(one, OrderMessage)][-1]
    assert (str(last.filled_volume), last.status) == ("60.0", "partially_filled")
    world.restart()
    told = await world.fold(*deals[-40:])
    assert [rev for rev, _, _ in orders_in(told)] == list(range(84, 124))
    assert orders_in(await world.fold(deals[0])) == []  # told long ago: a later row was put only after that
    assert world.row.rev == 123


async def test_a_deal_that_is_no_orders_of_ours_moves_its_position_and_is_a_fill() -> None:
    world = World()
    told = await world.fold(says(deal(5, "0.3", position_id=7, reason="sl", side="sell"), order_id=None))
    assert [type(one) for one in told] == [FillMessage, PositionMessage]
    assert (told[0].order_id, told[0].reason) == (None, "sl")
    assert (told[1].side, told[1].rev) == ("sell", 1)
    assert world.order_log.appended == []


@pytest.mark.parametrize(
    ("several", "kind", "error_id", "final"),
    [
        ([rejected()], "rejected", "1:rejected", True),
        ([refused(reason="not_connected")], "not_connected", "1:not_connected", True),
        ([refused(reason="stale")], "invalid", "1:invalid", True),
        ([doubt("deadline")], "in_doubt", "1:in_doubt:deadline", False),
        ([absent()], "absent", "1:absent", True),
        ([accepted(7), accepted(8)], "duplicate", "1:duplicate:8", False),
        ([accepted(7), rejected()], "rejected", "1:rejected", False),
    ],
)
async def test_bad_news_is_an_error_with_an_id_of_its_own(
    several: list[Fact], kind: str, error_id: str, final: bool
) -> None:
    world = World()
    told = await world.fold(created(), claimed(), *several)
    errors = [one for one in told if isinstance(one, ErrorMessage)]
    assert [(one.kind, one.error_id, one.final) for one in errors] == [(kind, f"{ORDER}:{error_id}", final)]
    assert "broker.error.EURUSD" in world.published


async def test_a_connector_tells_fills_and_errors_only() -> None:
    world = World("connector")
    told = await world.fold(*LIFE, doubt())
    assert [type(one) for one in told] == [FillMessage, ErrorMessage]
    assert world.published == ["broker.fill.EURUSD", "broker.error.EURUSD"]


@pytest.mark.parametrize(
    ("end", "kind", "message"),
    [(cancelled(reason="ioc_remainder"), "cancelled", "ioc_remainder"), (expired(), "expired", "its time is over")],
)
async def test_a_connector_says_that_the_rest_of_an_order_is_over(end: Fact, kind: str, message: str) -> None:
    world = World("connector")
    told = await world.fold(created("1"), claimed(), accepted(), filled(9, "0.4"), end)
    (error,) = (one for one in told if isinstance(one, ErrorMessage))
    assert (error.kind, error.final) == (kind, True)
    assert message in error.message
    others = World("both")
    told = await others.fold(created("1"), claimed(), accepted(), filled(9, "0.4"), end)
    assert not [one for one in told if isinstance(one, ErrorMessage)]


async def test_what_a_foreign_connector_said_is_told_but_not_published_again() -> None:
    world = World("execution")
    told = await world.fold(created(), claimed(), filled(9, "0.4", ticket=0, cause="foreign:x"))
    assert [one.deal for one in told if isinstance(one, FillMessage)] == [9]
    assert world.published == [
        "orders.pending.EURUSD",
        "orders.submitted.EURUSD",
        "orders.partially_filled.EURUSD",
        "positions.EURUSD",
    ]


async def test_a_busted_deal_leaves_the_order_and_the_position() -> None:
    world = World()
    await world.fold(*LIFE)
    told = await world.fold(busted(9, 1))
    assert orders_in(told) == [(7, "submitted", "working")]
    fill = next(one for one in told if isinstance(one, FillMessage))
    assert (fill.deal, fill.revision, fill.busted, str(fill.volume)) == (9, 1, True, "1")
    assert world.position.state.volume == 0


async def test_a_busted_deal_that_is_no_orders_leaves_its_position() -> None:
    world = World()
    stopped = deal(5, "0.3", position_id=7, reason="sl", side="sell")
    await world.fold(says(stopped, order_id=None))
    told = await world.fold(says(facts.FillBusted(deal=5, revision=1, was=stopped), order_id=None))
    assert [type(one) for one in told] == [FillMessage, PositionMessage]
    assert (told[0].busted, told[0].order_id, told[1].volume) == (True, None, 0)


async def test_a_bust_that_comes_before_its_deal_holds_all_the_same() -> None:
    world = World()
    assert [type(one) for one in await world.fold(created(), busted(9, 1))] == [OrderMessage, OrderMessage]
    await world.fold(accepted(), filled(9, "1"))
    assert world.position.state.volume == 0
    assert world.row.status == "submitted"


async def test_a_bust_and_its_deal_are_told_alike_in_one_group_and_in_two() -> None:
    one, other = World(), World()
    await one.fold(busted(9, 0))
    await one.fold(corrected(9, 1, "0.1"))
    await other.fold(busted(9, 0), corrected(9, 1, "0.1"))
    assert [record.value for record in one.producer.records] == [record.value for record in other.producer.records]


async def test_a_corrected_deal_corrects_order_and_position() -> None:
    world = World()
    await world.fold(*LIFE)
    told = await world.fold(corrected(9, 1, "0.4"))
    assert orders_in(told) == [(7, "partially_filled", "working")]
    assert next(one for one in told if isinstance(one, FillMessage)).revision == 1
    assert str(world.position.state.volume) == "0.4"


@pytest.mark.parametrize(("price", "news"), [("1.08600", True), ("1.08510", False)])
async def test_a_corrected_price_is_news_of_the_order_and_other_corrections_are_the_fills_alone(
    price: str, news: bool
) -> None:
    world = World()
    await world.fold(*LIFE)
    before = len(world.published)
    await world.fold(corrected(9, 1, "1", price=price, commission=Decimal(-1)))
    assert ("orders.filled.EURUSD" in world.published[before:]) == news
    assert "broker.fill.EURUSD" in world.published[before:]


async def test_broken_records_are_dead_letters_and_the_next_fact_is_folded() -> None:
    world = World()
    headless = json.loads(FactMessage.of(accepted()).encode())
    headless["order_id"] = None
    events = [
        event(b"{", account=ACCOUNT, topic=topics.ARCHIVE, partition=0),
        event(json.dumps(headless).encode(), account=ACCOUNT, topic=topics.ARCHIVE, partition=0),
        event(FactMessage.of(created()).encode(), account="other", topic=topics.ARCHIVE, partition=0),
        recorded(created()),
    ]
    await world.ledger.handle(events)
    letters = world.producer.on(topics.DEAD_LETTERS)
    assert [letter.headers["reason"] for letter in letters] == [b"not_json", b"no_order", b"wrong_key"]
    assert orders_in(world.told) == [(1, "pending", "created")]


async def test_contradictions_and_unexpected_changes_raise_alarms() -> None:
    world = World()
    await world.fold(created("1"), claimed(), accepted(), filled(9, "1"), filled(10, "1"))
    assert world.alarms("overfilled") == 1
    await world.fold(filled(9, "2"))
    assert world.alarms("conflict") == 1
    assert world.row.conflicts == (f"{ACCOUNT}:deal:9",)
    assert str(world.row.state.fills[0].volume) == "1"
    revived = World()
    await revived.fold(created("1"), claimed(), refused())
    await revived.fold(accepted())
    assert (revived.alarms("revived"), revived.alarms("unexpected_change")) == (1, 1)


async def test_the_index_knows_open_orders_and_halted_accounts() -> None:
    world = World()
    index = OrderIndex()
    world.orders.watch(index)
    await world.fold(created("1"), claimed())
    assert index.open[ORDER].status == "submitted"
    assert index.counts == {(ACCOUNT, "submitted"): 1}
    assert index.halted(ACCOUNT) is None
    await world.fold(accepted(), filled(9, "1"), filled(10, "1"))
    assert ORDER not in index.open
    assert index.halted(ACCOUNT) == f"overfilled on order {ORDER}"
    assert index.halted("other") is None
    await world.fold(busted(10, 1))
    assert index.halted(ACCOUNT) is None
    await world.fold(filled(11, "1"))
    index.dropped(0)
    assert (dict(index.open), index.halted(ACCOUNT)) == ({}, None)


async def test_an_old_order_without_a_symbol_stays_in_the_index_until_it_is_known() -> None:
    world = World()
    index = OrderIndex()
    world.orders.watch(index)
    await world.fold(accepted(), cancelled())
    assert index.open[ORDER].symbol is None


async def test_the_newest_revision_can_be_shown_from_the_row() -> None:
    world = World()
    await world.fold(*LIFE)
    shown = current_order(world.row)
    assert shown is not None
    assert shown.encode() == [one for one in world.told if isinstance(one, OrderMessage)][-1].encode()
    await world.fold(says(filled().body, order_id="unknown"))
    unknown = world.orders.get(order_key("unknown"), partition=0)
    assert unknown is not None
    assert current_order(unknown) is None


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fact_sets, st.data())
async def test_any_facts_in_any_grouping_and_with_any_repetition_say_the_same_bytes(
    several: list[Fact], data: st.DataObject
) -> None:
    one, other = World(), World()
    for fact in several:
        await one.fold(fact)
    at = 0
    while at < len(several):
        size = data.draw(st.integers(1, 5))
        group = several[at : at + size]
        repeated = data.draw(st.lists(st.sampled_from(several[: at + size]), max_size=3))
        await other.fold(*group, *repeated)
        if data.draw(st.booleans()):
            other.restart_on(other.producer)
        at += size
    said: dict[bytes, set[bytes]] = {}
    for record in [*one.producer.on(topics.UPDATES), *other.producer.on(topics.UPDATES)]:
        if topics.PUBLISH_ID in record.headers:
            said.setdefault(record.headers[topics.PUBLISH_ID], set()).add(record.value)
    assert all(len(values) == 1 for values in said.values())
    assert {record.value for record in one.producer.on(topics.UPDATES)} == {
        record.value for record in other.producer.on(topics.UPDATES)
    }
