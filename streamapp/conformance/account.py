"""The account on which the suite trades: what it allows, the smallest lot, and cleaning up afterwards."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from streamapp.conformance.caller import Caller, CallHung, Said
from streamapp.conformance.wire import ShownStruct
from streamapp.errors import ConfigurationError, StreamappError, Transient
from streamapp.mt5 import constants as mt5
from streamapp.mt5.enums import SYMBOL_FILLING_FOK, SYMBOL_FILLING_IOC

# Every order of the suite carries a magic from here on, so that a later run finds what an earlier one left behind.
MAGIC_FIRST = 7_104_000_000_000_000
MAGIC_LAST = MAGIC_FIRST + 10**12
# A broker may take a while to show what it has done; a good one takes milliseconds.
SETTLE_S = 30.0
_POLL_S = 0.005
_FAR = Decimal("0.05")
_DAY_S = 86_400
# Refusals because the price moved: surely not executed, so that one more try with the new price is no second order.
_MOVED = (mt5.TRADE_RETCODE_REQUOTE, mt5.TRADE_RETCODE_PRICE_CHANGED, mt5.TRADE_RETCODE_PRICE_OFF)
_TRIES = 3
EXECUTED = (mt5.TRADE_RETCODE_DONE, mt5.TRADE_RETCODE_PLACED, mt5.TRADE_RETCODE_DONE_PARTIAL)


class NotDemo(ConfigurationError):  # noqa: N818  # it reads as what it is
    """The account is not a demo account, or is another one than before: nothing more is sent."""


class MarketClosed(Transient):  # it reads as what it is
    """The market rests: nothing that follows says anything about the module."""


class ReadFailed(Transient):  # it reads as what it is
    """The terminal did not answer a read that must succeed."""


@dataclass(slots=True)
class ConformanceAccount:
    """Trades one symbol of one demo account, and knows what it has opened."""

    caller: Caller
    credentials: dict[str, Any]
    login: int
    hedging: bool
    symbol: str
    tickets: set[int] = field(default_factory=set)
    magics: itertools.count[int] = field(
        default_factory=lambda: itertools.count(MAGIC_FIRST + int(time.time() * 1000) % 10**9 * 1000)
    )

    # ---- what there is

    def info(self) -> ShownStruct:
        """The symbol now."""
        found: ShownStruct = self.read("symbol_info", self.symbol)
        return found

    def tick(self) -> ShownStruct:
        """The symbol's last tick."""
        found: ShownStruct = self.read("symbol_info_tick", self.symbol)
        return found

    def read(self, function: str, /, *args: Any, **kwargs: Any) -> Any:
        """The result of a read that must succeed.

        Raises:
            ReadFailed: it failed; the message has the module's error.
        """
        said = self.caller.call(function, *args, **kwargs)
        if said.result is None:
            raise ReadFailed(f"expected {function} to give a result, got {said.error or said.raised}")
        return said.result

    def connect(self) -> None:
        """Connects, again if need be.

        Raises:
            ConfigurationError: the terminal refuses.
            NotDemo: it is connected to another account than a demo one.
        """
        said = self.caller.call("initialize", **self.credentials)
        if said.result is not True:
            raise ConfigurationError(
                f"expected initialize to connect, got {said.error or said.raised}: is the terminal installed at this "
                "path, started once by hand, and are login, server and password right?"
            )
        self.verify()

    def revive(self) -> None:
        """Makes sure that the terminal answers, by connecting again if need be.

        After an error of the pipe its replies may be out of phase until then (mt5.md §1.1).
        """
        try:
            self.verify()
            self.read("terminal_info")
        except (ReadFailed, CallHung):
            self.caller.close()
            self.connect()

    def verify(self) -> None:
        """Makes sure that this is still the demo account.

        Raises:
            NotDemo: it is not.
        """
        account = self.read("account_info")
        if account.trade_mode != mt5.ACCOUNT_TRADE_MODE_DEMO:
            raise NotDemo(
                f"expected a demo account (trade_mode 0), got trade_mode {account.trade_mode} at {account.server}: "
                "this suite trades, so it runs on demo accounts only; nothing was sent"
            )
        if self.login and account.login != self.login:
            raise NotDemo("expected the account that was asked for, got another one: nothing more was sent")
        self.login = account.login

    # ---- volumes and prices

    def lot(self) -> float:
        """The smallest volume."""
        return float(self.info().volume_min)

    def two_lots(self) -> float | None:
        """The smallest volume that can be closed in two parts, None where the steps do not allow it."""
        info = self.info()
        least, step = Decimal(repr(info.volume_min)), Decimal(repr(info.volume_step))
        return float(least * 2) if not least % step and least * 2 <= Decimal(repr(info.volume_max)) else None

    def far(self, side: int, steps: int = 1) -> float:
        """A price below (side 0) or above (1) the market, on the grid, where nothing triggers."""
        tick, info = self.tick(), self.info()
        base, sign = (tick.bid, -1) if side == 0 else (tick.ask, 1)
        grid = Decimal(repr(info.trade_tick_size or info.point))
        wanted = Decimal(repr(base)) * (1 + sign * _FAR * steps)
        return float(round(wanted / grid) * grid)

    def filling(self) -> int:
        """A filling mode that the symbol's flags allow for market orders (mt5.md §2.2)."""
        info = self.info()
        if info.trade_exemode <= mt5.SYMBOL_TRADE_EXECUTION_INSTANT:
            return mt5.ORDER_FILLING_FOK
        if info.filling_mode & SYMBOL_FILLING_IOC:
            return mt5.ORDER_FILLING_IOC
        return mt5.ORDER_FILLING_FOK if info.filling_mode & SYMBOL_FILLING_FOK else mt5.ORDER_FILLING_RETURN

    def market(self, side: int, volume: float, **fields: Any) -> dict[str, Any]:
        """A market order."""
        tick = self.tick()
        return {
            "action": mt5.TRADE_ACTION_DEAL, "symbol": self.symbol, "volume": volume, "type": side,
            "price": tick.ask if side == 0 else tick.bid, "deviation": 100, "type_filling": self.filling(),
            "magic": next(self.magics), "comment": "conformance", **fields,
        }  # fmt: skip

    # ---- sending

    def send(self, request: dict[str, Any]) -> Said:
        """Sends one request and remembers its tickets.

        Raises:
            NotDemo: the account is not the demo account any more; nothing was sent.
            CallHung: nobody knows whether it was executed.
            MarketClosed: it was refused because of that.
        """
        self.verify()
        said = self.caller.call("order_send", request)
        if isinstance(said.result, ShownStruct) and said.result.retcode == mt5.TRADE_RETCODE_MARKET_CLOSED:
            raise MarketClosed(f"expected an open market for {self.symbol}, got 10018: run it again when it is open")
        if isinstance(said.result, ShownStruct) and said.result.order:
            self.tickets.add(said.result.order)
        return said

    def deal(self, side: int, volume: float, **fields: Any) -> Said:
        """Sends a market order, again at the new price where it was refused because the price had moved."""
        for _ in range(_TRIES):
            said = self.send(self.market(side, volume, **fields))
            if not isinstance(said.result, ShownStruct) or said.result.retcode not in _MOVED:
                break
        return said

    def wait(self, condition: Callable[[], Any], deadline_s: float | None = None) -> Any:
        """The first true value of a condition, None when the time is over."""
        until = time.monotonic() + (SETTLE_S if deadline_s is None else deadline_s)
        while not (found := condition()):
            if time.monotonic() > until:
                return None
            time.sleep(_POLL_S)
        return found

    def position(self, ticket: int) -> ShownStruct | None:
        """The position that an order opened, or with its symbol on a netting account."""
        found = self.caller.call("positions_get", symbol=self.symbol).result or ()
        if self.hedging:
            found = tuple(row for row in found if ticket in (row.identifier, row.ticket))
        return found[0] if found else None

    def span(self) -> tuple[int, int]:
        """From yesterday until the day after tomorrow: whatever zone the server is in, all of today is in it."""
        now = int(time.time())
        return now - _DAY_S, now + 2 * _DAY_S

    # ---- leaving nothing behind

    def ours(self) -> tuple[list[ShownStruct], list[ShownStruct]]:
        """Positions and orders of this suite, of this run and of earlier ones."""
        positions = self.read("positions_get")
        orders = self.read("orders_get")
        return [row for row in positions if self._is_ours(row, row.identifier)], [
            row for row in orders if self._is_ours(row, row.ticket)
        ]

    def _is_ours(self, row: ShownStruct, number: int) -> bool:
        return MAGIC_FIRST <= row.magic < MAGIC_LAST or number in self.tickets

    def clean(self) -> list[str]:
        """Removes own orders and closes own positions; gives what could not be, in words."""
        try:
            self.revive()
            self._clean()
            self.wait(lambda: not any(self.ours()), 5.0)
            positions, orders = self.ours()
        except StreamappError as error:
            told = f"tickets {sorted(self.tickets)}, and magics from {MAGIC_FIRST} to {MAGIC_LAST}"
            return [f"unknown: {error}. Look for {told}"]
        left = [f"position {row.ticket}: {row.volume} {row.symbol}, magic {row.magic}" for row in positions]
        return left + [f"order {row.ticket}: {row.volume_current} {row.symbol}, magic {row.magic}" for row in orders]

    def _clean(self) -> None:
        positions, orders = self.ours()
        for order in orders:
            self.send({"action": mt5.TRADE_ACTION_REMOVE, "order": order.ticket})
        for position in positions:
            self.close(position)

    def close(self, position: ShownStruct, volume: float | None = None, **fields: Any) -> Said:
        """Closes a position, or a part of it."""
        symbol, self.symbol = self.symbol, position.symbol
        try:
            closing = {"position": position.ticket} if self.hedging else {}
            return self.deal(1 - position.type, volume or position.volume, **closing, **fields)
        finally:
            self.symbol = symbol


def choose_symbol(caller: Caller, wanted: str | None) -> str:
    """The symbol to trade: the one asked for, else EURUSD by whatever suffix, else one that is open and shown.

    Raises:
        ConfigurationError: there is none with a price.
    """
    names = [wanted] if wanted else _candidates(caller)
    for name in names:
        caller.call("symbol_select", name, True)
        info, tick = caller.call("symbol_info", name).result, caller.call("symbol_info_tick", name).result
        if info and tick and tick.ask and info.trade_mode == mt5.SYMBOL_TRADE_MODE_FULL:
            return name
    raise ConfigurationError(f"expected a symbol that can be traded and has a price, got none of {names}; use --symbol")


def _candidates(caller: Caller) -> list[str]:
    found = caller.call("symbols_get", "*EURUSD*").result or caller.call("symbols_get").result or ()
    return sorted((row.name for row in found), key=lambda name: (not name.startswith("EURUSD"), len(name)))[:20]
