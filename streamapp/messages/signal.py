"""The approved signal, in on ``signals.approved.{symbol}``: read leniently by mirror, strictly by execution."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import to_json

from streamapp.domain.parameters import OrderParameters
from streamapp.domain.vocabulary import BoundedDecimal, UtcTime
from streamapp.errors import Unusable
from streamapp.messages.envelope import reason_and_detail
from streamapp.settings import ExecutionSettings

_SIGNAL_ID = re.compile(r"[\x21-\x7e]{1,128}")
NAMES = [
    "signal_id",
    "status",
    "account",
    "strategy",
    "symbol",
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
_WORDS = ("status", "side", "order_type", "time_in_force", "fill_policy")


class Signal(OrderParameters):
    """A well-formed signal. ``approved_at`` absent: the stream's time."""

    signal_id: str
    status: str | None = None
    account: str = Field(min_length=1, max_length=128)
    strategy: str | None = Field(None, max_length=128)
    symbol: str = Field(min_length=1, max_length=64)
    expected_price: BoundedDecimal | None = Field(None, gt=0)
    max_slippage_points: int | None = Field(None, ge=0, le=1_000_000)
    approved_at: UtcTime | None = None
    valid_until: UtcTime | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)

    @field_validator("metadata")
    @classmethod
    def _can_be_written_again(cls, metadata: dict[str, Any]) -> dict[str, Any]:
        # JSON is read deeper than it is written: what we could never send on must stop here, not inside an order.
        to_json(metadata)
        return metadata

    @model_validator(mode="after")
    def _fields_agree(self) -> Signal:
        for name in ("price", "stop_limit_price", "stop_loss", "take_profit"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name}: expected a price above 0 or null, got {value}")
        if self.order_type != "market" and self.price is None:
            raise ValueError(f"price: expected one for a {self.order_type} order, got null")
        if (self.order_type == "stop_limit") != (self.stop_limit_price is not None):
            raise ValueError("stop_limit_price: expected for stop_limit orders and no others")
        if (self.time_in_force == "until") != (self.expiration is not None):
            raise ValueError("expiration: expected with time_in_force until and no other")
        return self

    @property
    def parameters(self) -> OrderParameters:
        """What the order asks of the broker."""
        return OrderParameters.model_construct(**{name: getattr(self, name) for name in OrderParameters.model_fields})


def renamed(payload: dict[str, Any], settings: ExecutionSettings) -> dict[str, Any]:
    """Return the payload in our names and words (``field_names``, ``value_names``); what we don't know is left out."""
    ours = {name: payload[theirs] for name in NAMES if (theirs := settings.field_names.get(name, name)) in payload}
    for name in _WORDS:
        if isinstance(word := ours.get(name), str):
            ours[name] = settings.value_names.get(word, word)
    return ours


def signal_id_of(named: dict[str, Any]) -> str | None:
    """Return the signal's id if it is 1 to 128 visible ASCII characters, otherwise None."""
    value = named.get("signal_id")
    return value if isinstance(value, str) and _SIGNAL_ID.fullmatch(value) else None


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


def read_signal(named: dict[str, Any]) -> Signal:
    """Return the signal in a renamed payload.

    Raises:
        Unusable: reason ``bad_field``, naming the field and what was expected.
    """
    try:
        return Signal.model_validate(named)
    except ValidationError as error:
        raise Unusable("bad_field", reason_and_detail(error)[1]) from None
