"""A server that is killed while it takes a file: the next one serves a complete version."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from proto.repository import Repository
from service.engine import EngineOptions
from service.models import Models, VersionPolicy
from tests.service.artefacts import make_artefact

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(400)  # a process a step
def test_load_killed_at_any_step_leaves_what_the_next_start_serves(tmp_path: Path) -> None:
    """Whenever a load of a sent file is killed, the stable version answers next, and the new one is whole or absent."""
    repository = Repository(tmp_path / "models")
    repository.publish("linear", make_artefact())
    sent = tmp_path / "sent.onnx"
    sent.write_bytes(make_artefact(offset_celsius=3))
    command = [sys.executable, str(ROOT / "tests" / "proto" / "crash.py"), str(repository.root)]
    subprocess.run(
        [*command, str(tmp_path / "killed"), "load", "linear", str(sent)],
        check=True,
        timeout=350,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    left = sorted((tmp_path / "killed").iterdir(), key=lambda root: int(root.name))
    assert len(left) > 30, "the server was killed at every one of its steps"
    for root in left:
        models = Models(Repository(root), EngineOptions(device="cpu"), policy=VersionPolicy())
        models.load()
        assert models.catalogue.ready
        assert str(models.catalogue.resolve("linear", None)) == "linear/1"
        versions = models.catalogue.models["linear"].versions
        assert all(entry.loaded for entry in versions.values())
        assert set(versions) <= {1, 2}
    assert set(versions) == {1, 2}, "the last one came to its end"
    assert Repository(left[-1]).model_path("linear", 2).read_bytes() == sent.read_bytes()
