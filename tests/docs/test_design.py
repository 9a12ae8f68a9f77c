"""docs/design is what the code says: its lists are whole, and whoever cites a section or a step of it finds one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from streamapp.clickhouse import migrations
from streamapp.crashpoints import POINTS
from streamapp.desk.inputs import _KINDS
from streamapp.docs.catalogue import CHANNELS, models
from streamapp.docs.schemas import name_of
from streamapp.domain.facts import BODIES
from streamapp.local.process import REPOSITORY
from streamapp.messages import reading
from streamapp.messages.report import REPORT_BODIES
from streamapp.ports import Ports

TEXTS = {page.stem: page.read_text(encoding="utf-8") for page in (REPOSITORY / "docs/design").glob("[a-z]*.md")}
CODE = [each for folder in ("streamapp", "agents", "tables", "tests") for each in (REPOSITORY / folder).rglob("*.py")]
PAGES = [*(REPOSITORY / "docs").rglob("*.md")]

_PAGE = rf"(?:{'|'.join(TEXTS)})\b"
# (design: messages, architecture "NATS"), for short (submission, steps 3, 5 to 8), and in the pages desk.md, "Pruning".
_CITATION = re.compile(rf'(?:\bdesign:\s|\((?={_PAGE}(?: "|, step))|\b(?={_PAGE}\.md,? "))([^);]*?)(?=[);]|\.\W)')


def section(page: str, heading: str) -> str:
    return re.split(r"^## ", TEXTS[page].split(f"\n## {heading}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]


def absent(names: Iterable[str], text: str) -> list[str]:
    return sorted(name for name in names if not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text))


# --- citations


def wrong_citations(file: Path) -> Iterator[str]:
    """Each citation of a file that leads to no page, or to a section or step that its page does not have."""
    text = re.sub(r"\s*\n\s*(?:# )?", " ", file.read_text(encoding="utf-8"))
    for citation in _CITATION.findall(text):
        page = ""
        for place in re.findall(rf'{_PAGE}|"[^"]+"|\d+', citation):
            page = place if place in TEXTS else page
            heading = rf"{place}\. " if place.isdecimal() else f"##+ {re.escape(place[1:-1])}$"
            if place != page and not re.search(f"^{heading}", TEXTS.get(page, ""), re.MULTILINE):
                yield f"{file.name}: {citation}"
        if not page:
            yield f"{file.name}: {citation}"


@pytest.mark.parametrize("files", [CODE, PAGES], ids=["code", "pages"])
def test_whoever_cites_a_section_or_a_step_of_the_design_finds_it(files: list[Path]) -> None:
    assert [wrong for file in files for wrong in wrong_citations(file)] == []


# --- lists


def modules(folder: str, place: str = "{}") -> set[str]:
    return {place.format(each.stem) for each in (REPOSITORY / folder).glob("[!_]*.py")}


def packages(folder: str) -> set[str]:
    return {f"{each.parent.name}/" for each in (REPOSITORY / folder).glob("*/__init__.py")}


def tables() -> set[str]:
    found = [each.read_text() for each in Path(migrations.__file__).parent.glob("migrations/*.sql")]
    return {name for text in found for name in re.findall(r"CREATE (?:TABLE|VIEW) IF NOT EXISTS (\w+)", text)}


def ports() -> set[str]:
    return {
        str(value)
        for name, known in vars(Ports).items()
        if isinstance(known, property)
        if (value := getattr(Ports(), name))
    }


@pytest.mark.parametrize(
    ("page", "heading", "names"),
    [
        ("architecture", "Layout", packages("streamapp") | modules("streamapp", "{}.py") | modules("agents")),
        ("architecture", "ClickHouse tables", tables()),
        ("architecture", "The local stack", ports()),
        ("desk", "Where it lives", modules("streamapp/desk", "`{}`") | modules("agents", "agents/{}.py")),
        ("order-status", "An order is an intent plus a grow-only set of facts", set(BODIES)),
        ("messages", "Between agent and terminal", set(REPORT_BODIES)),
        ("desk", "Crash points", {*POINTS, *_KINDS.values(), "signal", "order"}),
    ],
)
def test_a_list_of_the_design_has_all_that_there_is(page: str, heading: str, names: set[str]) -> None:
    assert names
    assert absent(names, section(page, heading)) == []


def test_the_page_on_the_tests_has_every_folder_and_every_shared_part() -> None:
    names = {each.removesuffix("/") for each in packages("tests")} | modules("tests/kit")
    assert absent(names, (REPOSITORY / "tests/README.md").read_text(encoding="utf-8")) == []


# --- messages


def parts(model: type[BaseModel]) -> list[str]:
    """What messages.md says of a message: the sections and items that name its schema, or else its subject."""
    [mark, *_] = (
        [name_of(model)]
        if "schema_" in model.model_fields
        else [channel.address for channel in CHANNELS if model in channel.models]
    )
    return [part for part in re.split(r"^(?:## |- )", TEXTS["messages"], flags=re.MULTILINE) if mark in part]


@pytest.mark.parametrize("model", [each for each in models() if each.__module__ != reading.__name__], ids=name_of)
def test_messages_has_every_field_of_every_message(model: type[BaseModel]) -> None:
    fields = {field.alias or name for name, field in model.model_fields.items()} - {"schema"}
    missing = [absent(fields, part) for part in parts(model)]
    assert [] in missing, f"expected docs/design/messages.md to name {min(missing, key=len, default=sorted(fields))}"
