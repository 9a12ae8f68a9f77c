"""The rows of a trade server's tables: orders, positions, deals. Money and volume are Decimal."""

import json
from dataclasses import dataclass, field, fields
from decimal import Decimal
from typing import Any, TypeVar

ZERO = Decimal(0)

Row = TypeVar("Row", "Order", "Position", "Deal")


@dataclass(slots=True)
class Order:
    """An order, active or done. Times are server time in milliseconds, `expiration` in seconds."""

    ticket: int
    symbol: str
    type: int
    state: int
    magic: int
    comment: str
    reason: int
    volume_initial: Decimal
    volume_current: Decimal
    price_open: Decimal
    sl: Decimal
    tp: Decimal
    time_setup_msc: int
    type_filling: int
    stoplimit: Decimal = ZERO
    type_time: int = 0
    expiration: int = 0
    time_done_msc: int = 0
    position_id: int = 0
    position_by_id: int = 0
    price_current: Decimal = ZERO
    external_id: str = ""
    cached: str | None = field(default=None, repr=False, compare=False)

    def wire(self) -> str:
        """The values of a TradeOrder as a JSON array; kept once the order is done and can't change."""
        if self.cached is not None:
            return self.cached
        text = self._wire()
        self.cached = text if self.time_done_msc else None
        return text

    def _wire(self) -> str:
        return json.dumps([
            self.ticket, self.time_setup_msc // 1000, self.time_setup_msc, self.time_done_msc // 1000,
            self.time_done_msc, self.expiration, self.type, self.type_time, self.type_filling, self.state,
            self.magic, self.position_id, self.position_by_id, self.reason, float(self.volume_initial),
            float(self.volume_current), float(self.price_open), float(self.sl), float(self.tp),
            float(self.price_current), float(self.stoplimit), self.symbol, self.comment, self.external_id,
        ])  # fmt: skip


@dataclass(slots=True)
class Position:
    """An open position. `margin` is what it holds, in the account's currency, at the rate of its opening."""

    ticket: int
    identifier: int
    symbol: str
    side: int
    volume: Decimal
    price_open: Decimal
    sl: Decimal
    tp: Decimal
    magic: int
    comment: str
    reason: int
    time_msc: int
    time_update_msc: int
    margin: Decimal
    swap: Decimal = ZERO
    external_id: str = ""
    cached: tuple[str, str] | None = field(default=None, repr=False, compare=False)

    def wire(self, price_current: Decimal, profit: Decimal) -> str:
        """The values of a TradePosition as a JSON array. What no price moves is kept until the position changes."""
        if self.cached is None:
            head = json.dumps([
                self.ticket, self.time_msc // 1000, self.time_msc, self.time_update_msc // 1000,
                self.time_update_msc, self.side, self.magic, self.identifier, self.reason, float(self.volume),
                float(self.price_open), float(self.sl), float(self.tp),
            ])  # fmt: skip
            self.cached = (head[:-1], json.dumps([self.symbol, self.comment, self.external_id])[1:])
        head, tail = self.cached
        return f"{head}, {float(price_current)!r}, {float(self.swap)!r}, {float(profit)!r}, {tail}"


@dataclass(slots=True)
class Deal:
    """An execution, or a balance operation."""

    ticket: int
    order: int
    time_msc: int
    type: int
    entry: int
    magic: int
    position_id: int
    reason: int
    volume: Decimal
    price: Decimal
    commission: Decimal
    swap: Decimal
    profit: Decimal
    fee: Decimal
    symbol: str
    comment: str
    external_id: str = ""
    cached: str | None = field(default=None, repr=False, compare=False)

    def wire(self) -> str:
        """The values of a TradeDeal as a JSON array; a deal that is shown does not change any more."""
        if self.cached is None:
            self.cached = self._wire()
        return self.cached

    def _wire(self) -> str:
        return json.dumps([
            self.ticket, self.order, self.time_msc // 1000, self.time_msc, self.type, self.entry, self.magic,
            self.position_id, self.reason, float(self.volume), float(self.price), float(self.commission),
            float(self.swap), float(self.profit), float(self.fee), self.symbol, self.comment, self.external_id,
        ])  # fmt: skip


def _names(kind: type[Any]) -> tuple[tuple[str, bool], ...]:
    return tuple((column.name, column.type is Decimal) for column in fields(kind) if column.name != "cached")


_FIELDS = {kind: _names(kind) for kind in (Order, Position, Deal)}


def dump(row: Order | Position | Deal) -> str:
    """A row as text for the store."""
    return json.dumps([str(getattr(row, name)) if money else getattr(row, name) for name, money in _FIELDS[type(row)]])


def load(kind: type[Row], text: str) -> Row:
    """The row that `dump` wrote."""
    pairs = zip(json.loads(text), _FIELDS[kind], strict=True)
    values: list[Any] = [Decimal(value) if money else value for value, (_, money) in pairs]
    return kind(*values)
