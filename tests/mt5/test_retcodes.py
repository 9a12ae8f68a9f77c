"""Every row of the tables, as lists of codes: a code that is in none of them, or in two, fails."""

from __future__ import annotations

from typing import get_args

import pytest

from streamapp.mt5 import constants
from streamapp.mt5.retcodes import (
    LAST_ERRORS,
    RETCODES,
    TRADE_RETCODE_HEDGE_PROHIBITED,
    Meaning,
    OperationKind,
    classify_opening,
    classify_operation,
)

OK = (1, "Success")
UNKNOWN = (10037, 9999, 10047, 1)
KINDS: tuple[OperationKind, ...] = get_args(OperationKind)

ACCEPTED = {10008, 10009, 10010}
DOUBTS = {0, 10011, 10012, 10023, 10025, 10028, 10031, 10036, 10039}
REJECTED = {
    *(10004, 10006, 10007, *range(10013, 10023), 10024, 10026, 10027, 10029, 10030),
    *(10032, 10033, 10034, 10035, 10038, *range(10040, 10047)),
}
NOT_SENT = {-2, -5, -6, -7, -8, -10004}

DOUBTS_TO_ALL = {0, 10011, 10012, 10031}
REJECTED_TO_ALL = {10006, 10007, *range(10014, 10020), 10022, 10026, 10027, 10029, 10032, 10033, 10034} | {
    *range(10040, 10047)
}
OF_ITS_OWN: dict[int, tuple[Meaning, ...]] = {
    # cancel, modify, protect, close, close_by
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
    10030: ("rejected", "rejected", "rejected", "retry", "rejected"),
    10035: ("retry", "retry", "rejected", "rejected", "rejected"),
    10036: ("doubt", "doubt", "retry", "taken", "retry"),
    10038: ("rejected", "rejected", "rejected", "retry", "rejected"),
    10039: ("retry", "retry", "retry", "retry", "doubt"),
}


def test_every_code_is_listed_here_once_for_openings_and_once_for_operations() -> None:
    for parts in ((ACCEPTED, DOUBTS, REJECTED), (DOUBTS_TO_ALL, REJECTED_TO_ALL, OF_ITS_OWN.keys())):
        assert sorted(code for part in parts for code in part) == sorted(RETCODES)


@pytest.mark.parametrize(
    ("prefix", "rows", "unnamed"),
    [
        ("TRADE_RETCODE_", RETCODES, {0: "none", TRADE_RETCODE_HEDGE_PROHIBITED: "hedge_prohibited"}),
        ("RES_E_", LAST_ERRORS, {constants.RES_S_OK: "success"}),
    ],
)
def test_every_constant_has_a_row_under_its_name(prefix: str, rows: dict[int, object], unnamed: dict[int, str]) -> None:
    named = {
        number: name.removeprefix(prefix).lower() for name, number in vars(constants).items() if name.startswith(prefix)
    }
    assert {number: getattr(row, "name", None) for number, row in rows.items()} == named | unnamed


# -- orders that open


@pytest.mark.parametrize("code", RETCODES)
def test_an_order_is_sent_again_only_after_four_answers_and_only_if_it_got_no_ticket(code: int) -> None:
    assert classify_opening(code, 0, "", OK).again is (code in {10004, 10020, 10024, 10030})
    assert not classify_opening(code, 5, "", OK).again


@pytest.mark.parametrize("retcode", sorted(ACCEPTED))
def test_success_with_a_ticket_is_accepted(retcode: int) -> None:
    verdict = classify_opening(retcode, 77, "", OK)
    assert (verdict.outcome, verdict.ticket) == ("accepted", 77)


@pytest.mark.parametrize("retcode", sorted(ACCEPTED))
def test_success_with_ticket_0_is_a_doubt(retcode: int) -> None:
    assert classify_opening(retcode, 0, "", OK).outcome == "doubt"


@pytest.mark.parametrize("retcode", sorted(REJECTED))
def test_a_refused_order_is_rejected_with_the_name_of_the_code(retcode: int) -> None:
    verdict = classify_opening(retcode, 0, "why", OK)
    assert (verdict.outcome, verdict.name, verdict.message) == ("rejected", RETCODES[retcode].name, "why")


@pytest.mark.parametrize("retcode", [*sorted(DOUBTS), *UNKNOWN])
def test_an_answer_that_proves_nothing_leaves_an_order_in_doubt(retcode: int) -> None:
    assert classify_opening(retcode, 77, "", OK).outcome == "doubt"


@pytest.mark.parametrize("code", sorted(NOT_SENT))
def test_none_with_a_local_error_was_not_sent(code: int) -> None:
    assert classify_opening(None, 0, "", (code, "text")).outcome == "not_sent"


@pytest.mark.parametrize("code", [*sorted(LAST_ERRORS.keys() - NOT_SENT), -9, -10006, 0])
def test_none_with_any_other_error_is_a_doubt(code: int) -> None:
    assert classify_opening(None, 0, "", (code, "text")).outcome == "doubt"


# -- operations


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("retcode", sorted(REJECTED_TO_ALL))
def test_a_refused_operation_is_rejected_with_the_name_of_the_code(retcode: int, kind: OperationKind) -> None:
    verdict = classify_operation(kind, retcode, "why", OK)
    assert (verdict.meaning, verdict.retcode) == ("rejected", retcode)
    assert verdict.text == f"{RETCODES[retcode].name}: why"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("retcode", [*sorted(DOUBTS_TO_ALL), *UNKNOWN])
def test_an_answer_that_proves_nothing_leaves_an_operation_in_doubt(retcode: int, kind: OperationKind) -> None:
    assert classify_operation(kind, retcode, "", OK).meaning == "doubt"


@pytest.mark.parametrize("retcode", OF_ITS_OWN)
def test_a_code_means_what_it_means_to_this_operation(retcode: int) -> None:
    assert tuple(classify_operation(kind, retcode, "", OK).meaning for kind in KINDS) == OF_ITS_OWN[retcode]


def test_what_must_be_sent_once_is_never_tried_again_after_a_conflict() -> None:
    assert {classify_operation("close_by", code, "", OK).meaning for code in (10023, 10028, 10039, 10012)} == {"doubt"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        *((code, "refused") for code in (-2, -5, -6, -7, -8)),
        (-10004, "unsent"),
        *((code, "doubt") for code in (1, -1, -3, -4, -10000, -10001, -10002, -10003, -10005, -99)),
    ],
)
def test_none_means_what_its_last_error_says(code: int, meaning: Meaning, kind: OperationKind) -> None:
    verdict = classify_operation(kind, None, "", (code, "text"))
    assert (verdict.meaning, verdict.retcode) == (meaning, None)
    assert verdict.text.endswith(f"text ({code})")
