from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest

from agents.completion import Completion
from streamapp import subjects, topics
from streamapp.desk.inputs import COMPLETED, Incoming, NewSignal, parse
from streamapp.domain.identifiers import partition_of
from streamapp.errors import Ambiguous, Definite, Transient
from streamapp.kafka.producer import Record
from streamapp.mirror.routing import Arrival, MirrorRecord, RoutingRules, route
from streamapp.settings import AccountSettings, ExecutionSettings, Settings
from tables.bindings import BindingRow, binding_key
from tests.kit.desk import ACCOUNT, NOW, SIGNAL, DeskWorld
from tests.kit.records import event

SUBJECT = {topics.NATS_SUBJECT: b"signals.approved.EURUSD", topics.FAMILY: b"signal"}
ORDER = {topics.NATS_SUBJECT: b"orders.submitted.EURUSD", topics.FAMILY: b"order"}
WHOLE = {"signal_id": "s-1"} | SIGNAL
PART = {name: value for name, value in WHOLE.items() if name != "volume"}
PARTITION = partition_of("s-1", 8)


class Rows:
    """Both tables of ClickHouse, which have ``row`` from question ``since`` on, or a ClickHouse that is down.

    ``pace_s`` is what a question takes by the clock.
    """

    def __init__(
        self, row: dict[str, Any] | None = None, *, down: bool = False, since: int = 1, pace_s: float = 0.0
    ) -> None:
        self.row, self.down, self.since, self.pace_s = row, down, since, pace_s
        self.asked = 0
        self.world: DeskWorld | None = None

    async def signal(self, signal_id: str, account: str | None = None) -> dict[str, Any] | None:
        self.asked += 1
        if self.world is not None:
            self.world.later(self.pace_s)
        if self.down:
            raise Transient("no answer")
        return self.row if self.asked >= self.since else None

    async def order(self, order_id: str) -> dict[str, Any] | None:
        return await self.signal(order_id)


class House:
    """Completion beside a desk."""

    def __init__(self, rows: Rows | None = None, *, routing: dict[str, str] | None = None, role: Any = "both") -> None:
        self.rows = rows
        self.world = DeskWorld(self._settings(routing, role))
        self.agent = self._build(self.world.settings)
        if rows is not None:
            rows.world = self.world

    @staticmethod
    def _settings(routing: dict[str, str] | None, role: Any) -> Settings:
        execution = ExecutionSettings.model_validate({"routing": routing or {}})
        accounts = {ACCOUNT: AccountSettings(login=1), "b": AccountSettings(login=2)}
        return Settings(accounts=accounts, execution=execution, role=role)

    def _build(self, settings: Settings) -> Completion:
        world = self.world
        return Completion(
            world.store,
            world.producer,
            world.outbox,
            settings=settings,
            clock=world.clock,
            metrics=world.metrics,
            ready=world.desk.ready,
            signals=self.rows,
            orders=self.rows,
        )

    async def restart(self, *, routing: dict[str, str] | None = None) -> None:
        """Let the worker die, and start one with other routing on what survives."""
        await self.world.restart()
        self.agent = self._build(self._settings(routing, self.world.settings.role))

    async def give(self, payload: dict[str, Any], headers: dict[str, bytes] | None = None) -> None:
        await self.agent.handle(Incoming.of(self.record(payload, headers)))

    def record(self, payload: dict[str, Any], headers: dict[str, bytes] | None = None) -> Any:
        given = SUBJECT if headers is None else headers
        value = json.dumps(payload).encode()
        return event(value, topic=topics.INCOMPLETE, account="s-1", sequence=5, headers=given)

    def forwarded(self) -> Record:
        [record] = self.world.producer.on(topics.SIGNALS_APPROVED)
        return record

    async def forward(self) -> None:
        """Give the desk what was forwarded to it."""
        for record in self.world.producer.on(topics.SIGNALS_APPROVED):
            headers = dict(record.headers)
            await self.world.give(record.value, topics.SIGNALS_APPROVED, "signal", sequence=5, headers=headers)
        await self.world.settled()

    def binding(self, kind: str = topics.SIGNALS_APPROVED) -> BindingRow | None:
        value = self.world.store.get(binding_key(kind, "s-1"), partition=PARTITION)
        return None if value is None else BindingRow.decode(value)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.completion.FIRST_PAUSE_S", 0.0)


