"""Many faults at once and a process that is killed again and again: the market's own ledger is the judge."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from streamapp.domain import facts
from streamapp.domain.identifiers import magic_of
from streamapp.messages.terminal import SubmitRequest
from tests.kit.waiting import eventually
from tests.terminal.conftest import TerminalProcess
from tests.terminal.desk import desks
from tests.terminal.scripted import ACCOUNT

ORDERS, KILLS = 200, 5
ENDED = {"result", "refused", "absent"}
PERCENT: dict[str, tuple[float, dict[str, object]]] = {
    "drop_before": (1.5, {}),
    "drop_after": (1.5, {}),
    "timeout_executed": (1, {}),
    "timeout_lost": (1, {}),
    "timeout_late": (1.5, {"ms": 300}),
    "conn_executed": (1, {}),
    "conn_lost": (1, {}),
    "done_without_deal": (1.5, {}),
    "false_answer": (1, {}),
    "call_failed": (1, {"executed": True}),
    "desync": (1, {}),
    "crash_client": (1, {}),
    "hang": (0.5, {}),
    "terminal_restart": (1, {"ms": 100}),
    "disconnect": (1, {"ms": 100}),
    "requote": (4, {}),
    "reject": (2, {}),
    "off_quotes": (2, {}),
    "partial": (5, {}),
    "partial_then_rest": (5, {"ms": 200}),
    "placed_then_fill": (5, {"ms": 200}),
    "placed_then_reject": (3, {"ms": 200}),
    "comment_rewrite": (10, {"how": "append", "text": "[x]"}),
    "magic_zeroed": (5, {}),
    "sl_tp_ignored_on_open": (5, {}),
    "volume_adjusted": (3, {}),
    "ticket_reopen": (3, {}),
}
OF_READS: dict[str, tuple[str, float]] = {
    "drop_after": ("history_deals_get", 1.0),
    "crash_client": ("positions_get", 0.2),
    "disconnect": ("terminal_info", 0.2),
}
LAGS = {"orders": 60, "positions": 40, "hist_orders": 80, "hist_deals": 100}


@pytest.fixture
async def terminal(tmp_path: Path, nats_url: str) -> AsyncIterator[TerminalProcess]:
    async with desks(tmp_path, nats_url, "--seed", "7") as terminal:
        yield terminal


def break_everything(terminal: TerminalProcess) -> None:
    """Set all faults at a few percent each."""
    market = terminal.market
    for kind, (percent, params) in PERCENT.items():
        market.fault(kind, account=ACCOUNT, probability=percent / 100, params=params)
    for kind, (function, percent) in OF_READS.items():
        params = {"ms": 100} if kind == "disconnect" else {}
        market.fault(kind, account=ACCOUNT, on=function, probability=percent / 100, params=params)
    market.fault("visibility_lag", account=ACCOUNT, params=LAGS)
    market.fault("stale_after_reconnect", account=ACCOUNT, params={"ms": 200})


def order(terminal: TerminalProcess, number: int, epoch: str) -> SubmitRequest:
    """Return the storm's order of a number: every fourth is a limit order that the end of the storm reaches."""
    volume = Decimal(1 + number % 5) / 10
    if number % 4 == 3:
        return terminal.order(str(number), epoch, valid_s=300, volume=volume, order_type="limit", price=Decimal("1.05"))
    side = "buy" if number % 2 else "sell"
    return terminal.order(str(number), epoch, valid_s=300, volume=volume, side=side)


async def states(terminal: TerminalProcess, orders: list[SubmitRequest]) -> Counter[str]:
    """Ask for every order again, as the agent does with what has no answer; return how many rows are in which state."""
    replies = await asyncio.gather(*(terminal.submit(each) for each in orders))
    return Counter(str(reply.state) for reply in replies)


async def ended(terminal: TerminalProcess, orders: list[SubmitRequest], at_least: int) -> bool:
    """Return whether so many orders have an end."""
    found = await states(terminal, orders)
    return sum(count for state, count in found.items() if state in ENDED) >= at_least


async def test_two_hundred_orders_in_a_storm_are_each_sent_once_and_end_as_the_ledger_says(
    terminal: TerminalProcess,
) -> None:
    epoch = (await terminal.ready()).epoch
    break_everything(terminal)
    orders = [order(terminal, number, epoch) for number in range(ORDERS)]
    await states(terminal, orders)
    for life in range(1, KILLS + 1):
        wanted = ORDERS * life // (KILLS + 1)
        await eventually(lambda wanted=wanted: ended(terminal, orders, wanted), f"{wanted} ends")  # type: ignore[misc]
        assert terminal.process is not None
        terminal.process.kill()
        terminal.process.wait()
        terminal.start()
    await eventually(lambda: ended(terminal, orders, ORDERS), "all ends")
    terminal.market.end_faults()
    terminal.market.pin("EURUSD", "1.04990", "1.05000")  # every limit order that works is filled now
    await terminal.ready()
    await eventually(lambda: agrees(terminal, orders), "agreement with the ledger")
    found = await states(terminal, orders)
    assert set(found) <= ENDED
    assert found["result"] > ORDERS / 4
    assert found["absent"]
    assert "halted" not in str(terminal.status()["reasons"])


def agrees(terminal: TerminalProcess, orders: list[SubmitRequest]) -> bool:
    """Return whether every executed volume was reported once; fail where one can't be any more."""
    taken = Counter(row["magic"] for row in terminal.market.ledger())
    assert set(taken.values()) == {1}
    assert terminal.market.violations() == []
    executed = {row["ticket"]: Decimal(row["volume"]) for row in terminal.market.ledger("deal")}
    reported: dict[int, Decimal] = {}
    for each in orders:
        kinds = terminal.kinds(each.order_id)
        bodies = [report.body for report in terminal.told(each.order_id)]
        deals = {body.deal: body.volume for body in bodies if isinstance(body, facts.Filled)}
        assert len(deals) == kinds.count("deal"), kinds
        assert not reported.keys() & deals.keys()
        reported |= deals
        if kinds[-1:] in (["absent"], ["refused"]):
            assert taken[magic_of(each.order_id)] == 0, kinds
    assert all(executed[deal] == volume for deal, volume in reported.items())
    return reported.keys() == executed.keys()
