"""``streamapp account`` as people run it, on a real terminal process, a real market and NATS."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from streamapp.commands.account.asking import AskedTerminal
from streamapp.commands.account.reading import whole
from streamapp.domain.identifiers import magic_of
from streamapp.local.ports import free_port
from streamapp.messages.reading import ListRequest, SymbolsReply
from streamapp.settings import settings_from
from streamapp.terminal.journal.database import Journal, journal_path
from tests.commands.running import Done, run_here
from tests.kit.waiting import PATIENCE_S, eventually
from tests.terminal.asking import Desk
from tests.terminal.conftest import TerminalProcess, connected, running_market

pytestmark = pytest.mark.asyncio(loop_scope="module")
FAR_BELOW: dict[str, Any] = {"order_type": "limit", "price": Decimal("0.90000")}


async def streamapp(*arguments: str | int, **environment: str) -> Done:
    """Run a command in a process of its own."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "streamapp.cli", "account", *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    return Done(done.returncode, done.stdout, done.stderr)


class House(Desk):
    """A terminal, its market, and the person at the command line."""

    async def run(self, command: str, *arguments: str | int, typed: str = "") -> Done:
        """Run a command of this account."""
        line = ("account", command, self.terminal.account, *arguments)
        return await run_here(*line, typed=typed, **self.terminal.environment)

    def ledger(self, kind: str = "deal") -> list[dict[str, Any]]:
        """Return what truly happened at the broker."""
        return self.terminal.market.ledger(kind)


@asynccontextmanager
async def living(folder: Path, nats_url: str, *, halted: str = "") -> AsyncIterator[House]:
    """A terminal that is ready, for as long as the block; ``halted``: so its earlier life had left it."""
    account = f"c{folder.name.encode().hex()[-20:]}{os.getpid()}"
    if halted:
        (folder / "terminal").mkdir()
        journal = Journal(journal_path(folder / "terminal", account), account)
        journal.book.halt(halted)
        journal.close()
    with running_market(folder) as market:
        async with connected(nats_url) as client:
            terminal = TerminalProcess(folder, nats_url, market, client, account)
            await terminal.listen()
            house = House(terminal)
            try:
                await house.open()
                yield house
            finally:
                terminal.end()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory, nats_url: str) -> AsyncIterator[House]:
    async with living(tmp_path_factory.mktemp("account"), nats_url) as house:
        yield house


async def test_a_position_is_shown_protected_closed_in_part_once_and_closed(house: House) -> None:
    position = (await house.position("s-1", volume=Decimal("0.3"))).position_id
    shown = await house.run("show")
    assert (shown.code, shown.said) == (0, "")
    for line in (
        r"terminal +ready",
        rf"epoch +{house.epoch}",
        r"mode +hedging",
        r"balance +\d+\.?\d* USD",
        r"halted +no",
    ):
        assert re.search(line, shown.out), shown.out
    listed = await house.run("positions", "--symbol", "EURUSD")
    assert str(position) in listed.out
    assert "buy" in listed.out
    assert "1 position of" in listed.out

    protected = await house.run("protect", position, "--stop-loss", "0.95000")
    assert (protected.code, protected.out[:4]) == (0, "done"), protected
    (row,) = (await house.run("positions", "--json")).json["content"]
    assert (row["position_id"], Decimal(row["stop_loss"]), row["volume"]) == (position, Decimal("0.95"), "0.3")

    part = await house.run("close", position, "--volume", "0.10", "--json")
    assert (part.code, part.json["outcome"], part.json["row"]["reason"]) == (0, "recorded", "accepted"), part
    again = await house.run("close", position, "--volume", "0.10", *part.again)
    assert again.code == 0, again
    other = await house.run("close", position, "--volume", "0.20", *part.again)
    assert (other.code, other.out[:8]) == (1, "conflict"), other
    unsafe = await house.run("close", position, "--volume", "0.10", "--request-id", part.again[1])
    assert (unsafe.code, "--epoch" in unsafe.said) == (2, True)

    assert (await house.run("close", position)).code == 0
    assert [(deal["entry"], deal["volume"]) for deal in house.ledger()] == [
        ("in", "0.3"),
        ("out", "0.1"),
        ("out", "0.2"),
    ]
    assert "0 positions" in (await house.run("positions")).out


async def test_an_order_gets_new_values_by_its_ticket_and_is_cancelled_by_its_id(house: House) -> None:
    order = await house.submit("s-2", **FAR_BELOW)
    await eventually(house.orders)
    (row,) = (await house.run("orders", "--json")).json["content"]
    assert row["order_id"] == order.order_id
    nothing = await house.run("modify", "--ticket", row["ticket"])
    assert (nothing.code, "--price, --stop-limit-price" in nothing.said) == (2, True)
    wrong = await house.run("modify", "--ticket", row["ticket"], "--price", "cheap")
    assert (wrong.code, "price: Input should be a valid decimal" in wrong.said) == (2, True)
    refused = await house.run("modify", "--ticket", row["ticket"], "--price", "2.00000")
    assert (refused.code, refused.out[:7]) == (1, "refused"), refused
    assert (await house.run("modify", "--ticket", row["ticket"], "--price", "0.91000")).code == 0
    assert re.search(rf"{row['ticket']} .*limit .*0\.91", (await house.run("orders")).out)
    assert (await house.run("cancel", order.order_id)).code == 0
    assert "0 orders" in (await house.run("orders")).out


