"""What the simulated module needs for its answers, what a terminal adds to an order_send, and what it costs idle."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
from nats.aio.client import Client

from streamapp import subjects
from streamapp.local import nats as nats_server
from streamapp.local.ports import free_port
from streamapp.local.process import ProcessSpec, RunningProcess
from streamapp.local.readiness import http_answers
from streamapp.messages.log import BrokerLogBatch
from streamapp.messages.report import ReportBatch
from streamapp.messages.terminal import HelloReply, SubmitRequest
from streamapp.nats.connection import connect
from streamapp.nats.streams import ensure
from streamapp.processes.children import launched
from streamapp.settings import settings_from
from tests.bench.figures import percentiles
from tests.terminal.scripted import submit_request

Say = Callable[[str], None]

ACCOUNT = "bench"
READER, TRADER, OWNED = 1, 2, 3
"""Logins: each measurement has an account of its own, or the thousands of orders of one would burden the next."""
ACCOUNTS = [
    {"name": "reader", "login": READER, "margin_mode": "hedging"},
    {"name": "trader", "login": TRADER, "margin_mode": "netting"},
    {"name": ACCOUNT, "login": OWNED, "margin_mode": "netting"},
]
SYMBOL = "EURUSD"
READS = 2000
ORDERS_S = 5.0
RATES = (1.0, 5.0, 20.0, 50.0)
READY_S = 60.0
SETTLED_S = 5.0
"""How long after a change until only the watching is left."""
DRAIN_S = 30.0
SYNCS = 300
PAGE = b"x" * 4096


@dataclass
class Times:
    """Of each order, in seconds of the wall clock: sent to the terminal, order_send called, returned, reported."""

    sent: dict[str, float] = field(default_factory=dict)
    called: dict[str, float] = field(default_factory=dict)
    returned: dict[str, float] = field(default_factory=dict)
    reported: dict[str, float] = field(default_factory=dict)

    @property
    def complete(self) -> list[str]:
        """The orders of which all four are known."""
        return [key for key in self.sent if key in self.called and key in self.reported]

    def before(self) -> list[float]:
        """Return the times from before the request's publish to the call."""
        return [self.called[key] - self.sent[key] for key in self.complete]

    def after(self) -> list[float]:
        """Return the times from the call's return until the report was heard."""
        return [self.reported[key] - self.returned[key] for key in self.complete]

    def added(self) -> list[float]:
        """Return what the terminal added to each call, the two hops over NATS included."""
        return [before + after for before, after in zip(self.before(), self.after(), strict=True)]

    def calls(self) -> list[float]:
        """Return how long order_send itself took."""
        return [self.returned[key] - self.called[key] for key in self.complete]


class Desk:
    """Sends orders to one terminal and hears what becomes of them."""

    def __init__(self, nats: Client, epoch: str) -> None:
        self._nats = nats
        self._epoch = epoch
        self._number = 0
        self.times = Times()

    async def listen(self) -> None:
        """Hear the terminal's reports and its broker log."""
        await self._nats.subscribe(subjects.report(ACCOUNT), cb=self._on_report)
        await self._nats.subscribe(subjects.broker_log(ACCOUNT), cb=self._on_entry)
        await self._nats.flush()

    async def _on_report(self, message: Any) -> None:
        at = time.time()
        for report in ReportBatch.decode(message.data).reports:
            if report.kind == "accepted" and report.order_id:
                self.times.reported.setdefault(report.order_id, at)

    async def _on_entry(self, message: Any) -> None:
        for entry in BrokerLogBatch.decode(message.data).entries:
            if entry.function == "order_send" and entry.order_id:
                self.times.called[entry.order_id] = entry.at.timestamp()
                self.times.returned[entry.order_id] = entry.at.timestamp() + entry.duration_us / 1e6

    async def run(self, rate: float, orders: int) -> Times:
        """Send ``orders`` at ``rate`` a second, and return their times when all are reported."""
        self.times = times = Times()
        begin = time.monotonic()
        for number in range(orders):
            await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
            request = self._request()
            times.sent[request.order_id] = time.time()
            await self._nats.publish(subjects.terminal(ACCOUNT, "submit"), request.encode())
        until = time.monotonic() + DRAIN_S
        while len(times.complete) < orders and time.monotonic() < until:
            await asyncio.sleep(0.02)
        return times

    def _request(self) -> SubmitRequest:
        self._number += 1
        # By turns, so that the account's netting position stays small.
        side = ("buy", "sell")[self._number % 2]
        order = submit_request(f"bench-{self._number}", epoch=self._epoch, side=side, volume=Decimal("0.01"))
        return order.model_copy(update={"account": ACCOUNT})


