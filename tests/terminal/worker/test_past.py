"""The past of an account is one number: what happens later does not change it, what was missing does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.terminal.account.servertime import ServerTime
from streamapp.terminal.account.synchronisation import BELIEVED_ANYWAY_S, Synchronisation
from streamapp.terminal.pipe.answers import PastSeen
from streamapp.terminal.pipe.calls import ReadPast
from streamapp.terminal.worker.history import look_at_past
from tests.terminal.tables import Tables, deal, order, row

SINCE, CUT, END = 1000, 1050, 1100


@dataclass(frozen=True)
class Trade:
    """An order set up at one time and done at another, by a deal that moves a position, or by a cancellation."""

    ticket: int
    set_up: int
    done: int
    position: int
    lots: int

    def deal(self) -> Any:
        return deal(
            self.ticket + 500, self.done, order=self.ticket, position_id=self.position, type=int(self.lots < 0),
            volume=abs(self.lots) / 100,
        )  # fmt: skip


@st.composite
def trades(draw: st.DrawFn) -> list[Trade]:
    """Hedging and netting alike: deals move some positions up and down, through zero as well."""
    times = st.integers(SINCE + 1, END)
    made = []
    for number in range(draw(st.integers(0, 12))):
        set_up, done = sorted((draw(times), draw(times)))
        made.append(Trade(number + 1, set_up, done, draw(st.integers(1, 4)), draw(st.integers(-3, 3))))
    return made


def shown(made: list[Trade], now: int) -> Tables:
    """Return the tables as they are at a time."""
    tables = Tables()
    lots: dict[int, int] = {}
    opened: dict[int, int] = {}
    for trade in sorted(made, key=lambda trade: (trade.done, trade.ticket)):
        if trade.set_up <= now < trade.done:
            tables.orders.append(order(trade.ticket, time_setup=trade.set_up, state=1))
        if trade.done <= now:
            state = 4 if trade.lots else 2
            tables.done.append(order(trade.ticket, time_setup=trade.set_up, time_done=trade.done, state=state))
        if trade.done <= now and trade.lots:
            tables.deals.append(trade.deal())
            lots[trade.position] = lots.get(trade.position, 0) + trade.lots
            opened.setdefault(trade.position, trade.done)
    for position, net in lots.items():
        if net:
            sides: dict[str, Any] = {"type": int(net < 0), "volume": abs(net) / 100}
            shape = {"ticket": position, "identifier": position, "time": opened[position], **sides}
            tables.positions.append(row("TradePosition", **shape))
    return tables


def look(tables: Tables, cut: int = CUT, known: tuple[int, ...] = ()) -> PastSeen:
    return look_at_past(tables.calls(), ReadPast(SINCE, cut, END * 2, known))


@given(made=trades(), later=st.integers(CUT, END), still_later=st.integers(CUT, END))
def test_whatever_happens_after_the_cut_a_busy_account_shows_the_same_past(
    made: list[Trade], later: int, still_later: int
) -> None:
    assert look(shown(made, later)) == look(shown(made, still_later))
    assert look(shown(made, later)).lacking == ""


@given(made=trades(), now=st.integers(CUT, END), data=st.data())
def test_whatever_is_missing_from_before_the_cut_changes_the_past(
    made: list[Trade], now: int, data: st.DataObject
) -> None:
    whole, tables = look(shown(made, now)), shown(made, now)
    old = [
        (rows, each)
        for rows in (tables.deals, tables.done, tables.orders, tables.positions)
        for each in rows
        if min(getattr(each, name, END) or END for name in ("time", "time_setup")) <= CUT
        and getattr(each, "time_done", 0) <= CUT
    ]
    if not old:
        return
    rows, hidden = data.draw(st.sampled_from(old))
    rows.remove(hidden)
    assert look(tables).digest != whole.digest


@given(made=trades(), now=st.integers(CUT, END), before=st.integers(SINCE, END))
def test_a_cache_that_is_older_than_the_connection_is_told_from_a_fresh_one(
    made: list[Trade], now: int, before: int
) -> None:
    changed = any(before < moment <= CUT for trade in made for moment in (trade.set_up, trade.done))
    assert (look(shown(made, before)).digest != look(shown(made, now)).digest) or not changed


def test_an_empty_account_has_a_past_and_lacks_nothing() -> None:
    assert look(Tables()).digest is not None
    assert look(Tables()).lacking == ""


def test_history_with_fewer_deals_than_it_counts_lacks_them() -> None:
    tables = Tables(deals=[deal(1, CUT)], total=3)
    assert look(tables).lacking == "history has 3 deals and shows 1"


def test_history_without_a_deal_that_was_seen_before_lacks_it() -> None:
    assert look(Tables(deals=[deal(1, CUT)]), known=(1,)).lacking == ""
    assert "1 deals that were there before: [7]" in look(Tables(deals=[deal(1, CUT)]), known=(1, 7)).lacking


def test_a_position_without_its_deals_is_lacking_them_unless_it_is_older_than_the_history() -> None:
    position = row("TradePosition", ticket=9, identifier=5, time=CUT, volume=0.1)
    assert "deals of 1 open positions: [5]" in look(Tables(positions=[position])).lacking
    assert look(Tables(positions=[position], deals=[deal(1, CUT, position_id=5)])).lacking == ""
    assert look(Tables(positions=[row("TradePosition", identifier=5, time=SINCE - 1, volume=0.1)])).lacking == ""


@pytest.mark.parametrize(
    "function", ["positions_get", "orders_get", "history_deals_total", "history_deals_get", "history_orders_get"]
)
def test_a_table_that_cannot_be_read_gives_no_past(function: str) -> None:
    assert look(Tables(silent={function})).digest is None


# -- two equal looks


def synchronisation(apart_s: float = 1.0) -> Synchronisation:
    now = datetime(2026, 11, 20, tzinfo=UTC)
    return Synchronisation(now, now, [], 0, apart_s)


def saw(digest: int | None, lacking: str = "") -> PastSeen:
    return PastSeen(digest, lacking)


def test_looks_are_as_far_apart_as_it_is_set_from_the_end_of_one_to_the_begin_of_the_next() -> None:
    it = synchronisation(apart_s=1.0)
    assert it.is_due(5.0)
    assert not it.learn(saw(1), 7.0)
    assert [it.is_due(now) for now in (7.0, 7.9, 8.0)] == [False, False, True]
    assert it.learn(saw(1), 8.0)
    assert not it.is_due(100.0)


def test_a_look_that_could_not_read_everything_is_none() -> None:
    it = synchronisation()
    assert [it.learn(saw(digest), now) for now, digest in enumerate([1, None, 1, 1])] == [False, False, False, True]


def test_what_stays_lacking_for_ever_is_believed_in_the_end() -> None:
    it = synchronisation()
    lacking = saw(1, "history does not show 1 deals that were there before")
    assert not it.learn(lacking, 0.0)
    assert not it.learn(lacking, BELIEVED_ANYWAY_S - 1)
    assert it.learn(lacking, BELIEVED_ANYWAY_S)


def test_a_change_begins_the_wait_for_what_is_lacking_anew() -> None:
    it = synchronisation()
    it.learn(saw(1, "less"), 0.0)
    it.learn(saw(2, "less"), BELIEVED_ANYWAY_S / 2)
    assert not it.learn(saw(2, "less"), BELIEVED_ANYWAY_S)
    assert it.learn(saw(2, "less"), BELIEVED_ANYWAY_S * 1.5)


def test_the_cut_is_not_before_the_servers_own_newest_tick() -> None:
    now = datetime(2026, 11, 20, tzinfo=UTC)
    ahead = int(now.timestamp()) + 7200 + 5
    assert Synchronisation(now, now, [], ahead, 1.0).next_look(ServerTime(7200)).cut == ahead
