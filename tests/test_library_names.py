"""The names that our libraries keep to themselves, and that we use all the same: all of them, and what each is for.

A library may change such a name in any release. Whoever raises a version reads here, in one place, what is gone and
what it was for. Our sources are read as well, so that a use that is not listed fails.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from streamapp.local.process import REPOSITORY

LIBRARIES = {
    "faust": "faust-streaming",
    "mode": "mode-streaming",
    "aiokafka": "aiokafka",
    "nats": "nats-py",
    "rocksdict": "rocksdict",
    "clickhouse_connect": "clickhouse-connect",
    "chdb": "chdb",
    "jgo": "jgo",
}
"""What is watched, with the names of the distributions."""
OURS = ("streamapp", "agents", "tables")
DOCUMENTED = {
    *("faust", "faust.auth", "faust.types", "mode", "rocksdict", "clickhouse_connect", "chdb", "jgo"),
    *("aiokafka", "aiokafka.abc", "aiokafka.admin", "aiokafka.errors", "clickhouse_connect.driver.exceptions"),
    *("nats", "nats.errors", "nats.aio.client", "nats.aio.msg", "nats.aio.subscription"),
    *("nats.js", "nats.js.api", "nats.js.errors", "nats.js.kv"),
}
"""The modules of these libraries that their documentation names."""
HOOKS = {
    *("start", "stop", "on_start", "on_stop", "on_first_start", "on_init_dependencies", "token"),
    *("on_partitions_assigned", "on_partitions_revoked"),
}
"""What the documentation of mode, Faust and aiokafka asks subclasses to write."""
STANDARD = {"_asdict", "_replace", "_exit", "_base_executable"}
"""Python's own: of named tuples, ``os`` and ``sys``."""

APP, TABLE = "faust.app.base:App", "faust.tables.base:Collection"
CONSUMER, DRIVER = "faust.transport.consumer:Consumer", "faust.transport.drivers.aiokafka"
RECOVERY, ROCKSDB = "faust.tables.recovery:Recovery", "faust.stores.rocksdb:Store"

