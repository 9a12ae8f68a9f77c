"""A worker that answers by a script: for what the simulated market can't be told to do.

Scripts show structs as dicts, as far as they matter; :func:`struct` makes of them what crosses the pipe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar, cast

from streamapp.domain.identifiers import order_id_for
from streamapp.domain.parameters import OrderParameters, parameters_hash
from streamapp.messages.terminal import SubmitRequest
from streamapp.terminal.account.worker_client import READ, NotHandedOverError
from streamapp.terminal.pipe.answers import (
    Answered,
    Checked,
    DealsSeen,
    EndsSeen,
    Initialized,
    Looked,
    OrderSeen,
    Page,
    PastSeen,
    PositionSeen,
    Prepared,
    SearchResult,
    SendResult,
    TicketSeen,
    Timed,
)
from streamapp.terminal.pipe.calls import (
    Call,
    Initialize,
    Look,
    OrderCheck,
    Prepare,
    ReadMoreDeals,
    ReadOrder,
    ReadPast,
    ReadPosition,
    ReadTicket,
    Search,
    Send,
)
from streamapp.terminal.pipe.structs import (
    AccountInfo,
    Model,
    SymbolInfo,
    TerminalInfo,
    Tick,
    TradeDeal,
    TradeOrder,
    TradePosition,
)
from streamapp.terminal.worker.process import OF_THE_ACCOUNT
from streamapp.terminal.worker.search import TABLES, _match

A = TypeVar("A")
M = TypeVar("M", bound=Model)

ACCOUNT = "scripted"
LOGIN, SERVER = 42, "Scripted-Demo"
SERVER_AHEAD_S = 7200

SYMBOL: dict[str, Any] = {
    "name": "EURUSD",
    "select": True,
    "trade_mode": 4,
    "order_mode": 127,
    "filling_mode": 2,
    "trade_exemode": 2,
    "volume_min": 0.01,
    "volume_max": 500.0,
    "volume_step": 0.01,
    "trade_tick_size": 1e-05,
    "point": 1e-05,
    "volume_limit": 0.0,
    "expiration_mode": 15,
    "order_gtc_mode": 0,
    "trade_stops_level": 0,
    "trade_freeze_level": 0,
    "trade_contract_size": 100000.0,
}
TERMINAL = {"connected": True, "trade_allowed": True, "tradeapi_disabled": False, "path": ""}
OWNER: dict[str, Any] = {
    "login": LOGIN,
    "server": SERVER,
    "trade_allowed": True,
    "trade_expert": True,
    "currency": "USD",
    "margin_mode": 2,
    "leverage": 500,
    **dict.fromkeys(("balance", "equity", "margin_free"), 10_000_000.0),
    **dict.fromkeys(("margin", "margin_level"), 0.0),
}


def tick(age_s: float = 0.0) -> dict[str, Any]:
    milliseconds = int((datetime.now(UTC).timestamp() + SERVER_AHEAD_S - age_s) * 1000)
    return {"bid": 1.085, "ask": 1.0851, "time": milliseconds // 1000, "time_msc": milliseconds}


def result(retcode: int, order: int = 0, **fields: Any) -> dict[str, Any]:
    return {"retcode": retcode, "order": order, "deal": 0, "comment": "", "request_id": 7, "volume": 0.1, **fields}


def deal(ticket: int, order: int, magic: int, volume: float = 0.1, **fields: Any) -> dict[str, Any]:
    return {
        "ticket": ticket,
        "order": order,
        "time_msc": tick()["time_msc"],
        "type": 0,
        "entry": 0,
        "reason": 3,
        "magic": magic,
        "position_id": order,
        "volume": volume,
        "price": 1.0851,
        "commission": -0.35,
        "swap": 0.0,
        "profit": 0.0,
        "fee": 0.0,
        "symbol": "EURUSD",
        "comment": "",
        **fields,
    }


def seen(digest: int = 1, **found: list[dict[str, Any]]) -> dict[str, Any]:
    """What a search answers: by table, the rows found."""
    tables = ("orders", "positions", "history_orders", "history_deals")
    rows = {table: found.get(table, []) for table in tables}
    return {"read": True, "counts": {table: len(rows[table]) for table in tables}, "found": rows, "digest": digest}


def struct(kind: type[M], shown: Mapping[str, Any]) -> M:
    """What crosses the pipe of a struct; what is not shown is 0, or what the model says."""
    zeros = {"int": 0, "float": 0.0, "str": "", "bool": False}
    return kind(
        **{
            field.name: shown.get(field.name, zeros.get(str(field.type)))
            for field in fields(cast(Any, kind))
            if field.name in shown or str(field.type) in zeros
        }
    )


def maybe(kind: type[M], shown: Mapping[str, Any] | None) -> M | None:
    return None if shown is None else struct(kind, shown)


def structs(kind: type[M], shown: Iterable[Mapping[str, Any]]) -> tuple[M, ...]:
    return tuple(struct(kind, row) for row in shown)


def symbol(**changes: Any) -> SymbolInfo:
    return struct(SymbolInfo, SYMBOL | changes)


def prepare(
    terminal: Mapping[str, Any] | None = TERMINAL,
    account: Mapping[str, Any] | None = OWNER,
    symbol: Mapping[str, Any] | None = SYMBOL,
    tick: Mapping[str, Any] | None = None,
    rate: float | None = 1.0,
    *,
    held: tuple[float, float] | None = None,
    position: Mapping[str, Any] | None = None,
    deals: Iterable[Mapping[str, Any]] = (),
    netted: Mapping[str, Any] | None = None,
    unread: str = "",
) -> Prepared:
    return Prepared(
        terminal=maybe(TerminalInfo, terminal),
        account=maybe(AccountInfo, account),
        symbol=maybe(SymbolInfo, symbol),
        tick=maybe(Tick, tick),
        rate=rate,
        held=held,
        position=maybe(TradePosition, position),
        deals=structs(TradeDeal, deals),
        netted=maybe(TradePosition, netted),
        unread=unread,
    )


def showing(prepared: Prepared, **shown: Any) -> Prepared:
    """The same with other structs."""
    kinds: dict[str, Any] = {"position": TradePosition, "netted": TradePosition, "tick": Tick}
    models: dict[str, Any] = {name: maybe(kinds[name], value) for name, value in shown.items() if name in kinds}
    if "deals" in shown:
        models["deals"] = structs(TradeDeal, shown["deals"])
    return replace(prepared, **models)


def submit_request(name: str = "s-1", *, epoch: str, valid_s: float = 30.0, **changes: Any) -> SubmitRequest:
    wanted = OrderParameters(
        **{"symbol": "EURUSD", "side": "buy", "order_type": "market", "volume": Decimal("0.1"), **changes}
    )
    return SubmitRequest(
        order_id=order_id_for("tests", ACCOUNT, name),
        account=ACCOUNT,
        hash=parameters_hash(wanted),
        epoch=epoch,
        not_after=datetime.now(UTC) + timedelta(seconds=valid_s),
        parameters=wanted,
    )


class ScriptedWorker:
    """Answers each operation by a function that a test may replace; ``asked`` keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.is_alive = False
        self.starts = 0
        self.error = (1, "Success")
        self.broken: tuple[int, str] | None = None
        self.away: str | None = None
        self.took_s = 0.0
        self.answers: dict[str, Callable[[dict[str, Any]], Any]] = {
            "initialize": lambda _: {"done": True},
            "pulse": lambda _: {"terminal": TERMINAL, "account": OWNER, "tick": tick()},
            "past": lambda _: {"digest": 1, "lacking": ""},
            "prepare": lambda _: {
                "terminal": TERMINAL,
                "account": OWNER,
                "symbol": SYMBOL,
                "tick": tick(),
                "rate": 1.0,
            },
            "send": lambda _: self.sent(result(10009, order=1000 + self.sent_so_far)),
            "deals": lambda _: {"read": True, "deals": [], "more": False, "digest": 1},
            "ticket": lambda _: {"deals": [], "order": None, "done": False},
            "ended": lambda _: {"read": True, "orders": [], "looked": []},
            "positions": lambda _: [],
            "position_now": lambda _: {"read": True},
            "working": lambda _: [],
            "search": lambda _: seen(),
        }

    def sent(self, value: dict[str, Any] | None) -> dict[str, Any]:
        return {"sent": True, "result": value, "at": datetime.now(UTC).timestamp()}

    @property
    def sent_so_far(self) -> int:
        return sum(operation == "send" for operation, _ in self.asked)

    @property
    def sends(self) -> list[dict[str, Any]]:
        return [arguments["request"] for operation, arguments in self.asked if operation == "send"]

    async def start(self) -> None:
        self.is_alive = True
        self.starts += 1

    async def end(self) -> None:
        self.is_alive = False

    async def call(self, call: Call[A], *, deadline_s: float, urgency: int = READ) -> Answered[A]:
        if not self.is_alive:
            raise NotHandedOverError("no worker")
        await asyncio.sleep(0)
        try:
            found: Any = await self._found(call)
        except ScriptedError as error:
            self.is_alive = False
            raise error.raised from None
        away = self.away if type(call) in OF_THE_ACCOUNT else None
        return Answered(None if away else found, None, away, self.broken, self.error, (), self.took_s)

    async def _found(self, call: Call[Any]) -> Any:
        if not isinstance(call, Look):
            name, as_found = ANSWERS[type(call)]
            return as_found(await self._shown(name, arguments_of(call)))
        asked: dict[str, Any] = {} if call.deals is None else {"deals": arguments_of(call.deals)}
        asked |= {} if call.ends is None else {"ended": arguments_of(call.ends)}
        asked |= {"positions": {}} if call.positions else {}
        asked |= {"working": {}} if call.orders else {}
        self.asked.append(("look", {"parts": asked}))
        parts = {name: await self._shown(name, arguments) for name, arguments in asked.items()}
        pulse = await self._shown("pulse", {"symbols": call.symbols})
        return Looked(
            terminal=maybe(TerminalInfo, pulse["terminal"]),
            account=maybe(AccountInfo, pulse["account"]),
            tick=maybe(Tick, pulse["tick"]),
            selected=tuple(pulse.get("selected", ())),
            unread=pulse.get("unread", ""),
            deals=Timed(deals_seen(parts["deals"]), self.took_s) if "deals" in parts else None,
            ends=Timed(ends_seen(parts["ended"]), self.took_s) if "ended" in parts else None,
            positions=Timed(page(TradePosition, parts["positions"]), self.took_s) if "positions" in parts else None,
            orders=Timed(page(TradeOrder, parts["working"]), self.took_s) if "working" in parts else None,
        )

    async def _shown(self, name: str, arguments: dict[str, Any]) -> Any:
        self.asked.append((name, arguments))
        shown = self.answers[name](arguments)
        if asyncio.iscoroutine(shown):
            shown = await shown
        if isinstance(shown, Exception):
            raise ScriptedError(shown)
        return shown


