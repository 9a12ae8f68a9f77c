"""The terminal between a client and the market: one session a connection, one method a function of the module.

A method gives its result as JSON text, in the shape that the module turns into structs, or raises ``CallFailed``.
``order_send`` may answer later, so it takes a callback.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from streamapp.mt5 import constants as mt5
from streamapp.mt5.constants import RES_S_OK
from streamapp.mt5.retcodes import LAST_ERRORS
from streamapp.simulator.books.accounts import SimulatedAccount
from streamapp.simulator.server.faults import RESTARTS, TriggeredFaults
from streamapp.simulator.server.market import Market
from streamapp.simulator.server.requests import OrderResult, request_from
from streamapp.simulator.terminal.account_view import AccountView
from streamapp.simulator.terminal.quotes import SymbolQuotes
from streamapp.simulator.terminal.state import CallFailed, Reply, TerminalState
from streamapp.simulator.terminal.symbol_info import SymbolInfos
from streamapp.simulator.terminal.views import TableViews, result_json
from streamapp.simulator.wire import COMMANDS, EXIT_CODE

BUILD_DATE = "16 Sep 2026"


class Session:
    """One connected client, not logged in at first: its account is chosen by initialize or login.

    Args:
        market: Where it trades.
        infos: Describes symbols; shared by all sessions of a market.
        hang_up: Ends the connection.
    """

    def __init__(self, market: Market, infos: SymbolInfos, hang_up: Callable[[], None]) -> None:
        self.out_of_phase = False
        self._market = market
        self._hang_up = hang_up
        self._state = state = TerminalState(market)
        self._quotes = SymbolQuotes(state, infos)
        parts = (self, AccountView(state), self._quotes, TableViews(state))
        self._calls: dict[str, Callable[..., str]] = {
            name: getattr(part, name) for part in parts for name in COMMANDS if hasattr(part, name)
        }

    def call(self, method: str, arguments: list[Any], reply: Reply) -> None:
        """Do one call of the module and answers it, now, later or, where a fault says so, never."""
        try:
            triggered: TriggeredFaults = {}
            if self._state.logged_in is not None:
                triggered = self._market.faults.trigger(self._state.logged_in, method)
                reply = self._on_the_way(triggered, reply)
            if "drop_before" in triggered:
                raise CallFailed(mt5.RES_E_INTERNAL_FAIL_SEND)
            if "call_failed" in triggered and not triggered["call_failed"].params.get("executed", False):
                raise CallFailed(_failure(triggered))
            if method == "order_send":
                self._order_send(arguments[0], triggered, reply)
                return
            function = self._calls.get(method)
            if function is None:
                raise CallFailed(mt5.RES_E_UNSUPPORTED)
            reply(RES_S_OK, "Success", function(*arguments))
        except CallFailed as failed:
            reply(failed.code, failed.text, "null")

    def _on_the_way(self, triggered: TriggeredFaults, reply: Reply) -> Reply:
        """What happens to the reply of a call, after it was executed."""
        if not triggered:
            return reply

        def struck_reply(code: int, text: str, result: str) -> None:
            if any(kind in triggered for kind in RESTARTS):
                self._hang_up()
            elif "drop_after" in triggered:
                reply(mt5.RES_E_INTERNAL_FAIL_RECEIVE, LAST_ERRORS[mt5.RES_E_INTERNAL_FAIL_RECEIVE].sentence, "null")
            elif "call_failed" in triggered:
                reply(_failure(triggered), CallFailed(_failure(triggered)).text, "null")
            elif "crash_client" in triggered:
                reply(EXIT_CODE, "", "null")
            elif "hang" in triggered:
                delay = triggered["hang"].params.get("ms")
                if delay is not None:
                    self._market.timeline.wait(float(delay), lambda: reply(code, text, result))
            else:
                self.out_of_phase = self.out_of_phase or "desync" in triggered
                reply(code, text, result)

        return struck_reply

    def _order_send(self, values: list[Any], triggered: TriggeredFaults, reply: Reply) -> None:
        """Send a request through the terminal's checks to the server and answer with its result."""
        if self._state.standing("api_disabled"):
            raise CallFailed(mt5.RES_E_AUTO_TRADING_DISABLED)

        def answer(result: OrderResult) -> None:
            reply(RES_S_OK, "Success", result_json(result))

        self._market.gateway.send(self._state.account, request_from(values), triggered, answer)

    def end(self) -> None:
        """The client is gone."""
        self._market.terminals.leave(id(self))

    def _join(self, account: SimulatedAccount) -> None:
        self._state.logged_in, self._state.joined_ms = account, self._state.now()
        self._quotes.begin(account)
        self._market.terminals.join(id(self), account, self._hang_up)
        self._market.faults.reconnected(account)

    # ---- connection

    def hello(self) -> str:
        """Return how the module is to behave."""
        return json.dumps({"hold_gil": self._market.settings.hold_gil})

    def initialize(self, path: str, login: int, password: str, server: str) -> str:
        """Log in, by login, by an account's name at the end of the path, or into the first account."""
        self._state.path = path or self._state.path
        if login:
            return self.login(login, password, server)
        name = path.replace("\\", "/").rsplit("/", 1)[-1]
        account = self._market.books.accounts.get(name) or next(iter(self._market.books.accounts.values()), None)
        if account is None or account.entry.password is not None:
            raise CallFailed(mt5.RES_E_AUTH_FAILED)
        return self._log_in(account)

    def login(self, login: int, password: str, server: str) -> str:
        """Log in. A password that the account does not have is not looked at."""
        account = self._market.books.find(login)
        if account is None or (server and server != account.entry.server):
            raise CallFailed(mt5.RES_E_AUTH_FAILED)
        if account.entry.password is not None and password != account.entry.password:
            raise CallFailed(mt5.RES_E_AUTH_FAILED)
        return self._log_in(account)

    def _log_in(self, account: SimulatedAccount) -> str:
        """A terminal that is restarting is not there to log in."""
        for kind in RESTARTS:
            if self._market.faults.standing(account, kind) is not None:
                raise CallFailed(mt5.RES_E_INTERNAL_FAIL_TIMEOUT)
        self._join(account)
        return "true"

    def version(self) -> str:
        """Return build of the terminal."""
        return json.dumps([500, self._market.terminals.build, BUILD_DATE])


def _failure(triggered: TriggeredFaults) -> int:
    return int(triggered["call_failed"].params.get("code", mt5.RES_E_FAIL))
