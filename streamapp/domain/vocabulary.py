"""The words and scalar types that every module uses, as on the wire (design: messages)."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema

Side = Literal["buy", "sell"]
OrderType = Literal["market", "limit", "stop", "stop_limit"]
TimeInForce = Literal["gtc", "day", "until"]
FillPolicy = Literal["any", "fok", "ioc", "return"]
Status = Literal["pending", "submitted", "partially_filled", "filled", "cancelled", "rejected", "failed"]
FINAL_STATUSES: frozenset[str] = frozenset({"filled", "cancelled", "rejected", "failed"})
Decision = Literal["accepted", "refused", "duplicate", "conflict"]
DealEntry = Literal["in", "out", "inout", "out_by"]
DealReason = Literal["client", "mobile", "web", "expert", "sl", "tp", "so", "rollover", "vmargin", "split", "other"]
AccountOperationType = Literal[
    "balance",
    "credit",
    "charge",
    "correction",
    "bonus",
    "commission",
    "commission_daily",
    "commission_monthly",
    "commission_agent_daily",
    "commission_agent_monthly",
    "interest",
    "dividend",
    "dividend_franked",
    "tax",
    "other",
]
Connection = Literal[
    "connecting", "ready", "no_algo_trading", "wrong_account", "wrong_password", "disconnected", "hung"
]
ExpectedPriceSource = Literal["signal", "arrival_mid"]


LARGEST_INTEGER = 2**63 - 1
"""What SQLite, Kafka and MetaTrader keep an integer in; pydantic alone takes any length."""


def decimal_text(value: Decimal) -> str:
    """Return ``value`` in plain notation, never with an exponent, its trailing zeros kept."""
    return format(value, "f")


def time_text(value: datetime) -> str:
    """Return a UTC time as RFC 3339 with exactly six digits of a second and ``Z``."""
    # Not strftime: its %Y writes the year 1 without zeros, which nobody can read back.
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def in_utc(value: datetime) -> datetime:
    """Return the same moment in UTC; raises ValueError for one without an offset, or beyond what UTC can say."""
    if value.tzinfo is None:
        raise ValueError(f"expected a time with an offset, got {value.isoformat()}")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"expected a time that exists in UTC, got {value.isoformat()}") from None


def _bounded(value: Decimal) -> Decimal:
    # ClickHouse keeps Decimal(38, 10): 28 digits before the point, 10 behind it. What does not fit is refused at the
    # edge, not cut later.
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -10 or value.adjusted() > 27:
        raise ValueError(f"expected at most 27 digits before and 10 behind the point, got {value!s:.40}")
    return value


Money = Annotated[Decimal, Field(allow_inf_nan=False), PlainSerializer(decimal_text, return_type=str)]
"""A finite decimal amount, price or volume; a string on the wire."""
BoundedDecimal = Annotated[Money, AfterValidator(_bounded)]
"""A decimal that fits the warehouse; for everything that arrives from outside."""
Lots = Annotated[BoundedDecimal, Field(gt=0)]
Ticket = Annotated[int, Field(gt=0, le=LARGEST_INTEGER)]
"""Of an order, deal or position at the broker, as it arrives from outside."""
Magic = Annotated[
    int,
    PlainSerializer(str, return_type=str, when_used="json"),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string"}]}, mode="validation"),
]
"""An order's number at the broker, of up to 64 bits. Text on the wire: JSON readers whose numbers are floats keep 53
bits, and take another number for it. Read as text or as a number."""
UtcTime = Annotated[datetime, AfterValidator(in_utc), PlainSerializer(time_text, return_type=str, when_used="json")]


class Frozen(BaseModel):
    """A value that is never changed: derive a new one with ``model_copy(update=...)``. Unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")
