"""The local stack by the settings: which processes it has, in which order, and where they are.

What has an address in the settings is somebody else's to run and is not started.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from streamapp.local import clickhouse, kafka, nats
from streamapp.local.ports import LOOPBACK, require_claim, require_free
from streamapp.local.process import ProcessSpec
from streamapp.local.readiness import http_answers
from streamapp.settings import Settings, environment_of_children

# A first start imports everything from a cold disk, and trading may rebuild its tables from the changelogs (107 s for a
# million records): ready within 400 s is the promise of `up`.
_READY_WITHIN_S = 300.0

# Beyond the time that a process may take to stop: for Python's own end.
_BEYOND_GRACE_S = 2.0


# On a machine of two cores an insert of some milliseconds stands in the way of an order; rows can wait.
_BEHIND = ("-n", "10")


def _behind(spec: ProcessSpec) -> ProcessSpec:
    """Return the process with a lower priority than the order path, where the system has ``nice``."""
    nice = shutil.which("nice")
    return spec if nice is None else replace(spec, argv=(nice, *_BEHIND, *spec.argv))


class Stack:
    """The processes of the local stack. Making it starts nothing; ``servers`` may download and format."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._data = settings.local.data.absolute()
        self._ports = settings.ports
        self._environment = _environment(settings, self._data)

    @property
    def logs(self) -> Path:
        """The folder of the logs, one a process."""
        return self._data / "logs"

    def require_free_ports(self) -> None:
        """Return if every port of what will be started is free.

        Raises:
            ConfigurationError: naming the first that is not, and who has it.
        """
        for name, port in self._listeners().items():
            require_free(port, name)

    def claim_ports(self) -> None:
        """Claim every port of what will be started for as long as this process lives.

        Raises:
            ConfigurationError: naming the first that is another's, and whose.
        """
        for name, port in self._listeners().items():
            require_claim(port, name)

    def servers(self) -> list[ProcessSpec]:
        """Return Kafka, NATS, the ClickHouse engine and the market, as far as they are ours to run.

        Raises:
            ConfigurationError: something can't be downloaded or prepared.
        """
        settings, ports = self._settings, self._ports
        specs: list[ProcessSpec] = []
        if settings.kafka.bootstrap is None:
            specs.append(kafka.prepare(self._data / "kafka", ports.kafka, ports.kafka_controller))
        if settings.nats.url is None:
            specs.append(nats.prepare(self._data / "nats", ports.nats, ports.nats_monitor))
        if settings.clickhouse.url is None:
            specs.append(_behind(clickhouse.prepare(self._data / "clickhouse", ports.clickhouse)))
        if self._has_market:
            specs.append(self._market())
        return specs

    def workers(self) -> list[ProcessSpec]:
        """Return the processes beside trading."""
        ports = self._ports
        specs = [
            self._module("mirror", ports.mirror),
            _behind(self._faust("warehouse", ports.warehouse)),
            *([_behind(self._module("notifier", ports.notifier))] if self._has_notifier else ()),
        ]
        return [*specs, self._module("terminals", ports.terminals)] if self._settings.is_executor else specs

    def trading(self) -> list[ProcessSpec]:
        """Return the trading worker; ready means that all is ready."""
        return [self._faust("trading", self._ports.trading())]

    def addresses(self) -> dict[str, str]:
        """Return where everything is, configured or local."""
        settings, ports = self._settings, self._ports
        ours = {"mirror": ports.mirror, "warehouse": ports.warehouse}
        if self._has_notifier:
            ours["notifier"] = ports.notifier
        if settings.is_executor:
            ours["terminals"] = ports.terminals
        market = {"market": f"http://{settings.market_address}"} if self._is_simulated else {}
        return {
            "trading": f"http://{LOOPBACK}:{ports.trading()}",
            "nats": settings.nats_url,
            "kafka": settings.kafka_bootstrap,
            "clickhouse": settings.clickhouse_url,
            **market,
            **{name: f"http://{LOOPBACK}:{port}" for name, port in ours.items()},
        }

    @property
    def _is_simulated(self) -> bool:
        accounts = self._settings.accounts.values()
        return self._settings.is_executor and any(account.module == "simulated" for account in accounts)

    @property
    def _has_notifier(self) -> bool:
        return self._settings.notify.urls_file is not None

    @property
    def _has_market(self) -> bool:
        return self._is_simulated and self._settings.simulator_address is None

    def _listeners(self) -> dict[str, int]:
        settings, ports = self._settings, self._ports
        found = {"mirror": ports.mirror, "warehouse": ports.warehouse}
        if self._has_notifier:
            found["the notifier"] = ports.notifier
        found["trading"] = ports.trading()
        if settings.kafka.bootstrap is None:
            found |= {"Kafka": ports.kafka, "Kafka's controller": ports.kafka_controller}
        if settings.nats.url is None:
            found |= {"NATS": ports.nats, "NATS' monitor": ports.nats_monitor}
        if settings.clickhouse.url is None:
            found["ClickHouse"] = ports.clickhouse
        if self._has_market:
            found["the market"] = ports.market
        if settings.is_executor:
            found["terminals"] = ports.terminals
        return found

    def _market(self) -> ProcessSpec:
        folder = self._data / "market"
        folder.mkdir(parents=True, exist_ok=True)
        accounts = folder / "accounts.json"
        accounts.write_text(json.dumps(_simulated_accounts(self._settings), indent=1), encoding="utf-8")
        options = ("--port", str(self._ports.market), "--data", str(folder), "--accounts", str(accounts))
        return self._ours("market", ("-m", "streamapp.simulator", *options), self._ports.market)

    def _module(self, name: str, port: int) -> ProcessSpec:
        module = "streamapp.terminal" if name == "terminals" else f"streamapp.{name}"
        return self._ours(name, ("-m", module), port)

    def _faust(self, name: str, port: int) -> ProcessSpec:
        # uvloop: a third less CPU for every record than asyncio's own loop.
        application = (
            "-m",
            "faust",
            "--loop",
            "uvloop",
            "-A",
            f"streamapp.{name}",
            "--datadir",
            str(self._data / name),
        )
        worker = ("worker", "-l", "info", "--web-host", LOOPBACK, "--web-port", str(port))
        return self._ours(name, (*application, *worker), port)

    def _ours(self, name: str, arguments: tuple[str, ...], port: int) -> ProcessSpec:
        return ProcessSpec(
            name=name,
            argv=(sys.executable, *arguments),
            ready=http_answers(port, "/health"),
            environment=self._environment,
            address=f"http://{LOOPBACK}:{port}",
            ready_within_s=_READY_WITHIN_S,
            stop_within_s=self._settings.stop_grace_s + _BEYOND_GRACE_S,
        )


def _environment(settings: Settings, data: Path) -> Mapping[str, str]:
    """What a process needs to find the same settings from the repository's root, wherever the command was typed."""
    return environment_of_children() | {
        "STREAMAPP_LOCAL__DATA": str(data),
        "STREAMAPP_WORKER": "1",
        "STREAMAPP_SIMULATOR_ADDRESS": settings.market_address,
        "PYTHONUNBUFFERED": "1",  # the last words of a process that dies must be in its log
    }


def _simulated_accounts(settings: Settings) -> list[dict[str, object]]:
    return [
        {
            "name": name,
            "login": account.login,
            "server": account.server,
            "profile": account.profile,
            "balance": str(account.balance),
            "currency": account.currency,
            "leverage": account.leverage,
            "margin_mode": account.margin_mode,
        }
        for name, account in settings.accounts.items()
        if account.module == "simulated"
    ]
