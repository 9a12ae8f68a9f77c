"""What all functions share: one connection a process, its last error, and how a call is made."""

import functools
from collections.abc import Callable
from typing import Any

from streamapp.mt5.constants import RES_E_INVALID_PARAMS, RES_S_OK
from streamapp.simulator.arguments import BadArgument
from streamapp.simulator.client import Answer, Pipe
from streamapp.simulator.structs import Struct, struct

pipe = Pipe()
_last_error: tuple[int, str] = (RES_S_OK, "Success")


def api(refused: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Makes a function of the module: it resets last_error, and gives `refused` for arguments that it refuses."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            note(RES_S_OK, "Success")
            try:
                return function(*args, **kwargs)
            except BadArgument as bad:
                note(RES_E_INVALID_PARAMS, str(bad))
                return refused

        return call

    return decorate


def note(code: int, text: str) -> None:
    """Sets last_error."""
    global _last_error  # noqa: PLW0603  # one a process, as in the original
    _last_error = (code, text)


def ask(method: str, *values: Any) -> Any:
    """The result of a call to the market, None where it failed, with last_error set either way."""
    answer: Answer = pipe.call(method, *values)
    note(answer[0], answer[1])
    return answer[2] if answer[0] == RES_S_OK else None


def one(name: str, values: Any) -> Struct | None:
    """A struct, None for none."""
    return None if values is None else struct(name, values)


def many(name: str, rows: Any) -> tuple[Struct, ...] | None:
    """Structs, None for none."""
    return None if rows is None else tuple(struct(name, row) for row in rows)


def last_error() -> tuple[int, str]:
    """Code and words of the latest call's outcome; the only function that leaves it alone."""
    return _last_error
