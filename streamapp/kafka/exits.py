"""The way out of a process that must not go on: at once, with its reason logged, and with nothing acknowledged."""

from __future__ import annotations

import logging
import os
from typing import NoReturn

logger = logging.getLogger(__name__)

SOFTWARE = 70
"""sysexits' EX_SOFTWARE. A supervisor starts the process again, and every event not acknowledged comes again."""


def leave(reason: str, *, cause: BaseException | None = None, code: int = SOFTWARE) -> NoReturn:
    """End the process now, skipping every orderly shutdown.

    An orderly shutdown waits for unfinished events and commits offsets, which is what a process that has lost its
    certainty must not do. Whatever was not acknowledged comes again, and RocksDB's log keeps what was written.
    """
    logger.critical("this process ends here: %s", reason, exc_info=cause)
    for handler in logging.getLogger().handlers:
        handler.flush()
    os._exit(code)
