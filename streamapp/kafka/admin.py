"""Creating topics and checking the ones that are there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import GroupIdNotFound, KafkaError, TopicAlreadyExistsError, for_code

from streamapp.errors import ConfigurationError, Transient
from streamapp.kafka.security import Cluster

CREATE_TIMEOUT_MS = 30_000
COORDINATOR_TRIES, COORDINATOR_PAUSE_S = 20, 0.5
"""A new cluster makes a group's coordinator when it is first asked for it, and says for seconds that it has none."""

SHOWN_TRIES, SHOWN_PAUSE_S = 50, 0.1
"""Brokers know a new topic within milliseconds, on a busy machine within a second; who may not see it never does."""


class WantedTopic(Protocol):
    """What a topic is called and its settings (see :mod:`streamapp.topics`)."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def config(self) -> Mapping[str, str]: ...  # noqa: D102


@dataclass(frozen=True)
class TopicPlan:
    """Which of the topics asked for are there, and which are not (or, after ``create_topics``, were not)."""

    present: tuple[str, ...]
    missing: tuple[str, ...]


async def existing_topics(kafka: Cluster | str) -> frozenset[str]:
    """Return the names of all topics."""
    async with _Admin(kafka) as admin:
        return frozenset(await admin.list_topics())


async def consumer_groups(kafka: Cluster | str) -> frozenset[str]:
    """Return the names of all consumer groups."""
    async with _Admin(kafka) as admin:
        return frozenset(group for group, *_ in await admin.list_consumer_groups())


@dataclass(frozen=True)
class GroupMember:
    """A member of a consumer group.

    Attributes:
        member_id: Kafka's name of it: its own name, if it has one, and a UUID.
        metadata: What it said when it joined; empty while the group is being rebalanced.
    """

    member_id: str
    metadata: bytes


async def live_members(kafka: Cluster | str, group: str) -> int:
    """Return how many members Kafka counts in a consumer group; one that was killed counts until its session ends."""
    return len(await group_members(kafka, group))


async def group_members(kafka: Cluster | str, group: str) -> tuple[GroupMember, ...]:
    """Return the members that Kafka counts in a consumer group."""
    async with _Admin(kafka) as admin:
        for _ in range(COORDINATOR_TRIES):
            try:
                return await _members(admin, group)
            except KafkaError as error:
                if not error.retriable:
                    raise
                await asyncio.sleep(COORDINATOR_PAUSE_S)
        return await _members(admin, group)


async def has_offsets(kafka: Cluster | str, group: str) -> bool:
    """Return whether a consumer group has ever acknowledged anything, as far as Kafka remembers."""
    async with _Admin(kafka) as admin:
        for _ in range(COORDINATOR_TRIES):
            try:
                return bool(await admin.list_consumer_group_offsets(group))
            except KafkaError as error:
                if not error.retriable:
                    raise
                await asyncio.sleep(COORDINATOR_PAUSE_S)
        return bool(await admin.list_consumer_group_offsets(group))


async def _members(admin: AIOKafkaAdminClient, group: str) -> tuple[GroupMember, ...]:
    found: list[GroupMember] = []
    for answer in await admin.describe_consumer_groups([group]):
        for code, _, _, _, _, present, *_ in answer.groups:
            if code not in {0, GroupIdNotFound.errno}:
                raise for_code(code)
            found += [GroupMember(member_id, bytes(metadata or b"")) for member_id, _, _, metadata, *_ in present]
    return tuple(found)


async def plan_topics(kafka: Cluster | str, specs: Iterable[WantedTopic], *, partitions: int) -> TopicPlan:
    """Say what ``create_topics`` would create, and create nothing.

    Raises:
        ConfigurationError: A topic is there with another number of partitions than ``partitions``.
    """
    async with _Admin(kafka) as admin:
        return await _plan(admin, tuple(specs), partitions)


async def create_topics(
    kafka: Cluster | str,
    specs: Iterable[WantedTopic],
    *,
    partitions: int,
    replication_factor: int,
    min_insync_replicas: int = 1,
) -> TopicPlan:
    """Create the topics that are missing, all with the same number of partitions; may be repeated.

    Args:
        kafka: Where it is.
        specs: Names and settings.
        partitions: Of every topic. Accounts are spread by it, so it is never changed after the first start.
        replication_factor: Of the new ones.
        min_insync_replicas: How many of them have a record before Kafka acknowledges it, on the new ones.

    Raises:
        ConfigurationError: A topic is there with another number of partitions, or Kafka refuses a setting.
        Transient: Kafka could not do it now.
    """
    wanted = {spec.name: spec for spec in specs}
    async with _Admin(kafka) as admin:
        plan = await _plan(admin, tuple(wanted.values()), partitions)
        least = {"min.insync.replicas": str(min_insync_replicas)}
        new = [
            NewTopic(name, partitions, replication_factor, topic_configs={**wanted[name].config, **least})
            for name in plan.missing
        ]
        if new:
            _check(await admin.create_topics(new, timeout_ms=CREATE_TIMEOUT_MS))
            await _shown(admin, set(plan.missing))
    return plan


async def _shown(admin: AIOKafkaAdminClient, names: set[str]) -> None:
    """Wait until the brokers show what the controller has created, so that whoever starts now finds it."""
    for _ in range(SHOWN_TRIES):
        if names <= set(await admin.list_topics()):
            return
        await asyncio.sleep(SHOWN_PAUSE_S)


def _check(response: Any) -> None:
    """Read CreateTopics' answer: aiokafka returns each topic's error instead of raising it."""
    refused: list[str] = []
    later: list[str] = []
    for name, code, *detail in response.topic_errors:
        error = for_code(code)
        if code == 0 or error is TopicAlreadyExistsError:  # another `init` was faster
            continue
        (later if error.retriable else refused).append(f"{name}: {error.__name__} {' '.join(map(str, detail))}".strip())
    if refused:
        raise ConfigurationError(f"Kafka refused to create topics: {'; '.join(refused)}")
    if later:
        raise Transient(f"Kafka could not create topics now: {'; '.join(later)}")


async def _plan(admin: AIOKafkaAdminClient, specs: tuple[WantedTopic, ...], partitions: int) -> TopicPlan:
    existing = set(await admin.list_topics())
    present = tuple(spec.name for spec in specs if spec.name in existing)
    counts = (
        {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics(list(present))}
        if present
        else {}
    )
    wrong = [f"{name} has {count}" for name, count in sorted(counts.items()) if count != partitions]
    if wrong:
        raise ConfigurationError(
            f"expected {partitions} partitions on every topic, but {', '.join(wrong)}. The number can't be changed "
            "after the first start, because accounts and orders are found by it: set kafka.partitions to what is "
            "there, or begin with empty topics"
        )
    return TopicPlan(present, tuple(spec.name for spec in specs if spec.name not in existing))


class _Admin:
    def __init__(self, kafka: Cluster | str) -> None:
        cluster = Cluster.at(kafka)
        self._client = AIOKafkaAdminClient(**cluster.client_options(cluster.settings.prefixed("streamapp-init")))

    async def __aenter__(self) -> AIOKafkaAdminClient:
        try:
            await self._client.start()
        except BaseException:
            await self._client.close()
            raise
        return self._client

    async def __aexit__(self, *exc: object) -> None:
        await self._client.close()
