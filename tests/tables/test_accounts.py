"""An account's row and its outbox: commits come out of it as the bytes that went in."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from streamapp.domain.trading import TradingState
from streamapp.messages.account import AccountMessage
from tables.accounts import AccountRow, account_key, outbox_of

NUMBERS = st.integers(0, 2**63 - 1)


@given(NUMBERS, st.lists(st.binary(max_size=2000), max_size=20))
def test_an_outbox_gives_back_the_bytes_of_its_commits(number: int, commits: list[bytes]) -> None:
    row = AccountRow(account="a", number=number)
    value = row.with_outbox(commits)
    assert (AccountRow.decode(value), outbox_of(value)) == (row, commits)


def test_an_outbox_whose_commits_are_all_published_is_empty() -> None:
    assert outbox_of(AccountRow(account="a", number=7).encode()) == []


def test_an_account_may_be_called_anything() -> None:
    assert account_key("a/b") == b"a/a/b"


def test_an_account_is_read_as_it_was_written() -> None:
    at = datetime(2026, 11, 21, tzinfo=UTC)
    state = AccountMessage(account="a", connection="ready", balance=Decimal("5.00"), at=at)
    row = AccountRow(
        account="a",
        epoch="e2",
        watermark=9,
        earlier=("e1",),
        state=state,
        state_at=at,
        trading=TradingState(state="halted"),
    )
    assert AccountRow.decode(row.encode()) == row
    assert AccountRow.decode(row.encode()).encode() == row.encode()


def test_a_watermark_is_never_negative() -> None:
    with pytest.raises(ValidationError, match="watermark"):
        AccountRow(account="a", watermark=-1)
