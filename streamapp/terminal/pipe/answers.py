"""What the worker answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Generic, TypeVar

from streamapp.domain.vocabulary import Side
from streamapp.terminal.pipe.structs import (
    AccountInfo,
    Model,
    SymbolInfo,
    TerminalInfo,
    Tick,
    TradeDeal,
    TradeOrder,
    TradePosition,
    number,
)

A = TypeVar("A")
R = TypeVar("R", bound=Model)


@dataclass(frozen=True, slots=True)
class Initialized(Model):
    """``done``: connected, and logged in."""

    done: bool


@dataclass(frozen=True, slots=True)
class AccountSeen(Model):
    """Permissions and account."""

    terminal: TerminalInfo | None
    account: AccountInfo | None


@dataclass(frozen=True, slots=True)
class PastSeen(Model):
    """An account's past as one number: None if a table can't be read. ``lacking``: what it should show and does not."""

    digest: int | None
    lacking: str


@dataclass(frozen=True, slots=True)
class Prepared(Model):
    """What the module shows immediately before an order, and what a lot is worth in the account's currency.

    ``held``: the lots of positions and working orders of the symbol, bought and sold; read only where the broker limits
    them. ``position``: what an order that closes would close, None if that is not open; ``deals`` are all of its deals.
    ``netted``: the symbol's position where a symbol has only one, which an order that opens would change. ``unread``:
    which read failed, with its last_error, "" if none did; then nothing else is here.
    """

    terminal: TerminalInfo | None = None
    account: AccountInfo | None = None
    symbol: SymbolInfo | None = None
    tick: Tick | None = None
    rate: float | None = None
    held: tuple[float, float] | None = None
    position: TradePosition | None = None
    deals: tuple[TradeDeal, ...] = ()
    netted: TradePosition | None = None
    unread: str = ""

    @property
    def has_quote(self) -> bool:
        """Whether there is a tick: one with a time and a price. Prices may be 0 and less, as oil's were."""
        return self.tick is not None and bool(self.tick.time_msc) and bool(self.bid or self.ask)

    @property
    def bid(self) -> Decimal:
        """The bid."""
        return number(self.tick.bid if self.tick else 0)

    @property
    def ask(self) -> Decimal:
        """The ask."""
        return number(self.tick.ask if self.tick else 0)

    def market(self, side: Side) -> Decimal:
        """Return the price at which an order of this side trades: the ask for a buy, the bid for a sell."""
        return self.ask if side == "buy" else self.bid

    def closing(self, side: Side) -> Decimal:
        """Return the price at which a position of this side is closed."""
        return self.bid if side == "buy" else self.ask


@dataclass(frozen=True, slots=True)
class Checked(Model):
    """What ``order_check`` says; None: nothing."""

    retcode: int | None


@dataclass(frozen=True, slots=True)
class SendResult(Model):
    """What came of the one ``order_send``.

    Attributes:
        sent: Whether it was called; otherwise the order's time was over.
        retcode, order, request_id, comment: Of the answer; None, 0, 0 and "" without one.
        raw: The whole answer, as the module gave it.
        at: When it came, in seconds of the Unix epoch.
        logged_in_as: Who is, if it is another account by now.
        deals: The order's, as far as they are there at once; None: look for them later.
    """

    sent: bool
    retcode: int | None = None
    order: int = 0
    request_id: int = 0
    comment: str = ""
    raw: dict[str, Any] = field(default_factory=dict)
    at: float = 0.0
    logged_in_as: str | None = None
    deals: tuple[TradeDeal, ...] | None = None


@dataclass(frozen=True, slots=True)
class DealsSeen(Model):
    """Deals that are new or other than when they were last told.

    Attributes:
        read: Whether the module answered.
        deals: The deals.
        more: Whether there are more of them (:class:`ReadMoreDeals`).
        digest: Of the whole interval if that was read, and shows at least what it showed before.
    """

    read: bool
    deals: tuple[TradeDeal, ...] = ()
    more: bool = False
    digest: int | None = None


@dataclass(frozen=True, slots=True)
class TicketSeen(Model):
    """The deals of an order ticket and, unless they make up its volume, its order; ``done``: history has that."""

    deals: tuple[TradeDeal, ...]
    order: TradeOrder | None
    done: bool


