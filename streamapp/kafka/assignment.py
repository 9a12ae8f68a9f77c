"""Which worker owns a partition right now, and where all the workers of a group are."""

from __future__ import annotations

from typing import Any

from faust.types import TP
from yarl import URL


class Assignment:
    """What the last rebalance decided, as every worker of the group was told by it.

    A worker that was killed stays in it until its session ends, so whoever asks a worker must be ready for no answer.
    Only groups with tables have one: Faust gives the others Kafka's own assignor, which knows no addresses.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    def owner(self, topic: str, partition: int) -> URL | None:
        """Return the web address of the worker that owns ``partition`` of ``topic``, None while that is not known.

        Topics of one app with the same number of partitions are assigned together: the owner of a partition of one is
            the owner of that
        partition of all, changelogs included.
        """
        tp = TP(self._app.cluster.settings.prefixed(topic), partition)
        assignor = self._app.assignor
        url = assignor._external_tps_url.get(tp) or assignor._tps_url.get(tp)
        return URL(url) if url else None

    def workers(self) -> frozenset[URL]:
        """Return the web addresses of all workers of the group; empty until the first assignment."""
        return frozenset(URL(url) for url in self._app.assignor.external_topic_distribution)

    def here(self) -> URL:
        """Return the address under which this worker is listed."""
        return URL(str(self._app.conf.canonical_url))
