from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from agents.outboxes import REPLAY_PAUSE_S, Outboxes
from agents.ports import Terminals
from agents.reports import Reports
from streamapp import topics
from streamapp.domain import facts
from streamapp.domain.facts import Fact
from streamapp.domain.fold import fold, is_foreign
from streamapp.domain.identifiers import order_id_for, partition_of
from streamapp.domain.positions import symbol_position_id
from streamapp.domain.reports import Progress
from streamapp.errors import Definite
from streamapp.kafka.memory import MemoryProducer
from streamapp.messages.account import AccountMessage
from streamapp.messages.error import ErrorMessage
from streamapp.messages.fact import FactMessage
from streamapp.messages.report import ConnectionChange, Report
from streamapp.messages.terminal import AckReply, AckRequest, HelloReply, ReplayReply, ReplayRequest
from streamapp.metrics import TradingMetrics
from streamapp.settings import AccountSettings, Settings
from tables.accounts import AccountRow, AccountStateRow, WatermarkRow, account_key, watermark_key
from tables.memory import memory_table
from tables.orders import OrderRow, order_key
from tests.agents.records import NOW, event
from tests.domain.examples import created, deal

ACCOUNT = "demo"
PARTITIONS = 8
HOME = partition_of(ACCOUNT, PARTITIONS)
ORDER = order_id_for("test", ACCOUNT, "s-1")


class Outbox(Terminals):
    """A terminal that keeps its reports until they are acknowledged, and remembers what it was asked."""

    def __init__(self) -> None:
        self.epoch = "e1"
        self.last_seq = 0
        self.silent = False
        self.acks: list[tuple[str, int]] = []
        self.replays: list[tuple[str, int]] = []

    async def hello(self, account: str, *, timeout_s: float) -> HelloReply | None:
        if self.silent:
            return None
        return HelloReply(account=account, epoch=self.epoch, clock=NOW, connection="ready", last_seq=self.last_seq)

    async def submit(self, request: Any, *, timeout_s: float) -> None:
        raise AssertionError("the reports agent submits nothing")

    async def ack(self, account: str, request: AckRequest, *, timeout_s: float) -> AckReply | None:
        self.acks.append((request.epoch, request.watermark))
        return (
            None if self.silent else AckReply(epoch=self.epoch, released_seq=request.watermark, last_seq=self.last_seq)
        )

    async def replay(self, account: str, request: ReplayRequest, *, timeout_s: float) -> ReplayReply | None:
        self.replays.append((request.epoch, request.after_seq))
        return None if self.silent else ReplayReply(epoch=self.epoch, published=self.last_seq - request.after_seq)


class World:
    """A reports agent on memory."""

    def __init__(self) -> None:
        account = AccountSettings(login=1)
        self.settings = Settings(deployment="test", accounts={ACCOUNT: account})
        self.accounts, self.account_log = memory_table("accounts", AccountRow, partitions=PARTITIONS)
        self.orders, _ = memory_table("orders", OrderRow, partitions=PARTITIONS)
        self.metrics = TradingMetrics()
        self.terminal = Outbox()
        self.now_s = 0.0
        self.restart()

    def restart(self) -> None:
        self.producer = MemoryProducer(PARTITIONS)
        self.outboxes = Outboxes(self.terminal, clock_s=lambda: self.now_s, new_id=lambda: "r1")
        self.reports = Reports(
            self.accounts,
            self.orders,
            self.producer,
            outboxes=self.outboxes,
            settings=self.settings,
            metrics=self.metrics,
        )

    async def handle(self, *events: Any) -> None:
        await self.reports.handle(list(events))
        await self.outboxes.settled()

    async def know(self, *several: Fact) -> None:
        """Put the order's row, as the ledger would."""
        empty = OrderRow(order_id=ORDER, account=ACCOUNT, offset=0)
        texts = [(FactMessage.of(fact).encode().decode(), fact) for fact in several]
        row = empty.extended(texts, fold(empty.state, several), offset=1)
        await self.orders.put(order_key(ORDER), row, partition=HOME)

    @property
    def facts(self) -> list[FactMessage]:
        return [FactMessage.decode(record.value) for record in self.producer.on(topics.ARCHIVE)]

    @property
    def letters(self) -> list[bytes]:
        return [record.headers["reason"] for record in self.producer.on(topics.DEAD_LETTERS)]

    @property
    def watermark(self) -> tuple[str, int]:
        row = self.accounts.get(watermark_key(ACCOUNT), partition=HOME)
        assert row is not None
        assert isinstance(row.root, WatermarkRow)
        return row.root.epoch, row.root.watermark