class Stream:
    """A Faust stream of one partition."""

    def __init__(self, *events: Any) -> None:
        self._events = events
        self.acked: list[Any] = []

    def noack(self) -> Stream:
        return self

    async def events(self) -> Any:
        for each in self._events:
            yield each

    async def ack(self, given: Any) -> None:
        self.acked.append(given)


async def test_routing_gives_a_signal_its_account_without_asking_clickhouse() -> None:
    house = House(rows := Rows(down=True), routing={"*/EURUSD": ACCOUNT})
    await house.give(WHOLE)
    record = house.forwarded()
    assert json.loads(record.value) == WHOLE
    assert (record.key, record.partition) == (b"a", partition_of(ACCOUNT, 8))
    assert (record.headers[topics.ACCOUNT], record.headers[topics.NATS_SEQUENCE]) == (b"a", b"5")
    assert record.headers[topics.FAMILY] == b"signal"
    assert COMPLETED not in record.headers
    assert rows.asked == 0


async def test_an_exit_needs_no_more_than_its_symbol_to_be_routed() -> None:
    house = House(Rows(down=True), routing={"*/EURUSD": ACCOUNT})
    await house.give({"signal_id": "s-1", "status": "approved", "symbol": "EURUSD", "intent": "close"})
    assert house.forwarded().headers[topics.ACCOUNT] == b"a"


@pytest.mark.parametrize("payload", [WHOLE, WHOLE | {"account": None}])
async def test_a_signal_without_an_account_or_with_a_null_one_is_traded_by_its_routes(payload: dict[str, Any]) -> None:
    house = House(routing={"*/EURUSD": ACCOUNT})
    await house.world.start()
    await house.give(payload)
    await house.forward()
    [decision] = house.world.archived("signal/1")
    assert (decision["decision"], decision["account"]) == ("accepted", ACCOUNT)


async def test_a_bound_account_holds_in_every_life_whatever_routing_says_later() -> None:
    house = House(routing={"*/*": ACCOUNT})
    await house.give(WHOLE)
    await house.restart(routing={"*/*": "b"})
    await house.give(WHOLE | {"strategy": "other"})
    records = house.world.producer.on(topics.SIGNALS_APPROVED)
    assert [record.headers[topics.ACCOUNT] for record in records] == [b"a", b"a"]
    assert len(house.world.store.commits) == 1


async def test_completed_fields_hold_whatever_clickhouse_says_later() -> None:
    house = House(rows := Rows(WHOLE | {"account": ACCOUNT}))
    await house.give({"signal_id": "s-1"})
    rows.row = WHOLE | {"account": "b", "side": "sell"}
    await house.give({"signal_id": "s-1"})
    records = house.world.producer.on(topics.SIGNALS_APPROVED)
    assert records[0] == records[1]


async def test_nothing_is_forwarded_before_the_account_is_bound_durably() -> None:
    house = House(routing={"*/*": ACCOUNT})
    house.world.store.refuse = Ambiguous("no answer")
    with pytest.raises(Ambiguous):
        await house.give(WHOLE)
    assert house.world.producer.records == []


async def test_a_signal_that_is_forwarded_twice_is_one_order() -> None:
    house = House(Rows(WHOLE | {"account": ACCOUNT}))
    await house.world.start()
    await house.give({"signal_id": "s-1"})
    await house.restart()
    await house.give({"signal_id": "s-1"})
    await house.forward()
    assert [each["decision"] for each in house.world.archived("signal/1")] == ["accepted"]
    assert len(house.world.terminals.submits) == 1


async def test_a_signal_with_only_its_id_is_completed_from_the_risk_engines_row_and_can_be_read() -> None:
    house = House(Rows(WHOLE | {"account": ACCOUNT, "volume": "0.2"}))
    await house.give({"signal_id": "s-1", "volume": "0.3"})
    record = house.forwarded()
    assert json.loads(record.headers[COMPLETED])["side"] == "buy"
    arrived = Incoming.of(event(record.value, account=ACCOUNT, headers=dict(record.headers)))
    [new] = parse(arrived, house.world.policy)
    assert isinstance(new, NewSignal)
    assert new.signal is not None
    assert (new.account, str(new.signal.volume), new.signal.symbol) == (ACCOUNT, "0.3", "EURUSD")


