"""What each witness says about the orders, in one shape, so that they can be compared."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal

from streamapp.domain.identifiers import fill_id_for


@dataclass(frozen=True)
class OrderView:
    """An order as one witness knows it; volumes in lots.

    ``asked`` is the hash of its parameters as they are now: type, volume, prices, lifetime, filling.
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


@dataclass(frozen=True)
class FillView:
    """A deal as one witness knows it. ``order_id`` None: no order's of ours; ``volume`` 0: the broker took it back."""

    fill_id: str
    order_id: str | None
    position_id: int
    volume: Decimal
    price: Decimal


@dataclass(frozen=True)
class PositionView:
    """An open or closed position as one witness knows it; ``volume`` is signed, buys above 0."""

    account: str
    position_id: int
    volume: Decimal


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
    """Everything that one place knows."""

    name: str
    orders: dict[str, OrderView] = field(default_factory=dict)
    fills: dict[str, FillView] = field(default_factory=dict)
    positions: dict[tuple[str, int], PositionView] = field(default_factory=dict)
    operations: dict[str, OperationView] = field(default_factory=dict)


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
