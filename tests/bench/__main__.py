"""Runs the benchmark: progress on standard error, the page of figures in Markdown on standard output."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from nats.aio.client import Client

from streamapp.local.own import OwnStack, free_port_offset
from streamapp.local.process import REPOSITORY
from streamapp.nats.connection import connect
from tests.bench import hops, page, report, requests, restart, store, terminal
from tests.bench.costs import Costs, Meters, meters_of
from tests.bench.load import Heard, Load
from tests.bench.report import Asked, Beside, Run, Sustained
from tests.bench.requests import Requests

ACCOUNTS = tuple(f"bench-{number}" for number in range(1, 9))
# A signal that waits long in a queue is an order all the same: what an order costs is asked of the overloaded too.
SETTINGS = "[execution]\nsignal_ttl_s = 3600\n" + "\n".join(
    f'[accounts.{name}]\nlogin = {70000000 + at}\nmargin_mode = "{("hedging", "netting")[at % 2]}"'
    for at, name in enumerate(ACCOUNTS)
)
DRAINED_WITHIN_S = 2.0
"""A queue that is older after the last signal has grown all the time: the rate was not kept up."""
SETTLE_S = 240.0
"""How long to wait before the next figure for what a run that was too fast has left behind."""
HOPS_S = 10.0
COUNT_S = 10.0


def show(text: str) -> None:
    """Print a figure at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def progress(text: str) -> None:
    """Print where a long run is, beside the figures."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


class Bench:
    """The measurements on one running stack."""

    def __init__(self, stack: OwnStack, nats: Client, load: Load, meters: Meters, folder: Path) -> None:
        self._stack = stack
        self._nats = nats
        self._load = load
        self._meters = meters
        self._folder = folder

    async def warm(self, seconds: float) -> None:
        """Send until what compiles and caches has done so: Kafka's first seconds cost a multiple."""
        progress(f"warming up for {seconds:g} s")
        await self._load.send("warm", 20.0, seconds)
        await self._load.drained(SETTLE_S)

    async def idle(self, seconds: float) -> Costs:
        """Return what the stack uses while nothing comes."""
        progress(f"idle for {seconds:g} s")
        before = await self._meters.read()
        await asyncio.sleep(seconds)
        return await self._meters.since(before)

    async def rate(self, rate: float, seconds: float) -> Run:
        """Return times and costs at one rate, with the bare hops right after it."""
        progress(f"{rate:g} signals/s for {seconds:g} s")
        before = await self._meters.read()
        heard, drained = await self._hold(f"rate{rate:g}", rate, seconds)
        if not drained:
            await self._load.drained(SETTLE_S)
        costs = await self._meters.since(before)
        times = await hops.measure(
            self._stack.settings, self._nats, self._folder, rate=rate, seconds=min(seconds, HOPS_S)
        )
        return Run(rate, heard, costs.seconds, drained, costs, times)

    async def asked(self, rates: Sequence[float]) -> tuple[Requests, list[Asked]]:
        """Return what Kafka is asked while nothing comes, and at each rate."""
        progress(f"idle and at each rate for {COUNT_S:g} s, Kafka's requests counted")
        async with requests.counted(self._stack) as idle:
            await asyncio.sleep(COUNT_S)
        return idle, [await self._asked(rate) for rate in rates]

    async def _asked(self, rate: float) -> Asked:
        async with requests.counted(self._stack) as busy:
            heard = await self._load.send(f"asked{rate:g}", rate, COUNT_S)
            await self._load.drained(SETTLE_S)
        return Asked(rate, len(heard.filled), busy)

    async def beside(self, rate: float, seconds: float) -> Beside:
        """Return the times of the other accounts while one account's terminal stands still with orders on the road."""
        progress(f"{rate:g} signals/s for {seconds:g} s beside a terminal that stands still")
        share, terminal_ = rate / len(ACCOUNTS), _terminal_of(self._stack, ACCOUNTS[0])
        async with Load(self._nats, ACCOUNTS[:1]) as still, Load(self._nats, ACCOUNTS[1:]) as others:
            running = await others.send(f"running{rate:g}", rate - share, seconds)
            await others.drained(SETTLE_S)
            terminal_.suspend()
            try:
                _, heard = await asyncio.gather(
                    still.send(f"still{rate:g}", share, seconds), others.send(f"beside{rate:g}", rate - share, seconds)
                )
                drained = await others.drained(DRAINED_WITHIN_S)
            finally:
                terminal_.resume()
            await still.drained(SETTLE_S)
        return Beside(rate, running, heard, drained)

    async def sustained(self, rates: Sequence[float], seconds: float) -> Sustained:
        """Return the highest of ``rates`` that is kept up, by bisection."""
        rates, tried = sorted(rates), []
        low, high = 0, len(rates)
        while low < high:
            middle = (low + high) // 2
            tried.append(rates[middle])
            _, drained = await self._hold(f"hold{rates[middle]:g}", rates[middle], seconds)
            progress(f"{rates[middle]:g} signals/s for {seconds:g} s: {'kept up' if drained else 'not kept up'}")
            await self._load.drained(SETTLE_S)
            low, high = (middle + 1, high) if drained else (low, middle)
        return Sustained(rates[low - 1] if low else 0.0, tried, seconds, DRAINED_WITHIN_S)

    async def _hold(self, run: str, rate: float, seconds: float) -> tuple[Heard, bool]:
        heard = await self._load.send(run, rate, seconds)
        drained = await self._load.drained(DRAINED_WITHIN_S)
        return heard, drained and len(heard.filled) == len(heard.published)


