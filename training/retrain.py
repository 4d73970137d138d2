"""The command `quicksilver retrain`: observations in; an accepted challenger, or the reason why there is none, out.

Exit codes stand in `training.verdict`. Nothing of torch is imported until a round is really to be made.
"""

import argparse
import functools
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from proto.repository import CANARY, STABLE, Repository, check_name
from training import arguments as shared
from training import dataset, telemetry
from training.dataset import CELSIUS, FAHRENHEIT, Dataset
from training.drift import DriftRules
from training.errors import TelemetryError
from training.gate import Bounds
from training.observed import Rules
from training.options import KINDS
from training.publish_options import add_connection

if TYPE_CHECKING:
    from collections.abc import Mapping

    from training.job import Plan, Round
    from training.verdict import Verdict

OBSERVATIONS_VARIABLE: Final = "QUICKSILVER_OBSERVATIONS"
DEFAULT_REPORTS: Final = Path("reports/retrain")

_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

_RULES: Final = Rules()
_BOUNDS: Final = Bounds()
_DRIFT: Final = DriftRules()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.epilog = (
        "Exit codes: 0 accepted and published, or nothing to do; 1 failed; 2 the command line makes no sense; "
        "3 rejected; 4 not enough data; 5 another job is at it."
    )
    parser.add_argument("name", metavar="NAME", help="the model to retrain")
    _add_sources(parser)
    _add_rules(parser)
    _add_fits(parser)
    _add_bounds(parser)
    _add_result(parser)
    _add_schedule(parser)
    shared.add_telemetry(parser)


