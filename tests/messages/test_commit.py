"""commit/1: its messages are published from the commit, and again from the outbox, in the same bytes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.domain.facts import Fact
from streamapp.messages.commit import CommitMessage, Publication, encode_commit, publications_of
from streamapp.messages.decision import DecisionMessage
from streamapp.messages.error import ErrorMessage
from streamapp.messages.fact import FactMessage
from streamapp.messages.position import PositionMessage
from tests.kit.book import Book
from tests.kit.examples import fact_sets

AT = datetime(2026, 11, 21, tzinfo=UTC)
TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(['"\\/', "\x00\x1f\x7f\u2028\ufeff", "😀ä"])
TIMES = st.datetimes(timezones=st.just(UTC))
# Amounts are text on this wire; there are no floats, which Python and pydantic write in different ways.
AMOUNTS = st.decimals(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(-(2**200), 2**200) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def written(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


MESSAGES: st.SearchStrategy[bytes] = st.one_of(
    st.dictionaries(TEXTS, VALUES, max_size=5).map(written),
    st.builds(
        ErrorMessage, error_id=TEXTS, order_id=TEXTS, account=TEXTS, symbol=TEXTS, kind=st.just("invalid"),
        message=TEXTS, final=st.booleans(), at=TIMES, retcode=st.integers(-(2**80), 2**80),
    ).map(ErrorMessage.encode),
    st.builds(
        DecisionMessage, account=TEXTS, signal_id=TEXTS, stream_seq=st.integers(0), decision=st.just("refused"),
        detail=TEXTS, at=TIMES, payload=TEXTS,
    ).map(DecisionMessage.encode),
    st.builds(
        PositionMessage, account=TEXTS, symbol=TEXTS, side=st.none(), volume=AMOUNTS,
        average_price=st.none() | AMOUNTS, currency=TEXTS, at=TIMES,
    ).map(PositionMessage.encode),
)  # fmt: skip
PUBLICATIONS = st.builds(
    Publication,
    MESSAGES,
    subject=st.none() | TEXTS,
    id=st.none() | TEXTS,
    trace=st.none() | TEXTS,
    not_after=st.none() | TIMES,
    copy_of=st.none() | TEXTS,
)


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.lists(PUBLICATIONS, max_size=4))
def test_the_messages_of_a_commit_are_read_back_to_the_byte(account: str, publications: list[Publication]) -> None:
    commit = encode_commit(account, 3, AT, (), publications)
    assert publications_of(commit) == publications
    assert json.loads(commit)["account"] == account


@settings(max_examples=30, deadline=None)
@given(fact_sets)
def test_a_commit_of_real_facts_is_a_valid_message_whose_words_are_read_back_to_the_byte(several: list[Fact]) -> None:
    book = Book()
    book.add(*several)
    facts = [FactMessage.of(fact) for fact in book.facts]
    commit = encode_commit("demo", 1, AT, (fact.encode() for fact in facts), book.publications)
    assert publications_of(commit) == book.publications
    decoded = CommitMessage.decode(commit)
    assert (decoded.facts, decoded.number, decoded.at) == (tuple(facts), 1, AT)
    assert [each.message for each in decoded.messages] == [json.loads(each.message) for each in book.publications]
