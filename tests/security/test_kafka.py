"""Every client of ours on a real Kafka that asks for TLS, a user and rights, and what is said when it says no."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from aiokafka.conn import create_conn
from aiokafka.errors import KafkaError
from aiokafka.protocol.metadata import MetadataRequest
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth
from typer.testing import CliRunner

from streamapp import topics
from streamapp.commands import status
from streamapp.errors import ConfigurationError, StreamappError, Transient
from streamapp.kafka.admin import create_topics, existing_topics, live_members, plan_topics
from streamapp.kafka.batches import BatchProducer
from streamapp.kafka.producer import ClientProducer
from streamapp.kafka.reader import TopicReader
from streamapp.kafka.security import Cluster
from streamapp.local.ports import free_port
from streamapp.local.process import REPOSITORY
from streamapp.mirror.kafka import KafkaWriter
from streamapp.mirror.routing import MirrorRecord
from streamapp.settings import KafkaSettings, NatsSettings, Settings
from tests.kit.certificates import Authority
from tests.kit.secured import (
    PLAIN_PASSWORD,
    SCRAM_PASSWORD,
    SecuredKafka,
    documented,
    secured_kafka,
    unsecured_token,
)

SPECS = (*topics.TOPICS, *topics.changelogs("streamapp"))
PARTITIONS = 2
Make = Callable[[SecuredKafka, Path], KafkaSettings]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    with secured_kafka(tmp_path_factory.mktemp("secured")) as kafka:
        yield kafka


@pytest.fixture(scope="module")
def granted(server: SecuredKafka) -> SecuredKafka:
    """The server with the rights that the page lists, and the topics as their user created them."""
    asyncio.run(grant(server))
    return server


async def grant(server: SecuredKafka) -> None:
    everything = " ".join(f"--topic {spec.name}" for spec in SPECS)
    await server.allow(f"--allow-principal User:silent --operation Read {everything}")
    await server.allow(f"--allow-principal User:blind --operation Write {everything}")
    for user in ("silent", "blind"):
        await server.allow(f"--allow-principal User:{user} --operation Read --group *")
    for command in documented("kafka-acls"):
        await server.allow(command)
    made = await create_topics(cluster(server.scram()), SPECS, partitions=PARTITIONS, replication_factor=1)
    assert made.missing == tuple(spec.name for spec in SPECS)


def test_nobody_makes_a_client_of_kafka_but_with_the_options_of_the_cluster() -> None:
    paths = [path for folder in ("streamapp", "agents", "tables") for path in (REPOSITORY / folder).rglob("*.py")]
    users = {
        word: {path.name for path in paths if word in path.read_text(encoding="utf-8")}
        for word in ("bootstrap_servers", ".kafka_bootstrap")
    }
    assert users["bootstrap_servers"] == {"security.py"}
    assert users[".kafka_bootstrap"] == {"security.py", "stack.py", "status.py"}, "the last two show it"


def cluster(settings: KafkaSettings) -> Cluster:
    return Cluster.of(Settings(kafka=settings))


def token_file(folder: Path, token: str) -> Path:
    (folder / "token").write_text(token + "\n")
    return folder / "token"


@pytest.mark.parametrize(
    "make",
    [
        lambda server, _: server.plain(),
        lambda server, _: server.scram(sasl_mechanism="SCRAM-SHA-256"),
        lambda server, _: server.scram(sasl_mechanism="SCRAM-SHA-512"),
        lambda server, folder: server.token(token_file(folder, unsecured_token("streamapp"))),
        lambda server, _: server.mutual(server.authority.issue("streamapp")),
    ],
    ids=["plain", "scram-256", "scram-512", "token", "certificate"],
)
async def test_whoever_can_say_who_they_are_sees_what_they_have_rights_to(
    granted: SecuredKafka, tmp_path: Path, make: Make
) -> None:
    assert await existing_topics(cluster(make(granted, tmp_path))) == {spec.name for spec in SPECS}


@pytest.mark.parametrize("name", ["plain", "scram", "token", "mutual"])
def test_faust_s_clients_are_made_with_what_all_others_are(server: SecuredKafka, tmp_path: Path, name: str) -> None:
    token = token_file(tmp_path, "a token")
    arguments: dict[str, list[Any]] = {"token": [token], "mutual": [server.authority.issue("streamapp")]}
    ours = cluster(getattr(server, name)(*arguments.get(name, [])))
    theirs = dict(credentials_to_aiokafka_auth(ours.faust_credentials()))
    expected = {
        key: value for key, value in ours.client_options().items() if key not in {"bootstrap_servers", "client_id"}
    }
    assert theirs.keys() == expected.keys()
    for key in ("ssl_context", "sasl_oauth_token_provider"):
        assert type(theirs.pop(key, None)) is type(expected.pop(key, None))
    assert theirs == expected


async def test_every_client_of_ours_does_its_work_with_the_rights_that_the_page_lists(granted: SecuredKafka) -> None:
    settings = Settings(kafka=granted.scram(partitions=PARTITIONS))
    ours = Cluster.of(settings)
    assert (await plan_topics(ours, SPECS, partitions=PARTITIONS)).missing == ()
    assert await live_members(ours, topics.app_id("streamapp", "trading")) == 0
    async with ClientProducer(ours, "test") as producer:
        await producer.send(topics.ARCHIVE, b"alpha", b"commit", partition=0)
    async with BatchProducer(ours, "test") as batches:
        assert await batches.send(topics.changelog("streamapp", "desk"), 0, [(b"key", b"row")]) == 0
    async with KafkaWriter(ours, "test", timeout_s=10) as writer:
        await writer.write([mirrored(topics.SIGNALS_APPROVED)])
    auditor = settings.model_copy(update={"kafka": granted.scram("auditor", partitions=PARTITIONS)})
    async with TopicReader(auditor, topics.ARCHIVE) as reader:
        assert [record.value async for record in reader.read()] == [b"commit"]


async def test_with_a_prefix_two_rules_are_all_the_rights_that_an_installation_needs(granted: SecuredKafka) -> None:
    settings = Settings(kafka=granted.scram("desk", partitions=PARTITIONS, topic_prefix="fx."))
    ours, name = Cluster.of(settings), settings.kafka_deployment
    specs = (*topics.own_topics("fx."), *topics.changelogs(name))
    await create_topics(ours, specs, partitions=PARTITIONS, replication_factor=1)
    assert await existing_topics(ours) == {spec.name for spec in specs}
    await ours.verify(topics.app_id(name, "trading"))
    assert await live_members(ours, topics.app_id(name, "trading")) == 0
    async with ClientProducer(ours, f"{name}-words") as producer:
        await producer.send(topics.ARCHIVE, b"alpha", b"theirs", partition=0)
    async with BatchProducer(ours, f"{name}-rows") as batches:
        assert await batches.send(topics.changelog(name, "desk"), 0, [(b"key", b"row")]) == 0
    async with KafkaWriter(ours, f"{name}-mirror", timeout_s=10) as writer:
        await writer.write([mirrored(topics.SIGNALS_APPROVED)])
    async with TopicReader(settings, topics.ARCHIVE) as reader:
        assert [record.value async for record in reader.read()] == [b"theirs"]
    other = Cluster.of(Settings(kafka=granted.scram("desk", partitions=PARTITIONS)))
    with pytest.raises(ConfigurationError, match=r"Kafka denies user desk a consumer group.*security\.md"):
        await other.verify(topics.app_id("streamapp", "trading"))


async def test_who_has_no_right_to_a_topic_is_told_so_and_where_the_rights_are_listed(granted: SecuredKafka) -> None:
    auditor = cluster(granted.scram("auditor"))
    with pytest.raises(ConfigurationError, match="Kafka refused to create topics: new: TopicAuthorizationFailed"):
        await create_topics(auditor, [topics.TopicSpec("new")], partitions=1, replication_factor=1)
    with pytest.raises(ConfigurationError, match=r"Kafka denies user auditor something on the cluster.*security\.md"):
        async with ClientProducer(auditor, "test"):
            pass
    await granted.allow("kafka-acls --add --allow-principal User:stranger --operation Write --topic dead_letters")
    async with KafkaWriter(cluster(granted.plain("stranger")), "test", timeout_s=5) as writer:
        await writer.write([mirrored(topics.DEAD_LETTERS)])
        with pytest.raises(Transient, match=r"Kafka denies user stranger a topic.*order_execution_archive"):
            await writer.write([mirrored(topics.ARCHIVE)])
    stranger = Settings(kafka=granted.plain("stranger", partitions=PARTITIONS))
    with pytest.raises(ConfigurationError, match="expected topic order_execution_archive"):
        async with TopicReader(stranger, topics.ARCHIVE):
            pass


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda server, _: server.scram(password="wrong secret"), "refuses user streamapp: check kafka.user and"),
        (lambda server, _: server.plain(password="wrong secret"), "refuses user streamapp: check kafka.user and"),
        (lambda server, _: server.plain("nobody"), "refuses user nobody"),
        (
            lambda server, folder: server.token(token_file(folder, "wrong.secret.")),
            "does not take the token in kafka.token_file",
        ),
        (
            lambda server, folder: server.token(token_file(folder, unsecured_token("streamapp", lives_s=-60))),
            "does not take the token in kafka.token_file",
        ),
        (
            lambda server, folder: server.scram(ca_file=Authority(folder).certificate),
            "no CA of kafka.ca_file stands behind the server's certificate",
        ),
        (lambda server, _: server.mutual(server.authority.issue("late", expired=True)), "our certificate"),
        (lambda server, folder: server.mutual(Authority(folder).issue("streamapp")), "check kafka.certificate_file"),
        (
            lambda server, _: server.mutual(server.authority.issue("x"), certificate_file=None, key_file=None),
            "asks for a certificate of ours: set kafka.certificate_file and kafka.key_file",
        ),
        (
            lambda server, _: server.plain(bootstrap=server.inner, security_protocol="SASL_PLAINTEXT", ca_file=None),
            "asks for no user at this port",
        ),
    ],
)
async def test_a_broker_that_turns_us_away_is_a_configuration_error_that_names_the_setting(
    server: SecuredKafka, tmp_path: Path, caplog: pytest.LogCaptureFixture, make: Make, said: str
) -> None:
    caplog.set_level(logging.DEBUG)
    refused = await turned_away(make(server, tmp_path))
    assert isinstance(refused, ConfigurationError)
    assert said in str(refused)
    for secret in ("wrong secret", "wrong.secret.", SCRAM_PASSWORD, PLAIN_PASSWORD):
        assert secret not in str(refused) + caplog.text


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda server, _: KafkaSettings(bootstrap=server.sasl), "It may ask for TLS or a user at this port"),
        (
            lambda server, _: KafkaSettings(
                bootstrap=server.sasl, security_protocol="SSL", ca_file=server.authority.certificate
            ),
            "It may ask for a user, or speak no TLS",
        ),
        (lambda server, _: server.scram(bootstrap=server.inner), "It may speak another protocol"),
    ],
)
async def test_a_broker_that_hangs_up_may_be_one_that_starts_so_it_is_tried_again_with_a_hint(
    server: SecuredKafka, tmp_path: Path, make: Make, said: str
) -> None:
    refused = await turned_away(make(server, tmp_path))
    assert isinstance(refused, Transient)
    assert said in str(refused)
    assert "check kafka.security_protocol" in str(refused)


async def test_a_login_is_not_logged_even_at_debug(server: SecuredKafka, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await existing_topics(cluster(server.plain()))
    assert "Authenticated as streamapp" in caplog.text
    assert PLAIN_PASSWORD not in caplog.text


async def test_a_certificate_and_a_token_that_are_replaced_are_used_by_the_next_connection(
    server: SecuredKafka, tmp_path: Path
) -> None:
    pair = server.authority.issue("rotated")
    options = cluster(server.mutual(pair)).client_options()
    assert await connects(options)
    server.authority.issue("rotated", expired=True)
    assert not await connects(options)
    server.authority.issue("rotated")
    assert await connects(options)

    tokens = cluster(server.token(token_file(tmp_path, unsecured_token("streamapp")))).client_options()
    assert await connects(tokens)
    token_file(tmp_path, unsecured_token("streamapp", lives_s=-60))
    assert not await connects(tokens)


@pytest.mark.parametrize(
    ("worker", "who", "said"),
    [
        (
            "trading",
            {"password": "wrong secret"},
            "it refuses user streamapp: check kafka.user and kafka.password_file",
        ),
        ("trading", {"user": "silent"}, "Kafka denies user silent something on the cluster"),
        ("warehouse", {"user": "auditor"}, "Kafka denies user auditor a consumer group: streamapp-warehouse"),
        ("warehouse", {"user": "blind"}, "Kafka denies user blind a topic"),
        ("warehouse", {"ca_file": Path("missing.pem")}, "kafka.ca_file missing.pem: expected the CA's certificate"),
    ],
)
def test_a_worker_that_is_turned_away_ends_with_one_sentence_and_the_code_for_a_wrong_setting(
    granted: SecuredKafka, tmp_path: Path, worker: str, who: dict[str, Any], said: str
) -> None:
    settings = granted.scram(**{"partitions": PARTITIONS} | who)
    (tmp_path / "password").write_text(settings.password_text() or "")
    environment = {
        "STREAMAPP_KAFKA__PASSWORD_FILE": str(tmp_path / "password"),
        "STREAMAPP_LOCAL__DATA": str(tmp_path / "data"),
        "STREAMAPP_NATS__URL": "nats://127.0.0.1:1",
        **{
            f"STREAMAPP_KAFKA__{name.upper()}": str(value)
            for name, value in settings.model_dump(exclude_unset=True).items()
            if name != "password"
        },
    }
    command = [sys.executable, "-m", "faust", "-A", f"streamapp.{worker}", "worker", "--web-port", str(free_port())]
    ended = subprocess.run(
        command, check=False, capture_output=True, text=True, env={**os.environ, **environment}, timeout=40
    )
    assert said in ended.stderr + ended.stdout
    assert ended.returncode == 78
    # Faust logs what its consumer died of before it asks us what to make of it.
    assert said.endswith("a topic") or "Traceback" not in ended.stderr + ended.stdout
    assert " secret" not in ended.stderr + ended.stdout


async def test_a_broker_that_ends_the_sessions_of_its_clients_loses_and_repeats_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    topic = topics.changelog("streamapp", "desk")
    with secured_kafka(tmp_path, session_ms=700) as server:
        await grant(server)
        ours = cluster(server.scram(partitions=PARTITIONS))
        began = asyncio.get_running_loop().time()
        async with (
            ClientProducer(ours, "words") as words,
            BatchProducer(ours, "batches") as batches,
            KafkaWriter(ours, "mirror", timeout_s=10) as mirror,
        ):
            count, logins = 0, caplog.text.count("Authenticated as")
            while asyncio.get_running_loop().time() < began + 4:
                assert await batches.send(topic, 0, [(b"key", b"%d" % count)]) == count
                assert (await words.send(topics.ARCHIVE, b"a", b"%d" % count, partition=0)).offset == count
                await mirror.write([mirrored(topics.SIGNALS_APPROVED)])
                count += 1
        assert caplog.text.count("Authenticated as") >= logins + 6
        settings = Settings(kafka=server.scram(partitions=PARTITIONS))
        for name in (topic, topics.ARCHIVE, topics.SIGNALS_APPROVED):
            async with TopicReader(settings, name) as reader:
                assert [record.offset async for record in reader.read()] == list(range(count))


def test_check_says_what_keeps_us_out_and_not_that_it_is_to_be_started(
    server: SecuredKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(kafka=server.scram(password="wrong secret"), nats=NatsSettings(url="nats://127.0.0.1:1"))
    monkeypatch.setattr(status, "load_settings", lambda: settings)
    app = typer.Typer()
    status.register(app)
    shown = CliRunner().invoke(app, ["check"])
    assert shown.exit_code == 1
    (line,) = (line for line in shown.output.splitlines() if "Kafka" in line)
    assert line.endswith("does not let us in: it refuses user streamapp: check kafka.user and kafka.password_file")
    assert "secret" not in shown.output


async def connects(options: dict[str, Any]) -> bool:
    """Connect as aiokafka's clients do each time that they connect again: with what they were made with."""
    (address,) = options["bootstrap_servers"]
    host, _, port = address.rpartition(":")
    rest = {name: value for name, value in options.items() if name != "bootstrap_servers"}
    try:
        admin = await create_conn(host, int(port), **rest)
        answer = await admin.send(MetadataRequest([]))
    except (KafkaError, OSError):
        return False
    admin.close()
    return bool(answer.brokers)


async def turned_away(settings: KafkaSettings) -> StreamappError:
    with pytest.raises((KafkaError, OSError)) as raised:
        await existing_topics(cluster(settings))
    return await cluster(settings).explained(raised.value)


def mirrored(topic: str) -> MirrorRecord:
    return MirrorRecord(topic, 0, b"alpha", b"message", {}, timestamp_ms=0)
