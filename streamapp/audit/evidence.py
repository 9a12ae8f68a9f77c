"""What each witness says, in one shape, so that they can be compared: from messages and rows, and from folds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from streamapp.domain.fold import facts_digest
from streamapp.domain.identifiers import fill_id_for, magic_of
from streamapp.domain.orders import Deal, OrderState
from streamapp.domain.parameters import OrderParameters, parameters_hash
from streamapp.domain.positions import PositionState
from streamapp.domain.status import average_price_of, detail_of, filled_of, status_of

_MONEY = ("profit", "commission", "swap", "fee")


@dataclass(frozen=True)
class OrderView:
    """An order as one witness knows it; volumes in lots.

    ``asked`` is the hash of its parameters as they are now: type, volume, prices, lifetime, filling. ``digest`` is that
    of its facts.
    """

    order_id: str
    account: str
    signal_id: str
    status: str
    detail: str
    filled_volume: Decimal
    average_price: Decimal | None
    rev: int
    magic: int
    asked: str = ""
    digest: str = ""


@dataclass(frozen=True)
class FillView:
    """A deal as one witness knows it; ``order_id`` None: no order's of ours.

    ``booked`` is what it did to the balance: profit, commission, swap and fee. What the broker took back has volume
    and money 0.
    """

    fill_id: str
    order_id: str | None
    position_id: int
    volume: Decimal
    price: Decimal
    booked: Decimal = Decimal(0)


@dataclass(frozen=True)
class PositionView:
    """An open or closed position as one witness knows it; ``volume`` is signed, buys above 0."""

    account: str
    position_id: int
    volume: Decimal
    average_price: Decimal | None = None
    realized_profit: Decimal = Decimal(0)


@dataclass(frozen=True)
class OperationView:
    """Money that was booked without a trade as one witness knows it; ``position_id`` 0: it names none."""

    type: str
    position_id: int
    amount: Decimal


@dataclass(frozen=True)
class DecisionView:
    """A decision on one message of a signal."""

    account: str
    signal_id: str
    stream_seq: int
    decision: str
    reason: str | None
    order_id: str | None


View = OrderView | FillView | PositionView | OperationView | DecisionView


@dataclass(frozen=True)
class SentView:
    """A message as its sender knows it. ``stream_seq`` is the place that JetStream acknowledged.

    ``answers`` are the right ones: a decision, or ``dead_letter``. ``ends`` are the right statuses of its order, if it
    is accepted. ``signal_id`` is empty where the message is broken.
    """

    stream_seq: int
    kind: str
    signal_id: str
    answers: frozenset[str]
    ends: frozenset[str]


@dataclass(frozen=True)
class DeadLetterView:
    """A message that nobody could use. ``subject`` and ``stream_seq`` are those it had on NATS."""

    subject: str
    stream_seq: int
    reason: str


@dataclass(frozen=True)
class Witness:
    """Everything that one place knows; ``faults`` are what contradicts itself there, in sentences."""

    name: str
    orders: dict[str, OrderView] = field(default_factory=dict)
    fills: dict[str, FillView] = field(default_factory=dict)
    positions: dict[tuple[str, int], PositionView] = field(default_factory=dict)
    operations: dict[str, OperationView] = field(default_factory=dict)
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class LedgerEntry:
    """One line of the broker's own ledger: what truly happened. ``kind`` is order, deal, correction or bust."""

    account: str
    kind: str
    ticket: int
    order_ticket: int
    reason: str
    position_id: int
    magic: int
    symbol: str
    side: str
    volume: Decimal
    price: Decimal

    @property
    def closes(self) -> bool:
        """Whether it is an order against a position of a hedging account, which can only take from it."""
        return self.kind == "order" and self.position_id not in {0, self.ticket}


