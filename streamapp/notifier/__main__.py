"""``python -m streamapp.notifier``: Kafka → persons, and nothing else."""

from __future__ import annotations

import asyncio
import logging
import sys

from streamapp import logs
from streamapp.errors import ConfigurationError
from streamapp.parts import missing_part
from streamapp.settings import LogSettings, load_settings

TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"


def main() -> int:
    """Run the notifier of the settings; return the exit code."""
    logs.set_up(LogSettings(), TEXT)  # until the settings are read
    logging.getLogger("aiokafka").setLevel(logging.ERROR)  # it says itself that Kafka is away
    try:
        settings = load_settings()
        logs.set_up(settings.log, TEXT)
        from streamapp.notifier.service import run

        asyncio.run(run(settings))
    except ModuleNotFoundError as error:
        logging.getLogger(__name__).critical("%s", missing_part(error))
        return 78
    except ConfigurationError as error:
        logging.getLogger(__name__).critical("%s", error)
        return 78  # sysexits' EX_CONFIG
    except OSError as error:
        logging.getLogger(__name__).critical("the notifier can't run: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
