from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import aiohttp
import pytest
from yarl import URL

from streamapp.clickhouse.plots import Period
from streamapp.domain.day import Payment, TradingDay
from streamapp.domain.fold import fold
from streamapp.domain.identifiers import partition_of
from streamapp.domain.limits import LimitOverrides, Limits, SymbolLimits
from streamapp.domain.orders import OrderState
from streamapp.domain.vocabulary import time_text
from streamapp.letters.ledger import LetterLedger
from streamapp.letters.letter import KeptLetter
from streamapp.messages.account import AccountMessage, SnapshotMessage
from streamapp.messages.breaks import BreakMessage
from streamapp.messages.dead_letter import LetterDecisionMessage
from streamapp.messages.fact import FactMessage
from streamapp.messages.order import OrderMessage
from streamapp.settings import Settings
from tables.accounts import AccountRow, StandingAlarm, account_key
from tables.memory import MemoryStore
from tables.orders import OrderRow
from tests.messages.golden import golden, text
from tests.web.group import ACCOUNTS, AT, PARTITIONS, Group, Worker, facts_of, ids, order_row, running_group

VIEWS = [(f"/{name}", name) for name in ("orders", "positions", "accounts", "breaks", "snapshots")]


@pytest.fixture
async def group() -> AsyncIterator[Group]:
    async with running_group() as started:
        assert {started.workers.index(started.owner_of(account)) for account in ACCOUNTS} == {0, 1}
        yield started


def kept(order_id: str, **changes: Any) -> dict[str, Any]:
    return {"order_id": order_id, "status": "filled", "rev": 9, "updated_at": "2026-11-20T12:00:09.000000Z", **changes}


def account_of(group: Group, worker: Worker) -> str:
    return next(account for account in ACCOUNTS if group.owner_of(account) is worker)


async def test_every_order_is_found_by_asking_any_worker(group: Group) -> None:
    orders = ids(ACCOUNTS, 60)
    for order_id, account in orders:
        await group.put_order(order_row(order_id, account))
    for worker in group.workers:
        for order_id, account in orders:
            status, body, by = await group.get(worker, f"/orders/{order_id}")
            assert (status, body["order_id"], body["account"]) == (200, order_id, account)
            assert by == str(group.owner_of(account).url)
            assert [fact["fact"] for fact in body["facts"]] == ["OrderCreated", "SubmitClaimed"]
            assert OrderMessage.model_validate(body).status == "submitted"


async def test_an_order_with_its_facts_is_written_as_its_readers_know_it(group: Group) -> None:
    [expected] = golden("views/order")
    facts = [FactMessage.model_validate(fact) for fact in expected["facts"]]
    state = fold(OrderState(), facts)
    await group.put_order(
        OrderRow(open=True, order_id=expected["order_id"], account=expected["account"], state=state), recent=0
    )
    group.owner_of(expected["account"]).facts.said(facts)
    status, body, _ = await group.get(group.workers[0], f"/orders/{expected['order_id']}")
    assert (status, body) == (200, expected)


class OneLetter(LetterLedger):
    """A ledger with the letter of the wire, and what a person decided about it."""

    def __init__(self) -> None:
        super().__init__(Settings(), None, lambda: AT)  # type: ignore[arg-type]  # a list writes nothing

    async def newest(self) -> list[KeptLetter]:
        [letter], [decision, *_] = golden("dead-letter"), golden("dead_letter_decision-1")
        said = letter["headers"] | {"at": datetime.fromisoformat(letter["headers"]["time"])}
        said |= {name: int(said[name]) for name in ("sequence", "length")}
        del said["time"]
        kept = KeptLetter(id=decision["letter_id"], key=None, payload=letter["value"].encode(), **said)
        return [kept.decided(LetterDecisionMessage.model_validate(decision))]


