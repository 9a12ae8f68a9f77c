"""A real Chromium, for tests of the page. Where it or playwright is not there, the test is skipped and says so."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest


@asynccontextmanager
async def running_browser() -> AsyncIterator[Any]:
    """Run Chromium as playwright's ``Browser`` for as long as the block."""
    playwright: Any = pytest.importorskip("playwright.async_api", reason="expected playwright: pip install playwright")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("expected Chromium (Debian: apt-get install chromium)")
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()
