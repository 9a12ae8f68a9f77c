"""Kafka topics: names, cleanup and retention.

Names here are ours. In the cluster each begins with ``kafka.topic_prefix``, which whoever opens a topic puts before it
(:meth:`streamapp.settings.KafkaSettings.prefixed`); a ``deployment`` below has it already
(:attr:`streamapp.settings.Settings.kafka_deployment`), since Faust makes names of its own of ours.

``streamapp init`` creates them, Faust never does (design: architecture).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

SIGNALS_APPROVED = "signals_approved"
ORDERS_SUBMITTED = "orders_submitted"
INCOMPLETE = "incomplete"
ORDER_COMMANDS = "order_commands"
BROKER_REPORTS = "broker_reports"
ACCOUNT_SNAPSHOTS = "account_snapshots"
ARCHIVE = "order_execution_archive"
BROKER_LOG = "broker_communication_log"
DEAD_LETTERS = "dead_letters"

TABLES = ("desk",)
"""The tables of the trading worker: every row of an account is in one, so that a commit is atomic (design: desk)."""

# Headers of our Kafka records.
NATS_SUBJECT = "nats-subject"
NATS_STREAM = "nats-stream"
NATS_SEQUENCE = "nats-stream-seq"
NATS_TIME = "nats-time"
FAMILY = "streamapp-family"
"""What kind of message it is (:data:`streamapp.messages.routing.Family`): on everything that mirror writes but dead
letters."""
MESSAGE_OF = "streamapp-id"
"""The id of the signal or order that it is about, where the message names one."""
ACCOUNT = "streamapp-account"
"""The account that it is for: the one that the message names, or that completion pinned for one that names none."""
WEIGHT = "streamapp-weight"
"""On a copy of a signal that goes to several accounts: what its volume is multiplied by for this one."""
COPY = b"copy"
"""The family of a decision on such a copy, on its way from the desk to completion."""

INPUT_DAYS = 7
"""How long the topics keep signals, orders, commands and reports."""
_DAY_MS = 86_400_000


@dataclass(frozen=True)
class TopicSpec:
    """A topic as ``streamapp init`` creates it."""

    name: str
    config: dict[str, str] = field(default_factory=dict)


def _kept(days: int) -> dict[str, str]:
    return {"cleanup.policy": "delete", "retention.ms": str(days * _DAY_MS)}


_FOREVER = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}

TOPICS = (
    TopicSpec(SIGNALS_APPROVED, _kept(INPUT_DAYS)),
    TopicSpec(ORDERS_SUBMITTED, _kept(INPUT_DAYS)),
    TopicSpec(INCOMPLETE, _kept(INPUT_DAYS)),
    TopicSpec(ORDER_COMMANDS, _kept(INPUT_DAYS)),
    TopicSpec(BROKER_REPORTS, _kept(INPUT_DAYS)),
    TopicSpec(ACCOUNT_SNAPSHOTS, _kept(1)),
    TopicSpec(ARCHIVE, _FOREVER),
    TopicSpec(BROKER_LOG, _FOREVER),
    TopicSpec(DEAD_LETTERS, _kept(30)),
)


def own_topics(prefix: str) -> tuple[TopicSpec, ...]:
    """Return the topics as they are called in a cluster."""
    return tuple(replace(spec, name=prefix + spec.name) for spec in TOPICS)


def app_id(deployment: str, part: str) -> str:
    """Return the Faust app id (and consumer group) of a part: trading or warehouse."""
    return f"{deployment}-{part}"


def trading_part(store: str | None = None) -> str:
    """Return the part that has a store: the trading workers of the first one, or of one that was rebuilt under a name.

    Ids are made of the deployment, so a store that is rebuilt keeps it, and is a part of its own.
    """
    return "trading" if store is None else f"trading-{store}"


def is_trading_group(deployment: str, group: str) -> bool:
    """Return whether a consumer group is that of a deployment's trading workers, whichever store they have."""
    return re.fullmatch(re.escape(app_id(deployment, trading_part())) + "(-[A-Za-z0-9_]+)?", group) is not None


def changelog(deployment: str, table: str, store: str | None = None) -> str:
    """Return the name Faust gives the changelog of a table of the trading worker."""
    return f"{app_id(deployment, trading_part(store))}-{table}-changelog"


def changelogs(deployment: str, store: str | None = None) -> tuple[TopicSpec, ...]:
    """Return the changelog of the trading worker's store.

    Compacted, and never sooner than 7 days: a worker that slept for less finds every record by which it can see that it
    was replaced
    (design: submission "Zombies").
    """
    config = {"cleanup.policy": "compact", "min.compaction.lag.ms": str(7 * _DAY_MS), "segment.ms": "3600000"}
    return tuple(TopicSpec(changelog(deployment, table, store), config) for table in TABLES)
