"""The pages as a site: ``make docs``. The Markdown is for a code host as well, so nothing here adds a syntax of its own."""

import re
from pathlib import Path

from sphinx.application import Sphinx

project = "streamapp"
extensions = ["myst_parser"]
root_doc = "README"
exclude_patterns = ["conf.py"]
html_theme = "furo"
html_title = "streamapp"
myst_heading_anchors = 4  # a heading's anchor is the one that code hosts give it
suppress_warnings = ["misc.highlighting_failure"]  # a colour that is missing is no fault of a page

PAGE = re.compile(r"\(([\w/-]+)\.md\)")


def add_contents(_app: Sphinx, page: str, source: list[str]) -> None:
    """Make the pages that an index lists its contents, so that the list is written once and none is left out."""
    if page.endswith("README"):
        listed = dict.fromkeys(PAGE.findall(source[0]))
        pages = [name for name in listed if (Path(__file__).parent / page).parent.joinpath(f"{name}.md").exists()]
        source[0] += "\n".join(["\n```{toctree}", ":hidden:", "", *pages, "```\n"])


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", add_contents)
