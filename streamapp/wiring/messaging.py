"""The trading worker's connection to NATS: made at start, before anything is recovered, and kept for life."""

from __future__ import annotations

import asyncio
from typing import Any

from mode import Service

from streamapp.errors import ConfigurationError, Transient
from streamapp.nats.connection import ConnectionState, connect
from streamapp.nats.streams import verify
from streamapp.settings import Settings

PAUSE_S = 1.0
"""Between two tries to connect for the first time, or to find the streams."""


class Messaging(Service):
    """Connects in the background; whoever asks before that waits for it within its own deadline.

    Attributes:
        connection: How the connection is.
        streams_fault: Why the streams are not known to be there; None once they were seen.
    """

    def __init__(self, settings: Settings, name: str, **options: Any) -> None:
        super().__init__(**options)
        self._settings = settings
        self._name = name
        self._client: asyncio.Future[Any] | None = None
        self._connected: Any = None
        self.connection = ConnectionState()
        self.streams_fault: str | None = "NATS: the streams were not looked at yet"

    @property
    def reasons(self) -> list[str]:
        """What is wrong, for ``/health``."""
        return [*self.connection.reasons, *([self.streams_fault] if self.streams_fault else [])]

    async def on_start(self) -> None:
        """Begin to connect; NATS may come up later than we do."""
        self._client = asyncio.get_running_loop().create_future()

    @Service.task
    async def _connect(self) -> None:
        while not self.should_stop and self._connected is None:
            try:
                self._connected = await connect(self._settings, self._name, on_state=self._note)
            except (ConfigurationError, Transient) as error:
                self.connection = ConnectionState(error=str(error))
                self.log.warning("%s", error)
                await self.sleep(PAUSE_S)
        if self._connected is not None and self._client is not None:
            self._client.set_result(self._connected)
            await self._look_for_streams()

    async def _look_for_streams(self) -> None:
        while not self.should_stop and self.streams_fault is not None:
            try:
                await verify(self._connected.jetstream(), self._settings)
                self.streams_fault = None
            except (ConfigurationError, Transient) as error:
                self.streams_fault = str(error)
                await self.sleep(PAUSE_S)

    def _note(self, state: ConnectionState) -> None:
        self.connection = state

    async def request(self, subject: str, payload: bytes, *, timeout: float) -> Any:
        """As ``nats.aio.client.Client.request``, waiting for the first connection within the same ``timeout`` in s.

        Raises:
            TimeoutError: no connection or no answer in time.
            nats.errors.Error: as of nats-py.
        """
        async with asyncio.timeout(timeout):
            if self._client is None:
                raise TimeoutError
            client = await asyncio.shield(self._client)
            return await client.request(subject, payload, timeout=timeout)

    async def on_stop(self) -> None:
        """Close the connection."""
        if self._connected is not None:
            await self._connected.close()
