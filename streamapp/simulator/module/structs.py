"""The struct types of the module: tuples with named fields, made like the original's, and as unfriendly.

They have ``_asdict``, ``n_fields``, ``n_sequence_fields``, ``n_unnamed_fields`` and ``__match_args__``, but not the
``_fields``, ``_replace`` and ``_make`` of a named tuple, and they can't be pickled.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter
from typing import Any, NoReturn, Self

from streamapp.simulator.wire import FIELDS


class Struct(tuple[Any, ...]):
    """What all struct types share."""

    __slots__ = ()
    n_fields: int
    n_sequence_fields: int
    n_unnamed_fields = 0
    __match_args__: tuple[str, ...] = ()

    def __new__(cls, sequence: Iterable[Any]) -> Self:
        """Takes exactly as many values as there are fields."""
        values = tuple(sequence)
        if len(values) != cls.n_fields:
            raise TypeError(f"{cls.__name__}() takes a {cls.n_fields}-sequence ({len(values)}-sequence given)")
        return tuple.__new__(cls, values)

    def __repr__(self) -> str:
        """Name and fields, as the original prints them."""
        inside = ", ".join(f"{name}={value!r}" for name, value in zip(self.__match_args__, self, strict=True))
        return f"{type(self).__name__}({inside})"

    def __reduce__(self) -> NoReturn:
        """The original's types are not importable by their name, so pickle refuses them."""
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """As ``__reduce__``."""
        self.__reduce__()

    def _asdict(self) -> dict[str, Any]:
        """The fields by name; a nested request stays a struct."""
        return dict(zip(self.__match_args__, self, strict=True))


def _type(name: str) -> type[Struct]:
    names = tuple(field for field, _ in FIELDS[name])
    body: dict[str, Any] = {field: property(itemgetter(index)) for index, field in enumerate(names)}
    body.update(
        __slots__=(), __match_args__=names, n_fields=len(names), n_sequence_fields=len(names),
        __doc__=f"{name} of MetaTrader 5.", __module__="builtins",
    )  # fmt: skip
    return type(name, (Struct,), body)


STRUCTS: dict[str, Any] = {name: _type(name) for name in FIELDS}


def struct(name: str, values: Iterable[Any]) -> Struct:
    """Return a struct from values that are known to be as many as its fields."""
    made: Struct = tuple.__new__(STRUCTS[name], values)
    return made
