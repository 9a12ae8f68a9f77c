"""The page on the real stack: it shows what the house and the broker say, and what is clicked there happens once."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from streamapp.local.own import OwnStack
from streamapp.local.process import RunningProcess
from streamapp.mt5 import constants as mt5
from streamapp.tokens import ROLES, TokensFile
from tests.e2e.conftest import FOUR_ACCOUNTS, LONG_LIVES, SHORT_SESSIONS, SHORT_WINDOW
from tests.e2e.desk import Desk, desk_at
from tests.e2e.test_exits import at_broker, filled, holds
from tests.kit.browser import running_browser
from tests.kit.page import IS_DRAWN, VIEWS, Tab, tab_at
from tests.kit.stacks import accounts_of, running_stack, second_worker_at
from tests.kit.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

ACCOUNTS = ("alpha", "epsilon", "gamma", "zeta")
LIMIT: dict[str, Any] = {"order_type": "limit", "price": "1.05"}
ROW = "tbody tr:not(.spacer)"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Any]:
    async with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def tokens_file(tmp_path_factory: pytest.TempPathFactory) -> TokensFile:
    return TokensFile(tmp_path_factory.mktemp("tokens") / "tokens")


@pytest.fixture(scope="module")
def secrets(tokens_file: TokensFile) -> dict[str, str]:
    return {role: tokens_file.add(f"anna-{role}", role, datetime.now(UTC)) for role in ROLES}


@pytest.fixture(scope="module")
def house(
    browser: Any, tmp_path_factory: pytest.TempPathFactory, tokens_file: TokensFile, secrets: dict[str, str]
) -> Iterator[OwnStack]:
    """The stack, which is not started where there is no browser."""
    web = f"[web]\ntokens_file = {json.dumps(str(tokens_file.path))}"
    settings = f"{web}\n{SHORT_SESSIONS}\n{SHORT_WINDOW}\n{LONG_LIVES}\n{FOUR_ACCOUNTS}"
    with running_stack(tmp_path_factory.mktemp("page"), settings) as stack:
        yield stack


@pytest_asyncio.fixture(loop_scope="module")
async def desk(house: OwnStack) -> AsyncIterator[Desk]:
    async with desk_at(house.settings) as desk:
        yield desk


@pytest_asyncio.fixture(loop_scope="module")
async def tab(browser: Any, house: OwnStack) -> AsyncIterator[Tab]:
    """A tab as wide as has every column, with the page of the first worker."""
    async with tab_at(browser, f"http://127.0.0.1:{house.settings.ports.trading()}/", width=1920) as tab:
        yield tab


@asynccontextmanager
async def flowing(desk: Desk) -> AsyncIterator[None]:
    """Let the netting accounts trade one order after the other meanwhile; none is open in the end."""
    is_over = False

    async def trade() -> None:
        for number in itertools.count():
            if is_over and number % 2 == 0:
                return
            for account in ("epsilon", "zeta"):
                await filled(desk, f"flow-{number}-{account}", account, "GBPUSD", side=("buy", "sell")[number % 2])

    task = asyncio.create_task(trade())
    try:
        yield
    finally:
        is_over = True
        await task


async def only(desk: Desk, tab: Tab, name: str) -> Any:
    """Have the page show one order alone, and return its row."""
    await tab.page.fill("input[type=search]", desk.signal_id(name))
    await tab.says(ROW, desk.signal_id(name))
    return tab.page.locator(ROW).filter(has_text=desk.signal_id(name))


async def test_every_view_shows_what_the_house_and_the_broker_say_while_orders_flow(desk: Desk, tab: Tab) -> None:
    await tab.open()
    async with flowing(desk):
        await filled(desk, "shown", "alpha", "EURUSD", strategy="breakout")
        order = await with_evidence(desk, "shown")
        row = await only(desk, tab, "shown")
        await row.filter(has_text="filled").wait_for()
        cells = await row.locator("td").all_text_contents()
        assert (Decimal(cells[6]), Decimal(cells[8])) == (Decimal("0.1"), Decimal(order["average_price"]))
        await row.get_by_role("button", name="EURUSD").click()
        await is_its_life(tab, order, (await desk.ledger("shown"))[1])
        await tab.page.keyboard.press("Escape")
        await tab.see("positions")
        row = tab.page.locator(ROW, has_text=str(order["position_id"]))
        await row.locator("td:nth-child(4)", has_text="▲ buy 0.1").wait_for()  # the broker's side
        assert "▲ buy 0.1" in await row.locator("td:nth-child(3)").text_content()
        await tab.see("accounts")
        for account in ACCOUNTS:
            await tab.says(f"article[aria-label={account}].open .terminal", "Terminal: ready; heard")
        balance = (await desk.view("/accounts/alpha"))["balance"]
        await tab.says("article[aria-label=alpha] dd", f"{Decimal(balance):,.2f} USD")
        await tab.see("plots")
        await are_drawn(desk, tab)
        await tab.see("attention")
        await tab.says("main .empty:visible", "Nothing wants a person now.")
        await tab.see("activity")
        await tab.says(ROW, "GBPUSD filled")
    await filled(desk, "last", "alpha", "EURUSD")
    _, deal = await desk.ledger("last")
    await tab.says(ROW, f"deal {deal['ticket']}")
    assert tab.failures == []


async def with_evidence(desk: Desk, name: str) -> dict[str, Any]:
    """Return an order once ClickHouse has all that there is beside it."""

    async def whole() -> dict[str, Any] | None:
        order = await desk.view(f"/orders/{desk.order_id(name)}?evidence=1")
        sent = any(line["function"] == "order_send" for line in order.get("log") or ())
        return order if sent and order.get("signals") and order.get("position") else None

    found: dict[str, Any] = await eventually(whole, f"the evidence of {name}")
    return found


async def is_its_life(tab: Tab, order: dict[str, Any], deal: dict[str, Any]) -> None:
    """See the order's evidence in its dialog, and the deal of the broker's ledger."""
    parts = {name: tab.page.locator(f'dialog [aria-label="{name}"] {ROW}') for name in ("Fills", "Facts")}
    log, signals = (tab.page.locator(f'dialog [aria-label="{name}"]') for name in ("Broker's log", "Signal as it came"))
    await log.get_by_text("order_send").wait_for()
    assert await parts["Fills"].locator("td:nth-child(2)").all_text_contents() == [str(deal["ticket"])]
    said = [fact["fact"] for fact in order["facts"]]
    assert await parts["Facts"].locator("td:nth-child(3)").all_text_contents() == ["Signal", *said]
    bid, ask = (Decimal(order["quote"][name]) for name in ("bid", "ask"))
    shown = await tab.page.locator("dialog dl div", has_text="Quote at sending").locator("dd").text_content()
    assert tuple(map(Decimal, shown.split(" / "))) == (bid, ask)
    functions = await log.locator("tbody td:nth-child(3)").all_text_contents()
    assert {line["function"] for line in order["log"]} <= set(functions)
    await signals.locator("summary").click()
    assert json.loads(await signals.locator("pre").text_content()) == json.loads(order["signals"][0]["payload"])


async def are_drawn(desk: Desk, tab: Tab) -> None:
    for plot, line in (("equity", "alpha"), ("latency", "signal to fill p50"), ("slippage-by-symbol", "mean")):

        async def is_stored(plot: str = plot) -> bool:
            return bool((await desk.view(f"/plots/{plot}")).get("x", {}).get("values"))

        await eventually(is_stored, f"something of {plot} in ClickHouse")
        await tab.page.select_option("form select", plot)
        await tab.says(".u-legend .u-label", line)
        assert await tab.page.evaluate(IS_DRAWN), plot


async def test_who_may_only_read_sees_no_button_that_acts_and_is_refused(
    desk: Desk, tab: Tab, secrets: dict[str, str]
) -> None:
    await filled(desk, "held", "alpha", "EURUSD")
    await desk.send("reader", "alpha", **LIMIT)
    await desk.works("reader")
    await tab.open()
    await tab.login(secrets["read"])
    await only(desk, tab, "reader")
    for view in VIEWS:
        await tab.see(view)
        assert await tab.command_buttons() == 0
    assert await tab.page.is_hidden("#kill")
    commands = {"account.flatten": {"account": "alpha"}, "order.cancel": {"order_id": desk.order_id("reader")}}
    for name, fields in commands.items():
        said = {"request_id": f"reader-{name}", "reason": "none", **fields}
        assert await tab.page.evaluate(GIVE, [name, said]) == [403, "role"]
    assert (await desk.view("/accounts/alpha"))["trading"] == "open"
    assert (await desk.works("reader"))["detail"] == "working"


GIVE = """async ([name, body]) => {
    const { session } = await import("./static/api.js");
    const headers = { "Content-Type": "application/json", "X-CSRF-Token": session.csrf };
    const answer = await fetch(`commands/${name}`, { method: "POST", headers, body: JSON.stringify(body) });
    return [answer.status, (await answer.json()).reason];
}"""
"""What the page's own code does for a button, and a reader has none."""


