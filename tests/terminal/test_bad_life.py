"""What happens to processes, disks and servers around a terminal: nothing is lost, and nothing is sent twice."""

from __future__ import annotations

import os
import signal
import sqlite3
import struct
import sys
import time
from collections.abc import AsyncIterator
from contextlib import closing
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest

from streamapp.domain import facts
from streamapp.local import nats
from streamapp.local.ports import free_port
from streamapp.local.process import RunningProcess
from streamapp.messages.terminal import ReplayReply, ReplayRequest
from streamapp.terminal.account.process import STATUS_EVERY_S
from tests.kit.waiting import PATIENCE_S, eventually
from tests.terminal.conftest import Market, TerminalProcess, connected, start_market
from tests.terminal.desk import ACCEPTED, Desk
from tests.terminal.field.trading import closed, position_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of POSIX")

PIPE_B, MOST_SAID_B = 4096, 1500
"""What a small pipe holds, and more than one status takes of it."""
DEADLINE_S = 3.0
"""Of these terminals' calls."""
ADOPTED_AFTER_LOSS = ("started", "unknown", "accepted", "deal")


@pytest.fixture
async def desk(terminal: TerminalProcess, market: Market) -> Desk:
    terminal.start()
    desk = Desk(terminal, market, count())
    await desk.open()
    return desk


async def worker_of(desk: Desk) -> psutil.Process:
    worker: psutil.Process = await eventually(desk.terminal.worker)
    return worker


async def in_order_send(desk: Desk, **params: Any) -> tuple[Any, psutil.Process]:
    """Return an order that was executed while its worker still waits for the answer, and that worker."""
    worker = await worker_of(desk)
    desk.fault("hang", nth=1, params=params)
    order = await desk.submit()
    await eventually(lambda: desk.orders_of(order))
    return order, worker


