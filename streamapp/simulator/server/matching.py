"""Fills orders, whole or in parts, at the prices of now; ends those whose time is over."""

from __future__ import annotations

import random
from decimal import ROUND_DOWN, Decimal

from streamapp.mt5 import constants as mt5
from streamapp.simulator.books.accounts import SimulatedAccount
from streamapp.simulator.books.books import Books
from streamapp.simulator.books.money import BUY
from streamapp.simulator.books.positions import Positions
from streamapp.simulator.books.tables import ZERO, BrokerOrder, BrokerPosition
from streamapp.simulator.prices.symbols import SymbolSpec
from streamapp.simulator.server.faults import Faults
from streamapp.simulator.server.requests import LIMITS
from streamapp.simulator.server.schedule import ScheduledEvents, Timeline

# What the fault ``activation_partial`` leaves open is settled this much later: long enough to be seen working.
PARTIAL_REST_MS = 500


def share_of(symbol: SymbolSpec, volume: Decimal, share: Decimal) -> Decimal:
    """Return a share of a volume, down to the symbol's step and at least its smallest volume."""
    steps = (volume * share / symbol.volume_step).quantize(Decimal(1), ROUND_DOWN)
    return max(symbol.volume_min, steps * symbol.volume_step)


class Matching:
    """Every method leaves tables, balance and ledger consistent.

    Args:
        books: The accounts.
        positions: Books the executions.
        faults: Asked at the activation of a pending order.
        schedule: Gets the handlers ``go_on``, ``reject`` and ``cancel`` of a working order.
        timeline: Ends orders in time.
        draws: Chance of the slippage.
        slippage: Whether market orders slip where the price moves by itself.
    """

    def __init__(
        self, books: Books, positions: Positions, faults: Faults, schedule: ScheduledEvents, timeline: Timeline,
        *, draws: random.Random, slippage: bool,
    ) -> None:  # fmt: skip
        self._books = books
        self._positions = positions
        self._faults = faults
        self._schedule = schedule
        self._timeline = timeline
        self._random = draws
        self._slips = slippage
        schedule.handlers.update(
            go_on=self._go_on_later,
            reject=lambda name, ticket: self._finish_later(name, ticket, mt5.ORDER_STATE_REJECTED),
            cancel=lambda name, ticket: self._finish_later(name, ticket, mt5.ORDER_STATE_CANCELED),
        )

    # -- prices

    def market_price(self, account: SimulatedAccount, symbol: SymbolSpec, side: int) -> Decimal:
        """Return what a market order gets now: the quote, with slippage where the price moves by itself."""
        quoted = self._books.feed.quotes[symbol.feed]
        price = quoted.ask if side == BUY else quoted.bid
        if quoted.pinned or not self._slips:
            return price
        return price + self._slipped_points(account) * symbol.tick_size * (1 if side == BUY else -1)

    def _slipped_points(self, account: SimulatedAccount) -> int:
        """Points of slippage: mostly none, sometimes some, positive is worse for the client."""
        none, adverse, favourable = account.profile.slippage
        draw = self._random.random()
        if draw < none:
            return 0
        if draw < none + adverse:
            return 1 + int(abs(self._random.gauss(0, 1)))
        if draw < none + adverse + favourable:
            return -1
        return 3 + int(self._random.expovariate(0.3))

    # -- fills

    def fill(
        self, account: SimulatedAccount, order: BrokerOrder, volume: Decimal, price: Decimal,
        target: BrokerPosition | None = None,
    ) -> int:  # fmt: skip
        """Execute a part of an order, or all of it, and return the deal's ticket."""
        self._books.snapshot_for_lag(account, "orders", order.ticket)
        deal = self._positions.execute(account, order, order.type % 2, volume, price, target)
        order.volume_current -= volume
        order.price_current = price
        if order.volume_current <= ZERO:
            self._books.finish_order(account, order, mt5.ORDER_STATE_FILLED)
        else:
            order.state = mt5.ORDER_STATE_PARTIAL
            self._books.save("order", account, order)
        return deal.ticket

    def go_on(self, account: SimulatedAccount, order: BrokerOrder, volume: Decimal) -> None:
        """Fill up to ``volume`` more of a working market order, at the price of now."""
        if order.ticket not in account.orders.live:
            return
        target = self._target(account, order)
        closes = account.hedging and order.position_id not in (0, order.ticket)
        if closes and target is None:
            self._books.finish_order(account, order, mt5.ORDER_STATE_CANCELED)
            return
        if closes and target is not None:
            volume = min(volume, target.volume)
        price = self.market_price(account, account.symbols[order.symbol], order.type % 2)
        if order.type in LIMITS:
            price = (min if order.type % 2 == BUY else max)(price, order.price_open)
        self.fill(account, order, min(volume, order.volume_current), price, target)

    def leave_rest(self, account: SimulatedAccount, order: BrokerOrder, rest_after_ms: int | None) -> None:
        """Treat what was not filled: cancelled with IOC, working with RETURN or where the broker goes on filling."""
        if rest_after_ms is not None:
            self._schedule.after(rest_after_ms, "go_on", account.name, order.ticket)
        elif order.type_filling != mt5.ORDER_FILLING_RETURN:
            self._books.finish_order(account, order, mt5.ORDER_STATE_PARTIAL)
            return
        order.state = mt5.ORDER_STATE_PARTIAL
        self._books.save("order", account, order)

    def activate(self, account: SimulatedAccount, order: BrokerOrder, price: Decimal) -> None:
        """Execute a pending order whose price came, as far as liquidity and the broker let it."""
        volume, symbol = order.volume_current, account.symbols[order.symbol]
        if symbol.liquidity is not None and volume > symbol.liquidity:
            if order.type_filling == mt5.ORDER_FILLING_FOK:
                return
            volume = symbol.liquidity
        fault = self._faults.standing(account, "activation_partial")
        if fault is not None and order.state != mt5.ORDER_STATE_PARTIAL:
            volume = share_of(symbol, volume, Decimal(str(fault.params.get("share", "0.5"))))
        elif order.state == mt5.ORDER_STATE_PARTIAL and symbol.liquidity is None:
            return
        self.fill(account, order, volume, price, self._target(account, order))
        if fault is None and order.volume_current and order.type_filling == mt5.ORDER_FILLING_IOC:
            self._books.finish_order(account, order, mt5.ORDER_STATE_PARTIAL)
        if fault is not None and order.volume_current:
            rest = "cancel" if fault.params.get("rest") == "cancel" else "go_on"
            self._schedule.after(fault.params.get("after_ms", PARTIAL_REST_MS), rest, account.name, order.ticket)

    def close(  # noqa: PLR0917  # as positions.execute
        self, account: SimulatedAccount, position: BrokerPosition, price: Decimal, reason: int, comment: str,
        volume: Decimal | None = None,
    ) -> None:  # fmt: skip
        """Have the server, or somebody else, close a position or ``volume`` lots of it."""
        volume = position.volume if volume is None else volume
        order = BrokerOrder(
            ticket=self._books.next_ticket(), symbol=position.symbol, type=1 - position.side,
            state=mt5.ORDER_STATE_STARTED, magic=position.magic if account.profile.stops_magic else 0,
            comment=comment, reason=reason, volume_initial=volume, volume_current=volume,
            price_open=price, sl=ZERO, tp=ZERO, time_setup_msc=self._books.clock.server_ms(),
            type_filling=mt5.ORDER_FILLING_FOK, position_id=position.identifier, price_current=price,
        )  # fmt: skip
        self._books.add_order(account, order)
        self.fill(account, order, volume, price, position)

    def _target(self, account: SimulatedAccount, order: BrokerOrder) -> BrokerPosition | None:
        """The position that a working order on a hedging account closes or goes on filling."""
        held = account.positions.live.values()
        return next((p for p in held if p.identifier == order.position_id and order.position_id), None)

    # -- later

    def watch_expiry(self, account: SimulatedAccount, order: BrokerOrder) -> None:
        """Have an order end when its time is over; one that was changed or is gone by then stays as it is."""
        if order.expires_ms is not None:
            self._timeline.at_server_time(order.expires_ms, lambda: self._expire(account, order))

    def _expire(self, account: SimulatedAccount, order: BrokerOrder) -> None:
        due_ms = order.expires_ms
        if order.ticket not in account.orders.live or due_ms is None:
            return
        if due_ms <= self._books.clock.server_ms():
            self._books.finish_order(account, order, mt5.ORDER_STATE_EXPIRED)
        else:
            # It was changed, or the server's clock was put back meanwhile.
            self.watch_expiry(account, order)

    def _go_on_later(self, name: str, ticket: int) -> None:
        account, order = self._working(name, ticket)
        if account is not None and order is not None:
            self.go_on(account, order, order.volume_current)

    def _finish_later(self, name: str, ticket: int, state: int) -> None:
        account, order = self._working(name, ticket)
        if account is not None and order is not None:
            self._books.finish_order(account, order, state)

    def _working(self, name: str, ticket: int) -> tuple[SimulatedAccount | None, BrokerOrder | None]:
        account = self._books.accounts.get(name)
        return account, account.orders.live.get(ticket) if account is not None else None
