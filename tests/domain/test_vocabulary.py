from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from streamapp.domain.vocabulary import (
    BoundedDecimal,
    Lots,
    Ticket,
    UtcTime,
    WholeNumber,
    decimal_text,
    time_text,
    visible,
)

_TIME: TypeAdapter[Any] = TypeAdapter(UtcTime)
_NUMBER: TypeAdapter[Any] = TypeAdapter(BoundedDecimal)


def test_a_number_is_never_written_with_an_exponent() -> None:
    assert decimal_text(Decimal("1E+3")) == "1000"
    assert decimal_text(Decimal("0.10")) == "0.10"


def test_a_time_is_written_in_utc_with_six_digits() -> None:
    there = datetime(2026, 11, 20, 14, 0, tzinfo=timezone(timedelta(hours=2)))
    assert time_text(there) == "2026-11-20T12:00:00.000000Z"
    assert _TIME.validate_python(there) == datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def test_a_time_without_an_offset_is_no_time() -> None:
    with pytest.raises(ValidationError, match="expected a time with an offset"):
        _TIME.validate_python("2026-11-20T12:00:00")


def test_a_time_that_is_none_in_utc_is_refused() -> None:
    with pytest.raises(ValidationError, match="expected a time that exists in UTC"):
        _TIME.validate_python("9999-12-31T23:59:59-01:00")


@pytest.mark.parametrize(
    "text", ["1e28", "9" * 28 + ".99999999999", "1e400", "NaN", "Infinity", "1_0", "\uff11", "1,0"]
)
def test_a_number_the_warehouse_could_not_keep_is_refused_at_the_edge(text: str) -> None:
    with pytest.raises(ValidationError):
        _NUMBER.validate_python(text)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("1.0947000000000002", "1.0947"),
        ("0.30000000000000004", "0.3"),
        ("0.12345678901", "0.123456789"),
        ("0.99999999999", "1"),
        ("100.00000000001", "100"),
        ("0.00000000001", "0"),
        ("-1e-400", "-0"),
    ],
)
def test_what_the_warehouse_could_not_keep_behind_the_point_is_rounded(text: str, kept: str) -> None:
    assert decimal_text(_NUMBER.validate_python(text)) == kept
    assert decimal_text(_NUMBER.validate_json(f'"{text}"')) == kept


@pytest.mark.parametrize("text", ["1e99999999", "1e-99999999", "0e99999999"])
def test_an_integer_that_would_take_minutes_to_make_is_refused_at_once(text: str) -> None:
    kinds: list[Any] = [WholeNumber, Ticket]
    for kind in kinds:
        with pytest.raises(ValidationError, match="expected a whole number of at most 28 digits"):
            TypeAdapter(kind).validate_python(Decimal(text))


def test_an_integer_may_be_written_as_a_number_without_a_rest() -> None:
    assert TypeAdapter(WholeNumber).validate_python(Decimal("7.0")) == 7


def test_a_volume_that_is_rounded_to_nothing_is_none() -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Lots).validate_python("0.00000000001")


@pytest.mark.parametrize("text", ["9" * 27 + ".9999999999", "0", "-1.5"])
def test_every_number_the_warehouse_can_keep_is_taken(text: str) -> None:
    assert str(_NUMBER.validate_python(text)) == text


def test_a_text_of_a_stranger_moves_no_cursor_and_turns_no_line() -> None:
    assert visible("EURUSD \x1b[2J\nnaïve €") == "EURUSD \\x1b[2J\\nnaïve €"
    assert visible("a\n\tb\ud800", "\n\t") == "a\n\tb\\ud800"