def report(
    seq: int, kind: Any = "accepted", body: Any = None, *, epoch: str = "e1", order_id: str | None = ORDER
) -> Any:
    said = Report(
        account=ACCOUNT,
        epoch=epoch,
        seq=seq,
        at=NOW,
        kind=kind,
        order_id=order_id,
        body=facts.BrokerAccepted(ticket=seq) if body is None else body,
    )
    return event(said.encode(), account=ACCOUNT, topic=topics.BROKER_REPORTS, sequence=seq)


def foreign(subject: str, payload: dict[str, Any] | bytes, *, sequence: int = 1, key: str = ACCOUNT) -> Any:
    value = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    headers = {topics.NATS_SUBJECT: subject.encode()}
    return event(value, account=key, topic=topics.BROKER_REPORTS, sequence=sequence, headers=headers, partition=HOME)


async def test_what_was_done_to_an_order_and_an_order_that_closes_become_facts() -> None:
    world = World()
    said: dict[Any, Any] = {
        "created": created("1").body,
        "cancel_requested": facts.CancelRequested(request_id="r-1", issued_by="trader"),
        "cancel_rejected": facts.CancelRejected(request_id="r-1", message="frozen"),
        "modify_requested": facts.ModifyRequested(request_id="r-2", changes={"price": "1.07"}),
        "modified": facts.Modified(request_id="r-2", changes={"price": "1.07000", "stop_loss": None}),
        "modify_rejected": facts.ModifyRejected(request_id="r-3"),
    }
    await world.handle(*(report(seq, kind, body) for seq, (kind, body) in enumerate(said.items(), 1)))
    assert [fact.fact_id for fact in world.facts] == [
        f"{ORDER}:created",
        f"{ORDER}:CancelRequested:r-1",
        f"{ORDER}:CancelRejected:r-1",
        f"{ORDER}:ModifyRequested:r-2",
        f"{ORDER}:Modified:r-2",
        f"{ORDER}:ModifyRejected:r-3",
    ]
    assert [fact.body for fact in world.facts] == list(said.values())
    assert (world.letters, world.watermark) == ([], ("e1", 6))


async def test_reports_become_facts_then_the_watermark_then_the_ack() -> None:
    world = World()
    await world.handle(report(1), report(2, "deal", deal(9, "0.1")), report(3, "deal", deal(10, "0.1"), order_id=None))
    assert [(fact.fact_id, fact.order_id) for fact in world.facts] == [
        (f"{ORDER}:BrokerAccepted:1", ORDER),
        (f"{ACCOUNT}:deal:9", ORDER),
        (f"{ACCOUNT}:deal:10", None),
    ]
    assert world.facts[0].causation_id == f"report:{ACCOUNT}:e1:1"
    assert world.watermark == ("e1", 3)
    assert world.terminal.acks == [("e1", 3)]


async def test_without_a_durable_fact_there_is_neither_watermark_nor_ack() -> None:
    world = World()
    world.producer.refuse = ConnectionError("no Kafka")
    with pytest.raises(Exception, match="acknowledgements from Kafka"):
        await world.handle(report(1))
    assert world.accounts.get(watermark_key(ACCOUNT), partition=HOME) is None
    assert world.terminal.acks == []


