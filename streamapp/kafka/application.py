"""The one way to build a Faust app: settings under which it neither loses nor repeats work (design: architecture)."""

from __future__ import annotations

import platform
import sys
import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import faust
from yarl import URL

from streamapp.errors import ConfigurationError, StreamappError
from streamapp.kafka.abort import CONFIGURATION, SOFTWARE, STOPPED, abort
from streamapp.kafka.assignment import address_taken, is_address_shared
from streamapp.kafka.producer import AppProducer
from streamapp.kafka.security import Cluster
from streamapp.kafka.transport import Transport
from streamapp.kafka.watchdog import Pulse, Watchdog
from streamapp.processes.garbage import settle
from streamapp.processes.stopping import within_grace

SESSION_TIMEOUT_S = 10.0
"""How long the partitions of a worker that was killed stand still. Shorter turns a slow disk into a rebalance."""
REBALANCE_TIMEOUT_S = 60.0
"""Kafka waits this long for a worker to finish what it has begun; lanes promise to be empty in half of it."""
STOP_GRACE_S = 10.0
"""For an orderly stop, which waits ``DRAIN_S`` for what was begun, as a rebalance does, and then for Kafka."""
COMMIT_INTERVAL_S = 2.0
COMMIT_EVERY = 1000
"""Events acknowledged since the last commit are redelivered after a rebalance: these two bound how many. A commit costs
as much as several events, and what is redelivered a look-up each."""
DRAIN_S = 5.0
"""How long a rebalance waits for what was begun. Whatever takes longer waits for a terminal or for the world outside,
and is redelivered to the next owner; the partitions of the whole group stand still meanwhile."""
FETCH_WAIT_MS = 200
"""How long the broker may hold a fetch that has nothing to return.

Faust hard-codes 1500 ms: while one such fetch is held, records for other partitions of the same broker wait behind it.
200 ms costs an idle worker 5 small requests a second (50 ms twice the CPU, at the same latency under load), and is the
most that a record can be held up by an earlier empty fetch.
"""
SWITCH_INTERVAL_S = 0.0005
"""Long against a switch between threads (some 30 microseconds), short against the milliseconds an order may take."""


