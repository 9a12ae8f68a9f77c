"""The settings: one frozen tree, and the only place that reads the environment.

``streamapp.toml`` in the working folder (``STREAMAPP_CONFIG`` names another), overridden by ``STREAMAPP_SECTION__NAME``
in a ``.env`` beside it, and that by the same in the environment. docs/configuration.md is generated from the
descriptions below.
"""

from __future__ import annotations

import codecs
import logging
import os
import platform
import re
import stat
import tomllib
from collections.abc import Iterator
from datetime import time
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from streamapp.domain.limits import (
    NO_SYMBOL_LIMITS,
    AccountLimits,
    Limits,
    Multiple,
    Share,
    SymbolLimits,
    needs_terminal,
    strictest,
)
from streamapp.domain.notification import NotificationEvent, QuietHours, Urgency
from streamapp.domain.sizing import Sizing
from streamapp.domain.symbol_names import SymbolNames
from streamapp.domain.vocabulary import Lots
from streamapp.errors import ConfigurationError
from streamapp.ports import Ports
from streamapp.subjects import EXECUTION_IN, RESERVED_ACCOUNTS
from streamapp.topics import INPUT_DAYS, SIGNALS_APPROVED

logger = logging.getLogger(__name__)

Role = Literal["both", "execution", "connector"]
StreamName = Literal["EXECUTION_IN", "ACCOUNT_SNAPSHOTS", "EXECUTION_OUT"]
HistoryTable = Literal["order_events", "facts", "account_history", "position_history"]
Meaning = TypeVar("Meaning")
WordField = Literal["status", "intent", "scope", "side", "order_type", "time_in_force", "fill_policy"]
"""The fields of a signal whose values are words."""
DAY_S = 86400.0
STORE_NAME = r"^[A-Za-z0-9_]{1,32}$"
SymbolName = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Route = Annotated[dict[str, Lots], BeforeValidator(lambda value: {value: 1} if isinstance(value, str) else value)]
"""Accounts, each with the weight that a signal's volume is multiplied by for it; one account alone has weight 1."""


