"""A tiny run against our own two fronts, end to end."""

import dataclasses
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import wire
from benchmarks.peers import QUICKSILVER, QUICKSILVER_GRPCIO, Server
from benchmarks.plan import CONVERT_SMALL, QUICK, SMALL, Closed, Open, Stream
from benchmarks.run import Runner
from benchmarks.summary import is_clean
from proto.repository import Repository
from tests.service.artefacts import make_artefact

TINY_SMALL = dataclasses.replace(SMALL, in_flight=8)
TINY_OPEN = Open("open_tiny", "open loop", 1, 100)
TINY_MIXED = Open("mixed_tiny", "mixed", 1, 100, beside_values=10_000)
TINY_STREAM = Stream("stream_tiny", "streams", 1, 20)
WORKLOADS = (TINY_SMALL, CONVERT_SMALL, TINY_OPEN, TINY_MIXED, TINY_STREAM)


@pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is not installed (benchmarks/install.sh tools)")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="servers and load need a core each")
@pytest.mark.parametrize("server", [QUICKSILVER, QUICKSILVER_GRPCIO], ids=lambda server: server.key)
def test_a_tiny_run_measures_our_own_servers(server: Server, tmp_path: Path) -> None:
    """Every kind of workload gives figures on both fronts, without one error."""
    repository = tmp_path / "models"
    Repository(repository).publish(wire.MODEL, make_artefact())
    environments = tmp_path / "environments"
    (environments / "quicksilver").mkdir(parents=True)
    (environments / "quicksilver" / "bin").symlink_to(Path(sys.executable).parent)
    plan = dataclasses.replace(QUICK, workloads=None, seconds=0.2, warm_up_seconds=0.05, spare_seconds=0)
    runner = Runner(environments, repository, plan)
    results: dict[str, Any] = {}
    runner.rounds([dataclasses.replace(server, workloads=WORKLOADS)], results)
    assert results["failures"] == {server.key: []}
    samples = results["samples"][server.key]
    assert set(samples) == {workload.key for workload in WORKLOADS}
    assert all(is_clean(sample) and sample["requests"] > 0 for of_one in samples.values() for sample in of_one)
    assert results["starts"][server.key][0]["peak_bytes"] > 0


def test_closed_loads_share_calls_evenly() -> None:
    """Every closed workload has a whole number of calls in flight on each connection."""
    loads = [workload for workload in QUICKSILVER.workloads if isinstance(workload, Closed)]
    assert loads
    assert not [load.key for load in loads if load.in_flight % load.connections]
