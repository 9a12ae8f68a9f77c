"""Children that are asked and answer over pipes: how they are started, and what a child does with its end."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from typing import BinaryIO

if sys.platform == "win32":
    from streamapp.processes import win32

NO_WINDOW = 0x08000000 if sys.platform == "win32" else 0
"""CREATE_NO_WINDOW: a console of its own that nobody sees."""


async def spawn(
    module: str, *arguments: str, environment: Mapping[str, str], stderr: int | None = None
) -> asyncio.subprocess.Process:
    """Start a module's ``main`` as a child with pipes for standard input and output.

    Guarantees:
        ``pid`` is the interpreter's own, and ending it ends it: not a launcher's. A console's Ctrl-C, Ctrl-Break and
        end reach the parent alone on Windows; it has no window there. Everything it prints is UTF-8.
    """
    executable, needed = interpreter()
    return await asyncio.create_subprocess_exec(
        executable,
        *launched(module),
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
        env={**environment, **needed, "PYTHONUTF8": "1"},
        creationflags=NO_WINDOW,
    )


def launched(module: str) -> tuple[str, ...]:
    """Return what starts a module's ``main``, behind the interpreter (:mod:`streamapp.processes.launcher`)."""
    return ("-m", "streamapp.processes.launcher", module)


def private_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Return our standard input and output as files of our own; what anybody prints goes to standard error from now on.

    On Windows nothing that we start keeps a pipe of ours open, such as the terminal program that `initialize` starts,
    and a crash ends us at once, without a dialog.
    """
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    if sys.platform == "win32":
        for standard in (0, 1, 2):
            os.set_inheritable(standard, False)
        win32.Kernel32().set_error_mode(win32.QUIET_CRASH)
    return requests, answers


def interpreter() -> tuple[str, dict[str, str]]:
    """Return the interpreter to start as a child, and what it needs in its environment.

    python.exe of a virtual environment on Windows is a launcher, and the interpreter is its child: a worker would be
    ended a moment after its launcher. So the interpreter is started itself and told its environment, as
    multiprocessing does.
    """
    base = getattr(sys, "_base_executable", sys.executable)
    if sys.platform == "win32" and base != sys.executable:
        return base, {"__PYVENV_LAUNCHER__": sys.executable}
    return sys.executable, {}
