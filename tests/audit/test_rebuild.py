"""``streamapp rebuild`` on a real Kafka, from the archive of a worker that traded, and what a worker makes of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from streamapp import topics
from streamapp.audit.rebuild import rebuild
from streamapp.domain.facts import BrokerAccepted
from streamapp.errors import ConfigurationError, Transient
from streamapp.kafka.abort import CONFIGURATION
from streamapp.kafka.admin import existing_topics, live_members
from streamapp.kafka.security import Cluster
from streamapp.local.ports import free_port
from streamapp.messages.commit import encode_commit
from streamapp.messages.report import Report, ReportBatch
from streamapp.settings import KafkaSettings, Settings
from tables.adoption import read_log
from tables.rebuilding import write_store
from tests.kafka.workers import send_only
from tests.kit.examples import START, deal
from tests.kit.stacks import running_kafka_and_nats
from tests.kit.trading_house import PARTITIONS, TradingHouse, trading_house
from tests.kit.waiting import eventually

SHORT_SESSIONS = {"STREAMAPP_KAFKA__SESSION_TIMEOUT_S": "6"}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A Kafka and a NATS of this module."""
    with running_kafka_and_nats(tmp_path_factory.mktemp("servers")) as servers:
        yield servers


@pytest.fixture
async def house(servers: tuple[str, str], tmp_path: Path) -> AsyncIterator[TradingHouse]:
    async with trading_house(*servers, tmp_path) as house:
        yield house


async def report(house: TradingHouse, first_seq: int, *reports: tuple[str, str, Any], account: str = "acc-1") -> None:
    batch = ReportBatch(
        account=account,
        epoch="e1",
        first_seq=first_seq,
        reports=tuple(
            Report(seq=seq, at=START, kind=kind, order_id=order_id, body=body)
            for seq, (kind, order_id, body) in enumerate(reports, start=first_seq)
        ),
    )
    await house.record(topics.BROKER_REPORTS, "reports", batch.encode(), account)


async def archived(house: TradingHouse, *facts: str) -> None:
    """Return when the archive has these facts."""

    async def there() -> bool:
        return set(facts) <= {fact.fact_id for several in (await house.facts()).values() for fact in several}

    await eventually(there, f"{facts} in the archive")


async def gone(house: TradingHouse) -> None:
    """Kill the worker, and return when Kafka counts it no more."""
    house.kill()
    group = topics.app_id(house.settings.deployment, "trading")

    async def nobody() -> bool:
        return await live_members(house.settings.kafka_bootstrap, group) == 0

    await eventually(nobody, f"no member of {group}", 60)


async def rows_of(house: TradingHouse, store: str | None = None) -> dict[bytes, Any]:
    """Return the orders, positions and signals that a store's changelog has."""
    rows: dict[bytes, Any] = {}
    for partition in range(PARTITIONS):
        tp = TopicPartition(topics.changelog(house.settings.deployment, "desk", store), partition)
        log = await read_log(Cluster.of(house.settings), tp)
        rows |= {key: json.loads(value) for key, (value, _) in log.newest.items() if key[:2] in {b"s/", b"o/", b"p/"}}
    return rows


async def lose_changelog(house: TradingHouse) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=house.settings.kafka_bootstrap)
    await admin.start()
    try:
        name = topics.changelog(house.settings.deployment, "desk")
        await admin.delete_topics([name])

        async def is_gone() -> bool:
            return name not in await admin.list_topics()

        await eventually(is_gone, "the changelog's end")
    finally:
        await admin.close()


