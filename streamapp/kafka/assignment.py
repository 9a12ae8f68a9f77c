"""Which worker owns a partition right now, and where all the workers of a group are."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from aiokafka.errors import KafkaError
from faust.types import TP
from yarl import URL

from streamapp.errors import ConfigurationError
from streamapp.kafka.admin import GroupMember, group_members

UUID_LENGTH = 36
LOOK_S = 0.5
GRACE_S = 5.0
"""Beyond a session: Kafka ends one when it gets round to it."""


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
        the owner of that partition of all, changelogs included.
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


async def refuse_taken_address(app: Any) -> None:
    """Return if no other live worker of the group is known by our address: each would answer for the other's rows.

    One that is gone is a member until its session ends, so it is waited for that long. Whoever runs is not disturbed.

    Raises:
        ConfigurationError: Another worker has our address.
    """
    url, own = str(app.conf.canonical_url), app.conf.consumer_group_instance_id
    deadline = time.monotonic() + float(app.conf.broker_session_timeout) + GRACE_S
    while taken := [each for each in await _members(app) if _name_of(each) != own and _url_of(each) in {url, None}]:
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(LOOK_S)
    if any(_url_of(each) == url for each in taken):
        raise address_taken(app)


def is_address_shared(app: Any) -> bool:
    """Return whether the last assignment knows another worker by our address too, and lists its partitions alone.

    It happens to workers that were started at the same moment, and to one of them.
    """
    assignor, changelogs = app.assignor, app.tables.changelog_topics
    own = {tp for tp in assignor.assigned_actives() if tp.topic not in changelogs}
    return own != {tp for tp, url in assignor._external_tps_url.items() if url == str(app.conf.canonical_url)}


def address_taken(app: Any) -> ConfigurationError:
    """Return what is said of an address that another worker has."""
    return ConfigurationError(
        f"web.advertised_url: expected an address that leads to this worker alone, but another worker of {app.conf.id} "
        f"has {app.conf.canonical_url} as well. Set it to how the other workers reach this one"
    )


async def _members(app: Any) -> tuple[GroupMember, ...]:
    try:
        return await group_members(app.cluster, app.conf.id)
    except (KafkaError, OSError) as error:
        raise await app.cluster.explained(error) from error


def _name_of(member: GroupMember) -> str:
    return member.member_id[: -UUID_LENGTH - 1]


def _url_of(member: GroupMember) -> str | None:
    """Return the address that a member joined with, None while the group is being rebalanced."""
    if not member.metadata:
        return None
    try:
        return str(json.loads(ConsumerProtocolMemberMetadata.decode(member.metadata).user_data)["url"])
    except (ValueError, KeyError, TypeError):
        return ""  # no worker of ours
