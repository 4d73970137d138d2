"""Whether a round is wanted: nothing while a version is on trial, and where asked only what has drifted.

A trial that nothing decides would end a schedule's work for ever. So it is waited for with patience, and no longer.
"""

from dataclasses import dataclass

import numpy as np

from proto.repository import CANARY, STABLE
from training.champion import Champion, read_champion
from training.drift import Drift, DriftRules, decide
from training.observed import Observed, select
from training.patience import TRIAL_PATIENCE_SECONDS, days, overdue
from training.plan import Plan
from training.verdict import EndedTrial
from training.window import read_window


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whether a round is wanted, and why or why not."""

    is_wanted: bool
    reason: str
    overdue: EndedTrial | None = None
    """The trial that keeps a round from being made and was waited for long enough."""


def look(
    plan: Plan,
    drift_rules: DriftRules | None,
    now_seconds: float,
    patience_seconds: float = TRIAL_PATIENCE_SECONDS,
) -> Wanted:
    """Decide for a schedule whether there is something to do. A version that is on trial is waited for, with patience.

    A round would put another in its place, and what was observed for it would count for nothing. A model without a
    champion wants one. Where there are rules for drift, a champion has to have drifted.

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
        since = plan.repository.canary_since(plan.name)
        return _on_trial(on_trial, now_seconds if since is None else since, now_seconds, patience_seconds)
    if drift_rules is None:
        return Wanted(is_wanted=True, reason="no version is on trial")
    window = read_window(plan.observations, plan.rules, now_seconds)
    drift = drift_of(champion, select(window.observed, plan.rules).used, drift_rules)
    return Wanted(drift.is_drift, "; ".join(drift.reasons))


def _on_trial(version: int, since_seconds: float, now_seconds: float, patience_seconds: float) -> Wanted:
    """Nothing is wanted; nor was the trial worth the wait, where it is overdue."""
    why = overdue(version, since_seconds, now_seconds, patience_seconds)
    if why is not None:
        return Wanted(is_wanted=False, reason=why, overdue=EndedTrial(version, since_seconds, why))
    age = days(max(0.0, now_seconds - since_seconds))
    return Wanted(
        is_wanted=False,
        reason=f"version {version} is on trial as {CANARY!r} for {age}, and waited for up to {days(patience_seconds)}",
    )


def drift_of(champion: Champion, used: Observed, drift_rules: DriftRules) -> Drift:
    """Decide from the observations that the champion was not fitted to."""
    until = champion.artefact.observed_until_seconds
    first = 0 if until is None else int(np.searchsorted(used.seconds, until, side="right"))
    recent = used.at(np.arange(first, len(used)))
    errors = champion.answer(recent.fahrenheit).astype(np.float64) - recent.celsius
    artefact = champion.artefact
    return decide(artefact.columns[0].histogram, artefact.validation_loss, recent.fahrenheit, errors, drift_rules)