async def test_a_row_without_an_account_is_routed_by_what_it_says() -> None:
    house = House(Rows(WHOLE | {"strategy": "x"}), routing={"x/EURUSD": ACCOUNT})
    await house.give({"signal_id": "s-1"})
    assert house.forwarded().headers[topics.ACCOUNT] == b"a"


@pytest.mark.parametrize("rows", [None, Rows(), Rows(down=True), Rows({"symbol": "EURUSD"})])
async def test_what_is_unresolved_at_its_deadline_is_refused_once_for_all(rows: Rows | None) -> None:
    house = House(rows)
    house.world.later(30)
    await house.give(PART)
    refused = list(house.world.outlet.stored)
    house.world.later(30)
    await house.restart(routing={"*/*": ACCOUNT})
    await house.give(PART)
    world = house.world
    first, again = world.producer.on(topics.ARCHIVE)
    assert first == again
    [decision, _], [refusal] = world.archived("signal/1"), world.published("refused/1")
    assert (decision["decision"], decision["reason"], decision["account"]) == ("refused", "unresolved", "")
    assert (decision["stream_seq"], decision["payload"]) == (5, json.dumps(PART))
    assert (refusal["reason"], refusal["symbol"]) == ("unresolved", "EURUSD")
    assert world.outlet.stored == refused
    assert world.subjects == ["signals.refused.EURUSD"]
    assert world.producer.on(topics.SIGNALS_APPROVED) == []


# --- signals that nobody can use


def unusable(payload: bytes, subject: str = "signals.approved.EURUSD", reason: str = "not_json") -> Any:
    """Return the record that mirror writes of a signal that it can't use."""
    arrival = Arrival(subject, payload, "EXECUTION_IN", 5, NOW)
    sent = route(arrival, RoutingRules("both", "streamapp/both", 8, ExecutionSettings()))
    assert isinstance(sent, MirrorRecord)
    assert sent.headers["reason"] == reason.encode()
    return event(sent.value, topic=sent.topic, account="", headers=dict(sent.headers), partition=sent.partition)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"this is not JSON", "not_json"),
        (b'{"signal_id": "s-1", "volume": NaN}', "not_json"),
        (b"[1, 2]", "not_an_object"),
        (b'"{}"', "not_an_object"),
        (b'{"signal_id": "Long Entry", "account": "a"}', "no_signal_id"),
        (b'{"signal_id": "s-1", "metadata": "' + b"x" * 70_000 + b'"}', "too_long"),
    ],
)
async def test_the_sender_of_a_signal_that_nobody_can_use_is_answered_by_its_place_in_the_stream(
    payload: bytes, reason: str
) -> None:
    house = House()
    incoming = Incoming.of(unusable(payload, reason=reason))
    await house.agent.handle(incoming)
    await house.agent.handle(incoming)
    [(subject, refused, headers)] = house.world.outlet.stored
    assert (subject, headers["Nats-Msg-Id"]) == ("signals.refused.EURUSD", "streamapp:refused:::5")
    assert (refused["signal_id"], refused["account"], refused["symbol"]) == (None, "", "EURUSD")
    assert (refused["reason"], refused["stream_seq"], refused["at"]) == (reason, 5, "2026-11-20T12:00:00.000000Z")
    assert refused["detail"]
    decision = house.world.archived("signal/1")[0]
    assert (decision["decision"], decision["signal_id"], decision["stream_seq"]) == ("refused", "", 5)
    assert decision["payload"] == payload[:65536].decode()
    letter = house.world.dead_letters()[0]
    assert (letter["reason"], letter["length"]) == (reason.encode(), str(len(payload)).encode())
    assert (letter["source"], letter["sequence"]) == (b"EXECUTION_IN", b"5")


