from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from streamapp import topics
from streamapp.desk.policy import Policy
from streamapp.domain.facts import OrderCreated
from streamapp.domain.identifiers import order_id_for, partition_of
from streamapp.domain.trading import TradingState
from streamapp.errors import Ambiguous, Definite, Transient
from streamapp.mirror.routing import Arrival, MirrorRecord, RoutingRules, route
from streamapp.settings import AccountSettings, ExecutionSettings, GuardSettings, Settings
from tables.accounts import AccountRow, account_key
from tables.orders import HANDED_OVER, OrderRow, order_key
from tables.signals import signal_key
from tests.kit.desk import ACCOUNT, NOW, SIGNAL, DeskWorld
from tests.kit.examples import accepted, deal
from tests.messages.golden import golden

NEIGHBOUR = next(name for name in map(str, range(99)) if partition_of(name, 8) == partition_of(ACCOUNT, 8))
"""An account whose rows are in the same partition."""
ACCOUNTS = {ACCOUNT: AccountSettings(login=1), "b": AccountSettings(login=2), NEIGHBOUR: AccountSettings(login=3)}
CONNECTOR = Settings(accounts=ACCOUNTS, role="connector", deployment="ours")
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
async def world() -> DeskWorld:
    return await DeskWorld(Settings(accounts=ACCOUNTS)).start()


@pytest.fixture
async def connector() -> DeskWorld:
    return await DeskWorld(CONNECTOR).start()


def payload(**changes: Any) -> bytes:
    return json.dumps({"signal_id": "s-1", "account": ACCOUNT} | SIGNAL | changes).encode()


def decisions(world: DeskWorld) -> list[tuple[str, str | None]]:
    return [(each["decision"], each["reason"]) for each in world.archived("signal/1")]


def refusals(world: DeskWorld) -> list[tuple[str, str]]:
    return [(each["signal_id"], each["reason"]) for each in world.published("refused/1")]


def reasons(world: DeskWorld) -> list[bytes]:
    return [letter["reason"] for letter in world.dead_letters()]


def errors(world: DeskWorld) -> list[tuple[str, str, bool]]:
    return [(each["order_id"], each["kind"], each["final"]) for each in world.published("error/1")]


async def halt(world: DeskWorld, cause: str) -> None:
    """Let the account be one that must not open orders: by what was executed, or because a rule of ours broke."""
    if cause == "internal":
        row = AccountRow(account=ACCOUNT, trading=TradingState(state="halted", cause="internal: a rule broke"))
        await world.store.commit(partition_of(ACCOUNT, 8), {account_key(ACCOUNT): row.encode()})
        return
    order_id = "x-0"
    if world.policy.role == "connector":
        await world.order(order_id)
    else:
        order_id = await world.signal("s-0")
    await world.report(("accepted", order_id, accepted().body), ("deal", order_id, deal(9, "2")))


# --- one decision


async def test_a_signal_is_decided_created_and_claimed_in_one_commit_and_then_submitted(world: DeskWorld) -> None:
    order_id = await world.signal(strategy="x", expected_price="1.085", sequence=7)
    [(partition, rows)] = world.store.commits
    assert partition == partition_of(ACCOUNT, 8)
    assert rows.keys() == {signal_key(ACCOUNT, "s-1"), order_key(order_id), account_key(ACCOUNT)}
    row, [commit], [request] = world.signal_row("s-1"), world.commits, world.terminals.submits
    assert row is not None
    assert (row.verdict.decision, row.order_id, row.stream_seq, row.decided_at) == ("accepted", order_id, 7, NOW)
    assert [fact.fact for fact in commit.facts] == ["OrderCreated", "SubmitClaimed"]
    created = commit.facts[0].body
    assert isinstance(created, OrderCreated)
    assert (created.executor, created.strategy, created.signal_at) == ("streamapp", "x", NOW)
    assert (request.order_id, request.hash, request.attempt) == (order_id, row.parameters_hash, 1)
    assert request.not_after == created.not_after == NOW + timedelta(seconds=30)
    assert [message.message["schema"] for message in commit.messages] == [
        "signal/1",
        "accepted/1",
        "order/1",
        "order/1",
    ]
    assert world.subjects == ["signals.accepted.EURUSD", "orders.pending.EURUSD", "orders.submitted.EURUSD"]


