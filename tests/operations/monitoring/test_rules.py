"""The rules of Prometheus and Alertmanager: well formed, each alert tried and explained, about metrics that exist."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from tests.operations.monitoring.promql import OTHERS, ROOT, alerts, exposed, metrics_of, questions, recorded, rules

PROMETHEUS = ROOT / "deploy" / "prometheus"
CASES = sorted((PROMETHEUS / "tests").glob("*.yml"))
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text("utf-8")
SEVERITIES = {"critical", "warning", "info"}

Program = Callable[[str], Path]


def run(*command: str | Path) -> None:
    """Run a program of Prometheus' to its end, which must be a good one."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROMETHEUS / "tests")
    assert done.returncode == 0, done.stdout + done.stderr


def cases() -> list[dict[str, Any]]:
    """Every case of promtool's."""
    return [case for path in CASES for case in yaml.safe_load(path.read_text("utf-8"))["tests"]]


def test_the_configurations_are_valid(program: Program) -> None:
    """Prometheus' own checks and Alertmanager's find nothing, promtool's lint of rules neither."""
    run(program("promtool"), "check", "config", PROMETHEUS / "prometheus.yml")
    run(program("promtool"), "check", "rules", "--lint-fatal", *sorted((PROMETHEUS / "rules").glob("*.yml")))
    run(program("amtool"), "check-config", PROMETHEUS / "alertmanager.yml")


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should(program: Program, path: Path) -> None:
    """Series are played through the rules by promtool, and the alerts that come are those that are written there."""
    run(program("promtool"), "test", "rules", path)


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_each_alert_has_both_cases(alert: dict[str, Any]) -> None:
    """One in which it fires, and one in which something like it stays silent."""
    tried = [test for case in cases() for test in case["alert_rule_test"] if test["alertname"] == alert["alert"]]
    assert any(test["exp_alerts"] for test in tried)
    assert any(not test["exp_alerts"] for test in tried)


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_each_alert_tells_what_to_do(alert: dict[str, Any]) -> None:
    """It has a severity, a summary, a description, and a line that leads to its own heading in the runbook."""
    name = alert["alert"]
    assert alert["labels"]["severity"] in SEVERITIES
    assert alert["annotations"]["summary"]
    assert alert["annotations"]["description"].endswith(".")
    assert alert["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"
    (section,) = re.findall(rf"^## {name}\n(.*?)(?=^## |\Z)", RUNBOOK, flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"^\*\*(\w+)\.\*\*", section, flags=re.MULTILINE) == ["Means", "Look", "Do"]


def test_the_runbook_has_no_other_headings() -> None:
    """What is no alert any more has no page any more."""
    assert re.findall(r"^## (.*)$", RUNBOOK, flags=re.MULTILINE) == [alert["alert"] for alert in alerts()]


def test_each_rule_parses_outside_of_prometheus() -> None:
    """A second parser of PromQL, that of GreptimeDB, reads every expression too."""
    for rule in rules():
        promql_parser.parse(rule["expr"])


def test_rules_name_what_is_exposed() -> None:
    """Each metric of a rule is one that a server or a job gives out, that a rule records, or Prometheus' own."""
    for rule in rules():
        assert metrics_of(rule["expr"]) <= exposed() | recorded() | OTHERS, rule


def test_each_recorded_series_is_used() -> None:
    """By an alert or by a dashboard."""
    expressions = [alert["expr"] for alert in alerts()]
    charted = " ".join(question.expression for question in questions())
    used = set().union(*map(metrics_of, expressions)) | {name for name in recorded() if name in charted}
    assert recorded() <= used


def test_recorded_names_tell_their_labels() -> None:
    """As Prometheus' practice has it, level:metric:operation, the level being the labels that are kept."""
    for rule in rules():
        if "record" in rule:
            level, _, _ = rule["record"].split(":")
            kept = re.findall(r"by \(([^)]*)\)", rule["expr"])
            assert {labels.replace(", ", "_") for labels in kept} == {level}
