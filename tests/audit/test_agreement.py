from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from streamapp.audit.agreement import disagreements, doubts, unsettled
from streamapp.audit.evidence import (
    DeadLetterView,
    DecisionView,
    Evidence,
    FillView,
    LedgerEntry,
    OperationView,
    OrderView,
    PositionView,
    SentView,
    Witness,
)

ORDER = OrderView("o1", "a", "s1", "filled", "", Decimal("0.1"), Decimal("1.1"), 6, 77)
FILL = FillView("a:5", "o1", 4, Decimal("0.1"), Decimal("1.1"))
POSITION = PositionView("a", 4, Decimal("0.1"))
CHARGE = OperationView("charge", 4, Decimal(-5))
LEDGER_ORDER = LedgerEntry("a", "order", 4, 0, "expert", 4, 77, "EURUSD", "buy", Decimal("0.1"), Decimal("1.1"))
LEDGER_DEAL = LedgerEntry("a", "deal", 5, 4, "expert", 4, 77, "EURUSD", "buy", Decimal("0.1"), Decimal("1.1"))


def witness(name: str) -> Witness:
    return Witness(name, {"o1": ORDER}, {"a:5": FILL}, {("a", 4): POSITION})


def agreeing() -> Evidence:
    return Evidence(
        nats=witness("NATS"),
        warehouse=witness("ClickHouse"),
        archive=witness("archive"),
        tables=witness("tables"),
        decisions=(DecisionView("a", "s1", 1, "accepted", None, "o1"),),
        accepted=1,
        refused=0,
        dead_letters=(),
        ledger=(LEDGER_ORDER, LEDGER_DEAL),
    )


def test_witnesses_that_say_the_same_do_not_disagree() -> None:
    assert disagreements(agreeing()) == []
    assert unsettled(agreeing()) == []


def test_a_second_order_of_one_magic_at_the_broker_is_found() -> None:
    twice = replace(agreeing(), ledger=(LEDGER_ORDER, replace(LEDGER_ORDER, ticket=9), LEDGER_DEAL))
    assert any("2 orders at the broker" in sentence for sentence in disagreements(twice))


def test_executed_volume_that_nobody_booked_is_found() -> None:
    lost = replace(agreeing(), ledger=(LEDGER_ORDER, LEDGER_DEAL, replace(LEDGER_DEAL, ticket=6)))
    assert any("executed volume is missing" in sentence for sentence in disagreements(lost))


def test_money_that_was_booked_without_a_trade_is_told_by_all_alike() -> None:
    known = {"a:7": CHARGE}
    nats, warehouse, archive = (replace(witness(name), operations=known) for name in ("NATS", "ClickHouse", "archive"))
    charged = replace(agreeing(), nats=nats, warehouse=warehouse, archive=archive, ledger_operations=known)
    assert disagreements(charged) == []
    untold = replace(charged, ledger_operations={**known, "a:8": CHARGE})
    assert [sentence for sentence in disagreements(untold) if "a:8" in sentence and "archive None" in sentence]
    changed = {"a:7": replace(CHARGE, amount=Decimal(-4))}
    for other in (
        replace(charged, nats=replace(nats, operations=changed)),
        replace(charged, warehouse=replace(warehouse, operations=changed)),
    ):
        (sentence,) = disagreements(other)
        assert sentence.startswith("operation a:7: archive")


def test_an_order_at_the_broker_that_we_do_not_know_is_found() -> None:
    stranger = replace(
        agreeing(), ledger=(LEDGER_ORDER, LEDGER_DEAL, replace(LEDGER_ORDER, ticket=9, position_id=0, magic=78))
    )
    assert any("no order of ours has" in sentence for sentence in disagreements(stranger))


def test_the_close_of_a_whole_position_is_no_stranger() -> None:
    closing_order = replace(LEDGER_ORDER, ticket=8, magic=78, side="sell")
    closing_deal = replace(LEDGER_DEAL, ticket=9, order_ticket=8, magic=78, side="sell")
    flat = {"a:5": FILL, "a:9": FillView("a:9", None, 4, Decimal("0.1"), Decimal("1.1"))}
    told = Witness("all", {"o1": ORDER}, flat, {})
    ledger = (LEDGER_ORDER, LEDGER_DEAL, closing_order, closing_deal)
    evidence = replace(agreeing(), nats=told, warehouse=told, archive=told, tables=told, ledger=ledger)
    assert disagreements(evidence) == []


