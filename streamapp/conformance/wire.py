"""How calls and results travel between the suite and its worker: JSON, with tags for what JSON has not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any


@dataclass(frozen=True, slots=True)
class Special:
    """An argument that JSON can't carry: a kind of `_MAKERS` and what to make it of."""

    kind: str
    value: Any


def _numpy(name: str) -> Any:
    def make(value: Any) -> Any:
        import numpy as np  # only the calls with numpy's types need it

        return getattr(np, name)(value)

    return make


_MAKERS: dict[str, Any] = {
    "numpy.int64": _numpy("int64"),
    "numpy.int32": _numpy("int32"),
    "numpy.float32": _numpy("float32"),
    "numpy.float64": _numpy("float64"),
    "decimal": Decimal,
    "bytes": lambda text: text.encode(),
    "datetime": lambda seconds: datetime.fromtimestamp(seconds, UTC),
    "none": lambda _: None,
    "object": lambda _: object(),
}


def pack(value: Any) -> Any:
    """An argument as JSON."""
    if isinstance(value, Special):
        return {"$special": value.kind, "value": value.value}
    if isinstance(value, dict):
        return {"$dict": [[name, pack(item)] for name, item in value.items()]}
    if isinstance(value, list | tuple):
        return [pack(item) for item in value]
    return value


def unpack(value: Any) -> Any:
    """The argument that `pack` wrote."""
    if isinstance(value, list):
        return [unpack(item) for item in value]
    if isinstance(value, dict):
        if "$special" in value:
            return _MAKERS[value["$special"]](value["value"])
        return {name: unpack(item) for name, item in value["$dict"]}
    return value


def encode(value: Any) -> Any:
    """A result as JSON: structs with the names and types of their fields, arrays as their form only."""
    if isinstance(value, tuple) and hasattr(value, "n_fields"):
        names = list(getattr(type(value), "__match_args__", ()))
        return {
            "$struct": type(value).__name__,
            "names": names,
            "types": [type(item).__name__ for item in value],
            "values": [encode(item) for item in value],
        }
    if isinstance(value, tuple):
        return {"$tuple": [encode(item) for item in value]}
    if hasattr(value, "dtype"):
        return {"$array": [[name, value.dtype[name].str.lstrip("<|")] for name in value.dtype.names or ()],
                "length": len(value)}  # fmt: skip
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return {"$other": type(value).__name__}


class ShownStruct:
    """A struct of the module, as the suite sees it: fields as attributes, and how it was made."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.struct: str = told["$struct"]
        self.names: list[str] = told["names"]
        self.types: list[str] = told["types"]
        self.values: list[Any] = [decode(value) for value in told["values"]]

    def __getattr__(self, name: str) -> Any:
        """A field of the struct."""
        try:
            return self.values[self.names.index(name)]
        except ValueError:
            raise AttributeError(f"expected a field of {self.struct}: {self.names}, got {name!r}") from None


@dataclass(frozen=True, slots=True)
class Array:
    """Form of a numpy array: names and types of its columns, and how long it is."""

    columns: list[list[str]]
    length: int


def decode(told: Any) -> Any:
    """The result that `encode` wrote."""
    if not isinstance(told, dict):
        return told
    if "$struct" in told:
        return ShownStruct(told)
    if "$tuple" in told:
        return tuple(decode(item) for item in told["$tuple"])
    if "$array" in told:
        return Array(told["$array"], told["length"])
    return told