async def test_a_change_is_asked_for_until_the_broker_can_be_reached_again(house: House) -> None:
    order = await house.submit("s-3", **FAR_BELOW)
    house.terminal.market.fault("disconnect")
    await eventually(lambda: house.terminal.status()["connection"] == "disconnected")
    command = [sys.executable, "-m", "streamapp.cli", "account", "cancel", house.terminal.account, order.order_id]
    with subprocess.Popen(command, env=house.terminal.environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines: list[str] = []
        while "waiting: not finished: " not in "".join(lines):
            lines.append(await asyncio.to_thread(process.stderr.readline))
            assert lines[-1], lines
        assert any("the account is disconnected" in line for line in lines)
        house.terminal.market.end_faults()
        assert await asyncio.to_thread(process.wait, PATIENCE_S) == 0
    assert order.order_id not in [row.order_id for row in await house.orders()]


async def test_symbols_and_quotes_are_shown_whole_however_many_pages_there_are(house: House) -> None:
    settings = settings_from(Path(house.terminal.environment["STREAMAPP_CONFIG"]))
    terminal = AskedTerminal(house.terminal.client, settings, house.terminal.account)
    paged = await whole(terminal, "symbols", SymbolsReply, ListRequest(limit=3))
    shown = (await house.run("symbols", "--json")).json
    assert [row["name"] for row in shown["content"]] == [row.name for row in paged.content or ()]
    assert len(shown["content"]) > 3
    unknown = await house.run("quote", "NOSUCH")
    assert (unknown.code, "unknown_symbol: expected a symbol of this broker, got NOSUCH" in unknown.said) == (2, True)
    assert re.search(r"bid +\d\.\d+ *\nask +\d\.\d+ *\n", (await house.run("quote", "EURUSD")).out)


async def test_a_halt_is_ended_by_a_person_who_was_told_why_it_is(tmp_path: Path, nats_url: str) -> None:
    async with living(tmp_path, nats_url, halted="two tickets of one order") as house:
        nobody = await house.run("resume")
        assert (nobody.code, "nothing was done: expected a yes, or --yes" in nobody.said) == (2, True)
        unwilling = await house.run("resume", typed="n\n")
        assert (unwilling.code, "is halted by its terminal: two tickets of one order." in unwilling.said) == (1, True)
        assert (await house.run("show", "--json")).json["content"]["halted"] == "two tickets of one order"
        willing = await house.run("resume", typed="y\n")
        assert (willing.code, "had been halted: two tickets of one order" in willing.out) == (0, True)
        again = (await house.run("resume", "--yes")).out
        assert "was not halted by its terminal" in again
        assert "streamapp command account.resume --account" in again


async def test_an_order_that_waits_for_a_person_is_settled_and_no_other(house: House) -> None:
    for fault, fields in (("drop_after", {}), ("magic_zeroed", {}), ("comment_rewrite", {"params": {"how": "empty"}})):
        house.terminal.market.fault(fault, nth=1, **fields)
    order = house.terminal.order("s-4", house.epoch)
    await house.terminal.submit(order)
    await eventually(lambda: house.terminal.kinds(order.order_id)[-2:] == ["unknown", "unknown"], "left to a person")
    (ticket,) = [row["ticket"] for row in house.ledger("order") if row["magic"] == magic_of(order.order_id)]
    assert (await house.run("settle", order.order_id)).code == 2
    unsure = await house.run("settle", order.order_id, "--absent", typed="n\n")
    assert (unsure.code, "never reached the broker" in unsure.said) == (1, True)
    settled = await house.run("settle", order.order_id, "--ticket", ticket, "--yes", "--issued-by", "ann")
    assert (settled.code, "result/accepted" in settled.out) == (0, True), settled
    late = await house.run("settle", order.order_id, "--absent", "--yes")
    assert (late.code, "nothing was done: expected an order in doubt" in late.said) == (1, True)


async def test_who_can_not_be_asked_is_one_sentence_with_what_to_do(nats_url: str) -> None:
    away, stranger, stopped = await asyncio.gather(
        streamapp("show", "demo-hedging", STREAMAPP_NATS__URL=f"nats://127.0.0.1:{free_port()}"),
        streamapp("close", "nobodys", 1, STREAMAPP_NATS__URL=nats_url),
        streamapp("show", "demo-hedging", STREAMAPP_NATS__URL=nats_url),
    )
    for done, words in (
        (away, "expected a connection to NATS at 127.0.0.1:"),
        (stranger, "the settings here know no such account, only demo-hedging, demo-netting"),
        (stopped, "`streamapp terminals --account demo-hedging`"),
    ):
        assert (done.code, done.out, len(done.said.splitlines())) == (2, "", 1), done
        assert words in done.said
