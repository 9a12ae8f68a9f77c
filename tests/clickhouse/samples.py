"""One full and one sparse message of every schema that the warehouse stores."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from streamapp import topics
from streamapp.clickhouse.rows import SourceRecord
from streamapp.domain.facts import BrokerAccepted, make_fact
from streamapp.messages.account import AccountMessage, AccountOperationMessage
from streamapp.messages.command import CommandResultMessage
from streamapp.messages.commit import Publication, encode_commit
from streamapp.messages.decision import DecisionMessage
from streamapp.messages.envelope import Message
from streamapp.messages.fact import FactMessage
from streamapp.messages.fill import FillMessage
from streamapp.messages.log import GENESIS_HASH, BrokerLogEntry, BrokerLogPlace, chained, encode_entries
from streamapp.messages.order import MarketQuote, OrderCost, OrderMessage, Slippage
from streamapp.messages.position import PositionMessage

AT = datetime(2026, 11, 20, 12, 0, 0, 123456, tzinfo=UTC)
SLIPPAGE = Slippage(
    expected=OrderCost(points=Decimal(2), bps=Decimal("0.1843"), money=Decimal("2.00")),
    touch=OrderCost(points=Decimal(-1), bps=Decimal("-0.0921"), money=None),
    currency="USD",
)


def order(order_id: str = "o-1", rev: int = 3, **changes: Any) -> OrderMessage:
    fields: dict[str, Any] = {
        "order_id": order_id,
        "signal_id": f"s-{order_id}",
        "account": "demo-hedging",
        "strategy": "breakout",
        "symbol": "EURUSD",
        "side": "buy",
        "order_type": "limit",
        "volume": Decimal("0.10"),
        "price": Decimal("1.08512"),
        "stop_loss": Decimal("1.07900"),
        "status": "submitted",
        "detail": "working",
        "rev": rev,
        "filled_volume": Decimal(0),
        "remaining_volume": Decimal("0.10"),
        "average_price": Decimal("1.0851233333333333333333"),
        "quote": MarketQuote(bid=Decimal("1.08510"), ask=Decimal("1.08514"), at=AT),
        "slippage": SLIPPAGE,
        "expected_price": Decimal("1.08512"),
        "expected_price_source": "signal",
        "ticket": 2**53 + 1,
        "position_id": 7,
        "magic": 2**63 - 1,
        "attempt": 1,
        "executor": "streamapp",
        "not_after": AT + timedelta(seconds=30),
        "signal_at": AT,
        "created_at": AT,
        "submitted_at": AT,
        "updated_at": AT + timedelta(seconds=rev),
        "causation_id": "report:demo-hedging:e:1",
        "facts_digest": "d" * 64,
    }
    return OrderMessage(**(fields | changes))


def sparse_order(order_id: str = "o-2") -> OrderMessage:
    optional = "strategy price stop_loss average_price quote slippage expected_price expected_price_source ticket"
    nothing = dict.fromkeys([*optional.split(), "position_id", "submitted_at", "causation_id"])
    return order(order_id, 1, order_type="market", status="pending", detail="created", **nothing)


def fill(deal: int = 11, **changes: Any) -> FillMessage:
    fields: dict[str, Any] = {
        "fill_id": f"demo-hedging:{deal}",
        "order_id": "o-1",
        "signal_id": "s-o-1",
        "opening_order_id": "o-0",
        "opening_signal_id": "s-o-0",
        "account": "demo-hedging",
        "strategy": "breakout",
        "symbol": "EURUSD",
        "side": "buy",
        "entry": "in",
        "reason": "expert",
        "deal": deal,
        "ticket": 5,
        "position_id": 5,
        "magic": 2**63 - 1,
        "volume": Decimal("0.10"),
        "price": Decimal("1.08514"),
        "commission": Decimal("-0.35"),
        "currency": "USD",
        "at": AT,
        "expected_price": Decimal("1.08512"),
        "slippage": SLIPPAGE,
        "executor": "streamapp",
    }
    return FillMessage(**(fields | changes))


def position(rev: int = 1, **changes: Any) -> PositionMessage:
    fields: dict[str, Any] = {
        "account": "demo-hedging",
        "strategy": "breakout",
        "opening_order_id": "o-1",
        "opening_signal_id": "s-o-1",
        "symbol": "EURUSD",
        "position_id": 5,
        "side": "buy",
        "volume": Decimal("0.10"),
        "average_price": Decimal("1.08514"),
        "realized_profit": Decimal("-0.35"),
        "currency": "USD",
        "rev": rev,
        "opened_at": AT,
        "at": AT,
    }
    return PositionMessage(**(fields | changes))


def account(**changes: Any) -> AccountMessage:
    fields: dict[str, Any] = {
        "account": "demo-hedging",
        "connection": "ready",
        "balance": Decimal("1000000.00"),
        "equity": Decimal("1000001.50"),
        "currency": "USD",
        "leverage": 500,
        "epoch": "e-1",
        "at": AT,
    }
    return AccountMessage(**(fields | changes))


def operation(deal: int = 21, **changes: Any) -> AccountOperationMessage:
    fields: dict[str, Any] = {
        "account": "demo-hedging",
        "deal": deal,
        "type": "commission",
        "amount": Decimal("-0.35"),
        "currency": "USD",
        "position_id": 5,
        "symbol": "EURUSD",
        "ticket": 5,
        "comment": "commission #11",
        "at": AT,
    }
    return AccountOperationMessage(**(fields | changes))


def decision(stream_seq: int = 1, **changes: Any) -> DecisionMessage:
    fields: dict[str, Any] = {
        "account": "demo-hedging",
        "signal_id": "s-1",
        "stream_seq": stream_seq,
        "symbol": "EURUSD",
        "decision": "accepted",
        "order_id": "o-1",
        "parameters_hash": "a" * 64,
        "at": AT,
        "payload": '{"signal_id": "s-1", "note": "ünïcode \\" \\\\"}',
    }
    return DecisionMessage(**(fields | changes))


def command_result(revision: int = 2, **changes: Any) -> CommandResultMessage:
    fields: dict[str, Any] = {
        "account": "demo-hedging",
        "position_id": 5,
        "reason": "it's enough",
        "issued_by": "risk-desk",
        "issued_at": AT,
        "valid_until": AT,
        "request_id": "c-1",
        "command": "position.close",
        "values": {"volume": "0.10"},
        "state": "failed",
        "revision": revision,
        "why": "not_closed",
        "detail": "order o-1 is rejected",
        "order_ids": ("o-1", "o-2"),
        "stream_seq": 7,
        "at": AT,
    }
    return CommandResultMessage(**(fields | changes))


def fact(ticket: int = 5, order_id: str | None = "o-1") -> FactMessage:
    said = make_fact("demo-hedging", order_id, BrokerAccepted(ticket=ticket), at=AT, causation_id="report:x")
    return FactMessage.of(said)


def log_entry(seq: int = 1) -> Message:
    return chained(
        GENESIS_HASH,
        account="demo-hedging",
        epoch="e-1",
        seq=seq,
        at=AT,
        function="order_send",
        request={"price": 1.08514, "comment": "g1abc é", "nested": {"b": [1, 2.5, None]}},
        response=[1, "text"],
        last_error=(1, "Success"),
        order_id="o-1",
        duration_us=1234,
    )


def commit(*messages: Message, number: int = 1) -> bytes:
    """commit/1 of these facts and other messages, in their order."""
    facts = [message.encode() for message in messages if isinstance(message, FactMessage)]
    others = [Publication(message.encode()) for message in messages if not isinstance(message, FactMessage)]
    return encode_commit("demo-hedging", number, AT, facts, others)


def record(*messages: Message, offset: int = 0, partition: int = 0) -> SourceRecord:
    """The record that carries these messages: entries of the broker log in a batch, all others in a commit."""
    if isinstance(messages[0], BrokerLogEntry):
        place = BrokerLogPlace(account="demo-hedging", epoch="e-1", first_seq=messages[0].seq)
        batch = encode_entries(place, [message.encode() for message in messages])
        return SourceRecord(topics.BROKER_LOG, partition, offset, b"demo-hedging", batch)
    value = commit(*messages, number=offset + 1)
    return SourceRecord(topics.ARCHIVE, partition, offset, b"demo-hedging", value)
