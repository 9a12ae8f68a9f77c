"""The first order after a start must not pay for first imports and compilations: unwarmed it took 130-160 ms."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TypeVar

from streamapp import topics
from streamapp.clock import Clock
from streamapp.desk.decide import Decided, State, decide
from streamapp.desk.inputs import Incoming, parse
from streamapp.desk.policy import Policy
from streamapp.desk.state import TerminalStatus
from streamapp.domain.identifiers import partition_of
from streamapp.messages.commit import encode_commit, publications_of
from streamapp.messages.fact import FactMessage
from streamapp.settings import Settings
from tables.row import Row

NOBODY = "warm-up"
TIMES = 20
"""Enough for every branch to be imported, compiled and cached."""
RowT = TypeVar("RowT", bound=Row)


def warm_up(settings: Settings, clock: Clock) -> None:
    """Go the pure part of an order's road some times. Nothing is written or sent."""
    for _ in range(TIMES):
        decided = rehearse(settings, clock)
        for row in decided.rows.values():
            row.encode()
        facts = (FactMessage.of(fact).encode() for fact in decided.facts)
        publications_of(encode_commit(NOBODY, 1, clock(), facts, decided.publications))


def rehearse(settings: Settings, clock: Clock) -> Decided:
    """Decide on an imagined signal and return what would be committed."""
    policy, now = Policy.of(settings), clock()
    account = next(iter(settings.accounts))
    names = settings.execution.field_names
    said = {"signal_id": NOBODY, "status": "approved", "account": account, "symbol": "EURUSD", "side": "buy"}
    said |= {"order_type": "market", "volume": "0.01"}
    payload = json.dumps({names.get(name, name): value for name, value in said.items()}).encode()
    partition = partition_of(account, policy.partitions)
    topic = topics.SIGNALS_APPROVED if policy.role != "connector" else topics.ORDERS_SUBMITTED
    news = parse(Incoming(payload, account.encode(), {}, topic, partition, 1, now), policy)
    state = State(account, policy, _no_rows, TerminalStatus(ready=True, epoch=NOBODY))
    return decide(state, news, now + timedelta(milliseconds=1))


def _no_rows(_key: bytes, _model: type[RowT]) -> RowT | None:
    return None
