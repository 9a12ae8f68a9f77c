"""A year later: what is over leaves the journal of the real process, wherever it is killed, and is never sent again."""

from __future__ import annotations

import signal
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path

from streamapp.domain.identifiers import magic_of
from streamapp.domain.vocabulary import time_text
from streamapp.messages.log import is_intact
from streamapp.messages.operation import OPERATIONS
from streamapp.messages.terminal import AckRequest, SubmitRequest
from tests.kit.waiting import eventually
from tests.terminal.asking import Desk
from tests.terminal.conftest import Market, TerminalProcess

AGE = timedelta(days=401)
TIMES = {"rows": ("recorded_at", "not_after"), "deals": ("at",), "operations": ("at",), "account_operations": ("at",)}


async def test_what_is_over_leaves_a_real_journal_wherever_it_is_killed_and_is_never_sent_again(
    terminal: TerminalProcess, market: Market
) -> None:
    desk = Desk(terminal)
    await desk.open()
    orders = [await over(desk), await cancelled(desk)]
    kept = await desk.position("kept")
    await terminal.stop()
    journal = next(terminal.log.parent.rglob("*.sqlite3"))
    before, size_b = counts(journal), journal.stat().st_size
    assert before == {"rows": 3, "tickets": 3, "deals": 3, "operations": 2, "sendings": 2}

    a_year_passes(journal, market)
    for point in ("terminal.in_prune", "terminal.after_prune:2"):
        process = terminal.start(crash_at=point)
        await eventually(lambda: is_gone(desk), f"the kill at {point}")
        assert process.returncode == -signal.SIGKILL
    await desk.open()

    async def all_left() -> bool:
        await acknowledge(desk)
        return counts(journal) == {"rows": 1, "tickets": 1, "deals": 1, "operations": 0, "sendings": 0}

    await eventually(all_left, lambda: f"one order left, got {counts(journal)}")
    assert [row.position_id for row in await desk.positions()] == [kept.position_id]

    for order in orders:
        again = order.model_copy(update={"not_after": order.not_after - AGE})
        assert (await terminal.submit(again)).state == "doubt"
        await eventually(partial(found_again, terminal, again), "adopted")
    ledger = [row["magic"] for row in market.ledger()]
    assert len(ledger) == len(set(ledger)) == 4
    assert {magic_of(order.order_id) for order in orders} < set(ledger)
    assert await terminal.stop() == 0
    assert journal.stat().st_size <= size_b
    entries = {entry.seq: entry for entry in terminal.entries}
    assert sorted(entries) == list(range(1, len(entries) + 1))
    assert all(is_intact(entry) for entry in entries.values())
    assert all(entries[seq].previous_hash == entries[seq - 1].hash for seq in range(2, len(entries) + 1))


async def over(desk: Desk) -> SubmitRequest:
    """An order that was filled, and whose position was closed by another one."""
    order = await desk.submit("over")
    await eventually(lambda: "deal" in desk.terminal.kinds(order.order_id), "filled")
    (position,) = await desk.positions()
    assert (await desk.ask("close", "close", position_id=position.position_id)).outcome in {"done", "recorded"}
    return order


async def cancelled(desk: Desk) -> SubmitRequest:
    order = await desk.submit("cancelled", order_type="limit", price=Decimal("0.90000"))
    assert (await desk.ask("cancel", "cancel", order_id=order.order_id)).outcome == "done"
    await eventually(lambda: "cancelled" in desk.terminal.kinds(order.order_id), "cancelled")
    return order


def counts(journal: Path) -> dict[str, int]:
    with closing(sqlite3.connect(journal)) as db:
        return {
            table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("rows", "tickets", "deals", "operations", "sendings")
        }


def a_year_passes(journal: Path, market: Market) -> None:
    """Put the server's clock forward, and date what the journal holds as if it had been written so long ago.

    The journal knows the clock's new offset as well: who has yet to learn it reads the orders' day of history again.
    """
    for _ in range(2):
        market.shift_clock(round(AGE.total_seconds() / 2))

    def aged(text: str) -> str:
        return time_text(datetime.fromisoformat(text) - AGE)

    with closing(sqlite3.connect(journal)) as db:
        db.create_function("aged", 1, aged)
        for table, columns in TIMES.items():
            for column in columns:
                db.execute(f"UPDATE {table} SET {column} = aged({column})")
        for request_id, kind, payload in db.execute("SELECT request_id, kind, request FROM operations").fetchall():
            request = OPERATIONS[kind].decode(payload)
            older = request.model_copy(update={"not_after": request.not_after - AGE}).encode()
            db.execute("UPDATE operations SET request = ? WHERE request_id = ?", (older, request_id))
        ahead_s = round(AGE.total_seconds())
        db.execute("UPDATE meta SET value = value + ? WHERE key = 'server_offset_s'", (ahead_s,))
        db.commit()


async def is_gone(desk: Desk) -> bool:
    await acknowledge(desk)
    return desk.terminal.process is not None and desk.terminal.process.poll() is not None


async def acknowledge(desk: Desk) -> None:
    """Acknowledge every report, as the desk does; a terminal that is gone does not hear it."""
    request = AckRequest(epoch=desk.epoch, watermark=10_000)
    await desk.terminal.client.publish(f"mt5.{desk.terminal.account}.ack", request.encode())


def found_again(terminal: TerminalProcess, order: SubmitRequest) -> bool:
    kinds = terminal.kinds(order.order_id)
    return kinds.count("unknown") == 1 and kinds.count("accepted") == 2
