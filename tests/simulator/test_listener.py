"""The market as a process: what it keeps, what it says, and that it outlives its clients."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import streamapp.simulator.metatrader5 as mt5
from tests.simulator.conftest import HEDGING, NETTING, MarketProcess, environment, send

CLIENT = """
import sys
import streamapp.simulator.metatrader5 as mt5
assert mt5.initialize(login=int(sys.argv[1])), mt5.last_error()
number = int(sys.argv[2])
while True:
    number += 1
    result = mt5.order_send({"action": 1, "symbol": "EURUSD", "volume": 0.01, "type_filling": 1, "magic": number})
    if result is None:
        sys.exit(repr(mt5.last_error()))
    print(number, result.order, flush=True)
"""


def start_client(market: MarketProcess, login: int, first: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CLIENT, str(login), str(first)]
    return subprocess.Popen(command, env=environment(market), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_a_restart_continues_with_the_same_state(ending: str, start_market: Any, connect: Any, tmp_path: Path) -> None:
    market = start_market("--data", str(tmp_path / "market"))
    market.pin("EURUSD", "1.10000", "1.10010")
    connect(market, HEDGING)
    opened = send(magic=5, sl=1.09)
    pending = send(action=mt5.TRADE_ACTION_PENDING, type=2, price=1.05)
    closed = send(magic=6)
    send(type=1, position=closed.order)
    before = (mt5.account_info(), mt5.positions_get(), mt5.orders_get(), mt5.history_deals_get(1000, 2**31 - 1))
    ledger = market.ledger()
    assert getattr(market, ending)() in (0, -signal.SIGKILL)
    assert mt5.account_info() is None
    assert mt5.last_error()[0] in (-10001, -10002)
    assert mt5.account_info() is None
    assert mt5.last_error()[0] == -10004
    market.start()
    connect(market, HEDGING)
    after = (mt5.account_info(), mt5.positions_get(), mt5.orders_get(), mt5.history_deals_get(1000, 2**31 - 1))
    assert after == before
    assert market.ledger() == ledger
    assert [order.ticket for order in after[2]] == [pending.order]
    assert send().order > max(closed.order, opened.order, pending.order)
    market.pin("EURUSD", "1.08900", "1.08910")
    assert mt5.positions_get(ticket=opened.order) == ()


def test_a_killed_market_has_every_order_that_it_confirmed(start_market: Any, tmp_path: Path) -> None:
    market = start_market("--data", str(tmp_path / "market"))
    clients = [start_client(market, login, login * 1000) for login in (50000001, 50000002)]
    confirmed: list[int] = []
    for client in clients:
        assert client.stdout is not None
        confirmed += [int(client.stdout.readline().split()[1]) for _ in range(100)]
    market.kill()
    for client in clients:
        out, error = client.communicate(timeout=20)
        confirmed += [int(line.split()[1]) for line in out.splitlines()]
        assert "-1000" in error
    market.start()
    orders = [row["ticket"] for row in market.http("GET", "/ledger") if row["kind"] == "order"]
    assert set(confirmed) <= set(orders)
    assert len(orders) == len(set(orders))
    assert market.http("GET", "/health")["invariants"]["one_order_per_intent"] is True


def test_it_survives_a_client_that_is_killed(market: MarketProcess) -> None:
    client = start_client(market, HEDGING, 10**6)
    assert client.stdout is not None
    assert client.stdout.readline()
    client.kill()
    client.communicate()
    assert market.http("GET", "/health")["status"] == "ok"


def test_two_terminals_of_one_account_see_each_other(market: MarketProcess, connect: Any) -> None:
    client = start_client(market, HEDGING, 2 * 10**6)
    assert client.stdout is not None
    number, ticket = (int(word) for word in client.stdout.readline().split())
    client.kill()
    client.communicate()
    connect(market)
    (position,) = mt5.positions_get(ticket=ticket)
    assert position.magic == number


def test_the_ledger_is_found_by_name_and_login(hedging: MarketProcess) -> None:
    result = send(magic=4711, comment="t")
    by_name = [row for row in hedging.ledger("demo-hedging") if row["magic"] == 4711]
    assert by_name == [row for row in hedging.ledger(str(HEDGING)) if row["magic"] == 4711]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", by_name[0]["at"])
    expected = {"account": "demo-hedging", "position_id": result.order, "comment": "t", "symbol": "EURUSD"}
    assert {name: by_name[1][name] for name in expected} == expected
    assert (by_name[1]["ticket"], by_name[1]["volume"], by_name[1]["price"]) == (result.deal, "0.1", "1.10010")
    assert not [row for row in hedging.ledger("demo-netting") if row["magic"] == 4711]
    assert "error" in hedging.http("GET", "/health/nothing")


def test_health_tells_when_an_intent_led_to_two_orders(hedging: MarketProcess) -> None:
    send(magic=99)
    assert 99 not in [row["magic"] for row in hedging.http("GET", "/health")["invariants"]["violations"]]
    send(magic=99)
    invariants = hedging.http("GET", "/health")["invariants"]
    assert not invariants["one_order_per_intent"]
    assert {"account": "demo-hedging", "magic": 99, "orders": 2} in invariants["violations"]


def test_a_pinned_price_stays_until_it_is_released(market: MarketProcess) -> None:
    market.pin("EURJPY", "160.000", "160.020")
    assert market.http("GET", "/quotes/EURJPY") == {
        "symbol": "EURJPY", "bid": "160.000", "ask": "160.020", "pinned": True,
    }  # fmt: skip
    market.http("DELETE", "/quotes/EURJPY")
    seen = Counter(market.http("GET", "/quotes/EURJPY")["pinned"] for _ in range(2))
    assert seen == {False: 2}
    for wrong in ({"bid": "2", "ask": "1"}, {"bid": "x", "ask": "1"}, {}):
        assert "error" in market.http("POST", "/quotes/EURJPY", wrong)
    assert "error" in market.http("GET", "/quotes/NOSUCH")


def test_latency_delays_an_order_and_nothing_else(start_market: Any, connect: Any) -> None:
    market = start_market("--virtual-clock", "--latency-ms", "85,250")
    connect(market)
    begun = market.http("GET", "/clock")["utc_ms"]
    mt5.positions_get()
    assert market.http("GET", "/clock")["utc_ms"] == begun
    assert send().retcode == mt5.TRADE_RETCODE_DONE
    assert 5 < market.http("GET", "/clock")["utc_ms"] - begun < 5000


def test_two_virtual_markets_with_one_seed_write_one_ledger(start_market: Any, connect: Any) -> None:
    ledgers = []
    for _ in range(2):
        market = start_market("--virtual-clock", "--seed", "3", "--latency-ms", "50")
        connect(market)
        for number in range(20):
            send(type=number % 2, magic=number + 1)
            market.http("POST", "/clock", {"advance_ms": 700})
        ledgers.append(market.ledger())
        mt5.shutdown()
        market.stop()
    assert ledgers[0] == ledgers[1]
    assert len({row["price"] for row in ledgers[0] if row["kind"] == "deal"}) > 3


def test_a_replayed_file_gives_its_prices(start_market: Any, connect: Any, tmp_path: Path) -> None:
    ticks = tmp_path / "ticks.csv"
    ticks.write_text("symbol,time_msc,bid,ask\nEURUSD,1000,1.20000,1.20010\nEURUSD,3000,1.30000,1.30010\n")
    market = start_market("--virtual-clock", "--replay", str(ticks))
    market.http("POST", "/clock", {"advance_ms": 1})
    assert market.http("GET", "/quotes/EURUSD")["bid"] == "1.20000"
    market.http("POST", "/clock", {"advance_ms": 2000})
    assert market.http("GET", "/quotes/EURUSD")["bid"] == "1.30000"


def test_trading_hours_are_kept_when_asked_for(start_market: Any, connect: Any) -> None:
    market = start_market("--virtual-clock", "--sessions")
    connect(market)
    assert send().retcode == mt5.TRADE_RETCODE_DONE
    market.http("POST", "/clock", {"advance_ms": 5 * 86_400_000})
    assert send().retcode == mt5.TRADE_RETCODE_MARKET_CLOSED
    assert send(symbol="BTCUSD").retcode == mt5.TRADE_RETCODE_DONE


def test_a_call_holds_the_gil_like_the_original(hedging: MarketProcess) -> None:
    hedging.fault("hang", on="symbols_total", nth=1, params={"ms": 300})
    beats: list[int] = []
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.01):
            beats.append(1)

    thread = threading.Thread(target=beat)
    thread.start()
    while not beats:
        pass
    before = len(beats)
    mt5.symbols_total()
    during = len(beats) - before
    stop.set()
    thread.join()
    # Free threads would have beaten some thirty times; the rest of Python may give it one or two.
    assert during <= 5


def test_a_second_market_on_the_same_folder_or_port_is_refused(start_market: Any, tmp_path: Path) -> None:
    market = start_market("--data", str(tmp_path / "market"))
    port = market.address.rpartition(":")[2]
    for options in (["--port", "0", "--data", str(tmp_path / "market")], ["--port", port]):
        command = [sys.executable, "-m", "streamapp.simulator", *options]
        second = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert second.returncode == 2
        assert "can't" in second.stderr


def test_a_wrong_accounts_file_says_what_is_wrong(tmp_path: Path) -> None:
    accounts = tmp_path / "accounts.json"
    accounts.write_text('[{"name": "a", "login": 1, "levrage": 5}]')
    command = [sys.executable, "-m", "streamapp.simulator", "--port", "0", "--accounts", str(accounts)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "levrage" in done.stderr


@pytest.mark.parametrize(
    ("option", "text"),
    [("--accounts", '[{"name": "a", "login": 1, "balance": "much"}]'), ("--symbols", '[{"name": "EURUSD"}]'),
     ("--profiles", '{"default": 5}'), ("--accounts", "5")],
)  # fmt: skip
def test_a_file_that_makes_no_sense_is_a_sentence(option: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "file.json").write_text(text)
    command = [sys.executable, "-m", "streamapp.simulator", "--port", "0", option, str(tmp_path / "file.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("The market can't start: ")


def test_strange_bytes_close_their_own_connection_only(market: MarketProcess) -> None:
    host, port = market.address.split(":")
    for data in (
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST /faults HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    ):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(data)
            assert b"error" in connection.recv(65_536)
    for call in (
        b"MT5\x01\xff\xff\xff\xff", b"MT5\x01\x02\x00\x00\x00{]", b"MT5\x01\x01\x00\x00\x005",
        b"MT5\x01\x07\x00\x00\x00[1, []]",
    ):  # fmt: skip
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(call)
            assert connection.recv(65_536) == b""
    assert market.http("GET", "/health")["status"] == "ok"


def test_faults_come_from_a_file_too(start_market: Any, connect: Any, tmp_path: Path) -> None:
    script = tmp_path / "faults.json"
    script.write_text('[{"kind": "requote", "account": "demo-hedging", "nth": 2}]')
    connect(start_market("--faults", str(script)))
    assert [send().retcode for _ in range(3)] == [10009, 10004, 10009]


@pytest.mark.parametrize(
    ("kind", "retcode", "deals"),
    [
        ("placed_then_fill", mt5.TRADE_RETCODE_PLACED, ["0.1"]),
        ("placed_then_reject", mt5.TRADE_RETCODE_PLACED, []),
        ("timeout_late", mt5.TRADE_RETCODE_TIMEOUT, ["0.1"]),
        ("partial_then_rest", mt5.TRADE_RETCODE_DONE_PARTIAL, ["0.05", "0.05"]),
    ],
)
def test_what_the_broker_had_begun_goes_on_after_a_restart(  # noqa: PLR0917  # its parameters are a table's columns
    start_market: Any, connect: Any, tmp_path: Path, kind: str, retcode: int, deals: list[str]
) -> None:
    market = start_market("--data", str(tmp_path / "market"), "--virtual-clock")
    connect(market, HEDGING)
    market.fault(kind, nth=1, params={"ms": 5000})
    assert send(magic=8).retcode == retcode
    market.kill()
    market.start()
    connect(market, HEDGING)
    done = deals[:-1] if kind == "partial_then_rest" else []
    market.http("POST", "/clock", {"advance_ms": 4000})
    assert [row["volume"] for row in market.ledger(kind="deal")] == done
    market.http("POST", "/clock", {"advance_ms": 1001})
    assert [row["volume"] for row in market.ledger(kind="deal")] == deals
    assert mt5.orders_get() == ()
    assert market.http("GET", "/health")["invariants"]["one_order_per_intent"]


def test_faults_go_on_after_a_restart_as_far_as_they_had_got(start_market: Any, connect: Any, tmp_path: Path) -> None:
    market = start_market("--data", str(tmp_path / "market"))
    connect(market, HEDGING)
    market.fault("requote", nth=3)
    market.fault("investor", account="demo-netting")
    assert send().retcode == mt5.TRADE_RETCODE_DONE
    shown = market.http("GET", "/faults")
    market.kill()
    market.start()
    connect(market, HEDGING)
    assert market.http("GET", "/faults") == shown
    assert [send().retcode for _ in range(3)] == [10009, 10004, 10009]
    assert mt5.login(NETTING)
    assert mt5.account_info().trade_allowed is False
    market.http("DELETE", "/faults")
    market.kill()
    market.start()
    assert market.http("GET", "/faults") == []


def test_a_broker_may_show_few_symbols_at_first(start_market: Any, connect: Any, tmp_path: Path) -> None:
    profiles, accounts = tmp_path / "profiles.json", tmp_path / "accounts.json"
    profiles.write_text('{"narrow": {"market_watch": ["EURUSD"]}}')
    accounts.write_text('[{"name": "a", "login": 5, "profile": "narrow"}]')
    connect(start_market("--profiles", str(profiles), "--accounts", str(accounts)), 5)
    assert mt5.symbol_info_tick("EURUSD").ask > 0
    assert mt5.symbol_info_tick("GBPUSD") is None
    assert (mt5.symbol_info("GBPUSD").visible, mt5.last_error()[0]) == (False, 1)
    assert mt5.symbol_select("GBPUSD")
    assert mt5.symbol_info_tick("GBPUSD").ask > 0


def test_the_order_of_the_checks_is_data(start_market: Any, connect: Any, tmp_path: Path) -> None:
    profiles, accounts = tmp_path / "profiles.json", tmp_path / "accounts.json"
    profiles.write_text('{"odd": {"validation": {"terminal": ["action", "symbol", "stops", "volume"]}}}')
    accounts.write_text('[{"name": "a", "login": 5, "profile": "odd"}]')
    market = start_market("--profiles", str(profiles), "--accounts", str(accounts))
    connect(market, 5)
    assert send(volume=0.0, sl=1.9).retcode == mt5.TRADE_RETCODE_INVALID_STOPS
    profiles.write_text('{"odd": {"validation": {"server": ["luck"]}}}')
    command = [sys.executable, "-m", "streamapp.simulator", "--port", "0", "--profiles", str(profiles)]
    done = subprocess.run(
        [*command, "--accounts", str(accounts)], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, "expected validation to name checks of" in done.stderr) == (2, True)


def test_metrics_count_orders_and_deals(hedging: MarketProcess) -> None:
    send()
    with urllib.request.urlopen(f"http://{hedging.address}/metrics", timeout=10) as response:
        lines = dict(line.rsplit(" ", 1) for line in response.read().decode().splitlines())
    assert int(lines['streamapp_market_deals_total{account="demo-hedging"}']) > 1
    assert int(lines["streamapp_market_terminals"]) == 1


def test_market_and_module_need_nothing_but_the_standard_library(tmp_path: Path) -> None:
    root = Path(mt5.__file__).parents[2]
    for arguments in (["-m", "streamapp.simulator", "--help"], ["-c", "import streamapp.simulator.metatrader5"]):
        done = subprocess.run(
            [sys.executable, "-S", *arguments],
            env={**os.environ, "PYTHONPATH": str(root)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
