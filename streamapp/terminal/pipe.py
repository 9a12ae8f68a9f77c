"""What account process and worker process say to each other: one frozen model a call, and one its answer.

Structs of the module cross the border as far as somebody there reads them, under the module's own names. As they are
cross only the requests of ``order_send``, and what the broker log and a fact keep of an exchange.

A frame is four bytes of length, then JSON; before a call's stands its name. What comes in is of its model, to the last
field, or a :class:`FrameError`.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, BinaryIO, Generic, TypeVar, get_args

from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict, get_original_bases

from streamapp.domain.vocabulary import Side
from streamapp.errors import Definite

A = TypeVar("A")
R = TypeVar("R", bound="Model")

LARGEST_B = 256 * 1024 * 1024
"""No frame is so long: whoever reads such a length reads something else. A page of 1,000 rows has 300 kB."""
SHOWN = 80
"""Most characters of a wrong value in an error's text."""
_LENGTH = struct.Struct(">I")


class FrameError(Definite):
    """A frame is not what its reader expects; the same bytes never will be."""


class Model:
    """Whatever crosses: frozen dataclasses, compared with their annotations when they are read from a frame.

    Both processes make some for every order, and a :class:`~pydantic.BaseModel` takes twice as long.
    """

    __slots__ = ()
    # What the module shows is not ours to judge here: a NaN crosses as it is.
    __pydantic_config__ = ConfigDict(strict=True, extra="forbid", ser_json_inf_nan="constants")


def number(value: float) -> Decimal:
    """Return the decimal that a float of the module stands for: its noise begins behind the tenth digit."""
    return Decimal(repr(round(float(value), 10)))


# -- structs of the module


@dataclass(frozen=True, slots=True)
class TerminalInfo(Model):
    """The terminal program: its connection and its permissions."""

    connected: bool
    trade_allowed: bool
    tradeapi_disabled: bool
    path: str


@dataclass(frozen=True, slots=True)
class AccountInfo(Model):
    """The account that the terminal is logged in to."""

    login: int
    server: str
    trade_allowed: bool
    trade_expert: bool
    currency: str
    margin_mode: int
    leverage: int
    balance: float
    credit: float
    profit: float
    equity: float
    margin: float
    margin_free: float
    margin_level: float
    margin_so_call: float
    margin_so_so: float
    limit_orders: int
    trade_mode: int
    name: str
    company: str


@dataclass(frozen=True, slots=True)
class SymbolInfo(Model):
    """What an order is judged by; the other 80 fields would only be carried through the pipe."""

    trade_mode: int
    order_mode: int
    filling_mode: int
    trade_exemode: int
    trade_stops_level: int
    trade_freeze_level: int
    trade_contract_size: float
    trade_tick_size: float
    point: float
    volume_min: float
    volume_max: float
    volume_step: float
    volume_limit: float
    expiration_mode: int
    order_gtc_mode: int


@dataclass(frozen=True, slots=True)
class SymbolDetails(SymbolInfo):
    """The same with what a person asks for."""

    name: str
    description: str
    path: str
    digits: int
    spread: int
    spread_float: bool
    select: bool
    currency_base: str
    currency_profit: str
    currency_margin: str
    margin_initial: float
    trade_tick_value: float
    swap_long: float
    swap_short: float
    bid: float
    ask: float


@dataclass(frozen=True, slots=True)
class Tick(Model):
    """A symbol's last quote, by the server's clock."""

    bid: float
    ask: float
    last: float
    volume_real: float
    time: int
    time_msc: int


@dataclass(frozen=True, slots=True)
class TradePosition(Model):
    """An open position."""

    ticket: int
    identifier: int
    symbol: str
    type: int
    magic: int
    reason: int
    comment: str
    volume: float
    price_open: float
    price_current: float
    sl: float
    tp: float
    profit: float
    swap: float
    time: int
    time_msc: int
    time_update_msc: int


@dataclass(frozen=True, slots=True)
class TradeOrder(Model):
    """An order, working or in history."""

    ticket: int
    symbol: str
    state: int
    type: int
    type_filling: int
    type_time: int
    time_expiration: int
    time_setup_msc: int
    reason: int
    magic: int
    comment: str
    position_id: int
    volume_initial: float
    volume_current: float
    price_open: float
    price_stoplimit: float
    sl: float
    tp: float


@dataclass(frozen=True, slots=True)
class TradeDeal(Model):
    """A deal."""

    ticket: int
    order: int
    position_id: int
    symbol: str
    type: int
    entry: int
    reason: int
    magic: int
    comment: str
    volume: float
    price: float
    commission: float
    swap: float
    fee: float
    profit: float
    time_msc: int


class TradeRequest(TypedDict, total=False):
    """A request of ``order_check`` and ``order_send``: the keys that they know, each with its type (mt5 §1.4)."""

    action: int
    magic: int
    order: int
    symbol: str
    volume: float
    price: float
    stoplimit: float
    sl: float
    tp: float
    deviation: int
    type: int
    type_filling: int
    type_time: int
    expiration: int
    comment: str
    position: int
    position_by: int


