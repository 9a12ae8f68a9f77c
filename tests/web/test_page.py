"""The page in a real browser, on real HTTP and a real NATS, over workers whose rows the tests write."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from streamapp.clock import utc_now
from streamapp.domain.day import TradingDay
from streamapp.domain.identifiers import partition_of
from streamapp.domain.vocabulary import time_text
from streamapp.messages.account import AccountMessage
from streamapp.messages.breaks import BreakMessage
from streamapp.tokens import ROLES, TokensFile
from tables.accounts import AccountRow, StandingAlarm, account_key
from tests.kit.browser import running_browser
from tests.kit.command_answers import AnsweringDesk, streams_at
from tests.kit.page import IS_DRAWN, VIEWS, Tab, tab_at
from tests.kit.waiting import eventually
from tests.messages.golden import golden
from tests.web.group import ACCOUNTS, PARTITIONS, Group, ids, order_row, running_group
from tests.web.test_views import snapshot_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOSTILE = "<img src=x onerror=document.title='owned'>"
SIZES = [(360, 740), (1280, 800), (1920, 1000)]
SHOTS = os.environ.get("SCREENSHOTS")
"""A folder, for those of docs/web.md."""


@dataclass
class Desk:
    """The house, and the tab that looks at it."""

    group: Group
    tab: Tab
    secrets: dict[str, str]
    answering: AnsweringDesk

    @property
    def url(self) -> str:
        return self.tab.url

    @property
    def page(self) -> Any:
        return self.tab.page

    async def open(self, view: str = "", url: str | None = None) -> None:
        await self.tab.open(view, url)

    async def login(self, role: str = "trade") -> None:
        await self.tab.login(self.secrets[role])

    async def says(self, selector: str, text: str) -> None:
        await self.tab.says(selector, text)

    async def say(self, subject: str, message: dict[str, Any]) -> None:
        await self.group.nats.jetstream().publish(subject, json.dumps(message).encode())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Any]:
    async with running_browser() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def desk(nats_of_this_module: str, tmp_path: Path, browser: Any) -> AsyncIterator[Desk]:
    file = TokensFile(tmp_path / "tokens")
    secrets: dict[str, str] = {role: file.add(f"anna-{role}", role, utc_now()) for role in ROLES}
    async with streams_at(nats_of_this_module) as client, running_group(tokens_file=file.path) as group:
        group.nats = client
        await furnish(group)
        answering = await AnsweringDesk(client).start()
        async with tab_at(browser, str(group.workers[0].url)) as tab:
            yield Desk(group, tab, secrets, answering)


async def furnish(group: Group) -> None:
    """Two accounts with money, orders that work and are over, a position that differs, and a foreign one."""
    now = utc_now()
    for order_id, account in ids(ACCOUNTS[:2], 4):
        await group.put_order(order_row(order_id, account))
    for number in (1, 9):
        await group.put_position(ACCOUNTS[0], number, "buy")
    await group.put_position(ACCOUNTS[1], 1, "buy")
    see_accounts(group)
    group.rows.plots = plots_of(now)
    found = BreakMessage.model_validate(golden("break-1")[0])
    changes = {"account": ACCOUNTS[0], "position_id": 1, "disposition": "open", "settled_by": None, "reason": None}
    group.put_break(found.model_copy(update=changes))
    text = "order bf555c15-09fd-87d4-a976-ee5f162452cb: filled 0.2 of 0.1"
    alarm = StandingAlarm(name="overfilled", text=text, order_id=ids(ACCOUNTS, 1)[0][0], first_at=now, at=now)
    await group.put_alarms(ACCOUNTS[0], alarm)
    money = dict.fromkeys(("balance", "equity", "highest"), Decimal(100_000))
    day = TradingDay(on=now.date(), ends_at=now + timedelta(hours=5), orders=14, begun_at=now, **money)
    for account in ACCOUNTS[:2]:
        row = AccountRow(account=account, day=day)
        store = group.owner_of(account).store
        await store.commit(partition_of(account, PARTITIONS), {account_key(account): row.encode()})
    statuses = ("filled", "filled", "rejected", "filled", "cancelled", "filled", "failed")
    for number in range(14):
        at = time_text(now - timedelta(seconds=7 * number))
        said = {"status": statuses[number % 7], "side": ("buy", "sell")[number % 2], "updated_at": at}
        closed = order(f"bf555c15-49a1-8495-86ef-0000000000{number:02}", account=ACCOUNTS[number % 2], **said)
        group.rows.orders[closed["order_id"]] = closed


def plots_of(now: datetime) -> dict[str, dict[str, Any]]:
    """What ClickHouse has of each plot, as the view answers it."""
    moments = [time_text(now - timedelta(seconds=60 * (60 - number))) for number in range(60)]
    shares = [f"{step} {share}" for step in ("signal to created", "signal to fill") for share in ("p50", "p99")]
    words = ["EURUSD", HOSTILE, "XAUUSD"]

    def answer(plot: str, x: str, values: list[str], unit: str, series: dict[str, list[Any]]) -> dict[str, Any]:
        shown = [{"name": name, "unit": unit, "values": numbers} for name, numbers in series.items()]
        return {"plot": plot, "x": {"name": x, "values": values}, "series": shown, "left_out": 0}

    def wave(base: float, step: float, of: int = 1) -> list[Any]:
        return [base + step * ((number * 7) % 13) if number % of == 0 else None for number in range(60)]

    quotes = {"bid": wave(1.085, 1e-5), "ask": wave(1.0852, 1e-5)}
    fills = {"bought": wave(1.0851, 1e-5, 6), "sold": wave(1.0851, 1e-5, 9)}
    bps: dict[str, list[Any]] = {"mean against the expected price": [0.2, -0.1, 0.4], "orders": [12, 3, 7]}
    found = (
        answer(
            "equity", "time", moments, "USD", {name: wave(100_000 + n, 12.5) for n, name in enumerate(ACCOUNTS[:2])}
        ),
        answer("fills", "time", moments, "", quotes | fills),
        answer("latency", "time", moments, "ms", {share: wave(2 + n, 0.7) for n, share in enumerate(shares)}),
        answer("slippage-by-symbol", "symbol", words, "bps", bps),
        answer("slippage-by-strategy", "strategy", ["breakout", "(none)", HOSTILE], "bps", bps),
        answer("rejects", "reason", ["stale", "NO_MONEY", HOSTILE], "", {"signals refused": [4, 0, 1]}),
    )
    return {each["plot"]: each for each in found}


def see_accounts(group: Group) -> None:
    """Let the terminals of both accounts be heard now; nothing has changed there for an hour."""
    now, state = utc_now(), AccountMessage.model_validate(golden("account-1")[0])
    for account in ACCOUNTS[:2]:
        shown = state.model_copy(
            update={"account": account, "at": now - timedelta(hours=1), "equity": Decimal("99950.20")}
        )
        group.owner_of(account).accounts[account] = shown
        group.put_snapshot(snapshot_of(account).model_copy(update={"at": now}))


def order(order_id: str, **changes: Any) -> dict[str, Any]:
    """Return an order/1 of now."""
    (found,) = golden("order-1")[:1]
    return {**found, "order_id": order_id, "account": ACCOUNTS[0], "updated_at": time_text(utc_now()), **changes}


async def test_who_only_reads_sees_every_view_and_no_button_that_acts(desk: Desk) -> None:
    await desk.open()
    await desk.says("tbody tr", "filled")
    for view in VIEWS:
        await desk.tab.see(view)
        assert await desk.tab.command_buttons() == 0
    assert await desk.page.is_hidden("#kill")
    await desk.tab.see("positions")
    await desk.says("tr.marked", "≠ break: volume")
    await desk.says("tr.foreign", "not ours")
    await desk.tab.see("attention")
    await desk.says(".items li.break", "ours buy 0.1 EURUSD")
    assert await desk.page.locator(".items li.account").count() == 0


async def test_texts_of_others_are_texts_and_nothing_else(desk: Desk) -> None:
    (order_id, account), *_ = ids(ACCOUNTS[:2], 1)
    await desk.group.put_order(order_row(f"{order_id}-x", account, symbol=HOSTILE))
    await desk.open()
    await desk.says("tbody tr", HOSTILE)
    await desk.say("broker.error.x", {**golden("error-1")[0], "kind": "unprotected", "message": HOSTILE})
    desk.group.rows.orders["hostile"] = order("hostile", symbol=HOSTILE, strategy=HOSTILE, reason=HOSTILE)
    await desk.say("orders.filled.x", desk.group.rows.orders["hostile"])
    await desk.say("broker.fill.x", {"schema": "unheard/1", "x": HOSTILE})
    for view in ("attention", "activity"):
        await desk.tab.see(view)
        await desk.says("main", HOSTILE)
    await desk.tab.see("orders")
    await desk.page.get_by_role("button", name=HOSTILE).first.click()
    await desk.says("dialog", HOSTILE)
    assert await desk.page.locator("img").count() == 0
    assert "owned" not in await desk.page.title()


async def test_what_is_said_is_on_the_page_at_once_and_an_order_opens_to_its_life(desk: Desk) -> None:
    await desk.open()
    (told,) = golden("views/order")
    desk.group.rows.orders[told["order_id"]] = told
    desk.group.rows.told_facts = told["facts"]
    (line,), (decision,) = golden("log-1")[:1], golden("signal-1")[:1]
    desk.group.rows.log = [{**line, "order_id": told["order_id"], "request": {"comment": HOSTILE}}]
    whose = {"signal_id": told["signal_id"], "account": told["account"], "payload": HOSTILE}
    desk.group.rows.signals = [{**decision, **whose}]
    await desk.say("orders.filled.EURUSD", order(told["order_id"], symbol="GBPUSD"))
    await desk.page.get_by_role("button", name="GBPUSD").click()
    await desk.says("dialog dd", "1.08510 / 1.08514")
    for fact in told["facts"]:
        await desk.says("dialog tbody tr", fact["fact"])
    for what in (line["function"], "letters, place"):  # the broker's log, and the signal as it came
        await desk.says("dialog tbody tr", what)
    await desk.page.locator("dialog summary").filter(has_text="letters, place").click()
    await desk.says("dialog details[open] pre", HOSTILE)
    await desk.page.keyboard.press("Escape")
    await desk.page.wait_for_selector("dialog", state="detached")
    await desk.page.fill("input[type=search]", told["order_id"])
    await eventually(lambda: rows_of(desk, 1))


async def rows_of(desk: Desk, many: int) -> bool:
    return bool(await desk.page.locator("tbody tr:not(.spacer)").count() == many)


async def test_plots_are_drawn_and_saved_and_can_be_read_without_eyes(desk: Desk, tmp_path: Path) -> None:
    await desk.open("plots")
    page = desk.page
    for name in ("equity", "latency", "slippage-by-symbol", "slippage-by-strategy", "rejects"):
        await page.select_option("form select", name)
        series = desk.group.rows.plots[name]["series"]
        await desk.says(".u-legend .u-label", series[0]["name"])
        assert await page.evaluate(IS_DRAWN), name
        await page.screenshot(path=(Path(SHOTS) if SHOTS else tmp_path) / f"plot-{name}.png")
        saved = await downloaded(page, "Save as CSV", tmp_path)
        assert len(saved.decode().splitlines()) == 1 + len(series[0]["values"])
        assert (await downloaded(page, "Save as PNG", tmp_path)).startswith(b"\x89PNG")
    await page.select_option("form select", "fills")
    await desk.says(".note", "Choose a symbol")
    await page.locator("input[list=plots-symbols]").fill("EURUSD")
    await page.locator("input[list=plots-symbols]").press("Enter")
    await desk.says(".u-legend .u-label", "bought")
    await page.screenshot(path=(Path(SHOTS) if SHOTS else tmp_path) / "plot-fills.png")
    await page.get_by_text("As a table").click()
    await eventually(lambda: is_tabled(desk, 60))
    assert await page.locator("img").count() == 0
    desk.group.rows.away = True
    await page.locator("input[list=plots-accounts]").fill(ACCOUNTS[0])
    await page.locator("input[list=plots-accounts]").press("Enter")
    await desk.says(".note", "clickhouse")
    assert await page.locator(".plot canvas").count() == 0


async def downloaded(page: Any, button: str, folder: Path) -> bytes:
    async with page.expect_download() as found:
        await page.get_by_role("button", name=button).click()
    file = folder / "saved"
    await (await found.value).save_as(file)
    return file.read_bytes()


async def is_tabled(desk: Desk, many: int) -> bool:
    return bool(await desk.page.locator(".twin tbody tr").count() == many)


async def test_a_trader_cancels_with_a_reason_and_sees_what_becomes_of_it(desk: Desk) -> None:
    await desk.open()
    await desk.login()
    await desk.page.get_by_role("button", name="Cancel buy").first.click()
    await desk.says("dialog .says", "0.1 lots")
    await desk.tab.confirm()  # without a reason
    assert await desk.page.locator("dialog").count() == 1
    await desk.tab.confirm(reason="news")
    await desk.page.wait_for_selector(".result[data-state=done]")
    (subject, command, _) = desk.answering.heard[-1]
    assert subject.startswith("commands.order.cancel")
    assert (command.reason, command.issued_by) == ("news", "anna-trade")


async def test_what_the_desk_refuses_is_shown_with_its_reason(desk: Desk) -> None:
    desk.answering.results = ({"state": "refused", "why": "foreign_position", "detail": "nobody's"},)
    await desk.open("positions")
    await desk.login()
    await desk.page.get_by_role("button", name="Close buy").first.click()
    await desk.tab.confirm(reason="too much", volume="a lot")
    await desk.says("dialog .error", "volume")  # the worker refuses what can't be meant, and the dialog stays
    await desk.tab.confirm(volume="0.05")
    await desk.says(".result[data-state=refused]", "nobody's")
    assert desk.answering.heard[-1][1].values.volume == Decimal("0.05")


async def test_the_kill_switch_halts_every_account_from_any_view(desk: Desk) -> None:
    await desk.open("activity")
    await desk.login()
    await desk.page.click("#kill")
    await desk.says("dialog .says", f"2 accounts open nothing any more: {ACCOUNTS[0]}, {ACCOUNTS[1]}")
    await desk.tab.confirm()
    await eventually(lambda: heard(desk, "commands.account.halt"))
    await eventually(lambda: results(desk, 2))


async def heard(desk: Desk, name: str) -> bool:
    return {command.account for subject, command, _ in desk.answering.heard if subject.startswith(name)} == {
        *ACCOUNTS[:2]
    }


async def results(desk: Desk, many: int) -> bool:
    return bool(await desk.page.locator(".result[data-state=done]").count() == many)


async def test_an_admin_alone_is_offered_to_resume(desk: Desk) -> None:
    account = desk.group.owner_of(ACCOUNTS[0]).accounts[ACCOUNTS[0]]
    halted = account.model_copy(update={"trading": "halted", "trading_cause": "a test"})
    desk.group.owner_of(ACCOUNTS[0]).accounts[ACCOUNTS[0]] = halted
    await desk.open("accounts")
    for role, many in (("trade", 0), ("admin", 1)):
        await desk.login(role)
        await desk.says("article.halted", "a test")
        assert await desk.page.get_by_role("button", name=f"Resume {ACCOUNTS[0]}").count() == many
        await desk.page.click("#logout")
        await desk.page.wait_for_selector("#login:visible")


@pytest.mark.parametrize("of", ["mouse", "space"])
async def test_a_press_counts_though_what_is_shown_there_changes_meanwhile(desk: Desk, of: str) -> None:
    device, key = (desk.page.mouse, ()) if of == "mouse" else (desk.page.keyboard, (" ",))
    accounts = desk.group.owner_of(ACCOUNTS[0]).accounts
    await desk.open("accounts")
    await desk.login()
    button = desk.page.get_by_role("button", name=f"Halt {ACCOUNTS[0]}")
    await button.hover()
    await button.focus()
    await device.down(*key)
    accounts[ACCOUNTS[0]] = accounts[ACCOUNTS[0]].model_copy(update={"equity": Decimal(77_777)})
    await desk.page.evaluate(HEAR, ACCOUNTS[0])
    await device.up(*key)
    await desk.says("dialog .says", f"{ACCOUNTS[0]} opens nothing any more")
    await desk.says(f"article[aria-label='{ACCOUNTS[0]}']", "77,777.00")


HEAR = """async (account) => {
    const { changed, known } = await import("./static/live.js");
    known.accounts.set(account, { ...known.accounts.get(account), equity: "77777" });
    changed("accounts");
    for (let frame = 0; frame < 3; frame++) await new Promise(requestAnimationFrame);
}"""
"""What the page does when it hears of an account's money, and the frames in which it would be drawn."""


