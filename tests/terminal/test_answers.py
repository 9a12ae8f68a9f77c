"""Every row of the tables of what an answer means for an operation (reference mt5 §1.2 and §2.4)."""

from __future__ import annotations

import pytest

from streamapp.terminal import classify
from streamapp.terminal.answers import KINDS, LAST_ERRORS, RETCODES, Kind, Meaning, said

OK = (1, "Success")
REJECTED = {10006, 10007, *range(10014, 10020), 10022, 10026, 10027, 10029, 10030, *range(10032, 10035)} | set(
    range(10040, 10047)
)
"""What ends every operation: the broker, or the terminal, will not do it."""
DOUBT = {0, 10011, 10012, 10031, 10037, 10047, 9999, 1}
OF_ITS_OWN: dict[int, tuple[Meaning, ...]] = {
    10004: ("rejected", "rejected", "rejected", "retry", "rejected"),
    10008: ("taken",) * 5,
    10009: ("taken",) * 5,
    10010: ("doubt", "doubt", "doubt", "retry", "taken"),
    10013: ("retry", "retry", "retry", "rejected", "rejected"),
    10020: ("rejected", "rejected", "rejected", "retry", "rejected"),
    10021: ("rejected", "rejected", "rejected", "retry", "rejected"),
    10023: ("retry", "retry", "retry", "retry", "doubt"),
    10024: ("retry", "retry", "retry", "retry", "rejected"),
    10025: ("doubt", "done", "done", "doubt", "doubt"),
    10028: ("retry", "retry", "retry", "retry", "doubt"),
    10035: ("retry", "retry", "rejected", "rejected", "rejected"),
    10036: ("doubt", "doubt", "retry", "taken", "retry"),
    10038: ("rejected", "rejected", "rejected", "retry", "rejected"),
    10039: ("retry", "retry", "retry", "retry", "doubt"),
}


def test_the_table_knows_the_retcodes_that_orders_know_and_no_other() -> None:
    assert RETCODES.keys() == classify.RETCODES.keys()
    assert RETCODES.keys() == REJECTED | OF_ITS_OWN.keys() | (DOUBT & RETCODES.keys())
    assert LAST_ERRORS.keys() == classify.LAST_ERRORS.keys()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("retcode", sorted(REJECTED))
def test_a_refusal_is_rejected_with_its_name(retcode: int, kind: Kind) -> None:
    answer = said(kind, retcode, "why", OK)
    assert (answer.meaning, answer.retcode) == ("rejected", retcode)
    assert answer.text == f"{classify.RETCODES[retcode][0]}: why"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("retcode", sorted(DOUBT))
def test_what_is_not_known_is_a_doubt(retcode: int, kind: Kind) -> None:
    assert said(kind, retcode, "", OK).meaning == "doubt"


@pytest.mark.parametrize("retcode", OF_ITS_OWN)
def test_a_code_means_what_it_means_to_this_operation(retcode: int) -> None:
    assert tuple(said(kind, retcode, "", OK).meaning for kind in KINDS) == OF_ITS_OWN[retcode]


def test_what_must_be_sent_once_is_never_told_to_try_again_after_a_conflict() -> None:
    assert {said("close_by", code, "", OK).meaning for code in (10023, 10028, 10039, 10012)} == {"doubt"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        *((code, "refused") for code in (-2, -5, -6, -7, -8)),
        (-10004, "unsent"),
        *((code, "doubt") for code in (1, -1, -3, -4, -10000, -10001, -10002, -10003, -10005, -99)),
    ],
)
def test_none_means_what_its_last_error_says(code: int, meaning: Meaning, kind: Kind) -> None:
    answer = said(kind, None, "", (code, "text"))
    assert (answer.meaning, answer.retcode) == (meaning, None)
    assert answer.text.endswith(f"text ({code})")
