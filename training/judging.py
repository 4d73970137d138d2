"""A challenger held against every condition: exported, compared with the champion, and served by a real process."""

import hashlib
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from proto.artefact import Artefact
from training import gate
from training.agreement import greatest_disagreement
from training.challengers import Challenger, absolute_errors
from training.champion import Champion, answer
from training.errors import ExportError, TrialError
from training.export import export
from training.gate import Check
from training.interval import stated_interval
from training.observed import Observed, judging_sources
from training.parity import Engine
from training.plan import Plan
from training.publish import read_artefact
from training.trial import Expected, try_out
from training.verdict import ChallengerFigures, Verdict

_TRIAL_PREFIX: Final = ".trial-"
_TRIAL_ROWS: Final = 1000


def judge(
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
    residuals = held_out.celsius - answers.astype(np.float64)
    disagreement = greatest_disagreement(
        residuals, held_out.fahrenheit, held_out.source, judging, plan.bounds.significance
    )
    verdict = replace(
        verdict,
        challenger=_figures(challenger, artefact, model),
        errors_by_source=tuple(by_source),
        errors_over_time=tuple(gate.errors_over_time(errors, theirs, held_out.seconds)),
    )
    checks = [
        Check("parity and golden vectors", True, _PARITY_ASKED, _parity_found(artefact)),
        *gate.judge(errors, theirs, [each for each in by_source if each.source in judging], disagreement, plan.bounds),
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
