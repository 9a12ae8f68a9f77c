"""The way out of a process that must not go on: at once, with its reason logged, and with nothing acknowledged."""

from __future__ import annotations

import logging
from typing import NoReturn

from streamapp.errors import ConfigurationError
from streamapp.processes.stopping import end_process

logger = logging.getLogger(__name__)

SOFTWARE = 70
"""sysexits' EX_SOFTWARE. A supervisor starts the process again, and every event not acknowledged is redelivered."""

STOPPED = 0
"""A stop that was asked for, and could not be finished in an orderly way."""

CONFIGURATION = 78
"""sysexits' EX_CONFIG. Starting again helps nobody before a person has changed something."""


def abort(reason: str, *, cause: BaseException | None = None, code: int = SOFTWARE) -> NoReturn:
    """End the process now, skipping every orderly shutdown.

    An orderly shutdown waits for unfinished events and commits offsets, which is what a process that has lost its
    certainty must not do. Whatever was not acknowledged is redelivered, and RocksDB's log keeps what was written.
    """
    logger.critical("this process ends here: %s", reason, exc_info=cause)
    end_process(code)


def end_worker(error: BaseException) -> NoReturn:
    """End the process because of ``error``; nothing unfinished is acknowledged, so all of it is redelivered."""
    if isinstance(error, ConfigurationError):  # a person must mend it, and a new start would find it again
        abort(str(error), code=CONFIGURATION)
    abort("work that was begun could not be finished", cause=error)
