"""reports/1: what is read back is what was written, and a report that can't be read is one alone."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, get_args

import pytest

from streamapp.domain import facts
from streamapp.errors import Unusable
from streamapp.messages.report import (
    REPORT_BODIES,
    BadReport,
    BatchPlace,
    ConnectionChange,
    Report,
    ReportBatch,
    ReportBody,
    ReportKind,
    encode_batch,
    read_batch,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PLACE = BatchPlace(account="live-1", epoch="e1", first_seq=7)
RETURNED = facts.SubmitReturned(attempt=1, retcode=10009, returned_at=NOW, raw={"price": 1.1, "volume": 0.1})
DEAL = facts.Filled(
    deal=1, ticket=2, position_id=2, symbol="EURUSD", side="buy", entry="in", reason="expert", volume=Decimal("0.10"),
    price=Decimal("1.0850"), time=NOW,
)  # fmt: skip


def report(seq: int, kind: ReportKind, body: ReportBody, order_id: str | None = "o-1") -> Report:
    return Report(seq=seq, at=NOW, kind=kind, order_id=order_id, body=body)


REPORTS = (
    report(7, "returned", RETURNED),
    report(8, "deal", DEAL),
    report(9, "connection", ConnectionChange(connection="ready"), None),
)
BATCH = ReportBatch(account="live-1", epoch="e1", first_seq=7, reports=REPORTS)


def changed(**fields: Any) -> bytes:
    return json.dumps({**json.loads(BATCH.encode()), **fields}).encode()


def second_is(value: Any) -> bytes:
    first, _, third = json.loads(BATCH.encode())["reports"]
    return changed(reports=[first, value, third])


def test_every_kind_has_the_body_of_its_fact_and_every_fact_of_a_terminal_a_kind() -> None:
    assert set(REPORT_BODIES) == set(get_args(ReportKind))
    assert set(REPORT_BODIES.values()) == {*facts.BODIES.values(), ConnectionChange} - {facts.SubmitClaimed}
    names = {
        "refused": "SubmitRefused",
        "unknown": "OutcomeUnknown",
        "absent": "ProvenAbsent",
        "expired": "BrokerExpired",
        "deal": "Filled",
        "deal_correction": "FillCorrected",
        "deal_busted": "FillBusted",
        "created": "OrderCreated",
        "modify_rejected": "ModifyRejected",
    }
    assert {kind: REPORT_BODIES[kind].__name__ for kind in names} == names


def test_a_batch_comes_back_as_it_was_written() -> None:
    assert ReportBatch.decode(BATCH.encode()) == BATCH
    assert read_batch(BATCH.encode()) == (PLACE, list(REPORTS))
    assert json.loads(BATCH.encode())["schema"] == "reports/1"


def test_reports_that_are_encoded_already_make_the_same_batch() -> None:
    assert encode_batch(PLACE, [report.model_dump_json().encode() for report in REPORTS]) == BATCH.encode()


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        ({"seq": 8, "at": "2026-03-01T00:00:00Z", "kind": "of_tomorrow", "body": {}}, "kind: "),
        ({"seq": 8, "at": "2026-03-01T00:00:00Z", "kind": "deal", "body": {"deal": 1}}, "body.ticket: "),
        ({"seq": 8, "at": "yesterday", "kind": "connection", "body": {"connection": "ready"}}, "at: "),
        (json.loads(REPORTS[0].model_dump_json()), "seq: expected 8, got 7"),
        ("deal", "message: "),
        (None, "message: "),
    ],
)
def test_a_bad_report_is_named_by_its_place_and_does_not_spoil_its_neighbours(value: Any, detail: str) -> None:
    place, (first, bad, third) = read_batch(second_is(value))
    assert (place, first, third) == (PLACE, REPORTS[0], REPORTS[2])
    assert isinstance(bad, BadReport)
    assert (bad.seq, bad.reason) == (8, "invalid")
    assert bad.detail.startswith(detail)
    with pytest.raises(Unusable):
        ReportBatch.decode(second_is(value))


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "not_json"),
        (BATCH.encode()[:-1], "not_json"),
        (b"[]", "invalid"),
        (changed(schema="report/1"), "invalid"),
        (changed(account=None), "invalid"),
        (changed(epoch=1), "invalid"),
        (changed(first_seq=0), "invalid"),
        (changed(reports=[]), "invalid"),
        (changed(reports="deal"), "invalid"),
    ],
)
def test_an_envelope_that_can_not_be_read_is_unusable(payload: bytes, reason: str) -> None:
    with pytest.raises(Unusable) as caught:
        read_batch(payload)
    assert caught.value.reason == reason