NAMES: dict[str, dict[str, str]] = {
    "streamapp/clickhouse/client.py": {
        "clickhouse_connect.driver": "its asynchronous client is imported at our start, not at the first insert",
        "clickhouse_connect.driver.options:np": "set to None, so that no insert imports numpy",
        "clickhouse_connect.driver.options:pd": "set to None, so that no insert imports pandas",
        "clickhouse_connect.driver.options:arrow": "set to None, so that no insert imports pyarrow",
        "clickhouse_connect.driver.options:pl": "set to None, so that no insert imports polars",
    },
    "streamapp/kafka/application.py": {
        "mode.services:Service._crash(self, reason)": "ends the process at once, where Faust would commit first",
        "mode.services:Service._stopped": "whether a stop was asked for, so that what trips over it is no crash",
        f"{APP}._create_directories(self)": "makes the folders above the data folder as well",
        f"{APP}._new_transport(self)": "puts our transport in for the consumer",
        f"{APP}._new_producer_transport(self)": "puts our transport in for the producer",
        f"{APP}.consumer": "its flow is stopped between the end of a recovery and the seek",
        f"{APP}.flow_control": "suspended for as long",
        f"{APP}.on_rebalance_complete": "says when that is",
        f"{CONSUMER}.stop_flow(self)": "lets no record through for as long",
    },
    "streamapp/kafka/assignment.py": {
        "aiokafka.coordinator.protocol": "ConsumerProtocolMemberMetadata, in which a member says its address",
        f"{APP}.assignor": "knows which worker has which partition",
        "faust.assignor.partition_assignor:PartitionAssignor._tps_url": "the worker that owns a partition",
        "faust.assignor.partition_assignor:PartitionAssignor._external_tps_url": "the same, as the leader has told it",
        "faust.assignor.partition_assignor:PartitionAssignor.external_topic_distribution": "all workers of the group",
    },
    "streamapp/kafka/channel.py": {
        "faust.channels": "Channel, the class of an agent's input",
        "mode.utils.queues": "ThrowableQueue, the class of its queue",
        "faust.channels:Channel._root": "an agent reads a clone of its channel, and both need one queue",
        "faust.channels:Channel.queue": "is not bounded, and not emptied in a rebalance",
        "mode.utils.queues:FlowControlQueue.__init__(self, maxsize=, *, flow_control, clear_on_resume=, **kwargs)": (
            "a queue that keeps its values when the flow resumes"
        ),
    },
    "streamapp/kafka/partition.py": {
        "aiokafka.partitioner": "murmur2, the hash by which Java's client and aiokafka choose partitions",
    },
    "streamapp/kafka/security.py": {
        "aiokafka.conn": "one connection, to ask a broker why it turns us away; and the logger that would tell secrets",
        "aiokafka.conn:collect_hosts(hosts, randomize=)": "reads bootstrap addresses as the client does",
        "aiokafka.conn:create_conn(host, port, *, client_id=, request_timeout_ms=, ssl_context=, security_protocol=, "
        "max_idle_ms=, on_close=, sasl_mechanism=, sasl_plain_username=, sasl_plain_password=, "
        "sasl_kerberos_service_name=, sasl_kerberos_domain_name=, sasl_oauth_token_provider=) -> awaitable": (
            "makes it"
        ),
        "aiokafka.conn:AIOKafkaConnection.send(self, request, expect_response=)": "the question itself",
        "aiokafka.protocol.admin": "SaslAuthenticateRequest, by which a login is known in the log",
        "aiokafka.protocol.coordination": "FindCoordinatorRequest, which shows whether a group may be read in",
        "aiokafka.protocol.metadata": "MetadataRequest, the first question",
    },
    "streamapp/kafka/sensors.py": {
        f"{CONSUMER}._read_offset": "which partitions are ours now; the monitor forgets none",
    },
    "streamapp/kafka/transport.py": {
        "faust.transport.drivers": "aiokafka, the transport of which ours is made",
        f"{DRIVER}:Producer._settings_extra(self)": "acknowledged by all replicas, and idempotent",
        "faust.transport.producer:Producer.buffer": "the records that wait to be sent",
        "faust.transport.producer:ProducerBuffer.max_messages": "how many, before the streams are held back",
        f"{DRIVER}:AIOKafkaConsumerThread._create_worker_consumer(self, transport)": "sets the two fetch settings",
        f"{DRIVER}:AIOKafkaConsumerThread._ensure_consumer(self)": "the client behind the thread",
        f"{DRIVER}:AIOKafkaConsumerThread.seek_to_committed(self) -> awaitable": "seeks without a commit, too",
        "mode.threads:QueueServiceThread.call_thread(self, fun, *args, **kwargs) -> awaitable": "seeks in that thread",
        "aiokafka.consumer.consumer:AIOKafkaConsumer._fetch_max_wait_ms": "Faust has 1500 ms, and no setting for it",
        "aiokafka.consumer.consumer:AIOKafkaConsumer._fetch_min_bytes": "no setting of Faust either",
        f"{DRIVER}:Consumer._new_consumer_thread(self)": "puts our thread in",
        f"{DRIVER}:Transport.Consumer": "puts our consumer in",
        f"{DRIVER}:Transport.Producer": "puts our producer in",
        f"{CONSUMER}.on_partitions_revoked(self, revoked) -> awaitable": "waits for what was begun, for a limited time",
        f"{CONSUMER}.wait_empty(self) -> awaitable": "the same when it stops; Faust would wait for ever",
        f"{CONSUMER}._unacked_messages": "what was begun",
        f"{CONSUMER}._waiting_for_ack": "the future that an acknowledgement fulfils",
        f"{CONSUMER}._clean_unacked_messages(self)": "forgets what is acknowledged",
        f"{CONSUMER}._new_offset(self, tp)": "never commits beyond a record that was skipped",
        f"{CONSUMER}._acked": "offsets acknowledged and not committed, by partition",
        f"{CONSUMER}._gap": "offsets that hold no record",
        f"{CONSUMER}._committed_offset": "how far a partition is committed",
        "faust.types.tuples:Message.acked": "set where a rebalance gives up an event, so that no later one is counted",
        f"{APP}.flow_control": "suspended and cleared in a rebalance",
    },
    "streamapp/kafka/watchdog.py": {
        f"{CONSUMER}._committed_offset": "how far our partitions are committed",
        f"{CONSUMER}.assignment(self)": "which they are",
        f"{CONSUMER}.highwaters(self, *partitions) -> awaitable": "where they end",
        f"{CONSUMER}.earliest_offsets(self, *partitions) -> awaitable": "where they begin",
        f"{APP}.rebalancing": "whether nothing can be read now",
        f"{APP}.rebalancing_count": "whether there is progress",
        f"{RECOVERY}.in_recovery": "the same",
        f"{RECOVERY}.active_remaining_total(self)": "the same",
        "faust.tables.manager:TableManager.recovery": "what these are asked of",
        "faust.tables.manager:TableManager.changelog_topics": "which partitions are not read but recovered",
    },
    "streamapp/local/engine.py": {
        "chdb.state.sqlitelike": "connect, the way to chdb's engine with sessions; local stack only",
    },
    "streamapp/mirror/kafka.py": {
        "aiokafka.producer.message_accumulator": "BatchBuilder, as a type",
        "aiokafka.producer.producer:AIOKafkaProducer._sender": "an idempotent producer that is stopped tries for ever",
        "aiokafka.producer.sender:Sender.close(self) -> awaitable": "so its sender is stopped first",
    },
    "streamapp/notifier/service.py": {
        "aiokafka.coordinator.assignors.range": "RangePartitionAssignor, named in its documentation without its place",
    },
    "streamapp/nats/client.py": {
        "nats.protocol": "parser, whose expressions read the wire",
        "nats.protocol.parser:MSG_RE": "replaced: theirs takes a form feed in a subject for a separator",
        "nats.protocol.parser:HMSG_RE": "replaced for the same reason",
        "nats.aio.client:Client._connect_command(self)": "says nothing in the clear that was meant for TLS",
        "nats.aio.client:Client._server_info": "whether the server asks for TLS",
        "nats.aio.client:Client._public_nkey": "who we are, read anew for each connection",
        "nats.aio.client:Client._process_msg(self, sid, subject, reply, data, headers) -> awaitable": (
            "a subject or header of any bytes must not stop the reading"
        ),
        "nats.aio.client:Client._process_err(self, err_msg) -> awaitable": "connects again when a token has ended",
        "nats.aio.client:Client._process_op_err(self, e) -> awaitable": "does it",
        "nats.aio.client:Client._error_cb": "is told of it",
        "nats.aio.client:Client.publish(self, subject, payload=, reply=, headers=) -> awaitable": (
            "puts our prefix before a subject; requests and JetStream's calls come this way"
        ),
        "nats.aio.client:Client.request(self, subject, payload=, timeout=, old_style=, headers=) -> awaitable": (
            "loses no cancellation; JetStream's calls come this way"
        ),
        "nats.aio.client:Client.subscribe(self, subject, queue=, cb=, future=, max_msgs=, pending_msgs_limit=, "
        "pending_bytes_limit=) -> awaitable": "the same",
    },
    "tables/changelog.py": {
        f"{TABLE}.on_rebalance(self, assigned, revoked, newly_assigned, generation_id=) -> awaitable": (
            "drops the local copy that carries a mark before it is opened"
        ),
        f"{TABLE}.apply_changelog_batch(self, batch)": "skips what is not where its writer expected it",
        f"{TABLE}.on_recovery_completed(self, active_tps, standby_tps) -> awaitable": "opens the store for work",
        f"{TABLE}.send_changelog(self, partition, key, value, key_serializer=, value_serializer=)": "refused",
        f"{TABLE}._on_changelog_sent(self, fut)": "refused: it would move our offset",
        "faust.tables.table:Table.on_key_set(self, key, value)": "refused: not awaited, and lost at a refusal",
        "faust.tables.table:Table.on_key_del(self, key)": "refused: a tombstone has no place for the offset",
        "faust.tables.table:Table.on_clear(self)": "refused",
        f"{TABLE}.changelog_topic_name": "where a commit is written",
        f"{TABLE}.data": "Faust's own store behind the table",
        f"{ROCKSDB}._dbs": "the local copies that are open, by partition",
        f"{ROCKSDB}.offset_key": "the row that says how far a copy reaches",
        f"{ROCKSDB}.partition_path(self, partition)": "where it is on disk",
        f"{RECOVERY}.active_highwaters": "where the log ended when it was read",
        "faust.tables.manager:TableManager.recovery": "whom that is asked of",
        f"{APP}.on_partitions_revoked": "gives the partitions up",
    },
    "tables/recovery.py": {
        "faust.tables.manager": "TableManager, of which ours is made",
        "faust.tables.manager:TableManager._recovery": "puts our recovery in",
        "faust.tables.manager:TableManager.recovery": "the same",
        "faust.tables.recovery": "Recovery, of which ours is made",
        f"{RECOVERY}.on_rebalance(self, assigned, revoked, newly_assigned, generation_id=) -> awaitable": (
            "ends the reading of an earlier assignment"
        ),
        f"{RECOVERY}.add_standby(self, table, tp)": "leaves standbys to our own reader: Faust's lose records unseen",
        f"{RECOVERY}._wait(self, coro, timeout=) -> awaitable": "waits for a long reading without Faust's limit",
        f"{RECOVERY}._build_offsets(self, consumer, tps, destination, title) -> awaitable": (
            "reads the logs in bulk, so that Faust finds nothing left to read"
        ),
    },
}
"""By our file: ``module:Class.name(parameters)``, where ``=`` is a default; or a module that is not documented."""

