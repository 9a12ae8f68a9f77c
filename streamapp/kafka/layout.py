"""State that an earlier version left behind, in Kafka or on disk, and that this one would neither read nor finish."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from pathlib import Path
from typing import TypeVar

from aiokafka.errors import KafkaError

from streamapp.errors import ConfigurationError, Transient
from streamapp.kafka.admin import consumer_groups, existing_topics, live_members
from streamapp.kafka.security import Cluster
from streamapp.topics import TABLES, app_id, changelog, is_trading_group, trading_part

Answer = TypeVar("Answer")

EARLIER_TABLES = ("signals", "submissions", "orders", "positions", "accounts", "pins")
"""What are prefixes of the one table ``desk`` now."""
EARLIER_TOPICS = ("updates",)
"""What the publisher, then a process of its own, read."""


async def refuse_earlier_layout(kafka: Cluster | str, deployment: str, data: Path) -> None:
    """Return if no state of an earlier layout is in sight; a start that ignored it would trade without its memory.

    Args:
        kafka: Where it is.
        deployment: Whose changelogs are looked for, with its prefix; ``updates`` was shared by all deployments.
        data: The folder in which workers of this machine keep their state (``local.data``).

    Raises:
        ConfigurationError: Some is there; names it, and says what can be done. Or Kafka does not let us in.
        Transient: Kafka did not answer.
    """
    topics = await _asked(existing_topics(kafka), kafka)
    changelogs = [name for table in EARLIER_TABLES if (name := changelog(deployment, table)) in topics]
    shared = [name for earlier in EARLIER_TOPICS if (name := Cluster.at(kafka).settings.prefixed(earlier)) in topics]
    folders = earlier_folders(data)
    if not (changelogs or shared or folders):
        return
    ways = []
    if changelogs or folders:
        ways.append(
            "finish with the version that wrote it what it still holds, then start this one under a new `deployment` "
            "name and a fresh `local.data`"
        )
    if shared:
        ways.append(
            f"the topic {', '.join(shared)} belongs to no deployment: delete it once all of it is published, or set "
            "kafka.topic_prefix where it is somebody else's"
        )
    ways.append("or delete all of it, if nothing of it is needed")
    raise ConfigurationError(
        f"this version keeps its state in another way, and finds state of an earlier one: {_list(changelogs, 'topic')}"
        f"{_list(shared, 'topic')}{_list(folders, 'folder')}{'; '.join(ways)}"
    )


async def refuse_unmade_store(kafka: Cluster | str, deployment: str, store: str | None) -> None:
    """Return if the store of ``kafka.store`` was made: an empty one under a mistyped name would trade without memory.

    Raises:
        ConfigurationError: It was not.
        Transient: Kafka did not answer.
    """
    topic = changelog(deployment, TABLES[0], store)
    if store is not None and topic not in await _asked(existing_topics(kafka), kafka):
        raise ConfigurationError(
            f"kafka.store: expected a store that `streamapp rebuild --into {store}` has made, but there is no "
            f"topic {topic}"
        )


async def refuse_other_store(kafka: Cluster | str, deployment: str, store: str | None) -> None:
    """Return if nobody trades with another store of the deployment than ``store``: two desks would both act.

    Raises:
        Transient: Somebody does, or a worker that was stopped still counts; or Kafka did not answer.
    """
    groups = await _asked(consumer_groups(kafka), kafka)
    own = app_id(deployment, trading_part(store))
    others = sorted(group for group in groups if group != own and is_trading_group(deployment, group))
    if busy := [group for group in others if await _asked(live_members(kafka, group), kafka)]:
        raise Transient(
            f"another store of this deployment has live members (consumer group {', '.join(busy)}): expected all "
            "trading workers to have the same kafka.store. One that was stopped counts until its session has ended"
        )


async def _asked(answer: Awaitable[Answer], kafka: Cluster | str) -> Answer:
    try:
        return await answer
    except (KafkaError, OSError) as error:
        raise await Cluster.at(kafka).explained(error) from error


def earlier_folders(data: Path) -> tuple[Path, ...]:
    """Return the local copies of earlier tables below ``data``, of all workers that keep theirs there."""
    found = (path for table in EARLIER_TABLES for path in data.glob(f"trading*/v*/tables/{table}-*.db"))
    return tuple(sorted(found))


def _list(names: Iterable[object], kind: str) -> str:
    return "".join(f"{kind} {name}, " for name in names)
