"""What others do at an account: a person with a phone, another program, the broker."""

from typing import TYPE_CHECKING

from streamapp.simulator import constants as mt5
from streamapp.simulator.accounts import Account
from streamapp.simulator.faults import Fault
from streamapp.simulator.money import BUY
from streamapp.simulator.requests import Request, exact
from streamapp.simulator.rows import Position

if TYPE_CHECKING:
    from streamapp.simulator.market import Market


class Deeds:
    """Does `foreign_activity` (params.action close, modify or duplicate) and `ticket_reopen`."""

    def __init__(self, market: "Market") -> None:
        """Acts on the accounts of `market`."""
        self._market = market

    def do(self, fault: Fault, accounts: list[Account], request: Request | None = None) -> None:
        """Does the deed on `params.position`, or on every position (after a call: on those of its magic)."""
        fault.hits += 1 if request is None else 0
        for account in accounts:
            for position in list(account.positions.live.values()):
                wanted = fault.params.get("position")
                if wanted is not None and wanted not in (position.ticket, position.identifier):
                    continue
                if wanted is None and request is not None and position.magic != request.magic:
                    continue
                self._do(fault, account, position)

    def _do(self, fault: Fault, account: Account, position: Position) -> None:
        if fault.kind == "ticket_reopen":
            self._market.positions.reopen(account, position)
            return
        action = fault.params.get("action", "close")
        if action == "close":
            price = self._market.matching.market_price(account, account.symbols[position.symbol], 1 - position.side)
            self._market.matching.close(account, position, price, mt5.ORDER_REASON_MOBILE, "")
        elif action == "modify":
            sl, tp = (exact(float(fault.params.get(name, 0.0))) for name in ("sl", "tp"))
            self._market.positions.change_stops(account, position, sl, tp)
        else:
            self._duplicate(account, position)

    def _duplicate(self, account: Account, position: Position) -> None:
        """Another program sends the same order, with the same magic."""
        symbol = account.symbols[position.symbol]
        filling = mt5.ORDER_FILLING_IOC if symbol.filling & 2 else mt5.ORDER_FILLING_FOK
        bid, ask = self._market.feed.quote(symbol.feed)
        zero = exact(0.0)
        request = Request(
            action=mt5.TRADE_ACTION_DEAL, magic=position.magic, order=0, symbol=position.symbol,
            volume=position.volume, price=ask if position.side == BUY else bid, stoplimit=zero, sl=zero, tp=zero,
            deviation=100, type=position.side, type_filling=filling, type_time=0, expiration=0,
            comment=position.comment, position=0, position_by=0,
        )  # fmt: skip
        self._market.matching.handle(account, request)
