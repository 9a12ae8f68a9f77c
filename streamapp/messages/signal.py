"""The approved signal, in on ``signals.approved.{symbol}``: read leniently by mirror, strictly by execution."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import to_json

from streamapp.domain.exits import ExitParameters, exit_hash
from streamapp.domain.parameters import OrderParameters, parameters_hash
from streamapp.domain.vocabulary import BoundedDecimal, Frozen, UtcTime
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
_WORDS = ("status", "intent", "scope", "side", "order_type", "time_in_force", "fill_policy")


class SignalHead(Frozen):
    """What every signal says, whatever it means. ``approved_at`` absent: the stream's time."""

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


class Signal(SignalHead, OrderParameters):
    """A well-formed signal that opens: one order."""

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
        for name in ("stop_loss", "take_profit"):
            value = getattr(self, name)
            if value is not None and (value < 0 or (value == 0 and intent != "modify")):
                raise ValueError(f"{name}: expected a price above 0 or null, got {value}")
        return self

    @property
    def parameters(self) -> ExitParameters:
        """What is to be done with what is open."""
        return ExitParameters.model_construct(**{name: getattr(self, name) for name in ExitParameters.model_fields})

    @property
    def fingerprint(self) -> str:
        """What makes two of them the same request."""
        return exit_hash(self.parameters)


AnySignal = Signal | ExitSignal


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


def routed_account(strategy: str | None, symbol: str, routing: dict[str, str]) -> str | None:
    """Return the account for a strategy and symbol.

    The most particular of strategy/symbol, strategy/*, */symbol, */* wins.
    """
    for key in (f"{strategy}/{symbol}", f"{strategy}/*", f"*/{symbol}", "*/*"):
        if account := routing.get(key):
            return account
    return None


def read_signal(named: dict[str, Any]) -> AnySignal:
    """Return the signal in a renamed payload; ``intent`` says which kind it is.

    Raises:
        Unusable: reason ``bad_field``, naming the field and what was expected.
    """
    opens = named.get("intent") is None or named["intent"] == "open"
    _refuse_strangers(named, ("position_id", "scope") if opens else ("price", "stop_limit_price", "expiration"))
    try:
        return (Signal if opens else ExitSignal).model_validate(named)
    except ValidationError as error:
        raise Unusable("bad_field", reason_and_detail(error)[1]) from None


def _refuse_strangers(named: dict[str, Any], strangers: tuple[str, ...]) -> None:
    """Return if none of the fields is set that mean nothing with this intent: what was asked for is never dropped."""
    found = next((name for name in strangers if named.get(name) is not None), None)
    if found is not None:
        raise Unusable("bad_field", f"{found}: expected none with intent {named.get('intent') or 'open'!s:.40}")
