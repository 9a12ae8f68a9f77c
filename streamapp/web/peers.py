"""The other workers of the group: who they are, and asking them over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
from yarl import URL

from streamapp import topics
from streamapp.kafka.assignment import Assignment

LOCAL = "local"
"""Query parameter of an inner request: answer from your own tables, ask nobody."""
DEADLINE_S = 2.0
"""A worker answers from memory in milliseconds; one that does not in this time is frozen or gone."""


AUTHORIZATION: ContextVar[str | None] = ContextVar("AUTHORIZATION", default=None)
"""What the caller has shown who is being answered: its question is passed on with it, for the others know it too."""


@dataclass(frozen=True)
class Reply:
    """What a worker answered: found or not found; other answers are none (see :meth:`Peers.ask`)."""

    worker: URL
    body: dict[str, Any] | None


class Peers(Protocol):
    """The workers of the group."""

    def here(self) -> URL:
        """Return this worker's own address."""
        ...

    def owner(self, partition: int) -> URL | None:
        """Return the address of the worker that owns a partition, None while nobody is known to."""
        ...

    def others(self) -> list[URL]:
        """Return the addresses of all other workers."""
        ...

    async def ask(self, worker: URL, path: str, query: Mapping[str, str]) -> Reply | None:
        """Return a worker's own answer, None if it did not answer (in time, or being recovered)."""
        ...


class HttpPeers:
    """The workers that Kafka's last assignment lists."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._session: aiohttp.ClientSession | None = None

    def here(self) -> URL:
        """See :class:`Peers`."""
        return self._assignment.here()

    def owner(self, partition: int) -> URL | None:
        """See :class:`Peers`. All topics are assigned alike, so any of ours says it for all."""
        return self._assignment.owner(topics.ARCHIVE, partition)

    def others(self) -> list[URL]:
        """See :class:`Peers`."""
        return sorted(self._assignment.workers() - {self.here()})

    async def ask(self, worker: URL, path: str, query: Mapping[str, str]) -> Reply | None:
        """See :class:`Peers`."""
        url = worker.join(URL(path, encoded=True)).update_query({**query, LOCAL: "1"})
        shown = AUTHORIZATION.get()
        headers = {} if shown is None else {"Authorization": shown}
        try:
            async with (
                asyncio.timeout(DEADLINE_S),
                self._client().get(url, headers=headers, allow_redirects=False) as answer,
            ):
                if answer.status == 404:
                    return Reply(worker, None)
                return Reply(worker, dict(await answer.json())) if answer.status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, TypeError):
            return None  # a killed worker stays in the assignment until its session ends

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        return self._session
