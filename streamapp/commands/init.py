"""``streamapp init``: Kafka's topics, NATS' streams and ClickHouse's tables, created where missing; may be repeated."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from streamapp.errors import ConfigurationError, StreamappError, Transient
from streamapp.settings import Settings, load_settings

if TYPE_CHECKING:
    from streamapp.nats.streams import Outcome, Step

_STYLES = {"present": "dim", "created": "green", "updated": "green", "missing": "yellow", "different": "yellow"}


@dataclass(frozen=True)
class InitReport:
    """What ``init`` found and did, in order: topics, streams and consumers, migrations."""

    steps: tuple[Step, ...]

    @property
    def missing(self) -> tuple[Step, ...]:
        """What is not there as it should be; only a dry run leaves any."""
        return tuple(step for step in self.steps if not step.is_fine)


def initialise(settings: Settings, *, dry_run: bool = False) -> InitReport:
    """Create what is missing on the three servers, or with ``dry_run`` only look; run it outside of any event loop.

    Each server is asked, also when an earlier one failed.

    Raises:
        ConfigurationError: A server refuses something, or holds something that can't be changed, such as topics with
            another number of partitions or the state of an earlier version; names everything that is wrong, on all
            three.
        Transient: Only that a server did not answer stands in the way.
    """
    return asyncio.run(_initialise(settings, dry_run=dry_run))


def adopt(settings: Settings, progress: Callable[[str], None]) -> int:
    """Take over a copied changelog, see :func:`tables.adoption.adopt_changelog`; run it outside of any event loop."""
    from tables.adoption import adopt_changelog

    return asyncio.run(adopt_changelog(settings, progress))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(init)


def init(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is there and what would be done.")] = False,
    adopt_changelog: Annotated[
        bool,
        typer.Option(
            "--adopt-changelog",
            help="Also take over the desk's changelog after it was copied from another cluster or a backup. Once, with "
            "no trading worker running.",
        ),
    ] = False,
) -> None:
    """Create Kafka's topics, NATS' streams and ClickHouse's tables where they are missing; may be repeated."""
    if dry_run and adopt_changelog:
        raise typer.BadParameter("--adopt-changelog writes: it has no --dry-run")
    settings = load_settings()
    report = initialise(settings, dry_run=dry_run)
    table = Table(box=None, show_header=False)
    for step in report.steps:
        table.add_row(f"[{_STYLES[step.outcome]}]{step.outcome}[/]", step.what, step.detail)
    console = Console()
    console.print(table)
    if report.missing:
        console.print(
            f"{len(report.missing)} of {len(report.steps)} are missing or different; without --dry-run they are made."
        )
    if adopt_changelog:
        adopt(settings, console.print)


async def _initialise(settings: Settings, *, dry_run: bool) -> InitReport:
    parts: tuple[Callable[[Settings, bool], Awaitable[tuple[Step, ...]]], ...] = (_topics, _streams, _tables)
    outcomes = await asyncio.gather(*(part(settings, dry_run) for part in parts), return_exceptions=True)
    errors = []
    for outcome in outcomes:
        if isinstance(outcome, StreamappError):
            errors.append(outcome)
        elif isinstance(outcome, BaseException):
            raise outcome
    if errors:
        kind = Transient if all(isinstance(error, Transient) for error in errors) else ConfigurationError
        raise kind("; ".join(str(error) for error in errors)) from errors[0]
    return InitReport(tuple(step for steps in outcomes if not isinstance(steps, BaseException) for step in steps))


async def _topics(settings: Settings, dry_run: bool) -> tuple[Step, ...]:
    from aiokafka.errors import KafkaError

    from streamapp import topics
    from streamapp.kafka.admin import create_topics, plan_topics
    from streamapp.kafka.layout import refuse_earlier_layout, refuse_unmade_store
    from streamapp.kafka.security import Cluster
    from streamapp.nats.streams import Step

    specs = (
        *topics.own_topics(settings.kafka.topic_prefix),
        *topics.changelogs(settings.kafka_deployment, settings.kafka.store),
    )
    cluster, partitions = Cluster.of(settings), settings.kafka.partitions
    try:
        await refuse_earlier_layout(cluster, settings.kafka_deployment, settings.local.data)
        await refuse_unmade_store(cluster, settings.kafka_deployment, settings.kafka.store)
        if dry_run:
            plan = await plan_topics(cluster, specs, partitions=partitions)
        else:
            plan = await create_topics(
                cluster,
                specs,
                partitions=partitions,
                replication_factor=settings.kafka.replication_factor,
                min_insync_replicas=settings.kafka.insync_replicas,
            )
    except (KafkaError, OSError) as error:
        raise await cluster.explained(error) from error
    done: Outcome = "missing" if dry_run else "created"
    return tuple(Step(f"topic {spec.name}", "present" if spec.name in plan.present else done) for spec in specs)


async def _streams(settings: Settings, dry_run: bool) -> tuple[Step, ...]:
    from streamapp.nats.connection import connect
    from streamapp.nats.streams import ensure

    client = await connect(settings, "init", wait_s=10.0)
    try:
        return await ensure(client.jetstream(), settings, create=not dry_run)
    finally:
        await client.close()


async def _tables(settings: Settings, dry_run: bool) -> tuple[Step, ...]:
    from streamapp.clickhouse.migrations import migrate, migrations, pending
    from streamapp.nats.streams import Step

    names = await (pending(settings) if dry_run else migrate(settings))
    done: Outcome = "missing" if dry_run else "created"
    rest = len(migrations()) - len(names)
    present = (Step(f"{rest} migrations of database {settings.clickhouse.database}", "present"),) if rest else ()
    kept = await _retention(settings, dry_run)
    return (*present, *(Step(f"migration {name}", done) for name in names), *kept)


async def _retention(settings: Settings, dry_run: bool) -> tuple[Step, ...]:
    """Set how long tables keep their rows; without a database there is nothing that is other than it should be."""
    from streamapp.clickhouse.migrations import pending
    from streamapp.clickhouse.retention import retention
    from streamapp.nats.streams import Step

    if dry_run and await pending(settings):
        return ()
    other = await retention(settings, changes=not dry_run)
    return tuple(Step(f"table {each}", "different" if dry_run else "updated") for each in other)
