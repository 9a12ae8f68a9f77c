"""What anybody may ask a terminal to read, on the real market and the real terminal process."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from streamapp.messages.operation import OperationReply, ResumeReply
from streamapp.messages.reading import (
    LARGEST_PAGE,
    Account,
    AccountReply,
    OrdersReply,
    PositionsReply,
    QuoteReply,
    ReadReply,
    Symbol,
    SymbolsReply,
)
from streamapp.terminal.account.readings import REPLIES
from tests.kit.waiting import eventually
from tests.terminal.asking import REQUESTS, Desk
from tests.terminal.conftest import Market, TerminalProcess

NATS_TAKES = 1_000_000


@pytest.fixture
async def desk(terminal: TerminalProcess) -> Desk:
    desk = Desk(terminal)
    await desk.open()
    return desk


async def read(desk: Desk, operation: str, **asked: Any) -> Any:
    payload = await desk.terminal.request(operation, json.dumps(asked).encode())
    assert len(payload) < NATS_TAKES
    return REPLIES[operation].decode(payload)


async def test_the_account_is_told_in_words_and_decimals(desk: Desk) -> None:
    reply: AccountReply = await read(desk, "account")
    account = reply.content
    assert isinstance(account, Account)
    assert (account.currency, account.margin_mode, account.leverage, account.connection) == (
        "USD",
        "hedging",
        500,
        "ready",
    )
    assert account.balance == account.equity == account.margin_free == Decimal(1_000_000)
    assert (account.margin, account.margin_level, account.halted) == (Decimal(0), Decimal(0), None)
    assert account.trade_allowed
    assert account.experts_allowed
    assert account.terminal_allows
    assert json.loads(reply.encode())["content"]["balance"] == "1000000.0"


async def test_positions_and_orders_name_our_orders_and_leave_in_utc(desk: Desk) -> None:
    until = (datetime.now(UTC) + timedelta(hours=2)).replace(microsecond=0)
    opened = await desk.submit("s-1", stop_loss=Decimal("0.9"))
    pending: dict[str, Any] = {"order_type": "stop_limit", "price": Decimal("1.5"), "stop_limit_price": Decimal("1.4")}
    placed = await desk.submit("s-2", **pending, time_in_force="until", expiration=until)

    async def both() -> bool:
        return bool(await desk.positions() and await desk.orders())

    await eventually(both, "both to be seen")
    (position,), (order,) = await desk.positions(), await desk.orders()
    assert (position.order_id, position.side, position.volume, position.stop_loss) == (
        opened.order_id,
        "buy",
        Decimal("0.1"),
        Decimal("0.9"),
    )
    assert abs((position.opened_at - datetime.now(UTC)).total_seconds()) < 600
    assert (order.order_id, order.order_type, order.side, order.state) == (
        placed.order_id,
        "stop_limit",
        "buy",
        "placed",
    )
    assert (order.price, order.stop_limit_price) == (Decimal("1.5"), Decimal("1.4"))
    assert (order.time_in_force, order.expiration) == ("until", until)


async def test_lists_come_in_pages_or_of_one_symbol_or_group(desk: Desk) -> None:
    for name in ("a", "b", "c"):
        await desk.submit(name)
    await desk.submit("d", symbol="GBPUSD")

    async def four() -> bool:
        return len(await desk.positions()) == 4

    await eventually(four, "four positions")
    first: PositionsReply = await read(desk, "positions", limit=3)
    assert first.content is not None
    second: PositionsReply = await read(desk, "positions", limit=3, after=first.next)
    assert second.content is not None
    assert (len(first.content), len(second.content), second.next) == (3, 1, None)
    assert len({row.ticket for row in first.content + second.content}) == 4
    assert len((await read(desk, "positions", symbol="GBPUSD")).content) == 1
    assert len((await read(desk, "positions", group="*,!GBP*")).content) == 3
    assert (await read(desk, "orders", symbol="EURUSD")).content == ()
    assert (await read(desk, "positions", after="x")).error


async def test_symbols_say_what_a_trader_needs(desk: Desk) -> None:
    reply: SymbolsReply = await read(desk, "symbols", symbol="EURUSD")
    assert reply.content is not None
    (symbol,) = reply.content
    assert isinstance(symbol, Symbol)
    assert (symbol.digits, symbol.point, symbol.tick_size) == (5, Decimal("0.00001"), Decimal("0.00001"))
    assert (symbol.volume_min, symbol.volume_step, symbol.trade_mode) == (Decimal("0.01"), Decimal("0.01"), "full")
    assert (symbol.order_types, symbol.allows_close_by) == (("market", "limit", "stop", "stop_limit"), True)
    every: SymbolsReply = await read(desk, "symbols")
    assert every.content is not None
    assert max(len(row.model_dump_json()) for row in every.content) * LARGEST_PAGE < NATS_TAKES
    names = [row.name for row in every.content]
    assert names == sorted(names)
    paged: list[str] = []
    after = None
    while True:
        page: SymbolsReply = await read(desk, "symbols", limit=4, **({"after": after} if after else {}))
        assert page.content is not None
        paged += [row.name for row in page.content]
        if (after := page.next) is None:
            break
    assert paged == names
    assert {row.name for row in (await read(desk, "symbols", group="*USD*")).content} == {
        n for n in names if "USD" in n
    }


async def test_a_quote_is_the_last_tick_in_utc(desk: Desk) -> None:
    reply: QuoteReply = await read(desk, "quote", symbol="EURUSD")
    assert reply.content is not None
    assert 0 < reply.content.bid < reply.content.ask
    assert reply.content.spread_points == (reply.content.ask - reply.content.bid) * 100_000
    assert abs((reply.content.time - datetime.now(UTC)).total_seconds()) < 600


@pytest.mark.parametrize("operation", ["quote", "symbols"])
async def test_an_unknown_symbol_is_an_error_that_names_it(desk: Desk, operation: str) -> None:
    reply: ReadReply = await read(desk, operation, symbol="NOSUCH")
    assert reply.error is not None
    assert "NOSUCH" in reply.error


@pytest.mark.parametrize("operation", ["quote", "symbols"])
async def test_a_symbol_that_can_not_be_read_is_not_called_unknown(desk: Desk, market: Market, operation: str) -> None:
    market.fault("call_failed", on="symbol_info")
    reply: ReadReply = await read(desk, operation, symbol="GBPUSD")
    assert reply.error is not None
    assert "Call failed (-1)" in reply.error
    assert "expected a symbol" not in reply.error


async def test_what_is_not_known_is_an_error_and_never_empty(desk: Desk, market: Market) -> None:
    market.fault("disconnect")

    async def away() -> bool:
        return (await desk.terminal.request("hello")).find(b'"disconnected"') > 0

    await eventually(away, "disconnected")
    for operation in ("account", "positions", "orders", "symbols", "quote"):
        reply: Any = await read(desk, operation, symbol="EURUSD")
        assert reply.content is None
        assert "disconnected" in reply.error


async def test_a_hung_broker_is_no_reason_not_to_answer(desk: Desk, market: Market) -> None:
    market.fault("hang", on="positions_get", params={"ms": 600_000})
    reply: OrdersReply | PositionsReply = await read(desk, "positions")
    assert reply.content is None
    assert reply.error


async def test_input_that_nobody_can_use_is_answered_and_what_follows_goes_on(desk: Desk) -> None:
    for operation in ("account", "positions", "orders", "symbols", "quote"):
        reply: Any = REPLIES[operation].decode(await desk.terminal.request(operation, b"what?"))
        assert reply.error.startswith("not_json")
    assert (await read(desk, "quote")).error.startswith("invalid: symbol")
    assert (await read(desk, "positions", limit=10_000)).error.startswith("invalid: limit")
    for word in ("²", "x", "-1"):
        assert (await read(desk, "positions", after=word)).error.startswith("invalid: expected after")
    for kind in REQUESTS:
        for payload, request_id in ((b"", ""), (b"[]", ""), (b'{"request_id": "r-9", "account": "x"}', "r-9")):
            answer = OperationReply.decode(await desk.terminal.request(kind, payload))
            assert (answer.outcome, answer.request_id) == ("refused", request_id)
            assert answer.message
    position = await desk.position("s-1")
    both = await desk.terminal.request(
        "cancel", json.dumps({"request_id": "r-8", "order_id": "a", "ticket": 1}).encode()
    )
    assert OperationReply.decode(both).outcome == "refused"
    assert (await desk.ask("close", position_id=position.position_id)).outcome == "done"


async def test_a_halted_account_is_resumed_by_somebody_with_a_name(desk: Desk, market: Market) -> None:
    async def resume(**asked: Any) -> ResumeReply:
        return ResumeReply.decode(await desk.terminal.request("resume", json.dumps(asked).encode()))

    account = desk.terminal.account
    assert (await resume(account=account)).error
    assert (await resume(account="another", issued_by="operator")).error
    assert (await resume(account=account, issued_by="operator")).was is None
    market.fault("duplicate_fill", nth=1)
    await desk.submit("s-1")

    async def halted() -> str | None:
        reply: AccountReply = await read(desk, "account")
        return reply.content.halted if reply.content else None

    why = await eventually(halted, "halted")
    assert (await resume(account=account, issued_by="operator", request_id="r-1")).was == why
    assert await halted() is None
    market.fault("duplicate_fill", nth=1)
    await desk.submit("s-2")
    later = await eventually(halted, "halted again")
    assert (await resume(account=account, issued_by="operator", request_id="r-1")).was is None
    assert await halted() == later
    assert (await resume(account=account, issued_by="operator", request_id="r-2")).was == later
