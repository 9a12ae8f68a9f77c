"""``python -m streamapp.mirror``: JetStream → Kafka, and nothing else."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Coroutine
from typing import Any

from streamapp import crashpoints, logs
from streamapp.errors import ConfigurationError
from streamapp.mirror.service import run
from streamapp.settings import LogSettings, load_settings

TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"


def main() -> int:
    """Run the mirror of the settings; return the exit code."""
    logs.set_up(LogSettings(), TEXT)  # until the settings are read
    logging.getLogger("aiokafka").setLevel(logging.ERROR)  # a session that fails says itself that Kafka is away
    try:
        settings = load_settings()
        logs.set_up(settings.log, TEXT)
        crashpoints.arm(settings.crash_at)
        _run(run(settings))
    except ConfigurationError as error:
        logging.getLogger(__name__).critical("%s", error)
        return 78  # sysexits' EX_CONFIG
    except OSError as error:
        logging.getLogger(__name__).critical("the mirror can't run: %s", error)
        return 1
    return 0


def _run(main: Coroutine[Any, Any, None]) -> None:
    if sys.platform == "win32":
        asyncio.run(main)
    else:
        import uvloop  # a third more messages for the same CPU

        uvloop.run(main)


if __name__ == "__main__":
    sys.exit(main())