SAID = (
    ("aiokafka.consumer.consumer:AIOKafkaConsumer.start", "fetch_max_wait_ms=self._fetch_max_wait_ms"),
    ("aiokafka.consumer.consumer:AIOKafkaConsumer.start", "fetch_min_bytes=self._fetch_min_bytes"),
    (f"{DRIVER}:AIOKafkaConsumerThread._create_worker_consumer", "fetch_max_wait_ms=1500"),
    ("nats.protocol.parser:Parser.parse", "= MSG_RE.match(self.buf)"),
    ("nats.protocol.parser:Parser.parse", "subject, sid, _, reply, needed_bytes = msg.groups()"),
    ("nats.protocol.parser:Parser.parse", "= HMSG_RE.match(self.buf)"),
    ("nats.protocol.parser:Parser.parse", "subject, sid, _, reply, header_size, needed_bytes = msg.groups()"),
    ("nats.protocol.parser", 'PERMISSIONS_ERR = "permissions violation"'),
    ("aiokafka.conn", "log = logging.getLogger(__name__)"),
)
"""What must stand in a library's source for a name to do what we use it for. 1500 ms is why we set the first two."""


def listed() -> list[tuple[str, str, str]]:
    return [(file, entry, why) for file, entries in NAMES.items() for entry, why in entries.items()]


