"""Which account an incomplete message was given."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from streamapp.messages.answer import CopyDecision
from tables.bindings import BindingRow, binding_key

AT = datetime(2026, 11, 21, tzinfo=UTC)
LATER = AT + timedelta(seconds=1)


def test_a_binding_is_read_as_it_was_written_with_all_that_was_found() -> None:
    fields = {"symbol": "EURUSD", "volume": "0.10", "tags": ["ä", 1, None], "nested": {"deal": 2**70}}
    row = BindingRow(kind="signals_approved", id="s/1", account="a", fields=fields, bound_at=AT)
    assert BindingRow.decode(row.encode()) == row
    nobody = BindingRow(kind="signals_approved", id="s-2", account="", detail="no row", bound_at=AT)
    assert BindingRow.decode(nobody.encode()).detail == "no row"


def test_a_signal_and_an_order_of_one_id_are_two_bindings() -> None:
    keys = {binding_key("signals_approved", "x"), binding_key("orders_submitted", "x")}
    assert keys == {b"b/signals_approved/x", b"b/orders_submitted/x"}


def test_a_split_is_answered_when_the_last_of_its_accounts_has_decided() -> None:
    weights = {"a": Decimal(1), "b": Decimal("0.5")}
    row = BindingRow(kind="signals_approved", id="s-1", account="", weights=weights, bound_at=AT)
    accepted = CopyDecision(account="b", weight=Decimal("0.5"), decision="accepted", order_id="o-1", volume=Decimal(1))
    refused = CopyDecision(account="a", weight=Decimal(1), decision="refused", reason="guard", detail="too much")
    one = row.with_decision(accepted, AT)
    both = BindingRow.decode(one.encode()).with_decision(refused, LATER)
    assert (row.is_bound, row.answered_at, one.answered_at, both.answered_at) == (True, None, None, LATER)
    assert BindingRow.decode(both.encode()) == both
    assert list(BindingRow.decode(both.encode()).decided) == ["b", "a"]
