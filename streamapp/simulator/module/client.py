"""The module's connection to the market: one blocking socket, no timeout, and the errors of the original's pipe."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

from streamapp.mt5 import constants as mt5
from streamapp.mt5.retcodes import LAST_ERRORS
from streamapp.simulator.wire import COMMANDS, EXIT_CODE, HEAD, MAGIC, request_frame

Answer = tuple[int, str, Any]
"""A code of last_error(), its words, and the result."""

# What a process ends with that the fault ``crash_client`` struck.
EXIT_STATUS = 70

Receive = Callable[[int], bytes]


def _failed(code: int) -> Answer:
    return code, LAST_ERRORS[code].sentence, None


def holding_recv(handle: int) -> Receive:
    """Return a recv that keeps the GIL, as the original does: no other thread of the process runs meanwhile."""
    library = ctypes.PyDLL("ws2_32" if sys.platform == "win32" else None, use_errno=True)
    function = library.recv
    function.restype = ctypes.c_int if sys.platform == "win32" else ctypes.c_ssize_t
    size = ctypes.c_int if sys.platform == "win32" else ctypes.c_size_t
    function.argtypes = (
        ctypes.c_size_t if sys.platform == "win32" else ctypes.c_int,
        ctypes.c_void_p,
        size,
        ctypes.c_int,
    )
    buffer = ctypes.create_string_buffer(65_536)

    def receive(wanted: int) -> bytes:
        while True:
            got = function(handle, buffer, min(wanted, len(buffer)), 0)
            if got >= 0:
                return buffer.raw[:got] if got > 4096 else ctypes.string_at(buffer, got)
            if sys.platform == "win32" or ctypes.get_errno() != errno.EINTR:
                raise ConnectionResetError(ctypes.get_errno(), "recv failed")

    return receive


class Pipe:
    """A connection to the market, or none."""

    def __init__(self) -> None:
        """Not connected."""
        self._socket: socket.socket | None = None
        self._receive: Receive | None = None
        self._buffer = bytearray()

    def open(self, host: str, port: int) -> None:
        """Connect and learns how to wait for replies.

        Raises:
            OSError: nobody listens there.
        """
        self.close()
        connection = self._socket = socket.create_connection((host, port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(MAGIC)
        self._receive = connection.recv
        code, text, told = self.call("hello")
        if code != mt5.RES_S_OK:
            raise ConnectionError(f"expected a simulated market at {host}:{port}, got {text}")
        if told["hold_gil"]:
            self._receive = holding_recv(connection.fileno())

    def close(self) -> None:
        """Disconnect."""
        if self._socket is not None:
            self._socket.close()
        self._socket, self._receive = None, None
        self._buffer.clear()

    def call(self, method: str, *arguments: Any) -> Answer:
        """Do one call, for as long as it takes. A broken connection closes it, and is told apart by its half."""
        if self._socket is None:
            return _failed(mt5.RES_E_INTERNAL_FAIL_CONNECT)
        try:
            self._socket.sendall(request_frame(method, arguments))
        except OSError:
            self.close()
            return _failed(mt5.RES_E_INTERNAL_FAIL_SEND)
        try:
            command, code, text, result = json.loads(self._frame())
        except OSError:
            self.close()
            return _failed(mt5.RES_E_INTERNAL_FAIL_RECEIVE)
        if code == EXIT_CODE:
            os._exit(EXIT_STATUS)
        if command != COMMANDS[method]:
            return _failed(mt5.RES_E_INTERNAL_FAIL)
        return code, text, result

    def _frame(self) -> bytes:
        self._fill(HEAD.size)
        (length,) = HEAD.unpack_from(self._buffer)
        self._fill(HEAD.size + length)
        body = bytes(self._buffer[HEAD.size : HEAD.size + length])
        del self._buffer[: HEAD.size + length]
        return body

    def _fill(self, wanted: int) -> None:
        while len(self._buffer) < wanted:
            chunk = self._receive(65_536) if self._receive else b""
            if not chunk:
                raise ConnectionResetError(errno.ECONNRESET, "the market closed the connection")
            self._buffer += chunk
