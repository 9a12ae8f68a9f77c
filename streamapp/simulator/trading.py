"""What a terminal does with a trade request: reckons, checks, and sends it."""

import json
from typing import TYPE_CHECKING, Any

from streamapp.mt5 import constants as mt5
from streamapp.mt5.constants import RES_S_OK
from streamapp.simulator.accounts import Account
from streamapp.simulator.dealing import Struck
from streamapp.simulator.failures import CallFailed, Reply
from streamapp.simulator.intake import intake
from streamapp.simulator.requests import Result, exact, request_from
from streamapp.simulator.validation import refusal

if TYPE_CHECKING:
    from streamapp.simulator.sessions import Session


class Trading:
    """The functions of the module that reckon and send orders."""

    def __init__(self, session: "Session") -> None:
        """Trades on the account of `session`."""
        self._session = session

    def order_calc_margin(self, action: int, symbol: str, volume: float, price: float) -> str:
        """Margin of a market order, in the account's currency."""
        account = self._able_to_reckon(action, symbol)
        margin = self._session.market.positions.margin(account, symbol, action, exact(volume), exact(price))
        return json.dumps(float(account.round(margin)))

    def order_calc_profit(self, action: int, symbol: str, volume: float, opened: float, closed: float) -> str:
        """Profit of a position, in the account's currency."""
        account = self._able_to_reckon(action, symbol)
        values = exact(volume), exact(opened), exact(closed)
        return json.dumps(float(self._session.market.positions.profit(account, symbol, action, *values)))

    def _able_to_reckon(self, action: int, symbol: str) -> Account:
        if action not in {mt5.ORDER_TYPE_BUY, mt5.ORDER_TYPE_SELL}:
            raise CallFailed(mt5.RES_E_INVALID_PARAMS)
        if symbol not in self._session.account.symbols:
            raise CallFailed(mt5.RES_E_NOT_FOUND)
        return self._session.account

    def order_check(self, values: list[Any]) -> str:
        """Code, projected money and words for a request, without its execution."""
        market, account = self._session.market, self._session.account
        it = intake(market, account, request_from(values))
        code = refusal(it, account.profile.terminal_checks) or refusal(it, account.profile.server_checks)
        if code:
            return json.dumps([code, *([0.0] * 6), Result(code).text()])
        equity, margin, profit = market.money(account)
        if it.request.action == mt5.TRADE_ACTION_DEAL and it.opens:
            volume, price = it.request.volume, it.market_price()
            margin += account.round(market.positions.margin(account, it.known.name, it.request.side, volume, price))
        numbers = (account.balance, equity, profit, margin, equity - margin, account.margin_level(equity, margin))
        return json.dumps([code, *(float(number) for number in numbers), Result(code).text()])

    def order_send(self, values: list[Any], struck: Struck, reply: Reply) -> None:
        """Sends a request through the terminal's checks to the server and answers with its result."""
        session = self._session
        if session.stands("api_disabled"):
            raise CallFailed(mt5.RES_E_AUTO_TRADING_DISABLED)

        def answer(result: Result) -> None:
            reply(RES_S_OK, "Success", result.wire())

        session.market.dealing.send(session.account, request_from(values), struck, answer)
