"""The road on servers that ask for TLS, a user and rights: approved signals in, rows in ClickHouse out.

Kafka with SASL over TLS, a user and the rights that docs/security.md lists; NATS with mutual TLS, a user and
permissions; ClickHouse's engine behind a front that asks for TLS and a password.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamapp.local import clickhouse
from streamapp.local.own import OwnStack
from streamapp.local.ports import free_port
from streamapp.settings import ClickHouseSettings, SecuredSection
from tests.e2e.conftest import FOUR_ACCOUNTS, LONG_LIVES, SHORT_WINDOW
from tests.e2e.road import travel
from tests.kit.clickhouse_front import secured_clickhouse
from tests.kit.secured import SecuredKafka, documented, secured_kafka, secured_nats
from tests.kit.stacks import running, running_stack

SESSION_MS = 5000
"""How long Kafka takes a login for: every connection ends several times in the test."""
# One user for all that runs here, the risk engine and whoever compares the witnesses among it.
_PERMISSIONS = """
tls {cert_file: $SERVER_CERTIFICATE, key_file: $SERVER_KEY, ca_file: $CLIENTS_CA, verify: true}
accounts { TRADING {
  jetstream: enabled
  users: [{ user: streamapp, password: $STREAMAPP_PASSWORD, permissions: {
    publish: [
      "$JS.API.>", "$JS.ACK.>", "$KV.streamapp-mirror.>", "mt5.>", "orders.*.>", "positions.>", "accounts.>",
      "broker.fill.>", "broker.error.>", "signals.>", "command_results.>"
    ]
    subscribe: ["_INBOX.>", "mt5.*.*", "orders.*.>", "positions.>", "accounts.>", "broker.>", "signals.>"]
    allow_responses: true
  }}]
}}
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnStack]:
    folder = tmp_path_factory.mktemp("secured")
    engine = clickhouse.prepare(folder / "clickhouse", free_port())
    nats = secured_nats(folder / "nats", _PERMISSIONS)
    with (
        secured_kafka(folder / "kafka", session_ms=SESSION_MS) as kafka,
        running(nats.spec, folder / "nats"),
        running(engine, folder),
        secured_clickhouse(kafka.authority, engine.address, "click-secret") as front,
    ):
        asyncio.run(_grant(kafka))
        login = {"user": "streamapp", "password": front.password, "ca_file": front.authority.certificate}
        sections = [
            _section(folder, "kafka", kafka.scram(session_timeout_s=6)),
            _section(folder, "nats", nats.user("streamapp")),
            _section(folder, "clickhouse", ClickHouseSettings.model_validate(login | {"url": front.url})),
        ]
        with running_stack(folder / "stack", "\n".join((*sections, SHORT_WINDOW, LONG_LIVES, FOUR_ACCOUNTS))) as stack:
            yield stack


async def _grant(kafka: SecuredKafka) -> None:
    for command in documented("kafka-acls"):
        await kafka.allow(command)


def _section(folder: Path, name: str, settings: SecuredSection) -> str:
    values = settings.model_dump(exclude_unset=True, exclude={"password"}, mode="json")
    values["password_file"] = str(_written(folder, name, settings.password_text() or ""))
    return f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


def _written(folder: Path, name: str, password: str) -> Path:
    path = folder / f"{name}.password"
    path.write_text(password + "\n")
    path.chmod(0o600)
    return path


async def test_every_order_takes_the_whole_road_and_no_secret_reaches_a_log(stack: OwnStack) -> None:
    outcome = await travel(stack.settings, signals=40, rate=20, seed=11)
    assert outcome.differences == []
    assert outcome.orders == outcome.sent("good", "rejected")
    logs = sorted((stack.data / "logs").glob("*.log"))
    assert {"trading.log", "mirror.log", "warehouse.log", "terminals.log"} <= {log.name for log in logs}
    for log in logs:
        text = log.read_text()
        assert not [secret for secret in ("scram secret", "-secret") if secret in text], log
        assert "forbids" not in text, log
