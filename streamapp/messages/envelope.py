"""What all our messages share: reading bytes safely and writing them in one way."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Self

from pydantic import ConfigDict, ValidationError

from streamapp.domain.vocabulary import Frozen
from streamapp.errors import Unusable


class Message(Frozen):
    """A message with a schema name; ``encode`` and ``decode`` are each other's inverse."""

    # ``schema`` is a method of pydantic's, so the field is ``schema_`` and the wire name its alias.
    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True, validate_by_alias=True)

    def encode(self) -> bytes:
        """Return the message as UTF-8 JSON."""
        return self.model_dump_json().encode()

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the message in ``payload``.

        Raises:
            Unusable: reason ``not_json`` or ``invalid``, naming the first wrong field; never the whole payload.
        """
        try:
            return cls.model_validate_json(payload)
        except ValidationError as error:
            raise Unusable(*reason_and_detail(error)) from None


def encode_around(head: Message, field: str, parts: Sequence[bytes]) -> bytes:
    """Return a message with one more field, an array of what is encoded already, without reading it."""
    return head.encode().removesuffix(b"}") + b',"' + field.encode() + b'":[' + b",".join(parts) + b"]}"


def reason_and_detail(error: ValidationError) -> tuple[str, str]:
    """Return the reason word and a short text for a validation error: the place and what was expected, no input."""
    first = error.errors(include_input=False, include_url=False)[0]
    text, place = first["msg"].removeprefix("Value error, "), ".".join(str(part) for part in first["loc"])
    if not place and first["type"] != "value_error":  # a rule of ours names the fields itself
        place = "message"
    return ("not_json" if first["type"] == "json_invalid" else "invalid"), f"{place}: {text}".removeprefix(": ")[:500]


class KeyGivenTwice:
    """Stands in a JSON object for the values of a key that is given more than once: nobody knows which one holds."""

    def __str__(self) -> str:
        return "given more than once"


REPEATED = KeyGivenTwice()


def json_object(payload: bytes, *, parse_float: Callable[[str], Any] = Decimal) -> dict[str, Any]:
    """Return the JSON object in ``payload``, its fractions as exact Decimals, or what ``parse_float`` makes of them.

    A key that is given more than once has the value ``REPEATED``. A byte order mark, as Windows writes it, is skipped.

    Raises:
        Unusable: reason ``not_json`` or ``not_an_object``.
    """
    try:
        value = json.loads(
            payload.decode("utf-8-sig"),
            parse_float=parse_float,
            parse_constant=_refuse_constant,
            object_pairs_hook=_object,
        )
        if b"\\ud" in payload or b"\\uD" in payload:
            json.dumps(
                value, ensure_ascii=False, default=str
            ).encode()  # half a surrogate pair parses, and can never be written again
    except (ValueError, RecursionError, ArithmeticError) as error:
        raise Unusable("not_json", f"expected JSON, got {type(error).__name__}: {error}"[:200]) from None
    if not isinstance(value, dict):
        raise Unusable("not_an_object", f"expected a JSON object, got {type(value).__name__}")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        content |= {key: REPEATED for key, count in counts.items() if count > 1}
    return content


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")
