"""What this worker knows by itself: the rows of its own partitions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple, Protocol

from streamapp.desk.alarms import ALARMS, AlarmMeaning
from streamapp.desk.policy import Policy
from streamapp.desk.reconciliation import READABLE
from streamapp.desk.rendering import current_order
from streamapp.desk.state import Comparing
from streamapp.domain.identifiers import partition_of
from streamapp.domain.vocabulary import time_text
from streamapp.errors import Transient
from streamapp.messages.account import AccountMessage, SnapshotMessage
from streamapp.messages.breaks import BreakMessage
from streamapp.messages.envelope import Message
from streamapp.messages.fact import FactMessage
from streamapp.messages.position import PositionMessage
from streamapp.web.indexes import OpenPositions, RecentFacts, StandingAlarms, StandingBreaks
from streamapp.web.limits import limits_answer
from tables.accounts import AccountRow, StandingAlarm, account_key
from tables.orders import OrderIndex, OrderRow, order_key
from tables.store import Store

Answer = dict[str, Any]

# Rows decoded and folded between two turns of the event loop, which has orders to send: some milliseconds.
_SLICE = 10
_NO_MEANING = AlarmMeaning("", "see docs/operations.md")


@dataclass(frozen=True)
class Filter:
    """Which orders, positions or accounts are wanted; None: any.

    ``day`` and ``before`` are of closed orders alone: the day (UTC) on which they changed last, and behind which other
    one (by the time of its last change, and its id) they stand.
    """

    status: str | None = None
    symbol: str | None = None
    account: str | None = None
    limit: int = 100
    strategy: str | None = None
    signal_id: str | None = None
    day: date | None = None
    before: tuple[datetime, str] | None = None


class Known(Protocol):
    """What is kept in memory of the rows (:class:`agents.desk.Desk`)."""

    recovered: asyncio.Event

    @property
    def index(self) -> OrderIndex:
        """The open orders."""
        ...

    def states(self) -> Mapping[str, AccountMessage]:
        """Return the accounts as they were published last."""
        ...

    def comparings(self) -> Mapping[str, Comparing]:
        """Return how the comparisons with the brokers' books stand."""
        ...


