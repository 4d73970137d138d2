"""One round of retraining: observations in; an accepted version, a rejected challenger, or a reason, out.

Killed at any moment it leaves nothing half-done. What it writes in the repository appears with one rename, the verdict
beside the model. The label that an accepted version is to get is written down before it is published, and the next
round gives it where this one was killed between the two. Everything else lies in the directory of reports, under hidden
names until it is whole; what a killed round left there the next one removes. A file lock keeps a second job out.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from proto.artefact import Artefact
from proto.observations import Columns, ObservationError, ObservationStore
from proto.repository import CANARY, STABLE, Repository, RepositoryError, check_name
from training import challengers, gate, verdict_files
from training.challengers import Challenger, Recipe, Shown, absolute_errors, fit_all
from training.champion import Champion, answer, current_version, read_champion
from training.dataset import Dataset
from training.drift import Drift, DriftRules, decide
from training.errors import BusyError, ChampionError, ExportError, TrainingError, TrialError
from training.export import export, write
from training.gate import Bounds, Check
from training.interval import stated_interval
from training.observed import Observed, Parts, Rules, Selection, divide, judging_sources, select, shortages
from training.parity import Engine
from training.publish import read_artefact
from training.trial import Expected, try_out
from training.verdict import (
    PAGE_FILE,
    ChallengerFigures,
    ChampionFigures,
    ObservationFigures,
    PartFigures,
    Verdict,
)

_TRIAL_PREFIX: Final = ".trial-"
_INTENT_FILE: Final = ".intent.json"
_LOCK_FILE: Final = ".lock"
_TRIAL_ROWS: Final = 1000

Deliver = Callable[[bytes, Mapping[str, bytes]], int]
"""Publishes a model file, with the files that are to stand beside it where that can be, and returns the version."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What a round is asked to do."""

    repository: Repository
    name: str
    observations: str
    """URL of the store."""
    base: Dataset | None
    """Readings that are fitted to beside all of the observations."""
    rules: Rules
    bounds: Bounds
    recipe: Recipe
    reports: Path
    label: str
    """Given to an accepted version, unless it is the first of its name, which becomes `stable`."""
    deliver: Deliver
    give_label: Callable[[str, int], None]
    """Lets a label name a version, where `deliver` published it."""

    @property
    def directory(self) -> Path:
        """Where the reports on this model go."""
        return self.reports / check_name(self.name)


@dataclass(frozen=True, slots=True)
class Round:
    """A verdict, and where it can be read: beside the version that it let in, or among the reports."""

    verdict: Verdict
    report: Path
    version: int | None = None
    remark: str | None = None
    """What could not be done after publishing."""


