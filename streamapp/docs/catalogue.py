"""Every subject and topic with the schema of its messages.

The one table that messages.md and asyncapi.json are made of.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel

from streamapp import subjects, topics
from streamapp.messages.account import AccountMessage, AccountOperationMessage, SnapshotMessage
from streamapp.messages.answer import AnswerMessage, CopyMessage
from streamapp.messages.breaks import BreakMessage
from streamapp.messages.command import CommandRequest, CommandResultMessage
from streamapp.messages.commit import CommitMessage
from streamapp.messages.dead_letter import LetterDecisionMessage
from streamapp.messages.decision import AcceptedMessage, DecisionMessage, RefusedMessage
from streamapp.messages.error import ErrorMessage, ForeignError
from streamapp.messages.fill import FillMessage, ForeignFill
from streamapp.messages.history import AccountHistoryMessage, PositionHistoryMessage
from streamapp.messages.log import BrokerLogBatch, BrokerLogEntry
from streamapp.messages.operation import (
    CancelRequest,
    CloseByRequest,
    CloseRequest,
    ModifyRequest,
    OperationReply,
    ProtectRequest,
    ResumeReply,
    ResumeRequest,
    SettleReply,
    SettleRequest,
)
from streamapp.messages.order import OrderMessage
from streamapp.messages.position import PositionMessage
from streamapp.messages.reading import (
    AccountReply,
    ListRequest,
    OrdersReply,
    PositionsReply,
    QuoteReply,
    QuoteRequest,
    ReadRequest,
    SymbolsReply,
)
from streamapp.messages.report import ReportBatch
from streamapp.messages.signal import ExitSignal, Signal
from streamapp.messages.terminal import (
    AckReply,
    AckRequest,
    HelloReply,
    ReplayReply,
    ReplayRequest,
    SubmitReply,
    SubmitRequest,
)


@dataclass(frozen=True)
class Channel:
    """Where messages travel. ``receives``: streamapp reads it; ``sends``: streamapp writes it."""

    system: str
    address: str
    says: str
    models: tuple[type[BaseModel], ...]
    receives: bool = False
    sends: bool = False


def _request(operation: str, says: str, *models: type[BaseModel]) -> Channel:
    says = f"request/reply: {says}"
    return Channel("NATS", f"mt5.{{account}}.{operation}", says, models, receives=True, sends=True)


REQUESTS = (
    _request("cancel", "withdraw an order that works at the broker", CancelRequest, OperationReply),
    _request("modify", "new values for an order that works at the broker", ModifyRequest, OperationReply),
    _request("protect", "stop loss and take profit of a position", ProtectRequest, OperationReply),
    _request("close", "close a position, or a part of it", CloseRequest, OperationReply),
    _request("close_by", "close two positions against each other", CloseByRequest, OperationReply),
    _request("settle", "say what became of an order in doubt that waits for a person", SettleRequest, SettleReply),
    _request("resume", "let a halted account open again", ResumeRequest, ResumeReply),
    _request("account", "money, permissions and kind of the account", ReadRequest, AccountReply),
    _request("positions", "open positions, in pages", ListRequest, PositionsReply),
    _request("orders", "orders that work at the broker, in pages", ListRequest, OrdersReply),
    _request("symbols", "what a trader needs to know of symbols, in pages", ListRequest, SymbolsReply),
    _request("quote", "the last tick of a symbol", QuoteRequest, QuoteReply),
)
"""What anybody may ask a terminal, beside what the agents ask it."""

CHANNELS = (
    Channel(
        "NATS",
        f"{subjects.SIGNALS_APPROVED}.{{symbol}}",
        "approved signals of the risk engine",
        (Signal, ExitSignal),
        receives=True,
    ),
    Channel(
        "NATS",
        "orders.{status}.{symbol}",
        "each published revision of an order",
        (OrderMessage,),
        receives=True,
        sends=True,
    ),
    Channel(
        "NATS", f"{subjects.BROKER_FILL}.{{symbol}}", "each deal", (FillMessage, ForeignFill), receives=True, sends=True
    ),
    Channel(
        "NATS",
        f"{subjects.BROKER_ERROR}.{{symbol}}",
        "what went wrong",
        (ErrorMessage, ForeignError),
        receives=True,
        sends=True,
    ),
    Channel("NATS", "signals.accepted.{symbol}", "answers to signals that are orders", (AcceptedMessage,), sends=True),
    Channel(
        "NATS",
        "signals.refused.{symbol}",
        "answers to all other signals: refusals and conflicts",
        (RefusedMessage,),
        sends=True,
    ),
    Channel(
        "NATS",
        "signals.answered.{symbol}",
        "what became of every copy of a signal that went to several accounts",
        (AnswerMessage,),
        sends=True,
    ),
    Channel(
        "NATS", "positions.{symbol}", "each position after a deal, or a charge to it", (PositionMessage,), sends=True
    ),
    Channel("NATS", "accounts.{account}", "an account as its terminal sees it", (AccountMessage,), sends=True),
    Channel(
        "NATS",
        "accounts.operations.{account}",
        "money that the broker booked without a trade",
        (AccountOperationMessage,),
        sends=True,
    ),
    Channel(
        "NATS",
        "reconciliation.break.{account}",
        "each difference between our books and the broker's: found, changed, ended, settled",
        (BreakMessage,),
        sends=True,
    ),
    Channel(
        "NATS",
        "commands.{command}.{target}",
        "commands to orders, positions and accounts",
        (CommandRequest,),
        receives=True,
    ),
    Channel(
        "NATS",
        f"{subjects.COMMAND_RESULTS}.{{request_id}}",
        "what becomes of a command",
        (CommandResultMessage,),
        sends=True,
    ),
    Channel("NATS", f"{subjects.REPORT}.{{account}}", "what a terminal saw", (ReportBatch,), receives=True, sends=True),
    Channel(
        "NATS",
        f"{subjects.SNAPSHOT}.{{account}}",
        "positions and account now",
        (SnapshotMessage,),
        receives=True,
        sends=True,
    ),
    Channel(
        "NATS", f"{subjects.BROKER_LOG}.{{account}}", "the broker log", (BrokerLogBatch,), receives=True, sends=True
    ),
    Channel(
        "NATS",
        "mt5.{account}.submit",
        "request/reply: record an order",
        (SubmitRequest, SubmitReply),
        receives=True,
        sends=True,
    ),
    Channel(
        "NATS", "mt5.{account}.hello", "request/reply: who the terminal is", (HelloReply,), receives=True, sends=True
    ),
    Channel(
        "NATS",
        "mt5.{account}.replay",
        "request/reply: say reports again",
        (ReplayRequest, ReplayReply),
        receives=True,
        sends=True,
    ),
    Channel(
        "NATS",
        "mt5.{account}.ack",
        "request/reply: reports are durable",
        (AckRequest, AckReply),
        receives=True,
        sends=True,
    ),
    *REQUESTS,
    Channel(
        "Kafka",
        topics.SIGNALS_APPROVED,
        "signals, the payload untouched",
        (Signal, ExitSignal),
        receives=True,
        sends=True,
    ),
    Channel(
        "Kafka",
        topics.ORDERS_SUBMITTED,
        "orders of someone else's execution service",
        (OrderMessage,),
        receives=True,
        sends=True,
    ),
    Channel(
        "Kafka",
        topics.INCOMPLETE,
        "signals and orders without an account; decisions on the copies of a signal",
        (Signal, CopyMessage),
        receives=True,
        sends=True,
    ),
    Channel("Kafka", topics.ORDER_COMMANDS, "commands", (CommandRequest,), receives=True, sends=True),
    Channel(
        "Kafka",
        topics.BROKER_REPORTS,
        "reports of terminals and foreign connectors",
        (ReportBatch,),
        receives=True,
        sends=True,
    ),
    Channel(
        "Kafka", topics.ACCOUNT_SNAPSHOTS, "positions and accounts now", (SnapshotMessage,), receives=True, sends=True
    ),
    Channel(
        "Kafka",
        topics.ARCHIVE,
        "every commit: its facts, and the messages that it published or only kept; for ever",
        (CommitMessage, DecisionMessage, AccountHistoryMessage, PositionHistoryMessage),
        receives=True,
        sends=True,
    ),
    Channel(
        "Kafka",
        topics.BROKER_LOG,
        "the hash-chained broker log, for ever",
        (BrokerLogBatch, BrokerLogEntry),
        receives=True,
        sends=True,
    ),
    Channel(
        "Kafka",
        topics.DEAD_LETTERS,
        "what nobody could use, its reason in the headers; what persons decided about it, with the header `decision`",
        (LetterDecisionMessage,),
        receives=True,
        sends=True,
    ),
)


def models() -> list[type[BaseModel]]:
    """Return every model once, in the order of the table."""
    return list(dict.fromkeys(model for channel in CHANNELS for model in channel.models))
