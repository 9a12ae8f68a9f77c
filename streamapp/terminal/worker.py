"""The process that holds the MT5 module: it reads a frame, makes the calls, writes a frame, and knows nothing else.

A process of its own because the module holds the GIL for a whole call and has no timeout: only from outside can it be
watched and ended (reference mt5 §1.1). Everything it writes on its standard output is a frame; whatever the module
prints goes to standard error.
"""

from __future__ import annotations

import importlib
import signal
import sys
import time
from pathlib import Path
from typing import Any

from streamapp import crashpoints
from streamapp.mt5 import constants as mt5
from streamapp.mt5.enums import ORDER_TYPES
from streamapp.mt5.retcodes import classify_opening
from streamapp.terminal import frames, past, sightings, targets
from streamapp.terminal.calls import Calls, NotConnectedError
from streamapp.terminal.history import History
from streamapp.terminal.lifetime import FileLock, die_with_parent, private_pipes

OF_THE_ACCOUNT = frozenset(
    {
        *("past", "deals", "more_deals", "ticket", "ended", "positions", "search"),
        *("account", "page", "order_now", "position_now"),
    }
)
"""What is read of the account: believed only if the terminal was connected to it just then. The parts of a look are
judged by the permissions and the account that it brings along.
"""
MODULES = {"simulated": "streamapp.simulator.metatrader5", "MetaTrader5": "MetaTrader5"}
TERMINAL_FRESH_S = 1.0
"""How old permissions and a symbol's specification may be on the order path. They change by a person's hand, and the
broker checks them itself; login and quote are read for every order."""
RATE_FRESH_S = 5.0
"""How old the rate of a currency may be: it only values slippage, and moves by less than a hundredth of a percent in
that time."""
RATE_LOTS = 100.0
"""Lots in the calculation that gives the rate: the answer is rounded to cents, which must not matter."""
TERMINAL_FIELDS = ("connected", "trade_allowed", "tradeapi_disabled")
ACCOUNT_FIELDS = ("login", "server", "trade_allowed", "trade_expert")
SYMBOL_FIELDS = (
    *("trade_mode", "order_mode", "filling_mode", "trade_exemode", "trade_stops_level", "trade_contract_size", "point"),
    *("trade_tick_size", "volume_min", "volume_max", "volume_step", "volume_limit"),
    *("expiration_mode", "order_gtc_mode", "trade_freeze_level"),
)
"""What an order is judged by (request.py); the other 100 fields would only be carried through the pipe."""


