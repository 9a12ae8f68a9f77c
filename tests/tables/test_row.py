"""What all rows promise: JSON without defaults, and no row of another version is read in part."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from streamapp.domain.signals import ACCEPTED
from tables.accounts import AccountRow
from tables.bindings import BindingRow
from tables.orders import OrderRow
from tables.positions import PositionRow
from tables.row import Row
from tables.signals import SignalRow

AT = datetime(2026, 11, 21, tzinfo=UTC)
ROWS = [
    AccountRow(account="a"),
    BindingRow(kind="signals", id="s-1", account="a", bound_at=AT),
    OrderRow(open=True, order_id="o-1", account="a"),
    PositionRow(account="a", position_id=7),
    SignalRow(stream_seq=1, verdict=ACCEPTED, fingerprint="f", decided_at=AT),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: type(row).__name__)
def test_what_a_newer_version_wrote_is_not_read_without_it(row: Row) -> None:
    assert type(row).decode(row.encode()) == row
    with pytest.raises(ValidationError, match="colour"):
        type(row).decode(row.encode().replace(b"{", b'{"colour":"red",', 1))


def test_fields_that_have_their_default_take_no_room() -> None:
    assert json.loads(PositionRow(account="a", position_id=1).encode()) == {"account": "a", "position_id": 1}
