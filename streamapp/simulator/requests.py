"""Trade requests as the server reads them, and what it answers."""

import json
import math
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any

from streamapp.mt5 import constants as mt5
from streamapp.mt5.retcodes import retcode_of
from streamapp.simulator.money import BUY, SELL, ZERO

LIMITS = (mt5.ORDER_TYPE_BUY_LIMIT, mt5.ORDER_TYPE_SELL_LIMIT)
PENDING_TYPES = range(mt5.ORDER_TYPE_BUY_LIMIT, mt5.ORDER_TYPE_SELL_STOP_LIMIT + 1)
STOP_LIMITS = (mt5.ORDER_TYPE_BUY_STOP_LIMIT, mt5.ORDER_TYPE_SELL_STOP_LIMIT)

# Stands for NaN, infinities and what no market has, which the client does not check: no valid volume, price or level is
# negative, and none is so large that money could not be reckoned from it in 28 digits.
NOT_A_NUMBER = Decimal(-1)
LARGEST = 1e9


def exact(value: float) -> Decimal:
    """The shortest decimal that the float stands for."""
    return Decimal(repr(value)) if math.isfinite(value) and abs(value) < LARGEST else NOT_A_NUMBER


@dataclass(slots=True)
class Request:
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
        """The values as JSON can keep them: numbers plain, money as text."""
        values = (getattr(self, column.name) for column in fields(self))
        return [str(value) if isinstance(value, Decimal) else value for value in values]


def request_from(values: list[Any]) -> Request:
    """Reads the values that the module sent: numbers are plain, money is float."""
    read: list[Any] = [exact(value) if isinstance(value, float) else value for value in values]
    return Request(*read)


def load_request(values: list[Any]) -> Request:
    """The request that `Request.dump` wrote."""
    columns = zip(fields(Request), values, strict=True)
    read: list[Any] = [Decimal(value) if column.type is Decimal else value for column, value in columns]
    return Request(*read)


@dataclass(slots=True)
class Result:
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
        """The words of the result."""
        return self.comment or retcode_of(self.retcode).sentence

    def wire(self) -> str:
        """The values of an OrderSendResult without its request, as a JSON array."""
        return json.dumps([
            self.retcode, self.deal, self.order, float(self.volume), float(self.price), float(self.bid),
            float(self.ask), self.text(), self.request_id,
            self.retcode_external,
        ])  # fmt: skip
