"""A cluster of one shard: the same tables on every replica, and every row on all of them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from streamapp.clickhouse.client import ClickHouse
from streamapp.errors import ConfigurationError
from streamapp.settings import ClickHouseSettings

_HEAD = re.compile(r"(CREATE (?:DATABASE|TABLE|VIEW) IF NOT EXISTS|ALTER TABLE) (`[^`]+`|\w+)")
_ENGINE = re.compile(r"\bENGINE = (\w*MergeTree)(?:\(([^()]*)\))?")
_SETTINGS = re.compile(r"\bSETTINGS |\Z")
_NO_MEMORY = "replicated_deduplication_window = 0"
"""What a replicated table remembers of inserts outlives its rows, and would drop what comes again on purpose."""


def rendered(statement: str, settings: ClickHouseSettings) -> str:
    """Return a statement of a schema as it is run: as it is, or with a cluster on all its replicas.

    Replicated tables have paths of their own in Keeper, with the names of cluster, database and table in them: so a
    replica that comes later finds the others, and another database has other tables. ``{replica}`` is a macro of each
    server's.
    """
    head = _HEAD.match(statement)
    if settings.cluster is None or head is None:
        return statement
    rest, path = statement[head.end() :], f"/clickhouse/tables/{settings.cluster}/{settings.database}/{head[2]}"
    if engine := _ENGINE.search(rest):
        arguments = (f"'{path}'", "'{replica}'", *([engine[2]] if engine[2] else []))
        before, after = rest[: engine.start()], rest[engine.end() :]
        # At the settings that there are, or at the end.
        after = _SETTINGS.sub(lambda at: f"SETTINGS {_NO_MEMORY}, " if at[0] else f"\nSETTINGS {_NO_MEMORY}", after, 1)
        rest = f"{before}ENGINE = Replicated{engine[1]}({', '.join(arguments)}){after}"
    return f"{head[0]} ON CLUSTER `{settings.cluster}`{rest}"


async def refuse_unfit(client: ClickHouse, settings: ClickHouseSettings) -> None:
    """Return if the tables can be made, or are there, as the settings say.

    Raises:
        ConfigurationError: The database was made without a cluster, or the server does not know the cluster, or it has
            several shards.
        Transient: ClickHouse is away.
    """
    if settings.cluster is None:
        return
    # trading_signals may be the risk engine's own.
    alone = await client.query(
        "SELECT name FROM system.tables WHERE database = {database:String} AND name != 'trading_signals'"
        " AND engine LIKE '%MergeTree' AND engine NOT LIKE 'Replicated%' ORDER BY name",
        {"database": settings.database},
    )
    if alone:
        raise ConfigurationError(
            f"clickhouse.cluster: database {settings.database} was made without a cluster, and its table "
            f"{alone[0]['name']} is on one server alone. Name another database: `streamapp init` makes it"
        )
    rows = await client.query("SELECT cluster, uniqExact(shard_num) AS shards FROM system.clusters GROUP BY cluster")
    refuse_unknown(settings.cluster, {row["cluster"]: row["shards"] for row in rows})


def refuse_unknown(cluster: str, shards: Mapping[str, int]) -> None:
    """Raise ConfigurationError unless a server knows the cluster, with one shard; ``shards`` has how many each has."""
    if cluster not in shards:
        known = ", ".join(sorted(shards)) or "none"
        raise ConfigurationError(
            f"clickhouse.cluster: expected a cluster that the server knows ({known}), got {cluster}. Mend the setting, "
            "or the server's remote_servers"
        )
    if shards[cluster] > 1:
        raise ConfigurationError(
            f"clickhouse.cluster: expected a cluster of one shard, since every replica has all rows, but {cluster} has "
            f"{shards[cluster]}. Name one that has all replicas in one shard"
        )