async def traded(house: TradingHouse) -> dict[bytes, Any]:
    """Let a worker trade and die, and return its rows."""
    for terminal in house.terminals.values():
        await terminal.start()
    await house.started(**SHORT_SESSIONS)
    names = {f"s-{number}": f"acc-{number % 3 + 1}" for number in range(9)}
    for name, account in names.items():
        await house.signal(name, account)
    await house.signal("s-0", volume="5")
    await house.signal("s-bad", volume="NaN")
    filled, working = house.order_id("s-0"), house.order_id("s-3")
    await report(
        house,
        1,
        ("accepted", filled, BrokerAccepted(ticket=7)),
        ("deal", filled, deal(20, "0.1")),
        ("accepted", working, BrokerAccepted(ticket=8)),
    )
    claims = [f"{house.order_id(name, account)}:SubmitClaimed:1" for name, account in names.items()]
    await archived(house, *claims, "acc-1:deal:20", f"{working}:BrokerAccepted:8")

    async def decided() -> bool:
        return sum(map(len, (await house.decisions("s-")).values())) == 11

    await eventually(decided, "11 decisions")
    await gone(house)
    return await rows_of(house)


async def view(house: TradingHouse, path: str) -> dict[str, Any]:
    async with aiohttp.ClientSession() as http, http.get(f"{house.url}{path}") as answer:
        return dict(await answer.json())


async def test_a_lost_changelog_is_made_again_and_a_worker_goes_on_with_it(house: TradingHouse) -> None:
    rows = await traded(house)
    await lose_changelog(house)
    rebuilt = await rebuild(house.settings, "2", opening=["acc-1"])
    assert await rows_of(house, "2") == rows
    assert rebuilt.rows == {"accounts": 3, "orders": 9, "positions": 1, "signals": 10}
    assert (rebuilt.halted, rebuilt.undecided, rebuilt.faults) == (("acc-2", "acc-3"), (), ())

    submits = {account: dict(terminal.submits) for account, terminal in house.terminals.items()}
    await house.started(**SHORT_SESSIONS, STREAMAPP_KAFKA__STORE="2")
    await house.signal("s-0")
    await house.signal("new")
    await house.signal("held-back", "acc-2")
    new = house.order_id("new")
    await archived(house, f"{new}:SubmitClaimed:1")
    decisions = await eventually(lambda: house.decisions("held-back"), "a decision")
    [refused] = decisions["held-back"]
    assert (refused.decision, refused.reason) == ("refused", "halted")
    assert refused.detail
    assert "rebuilt from the archive" in refused.detail
    words = [each.decision for each in (await house.decisions("s-0"))["s-0"]]
    # The conflict of the first life comes again with its topic, and is answered as it was.
    assert words[0] == "accepted"
    assert set(words[1:]) == {"conflict", "duplicate"}
    order = await view(house, f"/orders/{house.order_id('s-0')}")
    assert (order["status"], Decimal(order["filled_volume"])) == ("filled", Decimal("0.1"))
    [position] = (await view(house, "/positions?account=acc-1"))["positions"]
    assert (position["position_id"], Decimal(position["volume"])) == (7, Decimal("0.1"))
    with pytest.raises(ConfigurationError, match="trading-2 has 1 live members: stop every trading worker first"):
        await rebuild(house.settings, "3")
    await eventually(lambda: new in house.terminals["acc-1"].rows, "the new order at its terminal")
    for account, terminal in house.terminals.items():
        made = set(terminal.rows) - {new}
        assert made == submits[account].keys()
        assert set(terminal.submits) - {new} == submits[account].keys()


# --- what is refused


async def said(house: TradingHouse, *commits: bytes, account: str = "acc-1") -> None:
    """Put these records into the archive."""
    for commit in commits:
        await house.producer.send(topics.ARCHIVE, account.encode(), commit, headers={})


def commit(number: int, account: str = "acc-1") -> bytes:
    return encode_commit(account, number, START, (), ())


async def refused(settings: Settings, store: str, words: str, **options: Any) -> None:
    with pytest.raises(ConfigurationError, match=words):
        await rebuild(settings, store, **options)
    bootstrap = settings.kafka_bootstrap
    assert topics.changelog(settings.deployment, "desk", store) not in await existing_topics(bootstrap)


