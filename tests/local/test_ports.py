from __future__ import annotations

import os
import socket

import pytest

from streamapp.errors import ConfigurationError
from streamapp.local.ports import LOOPBACK, free_port, require_free


def test_a_free_port_is_accepted() -> None:
    require_free(free_port(), "Kafka")


def test_a_port_in_use_is_named_with_its_process() -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"port {port} free for Kafka.*\(pid {os.getpid()}\)"):
            require_free(port, "Kafka")