async def says_done(tab: Tab, what: str) -> None:
    await tab.says(".result[data-state=done]", what)


async def test_an_order_is_modified_and_cancelled_on_the_page_once(
    desk: Desk, tab: Tab, secrets: dict[str, str]
) -> None:
    await desk.send("waits", "alpha", **LIMIT)
    ticket = (await desk.works("waits"))["ticket"]
    await tab.open()
    await tab.login(secrets["trade"])
    row = await only(desk, tab, "waits")
    await tab.press("Modify buy 0.1 EURUSD")
    await tab.says("dialog .says", "buy 0.1 EURUSD at alpha keeps all that is left empty.")
    await tab.says("dialog label", "Price, now 1.05000")
    await tab.confirm(price="1.04", stop_loss="1.03", reason="lower")
    await says_done(tab, "Modify buy 0.1 EURUSD")
    await row.filter(has_text="1.04000").wait_for()
    await tab.press("Cancel buy 0.1 EURUSD")
    await tab.says("dialog .says", "What is left of buy 0.1 EURUSD at alpha is cancelled: 0.1 lots.")
    await tab.confirm(reason="not today")
    await says_done(tab, "Cancel buy 0.1 EURUSD")
    await row.filter(has_text="cancelled: user").wait_for()
    (changed,) = await desk.asked("alpha", action=mt5.TRADE_ACTION_MODIFY, order=ticket)
    assert (changed["price"], changed["sl"]) == (1.04, 1.03)
    assert len(await desk.asked("alpha", action=mt5.TRADE_ACTION_REMOVE, order=ticket)) == 1
    assert [line["kind"] for line in await desk.ledger("waits")] == ["order"]
    assert tab.failures == []


