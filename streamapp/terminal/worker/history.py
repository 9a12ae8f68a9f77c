"""The account's history: its deals and the ends of its orders, each told once and again when it changed; and its past.

Rows stay as the module gives them until they are told: a day may have tens of thousands.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from operator import attrgetter
from typing import Any

from streamapp.mt5 import constants as mt5
from streamapp.mt5.enums import TRADES
from streamapp.terminal.pipe.answers import DealsSeen, EndsSeen, PastSeen, TicketSeen
from streamapp.terminal.pipe.calls import DealWindow, ReadDeals, ReadEnds, ReadPast, ReadTicket
from streamapp.terminal.pipe.structs import TradeDeal, TradeOrder
from streamapp.terminal.worker.mt5_client import VOLUME_DIGITS, Mt5Client, model_of, models_of, plain, whole

DEALS_AT_ONCE = 500
"""Most deals in one frame: parsing a day's 20,000 at once would stop the terminal's event loop for longer than an order
may wait."""
ENDS_AT_ONCE = 20
"""Most tickets looked up in one round: each costs a call of the worker, which orders wait for."""
VOLUME_NOISE = 10**-VOLUME_DIGITS
NAMED = 5
"""Most tickets that a message names."""
ORDER_FIELDS = tuple(field.name for field in fields(TradeOrder))
"""What an order's end is told by, and what somebody can change of one that works."""


class History:
    """What was told of one connection."""

    def __init__(self, calls: Mt5Client) -> None:
        self._calls = calls
        self._told: dict[int, Any] = {}
        self._untold: list[Any] = []
        self._counted = (0, -1)
        self._working: list[tuple[Any, ...]] = []

    def forget(self) -> None:
        """Tell everything again: what the connection before told may never have arrived."""
        self._told.clear()
        self._untold.clear()
        self._counted = (0, -1)

    def deals(self, asked: ReadDeals) -> DealsSeen:
        """Return the deals that are new or other than when they were last told."""
        if asked.anew:
            self.forget()
        total = self._calls.call("history_deals_total", asked.wide_from, asked.until)
        if total is None:
            return DealsSeen(read=False)
        if not asked.wide and self._counted == (asked.wide_from, total):
            return DealsSeen(read=True)
        rows, digest = None if asked.wide else self._near(asked, total), None
        if rows is None:
            rows = self._calls.call("history_deals_get", asked.wide_from, asked.until, see=whole)
            if rows is None:
                return DealsSeen(read=False)
            if self._shows_all(rows, total, asked.wide_from):
                digest = hash(frozenset(tuple(row) for row in rows if row.time <= asked.settled_until))
                self._told = {ticket: row for ticket, row in self._told.items() if row.time >= asked.wide_from}
        self._counted = (asked.wide_from, total)
        self._untold += [row for row in rows if self._told.get(row.ticket) != row]
        self._told.update((row.ticket, row) for row in rows)
        return replace(self.more_deals(), digest=digest)

    def _near(self, asked: ReadDeals, total: int) -> Any:
        """Return the near end, if it explains the change of the number; otherwise None."""
        if self._counted[0] != asked.wide_from:
            return None
        rows = self._calls.call("history_deals_get", asked.near_from, asked.until, see=whole) or []
        return rows if self._counted[1] + sum(row.ticket not in self._told for row in rows) >= total else None

    def _shows_all(self, rows: Any, total: int, wide_from: int) -> bool:
        """Return whether nothing is missing that is known: history comes in pieces, with success (mt5 §2.5)."""
        told = {ticket for ticket, row in self._told.items() if row.time >= wide_from}
        return len(rows) >= total and told <= {row.ticket for row in rows}

    def more_deals(self) -> DealsSeen:
        """Return the next deals that were not told yet."""
        told, self._untold = self._untold[:DEALS_AT_ONCE], self._untold[DEALS_AT_ONCE:]
        part = plain(tuple(told))
        if part:
            self._calls.note_change("history_deals_get", None, part)
        return DealsSeen(read=True, deals=models_of(TradeDeal, part), more=bool(self._untold))

    def of_order(self, ticket: int, where: DealWindow) -> list[Any]:
        """Return the deals of an order that was sent just now, as far as they are there, as the module gives them."""
        call = self._calls.call
        if where.hedging:
            rows = call("history_deals_get", position=ticket, see=whole)
        else:
            rows = call("history_deals_get", where.since, where.until, see=whole)
        return [row for row in rows or () if row.order == ticket and row.type in TRADES]

    def told(self, deals: list[Any]) -> tuple[TradeDeal, ...]:
        """Return deals of :meth:`of_order` as they are told, once they are believed: no look tells them again.

        They happened after the last look and will be counted by the next one, so its number is carried on: a look that
        finds no others is one call.
        """
        counted_from, total = self._counted
        self._counted = (counted_from, total + len(deals) if total >= 0 else total)
        self._told.update((row.ticket, row) for row in deals)
        told = [plain(row) for row in deals]
        if told:
            self._calls.note_change("history_deals_get", None, told)
        return models_of(TradeDeal, told)

    def ticket(self, asked: ReadTicket) -> TicketSeen:
        """Return the deals of an order ticket and, unless they make up its volume, its order."""
        call, ticket = self._calls.call, asked.ticket
        deals = _of_ticket(call("history_deals_get", position=ticket, see=whole) if asked.hedging else None, ticket)
        deals = deals or _of_ticket(call("history_deals_get", asked.since, asked.until, see=whole), ticket)
        order, done = None, False
        if sum(row["volume"] for row in deals) < asked.volume - VOLUME_NOISE:
            history = call("history_orders_get", ticket=ticket) or []
            live = [] if history else call("orders_get", ticket=ticket) or []
            order, done = (history or live or [None])[0], bool(history)
        if deals or order:
            self._calls.note_change("history_orders_get", {"ticket": ticket}, {"order": order, "deals": deals})
        return TicketSeen(models_of(TradeDeal, deals), model_of(TradeOrder, order), done)

    def ended(self, asked: ReadEnds) -> EndsSeen:
        """Return the orders of tickets that do not work any more, as history shows them.

        One that neither table shows is not known (reference mt5 §2.5). So is everything if ``read`` is False. At most
        20 of the tickets that were not at work are looked up at once.
        """
        working = self._calls.call("orders_get", see=_values)
        if working is None:
            return EndsSeen(read=False)
        if working != self._working:
            self._working = working
            self._calls.note_rows("orders_get", [_named(values) for values in working])
        at_work = {ticket for ticket, *_ in working}
        shown = tuple(ticket for ticket in asked.tickets if ticket in at_work)
        looked = [ticket for ticket in asked.tickets if ticket not in at_work][:ENDS_AT_ONCE]
        orders = list[TradeOrder]()
        for ticket in looked:
            for values in self._calls.call("history_orders_get", ticket=ticket, see=_values) or []:
                order = _named(values)
                self._calls.note_change("history_orders_get", {"ticket": ticket}, order)
                orders.append(TradeOrder(**order))
        return EndsSeen(read=True, orders=tuple(orders), looked=tuple(looked), working=shown)


