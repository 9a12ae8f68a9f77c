"""``python -m streamapp.terminal [--account X]``: the terminals of all configured accounts, or of one."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys

from streamapp import health
from streamapp.errors import ConfigurationError
from streamapp.settings import load_settings
from streamapp.terminal.lifetime import keep_children
from streamapp.terminal.supervision import Supervisor

logger = logging.getLogger(__name__)


async def run(only: str | None, port: int | None) -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    settings = load_settings()
    if only is not None and only not in settings.accounts:
        raise ConfigurationError(f"--account: expected one of {', '.join(settings.accounts)}, got {only}")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: loop.call_soon_threadsafe(stop.set))
    supervisor = Supervisor(settings, [only] if only else list(settings.accounts))
    port = settings.ports.terminals if port is None else port
    try:
        server = await health.serve(port, supervisor.health, supervisor.metrics, host=settings.web.bind)
    except OSError as error:
        raise ConfigurationError(
            f"expected port {port} for /health, got: {error.strerror}. Stop what uses it, or give --port another"
        ) from None
    logger.info(
        "terminals of %s; health on http://%s:%s/health", ", ".join(supervisor.children), settings.web.bind, port
    )
    try:
        await supervisor.run(stop)
    finally:
        server.close()
    return 0


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m streamapp.terminal", description=__doc__)
    parser.add_argument("--account", help="just this one; default: every configured account")
    parser.add_argument(
        "--port", type=int, help="port of /health and /metrics; default: the stack's port of the terminals"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    keep_children()
    try:
        return asyncio.run(run(arguments.account, arguments.port))
    except ConfigurationError as error:
        logger.critical("%s", error)
        return 2


if __name__ == "__main__":
    sys.exit(main())
