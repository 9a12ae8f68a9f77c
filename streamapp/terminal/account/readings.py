"""The account, its positions and orders, symbols and quotes, as anybody may ask for them: in words, Decimal and UTC."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from streamapp.clock import Clock
from streamapp.errors import Ambiguous, Transient, Unusable
from streamapp.messages.reading import (
    Account,
    AccountReply,
    ListRequest,
    OpenPosition,
    OrdersReply,
    PositionsReply,
    Quote,
    QuoteReply,
    QuoteRequest,
    ReadReply,
    ReadRequest,
    Symbol,
    SymbolsReply,
    WorkingOrder,
)
from streamapp.mt5 import constants as mt5
from streamapp.mt5 import enums
from streamapp.terminal.account.connection import BrokerConnection
from streamapp.terminal.account.request import allowed_policies
from streamapp.terminal.journal import operation_rows
from streamapp.terminal.journal.database import Journal
from streamapp.terminal.pipe.answers import Page, R
from streamapp.terminal.pipe.calls import Call, ListOrders, ListPositions, ListSymbols, ReadAccount, ReadQuote
from streamapp.terminal.pipe.structs import Model, SymbolDetails, TradeOrder, TradePosition, number

ANSWER_WITHIN_S = 5.0
"""A read that takes longer is answered with an error: the worker has something else, or hangs."""
REQUESTS: dict[str, type[ReadRequest]] = {
    "account": ReadRequest,
    "positions": ListRequest,
    "orders": ListRequest,
    "symbols": ListRequest,
    "quote": QuoteRequest,
}
REPLIES: dict[str, type[ReadReply]] = {
    "account": AccountReply,
    "positions": PositionsReply,
    "orders": OrdersReply,
    "symbols": SymbolsReply,
    "quote": QuoteReply,
}


class Readings:
    """Answers reads; what can't be read now is an error sentence, never nothing."""

    def __init__(self, journal: Journal, connection: BrokerConnection, *, clock: Clock) -> None:
        self._journal = journal
        self._connection = connection
        self._clock = clock

    async def answer(self, operation: str, request: ReadRequest) -> ReadReply:
        """Return the reply to a read, as :data:`REQUESTS` says what is asked.

        Raises:
            Unusable: nobody has such a thing.
        """
        read: Callable[[Any], Any] = getattr(self, f"_{operation}")
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                content = await read(request)
        except TimeoutError:
            return self._reply(operation, error=f"no answer within {ANSWER_WITHIN_S:g} s: {self._state()}; ask again")
        except (Transient, Ambiguous) as error:
            return self._reply(operation, error=f"{error}; {self._state()}; ask again when it is ready")
        return self._reply(operation, **content)

    def refusal(self, operation: str, error: str) -> ReadReply:
        """Return the reply to what can't be read."""
        return self._reply(operation, error=error)

    def _reply(self, operation: str, **fields: Any) -> ReadReply:
        return REPLIES[operation](account=self._journal.book.account, at=self._clock(), **fields)

    def _state(self) -> str:
        health = self._connection.health
        return f"the account is {health.connection}" + (f": {health.detail}" if health.detail else "")

    async def _account(self, _: ReadRequest) -> dict[str, Any]:
        seen = (await self._connection.read_now(ReadAccount())).value
        info, terminal = seen.account, seen.terminal
        if info is None or terminal is None:
            raise Transient("the terminal shows no account")
        halted = await self._journal.write(lambda book: book.halted())
        money = ("balance", "credit", "profit", "equity", "margin", "margin_free", "margin_level")
        content = Account(
            **_same(info, "login", "server", "name", "company", "currency", "leverage", "trade_allowed"),
            **_numbers(info, *money),
            margin_mode=_word(enums.MARGIN_MODES, info.margin_mode),
            kind=_word(enums.ACCOUNT_KINDS, info.trade_mode),
            margin_call_level=number(info.margin_so_call),
            stop_out_level=number(info.margin_so_so),
            most_orders=info.limit_orders,
            experts_allowed=info.trade_expert,
            terminal_allows=terminal.trade_allowed and not terminal.tradeapi_disabled,
            connection=self._connection.health.connection,
            halted=halted,
        )
        return {"content": content}

    async def _positions(self, request: ListRequest) -> dict[str, Any]:
        rows, more = await self._page(ListPositions(*_place(request)), "positions")
        named = [(row.identifier, row.magic) for row in rows]
        owners = await self._journal.write(lambda book: operation_rows.names(book, named))
        content = tuple(self._position(row, owners.get(row.identifier)) for row in rows)
        return {"content": content, "next": str(rows[-1].ticket) if more else None}

    async def _orders(self, request: ListRequest) -> dict[str, Any]:
        rows, more = await self._page(ListOrders(*_place(request)), "orders")
        named = [(row.ticket, row.magic) for row in rows]
        owners = await self._journal.write(lambda book: operation_rows.names(book, named))
        content = tuple(self._order(row, owners.get(row.ticket)) for row in rows)
        return {"content": content, "next": str(rows[-1].ticket) if more else None}

    async def _symbols(self, request: ListRequest) -> dict[str, Any]:
        rows, more = await self._page(
            ListSymbols(request.symbol, request.group, request.after, request.limit), "symbols"
        )
        if request.symbol is not None and not rows:
            raise Unusable("unknown_symbol", f"expected a symbol of this broker, got {request.symbol}")
        return {"content": tuple(symbol_of(row) for row in rows), "next": rows[-1].name if more else None}

    async def _quote(self, request: QuoteRequest) -> dict[str, Any]:
        seen = (await self._connection.read_now(ReadQuote(request.symbol))).value
        spec, tick = seen.symbol, seen.tick
        if seen.unread:
            raise Transient(f"the terminal did not show {request.symbol}: {seen.unread}")
        if spec is None:
            raise Unusable("unknown_symbol", f"expected a symbol of this broker, got {request.symbol}")
        if tick is None or not tick.time_msc:
            raise Transient(f"expected a quote of {request.symbol}, there is none yet")
        bid, ask, point = number(tick.bid), number(tick.ask), number(spec.point)
        content = Quote(
            symbol=request.symbol,
            bid=bid,
            ask=ask,
            last=number(tick.last),
            volume=number(tick.volume_real),
            spread_points=(ask - bid) / point if point else ask - bid,
            time=self._connection.time.utc(tick.time_msc),
        )
        return {"content": content}

    async def _page(self, call: Call[Page[R]], table: str) -> tuple[tuple[R, ...], bool]:
        answer = await self._connection.read_now(call)
        if answer.value.rows is None:
            raise Transient(f"the terminal did not show its {table}: {answer.error[1]} ({answer.error[0]})")
        return answer.value.rows, answer.value.more

    def _position(self, row: TradePosition, order_id: str | None) -> OpenPosition:
        time = self._connection.time
        return OpenPosition(
            **_same(row, "ticket", "symbol", "magic", "comment"),
            **_numbers(row, "volume", "profit", "swap"),
            position_id=row.identifier,
            order_id=order_id,
            side=enums.SIDES[row.type],
            open_price=number(row.price_open),
            price=number(row.price_current),
            stop_loss=_price(row.sl),
            take_profit=_price(row.tp),
            reason=enums.REASONS.get(row.reason, "other"),
            opened_at=time.utc(row.time_msc),
            updated_at=time.utc(row.time_update_msc),
        )

    def _order(self, row: TradeOrder, order_id: str | None) -> WorkingOrder:
        closes_by = row.type == mt5.ORDER_TYPE_CLOSE_BY
        kind, side = ("close_by", None) if closes_by else enums.ORDER_TYPES[row.type]
        time = self._connection.time
        return WorkingOrder(
            **_same(row, "ticket", "symbol", "magic", "comment"),
            order_id=order_id,
            side=side,
            order_type=kind,
            state=_word(enums.WORKING_STATES, row.state),
            volume=number(row.volume_initial),
            remaining_volume=number(row.volume_current),
            price=number(row.price_open),
            stop_limit_price=_price(row.price_stoplimit),
            stop_loss=_price(row.sl),
            take_profit=_price(row.tp),
            time_in_force=_word(enums.LIFETIMES, row.type_time),
            expiration=time.utc(row.time_expiration * 1000) if row.time_expiration else None,
            fill_policy=_word(enums.FILL_POLICIES, row.type_filling),
            position_id=row.position_id or None,
            reason=enums.REASONS.get(row.reason, "other"),
            placed_at=time.utc(row.time_setup_msc),
        )


