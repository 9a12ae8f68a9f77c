"""A trade request with what it refers to."""

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from streamapp.mt5 import constants as mt5
from streamapp.simulator.accounts import Account
from streamapp.simulator.money import BUY
from streamapp.simulator.requests import Request
from streamapp.simulator.rows import Order, Position
from streamapp.simulator.symbols import Symbol

if TYPE_CHECKING:
    from streamapp.simulator.market import Market


@dataclass(slots=True)
class Intake:
    """A request with what it refers to, looked up once."""

    market: "Market"
    account: Account
    request: Request
    symbol: Symbol | None
    position: Position | None
    order: Order | None

    @property
    def known(self) -> Symbol:
        """The symbol, after the check that there is one."""
        if self.symbol is None:
            raise LookupError(f"expected a checked symbol, got {self.request.symbol!r}")
        return self.symbol

    @property
    def opens(self) -> bool:
        """Whether it could add exposure."""
        request = self.request
        if request.action == mt5.TRADE_ACTION_PENDING:
            return True
        if request.action != mt5.TRADE_ACTION_DEAL:
            return False
        held = self.position
        return held is None or held.side == request.side or request.volume > held.volume

    def quote(self) -> tuple[Decimal, Decimal]:
        """Bid and ask now."""
        return self.market.feed.quote(self.known.feed)

    def market_price(self) -> Decimal:
        """The price that a market order of this side gets."""
        bid, ask = self.quote()
        return ask if self.request.side == BUY else bid


def intake(market: "Market", account: Account, request: Request) -> Intake:
    """Looks up what a request refers to."""
    order = account.orders.live.get(request.order) if request.order else None
    position: Position | None = None
    if account.hedging or request.action == mt5.TRADE_ACTION_CLOSE_BY:
        position = account.positions.live.get(request.position) if request.position else None
    else:
        position = account.net_position(request.symbol) or account.positions.live.get(request.position)
    if request.action in (mt5.TRADE_ACTION_SLTP, mt5.TRADE_ACTION_CLOSE_BY):
        name = position.symbol if position else request.symbol
    elif request.action in (mt5.TRADE_ACTION_MODIFY, mt5.TRADE_ACTION_REMOVE):
        name = order.symbol if order else request.symbol
    else:
        name = request.symbol
    return Intake(market, account, request, account.symbols.get(name), position, order)
