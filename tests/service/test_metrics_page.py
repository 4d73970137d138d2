"""docs/metrics.md names what the server exposes: no family more, none less, with its type, labels and meaning."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from service.server import Server
from service.snapshot import FAMILIES
from service.workers.scrape import Place, place_families
from training.telemetry import FAMILIES as TRAINING

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text("utf-8")
ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| ([^|]*) \| (.*) \|$", re.MULTILINE)
EVERYBODYS = re.compile("process_|python_")
"""Families under names that are not ours."""


class Row(NamedTuple):
    """One family as the page tells it."""

    name: str
    kind: str
    labels: frozenset[str]
    meaning: str


def page() -> set[Row]:
    """The families on the page."""
    return {
        Row(name, kind, frozenset(re.findall(r"`(\w+)`", labels)), meaning)
        for name, kind, labels, meaning in ROW.findall(PAGE)
    }


def sample_name(metric: Metric) -> str:
    """The name as a query has it: counters end in `_total`."""
    return f"{metric.name}_total" if metric.type == "counter" else metric.name


def of(metrics: Iterable[Metric]) -> set[Row]:
    """What metrics are, by the labels that their families are declared with, or that their samples have."""
    rows = set()
    for metric in metrics:
        if EVERYBODYS.match(metric.name) or metric.name.endswith("_created"):
            continue
        declared = FAMILIES.get(metric.name)
        found = {label for sample in metric.samples for label in sample.labels}
        labels = frozenset(found if declared is None else declared.labels)
        rows.add(Row(sample_name(metric), metric.type, labels, metric.documentation))
    return rows


def training() -> set[Row]:
    """What training jobs push."""
    return {Row(name, "gauge", frozenset(labels), text) for name, (text, labels) in TRAINING.items()}


@pytest.mark.parametrize("transport", ["http2"])
def test_the_page_is_what_is_exposed(server: Server) -> None:
    """The families of a real scrape, those that several workers add, and those of training jobs."""
    with urlopen(f"http://{server.http_address}/metrics", timeout=30) as response:
        exposed = of(text_string_to_metric_families(response.read().decode()))
    workers = of(place_families([Place(0, up=True, connections=0, replacements=0, report_age_seconds=0.0)]))
    expected = exposed | workers | training()
    assert sorted(page() - expected) == []
    assert sorted(expected - page()) == []


def test_the_page_says_each_family_once() -> None:
    """In one table."""
    names = [name for name, *_ in ROW.findall(PAGE)]
    assert len(names) == len(set(names))