@dataclass(frozen=True, slots=True)
class EndsSeen(Model):
    """Orders that work no more, as history shows them.

    ``looked`` are the tickets that were looked up for it, ``working`` those that were asked for and are at work.
    """

    read: bool
    orders: tuple[TradeOrder, ...] = ()
    looked: tuple[int, ...] = ()
    working: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Match(Model):
    """A row of one of the four tables that may be a wanted order.

    Attributes:
        table: "orders", "positions", "history_orders" or "history_deals".
        ticket: Of its order; a position has its identifier.
        entry: A deal's; None elsewhere.
        position_id: Of the position that an order or deal belongs to, 0 if of none.
        may_be_part: The row may be a part of its order only, and be there before the order's own row is.
    """

    table: str
    ticket: int
    magic: int
    comment: str
    symbol: str
    type: int
    reason: int
    entry: int | None
    volume: float
    position_id: int
    time_msc: int
    may_be_part: bool


@dataclass(frozen=True, slots=True)
class SearchResult(Model):
    """What the four tables show of the wanted orders.

    Attributes:
        read: Whether all four could be read.
        counts: Of the rows looked at, by table.
        matches: The rows that may be wanted orders.
        deals: Those of them that are deals, whole.
        digest: Of history up to where it is settled.
    """

    read: bool
    counts: dict[str, int]
    matches: tuple[Match, ...] = ()
    deals: tuple[TradeDeal, ...] = ()
    digest: int = 0


@dataclass(frozen=True, slots=True)
class OrderSeen(Model):
    """One order: ``live`` if it works, else ``past`` as history has it; ``read``: whether both could be."""

    read: bool
    live: TradeOrder | None = None
    past: TradeOrder | None = None
    prepared: Prepared | None = None


@dataclass(frozen=True, slots=True)
class PositionSeen(Model):
    """One position: ``live`` if it is open, and its deals; ``read``: whether both could be."""

    read: bool
    live: TradePosition | None = None
    deals: tuple[TradeDeal, ...] = ()
    prepared: Prepared | None = None


@dataclass(frozen=True, slots=True)
class Page(Model, Generic[R]):
    """Rows of a table, by ticket or name; None if it can't be read. ``more`` follow."""

    rows: tuple[R, ...] | None
    more: bool = False


@dataclass(frozen=True, slots=True)
class Timed(Model, Generic[A]):
    """What a part of a look comes to, and how long it kept the worker."""

    value: A
    took_s: float


@dataclass(frozen=True, slots=True)
class Looked(Model):
    """What a look shows: the parts that were asked for, and after them permissions, account, and the server's clock.

    Attributes:
        terminal, account: What the parts were read of.
        unread: Which of these two could not be read, with its last_error.
        tick: The tick that shows the server's clock.
        selected: Symbols that were put into a Market Watch in which nothing was quoted.
        deals, ends, positions, orders: None where nobody asked.
    """

    terminal: TerminalInfo | None
    account: AccountInfo | None
    tick: Tick | None
    selected: tuple[str, ...] = ()
    unread: str = ""
    deals: Timed[DealsSeen] | None = None
    ends: Timed[EndsSeen] | None = None
    positions: Timed[Page[TradePosition]] | None = None
    orders: Timed[Page[TradeOrder]] | None = None


@dataclass(frozen=True, slots=True)
class QuoteSeen(Model):
    """A symbol, None if the broker has none of that name, and its last tick; ``unread``: which read failed."""

    symbol: SymbolInfo | None
    tick: Tick | None
    unread: str = ""


@dataclass(frozen=True, slots=True)
class Exchange(Model):
    """One call of the module for the broker log: never a password in it.

    ``at`` is in seconds of the Unix epoch; request and response are as the module has them.
    """

    function: str
    request: Any
    response: Any
    last_error: tuple[int, str]
    at: float
    duration_us: int


@dataclass(frozen=True, slots=True)
class Answered(Model, Generic[A]):
    """The worker's answer to a call.

    Attributes:
        found: What it comes to; None where ``failure`` or ``away`` says why there is nothing.
        failure: No call of the module could be made.
        away: The terminal had no connection, or another account: what was read is not believed.
        broken: The error after which only ``initialize`` can be.
        error: The module's last_error.
        log: What was exchanged with the terminal program, for the broker log.
        took_s: How long it kept the worker.
    """

    found: A | None
    failure: str | None = None
    away: str | None = None
    broken: tuple[int, str] | None = None
    error: tuple[int, str] = (1, "")
    log: tuple[Exchange, ...] = ()
    took_s: float = 0.0

    @property
    def value(self) -> A:
        """What was found, by an answer without ``failure`` and ``away``."""
        assert self.found is not None, self.failure or self.away
        return self.found
