"""What a broker does to deals afterwards: takes one back (a bust), or books it at another price."""

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

from streamapp.mt5 import constants as mt5
from streamapp.simulator.accounts import Account
from streamapp.simulator.money import ZERO
from streamapp.simulator.rows import Deal, Position

if TYPE_CHECKING:
    from streamapp.simulator.market import Market

_CANCELED = {
    mt5.DEAL_TYPE_BUY: mt5.DEAL_TYPE_BUY_CANCELED,
    mt5.DEAL_TYPE_SELL: mt5.DEAL_TYPE_SELL_CANCELED,
}


class Corrections:
    """Changes deals that were shown already. Tickets stay; a busted deal changes its type, as in MetaTrader 5."""

    def __init__(self, market: "Market") -> None:
        """Corrects deals of the accounts of `market`."""
        self._market = market

    def bust(self, account: Account, deal: Deal) -> None:
        """Takes a deal back: type BUY_CANCELED or SELL_CANCELED, no profit, and the position as if it had not been.

        What it had earned is withdrawn by a balance operation of its own (MQL5 reference, ENUM_DEAL_TYPE).

        Raises:
            ValueError: the deal is no buy or sell any more, it turned a position round, or its position was turned
                round since or (netting) followed by another one.
        """
        if deal.type not in _CANCELED:
            raise ValueError(f"expected a deal that bought or sold, got {deal.ticket} of type {deal.type}")
        if deal.entry not in (mt5.DEAL_ENTRY_IN, mt5.DEAL_ENTRY_OUT):
            raise ValueError(f"expected a deal with entry in or out to bust, got {deal.ticket} of entry {deal.entry}")
        self._must_fit(account, deal)
        before = self._about_to_change(account, deal)
        if deal.entry == mt5.DEAL_ENTRY_IN:
            self._take_out(account, deal)
        else:
            self._put_back(account, deal)
        earned, deal.profit, deal.type = deal.profit, ZERO, _CANCELED[deal.type]
        self._keep(account, deal, "bust", before)
        if earned:
            self._market.positions.balance(account, -earned, f"cancel #{deal.ticket}")

    def correct(self, account: Account, deal: Deal, price: Decimal) -> None:
        """Books a deal at another price; a position that it opened takes it over, a profit changes the balance."""
        before = self._about_to_change(account, deal)
        position = self._position(account, deal)
        if deal.entry == mt5.DEAL_ENTRY_IN and position is not None and position.side == deal.type:
            moved = position.price_open + (price - deal.price) * min(deal.volume, position.volume) / position.volume
            self._market.positions.resize(account, position, position.volume, moved)
        elif deal.entry in (mt5.DEAL_ENTRY_OUT, mt5.DEAL_ENTRY_OUT_BY):
            side = 1 - deal.type
            change = self._market.positions.profit(account, deal.symbol, side, deal.volume, deal.price, price)
            deal.profit += change
            account.balance += change
        deal.price = price
        self._keep(account, deal, "correction", before)

    def _must_fit(self, account: Account, deal: Deal) -> None:
        side = deal.type if deal.entry == mt5.DEAL_ENTRY_IN else 1 - deal.type
        position = self._position(account, deal)
        if position is None and not account.hedging and deal.entry == mt5.DEAL_ENTRY_OUT:
            position = account.net_position(deal.symbol)
            fits = position is None
        else:
            fits = position is None or position.side == side
        if not fits:
            raise ValueError(f"expected a deal of the present position, got {deal.ticket} of one before it")

    def _about_to_change(self, account: Account, deal: Deal) -> Deal:
        self._market.before(account, "history_deals", deal.ticket)
        return replace(deal)

    def _keep(self, account: Account, deal: Deal, kind: str, before: Deal) -> None:
        deal.cached = None
        self._market.save("deal", account, deal)
        self._market.ledger.deal(account.name, self._market.clock.utc_text(), replace(deal, type=before.type), kind)

    def _position(self, account: Account, deal: Deal) -> Position | None:
        held = account.positions.live.values()
        return next((position for position in held if position.identifier == deal.position_id), None)

    def _take_out(self, account: Account, deal: Deal) -> None:
        """The volume that a deal opened is not there any more; what was closed meanwhile stays closed."""
        position = self._position(account, deal)
        if position is not None:
            left = max(position.volume - deal.volume, ZERO)
            self._market.positions.resize(account, position, left, position.price_open)

    def _put_back(self, account: Account, deal: Deal) -> None:
        """The volume that a deal closed is open again, at the price of its position's opening."""
        position = self._position(account, deal)
        if position is not None:
            self._market.positions.resize(account, position, position.volume + deal.volume, position.price_open)
            return
        deals = account.history_deals.live.values()
        opening = next(d for d in deals if d.position_id == deal.position_id and d.entry == mt5.DEAL_ENTRY_IN)
        order = account.history_orders.live[opening.order]
        self._market.positions.open_again(account, order, 1 - deal.type, deal.volume, opening)