class StreamApp(faust.App):
    """A Faust app with an idempotent producer, a watchdog and raw topics.

    Attributes:
        sends: The awaited sends of this app, see :class:`streamapp.kafka.producer.Producer`.
        pulse: Whether the event loop stood still.
        cluster: The Kafka that it works on.
        waits: Whether this worker waits for the outside world on purpose, so that records lie there without anybody
            being stuck. Only sinks may say so: their partitions don't trade.
        drain_s, stop_grace_s, fetch_wait_ms, fetch_min_bytes: See :func:`build_app`.
    """

    def __init__(
        self,
        *args: Any,
        cluster: Cluster,
        drain_s: float = DRAIN_S,
        stop_grace_s: float = STOP_GRACE_S,
        fetch_wait_ms: int = FETCH_WAIT_MS,
        fetch_min_bytes: int = 1,
        reads: str = "",
        advertised_url: str | None = None,
        check: Callable[[StreamApp], Awaitable[None]] | None = None,
        **settings: Any,
    ) -> None:
        # A sink that does not wait in a rebalance does not wait in a shutdown either.
        super().__init__(*args, stream_wait_empty=drain_s > 0, **settings)
        self.cluster = cluster
        self.drain_s = drain_s
        self.stop_grace_s = stop_grace_s
        self.fetch_wait_ms = fetch_wait_ms
        self.fetch_min_bytes = fetch_min_bytes
        self._reads = reads
        self._advertised_url = advertised_url
        self._check = check
        self.on_worker_init.connect(_share_interpreter_fairly)
        self.pulse = Pulse(limit_s=float(settings["broker_session_timeout"]) / 2)
        self.sends = AppProducer(self)
        self.on_partitions_assigned.connect(self._check_address)
        self.on_rebalance_complete.connect(self._hold_flow)
        self.waits: Callable[[], bool] = lambda: False

    def raw_topic(self, name: str) -> Any:
        """Return a topic of ours whose keys and values are bare bytes: agents decode, so bad input can't crash them."""
        return self.topic(
            self.cluster.settings.prefixed(name),
            key_type=bytes,
            value_type=bytes,
            key_serializer="raw",
            value_serializer="raw",
        )

    def on_init_dependencies(self) -> Iterable[Any]:
        """Add the watchdog to the services that start with the app."""
        return [*super().on_init_dependencies(), Watchdog(self, loop=self.loop, beacon=self.beacon)]

    async def on_first_start(self) -> None:
        """Make sure that there is nothing in the way of a start, before anything is read or connected."""
        self._name_member()
        try:
            await self.cluster.verify(self.conf.id)
            if self._check is not None:
                await self._check(self)
        except StreamappError as error:
            abort(str(error), code=CONFIGURATION if isinstance(error, ConfigurationError) else SOFTWARE)
        settle()  # no record is there yet, which a drain would wait for
        await super().on_first_start()

    def _name_member(self) -> None:
        """Settle the address and the member id, now that Faust has read its command line, which may name a port."""
        conf = self.conf
        if self._advertised_url is not None:
            conf.canonical_url = self._advertised_url
        url = URL(str(conf.canonical_url))
        conf.consumer_group_instance_id = _instance_id(conf.id, Path(conf.datadir), url, self._reads)

    async def start(self) -> None:
        """Start everything; what a person must mend ends the process with that sentence, and nothing is retried."""
        try:
            await super().start()
        except Exception as error:
            if self._stopped.is_set():
                abort("the start was cut short by a stop, nothing was begun", cause=error, code=STOPPED)
            self._leave_if_for_a_person(error)
            raise

    def _leave_if_for_a_person(self, error: BaseException) -> None:
        mended = error if isinstance(error, ConfigurationError) else self.cluster.denial(error)
        if mended is not None:
            abort(str(mended), code=CONFIGURATION)

    async def stop(self) -> None:
        """Stop in an orderly way: finish what was begun, commit, leave; and end the process if that takes too long."""
        with within_grace(self.stop_grace_s, "what was not acknowledged is redelivered"):
            await super().stop()

    def _crash(self, reason: BaseException) -> None:
        """End the process as soon as anything in the app crashes.

        Faust would shut down in an orderly way first, which commits, closes tables under lanes that are still at work,
        and sometimes never ends. In a stop that was asked for parts trip over others that are gone already: that ends
        the stop, and is no failure.
        """
        if self._stopped.is_set():
            abort("the stop was cut short, what was not acknowledged is redelivered", cause=reason, code=STOPPED)
        self._leave_if_for_a_person(reason)
        abort("a part of the app crashed", cause=reason)

    async def _check_address(self, *_: Any, **__: Any) -> None:
        """End the process if another worker has its address: each would say that the other's orders do not exist."""
        if self.tables.changelog_topics and is_address_shared(self):
            abort(str(address_taken(self)), code=CONFIGURATION)

    async def _hold_flow(self, *_: Any, **__: Any) -> None:
        """Let no record through between the end of a recovery and the seek to the committed offsets.

        Faust resumes the source partitions, seeks, and then clears its queues. A record that comes in between would be
        cleared away as already read, and not be redelivered before the next start.
        Faust resumes the flow itself.
        """
        self.consumer.stop_flow()
        self.flow_control.suspend()

    def _create_directories(self) -> None:
        # Faust makes the last folder of the path alone; a first start may have none of it.
        self.conf.datadir.mkdir(parents=True, exist_ok=True)
        super()._create_directories()

    def _new_transport(self) -> Any:
        return Transport(self.conf.broker_consumer, self)

    def _new_producer_transport(self) -> Any:
        return Transport(self.conf.broker_producer, self)


def _instance_id(name: str, data_dir: Path, url: URL, reads: str) -> str:
    """Return the same id at every start of one worker, and another for every other worker.

    Two with one id put each other out of the group for ever. The host and the folder are in it because no two workers
    share both; a pod that is made anew under its old name has them again. What the worker reads and the address that
    it is known by are in it because Kafka hands a member that comes back the assignment that it had, with both.
    """
    place = zlib.crc32(f"{data_dir.absolute()}|{reads}|{url}".encode())
    return f"{name}-{platform.node()}-{url.port}-{place:08x}"