async def test_an_order_whose_terminal_is_silent_is_created_and_held() -> None:
    world = DeskWorld()
    world.terminals.silent = True
    await world.start()
    row = world.order_row(await world.signal())
    assert (world.facts(), row.standing, row.status) == (["OrderCreated"], "held", "pending")
    assert world.subjects == ["signals.accepted.EURUSD", "orders.pending.EURUSD"]
    assert (world.effects, len(world.acked)) == ([], 1)


async def test_everything_that_a_signal_causes_carries_its_trace(world: DeskWorld) -> None:
    await world.give(payload(), topics.SIGNALS_APPROVED, "signal", headers={"traceparent": TRACE.encode()})
    await world.settled()
    assert [headers["traceparent"] for _, _, headers in world.outlet.stored] == [TRACE] * 3
    assert {message.trace for commit in world.commits for message in commit.messages} == {TRACE}


async def test_a_redelivered_signal_keeps_its_decision_whatever_the_clock_and_the_settings_say(
    world: DeskWorld,
) -> None:
    await world.signal(sequence=7)
    made, published = list(world.store.commits), list(world.outlet.stored)
    world.later(86400)
    await world.signal(sequence=7)
    other = Settings(accounts={"c": AccountSettings(login=3)}, execution=ExecutionSettings(signal_ttl_s=1))
    world.settings, world.policy = other, Policy.of(other)
    await world.restart()
    await world.signal(sequence=7)
    assert world.store.commits == made
    assert world.outlet.stored == published
    assert {commit.number for commit in world.commits} == {1}
    assert len(world.acked) == 3


async def test_the_same_signal_in_another_message_is_a_duplicate_and_sends_nothing(world: DeskWorld) -> None:
    await world.give(payload(), topics.SIGNALS_APPROVED, "signal", sequence=7)
    await world.give(payload(volume="0.10"), topics.SIGNALS_APPROVED, "signal", sequence=8)
    await world.give(payload(), topics.SIGNALS_APPROVED, "signal", sequence=7)
    order_id = await world.signal(sequence=9, status="pending", at=NOW + timedelta(hours=1))
    assert decisions(world) == [("accepted", None), ("duplicate", None), ("duplicate", None)]
    answers = world.archived("signal/1")
    assert {answer["order_id"] for answer in answers} == {order_id}
    assert answers[2]["at"].startswith("2026-11-20T13:00:00")
    assert (len(world.terminals.submits), world.facts(), refusals(world)) == (1, ["OrderCreated", "SubmitClaimed"], [])


async def test_a_sender_that_repeats_an_accepted_signal_hears_which_order_it_is_and_since_when(
    world: DeskWorld,
) -> None:
    order_id = await world.signal(sequence=7, strategy="x")
    world.later(5)
    await world.signal(sequence=8, strategy="x")
    await world.signal(sequence=8, strategy="x")
    first, again = world.published("accepted/1")
    told = {"signal_id": "s-1", "account": ACCOUNT, "symbol": "EURUSD", "strategy": "x", "order_id": order_id}
    assert told.items() <= first.items()
    assert told.items() <= again.items()
    assert [(each["stream_seq"], each["detail"]) for each in (first, again)] == [
        (7, None),
        (8, "accepted at 2026-11-20T12:00:00.000000Z, message 7 of the stream"),
    ]
    ids = [headers["Nats-Msg-Id"] for subject, _, headers in world.outlet.stored if "accepted" in subject]
    assert ids == ["streamapp:accepted:a:s-1:7", "streamapp:accepted:a:s-1:8"]


async def test_a_sender_that_repeats_a_refused_signal_hears_the_recorded_reason(world: DeskWorld) -> None:
    await world.signal(sequence=7, status="pending")
    world.later(60)
    await world.signal(sequence=8)
    first, again = world.published("refused/1")
    assert (first["stream_seq"], again["stream_seq"]) == (7, 8)
    assert first["reason"] == again["reason"] == "not_approved"
    assert first["detail"] == again["detail"] == "status: expected approved, got pending"
    assert world.published("accepted/1") == []