async def measure(stack: OwnStack, folder: Path, arguments: argparse.Namespace) -> str:
    """Return the page of figures of a stack that was just started."""
    nats = await connect(stack.settings, "streamapp-bench")
    try:
        async with Load(nats, ACCOUNTS) as load, meters_of(stack, nats) as meters:
            bench = Bench(stack, nats, load, meters, folder)
            await bench.warm(arguments.warm)
            idle = await bench.idle(arguments.idle)
            runs = [await bench.rate(rate, arguments.seconds) for rate in arguments.rates]
            kept_up = [run.rate for run in runs if run.drained]
            asked_idle, asked = await bench.asked(kept_up)
            beside = [await bench.beside(rate, arguments.seconds) for rate in kept_up]
            sustained = await bench.sustained(arguments.search, arguments.hold) if arguments.search else None
        return report.page(
            machine(), idle, runs, asked_idle=asked_idle, asked=asked, beside=beside, sustained=sustained
        )
    finally:
        await nats.close()


def _terminal_of(stack: OwnStack, account: str) -> psutil.Process:
    """Return the process that speaks to a broker for an account."""
    children = psutil.Process(stack.pid_of("terminals")).children(recursive=True)
    return next(child for child in children if account in child.cmdline())


def machine() -> str:
    """Return a line on what the figures were measured on, and on which commit."""
    git = ("git", "-C", str(REPOSITORY), "describe", "--always", "--dirty")
    commit = subprocess.run(git, check=False, capture_output=True, text=True).stdout.strip() or "no commit"
    return (
        f"streamapp {commit}; {_processor()}, {os.cpu_count()} cores, {platform.system()}, Python "
        f"{platform.python_version()}; {len(ACCOUNTS)} accounts, hedging and netting by turns; everything on one "
        "machine, the load too."
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description="Figures of the road, on a stack of its own.")
    parser.add_argument("--rates", type=float, nargs="+", default=[10, 50, 100], help="signals/s to measure at")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each of them")
    parser.add_argument(
        "--search", type=float, nargs="*", default=[15, 20, 25, 30, 40, 50, 75, 100, 150, 200, 300, 400],
        help="rates among which the highest that drains is searched for; none: no search",
    )  # fmt: skip
    parser.add_argument("--hold", type=float, default=20.0, help="length of each try of the search")
    parser.add_argument("--idle", type=float, default=20.0, help="how long to watch the stack while nothing comes")
    parser.add_argument("--warm", type=float, default=15.0, help="how long to send before anything is measured")
    parser.add_argument("--terminal", action="store_true", help="only the simulated module and one terminal (minutes)")
    parser.add_argument(
        "--restart", type=int, nargs="?", const=1_000_000, metavar="ROWS",
        help="only how long a worker takes to start with so many rows, without and with a local copy (minutes)",
    )  # fmt: skip
    parser.add_argument("--page", action="store_true", help="only the web page, in a Chromium (a minute)")
    parser.add_argument("--store", type=int, metavar="ORDERS", help="only the store, with so many closed orders")
    parser.add_argument("--profile", metavar="FILE", help="with --terminal: write the terminal's cProfile there")
    return parser.parse_args()


def main() -> None:
    """Start the stack, measure, stop it, print."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="streamapp-bench-") as name:
        folder = Path(name)
        if arguments.store:
            show(machine())
            store.measure(folder, show, orders=arguments.store)
            return
        if arguments.page:
            show(machine())
            try:
                asyncio.run(page.measure(folder, show, progress, seconds=arguments.seconds))
            except pytest.skip.Exception as missing:
                sys.exit(f"{missing}")
            return
        if arguments.terminal:
            show(machine())
            terminal.measure(folder, show, seconds=arguments.seconds, profile=arguments.profile)
            return
        if arguments.restart:
            show(machine())
            asyncio.run(restart.measure(folder, show, progress, rows=arguments.restart))
            return
        stack = OwnStack(folder / "stack", free_port_offset(), SETTINGS)
        stack.start(sys.stderr.buffer)
        try:
            stack.wait_ready()
            found = asyncio.run(measure(stack, folder, arguments))
        finally:
            stack.stop()
    show(found)


if __name__ == "__main__":
    main()
