"""``streamapp init`` against the three real servers."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from streamapp import subjects, topics
from streamapp.commands import init as command
from streamapp.commands.init import initialise
from streamapp.errors import ConfigurationError, Transient
from streamapp.local.ports import free_port
from streamapp.settings import ClickHouseSettings, KafkaSettings, LocalSettings, NatsSettings, Settings
from tests.kit.stacks import running
from tests.nats.servers import own_nats


@pytest.fixture
def kafka(kafka_bootstrap: str) -> KafkaSettings:
    return KafkaSettings(bootstrap=kafka_bootstrap)


def test_everything_is_created_once_is_present_then_and_a_dry_run_creates_nothing(
    tmp_path: Path, kafka: KafkaSettings, clickhouse_url: str
) -> None:
    spec = own_nats(tmp_path)
    clickhouse = ClickHouseSettings(url=clickhouse_url, database="init_test")
    settings = Settings(deployment="init-test", kafka=kafka, nats=NatsSettings(url=spec.address), clickhouse=clickhouse)
    with running(spec, tmp_path):
        dry = initialise(settings, dry_run=True)
        assert f"topic {topics.changelog('init-test', 'desk')}" in {step.what for step in dry.missing}
        assert {step.outcome for step in dry.steps if step.what.startswith(("stream", "migration"))} == {"missing"}
        assert initialise(settings, dry_run=True) == dry

        made = initialise(settings)
        assert not made.missing
        created = {step.what for step in made.steps if step.outcome == "created"}
        assert created == {step.what for step in dry.missing}
        assert {f"stream {spec.name}" for spec in subjects.STREAMS} < created

        assert {step.outcome for step in initialise(settings).steps} == {"present"}


def test_every_server_that_does_not_answer_is_named(tmp_path: Path) -> None:
    ports = [free_port() for _ in range(3)]
    settings = Settings(
        kafka=KafkaSettings(bootstrap=f"127.0.0.1:{ports[0]}"),
        nats=NatsSettings(url=f"nats://127.0.0.1:{ports[1]}"),
        clickhouse=ClickHouseSettings(url=f"http://127.0.0.1:{ports[2]}", timeout_s=1),
    )
    with pytest.raises(Transient) as raised:
        initialise(settings)
    assert all(str(port) in str(raised.value) for port in ports)


def test_another_number_of_partitions_is_refused_with_what_to_do(
    tmp_path: Path, kafka: KafkaSettings, clickhouse_url: str
) -> None:
    spec = own_nats(tmp_path)
    clickhouse = ClickHouseSettings(url=clickhouse_url, database="init_test")
    settings = Settings(deployment="init-test", kafka=kafka, nats=NatsSettings(url=spec.address), clickhouse=clickhouse)
    with running(spec, tmp_path):
        initialise(settings)
        other = settings.model_copy(update={"kafka": kafka.model_copy(update={"partitions": 3})})
        with pytest.raises(ConfigurationError, match="expected 3 partitions on every topic"):
            initialise(other)


def test_the_command_prints_each_thing_and_what_is_missing(
    tmp_path: Path, kafka: KafkaSettings, clickhouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = own_nats(tmp_path)
    clickhouse = ClickHouseSettings(url=clickhouse_url, database="init_test_command")
    settings = Settings(kafka=kafka, nats=NatsSettings(url=spec.address), clickhouse=clickhouse)
    monkeypatch.setattr(command, "load_settings", lambda: settings)
    app = typer.Typer()
    command.register(app)
    with running(spec, tmp_path):
        shown = CliRunner().invoke(app, ["--dry-run"])
        assert re.search(r"missing\s+stream EXECUTION_IN", shown.output)
        assert "without --dry-run they are made" in shown.output
        assert re.search(r"created\s+stream EXECUTION_IN", CliRunner().invoke(app, []).output)


def test_state_of_an_earlier_version_is_refused_also_by_a_dry_run(tmp_path: Path, kafka: KafkaSettings) -> None:
    (tmp_path / "trading" / "v1" / "tables" / "orders-0.db").mkdir(parents=True)
    settings = Settings(kafka=kafka, local=LocalSettings(data=tmp_path))
    for dry_run in (True, False):
        with pytest.raises(ConfigurationError, match="keeps its state in another way"):
            asyncio.run(command._topics(settings, dry_run))


def test_adopting_a_changelog_is_said_for_each_partition_and_has_no_dry_run(
    tmp_path: Path, kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(deployment="adopt-test", kafka=kafka, local=LocalSettings(data=tmp_path))
    asyncio.run(command._topics(settings, dry_run=False))
    monkeypatch.setattr(command, "load_settings", lambda: settings)
    monkeypatch.setattr(command, "initialise", lambda *_, **__: command.InitReport(()))
    app = typer.Typer()
    command.register(app)
    shown = CliRunner().invoke(app, ["--adopt-changelog"])
    assert shown.exit_code == 0
    assert shown.output.count("nothing to adopt") == settings.kafka.partitions
    assert CliRunner().invoke(app, ["--adopt-changelog", "--dry-run"]).exit_code == 2
