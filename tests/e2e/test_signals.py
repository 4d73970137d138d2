"""Signals where libraries have threads of their own, as NumPy has on several cores."""

import signal
from pathlib import Path

import pytest

from proto.repository import Repository
from tests.e2e.processes import ENVIRONMENT, Serving, serving
from tests.service.artefacts import make_artefact


def _open_to(server: Serving, number: signal.Signals) -> list[str]:
    """The threads of a server that do not block a signal."""
    masks = {}
    for thread in Path(f"/proc/{server.process.pid}/task").iterdir():
        status = dict(line.split(":\t", 1) for line in (thread / "status").read_text().splitlines() if ":\t" in line)
        masks[f"{thread.name} {status['Name']}"] = int(status["SigBlk"], 16)
    return [name for name, mask in masks.items() if not mask & 1 << (number - 1)]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_drains_whatever_has_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: str) -> None:
    """One thread takes it, the one that waits for it: another would end the process at once, with calls in flight."""
    repository = Repository(tmp_path / "models")
    repository.publish("linear", make_artefact())
    monkeypatch.setitem(ENVIRONMENT, "OMP_NUM_THREADS", "2")  # one more than it takes for threads of NumPy's
    store = f"sqlite:///{tmp_path / 'observations.db'}"
    with serving(repository.root, "--observations", store, "--workers", workers) as server:
        assert len(_open_to(server, signal.SIGTERM)) == 1
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert server.logged[-1]["event"] == "stopped"
