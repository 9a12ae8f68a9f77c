"""docs/signals.md shows what is really read and answered."""

from __future__ import annotations

import json
import re
import tomllib
from decimal import Decimal
from typing import Any

import pytest

from streamapp.docs.__main__ import FOLDER
from streamapp.messages.decision import AcceptedMessage, RefusedMessage
from streamapp.messages.dialect import read_signal, renamed, translated
from streamapp.messages.envelope import Message
from streamapp.messages.signal import NAMES, route_of
from streamapp.settings import ExecutionSettings

PAGE = (FOLDER / "signals.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


EXAMPLES: list[dict[str, Any]] = [json.loads(block) for block in blocks("json")]


@pytest.mark.parametrize("example", [each for each in EXAMPLES if "schema" not in each])
def test_an_example_of_a_signal_can_be_read(example: dict[str, Any]) -> None:
    ours = ExecutionSettings()
    whole = {"account": "by-its-route", **example}
    assert read_signal(translated(renamed(whole, ours), ours)).signal_id == example["signal_id"]


def test_the_example_without_an_account_has_the_route_that_is_shown_with_it() -> None:
    [routed] = [each for each in EXAMPLES if "schema" not in each and "account" not in each]
    routing = ExecutionSettings(**tomllib.loads(blocks("toml")[1])["execution"]).routing
    assert route_of(routed["strategy"], routed["symbol"], routing) == {"live-1": Decimal(1), "live-2": Decimal("0.5")}


@pytest.mark.parametrize("example", [each for each in EXAMPLES if "schema" in each])
def test_an_example_of_an_answer_is_whole(example: dict[str, Any]) -> None:
    models: dict[str, type[Message]] = {"accepted/1": AcceptedMessage, "refused/1": RefusedMessage}
    whole = models[example["schema"]].decode(json.dumps(example).encode())
    assert json.loads(whole.encode()) == example


def test_the_example_of_names_and_words_is_a_setting() -> None:
    theirs = ExecutionSettings(**tomllib.loads(blocks("toml")[0])["execution"])
    assert translated(renamed({"action": 2}, theirs), theirs) == {"side": "sell"}
    assert translated({"order_type": "Long Limit"}, theirs) == {"side": "buy", "order_type": "limit"}


def test_every_field_has_its_rule() -> None:
    rules = re.findall(
        r"^\| (`[a-z_]+`(?:, `[a-z_]+`)*) \| (?:text|word|number|whole number|time|object) \|", PAGE, re.MULTILINE
    )
    assert {name for rule in rules for name in re.findall(r"`([a-z_]+)`", rule)} == set(NAMES)
