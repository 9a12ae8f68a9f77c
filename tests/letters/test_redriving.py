"""Which dead letters may be sent again, as what, and why the others must not be."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from streamapp import topics
from streamapp.errors import Unusable
from streamapp.kafka.producer import Record
from streamapp.letters.letter import KeptLetter
from streamapp.letters.redriving import record_again, why_not
from streamapp.mirror.routing import Arrival, MirrorRecord, RoutingRules, route
from streamapp.settings import AccountSettings, ExecutionSettings, Settings
from tests.kit.desk import DeskWorld
from tests.kit.letters import HOSTILE, SIGNAL, SUBJECT, THEIRS
from tests.kit.records import NOW

SETTINGS = Settings(accounts={"a": AccountSettings(login=1)})
MENDED = SETTINGS.model_copy(update={"execution": ExecutionSettings(field_names={"signal_id": "id"})})


def letter(
    payload: Any = SIGNAL, *, subject: str = SUBJECT, source: str = "EXECUTION_IN", **changes: Any
) -> KeptLetter:
    said = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    found = KeptLetter("0-0", None, said, "no_signal_id", "none", source, subject, 7, len(said), "", NOW)
    return replace(found, **changes)


def refusal(of: KeptLetter, settings: Settings = SETTINGS, now: datetime = NOW) -> tuple[str, str]:
    with pytest.raises(Unusable) as refused:
        record_again(of, settings, now)
    return refused.value.reason, refused.value.detail


def test_a_signal_comes_in_again_as_mirror_would_have_brought_it_with_its_place_and_time() -> None:
    again = record_again(letter(THEIRS), MENDED, NOW + timedelta(seconds=20))
    arrival = Arrival(SUBJECT, json.dumps(THEIRS).encode(), "EXECUTION_IN", 7, NOW)
    first = route(arrival, RoutingRules.of(MENDED))
    assert isinstance(first, MirrorRecord)
    assert again == Record(first.topic, first.key, first.value, first.headers, first.partition)
    assert (again.topic, again.key) == (topics.SIGNALS_APPROVED, b"a")


def test_one_without_an_account_comes_in_by_way_of_completion() -> None:
    assert record_again(letter({"signal_id": "s-1"}), SETTINGS, NOW).topic == topics.INCOMPLETE


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (letter(THEIRS), ("still_unusable", "it would be a dead letter again, no_signal_id: signal_id: expected")),
        (letter(b"\xff\xfe"), ("still_unusable", "it would be a dead letter again, not_json: expected JSON")),
        (letter(HOSTILE), ("still_unusable", "it would be a dead letter again, not_json: expected JSON")),
        (letter({**SIGNAL, "Symbol": "X"}), ("still_unusable", "it would be refused again, bad_field: 'Symbol'")),
        (letter({**SIGNAL, "volume": -1}), ("still_unusable", "it would be refused, bad_field: volume")),
        (letter(length=90_000), ("cut", "expected the whole message")),
        (
            letter({**SIGNAL, "intent": "close", "side": None, "volume": None}),
            ("place_matters", "it is not sent again"),
        ),
        (letter(subject="orders.submitted.EURUSD"), ("not_redrivable", "its execution service was told")),
        (letter(subject="broker.fill.EURUSD"), ("not_redrivable", "its connector was told")),
        (letter(subject="broker.error.EURUSD"), ("not_redrivable", "its connector was told")),
        (letter(subject="commands.account.halt.a"), ("not_redrivable", "a command is given again")),
        (
            letter(subject="mt5.report.a", source=topics.BROKER_REPORTS),
            ("not_redrivable", "count in their order alone"),
        ),
        (letter(subject="mt5.log.a"), ("not_redrivable", "the broker log is a chain")),
        (letter(subject="mt5.snapshot.a"), ("not_redrivable", "newer ones have been taken")),
        (letter(subject="orders.filled.EURUSD", source="outbox"), ("not_redrivable", "nobody sent it")),
        (letter(subject="", source=topics.ARCHIVE), ("not_redrivable", "nobody sent it")),
        (letter(subject="weather.today"), ("not_redrivable", "nobody here reads what comes from 'weather.today'")),
    ],
)
def test_what_must_not_come_in_again_or_would_be_of_no_use_is_refused_in_words(
    found: KeptLetter, why: tuple[str, str]
) -> None:
    reason, detail = refusal(found)
    assert (reason, why[1] in detail) == (why[0], True), detail
    expected = None if reason == "cut" else detail
    assert why_not(found, SETTINGS, NOW) == expected


def test_a_connector_reads_no_signals() -> None:
    connector = SETTINGS.model_copy(update={"role": "connector"})
    assert refusal(letter(), connector)[0] == "not_redrivable"


@pytest.mark.parametrize(
    ("said", "held_s"),
    [({}, 30), ({"approved_at": "2026-11-20T11:59:50Z"}, 20), ({"valid_until": "2026-11-20T12:05:00Z"}, 300)],
)
def test_its_age_counts_from_when_it_was_approved_or_came_first_and_not_from_now(
    said: dict[str, Any], held_s: float
) -> None:
    found = letter({**SIGNAL, **said})
    record_again(found, SETTINGS, NOW + timedelta(seconds=held_s - 1))
    reason, detail = refusal(found, now=NOW + timedelta(seconds=held_s))
    assert reason == "stale"
    assert detail.endswith("its sender must send a new one")


async def test_the_desk_makes_one_order_of_it_however_often_it_comes_in_again() -> None:
    world = await DeskWorld(SETTINGS).start()
    again = record_again(letter(), SETTINGS, world.clock.now)
    for _ in range(3):
        await world.give(again.value, again.topic, "signal", sequence=7, headers=dict(again.headers), at=NOW)
        await world.settled()
    assert (len(world.terminals.submits), world.failures, len(world.acked)) == (1, [], 3)
    assert [accepted["stream_seq"] for accepted in world.published("accepted/1")] == [7]
