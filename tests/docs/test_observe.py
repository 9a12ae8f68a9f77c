"""The dashboard and the alarms: that their metrics are there, a real stack says (tests/e2e/test_road.py)."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamapp.docs.figures import FIGURES
from streamapp.docs.observe import dashboard, rules, with_table
from tests.deploy.files import OBSERVE, run


def test_every_figure_is_in_a_panel_and_every_alarm_is_a_rule_with_a_name_of_its_own() -> None:
    panels = json.loads(dashboard())["panels"]
    assert {target["expr"] for panel in panels for target in panel["targets"]} == {each.query for each in FIGURES}
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
    [group] = yaml.safe_load(rules())["groups"]
    names = [rule["alert"] for rule in group["rules"]]
    assert len(names) == len(set(names)) == sum(figure.alarm is not None for figure in FIGURES)
    assert all("](" not in rule["annotations"]["description"] for rule in group["rules"])


@pytest.fixture(scope="module")
def promtool() -> str:
    """Prometheus' own checker of rules; .ci/run brings it."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("expected promtool (Debian: it is in the package prometheus)")
    return found


def test_prometheus_takes_its_settings_and_the_rules(promtool: str) -> None:
    run(promtool, "check", "rules", str(OBSERVE / "rules.yml"))
    run(promtool, "check", "config", "--syntax-only", str(OBSERVE / "prometheus.yml"))


def test_prometheus_understands_every_query_of_the_dashboard(promtool: str, tmp_path: Path) -> None:
    # Grafana fills in its variables; what is left is an expression like that of a rule.
    queries = [re.sub(r"\$account\b", ".+", each.query.replace("$__rate_interval", "1m")) for each in FIGURES]
    assert not [query for query in queries if "$" in query]
    recorded = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    run(promtool, "check", "rules", "--lint=none", str(file))


def test_alarms_ring_when_their_words_say_and_not_before(promtool: str, tmp_path: Path) -> None:
    test = {
        "rule_files": [str(OBSERVE / "rules.yml")],
        "evaluation_interval": "10s",
        "tests": [
            # A counter that begins at 1 has risen from nothing, and is quiet when five minutes have brought no more.
            rings("BooksDiffer", 'streamapp_breaks_total{kind="volume"}', "_x3 1x60", {"20s": False, "40s": True}),
            rings("BooksDiffer", 'streamapp_breaks_total{kind="volume"}', "1x60", {"10m": False}),
            rings("BooksDiffer", 'streamapp_breaks_total{kind="volume"}', "1x40 2x60", {"6m": False, "7m": True}),
            rings("ProcessAway", 'up{job="streamapp"}', "1x6 0x20", {"70s": False, "3m": True}),
            rings("WebhookWithoutDecision", _web("undecided"), "0x6 1x20", {"30s": False, "2m": True}),
            rings("WebhookWithoutDecision", _web("accepted"), "0+1x60", {"2m": False}),
            rings("OrdersHeld", 'streamapp_submissions{state="held"}', "0 1x2 0x20", {"30s": False, "1m": False}),
            rings("OrdersHeld", 'streamapp_submissions{state="held"}', "0 1x20", {"1m": True}),
        ],
    }
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump(test, sort_keys=False))
    run(promtool, "test", "rules", str(file))


def _web(answer: str) -> str:
    return f'streamapp_web_signals_total{{source="tradingview", answer="{answer}"}}'


def rings(alarm: str, series: str, values: str, at: dict[str, bool]) -> dict[str, Any]:
    """Return a test of promtool's: whether an alarm rings at these times of a series with a value each 10 seconds."""
    inside = re.findall(r'(\w+)="([^"]*)"', series)
    [rule] = [each for each in yaml.safe_load(rules())["groups"][0]["rules"] if each["alert"] == alarm]
    ringing = [{"exp_labels": dict(inside) | rule["labels"], "exp_annotations": rule["annotations"]}]
    return {
        "interval": "10s",
        "input_series": [{"series": series, "values": values}],
        "alert_rule_test": [
            {"alertname": alarm, "eval_time": time, "exp_alerts": ringing if is_ringing else []}
            for time, is_ringing in at.items()
        ],
    }


def test_a_page_without_a_place_for_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="before the table"):
        with_table("# Operations\n", "| metric |\n")
