"""Reports and snapshots come by different ways, in any order: no deal that is reported in time becomes a break."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.messages.account import SnapshotPosition
from tests.desk.test_reconciliation import House, position
from tests.kit.examples import deal


@dataclass
class Broker:
    """A broker's book, the journal that reports its deals a look later at most, and what is on its way to the desk."""

    house: House
    order_id: str
    lots: Decimal = Decimal("0.1")
    deals: int = 20
    unreported: list[Any] = field(default_factory=list)
    seen_unreported: int = 0
    reports: list[Any] = field(default_factory=list)
    snapshots: list[tuple[int, Decimal]] = field(default_factory=list)
    given: int = 0

    @property
    def said(self) -> int:
        """The number of the journal's last report."""
        return self.given + len(self.reports)

    def trade(self) -> None:
        self.deals += 1
        self.lots += Decimal("0.1")
        self.unreported.append(deal(self.deals, "0.1", ticket=self.deals, position_id=7, seconds=self.deals))

    def report(self) -> None:
        self.reports += self.unreported
        self.unreported, self.seen_unreported = [], 0

    def look(self) -> None:
        """Read the position; a deal that was to be seen at the last look is reported before this one."""
        if self.seen_unreported:
            self.report()
        self.snapshots.append((self.said, self.lots))
        self.seen_unreported = len(self.unreported)

    async def deliver_reports(self, count: int) -> None:
        some, self.reports = self.reports[:count], self.reports[count:]
        if some:
            self.given += len(some)
            await self.house.reports(*((None, body) for body in some))

    async def deliver_snapshot(self) -> None:
        if self.snapshots:
            seq, lots = self.snapshots.pop(0)
            await self.house.shows(self.shown(lots), seq=seq)

    def shown(self, lots: Decimal) -> SnapshotPosition:
        return position(str(lots), order_id=self.order_id)


STEPS = st.lists(st.sampled_from(("trade", "report", "look", "reports 1", "reports 9", "snapshot")), max_size=40)


async def a_broker() -> Broker:
    house = await House().start()
    return Broker(house, await house.opened(), given=2)


@settings(max_examples=100, deadline=None)
@given(STEPS)
async def test_no_interleaving_of_deals_reports_and_snapshots_is_a_break(steps: list[str]) -> None:
    broker = await a_broker()
    for step in steps:
        match step:
            case "snapshot":
                await broker.deliver_snapshot()
            case "reports 1" | "reports 9":
                await broker.deliver_reports(int(step[-1]))
            case _:
                getattr(broker, step)()
    assert broker.house.told == []


@settings(max_examples=50, deadline=None)
@given(STEPS)
async def test_whatever_came_before_a_change_without_a_deal_is_found_once_all_is_quiet(steps: list[str]) -> None:
    broker = await a_broker()
    broker.lots += 5
    for step in steps:
        if step in {"trade", "report", "look"}:
            getattr(broker, step)()
        elif step == "snapshot":
            await broker.deliver_snapshot()
        else:
            await broker.deliver_reports(int(step[-1]))
    broker.report()
    await broker.deliver_reports(99)
    broker.snapshots.clear()
    for _ in range(2):
        broker.look()
        await broker.deliver_snapshot()
    assert {(one["kind"], one["lots"]) for one in broker.house.told} >= {("volume", "5.0")}
    assert broker.house.standing == ("position:7",)