@dataclass(frozen=True)
class Evidence:
    """All witnesses of one run; ``accepted`` and ``refused`` are the answers to senders on NATS.

    Operations go by account and deal, as fills do. ``ledger`` is None where the broker is no simulated one. ``sent`` is
    the word of those who sent the signals: without it a signal that was lost on its way to the first decision is in
    nobody's story. It need not be complete.
    """

    nats: Witness
    warehouse: Witness
    archive: Witness
    tables: Witness
    decisions: tuple[DecisionView, ...]
    accepted: int
    refused: int
    dead_letters: tuple[DeadLetterView, ...]
    ledger: tuple[LedgerEntry, ...] | None
    ledger_operations: dict[str, OperationView] = field(default_factory=dict)
    sent: tuple[SentView, ...] = ()

    @property
    def ledger_deals(self) -> dict[str, LedgerEntry]:
        """The deals of the ledger by fill_id, as they count now: corrected, or with volume 0 when taken back."""
        deals: dict[str, LedgerEntry] = {}
        for entry in self.ledger or ():
            if entry.kind != "order":
                counts = entry if entry.kind != "bust" else replace(entry, volume=Decimal(0))
                deals[fill_id_for(entry.account, entry.ticket)] = counts
        return deals


def order_view(row: dict[str, Any]) -> OrderView:
    """Return the view of an order/1 message or row."""
    return OrderView(
        order_id=row["order_id"],
        account=row["account"],
        signal_id=row["signal_id"],
        status=row["status"],
        detail=row["detail"],
        filled_volume=Decimal(row["filled_volume"]).normalize(),
        average_price=_plain(row["average_price"]),
        rev=row["rev"],
        magic=int(row["magic"]),
        asked=parameters_hash(OrderParameters.model_validate(row)),
        digest=row["facts_digest"],
    )


def folded_order(order_id: str, account: str, state: OrderState) -> OrderView:
    """Return the view of an order's facts, OrderCreated among them."""
    assert state.created is not None
    assert state.parameters is not None
    return OrderView(
        order_id=order_id,
        account=account,
        signal_id=state.created.signal_id,
        status=status_of(state),
        detail=detail_of(state),
        filled_volume=filled_of(state).normalize(),
        average_price=_plain(average_price_of(state)),
        rev=len(state.facts),
        magic=magic_of(order_id),
        asked=parameters_hash(state.parameters),
        digest=facts_digest(state),
    )


def fill_view(row: dict[str, Any]) -> FillView:
    """Return the view of a fill/1 message or row; a foreign connector may have left money out."""
    volume, money = Decimal(row["volume"]), (Decimal(row.get(name) or 0) for name in _MONEY)
    counts = not row.get("busted")
    return FillView(
        row["fill_id"],
        row["order_id"] or None,
        row["position_id"],
        volume.normalize() if counts else Decimal(0),
        Decimal(row["price"]).normalize(),
        sum(money, Decimal(0)).normalize() if counts else Decimal(0),
    )


def folded_fill(fill_id: str, order_id: str | None, deal: Deal) -> FillView | None:
    """Return the view of a deal as it counts now, None if it was never seen."""
    filled = deal.filled
    if filled is None:
        return None
    money = (getattr(filled, name) for name in _MONEY)
    return FillView(
        fill_id,
        order_id,
        filled.position_id,
        filled.volume.normalize() if deal.stands else Decimal(0),
        filled.price.normalize(),
        sum(money, Decimal(0)).normalize() if deal.stands else Decimal(0),
    )


def position_view(row: dict[str, Any]) -> PositionView:
    """Return the view of a position/1 message or row."""
    sign = -1 if row["side"] == "sell" else 1
    return PositionView(
        row["account"],
        row["position_id"],
        (sign * Decimal(row["volume"])).normalize(),
        _plain(row["average_price"]),
        Decimal(row["realized_profit"]).normalize(),
    )


def folded_position(account: str, position_id: int, state: PositionState) -> PositionView:
    """Return the view of what deals add up to."""
    return PositionView(
        account, position_id, state.net.normalize(), _plain(state.average_price), state.realized_profit.normalize()
    )


def operation_view(row: dict[str, Any]) -> OperationView:
    """Return the view of an account_operation/1 message or row, of such a fact's body, or of the ledger's line."""
    return OperationView(row["type"], row["position_id"] or 0, Decimal(row["amount"]).normalize())


def decision_view(row: dict[str, Any]) -> DecisionView:
    """Return the view of a signal/1 message or row."""
    return DecisionView(
        row["account"],
        row["signal_id"],
        row["stream_seq"],
        row["decision"],
        row["reason"] or None,
        row["order_id"] or None,
    )


def _plain(value: Any) -> Decimal | None:
    # ClickHouse keeps ten digits behind the point; compare no more of an average than that.
    return None if value is None else round(Decimal(value), 8).normalize()
