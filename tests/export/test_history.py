"""What a record comes to: each thing once, as it is now, on its day; its own text to the letter."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp import topics
from streamapp.clickhouse.rows import MODELS, SourceRecord, columns, rows_of
from streamapp.export.history import KINDS, RowHistory, texts_of
from streamapp.messages.envelope import Message
from tests.clickhouse import samples
from tests.clickhouse.samples import AT, record
from tests.clickhouse.test_rows import ANYTHING, messages

DAY, NEXT = AT.date(), AT.date() + timedelta(days=1)
ODD = '{ "a":1.10,"b" : [1e5, {"c\\"]}": "\\u00e9}"}] ,"c":-0.0}'
"""JSON that nobody writes who reads it first."""


@pytest.fixture
def history(tmp_path: Path) -> Iterator[RowHistory]:
    made = RowHistory(tmp_path / "rows")
    yield made
    made.close()


def kept(history: RowHistory, kind: str, *names: str) -> dict[date, list[Any]]:
    """The rows of a kind by day, of each the values of these columns."""
    places = [(*columns(kind), "raw").index(name) for name in names]
    return {
        day: [tuple(row[place] for place in places) for row in history.rows(kind, day)]
        for found, day, _ in history.days()
        if found == kind
    }


def add(history: RowHistory, *records: SourceRecord) -> list[str]:
    return [fault for each in records for fault in history.add(each)]


def raw_commit(facts: Sequence[str] = (), messages: Sequence[str] = ()) -> SourceRecord:
    """A commit of texts, written as none of ours is."""
    told = " , ".join(f'{{"message" : {each} , "subject":null}}' for each in messages)
    text = f'\ufeff\n{{"facts": [{",".join(facts)} ] , "number":7,"messages" : [ {told}], "schema":"commit/1"}} '
    return SourceRecord(topics.ARCHIVE, 0, 0, None, text.encode())


def test_every_table_is_a_kind_of_rows() -> None:
    assert KINDS.keys() == MODELS.keys()
    for name, kind in KINDS.items():
        assert {*kind.key, kind.time, kind.version or kind.time} <= {*columns(name)}


@settings(max_examples=50, deadline=None)
@given(st.lists(ANYTHING, max_size=3), st.lists(ANYTHING, max_size=3), st.sampled_from([None, 0, 3]))
def test_a_parts_text_is_what_stands_in_the_record(facts: list[Any], told: list[Any], indent: int | None) -> None:
    written = [[json.dumps(each, indent=indent) for each in some] for some in (facts, told)]
    found = texts_of(raw_commit([*written[0], ODD], [*written[1], ODD]).value.decode("utf-8-sig"))
    for name, some in zip(("facts", "messages"), written, strict=True):
        assert [found[f"{name}.{number}"] for number in range(len(some) + 1)] == [*some, ODD]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in {"broker_log", "order_events"}])
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_a_row_is_the_tables_row_and_the_messages_text(
    kind: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    message: Message = data.draw(messages(MODELS[kind]))
    text = json.dumps(json.loads(message.encode()), indent=1)
    given_as = raw_commit([text]) if kind == "facts" else raw_commit(messages=[text])
    history = RowHistory(tmp_path_factory.mktemp("rows") / "rows")
    assert history.add(given_as) == []
    for row in rows_of(given_as, "both")[0]:
        [(_, day, _)] = [found for found in history.days() if found.kind == row.table]
        assert list(history.rows(row.table, day)) == [(*row.values, text)]
    history.close()


def test_what_comes_again_is_there_once_and_the_later_revision_stays(history: RowHistory) -> None:
    first, last = record(samples.order(rev=3), samples.fill()), record(samples.order(rev=4, status="filled"), offset=1)
    assert add(history, first, last, first, record(samples.order(rev=4, status="filled"), offset=2)) == []
    assert kept(history, "orders", "rev", "status") == {DAY: [(4, "filled")]}
    assert kept(history, "order_events", "rev") == {DAY: [(3,), (4,)]}
    assert kept(history, "executions", "fill_id") == {DAY: [("demo-hedging:11",)]}


def test_a_fact_that_was_archived_twice_stays_where_it_was(history: RowHistory) -> None:
    add(history, record(samples.fact(1), samples.fact(2)), record(samples.fact(2), offset=5))
    names = ("archive_offset", "commit_number", "commit_place")
    assert sorted(kept(history, "facts", *names)[DAY]) == [(0, 1, 0), (0, 1, 1)]


def test_a_day_ends_at_midnight_in_utc(history: RowHistory) -> None:
    midnight = AT.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    before = midnight - timedelta(microseconds=1)
    add(history, record(samples.fill(1, at=before, fill_id="1"), samples.fill(2, at=midnight, fill_id="2")))
    assert kept(history, "executions", "fill_id") == {DAY: [("1",)], NEXT: [("2",)]}


def test_what_changes_on_a_later_day_changes_where_it_stands(history: RowHistory) -> None:
    later = AT + timedelta(days=3)
    add(history, record(samples.position(1), samples.order(rev=1), samples.fill()))
    add(history, record(samples.position(2, at=later, volume=Decimal(0)), samples.order(rev=2, updated_at=later)))
    add(history, record(samples.fill(revision=1, at=later)))
    assert kept(history, "positions", "rev", "at") == {DAY: [(2, later)]}
    assert kept(history, "orders", "rev") == {DAY: [(2,)]}
    assert kept(history, "order_events", "rev") == {DAY: [(1,)], later.date(): [(2,)]}
    assert kept(history, "executions", "revision", "at") == {DAY: [(1, later)]}


def test_of_other_days_there_is_nothing_also_not_of_what_changed_since(tmp_path: Path) -> None:
    days = [AT + timedelta(days=number) for number in range(4)]
    facts = [record(samples.fill(n, fill_id=str(n), at=at), samples.position(n, at=at)) for n, at in enumerate(days)]
    history = RowHistory(tmp_path / "rows", days[1].date(), days[2].date())
    add(history, *facts, *facts)
    assert kept(history, "executions", "fill_id") == {days[1].date(): [("1",)], days[2].date(): [("2",)]}
    assert kept(history, "positions") == {}  # it was opened on the first day
    history.close()


def test_nothing_is_rounded_in_the_text_beside_the_columns(history: RowHistory) -> None:
    exact = Decimal("1.08514000000000000000000001")
    add(history, record(samples.fill(price=exact, volume=Decimal("0.10"))))
    [(price, raw)] = kept(history, "executions", "price", "raw")[DAY]
    assert price == Decimal("1.0851400000")
    assert (json.loads(raw)["price"], json.loads(raw)["volume"]) == (str(exact), "0.10")


def test_two_contents_under_one_id_are_said_and_the_first_counts(history: RowHistory) -> None:
    fact, entry = samples.fact(), samples.log_entry()
    other = fact.model_copy(update={"body": samples.fact(6).body})
    later = fact.model_copy(update={"at": AT + timedelta(days=1)})
    forged = entry.model_copy(update={"duration_us": 7})
    said = add(history, record(fact), record(later, offset=1), record(other, offset=2), record(entry), record(forged))
    assert [fault.partition(":")[0] for fault in said] == ["two_contents", "two_contents"]
    assert fact.fact_id in said[0]
    assert kept(history, "facts", "at") == {DAY: [(AT,)]}
    assert kept(history, "broker_log", "duration_us") == {DAY: [(1234,)]}


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (b"{", "not_json"),
        (b'{"schema":"commit/2"}', "unknown_schema"),
        (samples.commit(samples.fact(), samples.fill()).replace(b'"buy"', b'"long"'), "messages.0 side"),
        (samples.commit(samples.fact(), samples.fill(deal=2**63)), "messages.0 executions: deal"),
    ],
)
def test_what_can_be_no_row_says_why_and_takes_nothing_with_it(history: RowHistory, bad: bytes, said: str) -> None:
    [fault] = add(history, SourceRecord(topics.ARCHIVE, 0, 0, None, bad), record(samples.fill(), offset=1))
    assert said in fault
    assert "executions" in {kind for kind, *_ in history.days()}