def symbol_of(row: SymbolDetails) -> Symbol:
    """Return a SymbolInfo in our words."""
    words = ("name", "description", "path", "digits", "spread", "currency_base", "currency_profit", "currency_margin")
    numbers = ("point", "volume_min", "volume_max", "volume_step", "volume_limit", "margin_initial")
    modes = row.order_mode
    return Symbol(
        **_same(row, *words),
        **_numbers(row, *numbers, "swap_long", "swap_short", "bid", "ask"),
        selected=row.select,
        tick_size=number(row.trade_tick_size),
        tick_value=number(row.trade_tick_value),
        contract_size=number(row.trade_contract_size),
        stops_level=row.trade_stops_level,
        freeze_level=row.trade_freeze_level,
        spread_floats=row.spread_float,
        trade_mode=_word(enums.TRADE_MODES, row.trade_mode),
        execution=_word(enums.EXECUTIONS, row.trade_exemode),
        order_types=tuple(word for word, bit in enums.ORDER_MODES.items() if modes & bit),
        fill_policies=allowed_policies(row),
        lifetimes=tuple(word for bit, word in enums.LIFETIMES.items() if row.expiration_mode & 1 << bit),
        allows_stop_loss=bool(modes & enums.SYMBOL_ORDER_SL),
        allows_take_profit=bool(modes & enums.SYMBOL_ORDER_TP),
        allows_close_by=bool(modes & enums.SYMBOL_ORDER_CLOSEBY),
    )


def _same(struct: Model, *names: str) -> dict[str, Any]:
    return {name: getattr(struct, name) for name in names}


def _numbers(struct: Model, *names: str) -> dict[str, Any]:
    return {name: number(getattr(struct, name)) for name in names}


def _place(request: ListRequest) -> tuple[str | None, str | None, str | None, int]:
    """Return what a page of tickets is asked for by."""
    if request.after is not None and not request.after.isdecimal():
        raise Unusable("invalid", f"expected after to be the next of the page before, got {request.after!r}")
    return request.symbol, request.group, request.after, request.limit


def _price(value: float) -> Any:
    return number(value) if value else None


def _word(words: Mapping[int, Any], number: int) -> Any:
    return words.get(number, "other")
