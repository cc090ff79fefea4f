"""Grafana's dashboard and Prometheus' alerts use metrics and labels that the daemon exports, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.health.test_exposition import make_text
from trtd import observe

ETC = Path(__file__).parents[3] / "etc"
RULES = ETC / "prometheus" / "trtd.rules.yml"
DASHBOARD = ETC / "grafana" / "trtd.json"

NAME = re.compile(r"\btrtd_[a-z_]+")
SELECTOR = re.compile(r"\b(trtd_[a-z_]+)\{([^}]*)\}")
LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
GROUPING = re.compile(r"\b(?:by|on)\s*\(([^)]*)\)")
FROM_PROMETHEUS = {"instance", "job"}
"""Labels that a scrape adds."""


def exported() -> dict[str, set[str]]:
    """Labels by the name of each series."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(make_text()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def rules() -> list[str]:
    """The expressions of the alerts."""
    return re.findall(r"^ +expr: (.+)$", RULES.read_text(encoding="utf-8"), re.MULTILINE)


def dashboard() -> list[str]:
    """Every expression and query of the dashboard."""

    def walk(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            for key, item in value.items():
                if key in {"expr", "definition"}:
                    yield item
                yield from walk(item)
        elif isinstance(value, list):
            for item in value:
                yield from walk(item)

    return list(walk(json.loads(DASHBOARD.read_text(encoding="utf-8"))))


def mistakes(expression: str) -> list[str]:
    """Names and labels in an expression that nobody exports."""
    labels_of = exported()
    found = [name for name in NAME.findall(expression) if name not in labels_of]
    for name, selector in SELECTOR.findall(expression):
        known = labels_of.get(name, set()) | FROM_PROMETHEUS
        found += [f"{name}: {label}" for label in LABEL.findall(selector) if label not in known]
    used = {label for name in NAME.findall(expression) for label in labels_of.get(name, set())} | FROM_PROMETHEUS
    for group in GROUPING.findall(expression):
        found += [label for label in map(str.strip, group.split(",")) if label not in used]
    return found


@pytest.mark.parametrize("expression", [*rules(), *dashboard()])
def test_what_is_used_is_exported(expression):
    """Every metric and every label of the expression is one that the daemon exports."""
    assert mistakes(expression) == []


def test_a_wrong_name_would_be_found():
    """A metric, a selector's label or a grouping's label that does not exist is told."""
    assert mistakes("rate(trtd_request_total[5m])") == ["trtd_request_total"]
    assert mistakes('trtd_queue_depth{replica="0"}') == ["trtd_queue_depth: replica"]
    assert mistakes("sum by (tenant, pod) (trtd_queue_depth)") == ["pod"]


def test_the_readme_names_every_metric_and_no_other():
    """The README's section on metrics lists each exported name, so that nobody has to guess from a scrape."""
    section = (ETC.parent / "README.md").read_text(encoding="utf-8").partition("### Metrics\n")[2].partition("\n## ")[0]
    assert set(NAME.findall(section)) == {value for name, value in vars(observe).items() if name.startswith("METRIC_")}


def test_both_are_there_and_whole():
    """The alerts say what happened and what to do; the dashboard's panels have titles and places of their own."""
    text = RULES.read_text(encoding="utf-8")
    alerts = text.count("- alert: ")
    assert alerts == len(rules()) == text.count("summary: ") == text.count("action: ") >= 10
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["title"] for panel in panels)
    places = [tuple(panel["gridPos"][key] for key in "xy") for panel in panels]
    assert len(set(places)) == len(places)
    assert len(dashboard()) > 20
