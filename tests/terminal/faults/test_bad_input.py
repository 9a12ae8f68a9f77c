"""Bad input on every request subject of a terminal: a clear answer, and nothing else is disturbed."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from streamapp.domain.facts import SubmitRefused
from streamapp.messages.terminal import AckReply, AckRequest, ReplayReply, ReplayRequest, SubmitReply
from tests.kit.waiting import eventually
from tests.terminal.desk import ACCEPTED, Desk

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONGEST_ANSWER = 2000
"""An answer names what is wrong; it never repeats what was sent."""
OPERATIONS = ("cancel", "modify", "protect", "close", "close_by")
READS = ("account", "positions", "orders", "symbols", "quote")
SUBJECTS = ("submit", "ack", "replay", "resume", *OPERATIONS, *READS)
RUBBISH: dict[str, tuple[bytes, str]] = {
    "half": (b'{"order_id": "x", "acc', "not_json: message: Invalid JSON: EOF"),
    "list": (b"[]", "invalid: message: Input should be an object"),
    "null": (b"null", "invalid: message: Input should be an object"),
    "word": (b"what?", "not_json: message: Invalid JSON: expected value at line 1 column 1"),
    "bytes": (b"\xff\xfe\x00\x80", "not_json: message: Invalid JSON: expected value at line 1 column 1"),
    "surrogate": (
        b'{"account": "\\ud800", "symbol": "\\ud800", "limit": "\\ud800", "request_id": "\\ud800"}',
        "not_json: message: Invalid JSON: unexpected end of hex escape",
    ),
    "deep": (b'{"account":' * 20_000, "not_json: message: Invalid JSON: recursion limit exceeded"),
    "brackets": (b"[" * 200_000, "not_json: message: Invalid JSON: recursion limit exceeded"),
    "huge": (b'{"account": "' + b"x" * 900_000, "not_json: message: Invalid JSON: EOF"),
    "number": (b'{"account": ' + b"9" * 100_000, "not_json: message: Invalid JSON: number out of range"),
}
"""What was sent, and how the answer begins, on whatever subject."""


async def asked(desk: Desk, subject: str, payload: bytes) -> dict[str, Any]:
    """Return a terminal's answer to whatever was sent."""
    answer = await desk.terminal.request(subject, payload)
    found: dict[str, Any] = json.loads(answer)
    return found


def complaint(answer: dict[str, Any]) -> str:
    """Return what an answer complains of; an operation says it as the message of its refusal."""
    if "outcome" in answer:
        assert answer["outcome"] == "refused"
        return str(answer["message"])
    return str(answer.get("error") or "")


async def undisturbed(desk: Desk, *, sends: int = 0) -> None:
    """See that the same process goes on, and that the next order is carried out."""
    process = desk.terminal.process
    assert process is not None
    assert process.poll() is None
    await desk.submits(*ACCEPTED)
    assert desk.connections() == []
    await desk.close(sends=1 + sends)


@pytest.mark.parametrize("subject", SUBJECTS)
async def test_rubbish_is_answered_with_what_is_wrong_with_it(desk: Desk, subject: str) -> None:
    for name, (payload, words) in RUBBISH.items():
        answer = await asked(desk, subject, payload)
        assert complaint(answer).startswith(words), name
        assert len(json.dumps(answer)) < LONGEST_ANSWER, name
    await undisturbed(desk)


async def test_rubbish_that_wants_no_answer_is_dropped(desk: Desk) -> None:
    for subject in SUBJECTS:
        for payload, _ in RUBBISH.values():
            await desk.terminal.client.publish(f"mt5.{desk.terminal.account}.{subject}", payload)
    await desk.terminal.client.flush()
    await undisturbed(desk)


@pytest.mark.parametrize("payload", [b"", *(payload for payload, _ in RUBBISH.values())], ids=["empty", *RUBBISH])
async def test_hello_is_answered_whatever_it_says(desk: Desk, payload: bytes) -> None:
    answer = await asked(desk, "hello", payload)
    assert (answer["account"], answer["connection"]) == (desk.terminal.account, "ready")


