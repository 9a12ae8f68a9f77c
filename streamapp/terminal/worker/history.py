"""Deals and orders of the account as the worker reads them: each told once, and again when it changed.

Runs in the worker. Rows stay as the module gives them until they are told: a day may have tens of thousands.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from streamapp.mt5.enums import BUSTED_TRADES, TRADES
from streamapp.terminal.worker.mt5_client import VOLUME_DIGITS, Calls, plain

DEALS_AT_ONCE = 500
"""Most deals in one frame: parsing a day's 20,000 at once would stop the terminal's event loop for longer than an order
may wait."""
ENDS_AT_ONCE = 20
"""Most tickets looked up in one round: each costs a call of the worker, which orders wait for."""
VOLUME_NOISE = 10**-VOLUME_DIGITS
ORDER_FIELDS = (
    *("ticket", "symbol", "state", "type", "type_filling", "type_time", "time_expiration", "reason", "magic"),
    *("volume_initial", "volume_current", "price_open", "price_stoplimit", "sl", "tp"),
)
"""What an order's end is told by, and what somebody can change of one that works."""
NOT_READ = {"read": False, "deals": [], "more": False, "digest": None}


class History:
    """What was told of one connection."""

    def __init__(self, calls: Calls) -> None:
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

    def deals(
        self, *, wide_from: int, near_from: int, settled_until: int, until: int, wide: bool, anew: bool = False
    ) -> dict[str, Any]:
        """Return the deals that are new or other than when they were last told.

        Args:
            wide_from: Where the whole interval begins, in the server's seconds.
            near_from: Where deals that are newer than the known ones can begin.
            settled_until: Up to where the digest goes.
            until: Where both end.
            anew: Tell everything again: an answer that was told when the connection went was not believed.
            wide: Read the whole interval. Otherwise only when the number of deals changed, and then its near end,
                unless that does not explain the change.

        Returns:
            ``read``: whether the module answered; ``deals``; ``more``: ask :meth:`more_deals` for the rest;
            ``digest`` of the whole interval if that was read, and shows at least what it showed before.
        """
        if anew:
            self.forget()
        total = self._calls.call("history_deals_total", wide_from, until)
        if total is None:
            return NOT_READ
        if not wide and self._counted == (wide_from, total):
            return NOT_READ | {"read": True}
        rows, digest = None if wide else self._near(wide_from, near_from, until, total), None
        if rows is None:
            rows = self._calls.call("history_deals_get", wide_from, until, see=whole)
            if rows is None:
                return NOT_READ
            if self._shows_all(rows, total, wide_from):
                digest = hash(frozenset(tuple(row) for row in rows if row.time <= settled_until))
                self._told = {ticket: row for ticket, row in self._told.items() if row.time >= wide_from}
        self._counted = (wide_from, total)
        self._untold += [row for row in rows if self._told.get(row.ticket) != row]
        self._told.update((row.ticket, row) for row in rows)
        return {"read": True, "digest": digest, **self.more_deals()}

    def _near(self, wide_from: int, near_from: int, until: int, total: int) -> Any:
        """Return the near end, if it explains the change of the number; otherwise None."""
        if self._counted[0] != wide_from:
            return None
        rows = self._calls.call("history_deals_get", near_from, until, see=whole) or []
        return rows if self._counted[1] + sum(row.ticket not in self._told for row in rows) >= total else None

    def _shows_all(self, rows: Any, total: int, wide_from: int) -> bool:
        """Return whether nothing is missing that is known: history comes in pieces, with success (mt5 §2.5)."""
        told = {ticket for ticket, row in self._told.items() if row.time >= wide_from}
        return len(rows) >= total and told <= {row.ticket for row in rows}

    def more_deals(self) -> dict[str, Any]:
        """Return the next deals that were not told yet: those that bought or sold, also if they were taken back."""
        told, self._untold = self._untold[:DEALS_AT_ONCE], self._untold[DEALS_AT_ONCE:]
        part = plain(tuple(told))
        if part:
            self._calls.note_change("history_deals_get", None, part)
        trades = [row for row in part if row["type"] in (*TRADES, *BUSTED_TRADES)]
        return {"deals": trades, "more": bool(self._untold)}

    def of_order(self, ticket: int, *, hedging: bool, since: int, until: int) -> list[Any]:
        """Return the deals of an order that was sent just now, as far as they are there.

        Args:
            ticket: The order's.
            hedging: Whether its position has its ticket; otherwise it is found among all of the interval.
            since: Where the interval begins, in the server's seconds.
            until: Where it ends.
        """
        call = self._calls.call
        if hedging:
            rows = call("history_deals_get", position=ticket, see=whole)
        else:
            rows = call("history_deals_get", since, until, see=whole)
        return [row for row in rows or () if row.order == ticket and row.type in TRADES]

    def told(self, deals: list[Any]) -> list[dict[str, Any]]:
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
        return told

    def ticket(self, *, ticket: int, volume: float, since: int, until: int, hedging: bool) -> dict[str, Any]:
        """Return the deals of an order ticket and, unless they make up its ``volume``, its order."""
        call = self._calls.call
        deals = _of_ticket(call("history_deals_get", position=ticket, see=whole) if hedging else None, ticket)
        deals = deals or _of_ticket(call("history_deals_get", since, until, see=whole), ticket)
        order, done = None, False
        if sum(row["volume"] for row in deals) < volume - VOLUME_NOISE:
            history = call("history_orders_get", ticket=ticket) or []
            live = [] if history else call("orders_get", ticket=ticket) or []
            order, done = (history or live or [None])[0], bool(history)
        if deals or order:
            self._calls.note_change("history_orders_get", {"ticket": ticket}, {"order": order, "deals": deals})
        return {"deals": deals, "order": order, "done": done}

    def ended(self, *, tickets: list[int]) -> dict[str, Any]:
        """Return the orders of ``tickets`` that do not work any more, as history shows them.

        One that neither table shows is not known (reference mt5 §2.5). So is everything if ``read`` is False.

        Args:
            tickets: Those that worked when they were last looked at, looked at longest ago first.

        Returns:
            ``orders``, and ``looked``: the tickets that were not at work, of which at most 20 are looked up at once.
        """
        working = self._calls.call("orders_get", see=_values)
        if working is None:
            return {"read": False, "orders": [], "looked": []}
        if working != self._working:
            self._working = working
            self._calls.note_rows("orders_get", [dict(zip(ORDER_FIELDS, values, strict=True)) for values in working])
        at_work = {ticket for ticket, *_ in working}
        looked = [ticket for ticket in tickets if ticket not in at_work][:ENDS_AT_ONCE]
        orders = []
        for ticket in looked:
            for values in self._calls.call("history_orders_get", ticket=ticket, see=_values) or []:
                order = dict(zip(ORDER_FIELDS, values, strict=True))
                self._calls.note_change("history_orders_get", {"ticket": ticket}, order)
                orders.append(order)
        return {"read": True, "orders": orders, "looked": looked}


def whole(rows: Any) -> Any:
    """Return rows as the module gives them: what is only compared here need not become JSON-ready."""
    return rows


_of_order = attrgetter(*ORDER_FIELDS)


def _values(rows: Any) -> list[tuple[Any, ...]] | None:
    return None if rows is None else [_of_order(row) for row in rows]


def _of_ticket(rows: Any, ticket: int) -> list[Any]:
    return [plain(row) for row in rows or () if row.order == ticket and row.type in TRADES]
