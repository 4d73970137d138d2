"""Runs the benchmarks and writes docs/performance.md: `python -m benchmarks --help` tells how."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from benchmarks import machine
from benchmarks.figures import draw_all
from benchmarks.page import write_page
from benchmarks.peers import ALL
from benchmarks.plan import FULL, QUICK, Plan
from benchmarks.run import LOAD_CORES, SERVER_CORES, Runner, say, train_model
from benchmarks.wire import MODEL

ROOT: Final = Path(__file__).parent.parent
ENVIRONMENTS: Final = ROOT / ".venv-bench"
RESULTS: Final = ROOT / "benchmarks" / "results.json"
PAGE: Final = ROOT / "docs" / "performance.md"


def main() -> int:
    """Run what was asked for. Exit code 1 where a server of ours gave a wrong answer or none."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the servers side by side.")
    parser.add_argument("--quick", action="store_true", help="a short run, in less than three minutes; writes no page")
    parser.add_argument(
        "--only", default="", metavar="KEYS", help="servers to measure: " + ",".join(s.key for s in ALL)
    )
    parser.add_argument("--page-only", action="store_true", help="write the page again from the last results")
    parser.add_argument(
        "--page", type=Path, default=None, metavar="FILE", help=f"where to write the page [{PAGE.name}]"
    )
    options = parser.parse_args()
    page = options.page or (ROOT / ".venv-bench" / "quick" / PAGE.name if options.quick else PAGE)
    if not options.page_only:
        only = [key for key in options.only.split(",") if key]
        results = run(QUICK if options.quick else FULL, only)
        RESULTS.write_text(json.dumps(results, indent=1), "utf-8")
    results = json.loads(RESULTS.read_text("utf-8"))
    figures = page.with_suffix("")
    figures.mkdir(parents=True, exist_ok=True)
    write_page(results, page, draw_all(results, figures))
    say(f"wrote {os.path.relpath(page)}")
    return 1 if results["failures"].get("quicksilver") else 0


def run(plan: Plan, only: list[str]) -> dict[str, Any]:
    """Measure everything of a plan."""
    os.sched_setaffinity(0, {int(LOAD_CORES)})  # this process checks answers meanwhile, and is part of the load
    with tempfile.TemporaryDirectory(prefix="bench-models-") as directory:
        repository = Path(directory)
        say("training the model that everybody serves")
        train_model(repository)
        runner = Runner(ENVIRONMENTS, repository, plan)
        servers, skipped = runner.servers(only)
        described = machine.describe(ENVIRONMENTS)
        busy_before = machine.busy_cores()
        limits = [_limits(repository)]
        results: dict[str, Any] = {
            "plan": plan.name,
            "rounds": plan.rounds,
            "seconds": plan.seconds,
            "server_cores": SERVER_CORES,
            "load_cores": LOAD_CORES,
            "machine": described,
            "skipped": skipped,
            "limits": limits,
        }
        try:
            runner.rounds(servers, results)
        finally:  # what took minutes is not lost to a fault
            RESULTS.write_text(json.dumps(results, indent=1), "utf-8")
        limits.append(_limits(repository))
        results["growth"] = runner.growth(servers)
        results["models"] = runner.models(servers)
        results["workers"] = runner.workers(servers)
        limits.append(_limits(repository))
        results["busy_cores"] = [busy_before, machine.busy_cores()]
        say("training")
        results["training"] = _json([sys.executable, "-m", "benchmarks.fitting", str(plan.fits)])
        return results


def _limits(repository: Path) -> Any:  # noqa: ANN401 - as below
    """What ONNX Runtime and memory alone can do now; taken several times, as the machine's pace changes."""
    python = ENVIRONMENTS / "quicksilver" / "bin" / "python"
    return _json([str(python), "benchmarks/limits.py", str(repository / MODEL / "1" / "model.onnx")])


def _json(command: list[str]) -> Any:  # noqa: ANN401 - whatever the program prints
    """Run one of our programs on the servers' core, and read what it prints."""
    pinned = ["taskset", "--cpu-list", SERVER_CORES, *command]
    done = subprocess.run(pinned, cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S603 - our own programs
    return json.loads(done.stdout)


if __name__ == "__main__":
    sys.exit(main())
