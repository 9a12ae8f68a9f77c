"""What others do at an account: a person with a phone, another program, the broker."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

from streamapp.mt5 import constants as mt5
from streamapp.mt5.enums import BUSTED_TRADES, TRADES
from streamapp.simulator.books.accounts import SimulatedAccount
from streamapp.simulator.books.books import Books
from streamapp.simulator.books.money import BUY
from streamapp.simulator.books.positions import Positions
from streamapp.simulator.books.tables import ZERO, BrokerDeal, BrokerPosition, LaggingTable, Row
from streamapp.simulator.server.executor import RequestExecutor
from streamapp.simulator.server.matching import Matching
from streamapp.simulator.server.requests import OrderRequest, exact

# What foreign_activity can do, by the table whose row it does it to.
OF_POSITIONS = ("close", "modify", "duplicate", "split")
OF_ORDERS = {
    "cancel": mt5.ORDER_STATE_CANCELED,
    "expire": mt5.ORDER_STATE_EXPIRED,
    "reject": mt5.ORDER_STATE_REJECTED,
}
OF_DEALS = ("bust", "correct", "relabel")
ACTIONS = (*OF_POSITIONS, *OF_ORDERS, *OF_DEALS)

_BUSTED = dict(zip(TRADES, BUSTED_TRADES, strict=True))


class DealCorrections:
    """Changes deals that were shown already. Tickets stay; a busted deal changes its type, as in MetaTrader 5."""

    def __init__(self, books: Books, positions: Positions) -> None:
        self._books = books
        self._positions = positions

    def bust(self, account: SimulatedAccount, deal: BrokerDeal) -> None:
        """Take a deal back: type BUY_CANCELED or SELL_CANCELED, no profit, and the position as if it had not been.

        What it had earned is withdrawn by a balance operation of its own (MQL5 reference, ENUM_DEAL_TYPE).

        Raises:
            ValueError: the deal is no buy or sell any more, it turned a position round, or its position was turned
                round since or (netting) followed by another one.
        """
        _must_trade(deal)
        if deal.entry not in (mt5.DEAL_ENTRY_IN, mt5.DEAL_ENTRY_OUT):
            raise ValueError(f"expected a deal with entry in or out to bust, got {deal.ticket} of entry {deal.entry}")
        self._must_fit(account, deal)
        before = self._about_to_change(account, deal)
        if deal.entry == mt5.DEAL_ENTRY_IN:
            self._take_out(account, deal)
        else:
            self._put_back(account, deal)
        earned, deal.profit, deal.type = deal.profit, ZERO, _BUSTED[deal.type]
        self._keep(account, deal, "bust", before)
        if earned:
            self._positions.balance(account, -earned, f"cancel #{deal.ticket}")

    def correct(self, account: SimulatedAccount, deal: BrokerDeal, price: Decimal) -> None:
        """Book a deal at another price; a position that it opened takes it over, a profit changes the balance.

        Raises:
            ValueError: the deal is no buy or sell.
        """
        _must_trade(deal)
        before = self._about_to_change(account, deal)
        position = self._position(account, deal)
        if deal.entry == mt5.DEAL_ENTRY_IN and position is not None and position.side == deal.type:
            moved = position.price_open + (price - deal.price) * min(deal.volume, position.volume) / position.volume
            self._positions.resize(account, position, position.volume, moved)
        elif deal.entry in (mt5.DEAL_ENTRY_OUT, mt5.DEAL_ENTRY_OUT_BY):
            side = 1 - deal.type
            change = self._books.profit(account, deal.symbol, side, deal.volume, deal.price, price)
            deal.profit += change
            account.balance += change
        deal.price = price
        self._keep(account, deal, "correction", before)

    def relabel(self, account: SimulatedAccount, deal: BrokerDeal, magic: int, comment: str) -> None:
        """Give a deal another magic and comment: nothing of the trade changes, and the ledger has no line of it."""
        self._books.snapshot_for_lag(account, "history_deals", deal.ticket)
        deal.magic, deal.comment, deal.rendered = magic, comment, None
        self._books.save("deal", account, deal)

    def _must_fit(self, account: SimulatedAccount, deal: BrokerDeal) -> None:
        side = deal.type if deal.entry == mt5.DEAL_ENTRY_IN else 1 - deal.type
        position = self._position(account, deal)
        if position is None and not account.hedging and deal.entry == mt5.DEAL_ENTRY_OUT:
            position = account.net_position(deal.symbol)
            fits = position is None
        else:
            fits = position is None or position.side == side
        if not fits:
            raise ValueError(f"expected a deal of the present position, got {deal.ticket} of one before it")

    def _about_to_change(self, account: SimulatedAccount, deal: BrokerDeal) -> BrokerDeal:
        self._books.snapshot_for_lag(account, "history_deals", deal.ticket)
        return replace(deal)

    def _keep(self, account: SimulatedAccount, deal: BrokerDeal, kind: str, before: BrokerDeal) -> None:
        deal.rendered = None
        self._books.save("deal", account, deal)
        self._books.ledger.deal(account.name, self._books.clock.utc_text(), replace(deal, type=before.type), kind)

    def _position(self, account: SimulatedAccount, deal: BrokerDeal) -> BrokerPosition | None:
        held = account.positions.live.values()
        return next((position for position in held if position.identifier == deal.position_id), None)

    def _take_out(self, account: SimulatedAccount, deal: BrokerDeal) -> None:
        """The volume that a deal opened is not there any more; what was closed meanwhile stays closed."""
        position = self._position(account, deal)
        if position is not None:
            left = max(position.volume - deal.volume, ZERO)
            self._positions.resize(account, position, left, position.price_open)

    def _put_back(self, account: SimulatedAccount, deal: BrokerDeal) -> None:
        """The volume that a deal closed is open again, at the price of its position's opening."""
        position = self._position(account, deal)
        if position is not None:
            self._positions.resize(account, position, position.volume + deal.volume, position.price_open)
            return
        deals = account.history_deals.live.values()
        opening = next(d for d in deals if d.position_id == deal.position_id and d.entry == mt5.DEAL_ENTRY_IN)
        order = account.history_orders.live[opening.order]
        self._positions.open_again(account, order, 1 - deal.type, deal.volume, opening)


