"""How every process of ours logs: as text, or as one JSON object a line (``log.format``), on standard error.

In JSON a line names what it is about: ``account``, ``order_id``, ``signal_id`` and ``trace_id``, where it is about one.
They come from :func:`about`, which lanes and terminals put around their work, and from how our sentences begin:
``order %s`` and ``account %s``. Without JSON none of this costs anything, and structlog is not imported.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import MutableMapping
from contextlib import AbstractContextManager
from typing import Any, cast

from streamapp.parts import missing_part
from streamapp.settings import LogSettings

BEGINNING = re.compile(r"(order|account) ([^\s:,]+)")
_NOTHING = contextlib.nullcontext()
_is_json = False


def set_up(log: LogSettings, text: str, *, handler: logging.Handler | None = None, **always: str) -> None:
    """Let this process log.

    Args:
        log: The settings.
        text: The format of a line of text, as :mod:`logging` has it.
        handler: Where to; standard error by default.
        **always: What each line of JSON says.

    Raises:
        ConfigurationError: JSON is asked for, and structlog is not installed.
    """
    handler = handler or logging.StreamHandler(sys.stderr)
    handler.setFormatter(json_lines(**always) if log.format == "json" else logging.Formatter(text))
    logging.basicConfig(level=(log.level or "info").upper(), handlers=[handler], force=True)


def faust_logging(log: LogSettings) -> dict[str, Any] | None:
    """Return what Faust sets its worker's logging up with; None: as its own command line says.

    Raises:
        ConfigurationError: as :func:`set_up`.
    """
    if log.format == "text":
        if log.level is None:
            return None
        level = log.level.upper()
        handler = {"level": level, "class": "colorlog.StreamHandler", "formatter": "colored"}
        return {"merge": True, "handlers": {"default": handler}, "root": {"level": level}}
    formatter = json_lines()
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": lambda: formatter}},
        "handlers": {"default": {"class": "logging.StreamHandler", "formatter": "json"}},
        "root": {"level": (log.level or "info").upper(), "handlers": ["default"]},
    }


def about(*, trace: str | None = None, **names: str | None) -> AbstractContextManager[Any]:
    """Name what is logged within is about: account, order_id, signal_id; ``trace`` is a traceparent."""
    if not _is_json:
        return _NOTHING
    import structlog

    known = {name: value for name, value in names.items() if value}
    if trace and trace.count("-") == 3:
        known["trace_id"] = trace.split("-")[1]
    bound: AbstractContextManager[Any] = structlog.contextvars.bound_contextvars(**known)
    return bound


def is_json() -> bool:
    """Return whether this process logs JSON: names that cost something to find out need not be found out otherwise."""
    return _is_json


def json_lines(**always: str) -> logging.Formatter:
    """Return a formatter that makes each record a JSON object of one line, and let :func:`about` name things.

    Raises:
        ConfigurationError: structlog is not installed.
    """
    global _is_json  # noqa: PLW0603  one process logs in one way
    try:
        import structlog
    except ModuleNotFoundError as error:
        raise missing_part(error) from None

    def of_ours(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if (said := BEGINNING.match(event["event"])) and str(event["_record"].msg).startswith(f"{said[1]} %s"):
            event["order_id" if said[1] == "order" else "account"] = said[2]
        return {**always, **event}

    _is_json = True
    return cast(
        "logging.Formatter",
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.contextvars.merge_contextvars,
                of_ours,
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", key="at"),
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,  # without the frames' variables, which may be secret
                structlog.processors.EventRenamer("message"),
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
        ),
    )
