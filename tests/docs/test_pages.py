from __future__ import annotations

import json
import re

import pytest
from jsonschema import Draft202012Validator

from streamapp import subjects, topics
from streamapp.docs import asyncapi
from streamapp.docs.__main__ import FOLDER, pages
from streamapp.docs.catalogue import CHANNELS, models
from streamapp.messages.operation import OPERATIONS
from streamapp.settings import KafkaSettings, NatsSettings, Settings
from streamapp.terminal.account.readings import REPLIES
from streamapp.terminal.account.readings import REQUESTS as READS
from tests.messages.golden import golden

PAGES = pages()  # once: all of them take a second


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_generated_page_says_what_the_code_does(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == PAGES[name], "run `python -m streamapp.docs`"


def test_every_topic_stands_in_the_catalogue() -> None:
    assert {c.address for c in CHANNELS if c.system == "Kafka"} == {spec.name for spec in topics.TOPICS}


def test_the_asyncapi_document_is_had_with_the_names_of_ones_settings() -> None:
    text = asyncapi.document(KafkaSettings(topic_prefix="fx."), NatsSettings(subject_prefix="desks.fx"))
    channels = json.loads(text)["channels"]
    assert channels["kafka.incomplete"]["address"] == "fx.incomplete"
    assert channels["nats.broker.fill.symbol"]["address"] == "desks.fx.broker.fill.{symbol}"


def test_every_stream_subject_stands_in_the_catalogue() -> None:
    known = {channel.address.split(".")[0] for channel in CHANNELS if channel.system == "NATS"}
    streams = {subject.split(".")[0] for spec in subjects.STREAMS for subject in spec.subjects}
    assert streams <= known


def test_everything_a_terminal_can_be_asked_stands_in_the_catalogue() -> None:
    known = {
        channel.address.split(".")[2]: channel for channel in CHANNELS if channel.address.startswith("mt5.{account}.")
    }
    assert known.keys() >= {"submit", "hello", "replay", "ack", "resume", *OPERATIONS, *READS}
    assert all(known[kind].models[0] is model for kind, model in {**OPERATIONS, **READS}.items())
    assert all(known[read].models[1] is model for read, model in REPLIES.items())


def test_every_setting_is_described() -> None:
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if field.description is None:
            assert isinstance(section, type), name
            for inner, described in section.model_fields.items():
                assert described.description, f"{name}.{inner}"


def test_no_setting_is_of_a_type_that_only_python_knows() -> None:
    assert not re.search(r"Ellipsis|tuple|typing", PAGES["configuration.md"])


def test_each_message_has_a_schema_file_that_its_golden_messages_fit() -> None:
    documents = {name: json.loads(content) for name, content in PAGES.items() if name.startswith("schemas/")}
    assert len(documents) == len(models())
    for name, document in documents.items():
        Draft202012Validator.check_schema(document)
        for message in golden(name.removeprefix("schemas/").removesuffix(".json")):
            Draft202012Validator(document).validate(message)


def test_the_asyncapi_document_has_no_dangling_reference_and_sound_schemas() -> None:
    document = json.loads(PAGES["asyncapi.json"])

    def walk(node: object) -> None:
        if isinstance(node, dict):
            if isinstance(reference := node.get("$ref"), str):
                at: object = document
                for part in reference.removeprefix("#/").split("/"):
                    assert isinstance(at, dict), reference
                    at = at[part]
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(document)
    for message in document["components"]["messages"].values():
        Draft202012Validator.check_schema(message["payload"])