class Section(BaseModel):
    """A part of the tree.

    Frozen, and a name that is not known is an error, not a setting that silently does nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


class SecuredSection(Section):
    """A server that may ask who we are, and be asked who it is."""

    user: str | None = Field(None, description="User name, if the server asks for one.")
    password_file: Path | None = Field(None, description="File with the password.")
    password: SecretStr | None = Field(
        None, description="The password itself, where it comes from the environment. In a file use password_file."
    )
    ca_file: Path | None = Field(
        None, description="The CAs (PEM) by which the server's certificate is known. Not set: those of the system."
    )
    certificate_file: Path | None = Field(
        None,
        description="Our certificate (PEM, with what stands between it and its CA), if the server asks for it.",
    )
    key_file: Path | None = Field(None, description="The private key (PEM) of certificate_file.")
    key_password_file: Path | None = Field(None, description="File with the password of key_file, if it has one.")

    @property
    def names_tls_files(self) -> bool:
        """Whether a CA or a certificate is set."""
        return self.ca_file is not None or self.certificate_file is not None

    def password_text(self) -> str | None:
        """Return the password, read now; None if none is set.

        Raises:
            ConfigurationError: its file can't be read.
        """
        return secret(self.password_file) if self.password is None else self.password.get_secret_value()

    @model_validator(mode="after")
    def _goes_together(self) -> SecuredSection:
        if self.password is not None and self.password_file is not None:
            raise ValueError("expected password or password_file, got both")
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("expected certificate_file and key_file together, got one of them")
        if self.key_password_file is not None and self.key_file is None:
            raise ValueError("expected key_file with key_password_file, got none")
        return self


def _matching(text: str, pattern: str, expected: str) -> str:
    if re.fullmatch(pattern, text) is None:
        raise ValueError(f"expected {expected}, got {text!r:.80}")
    return text


class KafkaSettings(SecuredSection):
    """Kafka; docs/security.md says what a secured cluster needs."""

    bootstrap: str | None = Field(
        None, description="host:port[,host:port] of the brokers. Not set: a local one, started by `streamapp up`."
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="As every Kafka client calls it: SSL is TLS, SASL asks for a user."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = Field(
        None, description="How we say who we are: by user and password, or by a token (OAUTHBEARER)."
    )
    token_file: Path | None = Field(
        None,
        description="OAUTHBEARER: file with the token, which its issuer keeps fresh; read for each connection.",
    )
    topic_prefix: str = Field(
        "",
        description="Begins the name of everything of ours in the cluster: topics, consumer groups and clients. "
        "Letters, digits, ., _ and -, 64 at most. Never changed after the first start.",
    )
    partitions: int = Field(8, ge=1, description="Partitions of every topic. Never changed after the first start.")
    replication_factor: int = Field(1, ge=1, description="Replicas of every topic; 3 in production.")
    standby_replicas: int = Field(
        0,
        ge=0,
        description="How many other trading workers keep a copy of each partition's rows, so that one of them can take "
        "it over at once. The same for all workers.",
    )
    store: str | None = Field(
        None,
        pattern=STORE_NAME,
        description="Which store the trading workers have: the name that `streamapp rebuild --into` was given. "
        "Not set: the first one.",
    )
    min_insync_replicas: int | None = Field(
        None,
        ge=1,
        description="Replicas that have a record before it counts as written, of the topics that `streamapp init` "
        "creates. Not set: one less than replication_factor, and 1 at least.",
    )
    session_timeout_s: float = Field(
        10.0, gt=0, description="A worker that is silent for so long loses its partitions."
    )
    send_timeout_s: float = Field(
        10.0, gt=0, description="How long mirror waits for Kafka's acknowledgement before it starts over where it was."
    )

    @field_validator("topic_prefix")
    @classmethod
    def _begins_a_topic(cls, prefix: str) -> str:
        return _matching(prefix, r"[A-Za-z0-9._-]{0,64}", "letters, digits, ., _ and -, 64 at most")

    def prefixed(self, name: str) -> str:
        """Return what a topic, a consumer group or a client of ours is called in the cluster."""
        return self.topic_prefix + name

    @property
    def insync_replicas(self) -> int:
        """``min.insync.replicas`` of every topic: the configured, or what outlives the loss of one replica."""
        return self.min_insync_replicas or max(1, self.replication_factor - 1)

    @model_validator(mode="after")
    def _means_something(self) -> KafkaSettings:
        if self.bootstrap is None and self.security_protocol != "PLAINTEXT":
            raise ValueError("expected bootstrap with security_protocol: the local Kafka is not secured")
        if self.names_tls_files and not self.security_protocol.endswith("SSL"):
            raise ValueError(
                f"expected security_protocol SSL or SASL_SSL with files of TLS, got {self.security_protocol}"
            )
        for problem in self._sasl_problems():
            raise ValueError(problem)
        if self.insync_replicas > self.replication_factor:
            raise ValueError(
                "expected min_insync_replicas up to replication_factor, got more: nothing could be written"
            )
        return self

    def _sasl_problems(self) -> Iterator[str]:
        named, token = self.user is not None, self.token_file is not None
        has_password = self.password is not None or self.password_file is not None
        if not self.security_protocol.startswith("SASL"):
            if self.sasl_mechanism or named or has_password or token:
                yield f"expected security_protocol SASL_SSL for a user or a token, got {self.security_protocol}"
        elif self.sasl_mechanism is None:
            yield "expected sasl_mechanism with security_protocol SASL_SSL and SASL_PLAINTEXT, got none"
        elif self.sasl_mechanism == "OAUTHBEARER":
            if not token or named or has_password:
                yield "expected token_file, and no user and password, with sasl_mechanism OAUTHBEARER"
        elif not (named and has_password) or token:
            yield f"expected user and password_file, and no token_file, with sasl_mechanism {self.sasl_mechanism}"


class StreamLimits(Section):
    """What a stream may grow to; see `[nats.streams.NAME]`."""

    max_bytes: int | None = Field(None, gt=0, description="Most bytes. `streamapp init` never lowers it.")
    max_age_s: float | None = Field(
        None, gt=0, description="How long a message is kept. `streamapp init` never lowers it."
    )
    discard: Literal["old", "new"] = Field(
        "old",
        description='What a full stream does: drop its oldest message, or refuse the "new" one, so that its publisher '
        "knows. Nothing leaves our streams but by age: with new, max_bytes must hold max_age_s of your traffic.",
    )


class NatsSettings(SecuredSection):
    """NATS; docs/security.md says what a secured server needs."""

    url: str | None = Field(
        None,
        description="nats://host:port, or tls://host:port: then nothing is said to a server without TLS. Several with "
        "commas. Not set: a local server, started by `streamapp up`.",
    )
    credentials_file: Path | None = Field(None, description="A .creds file (JWT and seed).")
    nkey_file: Path | None = Field(None, description="File with an nkey's seed (SU...).")
    tls_first: bool = Field(
        False, description="The server begins with TLS (handshake_first), before it says anything itself."
    )
    stream_prefix: str = Field(
        "",
        description="Begins the names of our streams, of their durable consumers and of mirror's bucket. Letters, "
        "digits, _ and -, 32 at most. Never changed after the first start.",
    )
    subject_prefix: str = Field(
        "",
        description="Stands before every subject of ours, with a dot between them: PREFIX.signals.approved.EURUSD. For "
        "several installations in one account, each with a stream_prefix too. Tokens of letters, digits, _ and - with "
        "dots between them, 64 at most. Everybody who talks to us uses it: terminals by this setting, others in the "
        "subjects themselves. Never changed after the first start.",
    )
    replicas: int = Field(1, ge=1, description="Replicas of the streams; 3 in production.")
    publish_timeout_s: float = Field(
        5.0, gt=0, description="How long to wait for JetStream's acknowledgement before trying again."
    )
    streams: dict[StreamName, StreamLimits] = Field(
        default_factory=dict, description="Limits of our streams, by name, see below. Not set: ours."
    )

    @field_validator("stream_prefix")
    @classmethod
    def _begins_a_stream(cls, prefix: str) -> str:
        return _matching(prefix, r"[A-Za-z0-9_-]{0,32}", "letters, digits, _ and -, 32 at most")

    @field_validator("subject_prefix")
    @classmethod
    def _begins_a_subject(cls, prefix: str) -> str:
        # What begins with _ or $ is the servers' own: inboxes, JetStream.
        pattern = r"(?=.{0,64}\Z)([A-Za-z0-9-][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*)?"
        return _matching(
            prefix, pattern, "letters, digits, _ and - with single dots between them, 64 at most, no _ first"
        )

    def prefixed(self, name: str) -> str:
        """Return what a stream, a consumer or a bucket of ours is called."""
        return self.stream_prefix + name

    def subject(self, name: str) -> str:
        """Return a subject of ours as the server knows it; what begins with ``$`` or ``_`` is the server's own."""
        return f"{self.subject_prefix}.{name}" if self.subject_prefix and not name.startswith(("$", "_")) else name

    @property
    def demands_tls(self) -> bool:
        """Whether nothing may be said to a server that offers no TLS: a password would be read on the way."""
        return self.tls_first or self.names_tls_files or any(url.startswith("tls://") for url in self.urls)

    @property
    def urls(self) -> tuple[str, ...]:
        """The configured servers."""
        return tuple(url.strip() for url in (self.url or "").split(",") if url.strip())

    @model_validator(mode="after")
    def _one_identity(self) -> NatsSettings:
        ways = {"user": self.user, "credentials_file": self.credentials_file, "nkey_file": self.nkey_file}
        if len(named := [name for name, value in ways.items() if value is not None]) > 1:
            raise ValueError(f"expected one of user, credentials_file and nkey_file, got {' and '.join(named)}")
        if self.user is None and (self.password is not None or self.password_file is not None):
            raise ValueError("expected user with a password, got none")
        if self.demands_tls and self.url is None:
            raise ValueError("expected url with settings of TLS: the local server is not secured")
        return self


