"""The seeded stream: good signals, and repeated, conflicting, refused and broken ones among them.

Pure; time and prices come in.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Literal

from streamapp.audit.evidence import SentView
from streamapp.domain.vocabulary import FINAL_STATUSES, time_text

Kind = Literal["good", "exit", "weighted", "repeated", "conflicting", "refused", "rejected", "broken"]

# Mostly good ones, for a demonstration is about those; enough of the others that one of each comes within seconds.
DEMO_SHARES: dict[Kind, int] = {
    "good": 64,
    "exit": 12,
    "weighted": 2,
    "repeated": 6,
    "conflicting": 4,
    "refused": 4,
    "rejected": 3,
    "broken": 5,
}
_ANSWERS: dict[Kind, frozenset[str]] = {
    "good": frozenset({"accepted"}),
    # A reverse is refused on a hedging account, and where the broker did not close all; levels where it takes none.
    "exit": frozenset({"accepted", "refused"}),
    "weighted": frozenset({"accepted"}),
    "repeated": frozenset({"duplicate"}),
    "conflicting": frozenset({"conflict"}),
    "refused": frozenset({"refused"}),
    "rejected": frozenset({"accepted"}),
    "broken": frozenset({"refused"}),
}
WEIGHTED = "basket"
"""The strategy whose signals go to several accounts: settings route it."""
_UNFILLED = frozenset({"rejected", "failed"})
"""How an order ends that the broker rejects, or that the terminal knows it would."""
_DIGITS = {"EURUSD": 5, "GBPUSD": 5, "USDJPY": 3, "XAUUSD": 2}
# Of a pending order to the market: near enough that some are reached within seconds, and far enough for the broker's
# stops level (50 points of gold, also between a stop-limit's two prices).
_PENDING_POINTS = {"EURUSD": (3, 40), "GBPUSD": (5, 60), "USDJPY": (5, 60), "XAUUSD": (110, 220)}
# Of a pending order that ends by itself: long enough to be placed on a busy machine, short enough to be seen to expire.
_UNTIL_S = (8, 20)
_STOP_DISTANCE = {"EURUSD": "0.0060", "GBPUSD": "0.0080", "USDJPY": "0.900", "XAUUSD": "25.00"}
_BROKEN = (
    b"this is not JSON",
    b"[1, 2, 3]",
    b'{"status": "approved", "symbol": "EURUSD"}',
    b'{"signal_id": "", "symbol": "EURUSD"}',
    b'{"signal_id": "x", "volume": NaN}',
)
SYMBOLS = tuple(_DIGITS)


@dataclass(frozen=True)
class Planned:
    """One message of the stream: ``at_s`` seconds after the start.

    ``payload`` None: made when it is due, by :meth:`Script.due`.
    """

    number: int
    at_s: float
    kind: Kind
    account: str
    symbol: str


class Script:
    """The stream for a seed: the same seed and the same prices give the same messages.

    Args:
        run: prefix of every signal id, so that two runs never meet.
        accounts: the accounts that trade, in turn by chance.
        seed: of everything that chance decides.
        shares: how many of each kind there are, relative to each other.
        pending: the share of good signals that are limit, stop and stop-limit orders. Those without an expiration work
            until the market has moved: see :mod:`streamapp.demo.sweep`.
    """

    def __init__(
        self,
        run: str,
        accounts: tuple[str, ...],
        seed: int,
        shares: Mapping[Kind, int] | None = None,
        *,
        pending: float = 0.0,
    ) -> None:
        self._run = run
        self._accounts = accounts
        self._shares = dict(shares or DEMO_SHARES)
        self._random = random.Random(seed)  # noqa: S311 -- a demonstration, no secret
        self._pending = pending
        self._sent: list[dict[str, Any]] = []

    def plan(self, duration_s: float, rate: float) -> Iterator[Planned]:
        """Yield the messages in order of time: ``rate`` a second on average, for ``duration_s``."""
        kinds, shares = list(self._shares), list(self._shares.values())
        at_s, number = 0.0, 0
        while (at_s := at_s + self._random.expovariate(rate)) < duration_s:
            number += 1
            kind: Kind = self._random.choices(kinds, shares)[0] if number > len(self._accounts) else "good"
            yield Planned(number, at_s, kind, self._random.choice(self._accounts), self._random.choice(SYMBOLS))

    def due(self, planned: Planned, now: datetime, quotes: Mapping[str, tuple[Decimal, Decimal]]) -> tuple[str, bytes]:
        """Return the symbol of the subject and the payload of a message due now; quotes: (bid, ask) by symbol."""
        if planned.kind == "broken":
            return planned.symbol, self._random.choice(_BROKEN)
        if planned.kind in {"repeated", "conflicting"} and self._sent:
            before = dict(self._random.choice(self._sent))
            if planned.kind == "conflicting":
                before["volume"] = str(Decimal(before["volume"]) + Decimal("0.01"))
            return str(before["symbol"]), json.dumps(before).encode()
        if planned.kind == "exit" and self._sent:
            signal = self._exit(planned, now, quotes)
            return str(signal["symbol"]), json.dumps(signal).encode()
        signal = self._good(planned, now, quotes[planned.symbol])
        if planned.kind == "weighted":
            whole = {"account": None, "strategy": WEIGHTED, "order_type": "market", "volume": "0.10"}
            signal |= whole | dict.fromkeys(("price", "stop_limit_price", "time_in_force", "expiration"))
        elif planned.kind == "refused":
            signal |= self._random.choice(
                (
                    {"status": "pending"},
                    {"volume": "-0.10"},
                    {"account": "nobody"},
                    {"approved_at": time_text(now - timedelta(minutes=5))},
                    {"side": "up"},
                )
            )
        elif planned.kind == "rejected":
            # An unknown symbol, units where lots are expected, a volume between two steps: only MT5 can tell.
            signal |= self._random.choice(({"symbol": "NOSUCH"}, {"volume": "9999.00"}, {"volume": "0.015"}))
        else:
            self._sent.append(signal)
        return str(signal["symbol"]), json.dumps(signal).encode()

    def _exit(self, planned: Planned, now: datetime, quotes: Mapping[str, tuple[Decimal, Decimal]]) -> dict[str, Any]:
        """Return a way out of what an earlier signal may have opened."""
        before = self._random.choice(self._sent)
        intent, symbol = (
            self._random.choice(("close", "close", "reduce", "reduce", "reverse", "modify")),
            before["symbol"],
        )
        asked: dict[str, Any] = {}
        if intent == "reduce":
            asked["volume"] = "0.05"
        if intent == "modify":
            # A long way off on both sides: whatever is open, one of the two is a stop.
            bid, far = quotes[symbol][0], Decimal(_STOP_DISTANCE[symbol]) * 2
            levels = ("stop_loss", "take_profit") if before["side"] == "buy" else ("take_profit", "stop_loss")
            asked |= {
                name: str((bid + way * far).quantize(_unit(symbol))) for name, way in zip(levels, (-1, 1), strict=True)
            }
        return {
            "signal_id": f"{self._run}-{planned.number:06d}",
            "status": "approved",
            "account": before["account"],
            "strategy": before["strategy"],
            "symbol": symbol,
            "intent": intent,
            "approved_at": time_text(now),
            "metadata": {"run": self._run},
        } | asked

    def _good(self, planned: Planned, now: datetime, quote: tuple[Decimal, Decimal]) -> dict[str, Any]:
        side = self._random.choice(("buy", "sell"))
        market = quote[1] if side == "buy" else quote[0]
        asked = self._pending_order(planned.symbol, side, market, now) if self._random.random() < self._pending else {}
        entry = Decimal(asked.get("stop_limit_price") or asked.get("price") or market)
        unit = _unit(planned.symbol)
        distance = Decimal(_STOP_DISTANCE[planned.symbol]) * (1 if side == "buy" else -1)
        # netting positions share their stops, so not every signal brings its own
        with_stops = self._random.random() < 0.5
        return {
            "signal_id": f"{self._run}-{planned.number:06d}",
            "status": "approved",
            "account": planned.account,
            "strategy": self._random.choice(("breakout", "carry", "meanrev")),
            "symbol": planned.symbol,
            "side": side,
            "order_type": "market",
            "volume": str(Decimal(self._random.randint(1, 30)) / 100),
            "stop_loss": str((entry - distance).quantize(unit, ROUND_HALF_UP)) if with_stops else None,
            "take_profit": str((entry + distance).quantize(unit, ROUND_HALF_UP)) if with_stops else None,
            "expected_price": str(entry.quantize(unit, ROUND_HALF_UP)),
            "approved_at": time_text(now),
            "metadata": {"run": self._run},
        } | asked

    def _pending_order(self, symbol: str, side: str, market: Decimal, now: datetime) -> dict[str, str]:
        kind = self._random.choice(("limit", "stop", "stop_limit"))
        unit = _unit(symbol)
        away = self._random.randint(*_PENDING_POINTS[symbol]) * unit
        up = (side == "buy") == (kind != "limit")
        price = (market + away if up else market - away).quantize(unit, ROUND_HALF_UP)
        asked = {"order_type": kind, "price": str(price)}
        if kind == "stop_limit":
            limit = price - away / 2 if side == "buy" else price + away / 2
            asked["stop_limit_price"] = str(limit.quantize(unit, ROUND_HALF_UP))
        lifetime = self._random.choice(("gtc", "day", "until"))
        if lifetime == "until":
            asked["expiration"] = time_text(now + timedelta(seconds=self._random.randint(*_UNTIL_S)))
        return asked | {"time_in_force": lifetime}


def sent_view(kind: Kind, payload: bytes, stream_seq: int) -> SentView:
    """Return what :mod:`streamapp.audit` must find of a message that the stream has under this sequence."""
    if kind == "broken":
        return SentView(stream_seq, kind, "", _ANSWERS[kind], frozenset())
    signal, answers = json.loads(payload), _ANSWERS[kind]
    # A moment of its own at which it ends: whoever was away until then must refuse it.
    if kind == "good" and signal.get("expiration") is not None:
        answers |= {"refused"}
    ends = _UNFILLED if kind == "rejected" else FINAL_STATUSES
    return SentView(stream_seq, kind, signal["signal_id"], answers, ends)


def _unit(symbol: str) -> Decimal:
    return Decimal(1).scaleb(-_DIGITS[symbol])
