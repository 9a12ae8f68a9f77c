"""What is said of an account: account/1, as its terminal sees it; account_operation/1; snapshot/1, as it comes in."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from streamapp.domain.facts import AccountOperation
from streamapp.domain.vocabulary import Connection, Frozen, Magic, MarginMode, Money, Side, UtcTime
from streamapp.messages.envelope import Message
from streamapp.messages.reading import PendingType


class AccountMessage(Message):
    """account/1, on ``accounts.{account}``.

    Money in ``currency``. ``trading``: whether we open new orders on it; where a person, a guard or a fault stopped it,
    ``trading_cause`` says why, ``trading_by`` who, ``trading_since`` when.
    ``server_offset_s``: seconds that the clock of the broker's server is ahead of UTC, null until a tick has shown it.
    """

    schema_: Literal["account/1"] = Field("account/1", alias="schema")
    account: str
    connection: Connection
    detail: str = ""
    trading: Literal["open", "not_ready", "reducing", "halted"] = "open"
    trading_cause: str = ""
    trading_by: str = ""
    trading_since: UtcTime | None = None
    balance: Money | None = None
    equity: Money | None = None
    margin: Money | None = None
    margin_free: Money | None = None
    margin_level: Money | None = None
    currency: str | None = None
    leverage: int | None = None
    margin_mode: MarginMode | None = None
    credit: Money | None = None
    server_offset_s: int | None = None
    epoch: str | None = None
    at: UtcTime


class AccountOperationMessage(AccountOperation, Message):
    """account_operation/1, on ``accounts.operations.{account}``: money that the broker booked without a trade.

    ``amount``, in ``currency``, changes the balance; that of type ``credit`` changes the credit alone. ``deal`` is the
    broker's ticket of it; a correction has the same, with a higher ``revision`` and the whole content as it is now. If
    ``position_id`` names a position, the ``realized_profit`` of its position/1 includes the amount.
    """

    schema_: Literal["account_operation/1"] = Field("account_operation/1", alias="schema")
    account: str


class SnapshotPosition(Frozen):
    """One position as the terminal sees it now; key it by ``position_id`` (MT5's identifier), tickets may change.

    ``order_id``: of ours that opened it, by its ticket or magic; None: nobody's that this journal knows.
    """

    position_id: int
    ticket: int
    symbol: str
    side: Side
    volume: Money
    open_price: Money
    stop_loss: Money | None = None
    take_profit: Money | None = None
    profit: Money
    swap: Money
    magic: Magic
    order_id: str | None = None


class SnapshotOrder(Frozen):
    """One order that works at the broker; ``volume`` is what is left of it, ``order_id`` as of a position."""

    ticket: int
    symbol: str
    side: Side | None
    order_type: PendingType
    volume: Money
    price: Money
    magic: Magic
    order_id: str | None = None


class SnapshotMessage(Message):
    """snapshot/1, on ``mt5.snapshot.{account}``: positions, working orders and account now; a newer one replaces it.

    ``positions`` and ``orders`` say something only while ``state.connection`` is ``ready`` or ``no_algo_trading``:
    otherwise they are not known, and none are listed. ``report_seq``: the last report that the journal of
    ``state.epoch`` had given both before and after they were read; None if one was given meanwhile.
    """

    schema_: Literal["snapshot/1"] = Field("snapshot/1", alias="schema")
    account: str
    state: AccountMessage
    positions: tuple[SnapshotPosition, ...] = ()
    orders: tuple[SnapshotOrder, ...] = ()
    deals_seen: int = 0
    report_seq: int | None = Field(None, ge=0)
    at: UtcTime
