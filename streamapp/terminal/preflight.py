"""What would keep a terminal from ever becoming ready, said before anything starts."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from streamapp.errors import ConfigurationError
from streamapp.parts import pip_install
from streamapp.settings import Settings, secret, settings_file

Installed = Callable[[str], bool]
DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))})
"""Names that no file can have on Windows, whatever its ending."""
PIP = pip_install("terminal")


def is_installed(package: str) -> bool:
    """Return whether a package can be imported, without importing it."""
    return importlib.util.find_spec(package) is not None


def require(
    settings: Settings, accounts: Sequence[str], *, platform: str = sys.platform, installed: Installed = is_installed
) -> None:
    """Return if the terminals of ``accounts`` can start.

    Raises:
        ConfigurationError: naming everything that is wrong, each with what to do.
    """
    if found := problems(settings, accounts, platform=platform, installed=installed):
        raise ConfigurationError("\n".join(found))


def problems(
    settings: Settings, accounts: Sequence[str], *, platform: str = sys.platform, installed: Installed = is_installed
) -> list[str]:
    """Return what is wrong, one sentence each; empty when nothing is."""
    if unknown := [name for name in accounts if name not in settings.accounts]:
        return [f"expected one of the accounts {', '.join(settings.accounts)}, got {unknown[0]}"]
    found = [] if installed("nats") else [f"expected the package nats-py, got none. Install it with: {PIP}"]
    for name in accounts:
        found += [f"account {name}: {problem}" for problem in _of_account(name, settings, platform, installed)]
    return found + _shared_programs(settings)


def _of_account(name: str, settings: Settings, platform: str, installed: Installed) -> list[str]:
    account, found = settings.accounts[name], []
    try:
        secret(account.password_file)
    except ConfigurationError as error:
        found.append(str(error))
    if account.module != "MetaTrader5":
        return found
    if platform != "win32":
        logged_in_as = (
            f'module = "MetaTrader5" works on Windows only, beside the terminal program; this is {platform}. '
            'Run this there, or under a Windows Python in Wine (docs/linux.md), or set module = "simulated"'
        )
        return [*found, logged_in_as]
    if name.casefold() in DEVICES:
        found.append("expected another name: Windows keeps this one for a device, and gives no file to its journal")
    if not installed("MetaTrader5"):
        found.append(
            f"expected the package MetaTrader5, got none. Install it with: {PIP} (64-bit Python; none for 32-bit)"
        )
    if not settings.terminal_data.is_absolute():
        found.append(
            f"expected an absolute folder for its journal, got {settings.terminal_data}: started from another folder "
            "it would begin another journal. Set data in [local], for example data = 'C:\\streamapp'"
        )
    if (problem := _program(account.terminal_path)) is not None:
        found.append(problem)
    return found


def _program(path: Path | None) -> str | None:
    if path is None:
        return (
            "expected terminal_path, got none: without it the module takes any terminal it finds, perhaps another "
            "account's. Set terminal_path = 'C:\\mt5\\...\\terminal64.exe'"
        )
    if path.is_dir():
        return f"terminal_path: expected the program, got the folder {path}. Write {path / 'terminal64.exe'}"
    if not path.is_file():
        return f"terminal_path: expected terminal64.exe, got no such file: {path}. Mend the path, or install it there"
    if not path.is_absolute():  # the terminal tells its own folder, which this is compared with
        return f"terminal_path: expected a whole path, got {path}. Write {path.absolute()}"
    return None


def _shared_programs(settings: Settings) -> list[str]:
    seen: dict[str, str] = {}
    found = []
    for name, account in settings.accounts.items():
        if account.module == "MetaTrader5" and account.terminal_path is not None:
            key = str(account.terminal_path).replace("\\", "/").casefold()
            if key in seen:
                found.append(
                    f"accounts {seen[key]} and {name}: expected a terminal program of its own for each, got one: "
                    f"{account.terminal_path}. A terminal is logged in to one account; copy its folder for the other"
                )
            seen.setdefault(key, name)
    return found


def greeting(settings: Settings, accounts: Sequence[str], *, wine: str | None = None) -> list[str]:
    """Return what a person wants to know at the start: where everything is, and what ``wine`` has us take on trust."""
    file = settings_file()
    lines = [f"settings {file}" if file.is_file() else f"no settings file {file}: these are the built-in settings"]
    lines.append(f"NATS {settings.nats_url}")
    if any(settings.accounts[name].module == "simulated" for name in accounts):
        lines.append(f"simulated market {settings.market_address}")
    lines.append(f"journals {settings.terminal_data.absolute()}")
    if wine is not None:
        lines.append(
            f"Wine {wine}: not checked are Windows' own promises, that a worker ends with its parent, that a lock is "
            "exclusive, and that a flush reaches the disk; see docs/linux.md"
        )
    return lines
