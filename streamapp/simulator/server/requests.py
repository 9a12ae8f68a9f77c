"""Trade requests as the server reads them, what they refer to, and what the server answers."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any

from streamapp.mt5 import constants as mt5
from streamapp.mt5.retcodes import retcode_of
from streamapp.simulator.books.accounts import SimulatedAccount
from streamapp.simulator.books.books import Books
from streamapp.simulator.books.money import BUY, SELL
from streamapp.simulator.books.tables import ZERO, BrokerOrder, BrokerPosition
from streamapp.simulator.prices.symbols import SymbolSpec

LIMITS = (mt5.ORDER_TYPE_BUY_LIMIT, mt5.ORDER_TYPE_SELL_LIMIT)
PENDING_TYPES = range(mt5.ORDER_TYPE_BUY_LIMIT, mt5.ORDER_TYPE_SELL_STOP_LIMIT + 1)
STOP_LIMITS = (mt5.ORDER_TYPE_BUY_STOP_LIMIT, mt5.ORDER_TYPE_SELL_STOP_LIMIT)

# Stands for NaN, infinities and what no market has, which the client does not check: no valid volume, price or level is
# so large that money could not be reckoned from it in 28 digits.
NOT_A_NUMBER = Decimal(-(10**10))
LARGEST = 1e9


def exact(value: float) -> Decimal:
    """Return the shortest decimal that the float stands for."""
    return Decimal(repr(value)) if math.isfinite(value) and abs(value) < LARGEST else NOT_A_NUMBER


@dataclass(slots=True)
class OrderRequest:
    """A TradeRequest, fields in the order of the struct, volumes and prices exact."""

    action: int
    magic: int
    order: int
    symbol: str
    volume: Decimal
    price: Decimal
    stoplimit: Decimal
    sl: Decimal
    tp: Decimal
    deviation: int
    type: int
    type_filling: int
    type_time: int
    expiration: int
    comment: str
    position: int
    position_by: int
    reason: int = mt5.ORDER_REASON_EXPERT

    @property
    def side(self) -> int:
        """Which way the order trades."""
        return SELL if self.type % 2 else BUY

    def dump(self) -> list[Any]:
        """Return the values as JSON can keep them: numbers plain, money as text."""
        values = (getattr(self, column.name) for column in fields(self))
        return [str(value) if isinstance(value, Decimal) else value for value in values]


def request_from(values: list[Any]) -> OrderRequest:
    """Read the values that the module sent: numbers are plain, money is float."""
    read: list[Any] = [exact(value) if isinstance(value, float) else value for value in values]
    return OrderRequest(*read)


def load_request(values: list[Any]) -> OrderRequest:
    """Return the request that ``OrderRequest.dump`` wrote."""
    columns = zip(fields(OrderRequest), values, strict=True)
    read: list[Any] = [Decimal(value) if column.type == "Decimal" else value for column, value in columns]
    return OrderRequest(*read)


@dataclass(slots=True)
class OrderResult:
    """What the trade server answers. A refusal by the terminal itself has nothing but a code and its words."""

    retcode: int
    deal: int = 0
    order: int = 0
    volume: Decimal = ZERO
    price: Decimal = ZERO
    bid: Decimal = ZERO
    ask: Decimal = ZERO
    comment: str = ""
    request_id: int = 0
    retcode_external: int = 0

    def text(self) -> str:
        """Return the words of the result."""
        return self.comment or retcode_of(self.retcode).sentence


@dataclass(slots=True)
class RequestContext:
    """A request with what it refers to, looked up once."""

    books: Books
    account: SimulatedAccount
    request: OrderRequest
    symbol: SymbolSpec | None
    position: BrokerPosition | None
    order: BrokerOrder | None

    @property
    def known(self) -> SymbolSpec:
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

    def is_price(self, value: Decimal) -> bool:
        """Return whether the symbol can have this price: at or below 0 only once its market has been there."""
        if value <= 0 and self.books.feed.quotes[self.known.feed].low[0] > 0:
            return False
        return value != NOT_A_NUMBER and self.known.on_grid(value)

    def quote(self) -> tuple[Decimal, Decimal]:
        """Return bid and ask now."""
        return self.books.feed.quote(self.known.feed)

    def market_price(self) -> Decimal:
        """Return the price that a market order of this side gets."""
        bid, ask = self.quote()
        return ask if self.request.side == BUY else bid


def context_of(books: Books, account: SimulatedAccount, request: OrderRequest) -> RequestContext:
    """Look up what a request refers to."""
    order = account.orders.live.get(request.order) if request.order else None
    position: BrokerPosition | None = None
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
    return RequestContext(books, account, request, account.symbols.get(name), position, order)