async def test_an_archive_that_is_not_whole_is_refused_unless_a_person_allows_it(house: TradingHouse) -> None:
    await refused(house.settings, "2", "expected commits in the archive, got none")
    await said(house, commit(3), commit(4))
    await said(house, commit(1, "acc-2"), account="acc-2")
    await refused(house.settings, "2", "commit 1 of acc-1: missing: expected commit 1 to 2, got 3 after 0")
    allowed: dict[str, Any] = {"allow_missing": True}
    await refused(house.settings, "2", "accounts whose archive is whole, got acc-1", opening=["acc-1"], **allowed)
    await refused(house.settings, "2", r"accounts that are known \(acc-1, acc-2, acc-3\), got acc-9", opening=["acc-9"])
    rebuilt = await rebuild(house.settings, "2", opening=["acc-2"], **allowed)
    assert [fault.kind for fault in rebuilt.faults] == ["missing"]
    assert (rebuilt.halted, rebuilt.numbers) == (("acc-1", "acc-3"), {"acc-1": 4, "acc-2": 1, "acc-3": 0})


async def test_what_this_version_can_not_read_is_refused_with_its_place(house: TradingHouse) -> None:
    await said(house, commit(1), commit(2).replace(b"commit/1", b"commit/9"))
    words = "offset 1: expected commit/1, got what is .*rebuild with that one"
    await refused(house.settings, "2", words, allow_missing=True)


async def test_only_a_store_that_is_not_yet_is_made(house: TradingHouse) -> None:
    await said(house, commit(1))
    await rebuild(house.settings, "2")
    with pytest.raises(ConfigurationError, match="trading-2-desk-changelog is not empty: choose another name"):
        await rebuild(house.settings, "2")
    living = house.settings.model_copy(update={"kafka": house.settings.kafka.model_copy(update={"store": "3"})})
    await refused(living, "3", "3 is the living one's")
    await refused(living, "no name", "expected 1 to 32 letters, digits or _, got 'no name'")
    await refused(living.model_copy(update={"role": "connector"}), "4", "role: expected both or execution")
    with pytest.raises(ConfigurationError, match="--may-open: expected none with --until"):
        await rebuild(living, "4", until=START, opening=["acc-1"])


async def test_a_store_of_an_earlier_moment_takes_every_number_and_opens_nothing(house: TradingHouse) -> None:
    await said(house, commit(1), commit(2))
    rebuilt = await rebuild(house.settings, "2", until=START - timedelta(hours=1))
    assert (rebuilt.left_out, rebuilt.numbers["acc-1"]) == (2, 2)
    assert set(rebuilt.halted) == house.settings.accounts.keys()


async def test_a_kafka_that_does_not_answer_is_named() -> None:
    bootstrap = f"127.0.0.1:{free_port()}"
    with pytest.raises(Transient, match=f"Kafka at {bootstrap} does not answer"):
        await rebuild(Settings(kafka=KafkaSettings(bootstrap=bootstrap)), "2")


async def test_a_store_that_was_not_finished_is_started_by_no_worker(
    house: TradingHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_only(monkeypatch, PARTITIONS + 1)
    with pytest.raises(Transient, match="does not answer"):
        await write_store(house.settings, "2", lambda partition: [(b"o/%d" % partition, b"{}")])
    monkeypatch.undo()
    house.start(STREAMAPP_KAFKA__STORE="2")
    assert await house.died() == CONFIGURATION
    assert "was begun by `streamapp rebuild` and not finished" in (house.folder / "trading.log").read_text()


async def test_rows_that_are_not_read_back_as_they_were_written_make_no_store(house: TradingHouse) -> None:
    reads = iter(range(100))

    def rows(partition: int) -> list[tuple[bytes, bytes]]:
        return [(b"o/1", b"%d" % next(reads))]

    with pytest.raises(ConfigurationError, match="expected to read back what was written, got 1 other and 0 more rows"):
        await write_store(house.settings, "2", rows)
