"""Facts of one order for the tests: a short way to say each, and hypothesis strategies over all of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from streamapp.domain import facts
from streamapp.domain.facts import Body, Fact, make_fact
from streamapp.domain.fold import fold
from streamapp.domain.orders import OrderState
from streamapp.domain.parameters import OrderParameters, parameters_hash

ACCOUNT = "demo"
ORDER = "6a2f5d1e-0000-8000-8000-000000000001"
START = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """Return a moment after the order was created."""
    return START + timedelta(seconds=seconds)


def says(body: Body, seconds: float = 1, cause: str | None = None, order_id: str | None = ORDER) -> Fact:
    """Return the fact that says ``body``."""
    return make_fact(ACCOUNT, order_id, body, at=at(seconds), causation_id=cause)


def created(volume: str = "1", seconds: float = 0, expected: str | None = None, **parameters: Any) -> Fact:
    """Return OrderCreated: a buy of EURUSD at market."""
    asked = OrderParameters(
        **{"symbol": "EURUSD", "side": "buy", "order_type": "market", "volume": Decimal(volume)} | parameters
    )
    body = facts.OrderCreated(
        parameters=asked,
        parameters_hash=parameters_hash(asked),
        signal_id="s-1",
        expected_price=None if expected is None else Decimal(expected),
        signal_at=START,
        not_after=at(30),
        executor="streamapp",
    )
    return says(body, seconds)


def claimed(attempt: int = 1, seconds: float = 1) -> Fact:
    return says(facts.SubmitClaimed(attempt=attempt, epoch="e1", not_after=at(30)), seconds)


def started(attempt: int = 1, seconds: float = 2, **market: Any) -> Fact:
    values = {
        "bid": Decimal("1.08500"),
        "ask": Decimal("1.08510"),
        "point": Decimal("0.00001"),
        "contract_size": Decimal(100_000),
        "account_rate": Decimal(1),
        "currency": "USD",
    }
    body = facts.SubmitStarted(attempt=attempt, quote_at=at(seconds), sent_at=at(seconds), **(values | market))
    return says(body, seconds)


def returned(attempt: int = 1, seconds: float = 3) -> Fact:
    return says(facts.SubmitReturned(attempt=attempt, retcode=10009, returned_at=at(seconds)), seconds)


def accepted(ticket: int = 7, seconds: float = 3) -> Fact:
    return says(facts.BrokerAccepted(ticket=ticket), seconds)


def unprotected(ticket: int = 7) -> Fact:
    levels = {"stop_loss": Decimal("1.08"), "found_take_profit": Decimal("1.09")}
    return says(facts.Unprotected(ticket=ticket, position_id=ticket, **levels), 4)


def cancelled(ticket: int = 7, reason: Any = "user", seconds: float = 5) -> Fact:
    return says(facts.BrokerCancelled(ticket=ticket, reason=reason), seconds)


def expired(ticket: int = 7, seconds: float = 5) -> Fact:
    return says(facts.BrokerExpired(ticket=ticket), seconds)


def rejected(attempt: int = 1, ticket: int | None = None, message: str = "", name: str = "NO_MONEY") -> Fact:
    body = facts.BrokerRejected(attempt=attempt, retcode=10019, retcode_name=name, message=message, ticket=ticket)
    return says(body, 4)


def refused(attempt: int = 1, reason: Any = "stale", message: str = "") -> Fact:
    return says(facts.SubmitRefused(attempt=attempt, reason=reason, message=message), 4)


def absent(attempt: int = 1) -> Fact:
    return says(facts.ProvenAbsent(attempt=attempt), 60)


def doubt(why: str = "deadline", attempt: int = 1) -> Fact:
    return says(facts.OutcomeUnknown(attempt=attempt, why=why), 30)


def operation(number: int, amount: str = "-3.5", position_id: int | None = 7, **more: Any) -> facts.AccountOperation:
    """Return money that was booked without a trade."""
    values = {"type": "commission", "currency": "USD", "at": at(5), **more}
    return facts.AccountOperation(deal=number, amount=Decimal(amount), position_id=position_id, **values)


def deal(
    number: int, volume: str, price: str = "1.08510", ticket: int = 7, seconds: float = 4, **more: Any
) -> facts.Filled:
    values: dict[str, Any] = {"position_id": 7, "symbol": "EURUSD", "side": "buy", "entry": "in", "reason": "expert"}
    return facts.Filled(
        deal=number,
        ticket=ticket,
        volume=Decimal(volume),
        price=Decimal(price),
        time=at(seconds),
        **(values | more),
    )


def filled(number: int = 9, volume: str = "1", price: str = "1.08510", cause: str | None = None, **more: Any) -> Fact:
    return says(deal(number, volume, price, **more), 4, cause)


def corrected(number: int, revision: int, volume: str, **more: Any) -> Fact:
    return says(facts.FillCorrected(revision=revision, deal=deal(number, volume, **more)), 6)


def busted(number: int, revision: int) -> Fact:
    return says(facts.FillBusted(deal=number, revision=revision), 6)


def modified(request_id: str, seconds: float = 5, **changes: Any) -> Fact:
    return says(facts.Modified(request_id=request_id, changes=changes), seconds)


def order_of(*several: Fact) -> OrderState:
    """Return the order made of some facts."""
    return fold(OrderState(), several)


_attempts = st.integers(1, 3)
_tickets = st.integers(7, 9)
_deals = st.integers(20, 24)
_requests = st.sampled_from(["r1", "r2"])
_volumes = st.sampled_from(["0.01", "0.3", "0.5", "1"])
_seconds = st.integers(1, 90).map(float)

bodies: st.SearchStrategy[Body] = st.one_of(
    st.builds(lambda n, s: claimed(n, s).body, _attempts, _seconds),
    st.builds(lambda n, s: started(n, s).body, _attempts, _seconds),
    st.builds(lambda n, s: returned(n, s).body, _attempts, _seconds),
    st.builds(lambda n, r: refused(n, r).body, _attempts, st.sampled_from(["stale", "invalid"])),
    st.builds(lambda n, t: rejected(n, t).body, _attempts, st.none() | _tickets),
    st.builds(lambda n: absent(n).body, _attempts),
    st.builds(lambda n, w: doubt(w, n).body, _attempts, st.sampled_from(["no_answer", "deadline", "foreign_timeout"])),
    st.builds(lambda t: accepted(t).body, _tickets),
    st.builds(lambda t, r: cancelled(t, r).body, _tickets, st.sampled_from(["user", "broker", "ioc_remainder"])),
    st.builds(lambda t: expired(t).body, _tickets),
    st.builds(lambda n, v, t: deal(n, v, ticket=t), _deals, _volumes, _tickets),
    st.builds(
        lambda n, r, v, t: corrected(n, r, v, ticket=t).body, st.integers(20, 24), st.integers(1, 3), _volumes, _tickets
    ),
    st.builds(lambda n, r: busted(n, r).body, _deals, st.integers(0, 3)),
    st.builds(lambda r: facts.CancelRequested(request_id=r), _requests),
    st.builds(lambda r: facts.CancelRejected(request_id=r), _requests),
    st.builds(lambda r: facts.ModifyRequested(request_id=r, changes={"volume": "2"}), _requests),
    st.builds(lambda r: facts.ModifyRejected(request_id=r), _requests),
    st.builds(lambda r, v: facts.Modified(request_id=r, changes={"volume": v}), _requests, _volumes),
    st.just(created("1").body),
)

_facts = st.builds(says, bodies, _seconds, st.sampled_from([None, "foreign:1"]))

fact_sets = st.lists(_facts, max_size=14, unique_by=lambda fact: fact.fact_id)
"""Facts of one order in any order: no two with the same id, as a fact's id stands for its content."""
