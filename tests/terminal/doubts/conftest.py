"""An account whose every order ends in doubt, on a scripted worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.terminal.conftest import Account, wired
from tests.terminal.doubts.doubtful import WINDOW_S
from tests.terminal.scripted import ScriptedWorker, result


@pytest.fixture
async def account(tmp_path: Path) -> AsyncIterator[Account]:
    """Run one life of the account, with a short settle window."""
    worker = ScriptedWorker()
    worker.answers["send"] = lambda _: worker.sent(result(10012))
    async with wired(tmp_path, worker, settle_window_s=WINDOW_S) as parts:
        yield parts
