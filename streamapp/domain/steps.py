"""The steps of an order on its way, from one moment to a later one: what the report and the histograms measure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Literal

from streamapp.domain.facts import Fact, Filled, OrderCreated, SubmitReturned, SubmitStarted
from streamapp.domain.orders import OrderState

Moment = Literal["signal", "created", "committed", "submitted", "order_send", "answer", "reported", "fill"]
"""signal: the risk engine approved it. created: we decided. committed: the decision is durable. submitted: the terminal
has recorded the order. order_send: it calls the broker, for the last time. answer: the broker answered that call.
reported: that answer is durable at the desk. fill: the first deal, by the broker's clock.
"""
Step = Literal[
    "signal to created",
    "created to committed",
    "committed to submitted",
    "created to order_send",
    "order_send to answer",
    "answer to reported",
    "order_send to fill",
    "signal to fill",
]
STEPS: dict[Step, tuple[Moment, Moment]] = {
    "signal to created": ("signal", "created"),
    "created to committed": ("created", "committed"),
    "committed to submitted": ("committed", "submitted"),
    "created to order_send": ("created", "order_send"),
    "order_send to answer": ("order_send", "answer"),
    "answer to reported": ("answer", "reported"),
    "order_send to fill": ("order_send", "fill"),
    "signal to fill": ("signal", "fill"),
}


def steps_between(times: Mapping[Moment, datetime]) -> Iterator[tuple[Step, timedelta]]:
    """Return how long each step took of which both moments are known.

    >>> noon = datetime(2026, 11, 20, 12)
    >>> list(steps_between({"signal": noon, "created": noon + timedelta(milliseconds=4)}))
    [('signal to created', datetime.timedelta(microseconds=4000))]
    """
    for step, (first, last) in STEPS.items():
        if first in times and last in times:
            yield step, times[last] - times[first]


def steps_ended(fact: Fact, order: OrderState, durable_at: datetime) -> Iterator[tuple[Step, timedelta]]:
    """Return how long the steps took that end with ``fact``, which is in ``order`` and durable since ``durable_at``."""
    created = order.created
    if created is None or order.created_at is None:
        return
    match fact.body:
        case OrderCreated():
            times: dict[Moment, datetime] = {"signal": created.signal_at, "created": order.created_at}
            yield from steps_between({**times, "committed": durable_at})
        case SubmitStarted(sent_at=sent_at):
            yield from steps_between({"created": order.created_at, "order_send": sent_at})
        case SubmitReturned(attempt=attempt, returned_at=returned_at):
            sent = order.attempts[attempt].started
            known: dict[Moment, datetime] = {} if sent is None else {"order_send": sent.sent_at}
            yield from steps_between({**known, "answer": returned_at, "reported": durable_at})
        # How long a pending order waits for its price says nothing about the road.
        case Filled(deal=deal, time=time) if created.parameters.order_type == "market" and _is_first(order, deal):
            sending: dict[Moment, datetime] = {} if order.started is None else {"order_send": order.started.sent_at}
            yield from steps_between({"signal": created.signal_at, **sending, "fill": time})


def _is_first(order: OrderState, deal: int) -> bool:
    return bool(order.fills) and order.fills[0].deal == deal
