"""The benchmark of what metrics cost, for a moment."""

import sys

import pytest

from benchmarks import metrics_cost
from benchmarks.wire import MODEL
from proto.repository import Repository
from tests.service.artefacts import make_artefact


def test_a_round_of_each_burst(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It measures both sides, and prints a row for each size of burst."""
    monkeypatch.setattr(metrics_cost, "ROUND_CALLS", 256)
    monkeypatch.setattr(metrics_cost, "train_model", lambda root: Repository(root).publish(MODEL, make_artefact()))
    monkeypatch.setattr(sys, "argv", ["metrics_cost", "--rounds", "1"])
    metrics_cost.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in rows[2:]] == [f"| {calls}" for calls in metrics_cost.BURSTS]