def test_the_closing_deal_of_a_stop_loss_is_not_volume_of_the_order_whose_magic_it_carries() -> None:
    closing_order = replace(LEDGER_ORDER, ticket=8, reason="sl", side="sell")
    closing_deal = replace(LEDGER_DEAL, ticket=9, order_ticket=8, reason="sl", side="sell")
    flat = {"a:5": FILL, "a:9": FillView("a:9", None, 4, Decimal("0.1"), Decimal("1.1"))}
    told = Witness("all", {"o1": ORDER}, flat, {})
    evidence = replace(
        agreeing(),
        nats=told,
        warehouse=told,
        archive=told,
        tables=told,
        ledger=(LEDGER_ORDER, LEDGER_DEAL, closing_order, closing_deal),
    )
    assert disagreements(evidence) == []


def test_a_witness_that_knows_another_price_is_named() -> None:
    other = Witness("NATS", {"o1": replace(ORDER, asked="another")}, {"a:5": FILL}, {("a", 4): POSITION})
    assert disagreements(replace(agreeing(), nats=other)) == ["order o1: archive and NATS differ: asked  / another"]


def test_one_witness_that_missed_a_revision_is_named() -> None:
    behind = Witness("ClickHouse", {"o1": replace(ORDER, rev=5)}, {"a:5": FILL}, {("a", 4): POSITION})
    assert disagreements(replace(agreeing(), warehouse=behind)) == [
        "order o1: archive and ClickHouse differ: rev 6 / 5"
    ]


def test_a_decision_without_its_order_is_found() -> None:
    decisions = (*agreeing().decisions, DecisionView("a", "s2", 2, "accepted", None, "o2"))
    assert any("a decision but no order" in text for text in disagreements(replace(agreeing(), decisions=decisions)))


def test_an_order_in_doubt_is_open_and_a_doubt() -> None:
    doubtful = replace(ORDER, status="submitted", detail="in_doubt")
    evidence = replace(agreeing(), archive=Witness("archive", {"o1": doubtful}))
    assert doubts(evidence) == unsettled(evidence) == [doubtful]


def test_a_failed_order_that_is_at_the_broker_is_found() -> None:
    failed = replace(ORDER, status="failed", detail="absent", filled_volume=Decimal(0), average_price=None)
    told = Witness("all", {"o1": failed})
    evidence = replace(agreeing(), nats=told, warehouse=told, archive=told, tables=told, ledger=(LEDGER_ORDER,))
    assert disagreements(evidence) == ["order o1: failed/absent, but there is an order at the broker"]
    assert disagreements(replace(evidence, ledger=())) == []


def test_a_closing_deal_that_was_booked_for_the_opening_order_is_found() -> None:
    closing_order = replace(LEDGER_ORDER, ticket=8, reason="tp", side="sell")
    closing_deal = replace(LEDGER_DEAL, ticket=9, order_ticket=8, reason="tp", side="sell")
    flat = {"a:5": FILL, "a:9": FillView("a:9", "o1", 4, Decimal("0.1"), Decimal("1.1"))}
    told = Witness("all", {"o1": ORDER}, flat, {})
    ledger = (LEDGER_ORDER, LEDGER_DEAL, closing_order, closing_deal)
    evidence = replace(agreeing(), nats=told, warehouse=told, archive=told, tables=told, ledger=ledger)
    assert disagreements(evidence) == ["deal a:9: booked for order o1, the ledger's order is None"]


def test_an_order_that_closes_a_position_needs_no_decision() -> None:
    closing = replace(ORDER, order_id="o2", signal_id="close:r-1", magic=78)
    fill = FillView("a:9", "o2", 4, Decimal("0.1"), Decimal("1.1"))
    told = Witness("all", {"o1": ORDER, "o2": closing}, {"a:5": FILL, "a:9": fill}, {})
    ledger = (
        LEDGER_ORDER,
        LEDGER_DEAL,
        replace(LEDGER_ORDER, ticket=8, magic=78, side="sell"),
        replace(LEDGER_DEAL, ticket=9, order_ticket=8, magic=78, side="sell"),
    )
    evidence = replace(agreeing(), nats=told, warehouse=told, archive=told, tables=told, ledger=ledger)
    assert disagreements(evidence) == []