async def test_without_a_durable_watermark_there_is_no_ack() -> None:
    world = World()
    world.account_log.refuse = Definite("no")
    with pytest.raises(Exception, match="no"):
        await world.handle(report(1))
    assert world.terminal.acks == []


async def test_a_report_beyond_a_gap_is_used_at_once_and_the_gap_is_asked_for() -> None:
    world = World()
    world.terminal.last_seq = 4
    await world.handle(report(1))
    assert world.terminal.replays == [("e1", 1)]  # the first word of an account asks for all that is beyond
    world.now_s += REPLAY_PAUSE_S
    await world.handle(report(3))
    assert len(world.facts) == 2
    assert world.watermark == ("e1", 1)
    assert world.terminal.replays == [("e1", 1), ("e1", 1)]
    assert world.outboxes.gaps == {ACCOUNT}
    await world.handle(report(2), report(3), report(4))
    assert world.watermark == ("e1", 4)
    assert world.outboxes.gaps == set()


async def test_replays_are_not_asked_for_again_while_one_is_on_its_way() -> None:
    world = World()
    world.terminal.last_seq = 9
    await world.handle(report(5))
    await world.handle(report(6))
    assert len(world.terminal.replays) == 1


async def test_a_report_that_comes_again_says_the_same_fact_and_acks_again() -> None:
    world = World()
    await world.handle(report(1))
    await world.handle(report(1))
    assert world.facts[0] == world.facts[1]
    assert len(world.account_log.appended) == 1
    assert world.terminal.acks == [("e1", 1), ("e1", 1)]


async def test_what_was_beyond_a_gap_is_forgotten_by_a_restart_and_comes_again() -> None:
    world = World()
    world.terminal.last_seq = 3
    await world.handle(report(1), report(3))
    world.restart()
    await world.handle(report(2))
    assert world.watermark == ("e1", 2)
    assert world.terminal.replays[-1] == ("e1", 2)


async def test_a_new_journal_begins_anew_and_the_old_ones_reports_are_still_facts() -> None:
    world = World()
    await world.handle(report(1), report(2))
    await world.handle(report(1, epoch="e2"))
    assert world.watermark == ("e2", 1)
    await world.handle(report(3, epoch="e1"))
    assert world.watermark == ("e2", 1)
    assert len(world.facts) == 4


async def test_a_check_finds_a_lost_last_report_and_leaves_a_busy_terminal_alone() -> None:
    world = World()
    world.terminal.last_seq = 2
    world.reports.check()
    await world.outboxes.settled()
    assert world.terminal.replays == [("e1", 0)]
    await world.handle(report(1))
    world.now_s += REPLAY_PAUSE_S
    world.reports.check()  # the watermark moved since
    await world.outboxes.settled()
    assert len(world.terminal.replays) == 1
    world.reports.check()
    await world.outboxes.settled()
    assert world.terminal.replays == [("e1", 0), ("e1", 1)]


async def test_a_check_leaves_out_accounts_of_other_workers_and_silent_terminals_may_be_asked_again() -> None:
    world = World()
    world.terminal.last_seq = 2
    world.terminal.silent = True
    world.reports.check()
    await world.outboxes.settled()
    world.terminal.silent = False
    world.reports.check()
    await world.outboxes.settled()
    assert world.terminal.replays == [("e1", 0)]
    world.account_log.recover({(HOME + 1) % PARTITIONS})
    world.now_s += REPLAY_PAUSE_S
    world.reports.check()
    await world.outboxes.settled()
    assert len(world.terminal.replays) == 1


