"""Creating topics and checking the ones that are there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import GroupIdNotFound, KafkaError, TopicAlreadyExistsError, for_code

from streamapp.errors import ConfigurationError, Transient

CREATE_TIMEOUT_MS = 30_000
COORDINATOR_TRIES, COORDINATOR_PAUSE_S = 20, 0.5
"""A new cluster makes a group's coordinator when it is first asked for it, and says for seconds that it has none."""


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


async def existing_topics(bootstrap: str) -> frozenset[str]:
    """Return the names of all topics."""
    async with _Admin(bootstrap) as admin:
        return frozenset(await admin.list_topics())


async def consumer_groups(bootstrap: str) -> frozenset[str]:
    """Return the names of all consumer groups."""
    async with _Admin(bootstrap) as admin:
        return frozenset(group for group, *_ in await admin.list_consumer_groups())


async def live_members(bootstrap: str, group: str) -> int:
    """Return how many members Kafka counts in a consumer group; one that was killed counts until its session ends."""
    async with _Admin(bootstrap) as admin:
        for _ in range(COORDINATOR_TRIES):
            try:
                return await _members(admin, group)
            except KafkaError as error:
                if not error.retriable:
                    raise
                await asyncio.sleep(COORDINATOR_PAUSE_S)
        return await _members(admin, group)


async def has_offsets(bootstrap: str, group: str) -> bool:
    """Return whether a consumer group has ever acknowledged anything, as far as Kafka remembers."""
    async with _Admin(bootstrap) as admin:
        for _ in range(COORDINATOR_TRIES):
            try:
                return bool(await admin.list_consumer_group_offsets(group))
            except KafkaError as error:
                if not error.retriable:
                    raise
                await asyncio.sleep(COORDINATOR_PAUSE_S)
        return bool(await admin.list_consumer_group_offsets(group))


async def _members(admin: AIOKafkaAdminClient, group: str) -> int:
    members = 0
    for answer in await admin.describe_consumer_groups([group]):
        for code, _, _, _, _, present, *_ in answer.groups:
            if code not in {0, GroupIdNotFound.errno}:
                raise for_code(code)
            members += len(present)
    return members


async def plan_topics(bootstrap: str, specs: Iterable[WantedTopic], *, partitions: int) -> TopicPlan:
    """Say what ``create_topics`` would create, and create nothing.

    Raises:
        ConfigurationError: A topic is there with another number of partitions than ``partitions``.
    """
    async with _Admin(bootstrap) as admin:
        return await _plan(admin, tuple(specs), partitions)


async def create_topics(
    bootstrap: str, specs: Iterable[WantedTopic], *, partitions: int, replication_factor: int
) -> TopicPlan:
    """Create the topics that are missing, all with the same number of partitions; may be repeated.

    Args:
        bootstrap: ``host:port``, several with commas.
        specs: Names and settings.
        partitions: Of every topic. Accounts are spread by it, so it is never changed after the first start.
        replication_factor: Of the new ones.

    Raises:
        ConfigurationError: A topic is there with another number of partitions, or Kafka refuses a setting.
        Transient: Kafka could not do it now.
    """
    wanted = {spec.name: spec for spec in specs}
    async with _Admin(bootstrap) as admin:
        plan = await _plan(admin, tuple(wanted.values()), partitions)
        new = [
            NewTopic(name, partitions, replication_factor, topic_configs=dict(wanted[name].config))
            for name in plan.missing
        ]
        if new:
            _check(await admin.create_topics(new, timeout_ms=CREATE_TIMEOUT_MS))
    return plan


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
    def __init__(self, bootstrap: str) -> None:
        self._client = AIOKafkaAdminClient(bootstrap_servers=bootstrap, client_id="streamapp-init")

    async def __aenter__(self) -> AIOKafkaAdminClient:
        await self._client.start()
        return self._client

    async def __aexit__(self, *exc: object) -> None:
        await self._client.close()
