# ruff: noqa: T201  # a command prints
"""Starts the simulated market: ``python -m streamapp.simulator``."""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import sys
from pathlib import Path

from streamapp.simulator.books.accounts import read_accounts
from streamapp.simulator.books.store import NoStore, SqliteStore
from streamapp.simulator.control.fault_script import set_faults
from streamapp.simulator.listener import MarketServer
from streamapp.simulator.prices.server_clock import Clock, VirtualClock
from streamapp.simulator.prices.symbols import read_profiles, read_symbols
from streamapp.simulator.server.market import Market, MarketSettings
from streamapp.simulator.wire import ADDRESS_VARIABLE


def _latency(text: str) -> tuple[float, float]:
    median, _, high = text.partition(",")
    return float(median), float(high or float(median) * 2)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    line = argparse.ArgumentParser(
        prog="python -m streamapp.simulator", description="A simulated MetaTrader 5 market for bots and tests."
    )
    line.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    line.add_argument("--port", type=int, default=6080, help="port, 0 for any free one (default: %(default)s)")
    line.add_argument("--data", type=Path, metavar="DIR", help="keep the state here (default: in memory only)")
    line.add_argument("--accounts", type=Path, metavar="FILE", help="JSON file of accounts (default: two demo ones)")
    line.add_argument("--symbols", type=Path, metavar="FILE", help="JSON file of symbols (default: the built-in ones)")
    line.add_argument("--profiles", type=Path, metavar="FILE", help="JSON file of further broker profiles")
    line.add_argument("--seed", type=int, default=1, help="seed of prices, slippage and faults (default: %(default)s)")
    line.add_argument(
        "--latency-ms", type=_latency, default=(0.0, 0.0), metavar="MEDIAN[,P95]",
        help="how long an order takes, e.g. 85,250 (default: no time)",
    )  # fmt: skip
    line.add_argument("--offset", default="2", help='server time in hours ahead of UTC, or "ny" (default: %(default)s)')
    line.add_argument("--sessions", action="store_true", help="keep trading hours (default: always open)")
    line.add_argument("--no-slippage", action="store_true", help="fill market orders at the quote")
    line.add_argument("--release-gil", action="store_true", help="let other threads run during a call, unlike MT5")
    line.add_argument("--faults", type=Path, metavar="FILE", help="JSON file of faults, as POST /faults takes them")
    line.add_argument("--replay", type=Path, metavar="CSV", help="ticks (symbol,time_msc,bid,ask) in place of a walk")
    line.add_argument("--virtual-clock", action="store_true", help="time moves only by orders and POST /clock")
    return line


def build(options: argparse.Namespace) -> Market:
    """Return the market that the command line asks for."""
    clock = VirtualClock(options.offset) if options.virtual_clock else Clock(options.offset)
    market = Market(
        read_accounts(options.accounts),
        settings=MarketSettings(
            seed=options.seed,
            latency_ms=options.latency_ms,
            always_open=not options.sessions,
            slippage=not options.no_slippage,
            hold_gil=not options.release_gil,
        ),
        clock=clock,
        store=SqliteStore(options.data) if options.data else NoStore(),
        symbols=read_symbols(options.symbols),
        profiles=read_profiles(options.profiles),
    )
    if options.replay:
        market.feed.replay(options.replay, clock.utc_ms())
    if options.faults:
        market.faults.clear()
        set_faults(market, json.loads(options.faults.read_text("utf-8")))
    return market


def _announce(market: Market, data: Path | None, host: str, port: int) -> None:
    print(f"Simulated MetaTrader 5 market on {host}:{port}, state {'in ' + str(data) if data else 'in memory only'}")
    print(f"  import streamapp.simulator.metatrader5 as mt5   with {ADDRESS_VARIABLE}={host}:{port}")
    for account in market.books.accounts.values():
        entry = account.entry
        password = "your password" if entry.password is not None else "any"
        print(f'  mt5.initialize(login={entry.login}, server="{entry.server}")  # {entry.name}, password: {password}')
    print(f"  http://{host}:{port}/health  /ledger?account=  /quotes  /faults", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the market until it is told to stop."""
    options = parser().parse_args(arguments)
    try:
        market = build(options)
    except (OSError, ValueError, sqlite3.OperationalError) as error:
        print(f"The market can't start: {error}", file=sys.stderr)
        return 2
    except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
        print(f"The market can't start: a file lacks or misnames something: {error!r}", file=sys.stderr)
        return 2
    try:
        asyncio.run(
            MarketServer(market).run(options.host, options.port, lambda h, p: _announce(market, options.data, h, p))
        )
    except OSError as error:
        print(f"The market can't listen on {options.host}:{options.port}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
