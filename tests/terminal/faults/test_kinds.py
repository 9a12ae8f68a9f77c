"""Every fault that the simulated market knows has a test on real processes that says what becomes of it."""

from __future__ import annotations

import importlib

from streamapp.simulator.server.faults import KINDS
from tests.terminal.desk import PROVEN

MODULES = ("broker", "connection", "halting", "refusals", "replies")


def test_every_fault_of_the_market_has_a_test() -> None:
    for name in MODULES:
        importlib.import_module(f"tests.terminal.faults.test_{name}")
    assert set(PROVEN) == set(KINDS)
