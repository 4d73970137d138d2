"""What the dashboards of served models have in common: what may be chosen, and the marks on every chart."""

from collections.abc import Sequence
from typing import Final

from grafana_foundation_sdk.builders.dashboard import Dashboard

from deploy.grafana.parts import MODEL, Annotation, Panel, make_dashboard


def served_dashboard(
    title: str,
    description: str,
    rows: Sequence[tuple[str, Sequence[Panel]]],
    *,
    marks: Sequence[Annotation] = (),
) -> Dashboard:
    """A dashboard of what servers have loaded, with marks for swaps and loads, and with further ones."""
    return make_dashboard(
        title, description, labels_of="quicksilver_model_info", annotations=(*SWAPS, *marks), rows=rows
    )


def _stable(offset: str = "") -> str:
    return f'max by (model, version) (quicksilver_label_info{{{MODEL}, label="stable"}}{offset})'


SWAPS: Final = (
    Annotation(
        "Swap",
        # a version that is stable, and was not a minute ago, when another of its model was
        f"({_stable()} unless {_stable(' offset 1m')}) and on (model) {_stable(' offset 1m')}",
        "{{model}}/{{version}} is stable",
        "purple",
    ),
    Annotation(
        "Load",
        f"max by (model) (quicksilver_last_load_timestamp_seconds{{{MODEL}}}) * 1000",
        "a version of {{model}} was loaded",
        "blue",
        value_is_time=True,
    ),
)
"""A swap as a range of a minute; a load as its moment."""
