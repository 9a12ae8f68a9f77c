"""Our books and the broker's: when they are compared, what becomes a break, and what waits for the first comparison."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from streamapp import topics
from streamapp.desk.reconciliation import settle_break
from streamapp.desk.state import Draft
from streamapp.domain import facts
from streamapp.errors import Unusable
from streamapp.messages.account import AccountMessage, SnapshotMessage, SnapshotOrder, SnapshotPosition
from streamapp.messages.report import REPORT_BODIES
from tests.kit.desk import ACCOUNT, NOW, DeskWorld
from tests.kit.examples import deal

KINDS = {body: kind for kind, body in REPORT_BODIES.items()}
NUMBERS = dict.fromkeys(("open_price", "profit", "swap"), Decimal(1))


def position(lots: str = "0.1", number: int = 7, symbol: str = "EURUSD", **changes: Any) -> SnapshotPosition:
    fields: dict[str, Any] = {"position_id": number, "ticket": number, "symbol": symbol, "magic": 0, **NUMBERS}
    side = "sell" if lots.startswith("-") else "buy"
    return SnapshotPosition(side=side, volume=Decimal(lots.removeprefix("-")), **(fields | changes))


def working(order_id: str | None, ticket: int = 7) -> SnapshotOrder:
    return SnapshotOrder(
        ticket=ticket,
        symbol="EURUSD",
        side="buy",
        order_type="limit",
        volume=Decimal("0.1"),
        price=Decimal("1.05"),
        magic=0,
        order_id=order_id,
    )


class House:
    """A worker, a journal that numbers its reports, and snapshots two seconds apart."""

    def __init__(self, **options: Any) -> None:
        self.world = DeskWorld(**options)
        self.epoch, self.seq = "e1", 0

    async def start(self) -> House:
        await self.world.start()
        return self

    async def reports(self, *said: tuple[str | None, Any]) -> None:
        """Let the journal report bodies, each of an order."""
        batch = [(KINDS[type(body)], order_id, body) for order_id, body in said]
        await self.world.report(*batch, first_seq=self.seq + 1, epoch=self.epoch)
        self.seq += len(batch)

    async def shows(self, *rows: SnapshotPosition | SnapshotOrder, seq: int | None = -1, **state: Any) -> None:
        """Give a snapshot as of the journal's last report, or of ``seq``."""
        self.world.later(2)
        at = self.world.clock.now
        snapshot = SnapshotMessage(
            account=ACCOUNT,
            state=AccountMessage(**{"account": ACCOUNT, "connection": "ready", "epoch": self.epoch, "at": at} | state),
            positions=tuple(row for row in rows if isinstance(row, SnapshotPosition)),
            orders=tuple(row for row in rows if isinstance(row, SnapshotOrder)),
            report_seq=self.seq if seq == -1 else seq,
            at=at,
        )
        await self.world.give(snapshot.encode(), topics.ACCOUNT_SNAPSHOTS, "snapshot")
        await self.world.settled()

    async def opened(self, signal_id: str = "s-1", number: int = 7, **signal: Any) -> str:
        """Return our order whose deal opened 0.1 lots of position 7."""
        order_id = await self.world.signal(signal_id, **signal)
        body = deal(number, "0.1", ticket=number, position_id=number)
        await self.reports((order_id, facts.BrokerAccepted(ticket=number)), (order_id, body))
        return order_id

    async def placed(self) -> str:
        """Return our limit order that works at the broker under ticket 7."""
        order_id = await self.world.signal(order_type="limit", price="1.05")
        await self.reports((order_id, facts.BrokerAccepted(ticket=7)))
        return order_id

    @property
    def told(self) -> list[dict[str, Any]]:
        return self.world.published("break/1")

    @property
    def story(self) -> list[tuple[str, str, str | None, str | None]]:
        return [(one["kind"], one["disposition"], one["ours"], one["theirs"]) for one in self.told]

    @property
    def standing(self) -> tuple[str, ...]:
        row = self.world.account_row()
        return () if row is None else row.breaks


@pytest.fixture
async def house() -> House:
    return await House().start()


# --- what becomes a break


async def test_books_that_agree_make_nothing(house: House) -> None:
    await house.opened()
    for _ in range(3):
        await house.shows(position(), position("0.5", 99), working(None, 98))
    assert (house.told, house.standing) == ([], ())


