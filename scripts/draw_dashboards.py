"""Draws a picture of each dashboard from a run of minutes: `python scripts/draw_dashboards.py`.

Real servers are put under load and watched by Prometheus, as tests/operations/monitoring does it: with time shortened,
so that objectives over hours have something to show after minutes. A label moves, a version breaks, and the inputs of
one model shift. Every panel's query is then asked, and drawn in headless Chromium with the components that Grafana
publishes on npm: what a Grafana server would show comes close to that, and is not the same. Heat maps and annotations'
marks are drawn by hand, for want of a component.

Needs Node.js, npm and Chromium. The npm packages go to .venv-pictures/, the pictures to docs/dashboards/.
"""

import json
import math
import shutil
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from deploy.grafana.queries import fill  # noqa: E402 - the path comes first
from tests.e2e.processes import quicksilver  # noqa: E402 - as above
from tests.operations.monitoring.conftest import find_program  # noqa: E402 - as above
from tests.operations.monitoring.promql import DASHBOARDS, FILLED  # noqa: E402 - as above
from tests.operations.monitoring.shortened import shorten  # noqa: E402 - as above
from tests.operations.monitoring.stack import Load, Stack, make_model, running  # noqa: E402 - as above

SOURCES: Final = ROOT / "deploy" / "grafana" / "pictures"
BUILT: Final = ROOT / ".venv-pictures"
PICTURES: Final = ROOT / "docs" / "dashboards"
PART_SECONDS: Final = 35
STEP_SECONDS: Final = 2
JOB_SECONDS: Final = 600
VALUES: Final = {**FILLED, "__rate_interval": "10s"}
CELL_WIDTH, CELL_HEIGHT, TOP = 56, 34, 56  # as in main.jsx


def main() -> None:
    """Run, ask, build, draw."""
    build()
    with TemporaryDirectory() as directory, running(find_program, Path(directory)) as stack:
        began = time.time()
        let_things_happen(stack)
        drawn = {
            path.stem: ask(stack, json.loads(path.read_text("utf-8")), began) for path in DASHBOARDS.glob("*.json")
        }
    draw(drawn)


def build() -> None:
    """Install the components and build the page."""
    BUILT.mkdir(exist_ok=True)
    for path in SOURCES.iterdir():
        shutil.copy(path, BUILT)
    call("npm", "install", "--no-package-lock", "--legacy-peer-deps", "--ignore-scripts", "--no-audit", "--no-fund")
    call("npx", "vite", "build", "--logLevel", "error")


def call(*command: str) -> None:
    """Run a program beside what was built, and show what it says where it fails."""
    done = subprocess.run(command, cwd=BUILT, capture_output=True, text=True, check=False)  # noqa: S603 - ours alone
    if done.returncode != 0:
        sys.exit(f"{command[0]}: {done.stdout}{done.stderr}")


def let_things_happen(stack: Stack) -> None:
    """Usual traffic; a promotion, a broken version, inputs of one model that shift by 40 °F; a roll-back; and jobs."""
    push = ("--push-to", stack.pushgateway)
    with Load(stack.server.address, {"shifted": 0.0}):
        work("train", "linear", "--epochs", "1000", *push)
        work("train", "mlp", "--epochs", "1000", *push)
        time.sleep(PART_SECONDS)
    work("train", "linear", *push)
    work("train", "mlp", *push)
    stack.repository.publish("shifted", make_model(0.5))
    stack.repository.set_label("shifted", "stable", 2)
    broken = stack.repository.root / "mlp" / "3"
    broken.mkdir()
    (broken / "model.onnx").write_bytes(b"no model")
    with Load(stack.server.address, {"shifted": 40.0}):
        time.sleep(PART_SECONDS)
    stack.repository.roll_back("shifted", "stable")
    where = ("--repository", str(stack.repository.root), "--observations", stack.store)
    retrain = ("retrain", "linear", *where, "--reports", str(stack.repository.root.parent / "reports"), *push)
    work(*retrain)
    work(*retrain, "--if-drift")  # a look, as a schedule has it
    time.sleep(PART_SECONDS)


def work(*words: str) -> None:
    """Run a job to its end, whatever that is: the dashboards show it."""
    print(f"quicksilver {' '.join(words[:2])}: exit code {quicksilver(*words, timeout_seconds=JOB_SECONDS).returncode}")


def ask(stack: Stack, dashboard: dict[str, Any], began: float) -> dict[str, Any]:
    """A dashboard's panels, each with what its queries answer over the run."""
    until = time.time()
    panels = [
        panel if panel["type"] == "row" else panel | answers(stack, panel, began, until)
        for panel in dashboard["panels"]
    ]
    marks = [
        mark for annotation in dashboard["annotations"]["list"] for mark in marks_of(stack, annotation, began, until)
    ]
    return {"title": dashboard["title"], "from": began * 1000, "to": until * 1000, "marks": marks, "panels": panels}


