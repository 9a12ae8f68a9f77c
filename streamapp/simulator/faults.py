"""What goes wrong on purpose: each fault by probability, by count of calls, or for a time.

A fault is a JSON object: `kind`, and optionally `account` (all without it), `on` (the function that it strikes,
default order_send), `nth` (strikes the n-th such call from now on), `probability`, `times` (how often it may strike;
1 with `nth`), `for_ms` (it ends by itself after that), and `params` of its kind. Without nth and probability it
strikes every call. Kinds that are states (visibility_lag, disconnect, investor, ...) hold from the moment they are
set, or, with `nth` or `probability`, from the call that they strike.
"""

import json
import random
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from streamapp.mt5 import constants as mt5
from streamapp.simulator.accounts import Account
from streamapp.simulator.deeds import ACTIONS
from streamapp.simulator.feed import Tick
from streamapp.simulator.params import checked
from streamapp.simulator.rpc import COMMANDS

if TYPE_CHECKING:
    from streamapp.simulator.market import Market

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
DEEDS = ("foreign_activity", "ticket_reopen")
KINDS = (*TRANSPORT, *OUTCOMES, *REFUSALS, *STATES, *DEEDS)

LAGGING = {
    "orders": "orders", "positions": "positions", "history_orders": "hist_orders", "history_deals": "hist_deals",
}  # fmt: skip
FOR_EVER_MS = 1 << 50
_KEPT = (
    "kind", "account", "on", "nth", "probability", "times", "until_ms", "params", "calls", "hits", "standing",
    "ends_ms",
)  # fmt: skip
_FIELDS = {"kind", "account", "on", "nth", "probability", "times", "for_ms", "params"}


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
        """Whether it has struck as often as it may."""
        return self.times is not None and self.hits >= self.times

    def strikes(self) -> bool:
        """Counts a call, and says whether this is one that it strikes."""
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
        """The fault as GET /faults shows it."""
        return {
            "id": self.number, "kind": self.kind, "account": self.account, "on": self.on, "nth": self.nth,
            "probability": self.probability, "times": self.times, "params": self.params, "calls": self.calls,
            "hits": self.hits, "standing": self.standing,
        }  # fmt: skip


