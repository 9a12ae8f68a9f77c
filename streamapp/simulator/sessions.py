"""The terminal between a client and the market: one session a connection, one method a function of the module.

A method gives its result as JSON text, in the shape that the module turns into structs, or raises `CallFailed`.
`order_send` may answer later, so it takes a callback.
"""

import json
from collections.abc import Callable
from typing import Any

from streamapp.mt5 import constants as mt5
from streamapp.mt5.constants import RES_S_OK
from streamapp.mt5.retcodes import LAST_ERRORS
from streamapp.simulator.accounts import Account
from streamapp.simulator.dealing import Struck
from streamapp.simulator.failures import CallFailed, Reply
from streamapp.simulator.faults import Fault
from streamapp.simulator.listings import Listings
from streamapp.simulator.market import Market
from streamapp.simulator.quotations import Quotations
from streamapp.simulator.rpc import COMMANDS, EXIT_CODE
from streamapp.simulator.standing import Standing
from streamapp.simulator.symbol_info import SymbolInfos
from streamapp.simulator.trading import Trading

BUILD_DATE = "16 Sep 2026"

# A terminal that shows nothing yet does so for this long after its login, unless told otherwise.
STALE_MS = 2000


class Session:
    """One connected client. Its account is chosen by initialize or login."""

    def __init__(self, market: Market, infos: SymbolInfos, hang_up: Callable[[], None]) -> None:
        """A session that is not logged in; `hang_up` ends its connection."""
        self.market = market
        self.out_of_phase = False
        self.joined_ms = 0
        self.path = "C:\\Program Files\\MetaTrader 5"
        self._hang_up = hang_up
        self._account: Account | None = None
        self._trading = Trading(self)
        self._quotations = Quotations(self, infos)
        parts = (self, Standing(self), self._quotations, Listings(self), self._trading)
        self._calls: dict[str, Callable[..., str]] = {
            name: getattr(part, name) for part in parts for name in COMMANDS if hasattr(part, name)
        }

    @property
    def account(self) -> Account:
        """The account that the terminal shows: the one that is logged in, unless somebody switched it."""
        if self._account is None:
            raise CallFailed(mt5.RES_E_AUTH_FAILED)
        if self.market.faults.active:
            switched = self.market.faults.standing(self._account, "account_switched")
            if switched is not None:
                return self.market.find(switched.params.get("login", "")) or self._account
        return self._account

    def call(self, method: str, arguments: list[Any], reply: Reply) -> None:
        """Does one call of the module and answers it, now, later or, where a fault says so, never."""
        try:
            struck: Struck = {}
            if self.market.faults.active and self._account is not None:
                struck = self.market.faults.strike(self._account, method)
                reply = self._on_the_way(struck, reply)
            if "drop_before" in struck:
                raise CallFailed(mt5.RES_E_INTERNAL_FAIL_SEND)
            if "call_failed" in struck and not struck["call_failed"].params.get("executed", False):
                raise CallFailed(_failure(struck))
            if method == "order_send":
                self._trading.order_send(arguments[0], struck, reply)
                return
            function = self._calls.get(method)
            if function is None:
                raise CallFailed(mt5.RES_E_UNSUPPORTED)
            reply(RES_S_OK, "Success", function(*arguments))
        except CallFailed as failed:
            reply(failed.code, failed.text, "null")

    def _on_the_way(self, struck: Struck, reply: Reply) -> Reply:
        """What happens to the reply of a call, after it was executed."""
        if not struck:
            return reply

        def twisted(code: int, text: str, result: str) -> None:
            if "terminal_restart" in struck or "terminal_update" in struck:
                self._hang_up()
            elif "drop_after" in struck:
                reply(mt5.RES_E_INTERNAL_FAIL_RECEIVE, LAST_ERRORS[mt5.RES_E_INTERNAL_FAIL_RECEIVE].sentence, "null")
            elif "call_failed" in struck:
                reply(_failure(struck), CallFailed(_failure(struck)).text, "null")
            elif "crash_client" in struck:
                reply(EXIT_CODE, "", "null")
            elif "hang" in struck:
                delay = struck["hang"].params.get("ms")
                if delay is not None:
                    self.market.wait(float(delay), lambda: reply(code, text, result))
            else:
                self.out_of_phase = self.out_of_phase or "desync" in struck
                reply(code, text, result)

        return twisted

    def end(self) -> None:
        """The client is gone."""
        self.market.leave(id(self))

    def now(self) -> int:
        """The time by which tables are shown."""
        return self.market.clock.utc_ms()

    def _join(self, account: Account) -> None:
        self._account, self.joined_ms = account, self.now()
        self._quotations.begin(account)
        self.market.join(id(self), account, self._hang_up)

    # ---- connection

    def hello(self) -> str:
        """How the module is to behave."""
        return json.dumps({"hold_gil": self.market.settings.hold_gil})

    def initialize(self, path: str, login: int, password: str, server: str) -> str:
        """Logs in, by login, by an account's name at the end of the path, or into the first account."""
        self.path = path or self.path
        if login:
            return self.login(login, password, server)
        name = path.replace("\\", "/").rsplit("/", 1)[-1]
        account = self.market.accounts.get(name) or next(iter(self.market.accounts.values()), None)
        if account is None or account.settings.password is not None:
            raise CallFailed(mt5.RES_E_AUTH_FAILED)
        return self._log_in(account)

    def login(self, login: int, password: str, server: str) -> str:
        """Logs in. A password that the account does not have is not looked at."""
        account = self.market.find(login)
        if account is None or (server and server != account.settings.server):
            raise CallFailed(mt5.RES_E_AUTH_FAILED)
        if account.settings.password is not None and password != account.settings.password:
            raise CallFailed(mt5.RES_E_AUTH_FAILED)
        return self._log_in(account)

    def _log_in(self, account: Account) -> str:
        """A terminal that is restarting is not there to log in."""
        for kind in ("terminal_restart", "terminal_update"):
            if self.market.faults.standing(account, kind) is not None:
                raise CallFailed(mt5.RES_E_INTERNAL_FAIL_TIMEOUT)
        self._join(account)
        return "true"

    def version(self) -> str:
        """Build of the terminal."""
        return json.dumps([500, self.market.build, BUILD_DATE])

    def is_cold(self) -> bool:
        """Whether the terminal has come back so lately that its tables are still empty."""
        stale = self.stands("stale_after_reconnect")
        if stale is None or stale.params.get("show") != "nothing":
            return False
        return self.now() < self.joined_ms + int(stale.params.get("ms", STALE_MS))

    def stands(self, kind: str) -> Fault | None:
        """The fault of a kind that holds for the account now."""
        faults = self.market.faults
        return faults.standing(self.account, kind) if faults.active else None


def _failure(struck: Struck) -> int:
    return int(struck["call_failed"].params.get("code", mt5.RES_E_FAIL))