class ScriptedError(Exception):
    """The script says that a call ends so."""

    def __init__(self, raised: Exception) -> None:
        super().__init__(str(raised))
        self.raised = raised


def arguments_of(call: Model) -> dict[str, Any]:
    """What is asked, by name; tuples as lists."""
    values = {field.name: getattr(call, field.name) for field in fields(cast(Any, call))}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def deals_seen(shown: dict[str, Any]) -> DealsSeen:
    return DealsSeen(shown["read"], structs(TradeDeal, shown["deals"]), shown["more"], shown["digest"])


def ends_seen(shown: dict[str, Any]) -> EndsSeen:
    orders, looked, working = structs(TradeOrder, shown["orders"]), shown["looked"], shown.get("working", ())
    return EndsSeen(shown["read"], orders, tuple(looked), tuple(working))


def page(kind: type[M], shown: list[dict[str, Any]] | None) -> Page[M]:
    return Page(None if shown is None else structs(kind, shown))


def send_result(shown: dict[str, Any]) -> SendResult:
    raw, deals = shown.get("result") or {}, shown.get("deals")
    return SendResult(
        shown["sent"],
        **{name: raw[name] for name in ("retcode", "order", "request_id", "comment") if name in raw},
        raw=raw,
        at=shown.get("at", 0.0),
        logged_in_as=shown.get("elsewhere"),
        deals=None if deals is None else structs(TradeDeal, deals),
    )


