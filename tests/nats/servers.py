"""A NATS server of a test's own, which it may kill, and ways to speak to it that no client offers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

from streamapp.local import nats
from streamapp.local.ports import free_port
from streamapp.local.process import ProcessSpec


def own_nats(folder: Path) -> ProcessSpec:
    return nats.prepare(folder / "nats", free_port(), free_port())


async def publish_raw(url: str, subject: bytes, payload: bytes = b"{}", headers: bytes = b"") -> bytes:
    """Publish what a careful client would refuse to, and return what the server said to it."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        await reader.readline()
        if headers:
            command = b"HPUB %b %d %d\r\n%b%b\r\n" % (
                subject,
                len(headers),
                len(headers) + len(payload),
                headers,
                payload,
            )
        else:
            command = b"PUB %b %d\r\n%b\r\n" % (subject, len(payload), payload)
        writer.write(b'CONNECT {"verbose":false,"headers":true}\r\n' + command + b"PING\r\n")
        async with asyncio.timeout(5):
            return await reader.readuntil(b"PONG\r\n")
    finally:
        writer.close()
        await writer.wait_closed()