def measure(folder: Path, say: Say, *, seconds: float, profile: str | None) -> None:
    """Start a market, a NATS server and a terminal, measure them, and stop them."""
    logs = folder / "logs"
    market = _market(folder)
    with _running(market, logs) as market_process:
        module = _module(market.address)
        reads(module, say)
        market_orders(module, say)
        fsyncs(folder, say)
        market_alone(psutil.Process(market_process.pid), say, seconds)
        with _running(nats_server.prepare(folder / "nats", free_port(), free_port()), logs) as nats:
            config = _config(folder, nats.spec.address, market.address)
            asyncio.run(_terminal(config, logs, say, seconds, profile=profile, market=market_process.pid))


def reads(module: ModuleType, say: Say) -> None:
    """Print how long each read of the module takes."""
    assert module.initialize(login=READER), module.last_error()
    for side in (module.ORDER_TYPE_BUY, module.ORDER_TYPE_SELL) * 5:
        assert module.order_send(_deal(module, side)).retcode == module.TRADE_RETCODE_DONE
    say("\nreads of the simulated module, 10 positions and 10 deals")
    for name, call in _read_calls(module).items():
        times = []
        for _ in range(READS):
            began = time.perf_counter()
            answer = call()
            times.append(time.perf_counter() - began)
            assert answer is not None, (name, module.last_error())
        say(f"  {name:<22} {percentiles(times, places=3)}")
    module.shutdown()


def _read_calls(module: ModuleType) -> dict[str, Callable[[], Any]]:
    since, until = int(time.time()) - 86400, int(time.time()) + 2 * 86400
    price = module.symbol_info_tick(SYMBOL).ask
    return {
        "terminal_info": module.terminal_info,
        "account_info": module.account_info,
        "symbol_info": lambda: module.symbol_info(SYMBOL),
        "symbol_info_tick": lambda: module.symbol_info_tick(SYMBOL),
        "orders_get": module.orders_get,
        "orders_total": module.orders_total,
        "positions_get": module.positions_get,
        "positions_total": module.positions_total,
        "history_orders_total": lambda: module.history_orders_total(since, until),
        "history_orders_get": lambda: module.history_orders_get(since, until),
        "history_deals_total": lambda: module.history_deals_total(since, until),
        "history_deals_get": lambda: module.history_deals_get(since, until),
        "order_calc_margin": lambda: module.order_calc_margin(0, SYMBOL, 1.0, price),
        "order_calc_profit": lambda: module.order_calc_profit(0, SYMBOL, 1.0, price, price),
        "order_check": lambda: module.order_check(_deal(module, module.ORDER_TYPE_BUY)),
        "symbols_total": module.symbols_total,
        "symbols_get (all)": module.symbols_get,
        "copy_rates_from_pos 100": lambda: module.copy_rates_from_pos(SYMBOL, module.TIMEFRAME_M1, 0, 100),
    }


def market_orders(module: ModuleType, say: Say) -> None:
    """Print how many market orders a second one account takes."""
    say("\nmarket orders on one account, one after another, without the latency model")
    assert module.initialize(login=TRADER), module.last_error()
    sides = (module.ORDER_TYPE_BUY, module.ORDER_TYPE_SELL)
    requests = [_deal(module, side) for side in sides]
    count, begin = 0, time.monotonic()
    while time.monotonic() - begin < ORDERS_S:
        for request in requests:
            assert module.order_send(request).retcode == module.TRADE_RETCODE_DONE, module.last_error()
        count += len(requests)
    say(f"  netting, buy and sell by turns: {count / (time.monotonic() - begin):.0f} orders/s")
    module.shutdown()


def _deal(module: ModuleType, side: int) -> dict[str, Any]:
    filling = module.ORDER_FILLING_IOC
    return {"action": module.TRADE_ACTION_DEAL, "symbol": SYMBOL, "volume": 0.01, "type": side, "type_filling": filling}


def fsyncs(folder: Path, say: Say) -> None:
    """Print how long this disk takes to make a page durable: three times that is the least an order can take."""
    times = []
    with (folder / "page").open("wb") as file:
        for _ in range(SYNCS):
            began = time.perf_counter()
            file.write(PAGE)
            file.flush()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    say(f"\nwrite and fsync of 4 KiB here  {percentiles(times, places=3)}")


def market_alone(market: psutil.Process, say: Say, seconds: float) -> None:
    """Print what the market costs while nobody asks it: its prices move, and that is no terminal's cost."""
    before = _cpu_s(market)
    time.sleep(seconds)
    say(f"\nthe market, asked by nobody: CPU {(_cpu_s(market) - before) / seconds * 100:.2f} % of a core")