async def test_other_parameters_under_the_same_id_are_a_conflict_and_the_order_stands(world: DeskWorld) -> None:
    order_id = await world.signal(sequence=7)
    standing = world.order_row(order_id)
    await world.signal(sequence=8, volume="0.2")
    await world.signal(sequence=9, volume="NaN")
    assert decisions(world) == [("accepted", None), ("conflict", "conflict"), ("conflict", "conflict")]
    assert [each["order_id"] for each in world.published("refused/1")] == [order_id, order_id]
    assert world.subjects[-2:] == ["signals.refused.EURUSD"] * 2
    assert world.outlet.stored[-1][2]["Nats-Msg-Id"] == "streamapp:refused:a:s-1:9"
    assert world.order_row(order_id) == standing
    assert len(world.terminals.submits) == 1


async def test_a_refused_signal_stays_refused(world: DeskWorld) -> None:
    await world.signal(sequence=1, status="pending")
    await world.signal(sequence=2)
    await world.signal(sequence=3, volume="1")
    assert decisions(world) == [("refused", "not_approved"), ("duplicate", "not_approved"), ("conflict", "conflict")]
    assert (world.facts(), world.terminals.submits) == ([], [])


async def test_the_same_id_on_another_account_is_another_signal(world: DeskWorld) -> None:
    placed = [await world.signal(account=account) for account in (ACCOUNT, "b", NEIGHBOUR)]
    assert len(set(placed)) == 3
    assert [(submit.account, submit.order_id) for submit in world.terminals.submits] == list(
        zip((ACCOUNT, "b", NEIGHBOUR), placed, strict=True)
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": "pending"}, "not_approved"),
        ({"account": "nobody"}, "unknown_account"),
        ({"approved_at": "2026-11-20T12:00:03Z"}, "from_future"),
        ({"valid_until": "2026-11-20T12:00:00Z"}, "stale"),
        ({"approved_at": "2026-11-20T11:59:00Z"}, "stale"),
        ({"volume": "1.1"}, "guard"),
        ({"symbol": "GBPUSD"}, "guard"),
        ({"stop_loss": "1.2", "take_profit": "1.1"}, "bad_field"),
    ],
)
async def test_what_must_not_be_traded_is_refused_for_its_reason_and_is_never_an_order(
    changes: dict[str, Any], reason: str
) -> None:
    guards = GuardSettings(max_volume=Decimal(1), symbols=("EURUSD",))
    world = await DeskWorld(Settings(accounts=ACCOUNTS, guards=guards)).start()
    order_id = await world.signal(**changes)
    account = changes.get("account", ACCOUNT)
    assert decisions(world) == [("refused", reason)]
    assert refusals(world) == [("s-1", reason)]
    assert world.row(order_key(order_id), OrderRow, account) is None
    assert (world.facts(), world.terminals.submits) == ([], [])
    assert world.metrics.decisions.labels("refused", reason)._value.get() == 1


BAD: dict[str, list[Any]] = {
    "volume": ["NaN", "Infinity", "-1", "0", "1e400", [], True, None, "1e-11"],
    "side": ["long", None, 1],
    "symbol": ["", None, 5, "x" * 65, {"a": 1}],
    "order_type": ["stop_limit", "limit", None],
    "approved_at": ["0001-01-01T00:00:00+14:00", "yesterday", "2026-11-20T12:00:00", 1e30],
    "metadata": [5, json.loads('{"a":' * 300 + "1" + "}" * 300)],
    "stop_loss": ["x", "1_0", [0]],
    "expiration": ["2026-11-20T12:00:00Z"],
    "account": [5.5, "", "q" * 200, {"x": 1}],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in BAD.items() for value in values])
async def test_a_bad_field_is_refused_and_the_next_good_signal_passes(world: DeskWorld, field: str, value: Any) -> None:
    account = (value if isinstance(value, str) else str(value)[:128]) if field == "account" else ACCOUNT
    bad = payload(**{"signal_id": "bad", field: value})
    await world.give(bad, topics.SIGNALS_APPROVED, "signal", account=account)
    await world.settled()
    await world.signal()
    assert decisions(world) == [("refused", "bad_field"), ("accepted", None)]
    assert refusals(world) == [("bad", "bad_field")]


