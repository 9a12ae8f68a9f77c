from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.audit.chain import Break, Chain, ChainLink, Links, chains
from streamapp.audit.log_readers import Unreadable, links_of
from streamapp.messages.log import GENESIS_HASH, BrokerLogEntry, BrokerLogPlace, chained, encode_entries
from tests.clickhouse.samples import AT

FUNCTIONS = ("initialize", "order_send", "positions_get", "history_deals_get")


def log_of(contents: Sequence[Any], account: str = "a", epoch: str = "e1") -> list[BrokerLogEntry]:
    """Return the chain that a journal makes of some responses."""
    entries: list[BrokerLogEntry] = []
    for seq, response in enumerate(contents, start=1):
        previous = entries[-1].hash if entries else GENESIS_HASH
        fields: dict[str, Any] = {"account": account, "epoch": epoch, "seq": seq, "at": AT + timedelta(seconds=seq)}
        fields |= {"function": FUNCTIONS[seq % len(FUNCTIONS)], "request": {"magic": seq}, "response": response}
        fields |= {"last_error": (1, "Success"), "order_id": None, "duration_us": 5}
        entries.append(chained(previous, **fields))
    return entries


def verdicts(*batches: Sequence[BrokerLogEntry]) -> list[Chain]:
    """Return the verdict on what is stored, as the bytes that a topic holds."""
    links = Links()
    try:
        for number, batch in enumerate(batches):
            place = BrokerLogPlace(account="a", epoch="e1", first_seq=1)
            for link in links_of(encode_entries(place, [entry.encode() for entry in batch]), f"record {number}"):
                assert isinstance(link, ChainLink)
                links.add(link)
        return list(chains(links))
    finally:
        links.close()


def broken(*batches: Sequence[BrokerLogEntry]) -> Break:
    [chain] = verdicts(*batches)
    assert chain.broken is not None
    return chain.broken


values = st.one_of(st.integers(-(2**60), 2**60), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=5))
logs = st.lists(st.one_of(st.none(), values, st.dictionaries(st.text(max_size=3), values)), min_size=2, max_size=12)


@given(logs, st.data())
def test_any_redelivery_of_any_part_in_any_order_is_no_break(contents: list[Any], data: st.DataObject) -> None:
    entries = log_of(contents)
    cuts = st.tuples(st.integers(0, len(entries) - 1), st.integers(1, len(entries)))
    again = [entries[first : first + size] for first, size in data.draw(st.lists(cuts, max_size=5))]
    batches = data.draw(st.permutations([entries, *again]))
    [chain] = verdicts(*batches)
    assert chain == Chain("a", "e1", len(entries), len(entries), entries[-1].hash, None)


CHANGES: dict[str, Any] = {
    "at": AT,
    "function": "symbol_info",
    "request": {"magic": 0},
    "response": "something else",
    "last_error": None,
    "order_id": "o",
    "duration_us": 6,
    "previous_hash": "f" * 64,
    "hash": "e" * 64,
}


@given(logs, st.data())
def test_any_single_alteration_is_found_at_its_place(contents: list[Any], data: st.DataObject) -> None:
    entries = log_of(contents)
    at = data.draw(st.integers(0, len(entries) - 1))
    field = data.draw(st.sampled_from(sorted(CHANGES)))
    entries[at] = entries[at].model_copy(update={field: CHANGES[field]})
    found = broken(entries)
    assert found.seq == at + 1
    assert "record 0" in found.found


@given(logs, st.data())
def test_an_alteration_with_its_hash_made_anew_is_found_at_the_next_entry(
    contents: list[Any], data: st.DataObject
) -> None:
    entries = log_of(contents)
    at = data.draw(st.integers(0, len(entries) - 2))
    fields = entries[at].model_dump(exclude={"schema_", "previous_hash", "hash"}) | {"response": "something else"}
    forged = chained(entries[at].previous_hash, **fields)
    found = broken([*entries[:at], forged, *entries[at + 1 :]])
    assert (found.seq, found.expected) == (at + 2, f"previous_hash {forged.hash}, of the entry before")


@given(logs, st.data())
def test_any_single_deletion_but_the_last_is_found_at_its_place(contents: list[Any], data: st.DataObject) -> None:
    entries = log_of(contents)
    at = data.draw(st.integers(0, len(entries) - 2))
    found = broken([*entries[:at], *entries[at + 1 :]])
    assert found == Break(at + 1, "an entry", f"none: the next one is {at + 2} (record 0)")


@given(logs, st.data())
def test_any_two_entries_that_changed_places_are_found_at_the_first(contents: list[Any], data: st.DataObject) -> None:
    entries = log_of(contents)
    pair = st.lists(st.integers(0, len(entries) - 1), min_size=2, max_size=2, unique=True)
    first, second = sorted(data.draw(pair))
    swapped = list(entries)
    swapped[first] = entries[second].model_copy(update={"seq": first + 1})
    swapped[second] = entries[first].model_copy(update={"seq": second + 1})
    assert broken(swapped).seq == first + 1


@given(logs, st.data())
def test_a_second_content_under_one_seq_is_found_at_its_place(contents: list[Any], data: st.DataObject) -> None:
    entries = log_of(contents)
    at = data.draw(st.integers(0, len(entries) - 1))
    fields = entries[at].model_dump(exclude={"schema_", "previous_hash", "hash"}) | {"response": "something else"}
    found = broken(entries, [chained(entries[at].previous_hash, **fields)])
    assert (found.seq, found.expected) == (at + 1, "one content")
    assert "record 0" in found.found
    assert "record 1" in found.found


def test_a_journal_that_begins_anew_is_a_chain_of_its_own() -> None:
    first, second, other = log_of([1, 2, 3]), log_of([4, 5], epoch="e2"), log_of([6], account="b")
    found = verdicts(other, second, first)
    assert [(chain.account, chain.epoch, chain.last_seq) for chain in found] == [
        ("a", "e1", 3),
        ("a", "e2", 2),
        ("b", "e1", 1),
    ]
    assert [chain.broken for chain in found] == [None, None, None]


def test_an_epoch_whose_beginning_is_gone_is_broken_and_leaves_the_others_intact() -> None:
    found = verdicts(log_of([1, 2, 3]), log_of([4, 5], epoch="e2")[1:])
    assert [(chain.epoch, chain.broken) for chain in found] == [
        ("e1", None),
        ("e2", Break(1, "an entry", "none: the next one is 2 (record 1)")),
    ]


def test_only_the_first_break_of_a_chain_is_told() -> None:
    entries = log_of(range(9))
    assert broken([*entries[:2], *entries[3:5], *entries[6:]]).seq == 3


def test_an_entry_that_was_a_record_of_its_own_is_a_link_too() -> None:
    [entry] = log_of(["x"])
    assert links_of(entry.encode(), "here") == [ChainLink.of(entry, "here")]


@pytest.mark.parametrize("seq", [0, -1, 2**63])
def test_a_seq_that_none_can_have_is_told_with_its_place(seq: int) -> None:
    entry = log_of(["x"])[0].model_copy(update={"seq": seq})
    assert links_of(entry.encode(), "here") == [Unreadable("here", f"expected a seq from 1 on, got {seq}")]


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b'{"schema": "log/2"}', b'{"schema": "log/1"}'])
def test_what_is_no_batch_of_the_log_is_told_with_its_place(payload: bytes) -> None:
    [found] = links_of(payload, "partition 1, offset 7")
    assert isinstance(found, Unreadable)
    assert found.place == "partition 1, offset 7"
    assert found.detail.startswith("expected log/2, got what is ")
