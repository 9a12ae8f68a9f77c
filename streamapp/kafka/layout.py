"""State that an earlier version left behind, in Kafka or on disk, and that this one would neither read nor finish."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from aiokafka.errors import KafkaError

from streamapp.errors import ConfigurationError
from streamapp.kafka.admin import existing_topics
from streamapp.kafka.security import Cluster
from streamapp.topics import changelog

EARLIER_TABLES = ("signals", "submissions", "orders", "positions", "accounts", "pins")
"""What are prefixes of the one table ``desk`` now."""
EARLIER_TOPICS = ("updates",)
"""What the publisher, then a process of its own, read."""


async def refuse_earlier_layout(kafka: Cluster | str, deployment: str, data: Path) -> None:
    """Return if no state of an earlier layout is in sight; a start that ignored it would trade without its memory.

    Args:
        kafka: Where it is.
        deployment: Whose changelogs are looked for; ``updates`` was shared by all deployments.
        data: The folder in which workers of this machine keep their state (``local.data``).

    Raises:
        ConfigurationError: Some is there; names it, and says what can be done. Or Kafka does not let us in.
        Transient: Kafka did not answer.
    """
    try:
        topics = await existing_topics(kafka)
    except (KafkaError, OSError) as error:
        raise await Cluster.at(kafka).explained(error) from error
    changelogs = [name for table in EARLIER_TABLES if (name := changelog(deployment, table)) in topics]
    shared = [name for name in EARLIER_TOPICS if name in topics]
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
        ways.append(f"the topic {', '.join(shared)} belongs to no deployment: delete it once all of it is published")
    ways.append("or delete all of it, if nothing of it is needed")
    raise ConfigurationError(
        f"this version keeps its state in another way, and finds state of an earlier one: {_list(changelogs, 'topic')}"
        f"{_list(shared, 'topic')}{_list(folders, 'folder')}{'; '.join(ways)}"
    )


def earlier_folders(data: Path) -> tuple[Path, ...]:
    """Return the local copies of earlier tables below ``data``, of all workers that keep theirs there."""
    found = (path for table in EARLIER_TABLES for path in data.glob(f"trading*/v*/tables/{table}-*.db"))
    return tuple(sorted(found))


def _list(names: Iterable[object], kind: str) -> str:
    return "".join(f"{kind} {name}, " for name in names)