async def put_one_of_each(group: Group) -> None:
    """Something for every list: our position, a foreign one, one of which the broker says nothing; and so on."""
    heard, silent = ACCOUNTS[:2]
    for account, position_id in ((heard, 1), (heard, 9), (silent, 2)):
        await group.put_position(account, position_id, "buy")
    group.put_snapshot(snapshot_of(heard))
    for account, state in zip((heard, silent), golden("account-1"), strict=True):
        said = AccountMessage.model_validate(state | {"account": account})
        group.owner_of(account).accounts[account] = said.model_copy(update={"at": AT})
    alarm = StandingAlarm(name="revived", text="order o-1", order_id="o-1", count=3, first_at=AT, at=AT)
    await group.put_alarms(heard, alarm)
    await put_limits(group, ACCOUNTS[2])


@pytest.mark.parametrize(
    "path", ["positions", "snapshots", "accounts", "alarms", f"limits?account={ACCOUNTS[2]}", "dead-letters"]
)
async def test_an_answer_is_written_as_its_readers_know_it(path: str) -> None:
    [expected] = golden(f"views/{path.partition('?')[0]}")
    async with running_group(letters=OneLetter()) as group:
        await put_one_of_each(group)
        for worker in group.workers:
            status, body, _ = await group.get(worker, f"/{path}")
            assert (status, text(body)) == (200, text(expected))


@pytest.mark.parametrize("order_id", ["foreign-7", "a/b c?d#e%41ü", str(uuid.UUID(int=8 << 76 | 2 << 62))])
async def test_a_foreign_id_is_found_wherever_it_is(group: Group, order_id: str) -> None:
    from urllib.parse import quote

    for worker in group.workers:
        account = account_of(group, worker)
        await group.put_order(order_row(order_id, account))
        for asked in group.workers:
            status, body, _ = await group.get(asked, f"/orders/{quote(order_id, safe='')}")
            assert (status, body["order_id"]) == (200, order_id)
        worker.store = worker.local._store = MemoryStore(partitions=4)


async def test_what_no_table_holds_is_read_from_clickhouse(group: Group) -> None:
    group.rows.orders["old"] = kept("old")
    group.rows.told_facts = [{"fact_id": "old:created"}]
    status, body, by = await group.get(group.workers[0], "/orders/old")
    assert (status, by, body["facts"]) == (200, "clickhouse", [{"fact_id": "old:created"}])
    assert "incomplete" not in body


async def test_what_clickhouse_has_beside_an_order_is_there_for_whoever_asks(group: Group) -> None:
    (order_id, account), *_ = ids(ACCOUNTS[:1], 1)
    await group.put_order(order_row(order_id, account))
    rows, path = group.rows, f"/orders/{order_id}"
    _, plain, _ = await group.get(group.workers[0], path)
    rows.log = [{"order_id": order_id, "function": "order_send"}, {"order_id": "another"}]
    rows.signals = [{"signal_id": plain["signal_id"], "account": account, "payload": "{}"}]
    status, body, _ = await group.get(group.workers[1], f"{path}?evidence=1")
    assert (status, body["log"], body["signals"]) == (200, rows.log[:1], rows.signals)
    assert "log" not in plain
    rows.away = True
    status, body, _ = await group.get(group.workers[1], f"{path}?evidence=1")
    assert (status, body["log"], body["signals"], body["missing"]) == (200, None, None, ["clickhouse"])


async def test_a_plot_is_asked_of_clickhouse_for_its_days_and_says_when_there_is_no_answer(group: Group) -> None:
    group.rows.plots = {"rejects": {"plot": "rejects", "x": {"name": "reason", "values": []}, "series": []}}
    asked = "/plots/rejects?day=2026-11-20&days=7&account=a-1"
    status, body, _ = await group.get(group.workers[0], asked)
    assert (status, body) == (200, group.rows.plots["rejects"])
    assert group.rows.asked[-1]["period"] == Period(date(2026, 11, 20), 7, "a-1")
    group.rows.away = True
    status, body, _ = await group.get(group.workers[0], asked)
    assert (status, body["missing"]) == (503, ["clickhouse"])


