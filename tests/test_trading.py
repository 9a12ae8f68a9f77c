"""The trading worker as a process, on a real Kafka and NATS, with terminals that only record."""

from __future__ import annotations

import json
import signal
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from nats.js.api import DiscardPolicy

from streamapp import topics
from streamapp.clock import utc_now
from streamapp.domain.facts import BrokerAccepted, BrokerRejected
from streamapp.domain.identifiers import partition_of
from streamapp.messages.account import AccountMessage, SnapshotMessage
from streamapp.messages.command import CommandRequest
from streamapp.messages.report import Report, ReportBatch, ReportBody, ReportKind
from streamapp.settings import Role
from streamapp.subjects import MESSAGE_ID_HEADER
from streamapp.tokens import TokensFile
from tables.accounts import AccountRow, RebuildNote, account_key
from tables.rebuilding import write_store
from tables.row import is_put_away
from tables.signals import signal_key
from tests.kit.examples import deal
from tests.kit.stacks import running, running_kafka_and_nats
from tests.kit.trading_house import BREAKS, PARTITIONS, SIGNAL, TradingHouse, trading_house
from tests.kit.waiting import eventually
from tests.nats.servers import own_nats


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A Kafka and a NATS of this module: the worker's topics and streams have names of their own."""
    with running_kafka_and_nats(tmp_path_factory.mktemp("servers")) as servers:
        yield servers


@pytest.fixture
async def house(servers: tuple[str, str], tmp_path: Path) -> AsyncIterator[TradingHouse]:
    async with trading_house(*servers, tmp_path) as house:
        yield house