class ClickHouseSettings(SecuredSection):
    """ClickHouse; docs/security.md says what a secured server needs."""

    url: str | None = Field(
        None, description="http://host:port or https://host:port. Not set: a local engine, started by `streamapp up`."
    )
    user: str = Field("default", description="User name.")
    database: str = Field("trading", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="The database of all our tables.")
    cluster: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_.-]+$",
        description="The cluster, of one shard, on all of whose replicas `streamapp init` makes database and tables, "
        "replicated (docs/clickhouse.md). Not set: on one server. Never changed after the first start.",
    )
    batch_rows: int = Field(2000, ge=1, description="Most rows in one insert.")
    flush_interval_s: float = Field(1.0, gt=0, description="Longest wait for a batch to grow.")
    timeout_s: float = Field(10.0, gt=0, description="How long a query or an insert may take.")
    retention_days: dict[HistoryTable, Annotated[int, Field(ge=1, le=36500)]] = Field(
        default_factory=dict,
        description="Table = days that its rows are kept, of order_events, facts, account_history and "
        "position_history; `streamapp init` sets and removes it. Not named: for ever.",
    )

    @model_validator(mode="after")
    def _tls_has_an_address(self) -> ClickHouseSettings:
        if self.names_tls_files and not (self.url or "").startswith("https://"):
            raise ValueError("expected a url that begins with https:// with files of TLS")
        if self.key_password_file is not None:
            raise ValueError("expected a key_file without a password, since ClickHouse's driver can't open one")
        return self


class ExecutionSettings(Section):
    """From a signal to the decision."""

    approval: Literal["payload", "subject"] = Field(
        "payload",
        description='"payload": the signal says so itself; "subject": that it came on signals.approved is enough.',
    )
    require_row: bool = Field(
        False, description="An approved row of the signal in ClickHouse `trading_signals` is mandatory as well."
    )
    signal_ttl_s: float = Field(
        30.0, gt=0, description="A signal without valid_until is good for so long after approved_at."
    )
    max_clock_skew_s: float = Field(
        2.0,
        ge=0,
        description="Signals from further ahead are refused; a terminal whose clock is off by more is not ready.",
    )
    reconcile_first: bool = Field(
        True,
        description="After a start, and with a new journal, an account opens nothing before its positions and orders "
        "were compared with the broker's.",
    )
    max_payload_bytes: int = Field(65536, ge=1024, description="A longer payload is a dead letter.")
    routing: dict[str, Route] = Field(
        default_factory=dict,
        description="Account of signals without one: `strategy/symbol`, `strategy/*`, `*/symbol`, `*/*`, in turn; or "
        "a table of accounts with weights, each of which gets a copy of the signal (docs/accounts.md).",
    )
    field_names: dict[str, str] = Field(
        default_factory=dict, description="Our field name = the name in the risk engine's messages and rows."
    )
    value_names: dict[str, str | dict[str, str]] = Field(
        default_factory=dict,
        description="The risk engine's word = ours, e.g. LONG = buy, in any field; or by field, e.g. side = {1 = buy}. "
        "Without regard to case; `buy_limit` says side and order_type.",
    )

    @field_validator("value_names")
    @classmethod
    def _in_lower_case(cls, names: dict[str, str | dict[str, str]]) -> dict[str, str | dict[str, str]]:
        for field, words in names.items():
            if isinstance(words, dict) and field not in get_args(WordField):
                raise ValueError(f"expected words of {', '.join(get_args(WordField))}, got a table for {field}")
        return {
            name: folded(meaning) if isinstance(meaning, dict) else meaning for name, meaning in folded(names).items()
        }


def folded(words: dict[str, Meaning]) -> dict[str, Meaning]:
    """Return words in lower case; raises ValueError where two of them differ in case alone."""
    found = {word.casefold(): meaning for word, meaning in words.items()}
    if len(found) < len(words):
        raise ValueError("expected each word once, without regard to case")
    return found


class AccountGuardSettings(Section, Limits):
    """Limits that refuse what an account would open; the strictest of the house's and its own holds."""

    by_symbol: dict[SymbolName, SymbolLimits] = Field(
        default_factory=dict, description="More limits for orders of one symbol, by our name of it."
    )

    @model_validator(mode="after")
    def _reducing_after_the_warning(self) -> Self:
        if self.warn_at is not None and self.reduce_at is not None and self.warn_at > self.reduce_at:
            raise ValueError(f"warn_at: expected reduce_at ({self.reduce_at}) at most, got {self.warn_at}")
        return self