async def test_an_order_that_nobody_knows_is_404(group: Group) -> None:
    status, body, _ = await group.get(group.workers[0], f"/orders/{ids(ACCOUNTS, 1)[0][0]}")
    assert status == 404
    assert "error" in body


async def test_silence_is_never_read_as_not_found(group: Group) -> None:
    (order_id, account), *_ = ids(ACCOUNTS, 1)
    owner = group.owner_of(account)
    other = next(worker for worker in group.workers if worker is not owner)
    await group.stop(owner)
    status, body, _ = await group.get(other, f"/orders/{order_id}")
    assert (status, body["missing"]) == (503, [str(owner.url)])
    group.rows.orders[order_id] = kept(order_id)
    status, body, by = await group.get(other, f"/orders/{order_id}")
    assert (status, by, body["incomplete"], body["missing"]) == (200, "clickhouse", True, [str(owner.url)])


async def test_clickhouse_that_is_away_is_not_not_found(group: Group) -> None:
    group.rows.away = True
    status, body, _ = await group.get(group.workers[0], "/orders/whatever")
    assert (status, body["missing"]) == (503, ["clickhouse"])


async def test_facts_that_are_not_at_hand_come_from_clickhouse_and_until_then_by_their_ids(group: Group) -> None:
    (order_id, account), *_ = ids(ACCOUNTS, 1)
    row = order_row(order_id, account, claims=3)
    await group.put_order(row, recent=0)
    newest = [fact for fact in facts_of(order_id, account, claims=3) if fact.fact_id.endswith(":3")]
    group.owner_of(account).facts.said(newest)
    group.rows.told_facts = [{"fact_id": f"{order_id}:created", "body": {}}]
    _, body, _ = await group.get(group.workers[0], f"/orders/{order_id}")
    assert [fact["fact_id"] for fact in body["facts"]] == list(row.state.facts)
    assert ["body" in fact for fact in body["facts"]] == [True, False, False, True]
    group.rows.away = True
    _, body, _ = await group.get(group.workers[0], f"/orders/{order_id}")
    assert (body["incomplete"], body["missing"], len(body["facts"])) == (True, ["clickhouse"], 4)


async def test_an_order_without_its_older_facts_is_asked_of_the_workers_alone(group: Group) -> None:
    (order_id, account), *_ = ids(ACCOUNTS, 1)
    await group.put_order(order_row(order_id, account, claims=3), recent=0)
    group.rows.away = True
    for worker in group.workers:
        status, body, by = await group.get(worker, f"/orders/{order_id}?facts=0")
        assert (status, by, body["older_facts"]) == (200, str(group.owner_of(account).url), len(body["facts"]))
        assert "incomplete" not in body


async def test_lists_come_from_all_workers_and_clickhouse(group: Group) -> None:
    orders = ids(ACCOUNTS, 20)
    for order_id, account in orders:
        await group.put_order(order_row(order_id, account, symbol="XAUUSD" if account == ACCOUNTS[0] else "EURUSD"))
    group.rows.orders["old"] = kept("old")
    for worker in group.workers:
        status, body, _ = await group.get(worker, "/orders")
        assert (status, body["more"], body["incomplete"], body["missing"]) == (200, False, False, [])
        assert body["orders"][0]["order_id"] == "old"
        assert {order["order_id"] for order in body["orders"]} == {"old", *(order_id for order_id, _ in orders)}
        _, body, _ = await group.get(worker, f"/orders?status=submitted&symbol=XAUUSD&account={ACCOUNTS[0]}")
        assert {order["account"] for order in body["orders"]} == {ACCOUNTS[0]}
        assert len(body["orders"]) == 3
        _, body, _ = await group.get(worker, "/orders?status=filled")
        assert [order["order_id"] for order in body["orders"]] == ["old"]
        _, body, _ = await group.get(worker, "/orders?limit=5")
        assert (len(body["orders"]), body["more"]) == (5, True)


