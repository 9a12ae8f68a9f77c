"""The whole suite: in which order it goes through a module, and what it does when a call hangs."""

from __future__ import annotations

import importlib.util
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from streamapp.conformance import badcalls
from streamapp.conformance.caller import Caller, CallHung
from streamapp.conformance.desk import ConformanceAccount, ReadFailed, choose_symbol
from streamapp.conformance.measures import MEASURES
from streamapp.conformance.paths import PATHS
from streamapp.conformance.pending import pendings
from streamapp.conformance.refusals import refusals
from streamapp.conformance.report import SuiteReport
from streamapp.conformance.run import Progress, Run
from streamapp.conformance.shape import check_connected, check_module
from streamapp.errors import ConfigurationError, StreamappError
from streamapp.mt5 import constants as mt5
from streamapp.mt5.enums import MARGIN_MODES


@dataclass(frozen=True, slots=True)
class Target:
    """What the suite runs against: the module's import name, initialize's arguments, and perhaps a symbol."""

    module: str
    credentials: dict[str, Any] = field(default_factory=dict)
    symbol: str | None = None
    patience: float = 1.0


def examine(target: Target, progress: Progress) -> SuiteReport:
    """Runs the suite; whatever it opened is closed again, and what could not be is in the report.

    Raises:
        ConfigurationError: it can't run at all; the message says what to do.
        NotDemo: the account is none for playing.
    """
    if importlib.util.find_spec("numpy") is None:
        raise ConfigurationError("expected numpy, which MetaTrader5 needs as well, got none: pip install numpy")
    caller = Caller(target.module, patience=target.patience)
    run = Run(caller, progress)
    begun = time.monotonic()
    try:
        check_module(run)
        _before(run)
        desk = _desk(caller, target)
        about = _about(caller, desk, target)
        leftovers, stopped = _connected(run, desk)
        about["took s"] = round(time.monotonic() - begun, 1)
        return SuiteReport(about=about, checks=tuple(run.checks), leftovers=tuple(leftovers), stopped=stopped)
    except (CallHung, ReadFailed) as error:
        # Nothing was sent by then: all orders are sent within `_connected`.
        raise ConfigurationError(f"the suite can't run: {error}") from error
    finally:
        caller.close()


def _before(run: Run) -> None:
    run.section = "errors"
    badcalls.walk(run, badcalls.before_initialize(), "before initialize: ")


def _desk(caller: Caller, target: Target) -> ConformanceAccount:
    desk = ConformanceAccount(
        caller, target.credentials, int(target.credentials.get("login", 0)), hedging=True, symbol=""
    )
    desk.connect()
    terminal, account = desk.read("terminal_info"), desk.read("account_info")
    if not terminal.connected:
        raise ConfigurationError("expected a terminal that is connected to its server, got connected=False; look at it")
    if not (terminal.trade_allowed and account.trade_allowed and account.trade_expert) or terminal.tradeapi_disabled:
        raise ConfigurationError(
            "expected trading by programs to be allowed: press Algo Trading in the terminal, and clear Tools, Options, "
            "Expert Advisors, 'Disable automatic trading via external Python API'; log in with the trading password"
        )
    desk.hedging = account.margin_mode == mt5.ACCOUNT_MARGIN_MODE_RETAIL_HEDGING
    if left := desk.clean():
        raise ConfigurationError(f"expected to close what an earlier run had left, got {left}; close it by hand")
    desk.symbol = choose_symbol(caller, target.symbol)
    if not desk.hedging and (
        desk.read("positions_get", symbol=desk.symbol) or desk.read("orders_get", symbol=desk.symbol)
    ):
        raise ConfigurationError(
            f"expected no position and no order in {desk.symbol}, which a netting account would mix with ours; "
            "close them or use --symbol"
        )
    return desk


def _about(caller: Caller, desk: ConformanceAccount, target: Target) -> dict[str, Any]:
    account, info = desk.read("account_info"), desk.info()
    return {
        "module": target.module, "version": str(caller.shape([], [])["version"]),
        "terminal": ".".join(str(part) for part in desk.read("version")), "server": account.server,
        "account": MARGIN_MODES.get(account.margin_mode, str(account.margin_mode)), "symbol": desk.symbol,
        "execution": info.trade_exemode, "fillings": info.filling_mode,
        "python": platform.python_version(), "system": platform.system(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip


def _connected(run: Run, desk: ConformanceAccount) -> tuple[list[str], str]:
    """Everything that needs a connection; gives what is left behind, and why it stopped early."""
    stopped = ""
    try:
        run.section = "shape"
        _step(run, desk, "types", lambda: check_connected(run, desk.symbol))
        run.section = "errors"
        calls = badcalls.of_requests(desk.symbol) + badcalls.of_tables() + badcalls.of_symbols(desk.symbol)
        _step(run, desk, "bad calls", lambda: badcalls.walk(run, calls, symbol=desk.symbol))
        run.section = "trading"
        for name, path in {**PATHS, "pending orders": pendings, "refusals": refusals, **MEASURES}.items():
            _step(run, desk, name, lambda walked=path: walked(run, desk))  # type: ignore[misc]  # bound now, not later
    except StreamappError as error:
        stopped = str(error)
    except KeyboardInterrupt:
        stopped = "interrupted by hand"
    leftovers = desk.clean()
    run.section = "errors"
    try:
        if not stopped:
            run.caller.call("shutdown")
            badcalls.walk(run, badcalls.after_shutdown(), "after shutdown: ")
    except CallHung as error:
        stopped = str(error)
    return leftovers, stopped


def _step(run: Run, desk: ConformanceAccount, name: str, act: Callable[[], None]) -> None:
    """Does a part; a call that hangs fails it, and the rest goes on with a new worker and what was opened closed."""
    try:
        desk.revive()
        act()
        if any(desk.ours()):
            desk.clean()
    except CallHung as error:
        run.failed(name, "§1.1: a call may block for ever [BIN]; it should not", str(error))
        desk.clean()
    except ReadFailed as error:
        run.failed(name, "§1.2: reads of a connected terminal succeed [BIN]", str(error))
        desk.clean()
    except (AttributeError, TypeError, IndexError, KeyError, ValueError) as error:
        # What the module gave was not of the form that everything else relies on.
        run.failed(name, "§1.5: forms of results [BIN]", f"{type(error).__name__}: {error}")
        desk.clean()