async def test_a_position_is_protected_and_closed_on_the_page_once(
    desk: Desk, tab: Tab, secrets: dict[str, str]
) -> None:
    opened = await filled(desk, "held-2", "gamma", "XAUUSD")
    position_id, level = opened["position_id"], str(int(Decimal(opened["average_price"]) * Decimal("0.9")))
    await tab.open("positions")
    await tab.login(secrets["trade"])
    row = tab.page.locator(ROW, has_text=str(position_id))
    await tab.press("Stop loss and take profit of buy 0.1 XAUUSD")
    await tab.says("dialog .says", f"buy 0.1 XAUUSD (position {position_id}) at gamma.")
    await tab.confirm(stop_loss=level, reason="never without")
    await says_done(tab, "Levels of buy 0.1 XAUUSD")
    await row.filter(has_text=level).wait_for()
    (held,) = await at_broker(desk, "gamma", "XAUUSD")
    assert Decimal(held["stop_loss"]) == Decimal(level)
    for lots, asked, left in (("0.1", "0.04", ("0.06",)), ("0.06", "", ())):
        await tab.press(f"Close buy {lots} XAUUSD")
        await tab.says("dialog .says", f"closes buy {lots} XAUUSD (position {position_id}) at gamma.")
        await tab.confirm(volume=asked, reason="by hand")
        await says_done(tab, f"Close {asked or lots} of buy {lots} XAUUSD")
        await holds(desk, "gamma", "XAUUSD", *left)
    await row.wait_for(state="detached")
    assert len(await desk.asked("gamma", action=mt5.TRADE_ACTION_SLTP, position=position_id)) == 1
    expected = [("in", Decimal("0.1")), ("out", Decimal("0.04")), ("out", Decimal("0.06"))]
    assert await desk.deals(position_id) == expected
    assert tab.failures == []


async def refused(desk: Desk, name: str, account: str) -> dict[str, Any]:
    """Return the refusal of a signal, of which the broker has nothing."""
    await desk.send(name, account)
    found: dict[str, Any] = await eventually(lambda: desk.refusals.get(desk.signal_id(name)), f"{name} refused")
    assert await desk.ledger(name) == []
    return found