def _share_interpreter_fairly(*_: Any, **__: Any) -> None:
    """Make the consumer's thread give the interpreter back sooner than after Python's own 5 ms.

    Every read and write of a socket releases the interpreter, and whoever wants it back waits that long for the other
    thread: some twenty times in the life of an order.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)


_SAFE: dict[str, Any] = {
    "store": "rocksdb://",
    "version": 1,  # another number would be another group with empty tables
    "Table": "tables.changelog.FencedStore",  # a name: tables know kafka, not the other way round
    "TableManager": "tables.recovery.BulkTables",
    "autodiscover": False,
    "agent_supervisor": "mode.CrashingSupervisor",
    "topic_allow_declare": False,
    "topic_disable_leader": True,
    "consumer_auto_offset_reset": "earliest",
    "broker_rebalance_timeout": REBALANCE_TIMEOUT_S,
    "broker_request_timeout": 30.0,
    "broker_max_poll_interval": 300.0,
    "broker_commit_interval": COMMIT_INTERVAL_S,
    "broker_commit_every": COMMIT_EVERY,
    "broker_max_poll_records": 100,
    "producer_acks": -1,
    "producer_linger": 0,
    "producer_request_timeout": 30.0,
    "stream_buffer_maxsize": 512,
    "cython_optimizations": True,
    "web_tables_enabled": False,
    "web_metrics_enabled": True,
}
"""What every app of ours has in common; Faust's own defaults lose and repeat work."""


def build_app(
    name: str,
    *,
    bootstrap: Cluster | str,
    data_dir: Path,
    partitions: int,
    replication_factor: int,
    web_port: int,
    web_host: str = "127.0.0.1",
    advertised_url: str | None = None,
    standby_replicas: int = 0,
    reads: str = "",
    session_timeout_s: float = SESSION_TIMEOUT_S,
    web_options: Mapping[str, Any] | None = None,
    drain_s: float = DRAIN_S,
    stop_grace_s: float = STOP_GRACE_S,
    fetch_wait_ms: int = FETCH_WAIT_MS,
    fetch_min_bytes: int = 1,
    check: Callable[[StreamApp], Awaitable[None]] | None = None,
    **settings: Any,
) -> StreamApp:
    """Build an app that is connected to nothing yet, for a composition root to register its agents and tables on.

    Args:
        name: The app id and consumer group. Never changed: offsets and changelogs carry it.
        bootstrap: Where Kafka is.
        data_dir: Where this worker alone keeps its tables. Two workers never share one.
        partitions: Of every topic, changelogs included.
        replication_factor: Of the changelogs (``streamapp init`` creates them).
        web_port: Of this worker's web server, which other workers ask for what it owns.
        web_host: Where it listens.
        advertised_url: How the other workers reach it, by default the host and port where it listens.
        standby_replicas: How many other workers keep copies of a partition's rows.
        reads: Names what this worker reads, where that may change. Kafka hands a member that comes back under its old
            name the assignment it had, without making a new one, so a topic that is new would have no reader.
        session_timeout_s: After how long of silence Kafka gives a worker's partitions to another.
        web_options: Arguments of aiohttp's ``web.Application``, such as middlewares.
        drain_s: How long a rebalance or a stop waits at most for events that were begun; 0 for a sink, whose events may
            wait for the outside world for ever.
        stop_grace_s: How long a stop may take; then the process ends with exit code 0 all the same.
        fetch_wait_ms: How long Kafka may hold a fetch until ``fetch_min_bytes`` are there. A sink that nobody waits for
            reads much cheaper in large, rare fetches.
        fetch_min_bytes: How much is worth an answer before that.
        check: Awaited, with the app, before anything is started or recovered. If it raises a
            :class:`~streamapp.errors.StreamappError` the process ends there, with exit code 78 for a
            :class:`~streamapp.errors.ConfigurationError`.
        **settings: Further Faust settings.

    Returns:
        The app. Agents on it are ``isolated_partitions=True``, ``noack()``, and crash the worker with any exception.
    """
    cluster = Cluster.at(bootstrap)
    chosen: dict[str, Any] = {
        "broker": ";".join(f"kafka://{server.strip()}" for server in cluster.bootstrap.split(",")),
        "broker_credentials": cluster.faust_credentials(),
        "broker_client_id": name,
        "cluster": cluster,
        "datadir": data_dir,
        "topic_partitions": partitions,
        "topic_replication_factor": replication_factor,
        "table_standby_replicas": standby_replicas,
        "reads": reads,
        "advertised_url": advertised_url,
        "broker_session_timeout": session_timeout_s,
        "broker_heartbeat_interval": session_timeout_s / 4,
        "web_host": web_host,
        "web_bind": web_host,
        "web_port": web_port,
        "web_application_options": dict(web_options or {}),
        "drain_s": drain_s,
        "stop_grace_s": stop_grace_s,
        "fetch_wait_ms": fetch_wait_ms,
        "fetch_min_bytes": fetch_min_bytes,
        "check": check,
    }
    return StreamApp(name, **_SAFE, **chosen, **settings)