async def test_what_names_no_signal_is_a_dead_letter_that_is_answered_and_the_next_good_signal_passes(
    world: DeskWorld,
) -> None:
    headers = {topics.NATS_SUBJECT: b"signals.approved.EURUSD"}
    await world.give(b"\xff\xfe", topics.SIGNALS_APPROVED, "signal", sequence=7, headers=headers)
    await world.signal(sequence=8)
    assert reasons(world) == [b"not_json"]
    assert decisions(world) == [("refused", "not_json"), ("accepted", None)]
    [refused] = world.published("refused/1")
    assert (refused["signal_id"], refused["stream_seq"], refused["reason"]) == (None, 7, "not_json")
    assert world.subjects[0] == "signals.refused.EURUSD"
    assert world.outlet.stored[0][2]["Nats-Msg-Id"] == "streamapp:refused:a::7"
    assert len(world.acked) == 2


# --- what senders write


async def give_on(world: DeskWorld, subject: str, **changes: Any) -> None:
    headers = {topics.NATS_SUBJECT: f"signals.approved.{subject}".encode()}
    await world.give(payload(**changes), topics.SIGNALS_APPROVED, "signal", headers=headers)
    await world.settled()


@pytest.mark.parametrize(
    ("subject", "symbol"),
    [("EURUSD", "EURUSD "), ("EUR%2FUSD", "EUR/USD"), ("EUR/USD", "EUR/USD"), ("US500%2Ecash", "US500.cash"),
     ("US500.cash", "US500.cash"), ("%23AAPL", "#AAPL"), ("%C3%84", "Ä"), ("%2A", "*"), ("-", "EURUSD")],
)  # fmt: skip
async def test_a_signal_may_name_the_symbol_of_its_subject_escaped_or_not(
    world: DeskWorld, subject: str, symbol: str
) -> None:
    await give_on(world, subject, symbol=symbol)
    assert decisions(world) == [("accepted", None)]
    [accepted] = world.published("accepted/1")
    assert accepted["symbol"] == symbol.strip()


@pytest.mark.parametrize(
    ("subject", "symbol", "answered"),
    [
        ("EURUSD", "GBPUSD", "EURUSD"),
        ("EURUSD", "eurusd", "EURUSD"),
        ("EURUSD.m", "EURUSD", "EURUSD%2Em"),
        ("%2D", "EURUSD", "-"),
    ],
)
async def test_a_signal_that_names_another_symbol_than_its_subject_is_refused_where_its_sender_may_listen(
    world: DeskWorld, subject: str, symbol: str, answered: str
) -> None:
    await give_on(world, subject, symbol=symbol)
    [refused] = world.published("refused/1")
    assert world.subjects == [f"signals.refused.{answered}"]
    assert (refused["signal_id"], refused["account"], refused["reason"]) == ("s-1", ACCOUNT, "bad_field")
    assert f"signals.approved.{subject}, got '{symbol}'" in refused["detail"]
    assert world.terminals.submits == []


async def test_an_unknown_field_is_kept_with_the_decision_and_a_typo_of_ours_is_refused(world: DeskWorld) -> None:
    await give_on(world, "EURUSD", note="my own")
    await give_on(world, "EURUSD", signal_id="s-2", stoploss="1.07")
    kept, refused = world.archived("signal/1")
    assert (kept["decision"], json.loads(kept["payload"])["note"]) == ("accepted", "my own")
    assert (refused["decision"], refused["reason"]) == ("refused", "bad_field")
    assert refused["detail"].startswith("'stoploss': not read here, expected stop_loss")


async def test_two_spellings_of_one_signal_are_the_same_signal(world: DeskWorld) -> None:
    await give_on(world, "EURUSD", stop_loss=None, price=1.0851)
    plain = {"side": "Buy", "order_type": "MARKET", "volume": 0.1, "stop_loss": 0, "price": 1.0852, "strategy": ""}
    await give_on(world, "EURUSD", **plain)
    await give_on(world, "EURUSD", **plain | {"side": None, "order_type": "ORDER_TYPE_BUY"})
    assert decisions(world) == [("accepted", None), ("duplicate", None), ("duplicate", None)]
    assert len(world.terminals.submits) == 1