def called(entry: str) -> str:
    """Return the name itself; of a module all of it."""
    module, _, name = entry.partition(":")
    return name.partition("(")[0].rpartition(".")[2] or module


def test_every_name_is_there_and_takes_what_we_give_it() -> None:
    changed = [
        f"{file}: {why}: expected {entry}, got {got}" for file, entry, why in listed() if (got := now(entry)) != entry
    ]
    assert changed == [], "a library has changed a name that it keeps to itself: see what that makes of our code"


def test_what_we_override_is_still_called() -> None:
    unused = [
        f"{file}: {why}: nothing there uses .{called(entry)} any more, the name of {entry}"
        for file, entry, why in listed()
        if called(entry) in overridden(file)
        and not any(f".{called(entry)}" in sources_of(library) for library in ("mode", entry.partition(".")[0]))
    ]
    assert unused == []


@pytest.mark.parametrize(("place", "text"), SAID)
def test_what_we_rely_on_stands_in_the_source(place: str, text: str) -> None:
    assert text in inspect.getsource(owner_of(place)), f"{place} has changed: see what that makes of our code"


def test_our_expressions_have_the_groups_that_the_parser_of_nats_reads() -> None:
    from streamapp.nats.client import _MESSAGE, _MESSAGE_WITH_HEADERS

    assert [_MESSAGE.groups, _MESSAGE_WITH_HEADERS.groups] == [5, 6]


def test_the_bare_answers_that_aiokafkas_admin_returns_have_the_fields_that_we_read() -> None:
    """Of streamapp/kafka/admin.py: what could not be created, and how many members a group has."""
    from aiokafka.protocol import admin

    created = [each for name, each in vars(admin).items() if name.startswith("CreateTopicsResponse_v")]
    described = [each for name, each in vars(admin).items() if name.startswith("DescribeGroupsResponse_v")]
    assert created, "aiokafka has renamed CreateTopicsResponse"
    assert described, "aiokafka has renamed DescribeGroupsResponse"
    for each in created:
        fields = dict(zip(each.SCHEMA.names, each.SCHEMA.fields, strict=True))["topic_errors"].array_of.names
        assert fields[:2] == ("topic", "error_code"), each
    for each in described:
        fields = dict(zip(each.SCHEMA.names, each.SCHEMA.fields, strict=True))["groups"].array_of.names
        assert (fields[0], fields[5]) == ("error_code", "members"), each