async def do(tab: Tab, label: str, account: str, says: tuple[str, ...], reason: str) -> None:
    """Press an account's button, confirm what it says, and wait until it is done."""
    await tab.press(f"{label} {account}")
    for line in says:
        await tab.says("dialog .says", line)
    await tab.confirm(reason=reason)
    await says_done(tab, f"{label} {account}")


async def test_an_account_is_cleared_reduced_halted_resumed_and_flattened_on_the_page(
    desk: Desk, tab: Tab, secrets: dict[str, str]
) -> None:
    position_id = (await filled(desk, "z-1", "zeta", "EURUSD"))["position_id"]
    await desk.send("z-first", "zeta", **LIMIT)
    first = (await desk.works("z-first"))["ticket"]
    await tab.open("accounts")
    await tab.login(secrets["admin"])
    await knows(tab, "zeta", orders=1, positions=1)
    gone = "All that works at zeta is cancelled: 1 open order (0.1 lots).", "1 position of ours (0.1 lots) stay open."
    await do(tab, "Cancel orders", "zeta", gone, "not these")
    await desk.ended("z-first", "cancelled", "user")
    assert len(await desk.asked("zeta", action=mt5.TRADE_ACTION_REMOVE, order=first)) == 1
    await desk.send("z-waits", "zeta", **LIMIT)
    ticket = (await desk.works("z-waits"))["ticket"]
    what = "1 open order (0.1 lots)", "1 position of ours (0.1 lots)"
    await knows(tab, "zeta", orders=1, positions=1)
    stays = " and ".join(what) + " stay as they are."
    await do(tab, "Only reduce", "zeta", ("what closes or reduces still passes", stays), "slower")
    await tab.says("article.reducing[aria-label=zeta]", "slower (by anna-admin")
    assert "by anna-admin: slower" in (await refused(desk, "z-reducing", "zeta"))["detail"]
    await do(tab, "Halt", "zeta", ("zeta opens nothing any more until somebody resumes it.", stays), "stop")
    await tab.says("article.halted[aria-label=zeta]", "stop (by anna-admin")
    assert "by anna-admin: stop" in (await refused(desk, "z-halted", "zeta"))["detail"]
    await do(tab, "Resume", "zeta", ("zeta opens again",), "looked at")
    await tab.says("article.open[aria-label=zeta]", "● trading")
    await holds(desk, "zeta", "EURUSD", "0.10")
    says = f"zeta is halted. Cancelled: {what[0]}. Closed at the market: {what[1]}."
    await do(tab, "Flatten", "zeta", (says,), "the end")
    await desk.ended("z-waits", "cancelled", "user")
    assert await at_broker(desk, "zeta", "EURUSD") == []
    assert await desk.deals(position_id) == [("in", Decimal("0.1")), ("out", Decimal("0.1"))]
    assert len(await desk.asked("zeta", action=mt5.TRADE_ACTION_REMOVE, order=ticket)) == 1
    await do(tab, "Resume", "zeta", (), "a new day")
    assert tab.failures == []


KNOWS = """async ([account, orders, positions]) => {
    const { known } = await import("./static/live.js");
    const theirs = (row) => !row.foreign && (account === null || row.account === account);
    const many = (rows) => [...rows].filter(theirs).length;
    return many(known.open.values()) === orders && many(known.positions) === positions;
}"""


async def knows(tab: Tab, account: str | None, *, orders: int, positions: int) -> None:
    """Wait until the page has heard of so many of an account, or of all: its confirmations count what it knows."""
    await eventually(lambda: tab.page.evaluate(KNOWS, [account, orders, positions]), f"what {account} has")


