"""Is a server ready? Each probe answers at once, true or false, and never raises."""

from __future__ import annotations

import http.client
import socket
import struct
from collections.abc import Callable

from streamapp.local.ports import LOOPBACK

Probe = Callable[[], bool]

# A probe that hangs would hide that the process has died meanwhile.
PROBE_TIMEOUT_S = 1.0

_API_VERSIONS = 18
_NO_CLIENT_ID = -1


def http_answers(port: int, path: str) -> Probe:
    """Return a probe that is true when GET ``path`` answers 200."""

    def probe() -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, port, timeout=PROBE_TIMEOUT_S)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    return probe


def kafka_answers(port: int) -> Probe:
    """Return a probe that is true when the broker answers a request: its port opens before it serves."""
    body = struct.pack(">hhih", _API_VERSIONS, 0, 1, _NO_CLIENT_ID)
    request = struct.pack(">i", len(body)) + body

    def probe() -> bool:
        try:
            with socket.create_connection((LOOPBACK, port), timeout=PROBE_TIMEOUT_S) as connection:
                connection.sendall(request)
                return len(connection.recv(4)) == 4
        except OSError:
            return False

    return probe
