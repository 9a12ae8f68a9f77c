"""Settings that can't be meant: each is refused at the start, with its place and what was expected."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from streamapp.errors import ConfigurationError
from streamapp.settings import Settings, settings_from

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


def test_a_route_is_an_account_or_a_table_of_accounts_with_weights(tmp_path: Path) -> None:
    text = '[execution.routing]\n"a/EURUSD" = "one"\n"*/*" = { one = "1", two = "0.5" }'
    routing = settings(tmp_path, text).execution.routing
    assert routing == {"a/EURUSD": {"one": Decimal(1)}, "*/*": {"one": Decimal(1), "two": Decimal("0.5")}}


@pytest.mark.parametrize("route", ['{ one = "1", two = "1" }', '{ one = "0.5" }'])
def test_a_connector_has_no_routes_with_weights_for_its_orders_have_a_volume(tmp_path: Path, route: str) -> None:
    (tmp_path / "streamapp.toml").write_text(f'role = "connector"\n{TWO}[execution.routing]\n"*/*" = {route}')
    with pytest.raises(ConfigurationError, match=r"execution\.routing\.\*/\*: expected one account and no weight"):
        settings_from(tmp_path / "streamapp.toml")
