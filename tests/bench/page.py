"""The page under load: from a message on NATS until it is on the screen, and how long a frame takes meanwhile."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nats.aio.client import Client

from streamapp.clock import utc_now
from streamapp.domain.vocabulary import time_text
from streamapp.local import nats
from streamapp.local.ports import free_port
from tests.bench.figures import markdown, percentiles
from tests.kit.browser import running_browser
from tests.kit.command_answers import streams_at
from tests.kit.page import tab_at
from tests.kit.stacks import running
from tests.kit.waiting import eventually
from tests.messages.golden import golden
from tests.web.group import running_group

ORDERS = 10_000
RATE = 50.0
WARM_S = 5.0
_FILL = """async ([order, orders, many]) => {
    const live = await import("./static/live.js");
    const statuses = ["filled", "filled", "cancelled", "rejected"];
    for (let number = 0; number < many; number++) {
        const updated_at = new Date(Date.now() - 3600 * (many - number)).toISOString();
        live.takeOrder({ ...order, order_id: orders + number, status: statuses[number % 4], updated_at });
    }
    live.changed("orders");
}"""
_WATCH = """() => {
    const seen = new Set(), found = { shown: {}, frames: [], tasks: [] };
    const rows = document.querySelector("main table tbody");
    new MutationObserver(() => {
        const times = [...rows.querySelectorAll("td:first-child time")].map((time) => time.dateTime);
        const fresh = times.filter((at) => !seen.has(at));
        for (const at of fresh) seen.add(at);
        // The frame's callbacks run before it is painted, and a message that they send comes after it.
        if (fresh.length) requestAnimationFrame(() => {
            const { port1, port2 } = new MessageChannel();
            port1.onmessage = () => { for (const at of fresh) found.shown[at] = Date.now(); };
            port2.postMessage(null);
        });
    }).observe(rows, { childList: true, subtree: true });
    let last = performance.now();
    const frame = (now) => { found.frames.push(now - last); last = now; requestAnimationFrame(frame); };
    requestAnimationFrame(frame);
    new PerformanceObserver((list) => found.tasks.push(...list.getEntries().map((each) => each.duration)))
        .observe({ type: "longtask" });
    window.begin = () => { found.frames.length = found.tasks.length = 0; };
    window.found = found;
}"""


async def measure(
    folder: Path, show: Callable[[str], None], progress: Callable[[str], None], *, seconds: float
) -> None:
    """Print both, with :data:`ORDERS` orders in the page and :data:`RATE` updates of them a second."""
    with running(nats.prepare(folder / "nats", free_port(), free_port()), folder) as server:
        async with streams_at(server.spec.address) as client, running_group() as group, running_browser() as browser:
            group.nats = client
            async with tab_at(browser, str(group.workers[0].url)) as tab:
                await tab.open("orders")
                (order,) = golden("order-1")[:1]
                await tab.page.evaluate(_FILL, [order, "page-", ORDERS])
                await tab.says(".note", f"{ORDERS:,} orders")
                await tab.page.evaluate(_WATCH)
                progress(f"warming up for {WARM_S:g} s")
                await _update(client, order, WARM_S)
                progress(f"{RATE:g} updates/s for {seconds:g} s")
                await tab.page.evaluate("begin()")
                said = await _update(client, order, seconds)
                # The last ones are shown by now, or soon.
                await eventually(lambda: tab.page.evaluate("at => at in found.shown", list(said)[-1]), "the last one")
                found = await tab.page.evaluate("found")
            show(_figures(browser.version, said, found))


async def _update(client: Client, order: dict[str, Any], seconds: float) -> dict[str, float]:
    """Say that one order after the other has changed, and return when each was said, by its ``updated_at``."""
    begin, said = time.monotonic(), {}
    for number in range(int(seconds * RATE)):
        await asyncio.sleep(max(0.0, begin + number / RATE - time.monotonic()))
        at, now = time_text(utc_now()), time.time()
        changed = {"order_id": f"page-{number * 13 % ORDERS}", "rev": order["rev"] + int(begin), "updated_at": at}
        said[at] = now
        await client.jetstream().publish("orders.filled.EURUSD", json.dumps(order | changed).encode())
    return said


def _figures(version: str, said: dict[str, float], found: dict[str, Any]) -> str:
    shown = found["shown"]
    delays = [shown[at] / 1000 - then for at, then in said.items() if at in shown]
    frames = [each / 1000 for each in found["frames"]]
    over = sum(each > 0.05 for each in frames)
    tasks = f"{len(found['tasks'])}, the longest {max(found['tasks'], default=0):.0f} ms"
    return (
        f"The page at 1280 × 800 in Chromium {version}, headless, on one worker of tests/web/group.py: HTTP, "
        "server-sent events and NATS are real, its rows are in memory, and the load comes from its own process. "
        f"{ORDERS:,} orders in the page, {RATE:g} updates/s; one clock for both ends.\n\n"
        + markdown(
            ("", "figures"),
            [
                ("publish on NATS → painted", percentiles(delays)),
                ("updates painted", f"{len(delays):,} of {len(said):,}"),
                ("from frame to frame", percentiles(frames)),
                ("frames over 50 ms", f"{over} of {len(frames)}"),
                ("tasks over 50 ms", tasks),
            ],
        )
    )
