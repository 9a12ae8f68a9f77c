"""What the answer to an ``order_send`` means: one row a retcode, one row a code of ``last_error()``.

The same retcode is a failure to one operation and a success to another, so a row has a column for each. **Whatever is
not in a table is a doubt**: only a code that is known to prove something is taken as proof.

Sources: MQL5 Reference, "Return Codes of the Trade Server"; the texts of ``last_error()`` are those in the binary of
MetaTrader5 5.0.6231. Meanings are argued where they are not plain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

Opening = Literal["accepted", "rejected", "not_sent", "doubt"]
OperationKind = Literal["cancel", "modify", "protect", "close", "close_by"]
Meaning = Literal["done", "taken", "retry", "doubt", "rejected", "refused", "unsent"]
"""done: it is as wanted, by the server's own word. taken: the broker accepted it, and the state will show it. retry: it
was not executed, and the state must be read before anything else. doubt: nobody knows. rejected: not executed, and
trying again is of no use. refused: never sent, and never will be. unsent: never sent, and it may be tried again."""


class Retcode(NamedTuple):
    """A retcode of the trade server or the terminal.

    Attributes:
        name: The constant's, in lower case, without ``TRADE_RETCODE_``.
        sentence: The text that comes with it.
        opening: What it means for an order that opens, or that closes but is sent once.
        cancel: What it means for the removal of an order; the other operations likewise.
    """

    name: str
    sentence: str
    opening: Opening
    cancel: Meaning
    modify: Meaning
    protect: Meaning
    close: Meaning
    close_by: Meaning


class LastError(NamedTuple):
    """A code of ``last_error()`` after an ``order_send`` that returned None: ``name`` as of a :class:`Retcode`.

    ``opening`` and ``operation`` say what it means for an order that opens and for any operation.
    """

    name: str
    sentence: str
    opening: Opening
    operation: Meaning


_Meanings = tuple[Meaning, Meaning, Meaning, Meaning, Meaning]
_DOUBT: _Meanings = ("doubt", "doubt", "doubt", "doubt", "doubt")
_TAKEN: _Meanings = ("taken", "taken", "taken", "taken", "taken")
_REJECTED: _Meanings = ("rejected", "rejected", "rejected", "rejected", "rejected")
_CLOSE_AGAIN: _Meanings = ("rejected", "rejected", "rejected", "retry", "rejected")
"""The price moved, or less is open than a moment ago: a close is asked again as things are now. Off quotes too: it
names the position, which is closed once however often it is asked."""
_CONFLICT: _Meanings = ("retry", "retry", "retry", "retry", "doubt")
"""Another request is in progress. What is sent once, a close-by, must not be tried again."""

TRADE_RETCODE_HEDGE_PROHIBITED = 10046
"""The one retcode that the package does not name."""

RETCODES: dict[int, Retcode] = {
    # 0 answers a good order_check; as the answer to order_send it was seen with positions opened all the same.
    0: Retcode("none", "Done", "doubt", *_DOUBT),
    10004: Retcode("requote", "Requote", "rejected", *_CLOSE_AGAIN),
    10006: Retcode("reject", "Request rejected", "rejected", *_REJECTED),
    10007: Retcode("cancel", "Request canceled by trader", "rejected", *_REJECTED),
    10008: Retcode("placed", "Order placed", "accepted", *_TAKEN),
    10009: Retcode("done", "Request executed", "accepted", *_TAKEN),
    # A close in part: what is left is closed next.
    10010: Retcode("done_partial", "Request executed partially", "accepted", *_DOUBT[:3], "retry", "taken"),
    10011: Retcode("error", "Request processing error", "doubt", *_DOUBT),
    10012: Retcode("timeout", "Request canceled by timeout", "doubt", *_DOUBT),
    # To some builds this is "there is no such order", as is 10035.
    10013: Retcode("invalid", "Invalid request", "rejected", "retry", "retry", "retry", "rejected", "rejected"),
    10014: Retcode("invalid_volume", "Invalid volume", "rejected", *_REJECTED),
    10015: Retcode("invalid_price", "Invalid price", "rejected", *_REJECTED),
    10016: Retcode("invalid_stops", "Invalid stops", "rejected", *_REJECTED),
    10017: Retcode("trade_disabled", "Trade disabled", "rejected", *_REJECTED),
    10018: Retcode("market_closed", "Market closed", "rejected", *_REJECTED),
    10019: Retcode("no_money", "No money", "rejected", *_REJECTED),
    10020: Retcode("price_changed", "Price changed", "rejected", *_CLOSE_AGAIN),
    10021: Retcode("price_off", "Off quotes", "rejected", *_CLOSE_AGAIN),
    10022: Retcode("invalid_expiration", "Invalid expiration", "rejected", *_REJECTED),
    10023: Retcode("order_changed", "Order changed", "doubt", *_CONFLICT),
    # Sent later it may pass; a close-by is not sent again.
    10024: Retcode("too_many_requests", "Too many requests", "rejected", *_CONFLICT[:4], "rejected"),
    # It answers a modification that changes nothing: it is as wanted. To anything else it can't be the answer.
    10025: Retcode("no_changes", "No changes", "doubt", "doubt", "done", "done", "doubt", "doubt"),
    10026: Retcode("server_disables_at", "AutoTrading disabled by server", "rejected", *_REJECTED),
    10027: Retcode("client_disables_at", "AutoTrading disabled by client", "rejected", *_REJECTED),
    10028: Retcode("locked", "Request locked", "doubt", *_CONFLICT),
    10029: Retcode("frozen", "Order or position frozen", "rejected", *_REJECTED),
    # A close is asked again with the next mode: the symbol's flags were wrong.
    10030: Retcode("invalid_fill", "Unsupported filling mode", "rejected", *_CLOSE_AGAIN),
    10031: Retcode("connection", "No connection", "doubt", *_DOUBT),
    10032: Retcode("only_real", "Only real accounts allowed", "rejected", *_REJECTED),
    10033: Retcode("limit_orders", "Orders limit reached", "rejected", *_REJECTED),
    10034: Retcode("limit_volume", "Volume limit reached", "rejected", *_REJECTED),
    10035: Retcode("invalid_order", "Invalid order", "rejected", "retry", "retry", "rejected", "rejected", "rejected"),
    # Success for a close; to an order that opens, or that works, it can't be the answer.
    10036: Retcode("position_closed", "Position doesn't exist", "doubt", "doubt", "doubt", "retry", "taken", "retry"),
    10038: Retcode("invalid_close_volume", "Invalid close volume", "rejected", *_CLOSE_AGAIN),
    10039: Retcode("close_order_exist", "Close order already exists", "doubt", *_CONFLICT),
    10040: Retcode("limit_positions", "Positions limit reached", "rejected", *_REJECTED),
    10041: Retcode("reject_cancel", "Pending order rejected and canceled", "rejected", *_REJECTED),
    10042: Retcode("long_only", "Only long positions allowed", "rejected", *_REJECTED),
    10043: Retcode("short_only", "Only short positions allowed", "rejected", *_REJECTED),
    10044: Retcode("close_only", "Only position close allowed", "rejected", *_REJECTED),
    10045: Retcode("fifo_close", "Only FIFO close allowed", "rejected", *_REJECTED),
    TRADE_RETCODE_HEDGE_PROHIBITED: Retcode("hedge_prohibited", "Hedge prohibited", "rejected", *_REJECTED),
}

_VERSIONS = "Terminal: Incompatible versions, please install the latest version of Terminal and Python module"
LAST_ERRORS: dict[int, LastError] = {
    1: LastError("success", "Success", "doubt", "doubt"),  # None without an error
    -1: LastError("fail", "Terminal: Call failed", "doubt", "doubt"),
    -2: LastError("invalid_params", "Terminal: Invalid params", "not_sent", "refused"),
    -3: LastError("no_memory", "Terminal: Out of memory", "doubt", "doubt"),
    -4: LastError("not_found", "Terminal: Not found", "doubt", "doubt"),
    -5: LastError("invalid_version", _VERSIONS, "not_sent", "refused"),
    -6: LastError("auth_failed", "Terminal: Authorization failed", "not_sent", "refused"),
    -7: LastError("unsupported", "Terminal: Unsupported function", "not_sent", "refused"),
    -8: LastError("auto_trading_disabled", "Auto-Trading using Python API disabled in Terminal", "not_sent", "refused"),
    -10000: LastError("internal_fail", "IPC call failed", "doubt", "doubt"),
    # The request was not, or not wholly, written: very likely not executed, but nothing proves it.
    -10001: LastError("internal_fail_send", "IPC send failed", "doubt", "doubt"),
    -10002: LastError("internal_fail_receive", "IPC recv failed", "doubt", "doubt"),
    # Of initialize only: as the answer to order_send it proves nothing.
    -10003: LastError("internal_fail_init", "IPC initialize failed", "doubt", "doubt"),
    -10004: LastError("internal_fail_connect", "No IPC connection", "not_sent", "unsent"),
    -10005: LastError("internal_fail_timeout", "IPC timeout", "doubt", "doubt"),
}

AGAIN = frozenset({10004, 10020, 10024, 10030})
"""After these an order that is sent once may be sent anew: nothing was executed, and the reason may be gone. The first
two are the server's "not at this price, but at that one", an offer that ends with its answer. The others are said
before the request comes to a dealer: too many of them, or a filling mode that the symbol does not take.