async def test_an_account_that_is_given_twice_is_refused_for_that(world: DeskWorld) -> None:
    twice = payload().replace(b'"account": "a"', b'"account": "a", "account": "b"')
    sent = route(Arrival("signals.approved.EURUSD", twice, "EXECUTION_IN", 7, NOW), RoutingRules.of(world.settings))
    assert isinstance(sent, MirrorRecord)
    assert sent.key is not None
    await world.give(sent.value, sent.topic, "signal", account=sent.key.decode(), headers=dict(sent.headers))
    await world.settled()
    assert refusals(world) == [("s-1", "bad_field")]
    assert world.published("refused/1")[0]["detail"] == "'account': expected once, it is given more than once"


async def test_an_account_that_is_a_number_is_its_digits() -> None:
    world = await DeskWorld(Settings(accounts={"77": AccountSettings(login=1)})).start()
    said = payload(account=77, signal_id=5)
    await world.give(said, topics.SIGNALS_APPROVED, "signal", account="77")
    await world.settled()
    [accepted] = world.published("accepted/1")
    assert (accepted["account"], accepted["signal_id"]) == ("77", "5")


async def test_a_dead_letter_that_kafka_refuses_is_not_acknowledged(world: DeskWorld) -> None:
    world.producer.refuse = Definite("too large")
    await world.give(b"", topics.SIGNALS_APPROVED, "signal")
    await world.settled()
    assert world.acked == []
    assert len(world.failures) == 1


async def test_in_role_execution_the_order_is_a_foreign_connectors() -> None:
    world = await DeskWorld(Settings(accounts=ACCOUNTS, role="execution")).start()
    row = world.order_row(await world.signal())
    assert (row.executor, row.claim_epoch, row.status) == ("foreign", HANDED_OVER, "submitted")
    assert world.subjects[0] == "signals.accepted.EURUSD"
    assert world.subjects[-1] == "orders.submitted.EURUSD"
    assert (world.effects, world.terminals.submits) == ([], [])


@pytest.mark.parametrize(("cause", "detail"), [("overfilled", "overfilled on order"), ("internal", "a rule broke")])
async def test_a_halted_account_opens_nothing_in_this_life_and_the_next(
    world: DeskWorld, cause: str, detail: str
) -> None:
    await halt(world, cause)
    await world.signal("s-2")
    await world.restart()
    await world.signal("s-3")
    answers = [each for each in world.archived("signal/1") if each["signal_id"] in {"s-2", "s-3"}]
    assert [(each["decision"], each["reason"]) for each in answers[-2:]] == [("refused", "halted")] * 2
    assert all(detail in each["detail"] for each in answers)
    await world.signal("s-4", account="b")
    assert decisions(world)[-1] == ("accepted", None)


# --- wherever the worker dies


async def test_nothing_is_published_submitted_or_acknowledged_before_the_decision_is_durable(world: DeskWorld) -> None:
    world.store._ack_timeout_s = 0.01
    world.store.silent = True
    await world.signal()
    assert [type(failure) for failure in world.failures] == [Ambiguous]
    assert (world.producer.records, world.outlet.calls, world.effects, world.acked) == ([], 0, [], [])


def refused(world: DeskWorld) -> None:
    world.store.refuse = Definite("refused")


def unacknowledged(world: DeskWorld) -> None:
    world.store.silent, world.store._ack_timeout_s = True, 0.01


def after_commit(world: DeskWorld) -> None:
    world.carries_out = False
    after_submit(world)


def after_submit(world: DeskWorld) -> None:
    world.producer.silent, world.outlet.refuse = True, Transient("NATS is away")


def answer_lost(world: DeskWorld) -> None:
    world.terminals.deaf.add(order_id_for("streamapp", ACCOUNT, "s-1"))


def after_outbox(world: DeskWorld) -> None:
    """Let everything be done."""


def heal(world: DeskWorld) -> None:
    world.store.refuse, world.store.silent = None, False
    world.producer.silent, world.outlet.refuse = False, None
    world.carries_out = True


