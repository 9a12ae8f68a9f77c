"""An orderly stop has a deadline: what is not finished by then is left as a crash leaves it, which is safe."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

logger = logging.getLogger(__name__)


@contextmanager
def within_grace(grace_s: float, unfinished: str) -> Iterator[None]:
    """End the process with exit code 0 if the block, an orderly stop, is not over after ``grace_s`` seconds.

    Args:
        grace_s: See ``stop_grace_s`` in the settings.
        unfinished: What becomes of what was not finished; it is logged.
    """
    late = threading.Timer(grace_s, _end, [grace_s, unfinished])
    late.daemon = True
    late.start()
    try:
        yield
    finally:
        late.cancel()


def _end(grace_s: float, unfinished: str) -> NoReturn:
    logger.warning("the stop was not finished after %g s, and ends here: %s", grace_s, unfinished)
    end_process(0)


def end_process(code: int) -> NoReturn:
    """End the process now, with all that it has logged and with nothing else finished."""
    for handler in logging.getLogger().handlers:
        handler.flush()
    os._exit(code)
