from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path

import clickhouse_connect
import nats as nats_client
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streamapp.local import clickhouse, kafka, nats
from streamapp.local.ports import free_port
from streamapp.local.process import ProcessSpec, RunningProcess
from tests.kit.stacks import running

DEADLINE_S = 30.0


def killed_and_restarted(process: RunningProcess, spec: ProcessSpec, logs: Path) -> RunningProcess:
    process.kill()
    again = RunningProcess(spec, logs)
    again.wait_ready()
    return again


async def test_kafka_keeps_acknowledged_records_through_a_kill(tmp_path: Path) -> None:
    spec = kafka.prepare(tmp_path / "kafka", free_port(), free_port())
    with running(spec, tmp_path) as first:
        admin = AIOKafkaAdminClient(bootstrap_servers=spec.address)
        await admin.start()
        await admin.create_topics([NewTopic("facts", 1, 1)])
        await admin.close()
        async with AIOKafkaProducer(bootstrap_servers=spec.address, acks="all") as producer:
            await producer.send_and_wait("facts", b"kept")
        again = killed_and_restarted(first, spec, tmp_path)
        try:
            async with AIOKafkaConsumer(
                "facts", bootstrap_servers=spec.address, auto_offset_reset="earliest"
            ) as consumer:
                record = await asyncio.wait_for(consumer.getone(), DEADLINE_S)
        finally:
            again.stop()
    assert record.value == b"kept"


def test_kafka_starts_whatever_became_of_the_cache_of_its_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for cache in (tmp_path / "file" / "kafka.aot", tmp_path / "spoiled.aot"):
        monkeypatch.setattr(kafka, "_cache", lambda _, cache=cache: cache)
        if cache.parent == tmp_path:
            cache.write_bytes(b"spoiled")
        spec = kafka.prepare(tmp_path / "kafka", free_port(), free_port())
        assert (f"-XX:AOTCache={cache}" in spec.argv) == (cache.parent == tmp_path)
    with running(spec, tmp_path):
        pass


async def test_nats_keeps_acknowledged_messages_through_a_kill(tmp_path: Path) -> None:
    spec = nats.prepare(tmp_path / "nats", free_port(), free_port())
    with running(spec, tmp_path) as first:
        client = await nats_client.connect(spec.address)
        await client.jetstream().add_stream(name="S", subjects=["s.>"])
        await client.jetstream().publish("s.1", b"kept")
        await client.close()
        again = killed_and_restarted(first, spec, tmp_path)
        try:
            client = await nats_client.connect(spec.address)
            message = await client.jetstream().get_msg("S", 1)
            await client.close()
        finally:
            again.stop()
    assert message.data == b"kept"


def test_clickhouse_keeps_inserted_rows_through_a_kill(tmp_path: Path) -> None:
    spec = clickhouse.prepare(tmp_path / "clickhouse", free_port())
    with running(spec, tmp_path) as first:
        with clickhouse_connect.get_client(dsn=spec.address) as client:
            client.command("CREATE DATABASE d ENGINE = Atomic")
            client.command("CREATE TABLE d.t (price Decimal(18, 8)) ENGINE = MergeTree ORDER BY price")
            client.insert("d.t", [[Decimal("1.08512")]], column_names=["price"])
        again = killed_and_restarted(first, spec, tmp_path)
        try:
            with clickhouse_connect.get_client(dsn=spec.address) as client:
                rows = client.query("SELECT price FROM d.t").result_rows
        finally:
            again.stop()
    assert list(rows) == [(Decimal("1.08512000"),)]