@pytest.mark.parametrize("die", [refused, unacknowledged, after_commit, after_submit, answer_lost, after_outbox])
async def test_a_signal_is_one_decision_one_order_and_one_journal_row_wherever_the_worker_dies(
    world: DeskWorld, die: Callable[[DeskWorld], None]
) -> None:
    die(world)
    order_id = await world.signal(sequence=7)
    is_durable = die not in {refused, unacknowledged}
    assert (world.signal_row("s-1") is not None) == bool(world.acked) == is_durable
    heal(world)
    world.later(1)
    await world.restart()
    await world.tick()
    await world.signal(sequence=7)
    await world.restart()
    await world.signal(sequence=7)
    await world.tick()
    row = world.signal_row("s-1")
    assert row is not None
    assert row.decided_at == NOW + timedelta(seconds=0 if is_durable else 1)
    assert {json.dumps(each) for each in world.archived("signal/1")} == {json.dumps(world.archived("signal/1")[0])}
    assert list(world.terminals.rows) == [order_id]
    assert len({request.model_dump_json() for request in world.terminals.submits}) == 1
    assert world.facts()[:2] == ["OrderCreated", "SubmitClaimed"]
    assert world.facts()[2:] == (["OutcomeUnknown"] if die is answer_lost else [])
    assert world.subjects[:3] == ["signals.accepted.EURUSD", "orders.pending.EURUSD", "orders.submitted.EURUSD"]
    assert len({headers["Nats-Msg-Id"] for _, _, headers in world.outlet.stored}) == len(world.outlet.stored)
    assert len({commit.encode() for commit in world.commits}) == len({commit.number for commit in world.commits})


async def test_a_refusal_that_was_not_published_is_published_in_the_next_life_and_once(world: DeskWorld) -> None:
    after_submit(world)
    await world.signal(sequence=7, status="pending")
    heal(world)
    await world.restart()
    await world.restart()
    await world.signal(sequence=7, status="pending")
    assert refusals(world) == [("s-1", "not_approved")]
    assert {commit.number for commit in world.commits} == {1}


async def test_a_signal_that_waited_when_its_partition_was_given_up_is_decided_when_it_comes_again() -> None:
    world = DeskWorld()
    await world.give(payload(), topics.SIGNALS_APPROVED, "signal", sequence=7)
    await asyncio.sleep(0)  # its lane waits for the worker to open
    world.store.revoke()
    world.store.recover()
    await world.start()
    await world.settled()
    assert (world.acked, world.store.commits, world.failures) == ([], [], [])
    await world.signal(sequence=7)
    assert decisions(world) == [("accepted", None)]


# --- orders of somebody else's execution service


async def test_a_foreign_order_keeps_its_id_and_becomes_ours_to_execute(connector: DeskWorld) -> None:
    not_after = NOW + timedelta(seconds=7)
    await connector.order(
        "x-1", signal_id="s-9", not_after=not_after.isoformat(), schema="order/1", rev=2, executor="foreign"
    )
    [request], created = connector.terminals.submits, connector.order_row("x-1").state.created
    assert created is not None
    assert (created.executor, created.signal_id, created.not_after) == ("ours", "s-9", not_after)
    assert (request.order_id, request.not_after) == ("x-1", not_after)
    assert connector.facts("x-1") == ["OrderCreated", "SubmitClaimed"]
    assert connector.outlet.stored == []


async def test_a_redelivered_order_changes_nothing_in_this_life_and_the_next(connector: DeskWorld) -> None:
    order = json.dumps({"order_id": "x-1", "account": ACCOUNT} | SIGNAL).encode()
    for _ in range(2):
        await connector.give(order, topics.ORDERS_SUBMITTED, "order", sequence=1)
        await connector.settled()
        connector.later(3600)
    await connector.restart()
    await connector.give(order, topics.ORDERS_SUBMITTED, "order", sequence=1)
    await connector.settled()
    assert len(connector.store.commits) == 1
    assert len(connector.acked) == 3
    assert (connector.dead_letters(), connector.outlet.stored) == ([], [])


async def test_a_duplicate_publishes_nothing_and_a_conflict_an_error_that_ends_nothing(connector: DeskWorld) -> None:
    await connector.order("x-1")
    await connector.order("x-1", volume="0.10", rev=3)
    assert connector.outlet.stored == []
    await connector.order("x-1", volume="2")
    assert errors(connector) == [("x-1", "duplicate", False)]
    assert reasons(connector) == [b"conflict"]
    assert len(connector.terminals.submits) == 1