def test_every_name_that_is_listed_is_used() -> None:
    stale = [
        f"{file}: {entry}"
        for file, entry, _ in listed()
        if called(entry) != "__init__" and not re.search(rf"\b{re.escape(called(entry))}\b", source(file))
    ]
    assert stale == []


def test_every_use_is_listed() -> None:
    unlisted = [
        f"{file} uses {name}: list it in NAMES with what it is for, or do without"
        for file in our_files()
        for name in sorted(uses(file) - {called(entry) for entry in NAMES.get(file, {})})
    ]
    assert unlisted == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("import faust._cython.streams", "faust._cython.streams"),
        ("from aiokafka import _missing", "_missing"),
        ("from aiokafka.cluster import ClusterMetadata", "aiokafka.cluster"),
        ("import nats.aio.transport", "nats.aio.transport"),
        ("def f(client):\n    return client._pending", "_pending"),
        ("def f(client):\n    return getattr(client, '_pending')", "_pending"),
        ("from nats.aio import client\nclient.DEFAULT_PING_INTERVAL = 1", "DEFAULT_PING_INTERVAL"),
    ],
)
def test_a_use_of_each_kind_is_found(text: str, name: str) -> None:
    assert name in outside_of_classes(ast.parse(text))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("def _process_err(self, error): ...", "_process_err"),
        ("def read(self): return self._pending", "_pending"),
        ("def read(self): self._pending = []", "_pending"),
        ("def flush(self): ...", "flush"),
        ("_status = 0", "_status"),
    ],
)
def test_a_use_of_each_kind_in_a_subclass_is_found(text: str, name: str) -> None:
    from nats.aio.client import Client

    (written,) = ast.parse(f"class Ours(Client):\n    {text}").body
    assert isinstance(written, ast.ClassDef)
    assert name in inside_of_class(written, [Client])


def test_what_has_private_names_that_we_use_is_bounded_above() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {LIBRARIES[entry.partition(".")[0]] for _, entry, _ in listed()}
    for extra, requirements in project["optional-dependencies"].items():
        for requirement in requirements:
            name = re.split(r"[\[<>=;]", requirement)[0]
            if name in needed:
                assert re.search(r"==|<\d", requirement), f"{extra}: {requirement}: expected an upper bound"
    bounded = {re.split(r"[\[<>=;]", each)[0] for every in project["optional-dependencies"].values() for each in every}
    assert needed <= bounded, "what is used by its private names is bounded by us, whoever else brings it"


# --- the libraries


def owner_of(place: str) -> Any:
    """Return the module, class, function or attribute ``module:Class.name``."""
    module, _, names = place.partition(":")
    found: Any = importlib.import_module(module)
    for name in names.split(".") if names else ():
        found = getattr(found, name)
    return found


def now(entry: str) -> str:
    """Return an entry as the installed release has it."""
    path, _, _ = entry.partition("(")
    owner, _, name = path.rpartition(".") if "." in path.partition(":")[2] else path.rpartition(":")
    try:
        found = owner_of(path)
    except ImportError:
        return "no such module"
    except AttributeError:
        try:
            return path if name in names_of([owner_of(owner)]) else "no such name"
        except (AttributeError, ImportError):
            return f"no {owner}"
    return path + (signature(found) if inspect.isroutine(found) else "")


def signature(function: Any) -> str:
    """Return the names of the parameters, = for a default, and whether the call is awaited."""
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    parts, is_named = [], False
    for parameter in inspect.signature(function).parameters.values():
        star = next((star for kind, star in stars.items() if kind is parameter.kind), "")
        if parameter.kind is parameter.KEYWORD_ONLY and not is_named:
            parts.append("*")
        is_named = is_named or parameter.kind in {parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL}
        parts.append(f"{star}{parameter.name}{'' if parameter.default is parameter.empty else '='}")
    return f"({', '.join(parts)})" + (" -> awaitable" if inspect.iscoroutinefunction(function) else "")


def names_of(classes: list[type]) -> set[str]:
    """Return what is defined in these classes and their bases, and what their methods set on ``self``."""
    bases = {base for each in classes for base in each.__mro__ if is_watched(base.__module__)}
    return set().union(*map(own_names_of, bases))


