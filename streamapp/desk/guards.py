"""The guards before a quote, on an account's rows: what is open is looked at only where a limit on it is set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from streamapp.desk.state import Draft
from streamapp.domain.guards import AccountFacts, OpenExposure, OrderToOpen, before_quote
from streamapp.domain.limits import AccountLimits, QuoteLimits, quote_overrides
from streamapp.domain.orders import EXACT, exact_sum
from streamapp.domain.parameters import OrderParameters
from streamapp.domain.vocabulary import FINAL_STATUSES, Side
from tables.orders import OrderRow

NONE = AccountLimits()
SECOND = timedelta(seconds=1)


def limits_of(draft: Draft) -> AccountLimits:
    """Return what holds at the account now: the file's limits, and what persons have set in their place."""
    return file_limits_of(draft).replaced(draft.account_row().limits)


def file_limits_of(draft: Draft) -> AccountLimits:
    """Return what the settings let the account open."""
    return draft.policy.limits.get(draft.account, NONE)


def broken_guard(draft: Draft, parameters: OrderParameters, approved_at: datetime) -> str | None:
    """Return a sentence about the first guard that an order breaks which opens, None if it keeps them all."""
    limits = limits_of(draft)
    order = limits.of_order(parameters.symbol)
    broken = before_quote(OrderToOpen(parameters, approved_at, draft.now, limits, order, _DraftFacts(draft)))
    if broken is None:
        return None
    draft.counts["guards", broken.guard] += 1
    return str(broken)


def count_opening(draft: Draft) -> None:
    """Count an order that is opened: durably for the day, in memory for the second."""
    day = draft.today
    draft.put_account(draft.account_row().model_copy(update={"day": day.model_copy(update={"orders": day.orders + 1})}))
    if limits_of(draft).account.max_orders_per_second is not None:
        draft.memory = replace(draft.memory, opened=(*_last_second(draft), draft.now))


def overrides_of(draft: Draft, symbol: str) -> QuoteLimits | None:
    """Return what a terminal must judge an order of ``symbol`` by in place of its file, None if nothing was changed."""
    overrides = draft.account_row().limits
    return None if overrides.at is None else quote_overrides(overrides, limits_of(draft), symbol)


def _last_second(draft: Draft) -> tuple[datetime, ...]:
    since = draft.now - SECOND
    return tuple(at for at in draft.memory.opened if at > since)


@dataclass(frozen=True, slots=True)
class _DraftFacts(AccountFacts):
    draft: Draft

    def open_orders(self, symbol: str | None) -> int:
        draft = self.draft
        changed = [row for row in draft.changed.values() if isinstance(row, OrderRow) and _is_of(row, symbol)]
        # Of this commit's own orders as they are by now: no other row is read to count them.
        ids = draft.open.orders(symbol) - {row.order_id for row in changed}
        return len(ids) + sum(row.status not in FINAL_STATUSES for row in changed)

    def symbols(self) -> Iterable[str]:
        return sorted(self.draft.symbols())

    def exposure(self, symbol: str) -> OpenExposure:
        net = exact_sum(row.state.net for row in self.draft.positions_of(symbol))
        orders = self.draft.orders_of(symbol)
        return OpenExposure(net, _on_its_way(orders, "buy"), _on_its_way(orders, "sell"))

    @property
    def orders_today(self) -> int:
        return self.draft.today.orders

    @property
    def orders_last_second(self) -> int:
        return len(_last_second(self.draft))

    @property
    def server_offset_s(self) -> int | None:
        return self.draft.server_offset_s


def _is_of(row: OrderRow, symbol: str | None) -> bool:
    created = row.state.created
    return created is not None and symbol in {None, created.parameters.symbol}


def _on_its_way(orders: Iterable[OrderRow], side: Side) -> Decimal:
    """Return the lots that orders which open are still to fill; one that is in doubt may be filled."""
    opening = (
        (row.state.created.parameters.volume, row.state.filled)
        for row in orders
        if row.state.created is not None
        and row.state.created.position_id is None
        and row.state.created.parameters.side == side
    )
    return exact_sum(max(EXACT.subtract(volume, filled), Decimal(0)) for volume, filled in opening)