def is_dead(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


# -- the worker


async def test_a_worker_that_is_killed_in_order_send_leaves_a_doubt_that_is_adopted(desk: Desk) -> None:
    order, worker = await in_order_send(desk)
    worker.kill()
    bodies = await desk.says(order, *ADOPTED_AFTER_LOSS)
    assert bodies["unknown"].why == "worker_lost"
    await desk.submits(*ACCEPTED)
    await desk.close()


@pytest.mark.parametrize("function", ["history_deals_total", "terminal_info", "positions_get"])
async def test_a_worker_that_is_killed_in_a_read_costs_a_connection_only(desk: Desk, function: str) -> None:
    worker = await worker_of(desk)
    desk.fault("hang", on=function, nth=1)
    await eventually(lambda: any(row["hits"] for row in desk.market.faults() if row["kind"] == "hang"))
    order = await desk.submit()  # it waits behind the read, so nothing of it was handed over
    worker.kill()
    await desk.says(order, *ACCEPTED)
    await desk.terminal.ready()
    assert (await worker_of(desk)).pid != worker.pid
    await desk.close()


async def test_a_worker_that_is_frozen_beyond_its_deadline_is_dead_before_it_could_wake(desk: Desk) -> None:
    worker = await worker_of(desk)
    worker.suspend()
    order = await desk.submit()
    await eventually(lambda: is_dead(worker), "the frozen worker's end")
    await desk.becomes("hung")
    await desk.says(order, *ACCEPTED)
    await desk.close()


async def test_a_worker_that_is_frozen_in_order_send_is_dead_before_its_order_is_looked_for(desk: Desk) -> None:
    order, worker = await in_order_send(desk, ms=500)
    worker.suspend()
    bodies = await desk.says(order, *ADOPTED_AFTER_LOSS)
    assert bodies["unknown"].why == "deadline"
    assert is_dead(worker)
    await desk.close()


# -- the terminal's own process


async def frozen(desk: Desk, for_s: float) -> None:
    process = desk.terminal.process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    until = time.monotonic() + for_s
    await eventually(lambda: time.monotonic() > until)
    os.kill(process.pid, signal.SIGCONT)


async def test_a_terminal_that_is_frozen_in_order_send_wakes_to_its_answer(desk: Desk) -> None:
    order, _ = await in_order_send(desk, ms=300)
    await frozen(desk, for_s=DEADLINE_S / 3)
    await desk.says(order, *ACCEPTED)
    await desk.submits(*ACCEPTED)
    await desk.close()


async def test_a_terminal_that_is_frozen_beyond_the_deadline_of_order_send_adopts_what_was_executed(desk: Desk) -> None:
    order, _ = await in_order_send(desk)
    await frozen(desk, for_s=DEADLINE_S + 1)
    bodies = await desk.says(order, *ADOPTED_AFTER_LOSS)
    assert bodies["unknown"].why == "deadline"
    await desk.submits(*ACCEPTED)
    await desk.close()


async def test_a_second_terminal_on_the_same_journal_ends_at_once_even_while_the_first_is_frozen(desk: Desk) -> None:
    first = desk.terminal.process
    assert first is not None
    os.kill(first.pid, signal.SIGSTOP)
    second = desk.terminal.start()
    await eventually(lambda: second.poll() is not None, "the second one's end")
    assert second.returncode == 2
    assert f"process {first.pid}" in desk.terminal.log.read_text()
    os.kill(first.pid, signal.SIGCONT)
    desk.terminal.process = first
    await desk.submits(*ACCEPTED)
    await desk.close()


async def test_a_kill_in_order_send_ends_the_worker_too_and_the_next_life_adopts(desk: Desk) -> None:
    order, worker = await in_order_send(desk)
    assert desk.terminal.process is not None
    desk.terminal.process.kill()
    desk.terminal.process.wait()
    await eventually(lambda: is_dead(worker), "the worker's end")
    desk.terminal.start()
    bodies = await desk.says(order, *ADOPTED_AFTER_LOSS)
    assert bodies["unknown"].why == "restarted"
    await desk.close()


async def test_a_journal_that_can_not_be_written_ends_the_process_and_nothing_was_promised(desk: Desk) -> None:
    resource = pytest.importorskip("resource")
    if not hasattr(resource, "prlimit"):
        pytest.skip("limits of another process can't be set here")
    first = desk.terminal.process
    assert first is not None
    await desk.submits(*ACCEPTED)
    resource.prlimit(first.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))  # as on a full disk
    order = desk.terminal.order("full", desk.epoch)
    inbox = await desk.terminal.client.subscribe(desk.terminal.client.new_inbox())
    await desk.terminal.client.publish(f"mt5.{desk.terminal.account}.submit", order.encode(), reply=inbox.subject)
    await eventually(lambda: first.poll() is not None, "its end")
    assert first.returncode == 2  # its sentence has no disk either
    await desk.terminal.client.flush()
    answers = [(await inbox.next_msg(timeout=1)).data for _ in range(inbox.pending_msgs)]
    assert not [answer for answer in answers if b'"row":{' in answer]
    assert desk.orders_of(order) == []
    desk.terminal.start()
    assert (await desk.terminal.ready()).epoch == desk.epoch
    await desk.terminal.submit(order)
    await desk.says(order, *ACCEPTED)
    desk.orders.append(order)
    await desk.close()


async def test_a_journal_that_fails_at_the_start_ends_the_process_as_well(desk: Desk) -> None:
    first = desk.terminal.process
    assert first is not None
    assert await desk.terminal.stop() == 0
    (journal,) = desk.terminal.log.parent.rglob(f"*{desk.terminal.account}*.sqlite3")
    with closing(sqlite3.connect(journal)) as db:
        db.execute("ALTER TABLE rows RENAME TO gone")  # whatever it is that can't be read
    second = desk.terminal.start()
    await eventually(lambda: second.poll() is not None, "its end")
    assert second.returncode == 2
    assert "no such table: rows" in desk.terminal.log.read_text()


async def test_a_parent_that_stands_still_and_reads_nothing_holds_up_no_order(
    tmp_path: Path, terminal: TerminalProcess, market: Market
) -> None:
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    terminal.said = tmp_path / "unread"
    os.mkfifo(terminal.said)
    pipe = os.open(terminal.said, os.O_RDONLY | os.O_NONBLOCK)
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_B)
    terminal.start()
    desk = Desk(terminal, market, count())
    await desk.open()

    def is_full() -> bool:
        (held,) = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"    "))
        return bool(held > PIPE_B - MOST_SAID_B)

    await eventually(is_full)
    until, sends = time.monotonic() + 4 * STATUS_EVERY_S, 0
    while time.monotonic() < until or not sends:
        await desk.submits(*ACCEPTED)
        sends += 1
    await desk.close(sends=sends)
    os.close(pipe)