async def test_the_kill_switch_flattens_every_account_once(desk: Desk, tab: Tab, secrets: dict[str, str]) -> None:
    for account in ("gamma", "zeta"):
        await filled(desk, f"k-{account}", account, "USDJPY")
        await desk.send(f"k-waits-{account}", account, **LIMIT)
        await desk.works(f"k-waits-{account}")
    held = [each for each in (await desk.view("/positions"))["positions"] if not each["foreign"]]
    orders = (await desk.view("/orders?status=submitted"))["orders"]
    await tab.open("activity")
    await tab.login(secrets["admin"])
    await knows(tab, None, orders=len(orders), positions=len(held))
    await tab.page.click("#kill")
    await tab.says("dialog .says", f"4 accounts open nothing any more: {', '.join(ACCOUNTS)}.")
    await tab.says("dialog .says", f"{len(orders)} open orders ({lots(orders)} lots) and {len(held)} positions of ours")
    await tab.says("dialog .says", f"({lots(held)} lots) stay as they are, unless you flatten.")
    await tab.page.check("dialog input[name=flatten]")
    await tab.confirm(reason="everything out")
    for account in ACCOUNTS:
        await says_done(tab, f"Flatten {account}")
        await eventually(lambda: is_flat(desk, account), f"{account} flat")  # noqa: B023
        assert "everything out" in (await refused(desk, f"k-refused-{account}", account))["detail"]
    for each in held:
        closings = [volume for entry, volume in await desk.deals(each["position_id"]) if entry == "out"]
        assert closings == [Decimal(each["volume"])]
    await tab.see("accounts")
    for account in ACCOUNTS:
        await tab.says(f"article.halted[aria-label={account}]", "everything out (by anna-admin")
        await do(tab, "Resume", account, (), "over")
    assert tab.failures == []


def lots(rows: list[dict[str, Any]]) -> str:
    total = sum((Decimal(row["volume"]) for row in rows), Decimal(0))
    return f"{total.normalize():f}"


async def is_flat(desk: Desk, account: str) -> bool:
    shown = (await desk.view(f"/snapshots?account={account}"))["snapshots"][0]
    return not (shown["positions"] or shown["orders"] or await at_broker(desk, account, "USDJPY"))


@pytest.fixture
def second_worker(house: OwnStack, tmp_path: Path) -> Iterator[RunningProcess]:
    with second_worker_at(house, tmp_path) as worker:
        yield worker


async def test_the_page_of_one_worker_shows_the_orders_of_both_and_outlives_the_end_of_each(
    house: OwnStack, second_worker: RunningProcess, desk: Desk, tab: Tab, secrets: dict[str, str]
) -> None:
    ports = house.settings.ports
    shares = await eventually(lambda: shared(ports.trading(1), ports.trading(2)), "accounts at either worker")
    names = {account: f"both-{account}" for account in (min(share) for share in shares)}
    for account, name in names.items():
        await desk.send(name, account, **LIMIT)
        await desk.works(name)
    await tab.open()
    await tab.login(secrets["trade"])
    assert await tab.page.locator("#warnings li").count() == 0
    for name in names.values():
        await only(desk, tab, name)
    second_worker.kill()
    await tab.says("#warnings li", f"No answer from http://127.0.0.1:{ports.trading(2)}")
    await tab.page.click("#kill")  # a command needs no worker to be given: it waits for whoever takes over
    await tab.says("dialog .says", f"4 accounts open nothing any more: {', '.join(ACCOUNTS)}.")
    await tab.page.keyboard.press("Escape")
    await filled(desk, "taken-over", min(shares[1]), "EURUSD")
    # Several at a time: who has taken over recovers the rows first, and says so of each view.
    await tab.page.locator("#warnings li").first.wait_for(state="detached")
    for name in (*names.values(), "taken-over"):
        await only(desk, tab, name)
    await the_server_of_the_page_is_killed(house, desk, tab, min(shares[0]))
    assert (await desk.health())["invariants"]["one_order_per_intent"]


async def shared(*ports: int) -> list[set[str]] | None:
    with contextlib.suppress(OSError):
        shares = [await accounts_of(port) for port in ports]
        return shares if all(shares) and set.union(*shares) == set(ACCOUNTS) else None
    return None


async def the_server_of_the_page_is_killed(house: OwnStack, desk: Desk, tab: Tab, account: str) -> None:
    """Kill it; it is back, and an order was made, before the page reaches it again."""
    await tab.page.evaluate("window.isTheSame = true")
    await tab.page.fill("input[type=search]", "")
    os.kill(house.pid_of("trading"), signal.SIGKILL)
    await tab.says("#link.lost", "Connection lost")
    await tab.page.context.set_offline(True)
    await filled(desk, "missed", account, "USDCHF")
    await tab.page.context.set_offline(False)
    await tab.page.wait_for_selector("#link.live")
    await tab.says(ROW, desk.signal_id("missed"))
    assert await tab.page.evaluate("window.isTheSame"), "it was not loaded again"
    # Who does not come back with the id of the last event is told nothing that it missed.
    assert await tab.page.evaluate("import('./static/live.js').then(({ link }) => link.missed)") > 0
