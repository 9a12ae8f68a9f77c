"""The dashboard and the alarms: that their metrics are there, a real stack says (tests/e2e/test_road.py)."""

from __future__ import annotations

import json

import pytest
import yaml

from streamapp.docs.figures import FIGURES
from streamapp.docs.observe import dashboard, rules, with_table


def test_every_figure_is_in_a_panel_and_every_alarm_is_a_rule_with_a_name_of_its_own() -> None:
    panels = json.loads(dashboard())["panels"]
    assert {target["expr"] for panel in panels for target in panel["targets"]} == {each.query for each in FIGURES}
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
    [group] = yaml.safe_load(rules())["groups"]
    names = [rule["alert"] for rule in group["rules"]]
    assert len(names) == len(set(names)) == sum(figure.alarm is not None for figure in FIGURES)
    assert all("](" not in rule["annotations"]["description"] for rule in group["rules"])


def test_a_page_without_a_place_for_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="before the table"):
        with_table("# Operations\n", "| metric |\n")
