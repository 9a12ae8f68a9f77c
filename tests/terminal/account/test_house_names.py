"""A broker that calls symbols otherwise, on the real market: the house hears its own names, the broker its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import fields, is_dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from streamapp import subjects
from streamapp.domain import facts
from streamapp.messages.account import SnapshotMessage
from streamapp.messages.reading import QuoteReply, SymbolsReply
from streamapp.terminal.account.house_names import NAMES
from streamapp.terminal.pipe import answers, calls, structs
from tests.kit.waiting import PATIENCE_S, eventually
from tests.terminal.asking import Desk
from tests.terminal.conftest import Market, TerminalProcess, running_market
from tests.terminal.scripted import ACCOUNT

OWN = 'symbol_suffix = ".r"\nsymbols = { GOLD = "XAUUSD.r", XAUUSD = "XAUUSD.none" }\n'
"""Of an account at the broker ``suffix_broker``."""


@pytest.fixture
def suffixed(tmp_path: Path) -> Iterator[Market]:
    with running_market(tmp_path, profile="suffix_broker") as market:
        yield market


@pytest.fixture
async def desk(tmp_path: Path, nats_url: str, suffixed: Market, client: Client) -> AsyncIterator[Desk]:
    account = f"s{tmp_path.name.encode().hex()[-20:]}{os.getpid()}"
    terminal = TerminalProcess(tmp_path, nats_url, suffixed, client, account, own=OWN)
    await terminal.listen()
    desk = Desk(terminal)
    await desk.open()
    yield desk
    terminal.end()


def texts() -> set[str]:
    """Return the names of all fields that cross the pipe as text."""
    crossing = (kind for module in (answers, calls, structs) for kind in vars(module).values() if is_dataclass(kind))
    return {field.name for kind in crossing for field in fields(kind) if "str" in str(field.type)}


def test_a_text_that_crosses_the_pipe_is_known_for_a_name_of_a_symbol_or_for_none() -> None:
    translated = NAMES | {"name", "after"}  # of SymbolDetails and ListSymbols
    of_the_account = {"server", "company", "currency", "currency_base", "currency_profit", "currency_margin"}
    words = {"comment", "description", "group", "raw", "counts", "table", "tag", "lacking", "logged_in_as"}
    of_the_worker = {"path", "password", "module", "lock", "crash_at", "function"}
    of_the_answer = {"last_error", "failure", "away", "broken", "error", "unread"}
    assert texts() == translated | of_the_account | words | of_the_worker | of_the_answer


def filled(desk: Desk, order_id: str | None) -> list[facts.Filled]:
    bodies = [report.body for report in desk.terminal.told(order_id)]
    return [body for body in bodies if isinstance(body, facts.Filled)]


def at_broker(market: Market, kind: str) -> set[str]:
    return {row["symbol"] for row in market.ledger(kind)}


@pytest.mark.parametrize(("house", "broker"), [("EURUSD", "EURUSD.r"), ("GOLD", "XAUUSD.r")])
async def test_an_order_its_fill_its_position_and_its_close_have_the_houses_name(
    desk: Desk, suffixed: Market, house: str, broker: str
) -> None:
    position = await desk.position("s-1", symbol=house)
    assert position.symbol == house
    (opened,) = filled(desk, position.order_id)
    assert opened.symbol == house
    reply = await desk.ask("close", position_id=position.position_id)
    assert reply.outcome == "done", reply
    assert await desk.positions() == ()
    assert {report.body.symbol for report in desk.terminal.reports if isinstance(report.body, facts.Filled)} == {house}
    assert at_broker(suffixed, "order") == at_broker(suffixed, "deal") == {broker}


async def test_the_broker_log_and_what_order_send_returned_keep_the_brokers_words(desk: Desk) -> None:
    order = await desk.submit("s-1")
    entries = await eventually(lambda: [one for one in desk.terminal.entries if one.function == "order_send"])
    assert [entry.request["symbol"] for entry in entries] == ["EURUSD.r"]
    assert order.parameters.symbol == "EURUSD"


async def test_what_a_person_closes_at_the_broker_is_told_under_the_houses_name(desk: Desk, suffixed: Market) -> None:
    position = await desk.position("s-1", symbol="GOLD")
    deed = {"action": "close", "position": position.position_id}
    suffixed.fault("foreign_activity", account=ACCOUNT, params=deed)
    (closing,) = await eventually(lambda: filled(desk, None))
    assert (closing.symbol, closing.entry, closing.reason) == ("GOLD", "out", "mobile")


async def test_a_position_in_the_snapshot_has_the_houses_name(desk: Desk) -> None:
    await desk.position("s-1", symbol="GOLD")
    jetstream = desk.terminal.client.jetstream()

    async def shown() -> list[str]:
        stored = await jetstream.get_last_msg("ACCOUNT_SNAPSHOTS", subjects.snapshot(desk.terminal.account))
        return [row.symbol for row in SnapshotMessage.decode(stored.data or b"").positions]

    assert await eventually(shown) == ["GOLD"]


@pytest.mark.parametrize("fault", ["drop_after", "timeout_executed"])
async def test_an_order_in_doubt_is_found_under_the_brokers_name(desk: Desk, suffixed: Market, fault: str) -> None:
    suffixed.fault(fault, nth=1)
    position = await desk.position("s-1", symbol="GOLD")
    (deal,) = filled(desk, position.order_id)
    assert (deal.symbol, len(suffixed.ledger())) == ("GOLD", 1)


@pytest.mark.parametrize("wrong", ["EURUSD.r", "XAUUSD", "broker:EURUSD.r"])
async def test_a_name_that_is_none_of_the_houses_is_refused_with_what_the_broker_was_asked_for(
    desk: Desk, suffixed: Market, wrong: str
) -> None:
    order = desk.terminal.order("s-1", desk.epoch, symbol=wrong)
    await desk.terminal.submit(order)
    (report,) = await eventually(lambda: desk.terminal.told(order.order_id))
    assert report.kind == "refused"
    assert f"expected a symbol of this broker, got {wrong}" in str(report.body)
    assert suffixed.ledger() == []


async def test_symbols_are_listed_page_by_page_under_the_houses_names(desk: Desk) -> None:
    names: list[str] = []
    after: str | None = None
    while True:
        asked = {"limit": 7, "after": after}
        reply = SymbolsReply.decode(await desk.terminal.request("symbols", json.dumps(asked).encode()))
        assert reply.content is not None, reply.error
        names += [row.name for row in reply.content]
        after = reply.next
        if after is None:
            break
    assert len(names) == len(set(names))
    assert {"EURUSD", "GOLD"} <= set(names)
    assert not [name for name in names if name.endswith(".r")]


async def test_a_quote_is_asked_for_by_the_houses_name(desk: Desk, suffixed: Market) -> None:
    suffixed.pin("XAUUSD", "2400.00", "2400.10")

    async def quote() -> Any:
        reply = QuoteReply.decode(await desk.terminal.request("quote", json.dumps({"symbol": "GOLD"}).encode()))
        return reply.content if reply.content is not None and reply.content.ask == Decimal("2400.1") else None

    assert (await eventually(quote)).symbol == "GOLD"


async def test_a_check_names_a_symbol_that_the_broker_does_not_have_by_both_names(
    tmp_path: Path, nats_url: str, suffixed: Market, client: Client
) -> None:
    terminal = TerminalProcess(tmp_path, nats_url, suffixed, client, "checked", own=OWN)
    command = [sys.executable, "-m", "streamapp.terminal", "--check"]
    done = subprocess.run(
        command, env=terminal.environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "FAIL  checked: expected a symbol of this broker, got XAUUSD, XAUUSD.none at the broker" in done.stdout
    assert "GOLD" not in done.stdout