def ticket_seen(shown: dict[str, Any]) -> TicketSeen:
    return TicketSeen(structs(TradeDeal, shown["deals"]), maybe(TradeOrder, shown["order"]), shown["done"])


def found(shown: dict[str, Any]) -> SearchResult:
    rows = shown["found"]
    zeros = {
        "magic": 0,
        "comment": "",
        "symbol": "EURUSD",
        "type": 0,
        "reason": 3,
        **dict.fromkeys(("identifier", "order", "time_msc", "time_setup_msc"), 0),
        **dict.fromkeys(("volume", "volume_initial"), 0.0),
    }
    matches = [_match(name, TABLES[name], zeros | row) for name, found in rows.items() for row in found]
    deals = structs(TradeDeal, rows.get("history_deals", ()))
    return SearchResult(shown["read"], shown["counts"], tuple(matches), deals, shown["digest"])


def order_seen(shown: dict[str, Any]) -> OrderSeen:
    market = shown.get("prepared")
    orders = maybe(TradeOrder, shown.get("live")), maybe(TradeOrder, shown.get("past"))
    return OrderSeen(shown["read"], *orders, None if market is None else prepare(**market))


def position_seen(shown: dict[str, Any]) -> PositionSeen:
    market, live = shown.get("prepared"), maybe(TradePosition, shown.get("live"))
    deals = structs(TradeDeal, shown.get("deals") or ())
    return PositionSeen(shown["read"], live, deals, None if market is None else prepare(**market))


ANSWERS: dict[type[Call[Any]], tuple[str, Callable[[Any], Any]]] = {
    Initialize: ("initialize", lambda shown: Initialized(shown["done"])),
    ReadPast: ("past", lambda shown: PastSeen(**shown)),
    Prepare: ("prepare", lambda shown: prepare(**shown)),
    OrderCheck: ("check", lambda shown: Checked(None if shown is None else shown["retcode"])),
    Send: ("send", send_result),
    ReadMoreDeals: ("more_deals", deals_seen),
    ReadTicket: ("ticket", ticket_seen),
    Search: ("search", found),
    ReadOrder: ("order_now", order_seen),
    ReadPosition: ("position_now", position_seen),
}
"""What scripts call a call, and what becomes of their answer."""
