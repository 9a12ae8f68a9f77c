"""The suite against the simulated market: it passes there, it notices what is wrong, and it leaves nothing behind."""

import json
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from streamapp.conformance.account import NotDemo
from streamapp.conformance.compare import compare
from streamapp.conformance.market import LOGIN, market_at, own_market
from streamapp.conformance.report import SuiteReport
from streamapp.conformance.suite import Target, examine

pytestmark = pytest.mark.stack  # each examination has a simulated market of its own

SIMULATED = "streamapp.simulator.metatrader5"
SABOTAGED = "tests.conformance.sabotaged"
KINDS = [
    ("default", "hedging"),
    ("default", "netting"),
    ("exchange", "exchange"),
    ("metaquotes_demo", "hedging"),
    ("prop_fifo", "hedging"),
    ("suffix_broker", "hedging"),
]


def ask(address: str, path: str) -> Any:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=30) as response:
        text = response.read().decode()
    return [json.loads(line) for line in text.splitlines()] if path.startswith("/ledger") else json.loads(text)


def orders(address: str) -> list[Any]:
    return [row for row in ask(address, "/ledger") if row["kind"] == "order"]


def run(module: str = SIMULATED, **fields: Any) -> SuiteReport:
    return examine(Target(module, {"login": LOGIN}, **fields), lambda _: None)


@contextmanager
def market(profile: str = "default", mode: str = "hedging") -> Iterator[str]:
    with own_market(profile, mode) as address, market_at(address):
        yield address


@pytest.mark.parametrize(("profile", "mode"), KINDS)
def test_the_simulated_module_conforms_on_every_kind_of_account(profile: str, mode: str) -> None:
    with market(profile, mode) as address:
        first, second = run(), run()
        account = ask(address, "/health")["accounts"]["conformance"]
        assert (account["positions"], account["orders"]) == (0, 0)
        assert ask(address, "/health")["invariants"]["one_order_per_intent"]
    assert [check.name for check in first.of("failed", "deviation")] == []
    assert first.conformant
    assert first.leftovers == ()
    assert [difference.text() for difference in compare(first, second) if difference.matters] == []
    repeated = [name for name, count in Counter(check.name for check in first.checks).items() if count > 1]
    assert repeated == []
    assert len([check for check in first.checks if check.section == "errors"]) >= 60


@pytest.mark.parametrize(
    ("wrong", "noticed"),
    [
        ("constant", "constant ORDER_FILLING_IOC"),
        ("missing constant", "constant POSITION_TYPE_SELL"),
        ("struct", "TradePosition fields"),
        ("function", "functions"),
        ("error", "order_send(volume=1)"),
        ("int volume", "order_send(volume=1)"),
        ("type", "Tick types"),
        ("wrong code", "refused: volume 0"),
    ],
)
def test_one_wrong_thing_is_noticed(monkeypatch: pytest.MonkeyPatch, wrong: str, noticed: str) -> None:
    monkeypatch.setenv("SABOTAGE", wrong)
    with market():
        right, bad = run(), run(SABOTAGED)
    assert noticed in [check.name for check in bad.of("failed")]
    assert not bad.conformant
    assert (noticed in [difference.name for difference in compare(right, bad) if difference.matters]) is (
        wrong != "wrong code"
    )
    assert bad.leftovers == ()


def test_nothing_is_sent_to_a_real_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SABOTAGE", "real account")
    with market() as address:
        with pytest.raises(NotDemo, match="expected a demo account"):
            run(SABOTAGED)
        assert orders(address) == []


def test_it_stops_when_the_account_is_no_demo_account_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SABOTAGE", "becomes real")
    with market() as address:
        report = run(SABOTAGED)
        opened = orders(address)
    assert "expected a demo account" in report.stopped
    assert not report.conformant
    assert len(opened) == 1
    assert str(opened[0]["ticket"]) in report.leftovers[0]


