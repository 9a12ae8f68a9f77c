"""The words and scalar types that every module uses, as on the wire (design: messages)."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Context, Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

Side = Literal["buy", "sell"]
OrderType = Literal["market", "limit", "stop", "stop_limit"]
TimeInForce = Literal["gtc", "day", "until"]
FillPolicy = Literal["any", "fok", "ioc", "return"]
Status = Literal["pending", "submitted", "partially_filled", "filled", "cancelled", "rejected", "failed"]
FINAL_STATUSES: frozenset[str] = frozenset({"filled", "cancelled", "rejected", "failed"})
Intent = Literal["open", "close", "reduce", "reverse", "modify"]
Decision = Literal["accepted", "refused", "duplicate", "conflict"]
DealEntry = Literal["in", "out", "inout", "out_by"]
ONLY_CLOSING: frozenset[DealEntry] = frozenset({"out", "out_by"})
"""The entries of deals that open nothing."""
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
MarginMode = Literal["hedging", "netting"]
"""hedging: a symbol may have many positions. netting: one, also on an exchange."""
ExpectedPriceSource = Literal["signal", "arrival_mid"]


LARGEST_INTEGER = 2**63 - 1
"""What SQLite, Kafka and MetaTrader keep an integer in; pydantic alone takes any length."""


def decimal_text(value: Decimal) -> str:
    """Return ``value`` in plain notation, never with an exponent, its trailing zeros kept."""
    return format(value, "f")


def time_text(value: datetime) -> str:
    """Return a UTC time as RFC 3339 with exactly six digits of a second and ``Z``."""
    # Not strftime: its %Y writes the year 1 without zeros, which nobody can read back.
    text = (value if value.tzinfo is UTC else value.astimezone(UTC)).isoformat(timespec="microseconds")
    return text.removesuffix("+00:00") + "Z"


def in_utc(value: datetime) -> datetime:
    """Return the same moment in UTC; raises ValueError for one without an offset, or beyond what UTC can say."""
    if value.tzinfo is None:
        raise ValueError(f"expected a time with an offset, got {value.isoformat()}")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"expected a time that exists in UTC, got {value.isoformat()}") from None


def bounded(value: Decimal) -> Decimal:
    """Return ``value`` as ClickHouse keeps it, in a Decimal(38, 10): more than 10 digits behind the point are rounded.

    They are a float's noise, as in 1.0947000000000002, and no reason to refuse an order or to lose a fill.

    Raises:
        ValueError: It has more than 28 digits before the point, or is not finite.
    """
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -_PLACES and value.adjusted() < _DIGITS:
        value = value.quantize(_LAST_DIGIT, context=_WIDE).normalize(_WIDE)
    if not value.is_finite() or value.adjusted() >= _DIGITS:
        raise ValueError(f"expected at most {_DIGITS} digits before the point, got {value!s:.40}")
    return value


def plain_digits(value: Any) -> Any:
    """Return a number's text, or whatever it is, as it came.

    Raises:
        ValueError: It is grouped (1_000) or has digits of other scripts: Python would read them, others not.
    """
    if isinstance(value, str) and ("_" in value or not value.isascii()):
        raise ValueError(f"expected digits without separators, got {value!r:.40}")
    return value


def visible(text: str, but: str = "") -> str:
    """Return a text of a stranger's with what can't be seen escaped: nothing in it moves a cursor or turns a line."""
    return "".join(
        each if each.isprintable() or each in but else each.encode("unicode_escape").decode() for each in text
    )


def whole_digits(value: Any) -> Any:
    """Return what :func:`plain_digits` does, of a number that is to become an integer.

    Raises:
        ValueError: As there; or it is too large, or too small: 1e99999999 as an integer takes minutes to make.
    """
    if isinstance(value, Decimal) and value.is_finite() and abs(value.adjusted()) >= _DIGITS:
        raise ValueError(f"expected a whole number of at most {_DIGITS} digits, got {value!s:.40}")
    return plain_digits(value)


_DIGITS, _PLACES = 28, 10
_LAST_DIGIT, _WIDE = Decimal(1).scaleb(-_PLACES), Context(prec=_DIGITS + _PLACES + 1)


Money = Annotated[Decimal, Field(allow_inf_nan=False), PlainSerializer(decimal_text, return_type=str)]
"""A finite decimal amount, price or volume; a string on the wire."""
BoundedDecimal = Annotated[Money, BeforeValidator(plain_digits), AfterValidator(bounded)]
"""A decimal that fits the warehouse; for everything that arrives from outside."""
Lots = Annotated[BoundedDecimal, Field(gt=0)]
WholeNumber = Annotated[int, BeforeValidator(whole_digits)]
Ticket = Annotated[int, Field(gt=0, le=LARGEST_INTEGER), BeforeValidator(whole_digits)]
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