class GuardSettings(AccountGuardSettings):
    """Limits that refuse a signal or an order that opens, whoever approved it (docs/guards.md)."""

    max_tick_age_s: float = Field(
        60.0,
        gt=0,
        description="A terminal refuses a market order that opens when its last tick is older and no newer one comes.",
    )
    max_order_leverage: Multiple = Field(
        Decimal(100),
        description="Most that one order may be worth, as a multiple of the account's equity; `off`: any.",
    )
    max_level_distance: Decimal = Field(
        Decimal("0.5"),
        gt=0,
        description="Prices and levels further from the market than this share of it are refused as implausible.",
    )
    warn_at: Share = Field(
        Decimal("0.8"), description="The share of a day's loss or drawdown limit at which there is an alarm."
    )
    reduce_at: Share = Field(
        Decimal("0.9"), description="The share at which nothing is opened any more until the broker's midnight."
    )


class RetentionSettings(Section):
    """How long the store and the journals keep what is over (docs/operations.md, "A year of it")."""

    closed_days: float = Field(
        30.0,
        gt=0,
        description="Orders, positions, signals and commands that are over for so long are put away: a quarter of the "
        "bytes, and a start passes over them.",
    )
    keys_days: float = Field(
        400.0,
        gt=0,
        description="They leave the store after so long. A signal or a command that is older is refused, for nobody "
        "knows any more whether it was decided; so: longer than any message of one may come again.",
    )

    journal_days: float = Field(
        400.0,
        ge=7,
        description="Orders that are over, their deals and what was asked about them leave the terminal's journal "
        "after so long, if nothing open rests on them; keys_days at least. What is older and comes again is never "
        "sent: it is looked for at the broker.",
    )

    @model_validator(mode="after")
    def _journals_remember_longest(self) -> RetentionSettings:
        if self.journal_days < self.keys_days:
            raise ValueError(
                f"journal_days: expected keys_days ({self.keys_days:g}) at least, got {self.journal_days:g}: "
                "what a signal's decision rests on must be answered by the journal for as long"
            )
        return self

    @property
    def keys_s(self) -> float:
        """``keys_days`` in seconds."""
        return self.keys_days * DAY_S


class BrokerSettings(Section):
    """From the claim to the terminal."""

    submit_deadline_s: float = Field(
        2.0, gt=0, description="How long one submit may take before the account's breaker opens."
    )
    check_interval_s: float = Field(
        1.0, gt=0, description="How often a terminal that is not ready is greeted, and orders that wait are looked at."
    )


class TerminalSettings(Section):
    """The process that owns an MT5 account."""

    data: Path = Field(
        Path("terminal"),
        description="Folder of the journals, below local.data if relative. Never share or copy a journal.",
    )
    order_send_deadline_s: float = Field(
        30.0, gt=0, description="order_send is ended by killing its process after so long; the order is a doubt then."
    )
    read_deadline_s: float = Field(10.0, gt=0, description="The same for a read; nothing is in doubt then.")
    initialize_deadline_s: float = Field(
        180.0, gt=0, description="The same for initialize, which may start the terminal program."
    )
    poll_interval_s: float = Field(
        0.9, gt=0, le=2.5, description="How often the connection, deals, orders and positions are looked at."
    )
    quiet_interval_s: float = Field(
        3.0,
        gt=0,
        le=4.0,
        description="The same at most, while nothing is open, works, or is in doubt: each look costs CPU.",
    )
    snapshot_interval_s: float = Field(2.0, gt=0, description="How often positions and account are told.")
    settle_window_s: float = Field(
        45.0,
        gt=0,
        description="How long a doubt is looked for on one unbroken connection before its order is called absent.",
    )
    attempts_at_most: int = Field(
        3,
        ge=1,
        le=10,
        description="Times that a valid order is sent, if the broker proves each time that it executed nothing.",
    )
    deviation_points: dict[str, int] = Field(
        default_factory=dict,
        description="Most points from the price asked for, by symbol, in instant execution. Not named: the spread, "
        "or 20. A signal's max_slippage_points goes first.",
    )
    deals_within_s: float = Field(
        30.0, gt=0, description="How long the deals of a ticket that the broker calls filled may be missing unsaid."
    )
    equal_reads_s: float = Field(
        1.0,
        gt=0,
        description="After each (re)connection nothing is believed before two equal reads so far apart; 1 s or more.",
    )


class WebSettings(Section):
    """The web views of our processes."""

    bind: str = Field(
        "127.0.0.1",
        description="Address to listen on. Without tokens_file the views have no login: set it, or put a proxy in "
        "front, before you change this.",
    )
    advertised_url: str | None = Field(
        None,
        description="How the other trading workers reach the views of this one, such as http://{host}:6066; {host} is "
        "this host's name. Needed as soon as they run on several hosts. Not set: http://bind:port.",
    )
    tokens_file: Path | None = Field(
        None,
        description="File with the hashed tokens of the trading worker's web API, made by `streamapp token add`. Not "
        "set: no commands and signals over HTTP, and whoever reaches the views may read them (docs/control.md).",
    )
    sources: Path | None = Field(
        None,
        description="Folder of mapping files, SOURCE.toml, each of which says how the signals of `POST "
        "/signals/SOURCE` are read (docs/webhook.md). Those of tradingview and metaapi are there without it.",
    )
    answer_s: float = Field(
        2.5,
        gt=0,
        le=30,
        description="How long a signal over HTTP waits for the desk's decision. TradingView hangs up after 3 s.",
    )
    max_body_bytes: int = Field(16384, ge=256, le=65536, description="A longer signal over HTTP is refused.")
    signals_per_minute: int = Field(
        120, ge=1, description="Most signals over HTTP of one token at one worker: so many at once, then evenly."
    )
    token_file: Path | None = Field(
        None,
        description="File with the token that a command shows to the web that `--url` names.",
    )
    token: SecretStr | None = Field(
        None, description="The token itself, where it comes from the environment. In a file use token_file."
    )
    ca_file: Path | None = Field(
        None, description="The CAs (PEM) by which these commands know its certificate. Not set: those of the system."
    )

    @model_validator(mode="after")
    def _one_token(self) -> WebSettings:
        if self.token is not None and self.token_file is not None:
            raise ValueError("expected token or token_file, got both")
        return self

    @field_validator("advertised_url")
    @classmethod
    def _has_an_address(cls, url: str | None) -> str | None:
        if url is None:
            return None
        try:
            parts = urlsplit(url.replace("{host}", platform.node()))
            more = (parts.username, parts.path.removeprefix("/"), parts.query, parts.fragment, parts.port == 0)
            is_address = parts.scheme in {"http", "https"} and bool(parts.hostname) and not any(more)
        except ValueError:  # no port
            is_address = False
        if not is_address:
            raise ValueError("expected http://host:port with nothing behind it")
        if parts.hostname in {"0.0.0.0", "::"}:
            raise ValueError(f"expected an address that other hosts reach, got {parts.hostname}, which is every one")
        return f"{parts.scheme}://{parts.netloc}"


