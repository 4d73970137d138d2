"""The benchmark of crowds and attacks, for a moment."""

import sys

import pytest

from benchmarks import attacks, neighbours
from benchmarks.wire import MODEL
from proto.repository import Repository
from tests.service.artefacts import make_artefact


def test_a_round_of_each(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It measures both sides of both, and prints a row for each."""
    monkeypatch.setattr(attacks, "train_model", lambda root: Repository(root).publish(MODEL, make_artefact()))
    monkeypatch.setattr(attacks, "REST_SECONDS", 0)
    monkeypatch.setattr(sys, "argv", ["attacks", "--rounds", "1", "--clients", "50", "--seconds", "0.2"])
    attacks.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows] == [
        "| 50 connect",
        "| connected",
        "| greeted",
        "| small calls beside",
        "| nobody",
        *(f"| {name}" for name in neighbours.NEIGHBOURS),
    ]
