"""One round of retraining: observations in; an accepted version, a rejected challenger, or a reason, out.

Killed at any moment it leaves nothing half-done. What it writes in the repository appears with one rename, the verdict
beside the model, and the label follows (`training.acceptance`). Everything else lies in the directory of reports, under
hidden names until it is whole; what a killed round left there the next one removes. Locks keep a second job out
(`training.job_lock`).
"""

from dataclasses import replace

from proto.observations import ObservationError
from proto.repository import RepositoryError
from training import challengers, verdict_files
from training.acceptance import publish_accepted
from training.challengers import Shown, fit_all
from training.champion import Champion, read_champion
from training.errors import TrainingError
from training.judging import judge
from training.observed import Parts, Selection, divide, select, shortages
from training.plan import Plan, Round
from training.verdict import ChampionFigures, EndedTrial, ObservationFigures, PartFigures, Verdict
from training.window import read_window


def run_round(
    plan: Plan, now_seconds: float, shown: Shown, labels_state: str, ended: EndedTrial | None = None
) -> Round:
    """Judge a challenger, and publish it where it is accepted. The lock must be held.

    `labels_state` is that of the beginning: labels that are changed meanwhile are somebody's decision, and nothing is
    published then. `ended` is a trial that nothing had decided, and that made room for this round.

    Raises:
        TrainingError: no verdict was reached.
        ObservationError: the store cannot be read.
        RepositoryError: the repository is not what it should be, or refuses the version.
    """
    champion = read_champion(plan.repository, plan.name)
    window = read_window(plan.observations, plan.rules, now_seconds)
    selection = select(window.observed, plan.rules, window.read)
    parts = divide(selection.used, plan.rules, None if champion is None else champion.artefact.observed_until_seconds)
    verdict = replace(_undecided(plan, champion, selection, parts, now_seconds), ended_trial=ended)
    if missing := shortages(selection, parts, plan.rules):
        verdict = replace(verdict, reasons=tuple(missing))
        return Round(verdict, verdict_files.write_report(plan.directory, verdict))
    fits = fit_all(plan.base, parts, plan.recipe, shown)
    verdict = replace(verdict, candidates=tuple(challengers.figures_of(fits)))
    verdict, model = judge(plan, verdict, fits[0], champion, parts.held_out)
    if verdict.outcome == "accepted" and model is not None:
        return publish_accepted(plan, verdict, model, champion, labels_state)
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


def failures() -> tuple[type[Exception], ...]:
    """What may end a round without a verdict and is no fault of the program."""
    return (TrainingError, ObservationError, RepositoryError, OSError)