def marks_of(stack: Stack, annotation: dict[str, Any], began: float, until: float) -> list[dict[str, Any]]:
    """From when to when an annotation marks the charts, in milliseconds, as Grafana takes it from its series."""
    asked = {"start": str(began), "end": str(until), "step": str(STEP_SECONDS)}
    result = stack.ask("query_range", query=shorten(fill(annotation["expr"], VALUES)), **asked)["result"]
    if annotation["useValueForTime"]:
        times = {float(value) for one in result for _, value in one["values"]}
        spans = [(time, time) for time in sorted(times) if time >= began * 1000]
    else:
        spans = [span for one in result for span in spans_of([at for at, _ in one["values"]])]
    return [{"from": first, "to": last, "color": annotation["iconColor"]} for first, last in spans]


def spans_of(seconds: list[float]) -> list[tuple[float, float]]:
    """The first and the last of moments that follow each other without a gap, in milliseconds.

    >>> spans_of([0.0, 2.0, 4.0, 20.0])
    [(0.0, 4000.0), (20000.0, 20000.0)]
    """
    spans: list[tuple[float, float]] = []
    for at in seconds:
        if spans and at * 1000 - spans[-1][1] <= 1.5 * STEP_SECONDS * 1000:
            spans[-1] = (spans[-1][0], at * 1000)
        else:
            spans.append((at * 1000, at * 1000))
    return spans


def answers(stack: Stack, panel: dict[str, Any], began: float, until: float) -> dict[str, Any]:
    """The rows of a table, or the series of anything else."""
    if panel["type"] == "table":
        return rows_of(stack, panel)
    return {"series": [one for target in panel["targets"] for one in series_of(stack, target, began, until)]}


def rows_of(stack: Stack, panel: dict[str, Any]) -> dict[str, Any]:
    """A table's columns and rows, as the panel's transformation orders and names them."""
    (target,) = panel["targets"]
    result = stack.series(fill(target["expr"], VALUES), instant=True)
    organised = panel["transformations"][0]["options"]
    names = organised["renameByName"]
    order = sorted(names, key=organised["indexByName"].__getitem__)
    cells = [{**one["metric"], "Value": moment(float(one["value"][1]))} for one in result]
    rows = sorted([row.get(label, "") for label in order] for row in cells)
    return {"columns": [names[label] for label in order], "rows": rows}


def moment(milliseconds: float) -> str:
    """A time as the unit dateTimeAsIso has it; the only number that a table of ours shows."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(milliseconds / 1000))


def series_of(stack: Stack, target: dict[str, Any], began: float, until: float) -> list[dict[str, Any]]:
    """The series of one query, called by its legend."""
    asked = {"start": str(began), "end": str(until), "step": str(STEP_SECONDS)}
    result = stack.ask("query_range", query=fill(target["expr"], VALUES), **asked)["result"]
    return [
        {
            "name": named(target.get("legendFormat", ""), one["metric"]) or target["refId"],
            "times": [at * 1000 for at, _ in one["values"]],
            "values": [number(value) for _, value in one["values"]],
        }
        for one in result
    ]


def named(legend: str, labels: dict[str, str]) -> str:
    """A legend with the labels' values in it."""
    for label, value in labels.items():
        legend = legend.replace(f"{{{{{label}}}}}", value)
    return legend


def number(text: str) -> float | None:
    """A number that JSON knows, or None."""
    value = float(text)
    return value if math.isfinite(value) else None


def draw(drawn: dict[str, dict[str, Any]]) -> None:
    """Serve the page with each dashboard's data, and let Chromium look at it."""
    PICTURES.mkdir(exist_ok=True)
    page = (BUILT / "dist" / "index.html").read_text("utf-8")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=BUILT / "dist"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, data in drawn.items():
        script = f"<script>window.DRAWN = {json.dumps(data)}</script>"  # of our own making: no text ends the element
        (BUILT / "dist" / f"{name}.html").write_text(page.replace("<head>", f"<head>{script}"), "utf-8")
        screenshot(f"http://127.0.0.1:{server.server_port}/{name}.html", PICTURES / f"{name}.png", height_of(data))
    server.shutdown()


def height_of(data: dict[str, Any]) -> int:
    """The picture's height, in pixels."""
    return max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in data["panels"]) * CELL_HEIGHT + TOP


def screenshot(url: str, path: Path, height: int) -> None:
    """Take a picture of a page once it has settled."""
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=20000"]
    size = f"--window-size={24 * CELL_WIDTH},{height}"
    call("chromium", *options, size, f"--screenshot={path}", url)


if __name__ == "__main__":
    main()