class LogSettings(Section):
    """What our processes log, all on standard error."""

    format: Literal["text", "json"] = Field(
        "text",
        description="json: an object a line, which names account, order_id, signal_id and trace_id where it is about "
        "one.",
    )
    level: Literal["debug", "info", "warning", "error"] | None = Field(
        None, description="The least that is logged. Not set: info, and of Faust's workers what their option `-l` says."
    )


class TracingSettings(Section):
    """Spans of OpenTelemetry; they need one more package: `pip install ".[otel]"`."""

    endpoint: str | None = Field(
        default_factory=lambda: os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"),
        pattern=r"^https?://",
        description="Where spans go by OTLP over HTTP: `http://127.0.0.1:4318`. Not set: what "
        "`OTEL_EXPORTER_OTLP_ENDPOINT` says; without that there are none.",
    )


class NotificationRule(Section):
    """Whether and where an event is told; see `[notify.rules.NAME]`."""

    on: bool = Field(True, description="Whether it is told.")
    tag: str | None = Field(
        None, description="To the URLs with this tag (`TAG=URL` in the file). Not set: to the URLs without any tag."
    )
    minimum: Urgency = Field("info", description="What is less urgent is not told (docs/notifications.md).")


class NotifySettings(Section):
    """What persons are notified of, by the process `notifier` (docs/notifications.md)."""

    urls_file: Path | None = Field(
        None,
        description="Secret file with the apprise URLs of the receivers, one a line. Not set: nobody is notified, and "
        "the notifier does not start.",
    )
    rules: dict[NotificationEvent, NotificationRule] = Field(
        default_factory=dict, description="Rules of events, by name, see below. Not named: told to URLs without a tag."
    )
    quiet_from: time | None = Field(None, description='Quiet hours begin, such as "22:00". Not set: there are none.')
    quiet_to: time | None = Field(None, description="And end; then what waited is told in few messages.")
    quiet_zone: str = Field("UTC", description="By the clocks of which time zone, such as Europe/Berlin.")
    quiet_passes: Urgency = Field("critical", description="What is so urgent, or more, does not wait for their end.")
    per_minute: int = Field(
        10, ge=1, description="Messages to one URL at most. What is over is summed up in the last one."
    )
    send_timeout_s: float = Field(20.0, gt=0, description="How long one try may take.")
    give_up_s: float = Field(
        3600.0,
        gt=0,
        description="After so long without success an event is given up for this URL: logged, counted, not told.",
    )
    max_age_s: float = Field(
        3600.0,
        gt=0,
        description="Older events, met after the notifier was away, are one message of one line each kind.",
    )
    disconnected_s: float = Field(
        60.0, ge=5, description="A terminal that is not ready, or says nothing, for so long is told."
    )

    @field_validator("quiet_zone")
    @classmethod
    def _is_a_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ValueError, OSError, KeyError):  # KeyError: none of that name is on this machine
            raise ValueError(f"expected the name of a time zone, such as Europe/Berlin, got {name!r:.40}") from None
        return name

    @model_validator(mode="after")
    def _begin_and_end(self) -> NotifySettings:
        if (self.quiet_from is None) != (self.quiet_to is None) or (
            self.quiet_from and self.quiet_from == self.quiet_to
        ):
            raise ValueError("expected quiet_from and quiet_to, two different times of day")
        if any(each is not None and each.tzinfo is not None for each in (self.quiet_from, self.quiet_to)):
            raise ValueError("expected quiet_from and quiet_to without an offset: quiet_zone says by which clocks")
        return self

    @property
    def quiet_hours(self) -> QuietHours | None:
        """The quiet hours, None where there are none."""
        if self.quiet_from is None or self.quiet_to is None:
            return None
        return QuietHours(self.quiet_from, self.quiet_to, ZoneInfo(self.quiet_zone), self.quiet_passes)

    @property
    def events(self) -> tuple[NotificationEvent, ...]:
        """Every event that there is a rule for."""
        return get_args(NotificationEvent)

    def rule(self, event: NotificationEvent) -> NotificationRule:
        """Return an event's rule: the configured, or the one by default."""
        return self.rules.get(event) or NotificationRule()


class LocalSettings(Section):
    """The stack on one machine."""

    data: Path = Field(Path(".local"), description="Where everything is kept, logs included.")
    port_offset: int = Field(0, ge=0, le=50000, description="Added to every port.")


