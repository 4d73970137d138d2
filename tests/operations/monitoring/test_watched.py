"""Dashboards and rules over real servers under load, and faults that the right alert is sent for."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.grafana.queries import fill
from tests.operations.monitoring.promql import FILLED, alerts, questions, rules, selectors_of
from tests.operations.monitoring.shortened import shorten
from tests.operations.monitoring.stack import Load, Stack, running
from tests.waiting import LIMIT_SECONDS, until
from training.telemetry import JobMetrics, Look, deliver, deliver_look

pytestmark = pytest.mark.timeout(300)

ABSENT = {
    'quicksilver_device_info{requested="cuda",used!="cuda"}': "a server that is asked for CUDA refuses the CPU",
    'quicksilver_device_info{used="cuda"}': "this machine may have no CUDA",
}
"""Selectors of alerts that find nothing here, and why."""


@pytest.fixture(scope="module")
def stack(program: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two servers under load, watched; one model has a broken version, another's label moved, and was taken back."""
    with running(program, tmp_path_factory.mktemp("watched")) as stack:
        # what a job pushes that the gate accepted; a real one takes longer than all the rest here
        job = JobMetrics("linear", 1.5, time.time(), "accepted", training_loss=2.9, validation_loss=3.9, epochs=3000)
        deliver(job, push_to=stack.pushgateway)
        deliver_look(Look("linear", time.time()), push_to=stack.pushgateway)
        broken = stack.repository.root / "mlp" / "3"
        broken.mkdir()
        (broken / "model.onnx").write_bytes(b"no model")
        until(lambda: stack.series("quicksilver_label_info"), "the first scrape of labels")
        stack.repository.publish("shifted", _same_model(stack))
        _move_until_seen(stack)
        yield stack


def _move_until_seen(stack: Stack) -> None:
    """Promote and take back until the annotations show it; two scrapes missed on a busy machine hide a single move."""
    moves = {one.panel: shorten(fill(one.expression, FILLED)) for one in questions() if one.panel in _MOVES}
    assert set(moves) == set(_MOVES)
    limit = time.monotonic() + LIMIT_SECONDS
    while missing := [panel for panel, expression in moves.items() if not stack.series(expression)]:
        assert time.monotonic() < limit, missing
        stack.repository.set_label("shifted", "stable", 2)
        time.sleep(_MOVE_SECONDS)  # a scrape comes in its own time
        stack.repository.roll_back("shifted", "stable")
        time.sleep(_MOVE_SECONDS)


_MOVES = ("annotation Promotion", "annotation Roll-back")
_MOVE_SECONDS = 3.0
"""Longer than servers take to follow, and than the time between two scrapes."""


def _same_model(stack: Stack) -> bytes:
    return stack.repository.model_path("shifted", 1).read_bytes()


def _wait_for_series(stack: Stack, wanted: dict[str, tuple[str, bool]]) -> None:
    """Wait until each expression, by what it is called, has had series once."""
    limit = time.monotonic() + LIMIT_SECONDS
    missing = wanted
    while missing := {name: asked for name, asked in missing.items() if not stack.series(asked[0], instant=asked[1])}:
        assert time.monotonic() < limit, missing
        time.sleep(0.5)  # a series comes with a scrape, and nothing tells of it


def test_every_panel_has_series(stack: Stack) -> None:
    """Each query of each dashboard, annotations too, with everything chosen."""
    filled = {**FILLED, "__rate_interval": "5m"}
    _wait_for_series(
        stack,
        {
            f"{one.dashboard}: {one.panel}: {one.expression}": (shorten(fill(one.expression, filled)), one.instant)
            for one in questions()
        },
    )


def test_every_recorded_series_is_there(stack: Stack) -> None:
    """Each recording rule makes what it says."""
    _wait_for_series(stack, {rule["record"]: (rule["record"], True) for rule in rules() if "record" in rule})


def test_every_alert_looks_at_something(stack: Stack) -> None:
    """Each selector of an alert finds series, but for those that are listed with the reason."""
    looked_at = {selector.prettify() for alert in alerts() for selector in selectors_of(alert["expr"])}
    assert set(ABSENT) <= looked_at
    _wait_for_series(stack, {shown: (shorten(shown), True) for shown in looked_at - set(ABSENT)})


def test_every_rule_is_evaluated(stack: Stack) -> None:
    """Prometheus has evaluated each without an error."""
    limit = time.monotonic() + LIMIT_SECONDS
    while True:
        groups = stack.ask("rules")["groups"]
        health = [rule["health"] for group in groups for rule in group["rules"]]
        assert "err" not in health, groups
        if set(health) == {"ok"}:
            break
        assert time.monotonic() < limit, groups
        time.sleep(0.2)  # as above
    assert len(health) == len(rules())


def test_a_server_that_is_killed_is_told_of(stack: Stack) -> None:
    """QuicksilverServerDown reaches the webhook; the other server goes on being watched."""
    stack.doomed.process.kill()
    stack.webhook.wait_for(alertname="QuicksilverServerDown", instance=stack.doomed.http_address, severity="critical")
    _wait_for_series(stack, {"the other": (f'up{{instance="{stack.server.http_address}"}} == 1', True)})


def test_a_broken_version_is_told_of(stack: Stack) -> None:
    """QuicksilverVersionBroken reaches the webhook, for that version alone, and the model goes on being ready."""
    stack.webhook.wait_for(alertname="QuicksilverVersionBroken", model="mlp", version="3", severity="warning")
    told = stack.webhook.alerts()
    broken = [alert for alert in told if alert["alertname"] == "QuicksilverVersionBroken"]
    assert {(alert["model"], alert["version"]) for alert in broken} == {("mlp", "3")}
    assert "QuicksilverModelNotReady" not in {alert["alertname"] for alert in told}


def test_inputs_that_shift_are_told_of(stack: Stack) -> None:
    """QuicksilverInputDrift reaches the webhook for a model whose inputs moved by 40 °F, and for no other."""
    with Load(stack.server.address, {"shifted": 40.0}):
        stack.webhook.wait_for(alertname="QuicksilverInputDrift", model="shifted", severity="warning")
    indices = {one["metric"]["model"]: float(one["value"][1]) for one in stack.series(_DRIFT, instant=True)}
    assert indices["shifted"] > 1
    assert max(indices["linear"], indices["mlp"]) < 0.1
    drifted = [alert for alert in stack.webhook.alerts() if alert["alertname"] == "QuicksilverInputDrift"]
    assert {alert["model"] for alert in drifted} == {"shifted"}


_DRIFT = "max by (model) (quicksilver_drift_psi)"


def test_what_is_well_is_not_told_of(stack: Stack) -> None:
    """No alert names the model that is served as it should be; none says that calls fail or are refused."""
    _wait_for_series(stack, {"drift": ('quicksilver_drift_psi{model="linear"}', True)})
    for alert in stack.webhook.alerts():
        assert alert.get("model") != "linear", alert
        assert alert["alertname"] not in {"QuicksilverShedding", "QuicksilverErrorBudgetBurnsFast"}