async def test_orders_are_found_by_their_strategy_and_their_signal(group: Group) -> None:
    (order_id, account), (_, other) = ids(ACCOUNTS, 2)
    await group.put_order(order_row(order_id, account))
    await group.put_order(order_row("other", other))
    _, body, _ = await group.get(group.workers[0], "/orders?signal_id=s-1")
    assert {order["order_id"] for order in body["orders"]} == {order_id, "other"}  # both are of one signal
    for query in ("signal_id=s-2", "strategy=breakout"):
        _, body, _ = await group.get(group.workers[0], f"/orders?{query}")
        assert body["orders"] == []


async def test_a_closed_day_is_read_from_clickhouse_page_by_page(group: Group) -> None:
    (order_id, account), *_ = ids(ACCOUNTS, 1)
    await group.put_order(order_row(order_id, account))
    for number in range(3):
        group.rows.orders[f"old-{number}"] = kept(f"old-{number}")
    _, body, _ = await group.get(group.workers[0], "/orders?day=2026-11-20&limit=3")
    assert [order["order_id"] for order in body["orders"]] == ["old-0", "old-1", "old-2"]
    assert (body["more"], body["next"]) == (True, "2026-11-20T12:00:09.000000Z,old-2")
    _, body, _ = await group.get(group.workers[0], f"/orders?day=2026-11-20&limit=4&before={body['next']}")
    assert (body["more"], body["next"]) == (False, None)
    asked = group.rows.asked[-1]
    assert (asked["day"], asked["before"]) == (AT.date(), (AT + timedelta(seconds=9), "old-2"))
    group.rows.away = True
    assert (await group.get(group.workers[0], "/orders?day=2026-11-20"))[0] == 503


async def test_an_order_that_closed_meanwhile_is_listed_once_and_as_closed(group: Group) -> None:
    (order_id, account), *_ = ids(ACCOUNTS, 1)
    await group.put_order(order_row(order_id, account))
    group.rows.orders[order_id] = kept(order_id)
    _, body, _ = await group.get(group.workers[0], "/orders")
    assert [(order["order_id"], order["status"]) for order in body["orders"]] == [(order_id, "filled")]


async def test_a_list_says_who_did_not_answer(group: Group) -> None:
    orders = ids(ACCOUNTS, 20)
    for order_id, account in orders:
        await group.put_order(order_row(order_id, account))
    here, gone = group.workers
    await group.stop(gone)
    group.rows.away = True
    for path, name in VIEWS:
        status, body, _ = await group.get(here, path)
        assert (status, body["incomplete"]) == (200, True)
        assert str(gone.url) in body["missing"]
        assert ("clickhouse" in body["missing"]) == (name == "orders")
    _, body, _ = await group.get(here, "/orders")
    mine = {order_id for order_id, account in orders if group.owner_of(account) is here}
    assert {order["order_id"] for order in body["orders"]} == mine


async def test_open_positions_are_listed_and_flat_ones_are_not(group: Group) -> None:
    await group.put_position(ACCOUNTS[0], 1, "buy", "buy")
    await group.put_position(ACCOUNTS[1], 2, "buy", "sell")
    await group.put_position(ACCOUNTS[2], 3, "sell")
    for worker in group.workers:
        _, body, _ = await group.get(worker, "/positions")
        seen = [(row["account"], row["position_id"], row["side"], row["volume"]) for row in body["positions"]]
        assert seen == [(ACCOUNTS[0], 1, "buy", "0.20"), (ACCOUNTS[2], 3, "sell", "0.10")]
        _, body, _ = await group.get(worker, f"/positions?account={ACCOUNTS[2]}&symbol=EURUSD")
        assert [row["account"] for row in body["positions"]] == [ACCOUNTS[2]]
    await group.put_position(ACCOUNTS[0], 1, "buy", "sell")
    _, body, _ = await group.get(group.workers[0], "/positions")
    assert [row["account"] for row in body["positions"]] == [ACCOUNTS[2]]