MOVED_CLOCK = """
import datetime, os, time, streamapp.clock
real, real_now = time.time, streamapp.clock.utc_now
def moved():
    with open(os.environ["MOVED_CLOCK"]) as file:
        return float(file.read() or 0)
time.time = lambda: real() + moved()
streamapp.clock.utc_now = lambda: real_now() + datetime.timedelta(seconds=moved())
"""
"""What every process of a terminal runs first: it reads from a file how far its clock is off."""


async def on_a_clock_of_its_own(
    folder: Path, terminal: TerminalProcess, market: Market, off_s: float = 0.0
) -> tuple[Desk, Path]:
    """Return a desk at a terminal that has carried out an order, and the file that says how far its clock is off."""
    clock, first = folder / "clock", folder / "first"
    clock.write_text(str(off_s))
    first.mkdir()
    (first / "sitecustomize.py").write_text(MOVED_CLOCK)
    terminal.environment |= {"PYTHONPATH": f"{first}{os.pathsep}{Path.cwd()}", "MOVED_CLOCK": str(clock)}
    terminal.start()
    desk = Desk(terminal, market, count())
    await desk.open()
    await desk.submits(*ACCEPTED, valid_s=off_s + 60.0)
    return desk, clock


async def goes(desk: Desk, valid_s: float) -> bool:
    """Return whether an order is executed; it is refused until the next ticks have shown the server's clock anew."""
    order = await desk.submit(valid_s=valid_s)
    return await desk.comes_to(order, "deal", "refused") == ACCEPTED


async def test_a_machine_clock_that_jumps_ahead_and_back_ends_old_orders_and_the_next_ones_go(
    tmp_path: Path, terminal: TerminalProcess, market: Market
) -> None:
    desk, clock = await on_a_clock_of_its_own(tmp_path, terminal, market)
    clock.write_text("3600")
    bodies = await desk.submits("refused", valid_s=60.0)
    assert bodies["refused"].reason == "stale"
    await eventually(lambda: goes(desk, valid_s=3660.0))
    clock.write_text("0")
    await eventually(lambda: goes(desk, valid_s=60.0))
    bodies = await desk.submits(*ACCEPTED)
    assert abs(bodies["deal"].time.timestamp() - time.time()) < PATIENCE_S
    bodies = await desk.submits("refused", valid_s=-1.0)
    assert bodies["refused"].reason == "stale"
    await desk.close(sends=4)


async def test_a_machine_clock_that_jumps_back_opens_nothing_hides_nothing_and_sends_nothing_that_is_stale(
    tmp_path: Path, terminal: TerminalProcess, market: Market
) -> None:
    desk, clock = await on_a_clock_of_its_own(tmp_path, terminal, market)
    position = await position_of(desk, "EURUSD")
    working = await desk.submit(order_type="limit", price=Decimal("1.05"))
    await desk.says(working, "started", "returned", "accepted")
    clock.write_text("-3600")
    for valid_s in (30.0, -60.0):  # by its clock both have time
        bodies = await desk.submits("refused", valid_s=valid_s)
        assert "expected a clock that is right, got a quote of EURUSD" in bodies["refused"].message
    bodies = await desk.submits("refused", valid_s=-3660.0)
    assert bodies["refused"].reason == "stale"
    await closed(desk, position)
    market.pin("EURUSD", "1.0399", "1.04")
    bodies = await desk.says(working, *ACCEPTED)
    assert abs(bodies["deal"].time.timestamp() - time.time()) < PATIENCE_S
    clock.write_text("0")
    bodies = await desk.submits(*ACCEPTED)  # at the first try: it waits for a clock that is right
    assert abs(bodies["deal"].time.timestamp() - time.time()) < PATIENCE_S
    assert desk.connections() == []
    await desk.close(sends=4)


async def test_a_machine_clock_that_was_hours_ahead_from_the_start_and_is_set_right_is_believed_by_the_next_life(
    tmp_path: Path, terminal: TerminalProcess, market: Market
) -> None:
    desk, clock = await on_a_clock_of_its_own(tmp_path, terminal, market, off_s=7200.0)
    clock.write_text("0")
    bodies = await desk.submits("refused")
    assert "restart the terminal if it is right now" in bodies["refused"].message
    assert await terminal.stop() == 0
    terminal.start()
    await terminal.ready()
    bodies = await desk.submits(*ACCEPTED)
    assert abs(bodies["deal"].time.timestamp() - time.time()) < PATIENCE_S
    await desk.close(sends=2)