def _add_sources(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data")
    group.add_argument(
        "--observations",
        "--store",
        default=os.environ.get(OBSERVATIONS_VARIABLE),
        metavar="URL",
        help="store of observations: sqlite:///PATH or postgresql://USER@HOST:PORT/DATABASE "
        f"(default: {OBSERVATIONS_VARIABLE}, which shows a password to fewer)",
    )
    group.add_argument(
        "--repository",
        type=Path,
        default=Path("models"),
        metavar="DIR",
        help="model repository: the champion is the version that answers by default there (default: %(default)s)",
    )
    base = group.add_mutually_exclusive_group()
    base.add_argument(
        "--data", type=Path, metavar="FILE", help="base data beside the observations (default: the built-in readings)"
    )
    base.add_argument("--no-base", action="store_true", help="fit to observations alone")
    group.add_argument("--feature", default=FAHRENHEIT, metavar="COLUMN", help="of --data (default: %(default)s)")
    group.add_argument("--target", default=CELSIUS, metavar="COLUMN", help="of --data (default: %(default)s)")


def _add_rules(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which observations count")
    _option(group, "--window", duration, _RULES.window_seconds, "how far back they are read")
    _option(group, "--minimum", shared.whole(1), _RULES.minimum_rows, "so many must be usable")
    share_help = (
        "a source's share of them at most, in each stretch of time and over all; an equal part where there are few"
    )
    _option(group, "--source-share", share, _RULES.source_share, share_help)
    _option(
        group,
        "--outliers",
        positive,
        _RULES.outlier_deviations,
        "so many robust standard deviations from the line of its stretch of time, one is left out",
    )
    _option(
        group, "--held-out", share, _RULES.held_out_share, "the newest part of them, which judges and is not fitted to"
    )
    _option(group, "--minimum-held-out", shared.whole(20), _RULES.minimum_held_out, "so many must judge")
    _option(group, "--minimum-sources", shared.whole(1), _RULES.minimum_sources, "from so many sources")
    _option(group, "--minimum-of-source", shared.whole(1), _RULES.minimum_source_rows, "a source counts with so many")


def _add_fits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("fits")
    group.add_argument(
        "--kinds", type=_kinds, default=("linear", "mlp"), metavar="A,B", help="kinds of model (default: linear,mlp)"
    )
    group.add_argument(
        "--seeds", type=shared.whole(1), default=3, metavar="N", help="seeds a kind (default: %(default)s)"
    )
    shared.add_seed(group, "the first of them")
    group.add_argument("--epochs", type=shared.whole(1), metavar="N", help="steps of a fit (default: the kind's)")
    shared.add_coverage(parser)


def _add_bounds(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("gate (errors are mean absolute errors over the held-out rows)")
    _option(group, "--bound", positive, _BOUNDS.absolute_celsius, "°C that the challenger's error must keep within")
    margin_help = "°C that its error must be shown to lie below the champion's, and for no source so far above"
    _option(group, "--margin", not_negative, _BOUNDS.margin_celsius, margin_help)
    significance_help = "chance of being shown what is not so, up to 0.041"
    _option(group, "--significance", positive, _BOUNDS.significance, significance_help)


def _add_result(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("result")
    group.add_argument(
        "--promote", action="store_true", help="label an accepted version stable at once (default: canary, on trial)"
    )
    group.add_argument(
        "--reports",
        type=Path,
        default=DEFAULT_REPORTS,
        metavar="DIR",
        help="verdicts that published nothing, and rejected challengers (default: %(default)s/)",
    )
    group.add_argument("--to", metavar="HOST:PORT", help="publish through a running server, which owns the repository")
    add_connection(parser)


def _add_schedule(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("schedule")
    group.add_argument(
        "--every", type=duration, metavar="TIME", help="go on, a round so often, such as 1h, until SIGTERM or Ctrl-C"
    )
    group.add_argument(
        "--if-drift",
        action="store_true",
        help="only where the readings have moved or the champion's errors have grown, and no version is on trial",
    )
    _option(
        group, "--drift-index", positive, _DRIFT.stability_index, "population stability index of readings that is drift"
    )
    ratio_help = "mean squared error, in units of the champion's validation loss, that is drift"
    _option(group, "--drift-ratio", positive, _DRIFT.error_ratio, ratio_help)


def _option(group: argparse._ArgumentGroup, flag: str, parse: Any, default: float, text: str) -> None:  # noqa: ANN401 - a function of text
    shown = _duration_text(default) if parse is duration else f"{default:g}"
    metavar = {duration: "TIME", share: "SHARE"}.get(parse, "N")
    group.add_argument(flag, type=parse, default=default, metavar=metavar, help=f"{text} (default: {shown})")


# What words mean ------------------------------------------------------------------------------------------------------


def duration(text: str) -> float:
    """Read seconds from a number with its unit: 90s, 15m, 1h, 30d."""
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: a number, then one of {', '.join(_UNITS)}")
    return positive(number) * _UNITS[unit]


def _duration_text(seconds: float) -> str:
    unit = max((unit for unit, size in _UNITS.items() if seconds % size == 0), key=_UNITS.__getitem__)
    return f"{seconds / _UNITS[unit]:g}{unit}"


def positive(text: str) -> float:
    """Read a finite number above 0."""
    value = not_negative(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
    return value


def not_negative(text: str) -> float:
    """Read a finite number from 0."""
    try:
        value = -1.0 if "_" in text else float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0")
    return value


def share(text: str) -> float:
    """Read a number between 0 and 1."""
    value = positive(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share between 0 and 1")
    return value


def _kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(dict.fromkeys(text.split(",")))
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise argparse.ArgumentTypeError(f"no kind {unknown[0]!r}: there are {', '.join(KINDS)}")
    return kinds


# Running --------------------------------------------------------------------------------------------------------------


def run(arguments: argparse.Namespace) -> int:
    """Retrain as asked, once or again and again, and return the exit code."""
    check_name(arguments.name)
    if arguments.observations is None:
        say_error(f"--observations, or {OBSERVATIONS_VARIABLE}, has to say where the observations are")
        return 2
    telemetry.check_places(arguments.push_to, arguments.metrics_file)
    try:
        rules_of(arguments), bounds_of(arguments), drift_rules_of(arguments)
    except ValueError as error:
        say_error(str(error))
        return 2
    if arguments.every is not None:
        from training import schedule  # noqa: PLC0415 - only here

        return schedule.repeat(arguments.every, functools.partial(one_round, arguments))
    return one_round(arguments)


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
    from training import job, progress  # noqa: PLC0415 - as above

    plan, now = plan_of(arguments), time.time()
    with job.locked(plan) as remark:
        if remark:
            say_error(remark)
        if arguments.if_drift:
            wanted = job.look(plan, drift_rules_of(arguments), now)
            _say(f"{plan.name}: {'drift' if wanted.is_wanted else 'nothing to do'}: {wanted.reason}")
            if not wanted.is_wanted:
                return None
        return job.run_round(plan, now, progress.shown)


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
    if arguments.every is None and not arguments.if_drift:
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
    from training.job import Plan  # noqa: PLC0415 - as above

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


def rules_of(arguments: argparse.Namespace) -> Rules:
    """Which observations count, as the options say. Raise ValueError where they make no sense together."""
    return Rules(
        window_seconds=arguments.window,
        minimum_rows=arguments.minimum,
        source_share=arguments.source_share,
        outlier_deviations=arguments.outliers,
        held_out_share=arguments.held_out,
        minimum_held_out=arguments.minimum_held_out,
        minimum_sources=arguments.minimum_sources,
        minimum_source_rows=arguments.minimum_of_source,
    )


def bounds_of(arguments: argparse.Namespace) -> Bounds:
    """The gate's bounds, as the options say. Raise ValueError where one means nothing."""
    return Bounds(arguments.bound, arguments.margin, arguments.significance)


def drift_rules_of(arguments: argparse.Namespace) -> DriftRules:
    """What is drift, as the options say. Raise ValueError where a threshold means nothing."""
    return DriftRules(
        stability_index=arguments.drift_index, error_ratio=arguments.drift_ratio, significance=arguments.significance
    )


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
