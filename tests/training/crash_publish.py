"""Kills a job at its steps, while it publishes, while it finishes another's work, or while it reports.

Run by path, with the arguments OPERATION, TEMPLATE, OUTPUT, FIRST and STRIDE. The directory TEMPLATE holds a
repository `models` with a champion, and a model file, `challenger.onnx`. For k = FIRST, FIRST + STRIDE, … it is copied
to OUTPUT/k, and there the operation is done by a process that is killed at its k-th step (see `tests/proto/crash.py`),
until one comes to its end:

- `publish`: the file is published as accepted, and labelled.
- `finish`: the same, where a job was killed before between publishing and labelling.
- `report`: a rejection is reported where there are as many reports as are kept, so that the oldest goes.
"""

import dataclasses
import functools
import hashlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from proto import repository
from tests.proto.crash import survives
from training import acceptance, job_lock, places, verdict_files
from training.challengers import Figures, Recipe
from training.champion import Champion, read_champion
from training.errors import ChampionError
from training.gate import Bounds
from training.observed import Rules
from training.plan import Plan
from training.verdict import JSON_FILE, PAGE_FILE, ChallengerFigures, ObservationFigures, Verdict

SOURCES = frozenset({str(module.__file__) for module in (repository, acceptance, job_lock, places, verdict_files)})

KEPT = 3
"""So many reports are kept."""


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
        give_label=lambda label, version, state: models.set_label("linear", label, version, state=state),
        end_trial=functools.partial(models.end_trial, "linear"),
    )


def accepted(plan: Plan, model: bytes) -> Verdict:
    """A verdict that lets this challenger in."""
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
        challenger=ChallengerFigures(
            fit=Figures("linear", 0, 1.0, 100, 0.5),
            sha256=hashlib.sha256(model).hexdigest(),
            size_bytes=len(model),
            parameter_count=2,
            epochs=1,
            training_loss=0.5,
            validation_loss=0.5,
            observed_until_seconds=None,
            interval=None,
            parity_max_difference_celsius=0.0,
        ),
    )


def publish_accepted(root: Path, model: bytes, champion: Champion | None) -> None:
    """What a round does at its end."""
    plan = plan_in(root)
    with job_lock.locked(plan):
        state = plan.repository.labels_state(plan.name)
        acceptance.publish_accepted(plan, accepted(plan, model), model, champion, state)


def finish(root: Path) -> None:
    """What a round does at its beginning."""
    with job_lock.locked(plan_in(root)):
        pass


def report(root: Path) -> None:
    """What a round does at its end where it rejects."""
    plan = plan_in(root)
    with job_lock.locked(plan):
        rejected = dataclasses.replace(accepted(plan, b""), outcome="rejected", label=None)
        verdict_files.write_report(plan.directory, rejected, b"a rejected challenger", keep=KEPT)


def leave_unlabelled(root: Path, model: bytes, champion: Champion | None) -> None:
    """Publish, and stop where a job would be killed between that and the label."""

    def refuse(_label: str, _version: int, _state: str) -> None:
        raise ChampionError("not now")

    plan = dataclasses.replace(plan_in(root), give_label=refuse)
    with job_lock.locked(plan):
        state = plan.repository.labels_state(plan.name)
        acceptance.publish_accepted(plan, accepted(plan, model), model, champion, state)


def fill(directory: Path) -> None:
    """Put as many reports there as are kept."""
    for hour in range(KEPT):
        place = directory / f"20200101T{hour:02}0000Z-rejected"
        place.mkdir(parents=True)
        for name in (JSON_FILE, PAGE_FILE):
            (place / name).write_text("{}")


Operation = Callable[[Path], object]


def prepared(operation: str, model: bytes, champion: Champion | None) -> tuple[Operation, Operation]:
    """What is done in a copy of the template before, and what is killed."""
    match operation:
        case "publish":
            return lambda _root: None, functools.partial(publish_accepted, model=model, champion=champion)
        case "finish":
            return functools.partial(leave_unlabelled, model=model, champion=champion), finish
        case "report":
            return lambda root: fill(plan_in(root).directory), report
        case _:
            raise ValueError(operation)


def main(operation: str, template: Path, output: Path, first: int, stride: int) -> None:
    """Kill the operation at these steps in turn: see the top of the file."""
    model = (template / "challenger.onnx").read_bytes()
    champion = read_champion(plan_in(template).repository, "linear")
    before, operate = prepared(operation, model, champion)
    shutil.copytree(template, output / "0")
    before(output / "0")
    operate(output / "0")  # imports and draws what it needs, so that the killed ones do not
    shutil.rmtree(output / "0")
    at = first
    while True:
        root = output / str(at)
        shutil.copytree(template, root)
        before(root)
        if survives(at, functools.partial(operate, root), SOURCES):
            return
        at += stride


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