class AccountSettings(Section):
    """One MT5 account."""

    login: int = Field(description="The account's number.")
    server: str = Field("Simulated-Demo", description="The broker's trade server, as the terminal shows it.")
    terminal_path: Path | None = Field(
        None, description="terminal64.exe of this account's own terminal (MetaTrader5 only)."
    )
    terminal_portable: bool = Field(
        False, description="The terminal keeps its data in its own folder (terminal64.exe /portable; MetaTrader5 only)."
    )
    password_file: Path | None = Field(None, description="File with the account's password.")
    module: Literal["simulated", "MetaTrader5"] = Field(
        "simulated", description="The simulated MT5 or the real one (Windows)."
    )
    profile: str = Field("default", description="Simulated only: the broker profile.")
    balance: Decimal = Field(Decimal(1_000_000), description="Simulated only: money at the start.")
    currency: str = Field("USD", description="Simulated only: the account's currency.")
    leverage: int = Field(500, ge=1, description="Simulated only.")
    margin_mode: Literal["hedging", "netting", "exchange"] = Field("hedging", description="Simulated only.")
    symbols: dict[SymbolName, SymbolName] = Field(
        default_factory=dict, description="Our name of a symbol = the broker's; goes before prefix and suffix."
    )
    symbol_prefix: str = Field("", max_length=32, description="Stands before each of our names at the broker.")
    symbol_suffix: str = Field("", max_length=32, description="Stands behind each of our names at the broker.")
    volume_factor: Lots = Field(Decimal(1), description="What the volume of every signal is multiplied by.")
    volume_step: Lots | None = Field(
        None, description="The volume of every signal is rounded down to a multiple of it. Not set: no rounding."
    )
    volume_min: Lots | None = Field(
        None, description="A signal that comes to fewer lots is refused. Not set: volume_step."
    )
    guards: AccountGuardSettings = Field(
        AccountGuardSettings(),
        description="`[accounts.NAME.guards]`: the limits of `[guards]`, for this account; the strictest holds.",
    )

    @property
    def symbol_names(self) -> SymbolNames:
        """What its symbols are called in the house and at its broker."""
        return SymbolNames(self.symbols, self.symbol_prefix, self.symbol_suffix)

    @property
    def sizing(self) -> Sizing:
        """How it changes the volumes of signals."""
        return Sizing(self.volume_factor, self.volume_step, self.volume_min)

    @model_validator(mode="after")
    def _one_symbol_for_each_name(self) -> AccountSettings:
        if clashes := list(self.symbol_names.clashes()):
            raise ValueError("; ".join(clashes))
        return self


DEMO_ACCOUNTS = {
    "demo-hedging": AccountSettings(login=50000001, margin_mode="hedging"),
    "demo-netting": AccountSettings(login=50000002, margin_mode="netting"),
}


