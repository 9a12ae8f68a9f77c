"""A worker that answers by a script: for what the simulated market can't be told to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from streamapp.domain.identifiers import order_id_for
from streamapp.domain.parameters import OrderParameters, parameters_hash
from streamapp.messages.terminal import SubmitRequest
from streamapp.terminal.account.worker_client import READ, Answer, NotHandedOverError
from streamapp.terminal.worker.process import OF_THE_ACCOUNT

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
    **dict.fromkeys(("balance", "equity", "margin", "margin_free", "margin_level"), 0.0),
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
            "look": self._look,
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
            "search": lambda _: seen(),
        }

    def _look(self, asked: dict[str, Any]) -> Any:
        """Answer each part by its own function, and the permissions and the account by that of ``pulse``."""
        self.asked += [*asked["parts"].items(), ("pulse", {"symbols": asked["symbols"]})]
        seen = {
            name: {"value": self.answers[name](arguments), "took_s": self.took_s}
            for name, arguments in asked["parts"].items()
        }
        failed = [part["value"] for part in seen.values() if isinstance(part["value"], Exception)]
        pulse = self.answers["pulse"]({"symbols": asked["symbols"]})
        return failed[0] if failed else pulse if isinstance(pulse, Exception) else {"parts": seen, **pulse}

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

    async def call(
        self, operation: str, arguments: dict[str, Any], *, deadline_s: float, urgency: int = READ
    ) -> Answer:
        if not self.is_alive:
            raise NotHandedOverError("no worker")
        self.asked.append((operation, arguments))
        await asyncio.sleep(0)
        value = self.answers[operation](arguments)
        if asyncio.iscoroutine(value):
            value = await value
        if isinstance(value, Exception):
            self.is_alive = False
            raise value
        away = self.away if operation in OF_THE_ACCOUNT else None
        return Answer(value, None, self.broken, self.error, [], away, self.took_s)