@cache
def own_names_of(each: type) -> frozenset[str]:
    return frozenset(vars(each).keys() | stored(ast.parse(textwrap.dedent(inspect.getsource(each)))))


@cache
def sources_of(library: str) -> str:
    """Return all of a library's source."""
    (folder,) = importlib.import_module(library).__path__
    return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in Path(folder).rglob("*.py"))


# --- our sources


def our_files() -> list[str]:
    return sorted(str(path.relative_to(REPOSITORY)) for folder in OURS for path in (REPOSITORY / folder).rglob("*.py"))


def source(file: str) -> str:
    return (REPOSITORY / file).read_text(encoding="utf-8")


@cache
def uses(file: str) -> set[str]:
    """Return the names of others that a file of ours uses: private ones, replaced ones, and undocumented modules."""
    tree = ast.parse(source(file))
    found = outside_of_classes(tree)
    for written, bases in subclasses(file, tree):
        found |= inside_of_class(written, bases)
    return found


@cache
def overridden(file: str) -> set[str]:
    """Return what classes of ours define that their bases of the libraries have, too."""
    return {
        name
        for written, bases in subclasses(file, ast.parse(source(file)))
        for name in defined(written) & names_of(bases)
    }


def subclasses(file: str, tree: ast.Module) -> Iterator[tuple[ast.ClassDef, list[type]]]:
    """Yield the classes of a file that stand on classes of the libraries, and these."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.bases]
    if not classes or not LIBRARIES.keys() & set(re.findall(r"^\s*(?:from|import) (\w+)", source(file), re.MULTILINE)):
        return
    module = importlib.import_module(file.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    for written in classes:
        bases = [base for base in vars(module)[written.name].__mro__ if is_watched(base.__module__)]
        if bases:
            yield written, bases


def inside_of_class(written: ast.ClassDef, bases: list[type]) -> set[str]:
    """Return what a class of ours overrides of its bases, sets, or uses though it is private."""
    private = {
        node.attr
        for node in ast.walk(written)
        if isinstance(node, ast.Attribute) and is_private(node.attr) and (is_self(node.value) or is_super(node.value))
    }
    own = {name for name in defined(written) | stored(written) if not name.startswith("__")} - HOOKS
    return (private | own) & names_of(bases)


def outside_of_classes(tree: ast.Module) -> set[str]:
    """Return private names of others, names that are replaced in their modules, and modules that are not documented."""
    found: set[str] = set()
    own: set[str] = set()
    theirs: set[str] = set()
    private: set[str] = set()
    replaced: list[tuple[str, str]] = []
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                found |= {each.name for each in names if is_undocumented(each.name)}
            case ast.ImportFrom(module=str(module), names=names) if module.partition(".")[0] not in OURS:
                found |= {each.name for each in names if is_private(each.name)}
                found |= {module} if is_undocumented(module) else set()
                theirs |= {each.asname or each.name for each in names} if is_watched(module) else set()
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                own.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                own.add(name)
            case ast.Attribute(value=value, attr=name, ctx=ctx) if is_self(value) or is_super(value):
                own |= {name} if isinstance(ctx, ast.Store) else set()  # what is read is looked at in its class
            case ast.Attribute(attr=name) if is_private(name):
                private.add(name)
            case ast.Attribute(value=ast.Name(id=module), attr=name, ctx=ast.Store()):
                replaced.append((module, name))
            case ast.Call(
                func=ast.Name(id="getattr" | "setattr" | "hasattr"), args=[_, ast.Constant(value=str(name)), *_]
            ) if is_private(name):
                private.add(name)
            case _:
                pass
    return found | (private - own - STANDARD) | {name for module, name in replaced if module in theirs}


def is_undocumented(module: str) -> bool:
    parts = module.split(".")
    return parts[0] not in OURS and (any(map(is_private, parts)) or (is_watched(module) and module not in DOCUMENTED))


def is_watched(module: str) -> bool:
    return module.partition(".")[0] in LIBRARIES


def is_private(name: str) -> bool:
    return name.startswith("_") and name != "_" and not name.endswith("__")


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in {"self", "cls"}


def is_super(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"


def defined(tree: ast.Module | ast.ClassDef) -> set[str]:
    """Return what the body of a module or class defines."""
    names = set()
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Assign(targets=targets):
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case _:
                pass
    return names


def stored(tree: ast.AST) -> set[str]:
    """Return what is set on ``self`` or declared."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value)
    } | {
        node.target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
