"""The page in a tab of a real Chromium: what a person does there, and what goes wrong there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

VIEWS = ("orders", "positions", "accounts", "plots", "attention", "activity")
PATIENCE_MS = 40_000
IS_DRAWN = """() => {
    const canvas = document.querySelector(".plot canvas");
    const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return new Set(new Uint32Array(data.buffer)).size > 3;
}"""
"""Whether a plot has more than the empty ground, the grid and the letters."""


@dataclass
class Tab:
    """A tab with the page of one worker.

    Attributes:
        page: playwright's.
        url: Where the page is.
        faults: What may never happen: a script that broke, and what the Content-Security-Policy refused.
        failures: Requests that failed or were refused, and whatever else the console has as an error.
    """

    page: Any
    url: str
    faults: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", self._said)
        self.page.on("requestfailed", self._failed)

    def _said(self, said: Any) -> None:
        if "Refused to" in said.text:
            self.faults.append(said.text)
        elif said.type == "error":
            self.failures.append(f"{said.text} ({said.location.get('url')})")

    def _failed(self, request: Any) -> None:
        # Whoever logs in listens anew: the page itself has ended the listening before.
        if not (request.failure == "net::ERR_ABORTED" and "/events" in request.url):
            self.failures.append(f"{request.url}: {request.failure}")

    async def open(self, view: str = "", url: str | None = None) -> None:
        await self.page.goto(f"{url or self.url}#{view}")
        await self.page.wait_for_selector("#link.live")

    async def login(self, secret: str) -> None:
        await self.page.click("#login")
        await self.confirm(token=secret)
        await self.page.wait_for_selector("#logout:visible")
        await self.page.wait_for_selector("#link.live")

    async def see(self, view: str) -> None:
        await self.page.click(f"nav a[href='#{view}']")
        await self.page.wait_for_selector(f"nav a[href='#{view}'][aria-current]")

    async def says(self, selector: str, text: str) -> None:
        await self.page.locator(selector).filter(has_text=text).first.wait_for()

    async def press(self, label: str) -> None:
        await self.page.get_by_role("button", name=label, exact=True).first.click()

    async def confirm(self, **fields: str) -> None:
        """Fill in what a dialog asks for, and confirm it."""
        for name, text in fields.items():
            await self.page.fill(f"dialog input[name={name}]", text)
        await self.page.click("dialog button[type=submit]")

    async def command_buttons(self) -> int:
        """Return how many buttons of this view act."""
        kinds = ("order", "position", "account", "break", "alarm", "dead_letter")
        return int(await self.page.locator(", ".join(f"button[data-name^='{kind}.']" for kind in kinds)).count())


@asynccontextmanager
async def tab_at(browser: Any, url: str, *, width: int = 1280, height: int = 800) -> AsyncIterator[Tab]:
    """Open a tab, whose cookies are its own, for as long as the block; what may never happen did not."""
    context = await browser.new_context(viewport={"width": width, "height": height})
    tab = Tab(await context.new_page(), url)
    yield tab
    await context.close()
    assert tab.faults == []
