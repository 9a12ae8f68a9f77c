"""Connecting, logging in, and what the terminal says of itself and its account."""

# ruff: noqa: D402
import os
from typing import Any

from streamapp.mt5.constants import RES_E_INTERNAL_FAIL_INIT
from streamapp.mt5.retcodes import LAST_ERRORS
from streamapp.simulator import arguments
from streamapp.simulator.arguments import INVALID, NOT_UNNAMED, BadArgument
from streamapp.simulator.functions.calls import api, ask, note, one, pipe
from streamapp.simulator.rpc import ADDRESS_VARIABLE, DEFAULT_ADDRESS, split_address
from streamapp.simulator.structs import Struct


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
    """Connects to the market and logs in: initialize([path], login=, password=, server=, timeout=, portable=)."""
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
    """Changes the account: login(login, [password], [server], [timeout]). A failure keeps the connection."""
    names = ("login", "password", "server", "timeout")
    if len(args) > len(names):
        raise BadArgument(INVALID)
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    if "login" not in given:
        raise BadArgument(INVALID)
    return ask("login", *_credentials(given)) is not None


@api(True)
def shutdown() -> bool:
    """Disconnects."""
    pipe.close()
    return True


@api(None)
def version() -> tuple[int, int, str]:
    """(500, build, date) of the terminal, (0, 0, "") without a connection."""
    told = ask("version")
    return (told[0], told[1], told[2]) if told else (0, 0, "")


@api(None)
def terminal_info() -> Struct | None:
    """State of the terminal."""
    return one("TerminalInfo", ask("terminal_info"))


@api(None)
def account_info() -> Struct | None:
    """State of the account."""
    return one("AccountInfo", ask("account_info"))