async def _terminal(config: Path, logs: Path, say: Say, seconds: float, *, profile: str | None, market: int) -> None:
    settings = settings_from(config)
    nats = await connect(settings, "streamapp-bench")
    try:
        await ensure(nats.jetstream(), settings, create=True)
        with _child(config, logs, profile) as process:
            desk, meter = Desk(nats, await _ready(nats, process)), Meter(process.pid, market)
            await desk.listen()
            await desk.run(20.0, 40)
            await _idle("nothing open", meter, say, seconds)
            for rate in RATES:
                await _rate(desk, meter, say, rate, max(int(rate * seconds), 10))
            await desk.run(1.0, 1)
            await _idle("a position open", meter, say, seconds)
    finally:
        await nats.close()


class Meter:
    """The CPU time of an account's process, its worker and the simulated market."""

    def __init__(self, terminal: int, market: int) -> None:
        self._terminal, self._market = psutil.Process(terminal), psutil.Process(market)

    def read(self) -> list[float]:
        """Return the seconds of each so far."""
        workers = self._terminal.children(recursive=True)
        return [sum(map(_cpu_s, processes)) for processes in ([self._terminal], workers, [self._market])]

    def since(self, before: list[float], per: float, unit: str) -> str:
        """Return what each used since ``before``, divided by ``per``, and the sum."""
        used = [(now - then) / per for now, then in zip(self.read(), before, strict=True)]
        names = ("terminal", "worker", "market")
        parts = " + ".join(f"{name} {value:.2f}" for name, value in zip(names, used, strict=True))
        return f"{parts} = {sum(used):.2f} {unit}"


async def _idle(what: str, meter: Meter, say: Say, seconds: float) -> None:
    await asyncio.sleep(SETTLED_S)
    before = meter.read()
    await asyncio.sleep(seconds)
    say(f"\nan account with {what}, idle: CPU {meter.since(before, seconds / 100, '% of a core')}")


async def _rate(desk: Desk, meter: Meter, say: Say, rate: float, orders: int) -> None:
    before = meter.read()
    times = await desk.run(rate, orders)
    used = meter.since(before, orders / 1000, "ms an order, watching included")
    say(f"\n{rate:g} orders/s, {len(times.complete)} of {orders} reported; CPU {used}")
    say(f"  submit sent → order_send       {percentiles(times.before(), places=2)}")
    say(f"  order_send itself              {percentiles(times.calls(), places=2)}")
    say(f"  order_send → report heard      {percentiles(times.after(), places=2)}")
    say(f"  added by the terminal          {percentiles(times.added(), places=2)}")


async def _ready(nats: Client, process: subprocess.Popen[bytes]) -> str:
    until = time.monotonic() + READY_S
    while time.monotonic() < until and process.poll() is None:
        try:
            answer = await nats.request(subjects.terminal(ACCOUNT, "hello"), b"", timeout=1.0)
        except Exception:  # noqa: BLE001 -- not there yet, in whichever way; the deadline ends it
            await asyncio.sleep(0.05)
            continue
        hello = HelloReply.decode(answer.data)
        if hello.connection == "ready":
            return hello.epoch
        await asyncio.sleep(0.05)
    raise SystemExit(f"the terminal did not become ready within {READY_S:g} s")


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def _child(config: Path, logs: Path, profile: str | None) -> Iterator[subprocess.Popen[bytes]]:
    module = [*launched("streamapp.terminal.account.process"), "--account", ACCOUNT]
    profiler = ["-m", "cProfile", "-o", profile] if profile else []
    environment = {**os.environ, "STREAMAPP_CONFIG": str(config)}
    with (
        (logs / "terminal.log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, *profiler, *module],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log, env=environment,
        ) as process,
    ):  # fmt: skip
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(30)


def _config(folder: Path, nats_url: str, market: str) -> Path:
    config = folder / "streamapp.toml"
    config.write_text(
        f'simulator_address = "{market}"\n[nats]\nurl = "{nats_url}"\n[local]\ndata = "{folder}"\n'
        f'[accounts.{ACCOUNT}]\nlogin = {OWNED}\nmargin_mode = "netting"\n',
        encoding="utf-8",
    )
    return config


def _market(folder: Path) -> ProcessSpec:
    port = free_port()
    accounts = folder / "accounts.json"
    accounts.write_text(json.dumps(ACCOUNTS), encoding="utf-8")
    options = ("--port", str(port), "--data", str(folder / "market"), "--accounts", str(accounts))
    argv = (sys.executable, "-m", "streamapp.simulator", *options)
    return ProcessSpec(name="market", argv=argv, ready=http_answers(port, "/health"), address=f"127.0.0.1:{port}")


@contextmanager
def _running(spec: ProcessSpec, logs: Path) -> Iterator[RunningProcess]:
    process = RunningProcess(spec, logs)
    try:
        process.wait_ready()
        yield process
    finally:
        process.stop()


def _module(address: str) -> ModuleType:
    from streamapp.simulator import metatrader5

    os.environ["STREAMAPP_SIMULATOR_ADDRESS"] = address
    return metatrader5
