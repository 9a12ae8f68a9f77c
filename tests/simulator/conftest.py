"""A real market in its own process, and the module connected to it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import streamapp.simulator.metatrader5 as mt5
from streamapp.simulator.wire import ADDRESS_VARIABLE

HEDGING, NETTING = 50000001, 50000002


class MarketProcess:
    """A market server that a test may stop, kill and start again on the same folder."""

    def __init__(self, *options: str) -> None:
        self.options = options
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "streamapp.simulator", "--port", "0", *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        found = re.search(r" on (\S+:\d+)", self.process.stdout.readline())
        assert found, "the market did not say where it listens"
        self.address = found.group(1)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> int:
        self.process.kill()
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def http(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of a response; of an error too."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{self.address}{path}", data=data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                text = response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode()
        return [json.loads(line) for line in text.splitlines()] if path.startswith("/ledger") else json.loads(text)

    def ledger(self, account: str = "demo-hedging", kind: str | None = None) -> list[dict[str, Any]]:
        rows = self.http("GET", f"/ledger?account={account}")
        return [row for row in rows if kind is None or row["kind"] == kind]

    def pin(self, symbol: str, bid: str, ask: str) -> None:
        self.http("POST", f"/quotes/{symbol}", {"bid": bid, "ask": ask})

    def fault(self, kind: str, **fields: Any) -> Any:
        return self.http("POST", "/faults", {"kind": kind, **fields})


@pytest.fixture
def start_market(tmp_path: Path) -> Iterator[Callable[..., MarketProcess]]:
    started: list[MarketProcess] = []

    def start(*options: str) -> MarketProcess:
        started.append(MarketProcess(*options))
        return started[-1]

    yield start
    for market in started:
        if market.process.poll() is None:
            market.stop()


@pytest.fixture(scope="module")
def shared_market() -> Iterator[MarketProcess]:
    market = MarketProcess("--seed", "7")
    yield market
    assert market.stop() == 0


@pytest.fixture
def market(shared_market: MarketProcess) -> Iterator[MarketProcess]:
    """A market whose main prices are pinned and which has no faults."""
    shared_market.http("DELETE", "/faults")
    for symbol, bid, ask in (("EURUSD", "1.10000", "1.10010"), ("USDJPY", "150.000", "150.014"),
                             ("EURGBP", "0.85000", "0.85010"), ("GBPUSD", "1.25000", "1.25010")):  # fmt: skip
        shared_market.pin(symbol, bid, ask)
    yield shared_market
    shared_market.http("DELETE", "/faults")


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    def connect_to(market: MarketProcess, login: int = HEDGING) -> None:
        monkeypatch.setenv(ADDRESS_VARIABLE, market.address)
        assert mt5.initialize(login=login), mt5.last_error()

    yield connect_to
    mt5.shutdown()


@pytest.fixture
def hedging(market: MarketProcess, connect: Callable[..., None]) -> MarketProcess:
    """The module, logged in to the hedging account of ``market``."""
    connect(market, HEDGING)
    return market


@pytest.fixture
def netting(market: MarketProcess, connect: Callable[..., None]) -> MarketProcess:
    """The module, logged in to the netting account of ``market``."""
    connect(market, NETTING)
    for position in mt5.positions_get():
        send(symbol=position.symbol, type=1 - position.type, volume=position.volume)
    return market


def send(**fields: Any) -> Any:
    """A market order, 0.10 lots of EURUSD unless told otherwise."""
    request = {"action": mt5.TRADE_ACTION_DEAL, "symbol": "EURUSD", "volume": 0.1, "type": 0, "type_filling": 1}
    return mt5.order_send({**request, **fields})


def environment(market: MarketProcess) -> dict[str, str]:
    """For a client in a process of its own."""
    return {**os.environ, ADDRESS_VARIABLE: market.address}