10021 (off quotes) is not among them: it was seen of orders that were executed all the same (reference mt5 §2.4). We
send, the server executes, we read "off quotes"; its deal is not to be seen yet, so a look finds nothing; we send again,
and it executes again. Only a whole settle window without a sight would show that it did not, and by then the order's
time is over. It stays rejected, and a deal that comes all the same is adopted with an alarm."""
IPC_ERRORS = frozenset(code for code in LAST_ERRORS if code <= -10000)
"""After any of them the replies may be one out of phase: nothing is asked before the next ``initialize``."""


def retcode_of(number: int) -> Retcode:
    """Return the row of a retcode; one that is not in the table proves nothing, and has no sentence."""
    return RETCODES.get(number) or Retcode(f"retcode_{number}", "", "doubt", *_DOUBT)


def last_error_of(code: int) -> LastError:
    """Return the row of a code of ``last_error()``; one that is not in the table proves nothing."""
    return LAST_ERRORS.get(code) or LastError(f"last_error_{code}", "Terminal: Unknown error", "doubt", "doubt")


@dataclass(frozen=True)
class OpeningVerdict:
    """What is known after ``order_send`` of an order that opens. ``ticket`` is > 0 when the outcome is accepted.

    ``again``: it is rejected, and the answer is proof enough to send it anew (:data:`AGAIN`).
    """

    outcome: Opening
    name: str
    message: str = ""
    ticket: int = 0
    again: bool = False


@dataclass(frozen=True)
class OperationVerdict:
    """What is known after a sending of an operation; ``text`` names the answer for a person."""

    meaning: Meaning
    text: str
    retcode: int | None = None


def classify_opening(retcode: int | None, ticket: int, comment: str, last_error: tuple[int, str]) -> OpeningVerdict:
    """Return what an answer means for an order that opens.

    Args:
        retcode: The result's retcode, or None where ``order_send`` returned None.
        ticket: The result's ``order``. A success without one is a doubt: nothing could be followed up.
        comment: The result's comment.
        last_error: Read immediately after the call.
    """
    if retcode is None:
        code, text = last_error
        error = last_error_of(code)
        return OpeningVerdict(error.opening, error.name, f"{text} ({code})")
    row = retcode_of(retcode)
    if row.opening == "accepted" and ticket <= 0:
        return OpeningVerdict("doubt", row.name, "expected an order ticket with a retcode of success, got 0")
    # One that was given a ticket may have come further than its answer says.
    return OpeningVerdict(row.opening, row.name, comment, ticket, again=retcode in AGAIN and ticket == 0)


def classify_operation(
    kind: OperationKind, retcode: int | None, comment: str, last_error: tuple[int, str]
) -> OperationVerdict:
    """Return what an answer means for an operation; arguments as of :func:`classify_opening`."""
    if retcode is None:
        code, text = last_error
        error = last_error_of(code)
        return OperationVerdict(error.operation, f"{error.name}: {text} ({code})")
    row = retcode_of(retcode)
    meaning: Meaning = getattr(row, kind)
    return OperationVerdict(meaning, f"{row.name}: {comment}" if comment else row.name, retcode)
