"""The wire as others know it: tests/golden has one file for each file of docs/schemas, a list of messages each.

Both sides of every other test use the models, so a field that is renamed, dropped or retyped would pass them all. Here
it fails. A file changes only together with what it means: by hand for a new optional field, and never for anything that
a reader of the old messages would stumble over; that is a new schema in a file of its own.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from streamapp import messages
from streamapp.docs import catalogue
from streamapp.docs.schemas import file_of
from streamapp.domain.facts import BODIES, OrderCreated, fact_id_of
from streamapp.domain.identifiers import magic_of, order_id_for, partition_of_order
from streamapp.domain.parameters import parameters_hash
from streamapp.messages.dead_letter import DeadLetter
from streamapp.messages.envelope import Message
from streamapp.messages.fact import FactMessage
from streamapp.messages.log import GENESIS_HASH, BrokerLogBatch, BrokerLogEntry, is_intact
from streamapp.messages.order import OrderMessage
from streamapp.messages.report import ReportKind
from tests.messages.golden import GOLDEN, golden, text

ELSEWHERE = {
    "dead-letter",  # no model: headers and a cut value, below
    "foreign-order",  # no model of its own: tests/desk/test_acceptance.py
    "views",  # what HTTP answers: tests/web
}


def models() -> dict[str, type[BaseModel]]:
    """Return all that goes over the wire by the name of its file: what docs/schemas has, and what is inside of it."""
    for module in pkgutil.iter_modules(messages.__path__, f"{messages.__name__}."):
        importlib.import_module(module.name)
    inside = [model for model in _leaves(Message) if model.__module__.startswith(messages.__name__)]
    return {file_of(model).removesuffix(".json"): model for model in (*catalogue.models(), *inside)}


def _leaves(model: type[Message]) -> Iterator[type[Message]]:
    below = model.__subclasses__()
    for child in below:
        yield from _leaves(child)
    if not below:
        yield model


MODELS = models()


def read(name: str) -> list[BaseModel]:
    return [MODELS[name].model_validate_json(json.dumps(one)) for one in golden(name)]


def test_every_message_has_a_golden_file_and_every_file_a_message() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == MODELS.keys() | ELSEWHERE


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_message_is_written_as_it_was_read(name: str) -> None:
    # What others write and we only read has no default that we would have to say.
    written = [
        one.encode() if isinstance(one, Message) else one.model_dump_json(exclude_unset=True) for one in read(name)
    ]
    assert text([json.loads(one) for one in written]) == text(golden(name))


def test_every_field_of_every_message_has_a_value_in_a_golden_file() -> None:
    fields = [field for name in MODELS for message in read(name) for field in _fields_of(message)]
    shown = {where for where, value in fields if value not in (None, "", (), {})}
    assert {where for where, _ in fields} - shown == set()


def _fields_of(value: Any) -> Iterator[tuple[tuple[type, str], Any]]:
    """Give every field of a message and of what it holds, as often as it is there, with its value."""
    if isinstance(value, tuple):
        for one in value:
            yield from _fields_of(one)
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield (type(value), name), getattr(value, name)
            yield from _fields_of(getattr(value, name))


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_field_that_a_later_version_adds_is_no_hindrance(name: str) -> None:
    newer = [one | {"of_a_later_version": {"a": 1}} for one in golden(name)]
    assert [MODELS[name].model_validate_json(json.dumps(one)) for one in newer] == read(name)


def test_there_is_a_fact_of_every_body_and_a_report_of_every_kind() -> None:
    assert {fact["fact"] for fact in golden("fact-1")} == BODIES.keys()
    kinds = {report["kind"] for batch in golden("reports-1") for report in batch["reports"]}
    assert kinds == set(get_args(ReportKind))


def test_ids_and_hashes_are_the_same_functions_of_the_same_content_for_ever() -> None:
    """They are idempotency keys: another one for an order that is under way would be another order."""
    for fact in map(FactMessage.model_validate, golden("fact-1")):
        assert fact.fact_id == fact_id_of(fact.account, fact.order_id, fact.body)
        if isinstance(fact.body, OrderCreated):
            assert fact.body.parameters_hash == parameters_hash(fact.body.parameters)
            assert fact.order_id == order_id_for("streamapp", fact.account, fact.body.signal_id)
    for order in map(OrderMessage.model_validate, golden("order-1")):
        assert order.magic == magic_of(order.order_id)
        assert partition_of_order(order.order_id, 8) == 5


def test_a_broker_log_of_yesterday_is_still_intact() -> None:
    entries = [BrokerLogEntry.model_validate(given) for given in golden("log-1")]
    [batch] = [BrokerLogBatch.model_validate(given) for given in golden("log-2")]
    assert list(batch.entries) == entries
    assert all(map(is_intact, entries))
    assert [entry.previous_hash for entry in entries] == [GENESIS_HASH, *(entry.hash for entry in entries[:-1])]


def test_a_dead_letter_names_its_reason_and_origin_in_its_headers() -> None:
    [expected] = golden("dead-letter")
    letter = DeadLetter(
        payload=b'{"signal_id": "s-000031", "status": "approved", "volume": -1}',
        reason="bad_field",
        detail="volume: Input should be greater than 0",
        source="signals",
        subject="signals.approved.EURUSD",
        sequence=4731,
        at=datetime(2026, 11, 20, 12, 0, 0, 132456, tzinfo=UTC),
    )
    headers = {name: value.decode() for name, value in letter.headers.items()}
    assert {"value": letter.value.decode(), "headers": headers} == expected