class Local:
    """Answers from the rows of this worker.

    Raises (every method):
        Transient: the rows, or their indexes, are being recovered; "there is none" would be a guess.
    """

    def __init__(
        self,
        store: Store,
        desk: Known,
        *,
        positions: OpenPositions,
        facts: RecentFacts,
        breaks: StandingBreaks,
        alarms: StandingAlarms,
        policy: Policy,
        clock_skew: Callable[[str], timedelta | None],
    ) -> None:
        self._store = store
        self._desk = desk
        self._open_positions = positions
        self._facts = facts
        self._policy = policy
        self._clock_skew = clock_skew
        self._breaks = breaks
        self._alarms = alarms

    def order(self, order_id: str) -> Answer | None:
        """Return order/1 with ``facts``, None if no partition of this worker has it.

        Of facts that are not at hand only the ``fact_id`` is there; ``older_facts`` counts them: ClickHouse has them.
        """
        self._require()
        found = self._store.find(order_key(order_id))
        row = None if found is None else OrderRow.decode(found[1])
        message = None if row is None else current_order(row)
        if row is None or message is None:
            return None
        known = self._facts.of(order_id)
        facts = [
            _object(FactMessage.of(known[fact_id])) if fact_id in known else {"fact_id": fact_id}
            for fact_id in row.state.facts
        ]
        return {**_object(message), "facts": facts, "older_facts": sum("body" not in fact for fact in facts)}

    async def orders(self, wanted: Filter) -> list[Answer]:
        """Return open orders as order/1, those that came last."""
        self._require()
        matching = [
            (order_id, order.partition)
            for order_id, order in self._desk.index.open.items()
            if _matches(order.status, wanted.status)
            and _matches(order.symbol, wanted.symbol)
            and _matches(order.account, wanted.account)
        ]
        found: list[Answer] = []
        for count, (order_id, partition) in enumerate(reversed(matching), start=1):
            if len(found) >= wanted.limit:
                break
            value = self._store.get(order_key(order_id), partition=partition)
            message = None if value is None else current_order(OrderRow.decode(value))
            if (
                message is not None
                and _matches(message.strategy, wanted.strategy)
                and _matches(message.signal_id, wanted.signal_id)
            ):
                found.append(_object(message))
            if count % _SLICE == 0:
                await asyncio.sleep(0)
        return found

    def positions(self, wanted: Filter) -> list[Answer]:
        """Return open positions as position/1, each with what the broker shows of it.

        ``foreign``: no order of ours is in it. ``broker`` is the position of snapshot/1, None where the broker has
        none; ``broker_at`` is when it was read, None while that is not known.
        """
        self._require()
        there = {account: _at_broker(known.snapshot) for account, known in self._desk.comparings().items()}
        return [
            _object(message) | self._beside(message, there.get(message.account))
            for message in self._open_positions.messages
            if _matches(message.account, wanted.account) and _matches(message.symbol, wanted.symbol)
        ]

    def _beside(self, message: PositionMessage, there: _SeenAt | None) -> Answer:
        shown = None if there is None else there.positions.get(message.position_id)
        is_ours = self._open_positions.is_ours(message.account, message.position_id)
        return {
            "foreign": not is_ours and (shown is None or shown["order_id"] is None),
            "broker": shown,
            "broker_at": None if there is None else there.at,
        }

    def snapshots(self, wanted: Filter) -> list[Answer]:
        """Return snapshot/1 of each account as its terminal said it last.

        Its positions and orders have ``foreign`` beside: whether no order of ours is in them.
        """
        self._require()
        snapshots = (known.snapshot for known in self._desk.comparings().values() if known.snapshot is not None)
        return [self._marked(each) for each in snapshots if _matches(each.account, wanted.account)]

    def _marked(self, snapshot: SnapshotMessage) -> Answer:
        body = _object(snapshot)
        for position in body["positions"]:
            is_ours = self._open_positions.is_ours(snapshot.account, position["position_id"])
            position["foreign"] = not is_ours and position["order_id"] is None
        for order in body["orders"]:
            order["foreign"] = order["order_id"] is None
        return body

    def breaks(self, wanted: Filter) -> list[Answer]:
        """Return break/1 of each difference that stands, settled or not; ``last_seen`` is of the last comparison."""
        self._require()
        compared = self._desk.comparings()
        return [
            _object(_seen_last(message, compared.get(message.account)))
            for message in self._breaks.messages
            if _matches(message.account, wanted.account)
        ]

    def alarms(self, wanted: Filter) -> list[Answer]:
        """Return the alarms that stand, in words."""
        self._require()
        return [
            _standing(account, alarm) for account, alarm in self._alarms.alarms if _matches(account, wanted.account)
        ]

    def accounts(self) -> list[Answer]:
        """Return account/1 of each account whose terminal was heard, with ``heard_at``: when it last said what it sees.

        account/1 itself is as old as the last change: an account where nothing happens has one of yesterday.
        """
        self._require()
        compared = self._desk.comparings()
        return [_heard(state, compared.get(account)) for account, state in self._desk.states().items()]

    def account(self, account: str) -> Answer | None:
        """Return one of :meth:`accounts`, None if its terminal was never heard here."""
        self._require()
        state = self._desk.states().get(account)
        return None if state is None else _heard(state, self._desk.comparings().get(account))

    def limits(self, account: str) -> Answer | None:
        """Return what may be opened at an account of this worker, None if it is another's, or nobody's."""
        self._require()
        file, partition = self._policy.limits.get(account), partition_of(account, self._policy.partitions)
        if file is None or partition not in self._store.owned:
            return None
        value = self._store.get(account_key(account), partition=partition)
        row = AccountRow(account=account) if value is None else AccountRow.decode(value)
        return limits_answer(file, row, self._desk.states().get(account), self._clock_skew(account))

    def _require(self) -> None:
        if not self._desk.recovered.is_set():
            raise Transient("the rows of this worker are being recovered")


class _SeenAt(NamedTuple):
    """The broker's positions by id, and when they were read."""

    positions: dict[int, Answer]
    at: str


def _at_broker(snapshot: SnapshotMessage | None) -> _SeenAt | None:
    if snapshot is None or snapshot.state.connection not in READABLE:
        return None
    body = _object(snapshot)
    return _SeenAt({each["position_id"]: each for each in body["positions"]}, body["at"])


def _heard(state: AccountMessage, compared: Comparing | None) -> Answer:
    snapshot = None if compared is None else compared.snapshot
    at = state.at if snapshot is None else max(state.at, snapshot.at)
    return _object(state) | {"heard_at": time_text(at)}


def _seen_last(message: BreakMessage, compared: Comparing | None) -> BreakMessage:
    at = None if compared is None or message.deal is not None else compared.at
    return message if at is None or at <= message.last_seen else message.model_copy(update={"last_seen": at})


def _standing(account: str, alarm: StandingAlarm) -> Answer:
    means = ALARMS.get(alarm.name, _NO_MEANING)
    return {
        "alarm_id": alarm.alarm_id,
        "alarm": alarm.name,
        "account": account,
        "count": alarm.count,
        "first_at": time_text(alarm.first_at),
        "at": time_text(alarm.at),
        "text": alarm.text,
        "order_id": alarm.order_id,
        "meaning": means.meaning,
        "todo": means.todo,
    }


def _matches(value: str | None, wanted: str | None) -> bool:
    return wanted is None or value == wanted


def _object(message: Message) -> Answer:
    found: Answer = json.loads(message.encode())
    return found
