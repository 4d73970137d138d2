"""Kills the publishing of an accepted challenger at its steps, and keeps what it left.

Run by path, with the arguments TEMPLATE, OUTPUT, FIRST and STRIDE. The directory TEMPLATE holds a repository
`models` with a champion, and a model file, `challenger.onnx`. For k = FIRST, FIRST + STRIDE, … it is copied to
OUTPUT/k, and there the file is published as accepted, by a process that is killed at its k-th step (see
`tests/proto/crash.py`), until one comes to its end.
"""

import functools
import shutil
import sys
from pathlib import Path

from proto import repository
from tests.proto.crash import survives
from training import job
from training.challengers import Recipe
from training.champion import Champion, read_champion
from training.gate import Bounds
from training.job import Plan
from training.observed import Rules
from training.verdict import ObservationFigures, Verdict

SOURCES = frozenset({repository.__file__, job.__file__})


def plan_in(root: Path) -> Plan:
    """A job on the model `linear` in a directory of this shape."""
    models = repository.Repository(root / "models")
    return Plan(
        repository=models,
        name="linear",
        observations="sqlite:///nowhere",
        base=None,
        rules=Rules(),
        bounds=Bounds(),
        recipe=Recipe(),
        reports=root / "reports",
        label=repository.CANARY,
        deliver=lambda model, beside: models.publish("linear", model, beside=beside),
        give_label=functools.partial(models.set_label, "linear"),
    )


def accepted(plan: Plan) -> Verdict:
    """A verdict that lets a challenger in."""
    return Verdict(
        name=plan.name,
        outcome="accepted",
        reasons=("all conditions are met",),
        made_at_seconds=1.8e9,
        label=plan.label,
        base_data=None,
        observations=ObservationFigures(0, 0, 0.0, {}, {}),
        champion=None,
        rules=plan.rules,
        bounds=plan.bounds,
        recipe=plan.recipe,
    )


def publish_accepted(root: Path, model: bytes, champion: Champion | None) -> None:
    """What a round does at its end."""
    plan = plan_in(root)
    with job.locked(plan):
        job.publish_accepted(plan, accepted(plan), model, champion)


def main(template: Path, output: Path, first: int, stride: int) -> None:
    """Kill the publishing at these steps in turn: see the top of the file."""
    model = (template / "challenger.onnx").read_bytes()
    shutil.copytree(template, output / "0")
    champion = read_champion(plan_in(template).repository, "linear")
    publish_accepted(output / "0", model, champion)  # imports and draws what it needs, so that the killed ones do not
    shutil.rmtree(output / "0")
    at = first
    while True:
        root = output / str(at)
        shutil.copytree(template, root)
        if survives(at, functools.partial(publish_accepted, root, model, champion), SOURCES):
            return
        at += stride


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