# -- answers


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
    ``netted``: the symbol's position where a symbol has only one, which an order that opens would change.
    """

    terminal: TerminalInfo | None
    account: AccountInfo | None
    symbol: SymbolInfo | None
    tick: Tick | None
    rate: float | None
    held: tuple[float, float] | None = None
    position: TradePosition | None = None
    deals: tuple[TradeDeal, ...] = ()
    netted: TradePosition | None = None

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
    """Orders that work no more, as history shows them; ``looked``: the tickets that were looked up for it."""

    read: bool
    orders: tuple[TradeOrder, ...] = ()
    looked: tuple[int, ...] = ()


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
        tick: The tick that shows the server's clock.
        selected: Symbols that were put into an empty Market Watch.
        deals, ends, positions: None where nobody asked.
    """

    terminal: TerminalInfo | None
    account: AccountInfo | None
    tick: Tick | None
    selected: tuple[str, ...] = ()
    deals: Timed[DealsSeen] | None = None
    ends: Timed[EndsSeen] | None = None
    positions: Timed[Page[TradePosition]] | None = None


@dataclass(frozen=True, slots=True)
class QuoteSeen(Model):
    """A symbol, None if the broker has none of that name, and its last tick."""

    symbol: SymbolInfo | None
    tick: Tick | None


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
        if self.found is None:
            raise FrameError(f"expected a value, got none ({self.failure or self.away})")
        return self.found


# -- calls


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
        deals, ends, positions: The parts.
        symbols: Put into Market Watch if nothing there is quoted; without any the first of the broker's.
    """

    deals: ReadDeals | None = None
    ends: ReadEnds | None = None
    positions: bool = False
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
    """Read what an operation on a position is judged by."""

    position_id: int


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


def _answer_of(call: type[Call[Any]]) -> Any:
    (asked,) = (base for base in get_original_bases(call) if get_args(base))
    answered: Any = Answered
    return answered[get_args(asked)]


_CALLS: dict[str, type[Call[Any]]] = {
    call.__name__: call
    for call in (
        *(Setup, Initialize, ReadPast, Look, Prepare, OrderCheck, Send, ReadMoreDeals, ReadTicket, Search),
        *(ReadOrder, ReadPosition, ListPositions, ListOrders, ListSymbols, ReadAccount, ReadQuote),
    )
}
# Made at once, which takes 50 ms, so that no order waits for its own.
_CALL_CODECS = {name: TypeAdapter[Any](call) for name, call in _CALLS.items()}
_ANSWER_CODECS = {call: TypeAdapter[Any](_answer_of(call)) for call in _CALLS.values()}


# -- frames


def encode_call(call: Call[Any]) -> bytes:
    """Return a call as a frame."""
    return _frame(call.name.encode() + b" " + _CALL_CODECS[call.name].dump_json(call))


def decode_call(body: bytes) -> Call[Any]:
    """Return the call of a frame.

    Raises:
        FrameError: it is none.
    """
    name, _, fields = body.partition(b" ")
    codec = _CALL_CODECS.get(name.decode("ascii", "replace"))
    if codec is None:
        raise FrameError(f"expected the name of a call, got {name[:SHOWN]!r}")
    try:
        call: Call[Any] = codec.validate_json(fields)
    except ValidationError as error:
        raise _unreadable(error) from None
    return call


def encode_answer(call: Call[A], answer: Answered[A]) -> bytes:
    """Return the answer to a call as a frame."""
    # Whether the module's numbers are of their types is seen where they are read.
    return _frame(_ANSWER_CODECS[type(call)].dump_json(answer, warnings=False))


def encode_failure(why: str) -> bytes:
    """Return the frame that answers any call with nothing but a failure."""
    return encode_answer(Setup("", "", None), Answered(None, failure=why))


def decode_answer(call: Call[A], body: bytes) -> Answered[A]:
    """Return the answer to a call.

    Raises:
        FrameError: it is none to this one.
    """
    try:
        answer: Answered[A] = _ANSWER_CODECS[type(call)].validate_json(body)
    except ValidationError as error:
        raise _unreadable(error) from None
    return answer


def _unreadable(error: ValidationError) -> FrameError:
    first = error.errors(include_url=False)[0]
    if not first["loc"]:  # not even JSON; what it is may hold a password
        return FrameError(f"{error.title}: {first['msg']}")
    place = ".".join(str(part) for part in first["loc"])
    return FrameError(f"{error.title}: {place}: {first['msg']}, got {repr(first['input'])[:SHOWN]}")


def _frame(body: bytes) -> bytes:
    return _LENGTH.pack(len(body)) + body


def read(stream: BinaryIO) -> bytes | None:
    """Return the body of the next frame, blocking; None at the end of the stream.

    Raises:
        FrameError: it has no length that a frame can have; nothing more can be read.
    """
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    body = stream.read(_length(head))
    return body if len(body) == _length(head) else None


async def receive(stream: asyncio.StreamReader) -> bytes:
    """Return the body of the next frame.

    Raises:
        asyncio.IncompleteReadError: the stream ended.
        FrameError: as :func:`read`.
    """
    return await stream.readexactly(_length(await stream.readexactly(_LENGTH.size)))


def _length(head: bytes) -> int:
    (length,) = _LENGTH.unpack(head)
    if length > LARGEST_B:
        raise FrameError(f"expected a frame of at most {LARGEST_B} bytes, got a length of {length}")
    return int(length)