def operation(desk: Desk, kind: str, **changes: Any) -> dict[str, Any]:
    """Return a well-formed request of an operation on what is not there."""
    fields: dict[str, dict[str, Any]] = {
        "cancel": {"ticket": 1},
        "modify": {"ticket": 1, "price": "0.9"},
        "protect": {"position_id": 1, "stop_loss": "0.9"},
        "close": {"position_id": 1, "epoch": desk.epoch},
        "close_by": {"position_id": 1, "by_position_id": 2},
    }
    not_after = (datetime.now(UTC) + timedelta(seconds=30)).isoformat()
    request_id = f"{kind}-{next(desk.names)}-{datetime.now(UTC).timestamp()}"
    shared = {"request_id": request_id, "account": desk.terminal.account, "not_after": not_after}
    return {**shared, **fields[kind], **changes}


async def test_a_number_beyond_all_numbers_is_refused_as_such(desk: Desk) -> None:
    for subject, name in (("ack", "watermark"), ("replay", "after_seq")):
        payload = {"epoch": desk.epoch, "replay_id": "r", name: 2**70}
        assert name in complaint(await asked(desk, subject, json.dumps(payload).encode()))
    await undisturbed(desk)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "another account": ({"account": "other"}, "expected account .*, got other"),
    "no request id": ({"request_id": ""}, "request_id: .* at least 1 character"),
    "a long request id": ({"request_id": "x" * 100_000}, "request_id: .* at most 128 characters"),
    "no time": ({"not_after": "soon"}, "not_after: .* valid datetime"),
    "a time without a zone": ({"not_after": "2026-01-01T00:00:00"}, "not_after: .*expected a time with an offset"),
    "a negative ticket": ({"ticket": -1, "position_id": -1}, "(ticket|position_id): .* greater than 0"),
    "a ticket of words": ({"ticket": "all", "position_id": "all"}, "(ticket|position_id): .* valid integer"),
    "a ticket beyond all tickets": (
        {"ticket": 2**70, "position_id": 2**70},
        "(ticket|position_id): .* less than or equal to 9223372036854775807",
    ),
    "a time that is over": ({"not_after": "2020-01-01T00:00:00Z"}, "the (order|position) is neither .* nor in history"),
}
"""What is wrong, and what the refusal says of it."""


@pytest.mark.parametrize("kind", OPERATIONS)
@pytest.mark.parametrize("wrong", WRONG)
async def test_an_operation_with_a_wrong_field_is_refused_and_nothing_is_sent(
    desk: Desk, kind: str, wrong: str
) -> None:
    changes, words = WRONG[wrong]
    answer = await asked(desk, kind, json.dumps(operation(desk, kind, **changes)).encode())
    assert answer["outcome"] == "refused"
    assert re.search(words, answer["message"])
    assert len(json.dumps(answer)) < LONGEST_ANSWER
    assert desk.sends() == 0
    assert desk.connections() == []


async def test_after_all_wrong_operations_the_next_order_goes(desk: Desk) -> None:
    await undisturbed(desk)


UNREADABLE: dict[str, tuple[str, Any]] = {
    "a price of words": ("expected_price", "abc"),
    "a price that is none": ("expected_price", "NaN"),
    "an endless price": ("expected_price", "Infinity"),
    "slippage beyond an integer": ("max_slippage_points", 10**30),
    "a position beyond all positions": ("position_id", 2**70),
    "attempt 0": ("attempt", 0),
    "an attempt beyond an integer": ("attempt", 2**70),
    "a volume of nothing": ("parameters.volume", "0"),
    "a negative volume": ("parameters.volume", "-1"),
    "more than there is": ("parameters.volume", "1E+30"),
    "next to nothing": ("parameters.volume", "1E-30"),
    "a volume that is none": ("parameters.volume", "NaN"),
    "a price beyond floats": ("parameters.price", "1E+400"),
    "a stop far away": ("parameters.stop_loss", "1E+30"),
    "another side": ("parameters.side", "both"),
}
"""The field that is wrong, and what is in it."""

