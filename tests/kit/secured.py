"""Servers that ask who we are, and show who they are: the real ones, each on free ports and in a folder of its own."""

from __future__ import annotations

import base64
import json
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

from aiokafka.conn import create_conn
from aiokafka.protocol.admin import CreateAclsRequest

from streamapp.local import kafka, nats
from streamapp.local.ports import LOOPBACK, free_port
from streamapp.local.process import REPOSITORY, ProcessSpec
from streamapp.settings import KafkaSettings, NatsSettings
from tests.kit.certificates import Authority, Pair
from tests.kit.stacks import running

SCRAM_PASSWORD, PLAIN_PASSWORD = "scram secret", "plain secret"
_SECURED = """\
listeners=PLAINTEXT://{host}:{open},SASL_SSL://{host}:{sasl},SSL://{host}:{tls},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{open},SASL_SSL://{host}:{sasl},SSL://{host}:{tls}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL
ssl.keystore.type=PEM
ssl.keystore.location={store}
ssl.truststore.type=PEM
ssl.truststore.location={ca}
ssl.principal.mapping.rules=RULE:^CN=(.*?)$/$1/
listener.name.ssl.ssl.client.auth=required
listener.name.sasl_ssl.ssl.client.auth=requested
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
user_streamapp="{plain}" user_stranger="{plain}";
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.oauthbearer.sasl.jaas.config=\
org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";
listener.name.sasl_ssl.connections.max.reauth.ms={session_ms}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
"""
"""Behind the unsecured listener stands the broker itself, as a cluster's inner listener does: its tools use it too."""
_USERS = ("streamapp", "auditor", "silent", "blind", "desk")
# Numbers of Kafka's protocol.
_TOPIC, _GROUP = 2, 3
_LITERAL, _PREFIXED = 3, 4
_OPERATIONS = {"Read": 3, "Write": 4, "Create": 5, "Describe": 8}
_ALLOW = 3
PAGE = REPOSITORY / "docs" / "security.md"


def documented(start: str) -> list[str]:
    """Return the code blocks of docs/security.md that begin with ``start``: what it tells users is what tests run."""
    blocks = re.findall(r"```\w*\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    found = [block for block in blocks if block.startswith(start)]
    assert found, start
    return found


@dataclass(frozen=True)
class SecuredKafka:
    """A running Kafka.

    Attributes:
        inner: host:port of the listener that asks for nothing.
        sasl: Of the one for SASL over TLS.
        tls: Of the one that knows its clients by their certificates.
        authority: Whose certificates it takes, and shows.
    """

    inner: str
    sasl: str
    tls: str
    authority: Authority

    def scram(self, user: str = "streamapp", **changes: Any) -> KafkaSettings:
        """Return the settings of a user with SCRAM."""
        return self._sasl({"sasl_mechanism": "SCRAM-SHA-512", "user": user, "password": SCRAM_PASSWORD} | changes)

    def plain(self, user: str = "streamapp", **changes: Any) -> KafkaSettings:
        """Return the settings of a user with PLAIN."""
        return self._sasl({"sasl_mechanism": "PLAIN", "user": user, "password": PLAIN_PASSWORD} | changes)

    def token(self, file: Path, **changes: Any) -> KafkaSettings:
        """Return the settings of whoever the token in ``file`` names."""
        return self._sasl({"sasl_mechanism": "OAUTHBEARER", "token_file": file} | changes)

    def mutual(self, pair: Pair, **changes: Any) -> KafkaSettings:
        """Return the settings of whoever the certificate names."""
        files = {"certificate_file": pair.certificate, "key_file": pair.key, "ca_file": self.authority.certificate}
        return KafkaSettings.model_validate({"bootstrap": self.tls, "security_protocol": "SSL"} | files | changes)

    async def allow(self, command: str) -> None:
        """Do what a ``kafka-acls --add`` does; the tool itself is not among the broker's jars."""
        words = shlex.split(command.replace("\\\n", " "))
        options = [(name, value) for name, value in pairwise(words) if name.startswith("--")]
        named = {name: [value for each, value in options if each == name] for name, _ in options}
        pattern = _PREFIXED if "prefixed" in named.get("--resource-pattern-type", ()) else _LITERAL
        resources = [(_TOPIC, name) for name in named.get("--topic", ())]
        resources += [(_GROUP, name) for name in named.get("--group", ())]
        host, _, port = self.inner.rpartition(":")
        connection = await create_conn(host, int(port))
        try:
            for principal, (kind, name), operation in product(
                named["--allow-principal"], resources, named["--operation"]
            ):
                asked = CreateAclsRequest(kind, name, pattern, principal, "*", _OPERATIONS[operation], _ALLOW)
                answer = await connection.send(asked)
                assert [code for code, _ in answer.creation_responses] == [0], answer
        finally:
            connection.close()

    def _sasl(self, options: dict[str, Any]) -> KafkaSettings:
        secured = {"bootstrap": self.sasl, "security_protocol": "SASL_SSL", "ca_file": self.authority.certificate}
        return KafkaSettings.model_validate(secured | options)


@contextmanager
def secured_kafka(folder: Path, *, session_ms: int = 0) -> Iterator[SecuredKafka]:
    """Run a Kafka that asks for TLS, a user and rights, for as long as the block.

    Args:
        folder: Of this server alone.
        session_ms: After so long it ends the connection of a client that does not log in again, as managed clusters do
            and aiokafka does not; 0: never.
    """
    authority = Authority(folder / "ca")
    inner, sasl, tls, controller = (free_port() for _ in range(4))
    spec = kafka.prepare(folder / "kafka", inner, controller)
    settings = Path(spec.argv[-1])
    secured = _SECURED.format(
        host=LOOPBACK,
        open=inner,
        sasl=sasl,
        tls=tls,
        controller=controller,
        store=authority.issue("kafka").store,
        ca=authority.certificate,
        plain=PLAIN_PASSWORD,
        session_ms=session_ms,
    )
    kept = [line for line in settings.read_text().splitlines() if not _is_listener(line)]
    settings.write_text("\n".join(kept) + "\n" + secured)
    java = spec.argv[:-2]
    _format_with_users(java, settings)
    with running(spec, folder):
        yield SecuredKafka(spec.address, f"{LOOPBACK}:{sasl}", f"{LOOPBACK}:{tls}", authority)


def unsecured_token(subject: str, lives_s: float = 3600) -> str:
    """Return a token that nobody signed: the broker's own validator for trying OAUTHBEARER takes it."""
    now = int(time.time())
    parts = ({"alg": "none"}, {"sub": subject, "iat": now - 5, "exp": now + int(lives_s)})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts) + "."


