"""The mirror on a real NATS and a real Kafka: nothing lost, nothing out of order, whatever is killed or frozen."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from streamapp import topics
from streamapp.messages.routing import Family
from streamapp.settings import Role
from tests.mirror.worlds import World, becomes, first_sights, signal_for, world
from tests.nats.servers import publish_raw

ACCOUNTS = [f"account-{number}" for number in range(5)]


@pytest.fixture
async def here(tmp_path: Path, kafka_bootstrap: str) -> AsyncIterator[World]:
    async with world(tmp_path, kafka_bootstrap) as made:
        yield made


async def say(here: World, first: int, count: int) -> None:
    """Publish as a risk engine without JetStream would."""
    for number in range(first, first + count):
        await here.client.publish("signals.approved.EURUSD", signal_for(ACCOUNTS[number % 5], number))
    await here.client.flush()


def assert_in_order(sights: dict[bytes, list[int]], total: int) -> None:
    assert sights == {name.encode(): list(range(at, total, 5)) for at, name in enumerate(ACCOUNTS)}


async def test_every_message_is_in_kafka_with_the_streams_time_before_it_is_acknowledged(here: World) -> None:
    mirror = await here.mirror().start()
    await mirror.ready()
    await say(here, 0, 500)
    await here.all_mirrored(500)
    records = await here.records(500, topics.SIGNALS_APPROVED)
    assert len(records) == 500
    assert_in_order(first_sights(records), 500)
    one = min(records, key=lambda record: json.loads(record.value)["n"])
    raw = await here.client.jetstream().get_msg("EXECUTION_IN", seq=1)
    assert raw.time is not None
    assert one.timestamp == int(raw.time.timestamp() * 1000)
    assert dict(one.headers)["nats-stream-seq"] == b"1"
    mirror.send(signal.SIGTERM)
    assert await mirror.exit_code() == 0
    assert await here.pending() == 0


async def test_nothing_is_lost_and_order_is_kept_over_kills_at_any_moment(here: World) -> None:
    chance, total = random.Random(7), 4000
    publishing = asyncio.create_task(_slowly(here, total))
    crashes = ["mirror.after_kafka_ack:3", "mirror.after_kafka_ack:9"]
    for round_ in range(6):
        environment = {"STREAMAPP_CRASH_AT": crashes[round_]} if round_ < len(crashes) else {}
        mirror = await here.mirror(**environment).start()
        if environment:
            assert await mirror.exit_code() == -signal.SIGKILL
        else:
            await mirror.ready()
            await asyncio.sleep(chance.uniform(0, 0.4))
            await mirror.kill()
    await publishing
    last = await here.mirror().start()
    await here.all_mirrored(total)
    records = await here.records(total, topics.SIGNALS_APPROVED)
    assert_in_order(first_sights(records), total)
    await last.kill()


OF_ORDER = b'{"order_id": "o-1", "account": "account-1"}'
OF_ACCOUNT = b'{"account": "account-1"}'
# By its family, each with a role that takes it; what one life leaves unacknowledged is the next one's to take as well.
FAMILIES: dict[Family, tuple[Role, str, bytes]] = {
    "signal": ("both", "signals.approved.EURUSD", signal_for("account-1", 1)),
    "fill": ("both", "broker.fill.EURUSD", OF_ORDER),
    "error": ("both", "broker.error.EURUSD", OF_ORDER),
    "command": ("both", "commands.account.halt.account-1", b'{"request_id": "r-1", "account": "account-1"}'),
    "reports": ("both", "mt5.report.account-1", OF_ACCOUNT),
    "log": ("both", "mt5.log.account-1", OF_ACCOUNT),
    "snapshot": ("both", "mt5.snapshot.account-1", OF_ACCOUNT),
    "order": ("connector", "orders.submitted.EURUSD", OF_ORDER),
}


@pytest.mark.crash
async def test_a_message_of_any_family_whose_acknowledgement_a_kill_prevented_is_mirrored_again(here: World) -> None:
    for family, (role, subject, payload) in FAMILIES.items():
        await here.client.jetstream().publish(subject, payload)
        armed = {"STREAMAPP_CRASH_AT": f"mirror.after_kafka_ack@{family}", "STREAMAPP_ROLE": role}
        killed = await here.mirror(**armed).start()
        assert await killed.exit_code() == -signal.SIGKILL, family
    last = await here.mirror(STREAMAPP_ROLE="connector").start()
    await here.all_mirrored(len(FAMILIES) - 1)
    await here.all_mirrored(1, "ACCOUNT_SNAPSHOTS")
    sights = Counter(
        (dict(record.headers)[topics.FAMILY].decode(), record.value) for record in await here.all_records()
    )
    assert sights.keys() == {(family, payload) for family, (_, _, payload) in FAMILIES.items()}
    assert min(sights.values()) > 1
    await last.kill()


async def _slowly(here: World, total: int) -> None:
    for first in range(0, total, 20):
        await say(here, first, 20)
        await asyncio.sleep(0.02)


async def test_a_second_mirror_stands_by_and_takes_over_when_the_first_is_killed_or_stopped(here: World) -> None:
    first = await here.mirror().start()
    await first.ready()
    second = await here.mirror().start()
    await second.ready("standby")
    assert second.health()["code"] == 200
    assert "streamapp_mirror_active 0.0" in second.metrics()
    await first.kill()
    await second.ready()
    third = await here.mirror().start()
    await third.ready("standby")
    second.send(signal.SIGTERM)
    assert await second.exit_code() == 0
    await third.ready()
    await say(here, 0, 50)
    await here.all_mirrored(50)
    await third.kill()


async def test_a_mirror_that_was_frozen_wakes_and_disturbs_nothing(here: World) -> None:
    frozen = await here.mirror().start()
    await frozen.ready()
    publishing = asyncio.create_task(_slowly(here, 2000))
    await becomes(lambda: 'mirrored_total{stream="EXECUTION_IN"' in frozen.metrics())
    frozen.send(signal.SIGSTOP)
    other = await here.mirror().start()
    await other.ready()
    frozen.send(signal.SIGCONT)
    await frozen.ready("standby")
    await publishing
    await here.all_mirrored(2000)
    assert_in_order(first_sights(await here.records(2000, topics.SIGNALS_APPROVED)), 2000)
    await other.kill()
    await frozen.ready()
    await frozen.kill()


BAD: list[tuple[str, bytes, str]] = [
    ("signals.approved.EURUSD", b"not json", "not_json"),
    ("signals.approved.EURUSD", b'"text"', "not_an_object"),
    ("signals.approved.EURUSD", b'{"signal_id": "s", "account": "a", "volume": NaN}', "not_json"),
    ("signals.approved.EURUSD", b'{"account": "a", "symbol": "EURUSD"}', "no_signal_id"),
    ("signals.approved.EURUSD", b'{"signal_id": "s", "account": "a", "x": "' + b"x" * 900_000 + b'"}', "too_long"),
    ("broker.fill.EURUSD", b'{"volume": "1"}', "no_order_id"),
    ("mt5.report.x", b"{}", "no_account"),
    ("commands.order.cancel.EURUSD", b'{"request_id": "r-1"}', "no_account"),
]
GOOD_ENOUGH: list[dict[str, Any]] = [
    {"volume": "-1"},
    {"volume": 0},
    {"volume": "1e400"},
    {"volume": []},
    {"symbol": "US 500.x*>"},
    {"symbol": "NOSUCH"},
    {"price": "-5"},
    {"valid_until": "2000-01-01T00:00:00Z"},
    {"approved_at": "2999-01-01T00:00:00Z"},
    {"account": "nobody"},
]


async def test_each_bad_input_goes_where_the_table_says_and_the_next_good_one_passes(here: World) -> None:
    mirror = await here.mirror().start()
    for subject, payload, _ in BAD:
        await here.client.publish(subject, payload)
    for number, fields in enumerate(GOOD_ENOUGH):
        await here.client.publish("signals.approved.X", signal_for("account-9", number, **fields))
    await here.client.publish("signals.approved.X", b'{"signal_id": "s-without-account"}')
    for poison in (b"signals.approved.\xff", b"signals.approved.a\x0bb", b"signals.approved.a*b"):
        await publish_raw(here.settings.nats_url, poison, b"{}", b"NATS/1.0 404 No Messages\r\n\r\n")
        await publish_raw(here.settings.nats_url, poison, b"{}", b"NATS/1.0\r\nStatus: 404\r\n\r\n")
    await say(here, 0, 1)
    await here.all_mirrored(len(BAD) + len(GOOD_ENOUGH) + 8)
    answered = [reason for subject, _, reason in BAD if subject.startswith(("signals.", "commands."))]
    dead = await here.records(len(BAD) - len(answered), topics.DEAD_LETTERS)
    incomplete = await here.records(len(answered) + 6 + 1, topics.INCOMPLETE)
    unusable = [record for record in incomplete if record.key is None]
    reasons = {dict(record.headers)["reason"].decode() for record in (*dead, *unusable)}
    assert reasons == {reason for _, _, reason in BAD}
    long = next(letter for letter in unusable if dict(letter.headers)["reason"] == b"too_long")
    assert len(long.value) == 65536
    assert int(dict(long.headers)["length"]) > 900_000
    assert len(await here.records(len(GOOD_ENOUGH) + 1, topics.SIGNALS_APPROVED)) == len(GOOD_ENOUGH) + 1
    assert [record.key for record in incomplete if record.key is not None] == [b"s-without-account"]
    assert 'dead_letters_total{reason="no_account",stream="EXECUTION_IN"} 1.0' in mirror.metrics()
    await mirror.kill()


async def test_our_own_words_are_dropped_and_a_strangers_are_not(here: World) -> None:
    mirror = await here.mirror().start()
    ours = {"Streamapp-Origin": f"{here.settings.deployment}/both"}
    for headers in (ours, {"Streamapp-Origin": "other/both"}, None):
        await here.client.publish("broker.fill.EURUSD", b'{"order_id": "o-1", "account": "a"}', headers=headers)
    await here.client.publish("mt5.report.a", b'{"account": "a"}', headers=ours)
    await here.all_mirrored(4)
    assert len(await here.records(3, topics.BROKER_REPORTS)) == 3
    assert 'dropped_total{reason="own_origin",stream="EXECUTION_IN"} 1.0' in mirror.metrics()
    await mirror.kill()


async def test_snapshots_are_mirrored_beside_the_other_stream(here: World) -> None:
    mirror = await here.mirror().start()
    for number in range(5):
        await here.client.publish("mt5.snapshot.account-1", signal_for("account-1", number))
    await here.all_mirrored(5, "ACCOUNT_SNAPSHOTS")
    records = await here.records(1, topics.ACCOUNT_SNAPSHOTS)
    assert json.loads(records[-1].value)["n"] <= 4
    await mirror.ready()
    await mirror.kill()


async def test_messages_that_expired_before_they_were_mirrored_are_an_alarm(here: World) -> None:
    mirror = await here.mirror().start()
    await mirror.ready()
    await say(here, 0, 10)
    await here.all_mirrored(10)
    mirror.send(signal.SIGTERM)
    assert await mirror.exit_code() == 0
    await say(here, 10, 10)
    await here.client.jetstream().purge_stream("EXECUTION_IN", seq=16)
    again = await here.mirror().start()
    await again.ready("unhealthy")
    health = again.health()
    assert health["lost"]["EXECUTION_IN"] == 5
    assert "5 messages expired before they were mirrored" in health["reasons"][0]
    assert 'expired_total{stream="EXECUTION_IN"} 5.0' in again.metrics()
    await again.kill()


async def test_where_nothing_was_initialised_it_stays_up_and_says_what_is_missing(here: World) -> None:
    js = here.client.jetstream()
    await js.delete_stream("ACCOUNT_SNAPSHOTS")
    mirror = await here.mirror().start()
    await becomes(lambda: "stream ACCOUNT_SNAPSHOTS is missing" in str(mirror.health()))
    assert mirror.health()["code"] == 503
    mirror.send(signal.SIGTERM)
    assert await mirror.exit_code() == 0
