"""What one terminal is: whose account it shows, since when, and what holds for it now; and how a call fails in it."""

from __future__ import annotations

from collections.abc import Callable

from streamapp.mt5 import constants as mt5
from streamapp.mt5.retcodes import last_error_of
from streamapp.simulator.books.accounts import SimulatedAccount
from streamapp.simulator.server.faults import Fault
from streamapp.simulator.server.market import Market

# A terminal that shows nothing yet does so for this long after its login, unless told otherwise.
STALE_MS = 2000

Reply = Callable[[int, str, str], None]
"""Takes a code of last_error(), its text, and the result as JSON."""


class CallFailed(Exception):  # noqa: N818  # it reads as what it is
    """The terminal refuses a call: None for the caller, with a code and words for ``last_error()``.

    Args:
        code: A code of ``last_error()``.
        text: Its words, if they are not the usual ones of the code.
    """

    def __init__(self, code: int, text: str | None = None) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text if text is not None else last_error_of(code).sentence


class TerminalState:
    """One terminal of a market, at first not logged in."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self.path = "C:\\Program Files\\MetaTrader 5"
        self.joined_ms = 0
        self.logged_in: SimulatedAccount | None = None

    @property
    def account(self) -> SimulatedAccount:
        """The account that the terminal shows: the one that is logged in, unless somebody switched it.

        Raises:
            CallFailed: Nobody is logged in.
        """
        if self.logged_in is None:
            raise CallFailed(mt5.RES_E_AUTH_FAILED)
        switched = self.market.faults.standing(self.logged_in, "account_switched")
        if switched is None:
            return self.logged_in
        return self.market.books.find(switched.params.get("login", "")) or self.logged_in

    def now(self) -> int:
        """Return the time by which tables are shown, in UTC milliseconds."""
        return self.market.clock.utc_ms()

    def standing(self, kind: str) -> Fault | None:
        """Return the fault of a kind that holds for the account now."""
        return self.market.faults.standing(self.account, kind)

    def is_cold(self) -> bool:
        """Return whether the terminal has come back so lately that its tables are still empty."""
        stale = self.standing("stale_after_reconnect")
        if stale is None or stale.params.get("show") != "nothing":
            return False
        return self.now() < self.joined_ms + int(stale.params.get("ms", STALE_MS))
