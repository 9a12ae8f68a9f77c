"""Every row of the tables of reference mt5 §1.2 and §2.4."""

from __future__ import annotations

import pytest

from streamapp.terminal.classify import LAST_ERRORS, RETCODES, classify

ACCEPTED = {10008, 10009, 10010}
DOUBTS = {0, 10011, 10012, 10023, 10025, 10028, 10031, 10036, 10039}
REJECTED = {
    *(10004, 10006, 10007, *range(10013, 10023), 10024, 10026, 10027, 10029, 10030),
    *(10032, 10033, 10034, 10035, 10038, *range(10040, 10047)),
}
NOT_SENT = {-2, -5, -6, -7, -8, -10004}
OK = (1, "Success")


def test_the_table_knows_every_retcode_and_no_other() -> None:
    assert RETCODES.keys() == ACCEPTED | DOUBTS | REJECTED


@pytest.mark.parametrize("retcode", sorted(ACCEPTED))
def test_success_with_a_ticket_is_accepted(retcode: int) -> None:
    verdict = classify(retcode, 77, "", OK)
    assert (verdict.outcome, verdict.ticket) == ("accepted", 77)


@pytest.mark.parametrize("retcode", sorted(ACCEPTED))
def test_success_with_ticket_0_is_a_doubt(retcode: int) -> None:
    assert classify(retcode, 0, "", OK).outcome == "doubt"


@pytest.mark.parametrize("retcode", sorted(REJECTED))
def test_a_refusal_is_rejected_with_its_name(retcode: int) -> None:
    verdict = classify(retcode, 0, "why", OK)
    assert (verdict.outcome, verdict.name, verdict.message) == ("rejected", RETCODES[retcode][0], "why")


@pytest.mark.parametrize("retcode", [*sorted(DOUBTS), 10037, 9999, 10047, 1])
def test_what_proves_nothing_is_a_doubt(retcode: int) -> None:
    assert classify(retcode, 77, "", OK).outcome == "doubt"


@pytest.mark.parametrize("code", sorted(NOT_SENT))
def test_none_with_a_local_error_was_not_sent(code: int) -> None:
    assert classify(None, 0, "", (code, "text")).outcome == "not_sent"


@pytest.mark.parametrize("code", [*sorted(LAST_ERRORS.keys() - NOT_SENT), -9, -10006, 0])
def test_none_with_any_other_error_is_a_doubt(code: int) -> None:
    assert classify(None, 0, "", (code, "text")).outcome == "doubt"


def test_names_are_those_of_the_simulated_modules_constants() -> None:
    from streamapp.simulator import metatrader5

    named = {
        name.removeprefix("TRADE_RETCODE_").lower(): value
        for name, value in vars(metatrader5).items()
        if name.startswith("TRADE_RETCODE_")
    }
    assert {name: RETCODES[value][0] for name, value in named.items() if value in RETCODES} == {
        name: name for name, value in named.items() if value in RETCODES
    }