def snapshot_of(account: str, **changes: Any) -> SnapshotMessage:
    """One position and one order of ours, and two that are not, in a snapshot of the wire's own."""
    snapshot = SnapshotMessage.model_validate(golden("snapshot-1")[0])
    (mine,), (order,) = snapshot.positions, snapshot.orders
    other = {"position_id": 9, "ticket": 9, "order_id": None}
    state = snapshot.state.model_copy(update={"account": account} | changes)
    return snapshot.model_copy(
        update={
            "account": account,
            "state": state,
            "positions": (mine.model_copy(update={"position_id": 1}), mine.model_copy(update=other)),
            "orders": (order, order.model_copy(update={"ticket": 8, "order_id": None})),
        }
    )


async def test_a_position_is_shown_with_the_brokers_side_and_foreign_ones_are_marked(group: Group) -> None:
    for number in (1, 9):
        await group.put_position(ACCOUNTS[0], number, "buy")
    await group.put_position(ACCOUNTS[1], 1, "buy")
    await group.put_position(ACCOUNTS[2], 2, "buy")
    group.put_snapshot(snapshot_of(ACCOUNTS[0]))
    group.put_snapshot(snapshot_of(ACCOUNTS[1], connection="disconnected"))
    group.put_snapshot(snapshot_of(ACCOUNTS[2]))
    for worker in group.workers:
        _, body, _ = await group.get(worker, "/positions")
        mine, other, unknown, gone = body["positions"]
        shown = {name: mine["broker"][name] for name in ("stop_loss", "take_profit", "profit", "swap")}
        assert shown == {"stop_loss": "1.07900", "take_profit": "1.09100", "profit": "3.20", "swap": "0.00"}
        assert (mine["foreign"], mine["broker_at"]) == (False, "2026-11-20T12:00:01.123456Z")
        assert (other["foreign"], other["broker"]["position_id"]) == (True, 9)
        assert (unknown["broker"], unknown["broker_at"]) == (None, None)
        assert (gone["broker"], gone["broker_at"]) == (None, "2026-11-20T12:00:01.123456Z")


async def test_what_the_terminals_see_is_shown_and_what_is_not_ours_is_marked(group: Group) -> None:
    for account in ACCOUNTS[:2]:
        group.put_snapshot(snapshot_of(account))
    for worker in group.workers:
        _, body, _ = await group.get(worker, f"/snapshots?account={ACCOUNTS[1]}")
        (snapshot,) = body["snapshots"]
        assert [(each["position_id"], each["foreign"]) for each in snapshot["positions"]] == [(1, False), (9, True)]
        assert [each["foreign"] for each in snapshot["orders"]] == [False, True]
        _, body, _ = await group.get(worker, "/snapshots")
        assert [each["account"] for each in body["snapshots"]] == ACCOUNTS[:2]


async def test_breaks_that_stand_are_listed_as_they_were_seen_last(group: Group) -> None:
    settled, deal = map(BreakMessage.model_validate, golden("break-1"))
    for message in (settled, deal):
        account = ACCOUNTS[0] if message is settled else ACCOUNTS[1]
        break_id = message.break_id.replace(message.account, account)
        group.put_break(message.model_copy(update={"account": account, "break_id": break_id}))
    later = snapshot_of(ACCOUNTS[0]).model_copy(update={"at": settled.last_seen + timedelta(seconds=60)})
    group.put_snapshot(later)
    for worker in group.workers:
        _, body, _ = await group.get(worker, "/breaks")
        assert [one["disposition"] for one in body["breaks"]] == ["settled", "open"]
        seen = [one["last_seen"] for one in body["breaks"]]
        assert seen == ["2026-11-20T12:01:03.123456Z", "2026-11-20T12:00:01.123456Z"]
        _, body, _ = await group.get(worker, f"/breaks?account={ACCOUNTS[1]}")
        assert [one["kind"] for one in body["breaks"]] == ["deal_differs"]
    owner = group.owner_of(ACCOUNTS[1])
    owner.breaks.drop(frozenset(range(4)))
    _, body, _ = await group.get(owner, f"/breaks?account={ACCOUNTS[1]}&local=1")
    assert body["breaks"] == []


