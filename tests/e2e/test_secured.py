"""The road on servers that ask for TLS, a user and rights: approved signals in, rows in ClickHouse out.

Kafka with SASL over TLS, a user and the rights that docs/security.md lists; NATS with mutual TLS, a user and
permissions; ClickHouse's engine behind a front that asks for TLS and a password.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from streamapp.local import clickhouse
from streamapp.local.own import OwnStack
from streamapp.local.ports import free_port
from streamapp.local.process import RunningProcess
from streamapp.settings import ClickHouseSettings, SecuredSection
from tests.e2e.conftest import FOUR_ACCOUNTS, LONG_LIVES, SHORT_WINDOW
from tests.e2e.road import travel
from tests.e2e.traffic import Traffic
from tests.kit.certificates import Authority
from tests.kit.clickhouse_front import secured_clickhouse
from tests.kit.secured import SecuredKafka, documented, secured_kafka, secured_nats
from tests.kit.stacks import running, running_stack
from tests.kit.waiting import eventually

SESSION_MS = 5000
"""How long Kafka takes a login for: every connection ends several times in the test."""
CERTIFICATE_LIVES_S = 10
"""Longer than NATS takes to come back, so that every process of ours shows this certificate before it ends."""
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


@dataclass
class House:
    """A stack on secured servers, and who signs the certificates that it shows to Kafka and to NATS."""

    stack: OwnStack
    nats: RunningProcess
    signers: tuple[Authority, Authority]

    def issue(self, ends: datetime | None = None) -> None:
        """Put new certificates of ours in the place of the old ones."""
        for signer in self.signers:
            signer.issue("client", ends=ends)

    async def restart_nats(self) -> None:
        """Have every client connect to NATS anew; to Kafka each does so every five seconds."""
        await asyncio.to_thread(self.nats.stop)
        self.nats = RunningProcess(self.nats.spec, self.stack.data)
        await asyncio.to_thread(self.nats.wait_ready)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("secured")
    engine = clickhouse.prepare(folder / "clickhouse", free_port())
    nats = secured_nats(folder / "nats", _PERMISSIONS)
    with (
        secured_kafka(folder / "kafka", session_ms=SESSION_MS) as kafka,
        running(nats.spec, folder / "nats") as server,
        running(engine, folder),
        secured_clickhouse(kafka.authority, engine.address, "click-secret") as front,
    ):
        asyncio.run(_grant(kafka))
        login = {"user": "streamapp", "password": front.password, "ca_file": front.authority.certificate}
        ours = kafka.authority.issue("client")
        files: dict[str, Any] = {"certificate_file": ours.certificate, "key_file": ours.key}
        sections = [
            _section(folder, "kafka", kafka.scram(session_timeout_s=6, **files)),
            _section(folder, "nats", nats.user("streamapp")),
            _section(folder, "clickhouse", ClickHouseSettings.model_validate(login | {"url": front.url})),
        ]
        with running_stack(folder / "stack", "\n".join((*sections, SHORT_WINDOW, LONG_LIVES, FOUR_ACCOUNTS))) as stack:
            house = House(stack, server, (kafka.authority, nats.authority))
            try:
                yield house
            finally:
                house.nats.stop()


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


async def test_every_order_takes_the_whole_road_and_no_secret_reaches_a_log(house: House) -> None:
    stack = house.stack
    outcome = await travel(stack.settings, signals=40, rate=20, seed=11)
    assert outcome.differences == []
    assert outcome.orders == outcome.due
    logs = sorted((stack.data / "logs").glob("*.log"))
    assert {"trading.log", "mirror.log", "warehouse.log", "terminals.log"} <= {log.name for log in logs}
    for log in logs:
        text = log.read_text()
        assert not [secret for secret in ("scram secret", "-secret") if secret in text], log
        assert "forbids" not in text, log


async def test_orders_go_on_while_our_certificates_end_and_others_have_taken_their_place(house: House) -> None:
    async def replace(_: Traffic) -> None:
        ends = datetime.now(UTC) + timedelta(seconds=CERTIFICATE_LIVES_S)
        house.issue(ends)
        await house.restart_nats()
        house.issue()
        house.signers[1].issue("nats")  # the server's own
        await eventually(lambda: datetime.now(UTC) > ends)
        await house.restart_nats()

    outcome = await travel(house.stack.settings, signals=60, rate=3, seed=12, meanwhile=replace)
    assert outcome.differences == []
    assert outcome.orders == outcome.due
    for log in (house.stack.data / "logs").glob("*.log"):
        assert "has expired" not in log.read_text(), log
