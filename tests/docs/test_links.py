"""Every link of our pages leads somewhere, as a code host resolves it: file, heading, and the test that it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from streamapp.local.process import REPOSITORY

PAGES = sorted(
    [
        *(REPOSITORY / name for name in ("README.md", "CHANGELOG.md", "tests/README.md", "examples/README.md")),
        *(REPOSITORY / "docs").rglob("*.md"),
    ]
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)(?:\s+\"([^\"]*)\")?\)")


def prose(page: Path) -> str:
    """The page without what is shown as code."""
    return re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        times = sum(1 for each in found if re.fullmatch(rf"{re.escape(slug)}(-\d+)?", each))
        found.add(f"{slug}-{times}" if slug in found else slug)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_link_of_a_page_leads_to_a_file_a_heading_and_a_test_that_are_there(page: Path) -> None:
    for target, title in LINK.findall(prose(page)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target
        if title:
            assert re.search(rf"^(async )?def {title}\(", file.read_text(encoding="utf-8"), re.MULTILINE), title


def test_each_guarantee_is_proved_by_a_test_that_is_named() -> None:
    rows = re.findall(r"^\| (?!against|promise|---)(.+)\|$", prose(REPOSITORY / "docs/guarantees.md"), re.MULTILINE)
    assert len(rows) > 20
    for row in rows:
        assert any(target.startswith("../tests/") and title for target, title in LINK.findall(row)), row


@pytest.mark.parametrize("index", ["docs/README.md", "docs/design/README.md"])
def test_an_index_lists_every_page_beside_it(index: str) -> None:
    page = REPOSITORY / index
    listed = {target.partition("#")[0] for target, _ in LINK.findall(prose(page))}
    assert {each.name for each in page.parent.glob("*.md")} - {"README.md"} <= listed
