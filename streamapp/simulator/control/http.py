"""What tests and people ask of the market over HTTP: health, ledger, quotes, faults, time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from streamapp.mt5.enums import ACCOUNT_OPERATION_NUMBERS, ACCOUNT_OPERATIONS, TRADES
from streamapp.simulator.books.accounts import SimulatedAccount
from streamapp.simulator.books.tables import BrokerDeal
from streamapp.simulator.control.fault_script import set_faults
from streamapp.simulator.prices.server_clock import VirtualClock
from streamapp.simulator.server.market import Market

# A script of faults or a quote is far smaller.
MAX_BODY = 1 << 20
# The largest price that money can be reckoned from, and the longest way of a virtual clock at once: a year.
MAX_PRICE = 10**9
MAX_AMOUNT = 10**12
MAX_ADVANCE_MS = 366 * 86_400_000
TYPES = {"GET /ledger": "application/x-ndjson", "GET /metrics": "text/plain; version=0.0.4"}


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A parsed request."""

    method: str
    path: str
    query: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON; nothing is an empty object."""
        return json.loads(self.body or b"{}")


class HttpError(Exception):
    """A refusal with its status."""

    def __init__(self, status: int, text: str) -> None:
        """``text`` says what was expected."""
        super().__init__(text)
        self.status = status
        self.text = text


def parse_http(buffer: bytes) -> HttpRequest | None:
    """Return the request in ``buffer``, or None while it is incomplete.

    Raises:
        HttpError: it is not HTTP, or too long.
    """
    head, gap, body = buffer.partition(b"\r\n\r\n")
    if len(head) > 65_536:
        raise HttpError(431, "expected at most 64 KiB of headers")
    if not gap:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3:
        raise HttpError(400, f"expected an HTTP request line, got {first[:80]!r}")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = headers.get("content-length", "0")
    if not length.isascii() or not length.isdecimal() or int(length) > MAX_BODY:
        raise HttpError(413, f"expected a body of at most {MAX_BODY} bytes with its Content-Length, got {length}")
    if len(body) < int(length):
        return None
    try:
        url = urlsplit(parts[1])
    except ValueError as error:
        raise HttpError(400, f"expected a path, got {parts[1][:80]!r}: {error}") from error
    query = {name: values[-1] for name, values in parse_qs(url.query).items()}
    return HttpRequest(parts[0], unquote(url.path), query, body[: int(length)])


def http_reply(status: int, kind: str, body: str) -> bytes:
    """Return a complete response; one request a connection."""
    content = body.encode()
    head = f"HTTP/1.1 {status} -\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    return head.encode() + content


class HttpControl:
    """The HTTP face of one market."""

    def __init__(self, market: Market) -> None:
        """Control ``market``."""
        self._market = market
        self._routes: dict[str, Callable[[HttpRequest], str]] = {
            "GET /health": self._health,
            "GET /metrics": self._metrics,
            "GET /ledger": self._ledger,
            "GET /quotes": self._quote,
            "POST /quotes": self._pin,
            "DELETE /quotes": self._release,
            "POST /symbols": self._change_symbol,
            "POST /operations": self._operate,
            "GET /faults": self._show_faults,
            "POST /faults": self._add_faults,
            "DELETE /faults": self._clear_faults,
            "GET /clock": self._clock,
            "POST /clock": self._advance,
        }

    def answer(self, request: HttpRequest) -> bytes:
        """Return the response to a request; what is wrong with it is said in JSON {error}."""
        first, _, rest = request.path.strip("/").partition("/")
        route = f"{request.method} /{first}" if not rest or first in {"quotes", "symbols"} else request.path
        try:
            if route not in self._routes:
                raise HttpError(404, f"expected one of {sorted(self._routes)}, got {request.method} {request.path}")
            body = self._routes[route](request)
        except HttpError as error:
            return http_reply(error.status, "application/json", json.dumps({"error": error.text}))
        except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            text = f"expected a body as the documentation of {route} shows it, got {type(error).__name__}: {error}"
            return http_reply(400, "application/json", json.dumps({"error": text}))
        return http_reply(200, TYPES.get(route, "application/json"), body)

    def _ledger(self, request: HttpRequest) -> str:
        key = request.query.get("account")
        if key is None:
            lines = self._market.books.ledger.lines()
        else:
            account = self._market.books.find(key)
            if account is None:
                raise HttpError(404, f"expected account as one of {sorted(self._market.books.accounts)}, got {key!r}")
            lines = self._market.books.ledger.lines(account.name)
        return "".join(line + "\n" for line in lines)

    def _symbol(self, request: HttpRequest) -> str:
        name = request.path.strip("/").partition("/")[2]
        if name not in self._market.feed.quotes:
            raise HttpError(404, f"expected a symbol of {sorted(self._market.feed.quotes)}, got {name!r}")
        return name

    def _quote(self, request: HttpRequest) -> str:
        if request.path.strip("/") == "quotes":
            return json.dumps({name: self._shown(name) for name in self._market.feed.quotes})
        return json.dumps(self._shown(self._symbol(request)))

    def _shown(self, name: str) -> dict[str, Any]:
        quoted = self._market.feed.quotes[name]
        return {"symbol": name, "bid": str(quoted.bid), "ask": str(quoted.ask), "pinned": quoted.pinned}

    def _pin(self, request: HttpRequest) -> str:
        name, body = self._symbol(request), request.json()
        bid, ask = Decimal(str(body["bid"])), Decimal(str(body["ask"]))
        lowest = 0 if self._market.feed.quotes[name].symbol.is_currency_pair else -MAX_PRICE
        if not lowest < bid <= ask < MAX_PRICE:
            raise HttpError(400, f"expected {lowest} < bid <= ask < {MAX_PRICE}, got bid {bid}, ask {ask}")
        self._market.feed.pin(name, bid, ask, self._market.clock.utc_ms(), hold=bool(body.get("pinned", True)))
        self._market.save_quotes()
        return json.dumps(self._shown(name))

    def _release(self, request: HttpRequest) -> str:
        name = self._symbol(request)
        self._market.feed.release(name, self._market.clock.utc_ms())
        return json.dumps(self._shown(name))

    def _change_symbol(self, request: HttpRequest) -> str:
        name, values = self._symbol(request), request.json()
        self._market.change_symbol(name, values)
        return json.dumps({"symbol": name, **values})

    def _operate(self, request: HttpRequest) -> str:
        """Book money that does not come from a trade, or another amount under a deal that did so."""
        body = request.json()
        account, kind = self._market.books.find(body["account"]), body.get("type", "balance")
        if account is None:
            raise HttpError(404, f"expected account as one of {sorted(self._market.books.accounts)}")
        if kind not in ACCOUNT_OPERATION_NUMBERS:
            raise HttpError(400, f"expected type as one of {sorted(ACCOUNT_OPERATION_NUMBERS)}, got {kind!r}")
        amount = Decimal(str(body["amount"]))
        if not abs(amount) < MAX_AMOUNT:
            raise HttpError(400, f"expected an amount of less than {MAX_AMOUNT} either way, got {amount}")
        comment = str(body.get("comment", ""))
        if "deal" in body:
            deal = _operation(account, body["deal"])
            self._market.positions.rebook(account, deal, amount)
        else:
            trade = _last_trade(account, body["position"]) if "position" in body else None
            deal = self._market.positions.balance(account, amount, comment, ACCOUNT_OPERATION_NUMBERS[kind], trade)
        return json.dumps({"deal": deal.ticket, "amount": str(deal.profit), "balance": str(account.balance)})

    def _show_faults(self, request: HttpRequest) -> str:  # noqa: ARG002  # a route takes its request
        return json.dumps([fault.shown() for fault in self._market.faults.active])

    def _add_faults(self, request: HttpRequest) -> str:
        """One fault, an array of them, or {"faults": [...], "replace": true}."""
        body = request.json()
        wrapped = body if isinstance(body, dict) and "faults" in body else {"faults": body}
        rows = wrapped["faults"] if isinstance(wrapped["faults"], list) else [wrapped["faults"]]
        if wrapped.get("replace"):
            self._market.faults.clear()
        return json.dumps([fault.shown() for fault in set_faults(self._market, rows)])

    def _clear_faults(self, request: HttpRequest) -> str:
        self._market.faults.clear()
        return self._show_faults(request)

    def _metrics(self, request: HttpRequest) -> str:  # noqa: ARG002  # a route takes its request
        return self._market.metrics()

    def _health(self, request: HttpRequest) -> str:  # noqa: ARG002  # a route takes its request
        return json.dumps(self._market.health())

    def _clock(self, request: HttpRequest) -> str:  # noqa: ARG002  # a route takes its request
        return self._time()

    def _time(self) -> str:
        clock = self._market.clock
        return json.dumps({"utc_ms": clock.utc_ms(), "server_ms": clock.server_ms(), "virtual": clock.virtual})

    def _advance(self, request: HttpRequest) -> str:
        """Move a virtual clock, or put the server's own forward or back; both in one request, in this order."""
        body = request.json()
        ms, shift_ms = int(body.get("advance_ms", 0)), int(body.get("shift_ms", 0))
        if not 0 <= ms <= MAX_ADVANCE_MS:
            raise HttpError(400, f"expected advance_ms from 0 to {MAX_ADVANCE_MS}, got {ms}")
        if abs(shift_ms) > MAX_ADVANCE_MS:
            raise HttpError(400, f"expected shift_ms of at most {MAX_ADVANCE_MS} either way, got {shift_ms}")
        if not {"advance_ms", "shift_ms"} & set(body):
            raise HttpError(400, f"expected advance_ms or shift_ms, got {sorted(body)}")
        if "advance_ms" in body and not isinstance(self._market.clock, VirtualClock):
            raise HttpError(
                409, "expected a market with a virtual clock, got a real one; start it with --virtual-clock"
            )
        self._market.timeline.run_until(self._market.clock.utc_ms() + ms)
        if shift_ms:
            self._market.shift_clock(shift_ms)
        return self._time()


def _operation(account: SimulatedAccount, ticket: Any) -> BrokerDeal:
    deal = account.history_deals.live.get(ticket)
    if deal is None or deal.type not in ACCOUNT_OPERATIONS:
        raise HttpError(404, f"expected deal as that of an operation on {account.name}, got {ticket!r}")
    return deal


def _last_trade(account: SimulatedAccount, position_id: Any) -> BrokerDeal:
    """Return the last deal that traded of a position, open or closed, by its identifier."""
    deals = account.history_deals.live.values()
    found = [deal for deal in deals if deal.position_id == position_id and deal.type in TRADES]
    if not found:
        raise HttpError(404, f"expected position as the identifier of one of {account.name}, got {position_id!r}")
    return found[-1]
