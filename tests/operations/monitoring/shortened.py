"""The operator's configuration with time made short, so that a test sees in seconds what takes minutes.

Every duration, in ranges, `for`, offsets and intervals, is divided by `FACTOR`; nothing else changes: not the names of
recorded series, not thresholds, not texts, and not plain numbers of seconds. The one exception is how often servers are
scraped: a machine that is busy must still be able to answer in the time between two scrapes.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml

FACTOR: Final = 60
SCRAPE_INTERVAL: Final = "2s"

_UNIT_MILLISECONDS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION: Final = re.compile(r"(?<![\w.])(\d+)([smhd])\b")


def shorten(text: str) -> str:
    """Divide every duration of a text by `FACTOR`; those become whole milliseconds."""
    return _DURATION.sub(lambda found: f"{int(found[1]) * _UNIT_MILLISECONDS[found[2]] // FACTOR}ms", text)


def shorten_rules(directory: Path, into: Path) -> None:
    """Write a directory's rule files anew, shortened."""
    into.mkdir()
    for path in directory.glob("*.yml"):
        (into / path.name).write_text(shorten(path.read_text("utf-8")), "utf-8")


def point_prometheus(text: str, *, servers: Sequence[str], pushgateway: str, alertmanager: str, prometheus: str) -> str:
    """Shorten Prometheus' configuration, and put addresses in the place of the names that compose gives."""
    content = yaml.safe_load(shorten(text))
    addresses = {
        "quicksilver": servers,
        "pushgateway": [pushgateway],
        "prometheus": [prometheus],
        "alertmanager": [alertmanager],
    }
    content["global"]["scrape_interval"] = content["global"]["scrape_timeout"] = SCRAPE_INTERVAL
    for job in content["scrape_configs"]:
        job.pop("dns_sd_configs", None)
        job["static_configs"] = [{"targets": list(addresses[job["job_name"]])}]
    content["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [alertmanager]}]}]
    return yaml.safe_dump(content)


def call_webhook(text: str, url: str) -> str:
    """Shorten Alertmanager's configuration, and let every receiver call a webhook."""
    content: dict[str, Any] = yaml.safe_load(shorten(text))
    for receiver in content["receivers"]:
        receiver["webhook_configs"] = [{"url": url}]
    return yaml.safe_dump(content)
