"""The worker's search: what it tells of four tables, and what it leaves out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from streamapp.terminal.pipe.answers import SearchResult
from streamapp.terminal.pipe.calls import Search, Wanted
from streamapp.terminal.worker import search
from streamapp.terminal.worker.mt5_client import Mt5Client
from tests.terminal.fake_broker import Row

WANTED = Wanted(magic=7, tag="g1aaaaaaaaaaaa", symbol="EURUSD", side="buy", volume=0.1, alike_from=100)
TABLES = ("orders", "positions", "history_orders", "history_deals")


class Module:
    """Tables that a test fills; None: the call fails."""

    def __init__(self, **rows: list[Row] | None) -> None:
        self.rows: dict[str, list[Row] | None] = {**{table: [] for table in TABLES}, **rows}
        self.asked: list[tuple[Any, ...]] = []

    def last_error(self) -> tuple[int, str]:
        return 1, "Success"

    def __getattr__(self, name: str) -> Any:
        def get(*interval: int) -> Any:
            self.asked.append((name, *interval))
            rows = self.rows[name.removesuffix("_get")]
            return None if rows is None else tuple(rows)

        return get


def row(ticket: int, **fields: Any) -> Row:
    common = {"ticket": ticket, "identifier": ticket, "order": ticket, "magic": 0, "comment": "", "symbol": "EURUSD"}
    times = dict.fromkeys(("time", "time_setup", "time_done"), 200)
    more = dict.fromkeys(("time_msc", "time_setup_msc", "entry", "position_id"), 0)
    money = dict.fromkeys(("price", "commission", "swap", "fee", "profit"), 0.0)
    own = {"reason": 3, "type": 0, "volume": 0.1, "volume_initial": 0.1}
    return Row(**{**common, **times, **more, **money, **own, **fields})


def look(module: Module, *, settled_until: int = 1000, wanted: Wanted = WANTED) -> SearchResult:
    calls = Mt5Client(module)
    calls.broken = None
    return search.look(calls, Search((wanted,), 1, 2000, settled_until))


def tickets(look: SearchResult, table: str) -> list[int]:
    return [match.ticket for match in look.matches if match.table == table]


def test_what_lives_is_read_before_what_ended_and_history_from_begin_to_end() -> None:
    module = Module()
    assert look(module).counts == dict.fromkeys(TABLES, 0)
    assert module.asked == [
        ("orders_get",),
        ("positions_get",),
        ("history_orders_get", 1, 2000),
        ("history_deals_get", 1, 2000),
    ]


@pytest.mark.parametrize("table", TABLES)
def test_a_table_without_an_answer_makes_the_whole_look_none(table: str) -> None:
    assert not look(Module(**{table: None})).read


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    ("fields", "seen"),
    [
        ({"magic": 7, "symbol": "GBPUSD"}, True),
        ({"comment": "g1aaaaaa", "symbol": "GBPUSD"}, True),
        ({"comment": "g1 g1aaaaaaaaaaaa/x", "symbol": "GBPUSD"}, True),
        ({"comment": "g1aaaaa", "symbol": "GBPUSD"}, False),
        ({}, True),
        ({"comment": "g1bbbbbbbbbbbb"}, False),
        ({"type": 1}, False),
        ({"volume": 0.2, "volume_initial": 0.2}, False),
        ({"volume": 0.1 + 1e-12, "volume_initial": 0.1 + 1e-12}, True),
        ({"time": 99, "time_setup": 99}, False),
        ({"reason": 0, "magic": 7}, False),
        ({"type": 8, "magic": 7}, False),
    ],
)
def test_only_what_may_be_wanted_is_told(table: str, fields: dict[str, Any], seen: bool) -> None:
    found = look(Module(**{table: [row(5, **fields)]}))
    assert tickets(found, table) == ([5] if seen else [])
    assert found.counts[table] == 1


def test_nothing_is_told_for_being_alike_of_what_was_resolved() -> None:
    found = look(Module(history_orders=[row(5)]), wanted=replace(WANTED, alike_from=None))
    assert tickets(found, "history_orders") == []


def test_the_deals_of_an_order_that_was_seen_are_told_whatever_their_volume_and_name() -> None:
    deals = [row(50, order=5, volume=0.04), row(51, order=5, volume=0.06), row(52, order=6, volume=0.6)]
    found = look(Module(history_orders=[row(5, magic=7)], history_deals=deals))
    assert [deal.ticket for deal in found.deals] == [50, 51]
    assert tickets(found, "history_deals") == [5, 5]


def test_the_digest_changes_with_the_settled_past_and_not_with_what_is_later_or_lives() -> None:
    past, later = row(5, time=500, time_done=500), row(6, time=1500, time_done=1500)
    base = look(Module(history_orders=[past], history_deals=[past])).digest
    for same in ({"history_orders": [past, later]}, {"history_deals": [past, later]}, {"orders": [past]}):
        assert look(Module(**{"history_orders": [past], "history_deals": [past], **same})).digest == base
    for table in ("history_orders", "history_deals"):
        assert look(Module(**{"history_orders": [past], "history_deals": [past], table: []})).digest != base


def test_a_nameless_part_is_told_from_deals_and_positions_but_an_order_only_whole() -> None:
    parts = {table: [row(at, volume=0.04, volume_initial=0.04)] for at, table in enumerate(TABLES, start=60)}
    found = look(Module(**parts))
    told = [table for table in TABLES if tickets(found, table)]
    assert told == ["positions", "history_deals"]
