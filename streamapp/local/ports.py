"""Free and taken ports, in words a person can act on."""

from __future__ import annotations

import errno
import os
import random
import socket
import tempfile
from functools import cache, partial
from pathlib import Path

from streamapp.errors import ConfigurationError

LOOPBACK = "127.0.0.1"
EPHEMERAL = 32_768
"""Linux gives ports from here on to outgoing connections (``ip_local_port_range``): a free one may be gone at once."""
_claimed: set[int] = set()


def free_port() -> int:
    """Return a port of the loopback interface that is claimed now, and that no connection takes by chance."""
    return next(filter(claim, iter(partial(random.randrange, 20_000, EPHEMERAL), None)))


def claim(port: int) -> bool:
    """Return whether the port is ours from now until this process ends.

    No other claim of this user's processes gets it, even before a server listens on it or while that is restarted.
    """
    if port in _claimed or not is_free(port) or not _lock(port):
        return False
    _claimed.add(port)
    return True


def _lock(port: int) -> bool:
    import fcntl  # not on Windows, where nobody claims a port

    try:
        fcntl.lockf(_claims(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except (BlockingIOError, PermissionError):  # POSIX lets a system say either of a lock that another process holds
        return False
    return True


@cache
def _claims() -> int:
    """Return the file whose byte N is locked by the process that claims port N.

    It stays open: a process that closed it would lose all of its locks.
    """
    path = Path(tempfile.gettempdir()) / f"streamapp-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)


def is_free(port: int) -> bool:
    """Return whether a server could listen on the port now."""
    with socket.socket() as probe:
        # As servers do: connections that linger after a stop must not count as somebody listening.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
        return True


def listener(port: int) -> str:
    """Return who listens on the port, as far as this user may see it: ``java (pid 4711)``."""
    import psutil

    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:  # macOS shows other processes' sockets to root only
        connections = []
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr[1:2] == (port,) and connection.pid:
            return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return "a process this user may not see"


def require_free(port: int, name: str) -> None:
    """Return if the port is free.

    Raises:
        ConfigurationError: naming the port, what it is for and who has it.
    """
    if not is_free(port):
        raise _taken(port, name, listener(port))


def require_claim(port: int, name: str) -> None:
    """Return if the port is free and claimed by this process, now or since earlier.

    Raises:
        ConfigurationError: as of :func:`require_free`, and where another process has claimed it.
    """
    require_free(port, name)
    if port not in _claimed and not claim(port):
        raise _taken(port, name, "another stack that is starting")


def _taken(port: int, name: str, who: str) -> ConfigurationError:
    return ConfigurationError(
        f"expected port {port} free for {name}, got it used by {who}: stop that, or move all our ports with "
        "STREAMAPP_LOCAL__PORT_OFFSET=1000"
    )