_UNTIL = {"order_type": "limit", "price": "0.9", "time_in_force": "until"}
IMPOSSIBLE: dict[str, tuple[str, dict[str, Any]]] = {
    "a negative slippage": ("guard", {"expected_price": "1.0", "max_slippage_points": -5}),
    "a position that is not there": ("invalid", {"position_id": 77}),
    "a limit without a price": ("invalid", {"parameters": {"order_type": "limit"}}),
    "a price of nothing": ("invalid", {"parameters": {"order_type": "limit", "price": "0"}}),
    "no symbol": ("invalid", {"parameters": {"symbol": ""}}),
    "a symbol with a wildcard": ("invalid", {"parameters": {"symbol": "EUR*"}}),
    "a long symbol": ("invalid", {"parameters": {"symbol": "x" * 10_000}}),
    "a symbol of odd letters": ("invalid", {"parameters": {"symbol": "EUR\u0000\U0001f600"}}),
    "an expiration in the past": ("stale", {"parameters": _UNTIL | {"expiration": "2020-01-01T00:00:00Z"}}),
    "an expiration at the end of time": ("invalid", {"parameters": _UNTIL | {"expiration": "9999-12-31T23:59:59Z"}}),
}
"""The reason for which nobody could carry it out, and what is wrong."""

NOT_YET = {"recorded"}
"""What a submit is answered where judging takes longer than its answer may: a look again, or a busy machine."""

ODD: dict[str, dict[str, Any]] = {
    "a long order id": {"order_id": "x" * 10_000},
    "an order id of one byte": {"order_id": "\x00"},
    "another hash": {"hash": "0" * 64},
    "a price next to nothing": {"parameters": {"price": "1E-30"}},
}
"""Unusual, and an order all the same: the hash is its sender's word for what is the same, and a market order has no
price but noise."""


async def submitted(desk: Desk, name: str, changes: dict[str, Any]) -> tuple[str, SubmitReply]:
    """Return the order id and the answer of a submit with other fields."""
    order = desk.terminal.order(f"{name}-{next(desk.names)}-{datetime.now(UTC).timestamp()}", desk.epoch)
    body = json.loads(order.encode())
    body |= changes | {"parameters": body["parameters"] | changes.get("parameters", {})}
    return body["order_id"], SubmitReply.decode(await desk.terminal.request("submit", json.dumps(body).encode()))


@pytest.mark.parametrize("wrong", UNREADABLE)
async def test_a_submit_that_can_not_be_read_is_answered_with_its_wrong_field_and_leaves_no_row(
    desk: Desk, wrong: str
) -> None:
    field, value = UNREADABLE[wrong]
    *within, name = field.split(".")
    order_id, reply = await submitted(desk, wrong, {"parameters": {name: value}} if within else {name: value})
    assert reply.row is None
    assert f"{field}: " in (reply.error or "")
    await undisturbed(desk)
    assert desk.terminal.kinds(order_id) == []


@pytest.mark.parametrize("wrong", IMPOSSIBLE)
async def test_a_submit_that_nobody_could_carry_out_is_refused_and_never_sent(desk: Desk, wrong: str) -> None:
    reason, changes = IMPOSSIBLE[wrong]
    order_id, reply = await submitted(desk, wrong, changes)
    assert reply.state in NOT_YET | {"refused"}
    await eventually(lambda: desk.terminal.kinds(order_id))
    await undisturbed(desk)
    [report] = desk.terminal.told(order_id)
    assert isinstance(report.body, SubmitRefused)
    assert report.body.reason == reason


