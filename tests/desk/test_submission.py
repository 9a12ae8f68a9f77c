"""An order's steps on its way to its terminal, decided purely (design: desk "Submission, in this house")."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp import topics
from streamapp.desk.decide import Decided, State, decide
from streamapp.desk.effects import Submit
from streamapp.desk.inputs import Incoming, Input, SubmitAnswered, SubmitUnanswered, Sweep, parse
from streamapp.desk.policy import Policy
from streamapp.desk.state import TerminalStatus
from streamapp.domain.identifiers import order_id_for
from streamapp.messages.report import Report, ReportBatch
from streamapp.settings import AccountSettings, Role, Settings
from tables.orders import OrderRow, Standing, order_key
from tables.row import Row
from tests.kit.desk import ACCOUNT, SIGNAL
from tests.kit.records import NOW, event

ORDER = order_id_for("streamapp", ACCOUNT, "s-1")
NOT_AFTER = NOW + timedelta(seconds=30)
SKEW = timedelta(seconds=2)
READY, AWAY = TerminalStatus(ready=True, epoch="e1"), TerminalStatus()
ENDED = {"attempt": 1, "reason": "stale"}

moments = st.floats(-100, 100).map(lambda seconds: NOT_AFTER + timedelta(seconds=seconds))
terminals = st.sampled_from([READY, AWAY, TerminalStatus(False, "e1"), TerminalStatus(True, "e2")])


class Account:
    """The rows of one account, and decisions that become durable one after another."""

    def __init__(self, role: Role = "both") -> None:
        self.policy = Policy.of(Settings(role=role, accounts={ACCOUNT: AccountSettings(login=1)}))
        self.rows: dict[bytes, Row] = {}

    def decide(self, *inputs: Input, now: Any = NOW, terminal: TerminalStatus = READY) -> Decided:
        def rows(key: bytes, model: type[Any]) -> Any:
            row = self.rows.get(key)
            assert row is None or isinstance(row, model)
            return row

        decided = decide(State(ACCOUNT, self.policy, rows, terminal), inputs, now)
        self.rows |= decided.rows
        return decided

    def signal(self, signal_id: str = "s-1", **options: Any) -> Decided:
        payload = json.dumps({"signal_id": signal_id, "account": ACCOUNT} | SIGNAL).encode()
        return self.decide(*self._parsed(payload, topics.SIGNALS_APPROVED, "signal"), **options)

    def report(self, kind: Any, body: Any, *, epoch: str = "e1") -> Decided:
        report = Report(seq=1, at=NOW, kind=kind, order_id=ORDER, body=body)
        batch = ReportBatch(account=ACCOUNT, epoch=epoch, first_seq=1, reports=(report,))
        return self.decide(*self._parsed(batch.encode(), topics.BROKER_REPORTS, "reports"))

    def _parsed(self, payload: bytes, topic: str, family: str) -> list[Any]:
        record = event(payload, account=ACCOUNT, topic=topic, sequence=1, headers={topics.FAMILY: family.encode()})
        return parse(Incoming.of(record), self.policy)

    @property
    def order(self) -> OrderRow:
        row = self.rows[order_key(ORDER)]
        assert isinstance(row, OrderRow)
        return row


def account_with(standing: Standing) -> Account:
    """Return an account whose order stands there, claimed for or recorded by the journal ``e1``."""
    account = Account("execution" if standing == "handed_over" else "both")
    account.signal(terminal=AWAY if standing == "held" else READY)
    if standing == "recorded":
        account.report("accepted", {"ticket": 7})
    elif standing == "over":
        account.report("refused", ENDED)
    assert account.order.standing == standing
    return account


def facts(decided: Decided) -> list[str]:
    return [fact.fact for fact in decided.facts]


def submits(decided: Decided) -> list[tuple[str, str]]:
    return [(each.request.order_id, each.request.epoch) for each in decided.effects if isinstance(each, Submit)]


@given(terminals)
def test_a_new_order_is_claimed_and_submitted_in_its_own_commit_only_with_a_ready_terminal(
    terminal: TerminalStatus,
) -> None:
    account = Account()
    decided = account.signal(terminal=terminal)
    if terminal.ready:
        assert facts(decided) == ["OrderCreated", "SubmitClaimed"]
        assert submits(decided) == [(ORDER, terminal.epoch)]
        assert (account.order.standing, account.order.claim_epoch) == ("unanswered", terminal.epoch)
    else:
        assert (facts(decided), submits(decided)) == (["OrderCreated"], [])
        assert account.order.standing == "held"


@given(terminals)
def test_a_signal_that_comes_again_claims_nothing_and_asks_for_nothing(terminal: TerminalStatus) -> None:
    for first in (READY, AWAY):
        account = Account()
        account.signal(terminal=first)
        again = account.signal(terminal=terminal)
        assert (again.rows, again.facts, again.effects, again.publications) == ({}, (), (), ())


@given(terminals, moments)
def test_a_held_order_is_claimed_in_time_or_refused_when_its_time_is_surely_over(
    terminal: TerminalStatus, now: Any
) -> None:
    account = account_with("held")
    decided = account.decide(Sweep((ORDER,)), now=now, terminal=terminal)
    if terminal.ready and now < NOT_AFTER:
        assert (facts(decided), submits(decided)) == (["SubmitClaimed"], [(ORDER, terminal.epoch)])
    elif now > NOT_AFTER + SKEW:
        assert (facts(decided), submits(decided)) == (["SubmitRefused"], [])
        assert (account.order.status, account.order.standing) == ("failed", "over")
    else:
        assert (facts(decided), submits(decided)) == ([], [])
    assert facts(account.decide(Sweep((ORDER,)), now=now, terminal=terminal)) == []


@given(terminals, moments)
def test_a_claimed_order_is_never_claimed_again_nor_refused_by_us_only_asked_with_the_epoch_of_its_claim(
    terminal: TerminalStatus, now: Any
) -> None:
    account = account_with("unanswered")
    before = account.order
    decided = account.decide(Sweep((ORDER,)), now=now, terminal=terminal)
    assert (facts(decided), decided.rows, submits(decided)) == ([], {}, [(ORDER, "e1")])
    assert account.order == before


@given(terminals, moments)
def test_what_a_journal_has_is_asked_for_again_only_when_the_terminal_shows_another_one(
    terminal: TerminalStatus, now: Any
) -> None:
    account = account_with("recorded")
    decided = account.decide(Sweep((ORDER,)), now=now, terminal=terminal)
    assert facts(decided) == []
    assert submits(decided) == ([(ORDER, "e1")] if terminal.epoch == "e2" else [])


@given(terminals, moments)
def test_what_is_over_or_unknown_is_left_alone(terminal: TerminalStatus, now: Any) -> None:
    account = account_with("over")
    decided = account.decide(Sweep((ORDER, "nobody's")), now=now, terminal=terminal)
    assert (decided.rows, decided.facts, decided.effects) == ({}, (), ())


@given(moments)
def test_what_was_handed_over_is_a_doubt_after_not_after_and_skew_and_once(now: Any) -> None:
    account = account_with("handed_over")
    decided = account.decide(Sweep((ORDER,)), now=now, terminal=AWAY)
    if now > NOT_AFTER + SKEW:
        [doubt] = decided.facts
        assert (doubt.fact, doubt.body.why, doubt.at) == ("OutcomeUnknown", "no_answer", NOT_AFTER)  # type: ignore[union-attr]
        assert account.order.standing == "over"
    else:
        assert decided.facts == ()
    assert decided.effects == ()


def test_for_somebody_else_s_connector_the_claim_is_the_submission() -> None:
    account = Account("execution")
    decided = account.signal(terminal=AWAY)
    assert facts(decided) == ["OrderCreated", "SubmitClaimed"]
    assert decided.effects == ()
    [asking] = [each for each in decided.publications if each.subject == "orders.submitted.EURUSD"]
    assert asking.not_after == NOT_AFTER


@pytest.mark.parametrize("standing", ["held", "unanswered", "recorded", "over", "handed_over"])
def test_silence_is_a_doubt_only_about_a_claim_that_nothing_has_answered(standing: Standing) -> None:
    account = account_with(standing)
    decided = account.decide(SubmitUnanswered(ORDER, 1))
    assert facts(decided) == (["OutcomeUnknown"] if standing == "unanswered" else [])
    assert decided.effects == ()
    assert facts(account.decide(SubmitUnanswered(ORDER, 1))) == []
    assert account.order.standing == standing


@pytest.mark.parametrize("state", ["recorded", "refused", "started", "result", "doubt", "absent"])
def test_no_fact_is_made_from_an_answer_the_journal_s_report_is_its_word(state: Any) -> None:
    account = account_with("unanswered")
    decided = account.decide(SubmitAnswered(ORDER, 1, state, "e1"), SubmitAnswered("nobody's", 1, state, "e1"))
    assert (decided.rows, decided.facts, decided.effects) == ({}, (), ())


def test_a_conflict_is_a_doubt_once_and_the_order_stays_claimed() -> None:
    account = account_with("unanswered")
    conflict = SubmitAnswered(ORDER, 1, "conflict", "e1")
    [doubt] = account.decide(conflict).facts
    assert (doubt.fact, doubt.body.why) == ("OutcomeUnknown", "conflict")  # type: ignore[union-attr]
    assert facts(account.decide(conflict, replace(conflict, epoch="e2"))) == []
    assert (account.order.status, account.order.standing) == ("submitted", "unanswered")


def test_a_report_of_the_new_journal_ends_the_question_that_the_old_one_left() -> None:
    account = account_with("recorded")
    account.report("unknown", {"attempt": 1, "why": "foreign_epoch"}, epoch="e2")
    assert account.order.journal_epoch == "e2"
    assert submits(account.decide(Sweep((ORDER,)), terminal=TerminalStatus(True, "e2"))) == []
