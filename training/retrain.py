"""The command `quicksilver retrain`: observations in; an accepted challenger, or the reason why there is none, out.

Exit codes stand in `training.verdict`, options in `training.retrain_options`. Nothing of torch is imported until a
round is really to be made.
"""

import argparse
import functools
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proto import schedule
from proto.repository import CANARY, STABLE, Repository, check_name
from training import dataset, telemetry
from training.dataset import Dataset
from training.errors import TelemetryError
from training.retrain_options import (
    OBSERVATIONS_VARIABLE,
    add_arguments,
    bounds_of,
    check_together,
    drift_rules_of,
    rules_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from training.plan import Plan, Round
    from training.verdict import EndedTrial, Verdict
    from training.wanted import Wanted

__all__ = ["add_arguments", "one_round", "plan_of", "run"]


def run(arguments: argparse.Namespace) -> int:
    """Retrain as asked, once or again and again, and return the exit code."""
    check_name(arguments.name)
    if arguments.observations is None:
        say_error(f"--observations, or {OBSERVATIONS_VARIABLE}, has to say where the observations are")
        return 2
    telemetry.check_places(arguments.push_to, arguments.metrics_file)
    try:
        check_together(arguments)
    except ValueError as error:
        say_error(str(error))
        return 2
    if arguments.every is not None:
        return schedule.repeat(arguments.every, functools.partial(_told_round, arguments))
    return one_round(arguments)


def _told_round(arguments: argparse.Namespace) -> None:
    """Make a round of a schedule, and say on stderr how it ended: the exit code is seen by nobody."""
    say_error(f"the round ended with {one_round(arguments)}")


def one_round(arguments: argparse.Namespace) -> int:
    """Make one round, if one is wanted, tell what came of it, and return the exit code."""
    from training import job, verdict  # noqa: PLC0415 - these import torch: see the top of the file
    from training.errors import BusyError  # noqa: PLC0415 - as above

    began = time.monotonic()
    try:
        made = _make_round(arguments)
    except BusyError as error:
        say_error(str(error))
        return verdict.BUSY
    except job.failures() as error:
        say_error(_reason(error))
        _push(arguments, began, None)
        return verdict.FAILED
    except Exception:
        _push(arguments, began, None)
        raise
    if made.round is None:
        _push_look(arguments, time.time(), made.ended)
        return verdict.ACCEPTED
    _tell(made.round, arguments)
    _push(arguments, began, made.round.verdict)
    return made.round.verdict.exit_code


@dataclass(frozen=True, slots=True)
class _Made:
    """What came of a look."""

    round: "Round | None"
    """None where none was wanted."""
    ended: "EndedTrial | None" = None


def _make_round(arguments: argparse.Namespace) -> _Made:
    """One round, where one is wanted."""
    from training import job, job_lock, progress  # noqa: PLC0415 - as above

    plan, now = plan_of(arguments), time.time()
    with job_lock.locked(plan) as remark:
        if remark:
            say_error(remark)
        state, ended = plan.repository.labels_state(plan.name), None
        if _is_scheduled(arguments):
            found = _look(plan, arguments, now)
            if found.overdue is not None:
                ended = found.overdue
                _end_overdue(plan, ended, state)
                state = plan.repository.labels_state(plan.name)
                found = _look(plan, arguments, now)
            if not _is_wanted(plan, arguments, found):
                return _Made(None, ended)
        return _Made(job.run_round(plan, now, progress.shown, state, ended), ended)


def _is_scheduled(arguments: argparse.Namespace) -> bool:
    return arguments.every is not None or arguments.if_drift


def _look(plan: "Plan", arguments: argparse.Namespace, now_seconds: float) -> "Wanted":
    from training import wanted  # noqa: PLC0415 - as above

    rules = drift_rules_of(arguments) if arguments.if_drift else None
    return wanted.look(plan, rules, now_seconds, arguments.trial_patience)


def _end_overdue(plan: "Plan", trial: "EndedTrial", state: str) -> None:
    """Take the label away, where nobody changed any since the look, and say so."""
    plan.end_trial(trial.version, state)
    say_error(f"{plan.name}: {trial.reason}: it is ended, and the version is labelled {CANARY!r} no more")


def _is_wanted(plan: "Plan", arguments: argparse.Namespace, found: "Wanted") -> bool:
    """Whether a schedule has something to do; why or why not is told."""
    if not found.is_wanted:
        _say(f"{plan.name}: nothing to do: {found.reason}")
    elif arguments.if_drift:
        _say(f"{plan.name}: drift: {found.reason}")
    return found.is_wanted


def _push(arguments: argparse.Namespace, began: float, verdict: "Verdict | None") -> None:
    """Deliver the job's metrics; None for a job that came to no verdict. A delivery that fails is told."""
    challenger = None if verdict is None else verdict.challenger
    told = telemetry.JobMetrics(
        model=arguments.name,
        duration_seconds=time.monotonic() - began,
        ended_timestamp_seconds=time.time(),
        verdict="failed" if verdict is None else verdict.outcome,
        training_loss=None if challenger is None else challenger.training_loss,
        validation_loss=None if challenger is None else challenger.validation_loss,
        epochs=None if challenger is None else challenger.epochs,
    )
    try:
        telemetry.deliver(told, arguments.push_to, arguments.metrics_file)
    except TelemetryError as error:
        say_error(str(error))
    _push_look(arguments, told.ended_timestamp_seconds, None if verdict is None else verdict.ended_trial)


def _push_look(arguments: argparse.Namespace, now_seconds: float, ended: "EndedTrial | None") -> None:
    """Deliver that a schedule has looked; nothing of a model without one, which nobody is to wait for."""
    if not _is_scheduled(arguments):
        return
    look = telemetry.Look(arguments.name, now_seconds, trial_expired=ended is not None)
    try:
        telemetry.deliver_look(look, arguments.push_to, arguments.metrics_file)
    except TelemetryError as error:
        say_error(str(error))


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror or error}"
    return str(error)


