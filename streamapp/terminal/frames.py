"""Frames between the terminal and its worker: four bytes of length, then JSON."""

from __future__ import annotations

import asyncio
import json
import struct
from typing import Any, BinaryIO

_LENGTH = struct.Struct(">I")


def encode(value: Any) -> bytes:
    """Return ``value`` as a frame."""
    body = json.dumps(value, separators=(",", ":")).encode()
    return _LENGTH.pack(len(body)) + body


def read(stream: BinaryIO) -> Any:
    """Return the next frame, blocking; None at the end of the stream."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    body = stream.read(_LENGTH.unpack(head)[0])
    return json.loads(body)


async def receive(stream: asyncio.StreamReader) -> Any:
    """Return the next frame.

    Raises:
        asyncio.IncompleteReadError: the stream ended.
    """
    (length,) = _LENGTH.unpack(await stream.readexactly(_LENGTH.size))
    return json.loads(await stream.readexactly(length))
