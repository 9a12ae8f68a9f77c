"""What a terminal says of itself and of its account, and what it reckons of a request without sending it."""

from __future__ import annotations

import json
from typing import Any

from streamapp.mt5 import constants as mt5
from streamapp.mt5.enums import MARKET_ORDERS
from streamapp.simulator.books.accounts import SimulatedAccount
from streamapp.simulator.server.requests import OrderResult, context_of, exact, request_from
from streamapp.simulator.server.validation import refusal
from streamapp.simulator.terminal.state import CallFailed, TerminalState

PING_US = 45_000


class AccountView:
    """The functions ``terminal_info``, ``account_info``, ``order_calc_*`` and ``order_check``."""

    def __init__(self, state: TerminalState) -> None:
        self._state = state

    def terminal_info(self) -> str:
        """Return the values of a TerminalInfo."""
        state, standing = self._state, self._state.standing
        path = state.path
        return json.dumps([
            False, False, standing("disconnect") is None, False, standing("autotrading_off") is None,
            standing("api_disabled") is not None, False, False, False, False, state.market.terminals.build, 100000, 0,
            PING_US, 0.0, 0.0, state.account.profile.company, "MetaTrader 5", "English", path, path, path,
        ])  # fmt: skip

    def account_info(self) -> str:
        """Return the values of an AccountInfo; without a connection those of the last moment."""
        state, account = self._state, self._state.account
        profile, entry = account.profile, account.entry
        balance, (equity, margin, profit) = account.balance, state.market.books.money(account)
        off = state.standing("disconnect")
        if off is not None and account.name in off.money:
            balance, equity, margin, profit = off.money[account.name]
        return json.dumps([
            entry.login, entry.trade_mode, account.leverage, profile.limit_orders, int(profile.stop_out_in_money),
            state.standing("investor") is None, state.standing("server_disables_ea") is None, account.margin_mode,
            account.digits, profile.fifo_close, float(balance), float(account.credit), float(profit),
            float(equity), float(margin), float(equity - margin),
            round(float(account.margin_level(equity, margin)), 2), float(profile.margin_call),
            float(profile.stop_out), 0.0, 0.0, 0.0, 0.0, 0.0, entry.name, entry.server, entry.currency,
            profile.company,
        ])  # fmt: skip

    def order_calc_margin(self, action: int, symbol: str, volume: float, price: float) -> str:
        """Return the margin of a market order, in the account's currency."""
        account = self._able_to_reckon(action, symbol)
        margin = self._state.market.books.margin(account, symbol, action, exact(volume), exact(price))
        return json.dumps(float(account.round(margin)))

    def order_calc_profit(  # the module's own call
        self, action: int, symbol: str, volume: float, opened: float, closed: float
    ) -> str:
        """Return the profit of a position, in the account's currency."""
        account = self._able_to_reckon(action, symbol)
        values = exact(volume), exact(opened), exact(closed)
        return json.dumps(float(self._state.market.books.profit(account, symbol, action, *values)))

    def _able_to_reckon(self, action: int, symbol: str) -> SimulatedAccount:
        if action not in MARKET_ORDERS:
            raise CallFailed(mt5.RES_E_INVALID_PARAMS)
        if symbol not in self._state.account.symbols:
            raise CallFailed(mt5.RES_E_NOT_FOUND)
        return self._state.account

    def order_check(self, values: list[Any]) -> str:
        """Return code, projected money and words for a request, without its execution."""
        books, account = self._state.market.books, self._state.account
        ctx = context_of(books, account, request_from(values))
        code = refusal(ctx, account.profile.terminal_checks) or refusal(ctx, account.profile.server_checks)
        if code:
            return json.dumps([code, *([0.0] * 6), OrderResult(code).text()])
        equity, margin, profit = books.money(account)
        if ctx.request.action == mt5.TRADE_ACTION_DEAL and ctx.opens:
            volume, price = ctx.request.volume, ctx.market_price()
            margin += account.round(books.margin(account, ctx.known.name, ctx.request.side, volume, price))
        numbers = (account.balance, equity, profit, margin, equity - margin, account.margin_level(equity, margin))
        return json.dumps([code, *(float(number) for number in numbers), OrderResult(code).text()])
