"""The command `quicksilver retrain`: observations in; an accepted challenger, or the reason why there is none, out.

Exit codes stand in `training.verdict`, options in `training.retrain_options`. Nothing of torch is imported until a
round is really to be made.
"""

import argparse
import functools
import sys
import time
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
    from training.verdict import Verdict

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
    if made is None:
        _push_look(arguments, time.time())
        return verdict.ACCEPTED
    _tell(made, arguments)
    _push(arguments, began, made.verdict)
    return made.verdict.exit_code


def _make_round(arguments: argparse.Namespace) -> "Round | None":
    """One round; None where none is wanted."""
    from training import job, job_lock, progress  # noqa: PLC0415 - as above

    plan, now = plan_of(arguments), time.time()
    with job_lock.locked(plan) as remark:
        if remark:
            say_error(remark)
        if _is_scheduled(arguments) and not _is_wanted(plan, arguments, now):
            return None
        return job.run_round(plan, now, progress.shown)


def _is_scheduled(arguments: argparse.Namespace) -> bool:
    return arguments.every is not None or arguments.if_drift


def _is_wanted(plan: "Plan", arguments: argparse.Namespace, now_seconds: float) -> bool:
    """Whether a schedule has something to do; why or why not is told."""
    from training import wanted  # noqa: PLC0415 - as above

    found = wanted.look(plan, drift_rules_of(arguments) if arguments.if_drift else None, now_seconds)
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
    _push_look(arguments, told.ended_timestamp_seconds)


def _push_look(arguments: argparse.Namespace, now_seconds: float) -> None:
    """Deliver that a schedule has looked; nothing of a model without one, which nobody is to wait for."""
    if not _is_scheduled(arguments):
        return
    look = telemetry.Look(arguments.name, now_seconds)
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


def _give_label(arguments: argparse.Namespace, label: str, version: int) -> None:
    from training import publish  # noqa: PLC0415 - as above

    if arguments.to is None:
        Repository(arguments.repository).set_label(arguments.name, label, version)
    else:
        publish.label_at(arguments, arguments.name, label, version)


def say_error(text: str) -> None:
    """Say what went wrong, where it went wrong."""
    print(f"quicksilver retrain: {text}", file=sys.stderr, flush=True)  # noqa: T201 - the terminal is who asked


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - this is what was asked for
