from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.domain.symbol_names import OUTSIDE, SymbolNames

NAMES = st.text("ABm.#", max_size=5)
"""Short and alike, so that names, prefixes and suffixes meet."""
HOUSE = SymbolNames({"GOLD": "XAUUSD", "EURUSD": "EURUSD.m"})
RULED = SymbolNames({"GOLD": "XAUUSD.pro", "DAX": "GER40"}, prefix="x", suffix=".m")


def names(named: dict[str, str], prefix: str, suffix: str) -> SymbolNames:
    """Return names that settings take."""
    taken = set[str]()
    kept = {}
    for house, broker in named.items():
        if house and broker and broker not in taken:
            taken.add(broker)
            kept[house] = broker
    return SymbolNames(kept, prefix, suffix)


ALL = st.builds(names, st.dictionaries(NAMES, NAMES, max_size=4), st.sampled_from(["", "A", "#"]), NAMES)


@given(ALL, NAMES)
def test_every_symbol_of_a_broker_has_a_name_that_leads_back_to_it(all_names: SymbolNames, broker: str) -> None:
    assert all_names.broker(all_names.house(broker)) == broker


@given(ALL, NAMES, NAMES)
def test_no_two_names_of_the_house_are_one_symbol(all_names: SymbolNames, one: str, other: str) -> None:
    assert (all_names.broker(one) == all_names.broker(other)) == (one == other)


@given(ALL, NAMES)
def test_a_name_of_the_house_comes_back_as_it_went_or_is_no_symbol_at_all(all_names: SymbolNames, house: str) -> None:
    broker = all_names.broker(house)
    assert all_names.house(broker) == house or broker == OUTSIDE + house


@pytest.mark.parametrize(
    ("house", "broker"),
    [("GOLD", "XAUUSD.pro"), ("DAX", "GER40"), ("EURUSD", "xEURUSD.m"), ("broker:EURUSD", "EURUSD"), ("", "")],
)
def test_an_entry_goes_before_the_rule_and_what_neither_names_is_the_brokers_own(house: str, broker: str) -> None:
    assert (RULED.broker(house), RULED.house(broker)) == (broker, house)


def test_a_symbol_whose_name_was_given_to_another_is_the_brokers_own() -> None:
    assert HOUSE.house("EURUSD") == "broker:EURUSD"
    assert HOUSE.broker("broker:EURUSD") == "EURUSD"
    assert HOUSE.house("GBPUSD") == HOUSE.broker("GBPUSD") == "GBPUSD"


def test_a_name_of_the_brokers_is_no_second_name_of_its_symbol() -> None:
    assert HOUSE.broker("EURUSD.m") == "broker:EURUSD.m"
    assert HOUSE.broker("broker:EURUSD.m") == "broker:broker:EURUSD.m"


def test_names_that_are_the_brokers_need_no_translation() -> None:
    assert not SymbolNames()
    assert all((HOUSE, SymbolNames(prefix="x"), SymbolNames(suffix=".m")))


@pytest.mark.parametrize(
    ("clashing", "named"),
    [
        (SymbolNames({"GOLD": "XAUUSD", "XAU": "XAUUSD"}), ("XAUUSD", "GOLD", "XAU")),
        (SymbolNames({"GOLD": "XAUUSD.m"}, suffix=".m"), ("XAUUSD.m", "GOLD", "by rule, XAUUSD")),
        (SymbolNames({"GOLD": "mXAUUSD"}, prefix="m"), ("mXAUUSD", "GOLD", "by rule, XAUUSD")),
    ],
)
def test_two_names_for_one_symbol_are_named_both(clashing: SymbolNames, named: tuple[str, ...]) -> None:
    [sentence] = clashing.clashes()
    assert all(name in sentence for name in named)


@pytest.mark.parametrize(
    "fine",
    [
        HOUSE,
        RULED,
        SymbolNames({"A": "B", "B": "A"}),
        SymbolNames({"GOLD": "XAUUSD.m", "XAUUSD": "XAUUSD.r"}, suffix=".m"),
        SymbolNames({"EURUSD": "EURUSD.m"}, suffix=".m"),
    ],
)
def test_names_that_are_one_to_one_are_taken(fine: SymbolNames) -> None:
    assert list(fine.clashes()) == []


def test_a_person_is_shown_both_names_where_they_differ() -> None:
    assert (HOUSE.shown("GOLD"), HOUSE.shown("GBPUSD")) == ("GOLD, XAUUSD at the broker", "GBPUSD")