async def test_a_position_that_is_gone_at_the_broker_is_a_break_when_two_snapshots_show_it(house: House) -> None:
    order_id = await house.opened()
    await house.shows()
    assert house.told == []
    first = house.world.clock.now
    await house.shows()
    await house.shows()
    (found,) = house.told
    assert (found["kind"], found["position_id"], found["order_id"]) == ("position_missing", 7, order_id)
    assert (found["ours"], found["theirs"], found["lots"]) == ("buy 0.1 EURUSD", None, "-0.1")
    assert (found["disposition"], found["cause"], found["revision"]) == ("open", "unexplained", 1)
    seen = [found[name] for name in ("first_seen", "last_seen")]
    assert seen == [f"2026-11-20T12:00:{(first - NOW).seconds + s:02}.000000Z" for s in (0, 2)]
    assert found["break_id"] == f"a:position:7:{found['first_seen']}"
    assert house.world.subjects[-1] == "reconciliation.break.a"
    assert house.standing == ("position:7",)
    assert house.world.archived("break/1") == house.told
    assert house.world.metrics.alarms.labels("break")._value.get() == 1


async def test_a_position_of_ours_that_our_fold_does_not_have_is_a_break(house: House) -> None:
    await house.reports((None, facts.OutcomeUnknown(attempt=1, why="x")))
    for _ in range(2):
        await house.shows(position(order_id="o-9"))
    assert house.story == [("position_unknown", "open", None, "buy 0.1 EURUSD")]


@pytest.mark.parametrize(
    ("shown", "kind", "theirs"),
    [
        (position("0.4"), "volume", "buy 0.4 EURUSD"),
        (position("-0.1"), "side", "sell 0.1 EURUSD"),
        (position(symbol="XAUUSD"), "symbol", "buy 0.1 XAUUSD"),
    ],
)
async def test_another_volume_side_or_symbol_is_a_break(
    house: House, shown: SnapshotPosition, kind: str, theirs: str
) -> None:
    await house.opened()
    for _ in range(2):
        await house.shows(shown)
    assert house.story == [(kind, "open", "buy 0.1 EURUSD", theirs)]


async def test_a_position_of_somebody_else_is_never_a_break_even_if_our_fold_of_it_is_wrong(house: House) -> None:
    await house.reports((None, deal(9, "0.3", position_id=8)))
    for _ in range(3):
        await house.shows(position("0.7", 8), position("1", 9))
    assert house.told == []


async def test_an_order_that_does_not_work_any_more_and_one_that_works_though_it_is_over_are_breaks(
    house: House,
) -> None:
    order_id = await house.placed()
    await house.shows(working(order_id))
    for _ in range(2):
        await house.shows()
    assert house.story == [("order_missing", "open", "working", None)]
    await house.reports((order_id, facts.BrokerCancelled(ticket=7, reason="broker")))
    await house.shows()
    for _ in range(2):
        await house.shows(working(order_id))
    assert [one[:2] for one in house.story] == [
        ("order_missing", "open"),
        ("order_missing", "resolved"),
        ("order_unexpected", "open"),
    ]
    assert house.told[1]["cause"] == "late_report"


async def test_an_order_that_works_before_its_ticket_is_reported_is_no_break(house: House) -> None:
    order_id = await house.world.signal(order_type="limit", price="1.05")
    await house.reports((None, facts.OutcomeUnknown(attempt=1, why="x")))
    for _ in range(3):
        await house.shows(working(order_id))
    assert house.told == []


# --- the watermark


@pytest.mark.parametrize(
    "snapshot",
    [{"seq": 1}, {"seq": 3}, {"seq": None}, {"epoch": "e2"}, {"connection": "disconnected"}],
    ids=["older", "newer", "reported meanwhile", "another journal", "not read"],
)
async def test_a_snapshot_of_another_moment_than_the_rows_is_not_compared(
    house: House, snapshot: dict[str, Any]
) -> None:
    await house.opened()
    for _ in range(3):
        await house.shows(**snapshot)
    assert house.told == []