def _tell(made: "Round", arguments: argparse.Namespace) -> None:
    from training import verdict  # noqa: PLC0415 - as above

    for line in verdict.summary(made.verdict):
        _say(line)
    if made.version is not None:
        where = arguments.to or f"{arguments.repository}/"
        label = STABLE if made.verdict.label is None else made.verdict.label
        labelled = "" if made.remark else f", labelled {label}"
        _say(f"  published      {made.verdict.name}/{made.version} to {where}{labelled}")
    if made.remark:
        say_error(made.remark)
    _say(f"  report         {made.report}")


def plan_of(arguments: argparse.Namespace) -> "Plan":
    """What the options ask for.

    Raises:
        DataError: the base data cannot be used.
    """
    from training.challengers import Recipe  # noqa: PLC0415 - these import torch: see the top of the file
    from training.plan import Plan  # noqa: PLC0415 - as above

    return Plan(
        repository=Repository(arguments.repository),
        name=arguments.name,
        observations=arguments.observations,
        base=_base(arguments),
        rules=rules_of(arguments),
        bounds=bounds_of(arguments),
        recipe=Recipe(
            kinds=arguments.kinds,
            seeds=arguments.seeds,
            first_seed=arguments.seed,
            epochs=arguments.epochs,
            coverage=arguments.coverage,
        ),
        reports=arguments.reports,
        label=STABLE if arguments.promote else CANARY,
        deliver=functools.partial(_deliver, arguments),
        give_label=functools.partial(_give_label, arguments),
        end_trial=functools.partial(_end_trial, arguments),
    )


def _base(arguments: argparse.Namespace) -> Dataset | None:
    if arguments.no_base:
        return None
    if arguments.data is None:
        return dataset.built_in()
    return dataset.read(arguments.data, (arguments.feature,), arguments.target)


def _deliver(arguments: argparse.Namespace, model: bytes, beside: "Mapping[str, bytes]") -> int:
    from training import publish  # noqa: PLC0415 - imports torch: see the top of the file

    if arguments.to is None:
        return publish.publish(Repository(arguments.repository), arguments.name, model, beside=beside)
    return publish.send_to(arguments, arguments.name, model, beside=beside)


def _give_label(arguments: argparse.Namespace, label: str, version: int, state: str) -> None:
    from training import publish  # noqa: PLC0415 - as above

    repository = Repository(arguments.repository)
    if arguments.to is None:
        repository.set_label(arguments.name, label, version, state=state)
    else:
        repository.need_state(arguments.name, state)  # the server does not ask: see docs/retraining.md
        publish.label_at(arguments, arguments.name, label, version)


def _end_trial(arguments: argparse.Namespace, version: int, state: str) -> None:
    from training import publish  # noqa: PLC0415 - as above

    repository = Repository(arguments.repository)
    if arguments.to is None:
        repository.end_trial(arguments.name, version, state)
    else:
        repository.need_state(arguments.name, state)  # as above
        publish.unlabel_at(arguments, arguments.name, CANARY)


def say_error(text: str) -> None:
    """Say what went wrong, where it went wrong."""
    print(f"quicksilver retrain: {text}", file=sys.stderr, flush=True)  # noqa: T201 - the terminal is who asked


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - this is what was asked for
