"""Each fault: what the client sees, and what truly happened."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import streamapp.simulator.metatrader5 as mt5
from streamapp.simulator.module.client import EXIT_STATUS
from streamapp.simulator.server.faults import KINDS
from tests.kit.waiting import eventually_blocking
from tests.simulator.conftest import HEDGING, NETTING, MarketProcess, environment, send

MAGICS = iter(range(5_000_000, 6_000_000))
# Generous: a machine that runs other tests beside these stalls for seconds.
SOON_S = 60.0
# Longer than any test: such a state ends when the test ends it.
LONG = {"ms": 3_600_000}


@pytest.fixture
def virtual(start_market: Any, connect: Any) -> MarketProcess:
    """A market whose time moves only when told to, and the module on its hedging account."""
    market: MarketProcess = start_market("--virtual-clock")
    connect(market)
    return market


def orders(market: MarketProcess, magic: int) -> list[dict[str, Any]]:
    return [row for row in market.ledger(kind="order") if row["magic"] == magic]


@pytest.mark.parametrize(
    ("kind", "code", "text", "executed"),
    [
        ("drop_before", -10001, "IPC send failed", 0),
        ("drop_after", -10002, "IPC recv failed", 1),
        ("desync", -10000, "IPC call failed", 1),
        ("api_disabled", -8, "Auto-Trading using Python API disabled in Terminal", 0),
        ("terminal_restart", -10002, "IPC recv failed", 1),
    ],
)
def test_a_lost_reply_is_none_with_its_error(  # noqa: PLR0917  # its parameters are a table's columns
    hedging: MarketProcess, connect: Any, kind: str, code: int, text: str, executed: int
) -> None:
    hedging.fault(kind, nth=1, params={"ms": 10_000} if kind == "api_disabled" else {"ms": 20})
    magic = next(MAGICS)
    assert send(magic=magic) is None
    assert mt5.last_error() == (code, text)
    assert len(orders(hedging, magic)) == executed
    hedging.http("DELETE", "/faults")
    connect(hedging)
    assert send(magic=next(MAGICS)).retcode == mt5.TRADE_RETCODE_DONE


@pytest.mark.parametrize(
    ("kind", "retcode", "executed", "from_terminal"),
    [
        ("timeout_executed", 10012, 1, False),
        ("timeout_lost", 10012, 0, False),
        ("conn_executed", 10031, 1, False),
        ("conn_lost", 10031, 0, False),
        ("autotrading_off", 10027, 0, True),
        ("investor", 10017, 0, True),
        ("server_disables_ea", 10026, 0, True),
        ("disconnect", 10031, 0, True),
        ("market_closed", 10018, 0, False),
        ("off_quotes", 10021, 0, False),
        ("requote", 10004, 0, False),
        ("price_changed", 10020, 0, False),
        ("too_many_requests", 10024, 0, False),
        ("locked", 10028, 0, False),
        ("frozen", 10029, 0, False),
        ("reject", 10006, 0, False),
    ],
)
def test_an_answer_without_an_execution_or_the_reverse(  # its parameters are a table's columns
    hedging: MarketProcess, kind: str, retcode: int, executed: int, from_terminal: bool
) -> None:
    hedging.fault(kind, nth=1)
    magic = next(MAGICS)
    result = send(magic=magic)
    assert (result.retcode, result.deal, result.order) == (retcode, 0, 0)
    assert (result.request_id == 0) is from_terminal
    assert len(orders(hedging, magic)) == executed


def test_a_late_execution_comes_after_the_timeout(hedging: MarketProcess) -> None:
    hedging.fault("timeout_late", nth=1, params={"ms": 150})
    magic = next(MAGICS)
    assert send(magic=magic).retcode == mt5.TRADE_RETCODE_TIMEOUT
    assert eventually_blocking(lambda: orders(hedging, magic))
    assert [p.magic for p in mt5.positions_get() if p.magic == magic] == [magic]


def test_after_a_desync_each_reply_belongs_to_the_call_before(hedging: MarketProcess, connect: Any) -> None:
    hedging.fault("desync", on="positions_total", nth=1)
    assert mt5.positions_total() is None
    send(magic=next(MAGICS))
    assert mt5.last_error()[0] == -10000
    total = mt5.account_info()
    assert total is None
    assert mt5.last_error()[0] == -10000
    first = mt5.symbol_info_tick("EURUSD")
    assert first is None
    assert mt5.symbol_info_tick("USDJPY").bid == 1.1
    connect(hedging)
    assert mt5.symbol_info_tick("USDJPY").bid == 150.0


def test_a_crash_ends_the_process_after_the_execution(market: MarketProcess) -> None:
    magic = next(MAGICS)
    market.fault("crash_client", nth=1)
    code = (
        "import streamapp.simulator.metatrader5 as mt5\n"
        f"mt5.initialize(login={HEDGING})\n"
        f"mt5.order_send(action=1, symbol='EURUSD', volume=0.1, type_filling=1, magic={magic})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(market), timeout=30, check=False)
    assert done.returncode == EXIT_STATUS
    assert len(orders(market, magic)) == 1


def test_a_hang_lasts_until_the_process_is_killed_and_the_order_stays(market: MarketProcess) -> None:
    magic = next(MAGICS)
    market.fault("hang", nth=1)
    code = (
        "import streamapp.simulator.metatrader5 as mt5\n"
        f"mt5.initialize(login={HEDGING})\n"
        f"mt5.order_send(action=1, symbol='EURUSD', volume=0.1, type_filling=1, magic={magic})\n"
    )
    client = subprocess.Popen([sys.executable, "-c", code], env=environment(market))
    eventually_blocking(lambda: orders(market, magic))
    assert client.poll() is None
    client.kill()
    client.wait(10)
    assert len(orders(market, magic)) == 1


def test_a_script_strikes_the_nth_call_of_its_account_only(hedging: MarketProcess) -> None:
    hedging.fault("drop_after", account="demo-hedging", nth=3)
    hedging.fault("drop_after", account="demo-netting", nth=1)
    answers = [send(magic=next(MAGICS)) for _ in range(4)]
    assert [answer is None for answer in answers] == [False, False, True, False]
    assert mt5.login(NETTING)
    assert send(magic=next(MAGICS)) is None
    shown = hedging.http("GET", "/faults")
    assert [(row["calls"], row["hits"]) for row in shown] == [(4, 1), (1, 1)]


def test_a_probability_strikes_some_calls_and_times_limits_it(hedging: MarketProcess) -> None:
    hedging.fault("requote", probability=0.5)
    codes = {send().retcode for _ in range(30)}
    assert codes == {mt5.TRADE_RETCODE_REQUOTE, mt5.TRADE_RETCODE_DONE}
    hedging.http("POST", "/faults", {"faults": [{"kind": "requote", "times": 2}], "replace": True})
    assert [send().retcode for _ in range(4)] == [10004, 10004, 10009, 10009]


@pytest.mark.parametrize("table", ["positions", "hist_deals", "hist_orders"])
def test_each_table_has_its_own_visibility_lag(hedging: MarketProcess, table: str) -> None:
    hedging.fault("visibility_lag", params={table: 3_600_000})
    result = send(magic=next(MAGICS))
    get: dict[str, Callable[[], Any]] = {
        "positions": lambda: mt5.positions_get(ticket=result.order),
        "hist_deals": lambda: mt5.history_deals_get(position=result.order),
        "hist_orders": lambda: mt5.history_orders_get(ticket=result.order),
    }
    assert {name for name, read in get.items() if not read()} == {table}
    hedging.http("DELETE", "/faults")
    assert get[table]()


def test_a_lag_ends_by_itself_and_hides_a_closing_too(virtual: MarketProcess) -> None:
    virtual.fault("visibility_lag", params={"positions": 300})
    opened = send()
    assert mt5.positions_get(ticket=opened.order) == ()
    virtual.http("POST", "/clock", {"advance_ms": 300})
    assert len(mt5.positions_get(ticket=opened.order)) == 1
    assert send(type=1, position=opened.order).retcode == mt5.TRADE_RETCODE_DONE
    assert len(mt5.positions_get(ticket=opened.order)) == 1
    virtual.http("POST", "/clock", {"advance_ms": 300})
    assert mt5.positions_get(ticket=opened.order) == ()


def test_a_disconnected_terminal_shows_the_past(hedging: MarketProcess, connect: Any) -> None:
    opened = send()
    hedging.fault("disconnect", account="demo-hedging")
    assert mt5.terminal_info().connected is False
    hedging.pin("EURUSD", "1.20000", "1.20010")
    hedging.http("POST", "/faults", {"kind": "foreign_activity", "params": {"position": opened.order}})
    assert mt5.symbol_info_tick("EURUSD").bid == 1.1
    assert len(mt5.positions_get(ticket=opened.order)) == 1
    hedging.http("DELETE", "/faults")
    assert mt5.terminal_info().connected is True
    assert mt5.positions_get(ticket=opened.order) == ()
    assert mt5.symbol_info_tick("EURUSD").bid == 1.2


def test_a_disconnection_ends_by_itself(hedging: MarketProcess) -> None:
    hedging.fault("disconnect", nth=1, params={"ms": 100})
    assert send().retcode == 10031
    eventually_blocking(lambda: mt5.terminal_info().connected)
    assert send().retcode == mt5.TRADE_RETCODE_DONE


def test_a_terminal_that_came_back_is_stale_for_a_while(hedging: MarketProcess, connect: Any) -> None:
    opened = send()
    hedging.fault("stale_after_reconnect", account="demo-hedging", params=LONG)
    mt5.shutdown()
    eventually_blocking(lambda: not any(s for s in [hedging.http("GET", "/health")["terminals"].get("demo-hedging")]))
    hedging.http("POST", "/faults", {"kind": "foreign_activity", "params": {"position": opened.order}})
    connect(hedging)
    assert len(mt5.positions_get(ticket=opened.order)) == 1
    hedging.http("DELETE", "/faults")
    assert mt5.positions_get(ticket=opened.order) == ()


def test_a_partial_history_is_a_success_with_rows_missing(hedging: MarketProcess) -> None:
    result = send()
    hedging.fault("history_partial", params={"share": 0.5})
    assert result.deal not in [deal.ticket for deal in mt5.history_deals_get(1000, 2**31 - 1)]
    assert mt5.last_error() == (1, "Success")
    hedging.http("DELETE", "/faults")
    assert result.deal in [deal.ticket for deal in mt5.history_deals_get(1000, 2**31 - 1)]


def test_a_restarting_terminal_is_away_for_its_time(hedging: MarketProcess) -> None:
    hedging.fault("terminal_restart", account="demo-hedging", params=LONG)
    assert mt5.positions_total() is None
    assert mt5.last_error()[0] in (-10001, -10002)
    assert mt5.initialize(login=HEDGING) is False
    assert mt5.last_error() == (-10005, "IPC timeout")
    hedging.http("DELETE", "/faults")
    assert mt5.initialize(login=HEDGING)


def test_an_updated_terminal_has_another_build(hedging: MarketProcess, connect: Any) -> None:
    build = mt5.version()[1]
    hedging.fault("terminal_update", on="positions_total", nth=1, params={"ms": 1})
    assert mt5.positions_total() is None
    assert mt5.terminal_info() is None
    assert mt5.last_error() == (-10004, "No IPC connection")
    assert eventually_blocking(lambda: mt5.initialize(login=HEDGING))
    assert mt5.version()[1] == mt5.terminal_info().build == build + 1


def test_a_close_that_works_already_is_not_sent_twice(virtual: MarketProcess) -> None:
    opened = send()
    virtual.fault("placed_then_fill", nth=1, params={"ms": 100})
    assert send(type=1, position=opened.order).retcode == mt5.TRADE_RETCODE_PLACED
    assert send(type=1, position=opened.order).retcode == mt5.TRADE_RETCODE_CLOSE_ORDER_EXIST
    virtual.http("POST", "/clock", {"advance_ms": 100})
    assert mt5.positions_get(ticket=opened.order) == ()
    assert send(type=1, position=opened.order).retcode == mt5.TRADE_RETCODE_POSITION_CLOSED


def test_a_switched_account_shows_another_login(hedging: MarketProcess) -> None:
    hedging.fault("account_switched", account="demo-hedging", params={"login": NETTING})
    assert mt5.account_info().login == NETTING


def test_permissions_are_shown_where_the_terminal_shows_them(hedging: MarketProcess) -> None:
    for kind in ("autotrading_off", "api_disabled", "investor", "server_disables_ea"):
        hedging.fault(kind)
    terminal, account = mt5.terminal_info(), mt5.account_info()
    assert (terminal.trade_allowed, terminal.tradeapi_disabled) == (False, True)
    assert (account.trade_allowed, account.trade_expert) == (False, False)


@pytest.mark.parametrize(("kind", "state"), [("placed_then_fill", 4), ("placed_then_reject", 5)])
def test_placed_is_not_yet_an_outcome(virtual: MarketProcess, kind: str, state: int) -> None:
    virtual.fault(kind, nth=1, params={"ms": 100})
    result = send(magic=next(MAGICS))
    assert (result.retcode, result.deal) == (mt5.TRADE_RETCODE_PLACED, 0)
    (working,) = mt5.orders_get(ticket=result.order)
    assert working.state == mt5.ORDER_STATE_PLACED
    virtual.http("POST", "/clock", {"advance_ms": 100})
    (done,) = mt5.history_orders_get(ticket=result.order)
    assert done.state == state
    assert bool(mt5.positions_get(ticket=result.order)) == (state == mt5.ORDER_STATE_FILLED)


def test_a_partial_fill_cancels_or_works_the_rest(hedging: MarketProcess) -> None:
    hedging.fault("partial", nth=1, params={"share": 0.3})
    result = send()
    assert (result.retcode, result.volume) == (mt5.TRADE_RETCODE_DONE_PARTIAL, 0.03)
    assert mt5.history_orders_get(ticket=result.order)[0].volume_current == 0.07
    hedging.fault("partial_then_rest", nth=1, params={"share": 0.3, "ms": 100})
    result = send(magic=next(MAGICS))
    assert (result.retcode, result.volume) == (mt5.TRADE_RETCODE_DONE_PARTIAL, 0.03)
    deals = eventually_blocking(lambda: len(found := mt5.history_deals_get(position=result.order)) == 2 and found)
    assert [deal.volume for deal in deals] == [0.03, 0.07]
    (position,) = mt5.positions_get(ticket=result.order)
    assert position.volume == 0.1


def test_done_without_deal_has_to_be_looked_up(hedging: MarketProcess) -> None:
    hedging.fault("done_without_deal", nth=1)
    magic = next(MAGICS)
    result = send(magic=magic)
    assert (result.retcode, result.deal, result.order) == (mt5.TRADE_RETCODE_DONE, 0, 0)
    assert [p.magic for p in mt5.positions_get() if p.magic == magic] == [magic]


@pytest.mark.parametrize(
    ("params", "comment"),
    [
        ({"how": "truncate", "length": 4}, "g1ab"),
        ({"how": "append", "text": "/p7"}, "g1abcdef/p7"),
        ({"how": "replace", "text": "desk"}, "desk"),
        ({"how": "empty"}, ""),
    ],
)
def test_the_ledger_keeps_what_the_broker_rewrites(hedging: MarketProcess, params: Any, comment: str) -> None:
    hedging.fault("comment_rewrite", nth=1, params=params)
    hedging.fault("magic_zeroed", nth=1)
    magic = next(MAGICS)
    result = send(magic=magic, comment="g1abcdef")
    (position,) = mt5.positions_get(ticket=result.order)
    (deal,) = mt5.history_deals_get(position=result.order)
    assert (position.comment, position.magic, deal.comment, deal.magic) == (comment, 0, comment, 0)
    lines = [row for row in hedging.ledger() if row["magic"] == magic]
    assert [(row["kind"], row["comment"]) for row in lines] == [("order", "g1abcdef"), ("deal", "g1abcdef")]


def test_broker_quirks_of_stops_volume_and_tickets(hedging: MarketProcess) -> None:
    hedging.fault("sl_tp_ignored_on_open", nth=1)
    hedging.fault("volume_adjusted", nth=1, params={"steps": 2})
    result = send(sl=1.09, tp=1.12)
    (position,) = mt5.positions_get(ticket=result.order)
    assert (position.sl, position.tp, position.volume) == (0.0, 0.0, 0.12)
    hedging.fault("ticket_reopen", account="demo-hedging", params={"position": result.order})
    assert mt5.positions_get(ticket=result.order) == ()
    (position,) = [p for p in mt5.positions_get() if p.identifier == result.order]
    assert position.ticket != result.order


def test_a_broker_that_executes_twice_is_seen_by_the_invariant(hedging: MarketProcess) -> None:
    hedging.fault("duplicate_fill", nth=1)
    magic = next(MAGICS)
    assert send(magic=magic).retcode == mt5.TRADE_RETCODE_DONE
    assert len(orders(hedging, magic)) == 2
    invariants = hedging.http("GET", "/health")["invariants"]
    assert {"account": "demo-hedging", "magic": magic, "orders": 2} in invariants["violations"]


def test_a_pending_order_can_be_rejected_when_its_price_comes(hedging: MarketProcess) -> None:
    hedging.fault("activation_rejected", account="demo-hedging")
    placed = send(action=mt5.TRADE_ACTION_PENDING, type=2, price=1.09)
    hedging.pin("EURUSD", "1.08990", "1.09000")
    assert mt5.history_orders_get(ticket=placed.order)[0].state == mt5.ORDER_STATE_REJECTED
    assert mt5.positions_get(ticket=placed.order) == ()


@pytest.mark.parametrize(
    ("rest", "volumes", "state"),
    [("fill", [0.03, 0.07], mt5.ORDER_STATE_FILLED), ("cancel", [0.03], mt5.ORDER_STATE_CANCELED)],
)
def test_a_pending_order_can_be_filled_in_parts(
    virtual: MarketProcess, rest: str, volumes: list[float], state: int
) -> None:
    virtual.pin("EURUSD", "1.10000", "1.10010")
    virtual.fault("activation_partial", params={"share": 0.3, "rest": rest, "after_ms": 200})
    virtual.fault("visibility_lag", params={"orders": 100})
    placed = send(action=mt5.TRADE_ACTION_PENDING, type=2, price=1.09)
    assert mt5.orders_get(ticket=placed.order) == ()
    virtual.http("POST", "/clock", {"advance_ms": 100})
    virtual.pin("EURUSD", "1.08990", "1.09000")
    assert mt5.orders_get(ticket=placed.order)[0].volume_current == 0.1
    virtual.http("POST", "/clock", {"advance_ms": 100})
    (working,) = mt5.orders_get(ticket=placed.order)
    assert (working.state, working.volume_current) == (mt5.ORDER_STATE_PARTIAL, 0.07)
    virtual.http("POST", "/clock", {"advance_ms": 300})
    assert mt5.orders_get(ticket=placed.order) == ()
    assert [deal.volume for deal in mt5.history_deals_get(position=placed.order)] == volumes
    assert mt5.history_orders_get(ticket=placed.order)[0].state == state
    (position,) = mt5.positions_get(ticket=placed.order)
    assert position.volume == sum(volumes)


def test_a_call_can_fail_in_the_terminal_before_or_after_it_was_executed(hedging: MarketProcess) -> None:
    for code, executed in ((-1, False), (-3, True)):
        hedging.fault("call_failed", nth=1, params={"code": code, "executed": executed})
        magic = next(MAGICS)
        assert send(magic=magic) is None
        assert mt5.last_error()[0] == code
        assert len(orders(hedging, magic)) == executed


def test_an_answer_can_be_false(hedging: MarketProcess) -> None:
    for code in (0, 10011, 10099):
        hedging.fault("false_answer", nth=1, params={"retcode": code})
        magic = next(MAGICS)
        result = send(magic=magic)
        assert (result.retcode, result.deal, result.order) == (code, 0, 0)
        assert len(orders(hedging, magic)) == 1


def test_a_terminal_that_came_back_may_show_nothing_at_first(virtual: MarketProcess, connect: Any) -> None:
    opened, placed = send(), send(action=mt5.TRADE_ACTION_PENDING, type=2, price=0.9)
    virtual.fault("stale_after_reconnect", params={"show": "nothing", "ms": 300})
    connect(virtual)
    reads: list[Callable[[], Any]] = [
        mt5.positions_get, lambda: mt5.positions_get(ticket=opened.order), mt5.orders_get,
        lambda: mt5.orders_get(ticket=placed.order), lambda: mt5.history_deals_get(position=opened.order),
        lambda: mt5.history_deals_get(ticket=opened.order), lambda: mt5.history_orders_get(ticket=opened.order),
        lambda: mt5.history_deals_get(1000, 2**31 - 1),
    ]  # fmt: skip
    assert mt5.terminal_info().connected
    assert [read() for read in reads] == [()] * len(reads)
    assert (mt5.positions_total(), mt5.history_deals_total(1000, 2**31 - 1)) == (0, 0)
    virtual.http("POST", "/clock", {"advance_ms": 300})
    assert all(read() for read in reads)


def test_a_disconnected_terminal_shows_the_money_of_its_last_moment(hedging: MarketProcess) -> None:
    opened = send()
    before = mt5.account_info(), mt5.positions_get(ticket=opened.order), mt5.symbol_info("EURUSD")
    hedging.fault("disconnect", account="demo-hedging")
    hedging.pin("EURUSD", "1.20000", "1.20010")
    closing = {"action": "close", "position": opened.order, "volume": "0.05"}
    hedging.fault("foreign_activity", account="demo-hedging", params=closing)
    after = mt5.account_info(), mt5.positions_get(ticket=opened.order), mt5.symbol_info("EURUSD")
    assert after[:2] == before[:2]
    assert after[2].bid == before[2].bid


def test_a_wrong_fault_says_what_there_is(market: MarketProcess) -> None:
    for wrong in ({"kind": "nothing"}, {"kind": "hang", "colour": 1}, {"kind": "hang", "account": "x"}):
        assert "expected" in market.http("POST", "/faults", wrong)["error"]
    assert market.http("GET", "/faults") == []


def test_every_kind_of_fault_is_tried_in_this_file() -> None:
    text = Path(__file__).read_text("utf-8")
    assert [kind for kind in KINDS if f'"{kind}"' not in text] == []


def test_a_fault_by_chance_ends_by_itself_too(virtual: MarketProcess) -> None:
    virtual.fault("reject", probability=1.0, for_ms=1000)
    assert send(magic=next(MAGICS)).retcode == 10006
    virtual.http("POST", "/clock", {"advance_ms": 1001})
    assert send(magic=next(MAGICS)).retcode == mt5.TRADE_RETCODE_DONE


def test_a_broker_that_changes_volumes_never_closes_more_than_there_is(hedging: MarketProcess) -> None:
    opened = send(volume=0.1, magic=next(MAGICS))
    hedging.fault("volume_adjusted", nth=1, params={"steps": 3})
    assert send(volume=0.1, type=1, position=opened.order, magic=next(MAGICS)).volume == pytest.approx(0.1)
    assert mt5.positions_get(ticket=opened.order) == ()
    assert {row["entry"] for row in hedging.ledger(kind="deal") if row["position_id"] == opened.order} == {"in", "out"}
