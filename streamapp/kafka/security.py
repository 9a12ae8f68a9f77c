"""How any client of ours reaches Kafka: where it is, who we are there, and what it means when it says no."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from dataclasses import dataclass
from typing import Any

from aiokafka.abc import AbstractTokenProvider
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.admin import SaslAuthenticateRequest
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.metadata import MetadataRequest

from streamapp.errors import ConfigurationError, StreamappError, Transient
from streamapp.settings import KafkaSettings, Settings, secret
from streamapp.tls import RenewedContext, fault

CLIENT = "streamapp-probe"
PROBE_MS = 5000
"""How long a broker may take to say why it turned a client away."""
PATIENCE_S, PAUSE_S = 8.0, 0.5
"""How long a start waits for a broker that does not answer yet, and between two looks."""
_UNSECURED = KafkaSettings()
_HUNG_UP = (KafkaConnectionError, ConnectionError, ssl.SSLEOFError)
DENIALS = {
    TopicAuthorizationFailedError: "a topic",
    GroupAuthorizationFailedError: "a consumer group",
    ClusterAuthorizationFailedError: "something on the cluster",
}


@dataclass(frozen=True)
class Cluster:
    """A Kafka that clients can be made for; a bare ``host:port`` stands for one that asks for nothing.

    Attributes:
        bootstrap: ``host:port``, several with commas.
        settings: How it is secured.
    """

    bootstrap: str
    settings: KafkaSettings = _UNSECURED

    @classmethod
    def of(cls, settings: Settings) -> Cluster:
        """Return the deployment's Kafka."""
        return cls(settings.kafka_bootstrap, settings.kafka)

    @classmethod
    def at(cls, kafka: Cluster | str) -> Cluster:
        """Return ``kafka`` itself, or the unsecured one at this address."""
        return cls(kafka) if isinstance(kafka, str) else kafka

    def client_options(self, client_id: str | None = None) -> dict[str, Any]:
        """Return the arguments with which a client of aiokafka reaches it; secrets are read now.

        Args:
            client_id: Under which Kafka's own log, metrics and quotas know it, prefix included.

        Raises:
            ConfigurationError: A file of the settings can't be used; names the setting.
        """
        named = {"client_id": client_id or self.settings.prefixed("streamapp")}
        return {"bootstrap_servers": self.bootstrap.replace(" ", "").split(","), **named, **self._security()}

    def faust_credentials(self) -> Any:
        """Return the same as Faust's ``broker_credentials``, None where nothing is secured.

        Raises:
            ConfigurationError: as of :meth:`client_options`.
        """
        import faust  # mirror and the command line come here too, and do without it
        from faust.auth import OAuthCredentials

        options = self._security()
        context = options.get("ssl_context")
        if self.settings.security_protocol == "PLAINTEXT":
            return None
        if self.settings.sasl_mechanism is None:
            return faust.SSLCredentials(context)
        if self.settings.sasl_mechanism == "OAUTHBEARER":
            return OAuthCredentials(oauth_cb=options["sasl_oauth_token_provider"], ssl_context=context)
        return faust.SASLCredentials(
            username=options["sasl_plain_username"],
            password=options["sasl_plain_password"],
            ssl_context=context,
            mechanism=self.settings.sasl_mechanism,
        )

    def _security(self) -> dict[str, Any]:
        settings = self.settings
        options: dict[str, Any] = {"security_protocol": settings.security_protocol}
        if settings.security_protocol.endswith("SSL"):
            options["ssl_context"] = RenewedContext(settings, "kafka")
        if settings.sasl_mechanism is not None:
            options["sasl_mechanism"] = settings.sasl_mechanism
            _keep_secrets_out_of_the_log()
        if settings.sasl_mechanism == "OAUTHBEARER":
            options["sasl_oauth_token_provider"] = TokenFile(settings)
        elif settings.sasl_mechanism is not None:
            options |= {"sasl_plain_username": settings.user, "sasl_plain_password": settings.password_text()}
        return options

    async def verify(self, group: str) -> None:
        """Return if a broker lets us in and ``group`` may be read in: without that right Faust waits for ever, unsaid.

        One that is just starting, or has much to do, is given ``PATIENCE_S``.

        Raises:
            ConfigurationError, Transient: as :meth:`explained` returns them.
        """
        until_s = time.monotonic() + PATIENCE_S
        while True:
            refused: Exception | None = None
            for host, port, _ in collect_hosts(self.bootstrap):
                if (refused := await self._refusal(host, port, group)) is None:
                    return
            error = await self.explained(refused or ValueError("no address"))
            if not isinstance(error, Transient) or time.monotonic() >= until_s:
                raise error
            await asyncio.sleep(PAUSE_S)

    async def explained(self, error: BaseException) -> StreamappError:
        """Return what to raise for a client that failed with ``error``, in words that say what to do.

        aiokafka logs why a broker turned it away and raises that it could not connect; so the brokers are asked once
        more.

        Returns:
            ConfigurationError: A broker says that it does not let us in, or denies us something.
            Transient: None answers now, or hangs up, as one that starts or stops does as well.
        """
        if (denial := self.denial(error)) is not None:
            return denial
        guesses = []
        for host, port, _ in collect_hosts(self.bootstrap):
            refused = await self._refusal(host, port)
            if refused is not None and (reason := self._meaning(refused)) is not None:
                return ConfigurationError(f"Kafka at {host}:{port} does not let us in: {reason}")
            if isinstance(refused, _HUNG_UP) and not isinstance(refused, ConnectionRefusedError):
                guesses.append(f"Kafka at {host}:{port} ends the connection without a word. {self._guess()}")
        away = f"Kafka at {self.bootstrap} does not answer ({error!r}). Is it running, and kafka.bootstrap right?"
        return Transient(guesses[0] if guesses else away)

    def denial(self, error: BaseException) -> ConfigurationError | None:
        """Return in words which right we lack, or None if ``error`` says nothing of rights."""
        for kind, what in DENIALS.items():
            if isinstance(error, kind):
                named = f": {' '.join(map(str, error.args))}" if error.args else ""
                return ConfigurationError(
                    f"Kafka denies {self._us} {what}{named}. Give it the rights that docs/security.md lists"
                )
        return None

    @property
    def _us(self) -> str:
        return f"user {self.settings.user}" if self.settings.user else "this client"

    async def _refusal(self, host: str, port: int, group: str = "") -> Exception | None:
        """Return what a connection to this broker fails with now, or the question for a group's coordinator."""
        options = self._security()
        try:
            name = self.settings.prefixed(CLIENT)
            connection = await create_conn(host, port, client_id=name, request_timeout_ms=PROBE_MS, **options)
            try:
                await self._ask(connection, group)
            finally:
                connection.close()
        except (KafkaError, OSError) as error:
            return error
        return None

    async def _ask(self, connection: Any, group: str) -> None:
        # aiokafka takes the refusal of a token for the end of the login, and the next refusal for an empty answer.
        if not (await connection.send(MetadataRequest([]))).brokers:
            if self.settings.sasl_mechanism is None:
                raise KafkaError("it knows no brokers yet")  # it is just starting
            raise SaslAuthenticationFailed
        if group:
            found = await connection.send(FindCoordinatorRequest(group, 0))
            if found.error_code == GroupAuthorizationFailedError.errno:
                raise GroupAuthorizationFailedError(group)

    def _meaning(self, error: Exception) -> str | None:
        """Return what the broker said against us, in words; None if it said nothing."""
        settings = self.settings
        if isinstance(error, SaslAuthenticationFailed) and settings.sasl_mechanism == "OAUTHBEARER":
            return "it does not take the token in kafka.token_file: renew it"
        if isinstance(error, SaslAuthenticationFailed):
            return f"it refuses user {settings.user}: check kafka.user and kafka.password_file"
        if isinstance(error, UnsupportedSaslMechanismError):
            return f"it does not take {settings.sasl_mechanism}: set kafka.sasl_mechanism to what it takes"
        if isinstance(error, IllegalSaslStateError):
            return "it asks for no user at this port: set kafka.security_protocol to PLAINTEXT or SSL"
        return fault(error, "kafka")

    def _guess(self) -> str:
        """Return what most likely made a broker hang up: there is no answer to a client that speaks otherwise."""
        settings = self.settings
        if settings.sasl_mechanism == "OAUTHBEARER":
            return "It may not take the token in kafka.token_file: renew it"
        if settings.security_protocol == "PLAINTEXT":
            return "It may ask for TLS or a user at this port: check kafka.security_protocol"
        if settings.security_protocol == "SSL":
            return "It may ask for a user, or speak no TLS at this port: check kafka.security_protocol"
        return "It may speak another protocol at this port: check kafka.security_protocol"


class TokenFile(AbstractTokenProvider):
    """OAUTHBEARER's token as its file holds it when a connection is made."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._path = settings.token_file
        secret(self._path)  # says clearly that it is not there; in a connection it would be one of many errors

    async def token(self) -> str:
        """Return the token; asked once for each connection, from whichever event loop makes it."""
        return (secret(self._path) or "").strip()


def _keep_secrets_out_of_the_log() -> None:
    """Drop what aiokafka logs at DEBUG of a login: the whole request, with the password or the token in it."""
    logger = logging.getLogger("aiokafka.conn")
    if _is_no_login not in logger.filters:
        logger.addFilter(_is_no_login)


def _is_no_login(record: logging.LogRecord) -> bool:
    arguments = record.args if isinstance(record.args, tuple) else ()
    return all(getattr(each, "API_KEY", None) != SaslAuthenticateRequest.API_KEY for each in arguments)
