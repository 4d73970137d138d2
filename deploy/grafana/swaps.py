"""Marks that every chart of a served model shows: what was loaded, and what began to answer."""

from typing import Final

from deploy.grafana.parts import MODEL, Annotation


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
