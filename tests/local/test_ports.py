from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streamapp.errors import ConfigurationError
from streamapp.local.own import OwnStack
from streamapp.local.ports import LOOPBACK, claim, free_port, require_free
from streamapp.ports import Ports

CLAIMANT = "import sys; from streamapp.local.ports import claim; print(claim(int(sys.argv[1])))"
HOLDER = "import sys; from streamapp.local.ports import free_port; print(free_port(), flush=True); sys.stdin.read()"


def test_a_free_port_is_accepted() -> None:
    require_free(free_port(), "Kafka")


def test_a_port_in_use_is_named_with_its_process() -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"port {port} free for Kafka.*\(pid {os.getpid()}\)"):
            require_free(port, "Kafka")


def test_a_port_is_given_once_also_before_anybody_listens_on_it() -> None:
    port = free_port()
    assert not claim(port)
    assert subprocess.check_output([sys.executable, "-c", CLAIMANT, str(port)], text=True) == "False\n"


@contextmanager
def claimed_by_another() -> Iterator[int]:
    """Let another process claim a port; it is killed after the block."""
    command = [sys.executable, "-c", HOLDER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        try:
            yield int(holder.stdout.readline())
        finally:
            holder.kill()


def test_a_claim_ends_with_its_process_however_that_ends() -> None:
    with claimed_by_another() as port:
        assert not claim(port)
    assert claim(port)


def test_a_stack_of_its_own_is_refused_where_another_one_runs(tmp_path: Path) -> None:
    port = free_port()
    with (
        socket.create_server((LOOPBACK, port)),
        pytest.raises(ConfigurationError, match=rf"port {port} free for mirror.*\(pid {os.getpid()}\)"),
    ):
        OwnStack(tmp_path, port - Ports().mirror).start()


def test_a_stack_of_its_own_is_refused_where_another_one_is_starting(tmp_path: Path) -> None:
    with (
        claimed_by_another() as port,
        pytest.raises(ConfigurationError, match=rf"port {port} free for mirror.*another stack that is starting"),
    ):
        OwnStack(tmp_path, port - Ports().mirror).start()
