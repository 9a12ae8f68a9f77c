"""A broker as brokers are: some orders are filled in parts, and of two the reply is lost."""

from __future__ import annotations

from typing import Any

import aiohttp

from streamapp.demo.signals import WEIGHTED
from streamapp.settings import Settings

ACCOUNTS = f"""
[execution.routing]
"{WEIGHTED}/*" = {{ demo-hedging = "1", demo-netting = "0.5", demo-exchange = "0.3" }}

[accounts.demo-hedging]
login = 50000001

[accounts.demo-netting]
login = 50000002
margin_mode = "netting"

[accounts.demo-exchange]
login = 50000003
margin_mode = "exchange"
profile = "exchange"

[accounts.demo-small]
login = 50000004
balance = 1000
"""
"""The last one has so little money that some orders are refused, the broker rejects others, and prices stop it out."""
FAULTS: tuple[dict[str, Any], ...] = (
    {"kind": "partial", "probability": 0.05, "params": {"share": 0.5}},
    {"kind": "partial_then_rest", "probability": 0.05, "params": {"share": 0.3, "ms": 1500}},
    {"kind": "drop_after", "account": "demo-netting", "nth": 8},
    {"kind": "timeout_lost", "account": "demo-hedging", "nth": 10},
)
"""Executed with a lost reply, and lost before it was executed: a doubt each, and the broker's own ledger knows."""


async def make_trouble(settings: Settings) -> None:
    """Set the simulated market's faults."""
    url = f"http://{settings.market_address}/faults"
    async with aiohttp.ClientSession() as http, http.post(url, json=list(FAULTS)) as answer:
        answer.raise_for_status()