async def test_an_id_that_can_be_read_is_in_the_answer_whatever_else_is_wrong() -> None:
    house = House()
    payload = json.dumps({"signal_id": "s-1", "account": "x" * 600}).encode()
    await house.agent.handle(Incoming.of(unusable(payload, reason="bad_field")))
    [refused] = house.world.published("refused/1")
    assert (refused["signal_id"], refused["reason"]) == ("s-1", "bad_field")
    assert refused["detail"] == "account: expected 512 bytes at most, got 600"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"accont": "b"}, "'accont': not read here, expected account (execution.field_names maps others)"),
        (
            {"side": "sell", "order_type": "ORDER_TYPE_BUY"},
            "side: expected one, got 'sell' by side and 'buy' by order_type",
        ),
    ],
)
async def test_a_signal_without_an_account_whose_fields_are_not_understood_is_not_routed(
    said: dict[str, Any], told: str
) -> None:
    house = House(routing={"*/*": ACCOUNT})
    await house.give(WHOLE | said)
    [refused] = house.world.published("refused/1")
    assert (refused["signal_id"], refused["reason"], refused["detail"]) == ("s-1", "bad_field", told)
    assert (house.world.producer.on(topics.SIGNALS_APPROVED), house.binding()) == ([], None)


@pytest.mark.parametrize(
    ("subject", "symbol", "answered"),
    [
        ("signals.approved.EUR%2FUSD", "EUR/USD", "signals.refused.EUR%2FUSD"),
        ("signals.approved.US500.cash", "US500.cash", "signals.refused.US500%2Ecash"),
        ("signals.approved.-", "", "signals.refused.-"),
        ("signals.approved." + "X" * 100, "X" * 64, "signals.refused." + "X" * 64),
    ],
)
async def test_it_is_answered_under_the_symbol_of_its_subject(subject: str, symbol: str, answered: str) -> None:
    house = House()
    await house.agent.handle(Incoming.of(unusable(b"", subject)))
    assert (house.world.subjects, house.world.published("refused/1")[0]["symbol"]) == ([answered], symbol)


HALT = "commands.account.halt.a"
NO_ACCOUNT = "account: expected a text of 1 to 128 characters, or the order_id of an order"


async def test_a_command_that_mirror_could_not_use_is_answered_under_its_request_id() -> None:
    house = House()
    await house.agent.handle(Incoming.of(unusable(b'{"request_id": "c-1", "account": 5}', HALT, "no_account")))
    [result] = house.world.published("command_result/1")
    assert (result["request_id"], result["command"], result["state"]) == ("c-1", "account.halt", "refused")
    assert (result["why"], result["detail"]) == ("no_account", NO_ACCOUNT)
    assert (result["revision"], result["stream_seq"]) == (1, 5)
    assert house.world.subjects == [subjects.command_result("c-1")]
    assert [letter["reason"] for letter in house.world.dead_letters()] == [b"no_account"]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"{", "not_json"),
        (b"[]", "not_an_object"),
        (b"{}", "no_account"),
        (b'{"request_id": 5}', "no_account"),
        (b'{"request_id": "a b"}', "no_account"),
    ],
)
async def test_a_command_without_a_request_id_to_answer_on_is_a_dead_letter_alone(payload: bytes, reason: str) -> None:
    house = House()
    await house.agent.handle(Incoming.of(unusable(payload, HALT, reason)))
    assert [letter["reason"] for letter in house.world.dead_letters()] == [reason.encode()]
    assert house.world.outlet.stored == []


async def test_a_foreign_order_that_nobody_can_read_is_a_dead_letter_and_no_signals_answer() -> None:
    house = House(role="connector")
    await house.agent.handle(Incoming.of(event(b"{", topic=topics.INCOMPLETE, account="x", headers=ORDER)))
    assert [letter["reason"] for letter in house.world.dead_letters()] == [b"not_json"]
    assert house.world.outlet.stored == []


async def test_a_refusal_is_acknowledged_when_archive_and_nats_have_it_and_not_before() -> None:
    house = House()
    await house.world.start()
    house.world.later(30)
    house.world.producer.silent = True
    stream = Stream(house.record(PART))
    await house.agent.run(stream)
    while not house.world.outlet.stored:
        await asyncio.sleep(0)
    assert stream.acked == []
    # The next life says it again: nothing is known of what this one did not finish.
    house.world.producer.silent = False
    await house.restart()
    again = Stream(house.record(PART))
    await house.agent.run(again)
    await house.agent._lanes.drain()
    assert len(again.acked) == 1
    assert len(house.world.published("refused/1")) == 1


