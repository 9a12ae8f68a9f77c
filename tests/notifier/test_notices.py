from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from streamapp.errors import ConfigurationError, Unusable
from streamapp.messages.account import AccountMessage
from streamapp.messages.commit import Publication, encode_commit
from streamapp.notifier.notices import CommitReader, Notice, TerminalWatch, notice, plain, summed_up
from streamapp.notifier.service import Notifier, OffsetLedger
from streamapp.notifier.statement import last_day
from streamapp.notifier.told import Told
from streamapp.settings import Settings

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
PLACE = TopicPartition("archive", 0)


@given(st.text())
def test_a_text_from_outside_is_one_line_and_mentions_nobody(text: str) -> None:
    line = plain(text)
    assert line.isprintable() or "\u200b" in line
    assert "\n" not in line
    assert "@" not in line.replace("@\u200b", "")


@given(st.lists(st.integers(0, 5), max_size=30), st.randoms())
def test_an_offset_is_committed_only_after_everything_before_it(notices: list[int], chance: object) -> None:
    ledger = OffsetLedger()
    left = []
    for offset, count in enumerate(notices):
        for _ in range(count):
            ledger.begin(PLACE, offset)
            left.append(offset)
        ledger.read(PLACE, offset + 1)
    chance.shuffle(left)  # type: ignore[attr-defined]
    while left:
        assert ledger.committable() == {PLACE: min(left)}
        ledger.finish(PLACE, left.pop())
    assert ledger.committable() == ({PLACE: len(notices)} if notices else {})


def test_a_resumption_is_seen_by_the_message_s_id_where_the_halt_was_before_our_start() -> None:
    state = AccountMessage(account="a", connection="ready", at=NOON)
    said = [Publication(state.encode(), "accounts.a", "streamapp:account:a:trading:2026-11-20T12:00:00Z:0:trading")]
    (found,) = CommitReader().notices(encode_commit("a", 1, NOON, (), said))
    assert (found.title, found.urgency) == ("account a may open again", "info")
    assert not list(CommitReader().notices(encode_commit("a", 1, NOON, (), [Publication(state.encode())])))


@pytest.mark.parametrize("value", [b"", b"[]", b'{"messages": [{"message": {"schema": "error/1", "kind": "new"}}]}'])
def test_a_commit_that_is_none_is_unusable(value: bytes) -> None:
    with pytest.raises(Unusable):
        list(CommitReader().notices(value))


def test_a_terminal_that_is_away_is_told_once_and_so_is_its_return() -> None:
    watch = TerminalWatch(timedelta(seconds=60))
    watch.expect(["a"], NOON)

    def after(seconds: int) -> list[str]:
        return [each.title for each in watch.due(NOON + timedelta(seconds=seconds))]

    assert after(59) == []
    assert after(60) == ["terminal of account a is away since 2026-11-20T12:00:00.000000Z"]
    assert after(61) == []
    at = NOON + timedelta(seconds=70)
    watch.hear(AccountMessage(account="a", connection="ready", at=at), at)
    assert after(71) == ["terminal of account a is ready"]
    watch.forgive(timedelta(hours=1))  # our own sleep
    assert after(3600) == []


def test_a_statement_is_of_the_day_that_ended_at_the_server_s_midnight() -> None:
    midnight = datetime(2026, 11, 20, 22, tzinfo=UTC)
    day = last_day("a", midnight + timedelta(seconds=30), 7200)
    assert day is not None
    assert (day.id, day.begins, day.ends) == ("statement:a:2026-11-20", midnight - timedelta(days=1), midnight)
    assert last_day("a", midnight + timedelta(seconds=29), 7200) is None


def test_a_sum_names_the_most_urgent_first_and_counts_what_it_does_not_show() -> None:
    several = [notice("rejected", "warning", str(each), NOON, f"title {each}") for each in range(20)]
    several.append(Notice("b", "break", "critical", NOON, "broken", ""))
    title, body, urgency = summed_up(several)
    assert (title, urgency) == ("broken and 20 more", "critical")
    assert body.splitlines()[-1] == "and 6 more: 5 rejected, 1 break"


def test_what_was_told_is_known_after_a_restart_and_only_the_last_of_it(tmp_path: Path) -> None:
    told = Told(tmp_path / "told", most=3)
    for number in range(10):
        told.add(f"key-{number}")
    again = Told(tmp_path / "told", most=3)
    assert [number for number in range(10) if f"key-{number}" in again] == [7, 8, 9]
    for each in (told, again):
        each.close()


def test_without_a_file_of_urls_nobody_is_notified_and_it_says_so() -> None:
    with pytest.raises(ConfigurationError, match=r"expected notify\.urls_file"):
        Notifier(Settings())
