"""``python -m streamapp.docs`` writes the generated pages; ``--check`` only says which of them are not true, exit 1.

``--asyncapi`` writes no page: it prints the AsyncAPI document with the names that the settings give to topics and
subjects.
"""

from __future__ import annotations

import sys
from pathlib import Path

from streamapp.desk.alarms import ON_ORDERS, ON_THE_DAY
from streamapp.docs import asyncapi, configuration, figures, messages, observe, schemas
from streamapp.settings import load_settings

FOLDER = Path(__file__).resolve().parents[2] / "docs"


def pages() -> dict[str, str]:
    """Return the content of every generated page by its file name."""
    return {
        "configuration.md": configuration.page(),
        "messages.md": messages.page(),
        "asyncapi.json": asyncapi.document(),
        "operations.md": _operations(),
        "observe/grafana.json": observe.dashboard(),
        "observe/rules.yml": observe.rules(),
        **schemas.files(),
    }


def _operations() -> str:
    """Return docs/operations.md with its tables as they should be."""
    page = observe.with_table((FOLDER / "operations.md").read_text(encoding="utf-8"), figures.table())
    for name, meanings in (("ON_ORDERS", ON_ORDERS), ("ON_THE_DAY", ON_THE_DAY)):
        page = observe.with_table(page, figures.alarm_table(meanings), f"streamapp/desk/alarms.py, {name}")
    return page


def main(arguments: list[str]) -> int:
    """Write or check the pages, or print a document; return the exit code."""
    if "--asyncapi" in arguments:
        settings = load_settings()
        sys.stdout.write(asyncapi.document(settings.kafka, settings.nats))
        return 0
    current, check = pages(), "--check" in arguments
    stale = []
    for name, content in current.items():
        file = FOLDER / name
        if not file.exists() or file.read_text(encoding="utf-8") != content:
            stale.append(name)
            if not check:
                file.parent.mkdir(exist_ok=True)
                file.write_text(content, encoding="utf-8")
    for file in sorted(FOLDER.glob("schemas/*.json")):
        if (name := f"schemas/{file.name}") not in current:
            stale.append(name)
            if not check:
                file.unlink()
    if check and stale:
        sys.stderr.write(f"docs/ is behind the code: {', '.join(stale)}. Run `python -m streamapp.docs`.\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
