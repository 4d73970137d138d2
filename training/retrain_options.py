"""The options of `quicksilver retrain`, and the rules that they amount to. Imports nothing of torch."""

import argparse
import os
from pathlib import Path
from typing import Any, Final

from training import arguments as shared
from training.dataset import CELSIUS, FAHRENHEIT
from training.drift import DriftRules
from training.gate import MOST_SIGNIFICANCE, Bounds
from training.observed import Rules
from training.options import KINDS
from training.patience import TRIAL_PATIENCE_SECONDS
from training.publish_options import add_connection

OBSERVATIONS_VARIABLE: Final = "QUICKSILVER_OBSERVATIONS"
REPOSITORY_VARIABLE: Final = "QUICKSILVER_REPOSITORY"
DEFAULT_REPORTS: Final = Path("reports/retrain")

_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

_RULES: Final = Rules()
_BOUNDS: Final = Bounds()
_DRIFT: Final = DriftRules()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.epilog = (
        "Exit codes: 0 accepted and published, or nothing to do, as while a version is on trial; 1 failed; "
        "2 the command line makes no sense; 3 rejected; 4 not enough data; 5 another job retrains this model."
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
        default=Path(os.environ.get(REPOSITORY_VARIABLE) or "models"),
        metavar="DIR",
        help="model repository: the champion is the version that answers by default there "
        f"(default: {REPOSITORY_VARIABLE}, here %(default)s)",
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
    _option(group, "--most", shared.whole(1), _RULES.most_rows, "so many are kept in memory, evenly over time")
    _option(group, "--minimum", shared.whole(1), _RULES.minimum_rows, "so many must be usable")
    share_help = (
        "a source's share of them at most, in each stretch of time and over all; as many as the next where they are few"
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
    agreement_help = "°C that a source may be shown to lie off the others"
    _option(group, "--agreement", positive, _BOUNDS.agreement_celsius, agreement_help)
    significance_help = f"chance that the gate is shown what is not so, up to {MOST_SIGNIFICANCE:g}"
    _option(group, "--significance", positive, _BOUNDS.significance, significance_help)


def _add_result(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("result")
    group.add_argument(
        "--promote",
        action="store_true",
        help="label an accepted version stable at once; not for a schedule (default: canary, on trial)",
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
        "--every",
        type=duration,
        metavar="TIME",
        help="make a round this often, such as 1h, until SIGTERM or Ctrl-C, which end it with exit code 0; stderr says "
        "how each round ended, with 0 where there was nothing to do, as while a version is on trial",
    )
    group.add_argument(
        "--if-drift",
        action="store_true",
        help="only where the readings have moved or the champion's errors have grown, and no version is on trial; exit "
        "code 0 where not",
    )
    patience_help = "with --every or --if-drift: how long a trial is waited for that nothing decides; then it is ended"
    _option(group, "--trial-patience", duration, TRIAL_PATIENCE_SECONDS, patience_help)
    _option(
        group, "--drift-index", positive, _DRIFT.stability_index, "population stability index of readings that is drift"
    )
    ratio_help = "mean squared error, in units of the champion's validation loss, that is drift"
    _option(group, "--drift-ratio", positive, _DRIFT.error_ratio, ratio_help)
    chance_help = f"chance that errors are shown to have grown where they have not, up to {MOST_SIGNIFICANCE:g}"
    _option(group, "--drift-significance", positive, _DRIFT.significance, chance_help)


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


# The rules ------------------------------------------------------------------------------------------------------------


def check_together(arguments: argparse.Namespace) -> None:
    """Raise ValueError where options make no sense, or none together."""
    rules_of(arguments), bounds_of(arguments), drift_rules_of(arguments)
    if arguments.promote and (arguments.every is not None or arguments.if_drift):
        raise ValueError(
            "--promote lets one test at --significance decide, and a schedule repeats it until chance decides; "
            "without it, 'quicksilver promote --watch' lets take over what proves better, by a test made for that"
        )


def rules_of(arguments: argparse.Namespace) -> Rules:
    """Which observations count, as the options say. Raise ValueError where they make no sense together."""
    return Rules(
        window_seconds=arguments.window,
        most_rows=arguments.most,
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
    return Bounds(
        absolute_celsius=arguments.bound,
        margin_celsius=arguments.margin,
        agreement_celsius=arguments.agreement,
        significance=arguments.significance,
    )


def drift_rules_of(arguments: argparse.Namespace) -> DriftRules:
    """What is drift, as the options say. Raise ValueError where a threshold means nothing."""
    return DriftRules(
        stability_index=arguments.drift_index,
        error_ratio=arguments.drift_ratio,
        significance=arguments.drift_significance,
    )