@pytest.mark.parametrize("odd", ODD)
async def test_a_submit_that_is_odd_but_possible_is_carried_out(desk: Desk, odd: str) -> None:
    order_id, reply = await submitted(desk, odd, ODD[odd])
    assert reply.state in NOT_YET | {"started"}
    await eventually(lambda: desk.terminal.kinds(order_id) == ACCEPTED)
    await undisturbed(desk, sends=1)


async def test_a_submit_for_another_account_is_an_error_and_leaves_no_row(desk: Desk) -> None:
    order = desk.terminal.order("elsewhere", desk.epoch).model_copy(update={"account": "other"})
    reply = SubmitReply.decode(await desk.terminal.request("submit", order.encode()))
    assert reply.row is None
    assert "other" in (reply.error or "")
    assert desk.terminal.kinds(order.order_id) == []
    await undisturbed(desk)


async def test_a_submit_whose_time_is_over_is_refused_for_ever(desk: Desk) -> None:
    order = await desk.submit(valid_s=-1.0)
    bodies = await desk.says(order, "refused")
    assert bodies["refused"].reason == "stale"
    later = order.model_copy(update={"not_after": datetime.now(UTC) + timedelta(hours=1)})
    assert (await desk.terminal.submit(later)).state == "refused"
    await undisturbed(desk)


async def test_a_submit_claimed_for_another_journal_is_looked_for_and_never_sent(desk: Desk) -> None:
    order = desk.terminal.order(f"foreign-{datetime.now(UTC).timestamp()}", "0" * 32)
    assert (await desk.terminal.submit(order)).state == "doubt"
    await desk.says(order, "unknown", "absent")
    assert (await desk.terminal.submit(order)).state == "absent"
    assert desk.orders_of(order) == []
    await undisturbed(desk)


async def test_a_hundred_submits_of_one_order_are_one_order_and_another_hash_is_a_conflict(desk: Desk) -> None:
    conflicts = desk.terminal.status()["metrics"]["conflicts"]
    order = await desk.submit()
    for _ in range(99):
        await desk.terminal.submit(order)
    other = order.model_copy(
        update={"hash": "1" * 64, "parameters": order.parameters.model_copy(update={"volume": Decimal(5)})}
    )
    reply = await desk.terminal.submit(other)
    assert (reply.state, reply.row and reply.row.hash) == ("conflict", order.hash)
    await desk.says(order, *ACCEPTED)
    assert len(desk.orders_of(order)) == 1
    await eventually(lambda: desk.terminal.status()["metrics"]["conflicts"] == conflicts + 1)
    await undisturbed(desk, sends=1)


@pytest.mark.parametrize("watermark", [0, 10**6, 2**63 - 1])
async def test_an_ack_forgets_no_more_than_was_said_and_nothing_for_another_journal(desk: Desk, watermark: int) -> None:
    foreign = await desk.terminal.request("ack", AckRequest(epoch="other", watermark=watermark).encode())
    before = AckReply.decode(foreign)
    assert before.epoch == desk.epoch
    acked = AckReply.decode(
        await desk.terminal.request("ack", AckRequest(epoch=desk.epoch, watermark=watermark).encode())
    )
    assert before.released_seq <= acked.released_seq <= acked.last_seq
    await undisturbed(desk)


@pytest.mark.parametrize(("after_seq", "says"), [(0, True), (10**6, False), (2**63 - 1, False)])
async def test_a_replay_says_only_what_there_is(desk: Desk, after_seq: int, says: bool) -> None:
    await desk.submits(*ACCEPTED)
    foreign = ReplayRequest(epoch="other", after_seq=after_seq, replay_id="f")
    assert ReplayReply.decode(await desk.terminal.request("replay", foreign.encode())).error
    ours = ReplayRequest(epoch=desk.epoch, after_seq=after_seq, replay_id="r")
    reply = ReplayReply.decode(await desk.terminal.request("replay", ours.encode()))
    assert (reply.error, reply.published > 0) == (None, says)
    await undisturbed(desk, sends=1)
