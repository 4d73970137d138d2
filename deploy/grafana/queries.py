"""What the written dashboards ask Prometheus, with the variables filled in, as Grafana would before it asks."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


@dataclass(frozen=True, slots=True)
class Question:
    """One query of a panel or an annotation, as it stands in the JSON."""

    dashboard: str
    panel: str
    expression: str
    legend: str
    instant: bool


def panels_of(dashboard: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The panels that show something: those of rows too, the rows themselves not."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def questions_of(path: Path) -> Iterator[Question]:
    """Every query of a dashboard's file."""
    dashboard = json.loads(path.read_text("utf-8"))
    for panel in panels_of(dashboard):
        for target in panel["targets"]:
            instant = bool(target.get("instant"))
            yield Question(path.stem, panel["title"], target["expr"], target.get("legendFormat", ""), instant)
    for annotation in dashboard["annotations"]["list"]:
        yield Question(path.stem, f"annotation {annotation['name']}", annotation["expr"], "", instant=False)


def fill(expression: str, values: Mapping[str, str]) -> str:
    """Put values in the place of variables, `$job` or `${job}`.

    Raises:
        KeyError: there is no value for a variable.
    """
    return _VARIABLE.sub(lambda found: values[found[1] or found[2]], expression)
