"""The approved signal, as :mod:`streamapp.messages.dialect` reads it from what comes on signals.approved.{symbol}."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from functools import cached_property
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticSerializationError, to_json

from streamapp.domain.exits import ExitParameters, exit_hash
from streamapp.domain.parameters import OrderParameters, parameters_hash
from streamapp.domain.vocabulary import BoundedDecimal, Frozen, UtcTime
from streamapp.errors import Unusable

_SIGNAL_ID = re.compile(r"[\x21-\x7e]{1,128}")
NAMES = [
    "signal_id",
    "status",
    "account",
    "strategy",
    "symbol",
    "intent",
    "position_id",
    "scope",
    "side",
    "order_type",
    "volume",
    "price",
    "stop_limit_price",
    "stop_loss",
    "take_profit",
    "expected_price",
    "time_in_force",
    "expiration",
    "fill_policy",
    "max_slippage_points",
    "approved_at",
    "valid_until",
    "metadata",
]


class SignalHead(Frozen):
    """What every signal says, whatever it means. ``approved_at`` absent: the stream's time."""

    signal_id: str
    status: str | None = None
    account: str = Field(min_length=1, max_length=128)
    strategy: str | None = Field(None, max_length=128)
    symbol: str = Field(min_length=1, max_length=64)
    expected_price: BoundedDecimal | None = None
    max_slippage_points: int | None = Field(None, ge=0, le=1_000_000)
    approved_at: UtcTime | None = None
    valid_until: UtcTime | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)

    @field_validator("metadata")
    @classmethod
    def _can_be_written_again(cls, metadata: dict[str, Any]) -> dict[str, Any]:
        # JSON is read deeper than it is written: what we could never send on must stop here, not inside an order.
        try:
            to_json(metadata)
        except (PydanticSerializationError, RecursionError):
            raise ValueError("expected each key once and no deep nesting, got what can't be sent on") from None
        return metadata


class Signal(SignalHead, OrderParameters):
    """A well-formed signal that opens: one order."""

    @model_validator(mode="after")
    def _fields_agree(self) -> Signal:
        if self.order_type != "market" and self.price is None:
            raise ValueError(f"price: expected one for a {self.order_type} order, got none")
        if (self.order_type == "stop_limit") != (self.stop_limit_price is not None):
            raise ValueError("stop_limit_price: expected for stop_limit orders and no others")
        if (self.time_in_force == "until") != (self.expiration is not None):
            raise ValueError("expiration: expected with time_in_force until and no other")
        return self

    @cached_property
    def parameters(self) -> OrderParameters:
        """What the order asks of the broker."""
        return OrderParameters.model_construct(**{name: getattr(self, name) for name in OrderParameters.model_fields})

    @property
    def fingerprint(self) -> str:
        """What makes two of them the same request."""
        return parameters_hash(self.parameters)


class ExitSignal(SignalHead, ExitParameters):
    """A well-formed signal that closes, reduces, reverses or modifies what is open; ``order_type`` is market."""

    symbol: str = Field(min_length=1, max_length=64)
    intent: Literal["close", "reduce", "reverse", "modify"]
    order_type: Literal["market"] | None = None

    @model_validator(mode="after")
    def _fields_agree(self) -> ExitSignal:
        intent, levels = self.intent, self.stop_loss is not None or self.take_profit is not None
        if self.position_id is not None and "scope" in self.model_fields_set:
            raise ValueError("position_id, scope: expected one of them, got both")
        if intent == "reduce" and self.volume is None:
            raise ValueError("volume: expected the lots to reduce by, got none; close closes all")
        if intent == "modify" and not levels:
            raise ValueError("stop_loss, take_profit: expected one to set (0 takes it away), got none")
        if intent == "modify" and (self.volume is not None or self.side is not None):
            raise ValueError("volume, side: expected none with intent modify, which changes levels alone")
        if intent in {"close", "reduce"} and levels:
            raise ValueError(f"stop_loss, take_profit: expected none with intent {intent}; modify sets them")
        return self

    @cached_property
    def parameters(self) -> ExitParameters:
        """What is to be done with what is open."""
        return ExitParameters.model_construct(**{name: getattr(self, name) for name in ExitParameters.model_fields})

    @property
    def fingerprint(self) -> str:
        """What makes two of them the same request."""
        return exit_hash(self.parameters)


AnySignal = Signal | ExitSignal


def signal_id_of(named: dict[str, Any]) -> str | None:
    """Return the signal's id if it is 1 to 128 visible ASCII characters, otherwise None."""
    value = named.get("signal_id")
    return value if isinstance(value, str) and _SIGNAL_ID.fullmatch(value) else None


def no_signal_id(named: dict[str, Any]) -> Unusable:
    """Return why a signal without a readable id can't be used."""
    value = named.get("signal_id")
    got = "none" if value is None else f"{value!r:.80}" if isinstance(value, str) else f"a {type(value).__name__}"
    return Unusable("no_signal_id", f"signal_id: expected 1 to 128 visible ASCII characters without spaces, got {got}")


def account_of(named: dict[str, Any]) -> str | None:
    """Return the account a payload names itself, None where routing or ClickHouse must say.

    An account that is there but is no text is an empty name: it is refused as unknown, not routed somewhere.
    """
    value = named.get("account")
    if value is None:
        return None
    return value if isinstance(value, str) and value else str(value)[:128]


def route_of(strategy: str | None, symbol: str, routing: Mapping[str, Mapping[str, Decimal]]) -> Mapping[str, Decimal]:
    """Return the accounts for a strategy and symbol, each with its weight; none where no route is set.

    The most particular of strategy/symbol, strategy/*, */symbol, */* wins.
    """
    keys = (f"{strategy}/{symbol}", f"{strategy}/*", f"*/{symbol}", "*/*")
    return next((routing[key] for key in keys if key in routing), {})


def is_split(route: Mapping[str, Decimal]) -> bool:
    """Return whether each account of a route gets a copy with its weight, and one answer says what became of all."""
    return len(route) > 1 or any(weight != 1 for weight in route.values())
