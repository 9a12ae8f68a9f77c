"""(d) What has no right value: lags, offsets, lengths, latencies, echoes."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

from streamapp.conformance.account import EXECUTED, ConformanceAccount
from streamapp.conformance.pending import pending_filling, pending_request
from streamapp.conformance.run import Run
from streamapp.conformance.scenarios import retcode
from streamapp.conformance.wire import ShownStruct
from streamapp.mt5 import constants as mt5

# How long a table may take to show a fill before it counts as never.
LAG_S = 10.0
READS = 50
# The module takes up to 29 units, some servers less (mt5.md §1.4).
LONGEST_COMMENT = 29
_HALF_HOUR_S = 1800


def lags_and_echoes(run: Run, account: ConformanceAccount) -> None:
    """One fill: when each table shows it, and what the rows carry of magic and comment."""
    request = account.market(0, account.lot(), comment="g1abcdefghijklmnop")
    said = account.send(request)
    if not isinstance(said.result, ShownStruct) or said.result.retcode not in EXECUTED:
        run.skipped("visibility lag", "§2.5 [UNV]", f"the order was answered with {retcode(said)}")
        return
    ticket, begun = said.result.order, time.monotonic()
    tables: dict[str, Callable[[], Any]] = {
        "positions": lambda: account.position(ticket),
        "history_orders": lambda: account.read("history_orders_get", ticket=ticket),
        "history_deals": lambda: account.read("history_deals_get", position=ticket),
        "history_deals by time": lambda: [
            d for d in account.read("history_deals_get", *account.span()) if d.order == ticket
        ],
    }
    shown: dict[str, float] = {}
    rows: dict[str, Any] = {}
    while len(shown) < len(tables) and time.monotonic() < begun + LAG_S:
        for name, read in tables.items():
            if name not in shown and (found := read()):
                shown[name], rows[name] = round((time.monotonic() - begun) * 1000, 1), found
    claim = "§2.5: the four tables are updated independently [BOOK], by how much is [UNV]"
    run.measured("visibility lag ms", claim, {name: shown.get(name) for name in tables})
    run.measured("order_send ms", "§6: latency of order_send", round(said.ms, 1))
    run.measured("retcode of a market order", "§2.4: 10009, or 10008 where the fill comes later [DOC]", retcode(said))
    _echoes(run, request, rows)
    _by_ticket(run, account, ticket, rows)


def _echoes(run: Run, request: dict[str, Any], rows: dict[str, Any]) -> None:
    firsts = {name: row if isinstance(row, ShownStruct) else row[0] for name, row in rows.items()}
    magics = {name: row.magic == request["magic"] for name, row in firsts.items()}
    run.measured("magic echo", "§2.6: brokers don't rewrite magic [UNV]", magics)
    run.measured("comment echo", "§2.6: brokers may change comments [UNV]",
                 {name: row.comment for name, row in firsts.items()})  # fmt: skip


def _by_ticket(run: Run, account: ConformanceAccount, ticket: int, rows: dict[str, Any]) -> None:
    """What history_deals_get(ticket=) means by a ticket."""
    deals = rows.get("history_deals") or ()
    if not deals:
        return
    by_order = [deal.ticket for deal in account.read("history_deals_get", ticket=ticket)]
    by_deal = [deal.ticket for deal in account.read("history_deals_get", ticket=deals[0].ticket)]
    found = {"by order ticket": by_order == [deals[0].ticket], "by deal ticket": by_deal == [deals[0].ticket]}
    run.measured("history_deals_get(ticket=)", "§1.3: the ticket is the order's [UNV]", found)


def comments(run: Run, account: ConformanceAccount) -> None:
    """The longest comment that the server keeps as it was, on a pending order far from the market."""
    filling = pending_filling(account)
    if filling is None:
        return
    for length in range(LONGEST_COMMENT, 20, -1):
        comment = "".join(chr(ord("a") + number % 26) for number in range(length))
        said = account.send(pending_request(account, mt5.ORDER_TYPE_BUY_LIMIT, 0, filling, comment=comment))
        if not isinstance(said.result, ShownStruct) or said.result.retcode != mt5.TRADE_RETCODE_DONE:
            continue
        ticket = said.result.order
        found = account.wait(functools.partial(account.read, "orders_get", ticket=ticket))
        order = found[0] if found else None
        account.send({"action": mt5.TRADE_ACTION_REMOVE, "order": ticket})
        kept = order.comment if order else None
        run.measured("longest comment", "§1.4: 29 units, some servers less [UNV]",
                     {"accepted": length, "kept": len(kept or ""), "unchanged": kept == comment})  # fmt: skip
        run.measured("comment of a pending's result", "§2.4: the order's comment [OBS]", said.result.comment == comment)
        return


def clock(run: Run, account: ConformanceAccount) -> None:
    """What the server's clock is ahead of UTC by, from the freshest tick."""
    ahead = max(account.tick().time_msc / 1000 - time.time() for _ in range(20))
    offset = round(ahead / _HALF_HOUR_S) * _HALF_HOUR_S
    run.measured("server offset s", "§2.7: times are the server's wall clock as epoch [OBS]", offset)
    run.measured("age of the last tick s", "§2.7: frozen while the market is closed", round(offset - ahead, 1))


def latencies(run: Run, account: ConformanceAccount) -> None:
    """How long reads take."""
    reads: list[tuple[str, tuple[Any, ...]]] = [
        ("terminal_info", ()), ("account_info", ()), ("positions_get", ()), ("orders_get", ()),
        ("symbol_info", (account.symbol,)), ("symbol_info_tick", (account.symbol,)),
        ("history_deals_get", account.span()),
    ]  # fmt: skip
    taken = {}
    for function, args in reads:
        ms = sorted(account.caller.times(READS, function, *args))
        taken[function] = [round(statistics.median(ms), 3), round(ms[int(len(ms) * 0.95)], 3)]
    run.measured("reads ms (p50, p95)", "§2.9: sub-ms to few ms [INF]", taken)


MEASURES = {
    "lags and echoes": lags_and_echoes,
    "comments": comments,
    "clock": clock,
    "latencies": latencies,
}
