"""The terminal between a client and the market: one session a connection, one method a function of the module.

A method gives its result as JSON text, in the shape that the module turns into structs, or raises `CallFailed`.
`order_send` may answer later, so it takes a callback.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from streamapp.simulator import constants as mt5
from streamapp.simulator.accounts import Account
from streamapp.simulator.bars import Bar
from streamapp.simulator.codes import ERROR_TEXT
from streamapp.simulator.constants import RES_S_OK
from streamapp.simulator.dealing import Dealing, Struck
from streamapp.simulator.market import Market
from streamapp.simulator.money import Valuation
from streamapp.simulator.prices import Prices
from streamapp.simulator.requests import Result, exact, request_from
from streamapp.simulator.rows import Position
from streamapp.simulator.rpc import EXIT_CODE
from streamapp.simulator.symbol_info import SymbolInfos
from streamapp.simulator.symbols import Symbol
from streamapp.simulator.validation import SERVER_CHECKS, TERMINAL_CHECKS, intake, refusal

BUILD_DATE = "16 Sep 2026"

# The functions that answer at once, by name. order_send may take its time.
CALLS = (
    "hello", "initialize", "login", "version", "terminal_info", "account_info", "symbols_total", "symbols_get",
    "symbol_info", "symbol_info_tick", "symbol_select", "orders_total", "orders_get", "positions_total",
    "positions_get", "history_orders_total", "history_orders_get", "history_deals_total", "history_deals_get",
    "order_check", "order_calc_margin", "order_calc_profit", "copy_rates_from", "copy_rates_from_pos",
    "copy_rates_range", "copy_ticks_from", "copy_ticks_range", "market_book_add", "market_book_get",
    "market_book_release",
)  # fmt: skip

Row = TypeVar("Row")

Reply = Callable[[int, str, str], None]
"""Takes a code of last_error(), its text, and the result as JSON."""


class CallFailed(Exception):  # noqa: N818  # it reads as what it is
    """The terminal refuses a call: `None` for the caller, with a code and words for last_error()."""

    def __init__(self, code: int, text: str | None = None) -> None:
        """`text` if it is not the usual one of the code."""
        super().__init__(code, text)
        self.code = code
        self.text = text if text is not None else ERROR_TEXT[code]


class Session:
    """One connected client. Its account is chosen by initialize or login."""

    def __init__(self, market: Market, infos: SymbolInfos, hang_up: Callable[[], None]) -> None:
        """A session that is not logged in; `hang_up` ends its connection."""
        self.market = market
        self.infos = infos
        self.out_of_phase = False
        self._hang_up = hang_up
        self._dealing = Dealing(market)
        self._account: Account | None = None
        self._joined_ms = 0
        self._path = "C:\\Program Files\\MetaTrader 5"
        self._hidden: set[str] = set()
        self._books: set[str] = set()
        self._prices = Prices(market)
        self._calls: dict[str, Callable[..., str]] = {name: getattr(self, name) for name in CALLS}

    @property
    def account(self) -> Account:
        """The account that the terminal shows: the one that is logged in, unless somebody switched it."""
        if self._account is None:
            raise CallFailed(mt5.RES_E_AUTH_FAILED)
        if self.market.faults.active:
            switched = self.market.faults.standing(self._account, "account_switched")
            if switched is not None:
                return self.market.find(switched.params.get("login", "")) or self._account
        return self._account

    def call(self, method: str, arguments: list[Any], reply: Reply) -> None:
        """Does one call of the module and answers it, now, later or, where a fault says so, never."""
        try:
            struck: Struck = {}
            if self.market.faults.active and self._account is not None:
                struck = self.market.faults.strike(self._account, method)
                reply = self._on_the_way(struck, reply)
            if "drop_before" in struck:
                raise CallFailed(mt5.RES_E_INTERNAL_FAIL_SEND)
            if method == "order_send":
                self.order_send(arguments[0], struck, reply)
                return
            function = self._calls.get(method)
            if function is None:
                raise CallFailed(mt5.RES_E_UNSUPPORTED)
            reply(RES_S_OK, "Success", function(*arguments))
        except CallFailed as failed:
            reply(failed.code, failed.text, "null")

    def _on_the_way(self, struck: Struck, reply: Reply) -> Reply:
        """What happens to the reply of a call, after it was executed."""
        if not struck:
            return reply

        def twisted(code: int, text: str, result: str) -> None:
            if "terminal_restart" in struck or "terminal_update" in struck:
                self._hang_up()
            elif "drop_after" in struck:
                reply(mt5.RES_E_INTERNAL_FAIL_RECEIVE, ERROR_TEXT[mt5.RES_E_INTERNAL_FAIL_RECEIVE], "null")
            elif "crash_client" in struck:
                reply(EXIT_CODE, "", "null")
            elif "hang" in struck:
                delay = struck["hang"].params.get("ms")
                if delay is not None:
                    self.market.wait(float(delay), lambda: reply(code, text, result))
            else:
                self.out_of_phase = self.out_of_phase or "desync" in struck
                reply(code, text, result)

        return twisted

    def end(self) -> None:
        """The client is gone."""
        self.market.leave(id(self))

    def now(self) -> int:
        """The time by which tables are shown."""
        return self.market.clock.utc_ms()

    def _join(self, account: Account) -> None:
        self._account, self._joined_ms = account, self.now()
        self.market.join(id(self), account, self._hang_up)

    # ---- connection

    def hello(self) -> str:
        """How the module is to behave."""
        return json.dumps({"hold_gil": self.market.settings.hold_gil})

    def initialize(self, path: str, login: int, password: str, server: str) -> str:
        """Logs in, by login, by an account's name at the end of the path, or into the first account."""
        self._path = path or self._path
        if login:
            return self.login(login, password, server)
        name = path.replace("\\", "/").rsplit("/", 1)[-1]
        account = self.market.accounts.get(name) or next(iter(self.market.accounts.values()), None)
        if account is None or account.settings.password is not None:
            raise CallFailed(mt5.RES_E_AUTH_FAILED)
        return self._log_in(account)

    def login(self, login: int, password: str, server: str) -> str:
        """Logs in. A password that the account does not have is not looked at."""
        account = self.market.find(login)
        if account is None or (server and server != account.settings.server):
            raise CallFailed(mt5.RES_E_AUTH_FAILED)
        if account.settings.password is not None and password != account.settings.password:
            raise CallFailed(mt5.RES_E_AUTH_FAILED)
        return self._log_in(account)

    def _log_in(self, account: Account) -> str:
        """A terminal that is restarting is not there to log in."""
        for kind in ("terminal_restart", "terminal_update"):
            if self.market.faults.standing(account, kind) is not None:
                raise CallFailed(mt5.RES_E_INTERNAL_FAIL_TIMEOUT)
        self._join(account)
        return "true"

    def version(self) -> str:
        """Build of the terminal."""
        return json.dumps([500, self.market.build, BUILD_DATE])

    def terminal_info(self) -> str:
        """The values of a TerminalInfo."""
        account, stands = self.account, self._stands
        return json.dumps([
            False, False, not stands("disconnect"), False, not stands("autotrading_off"), stands("api_disabled"),
            False, False, False, False, self.market.build, 100000, 0, 45000, 0.0, 0.0, account.profile.company,
            "MetaTrader 5", "English", self._path, self._path, self._path,
        ])  # fmt: skip

    def _stands(self, kind: str) -> bool:
        faults = self.market.faults
        return bool(faults.active) and faults.standing(self.account, kind) is not None

    def account_info(self) -> str:
        """The values of an AccountInfo."""
        account = self.account
        profile, entry = account.profile, account.settings
        equity, margin, profit = self.market.money(account)
        return json.dumps([
            entry.login, entry.trade_mode, account.leverage, profile.limit_orders, int(profile.stop_out_in_money),
            not self._stands("investor"), not self._stands("server_disables_ea"), account.margin_mode,
            account.digits, profile.fifo_close, float(account.balance), float(account.credit), float(profit),
            float(equity), float(margin), float(equity - margin),
            round(float(account.margin_level(equity, margin)), 2), float(profile.margin_call),
            float(profile.stop_out), 0.0, 0.0, 0.0, 0.0, 0.0, entry.name, entry.server, entry.currency,
            profile.company,
        ])  # fmt: skip

    # ---- symbols

    def symbols_total(self) -> str:
        """How many symbols the broker has."""
        return str(len(self.account.symbols))

    def symbols_get(self) -> str:
        """Every symbol; the module filters by group."""
        return array(self.infos.info(self.account, name, name not in self._hidden) for name in self.account.symbols)

    def symbol_info(self, name: str) -> str:
        """One symbol."""
        if name not in self.account.symbols:
            raise CallFailed(mt5.RES_E_NOT_FOUND)
        return self.infos.info(self.account, name, name not in self._hidden)

    def symbol_info_tick(self, name: str) -> str:
        """The last tick of a symbol in the Market Watch."""
        if name not in self.account.symbols or name in self._hidden:
            raise CallFailed(mt5.RES_E_NOT_FOUND)
        symbol = self.account.symbols[name]
        off = self.market.faults.standing(self.account, "disconnect") if self.market.faults.active else None
        return self.infos.tick(symbol, off.quotes[symbol.feed] if off else None)

    def symbol_select(self, name: str, enable: bool) -> str:
        """Shows or hides a symbol in the Market Watch; one with positions or orders stays."""
        if name not in self.account.symbols:
            raise CallFailed(mt5.RES_E_NOT_FOUND)
        if enable:
            self._hidden.discard(name)
            return "true"
        if name in self.account.exposures or self.account.pending.get(name):
            raise CallFailed(mt5.RES_E_FAIL)
        self._hidden.add(name)
        return "true"

    # ---- prices of the past, depth of market

    def _bars(self, name: str, timeframe: int) -> list[Bar]:
        bars = self._prices.bars(self._known(name), timeframe)
        if bars is None:
            raise CallFailed(mt5.RES_E_INVALID_PARAMS)
        return bars

    def _known(self, name: str) -> Symbol:
        if name not in self.account.symbols:
            raise CallFailed(mt5.RES_E_NOT_FOUND)
        return self.account.symbols[name]

    def copy_rates_from(self, name: str, timeframe: int, date_from: int, count: int) -> str:
        """The last `count` bars that opened by a date."""
        bars = [bar for bar in self._bars(name, timeframe) if bar[0] <= date_from]
        return json.dumps(bars[-count:] if count > 0 else [])

    def copy_rates_from_pos(self, name: str, timeframe: int, start: int, count: int) -> str:
        """`count` bars up to the one that is `start` bars before the present one."""
        bars = self._bars(name, timeframe)
        end = len(bars) - start
        return json.dumps(bars[max(end - count, 0) : max(end, 0)])

    def copy_rates_range(self, name: str, timeframe: int, date_from: int, date_to: int) -> str:
        """The bars that opened in a span."""
        return json.dumps([bar for bar in self._bars(name, timeframe) if date_from <= bar[0] <= date_to])

    def copy_ticks_from(self, name: str, date_from: int, count: int, flags: int) -> str:
        """The first `count` ticks from a date on."""
        return self._prices.ticks(self._known(name), date_from, 2**31, count, flags)

    def copy_ticks_range(self, name: str, date_from: int, date_to: int, flags: int) -> str:
        """The ticks of a span."""
        return self._prices.ticks(self._known(name), date_from, date_to, None, flags)

    def market_book_add(self, name: str) -> str:
        """Subscribes to a depth of market."""
        self._books.add(self._known(name).name)
        return "true"

    def market_book_get(self, name: str) -> str:
        """A depth of market that was subscribed to."""
        if name not in self._books:
            raise CallFailed(mt5.RES_E_NOT_FOUND)
        return self._prices.book(self._known(name))

    def market_book_release(self, name: str) -> str:
        """Ends a subscription."""
        if name not in self._books:
            raise CallFailed(mt5.RES_E_NOT_FOUND)
        self._books.discard(name)
        return "true"

    # ---- tables

    def orders_total(self) -> str:
        """How many orders are active."""
        return str(sum(1 for _ in self.account.orders.seen(self.now())))

    def orders_get(self, symbol: str | None, ticket: int) -> str:
        """Active orders, all or of a symbol or by ticket."""
        rows = (row for key, row in self.account.orders.seen(self.now()) if not ticket or key == ticket)
        return array(row.wire() for row in rows if symbol is None or row.symbol == symbol)

    def positions_total(self) -> str:
        """How many positions are open."""
        return str(sum(1 for _ in self.account.positions.seen(self.now())))

    def positions_get(self, symbol: str | None, ticket: int) -> str:
        """Open positions, all or of a symbol or by ticket."""
        if ticket:
            row = self.account.positions.seen_row(ticket, self.now())
            return array(self._valued([row] if row else []))
        rows = (row for _, row in self.account.positions.seen(self.now()))
        return array(self._valued(row for row in rows if symbol is None or row.symbol == symbol))

    def _valued(self, rows: Iterable[Position]) -> Iterator[str]:
        """Positions at the prices of now; a symbol's rates are looked up once for all of its positions."""
        valuations: dict[str, Valuation] = {}
        account = self.account
        for row in rows:
            valuation = valuations.get(row.symbol)
            if valuation is None:
                valuation = valuations[row.symbol] = self.market.valuation(account, row.symbol)
            price, profit = valuation.of(row.side, row.volume, row.price_open)
            yield row.wire(price, account.round(profit))

    def history_orders_total(self, date_from: int, date_to: int) -> str:
        """How many orders were done in a span of server time."""
        return str(len(self.account.history_orders.between(date_from * 1000, date_to * 1000 + 999, self.now())))

    def history_deals_total(self, date_from: int, date_to: int) -> str:
        """How many deals were made in a span of server time."""
        return str(len(self.account.history_deals.between(date_from * 1000, date_to * 1000 + 999, self.now())))

    def history_orders_get(self, date_from: int, date_to: int, ticket: int, position: int) -> str:
        """Orders that are done: by ticket, by position, or of a span of server time in seconds."""
        history = self.account.history_orders
        if ticket:
            row = history.seen_row(ticket, self.now())
            return array([row.wire()] if row else [])
        if position:
            return array(row.wire() for row in self._loaded(history.of_position(position, self.now())))
        found = history.between(date_from * 1000, date_to * 1000 + 999, self.now())
        return array(row.wire() for row in self._loaded(found))

    def history_deals_get(self, date_from: int, date_to: int, ticket: int, position: int) -> str:
        """Deals: by order ticket (at most one), by position, or of a span of server time in seconds."""
        history = self.account.history_deals
        if ticket:
            of_order = [row for _, row in history.seen(self.now()) if row.order == ticket]
            return array(row.wire() for row in of_order[:1])
        if position:
            return array(row.wire() for row in self._loaded(history.of_position(position, self.now())))
        found = history.between(date_from * 1000, date_to * 1000 + 999, self.now())
        return array(row.wire() for row in self._loaded(found))

    def _loaded(self, rows: list[Row]) -> list[Row]:
        """The part of a history that the terminal has already fetched: without a fault, all of it."""
        partial = self.market.faults.standing(self.account, "history_partial") if self.market.faults.active else None
        if partial is None or self.now() >= self._joined_ms + int(partial.params.get("after_login_ms", 1 << 50)):
            return rows
        return rows[: int(len(rows) * float(partial.params.get("share", 0.5)))]

    # ---- trading

    def order_calc_margin(self, action: int, symbol: str, volume: float, price: float) -> str:
        """Margin of a market order, in the account's currency."""
        if symbol not in self.account.symbols or action > 1:
            raise CallFailed(mt5.RES_E_NOT_FOUND if action <= 1 else mt5.RES_E_INVALID_PARAMS)
        margin = self.market.positions.margin(self.account, symbol, action, exact(volume), exact(price))
        return json.dumps(float(self.account.round(margin)))

    def order_calc_profit(self, action: int, symbol: str, volume: float, opened: float, closed: float) -> str:
        """Profit of a position, in the account's currency."""
        if symbol not in self.account.symbols or action > 1:
            raise CallFailed(mt5.RES_E_NOT_FOUND if action <= 1 else mt5.RES_E_INVALID_PARAMS)
        values = exact(volume), exact(opened), exact(closed)
        return json.dumps(float(self.market.positions.profit(self.account, symbol, action, *values)))

    def order_check(self, values: list[Any]) -> str:
        """Code, projected money and words for a request, without its execution."""
        account = self.account
        it = intake(self.market, account, request_from(values))
        code = refusal(it, TERMINAL_CHECKS) or refusal(it, SERVER_CHECKS)
        equity, margin, profit = self.market.money(account)
        if not code and it.request.action == mt5.TRADE_ACTION_DEAL and it.opens:
            volume, price = it.request.volume, it.market_price()
            margin += account.round(
                self.market.positions.margin(account, it.known.name, it.request.side, volume, price)
            )
        numbers = (account.balance, equity, profit, margin, equity - margin, account.margin_level(equity, margin))
        projected = [float(n) for n in numbers] if not code else [0.0] * 6
        return json.dumps([code, *projected, Result(code).text()])

    def order_send(self, values: list[Any], struck: Struck, reply: Reply) -> None:
        """Sends a request through the terminal's checks to the server and answers with its result."""
        if self._stands("api_disabled"):
            raise CallFailed(mt5.RES_E_AUTO_TRADING_DISABLED)
        request = request_from(values)
        self._dealing.send(self.account, request, struck, lambda result: reply(RES_S_OK, "Success", result.wire()))


def array(rows: Iterable[str]) -> str:
    """A JSON array of rows that are JSON already."""
    return "[" + ",".join(rows) + "]"
