"""What an order is judged by, and whose ticks show the server's clock."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from streamapp.mt5 import constants as mt5
from streamapp.mt5.enums import ORDER_TYPES
from streamapp.terminal.pipe.answers import Prepared, QuoteSeen
from streamapp.terminal.pipe.calls import Prepare
from streamapp.terminal.pipe.structs import AccountInfo, SymbolInfo, TerminalInfo, Tick, TradePosition
from streamapp.terminal.worker import lookups
from streamapp.terminal.worker.mt5_client import Mt5Client, UnreadError, model_of

TERMINAL_FRESH_S = 1.0
"""How old permissions and a symbol's specification may be on the order path. They change by a person's hand, and the
broker checks them itself; login and quote are read for every order."""
RATE_FRESH_S = 5.0
"""How old the rate of a currency may be: it only values slippage, and moves by less than a hundredth of a percent in
that time."""
RATE_LOTS = 100.0
"""Lots in the calculation that gives the rate: the answer is rounded to cents, which must not matter."""
QUIET_S = 10.0
"""A symbol without a tick for so long shows the server's clock no more: another one is looked for, as at the weekend,
when a currency sleeps and a coin does not."""
SELECTED_AT_MOST = 3
"""Symbols that are put into an empty Market Watch, where the settings name none: one that is quoted is enough."""
NO_TICK = (mt5.RES_S_OK, *lookups.NOT_FOUND)
"""last_error of a symbol that was not quoted yet: which of them, nobody has said (reference mt5 §1.3)."""


class MarketReader:
    """What the module shows of permissions, symbols and quotes, on one connection after another.

    Attributes:
        selected: The symbols that were put into a Market Watch in which nothing was quoted.
    """

    def __init__(self, calls: Mt5Client) -> None:
        self._calls = calls
        self._fresh: dict[str, tuple[float, Any]] = {}
        self._reference: str | None = None
        self._reference_ms = 0
        self._moved_at = self._chosen_at = 0.0
        self._ticked: dict[str, int] = {}
        self.selected: list[str] = []

    def forget(self) -> None:
        """Begin anew: another connection is being made."""
        self._fresh.clear()
        self._reference = None
        self._ticked.clear()
        self.selected.clear()

    def learn_terminal(self, terminal: Any) -> None:
        """Take permissions that were read just now."""
        self._fresh["terminal"] = (time.monotonic(), terminal)

    # -- the server's clock

    def newest_tick(self, symbols: Sequence[str]) -> Tick | None:
        """Return the tick that shows the server's clock.

        ``symbols`` are put into Market Watch if nothing there is quoted, or else the first of the broker's.
        """
        tick, now = self._reference_tick(), time.monotonic()
        if self._reference is None or (now - max(self._moved_at, self._chosen_at) > QUIET_S):
            self._chosen_at = now
            self._choose(symbols)
            tick = self._reference_tick()
        return model_of(Tick, tick)

    def _reference_tick(self) -> Any:
        if self._reference is None:
            return None
        tick = self._calls.call("symbol_info_tick", self._reference)
        if tick is not None and tick["time_msc"] != self._reference_ms:
            self._reference_ms, self._moved_at = tick["time_msc"], time.monotonic()
        return tick

    def _choose(self, symbols: Sequence[str]) -> None:
        """Choose whose ticks show the server's clock: a symbol that has had one since the last time, or the newest."""
        known = self._calls.call("symbols_get", see=_quoted) or []
        ticked = {name: at for name, at, selected in known if selected and at}
        moved = {name: at for name, at in ticked.items() if self._ticked.get(name, at) != at}
        self._ticked = ticked
        if moved or (ticked and self._reference is None):
            self._reference = max(moved or ticked, key=ticked.__getitem__)
        elif not ticked:
            shown = {name for name, _, selected in known if selected}
            wanted = list(symbols) if shown or symbols else [name for name, _, _ in known[:SELECTED_AT_MOST]]
            hidden = [name for name in wanted if name not in shown]
            self.selected += [name for name in hidden if self._calls.call("symbol_select", name, True)]

    # -- before an order

    def prepare(self, call: Prepare) -> Prepared:
        """Read all that an order is judged by; nothing is judged by a part of it."""
        try:
            return self._prepared(call.symbol, call.position_id)
        except UnreadError as error:
            return Prepared(unread=str(error))

    def _prepared(self, symbol: str, position_id: int | None) -> Prepared:
        calls = self._calls
        spec = self._recent(f"symbol:{symbol}", TERMINAL_FRESH_S, lambda: self._symbol(symbol))
        terminal = self._recent("terminal", TERMINAL_FRESH_S, lambda: calls.needed("terminal_info"))
        # A terminal without a connection may have no account to show: that is no failed read.
        account = calls.needed("account_info") if terminal["connected"] else calls.call("account_info")
        closed = None if position_id is None else lookups.needed_position(calls, position_id)
        return Prepared(
            terminal=model_of(TerminalInfo, terminal),
            account=model_of(AccountInfo, account),
            symbol=model_of(SymbolInfo, spec),
            tick=None if spec is None else self._tick(symbol),
            rate=None if spec is None else self._recent(f"rate:{symbol}", RATE_FRESH_S, lambda: self._rate(spec)),
            held=self._held(symbol) if spec is not None and spec["volume_limit"] and closed is None else None,
            position=closed.live if closed is not None else None,
            deals=closed.deals if closed is not None else (),
            netted=self._netted(symbol, account) if closed is None else None,
        )

    def quote(self, symbol: str) -> QuoteSeen:
        """Read a symbol, which is put into Market Watch if need be, and its last tick."""
        try:
            spec = self._recent(f"symbol:{symbol}", TERMINAL_FRESH_S, lambda: self._symbol(symbol))
            return QuoteSeen(model_of(SymbolInfo, spec), None if spec is None else self._tick(symbol))
        except UnreadError as error:
            return QuoteSeen(None, None, unread=str(error))

    def _tick(self, symbol: str) -> Tick | None:
        return model_of(Tick, self._calls.needed("symbol_info_tick", symbol, unless=NO_TICK))

    def _netted(self, symbol: str, account: Any) -> TradePosition | None:
        """Return the symbol's position where a symbol has one, which an order that opens would change."""
        if account is None or account["margin_mode"] == mt5.ACCOUNT_MARGIN_MODE_RETAIL_HEDGING:
            return None
        # Sent without knowing them, an order might take the position's levels away.
        rows = self._calls.needed("positions_get", symbol=symbol)
        return model_of(TradePosition, rows[0]) if rows else None

    def _recent(self, key: str, fresh_s: float, read: Any) -> Any:
        at, value = self._fresh.get(key, (0.0, None))
        if value is None or time.monotonic() - at > fresh_s:
            value = read()
            if value is not None:  # nor would names that nobody knows be ever forgotten
                self._fresh[key] = (time.monotonic(), value)
        return value

    def _symbol(self, symbol: str) -> Any:
        spec = self._calls.needed("symbol_info", symbol, unless=lookups.NOT_FOUND)
        if spec is not None and not spec["select"]:
            self._calls.call("symbol_select", symbol, True)
            spec = self._calls.needed("symbol_info", symbol, unless=lookups.NOT_FOUND)
        return spec

    def _rate(self, spec: dict[str, Any]) -> float | None:
        # Money of one lot for a move of one: in the account's currency by the module itself, in the symbol's by its
        # contract.
        price, contract = float(spec["bid"]), float(spec["trade_contract_size"])
        if price > 0 and contract > 0:
            profit = self._calls.call(
                "order_calc_profit", mt5.ORDER_TYPE_BUY, spec["name"], RATE_LOTS, price, 2 * price
            )
            if profit:
                return float(profit) / (price * contract * RATE_LOTS)
        size = float(spec["trade_tick_size"]) * contract
        return float(spec["trade_tick_value"]) / size if size else None

    def _held(self, symbol: str) -> tuple[float, float]:
        """Return the lots of the symbol's positions and working orders: bought, sold."""
        lots = [0.0, 0.0]
        for position in self._calls.needed("positions_get", symbol=symbol):
            lots[position["type"]] += position["volume"]
        for order in self._calls.needed("orders_get", symbol=symbol):
            if order["type"] in ORDER_TYPES:
                lots[order["type"] % 2] += order["volume_current"]
        return lots[0], lots[1]


def _quoted(rows: Any) -> list[tuple[str, int, bool]] | None:
    """Return each symbol's name, time of its last tick, and whether it is in Market Watch."""
    return None if rows is None else [(row.name, row.time, row.select) for row in rows]
