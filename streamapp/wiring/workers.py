"""The agents of the trading worker: which of them a role has, what they read, and what they work with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from agents.breakers import Breakers
from agents.broker import Broker
from agents.checks import Checks
from agents.completion import Completion
from agents.execution import Execution
from agents.handover import Handover
from agents.intake import Intake
from agents.lanes import Lanes
from agents.ledger import Ledger
from agents.outboxes import Outboxes
from agents.ports import OrderRows, SignalRows, Terminals
from agents.reports import Reports
from agents.rows import RowGate
from agents.snapshots import Snapshots
from streamapp import topics
from streamapp.clock import Clock
from streamapp.metrics import TradingMetrics
from streamapp.settings import Settings
from streamapp.wiring.holdings import Holdings

LANE_DEADLINE_S = 15.0
"""For one group of one account: a hello and a submit of 2 s each and some writes of milliseconds, or a write of up to
10 s while Kafka changes a leader. Two of these are what a rebalance waits for at most."""

GroupWork = Callable[[list[Any]], Awaitable[None]]


@dataclass(frozen=True)
class Surroundings:
    """What the agents work with beside their tables."""

    app: Any
    settings: Settings
    clock: Clock
    metrics: TradingMetrics
    holdings: Holdings
    terminals: Terminals
    breakers: Breakers
    signal_rows: SignalRows
    order_rows: OrderRows


def checks_of(house: Surroundings) -> Checks:
    """Return the timer's work."""
    return Checks(
        house.holdings.waiting,
        house.app.sends,
        breakers=house.breakers if house.settings.is_executor else None,
        settings=house.settings,
        clock=house.clock,
        metrics=house.metrics,
    )


def reports_of(house: Surroundings, outboxes: Outboxes) -> Reports:
    """Return the reports agent's work, which a timer has a part in."""
    return Reports(
        house.holdings.accounts,
        house.holdings.orders,
        house.app.sends,
        outboxes=outboxes,
        settings=house.settings,
        metrics=house.metrics,
    )


def register_agents(house: Surroundings, reports: Reports) -> None:
    """Register the agents of the settings' role on the app."""
    holdings, sends, metrics = house.holdings, house.app.sends, house.metrics
    settings = house.settings
    if settings.role == "connector":
        intake = Intake(holdings.signals, sends, settings, house.clock, metrics, halted=holdings.open_orders.halted)
        _in_lanes(house, topics.ORDERS_SUBMITTED, intake.handle)
    else:
        _in_lanes(house, topics.SIGNALS_APPROVED, _execution(house).handle)
    _in_lanes(house, topics.ORDER_COMMANDS, _broker(house).handle)
    _in_lanes(house, topics.ARCHIVE, Ledger(holdings.orders, holdings.positions, sends, settings, metrics).handle)
    _in_lanes(house, topics.BROKER_REPORTS, reports.handle)
    if settings.is_executor:
        snapshots = Snapshots(holdings.accounts, sends, settings, metrics)
        _in_lanes(house, topics.ACCOUNT_SNAPSHOTS, snapshots.handle)
    _register_completion(house)


def _execution(house: Surroundings) -> Execution:
    execution = house.settings.execution
    needs_approval = execution.approval == "payload"
    gate = RowGate(house.signal_rows, house.clock, needs_approval=needs_approval) if execution.require_row else None
    return Execution(
        house.holdings.signals,
        house.app.sends,
        house.settings,
        house.clock,
        house.metrics,
        gate=gate,
        halted=house.holdings.open_orders.halted,
    )


def _broker(house: Surroundings) -> Broker | Handover:
    table, sends, status = house.holdings.submissions, house.app.sends, house.holdings.order_status
    shared: dict[str, Any] = {"settings": house.settings, "clock": house.clock, "metrics": house.metrics}
    if not house.settings.is_executor:
        return Handover(table, sends, order_status=status, **shared)
    return Broker(table, sends, terminals=house.terminals, breakers=house.breakers, order_status=status, **shared)


def _in_lanes(house: Surroundings, topic: str, work: GroupWork) -> None:
    async def agent(stream: Any) -> None:
        lanes = Lanes(stream.ack, deadline_s=LANE_DEADLINE_S)
        async for event in stream.noack().events():
            await lanes.put_grouped(event.message.key, event, work)

    _register(house, topic, agent)


def _register(house: Surroundings, topic: str, agent: Callable[[Any], Awaitable[None]]) -> None:
    agent.__qualname__ = agent.__name__ = topic  # what Faust calls it in the log
    house.app.agent(house.app.raw_topic(topic), isolated_partitions=True, name=topic)(agent)


def _register_completion(house: Surroundings) -> None:
    completion = Completion(
        house.holdings.pins,
        house.app.sends,
        house.settings,
        house.clock,
        house.metrics,
        signals=house.signal_rows,
        orders=house.order_rows,
    )

    async def agent(stream: Any) -> None:
        lanes = Lanes(stream.ack, deadline_s=LANE_DEADLINE_S)
        async for event in stream.noack().events():
            await lanes.put(event.message.key, event, completion.handle)

    _register(house, topics.INCOMPLETE, agent)
