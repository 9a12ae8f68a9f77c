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
from streamapp.conformance.account import ConformanceAccount, ReadFailed, choose_symbol
from streamapp.conformance.caller import Caller, CallHung
from streamapp.conformance.measures import MEASURES
from streamapp.conformance.pending import pendings
from streamapp.conformance.refusals import refusals
from streamapp.conformance.report import SuiteReport
from streamapp.conformance.run import Progress, Run
from streamapp.conformance.scenarios import SCENARIOS
from streamapp.conformance.surface import check_connected, check_module
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
        account = _account(caller, target)
        about = _about(caller, account, target)
        leftovers, stopped = _connected(run, account)
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


def _account(caller: Caller, target: Target) -> ConformanceAccount:
    account = ConformanceAccount(
        caller, target.credentials, int(target.credentials.get("login", 0)), hedging=True, symbol=""
    )
    account.connect()
    terminal, owner = account.read("terminal_info"), account.read("account_info")
    if not terminal.connected:
        raise ConfigurationError("expected a terminal that is connected to its server, got connected=False; look at it")
    if not (terminal.trade_allowed and owner.trade_allowed and owner.trade_expert) or terminal.tradeapi_disabled:
        raise ConfigurationError(
            "expected trading by programs to be allowed: press Algo Trading in the terminal, and clear Tools, Options, "
            "Expert Advisors, 'Disable automatic trading via external Python API'; log in with the trading password"
        )
    account.hedging = owner.margin_mode == mt5.ACCOUNT_MARGIN_MODE_RETAIL_HEDGING
    if left := account.clean():
        raise ConfigurationError(f"expected to close what an earlier run had left, got {left}; close it by hand")
    account.symbol = choose_symbol(caller, target.symbol)
    if not account.hedging and (
        account.read("positions_get", symbol=account.symbol) or account.read("orders_get", symbol=account.symbol)
    ):
        raise ConfigurationError(
            f"expected no position and no order in {account.symbol}, which a netting account would mix with ours; "
            "close them or use --symbol"
        )
    return account


def _about(caller: Caller, account: ConformanceAccount, target: Target) -> dict[str, Any]:
    owner, info = account.read("account_info"), account.info()
    return {
        "module": target.module, "version": str(caller.surface([], [])["version"]),
        "terminal": ".".join(str(part) for part in account.read("version")), "server": owner.server,
        "account": MARGIN_MODES.get(owner.margin_mode, str(owner.margin_mode)), "symbol": account.symbol,
        "execution": info.trade_exemode, "fillings": info.filling_mode,
        "python": platform.python_version(), "system": platform.system(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip


def _connected(run: Run, account: ConformanceAccount) -> tuple[list[str], str]:
    """Everything that needs a connection; gives what is left behind, and why it stopped early."""
    stopped = ""
    try:
        run.section = "shape"
        _step(run, account, "types", lambda: check_connected(run, account.symbol))
        run.section = "errors"
        calls = badcalls.of_requests(account.symbol) + badcalls.of_tables() + badcalls.of_symbols(account.symbol)
        _step(run, account, "bad calls", lambda: badcalls.walk(run, calls, symbol=account.symbol))
        run.section = "trading"
        for name, scenario in {**SCENARIOS, "pending orders": pendings, "refusals": refusals, **MEASURES}.items():
            _step(run, account, name, lambda walked=scenario: walked(run, account))  # type: ignore[misc]  # bound now, not later
    except StreamappError as error:
        stopped = str(error)
    except KeyboardInterrupt:
        stopped = "interrupted by hand"
    leftovers = account.clean()
    run.section = "errors"
    try:
        if not stopped:
            run.caller.call("shutdown")
            badcalls.walk(run, badcalls.after_shutdown(), "after shutdown: ")
    except CallHung as error:
        stopped = str(error)
    return leftovers, stopped


def _step(run: Run, account: ConformanceAccount, name: str, act: Callable[[], None]) -> None:
    """Does a part; a call that hangs fails it, and the rest goes on with a new worker and what was opened closed."""
    try:
        account.revive()
        act()
        if any(account.ours()):
            account.clean()
    except CallHung as error:
        run.failed(name, "§1.1: a call may block for ever [BIN]; it should not", str(error))
        account.clean()
    except ReadFailed as error:
        run.failed(name, "§1.2: reads of a connected terminal succeed [BIN]", str(error))
        account.clean()
    except (AttributeError, TypeError, IndexError, KeyError, ValueError) as error:
        # What the module gave was not of the form that everything else relies on.
        run.failed(name, "§1.5: forms of results [BIN]", f"{type(error).__name__}: {error}")
        account.clean()
