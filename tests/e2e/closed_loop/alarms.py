"""The alarms of the loop: the thresholds of the shipped rules, and Debian's Prometheus that evaluates the rules."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple
from urllib.request import urlopen

from tests.environments import free_port
from tests.operations.monitoring.conftest import find_program
from tests.operations.monitoring.promql import ROOT, RULES, alerts
from tests.operations.monitoring.shortened import point_prometheus, shorten_rules

LIVE_ERROR: Final = "QuicksilverLiveError"
INPUT_DRIFT: Final = "QuicksilverInputDrift"

_ABOVE: Final = re.compile(r"max by \([\w, ]+\) \((\w+)\) > ([\d.]+)")


class Threshold(NamedTuple):
    """The metric that a rule looks at, and above what it fires."""

    metric: str
    value: float


def threshold(alert: str) -> Threshold:
    """What a shipped rule says: of those that compare one metric with a number."""
    (rule,) = [each for each in alerts() if each["alert"] == alert]
    found = _ABOVE.fullmatch(rule["expr"])
    assert found, f"{alert} compares otherwise: {rule['expr']}"
    return Threshold(found[1], float(found[2]))


Firing = Callable[[], set[tuple[str, str]]]
"""The alerts that fire, each with its version."""


@contextmanager
def prometheus(directory: Path, servers: Sequence[str]) -> Iterator[Firing]:
    """Run Prometheus with what is shipped, in shortened time, over some servers."""
    own, nobody = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    directory.mkdir()
    shorten_rules(RULES, directory / "rules")
    shipped = (ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text("utf-8")
    pointed = point_prometheus(shipped, servers=servers, prometheus=own, pushgateway=nobody, alertmanager=nobody)
    (directory / "prometheus.yml").write_text(pointed, "utf-8")
    arguments = [
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address={own}",
    ]
    with (directory / "log").open("w") as log:
        process = subprocess.Popen([find_program("prometheus"), *arguments], stdout=log, stderr=log)
        try:
            yield lambda: _firing(own)
        finally:
            process.kill()
            process.wait()


def _firing(address: str) -> set[tuple[str, str]]:
    try:
        with urlopen(f"http://{address}/api/v1/alerts", timeout=30) as response:
            told = json.load(response)["data"]["alerts"]
    except OSError:  # it is not there yet
        return set()
    return {
        (each["labels"]["alertname"], each["labels"].get("version", "")) for each in told if each["state"] == "firing"
    }
