"""``streamapp dead-letters`` as people run it, on a real Kafka."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from streamapp import topics
from streamapp.clock import utc_now
from tests.commands.running import Done, run_here
from tests.kit.letters import HOSTILE, SIGNAL, THEIRS, LetterHouse, letter_house

MENDED = {"STREAMAPP_EXECUTION__FIELD_NAMES": json.dumps({"signal_id": "id"})}
BY_ANNA = ("--by", "anna", "--reason", "field_names set")


@pytest.fixture
async def house(kafka_bootstrap: str) -> AsyncIterator[LetterHouse]:
    async with letter_house(kafka_bootstrap) as house:
        yield house


async def letters(house: LetterHouse, *arguments: str, typed: str = "", **environment: str) -> Done:
    return await run_here("dead-letters", *arguments, typed=typed, **house.environment, **environment)


async def test_a_person_reads_what_each_is_and_what_to_do_and_nothing_in_it_moves_the_terminal(
    house: LetterHouse,
) -> None:
    now = utc_now()
    old = await house.bury(b"\x1b[2J\xff", "not_json", sequence=3, at=now - timedelta(hours=2))
    new = await house.bury({**SIGNAL, "signal_id": ""}, sequence=4, at=now)
    hostile = await house.bury(HOSTILE, "not_json", subject="commands.\x1b]0;x.a", sequence=5, at=now)
    done = await letters(house, "list")
    assert done.code == 0
    assert "\x1b" not in done.out
    shown = done.out.splitlines()
    assert shown[-1] == "3 dead letters"
    at = next(number for number, line in enumerate(shown) if line.startswith(f"{new}  "))
    assert shown[at].endswith("open  from signals.approved.EURUSD (message 4)")
    assert shown[at + 1] == "    nothing says which signal it is (no_signal_id): detail of no_signal_id"
    assert shown[at + 2] == "    account a  symbol EURUSD"
    assert shown[at + 4].startswith("    Its sender was told on signals.refused.")
    recent = await letters(house, "list", "--since", "1h", "--json")
    assert {row["id"] for row in recent.json["dead_letters"]} == {new, hostile}
    one = await letters(house, "list", "--limit", "1", "--json")
    assert (len(one.json["dead_letters"]), one.json["more"]) == (1, True)
    assert old not in one.out
    wrong = await letters(house, "list", "--since", "yesterday")
    assert (wrong.code, "expected 30m, 24h, 7d or a moment" in wrong.said) == (2, True)


async def test_a_signal_is_sent_again_after_a_yes_and_once_and_the_list_says_by_whom(house: LetterHouse) -> None:
    letter = await house.bury(THEIRS)
    remains = await letters(house, "redrive", letter, *BY_ANNA, "--yes")
    assert (remains.code, "it would be a dead letter again, no_signal_id" in remains.said) == (1, True)
    no = await letters(house, "redrive", letter, *BY_ANNA, typed="n\n", **MENDED)
    assert (no.code, "may have sent another in its place" in no.said) == (1, True)
    assert await house.read(topics.SIGNALS_APPROVED) == []
    yes = await letters(house, "redrive", letter, *BY_ANNA, typed="y\n", **MENDED)
    assert (yes.code, yes.out.splitlines()[-1]) == (
        0,
        f"{letter} was sent again; its answer is said as that of any signal",
    )
    twice = await letters(house, "redrive", letter, *BY_ANNA, "--yes", "--json", **MENDED)
    assert (twice.code, twice.json["reason"]) == (1, "settled")
    assert len(await house.read(topics.SIGNALS_APPROVED)) == 1
    listed = (await letters(house, "list", **MENDED)).out
    assert "redriven by anna" in listed
    assert (await letters(house, "list", "--open")).out == "0 dead letters\n"


async def test_one_that_was_dealt_with_otherwise_is_acknowledged_with_a_reason(house: LetterHouse) -> None:
    letter = await house.bury(HOSTILE, "not_json")
    assert (await letters(house, "acknowledge", letter)).code == 2
    done = await letters(house, "acknowledge", letter, "--by", "anna", "--reason", "the sender is mended")
    assert (done.code, done.out) == (0, f"{letter} is acknowledged\n")
    again = await letters(house, "acknowledge", letter, "--reason", "so am I")
    assert (again.code, "was acknowledged already, by anna" in again.said) == (1, True)
    foreign = await letters(house, "acknowledge", "9-9", "--reason", "x")
    assert (foreign.code, "expected the id of a dead letter" in foreign.said) == (1, True)
