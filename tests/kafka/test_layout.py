"""State of an earlier layout is never started beside."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NoReturn
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer

from streamapp.errors import ConfigurationError, StreamappError, Transient
from streamapp.kafka import application
from streamapp.kafka.admin import create_topics
from streamapp.kafka.application import build_app
from streamapp.kafka.layout import refuse_earlier_layout, refuse_other_store, refuse_unmade_store
from streamapp.local.ports import free_port
from streamapp.topics import TopicSpec, app_id, changelog, trading_part


@pytest.fixture
def deployment() -> str:
    return f"d{uuid4().hex[:8]}"


async def test_a_new_deployment_is_not_refused(kafka_bootstrap: str, deployment: str, tmp_path: Path) -> None:
    specs = [TopicSpec(changelog(deployment, "desk")), TopicSpec(changelog(f"other-{deployment}", "orders"))]
    await create_topics(kafka_bootstrap, specs, partitions=1, replication_factor=1)
    (tmp_path / "trading" / "v1" / "tables" / "desk-0.db").mkdir(parents=True)
    await refuse_earlier_layout(kafka_bootstrap, deployment, tmp_path)


@pytest.mark.parametrize("table", ["signals", "submissions", "orders", "positions", "accounts", "pins"])
async def test_a_changelog_of_an_earlier_table_is_named_with_what_to_do(
    kafka_bootstrap: str, deployment: str, tmp_path: Path, table: str
) -> None:
    topic = changelog(deployment, table)
    await create_topics(kafka_bootstrap, [TopicSpec(topic)], partitions=1, replication_factor=1)
    with pytest.raises(ConfigurationError, match=f"topic {topic}, finish with the version that wrote it") as refused:
        await refuse_earlier_layout(kafka_bootstrap, deployment, tmp_path)
    assert "a new `deployment` name" in str(refused.value)
    assert "or delete all of it, if nothing of it is needed" in str(refused.value)


@pytest.mark.parametrize("folder", ["trading", "trading-2"])
async def test_a_local_copy_of_an_earlier_table_is_named(
    kafka_bootstrap: str, deployment: str, tmp_path: Path, folder: str
) -> None:
    path = tmp_path / folder / "v1" / "tables" / "orders-3.db"
    path.mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=f"folder {path}"):
        await refuse_earlier_layout(kafka_bootstrap, deployment, tmp_path)


async def test_updates_are_to_be_published_first(
    kafka_bootstrap: str, deployment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamapp.kafka.layout.EARLIER_TOPICS", (f"updates-{deployment}",))
    await create_topics(kafka_bootstrap, [TopicSpec(f"updates-{deployment}")], partitions=1, replication_factor=1)
    with pytest.raises(ConfigurationError, match="delete it once all of it is published"):
        await refuse_earlier_layout(kafka_bootstrap, deployment, tmp_path)


async def test_a_kafka_that_does_not_answer_is_transient(tmp_path: Path) -> None:
    with pytest.raises(Transient, match="does not answer"):
        await refuse_earlier_layout(f"127.0.0.1:{free_port()}", "d", tmp_path)


@pytest.mark.parametrize(("error", "code"), [(ConfigurationError("old"), 78), (Transient("away"), 70)])
async def test_a_worker_ends_before_it_starts_anything_when_its_check_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kafka_bootstrap: str, error: StreamappError, code: int
) -> None:
    def abort(reason: str, *, code: int) -> NoReturn:
        raise SystemExit(reason, code)

    async def check(_app: application.StreamApp) -> None:
        await asyncio.sleep(0)
        raise error

    monkeypatch.setattr(application, "abort", abort)
    app = build_app(
        "x", bootstrap=kafka_bootstrap, data_dir=tmp_path, partitions=1, replication_factor=1, web_port=1, check=check
    )
    with pytest.raises(SystemExit, match=str(error)) as left:
        await app.on_first_start()
    assert left.value.args[1] == code
    assert list(tmp_path.iterdir()) == []


async def test_workers_of_two_stores_never_trade_at_once(kafka_bootstrap: str, deployment: str) -> None:
    await create_topics(kafka_bootstrap, [TopicSpec(deployment)], partitions=1, replication_factor=1)
    second = app_id(deployment, trading_part("2"))
    worker = AIOKafkaConsumer(deployment, bootstrap_servers=kafka_bootstrap, group_id=second)
    await worker.start()
    try:
        await refuse_other_store(kafka_bootstrap, deployment, "2")
        await refuse_other_store(kafka_bootstrap, f"{deployment}-trading", None)
        with pytest.raises(Transient, match=rf"another store .* \(consumer group {second}\).* the same kafka.store"):
            await refuse_other_store(kafka_bootstrap, deployment, None)
    finally:
        await worker.stop()
    await refuse_other_store(kafka_bootstrap, deployment, None)
    with pytest.raises(Transient, match="does not answer"):
        await refuse_other_store(f"127.0.0.1:{free_port()}", deployment, None)


async def test_a_store_that_nobody_made_is_started_by_nobody(kafka_bootstrap: str, deployment: str) -> None:
    await refuse_unmade_store(kafka_bootstrap, deployment, None)
    with pytest.raises(ConfigurationError, match="a store that `streamapp rebuild --into 2` has made"):
        await refuse_unmade_store(kafka_bootstrap, deployment, "2")
    made = TopicSpec(changelog(deployment, "desk", "2"))
    await create_topics(kafka_bootstrap, [made], partitions=1, replication_factor=1)
    await refuse_unmade_store(kafka_bootstrap, deployment, "2")
