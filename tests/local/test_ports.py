from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from streamapp.errors import ConfigurationError
from streamapp.local.ports import LOOPBACK, claim, free_port, require_free

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


def test_a_claim_ends_with_its_process_however_that_ends() -> None:
    command = [sys.executable, "-c", HOLDER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        port = int(holder.stdout.readline())
        assert not claim(port)
        holder.kill()
    assert claim(port)
