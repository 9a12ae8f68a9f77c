"""Letters and what was decided about them, on a real Kafka."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from streamapp import topics
from streamapp.audit.sources import _dead_letters
from streamapp.clock import utc_now
from streamapp.errors import Unusable
from streamapp.kafka.producer import Record
from streamapp.letters import ledger as module
from streamapp.letters.ledger import LetterLedger
from streamapp.messages.dead_letter import DeadLetter, LetterDecisionMessage
from tests.kit.letters import HOSTILE, SIGNAL, THEIRS, LetterHouse, letter_house

ANNA: dict[str, Any] = {"by": "anna", "reason": "settings mended"}


@pytest.fixture
async def house(kafka_bootstrap: str) -> AsyncIterator[LetterHouse]:
    async with letter_house(kafka_bootstrap) as house:
        yield house


async def refused(doing: Any) -> tuple[str, str]:
    with pytest.raises(Unusable) as found:
        await doing
    return found.value.reason, found.value.detail


async def test_letters_are_listed_newest_first_with_all_that_is_known_and_later_ones_join(house: LetterHouse) -> None:
    now, ledger = utc_now(), house.ledger()
    hostile = await house.bury(HOSTILE, "not_json", sequence=1, at=now - timedelta(minutes=2))
    strange = await house.bury(b"\xff\xfe\x1b[2J", "not_json", sequence=2, at=now - timedelta(minutes=1))
    ours = await house.bury_ours(
        DeadLetter(json.dumps(SIGNAL).encode(), "internal", "KeyError", topics.SIGNALS_APPROVED, "", 3, now)
    )
    rows = [letter.shown(house.settings.execution) for letter in await ledger.newest()]
    assert [row["id"] for row in rows] == [ours, strange, hostile]
    assert [row["payload"] for row in rows[1:]] == ["\\xff\\xfe\\x1b[2J", HOSTILE.decode()]
    assert (rows[0]["account"], rows[0]["symbol"], rows[0]["meaning"]) == (
        "a",
        "EURUSD",
        "a rule of streamapp broke on it",
    )
    assert {row["disposition"] for row in rows} == {"open"}
    await ledger.acknowledge(strange, **ANNA)
    newer = await house.bury(THEIRS, sequence=4)
    found = {letter.id: letter.disposition for letter in await ledger.newest()}
    assert found == {hostile: "open", strange: "acknowledged", ours: "open", newer: "open"}
    assert not ledger.is_cut


async def test_a_signal_whose_cause_is_gone_is_sent_again_once_and_who_and_why_is_recorded_before(
    house: LetterHouse,
) -> None:
    letter_id = await house.bury(THEIRS)
    ledger = house.ledger(house.mended)
    assert (await ledger.redrive(letter_id, **ANNA)).disposition == "redriven"
    reason, detail = await refused(ledger.redrive(letter_id, **ANNA))
    assert (reason, f"{letter_id} was re-driven already, by anna" in detail) == ("settled", True)
    assert (await refused(ledger.acknowledge(letter_id, **ANNA)))[0] == "settled"
    [(key, payload, headers)] = await house.read(topics.SIGNALS_APPROVED)
    assert (key, json.loads(payload), headers[topics.NATS_SEQUENCE]) == (b"a", THEIRS, b"7")
    _, *decisions = [value for _, value, _ in await house.read(topics.DEAD_LETTERS)]
    decided = [LetterDecisionMessage.decode(value) for value in decisions]
    assert [(each.decision, each.by, each.reason, each.topic) for each in decided] == [
        ("redrive", "anna", "settings mended", None),
        ("redriven", "anna", "settings mended", topics.SIGNALS_APPROVED),
    ]
    assert len(await _dead_letters(house.settings)) == 1, "a decision is no letter"


async def test_a_signal_whose_cause_remains_stays_where_it_is_and_is_not_recorded(house: LetterHouse) -> None:
    letter_id = await house.bury(THEIRS)
    reason, detail = await refused(house.ledger().redrive(letter_id, **ANNA))
    assert (reason, "it would be a dead letter again, no_signal_id" in detail) == ("still_unusable", True)
    assert await house.read(topics.SIGNALS_APPROVED) == []
    assert (await house.ledger().find(letter_id)).disposition == "open"


class Dying:
    """A producer whose process dies when it has recorded what it is about to do."""

    def __init__(self, house: LetterHouse) -> None:
        self._house = house

    async def send_all(self, records: list[Record]) -> Any:
        if records[0].topic != topics.DEAD_LETTERS:
            raise ConnectionAbortedError
        return await self._house.producer.send_all(records)


async def test_what_was_recorded_and_perhaps_not_done_says_so_and_is_done_when_repeated(house: LetterHouse) -> None:
    letter_id = await house.bury(THEIRS)
    dying = LetterLedger(house.mended, Dying(house), utc_now)  # type: ignore[arg-type]  # all that it is asked for
    with pytest.raises(ConnectionAbortedError):
        await dying.redrive(letter_id, **ANNA)
    ledger = house.ledger(house.mended)
    assert [letter.disposition for letter in await ledger.newest()] == ["unfinished"]
    await ledger.redrive(letter_id, by="boris", reason="again")
    assert len(await house.read(topics.SIGNALS_APPROVED)) == 1
    assert [letter.disposition for letter in await ledger.newest()] == ["redriven"]


async def test_an_id_that_is_none_of_ours_is_refused_in_words(house: LetterHouse) -> None:
    letter_id = await house.bury(THEIRS)
    await house.ledger().acknowledge(letter_id, **ANNA)
    assert letter_id == "1-0"  # so that 1-1 is the decision about it
    for foreign in ("", "x", "7-0", "0-999999", "0--1", "0-0; drop", "1-1"):
        reason, detail = await refused(house.ledger().redrive(foreign, **ANNA))
        assert reason in {"bad_id", "unknown_letter"}
        assert detail.endswith("list them")


async def test_nothing_is_decided_without_a_reason(house: LetterHouse) -> None:
    letter_id = await house.bury(THEIRS)
    for deed in (house.ledger().acknowledge, house.ledger(house.mended).redrive):
        assert (await refused(deed(letter_id, by="anna", reason=" \n ")))[0] == "invalid"
    assert (await house.ledger().find(letter_id)).decisions == ()


async def test_of_very_many_letters_the_last_are_listed_and_it_is_said_that_there_are_more(
    house: LetterHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LAST", 3)
    ids = [await house.bury(THEIRS, sequence=2 * number) for number in range(5)]
    ledger = house.ledger()
    assert {letter.id for letter in await ledger.newest()} == set(ids[2:])
    assert ledger.is_cut
    assert (await ledger.find(ids[0])).id == ids[0]