async def test_nothing_is_compared_while_a_report_is_missing(house: House) -> None:
    order_id = await house.opened()
    house.seq += 1
    await house.reports((order_id, facts.CancelRequested(request_id="r")))
    for _ in range(3):
        await house.shows(seq=2)
    assert house.told == []


async def test_a_snapshot_that_comes_before_its_reports_is_compared_when_they_are_durable(house: House) -> None:
    order_id = await house.opened()
    await house.shows()
    await house.shows(seq=3)
    assert house.told == []
    await house.reports((order_id, facts.CancelRequested(request_id="r")))
    assert house.story == [("position_missing", "open", "buy 0.1 EURUSD", None)]


async def test_a_deal_under_way_makes_no_break_whether_report_or_snapshot_is_first(house: House) -> None:
    order_id = await house.opened()
    closing: dict[str, Any] = {"position_id": 7, "side": "sell", "entry": "out"}
    await house.shows(position())
    await house.shows(position("0.05"))  # the journal has not seen the deal yet
    await house.reports((None, deal(10, "0.05", ticket=10, **closing)))
    await house.shows(position("0.05"))
    await house.reports((None, deal(11, "0.05", ticket=11, **closing)))
    await house.shows(position("0.05"))  # a table that lags
    await house.shows()
    assert house.told == []
    assert house.world.order_row(order_id).status == "filled"


async def test_another_deal_under_way_each_time_is_not_one_difference(house: House) -> None:
    await house.opened()
    for lots in ("0.2", "0.3", "0.4"):
        await house.shows(position(lots))
    assert house.told == []


async def test_a_redelivered_snapshot_is_no_second_look(house: House) -> None:
    await house.opened()
    await house.shows()
    record = house.world.acked[-1]
    await house.world.give(record, topics.ACCOUNT_SNAPSHOTS, "snapshot")
    await house.world.settled()
    assert house.told == []


# --- its life


async def test_a_break_that_a_late_report_explains_is_resolved_with_that_cause(house: House) -> None:
    await house.opened()
    for _ in range(2):
        await house.shows()
    last = house.told[0]["last_seen"]
    await house.reports((None, deal(10, "0.1", ticket=10, position_id=7, side="sell", entry="out")))
    await house.shows()
    found, gone = house.told
    assert (gone["break_id"], gone["disposition"], gone["cause"]) == (found["break_id"], "resolved", "late_report")
    assert (gone["revision"], gone["last_seen"]) == (2, last)
    assert house.standing == ()


async def test_a_break_that_the_broker_undoes_is_resolved_as_the_brokers(house: House) -> None:
    await house.opened()
    for _ in range(2):
        await house.shows(position("0.4"))
    await house.shows(position())
    assert [(one["disposition"], one["cause"]) for one in house.told] == [
        ("open", "unexplained"),
        ("resolved", "broker"),
    ]


async def test_an_open_break_follows_what_both_sides_do_and_changes_with_the_difference(house: House) -> None:
    await house.opened()
    for _ in range(2):
        await house.shows(position("0.4"))
    await house.reports((None, deal(10, "0.1", ticket=10, position_id=7)))
    await house.shows(position("0.5"))
    for _ in range(2):
        await house.shows()
    kinds = [(one["kind"], one["ours"], one["theirs"], one["revision"]) for one in house.told]
    assert kinds == [
        ("volume", "buy 0.1 EURUSD", "buy 0.4 EURUSD", 1),
        ("volume", "buy 0.2 EURUSD", "buy 0.5 EURUSD", 2),
        ("position_missing", "buy 0.2 EURUSD", None, 3),
    ]
    assert len({one["break_id"] for one in house.told}) == 1


async def test_after_a_restart_an_open_break_is_the_same_and_is_not_told_again(house: House) -> None:
    await house.opened()
    for _ in range(2):
        await house.shows()
    await house.world.restart()
    for _ in range(3):
        await house.shows()
    assert len(house.told) == 1
    await house.shows(position())
    assert [one["disposition"] for one in house.told] == ["open", "resolved"]
    assert house.told[1]["break_id"] == house.told[0]["break_id"]


async def test_a_break_costs_nothing_while_it_stands(house: House) -> None:
    await house.opened()
    for _ in range(2):
        await house.shows()
    commits = len(house.world.store.commits)
    for _ in range(5):
        await house.shows()
    assert len(house.world.store.commits) == commits