async def test_a_broken_report_is_a_dead_letter_and_the_watermark_passes_it() -> None:
    world = World()
    broken = json.dumps({"account": ACCOUNT, "epoch": "e1", "seq": 2, "kind": "nonsense"}).encode()
    nameless = event(b"[1]", account=ACCOUNT, topic=topics.BROKER_REPORTS)
    homeless = event(report(9).message.value, account="other", topic=topics.BROKER_REPORTS)
    numberless = event(b'{"account": "demo", "seq": true}', account=ACCOUNT, topic=topics.BROKER_REPORTS)
    await world.handle(
        report(1),
        event(broken, account=ACCOUNT, topic=topics.BROKER_REPORTS),
        nameless,
        homeless,
        numberless,
        report(3, order_id=None),
        report(4),
    )
    assert len(world.facts) == 2
    assert world.letters == [b"invalid", b"invalid", b"wrong_key", b"invalid", b"no_order"]
    assert world.watermark == ("e1", 4)


async def test_a_change_of_connection_is_told_with_the_money_last_known() -> None:
    world = World()
    state = AccountMessage(account=ACCOUNT, connection="ready", balance="5.00", at=NOW)
    row = AccountRow(AccountStateRow(account=ACCOUNT, state=state, at=NOW))
    await world.accounts.put(account_key(ACCOUNT), row, partition=HOME)
    change = ConnectionChange(connection="disconnected", detail="no route")
    await world.handle(report(1, "connection", change, order_id=None))
    (record,) = world.producer.on(topics.UPDATES)
    told = AccountMessage.decode(record.value)
    assert (told.connection, told.detail, told.trading, str(told.balance)) == (
        "disconnected",
        "no route",
        "not_ready",
        "5.00",
    )
    assert record.headers[topics.PUBLISH_SUBJECT] == b"accounts.demo"
    assert record.headers[topics.PUBLISH_ID] == b"test:account:demo:e1:1"
    assert world.watermark == ("e1", 1)


# --- foreign connectors

FILL = {"order_id": ORDER, "fill_id": "x-1", "volume": "0.5", "price": "1.1"}


async def test_a_foreign_fill_needs_only_an_order_an_id_a_volume_and_a_price() -> None:
    world = World()
    await world.know(created("1", side="sell"))
    await world.handle(foreign("broker.fill.EURUSD", FILL, key=ORDER))
    (fact,) = world.facts
    body = fact.body
    assert isinstance(body, facts.Filled)
    assert is_foreign(fact)
    assert (fact.account, body.symbol, body.side, str(body.volume)) == (ACCOUNT, "EURUSD", "sell", "0.5")
    assert body.position_id == symbol_position_id(ACCOUNT, "EURUSD")
    assert body.deal >= 2**51
    assert world.producer.on(topics.ARCHIVE)[0].partition == HOME
    assert world.accounts.get(watermark_key(ACCOUNT), partition=HOME) is None


@pytest.mark.parametrize(
    ("more", "fact_id"),
    [
        ({"deal": 12}, f"{ACCOUNT}:deal:12"),
        ({"fill_id": f"{ACCOUNT}:13"}, f"{ACCOUNT}:deal:13"),
        ({"deal": 14, "revision": 2}, f"{ACCOUNT}:deal:14:corrected:2"),
    ],
)
async def test_a_foreign_fill_is_known_by_its_deal(more: dict[str, Any], fact_id: str) -> None:
    world = World()
    await world.know(created())
    await world.handle(
        foreign("broker.fill.EURUSD", FILL | more), foreign("broker.fill.EURUSD", FILL | more, sequence=2)
    )
    assert [fact.fact_id for fact in world.facts] == [fact_id, fact_id]


async def test_a_fill_of_an_order_not_yet_known_carries_what_is_there() -> None:
    world = World()
    await world.handle(foreign("broker.fill.X", FILL | {"account": ACCOUNT, "symbol": "EURUSD", "side": "buy"}))
    assert [fact.order_id for fact in world.facts] == [ORDER]


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
    world = World()
    await world.know(created())
    await world.handle(foreign("broker.error.EURUSD", {"order_id": ORDER} | said))
    (made,) = world.facts
    assert made.fact == fact
    assert word in made.body.model_dump_json()


