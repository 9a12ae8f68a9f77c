"""The real terminal process over real NATS on the simulated market: requests, reports, replay."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from itertools import pairwise

from nats.aio.client import Client

from streamapp import subjects
from streamapp.domain import facts
from streamapp.domain.identifiers import magic_of, tag_of
from streamapp.messages.account import SnapshotMessage
from streamapp.messages.log import is_intact
from streamapp.messages.terminal import AckReply, AckRequest, HelloReply, ReplayReply, ReplayRequest, SubmitReply
from tests.kit.waiting import eventually
from tests.terminal.conftest import Market, TerminalProcess

ACCEPTED = ["started", "returned", "accepted", "deal"]


async def test_an_order_becomes_one_broker_order_and_its_reports_in_order(
    terminal: TerminalProcess, market: Market
) -> None:
    terminal.start()
    hello = await terminal.ready()
    market.fault("hang", nth=1, params={"ms": 500})
    order = terminal.order("s-1", hello.epoch, stop_loss=Decimal("1.05"), take_profit=Decimal("1.2"))
    first, second = await terminal.submit(order), await terminal.submit(order)
    # Nothing was before it: INTENT and STARTED were one commit.
    assert (first.state, second.state) == ("started", "started")
    await eventually(lambda: terminal.kinds(order.order_id) == ACCEPTED, "the four reports")
    assert (await terminal.submit(order)).state == "result"
    (server_order,) = market.ledger()
    assert server_order["magic"] == magic_of(order.order_id)
    assert server_order["comment"].startswith(tag_of(order.order_id))
    deal = next(report.body for report in terminal.reports if report.kind == "deal")
    assert isinstance(deal, facts.Filled)
    (executed,) = market.ledger("deal")
    assert (deal.deal, deal.price) == (executed["ticket"], Decimal(executed["price"]))
    assert [report.seq for report in terminal.reports] == list(range(1, len(terminal.reports) + 1))
    assert await terminal.stop() == 0


async def test_netting_orders_are_confirmed_although_the_position_is_the_first_ones(
    netting_terminal: TerminalProcess, netting_market: Market
) -> None:
    netting_terminal.start()
    epoch = (await netting_terminal.ready()).epoch
    orders = [
        netting_terminal.order(name, epoch, side=side)
        for name, side in (("a", "buy"), ("b", "buy"), ("c", "sell"), ("d", "sell"))
    ]
    for order in orders:
        await netting_terminal.submit(order)
    await eventually(lambda: all(netting_terminal.kinds(order.order_id) == ACCEPTED for order in orders))
    assert len(netting_market.ledger()) == 4
    deals = [report.body for report in netting_terminal.reports if isinstance(report.body, facts.Filled)]
    assert [deal.entry for deal in deals] == ["in", "in", "out", "out"]
    assert len({deal.position_id for deal in deals}) == 1


async def test_a_conflict_a_stale_one_and_a_broken_request_are_answered_and_the_next_order_goes_on(
    terminal: TerminalProcess, market: Market
) -> None:
    terminal.start()
    epoch = (await terminal.ready()).epoch
    order = terminal.order("s-1", epoch)
    await terminal.submit(order)
    assert (await terminal.submit(terminal.order("s-1", epoch, volume=Decimal(3)))).state == "conflict"
    assert (await terminal.submit(terminal.order("late", epoch, valid_s=-1))).state == "refused"
    assert (await terminal.submit(terminal.order("foreign", "other"))).state == "doubt"
    unknown = terminal.order("unknown", epoch, symbol="NOSUCH")
    await terminal.submit(unknown)
    await eventually(lambda: terminal.kinds(unknown.order_id) == ["refused"])
    for payload in (
        b"",
        b"{",
        b"[]",
        b'{"order_id": 1}',
        terminal.order("x", epoch).model_copy(update={"account": "other"}).encode(),
    ):
        reply = SubmitReply.decode(await terminal.request("submit", payload))
        assert reply.error
        assert reply.row is None
    assert json.loads(await terminal.request("ack", b"nonsense"))["error"]
    good = terminal.order("s-2", epoch)
    await terminal.submit(good)
    await eventually(lambda: terminal.kinds(good.order_id) == ACCEPTED)
    assert len(market.ledger()) == 2


async def test_many_at_once_are_sent_in_order_of_arrival(terminal: TerminalProcess, market: Market) -> None:
    terminal.start()
    epoch = (await terminal.ready()).epoch
    orders = [terminal.order(str(number), epoch) for number in range(100)]
    replies = await asyncio.gather(*(terminal.submit(order) for order in orders))
    assert {reply.state for reply in replies} <= {"recorded", "started"}
    await eventually(lambda: len(market.ledger()) == 100)
    assert [row["magic"] for row in market.ledger()] == [magic_of(order.order_id) for order in orders]


async def test_the_outbox_is_kept_until_the_ack_and_replayed_under_new_ids(terminal: TerminalProcess) -> None:
    terminal.start()
    epoch = (await terminal.ready()).epoch
    order = terminal.order("s-1", epoch)
    await terminal.submit(order)
    await eventually(lambda: terminal.kinds(order.order_id) == ACCEPTED)
    replay = ReplayRequest(epoch=epoch, after_seq=1, replay_id="again")
    reply = ReplayReply.decode(await terminal.request("replay", replay.encode()))
    # On a busy machine the connection may be reported lost and found meanwhile: what was replayed is known by its seq.
    last = 1 + reply.published
    assert last >= len(ACCEPTED)

    def told_twice() -> bool:
        return all(sum(report.seq == seq for report in terminal.reports) == 2 for seq in range(2, last + 1))

    await eventually(told_twice, lambda: f"two of each, got {[report.seq for report in terminal.reports]}")
    for seq in range(2, last + 1):
        first, second = (report for report in terminal.reports if report.seq == seq)
        assert first == second
    assert f"streamapp:report:{terminal.account}:{epoch}:2-{last}:again" in terminal.message_ids
    foreign = AckReply.decode(await terminal.request("ack", AckRequest(epoch="other", watermark=99).encode()))
    assert foreign.released_seq == 0
    acked = AckReply.decode(await terminal.request("ack", AckRequest(epoch=epoch, watermark=2).encode()))
    assert acked.released_seq == 2
    assert acked.last_seq >= last
    again = ReplayReply.decode(
        await terminal.request("replay", ReplayRequest(epoch=epoch, after_seq=0, replay_id="r").encode())
    )
    assert again.published >= last - 2
    refused = ReplayReply.decode(
        await terminal.request("replay", ReplayRequest(epoch="other", after_seq=0, replay_id="r").encode())
    )
    assert refused.error


async def test_snapshots_and_the_broker_log_are_told(terminal: TerminalProcess, client: Client) -> None:
    terminal.start()
    epoch = (await terminal.ready()).epoch
    order = terminal.order("s-1", epoch)
    await terminal.submit(order)
    jetstream = client.jetstream()

    async def with_position() -> SnapshotMessage | None:
        stored = await jetstream.get_last_msg("ACCOUNT_SNAPSHOTS", subjects.snapshot(terminal.account))
        snapshot = SnapshotMessage.decode(stored.data or b"")
        return snapshot if snapshot.positions and snapshot.deals_seen else None

    await eventually(lambda: terminal.kinds(order.order_id) == ACCEPTED)
    snapshot = await eventually(with_position)
    assert snapshot.positions[0].magic == magic_of(order.order_id)
    assert (snapshot.state.connection, snapshot.state.currency, snapshot.deals_seen) == ("ready", "USD", 1)

    await eventually(lambda: any(entry.function == "order_send" for entry in terminal.entries))
    log = list(terminal.entries)
    assert [entry.seq for entry in log] == list(range(1, len(log) + 1))
    assert all(is_intact(entry) for entry in log)
    assert all(later.previous_hash == earlier.hash for earlier, later in pairwise(log))
    assert log[0].function == "initialize"
    assert "s3cret" not in str(log)
    assert next(entry.order_id for entry in log if entry.function == "order_send") == order.order_id


async def test_hello_says_who_the_terminal_is(terminal: TerminalProcess) -> None:
    terminal.start()
    hello = await terminal.ready()
    await terminal.stop()
    terminal.start()
    again: HelloReply = await terminal.ready()
    assert (again.account, again.epoch) == (terminal.account, hello.epoch)
