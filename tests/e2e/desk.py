"""One trader at a whole stack: sends signals, sets the market's prices and faults, and hears what becomes of it."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import aiohttp
from nats.aio.client import Client

from streamapp.commands.signals import HEARD
from streamapp.domain.identifiers import magic_of, order_id_for
from streamapp.domain.vocabulary import time_text
from streamapp.messages.log import BrokerLogBatch, BrokerLogEntry
from streamapp.nats.connection import connect
from streamapp.nats.signals import NatsSignals
from streamapp.settings import Settings
from streamapp.subjects import terminal
from tests.kit.waiting import eventually


class Desk:
    """What a test says and hears. Signals are known by the names that the test gives them."""

    def __init__(self, settings: Settings, nats: Client, http: aiohttp.ClientSession) -> None:
        self.settings = settings
        self.nats = nats
        self._http = http
        self._run = secrets.token_hex(3)
        self._accounts: dict[str, str] = {}
        self._orders: dict[str, list[dict[str, Any]]] = {}
        self._log: list[BrokerLogEntry] = []
        self.fills: list[dict[str, Any]] = []
        self.refusals: dict[str, dict[str, Any]] = {}
        self._answers: dict[int, tuple[str, dict[str, Any]]] = {}
        self.split: dict[str, list[dict[str, Any]]] = {}

    def continues(self, other: Desk) -> None:
        """Know the signals that another one has sent by the names it gave them."""
        self._run, self._accounts = other._run, dict(other._accounts)

    async def listen(self) -> None:
        for subject in HEARD:
            await self.nats.subscribe(subject, cb=self._heard)
        await self.nats.subscribe("mt5.log.>", cb=self._logged)
        await self.nats.flush()

    async def _heard(self, message: Any) -> None:
        said = json.loads(message.data)
        match said.get("schema"):
            case "order/1":
                self._orders.setdefault(said["signal_id"], []).append(said)
            case "fill/1":
                self.fills.append(said)
            case "accepted/1" | "refused/1":
                self._answers[said["stream_seq"]] = message.subject, said
                if said["schema"] == "refused/1":
                    self.refusals[said["signal_id"]] = said
            case "answer/1":
                self.split.setdefault(said["signal_id"], []).append(said)

    async def _logged(self, message: Any) -> None:
        self._log.extend(BrokerLogBatch.decode(message.data).entries)

    # --- signals and what becomes of them

    async def send(
        self, name: str, account: str | None, symbol: str = "EURUSD", side: str = "buy", **fields: Any
    ) -> None:
        """Send a signal to an account; None: to those of its route."""
        if account is not None:
            self._accounts[name] = account
        signal = {"signal_id": self.signal_id(name), "status": "approved", "account": account, "symbol": symbol}
        signal |= {"side": side, "order_type": "market", "volume": "0.10", "approved_at": time_text(datetime.now(UTC))}
        payload = json.dumps(signal | fields).encode()
        await NatsSignals(lambda: self.nats, self.settings.nats).publish(payload, symbol=symbol, message_id=None)

    async def publish(self, subject: str, payload: bytes) -> int:
        """Publish any bytes as JetStream should have them; return their place in the stream."""
        return (await self.nats.jetstream().publish(subject, payload)).seq

    async def answer(self, sequence: int) -> tuple[str, dict[str, Any]]:
        """Return the subject and the content of the answer to a message of the stream."""
        found: tuple[str, dict[str, Any]] = await eventually(
            lambda: self._answers.get(sequence), f"an answer to message {sequence}"
        )
        return found

    def signal_id(self, name: str) -> str:
        return f"desk-{self._run}-{name}"

    def order_id(self, name: str) -> str:
        return order_id_for(self.settings.deployment, self._accounts[name], self.signal_id(name))

    async def answered(self, name: str) -> list[dict[str, Any]]:
        """Return the copies of the one answer to a signal."""
        (answer,) = await eventually(lambda: self.split.get(self.signal_id(name)), f"the answer to {name}")
        return list(answer["copies"])

    def statuses(self, name: str) -> list[str]:
        return [said["status"] for said in self._orders.get(self.signal_id(name), ())]

    async def ended(self, name: str, status: str, detail: str = "") -> dict[str, Any]:
        """Return the newest order/1 once the order has this status and detail."""

        def newest() -> dict[str, Any] | None:
            said = self._orders.get(self.signal_id(name), [None])[-1]
            return said if said is not None and (said["status"], said["detail"]) == (status, detail) else None

        found: dict[str, Any] = await eventually(newest, lambda: f"{name} {status}/{detail}; {self._story(name)}")
        return found

    async def works(self, name: str) -> dict[str, Any]:
        """Return the order as the workers know it once it works at the broker."""

        async def working() -> dict[str, Any] | None:
            order = await self.view(f"/orders/{self.order_id(name)}")
            return order if order.get("detail") == "working" and order.get("ticket") else None

        found: dict[str, Any] = await eventually(working, lambda: f"{name} working; {self._story(name)}")
        return found

    def _story(self, name: str) -> list[tuple[str, str, str | None]]:
        said = self._orders.get(self.signal_id(name), ())
        refused = self.refusals.get(self.signal_id(name))
        story = [(order["status"], order["detail"], order["reason"]) for order in said]
        return story if refused is None else [("refused", refused["reason"], refused["detail"])]

    async def view(self, path: str) -> dict[str, Any]:
        async with self._http.get(f"http://127.0.0.1:{self.settings.ports.trading()}{path}") as answer:
            return dict(await answer.json()) if answer.status == 200 else {}

    async def position(self, account: str, position_id: int) -> Decimal:
        """Return the signed lots of a position as the workers know them; 0 where there is none."""
        for position in (await self.view(f"/positions?account={account}")).get("positions", ()):
            if position["position_id"] == position_id:
                return Decimal(position["volume"]) * (-1 if position["side"] == "sell" else 1)
        return Decimal(0)

    async def closed(self, position_id: int, reason: str) -> dict[str, Any]:
        """Return the fill that closed a position for this reason."""

        def closing() -> dict[str, Any] | None:
            fills = (fill for fill in self.fills if fill["position_id"] == position_id)
            return next((fill for fill in fills if fill["reason"] == reason), None)

        found: dict[str, Any] = await eventually(closing, lambda: f"position {position_id} closed by {reason}")
        return found

    async def ask(self, operation: str, account: str, **fields: Any) -> dict[str, Any]:
        """Ask the account's terminal for an operation until it has a final answer."""
        request = {"request_id": f"{self._run}-{secrets.token_hex(4)}", "account": account}
        request |= {"not_after": time_text(datetime.now(UTC) + timedelta(seconds=30)), **fields}

        async def final() -> dict[str, Any] | None:
            subject = terminal(account, operation)
            reply = json.loads((await self.nats.request(subject, json.dumps(request).encode(), timeout=30)).data)
            return dict(reply) if reply.get("outcome") != "unknown" else None

        found: dict[str, Any] = await eventually(final, lambda: f"an answer to {operation}")
        return found

    async def epoch(self, account: str) -> str:
        return str(json.loads((await self.nats.request(terminal(account, "hello"), b"", timeout=30)).data)["epoch"])

    async def sent(self, name: str) -> dict[str, Any]:
        """Return the one request that the terminal sent for an order; the broker log tells it a moment later."""
        order_id = self.order_id(name)

        def told() -> list[BrokerLogEntry]:
            return [entry for entry in self._log if entry.function == "order_send" and entry.order_id == order_id]

        found: list[BrokerLogEntry] = await eventually(told, f"the request of {name}")
        (entry,) = found
        assert entry.request is not None
        return entry.request

    async def asked(self, account: str, **named: Any) -> list[dict[str, Any]]:
        """Return each ``order_send`` of an account that has these values, once there is one."""

        def told() -> dict[str, dict[str, Any]]:
            sent = (each for each in self._log if (each.account, each.function) == (account, "order_send"))
            return {each.hash: each.request for each in sent if each.request and named.items() <= each.request.items()}

        return list((await eventually(told, f"a request of {account} with {named}")).values())

    # --- the market

    async def pin(self, symbol: str, bid: str, ask: str) -> None:
        await self._market("/quotes/" + symbol, {"bid": bid, "ask": ask})

    async def fault(self, kind: str, account: str, **fields: Any) -> None:
        """Let the next ``order_send`` of an account be struck."""
        await self._market("/faults", {"kind": kind, "account": account, "nth": 1, **fields})

    async def intervene(self, account: str, **deed: Any) -> None:
        """Let the broker or somebody else do something at an account now."""
        await self._market("/faults", {"kind": "foreign_activity", "account": account, "params": deed})

    @asynccontextmanager
    async def broken(self, kind: str, account: str, **params: Any) -> AsyncIterator[None]:
        """Let an account have a fault as long as this is open."""
        await self._market("/faults", {"kind": kind, "account": account, "params": params})
        yield
        async with self._http.delete(f"http://{self.settings.market_address}/faults") as answer:
            assert answer.status == 200

    async def _market(self, path: str, body: dict[str, Any]) -> None:
        async with self._http.post(f"http://{self.settings.market_address}{path}", json=body) as answer:
            assert answer.status == 200, await answer.text()

    async def ledger(self, name: str) -> list[dict[str, Any]]:
        """Return what the broker's own ledger says of an order: its order, then its deals."""
        magic, rows = magic_of(self.order_id(name)), await self._ledger()
        orders = [row for row in rows if row["kind"] == "order" and row["magic"] == magic and row["reason"] == "expert"]
        tickets = {order["ticket"] for order in orders}
        return orders + [row for row in rows if row["kind"] == "deal" and row["order"] in tickets]

    async def deals(self, position_id: int) -> list[tuple[str, Decimal]]:
        """Return entry and lots of each deal of a position, by the broker's own ledger."""
        rows = [row for row in await self._ledger() if row["kind"] == "deal" and row["position_id"] == position_id]
        return [(row["entry"], Decimal(row["volume"])) for row in rows]

    async def _ledger(self) -> list[dict[str, Any]]:
        async with self._http.get(f"http://{self.settings.market_address}/ledger") as answer:
            return list(map(json.loads, (await answer.text()).splitlines()))

    async def health(self) -> dict[str, Any]:
        async with self._http.get(f"http://{self.settings.market_address}/health") as answer:
            return dict(await answer.json())


@asynccontextmanager
async def desk_at(settings: Settings) -> AsyncIterator[Desk]:
    nats = await connect(settings, "streamapp-test-desk")
    try:
        async with aiohttp.ClientSession() as http:
            desk = Desk(settings, nats, http)
            await desk.listen()
            yield desk
    finally:
        await nats.close()
