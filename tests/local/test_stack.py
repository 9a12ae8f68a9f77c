from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamapp.errors import ConfigurationError
from streamapp.local import ports
from streamapp.local.stack import Stack
from streamapp.settings import Settings, settings_from


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_with(tmp_path, "")


def settings_with(folder: Path, extra: str) -> Settings:
    file = folder / "streamapp.toml"
    file.write_text(f"{extra}\n[local]\ndata = {json.dumps(str(folder / 'data'))}\nport_offset = 20000\n")
    return settings_from(file)


def names(settings: Settings) -> list[str]:
    stack = Stack(settings)
    return [spec.name for spec in (*stack.servers(), *stack.workers(), *stack.trading())]


def test_everything_without_an_address_is_started_and_trading_comes_last(settings: Settings) -> None:
    servers, workers = ["kafka", "nats", "clickhouse", "market"], ["mirror", "warehouse", "terminals"]
    assert names(settings) == [*servers, *workers, "trading"]


def test_what_has_an_address_is_not_started(tmp_path: Path) -> None:
    extra = """
simulator_address = "10.0.0.5:6080"
kafka.bootstrap = "10.0.0.5:9092"
nats.url = "nats://10.0.0.5:4222"
clickhouse.url = "http://10.0.0.5:8123"
"""
    settings = settings_with(tmp_path, extra)
    assert names(settings) == ["mirror", "warehouse", "terminals", "trading"]
    assert Stack(settings).addresses()["kafka"] == "10.0.0.5:9092"


def test_a_notifier_runs_where_it_has_receivers(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, "[notify]\nurls_file = 'urls'")
    assert names(settings)[5:7] == ["warehouse", "notifier"]
    assert Stack(settings).addresses()["notifier"].endswith(":26074")


def test_an_execution_role_has_neither_terminals_nor_a_market(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, 'role = "execution"')
    assert "terminals" not in names(settings)
    assert "market" not in names(settings)


def test_the_market_knows_the_simulated_accounts(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, '[accounts.alpha]\nlogin = 7\nmargin_mode = "netting"\nbalance = 5000')
    market = next(spec for spec in Stack(settings).servers() if spec.name == "market")
    accounts = json.loads(Path(market.argv[market.argv.index("--accounts") + 1]).read_text())
    assert [(each["name"], each["login"], each["margin_mode"], each["balance"]) for each in accounts] == [
        ("alpha", 7, "netting", "5000")
    ]


def test_a_port_of_the_stack_in_use_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda port: port != settings.ports.nats)
    with pytest.raises(ConfigurationError, match=f"expected port {settings.ports.nats} free for NATS"):
        Stack(settings).require_free_ports()


def test_no_process_is_started_through_a_shell(settings: Settings) -> None:
    stack = Stack(settings)
    for spec in (*stack.servers(), *stack.workers(), *stack.trading()):
        assert Path(spec.argv[0]).is_absolute()
        assert Path(spec.argv[0]).name not in {"sh", "bash"}