async def test_a_lost_connection_is_said_and_what_was_missed_is_shown_after_it(desk: Desk) -> None:
    await desk.open()
    nats = desk.group.nats
    desk.group.nats = None
    await desk.group.workers[0].hub.close()
    await desk.says("#link.lost", "Connection lost")
    await nats.jetstream().publish("orders.filled.USDJPY", json.dumps(order("missed", symbol="USDJPY")).encode())
    desk.group.nats = nats
    await desk.page.wait_for_selector("#link.live")
    await desk.says("tbody tr", "USDJPY")


async def test_a_worker_that_does_not_answer_is_named(desk: Desk) -> None:
    await desk.open()
    gone = desk.group.workers[1]
    await desk.group.stop(gone)
    await desk.says("#warnings li", f"No answer from {gone.url}")


async def test_a_clock_that_is_off_is_said(desk: Desk) -> None:
    await desk.page.clock.set_system_time(datetime(2030, 1, 1, tzinfo=UTC))
    await desk.open()
    await desk.says("#warnings li", "ahead of the worker")


async def test_ten_thousand_orders_are_a_few_rows_of_the_document(desk: Desk) -> None:
    await desk.open()
    add = """async (order) => {
        const live = await import("./static/live.js");
        for (let n = 0; n < 10000; n++) live.takeOrder({...order, order_id: `many-${n}`});
        live.changed("orders");
    }"""
    await desk.page.evaluate(add, order("many"))
    await desk.says(".note", "10,0")
    assert await desk.page.locator("tbody tr").count() < 100
    await desk.page.locator(".scroll").first.evaluate("element => element.scrollTop = element.scrollHeight")
    await desk.page.wait_for_selector("tr[aria-rowindex='10019']")


