"""One way to connect to NATS: it comes back by itself for ever, and says what happens to it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import nats.errors
from nats.aio.client import Client

from streamapp.errors import ConfigurationError, Transient
from streamapp.nats.client import NO_TLS, TolerantClient
from streamapp.nats.identity import Identity
from streamapp.settings import Settings
from streamapp.tls import RenewedContext, fault

logger = logging.getLogger(__name__)

FIRST_CONNECTION_S = 30.0
"""How long the first connection is waited for: a server of the local stack needs two seconds, a failing-over cluster
about seven."""
CLOSING_S = 2.0
"""How long the closing of a connection that was never made is waited for."""
RECONNECT_WAIT_S = 0.25
"""Between two tries at the same server. A restarted one is back within half a second; four tries a second cost
nothing."""
PING_INTERVAL_S = 5.0
"""A server that answers neither of two pings is given up: a frozen one is noticed after 15 s, not nats-py's six
minutes."""
SERVER_VERSION = (2, 14)
"""reset_consumer, by which mirror keeps its order, came with 2.14."""


@dataclass(frozen=True)
class ConnectionState:
    """How a connection is.

    Attributes:
        connected: Whether there is a server at the other end now.
        error: The last error that was reported, also of a connection that came back since.
        denied: The first permission violation. The server drops what is forbidden and the connection stays up, so this
        is never forgotten:
            the process is unhealthy until somebody has mended the permissions and started it again.
        reconnects: How often it came back.
    """

    connected: bool = False
    error: str | None = None
    denied: str | None = None
    reconnects: int = 0

    @property
    def reasons(self) -> list[str]:
        """What is wrong, in words for ``/health``; empty when nothing is."""
        reasons = [] if self.connected else [f"NATS: not connected ({self.error or 'no answer yet'})"]
        return [*reasons, f"NATS: {self.denied}. Give this user the permission and restart"] if self.denied else reasons


class _Watch:
    """Turns the client's callbacks into log lines and states."""

    def __init__(self, client: Client, name: str, on_state: Callable[[ConnectionState], None] | None) -> None:
        self.state = ConnectionState()
        self.refusal: str | None = None
        """What the server said when it did not let us in. A later try may end in a reset instead: the server closes the
        connection with its word, and what is not read by then is lost."""
        self._client = client
        self._name = name
        self._on_state = on_state

    def _now(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)
        if self._on_state is not None:
            self._on_state(self.state)

    def connected(self) -> None:
        self._now(connected=True)

    async def on_disconnected(self) -> None:
        if self.state.connected and not self._client.is_closed:  # we close it ourselves: nothing is lost
            logger.warning("%s: the connection to NATS is lost; trying again for ever", self._name)
        self._now(connected=False)

    async def on_reconnected(self) -> None:
        logger.info("%s: connected to NATS again", self._name)
        self._now(connected=True, reconnects=self.state.reconnects + 1)

    async def on_closed(self) -> None:
        self._now(connected=False)

    async def on_error(self, error: Exception) -> None:
        text = str(error) or type(error).__name__
        if "permissions violation" in text.lower():
            logger.error("%s: NATS forbids something: %s", self._name, text)
            self._now(error=text, denied=self.state.denied or text)
            return
        self.refusal = _refusal(error, text) or self.refusal
        if text != self.state.error:
            logger.warning("%s: NATS: %s", self._name, text)
            self._now(error=text)


async def connect(
    settings: Settings,
    name: str,
    *,
    on_state: Callable[[ConnectionState], None] | None = None,
    wait_s: float = FIRST_CONNECTION_S,
) -> Client:
    """Return a client that is connected, and reconnects for ever from then on.

    While it is not connected, ``publish`` and ``request`` raise ``OutboundBufferLimitError`` at once: nothing is
    buffered to go out at a time of its own, since an order must never be said after its not_after.

    Args:
        settings: Address and secrets.
        name: Who we are, as NATS' monitor shows it.
        on_state: Called with every change, from the event loop.
        wait_s: How long to wait for the first connection.

    Raises:
        ConfigurationError: The server refuses us or is not who it should be, or is older than 2.14, or a secret or a
            certificate can't be read.
        Transient: No server answered within ``wait_s``.
    """
    client = TolerantClient(Identity(settings.nats))
    watch = _Watch(client, name, on_state)
    options = _options(settings, name, watch)
    connecting = asyncio.ensure_future(client.connect(**options))
    connecting.add_done_callback(lambda task: task.cancelled() or task.exception())
    try:
        # Not asyncio.timeout: nats-py, cancelled while it closes a refused TLS connection, may wait for ever.
        await asyncio.wait({connecting}, timeout=wait_s)
        if not connecting.done():
            connecting.cancel()
            raise TimeoutError
        connecting.result()
    except asyncio.CancelledError:
        connecting.cancel()
        await _close(client)
        raise
    except (OSError, nats.errors.Error) as error:
        await _close(client)
        raise _reason(settings.nats_url, watch, str(error), wait_s) from None
    watch.connected()
    await _check_version(client)
    return client


async def _close(client: Client) -> None:
    with contextlib.suppress(OSError, nats.errors.Error):
        async with asyncio.timeout(CLOSING_S):
            await client.close()


def _options(settings: Settings, name: str, watch: _Watch) -> dict[str, Any]:
    return {
        "servers": [server.strip() for server in settings.nats_url.split(",")],
        "name": f"{settings.deployment}/{name}",
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": RECONNECT_WAIT_S,
        "connect_timeout": 2,
        "ping_interval": PING_INTERVAL_S,
        "max_outstanding_pings": 2,
        "pending_size": 0,
        "error_cb": watch.on_error,
        "disconnected_cb": watch.on_disconnected,
        "reconnected_cb": watch.on_reconnected,
        "closed_cb": watch.on_closed,
        **Identity(settings.nats).options(),
        **_tls(settings),
    }


def _tls(settings: Settings) -> dict[str, Any]:
    options = {"tls_handshake_first": True} if settings.nats.tls_first else {}
    return {**options, "tls": RenewedContext(settings.nats, "nats")} if settings.nats.demands_tls else options


def _refusal(error: Exception, text: str) -> str | None:
    """Return in words why we were not let in, or did not go in; None for whatever may pass by itself."""
    if "authorization" in text.lower() or "authentication" in text.lower():
        return f"{text}. Check nats.user, nats.password_file, nats.credentials_file and nats.nkey_file"
    if text == NO_TLS:
        return f"{text}. Check nats.url"
    return fault(error, "nats")


def _reason(url: str, watch: _Watch, error: str, wait_s: float) -> Exception:
    address = ", ".join(server.rpartition("@")[2].rpartition("//")[2].strip() for server in url.split(","))
    if watch.refusal is not None:
        return ConfigurationError(f"NATS at {address} refuses us: {watch.refusal}")
    return Transient(
        f"expected a connection to NATS at {address} within {wait_s:g} s, got: {watch.state.error or error}. "
        "Is it running, and nats.url right?"
    )


async def _check_version(client: Client) -> None:
    version = client.connected_server_version
    if (version.major, version.minor) < SERVER_VERSION:
        await client.close()
        raise ConfigurationError(
            f"expected nats-server {'.'.join(map(str, SERVER_VERSION))} or newer, got {version.major}.{version.minor}: "
            "mirror keeps its order by resetting its consumer, which older servers can't. Upgrade the server"
        )
