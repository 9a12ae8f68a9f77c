"""What a terminal with a lag is shown, against a plain record of the past."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamapp.simulator.books.tables import HistoryTable, LaggingTable

changes = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.booleans()), max_size=30)


class Row:
    def __init__(self, value: int) -> None:
        self.value = value


def shown(table: LaggingTable[Row], at: int) -> dict[int, int]:
    return {ticket: row.value for ticket, row in table.seen(at)}


@given(script=changes, lag=st.integers(0, 8))
def test_a_lagging_table_shows_what_was_true_a_lag_ago(script: list[tuple[int, int, bool]], lag: int) -> None:
    table: LaggingTable[Row] = LaggingTable()
    past: list[dict[int, int]] = [{}]
    for now, (ticket, value, removes) in enumerate(script, start=1):
        if lag:
            table.keep_before(ticket, now + lag)
        if removes:
            table.remove(ticket)
        elif ticket in table.live:
            table.live[ticket].value = value
        else:
            table.put(ticket, Row(value))
        past.append({key: row.value for key, row in table.live.items()})
        assert shown(table, now) == past[max(now - lag, 0)]


@given(
    times=st.lists(st.integers(0, 50), max_size=30).map(sorted), span=st.tuples(st.integers(0, 50), st.integers(0, 50))
)
def test_history_gives_exactly_the_rows_of_a_span(times: list[int], span: tuple[int, int]) -> None:
    history: HistoryTable[Row] = HistoryTable()
    for ticket, at in enumerate(times, start=1):
        history.add(ticket, Row(at), at, ticket % 3)
    assert [row.value for row in history.between(*span, 0)] == [at for at in times if span[0] <= at <= span[1]]
    tickets = [ticket for ticket in range(1, len(times) + 1) if ticket % 3 == 1]
    assert [row.value for row in history.of_position(1, 0)] == [times[ticket - 1] for ticket in tickets]


def test_a_released_table_shows_the_present() -> None:
    table: LaggingTable[Row] = LaggingTable()
    table.keep_before(1, 1000)
    table.put(1, Row(5))
    assert shown(table, 10) == {}
    table.release(20)
    assert shown(table, 19) == {}
    assert shown(table, 20) == {1: 5}
