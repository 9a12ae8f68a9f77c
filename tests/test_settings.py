"""Settings that can't be meant: each is refused at the start, with its place and what was expected."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from streamapp.errors import ConfigurationError
from streamapp.ports import Ports
from streamapp.settings import (
    KafkaSettings,
    Settings,
    WebSettings,
    environment_of_children,
    load_settings,
    settings_from,
)

TWO = "[accounts.one]\nlogin = 1\n[accounts.two]\nlogin = 2\n"


def settings(folder: Path, text: str) -> Settings:
    (folder / "streamapp.toml").write_text(TWO + text)
    return settings_from(folder / "streamapp.toml")


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ('symbols = { GOLD = "XAUUSD", XAU = "XAUUSD" }', "accounts.two", "got XAUUSD for GOLD and for XAU"),
        (
            'symbol_suffix = ".m"\nsymbols = { GOLD = "XAUUSD.m" }',
            "accounts.two",
            "got XAUUSD.m for GOLD and, by rule, XAUUSD",
        ),
        ('symbols = { EURUSD = "" }', "accounts.two.symbols.EURUSD", "at least 1 character"),
        ('volume_factor = "0"', "accounts.two.volume_factor", "greater than 0"),
        ('volume_step = "-0.01"', "accounts.two.volume_step", "greater than 0"),
        ('volume_min = "0"', "accounts.two.volume_min", "greater than 0"),
        ('volume_factor = "nan"', "accounts.two.volume_factor", "finite number"),
        ('[execution.routing]\n"*/*" = {}', "execution.routing.*/*", "expected at least one account, got an empty"),
        ('[execution.routing]\n"x/*" = { one = "0" }', "execution.routing.x/*.one", "greater than 0"),
        ('[execution.routing]\n"x/*" = { one = "-1" }', "execution.routing.x/*.one", "greater than 0"),
        ('[execution.routing]\n"x/*" = { three = "1" }', "execution.routing.x/*", "one, two, got three"),
        ('[execution.routing]\n"x/*" = "three"', "execution.routing.x/*", "one, two, got three"),
        ("[retention]\nkeys_days = 6", "retention.keys_days", "expected 30 at least (retention.closed_days), got 6"),
        ("[retention]\nclosed_days = 1\nkeys_days = 6", "retention.keys_days", "expected 7 at least (how long"),
        (
            "[retention]\nclosed_days = 1\nkeys_days = 8\n[nats.streams.EXECUTION_IN]\nmax_age_s = 864000",
            "retention.keys_days",
            "expected 10 at least (how long stream EXECUTION_IN keeps messages), got 8",
        ),
        ('[execution.routing]\n"x/*" = 5', "execution.routing.x/*", "valid dictionary"),
    ],
)
def test_a_setting_that_can_not_be_meant_is_refused_with_its_place(
    tmp_path: Path, text: str, place: str, said: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        settings(tmp_path, text)
    assert place in str(refused.value)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ('[kafka]\ntopic_prefix = "desk a"', "kafka.topic_prefix", "expected letters, digits, ., _ and -, 64 at most"),
        ('[kafka]\ntopic_prefix = "desk/"', "kafka.topic_prefix", "got 'desk/'"),
        ('[nats]\nstream_prefix = "desk."', "nats.stream_prefix", "expected letters, digits, _ and -, 32 at most"),
        ('[nats]\nsubject_prefix = "desk."', "nats.subject_prefix", "with single dots between them"),
        ('[nats]\nsubject_prefix = "a..b"', "nats.subject_prefix", "with single dots between them"),
        ('[nats]\nsubject_prefix = "a.>"', "nats.subject_prefix", "expected letters, digits"),
        ('[nats]\nsubject_prefix = "_INBOX"', "nats.subject_prefix", "no _ first"),
        (f'[nats]\nsubject_prefix = "{"a" * 65}"', "nats.subject_prefix", "64 at most"),
        ('[kafka]\ntopic_prefx = "a"', "kafka.topic_prefx", "there is no such setting"),
        ('[kafak]\nbootstrap = "a"', "kafak", "there is no such setting"),
    ],
)
def test_a_prefix_that_no_server_would_take_and_a_wrong_key_are_refused_with_their_place(
    tmp_path: Path, text: str, place: str, said: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        settings(tmp_path, text)
    assert f"{place}: " in str(refused.value)
    assert said in str(refused.value)
    assert "docs/configuration.md" in str(refused.value)


def test_names_carry_their_prefix_and_what_is_the_servers_own_does_not(tmp_path: Path) -> None:
    text = '[kafka]\ntopic_prefix = "fx."\n[nats]\nstream_prefix = "FX_"\nsubject_prefix = "desks.fx"'
    named = settings(tmp_path, text)
    assert (named.kafka.prefixed("incomplete"), named.kafka_deployment) == ("fx.incomplete", "fx.streamapp")
    assert named.nats.prefixed("EXECUTION_IN") == "FX_EXECUTION_IN"
    assert named.nats.subject("signals.approved.EURUSD") == "desks.fx.signals.approved.EURUSD"
    assert [named.nats.subject(name) for name in ("$JS.API.INFO", "_INBOX.1")] == ["$JS.API.INFO", "_INBOX.1"]


def test_a_route_is_an_account_or_a_table_of_accounts_with_weights(tmp_path: Path) -> None:
    text = '[execution.routing]\n"a/EURUSD" = "one"\n"*/*" = { one = "1", two = "0.5" }'
    routing = settings(tmp_path, text).execution.routing
    assert routing == {"a/EURUSD": {"one": Decimal(1)}, "*/*": {"one": Decimal(1), "two": Decimal("0.5")}}


@pytest.mark.parametrize("route", ['{ one = "1", two = "1" }', '{ one = "0.5" }'])
def test_a_connector_has_no_routes_with_weights_for_its_orders_have_a_volume(tmp_path: Path, route: str) -> None:
    (tmp_path / "streamapp.toml").write_text(f'role = "connector"\n{TWO}[execution.routing]\n"*/*" = {route}')
    with pytest.raises(ConfigurationError, match=r"execution\.routing\.\*/\*: expected one account and no weight"):
        settings_from(tmp_path / "streamapp.toml")


# --- guards


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("[guards]\nmax_volume = 0", "guards.max_volume", "greater than 0"),
        ("[guards]\nmax_order_leverage = 0", "guards.max_order_leverage", 'expected a number above 0, or "off", got 0'),
        ("[guards]\nmax_volumes = 1", "guards.max_volumes", "there is no such setting"),
        ('[guards]\nno_trade = ["22:00"]', "guards.no_trade.0", "expected a window like 21:55-22:10"),
        ("[guards]\nwarn_at = 0.95", "guards", "warn_at: expected reduce_at (0.9) at most, got 0.95"),
        (
            "[guards.by_symbol.EURUSD]\nmax_daily_loss = 5",
            "guards.by_symbol.EURUSD.max_daily_loss",
            "there is no such setting",
        ),
        (
            '[guards]\nsymbols = ["EURUSD"]\n[accounts.two.guards]\nsymbols = ["EURUSD", "GBPUSD"]',
            "accounts.two.guards.symbols",
            "expected some of guards.symbols, got EURUSD, GBPUSD",
        ),
    ],
)
def test_a_guard_that_can_not_be_meant_is_refused_with_its_place(
    tmp_path: Path, text: str, place: str, said: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        settings(tmp_path, text)
    assert place in str(refused.value)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("[guards]\nmax_daily_loss = 5", "guards.max_daily_loss"),
        ("[accounts.two.guards]\nmax_notional = 5", "accounts.two.guards.max_notional"),
        ("[guards.by_symbol.EURUSD]\nmax_spread_points = 5", "guards.max_spread_points"),
        ('[guards]\nno_trade = ["21:00-22:00 broker"]', "guards.no_trade"),
        ("[guards]\nmax_tick_age_s = 5", "guards.max_tick_age_s"),
    ],
)
def test_an_execution_service_has_no_guards_that_only_a_terminal_can_keep(tmp_path: Path, text: str, name: str) -> None:
    (tmp_path / "streamapp.toml").write_text(f'role = "execution"\n{TWO}{text}')
    with pytest.raises(ConfigurationError, match=f"{name}: expected none in role execution"):
        settings_from(tmp_path / "streamapp.toml")
    others = text.split("\n", maxsplit=1)[0] + '\nmax_open_orders = 5\nno_trade = ["21:00-22:00"]'
    (tmp_path / "streamapp.toml").write_text(f'role = "execution"\n{TWO}{others}')
    settings_from(tmp_path / "streamapp.toml")


def test_of_the_houses_the_accounts_and_a_symbols_limits_the_strictest_holds(tmp_path: Path) -> None:
    known = settings(
        tmp_path,
        "[guards]\nmax_volume = 2\nmax_open_orders = 5\n[guards.by_symbol.XAUUSD]\nmax_volume = 1\n"
        "[accounts.two.guards]\nmax_volume = 3\nmax_open_orders = 4\nmax_tick_age_s = 90\n"
        "[accounts.two.guards.by_symbol.XAUUSD]\nmax_volume = 0.5\n",
    )
    one, two = known.limits_of("one"), known.limits_of("two")
    assert [each.account.max_volume for each in (one, two)] == [2, 2]
    assert [each.account.max_open_orders for each in (one, two)] == [5, 4]
    assert two.account.max_tick_age_s == 60
    assert [limits.of_order("XAUUSD").max_volume for limits in (one, two)] == [1, Decimal("0.5")]
    assert known.limits_of("three").account.max_volume == 2
    assert two.account.max_level_distance == Decimal("0.5")
    assert two.account.max_order_leverage == 100


def test_the_symbols_of_an_account_are_those_that_it_may_trade_and_those_with_a_name_of_ours(tmp_path: Path) -> None:
    known = settings(
        tmp_path,
        '[guards]\nsymbols = ["EURUSD", "XAUUSD"]\n[accounts.two.guards]\nsymbols = ["XAUUSD"]\n'
        '[accounts.two.symbols]\nXAUUSD = "GOLD"\nUS30 = "DJ30"\n',
    )
    assert known.symbols_of("one") == ("EURUSD", "XAUUSD")
    assert known.symbols_of("two") == ("XAUUSD", "US30")


@pytest.mark.parametrize(
    ("text", "one", "two"),
    [
        ("", 100, 100),
        ("[accounts.two.guards]\nmax_order_leverage = 300", 100, 100),
        ("[guards]\nmax_order_leverage = 300\n[accounts.two.guards]\nmax_order_leverage = 20", 300, 20),
        (
            '[guards]\nmax_order_leverage = "off"\n[accounts.two.guards.by_symbol.XAUUSD]\nmax_order_leverage = 5',
            "off",
            5,
        ),
    ],
)
def test_how_much_an_order_may_be_worth_by_the_equity_is_raised_and_turned_off_for_the_house(
    tmp_path: Path, text: str, one: Any, two: Any
) -> None:
    known = settings(tmp_path, text)
    assert [known.limits_of(name).of_order("XAUUSD").max_order_leverage for name in ("one", "two")] == [one, two]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[kafka]\nsecurity_protocol = "SSL"', "kafka: Value error, expected bootstrap with security_protocol"),
        (
            '[kafka]\nbootstrap = "k:1"\nca_file = "ca.pem"',
            "expected security_protocol SSL or SASL_SSL with files of TLS",
        ),
        ('[kafka]\nbootstrap = "k:1"\nuser = "me"', "expected security_protocol SASL_SSL for a user or a token"),
        ('[kafka]\nbootstrap = "k:1"\nsecurity_protocol = "SASL_SSL"', "expected sasl_mechanism with"),
        (
            '[kafka]\nbootstrap = "k:1"\nsecurity_protocol = "SASL_SSL"\nsasl_mechanism = "PLAIN"\nuser = "me"',
            "expected user and password_file, and no token_file, with sasl_mechanism PLAIN",
        ),
        (
            '[kafka]\nbootstrap = "k:1"\nsecurity_protocol = "SASL_SSL"\nsasl_mechanism = "OAUTHBEARER"\nuser = "me"',
            "expected token_file, and no user and password, with sasl_mechanism OAUTHBEARER",
        ),
        ("[kafka]\nreplication_factor = 2\nmin_insync_replicas = 3", "expected min_insync_replicas up to"),
        ('[nats]\nurl = "tls://n:1"\nkey_file = "key"', "expected certificate_file and key_file together, got one"),
        ('[nats]\nurl = "nats://n:1"\nkey_password_file = "word"', "expected key_file with key_password_file"),
        (
            '[nats]\nuser = "me"\nnkey_file = "seed"',
            "expected one of user, credentials_file and nkey_file, got user and",
        ),
        ('[nats]\npassword_file = "word"', "nats: Value error, expected user with a password"),
        ("[nats]\ntls_first = true", "expected url with settings of TLS: the local server is not secured"),
        ('[nats.streams.OTHER]\ndiscard = "new"', "EXECUTION_IN"),
        ('[clickhouse]\nurl = "http://c:1"\nca_file = "ca.pem"', "expected a url that begins with https://"),
        ('[clickhouse]\npassword = "a-secret"\npassword_file = "word"', "expected password or password_file, got both"),
        ("[clickhouse]\npassword = 5", "clickhouse.password: Input should be a valid string"),
    ],
)
def test_security_that_can_not_be_meant_is_refused_in_a_sentence_without_a_secret(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        settings(tmp_path, text)
    assert said in str(refused.value)
    assert "a-secret" not in str(refused.value)


def test_a_password_is_not_shown_with_the_settings(tmp_path: Path) -> None:
    found = settings(tmp_path, '[nats]\nurl = "nats://n:1"\nuser = "me"\npassword = "a-secret"')
    assert found.nats.password_text() == "a-secret"
    assert "a-secret" not in repr(found) + str(found.model_dump()) + found.model_dump_json()


@pytest.mark.parametrize(("replicas", "least"), [(1, 1), (2, 1), (3, 2), (5, 4)])
def test_a_record_counts_as_written_when_it_outlives_the_loss_of_one_replica(replicas: int, least: int) -> None:
    assert KafkaSettings(replication_factor=replicas).insync_replicas == least
    assert KafkaSettings(replication_factor=replicas, min_insync_replicas=1).insync_replicas == 1


@pytest.mark.parametrize(
    ("given", "advertised"),
    [
        ("http://trading-1.trading:6066", "http://trading-1.trading:6066"),
        ("http://{host}:6066/", "http://node-7:6066"),
        ("https://[fd00::1]:443", "https://[fd00::1]:443"),
    ],
)
def test_the_address_that_other_workers_know_may_name_this_host(
    monkeypatch: pytest.MonkeyPatch, given: str, advertised: str
) -> None:
    monkeypatch.setattr(platform, "node", lambda: "node-7")
    assert WebSettings(advertised_url=given).advertised_url == advertised


@pytest.mark.parametrize(
    "url", ["node-7:6066", "http://", "http://a:x", "http://a:6066/x", "http://u@a:1", "ftp://a:1"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="expected http://host:port with nothing behind it"):
        WebSettings(advertised_url=url)


def test_an_address_that_leads_nowhere_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected an address that other hosts reach, got 0\.0\.0\.0"):
        WebSettings(advertised_url="http://0.0.0.0:6066")


@pytest.mark.parametrize(("host", "number"), [("trading-0", 0), ("trading-13.trading.svc", 13), ("node-2-4", 4)])
def test_a_worker_may_be_named_by_its_host_and_has_the_machine_to_itself(
    monkeypatch: pytest.MonkeyPatch, host: str, number: int
) -> None:
    monkeypatch.setattr(platform, "node", lambda: host)
    settings = Settings(worker="host")
    assert (settings.worker_number, settings.worker_of_machine) == (number, 1)


def test_a_worker_that_is_to_be_named_by_a_host_without_a_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "node", lambda: "laptop")
    with pytest.raises(
        ConfigurationError, match=r"a host whose name ends in a number, such as trading-3, .* got laptop"
    ):
        _ = Settings(worker="host").worker_number


def test_more_workers_of_one_machine_than_four_have_ports_of_their_own() -> None:
    ports = Ports()
    others = {value for name in dir(Ports) if isinstance(value := getattr(ports, name), int)}
    of_workers = [ports.trading(Settings(worker=number).worker_of_machine) for number in range(1, 41)]
    assert of_workers[:5] == [6066, 6067, 6068, 6069, 6070]
    assert len(set(of_workers)) == 40
    assert others.isdisjoint(of_workers)


def test_commands_ask_the_first_worker_where_it_listens() -> None:
    found = [Settings(web=WebSettings(bind=bind)).trading_url for bind in ("127.0.0.1", "0.0.0.0", "10.0.0.7", "::1")]
    assert found == ["http://127.0.0.1:6066", "http://127.0.0.1:6066", "http://10.0.0.7:6066", "http://[::1]:6066"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder without a settings file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STREAMAPP_CONFIG", raising=False)
    load_settings.cache_clear()
    yield tmp_path
    load_settings.cache_clear()


def test_a_dotenv_is_read_below_the_environment_and_above_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "streamapp.toml").write_text('deployment = "file"\n[nats]\nurl = "nats://file"\nreplicas = 3\n')
    said = "STREAMAPP_NATS__URL=nats://dotenv\nexport STREAMAPP_ROLE='execution'\nSTREAMAPP_DEPLOYMENT=dotenv\n"
    (folder / ".env").write_text(f"COMPOSE_PROJECT_NAME=other\n{said}")
    monkeypatch.setenv("STREAMAPP_DEPLOYMENT", "environment")
    found = load_settings()
    assert (found.deployment, found.role) == ("environment", "execution")
    assert (found.nats.url, found.nats.replicas) == ("nats://dotenv", 3)


def test_a_process_that_starts_elsewhere_has_the_same_settings(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / ".env").write_text("STREAMAPP_NATS__REPLICAS=5\n")
    (folder / ".env").write_text("STREAMAPP_NATS__URL=nats://dotenv\nSTREAMAPP_DEPLOYMENT=dotenv\n")
    monkeypatch.setenv("STREAMAPP_DEPLOYMENT", "environment")
    for _ in ("without a settings file", "with one"):
        here, needed = Settings(), environment_of_children()
        with monkeypatch.context() as child:
            child.chdir(other)
            for name, value in needed.items():
                child.setenv(name, value)
            assert Settings() == here
        (folder / "streamapp.toml").write_text("[nats]\nreplicas = 3\n")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"STREAMAPP_NATS__ULR=x", "settings: nats.ulr: there is no such setting. Mend"),
        (b"STREAMAPP_KAFAK__BOOTSTRAP=x", "settings: kafak.bootstrap: there is no such setting. Mend"),
        (b"STREAMAPP_DEPLOYMNET=x", "settings: deploymnet: there is no such setting. Mend"),
        (b"STREAMAPP_CONFIG=x", ".env: expected STREAMAPP_CONFIG in the environment"),
        (b"STREAMAPP_DEPLOYMENT=\xff", ".env: expected UTF-8"),
    ],
)
def test_a_wrong_line_of_a_dotenv_is_one_sentence(folder: Path, line: bytes, said: str) -> None:
    (folder / ".env").write_bytes(line)
    with pytest.raises(ConfigurationError) as refused:
        load_settings()
    assert said in str(refused.value)


@pytest.mark.skipif(os.name != "posix", reason="Windows says nothing of it in these bits")
@pytest.mark.parametrize(
    ("mode", "name", "warned"), [(0o644, "WEB__TOKEN", 1), (0o640, "WEB__TOKEN", 0), (0o644, "NATS__URL", 0)]
)
def test_a_dotenv_with_a_secret_that_everybody_can_read_is_warned_of(
    folder: Path, caplog: pytest.LogCaptureFixture, mode: int, name: str, warned: int
) -> None:
    (folder / ".env").write_text(f"STREAMAPP_{name}=nats://x\n")
    (folder / ".env").chmod(mode)
    load_settings()
    assert [f".env has STREAMAPP_{name}, and can be read" in line for line in caplog.messages] == [True] * warned
    assert "nats://x" not in caplog.text
