"""A day's statement of an account, from one midnight of its broker's server to the next, read from the archive.

It is read when it is due, so nothing has to be counted, or survive a restart, in the course of the day.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from streamapp import topics
from streamapp.domain.day import day_at
from streamapp.domain.identifiers import partition_of
from streamapp.domain.vocabulary import decimal_text
from streamapp.kafka.security import Cluster
from streamapp.messages.account import AccountMessage, AccountOperationMessage
from streamapp.messages.error import ErrorMessage
from streamapp.messages.fill import FillMessage
from streamapp.notifier.notices import Notice, notice
from streamapp.settings import Settings

SETTLED = timedelta(seconds=30)
"""After midnight, until what happened before it is in the archive."""
_POLL_MS = 500


@dataclass(frozen=True, slots=True)
class StatementDay:
    """The day ``on`` of an account, by its broker's clock: ``begins`` ≤ t < ``ends``."""

    account: str
    on: date
    begins: datetime
    ends: datetime

    @property
    def id(self) -> str:
        """The id of its notice."""
        return f"statement:{self.account}:{self.on}"


def last_day(account: str, now: datetime, offset_s: int) -> StatementDay | None:
    """Return the day whose statement is due; None in the first seconds of the next one."""
    midnight = day_at(None, now, offset_s).ends_at - timedelta(days=1)
    if now < midnight + SETTLED:
        return None
    begins = midnight - timedelta(days=1)
    return StatementDay(account, (begins + timedelta(seconds=offset_s)).date(), begins, midnight)


@dataclass
class DayTotals:
    """What a day's messages add up to; a message that is repeated, or a fill's correction, counts once."""

    day: StatementDay
    first: AccountMessage | None = None
    last: AccountMessage | None = None
    orders: set[str] = field(default_factory=set)
    rejected: set[str] = field(default_factory=set)
    fills: dict[int, FillMessage] = field(default_factory=dict)
    booked: dict[int, AccountOperationMessage] = field(default_factory=dict)

    def add(self, message: dict[str, Any]) -> None:
        """Count a message of the archive, if it is this account's and of this day."""
        if message.get("account") != self.day.account:
            return
        match message["schema"]:
            case "order/1" if self._is_on(datetime.fromisoformat(message["created_at"])):
                self.orders.add(message["order_id"])
            case "error/1" if self._is_on((error := ErrorMessage.model_validate(message)).at):
                if error.kind == "rejected":
                    self.rejected.add(error.order_id or error.error_id)
            case "fill/1" if self._is_on((fill := FillMessage.model_validate(message)).at):
                known = self.fills.get(fill.deal)
                if known is None or known.revision <= fill.revision:
                    self.fills[fill.deal] = fill
            case "account_operation/1":
                operation = AccountOperationMessage.model_validate(message)
                before = self.booked.get(operation.deal)
                if self._is_on(operation.at) and (before is None or before.revision <= operation.revision):
                    self.booked[operation.deal] = operation
            case "account/1" if self._is_on((state := AccountMessage.model_validate(message)).at):
                if state.equity is not None:
                    self.first, self.last = self.first or state, state

    def _is_on(self, at: datetime) -> bool:
        return self.day.begins <= at < self.day.ends

    def notice(self) -> Notice | None:
        """Return the statement, None of a day on which nothing was heard of the account."""
        if self.last is None and not self.orders and not self.fills:
            return None
        fills = [fill for fill in self.fills.values() if not fill.busted]
        currency = next((each.currency for each in (self.last, *fills) if each is not None and each.currency), "") or ""
        realized = sum((fill.profit + fill.commission + fill.swap + fill.fee for fill in fills), Decimal(0))
        booked = sum((each.amount for each in self.booked.values()), Decimal(0))
        lines = [
            f"realized {decimal_text(realized)} {currency}, booked without a trade {decimal_text(booked)} {currency}"
        ]
        equity = ""
        if self.first is not None and self.last is not None and self.first.equity is not None:
            assert self.last.equity is not None
            change = self.last.equity - self.first.equity
            equity = f", equity {decimal_text(self.last.equity)} {currency} ({change:+f})"
        lines.append(f"orders {len(self.orders)}, fills {len(fills)}, rejected {len(self.rejected)}")
        day = self.day
        title = f"account {day.account}, {day.on}: {decimal_text(realized)} {currency} realized{equity}"
        return notice("statement", "info", f"{day.account}:{day.on}", day.ends, title, *lines, account=day.account)


async def read_statement(settings: Settings, day: StatementDay) -> Notice | None:
    """Return the statement of a day, read from the account's partition of the archive.

    Raises:
        KafkaError: Kafka is away.
    """
    place = TopicPartition(
        settings.kafka.prefixed(topics.ARCHIVE), partition_of(day.account, settings.kafka.partitions)
    )
    totals, key = DayTotals(day), day.account.encode()
    consumer = AIOKafkaConsumer(enable_auto_commit=False, **Cluster.of(settings).client_options())
    await consumer.start()
    try:
        consumer.assign([place])
        found = (await consumer.offsets_for_times({place: int(day.begins.timestamp() * 1000)}))[place]
        end = (await consumer.end_offsets([place]))[place]
        at = end if found is None else found.offset
        consumer.seek(place, at)
        while at < end:
            for records in (await consumer.getmany(place, timeout_ms=_POLL_MS)).values():
                for record in records:
                    if record.key == key and record.value is not None:
                        for each in json.loads(record.value)["messages"]:
                            totals.add(each["message"])
            at = await consumer.position(place)
    finally:
        await consumer.stop()
    return totals.notice()
