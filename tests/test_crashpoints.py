"""No point at which a process can be killed, no kind of input and no family of messages without a test that arms it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from streamapp import crashpoints
from streamapp.desk import inputs
from streamapp.messages.routing import Family
from tests.mirror.test_mirror import FAMILIES
from tests.test_trading import KINDS

ROOT = Path(__file__).parents[1]
ARMED = re.compile(r"([a-z]+\.[a-z_]+)(@[a-z]*)?(:[0-9]*)?")


def nodes_of(*folders: str) -> Iterator[ast.AST]:
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        yield from ast.walk(ast.parse(path.read_text()))


def texts(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Yield each text that stands in code; of one with fields in it, its parts."""
    return (node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


def test_each_point_is_reached_in_the_code_and_no_other_is() -> None:
    calls = (node for node in nodes_of("agents", "streamapp", "tables") if isinstance(node, ast.Call))
    reached = (call for call in calls if ast.unparse(call.func).rpartition(".")[2] == "reach")
    assert {ast.literal_eval(call.args[0]) for call in reached} == crashpoints.POINTS


def test_each_point_is_armed_by_a_test() -> None:
    armed = {found[1] for text in texts(nodes_of("tests")) if (found := ARMED.fullmatch(text))}
    assert crashpoints.POINTS - armed == set()


def test_each_kind_of_input_is_armed_around_its_commit() -> None:
    armed = [kind for kinds in KINDS.values() for kind in kinds]
    assert sorted(armed) == sorted({"signal", "order", *inputs._KINDS.values()})


def test_each_family_of_messages_is_armed_behind_kafka_s_acknowledgement() -> None:
    assert FAMILIES.keys() == {*get_args(Family)}