async def test_a_refusal_whose_partition_is_given_up_holds_up_nothing_and_comes_again() -> None:
    house = House()
    world = house.world
    await world.start()
    world.later(30)
    world.outlet.refuse = Transient("NATS is away")
    lost = Stream(house.record(PART))
    await house.agent.run(lost)
    while not world.outlet.calls:
        await asyncio.sleep(0)
    world.store.revoke()
    await house.agent._lanes.drain()
    assert lost.acked == []
    world.outlet.refuse = None
    world.store.recover()
    await world.start()
    again = Stream(house.record(PART))
    await house.agent.run(again)
    await house.agent._lanes.drain()
    assert len(again.acked) == 1
    assert len(world.published("refused/1")) == 1


async def test_what_waits_when_its_partition_is_given_up_is_the_next_owners() -> None:
    house = House(routing={"*/*": ACCOUNT})
    await house.world.start()
    house.world.store.revoke()
    stream = Stream(house.record(WHOLE))
    await house.agent.run(stream)
    house.world.store.recover([PARTITION + 1])
    house.world.desk.ready.set()
    await house.agent._lanes.drain()
    assert (stream.acked, house.world.producer.records) == ([], [])


async def test_before_its_deadline_it_goes_to_the_end_of_the_topic_with_its_place_in_the_stream() -> None:
    house = House(rows := Rows(down=True, pace_s=0.5))
    await house.give(PART)
    [record] = house.world.producer.on(topics.INCOMPLETE)
    assert json.loads(record.value) == PART
    assert (record.partition, record.headers[topics.NATS_SEQUENCE]) == (PARTITION, b"5")
    assert Incoming.of(event(record.value, headers=dict(record.headers))).at == NOW
    assert house.world.store.commits == []
    assert rows.asked == 4


async def test_a_row_may_come_a_little_later_than_its_message() -> None:
    house = House(rows := Rows(WHOLE | {"account": ACCOUNT}, since=3, pace_s=0.5))
    await house.give({"signal_id": "s-1"})
    assert house.forwarded().headers[topics.ACCOUNT] == b"a"
    assert rows.asked == 3


async def test_a_foreign_order_that_stays_unresolved_is_a_dead_letter_and_an_error() -> None:
    house = House(Rows(), role="connector")
    house.world.later(30)
    await house.give({"order_id": "s-1"}, ORDER)
    [letter], [error] = house.world.dead_letters(), house.world.published("error/1")
    assert letter["reason"] == b"unresolved"
    assert (error["order_id"], error["kind"], error["final"]) == ("s-1", "invalid", True)
    assert house.world.subjects == ["broker.error.-"]


async def test_a_foreign_order_with_only_its_id_goes_to_the_desk_completed() -> None:
    row = {"account": ACCOUNT, "symbol": "EURUSD", "side": "buy", "order_type": "market", "volume": "1"}
    house = House(Rows(row), role="connector")
    await house.give({"order_id": "s-1"}, ORDER)
    [record] = house.world.producer.on(topics.ORDERS_SUBMITTED)
    assert json.loads(record.headers[COMPLETED])["volume"] == "1"
    assert house.binding(topics.ORDERS_SUBMITTED) is not None
    assert house.binding(topics.SIGNALS_APPROVED) is None


@pytest.mark.parametrize("payload", [b"", b"[]", b'{"signal_id": 5.5}', b'{"signal_id": "a b"}'])
async def test_what_has_no_id_is_a_dead_letter(payload: bytes) -> None:
    house = House()
    await house.agent.handle(Incoming.of(event(payload, topic=topics.INCOMPLETE, account="s-1")))
    assert len(house.world.dead_letters()) == 1
    assert house.world.store.commits == []


async def test_what_kafka_does_not_take_is_an_error_and_is_not_passed_over() -> None:
    house = House(routing={"*/*": ACCOUNT})
    house.world.producer.refuse = Definite("too large")
    with pytest.raises(Ambiguous):
        await house.give(WHOLE)
    house.world.producer.refuse = None
    await house.give(WHOLE)
    assert house.forwarded().headers[topics.ACCOUNT] == b"a"


async def test_a_deadline_is_the_streams_time_and_the_ttl() -> None:
    house = House()
    house.world.clock.now = NOW + timedelta(seconds=30)
    await house.give(PART)
    binding = house.binding()
    assert binding is not None
    assert (binding.account, binding.bound_at) == ("", house.world.clock.now)
    assert house.world.metrics.bindings.labels("unresolved")._value.get() == 1
