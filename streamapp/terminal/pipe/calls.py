"""What the worker may be asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from streamapp.domain.vocabulary import Side
from streamapp.terminal.pipe.answers import (
    AccountSeen,
    Checked,
    DealsSeen,
    Initialized,
    Looked,
    OrderSeen,
    Page,
    PastSeen,
    PositionSeen,
    Prepared,
    QuoteSeen,
    SearchResult,
    SendResult,
    TicketSeen,
)
from streamapp.terminal.pipe.structs import (
    Model,
    SymbolDetails,
    TradeOrder,
    TradePosition,
    TradeRequest,
)

A = TypeVar("A")


class Call(Model, Generic[A]):
    """What the worker may be asked for; its parameter is what it answers."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """What it is called in frames and messages."""
        return type(self).__name__


@dataclass(frozen=True, slots=True)
class Initialize(Call[Initialized]):
    """Connect to the terminal program and log in; the password stays out of the log."""

    path: str | None
    portable: bool | None
    login: int
    server: str
    password: str | None
    timeout_ms: int


@dataclass(frozen=True, slots=True)
class ReadPast(Call[PastSeen]):
    """Take a look at the account's past; all times are the server's seconds.

    Attributes:
        since: Where history is read from.
        cut: The moment of connecting: what is later does not count.
        until: Where history is read to.
        known: Deals of that history that were seen in earlier connections: they must be there.
    """

    since: int
    cut: int
    until: int
    known: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Prepare(Call[Prepared]):
    """Read all that an order is judged by; ``position_id`` of one that closes."""

    symbol: str
    position_id: int | None = None


@dataclass(frozen=True, slots=True)
class OrderCheck(Call[Checked]):
    """Ask the terminal program whether it would take a request; nothing is sent."""

    request: TradeRequest


@dataclass(frozen=True, slots=True)
class DealWindow(Model):
    """Where the deals of an order that was sent just now are looked for.

    By its position where that has its ticket (``hedging``), else from ``since`` to ``until`` in the server's seconds.
    """

    hedging: bool
    since: int
    until: int


@dataclass(frozen=True, slots=True)
class Send(Call[SendResult]):
    """Call ``order_send`` once, unless it is ``not_after`` by then, in seconds of the Unix epoch.

    ``deals``: where its deals are looked for right after it was accepted; None: nowhere.
    """

    request: TradeRequest
    not_after: float
    deals: DealWindow | None = None


@dataclass(frozen=True, slots=True)
class ReadDeals(Model):
    """Read the deals that are new or changed; all times are the server's seconds.

    Attributes:
        wide_from: Where the whole interval begins.
        near_from: Where deals that are newer than the known ones can begin.
        settled_until: Up to where the digest goes.
        until: Where both end.
        wide: Read the whole interval. Otherwise only when the number of deals changed, and then its near end, unless
            that does not explain the change.
        anew: Tell everything again: an answer that was told when the connection went was not believed.
    """

    wide_from: int
    near_from: int
    settled_until: int
    until: int
    wide: bool
    anew: bool = False


@dataclass(frozen=True, slots=True)
class ReadMoreDeals(Call[DealsSeen]):
    """Read the next deals that a look found and that are not told yet."""


@dataclass(frozen=True, slots=True)
class ReadTicket(Call[TicketSeen]):
    """Look at the deals and the order of one ticket, from ``since`` to ``until`` in the server's seconds."""

    ticket: int
    volume: float
    since: int
    until: int
    hedging: bool


@dataclass(frozen=True, slots=True)
class ReadEnds(Model):
    """Look which of the tickets work no more; those looked at longest ago come first."""

    tickets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Look(Call[Looked]):
    """Read parts of the account, then what they were read of.

    Attributes:
        deals, ends, positions, orders: The parts; the last is of the orders that work.
        symbols: Put into Market Watch if nothing there is quoted; without any the first of the broker's.
    """

    deals: ReadDeals | None = None
    ends: ReadEnds | None = None
    positions: bool = False
    orders: bool = False
    symbols: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted(Model):
    """An order that is looked for.

    ``alike_from``: since when, in the server's seconds, an order that has lost magic and tag is told for being like
    this one; None: never.
    """

    magic: int
    tag: str
    symbol: str
    side: Side
    volume: float
    alike_from: int | None


@dataclass(frozen=True, slots=True)
class Search(Call[SearchResult]):
    """Look through all four tables for orders in doubt; all times are the server's seconds.

    Attributes:
        orders: What is wanted.
        since: Where history begins; never 0.
        until: Where it ends, beyond the server's now.
        settled_until: Up to where history is digested: what is later may still grow.
    """

    orders: tuple[Wanted, ...]
    since: int
    until: int
    settled_until: int


@dataclass(frozen=True, slots=True)
class ReadOrder(Call[OrderSeen]):
    """Read what an operation on an order is judged by."""

    ticket: int


@dataclass(frozen=True, slots=True)
class ReadPosition(Call[PositionSeen]):
    """Read a position and its deals; ``with_market``: and all else that an operation on it is judged by."""

    position_id: int
    with_market: bool = True


@dataclass(frozen=True, slots=True)
class _Listing(Model):
    """Which rows: of one symbol, or of a group (the module's own pattern), ``after`` a row, at most ``limit``."""

    symbol: str | None
    group: str | None
    after: str | None
    limit: int


@dataclass(frozen=True, slots=True)
class ListPositions(_Listing, Call[Page[TradePosition]]):
    """Read a page of the open positions."""


@dataclass(frozen=True, slots=True)
class ListOrders(_Listing, Call[Page[TradeOrder]]):
    """Read a page of the working orders."""


@dataclass(frozen=True, slots=True)
class ListSymbols(_Listing, Call[Page[SymbolDetails]]):
    """Read a page of the symbols."""


@dataclass(frozen=True, slots=True)
class ReadAccount(Call[AccountSeen]):
    """Read account and permissions."""


@dataclass(frozen=True, slots=True)
class ReadQuote(Call[QuoteSeen]):
    """Read a symbol, which is put into Market Watch if need be, and its last tick."""

    symbol: str


@dataclass(frozen=True, slots=True)
class Setup(Call[None]):
    """The first frame of a worker's life, which has no answer: which module it holds, and its lock's path."""

    module: str
    lock: str
    crash_at: str | None