@pytest.mark.parametrize("executor", ["theirs", 5, ["ours"]])
async def test_what_names_another_executor_is_none_of_our_business(connector: DeskWorld, executor: Any) -> None:
    await connector.order(executor=executor)
    assert (connector.store.commits, connector.producer.records) == ([], [])
    assert len(connector.acked) == 1


@pytest.mark.parametrize("executor", [None, "foreign", "ours"])
async def test_an_order_for_us_or_for_anybody_is_ours(connector: DeskWorld, executor: str | None) -> None:
    await connector.order("x-1", executor=executor)
    assert connector.order_row("x-1").executor == "ours"


@pytest.mark.parametrize(
    "changes",
    [
        {"order_type": "limit", "price": "1.08", "time_in_force": "day"},
        {"order_type": "stop", "price": "1.08"},
        {"order_type": "stop_limit", "side": "buy", "price": "1.08", "stop_limit_price": "1.07"},
    ],
)
async def test_an_order_of_every_type_is_taken_over_with_its_prices(
    connector: DeskWorld, changes: dict[str, Any]
) -> None:
    await connector.order(**changes)
    [request] = connector.terminals.submits
    known = request.parameters.model_dump(mode="json")
    assert {name: known[name] for name in changes} == changes


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"volume": "NaN"}, b"bad_field"),
        ({"symbol": None}, b"bad_field"),
        ({"order_type": "limit"}, b"bad_field"),
        ({"not_after": (NOW - timedelta(seconds=1)).isoformat()}, b"stale"),
        ({"not_after": "0001-01-01T00:00:00+14:00"}, b"bad_field"),
    ],
)
async def test_an_order_nobody_can_use_is_a_dead_letter_and_a_final_error_and_stays_refused(
    connector: DeskWorld, changes: dict[str, Any], reason: bytes
) -> None:
    await connector.order("x-1", **changes)
    await connector.order("x-1")
    # What was stale had the same parameters, so that the second one is a duplicate; the others' can't be compared.
    assert reasons(connector) == ([reason] if reason == b"stale" else [reason, b"conflict"])
    assert errors(connector)[0] == ("x-1", "invalid", True)
    assert (connector.facts(), connector.terminals.submits) == ([], [])


@pytest.mark.parametrize("order", [b"", b"5", {"order_id": None}, {"order_id": ["x"]}])
async def test_what_names_no_order_costs_nothing_but_itself(
    connector: DeskWorld, order: bytes | dict[str, Any]
) -> None:
    if isinstance(order, dict):
        order = json.dumps({"account": ACCOUNT} | SIGNAL | order).encode()
    await connector.give(order, topics.ORDERS_SUBMITTED, "order")
    await connector.order("x-1")
    assert len(connector.dead_letters()) == 1
    assert [request.order_id for request in connector.terminals.submits] == ["x-1"]


async def test_an_order_id_that_another_account_has_is_refused_and_the_order_stands(connector: DeskWorld) -> None:
    await connector.order("x-1")
    standing = connector.order_row("x-1")
    await connector.order("x-1", account=NEIGHBOUR)
    assert errors(connector) == [("x-1", "invalid", True)]
    assert reasons(connector) == [b"bad_field"]
    assert connector.order_row("x-1") == standing
    assert len(connector.terminals.submits) == 1


@pytest.mark.parametrize("cause", ["overfilled", "internal"])
async def test_an_account_that_is_halted_takes_over_nothing(connector: DeskWorld, cause: str) -> None:
    await halt(connector, cause)
    await connector.order("x-1")
    assert reasons(connector) == [b"halted"]
    assert errors(connector)[-1] == ("x-1", "invalid", True)
    assert "x-1" not in connector.terminals.rows


@pytest.mark.parametrize("given", golden("foreign-order"), ids=lambda given: str(given["order_id"]))
async def test_every_field_of_a_foreign_order_is_adopted(connector: DeskWorld, given: dict[str, Any]) -> None:
    given = given | {"account": ACCOUNT}
    await connector.give(json.dumps(given).encode(), topics.ORDERS_SUBMITTED, "order", at=NOW)
    await connector.settled()
    fact = connector.commits[0].facts[0]
    body = fact.model_dump(mode="json")["body"]
    adopted = body | body["parameters"] | {"order_id": fact.order_id, "account": fact.account, "executor": "foreign"}
    assert {name: adopted.get(name) for name in given} == given