def _is_listener(line: str) -> bool:
    return line.startswith(("listeners=", "advertised.listeners=", "listener.security.protocol.map="))


def _format_with_users(java: tuple[str, ...], settings: Path) -> None:
    shutil.rmtree(settings.parent / "store", ignore_errors=True)
    words = ["format", "--cluster-id=0123456789abcdefABCDEF", "-c", str(settings)]
    for user, size in product(_USERS, (256, 512)):
        words.append(f"--add-scram=SCRAM-SHA-{size}=[name={user},password={SCRAM_PASSWORD}]")
    done = subprocess.run((*java, "kafka.tools.StorageTool", *words), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


NATS_PASSWORDS = {
    f"{user.upper()}_PASSWORD": f"{user}-secret" for user in ("streamapp", "terminals", "riskengine", "reader")
}


@dataclass(frozen=True)
class SecuredNats:
    """A NATS server to run, and the settings of its clients."""

    spec: ProcessSpec
    authority: Authority

    def settings(self, **changes: Any) -> NatsSettings:
        """Return the settings of a client that shows a certificate."""
        pair = self.authority.issue("client")
        files = {"ca_file": self.authority.certificate, "certificate_file": pair.certificate, "key_file": pair.key}
        return NatsSettings.model_validate({"url": self.spec.address.replace("nats:", "tls:")} | files | changes)

    def user(self, name: str, **changes: Any) -> NatsSettings:
        """Return the settings of one of the users of docs/security.md."""
        return self.settings(**({"user": name, "password": NATS_PASSWORDS[f"{name.upper()}_PASSWORD"]} | changes))


def secured_nats(folder: Path, conf: str) -> SecuredNats:
    """Return a NATS server with these further settings, in which ``$SERVER_CERTIFICATE`` and the like are known."""
    authority = Authority(folder / "ca")
    pair = authority.issue("nats")
    spec = nats.prepare(folder / "nats", free_port(), free_port())
    settings = Path(spec.argv[-1])
    settings.write_text(settings.read_text() + conf)
    files = {
        "SERVER_CERTIFICATE": str(pair.certificate),
        "SERVER_KEY": str(pair.key),
        "CLIENTS_CA": str(authority.certificate),
    }
    return SecuredNats(replace(spec, environment={**files, **NATS_PASSWORDS}), authority)