@asynccontextmanager
async def proxy_at(target: str, prefix: str) -> AsyncIterator[str]:
    """A reverse proxy as a desk would have one: at a sub-path, and speaking for everybody behind it."""
    async with aiohttp.ClientSession(auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()) as session:

        async def pass_on(request: web.Request) -> web.StreamResponse:
            url = target + request.raw_path.removeprefix(prefix).lstrip("/")
            headers = {name: value for name, value in request.headers.items() if name != "Host"}
            async with session.request(
                request.method, url, headers=headers, data=await request.read() or None, allow_redirects=False
            ) as answer:
                kept = {"Content-Type", "Set-Cookie", "Content-Security-Policy"}
                response = web.StreamResponse(status=answer.status)
                for name, value in answer.headers.items():
                    if name in kept:
                        response.headers.add(name, value)
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                return response

        app = web.Application()
        app.router.add_route("*", prefix + "{tail:.*}", pass_on)
        server = TestServer(app)
        await server.start_server()
        try:
            yield str(server.make_url(prefix))
        finally:
            await server.close()


async def test_behind_a_proxy_at_a_sub_path_all_of_it_works(desk: Desk) -> None:
    async with proxy_at(desk.url, "/desk/") as url:
        await desk.open(url=url)
        await desk.login()
        (cookie,) = await desk.page.context.cookies()
        assert (cookie["path"], cookie["httpOnly"], cookie["sameSite"]) == ("/desk", True, "Strict")
        assert "streamapp_" not in desk.page.url
        await desk.page.get_by_role("button", name="Cancel buy").first.click()
        await desk.tab.confirm(reason="news")
        await desk.page.wait_for_selector(".result[data-state=done]")
        await desk.page.goto("about:blank")


