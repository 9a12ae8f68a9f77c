from __future__ import annotations

from streamapp.domain.facts import Fact
from streamapp.domain.fold import apply, fold
from streamapp.messages.fact import FactMessage
from tables.orders import HELD, WHOLE, OrderRow
from tests.domain.examples import ACCOUNT, ORDER, accepted, claimed, created, filled

EMPTY = OrderRow(order_id=ORDER, account=ACCOUNT, offset=-1)


def texts(*several: Fact) -> list[tuple[str, Fact]]:
    return [(FactMessage.of(fact).encode().decode(), fact) for fact in several]


def more(row: OrderRow, *several: Fact, offset: int = 1) -> OrderRow:
    return row.extended(texts(*several), fold(row.state, several), offset=offset)


def reread(row: OrderRow) -> OrderRow:
    return OrderRow.model_validate_json(row.model_dump_json())


def test_a_row_says_the_same_after_it_was_read_again() -> None:
    row = more(EMPTY, created("9"), claimed(), accepted(), offset=3)
    for number in range(100, 200):
        row = more(row, filled(number, "0.01"), offset=number)
    again = reread(row)
    assert (again.state, again.rev) == (row.state, 103)
    assert [fact.model_dump() for fact in again.facts] == [FactMessage.of(fact).model_dump() for fact in row.facts]
    assert len(again.texts) == WHOLE
    told, retold = row.revisions(range(54, 104)), again.revisions(range(1, 104))
    assert [(one.rev, one.state) for one in retold] == [(one.rev, one.state) for one in told]
    assert row.executor == "streamapp"


def test_facts_nobody_was_told_of_are_not_folded_away() -> None:
    row = EMPTY
    for number in range(100, 100 + WHOLE + 20):
        row = more(row, filled(number, "0.01"), offset=number)
    assert (len(row.texts), row.executor) == (WHOLE + 20, None)
    row = more(row, created("9"), offset=300)
    assert len(row.revisions(range(1, 100))) == WHOLE + 21
    row = more(row, claimed(), offset=301)
    assert len(row.texts) == WHOLE
    assert row.rev == WHOLE + 22


def test_an_order_that_never_becomes_known_does_not_outgrow_a_record() -> None:
    row = EMPTY
    for number in range(100, 100 + HELD + 20):
        row = more(row, filled(number, "0.01"), offset=number)
    assert len(row.texts) == HELD
    assert row.rev == HELD + 20
    assert len(row.model_dump_json()) < 900_000


def test_an_offset_never_goes_back() -> None:
    assert more(more(EMPTY, created(), offset=9), offset=3).offset == 9


def test_a_conflict_survives_the_row() -> None:
    row = more(EMPTY, created(), filled(1, "1"))
    row = row.extended([], apply(row.state, filled(1, "2")), offset=2)
    assert reread(row).state.conflicts == (filled(1).fact_id,)
    assert "conflict" in row.anomalies
