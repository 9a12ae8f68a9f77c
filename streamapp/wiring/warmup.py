"""The first order after a start must not pay for first imports, connections and metadata (reference: kafka §2)."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from agents.execution import rules_of
from streamapp import topics
from streamapp.clock import Clock
from streamapp.domain.facts import Fact, OrderCreated, make_fact
from streamapp.domain.identifiers import order_id_for, partition_of
from streamapp.domain.parameters import parameters_hash
from streamapp.domain.signals import judge, not_after
from streamapp.kafka.producer import Producer, Record
from streamapp.messages.command import CheckSubmission, SubmitOrder, decode_command
from streamapp.messages.envelope import json_object
from streamapp.messages.fact import FactMessage
from streamapp.messages.signal import read_signal, renamed
from streamapp.settings import Settings

NOBODY = "warm-up"
"""The order id of the checks: no order has it, so that they pass all of the road and change nothing."""
TIMES = 20
"""Runs of the pure part: enough for every branch of it to be imported, compiled and cached."""


async def warm_up(app: Any, sends: Producer, settings: Settings, clock: Clock) -> None:
    """Go the road of an order as far as that is possible without one; all of it may be repeated.

    Raises:
        Ambiguous, Definite: Kafka did not take the checks.
    """
    for _ in range(TIMES):
        rehearse(settings, clock)
    producer = (await app.maybe_start_producer())._ensure_producer()  # noqa: SLF001  Faust hides whom to ask for metadata
    for topic in (
        *(spec.name for spec in topics.TOPICS),
        *(spec.name for spec in topics.changelogs(settings.deployment)),
    ):
        await producer.partitions_for(topic)
    await sends.send_all(_checks(settings))


def rehearse(settings: Settings, clock: Clock) -> Fact:
    """Read, judge and write an imagined signal, and return what its order's first fact would be. Nothing is sent."""
    now = clock()
    account = next(iter(settings.accounts))
    names = settings.execution.field_names
    said = {"signal_id": NOBODY, "status": "approved", "account": account, "symbol": "EURUSD", "side": "buy"}
    said |= {"order_type": "market", "volume": "0.01"}
    payload = json.dumps({names.get(name, name): value for name, value in said.items()}).encode()
    signal = read_signal(renamed(json_object(payload), settings.execution) | {"account": account})
    rules = rules_of(settings)
    judge(signal, rules, stream_time=now, now=now + timedelta(milliseconds=1))
    digest = parameters_hash(signal.parameters)
    created = OrderCreated(
        parameters=signal.parameters,
        parameters_hash=digest,
        signal_id=NOBODY,
        signal_at=now,
        not_after=not_after(signal, rules, now),
        executor=settings.deployment,
    )
    order_id = order_id_for(settings.deployment, account, NOBODY)
    command = SubmitOrder(
        order_id=order_id,
        account=account,
        signal_id=NOBODY,
        parameters=signal.parameters,
        parameters_hash=digest,
        not_after=created.not_after,
        executor=settings.deployment,
    )
    decode_command(command.encode())
    return FactMessage.decode(FactMessage.of(make_fact(account, order_id, created, at=now)).encode())


def _checks(settings: Settings) -> list[Record]:
    """Return one check for each account: through Kafka to whoever owns it, and to its terminal with a first hello."""
    return [
        Record(
            topics.ORDER_COMMANDS,
            account.encode(),
            CheckSubmission(order_id=NOBODY, account=account, cause="warm_up").encode(),
            {},
            partition_of(account, settings.kafka.partitions),
        )
        for account in settings.accounts
    ]