async def test_a_break_that_ended_or_was_found_anew_is_in_the_list_no_more(group: Group) -> None:
    settled, _ = map(BreakMessage.model_validate, golden("break-1"))
    again = settled.model_copy(update={"break_id": settled.break_id.replace("01.12", "09.12"), "disposition": "open"})
    for message, stands in ((settled, True), (again, True), (again, False)):
        group.put_break(message, stands=stands)
        _, body, _ = await group.get(group.workers[0], "/breaks")
        assert [one["break_id"] for one in body["breaks"]] == ([message.break_id] if stands else [])


async def test_an_account_is_found_by_asking_any_worker(group: Group) -> None:
    for account in ACCOUNTS:
        await group.put_account(account)
    for worker in group.workers:
        _, body, _ = await group.get(worker, "/accounts")
        assert [row["account"] for row in body["accounts"]] == ACCOUNTS
        for account in ACCOUNTS:
            status, body, by = await group.get(worker, f"/accounts/{account}")
            assert (status, body["schema"], body["account"]) == (200, "account/1", account)
            assert by == str(group.owner_of(account).url)
        assert (await group.get(worker, "/accounts/nobody"))[0] == 404


async def test_an_account_where_nothing_happens_is_heard_as_long_as_its_terminal_is(group: Group) -> None:
    idle, silent = ACCOUNTS[:2]
    for account in (idle, silent):
        await group.put_account(account)
    later = AT + timedelta(hours=1)
    group.put_snapshot(snapshot_of(idle).model_copy(update={"at": later}))
    _, body, _ = await group.get(group.workers[0], "/accounts")
    heard = {row["account"]: (row["at"], row["heard_at"]) for row in body["accounts"]}
    assert heard == {idle: (time_text(AT), time_text(later)), silent: (time_text(AT), time_text(AT))}
    assert (await group.get(group.workers[1], f"/accounts/{idle}"))[1]["heard_at"] == time_text(later)


async def put_limits(group: Group, account: str) -> None:
    """Limits of the file and of a person, and a day on which 100 were paid out and 100 are left."""
    owner = group.owner_of(account)
    owner.accounts[account] = AccountMessage(account=account, connection="ready", equity=Decimal(100), at=AT)
    overrides = LimitOverrides(
        account=Limits(max_volume=Decimal(2)),
        by_symbol={"EURUSD": SymbolLimits(max_spread_points=9)},
        by="mara",
        at=AT,
    )
    money = dict.fromkeys(("balance", "equity", "highest"), Decimal(1000))
    payments = {7: Payment(amount=Decimal(-100), revision=0, at=AT)}
    day = TradingDay(on=AT.date(), ends_at=AT, orders=3, begun_at=AT, payments=payments, **money)
    row = AccountRow(account=account, day=day, limits=overrides)
    await owner.store.commit(partition_of(account, PARTITIONS), {account_key(account): row.encode()})


async def test_limits_are_shown_as_the_file_and_a_person_say_them_with_todays_use(group: Group) -> None:
    account = account_of(group, group.workers[0])
    await put_limits(group, account)
    for worker in group.workers:
        status, body, by = await group.get(worker, f"/limits?account={account}")
        assert (status, by) == (200, str(group.workers[0].url))
        assert body["override"] == {"max_volume": "2"}
        assert body["effective"] == body["file"] | {"max_volume": "2"}
        assert body["by_symbol"]["EURUSD"]["effective"] == {"max_spread_points": 9}
        assert (body["set_by"], body["trading"]["state"], body["today"]["orders"]) == ("mara", "trading", 3)
        used = {"guard": "max_daily_loss", "limit": "1000", "value": "800", "share": "0.8000"}
        assert (body["today"]["loss"], body["today"]["drawdown"], body["clock_skew_s"]) == ("800", "800", 0.2)
        assert body["today"]["used"] == [used]


