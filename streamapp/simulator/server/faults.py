"""What goes wrong on purpose: each fault by probability, by count of calls, or for a time.

A fault is a JSON object: ``kind``, and optionally ``account`` (all without it), ``on`` (the function that it strikes,
default order_send), ``nth`` (strikes the n-th such call from now on), ``probability``, ``times`` (how often it may
strike; 1 with ``nth``), ``for_ms`` (it ends by itself after that), and ``params`` of its kind. Without ``nth`` and
``probability`` it strikes every call. Kinds that are states (visibility_lag, disconnect, investor, ...) hold from the
moment they are set, or, with ``nth`` or ``probability``, from the call that they strike.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from streamapp.mt5 import constants as mt5
from streamapp.simulator.books.accounts import SimulatedAccount
from streamapp.simulator.books.books import Books
from streamapp.simulator.prices.feed import Tick
from streamapp.simulator.server.schedule import Action, Timeline

# What a call can meet on its way, without the server's doing.
TRANSPORT = (
    "drop_before", "drop_after", "hang", "crash_client", "desync", "call_failed", "terminal_restart", "terminal_update",
)  # fmt: skip
RESTARTS = ("terminal_restart", "terminal_update")
# A terminal that restarts is away for this long unless told otherwise.
RESTART_MS = 2000
# What the server answers in place of the truth.
OUTCOMES = (
    "timeout_executed", "timeout_lost", "timeout_late", "conn_executed", "conn_lost", "placed_then_fill",
    "placed_then_reject", "partial", "partial_then_rest", "done_without_deal", "comment_rewrite", "magic_zeroed",
    "sl_tp_ignored_on_open", "volume_adjusted", "duplicate_fill", "false_answer",
)  # fmt: skip
# Refusals by the server, with their return codes.
REFUSALS = {
    "market_closed": mt5.TRADE_RETCODE_MARKET_CLOSED, "off_quotes": mt5.TRADE_RETCODE_PRICE_OFF,
    "requote": mt5.TRADE_RETCODE_REQUOTE, "price_changed": mt5.TRADE_RETCODE_PRICE_CHANGED,
    "too_many_requests": mt5.TRADE_RETCODE_TOO_MANY_REQUESTS, "locked": mt5.TRADE_RETCODE_LOCKED,
    "frozen": mt5.TRADE_RETCODE_FROZEN, "reject": mt5.TRADE_RETCODE_REJECT,
}  # fmt: skip
# States of terminal and account; the permissions have the return code of their refusal.
PERMISSIONS = {
    "autotrading_off": mt5.TRADE_RETCODE_CLIENT_DISABLES_AT,
    "investor": mt5.TRADE_RETCODE_TRADE_DISABLED,
    "server_disables_ea": mt5.TRADE_RETCODE_SERVER_DISABLES_AT,
}
STATES = (
    "visibility_lag", "stale_after_reconnect", "history_partial", "disconnect", "api_disabled", "account_switched",
    "activation_rejected", "activation_partial", *PERMISSIONS,
)  # fmt: skip
# What somebody else does, at once or after the call that it strikes.
THIRD_PARTY = ("foreign_activity", "ticket_reopen")
KINDS = (*TRANSPORT, *OUTCOMES, *REFUSALS, *STATES, *THIRD_PARTY)

LAGGING = {
    "orders": "orders", "positions": "positions", "history_orders": "hist_orders", "history_deals": "hist_deals",
}  # fmt: skip
FOR_EVER_MS = 1 << 50
# Of the terminal, September 2026. The fault ``terminal_update`` raises it.
FIRST_BUILD = 6199
_KEPT = (
    "kind", "account", "on", "nth", "probability", "times", "until_ms", "params", "calls", "hits", "standing",
    "ends_ms",
)  # fmt: skip


@dataclass(slots=True)
class Fault:
    """One fault, and how often it was looked at and struck."""

    number: int
    kind: str
    account: str | None
    on: str
    nth: int | None
    probability: float | None
    times: int | None
    until_ms: int
    params: dict[str, Any]
    draws: random.Random
    calls: int = 0
    hits: int = 0
    standing: bool = False
    ends_ms: int = FOR_EVER_MS
    quotes: dict[str, Tick] = field(default_factory=dict)
    money: dict[str, tuple[Decimal, ...]] = field(default_factory=dict)

    @property
    def scripted(self) -> bool:
        """Whether it waits for a call."""
        return self.nth is not None or self.probability is not None

    def spent(self) -> bool:
        """Return whether it has struck as often as it may."""
        return self.times is not None and self.hits >= self.times

    def is_triggered(self) -> bool:
        """Count a call, and says whether this is one that it strikes."""
        self.calls += 1
        if self.spent():
            return False
        if self.nth is not None and self.calls != self.nth:
            return False
        if self.probability is not None and self.draws.random() >= self.probability:
            return False
        self.hits += 1
        return True

    def shown(self) -> dict[str, Any]:
        """Return the fault as GET /faults shows it."""
        return {
            "id": self.number, "kind": self.kind, "account": self.account, "on": self.on, "nth": self.nth,
            "probability": self.probability, "times": self.times, "params": self.params, "calls": self.calls,
            "hits": self.hits, "standing": self.standing,
        }  # fmt: skip


TriggeredFaults = dict[str, Fault]
"""What struck a call, by kind."""


class TerminalRegistry:
    """The terminals that are logged in, by a number of their connection, and the build of all of them."""

    def __init__(self) -> None:
        self.build = FIRST_BUILD
        self.logged_in: dict[int, tuple[SimulatedAccount, Action]] = {}

    def join(self, connection: int, account: SimulatedAccount, hang_up: Action) -> None:
        """Take note of a login; ``hang_up`` ends the connection."""
        self.logged_in[connection] = (account, hang_up)

    def leave(self, connection: int) -> None:
        """Take note that a terminal is gone."""
        self.logged_in.pop(connection, None)

    def any_of(self, account: SimulatedAccount) -> bool:
        """Return whether some terminal of the account is logged in."""
        return any(joined is account for joined, _ in self.logged_in.values())

    def hang_up(self, accounts: list[SimulatedAccount]) -> None:
        """End the connections of all terminals of some accounts."""
        for account, end in list(self.logged_in.values()):
            if account in accounts:
                end()


class Faults:
    """The faults of a market. Without any, a call costs one look at an empty list."""

    def __init__(self, books: Books, timeline: Timeline, terminals: TerminalRegistry, seed: int) -> None:
        self._books = books
        self._timeline = timeline
        self._terminals = terminals
        self._seed = seed
        self._numbers = 0
        self.active: list[Fault] = []

    def next_number(self) -> int:
        """Return the number of a new fault."""
        self._numbers += 1
        return self._numbers

    def set(self, fault: Fault) -> None:
        """Take a fault: a state holds at once unless it waits for a call, a restart ends its terminals' connections."""
        if fault.until_ms != FOR_EVER_MS and not fault.scripted:
            self._timeline.at(fault.until_ms, lambda: self._end(fault))
        self.active.append(fault)
        self._keep(fault)
        if fault.kind in (*STATES, *RESTARTS) and not fault.scripted:
            self._stand(fault)
        if fault.kind in RESTARTS and not fault.scripted:
            self._terminals.hang_up(self.accounts_of(fault))

    def clear(self) -> None:
        """End all faults; what was held back by a lag becomes visible."""
        for fault in self.active:
            self._books.store.delete("fault", "", fault.number)
        self.active.clear()
        self._release(list(self._books.accounts.values()), self._books.clock.utc_ms())

    def restore(self) -> None:
        """Take back the faults that an earlier life of the market kept, as far as they had got."""
        now = self._books.clock.utc_ms()
        for _, number, body in list(self._books.store.rows("fault")):
            kept = json.loads(body)
            fault = Fault(number=number, draws=self.draws(number), **kept)
            self._numbers = max(self._numbers, number)
            for _ in range(fault.calls if fault.probability is not None else 0):
                fault.draws.random()
            self.active.append(fault)
            if fault.until_ms != FOR_EVER_MS:
                self._timeline.at(max(fault.until_ms, now), lambda ended=fault: self._end(ended))  # type: ignore[misc]
            if fault.standing:
                self._freeze(fault)

    def trigger(self, account: SimulatedAccount, method: str) -> TriggeredFaults:
        """Return the faults that strike this call, by kind. Counts it for those that do not."""
        triggered: TriggeredFaults = {}
        for fault in list(self.active):
            state = fault.kind in STATES or fault.kind in RESTARTS
            if fault.standing or (state and not fault.scripted):
                continue
            now = fault.ends_ms > self._books.clock.utc_ms()
            if now and self._concerns(fault, account) and fault.on == method and fault.is_triggered():
                triggered[fault.kind] = fault
                if state:
                    self._stand(fault)
            self._keep(fault)
        return triggered

    def standing(self, account: SimulatedAccount, kind: str) -> Fault | None:
        """Return the fault of a kind that holds for an account now."""
        for fault in self.active:
            if fault.kind == kind and fault.standing and self._concerns(fault, account):
                return fault
        return None

    def lag_ms(self, account: SimulatedAccount, table: str) -> int:
        """Return how long a change of a table stays unseen. Without a connection: until there is one again."""
        if not self.active:
            return 0
        if (off := self.standing(account, "disconnect")) is not None:
            return max(off.until_ms - self._books.clock.utc_ms(), 0) + self._stale_ms(account)
        if self.standing(account, "stale_after_reconnect") and not self._terminals.any_of(account):
            return FOR_EVER_MS
        lag = self.standing(account, "visibility_lag")
        return int(lag.params.get(LAGGING[table], lag.params.get(table, 0))) if lag else 0

    def reconnected(self, account: SimulatedAccount) -> None:
        """A terminal came back: what it missed shows up after its time of staleness."""
        if self.standing(account, "stale_after_reconnect") is not None:
            self._release([account], self._books.clock.utc_ms() + self._stale_ms(account))

    def refusal(self, account: SimulatedAccount) -> int:
        """Return the terminal's refusal of a trade because of a state, or 0."""
        if not self.active:
            return 0
        if self.standing(account, "disconnect") is not None:
            return mt5.TRADE_RETCODE_CONNECTION
        return next((code for kind, code in PERMISSIONS.items() if self.standing(account, kind) is not None), 0)

    def _stale_ms(self, account: SimulatedAccount) -> int:
        stale = self.standing(account, "stale_after_reconnect")
        return int(stale.params.get("ms", 2000)) if stale else 0

    def _stand(self, fault: Fault) -> None:
        """A state begins: for ``params.ms`` if that is given, else until it is cleared or its time is over."""
        fault.standing = True
        ms = fault.params.get("ms", RESTART_MS if fault.kind in RESTARTS else None)
        if ms is not None and fault.kind != "stale_after_reconnect":
            fault.until_ms = self._books.clock.utc_ms() + int(ms)
            self._timeline.at(fault.until_ms, lambda: self._end(fault))
        if fault.kind == "terminal_update":
            self._terminals.build += 1
        self._freeze(fault)
        self._keep(fault)

    def _freeze(self, fault: Fault) -> None:
        """A terminal without a connection goes on showing prices and money of its last moment."""
        if fault.kind == "disconnect":
            quotes = self._books.feed.quotes
            fault.quotes = {name: quoted.last() for name, quoted in quotes.items()}
            fault.money = {
                account.name: (account.balance, *self._books.money(account)) for account in self.accounts_of(fault)
            }

    def _keep(self, fault: Fault) -> None:
        kept = {name: getattr(fault, name) for name in _KEPT}
        self._books.store.put("fault", "", fault.number, json.dumps(kept))

    def draws(self, number: int) -> random.Random:
        """Return the chance of a fault: the same for the same seed and number."""
        return random.Random(f"{self._seed}:fault:{number}")  # noqa: S311  # repeatable on purpose

    def _end(self, fault: Fault) -> None:
        fault.standing = False
        if fault.scripted and not fault.spent():
            self._keep(fault)
        else:
            self._books.store.delete("fault", "", fault.number)
            self.active = [other for other in self.active if other is not fault]

    def _release(self, accounts: list[SimulatedAccount], until_ms: int) -> None:
        for account in accounts:
            for table in LAGGING:
                getattr(account, table).release(until_ms)

    def accounts_of(self, fault: Fault) -> list[SimulatedAccount]:
        """Return the accounts that a fault concerns."""
        return [account for account in self._books.accounts.values() if self._concerns(fault, account)]

    def _concerns(self, fault: Fault, account: SimulatedAccount) -> bool:
        return fault.account is None or fault.account == account.name