@pytest.mark.parametrize("said", [{"kind": "rejected"}, {"kind": "disconnected", "final": True}])
async def test_a_foreign_error_that_decides_nothing_is_told_and_not_published(said: dict[str, Any]) -> None:
    world = World()
    await world.know(created())
    await world.handle(foreign("broker.error.EURUSD", {"order_id": ORDER} | said))
    (record,) = world.producer.on(topics.UPDATES)
    told = ErrorMessage.decode(record.value)
    assert (told.kind, told.symbol, told.final, told.executor) == (said["kind"], "EURUSD", False, "foreign")
    assert topics.PUBLISH_SUBJECT not in record.headers
    assert world.facts == []


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"{", b"not_json"),
        ({"order_id": ORDER, "fill_id": "x", "volume": "-1", "price": "1"}, b"invalid"),
        (FILL | {"fill_id": None}, b"no_fill_id"),
        (FILL | {"volume": "1e20"}, b"out_of_range"),
        (FILL | {"price": "1e20"}, b"out_of_range"),
        (FILL | {"profit": "-1e20"}, b"out_of_range"),
        (FILL | {"account": "somebody"}, b"wrong_account"),
        (FILL | {"order_id": "unknown"}, b"unknown_order"),
        (FILL | {"order_id": "unknown", "account": ACCOUNT}, b"unknown_order"),
        (FILL | {"order_id": order_id_for("test", "demo-2", "s"), "account": ACCOUNT}, b"wrong_account"),
    ],
)
async def test_a_foreign_fill_nobody_can_use_is_a_dead_letter_and_answered(payload: Any, reason: bytes) -> None:
    world = World()
    await world.know(created())
    await world.handle(foreign("broker.fill.EURUSD", payload), foreign("broker.fill.EURUSD", FILL))
    assert world.letters == [reason]
    assert len(world.facts) == 1
    (record,) = world.producer.on(topics.UPDATES)
    told = ErrorMessage.decode(record.value)
    assert (told.kind, told.final) == ("invalid", False)
    assert record.headers[topics.PUBLISH_SUBJECT].startswith(b"broker.error.")


async def test_an_order_without_an_account_that_nobody_knows_is_answered_too() -> None:
    world = World()
    await world.handle(foreign("broker.error.EURUSD", {"order_id": "unknown", "kind": "timeout"}, key="unknown"))
    assert world.letters == [b"unknown_order"]


async def test_closing_lets_go_of_a_terminal_that_never_answers() -> None:
    world = World()
    never = asyncio.Event()

    class Stuck(Outbox):
        async def hello(self, account: str, *, timeout_s: float) -> HelloReply | None:
            await never.wait()
            return None

        async def ack(self, account: str, request: AckRequest, *, timeout_s: float) -> AckReply | None:
            await never.wait()
            return None

    outboxes = Outboxes(Stuck(), clock_s=lambda: 0.0)
    outboxes.durable(ACCOUNT, Progress("e1", 1))
    outboxes.durable(ACCOUNT, Progress("e1", 2))
    await asyncio.sleep(0)
    await outboxes.close()
    await outboxes.settled()
    assert world.terminal.acks == []


async def test_acks_are_coalesced_to_the_newest() -> None:
    world = World()
    for watermark in (1, 2, 3):
        world.outboxes.durable(ACCOUNT, Progress("e1", watermark))
    await world.outboxes.settled()
    assert world.terminal.acks == [("e1", 3)]


async def test_a_silent_replay_is_no_error() -> None:
    world = World()

    class Mute(Outbox):
        async def replay(self, account: str, request: ReplayRequest, *, timeout_s: float) -> ReplayReply | None:
            self.replays.append((request.epoch, request.after_seq))
            return None

    mute = Mute()
    mute.last_seq = 5
    outboxes = Outboxes(mute, clock_s=lambda: world.now_s)
    outboxes.ask(ACCOUNT, None)
    await outboxes.settled()
    assert mute.replays == [("e1", 0)]