async def test_without_a_mouse_one_comes_everywhere_and_back(desk: Desk) -> None:
    await desk.open()
    await desk.says("tbody tr", "filled")
    await desk.page.keyboard.press("Tab")
    assert await desk.page.evaluate("document.activeElement.className") == "skip"
    await desk.page.locator("tbody button.link").first.focus()
    await desk.page.keyboard.press("Enter")
    await desk.page.wait_for_selector("dialog[open]")
    assert await desk.page.evaluate("document.activeElement.closest('dialog') !== null")
    await desk.page.keyboard.press("Escape")
    await desk.page.wait_for_selector("dialog", state="detached")
    assert await desk.page.evaluate("document.activeElement.className") == "link"


async def test_every_view_fits_every_screen_and_has_no_serious_fault_of_access(desk: Desk, tmp_path: Path) -> None:
    axe: Any = pytest.importorskip("axe_playwright_python.async_playwright", reason="expected axe-playwright-python")
    await desk.open()
    await desk.login("admin")
    folder = Path(SHOTS) if SHOTS else tmp_path
    for width, height in SIZES:
        await desk.page.set_viewport_size({"width": width, "height": height})
        for scheme in ("light", "dark"):
            await desk.page.emulate_media(color_scheme=scheme)
            for view in VIEWS:
                see_accounts(desk.group)
                await desk.tab.see(view)
                await desk.page.screenshot(path=folder / f"page-{view}-{width}-{scheme}.png")
                assert await desk.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (view, width)
                if width == 1280 and (scheme == "light" or view in {"orders", "accounts"}):
                    found = (await axe.Axe().run(desk.page)).response["violations"]
                    serious = [each["id"] for each in found if each["impact"] in {"serious", "critical"}]
                    assert serious == [], (view, scheme, [each["nodes"][0]["html"] for each in found])