# --- settling


async def settle(house: House, break_id: str, reason: str = "the broker split it", by: str = "ann") -> None:
    """Settle as a command will: in a commit of its own."""
    world = house.world

    def rows(key: bytes, model: Any) -> Any:
        return world.row(key, model)

    draft = Draft(ACCOUNT, world.clock.now, world.policy, rows)
    settle_break(draft, break_id, reason, by)
    assert [publication.subject for publication in draft.publications] == ["reconciliation.break.a"]
    (place,) = {key for key in draft.changed if key.startswith(b"d/")}
    ((partition, _), *_) = world.store.commits
    await world.store.commit(partition, {place: draft.changed[place].encode()})
    world.desk._rows.forget(partition)


async def test_a_settled_break_is_not_told_again_until_the_difference_is_another(house: House) -> None:
    await house.opened()
    for _ in range(2):
        await house.shows(position("0.4"))
    (found,) = house.told
    await settle(house, found["break_id"])
    row = house.world.break_row("position:7")
    assert row is not None
    assert (row.message.disposition, row.message.reason, row.message.settled_by, row.message.revision) == (
        "settled",
        "the broker split it",
        "ann",
        2,
    )
    for _ in range(3):
        await house.shows(position("0.4"))
    assert len(house.told) == 1
    for _ in range(2):
        await house.shows(position("0.8"))
    _, other = house.told
    assert (other["break_id"] != found["break_id"], other["revision"], other["lots"]) == (True, 1, "0.7")


async def test_a_command_settles_a_break_with_its_reason_and_once(house: House) -> None:
    await house.opened()
    for _ in range(2):
        await house.shows(position("0.4"))
    values = {"break_id": house.told[0]["break_id"]}
    await house.world.command("break.settle", "c-1", values=values, reason="a split", issued_by="ann")
    row = house.world.break_row("position:7")
    assert row is not None
    assert (row.message.disposition, row.message.reason, row.message.settled_by) == ("settled", "a split", "ann")
    await house.world.command("break.settle", "c-2", values=values, reason="again")
    await house.world.command("break.settle", "c-3", values={"break_id": "nobody's"}, reason="?")
    await house.world.command("break.settle", "c-4", values=values)
    assert house.world.results("c-1") == [("accepted", None), ("done", None)]
    refused = [house.world.results(name) for name in ("c-2", "c-3", "c-4")]
    assert refused == [[("refused", "not_open")], [("refused", "unknown_break")], [("refused", "invalid")]]


async def test_a_settled_difference_that_ends_is_forgotten_in_silence_and_found_anew(house: House) -> None:
    await house.opened()
    for _ in range(2):
        await house.shows(position("0.4"))
    await settle(house, house.told[0]["break_id"])
    await house.shows(position())
    assert (len(house.told), house.standing) == (1, ())
    for _ in range(2):
        await house.shows(position("0.4"))
    assert [one["disposition"] for one in house.told] == ["open", "open"]


async def test_what_can_not_be_settled_is_refused_in_words(house: House) -> None:
    await house.opened()
    for _ in range(2):
        await house.shows(position("0.4"))
    break_id = house.told[0]["break_id"]
    for unknown in ("x", "a:position:7", f"b{break_id[1:]}", break_id.replace(":7:", ":8:"), break_id[:-2]):
        with pytest.raises(Unusable, match=r"unknown_break.*expected a break of account a"):
            await settle(house, unknown)
    await settle(house, break_id)
    with pytest.raises(Unusable, match=r"not_open.*settled already, by ann: the broker split it"):
        await settle(house, break_id, by="bob")
    await house.shows(position())
    for _ in range(2):
        await house.shows()
    await house.shows(position())
    with pytest.raises(Unusable, match=r"not_open.*agree again"):
        await settle(house, house.told[1]["break_id"])


# --- deals and their orders