# -- the servers around it


async def test_nats_away_and_back_loses_no_report(tmp_path: Path, market: Market) -> None:
    spec = nats.prepare(tmp_path / "nats", free_port(), free_port())
    server = RunningProcess(spec, tmp_path / "logs")
    server.wait_ready()
    async with connected(spec.address) as client:
        terminal = TerminalProcess(tmp_path, spec.address, market, client, f"n{os.getpid()}")
        await terminal.listen()
        terminal.start()
        desk = Desk(terminal, market, count())
        await desk.open()
        desk.fault("placed_then_fill", params={"ms": 300})
        orders = [await desk.submit() for _ in range(5)]
        server.stop()
        await eventually(lambda: len(market.ledger("deal")) == len(orders), "the executions")
        server = RunningProcess(spec, tmp_path / "logs")
        server.wait_ready()
        # What the stream took just before its end never reached this listener: it asks again, as the agent does.
        again = ReplayRequest(epoch=desk.epoch, after_seq=0, replay_id="back")
        assert not ReplayReply.decode(await terminal.request("replay", again.encode())).error
        for order in orders:
            await desk.says(order, *ACCEPTED)
        await desk.submits(*ACCEPTED)
        seqs = sorted({report.seq for report in terminal.reports})
        assert seqs == list(range(1, len(seqs) + 1))
        assert await terminal.stop() == 0
        terminal.end()
    server.stop()


@pytest.fixture
async def lasting(tmp_path: Path, nats_url: str) -> AsyncIterator[tuple[Desk, Any]]:
    """A desk whose market keeps its data, and the function that kills and starts that market."""
    port = free_port()
    options = ("--data", str(tmp_path / "market"))
    processes = [start_market(tmp_path, port, "hedging", *options)]

    def again(*more: str) -> None:
        processes.append(start_market(tmp_path, port, "hedging", *options, *more))

    def kill() -> None:
        processes[-1].kill()
        processes[-1].wait()

    async with connected(nats_url) as client:
        account = f"l{tmp_path.name.encode().hex()[-20:]}{os.getpid()}"
        terminal = TerminalProcess(tmp_path, nats_url, Market(f"127.0.0.1:{port}"), client, account)
        await terminal.listen()
        terminal.start()
        desk = Desk(terminal, terminal.market, count())
        await desk.open()
        yield desk, (kill, again)
        terminal.end()
    kill()


async def test_a_market_that_is_killed_and_comes_back_is_found_again_and_nothing_is_lost(
    lasting: tuple[Desk, Any],
) -> None:
    desk, (kill, again) = lasting
    await desk.submits(*ACCEPTED)
    desk.fault("timeout_executed", nth=1)
    doubt = await desk.submit()
    await eventually(lambda: desk.orders_of(doubt))
    kill()
    await desk.becomes("disconnected")
    refused = await desk.submits("refused", valid_s=1.0)  # it waits for a terminal that may only be starting again
    assert "disconnected" in refused["refused"].message
    again()
    await desk.terminal.ready()
    await desk.says(doubt, "started", "returned", "unknown", "accepted", "deal")
    await desk.submits(*ACCEPTED)
    deals = [report.body.deal for report in desk.terminal.reports if isinstance(report.body, facts.Filled)]
    assert sorted(set(deals)) == sorted(row["ticket"] for row in desk.market.ledger("deal"))
    assert desk.market.violations() == []


async def test_an_order_that_a_market_executed_just_before_its_end_is_adopted_from_the_next_one(
    lasting: tuple[Desk, Any],
) -> None:
    desk, (kill, again) = lasting
    order, _ = await in_order_send(desk)  # the market shows only what it will still know
    kill()
    again()
    await desk.says(order, "started", "returned", "unknown", "accepted", "deal")
    assert len(desk.orders_of(order)) == 1
    assert desk.market.violations() == []


async def test_a_server_clock_that_jumps_leaves_all_times_in_utc(lasting: tuple[Desk, Any]) -> None:
    desk, (kill, again) = lasting
    await desk.submits(*ACCEPTED)
    kill()
    again("--offset", "3")
    await eventually(desk.connections)  # connecting or disconnected, as soon as it was missed
    await desk.terminal.ready()
    bodies = await desk.submits(*ACCEPTED)
    assert abs(bodies["deal"].time.timestamp() - time.time()) < PATIENCE_S