async def test_an_account_that_has_done_nothing_has_the_files_limits_and_nobodys_has_none(group: Group) -> None:
    for worker in group.workers:
        for account in ACCOUNTS:
            status, body, by = await group.get(worker, f"/limits?account={account}")
            assert (status, by, body["today"]) == (200, str(group.owner_of(account).url), None)
            assert body["effective"] == body["file"]
            assert body["file"]["max_daily_loss"] == "1000"
        assert (await group.get(worker, "/limits?account=nobody"))[0] == 404


async def test_limits_are_unknown_while_their_worker_is_silent(group: Group) -> None:
    account = account_of(group, group.workers[1])
    group.workers[1].recovered.clear()
    status, body, _ = await group.get(group.workers[0], f"/limits?account={account}")
    assert (status, body["missing"]) == (503, [str(group.workers[1].url)])


@pytest.mark.parametrize(
    "path",
    [
        "/orders?status=lost",
        "/orders?colour=red",
        "/orders?limit=0",
        "/orders?limit=1001",
        "/orders?limit=-1",
        "/orders?limit=%C2%B2",
        "/orders?symbol=",
        "/orders?day=yesterday",
        "/orders?day=2026-11-20&before=now,x",
        "/orders?before=2026-11-20T12:00:00,x",
        "/orders?symbol=%00",
        "/positions?status=filled",
        "/accounts?symbol=EURUSD",
        "/positions?limit=5",
        "/breaks?symbol=EURUSD",
        "/snapshots?limit=5",
        "/orders/%07",
        "/orders/" + "x" * 129,
        "/accounts/" + "x" * 129,
        "/limits",
        "/limits?symbol=EURUSD&account=account-1",
        "/plots/colours",
        "/plots/fills",
        "/plots/equity?days=93",
    ],
)
async def test_a_bad_question_is_400_and_says_what_was_expected(group: Group, path: str) -> None:
    status, body, _ = await group.get(group.workers[0], path)
    assert status == 400
    assert "expected" in body["error"]


async def test_a_worker_that_recovers_says_so_and_the_others_say_it_is_missing(group: Group) -> None:
    (order_id, account), *_ = ids(ACCOUNTS, 1)
    await group.put_order(order_row(order_id, account))
    owner = group.owner_of(account)
    owner.recovered.clear()
    for path in (f"/orders/{order_id}?local=1", "/orders?local=1"):
        status, body, _ = await group.get(owner, path)
        assert status == 503
        assert "recovered" in body["error"]
    for worker in group.workers:
        status, body, _ = await group.get(worker, f"/orders/{order_id}")
        assert (status, body["missing"]) == (503, [str(owner.url)])
        _, body, _ = await group.get(worker, "/orders")
        assert body["missing"] == [str(owner.url)]


async def test_an_inner_request_is_never_passed_on(group: Group) -> None:
    (order_id, account), *_ = ids(ACCOUNTS, 1)
    await group.put_order(order_row(order_id, account))
    other = next(worker for worker in group.workers if worker is not group.owner_of(account))
    assert (await group.get(other, f"/orders/{order_id}?local=1"))[0] == 404


async def test_health_and_metrics(group: Group) -> None:
    worker = group.workers[0]
    assert (await group.get(worker, "/health"))[:2] == (200, {"status": "ok", "reasons": []})
    worker.well = False
    assert (await group.get(worker, "/health"))[0] == 503
    async with aiohttp.ClientSession() as session, session.get(worker.url.join(URL("/metrics"))) as answer:
        assert await answer.text() == "figures 1\n"
