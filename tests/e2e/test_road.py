"""Three hundred signals for four accounts, with repeated and bad ones: everyone tells the same story."""

from __future__ import annotations

import json
import re
from functools import partial

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from streamapp.docs.figures import FIGURES
from streamapp.domain.steps import STEPS
from streamapp.local.own import OwnStack
from streamapp.notifier.gauges import NotifierGauges
from streamapp.settings import Settings
from tests.e2e.road import travel
from tests.e2e.traffic import Traffic


async def charge(settings: Settings, _: Traffic) -> None:
    """Have the broker book money without a trade on every account, some of it to a position."""
    async with aiohttp.ClientSession(f"http://{settings.market_address}") as market:
        for account in settings.accounts:
            async with market.get("/ledger", params={"account": account}) as answer:
                lines = [json.loads(line) for line in (await answer.text()).splitlines()]
            positions = [line["position_id"] for line in lines if line["kind"] == "deal"]
            asked = [{"type": "charge"}, {"type": "credit"}]
            for named in (*asked, *({"type": "commission", "position": position} for position in positions[:1])):
                async with market.post("/operations", json={"account": account, "amount": "-5.25", **named}) as answer:
                    answer.raise_for_status()


async def test_every_signal_is_decided_and_every_witness_tells_the_same_story(stack: OwnStack) -> None:
    settings = stack.settings
    outcome = await travel(settings, signals=300, rate=40, seed=7, meanwhile=partial(charge, settings))
    assert outcome.differences == []
    assert outcome.orders == outcome.due
    decided = [decision for decision in outcome.evidence.decisions if decision.signal_id.startswith(outcome.run)]
    assert len(decided) == outcome.sent() - outcome.sent("broken")
    assert all(outcome.sent(kind) for kind in ("exit", "repeated", "conflicting", "refused", "rejected", "broken"))
    operations = outcome.evidence.archive.operations.values()
    assert {operation.type for operation in operations} == {"balance", "charge", "credit", "commission"}
    assert all(bool(operation.position_id) == (operation.type == "commission") for operation in operations)


async def test_the_processes_show_every_metric_of_the_dashboard_and_of_the_alarms(stack: OwnStack) -> None:
    ports, shown = stack.settings.ports, NotifierGauges().text()  # which runs only where somebody is to be notified
    async with aiohttp.ClientSession() as http:
        for port in (ports.mirror, ports.trading(), ports.warehouse, ports.terminals):
            async with http.get(f"http://127.0.0.1:{port}/metrics") as answer:
                shown += await answer.text()
    known = set(re.findall(r"^# TYPE (\w+) ", shown, re.MULTILINE))
    expressions = [figure.query for figure in FIGURES] + [each.alarm.expression for each in FIGURES if each.alarm]
    named = set(re.findall(r"streamapp_\w+", " ".join(expressions))) | {
        name.partition("{")[0] for figure in FIGURES for name in figure.metrics if name != "up"
    }
    assert {name.removesuffix("_bucket") for name in named} - known == set()
    # What the orders of the test before have left: every step was taken, and every account has money.
    samples = {(s.name, *s.labels.values()): s.value for f in text_string_to_metric_families(shown) for s in f.samples}
    assert all(samples["streamapp_step_seconds_count", step] for step in STEPS)
    assert all(samples["streamapp_account_equity", account, "USD"] > 0 for account in stack.settings.accounts)
    assert samples["streamapp_mirror_seconds_count", "EXECUTION_IN"]
    assert samples["streamapp_faust_received_total", "signals_approved"]
