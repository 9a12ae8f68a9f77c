"""Runs the benchmark and prints its figures."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from nats.aio.client import Client

from streamapp.local.own import OwnStack, free_port_offset
from streamapp.nats.connection import connect
from tests.bench import hops, terminal
from tests.bench.figures import percentiles, table, uses
from tests.bench.load import Load

ACCOUNTS = tuple(f"bench-{number}" for number in range(1, 9))
SETTINGS = "\n".join(
    f'[accounts.{name}]\nlogin = {70000000 + at}\nmargin_mode = "{("hedging", "netting")[at % 2]}"'
    for at, name in enumerate(ACCOUNTS)
)
DRAIN_S = 30.0
SETTLE_S = 120.0
"""How long to wait before the next figure for what a run that was too fast has left behind."""


def say(text: str = "") -> None:
    """Print a line at once, so that a long run shows where it is."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def latencies(stack: OwnStack, load: Load, nats: Client, folder: Path, seconds: float) -> None:
    """Print the times at 10 and at 200 signals a second, beside those of the bare hops."""
    for rate in (10.0, 200.0):
        say(f"\n{rate:g} signals/s for {seconds:g} s")
        heard = await load.send(f"rate{rate:g}", rate, seconds)
        complete = await load.drained(DRAIN_S)
        say(f"  publish → order_send       {percentiles(heard.to_order_send())}")
        say(f"  publish → orders.filled    {percentiles(heard.to_filled())}")
        if not complete or heard.refused:
            left = len(heard.published) - len(heard.final)
            say(f"  too fast: {len(heard.refused)} refused as stale, {left} of {len(heard.published)} without an end")
            await load.drained(SETTLE_S)
        times = await hops.measure(stack.settings, nats, folder, rate=rate, seconds=min(seconds, 10.0))
        say(f"  the bare hops              {percentiles(times)}")


async def sustained(stack: OwnStack, load: Load, rates: Sequence[float], seconds: float) -> None:
    """Print the highest rate that is kept up and drained in time; stop at the first that is not."""
    best = 0.0
    for rate in rates:
        say(f"\n{rate:g} signals/s for {seconds:g} s, drained within {DRAIN_S:g} s?")
        before, begin = uses(stack), time.monotonic()
        heard = await load.send(f"hold{rate:g}", rate, seconds)
        drain_begin = time.monotonic()
        complete = await load.drained(DRAIN_S)
        complete = complete and not heard.refused
        say(f"  {'yes' if complete else 'no'}: {len(heard.filled)} of {len(heard.published)} filled, "
            f"{time.monotonic() - drain_begin:.1f} s after the last was sent")  # fmt: skip
        say(f"  publish → order_send       {percentiles(heard.to_order_send())}")
        say(table(before, uses(stack), time.monotonic() - begin))
        if not complete:
            break
        best = rate
    say(f"\nhighest sustained rate tried: {best:g} orders/s")


async def run(stack: OwnStack, folder: Path, arguments: argparse.Namespace) -> None:
    """Measure."""
    nats = await connect(stack.settings, "streamapp-bench")
    try:
        load = Load(nats, ACCOUNTS)
        await load.listen()
        await load.send("warm", 20.0, 5.0)
        await load.drained(DRAIN_S)
        await latencies(stack, load, nats, folder, arguments.seconds)
        await sustained(stack, load, arguments.rates, arguments.hold)
    finally:
        await nats.close()


def main() -> None:
    """Start the stack, measure, stop it."""
    parser = argparse.ArgumentParser(prog="make bench", description="Figures of the road, on a stack of its own.")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each latency run")
    parser.add_argument("--hold", type=float, default=60.0, help="length of each rate run")
    parser.add_argument("--rates", type=float, nargs="+", default=[50, 100, 150, 200, 300, 400, 600])
    parser.add_argument("--terminal", action="store_true", help="only the simulated module and one terminal (minutes)")
    parser.add_argument("--profile", metavar="FILE", help="with --terminal: write the terminal's cProfile there")
    arguments = parser.parse_args()
    say(
        f"machine: {platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    )
    with tempfile.TemporaryDirectory(prefix="streamapp-bench-") as name:
        folder = Path(name)
        if arguments.terminal:
            terminal.measure(folder, say, seconds=arguments.seconds, profile=arguments.profile)
            return
        stack = OwnStack(folder / "stack", free_port_offset(), SETTINGS)
        stack.start()
        try:
            stack.wait_ready()
            asyncio.run(run(stack, folder, arguments))
        finally:
            stack.stop()


if __name__ == "__main__":
    main()
