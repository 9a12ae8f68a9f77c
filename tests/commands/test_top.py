"""``streamapp top`` over the real views: one frame into a pipe, and a live screen on a terminal of 80 columns."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator

import pytest
from rich.console import Console

from streamapp.commands.top import LastAnswer, _frame
from streamapp.local.ports import free_port
from tests.commands.running import run_here
from tests.kit.waiting import eventually
from tests.messages.golden import golden
from tests.web.group import Group, ids, order_row, running_group

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a pseudo-terminal is POSIX's")
ACCOUNT = "demo-hedging"
LEFT = b"\x1b[?1049l"
"""What gives the shell its screen back."""


@pytest.fixture
async def group() -> AsyncIterator[Group]:
    async with running_group() as group:
        await group.put_account(ACCOUNT)
        await group.put_position(ACCOUNT, 5000917, "buy")
        await group.put_order(order_row(ids([ACCOUNT], 1)[0][0], ACCOUNT))
        yield group


async def test_into_a_pipe_it_is_one_frame(group: Group) -> None:
    order_id = ids([ACCOUNT], 1)[0][0]
    shown = await run_here("top", "--url", str(group.workers[0].url))
    assert shown.code == 0
    for words in ("healthy", "1 accounts", "1 positions", "1 live orders", ACCOUNT, "5000917", order_id[:8]):
        assert words in shown.out
    assert "\x1b" not in shown.out


async def test_a_worker_that_does_not_answer_is_named(group: Group) -> None:
    group.workers[0].well = False
    away = group.workers[1]
    await group.stop(away)
    shown = await run_here("top", "--once", "--url", str(group.workers[0].url))
    assert shown.code == 0
    assert "<cold>" in shown.out
    assert f"no answer from {str(away.url).rstrip('/')}" in shown.out


async def test_where_nobody_answers_at_all_it_is_one_sentence() -> None:
    refused = await run_here("top", "--url", f"http://127.0.0.1:{free_port()}")
    assert (refused.code, "got no answer" in refused.said) == (2, True)


def test_a_narrow_terminal_keeps_ids_and_statuses_and_says_how_old_an_answer_is() -> None:
    now, orders = time.monotonic(), tuple(golden("order-1")) * 9
    parts = {"health": (), "accounts": tuple(golden("account-1")), "positions": tuple(golden("position-1"))}
    parts["accounts"] = ({**parts["accounts"][0], "account": "demo\x1b[2J"}, parts["accounts"][1])
    screen = {name: LastAnswer(rows, now) for name, rows in parts.items()}
    screen["orders"] = LastAnswer(orders, now - 60, "no answer from http://other:6067")
    console = Console(width=80, height=24)
    with console.capture() as shown:
        console.print(_frame("http://desk", screen, 24))
    lines = shown.get().splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 24
    assert "no answer from http://other:6067, 60 s old" in shown.get()
    assert "\x1b[2J" not in shown.get()
    for order in orders[:3]:
        assert any(order["order_id"][:8] in line and order["status"] in line for line in lines), shown.get()


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        import pty
        import termios

        self.ours, self._theirs = pty.openpty()
        termios.tcsetwinsize(self.ours, (24, 80))
        self._before = termios.tcgetattr(self._theirs)
        self.seen = b""
        command = [sys.executable, "-m", "streamapp.cli", *arguments]
        environment = os.environ | {"TERM": "xterm-256color"}
        here = dict.fromkeys(("stdin", "stdout", "stderr"), self._theirs)
        self.process = subprocess.Popen(command, env=environment, start_new_session=True, **here)  # type: ignore[call-overload]
        asyncio.get_running_loop().add_reader(self.ours, self._read)

    def _read(self) -> None:
        self.seen += os.read(self.ours, 65536)

    @property
    def is_as_before(self) -> bool:
        import termios

        return termios.tcgetattr(self._theirs) == self._before

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.ours)
        self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self._theirs)


@pytest.mark.parametrize("end", ["q", "Ctrl-C"])
async def test_on_a_terminal_it_goes_on_until_told_and_gives_the_terminal_back(group: Group, end: str) -> None:
    terminal = Terminal("top", "--interval", "0.2", "--url", str(group.workers[0].url))
    try:
        await eventually(lambda: b"5000917" in terminal.seen and not terminal.is_as_before)
        await group.put_position(ACCOUNT, 5000918, "sell")
        await eventually(lambda: b"5000918" in terminal.seen)
        if end == "q":
            os.write(terminal.ours, b"q")
        else:
            terminal.process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(terminal.process.wait, 30) == 0
        await eventually(lambda: LEFT in terminal.seen)
        assert terminal.is_as_before
        assert b"Traceback" not in terminal.seen
    finally:
        terminal.close()