async def all_recorded(house: TradingHouse, orders: dict[str, str]) -> None:
    """Return when every order (id: account) is in its terminal's journal."""
    await eventually(
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
    orders = {house.order_id(name, account): account for name, account in names.items()}
    await all_recorded(house, orders)
    decisions = await eventually(lambda: house.decisions("ok-"), "decisions")
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

    await eventually(all_decided, "63 decisions")
    words = [decision.decision for decision in (await house.decisions("ok-0"))["ok-0"]]
    assert words == ["accepted", "duplicate", "conflict"]


@pytest.mark.crash
@pytest.mark.parametrize(
    "point",
    [
        "desk.before_commit@signal",
        "desk.after_commit@signal",
        "desk.after_submit",
        "desk.after_outbox",
        "publisher.after_publish",
    ],
)
async def test_a_worker_killed_at_a_named_point_loses_nothing_and_repeats_nothing(
    house: TradingHouse, point: str
) -> None:
    prefix = point.replace("@", "-")
    for terminal in house.terminals.values():
        await terminal.start()
    await house.started(STREAMAPP_CRASH_AT=f"{point}:3")
    names = {f"{prefix}-{number}": f"acc-{number % 3 + 1}" for number in range(30)}
    for name, account in names.items():
        await house.signal(name, account)
    assert await house.died() == -signal.SIGKILL
    await house.started()
    orders = {house.order_id(name, account): account for name, account in names.items()}
    await all_recorded(house, orders)

    async def all_claimed() -> bool:
        facts = await house.facts()
        return all({f.fact for f in facts.get(o, ())} >= {"OrderCreated", "SubmitClaimed"} for o in orders)

    await eventually(all_claimed, "both facts of every order")
    decisions = await house.decisions(prefix)
    assert decisions.keys() == names.keys()
    assert {decision.decision for found in decisions.values() for decision in found} == {"accepted"}
    for found in decisions.values():
        assert len({decision.model_dump_json() for decision in found}) == 1, "a redelivery said something else"


async def _armed(house: TradingHouse, kind: str) -> dict[str, str]:
    """Make the world in which an input of ``kind`` can happen; return what its worker is started with."""
    if kind == "released":
        note = RebuildNote(at=datetime.now(UTC), epoch="e1")
        row = account_key("acc-1"), AccountRow(account="acc-1", epoch="e1", rebuilt=note).encode()
        await write_store(
            house.settings, REBUILT, lambda partition: [row] if partition == partition_of("acc-1", PARTITIONS) else []
        )
    return ENVIRONMENTS.get(kind, {})


async def _provoke(house: TradingHouse, kind: str) -> str:
    """Let an input of ``kind`` happen at acc-1; return what must be held once for it (:func:`_has`)."""
    terminal = house.terminals["acc-1"]
    order_id = house.order_id("k-1")
    match kind:
        case "sweep":
            await terminal.stop()
            await eventually(lambda: _unready(house), "a terminal that is missed")
            await house.signal("k-1")
            await eventually(lambda: _has(house, f"{order_id}:created"), "the order")
            await terminal.start()
            return f"{order_id}:SubmitClaimed:1"
        case "answer":
            terminal.deaf = True
            await house.signal("k-1")
            return f"{order_id}:unknown:1:no_answer"
        case "report" | "foreign":
            return await _provoke_answer(house, kind, order_id)
        case "prune":
            await house.signal("k-1")
            return PUT_AWAY
        case "released":
            terminal.released_seq = 5
            return RELEASED
        case _:
            return await _provoke_alone(house, kind)


async def _provoke_answer(house: TradingHouse, kind: str, order_id: str) -> str:
    """Let a terminal, or somebody else's connector, say something of an order."""
    await house.signal("k-1")
    if kind == "report":
        await all_recorded(house, {order_id: "acc-1"})
        await _report(house, 1, "accepted", order_id, BrokerAccepted(ticket=7))
        return f"{order_id}:BrokerAccepted:7"
    await eventually(lambda: _has(house, f"{order_id}:SubmitClaimed:1"), "the order")
    fill = {"order_id": order_id, "account": "acc-1", "deal": 5, "volume": "0.1", "price": "1.1"}
    await house.record(topics.BROKER_REPORTS, "fill", json.dumps(fill).encode())
    return "acc-1:deal:5"


async def _provoke_alone(house: TradingHouse, kind: str) -> str:
    """Let an input happen that is one record."""
    match kind:
        case "signal":
            await house.signal("k-1")
            return f"{house.order_id('k-1')}:created"
        case "order":
            said = {"order_id": "o-1", "account": "acc-1"} | SIGNAL
            await house.record(topics.ORDERS_SUBMITTED, "order", json.dumps(said).encode())
            return "o-1:created"
        case "command":
            await _halt(house)
            return "command_result/1:done"
        case "snapshot":
            await _snapshot(house)
            return "account/1"
        case "broken":
            await house.record(topics.SIGNALS_APPROVED, "signal", BREAKS)
            return "refused/1:internal"
        case _:
            assert kind == "spoiled"
            await house.record(topics.SIGNALS_APPROVED, "signal", RUBBISH)
            return DEAD


async def _report(house: TradingHouse, seq: int, kind: ReportKind, order_id: str, body: ReportBody) -> None:
    report = Report(seq=seq, at=datetime.now(UTC), kind=kind, order_id=order_id, body=body)
    batch = ReportBatch(account="acc-1", epoch="e1", first_seq=seq, reports=(report,))
    await house.record(topics.BROKER_REPORTS, "reports", batch.encode())


async def _halt(house: TradingHouse) -> None:
    halt, subject = CommandRequest(account="acc-1", request_id="c-1"), "commands.account.halt.acc-1"
    await house.record(topics.ORDER_COMMANDS, "command", halt.encode(), subject=subject)


async def _snapshot(house: TradingHouse) -> None:
    now = datetime.now(UTC)
    state = AccountMessage(account="acc-1", connection="ready", at=now)
    snapshot = SnapshotMessage(account="acc-1", state=state, at=now)
    await house.record(topics.ACCOUNT_SNAPSHOTS, "snapshot", snapshot.encode())


async def _unready(house: TradingHouse) -> bool:
    return (await house.health())[0] == 503


async def _has(house: TradingHouse, what: str) -> bool:
    """Return whether it is there: in the store, among the dead letters, or in the archive.

    There it is a fact by its id, or a message by its schema, alone or with its reason or state.
    """
    match what:
        case _ if what == PUT_AWAY:
            return is_put_away(await house.stored(signal_key("acc-1", "k-1")) or b"")
        case _ if what == RELEASED:
            row = await house.stored(account_key("acc-1"), REBUILT)
            return row is not None and AccountRow.decode(row).watermark == 5
        case _ if what == DEAD:
            return RUBBISH in await house.read(topics.DEAD_LETTERS)
    known = set[str]()
    for commit in await house.commits():
        known |= {fact.fact_id for fact in commit.facts}
        for said in (archived.message for archived in commit.messages):
            known |= {said["schema"], f"{said['schema']}:{said.get('reason') or said.get('state')}"}
    return what in known


RUBBISH, DEAD, PUT_AWAY, RELEASED, REBUILT = b"rubbish", "a dead letter", "put away", "released", "rebuilt"
KINDS = {
    "both": (
        *("signal", "command", "report", "snapshot", "spoiled", "broken", "answer", "sweep"),
        *("released", "prune"),
    ),
    "connector": ("order",),
    "execution": ("foreign",),
}
ENVIRONMENTS = {
    "released": {"STREAMAPP_KAFKA__STORE": REBUILT},
    "prune": {"STREAMAPP_RETENTION__CLOSED_DAYS": "1e-5"},
}


@pytest.mark.crash
@pytest.mark.parametrize(("role", "kind"), [(role, kind) for role, kinds in KINDS.items() for kind in kinds])
async def test_a_worker_killed_before_and_after_a_commit_of_any_kind_of_input_makes_it_once(
    servers: tuple[str, str], tmp_path: Path, role: Role, kind: str
) -> None:
    async with trading_house(*servers, tmp_path, role=role) as house:
        if role != "execution":
            for terminal in house.terminals.values():
                await terminal.start()
        environment = await _armed(house, kind)
        app = "tests.kit.broken_trading" if kind == "broken" else "streamapp.trading"
        await house.started(app, STREAMAPP_CRASH_AT=f"desk.before_commit@{kind}", **environment)
        wanted = await _provoke(house, kind)
        assert await house.died() == -signal.SIGKILL
        house.start(app, STREAMAPP_CRASH_AT=f"desk.after_commit@{kind}", **environment)
        assert await house.died() == -signal.SIGKILL
        house.terminals["acc-1"].deaf = False
        await house.started(app, **environment)
        await eventually(lambda: _has(house, wanted), f"{wanted} is held")
        if kind == "prune":
            await house.signal("k-1")
            await eventually(lambda: _decided(house, "accepted", "duplicate"), "an answer by what was put away")
        texts = defaultdict[str, set[str]](set)
        for commit in await house.commits():
            for fact in commit.facts:
                texts[fact.fact_id].add(fact.model_dump_json())
            for archived in commit.messages:
                if archived.id is not None:
                    texts[archived.id].add(archived.model_dump_json())
        assert {name: found for name, found in texts.items() if len(found) > 1} == {}


async def _decided(house: TradingHouse, *words: str) -> bool:
    decisions = (await house.decisions("k-1")).get("k-1", [])
    return [decision.decision for decision in decisions] == [*words]


# What is published of each has its own commit: what a life says again is none of the kind at which the next one dies.
STREAMS = ("EXECUTION_IN", "EXECUTION_OUT")
PUBLISHED = ("account", "accepted", "fill", "error", "command")


@pytest.mark.crash
async def test_a_worker_killed_whenever_it_has_published_a_kind_of_message_says_each_once(house: TradingHouse) -> None:
    for terminal in house.terminals.values():
        await terminal.start()
    filled, rejected = house.order_id("p-1"), house.order_id("p-2")
    places = {name: await _last(house, name) for name in STREAMS}
    for kind in PUBLISHED:
        await house.started(STREAMAPP_CRASH_AT=f"publisher.after_publish@{kind}")
        match kind:
            case "account":
                await _snapshot(house)
            case "accepted":
                await house.signal("p-1")
            case "fill":
                await all_recorded(house, {filled: "acc-1"})
                await _report(house, 1, "deal", filled, deal(20, "0.1"))
            case "error":
                await house.signal("p-2")
                await all_recorded(house, {rejected: "acc-1"})
                no_money = BrokerRejected(attempt=1, retcode=10019, retcode_name="NO_MONEY", message="")
                await _report(house, 2, "rejected", rejected, no_money)
            case _:
                await _halt(house)
        assert await house.died() == -signal.SIGKILL, kind
        if kind != "account":  # news, which no row keeps
            house.start(STREAMAPP_CRASH_AT=f"desk.after_outbox@{kind}")
            assert await house.died() == -signal.SIGKILL, f"the next life says it again: {kind}"
    await house.started()
    await eventually(lambda: _has(house, "command_result/1:done"), "the last answer")
    words = [archived for commit in await house.commits() for archived in commit.messages if archived.id is not None]
    assert {archived.id.split(":")[1] for archived in words if archived.id is not None} >= {*PUBLISHED}
    archive = {archived.id: archived.message for archived in words}

    async def said() -> bool:
        return len(await _said(house, places)) >= len(archive)

    await eventually(said, "all of the archive on NATS")
    found = await _said(house, places)
    assert len(found) == len(archive)
    assert dict(found) == archive


async def _last(house: TradingHouse, stream: str) -> int:
    return (await house.client.jetstream().stream_info(stream)).state.last_seq


async def _said(house: TradingHouse, places: dict[str, int]) -> list[tuple[str, dict[str, Any]]]:
    """Return what the streams took in after ``places``, each with its id."""
    js, found = house.client.jetstream(), list[tuple[str, dict[str, Any]]]()
    for stream, place in places.items():
        for sequence in range(place + 1, await _last(house, stream) + 1):
            message = await js.get_msg(stream, sequence)
            found.append(((message.headers or {})[MESSAGE_ID_HEADER], json.loads(message.data or b"")))
    return found


async def signals_beyond_the_bound(house: TradingHouse) -> None:
    """Send 20 signals whose refusals, of 40 kB each, are more than an account may leave unsaid; see its lane wait."""
    for number in range(20):
        await house.signal(f"bad-{number}", volume="0", metadata={"note": "x" * 40_000})
    await eventually(lambda: house.complains("its lane waits"), "a health that names the waiting lane", 60)
    assert len(await house.decisions("bad-")) < 20


async def all_said(house: TradingHouse) -> None:
    """Return when all of them are on NATS and in the archive."""

    async def said() -> bool:
        stream = await house.client.jetstream().stream_info("EXECUTION_OUT", subjects_filter=">")
        refused = (stream.state.subjects or {}).get("signals.refused.EURUSD", 0)
        return refused == len(await house.decisions("bad-")) == 20

    await eventually(said, "20 refusals on NATS and in the archive", 60)


async def test_while_nats_is_away_lanes_wait_beyond_the_bound_say_so_and_nothing_is_lost(
    servers: tuple[str, str], tmp_path: Path
) -> None:
    spec = own_nats(tmp_path)
    with running(spec, tmp_path) as server:
        async with trading_house(servers[0], spec.address, tmp_path) as house:
            for terminal in house.terminals.values():
                await terminal.start()
            await house.started()
            server.kill()
            await signals_beyond_the_bound(house)
            with running(spec, tmp_path):
                await eventually(house.is_ready, "a worker that is ready again", 90)
                await all_said(house)


async def test_while_the_stream_is_full_orders_go_on_to_the_bound_and_nothing_is_lost(
    servers: tuple[str, str], tmp_path: Path
) -> None:
    spec = own_nats(tmp_path)
    with running(spec, tmp_path):
        async with trading_house(servers[0], spec.address, tmp_path) as house:
            for terminal in house.terminals.values():
                await terminal.start()
            await house.started()
            js = house.client.jetstream()
            config = (await js.stream_info("EXECUTION_OUT")).config
            await js.update_stream(replace(config, discard=DiscardPolicy.NEW, max_bytes=1))
            await house.signal("good-1", account="acc-1")
            await all_recorded(house, {house.order_id("good-1"): "acc-1"})
            await eventually(lambda: house.complains("maximum bytes exceeded"), "a health with JetStream's reason", 60)
            await signals_beyond_the_bound(house)
            await js.update_stream(config)
            await all_said(house)
            await eventually(house.is_ready, "a worker that is ready again", 60)


async def test_an_absent_terminal_holds_its_own_account_only_and_what_is_late_is_refused(house: TradingHouse) -> None:
    present, absent = house.terminals["acc-1"], house.terminals["acc-2"]
    for terminal in house.terminals.values():
        await terminal.start()
    await house.started()
    await absent.stop()

    async def unhealthy() -> bool:
        status, body = await house.health()
        return status == 503 and any("acc-2" in reason for reason in body["reasons"])

    await eventually(unhealthy, "a health that names the silent terminal")
    soon = datetime.now(UTC) + timedelta(seconds=2)
    await house.signal("h-late", "acc-2", valid_until=soon.isoformat())
    await house.signal("h-kept", "acc-2")
    await house.signal("h-other", "acc-1")
    late, kept, other = (
        house.order_id(f"h-{n}", a) for n, a in (("late", "acc-2"), ("kept", "acc-2"), ("other", "acc-1"))
    )
    await all_recorded(house, {other: "acc-1"})

    async def refused() -> bool:
        return "SubmitRefused" in {fact.fact for fact in (await house.facts()).get(late, ())}

    await eventually(refused, "the refusal of the late order")
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
    order_id = house.order_id("e-1", "acc-3")
    await all_recorded(house, {order_id: "acc-3"})
    terminal.rows.clear()
    terminal.epoch = "e2"
    await all_recorded(house, {order_id: "acc-3"})
    assert terminal.rows[order_id].state == "doubt"
    assert [epoch for name, epoch in terminal.epochs if name == order_id] == ["e1", "e1"]


async def test_a_worker_that_is_stopped_with_orders_in_flight_ends_well_and_the_next_one_finishes_them(
    house: TradingHouse,
) -> None:
    for terminal in house.terminals.values():
        terminal.deaf = True
        await terminal.start()
    await house.started()
    orders = {house.order_id(f"f-{account}", account): account for account in house.terminals}
    for account in house.terminals:
        await house.signal(f"f-{account}", account)
    await eventually(lambda: all(house.terminals[at].submits[name] for name, at in orders.items()), "submits")
    assert await house.stopped() == 0
    for terminal in house.terminals.values():
        terminal.deaf = False
    await house.started()
    await all_recorded(house, orders)
    facts = await house.facts()
    assert all([fact.fact for fact in facts[name]].count("OrderCreated") == 1 for name in orders)


async def test_a_command_over_http_is_in_its_stream_and_a_broken_tokens_file_in_the_health(
    house: TradingHouse, tmp_path: Path
) -> None:
    file = TokensFile(tmp_path / "tokens")
    headers = {"Authorization": f"Bearer {file.add('anna', 'trade', utc_now())}"}
    for terminal in house.terminals.values():
        await terminal.start()
    await house.started(STREAMAPP_WEB__TOKENS_FILE=str(file.path))
    halt = {"account": "acc-1", "request_id": "r-1"}
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{house.url}/commands/account.halt", json=halt) as answer:
            assert answer.status == 401
        async with session.post(f"{house.url}/commands/account.halt", json=halt, headers=headers) as answer:
            assert answer.status == 202
            stored = await answer.json()
        message = await house.client.jetstream().get_msg("EXECUTION_IN", stored["stream_seq"])
        assert message.subject == "commands.account.halt.acc-1"
        assert CommandRequest.decode(message.data or b"").issued_by == "anna"
        async with session.get(f"{house.url}/router/", headers={"Authorization": "Bearer wrong"}) as answer:
            assert answer.status == 401  # Faust's own pages as well
        with file.path.open("a") as lines:
            lines.write("nonsense\n")
        assert await house.complains("line 3: expected NAME ROLE")
        async with session.post(f"{house.url}/commands/account.halt", json=halt, headers=headers) as answer:
            assert answer.status == 503
