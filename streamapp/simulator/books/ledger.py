"""What truly happened at the market: every order and deal, as it was, whatever the clients were told."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from streamapp.mt5 import constants as mt5
from streamapp.mt5.enums import ACCOUNT_OPERATIONS, ENTRIES, REASONS, SIDES
from streamapp.simulator.books.tables import BrokerDeal, BrokerOrder

Write = Callable[[str, str], None]


class Ledger:
    """Append-only lines of each account, and the count of orders that each intent (magic) has caused."""

    def __init__(self, write: Write) -> None:
        """``write(account, line)`` makes a line durable."""
        self._write = write
        self._lines: dict[str, list[str]] = defaultdict(list)
        self._orders: dict[tuple[str, int], int] = defaultdict(int)
        self._repeated: dict[tuple[str, int], int] = {}
        self._rewritten: dict[int, tuple[int, str]] = {}

    def restore(self, account: str, line: str) -> None:
        """Take back a line that an earlier life of the market wrote."""
        self._lines[account].append(line)
        row = json.loads(line)
        if row["kind"] == "order" and row["reason"] == "expert":
            self._count(account, row["magic"])

    def order(self, account: str, at: str, order: BrokerOrder) -> None:
        """Note that the market took an order. Called once an order, whatever becomes of it."""
        if order.reason == mt5.ORDER_REASON_EXPERT:
            self._count(account, order.magic)
        self._append(
            at=at, account=account, kind="order", ticket=order.ticket, position_id=order.position_id,
            magic=order.magic, comment=order.comment, symbol=order.symbol,
            side=SIDES[order.type & 1], volume=str(order.volume_initial),
            price=str(order.price_open), reason=REASONS[order.reason], type=order.type,
        )  # fmt: skip

    def rewritten(self, order: BrokerOrder) -> None:
        """Keep magic and comment of an order whose broker is about to change them, for its deals."""
        self._rewritten[order.ticket] = (order.magic, order.comment)

    def deal(self, account: str, at: str, deal: BrokerDeal, kind: str = "deal") -> None:
        """Note an execution, or its bust or correction, with magic and comment as the client gave them."""
        magic, comment = self._rewritten.get(deal.order, (deal.magic, deal.comment))
        self._append(
            at=at, account=account, kind=kind, ticket=deal.ticket, position_id=deal.position_id,
            magic=magic, comment=comment, symbol=deal.symbol,
            side="sell" if deal.type == mt5.DEAL_TYPE_SELL else "buy", volume=str(deal.volume),
            price=str(deal.price), reason=REASONS[deal.reason], order=deal.order, entry=ENTRIES[deal.entry],
            profit=str(deal.profit), commission=str(deal.commission), swap=str(deal.swap),
        )  # fmt: skip

    def operation(self, account: str, at: str, deal: BrokerDeal) -> None:
        """Note money that was booked without a trade, once more when its amount was corrected."""
        self._append(
            at=at, account=account, kind="operation", ticket=deal.ticket, position_id=deal.position_id, magic=0,
            comment=deal.comment, symbol=deal.symbol, reason=REASONS[deal.reason], order=deal.order,
            type=ACCOUNT_OPERATIONS[deal.type], amount=str(deal.profit),
        )  # fmt: skip

    def lines(self, account: str | None = None) -> list[str]:
        """Return the lines of one account, or of all, in the order in which they were written within an account."""
        if account is not None:
            return list(self._lines.get(account, ()))
        return [line for lines in self._lines.values() for line in lines]

    def invariants(self) -> dict[str, Any]:
        """Return whether every intent tag led to one order at most, and which did not.

        A tag is the magic of an order that a program sent (reason expert); 0 is no tag. A bot that gives all its
        orders one magic violates this by design and can ignore it.
        """
        violations = [
            {"account": account, "magic": magic, "orders": count} for (account, magic), count in self._repeated.items()
        ]
        return {
            "one_order_per_intent": not violations,
            "intents": len(self._orders),
            "violations": violations[:100],
        }

    def _count(self, account: str, magic: int) -> None:
        if magic:
            self._orders[account, magic] += 1
            if (count := self._orders[account, magic]) > 1:
                self._repeated[account, magic] = count

    def _append(self, *, account: str, at: str, **row: Any) -> None:
        line = json.dumps({"at": at, "account": account, **row})
        self._lines[account].append(line)
        self._write(account, line)
