"""The committed dashboards: written by deploy/grafana, complete, correct PromQL, and about metrics that are there."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from promql_parser import AggregateExpr, BinaryExpr, Call, Expr, MatrixSelector, ParenExpr, VectorSelector

from deploy.grafana.__main__ import main
from deploy.grafana.queries import Question, fill, panels_of
from service.snapshot import FAMILIES
from tests.operations.monitoring.promql import (
    DASHBOARDS,
    FILLED,
    OTHERS,
    ROOT,
    alerts,
    exposed,
    metrics_of,
    named_in_text,
    of_the_workers,
    questions,
    recorded,
    selectors_of,
    stored_names,
)
from training import telemetry

FILES = sorted(DASHBOARDS.glob("*.json"))
QUESTIONS = questions()
UNITS = {
    "bytes",
    "celsius",
    "dateTimeAsIso",
    "none",  # a count or a factor; the title says of what
    "ops",
    "percentunit",
    "reqps",
    "rowsps",
    "s",
}
COUNTED = re.compile(r".*_(total|bucket|sum|count)$")
OVER_TIME = {"rate", "increase"}
COLUMNS = 24
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "deploy").rglob("*.md"))]


def panels(path: Path) -> list[dict[str, Any]]:
    """The panels of a dashboard's file."""
    return panels_of(json.loads(path.read_text("utf-8")))


def ids(question: Question) -> str:
    """How a case is called."""
    return f"{question.dashboard}: {question.panel}"


def test_they_are_what_the_code_writes() -> None:
    """Nobody changed the JSON by hand, and nobody forgot to write it."""
    assert main(["--check"]) == 0