class EnvFile(DotEnvSettingsSource):
    """What a ``.env`` says to us; what it says to other programs, Compose for one, is none of our settings.

    Args:
        settings_cls: Whose settings they are.
        file: None: there is none. It need not exist.

    Raises:
        ConfigurationError: it can't be read, or names the file that says where it is.
    """

    def __init__(self, settings_cls: type[BaseSettings], file: Path | None) -> None:
        try:
            super().__init__(settings_cls, env_file=file, env_file_encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise ConfigurationError(f"{file}: expected UTF-8, got other bytes. Save it as UTF-8") from None
        except OSError as error:
            raise ConfigurationError(f"{file}: expected a file that can be read, got: {error.strerror}") from None
        prefix = self.env_prefix.lower()
        self.env_vars = {name: value for name, value in self.env_vars.items() if name.startswith(prefix)}
        if f"{prefix}config" in self.env_vars:
            raise ConfigurationError(
                f"{file}: expected STREAMAPP_CONFIG in the environment, got it in the file, which is found by it"
            )

    def __call__(self) -> dict[str, Any]:
        """Return the settings; what is none is called as it would be in ``streamapp.toml``."""
        prefix = self.env_prefix.lower()
        return {name.removeprefix(prefix).replace("__", "."): value for name, value in super().__call__().items()}

    def variables(self) -> dict[str, str]:
        """Return what it says as variables of an environment."""
        return {name.upper(): value for name, value in self.env_vars.items() if value is not None}


class Settings(BaseSettings):
    """The whole tree; read it with :func:`load_settings`."""

    model_config = SettingsConfigDict(
        env_prefix="STREAMAPP_",
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        nested_model_default_partial_update=True,
    )

    deployment: str = Field(
        "streamapp",
        pattern=r"^[A-Za-z0-9_-]+$",
        description="Our name in ids, headers and consumer groups. Never changed after the first start.",
    )
    role: Role = Field(
        "both",
        description="both, execution (someone else's connector) or connector (someone else's execution service).",
    )
    worker: Annotated[int, Field(ge=1)] | Literal["host"] = Field(
        1,
        description="Which trading worker of this machine this is; each has its own port and folder. "
        '"host": the only one of its host, named by the number at the end of the host\'s name, such as trading-3, with '
        "the first one's port and folder.",
    )
    stop_grace_s: float = Field(
        10.0,
        gt=0,
        description="How long a process may take to stop after SIGTERM. What is not finished then is left as after a "
        "crash, and done at the next start. Whoever stops it must wait 5 s longer before SIGKILL.",
    )
    kafka: KafkaSettings = KafkaSettings()
    nats: NatsSettings = NatsSettings()
    clickhouse: ClickHouseSettings = ClickHouseSettings()
    execution: ExecutionSettings = ExecutionSettings()
    guards: GuardSettings = GuardSettings()
    broker: BrokerSettings = BrokerSettings()
    retention: RetentionSettings = RetentionSettings()
    terminal: TerminalSettings = TerminalSettings()
    web: WebSettings = WebSettings()
    notify: NotifySettings = NotifySettings()
    log: LogSettings = LogSettings()
    tracing: TracingSettings = Field(default_factory=TracingSettings)
    local: LocalSettings = LocalSettings()
    crash_at: str | None = Field(
        None, description="Tests only: the crash point at which the process kills itself (streamapp/crashpoints.py)."
    )
    simulator_address: str | None = Field(
        None, description="host:port of the simulated MT5 server. Not set: the local one."
    )
    accounts: dict[str, AccountSettings] = Field(
        default_factory=lambda: dict(DEMO_ACCOUNTS), description="The accounts we trade."
    )

    @field_validator("accounts")
    @classmethod
    def _no_reserved_names(cls, accounts: dict[str, AccountSettings]) -> dict[str, AccountSettings]:
        if reserved := RESERVED_ACCOUNTS & accounts.keys():
            raise ValueError(f"expected other account names than {sorted(RESERVED_ACCOUNTS)}, got {sorted(reserved)}")
        if empty := [name for name in accounts if not name.strip()]:
            raise ValueError(f"expected account names, got {empty!r}")
        if len({name.casefold() for name in accounts}) != len(accounts):
            raise ValueError("expected names that differ in more than case: Windows would keep one journal for two")
        return accounts

    @model_validator(mode="after")
    def _own_login_for_each(self) -> Settings:
        logins = [(account.server, account.login) for account in self.accounts.values()]
        if len(set(logins)) != len(logins):
            raise ValueError(
                "expected a server and login of its own for each account, got one twice: one journal owns one account"
            )
        return self

    @model_validator(mode="after")
    def _routes_lead_to_accounts(self) -> Settings:
        for key, route in self.execution.routing.items():
            place = f"execution.routing.{key}"
            if not route:
                raise ValueError(f"{place}: expected at least one account, got an empty table")
            if unknown := [name for name in route if name not in self.accounts]:
                raise ValueError(f"{place}: expected one of the accounts {', '.join(self.accounts)}, got {unknown[0]}")
            if self.role == "connector" and list(route.values()) != [1]:
                raise ValueError(
                    f"{place}: expected one account and no weight in role connector: its orders have a volume"
                )
        return self

    @model_validator(mode="after")
    def _decisions_outlive_repetitions(self) -> Settings:
        limits, keys_s = self.nats.streams.get("EXECUTION_IN"), self.retention.keys_s
        kept_s = EXECUTION_IN.max_age_s if limits is None or limits.max_age_s is None else limits.max_age_s
        places = {
            "retention.closed_days": self.retention.closed_days * DAY_S,
            "execution.signal_ttl_s": self.execution.signal_ttl_s,
            f"how long stream {EXECUTION_IN.name} keeps messages": kept_s,
            f"how long topic {SIGNALS_APPROVED} keeps them": INPUT_DAYS * DAY_S,
        }
        name, longest_s = max(places.items(), key=lambda place: place[1])
        if keys_s < longest_s:
            least = f"{longest_s / DAY_S:g} at least ({name})"
            raise ValueError(f"retention.keys_days: expected {least}, got {self.retention.keys_days:g}")
        return self

    @model_validator(mode="after")
    def _guards_can_be_kept(self) -> Settings:
        places = {
            "guards": self.guards,
            **{f"accounts.{name}.guards": own.guards for name, own in self.accounts.items()},
        }
        for place, guards in places.items():
            house = self.guards.symbols
            if house and guards.symbols and not set(guards.symbols) <= set(house):
                raise ValueError(f"{place}.symbols: expected some of guards.symbols, got {', '.join(guards.symbols)}")
            if not self.is_executor and (blind := _blind(guards)):
                raise ValueError(
                    f"{place}.{blind[0]}: expected none in role execution: no terminal of ours shows what it needs"
                )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- the signature is pydantic's
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the order of precedence: arguments, environment, ``.env``, file."""
        file = TomlConfigSettingsSource(settings_cls, toml_file=settings_file())
        return init_settings, env_settings, EnvFile(settings_cls, env_file()), file

    @property
    def worker_number(self) -> int:
        """Which trading worker of the deployment this is, in the names that servers show of it.

        Raises:
            ConfigurationError: It is to be named by its host, whose name has no number.
        """
        if self.worker != "host":
            return self.worker
        host = platform.node()
        if (found := re.search(r"-(\d+)$", host.partition(".")[0])) is None:
            raise ConfigurationError(
                f'worker: expected a host whose name ends in a number, such as trading-3, with "host", got {host}. '
                "Set a number"
            )
        return int(found[1])

    @property
    def worker_of_machine(self) -> int:
        """Which trading worker of this machine it is: what its port and its folder are counted by."""
        return 1 if self.worker == "host" else self.worker

    @property
    def trading_url(self) -> str:
        """How commands on this machine reach the first trading worker's views."""
        return self.url_at(self.ports.trading())

    def url_at(self, port: int) -> str:
        """Return how commands on this machine reach one of our processes."""
        bind = "127.0.0.1" if self.web.bind in {"0.0.0.0", "::"} else self.web.bind
        host = f"[{bind}]" if ":" in bind else bind
        return f"http://{host}:{port}"

    @property
    def ports(self) -> Ports:
        """The ports of the local stack."""
        return Ports(self.local.port_offset)

    @property
    def kafka_bootstrap(self) -> str:
        """The brokers' addresses: the configured or the local ones."""
        return self.kafka.bootstrap or f"127.0.0.1:{self.ports.kafka}"

    @property
    def kafka_deployment(self) -> str:
        """The deployment as its consumer groups, changelogs and clients are called after it."""
        return self.kafka.prefixed(self.deployment)

    @property
    def nats_url(self) -> str:
        """The NATS address: the configured or the local one."""
        return self.nats.url or f"nats://127.0.0.1:{self.ports.nats}"

    @property
    def clickhouse_url(self) -> str:
        """The ClickHouse address: the configured or the local one."""
        return self.clickhouse.url or f"http://127.0.0.1:{self.ports.clickhouse}"

    @property
    def market_address(self) -> str:
        """host:port of the simulated MT5 server: the configured or the local one."""
        return self.simulator_address or f"127.0.0.1:{self.ports.market}"

    @property
    def terminal_data(self) -> Path:
        """The folder of the terminals' journals."""
        return self.local.data / self.terminal.data

    def limits_of(self, account: str) -> AccountLimits:
        """Return what the settings let an account open: the strictest of the house's limits and its own."""
        house, known = self.guards, self.accounts.get(account)
        own = AccountGuardSettings() if known is None else known.guards
        return AccountLimits(
            strictest(Limits, (house, own)),
            {
                symbol: strictest(SymbolLimits, (each.by_symbol.get(symbol, NO_SYMBOL_LIMITS) for each in (house, own)))
                for symbol in {**house.by_symbol, **own.by_symbol}
            },
        )

    def symbols_of(self, account: str) -> tuple[str, ...]:
        """Return the symbols that are named for an account: those that it may trade, and those with a name of ours."""
        return tuple(dict.fromkeys((*self.limits_of(account).account.symbols, *self.accounts[account].symbols)))

    @property
    def is_executor(self) -> bool:
        """Whether this deployment has terminals of its own."""
        return self.role != "execution"


def _blind(guards: AccountGuardSettings) -> list[str]:
    """Return the limits, set by somebody, that only a terminal of ours can keep."""
    unset = {name: field.default for name, field in GuardSettings.model_fields.items()}
    several = (guards, *guards.by_symbol.values())
    return sorted({name for each in several for name in needs_terminal(each) if getattr(each, name) != unset[name]})


def settings_file() -> Path:
    """Return where the settings file is, absolute; there need not be one, and is none if the variable is empty."""
    return Path(os.environ.get("STREAMAPP_CONFIG", "streamapp.toml")).absolute()


def env_file() -> Path | None:
    """Return where the ``.env`` is, beside the settings file; None where ``STREAMAPP_CONFIG`` is empty: no file."""
    return None if os.environ.get("STREAMAPP_CONFIG") == "" else settings_file().with_name(".env")


def environment_of_children() -> dict[str, str]:
    """Return the variables by which a process that starts in another folder finds the settings that this one has."""
    if (file := settings_file()).is_file():
        return {"STREAMAPP_CONFIG": str(file)}
    said = EnvFile(Settings, env_file()).variables()
    return {**{name: value for name, value in said.items() if name not in os.environ}, "STREAMAPP_CONFIG": ""}


@cache
def load_settings() -> Settings:
    """Return the settings, read once.

    Raises:
        ConfigurationError: naming every wrong setting, its place and what was expected.
    """
    named = os.environ.get("STREAMAPP_CONFIG")
    if named and not Path(named).is_file():
        raise ConfigurationError(f"STREAMAPP_CONFIG: expected a file, got {named}. Create it or unset the variable.")
    try:
        settings = Settings()
    except ValidationError as error:
        raise _wrong(error) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _unreadable(settings_file(), error) from None
    _warn_of_open_secrets(env_file())
    return settings


def _warn_of_open_secrets(file: Path | None) -> None:
    # Windows says nothing of it in these bits.
    if file is not None and os.name == "posix" and file.is_file() and file.stat().st_mode & stat.S_IROTH:
        secrets = (name for name in EnvFile(Settings, file).variables() if name.endswith(("PASSWORD", "TOKEN")))
        if (name := next(secrets, None)) is not None:
            logger.warning("%s has %s, and can be read by every user of this machine: chmod 600", file, name)


def settings_from(file: Path) -> Settings:
    """Return the settings of one file and nothing else: no environment, no other file.

    Raises:
        ConfigurationError: as :func:`load_settings`, or the file can't be read.
    """
    try:
        return Settings.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise _wrong(error) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _unreadable(file, error) from None


def _unreadable(file: Path, error: Exception) -> ConfigurationError:
    if isinstance(error, UnicodeDecodeError) or file.read_bytes()[:3] == b"\xef\xbb\xbf":
        return ConfigurationError(f"settings file {file}: expected UTF-8 without a byte order mark. Save it as UTF-8")
    hint = ". Write a Windows path in 'single quotes', or with / in place of \\" if "escape" in str(error) else ""
    return ConfigurationError(f"settings file {file}: {error}{hint}")


def _wrong(error: ValidationError) -> ConfigurationError:
    wrong = "; ".join(
        f"{'.'.join(str(part) for part in item['loc']) or 'settings'}: "
        f"{'there is no such setting' if item['type'] == 'extra_forbidden' else item['msg']}"
        for item in error.errors(include_input=False)
    )
    return ConfigurationError(
        f"settings: {wrong}. Mend streamapp.toml, .env or the STREAMAPP_ variables (docs/configuration.md)."
    )


def secret(path: Path | None) -> str | None:
    """Return the content of a secret file without its last line end, or None where no file is named.

    Raises:
        ConfigurationError: the file can't be read. The content never stands in the message.
    """
    if path is None:
        return None
    try:
        return _text(path.read_bytes()).rstrip("\r\n")
    except OSError as error:
        raise ConfigurationError(f"secret file {path}: {error.strerror}. Create it, readable for this user.") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"secret file {path}: expected UTF-8, got other bytes. Save it as UTF-8.") from None


def _text(data: bytes) -> str:
    """Return what a text file holds: UTF-8, or with the byte order mark that Windows' editors and shells write."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16")
    return data.decode("utf-8-sig")
