"""What PromQL expressions and texts name, and what a server and its training jobs expose."""

import re
from collections.abc import Iterable
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Final

import promql_parser
import yaml
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from promql_parser import Expr, VectorSelector

from deploy.grafana.queries import Question, questions_of
from service.snapshot import FAMILIES, Counter, Histogram
from service.workers.scrape import place_families
from training import telemetry

ROOT: Final = Path(__file__).parents[3]
RULES: Final = ROOT / "deploy" / "prometheus" / "rules"
DASHBOARDS: Final = ROOT / "deploy" / "grafana" / "dashboards"

FILLED: Final = {"job": "quicksilver|quicksilver_training", "instance": ".*", "model": ".*", "__rate_interval": "1m"}
"""The dashboards' variables, where everything is chosen."""

OTHERS: Final = frozenset({"up"})
"""What Prometheus itself says of its targets."""


def selectors_of(expression: str) -> list[VectorSelector]:
    """Every selector of an expression, ranges' too."""
    found: list[VectorSelector] = []

    def look(part: Expr) -> None:
        if isinstance(part, VectorSelector):
            found.append(part)

    promql_parser.walk(promql_parser.parse(expression), look)
    return found


def metrics_of(expression: str) -> set[str]:
    """The metrics that an expression names."""
    return {str(selector.name) for selector in selectors_of(expression)}


def rules() -> list[dict[str, Any]]:
    """Every rule, recording and alerting, as it stands in its file."""
    files = [yaml.safe_load(path.read_text("utf-8")) for path in sorted(RULES.glob("*.yml"))]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    """The alerting rules."""
    return [rule for rule in rules() if "alert" in rule]


def recorded() -> set[str]:
    """The metrics that recording rules make."""
    return {rule["record"] for rule in rules() if "record" in rule}


def questions() -> list[Question]:
    """Every query of every dashboard."""
    return list(chain.from_iterable(questions_of(path) for path in sorted(DASHBOARDS.glob("*.json"))))


@cache
def exposed() -> frozenset[str]:
    """Every metric that a server or a training job gives out, by the names that Prometheus stores."""
    ours = chain.from_iterable(map(stored_names, FAMILIES))
    return frozenset({*ours, *of_the_workers(), *telemetry.FAMILIES, *_of_the_process()})


def of_the_workers() -> set[str]:
    """What a server with several workers says of them."""
    return {f"{family.name}_total" if family.type == "counter" else family.name for family in place_families(())}


def stored_names(family: str) -> Iterable[str]:
    """The names under which a family of ours is stored: a histogram has three, a counter ends in `_total`."""
    if isinstance(FAMILIES[family], Histogram):
        return [f"{family}_bucket", f"{family}_sum", f"{family}_count"]
    return [f"{family}_total" if isinstance(FAMILIES[family], Counter) else family]


def _of_the_process() -> set[str]:
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return {sample.name for family in registry.collect() for sample in family.samples}


def named_in_text(text: str) -> set[str]:
    """The metrics that a text names, by the way our names begin; whole names alone, no patterns."""
    return set(re.findall(r"(?<![\w:/.])(?:quicksilver|grpc_server)_[a-z0-9_]+(?![\w*{])", text))