# One round ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(plan: Plan) -> Iterator[str | None]:
    """Keep other jobs on this model out, clear what a killed one left, and finish what it had begun.

    Yields what is to be said of that, where something is.

    Raises:
        BusyError: another job is at it.
    """
    plan.directory.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    with os.fdopen(os.open(plan.directory / _LOCK_FILE, flags, 0o666), "wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"another job retrains {plan.name!r} with the reports in {plan.reports}/") from None
        _clear(plan.directory)
        yield finish_interrupted(plan)


def _clear(directory: Path) -> None:
    """Remove what a killed round left unfinished: everything hidden but the lock and the label that is to be given."""
    for path in directory.glob(".*"):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in {_LOCK_FILE, _INTENT_FILE}:
            path.unlink()


def run_round(plan: Plan, now_seconds: float, shown: Shown) -> Round:
    """Judge a challenger, and publish it where it is accepted. The lock must be held.

    Raises:
        TrainingError: no verdict was reached.
        ObservationError: the store cannot be read.
        RepositoryError: the repository is not what it should be, or refuses the version.
    """
    champion = read_champion(plan.repository, plan.name)
    selection = select(read_observed(plan, now_seconds), plan.rules)
    parts = divide(selection.used, plan.rules, None if champion is None else champion.artefact.observed_until_seconds)
    verdict = _undecided(plan, champion, selection, parts, now_seconds)
    if missing := shortages(selection, parts, plan.rules):
        verdict = replace(verdict, reasons=tuple(missing))
        return Round(verdict, verdict_files.write_report(plan.directory, verdict))
    fits = fit_all(plan.base, parts, plan.recipe, shown)
    verdict = replace(verdict, candidates=tuple(challengers.figures_of(fits)))
    verdict, model = _judge(plan, verdict, fits[0], champion, parts.held_out)
    if verdict.outcome == "accepted" and model is not None:
        return publish_accepted(plan, verdict, model, champion)
    return Round(verdict, verdict_files.write_report(plan.directory, verdict, model))


def _undecided(
    plan: Plan, champion: Champion | None, selection: Selection, parts: Parts, now_seconds: float
) -> Verdict:
    """The verdict as it stands before anything is fitted."""
    return Verdict(
        name=plan.name,
        outcome="not_enough_data",
        reasons=(),
        made_at_seconds=now_seconds,
        label=plan.label if champion is not None else None,
        base_data=None if plan.base is None else plan.base.source,
        observations=ObservationFigures(
            read=selection.read,
            used=len(selection.used),
            since_seconds=now_seconds - plan.rules.window_seconds,
            by_source=selection.by_source,
            parts={name: PartFigures.of(getattr(parts, name)) for name in ("training", "validation", "held_out")},
        ),
        champion=None
        if champion is None
        else ChampionFigures(
            champion.version, champion.artefact.kind, champion.sha256, champion.artefact.observed_until_seconds
        ),
        rules=plan.rules,
        bounds=plan.bounds,
        recipe=plan.recipe,
    )


def read_observed(plan: Plan, now_seconds: float) -> Observed:
    """The observations of the window, which ends now: what claims to be of later is not read.

    Raises:
        ObservationError: there is no store, or it cannot be read.
    """
    with ObservationStore.open(plan.observations, create=False) as store:
        return observed_of(store.read(now_seconds - plan.rules.window_seconds, now_seconds))


def observed_of(columns: Columns) -> Observed:
    """The columns that are fitted to."""
    sources = np.array(columns.source, dtype=np.str_)
    return Observed(columns.fahrenheit, columns.celsius, columns.observed_at_seconds, sources)


# Judging --------------------------------------------------------------------------------------------------------------


def _judge(
    plan: Plan, verdict: Verdict, challenger: Challenger, champion: Champion | None, held_out: Observed
) -> tuple[Verdict, bytes | None]:
    """Export a challenger, and hold it against every condition: the verdict, and its file where there is one."""
    interval = stated_interval(challenger.fitted, plan.recipe.coverage)
    try:
        model = export(challenger.fitted, interval)
    except ExportError as error:
        return _decided(verdict, [Check("parity and golden vectors", False, _PARITY_ASKED, str(error))]), None
    artefact = read_artefact(model)
    if artefact is None:
        raise ExportError("the exported file carries no metadata")
    answers = answer(Engine(model), held_out.fahrenheit)
    errors = absolute_errors(answers, held_out.celsius)
    theirs = None if champion is None else absolute_errors(champion.answer(held_out.fahrenheit), held_out.celsius)
    by_source = gate.errors_by_source(errors, theirs, held_out.source)
    judging = judging_sources(held_out, plan.rules)
    verdict = replace(
        verdict,
        challenger=_figures(challenger, artefact, model),
        errors_by_source=tuple(by_source),
        errors_over_time=tuple(gate.errors_over_time(errors, theirs, held_out.seconds)),
    )
    checks = [
        Check("parity and golden vectors", True, _PARITY_ASKED, _parity_found(artefact)),
        *gate.judge(errors, theirs, [each for each in by_source if each.source in judging], plan.bounds),
    ]
    if all(check.passed for check in checks):
        checks.append(_tried(plan, model, artefact, held_out.fahrenheit, answers))
    return _decided(verdict, checks), model


_PARITY_ASKED: Final = "ONNX Runtime answers as PyTorch does, over the training range and far beyond"
_SERVED_ASKED: Final = "a server started on the file alone answers as expected, asked over the network"


def _parity_found(artefact: Artefact) -> str:
    return (
        f"{artefact.parity_max_difference_celsius:.2g} °C apart at most; {len(artefact.golden.inputs)} golden vectors"
    )


def _figures(challenger: Challenger, artefact: Artefact, model: bytes) -> ChallengerFigures:
    return ChallengerFigures(
        fit=challenger.figures(),
        sha256=hashlib.sha256(model).hexdigest(),
        size_bytes=len(model),
        parameter_count=artefact.parameter_count,
        epochs=artefact.epochs,
        training_loss=artefact.training_loss,
        validation_loss=artefact.validation_loss,
        observed_until_seconds=artefact.observed_until_seconds,
        interval=artefact.interval,
        parity_max_difference_celsius=artefact.parity_max_difference_celsius,
    )


def _tried(
    plan: Plan, model: bytes, artefact: Artefact, fahrenheit: NDArray[np.float64], answers: NDArray[np.float32]
) -> Check:
    """Serve the file for real."""
    directory = Path(tempfile.mkdtemp(prefix=_TRIAL_PREFIX, dir=plan.directory))
    rows = slice(None, _TRIAL_ROWS)
    expected = Expected(fahrenheit[rows].astype(np.float32), answers[rows].astype(np.float64), artefact.golden)
    try:
        trial = try_out(directory, plan.name, model, expected)
    except TrialError as error:
        return Check("served by a real process", passed=False, asked=_SERVED_ASKED, found=str(error))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    found = f"{trial.rows} rows, {trial.greatest_difference_celsius:.2g} °C apart at most"
    return Check("served by a real process", passed=True, asked=_SERVED_ASKED, found=found)


def _decided(verdict: Verdict, checks: list[Check]) -> Verdict:
    failed = [f"{check.name}: {check.found}; asked was: {check.asked}" for check in checks if not check.passed]
    passed = f"all {len(checks)} conditions are met"
    return replace(
        verdict,
        outcome="rejected" if failed else "accepted",
        reasons=tuple(failed) or (passed,),
        checks=tuple(checks),
        label=None if failed else verdict.label,
    )


# Publishing -----------------------------------------------------------------------------------------------------------


def publish_accepted(plan: Plan, verdict: Verdict, model: bytes, champion: Champion | None) -> Round:
    """Publish the file of an accepted challenger with its verdict, and label it. The lock must be held.

    Raises:
        ChampionError: another version answers by now than the one that it was judged against.
        TrainingError, RepositoryError: it cannot be published.
    """
    if current_version(plan.repository, plan.name) != (None if champion is None else champion.version):
        raise ChampionError(f"the champion of {plan.name!r} was changed while its challenger was judged: try again")
    files = verdict_files.contents(verdict)
    if verdict.label is not None:
        intent = {
            "sha256": hashlib.sha256(model).hexdigest(),
            "label": verdict.label,
            "target": plan.repository.labels(plan.name).get(verdict.label),
            "champion": None if champion is None else champion.version,
        }
        write(plan.directory / _INTENT_FILE, json.dumps(intent).encode())
    version = plan.deliver(model, files)
    remark = finish_interrupted(plan, version) if verdict.label is not None else None
    beside = plan.repository.model_path(plan.name, version).with_name(PAGE_FILE)
    report = beside if beside.is_file() else verdict_files.write_report(plan.directory, verdict)
    return Round(verdict, report, version, remark)


def finish_interrupted(plan: Plan, published: int | None = None) -> str | None:
    """Give the label that was written down to its version: the one just published, or sought by its hash.

    One that is sought gets it only where the champion and what the label named are what they were: meanwhile somebody
    may have decided otherwise. Returns what is to be said, where something is: that the label could not be given, and
    that the next job tries again, or that it is given up.
    """
    path = plan.directory / _INTENT_FILE
    try:
        intent = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    label = intent["label"]
    version = _version_of(plan.repository, plan.name, intent["sha256"]) if published is None else published
    remark = None
    if version is not None and plan.repository.labels(plan.name).get(label) != version:
        if published is None:
            remark = _overtaken(plan, intent, version)
        try:
            if remark is None:
                plan.give_label(label, version)
        except (TrainingError, RepositoryError, OSError) as error:
            return f"{plan.name}/{version} could not be labelled {label!r}, which the next job tries again: {error}"
    path.unlink()
    return remark


def _overtaken(plan: Plan, intent: Mapping[str, object], version: int) -> str | None:
    """Why the label that was written down is not to be given any more; None where nothing has changed."""
    label = str(intent["label"])
    target, champion = plan.repository.labels(plan.name).get(label), current_version(plan.repository, plan.name)
    head = f"{plan.name}/{version} is not labelled {label!r} after an interrupted job"
    if champion != intent.get("champion"):
        return f"{head}: it was judged against version {intent.get('champion')}, and version {champion} answers by now"
    if target != intent.get("target"):
        return f"{head}: the label was moved meanwhile, from version {intent.get('target')} to {target}"
    return None


def _version_of(repository: Repository, name: str, sha256: str) -> int | None:
    """The newest version that holds this very file."""
    for version in reversed(repository.versions(name)):
        with contextlib.suppress(FileNotFoundError):
            if hashlib.sha256(repository.model_path(name, version).read_bytes()).hexdigest() == sha256:
                return version
    return None


# Whether a round is wanted --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whether a round is wanted, and why or why not."""

    is_wanted: bool
    reason: str


def look(plan: Plan, drift_rules: DriftRules, now_seconds: float) -> Wanted:
    """Decide whether the champion has drifted. A model without one wants one; one on trial already is waited for.

    Raises:
        TrainingError: the champion cannot be judged.
        ObservationError: the store cannot be read.
        RepositoryError: the repository is not what it should be.
    """
    champion = read_champion(plan.repository, plan.name)
    if champion is None:
        return Wanted(is_wanted=True, reason="there is no champion yet")
    labels = plan.repository.labels(plan.name)
    on_trial = labels.get(CANARY, 0)
    if on_trial > labels.get(STABLE, champion.version):
        return Wanted(is_wanted=False, reason=f"version {on_trial} is on trial as {CANARY!r} already")
    drift = drift_of(champion, select(read_observed(plan, now_seconds), plan.rules).used, drift_rules)
    return Wanted(drift.is_drift, "; ".join(drift.reasons))


def drift_of(champion: Champion, used: Observed, drift_rules: DriftRules) -> Drift:
    """Decide from the observations that the champion was not fitted to."""
    until = champion.artefact.observed_until_seconds
    first = 0 if until is None else int(np.searchsorted(used.seconds, until, side="right"))
    recent = used.at(np.arange(first, len(used)))
    errors = champion.answer(recent.fahrenheit).astype(np.float64) - recent.celsius
    artefact = champion.artefact
    return decide(artefact.columns[0].histogram, artefact.validation_loss, recent.fahrenheit, errors, drift_rules)


def failures() -> tuple[type[Exception], ...]:
    """What may end a round without a verdict and is no fault of the program."""
    return (TrainingError, ObservationError, RepositoryError, OSError)