def test_a_deal_that_the_broker_took_back_counts_nothing_anywhere() -> None:
    taken_back = replace(LEDGER_DEAL, kind="bust")
    busted = replace(agreeing(), ledger=(LEDGER_ORDER, LEDGER_DEAL, taken_back))
    assert any("ledger 0 at" in sentence for sentence in disagreements(busted))
    order = replace(ORDER, status="submitted", filled_volume=Decimal(0), average_price=None)
    fill = replace(FILL, volume=Decimal(0))
    nats, warehouse, archive, tables = (
        Witness(name, {"o1": order}, {"a:5": fill}) for name in ("NATS", "ClickHouse", "archive", "tables")
    )
    told = replace(busted, nats=nats, warehouse=warehouse, archive=archive, tables=tables)
    assert disagreements(told) == []


def test_a_corrected_deal_counts_as_it_is_now() -> None:
    corrected = replace(LEDGER_DEAL, kind="correction", price=Decimal("1.2"))
    sentences = disagreements(replace(agreeing(), ledger=(LEDGER_ORDER, LEDGER_DEAL, corrected)))
    assert any("ledger 0.1 at 1.2, archive 0.1 at 1.1" in sentence for sentence in sentences)


GOOD = SentView(1, "good", "s1", frozenset({"accepted"}), frozenset({"filled", "cancelled"}))
LETTER = DeadLetterView("signals.approved.EURUSD", 5, "bad_json")


def test_a_signal_that_was_sent_and_answered_rightly_is_no_difference() -> None:
    broken = SentView(5, "broken", "", frozenset({"dead_letter"}), frozenset())
    assert disagreements(replace(agreeing(), sent=(GOOD, broken), dead_letters=(LETTER,))) == []


def test_a_signal_that_was_sent_and_that_nobody_decided_on_is_found() -> None:
    lost = replace(GOOD, stream_seq=2, signal_id="s2")
    assert disagreements(replace(agreeing(), sent=(GOOD, lost))) == [
        "good signal s2 (stream sequence 2): expected accepted, got no answer"
    ]


def test_a_signal_that_was_decided_wrongly_is_found() -> None:
    refused = replace(agreeing().decisions[0], stream_seq=2, decision="refused", reason="stale", order_id=None)
    sent = (GOOD, replace(GOOD, stream_seq=2), replace(GOOD, kind="conflicting", answers=frozenset({"conflict"})))
    evidence = replace(agreeing(), decisions=(*agreeing().decisions, refused), refused=1, sent=sent)
    assert disagreements(evidence) == [
        "good signal s1 (stream sequence 2): expected accepted, got refused (stale)",
        "conflicting signal s1 (stream sequence 1): expected conflict, got accepted",
    ]


def test_a_good_signal_that_became_a_dead_letter_is_found() -> None:
    evidence = replace(agreeing(), sent=(GOOD, replace(GOOD, stream_seq=5)), dead_letters=(LETTER,))
    assert disagreements(evidence) == ["good signal s1 (stream sequence 5): expected accepted, got dead_letter"]


def test_a_broken_message_without_a_dead_letter_is_found() -> None:
    broken = SentView(5, "broken", "", frozenset({"dead_letter"}), frozenset())
    elsewhere = replace(LETTER, subject="mt5.report.a")
    assert disagreements(replace(agreeing(), sent=(broken,), dead_letters=(elsewhere,))) == [
        "broken signal - (stream sequence 5): expected dead_letter, got no answer"
    ]


def test_an_order_that_ended_as_its_signal_never_may_is_found() -> None:
    rejected = replace(GOOD, kind="rejected", ends=frozenset({"rejected"}))
    assert disagreements(replace(agreeing(), sent=(rejected,))) == [
        "rejected signal s1 (stream sequence 1): expected its order to be rejected, got filled/"
    ]


def test_a_decision_that_belongs_to_another_signal_is_found() -> None:
    other = replace(GOOD, signal_id="s2")
    assert disagreements(replace(agreeing(), sent=(other,))) == [
        "good signal s2 (stream sequence 1): the decision is on s1"
    ]