def test_what_can_not_be_closed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SABOTAGE", "no closing")
    with market(), monkeypatch.context() as quick:
        quick.setattr("streamapp.conformance.account.SETTLE_S", 0.2)
        quick.setattr("streamapp.conformance.suite.SCENARIOS", {})
        quick.setattr("streamapp.conformance.suite.MEASURES", {})
        report = run(SABOTAGED)
    assert not report.conformant
    assert all("position" in leftover for leftover in report.leftovers)
    assert report.leftovers
    assert "LEFT BEHIND position" in report.summary()


def test_a_call_that_hangs_is_ended_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SABOTAGE", "hang")
    monkeypatch.setitem(__import__("streamapp.conformance.caller").conformance.caller.DEADLINES_S, "order_send", 5.0)
    with market() as address:
        report = run(SABOTAGED)
        account = ask(address, "/health")["accounts"]["conformance"]
    assert [check.name for check in report.of("failed")] == ["protect"]
    assert (account["positions"], report.leftovers) == (0, ())
    assert any(check.name == "sell stop limit: removed" for check in report.checks)


LAGS = {"orders": 60, "positions": 90, "hist_orders": 120, "hist_deals": 150}
BAD_DAYS: dict[str, tuple[list[dict[str, Any]], set[str]]] = {
    "a lost answer": ([{"kind": "drop_after", "nth": 4}], {"close of a sell"}),
    "an answer without its order": ([{"kind": "done_without_deal", "nth": 8}], {"buy to protect: position"}),
    "a lost read": ([{"kind": "drop_after", "on": "history_deals_get", "nth": 3}], {"buy and close"}),
    "a lost read that is only timed": ([{"kind": "drop_after", "on": "history_deals_get", "nth": 30}], set()),
    "out of phase": ([{"kind": "desync", "nth": 7}], {"close of the rest", "partial close"}),
    "restart": ([{"kind": "terminal_restart", "nth": 5, "params": {"ms": 1}}], {"buy two lots", "partial close"}),
    "lag": ([{"kind": "visibility_lag", "params": LAGS}], set()),
}
"""What goes wrong, and the checks that fail of it. Each fault counts calls, and without a lag the suite makes the same
ones every time; what lags is shown long before the suite stops waiting for it."""


@pytest.mark.parametrize("day", BAD_DAYS)
def test_a_bad_day_of_the_broker_fails_what_it_struck_and_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, day: str
) -> None:
    monkeypatch.setattr("streamapp.conformance.account.SETTLE_S", 2.0)
    faults, failing = BAD_DAYS[day]
    with market() as address:
        fault = json.dumps(faults).encode()
        urllib.request.urlopen(urllib.request.Request(f"http://{address}/faults", data=fault), timeout=30).close()
        report = run()
        account = ask(address, "/health")["accounts"]["conformance"]
        assert (account["positions"], account["orders"]) == (0, 0)
        assert ask(address, "/health")["invariants"]["one_order_per_intent"]
    assert {check.name for check in report.of("failed")} == failing
    assert report.conformant is not bool(failing)
    assert list(report.of("deviation")) == []
    assert (report.leftovers, report.stopped) == ((), "")


def test_a_closed_market_is_no_fault_of_the_module() -> None:
    with market() as address:
        fault = json.dumps({"kind": "market_closed"}).encode()
        urllib.request.urlopen(urllib.request.Request(f"http://{address}/faults", data=fault), timeout=30).close()
        report = run()
        assert orders(address) == []
    assert "expected an open market" in report.stopped
    assert not any(report.of("failed"))


def test_names_of_checks_do_not_depend_on_the_brokers_symbols() -> None:
    with market("suffix_broker"):
        suffixed = run()
    with market():
        plain = run()
    assert [difference.text() for difference in compare(plain, suffixed) if difference.matters] == []


def test_it_needs_nothing_that_the_terminal_extra_does_not_bring() -> None:
    code = (
        "import sys, streamapp.conformance.suite, streamapp.conformance.worker, streamapp.conformance.compare\n"
        "import streamapp.commands.conformance\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    others = {"faust", "rocksdict", "clickhouse_connect", "chdb", "aiohttp", "psutil", "uvloop", "nats"}
    assert others & set(json.loads(done.stdout.replace("'", '"'))) == set()