class Worker:
    """The operations that the terminal may ask for; each answers one JSON-ready value."""

    def __init__(self, module: Any) -> None:
        self.calls = Calls(module)
        self.history = History(self.calls)
        self._fresh: dict[str, tuple[float, Any]] = {}
        self._reference: str | None = None
        self._owner = (0, "")

    def answer(self, operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the frame that answers a request: value or failure, last error, and what the broker log must hold."""
        value, failure, away, began = None, None, None, time.perf_counter()
        try:
            value = getattr(self, f"do_{operation}")(**arguments)
            away = self._away() if operation in OF_THE_ACCOUNT else None
        except NotConnectedError as error:
            failure = str(error)
        return {
            "value": None if away else value,
            "failure": failure,
            "away": away,
            "took_s": time.perf_counter() - began,
            "broken": self.calls.broken,
            "error": self.calls.error,
            "log": self.calls.taken_notes(),
        }

    def _away(self) -> str | None:
        """Return why what was read just now is not our account's, or not the broker's."""
        terminal, account = self.calls.call("terminal_info"), self.calls.call("account_info")
        if terminal is None or account is None or not terminal["connected"]:
            return "the terminal has no connection to the broker"
        if (account["login"], account["server"]) != self._owner:
            return f"the terminal is logged in to {account['login']} on {account['server']}"
        return None

    def do_initialize(
        self,
        *,
        path: str | None,
        login: int,
        server: str,
        password: str | None,
        timeout_ms: int,
        portable: bool | None = None,
    ) -> dict[str, Any]:
        """Connect to the terminal program and its account; the password stays out of the log."""
        self.calls.call("shutdown")
        self._fresh.clear()
        self.history.forget()
        self._reference = None
        self._owner = (login, server)
        named: dict[str, Any] = {"login": login, "server": server, "timeout": timeout_ms}
        if portable is not None:
            named["portable"] = portable
        request = {**named, "path": path}
        if password is not None:
            named["password"] = password
        done = self.calls.call("initialize", *([path] if path else []), request=request, log=True, **named)
        self.calls.broken = None if done else self.calls.error
        return {"done": bool(done)}

    def do_past(self, since: int, cut: int, until: int, known: list[int]) -> dict[str, Any]:
        """Take a look at the account's past, as :func:`streamapp.terminal.past.look`."""
        return past.look(self.calls, since, cut, until, known)

    def do_look(self, parts: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """Read ``parts`` of the account (deals, ended, positions), then permissions, account and newest tick.

        In this order: what the terminal is connected to after them is what they were read of.
        """
        seen = {name: self._timed(getattr(self, f"do_{name}"), arguments) for name, arguments in parts.items()}
        terminal, account = self.calls.call("terminal_info"), self.calls.call("account_info")
        self.calls.note_change("terminal_info", None, terminal)
        self.calls.note_change("account_info", None, account)
        self._fresh["terminal"] = (time.monotonic(), terminal)
        return {"parts": seen, "terminal": terminal, "account": account, "tick": self._newest_tick()}

    def _timed(self, read: Any, arguments: dict[str, Any]) -> dict[str, Any]:
        began = time.perf_counter()
        return {"value": read(**arguments), "took_s": time.perf_counter() - began}

    def _newest_tick(self) -> Any:
        if self._reference is None:
            symbols = [s for s in self.calls.call("symbols_get") or [] if s["time"] and s["select"]]
            if not symbols:
                return None
            self._reference = max(symbols, key=lambda symbol: symbol["time"])["name"]
        return self.calls.call("symbol_info_tick", self._reference)

    def do_prepare(self, symbol: str, position_id: int | None = None) -> dict[str, Any]:
        """Read all that an order is judged by: permissions, account, symbol, tick, and the rate of its currency.

        ``position_id``: of an order that closes; ``position`` and ``deals`` are then what is known of it.
        """
        spec = self._recent(f"symbol:{symbol}", TERMINAL_FRESH_S, lambda: self._symbol(symbol))
        terminal = self._recent("terminal", TERMINAL_FRESH_S, lambda: self.calls.call("terminal_info"))
        return {
            "terminal": _some(terminal, TERMINAL_FIELDS),
            "account": _some(self.calls.call("account_info"), ACCOUNT_FIELDS),
            "symbol": _some(spec, SYMBOL_FIELDS),
            "rate": None if spec is None else self._recent(f"rate:{symbol}", RATE_FRESH_S, lambda: self._rate(spec)),
            "tick": None if spec is None else self.calls.call("symbol_info_tick", symbol),
            "held": self._held(symbol) if spec is not None and spec["volume_limit"] else None,
            **({} if position_id is None else self._closing(position_id)),
        }

    def _closing(self, position_id: int) -> dict[str, Any]:
        seen = targets.position(self.calls, position_id)
        return {"position": seen["live"] if seen["read"] else None, "deals": seen["deals"] or []}

    def _recent(self, key: str, fresh_s: float, read: Any) -> Any:
        at, value = self._fresh.get(key, (0.0, None))
        if value is None or time.monotonic() - at > fresh_s:
            value = read()
            if value is not None:  # nor would names that nobody knows be ever forgotten
                self._fresh[key] = (time.monotonic(), value)
        return value

    def _symbol(self, symbol: str) -> Any:
        spec = self.calls.call("symbol_info", symbol)
        if spec is not None and not spec["select"]:
            self.calls.call("symbol_select", symbol, True)
            spec = self.calls.call("symbol_info", symbol)
        return spec

    def _rate(self, spec: dict[str, Any]) -> float | None:
        # Money of one lot for a move of one: in the account's currency by the module itself, in the symbol's by its
        # contract.
        price, contract = float(spec["bid"]), float(spec["trade_contract_size"])
        if price > 0 and contract > 0:
            profit = self.calls.call("order_calc_profit", mt5.ORDER_TYPE_BUY, spec["name"], RATE_LOTS, price, 2 * price)
            if profit:
                return float(profit) / (price * contract * RATE_LOTS)
        size = float(spec["trade_tick_size"]) * contract
        return float(spec["trade_tick_value"]) / size if size else None

    def _held(self, symbol: str) -> list[float]:
        """Return the lots of the symbol's positions and working orders: bought, sold."""
        lots = [0.0, 0.0]
        for position in self.calls.call("positions_get", symbol=symbol) or []:
            lots[position["type"]] += position["volume"]
        for order in self.calls.call("orders_get", symbol=symbol) or []:
            if order["type"] in ORDER_TYPES:
                lots[order["type"] % 2] += order["volume_current"]
        return lots

    def do_check(self, request: dict[str, Any]) -> Any:
        """Ask the terminal whether it would take a request; nothing is sent."""
        return self.calls.call("order_check", request, request=request, log=True)

    def do_send(self, request: dict[str, Any], not_after: float, look: dict[str, Any] | None = None) -> dict[str, Any]:
        """Make the one ``order_send`` of an order, unless its time is over.

        ``look``: as :meth:`History.of_order`; ``deals`` are then those that are there at once, None: look for them
        later. Nothing that goes wrong with them changes anything in the answer beside.
        """
        if time.time() >= not_after:
            return {"sent": False}
        result = self.calls.call("order_send", request, request=request, log=True)
        crashpoints.reach("terminal.in_order_send")
        at, error = time.time(), self.calls.error
        elsewhere = self._elsewhere()
        deals = None if look is None or elsewhere else self._deals_of(result or {}, error, look)
        self.calls.error = error  # order_send's own is what the answer is judged by
        return {"sent": True, "result": result, "at": at, "elsewhere": elsewhere, "deals": deals}

    def _deals_of(self, result: dict[str, Any], error: tuple[int, str], look: dict[str, Any]) -> Any:
        ticket = result.get("order", 0)
        verdict = classify_opening(result.get("retcode"), ticket, result.get("comment", ""), error)
        if verdict.outcome != "accepted":
            return None
        try:
            deals = self.history.of_order(ticket, **look)
            return None if self._away() else self.history.told(deals)
        except NotConnectedError:
            return None

    def _elsewhere(self) -> str | None:
        """Return who is logged in if it is another account by now: a person may switch it between check and call."""
        if self.calls.broken:
            return None
        account = self.calls.call("account_info")
        if account is None or (account["login"], account["server"]) == self._owner:
            return None
        return f"{account['login']} on {account['server']}"

    def do_deals(self, **arguments: Any) -> dict[str, Any]:
        """Tell the deals that are new or changed (history.py)."""
        return self.history.deals(**arguments)

    def do_more_deals(self) -> dict[str, Any]:
        """Tell the next of them."""
        return self.history.more_deals()

    def do_ticket(self, **arguments: Any) -> dict[str, Any]:
        """Look at the deals and the order of one ticket."""
        return self.history.ticket(**arguments)

    def do_ended(self, tickets: list[int]) -> dict[str, Any]:
        """Look which of the tickets work no more."""
        return self.history.ended(tickets=tickets)

    def do_search(self, orders: list[dict[str, Any]], since: int, until: int, settled_until: int) -> dict[str, Any]:
        """Look through all four tables for orders in doubt (sightings.py)."""
        return sightings.look(self.calls, orders, since, until, settled_until)

    def do_positions(self) -> Any:
        """Return the open positions; None: not known."""
        rows = self.calls.call("positions_get")
        self.calls.note_rows("positions_get", rows)
        return rows

    def do_order_now(self, ticket: int) -> dict[str, Any]:
        """Read what an operation on an order is judged by."""
        return self._with_market(targets.order(self.calls, ticket))

    def do_position_now(self, position_id: int) -> dict[str, Any]:
        """Read what an operation on a position is judged by."""
        return self._with_market(targets.position(self.calls, position_id))

    def _with_market(self, seen: dict[str, Any]) -> dict[str, Any]:
        live = seen.get("live")
        return {**seen, "prepared": self.do_prepare(live["symbol"]) if live else None}

    def do_page(self, **arguments: Any) -> dict[str, Any]:
        """Return a page of a table (targets.py)."""
        return targets.page(self.calls, **arguments)

    def do_account(self) -> dict[str, Any]:
        """Read account and permissions."""
        return {"terminal": self.calls.call("terminal_info"), "account": self.calls.call("account_info")}

    def do_quote(self, symbol: str) -> dict[str, Any]:
        """Read a symbol, which is put into Market Watch if need be, and its last tick."""
        spec = self._recent(f"symbol:{symbol}", TERMINAL_FRESH_S, lambda: self._symbol(symbol))
        return {
            "symbol": _some(spec, SYMBOL_FIELDS),
            "tick": None if spec is None else self.calls.call("symbol_info_tick", symbol),
        }

    def do_stop(self) -> None:
        """Give the connection back."""
        self.calls.call("shutdown")


def _some(struct: dict[str, Any] | None, fields: tuple[str, ...]) -> dict[str, Any] | None:
    return None if struct is None else {name: struct[name] for name in fields}


def main() -> None:
    """Serve the parent until it closes our standard input or ends."""
    die_with_parent(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent says when we stop
    requests, answers = private_pipes()
    setup = frames.read(requests)
    lock = FileLock(Path(setup["lock"]))
    crashpoints.arm(setup["crash_at"])
    worker = Worker(importlib.import_module(MODULES[setup["module"]]))
    while (frame := frames.read(requests)) is not None:
        answers.write(frames.encode(worker.answer(frame["operation"], frame["arguments"])))
        answers.flush()
    worker.do_stop()
    lock.release()


if __name__ == "__main__":
    main()
