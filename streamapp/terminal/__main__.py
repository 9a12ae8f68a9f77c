"""``python -m streamapp.terminal``: the terminals of all configured MT5 accounts, or of one."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from streamapp import health, logs
from streamapp.errors import ConfigurationError
from streamapp.processes.guard import keep_children
from streamapp.processes.win32 import wine_version
from streamapp.settings import Settings, load_settings
from streamapp.terminal import preflight
from streamapp.terminal.logfile import LogFile
from streamapp.terminal.parent import Output, TerminalSupervisor

if sys.platform == "win32":
    from streamapp.processes import win32

logger = logging.getLogger(__name__)

EPILOG = """\
Each account has one terminal, with one journal. Stop it with Ctrl-C: the order in its hands is finished first. Ending
it in any other way is safe as well; an order that was being sent is looked for at the broker at the next start.

http://127.0.0.1:6073/health says how every account is and what to do. Exit code 0: a stop that was asked for; 1: a
check that found something; 2: something must be mended first, and the last line says what.
"""
DEFAULT_LOG = "terminals.log"


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    line = argparse.ArgumentParser(
        prog="python -m streamapp.terminal",
        description="Run the terminals of all configured MT5 accounts, or of one.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    line.add_argument("--account", metavar="NAME", help="just this one; default: every configured account")
    line.add_argument("--port", type=int, help="port of /health and /metrics; default: 6073 + local.port_offset")
    line.add_argument("--log-file", type=Path, metavar="FILE", help="log here, turned over; default: standard error")
    line.add_argument("--check", action="store_true", help="only say whether everything is there and can be reached")
    return line


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and run; return the exit code."""
    options = parser().parse_args(arguments)
    try:
        settings = load_settings()
        output = _output(options.log_file, settings)
        return asyncio.run(_run(options, settings, output))
    except ConfigurationError as error:
        logger.critical("%s", error)
        return 2


def _output(log_file: Path | None, settings: Settings) -> Output:
    """Return where logs go, and send ours there: the file, or standard error where there is one."""
    if log_file is None and sys.stderr is None:  # pythonw.exe, or a service
        log_file = settings.terminal_data / DEFAULT_LOG
    try:
        output: Output = LogFile(log_file) if log_file else sys.stderr
    except OSError as error:
        raise ConfigurationError(f"--log-file {log_file}: {error.strerror}. Name a file that can be written") from None
    logs.set_up(settings.log, "%(asctime)s %(levelname)s %(message)s", handler=logging.StreamHandler(output))
    return output


async def _run(options: argparse.Namespace, settings: Settings, output: Output) -> int:
    accounts = [options.account] if options.account else list(settings.accounts)
    preflight.require(settings, accounts)
    keep_children()
    if options.check:
        from streamapp.terminal.check import check

        return await check(settings, accounts)
    for line in preflight.greeting(settings, accounts, wine=wine_version()):
        logger.info("%s", line)
    port = settings.ports.terminals if options.port is None else options.port
    return await serve(TerminalSupervisor(settings, accounts, output), port, settings.web.bind)


async def serve(supervisor: TerminalSupervisor, port: int, bind: str) -> int:
    """Run until somebody stops us; return the exit code.

    Raises:
        ConfigurationError: the port is not free.
    """
    stop = asyncio.Event()
    stopped = listen_for_stop(asyncio.get_running_loop(), stop)
    try:
        server = await health.serve(port, supervisor.health, supervisor.metrics, host=bind, ready=supervisor.ready)
    except OSError as error:
        raise ConfigurationError(
            f"expected port {port} for /health, got: {error.strerror}. Do the terminals run already? Stop what uses "
            "it, or give --port another"
        ) from None
    logger.info("terminals of %s; how they are: http://%s:%s/health", ", ".join(supervisor.children), bind, port)
    try:
        await supervisor.run(stop)
    finally:
        server.close()
        logger.info("stopped")
        stopped.set()
    return 0


def listen_for_stop(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> threading.Event:
    """Set ``stop`` at SIGTERM, Ctrl-C and, on Windows, the console's other ends; set the returned event when done."""
    tell = _tell(loop, stop)
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: tell())
    if sys.platform == "win32":
        stopped = win32.stop_with_console(win32.Kernel32(), tell)
    else:
        stopped = threading.Event()
    return stopped


def _tell(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> Callable[[], None]:
    def tell() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: we are at our end already
            loop.call_soon_threadsafe(stop.set)

    return tell


if __name__ == "__main__":
    sys.exit(main())