_of_order = attrgetter(*ORDER_FIELDS)


def _values(rows: Any) -> list[tuple[Any, ...]] | None:
    return None if rows is None else [_of_order(row) for row in rows]


def _named(values: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(ORDER_FIELDS, plain(values), strict=True))


def _of_ticket(rows: Any, ticket: int) -> list[Any]:
    return [plain(row) for row in rows or () if row.order == ticket and row.type in TRADES]


# -- the past


def look_at_past(calls: Mt5Client, asked: ReadPast) -> PastSeen:
    """Return what lies in an account's past, as one number: two equal ones a while apart show that nothing is missing.

    The number is the same whatever happens *after* the moment of connecting, or a busy account would never be believed;
    and another one whenever something from *before* that moment shows up late (reference mt5 §2.5: a stale cache after
    a reconnect, history in pieces with success, tables that lag behind each other).
    """
    since, cut, until = asked.since, asked.cut, asked.until
    positions, orders = calls.call("positions_get", see=whole), calls.call("orders_get", see=whole)
    total = calls.call("history_deals_total", since, until)
    deals = calls.call("history_deals_get", since, until, see=whole)
    done = calls.call("history_orders_get", since, until, see=whole)
    if positions is None or orders is None or total is None or deals is None or done is None:
        return PastSeen(None, f"a table can't be read: {calls.error[1]} ({calls.error[0]})")
    digest = hash(
        (
            frozenset(tuple(deal) for deal in deals if deal.time <= cut),
            frozenset((order.ticket, order.state) for order in done if order.time_done <= cut),
            frozenset(order.ticket for rows in (orders, done) for order in rows if order.time_setup <= cut),
            frozenset(_volumes(positions, deals, cut).items()),
        )
    )
    return PastSeen(digest, _lacking(total, deals, [p for p in positions if p.time > since], asked.known))


def _volumes(positions: Any, deals: Any, cut: int) -> dict[int, float]:
    """Return each position's volume, of sells negative, as it was at ``cut``: today's without the deals since."""
    volumes: dict[int, float] = {}
    for position in positions:
        signed = position.volume if position.type == mt5.POSITION_TYPE_BUY else -position.volume
        volumes[position.identifier] = volumes.get(position.identifier, 0.0) + signed
    for deal in deals:
        if deal.time > cut and deal.type in TRADES:
            signed = deal.volume if deal.type == mt5.DEAL_TYPE_BUY else -deal.volume
            volumes[deal.position_id] = volumes.get(deal.position_id, 0.0) - signed
    rounded = ((identifier, round(volume, VOLUME_DIGITS)) for identifier, volume in volumes.items())
    return {identifier: volume for identifier, volume in rounded if volume}


def _lacking(total: int, deals: Any, opened: list[Any], known: Iterable[int]) -> str:
    if len(deals) < total:
        return f"history has {total} deals and shows {len(deals)}"
    if missing := set(known).difference(deal.ticket for deal in deals):
        return f"history does not show {len(missing)} deals that were there before: {sorted(missing)[:NAMED]}"
    if missing := {position.identifier for position in opened}.difference(deal.position_id for deal in deals):
        return f"history does not show the deals of {len(missing)} open positions: {sorted(missing)[:NAMED]}"
    return ""
