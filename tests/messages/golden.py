"""The messages in tests/golden, as they stand in their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[1] / "golden"


def golden(name: str) -> list[dict[str, Any]]:
    """Return the messages of one file."""
    return list(json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8")))


def text(value: Any) -> str:
    """Return JSON as text: unlike equality of Python's, it tells 1 from 1.0 and from true."""
    return json.dumps(value, indent=2, sort_keys=True)
