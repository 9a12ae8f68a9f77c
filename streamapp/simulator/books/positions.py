# ruff: noqa: PLR0917  # account, order, side, volume, price: the words of every execution, in one order
"""What an execution does to positions, balance and history, on hedging and on netting accounts."""

from __future__ import annotations

from decimal import Decimal

from streamapp.mt5 import constants as mt5
from streamapp.simulator.books.accounts import SimulatedAccount
from streamapp.simulator.books.books import Books
from streamapp.simulator.books.tables import ZERO, BrokerDeal, BrokerOrder, BrokerPosition


class Positions:
    """Books executions. Every change of balance is a deal, so the sum of all deals is the balance."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def execute(
        self,
        account: SimulatedAccount,
        order: BrokerOrder,
        side: int,
        volume: Decimal,
        price: Decimal,
        target: BrokerPosition | None = None,
    ) -> BrokerDeal:
        """Book ``volume`` lots at ``price``.

        On a hedging account it reduces ``target``, or opens a new position without one. On a netting account it opens,
        increases, reduces or turns round the one position of the symbol.
        """
        position = target if account.hedging else account.net_position(order.symbol)
        if position is None:
            return self._open(account, order, side, volume, price)
        order.position_id = position.identifier
        if position.side == side:
            return self._increase(account, order, position, volume, price)
        if volume <= position.volume:
            return self._reduce(account, order, position, volume, price, mt5.DEAL_ENTRY_OUT)
        return self._reverse(account, order, position, volume, price)

    def close_by(
        self, account: SimulatedAccount, order: BrokerOrder, position: BrokerPosition, other: BrokerPosition
    ) -> BrokerDeal:
        """Close two opposite positions by one another: two deals at the opening price of the second."""
        volume = min(position.volume, other.volume)
        order.position_id, order.position_by_id = position.identifier, other.identifier
        first = self._reduce(account, order, position, volume, other.price_open, mt5.DEAL_ENTRY_OUT_BY)
        self._reduce(account, order, other, volume, other.price_open, mt5.DEAL_ENTRY_OUT_BY, free=True)
        return first

    def change_stops(self, account: SimulatedAccount, position: BrokerPosition, sl: Decimal, tp: Decimal) -> None:
        """Set both levels of a position."""
        self._books.snapshot_for_lag(account, "positions", position.ticket)
        position.sl, position.tp = sl, tp
        position.time_update_msc = self._books.clock.server_ms()
        self._keep(account, position)

    def charge_swap(self, account: SimulatedAccount, position: BrokerPosition, amount: Decimal) -> None:
        """Add swap to a position; it reaches the balance when the position is closed."""
        self._books.snapshot_for_lag(account, "positions", position.ticket)
        position.swap += amount
        account.exposure(position.symbol).swap += amount
        self._keep(account, position)

    def reopen(self, account: SimulatedAccount, position: BrokerPosition) -> None:
        """Give a position a new ticket, as brokers do that re-open at rollover; its identifier stays."""
        self._books.snapshot_for_lag(account, "positions", position.ticket)
        self._drop(account, position)
        position.ticket = self._books.next_ticket()
        self._books.snapshot_for_lag(account, "positions", position.ticket)
        self._keep(account, position)

    def resize(self, account: SimulatedAccount, position: BrokerPosition, volume: Decimal, price: Decimal) -> None:
        """The broker changes volume and opening price of a position without a deal; without volume it is gone."""
        self._books.snapshot_for_lag(account, "positions", position.ticket)
        exposure = account.exposure(position.symbol)
        exposure.add(position.side, -position.volume, position.price_open, -position.margin)
        position.margin *= volume / position.volume
        position.volume, position.price_open = volume, price
        exposure.add(position.side, volume, price, position.margin)
        position.time_update_msc = self._books.clock.server_ms()
        if volume:
            self._keep(account, position)
            return
        exposure.swap -= position.swap
        self._drop(account, position)
        if not any(exposure.volume):
            account.exposures.pop(position.symbol)

    def split(self, account: SimulatedAccount, position: BrokerPosition, ratio: Decimal) -> None:
        """A split of what is traded: the position has ``ratio`` times the volume at as much less, without a deal.

        Its margin stays, and its levels go with the price.
        """
        symbol, margin = account.symbols[position.symbol], position.margin
        self.resize(account, position, position.volume * ratio, position.price_open / ratio)
        account.exposure(position.symbol).margin[position.side] += margin - position.margin
        position.margin = margin
        if position.sl or position.tp:
            sl, tp = (symbol.rounded(level / ratio) for level in (position.sl, position.tp))
            self.change_stops(account, position, sl, tp)

    def open_again(
        self, account: SimulatedAccount, order: BrokerOrder, side: int, volume: Decimal, opening: BrokerDeal
    ) -> None:
        """The broker opens a position that was closed, under its old identifier and ticket, without a deal."""
        margin = self._books.margin(account, opening.symbol, side, volume, opening.price)
        position = self._new(order, opening.position_id, side, volume, opening.price, margin)
        position.ticket, position.time_msc = opening.position_id, opening.time_msc
        self._books.snapshot_for_lag(account, "positions", position.ticket)
        account.exposure(opening.symbol).add(side, volume, opening.price, margin)
        self._keep(account, position)

    def balance(
        self,
        account: SimulatedAccount,
        amount: Decimal,
        comment: str,
        kind: int = mt5.DEAL_TYPE_BALANCE,
        trade: BrokerDeal | None = None,
    ) -> BrokerDeal:
        """Pay money in or out: a deal of a kind that does not trade; it names order and position of ``trade``.

        Credit counts for equity and not for balance.
        """
        deal = self._deal(account, None, kind, mt5.DEAL_ENTRY_IN, 0, ZERO, ZERO)
        deal.comment = comment
        if trade is not None:
            deal.order, deal.position_id, deal.symbol = trade.order, trade.position_id, trade.symbol
        self._pay(account, deal, account.round(amount))
        self._books.add_deal(account, deal)
        return deal

    def rebook(self, account: SimulatedAccount, deal: BrokerDeal, amount: Decimal) -> None:
        """Change the amount of a deal that does not trade."""
        self._books.snapshot_for_lag(account, "history_deals", deal.ticket)
        self._pay(account, deal, account.round(amount) - deal.profit)
        deal.rendered = None
        self._books.save_operation(account, deal)

    @staticmethod
    def _pay(account: SimulatedAccount, deal: BrokerDeal, amount: Decimal) -> None:
        deal.profit += amount
        if deal.type == mt5.DEAL_TYPE_CREDIT:
            account.credit += amount
        else:
            account.balance += amount

    def _new(
        self, order: BrokerOrder, identifier: int, side: int, volume: Decimal, price: Decimal, margin: Decimal
    ) -> BrokerPosition:
        """A position that an order makes; it is not yet in any table."""
        now = self._books.clock.server_ms()
        return BrokerPosition(
            ticket=order.ticket, identifier=identifier, symbol=order.symbol, side=side, volume=volume,
            price_open=price, sl=order.sl, tp=order.tp, magic=order.magic, comment=order.comment,
            reason=order.reason, time_msc=now, time_update_msc=now, margin=margin,
        )  # fmt: skip

    def _open(
        self, account: SimulatedAccount, order: BrokerOrder, side: int, volume: Decimal, price: Decimal
    ) -> BrokerDeal:
        order.position_id = order.ticket
        margin = self._books.margin(account, order.symbol, side, volume, price)
        position = self._new(order, order.ticket, side, volume, price, margin)
        self._books.snapshot_for_lag(account, "positions", position.ticket)
        account.exposure(order.symbol).add(side, volume, price, margin)
        self._keep(account, position)
        at = position.time_update_msc
        deal = self._deal(account, order, side, mt5.DEAL_ENTRY_IN, order.ticket, volume, price, at)
        return self._book(account, deal)

    def _increase(
        self, account: SimulatedAccount, order: BrokerOrder, position: BrokerPosition, volume: Decimal, price: Decimal
    ) -> BrokerDeal:
        self._books.snapshot_for_lag(account, "positions", position.ticket)
        margin = self._books.margin(account, order.symbol, position.side, volume, price)
        exposure = account.exposure(order.symbol)
        total = position.volume + volume
        average = (position.volume * position.price_open + volume * price) / total
        exposure.add(position.side, -position.volume, position.price_open, -position.margin)
        position.volume, position.price_open, position.margin = total, average, position.margin + margin
        exposure.add(position.side, total, average, position.margin)
        if not account.hedging:
            # The terminal's help on netting: the position takes the levels of the order that adds to it, none for none.
            position.sl, position.tp = order.sl, order.tp
        position.time_update_msc = self._books.clock.server_ms()
        order.position_id = position.identifier
        self._keep(account, position)
        at = position.time_update_msc
        deal = self._deal(account, order, position.side, mt5.DEAL_ENTRY_IN, position.identifier, volume, price, at)
        return self._book(account, deal)

    def _reduce(
        self, account: SimulatedAccount, order: BrokerOrder, position: BrokerPosition, volume: Decimal, price: Decimal,
        entry: int, *, free: bool = False,
    ) -> BrokerDeal:  # fmt: skip
        self._books.snapshot_for_lag(account, "positions", position.ticket)
        profit, swap = self._take(account, position, volume, price)
        if position.volume:
            self._keep(account, position)
        else:
            self._drop(account, position)
        at = position.time_update_msc
        deal = self._deal(account, order, 1 - position.side, entry, position.identifier, volume, price, at)
        deal.profit, deal.swap = profit, swap
        if free:
            deal.commission = ZERO
        return self._book(account, deal)

    def _reverse(
        self, account: SimulatedAccount, order: BrokerOrder, position: BrokerPosition, volume: Decimal, price: Decimal
    ) -> BrokerDeal:
        """One deal closes the old side and opens the new one; the position takes the ticket of this order."""
        excess, identifier, side = volume - position.volume, position.identifier, 1 - position.side
        self._books.snapshot_for_lag(account, "positions", position.ticket)
        profit, swap = self._take(account, position, position.volume, price)
        self._drop(account, position)
        margin = self._books.margin(account, order.symbol, side, excess, price)
        turned = self._new(order, identifier, side, excess, price, margin)
        self._books.snapshot_for_lag(account, "positions", turned.ticket)
        account.exposure(order.symbol).add(side, excess, price, margin)
        self._keep(account, turned)
        at = turned.time_update_msc
        deal = self._deal(account, order, side, mt5.DEAL_ENTRY_INOUT, identifier, volume, price, at)
        deal.profit, deal.swap = profit, swap
        return self._book(account, deal)

    def _take(
        self, account: SimulatedAccount, position: BrokerPosition, volume: Decimal, price: Decimal
    ) -> tuple[Decimal, Decimal]:
        """Take lots out of a position; gives their profit and their share of its swap."""
        profit = self._books.profit(account, position.symbol, position.side, volume, position.price_open, price)
        whole = volume == position.volume
        swap = position.swap if whole else account.round(position.swap * volume / position.volume)
        margin = position.margin if whole else position.margin * volume / position.volume
        exposure = account.exposure(position.symbol)
        exposure.add(position.side, -volume, position.price_open, -margin)
        exposure.swap -= swap
        position.volume -= volume
        position.margin -= margin
        position.swap -= swap
        position.time_update_msc = self._books.clock.server_ms()
        if whole and not any(exposure.volume):
            account.exposures.pop(position.symbol)
        return profit, swap

    def _deal(
        self, account: SimulatedAccount, order: BrokerOrder | None, side: int, entry: int, position_id: int,
        volume: Decimal, price: Decimal, at_msc: int | None = None,
    ) -> BrokerDeal:  # fmt: skip
        """A deal at the moment at which it made or changed its position, if it has one."""
        symbol = order.symbol if order else ""
        return BrokerDeal(
            ticket=self._books.next_deal(), order=order.ticket if order else 0,
            time_msc=at_msc or self._books.clock.server_ms(), type=side, entry=entry, magic=order.magic if order else 0,
            position_id=position_id, reason=order.reason if order else 0, volume=volume, price=price,
            commission=self._commission(account, volume) if order else ZERO, swap=ZERO, profit=ZERO, fee=ZERO,
            symbol=symbol, comment=order.comment if order else "",
        )  # fmt: skip

    def _commission(self, account: SimulatedAccount, volume: Decimal) -> Decimal:
        fee = account.profile.commission_per_lot
        if not fee:
            return ZERO
        currency = account.profile.commission_currency
        return account.round(self._books.conversion.profit(-fee * volume, currency, account.entry.currency))

    def _book(self, account: SimulatedAccount, deal: BrokerDeal) -> BrokerDeal:
        apart = deal.commission if account.profile.commission_apart else ZERO
        deal.commission -= apart
        account.balance += deal.profit + deal.commission + deal.swap + deal.fee
        self._books.add_deal(account, deal)
        if apart:
            self.balance(account, apart, f"commission #{deal.ticket}", mt5.DEAL_TYPE_COMMISSION, deal)
        return deal

    def _keep(self, account: SimulatedAccount, position: BrokerPosition) -> None:
        position.rendered = None
        account.positions.put(position.ticket, position)
        account.track_stops(position)
        self._books.save("position", account, position)

    def _drop(self, account: SimulatedAccount, position: BrokerPosition) -> None:
        account.positions.remove(position.ticket)
        account.track_stops(position)
        self._books.forget("position", account, position.ticket)