async def test_a_deal_that_is_not_what_its_order_asked_for_is_a_break_until_it_is_corrected(house: House) -> None:
    order_id = await house.world.signal()
    wrong = deal(9, "0.1", ticket=7, side="sell")
    await house.reports((order_id, facts.BrokerAccepted(ticket=7)), (order_id, wrong))
    (found,) = house.told
    assert (found["kind"], found["deal"], found["order_id"]) == ("deal_differs", 9, order_id)
    assert (found["ours"], found["theirs"]) == ("buy 0.1 EURUSD", "sell 0.1 EURUSD")
    assert "deal_differs" in house.world.order_row(order_id).anomalies
    for _ in range(2):
        await house.shows(position("-0.1"))
    assert (len(house.told), house.standing) == (1, ("deal:9",))
    right = wrong.model_copy(update={"side": "buy"})
    await house.reports((order_id, facts.FillCorrected(revision=1, deal=right)))
    assert [(one["disposition"], one["cause"]) for one in house.told][1:] == [("resolved", "broker")]
    assert house.standing == ()


# --- the first reconciliation


async def test_an_account_opens_nothing_before_its_books_were_compared_once() -> None:
    house = await House(reconcile_first=True).start()
    order_id = await house.world.signal()
    await house.world.tick()
    assert house.world.terminals.submits == []
    assert house.world.order_row(order_id).standing == "held"
    assert house.world.desk.is_unreconciled(ACCOUNT)
    await house.reports((None, facts.OutcomeUnknown(attempt=1, why="x")))
    await house.shows()
    assert not house.world.desk.is_unreconciled(ACCOUNT)
    assert [request.order_id for request in house.world.terminals.submits] == [order_id]
    other = await house.world.signal("s-2")
    assert house.world.terminals.submits[-1].order_id == other


async def test_a_snapshot_of_long_ago_is_no_comparison_though_nothing_was_reported_since() -> None:
    house = await House(reconcile_first=True).start()
    await house.reports((None, facts.OutcomeUnknown(attempt=1, why="x")))
    await house.shows()
    old = house.world.acked[-1]
    await house.world.restart()
    house.world.later(60)
    order_id = await house.world.signal()
    await house.world.give(old, topics.ACCOUNT_SNAPSHOTS, "snapshot")
    await house.world.settled()
    assert house.world.order_row(order_id).standing == "held"
    await house.shows()
    assert house.world.order_row(order_id).standing == "unanswered"


async def test_more_held_orders_than_one_commit_holds_are_let_go_all_the_same() -> None:
    house = await House(reconcile_first=True).start()
    held = []
    for number in range(20):
        held.append(await house.world.signal(f"s-{number}", metadata={"note": "x" * 30_000}))
        house.world.later(0.5)
    await house.reports((None, facts.OutcomeUnknown(attempt=1, why="x")))
    await house.shows()
    assert house.world.failures == []
    assert [request.order_id for request in house.world.terminals.submits] == held


async def test_after_a_restart_and_with_a_new_journal_it_is_compared_first_again() -> None:
    house = await House(reconcile_first=True).start()
    await house.reports((None, facts.OutcomeUnknown(attempt=1, why="x")))
    await house.shows()
    await house.world.restart()
    first = await house.world.signal()
    assert house.world.terminals.submits == []
    await house.shows()
    assert [request.order_id for request in house.world.terminals.submits] == [first]
    house.epoch, house.seq = "e2", 0
    house.world.terminals.epoch = "e2"
    house.world.later(6)
    await house.world.tick()
    second = await house.world.signal("s-2")
    assert house.world.order_row(second).standing == "held"
    await house.reports((None, facts.OutcomeUnknown(attempt=1, why="x")))
    await house.shows()
    assert house.world.order_row(second).standing == "unanswered"


async def test_an_exit_does_not_wait_for_it() -> None:
    house = await House(reconcile_first=True).start()
    await house.reports((None, facts.OutcomeUnknown(attempt=1, why="x")))
    await house.shows()
    await house.opened()
    await house.world.restart()
    await house.world.signal("x-1", side=None, order_type=None, volume=None, intent="close")
    assert house.world.terminals.submits[-1].position_id == 7


async def test_an_order_that_waited_for_it_in_vain_is_refused_and_the_reason_says_so() -> None:
    house = await House(reconcile_first=True).start()
    order_id = await house.world.signal()
    house.world.later(40)
    await house.world.tick()
    row = house.world.order_row(order_id)
    assert (row.status, house.world.terminals.submits) == ("failed", [])
    refused = row.state.attempts[1].refused
    assert refused is not None
    assert "never compared with the broker's" in refused.message