def test_there_are_three() -> None:
    """Serving, Models, Training, each under its name and an identifier that links can use."""
    written = {path.stem: json.loads(path.read_text("utf-8")) for path in FILES}
    titles = {stem: (dashboard["title"], dashboard["uid"]) for stem, dashboard in written.items()}
    assert titles == {
        name: (f"Quicksilver: {name.title()}", f"quicksilver-{name}") for name in ("serving", "models", "training")
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_panel_is_complete(path: Path) -> None:
    """A title of its own, a description, a known unit, the chosen data source, and something to show."""
    shown = panels(path)
    for panel in shown:
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert panel["targets"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
        assert panel["datasource"]["uid"] == "${datasource}"
    assert max(Counter(panel["title"] for panel in shown).values()) == 1
    assert len({panel["id"] for panel in shown}) == len(shown)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_panels_do_not_overlap(path: Path) -> None:
    """Each cell of the grid belongs to one panel, and none hangs over the edge."""
    taken: Counter[tuple[int, int]] = Counter()
    for panel in json.loads(path.read_text("utf-8"))["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= COLUMNS
        taken.update(
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        )
    assert max(taken.values()) == 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_dashboard_has_the_variables(path: Path) -> None:
    """Data source, job, instance and model; until somebody chooses, all there are, and of jobs those that are ours."""
    variables = json.loads(path.read_text("utf-8"))["templating"]["list"]
    assert [variable["name"] for variable in variables] == ["datasource", "job", "instance", "model"]
    for variable in variables[1:]:
        assert (variable["includeAll"], variable["multi"]) == (True, True)
        assert variable.get("allValue") == (None if variable["name"] == "job" else ".*")
        (metric,) = re.findall(r"label_values\((\w+)", variable["query"]["query"])
        assert metric in exposed()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_changed_is_marked(path: Path) -> None:
    """Swaps and loads on the charts of served models; promotions and roll-backs where versions are compared."""
    annotations = json.loads(path.read_text("utf-8"))["annotations"]["list"]
    marks = {"serving": ["Swap", "Load"], "models": ["Swap", "Load", "Promotion", "Roll-back"], "training": []}
    assert [annotation["name"] for annotation in annotations] == marks[path.stem]
    assert len({annotation["iconColor"] for annotation in annotations}) == len(annotations)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_shares_are_not_piled_up(path: Path) -> None:
    """Several models' shares, each 100 % together, would be several hundred."""
    for panel in panels(path):
        defaults = panel["fieldConfig"]["defaults"]
        if defaults["unit"] == "percentunit":
            assert defaults.get("custom", {}).get("stacking", {}).get("mode", "none") == "none", panel["title"]


@pytest.mark.parametrize("question", QUESTIONS, ids=ids)
def test_queries_are_sound(question: Question) -> None:
    """A query parses, counts are looked at as rates and added up over servers, and only what is chosen is shown."""
    expression = fill(question.expression, FILLED)
    promql_parser.parse(expression)
    for selector in selectors_of(expression):
        matchers = {matcher.name: matcher.value for matcher in selector.matchers.matchers}
        assert matchers.get("job") == FILLED["job"], f"{selector.name} does not go by $job"
    _check(promql_parser.parse(expression), within=())


def _check(part: Expr, within: tuple[str, ...]) -> None:
    """Look through a query, knowing what stands around each part, outermost first."""
    match part:
        case AggregateExpr():
            _check(part.expr, (*within, "aggregate"))
        case Call():
            for argument in part.args:
                _check(argument, (*within, str(part.func.name)))
        case MatrixSelector():
            counted = COUNTED.match(str(part.vector_selector.name))
            assert bool(counted) == (within[-1] in OVER_TIME), f"{part.prettify()} in {within}"
            assert "aggregate" in within, f"{part.prettify()} is not added up"
        case VectorSelector():
            assert not COUNTED.match(str(part.name)), f"{part.name} is a count: how fast it grows is what it says"
        case BinaryExpr():
            _check(part.lhs, within)
            _check(part.rhs, within)
        case ParenExpr():
            _check(part.expr, within)


@pytest.mark.parametrize("question", QUESTIONS, ids=ids)
def test_several_series_are_told_apart(question: Question) -> None:
    """The legend names each label by which a chart's query groups, so that no two lines have one name."""
    outermost = promql_parser.parse(fill(question.expression, FILLED))
    grouped = outermost.modifier.labels if isinstance(outermost, AggregateExpr) and outermost.modifier else []
    if question.legend and not question.instant:
        assert {f"{{{{{label}}}}}" for label in grouped} <= set(re.findall(r"\{\{\w+\}\}", question.legend))


def test_dashboards_name_what_is_exposed() -> None:
    """Each metric of a panel is one that a server or a job gives out, that a rule records, or Prometheus' own."""
    for question in QUESTIONS:
        assert metrics_of(fill(question.expression, FILLED)) <= exposed() | recorded() | OTHERS, question


def test_documents_name_what_is_exposed() -> None:
    """No page tells of a metric that is not there."""
    known = exposed() | recorded() | set(FAMILIES)
    for path in DOCUMENTS:
        assert named_in_text(path.read_text("utf-8")) <= known, path.name


def test_everything_exposed_is_shown() -> None:
    """Each family of ours is on a dashboard or in an alert: what nobody sees need not be counted."""
    expressions = [fill(question.expression, FILLED) for question in QUESTIONS] + [alert["expr"] for alert in alerts()]
    looked_at = set().union(*map(metrics_of, expressions))
    assert {family for family in FAMILIES if looked_at.isdisjoint(stored_names(family))} == set()
    assert of_the_workers() | set(telemetry.FAMILIES) <= looked_at


def test_grafana_is_told_where_they_are() -> None:
    """The provisioned provider reads the directory that docker-compose.yml mounts, the source is Prometheus' there."""
    provisioning = ROOT / "deploy" / "grafana" / "provisioning"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "quicksilver.yml").read_text("utf-8"))["providers"]
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text("utf-8"))["datasources"]
    assert provider["options"]["path"] == "/etc/grafana/dashboards"
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    scraped = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text("utf-8"))
    assert source["jsonData"]["timeInterval"] == scraped["global"]["scrape_interval"]