class ThirdParty:
    """Does ``foreign_activity`` (params.action, see ACTIONS) and ``ticket_reopen``."""

    def __init__(self, books: Books, positions: Positions, matching: Matching, executor: RequestExecutor) -> None:
        self._books = books
        self._positions = positions
        self._matching = matching
        self._executor = executor
        self._corrections = DealCorrections(books, positions)

    def act(
        self, kind: str, params: dict[str, Any], accounts: list[SimulatedAccount], request: OrderRequest | None = None
    ) -> None:
        """Do the deed on the row that ``params`` name (position, order or deal), or on all of a table.

        After a call (with ``request``), all means: those of its magic.

        Raises:
            ValueError: a deal was to be busted or corrected that can't be, or none was named.
        """
        action = params.get("action", "close")
        for account in accounts:
            if kind == "ticket_reopen":
                for position in _wanted(account.positions, params, "position", request):
                    self._positions.reopen(account, position)
            elif action in OF_ORDERS:
                for order in _wanted(account.orders, params, "order", request):
                    self._books.finish_order(account, order, OF_ORDERS[action])
            elif action in OF_DEALS:
                self._change_deals(action, params, account, request)
            else:
                for position in _wanted(account.positions, params, "position", request):
                    self._change_position(action, params, account, position)

    def _change_deals(
        self, action: str, params: dict[str, Any], account: SimulatedAccount, request: OrderRequest | None
    ) -> None:
        if "deal" not in params and request is None:
            raise ValueError(f"expected params.deal with the ticket of the deal to {action}, got {params}")
        for deal in _wanted(account.history_deals, params, "deal", request):
            if action == "bust":
                self._corrections.bust(account, deal)
            elif action == "relabel":
                magic, comment = int(params.get("magic", deal.magic)), str(params.get("comment", deal.comment))
                self._corrections.relabel(account, deal, magic, comment)
            else:
                self._corrections.correct(account, deal, Decimal(str(params["price"])))

    def _change_position(
        self, action: str, params: dict[str, Any], account: SimulatedAccount, position: BrokerPosition
    ) -> None:
        if action == "close":
            price = self._matching.market_price(account, account.symbols[position.symbol], 1 - position.side)
            volume = min(Decimal(str(params.get("volume", position.volume))), position.volume)
            self._matching.close(account, position, price, mt5.ORDER_REASON_MOBILE, "", volume)
        elif action == "modify":
            sl, tp = (exact(float(params.get(name, 0.0))) for name in ("sl", "tp"))
            self._positions.change_stops(account, position, sl, tp)
        elif action == "split":
            self._positions.split(account, position, Decimal(str(params["ratio"])))
        else:
            self._duplicate(account, position)

    def _duplicate(self, account: SimulatedAccount, position: BrokerPosition) -> None:
        """Another program sends the same order, with the same magic."""
        symbol = account.symbols[position.symbol]
        filling = mt5.ORDER_FILLING_IOC if symbol.filling & 2 else mt5.ORDER_FILLING_FOK
        bid, ask = self._books.feed.quote(symbol.feed)
        zero = exact(0.0)
        request = OrderRequest(
            action=mt5.TRADE_ACTION_DEAL, magic=position.magic, order=0, symbol=position.symbol,
            volume=position.volume, price=ask if position.side == BUY else bid, stoplimit=zero, sl=zero, tp=zero,
            deviation=100, type=position.side, type_filling=filling, type_time=0, expiration=0,
            comment=position.comment, position=0, position_by=0,
        )  # fmt: skip
        self._executor.execute(account, request)


def _must_trade(deal: BrokerDeal) -> None:
    if deal.type not in TRADES:
        raise ValueError(f"expected a deal that bought or sold, got {deal.ticket} of type {deal.type}")


def _wanted(table: LaggingTable[Row], params: dict[str, Any], name: str, request: OrderRequest | None) -> list[Row]:
    rows = list(table.live.values())
    if name in params:
        return [row for row in rows if params[name] in (row.ticket, getattr(row, "identifier", row.ticket))]
    return rows if request is None else [row for row in rows if row.magic == request.magic]
