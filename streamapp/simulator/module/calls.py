"""How a call is made: one connection a process, its last error; and the functions that connect and log in."""

# ruff: noqa: D402

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

from streamapp.mt5.constants import RES_E_INTERNAL_FAIL_INIT, RES_E_INVALID_PARAMS, RES_S_OK
from streamapp.mt5.retcodes import LAST_ERRORS
from streamapp.simulator.module import arguments
from streamapp.simulator.module.arguments import INVALID, NOT_UNNAMED, BadArgument
from streamapp.simulator.module.client import Answer, Pipe
from streamapp.simulator.module.structs import Struct, struct
from streamapp.simulator.wire import ADDRESS_VARIABLE, DEFAULT_ADDRESS, split_address

pipe = Pipe()
_last_error: tuple[int, str] = (RES_S_OK, "Success")


def api(refused: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a function of the module: it resets last_error, and gives ``refused`` for arguments that it refuses."""

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
    """Set last_error."""
    global _last_error  # noqa: PLW0603  # one a process, as in the original
    _last_error = (code, text)


def ask(method: str, *values: Any) -> Any:
    """Return the result of a call to the market, None where it failed, with last_error set either way."""
    answer: Answer = pipe.call(method, *values)
    note(answer[0], answer[1])
    return answer[2] if answer[0] == RES_S_OK else None


def one(name: str, values: Any) -> Struct | None:
    """Return a struct, None for none."""
    return None if values is None else struct(name, values)


def many(name: str, rows: Any) -> tuple[Struct, ...] | None:
    """Return structs, None for none."""
    return None if rows is None else tuple(struct(name, row) for row in rows)


def last_error() -> tuple[int, str]:
    """Return code and words of the latest call's outcome; the only function that leaves it alone."""
    return _last_error


def _credentials(given: dict[str, Any]) -> tuple[int, str, str]:
    login_number = arguments.keyword("login", given.get("login", 0), int)
    password = arguments.keyword("password", given.get("password", ""), str)
    server = arguments.keyword("server", given.get("server", ""), str)
    arguments.keyword("timeout", given.get("timeout", 0), int)
    for name, text in (("password", password), ("server", server)):
        if arguments.utf16_units(text) >= 255:
            raise arguments.field_error(name)
    return login_number, password, server


@api(False)
def initialize(*args: Any, **kwargs: Any) -> bool:
    """Connect to the market and logs in: initialize([path], login=, password=, server=, timeout=, portable=)."""
    if len(args) > 1:
        raise BadArgument(NOT_UNNAMED)
    path = arguments.keyword("path", args[0] if args else kwargs.get("path", ""), str)
    credentials = _credentials(kwargs)
    try:
        pipe.open(*split_address(os.environ.get(ADDRESS_VARIABLE, DEFAULT_ADDRESS)))
    except OSError as error:
        pipe.close()
        note(RES_E_INTERNAL_FAIL_INIT, f"{LAST_ERRORS[RES_E_INTERNAL_FAIL_INIT].sentence}, {error}")
        return False
    if ask("initialize", path, *credentials) is None:
        pipe.close()
        return False
    return True


@api(False)
def login(*args: Any, **kwargs: Any) -> bool:
    """Change the account: login(login, [password], [server], [timeout]). A failure keeps the connection."""
    names = ("login", "password", "server", "timeout")
    if len(args) > len(names):
        raise BadArgument(INVALID)
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    if "login" not in given:
        raise BadArgument(INVALID)
    return ask("login", *_credentials(given)) is not None


@api(True)
def shutdown() -> bool:
    """Disconnect."""
    pipe.close()
    return True


@api(None)
def version() -> tuple[int, int, str]:
    """(500, build, date) of the terminal, (0, 0, "") without a connection."""
    told = ask("version")
    return (told[0], told[1], told[2]) if told else (0, 0, "")


@api(None)
def terminal_info() -> Struct | None:
    """Return state of the terminal."""
    return one("TerminalInfo", ask("terminal_info"))


@api(None)
def account_info() -> Struct | None:
    """Return state of the account."""
    return one("AccountInfo", ask("account_info"))
