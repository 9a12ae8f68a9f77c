from __future__ import annotations

import pytest
from pydantic import ValidationError

from tables.pins import PinRow

PIN = '{"kind": "signals", "id": "s-1", "account": "demo", "pinned_at": "2026-11-21T00:00:00Z"}'


def test_what_a_newer_version_wrote_is_not_read_without_it() -> None:
    assert PinRow.model_validate_json(PIN).id == "s-1"
    with pytest.raises(ValidationError, match="colour"):
        PinRow.model_validate_json(PIN.replace("}", ', "colour": "red"}'))