class Faults:
    """The faults of a market. Without any, a call costs one look at an empty list."""

    def __init__(self, market: "Market") -> None:
        """No faults."""
        self._market = market
        self._numbers = 0
        self.active: list[Fault] = []

    def add(self, rows: list[dict[str, Any]]) -> list[Fault]:
        """Sets faults, all or none.

        Raises:
            ValueError: a kind, field or account that does not exist; the message says what does.
        """
        faults = [self._read(row) for row in rows]
        for fault in faults:
            if fault.kind in DEEDS and not fault.scripted:
                self._market.deeds.do(fault.kind, fault.params, self._accounts(fault))
                fault.hits += 1
                continue
            self.active.append(fault)
            self._keep(fault)
            if fault.kind in STATES and not fault.scripted:
                self._stand(fault)
            elif fault.kind in RESTARTS and not fault.scripted:
                self._stand(fault)
                self._market.hang_up(self._accounts(fault))
        return faults

    def clear(self) -> None:
        """Ends all faults; what was held back by a lag becomes visible."""
        for fault in self.active:
            self._market.store.delete("fault", "", fault.number)
        self.active.clear()
        self._release(list(self._market.accounts.values()), self._market.clock.utc_ms())

    def restore(self) -> None:
        """Takes back the faults that an earlier life of the market kept, as far as they had got."""
        now = self._market.clock.utc_ms()
        for _, number, body in list(self._market.store.rows("fault")):
            kept = json.loads(body)
            fault = Fault(number=number, draws=self._draws(number), **kept)
            self._numbers = max(self._numbers, number)
            for _ in range(fault.calls if fault.probability is not None else 0):
                fault.draws.random()
            self.active.append(fault)
            if fault.until_ms != FOR_EVER_MS:
                self._market.agenda.at(max(fault.until_ms, now), lambda ended=fault: self._end(ended))  # type: ignore[misc]
            if fault.standing:
                self._freeze(fault)

    def strike(self, account: Account, method: str) -> dict[str, Fault]:
        """The faults that strike this call, by kind. Counts it for those that do not."""
        struck: dict[str, Fault] = {}
        for fault in list(self.active):
            state = fault.kind in STATES or fault.kind in RESTARTS
            if fault.standing or (state and not fault.scripted):
                continue
            now = fault.ends_ms > self._market.clock.utc_ms()
            if now and self._concerns(fault, account) and fault.on == method and fault.strikes():
                struck[fault.kind] = fault
                if state:
                    self._stand(fault)
            self._keep(fault)
        return struck

    def standing(self, account: Account, kind: str) -> Fault | None:
        """The fault of a kind that holds for an account now."""
        for fault in self.active:
            if fault.kind == kind and fault.standing and self._concerns(fault, account):
                return fault
        return None

    def lag_ms(self, account: Account, table: str) -> int:
        """How long a change of a table stays unseen. Without a connection: until there is one again."""
        if not self.active:
            return 0
        if (off := self.standing(account, "disconnect")) is not None:
            return max(off.until_ms - self._market.clock.utc_ms(), 0) + self._stale_ms(account)
        if self.standing(account, "stale_after_reconnect") and not self._market.has_session(account):
            return FOR_EVER_MS
        lag = self.standing(account, "visibility_lag")
        return int(lag.params.get(LAGGING[table], lag.params.get(table, 0))) if lag else 0

    def reconnected(self, account: Account) -> None:
        """A terminal came back: what it missed shows up after its time of staleness."""
        if self.standing(account, "stale_after_reconnect") is not None:
            self._release([account], self._market.clock.utc_ms() + self._stale_ms(account))

    def refusal(self, account: Account) -> int:
        """The terminal's refusal of a trade because of a state, or 0."""
        if not self.active:
            return 0
        if self.standing(account, "disconnect") is not None:
            return mt5.TRADE_RETCODE_CONNECTION
        return next((code for kind, code in PERMISSIONS.items() if self.standing(account, kind) is not None), 0)

    def _stale_ms(self, account: Account) -> int:
        stale = self.standing(account, "stale_after_reconnect")
        return int(stale.params.get("ms", 2000)) if stale else 0

    def _read(self, row: dict[str, Any]) -> Fault:
        if not isinstance(row, dict):
            raise ValueError(f"expected a fault to be an object, got {row!r}"[:200])  # noqa: TRY004  # as all others
        if unknown := set(row) - _FIELDS:
            raise ValueError(f"expected fields {sorted(_FIELDS)} in a fault, got also {sorted(unknown)}")
        if row.get("kind") not in KINDS:
            raise ValueError(f"expected kind to be one of {sorted(KINDS)}, got {row.get('kind')!r}")
        account = row.get("account")
        found = self._market.find(account) if account is not None else None
        if account is not None and found is None:
            raise ValueError(f"expected account to be one of {sorted(self._market.accounts)}, got {account!r}")
        params = checked(row.get("params", {}))
        action = params.get("action", ACTIONS[0])
        if row["kind"] == "foreign_activity" and action not in ACTIONS:
            raise ValueError(f"expected params.action of foreign_activity to be one of {ACTIONS}, got {action!r}")
        if action == "correct" and "price" not in params:
            raise ValueError(f"expected params.price, the price to correct a deal to, got {params}")
        if row.get("on", "order_send") not in COMMANDS:
            raise ValueError(f"expected on to be one of {sorted(COMMANDS)}, got {row['on']!r}")
        self._numbers += 1
        nth = int(row["nth"]) if "nth" in row else None
        until = self._market.clock.utc_ms() + int(row["for_ms"]) if "for_ms" in row else FOR_EVER_MS
        fault = Fault(
            number=self._numbers,
            kind=str(row["kind"]),
            account=found.name if found else None,
            on=str(row.get("on", "order_send")),
            nth=nth,
            probability=float(row["probability"]) if "probability" in row else None,
            times=int(row["times"]) if "times" in row else (1 if nth is not None else None),
            until_ms=until,
            params=params,
            draws=self._draws(self._numbers),
            ends_ms=until,
        )
        if fault.until_ms != FOR_EVER_MS and not fault.scripted:
            self._market.agenda.at(fault.until_ms, lambda: self._end(fault))
        return fault

    def _stand(self, fault: Fault) -> None:
        """A state begins: for `params.ms` if that is given, else until it is cleared or its time is over."""
        fault.standing = True
        ms = fault.params.get("ms", RESTART_MS if fault.kind in RESTARTS else None)
        if ms is not None and fault.kind != "stale_after_reconnect":
            fault.until_ms = self._market.clock.utc_ms() + int(ms)
            self._market.agenda.at(fault.until_ms, lambda: self._end(fault))
        if fault.kind == "terminal_update":
            self._market.build += 1
        self._freeze(fault)
        self._keep(fault)

    def _freeze(self, fault: Fault) -> None:
        """A terminal without a connection goes on showing prices and money of its last moment."""
        if fault.kind == "disconnect":
            quotes = self._market.feed.quotes
            fault.quotes = {name: (q.utc_ms, q.bid, q.ask) for name, q in quotes.items()}
            fault.money = {
                account.name: (account.balance, *self._market.money(account)) for account in self._accounts(fault)
            }

    def _keep(self, fault: Fault) -> None:
        kept = {name: getattr(fault, name) for name in _KEPT}
        self._market.store.put("fault", "", fault.number, json.dumps(kept))

    def _draws(self, number: int) -> random.Random:
        return random.Random(f"{self._market.settings.seed}:fault:{number}")  # noqa: S311  # repeatable on purpose

    def _end(self, fault: Fault) -> None:
        fault.standing = False
        if fault.scripted and not fault.spent():
            self._keep(fault)
        else:
            self._market.store.delete("fault", "", fault.number)
            self.active = [other for other in self.active if other is not fault]

    def _release(self, accounts: list[Account], until_ms: int) -> None:
        for account in accounts:
            for table in LAGGING:
                getattr(account, table).release(until_ms)

    def _accounts(self, fault: Fault) -> list[Account]:
        return [account for account in self._market.accounts.values() if self._concerns(fault, account)]

    def _concerns(self, fault: Fault, account: Account) -> bool:
        return fault.account is None or fault.account == account.name
