"""What others do at an account: a person with a phone, another program, the broker."""

from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

from streamapp.mt5 import constants as mt5
from streamapp.simulator.accounts import Account
from streamapp.simulator.corrections import Corrections
from streamapp.simulator.money import BUY
from streamapp.simulator.requests import Request, exact
from streamapp.simulator.rows import Deal, Order, Position
from streamapp.simulator.tables import Table

if TYPE_CHECKING:
    from streamapp.simulator.market import Market

# What foreign_activity can do, by the table whose row it does it to.
OF_POSITIONS = ("close", "modify", "duplicate")
OF_ORDERS = {
    "cancel": mt5.ORDER_STATE_CANCELED,
    "expire": mt5.ORDER_STATE_EXPIRED,
    "reject": mt5.ORDER_STATE_REJECTED,
}
OF_DEALS = ("bust", "correct")
ACTIONS = (*OF_POSITIONS, *OF_ORDERS, *OF_DEALS)

Row = TypeVar("Row", Order, Position, Deal)


class Deeds:
    """Does `foreign_activity` (params.action, see ACTIONS) and `ticket_reopen`."""

    def __init__(self, market: "Market") -> None:
        """Acts on the accounts of `market`."""
        self._market = market
        self._corrections = Corrections(market)

    def do(self, kind: str, params: dict[str, Any], accounts: list[Account], request: Request | None = None) -> None:
        """Does the deed on the row that `params` name (position, order or deal), or on all of a table.

        After a call (with `request`), all means: those of its magic.

        Raises:
            ValueError: a deal was to be busted or corrected that can't be, or none was named.
        """
        action = params.get("action", "close")
        for account in accounts:
            if kind == "ticket_reopen":
                for position in _wanted(account.positions, params, "position", request):
                    self._market.positions.reopen(account, position)
            elif action in OF_ORDERS:
                for order in _wanted(account.orders, params, "order", request):
                    self._market.finish(account, order, OF_ORDERS[action])
            elif action in OF_DEALS:
                self._change_deals(action, params, account, request)
            else:
                for position in _wanted(account.positions, params, "position", request):
                    self._change_position(action, params, account, position)

    def _change_deals(self, action: str, params: dict[str, Any], account: Account, request: Request | None) -> None:
        if "deal" not in params and request is None:
            raise ValueError(f"expected params.deal with the ticket of the deal to {action}, got {params}")
        for deal in _wanted(account.history_deals, params, "deal", request):
            if action == "bust":
                self._corrections.bust(account, deal)
            else:
                self._corrections.correct(account, deal, Decimal(str(params["price"])))

    def _change_position(self, action: str, params: dict[str, Any], account: Account, position: Position) -> None:
        if action == "close":
            price = self._market.matching.market_price(account, account.symbols[position.symbol], 1 - position.side)
            volume = min(Decimal(str(params.get("volume", position.volume))), position.volume)
            self._market.matching.close(account, position, price, mt5.ORDER_REASON_MOBILE, "", volume)
        elif action == "modify":
            sl, tp = (exact(float(params.get(name, 0.0))) for name in ("sl", "tp"))
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


def _wanted(table: Table[Row], params: dict[str, Any], name: str, request: Request | None) -> list[Row]:
    rows = list(table.live.values())
    if name in params:
        return [row for row in rows if params[name] in (row.ticket, getattr(row, "identifier", row.ticket))]
    return rows if request is None else [row for row in rows if row.magic == request.magic]
