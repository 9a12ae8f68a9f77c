"""What counts as a difference between two reports."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from streamapp.conformance.compare import compare
from streamapp.conformance.report import Check, Outcome, Section, SuiteReport

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)
)


def report(section: Section, observed: Any, outcome: Outcome = "passed", name: str = "x") -> SuiteReport:
    check = Check(name=name, section=section, claim="§1 [BIN]", outcome=outcome, observed=observed)
    return SuiteReport(about={}, checks=(check,))


@given(section=st.sampled_from(["shape", "errors", "trading", "measured"]), observed=values)
def test_a_report_does_not_differ_from_itself(section: Section, observed: Any) -> None:
    assert compare(report(section, observed), report(section, observed)) == []


@given(first=values, second=values)
def test_errors_must_be_equal(first: Any, second: Any) -> None:
    found = compare(report("errors", first), report("errors", second))
    assert bool(found) is (first != second)
    assert all(difference.matters for difference in found)


def test_trading_must_have_one_form_and_its_values_are_listed() -> None:
    (listed,) = compare(report("trading", [10009]), report("trading", [10008]))
    assert not listed.matters
    (other,) = compare(report("trading", [10009]), report("trading", None))
    assert other.matters


def test_what_an_account_does_not_allow_is_not_compared() -> None:
    assert compare(report("trading", 1), report("trading", None, "skipped")) == []


def test_a_missing_check_matters_where_the_module_decides() -> None:
    for section in ("shape", "errors"):
        found = compare(report(section, 1), report(section, 1, name="y"))
        assert [difference.matters for difference in found] == [True, True]
    assert not any(d.matters for d in compare(report("trading", 1), report("trading", 1, name="y")))
