"""Topics are created once, checked every time, and never changed."""

from __future__ import annotations

from uuid import uuid4

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from streamapp.errors import ConfigurationError
from streamapp.kafka.admin import create_topics, plan_topics
from streamapp.topics import TopicSpec


@pytest.fixture
def specs() -> list[TopicSpec]:
    prefix = uuid4().hex[:8]
    return [TopicSpec(f"{prefix}-a", {"cleanup.policy": "compact"}), TopicSpec(f"{prefix}-b")]


async def test_what_is_missing_is_said_then_created_then_there(kafka_bootstrap: str, specs: list[TopicSpec]) -> None:
    names = tuple(spec.name for spec in specs)
    assert (await plan_topics(kafka_bootstrap, specs, partitions=4)).missing == names
    assert (await plan_topics(kafka_bootstrap, specs, partitions=4)).missing == names, "a plan creates nothing"
    assert (await create_topics(kafka_bootstrap, specs[:1], partitions=4, replication_factor=1)).missing == names[:1]
    plan = await create_topics(kafka_bootstrap, specs, partitions=4, replication_factor=1)
    assert (plan.present, plan.missing) == (names[:1], names[1:])
    plan = await plan_topics(kafka_bootstrap, specs, partitions=4)
    assert (plan.present, plan.missing) == (names, ())


async def test_another_number_of_partitions_is_refused(kafka_bootstrap: str, specs: list[TopicSpec]) -> None:
    await create_topics(kafka_bootstrap, specs[:1], partitions=4, replication_factor=1)
    with pytest.raises(ConfigurationError, match=f"expected 8 partitions on every topic, but {specs[0].name} has 4"):
        await create_topics(kafka_bootstrap, specs, partitions=8, replication_factor=1)
    assert (await plan_topics(kafka_bootstrap, specs, partitions=4)).missing == (specs[1].name,)


async def test_a_setting_that_kafka_does_not_know_is_refused(kafka_bootstrap: str, specs: list[TopicSpec]) -> None:
    wrong = TopicSpec(specs[0].name, {"no.such.setting": "1"})
    with pytest.raises(ConfigurationError, match=r"no\.such\.setting"):
        await create_topics(kafka_bootstrap, [wrong], partitions=4, replication_factor=1)


async def test_what_is_created_says_how_many_replicas_a_record_needs(
    kafka_bootstrap: str, specs: list[TopicSpec]
) -> None:
    await create_topics(kafka_bootstrap, specs, partitions=1, replication_factor=1, min_insync_replicas=2)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    await admin.start()
    try:
        asked = [ConfigResource(ConfigResourceType.TOPIC, spec.name) for spec in specs]
        (answer,) = await admin.describe_configs(asked)
    finally:
        await admin.close()
    assert len(answer.resources) == len(specs)
    for *_, entries in answer.resources:
        assert {"min.insync.replicas": "2"}.items() <= {name: value for name, value, *_ in entries}.items()
