"""The command `quicksilver evaluate`: fits the kinds of converter and sets their errors side by side.

What it is there to show, on the built-in readings: the MLP follows the noise. Its training loss is lower than the
linear model's, and on the published split so is its validation loss, which hangs on two samples. Where the overfit does
show is leave-one-out, where every reading is predicted by a model that never saw it, and the error against the exact
law, which has no noise to follow.
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table

from proto.artefact import Interval
from training import arguments as shared
from training import interval, progress, terminal
from training.fit import Fitted, train
from training.leave_one_out import MAXIMUM_REFITS, LeaveOneOut, leave_one_out
from training.metrics import Errors, LawErrors, LawReport, errors, law_report
from training.options import KINDS, Architecture, Kind, default_options


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Leave-one-out in numbers: errors, residuals in °C in the rows' order, and the plain jackknife's half-width."""

    errors: Errors
    residuals: tuple[float, ...]
    plain_jackknife_half_width: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All that is known of how far a fitted converter errs. `law` is None where no exact law is known for the input."""

    kind: str
    parameter_count: int
    training: Errors
    validation: Errors
    law: LawReport | None
    left_out: LeftOut
    interval: Interval


def evaluate(fitted: Fitted, left_out: LeaveOneOut, coverage: float) -> Evaluation:
    """Judge a fitted converter. `left_out` is its `leave_one_out`.

    Raises:
        CoverageError: the readings do not support the coverage.
    """
    return Evaluation(
        kind=fitted.architecture.kind,
        parameter_count=fitted.model.parameter_count(),
        training=errors(fitted, fitted.split.training),
        validation=errors(fitted, fitted.split.validation),
        law=law_report(fitted),
        left_out=LeftOut(
            Errors.of(left_out.residuals),
            tuple(left_out.residuals.tolist()),
            interval.plain_jackknife(left_out.residuals, coverage),
        ),
        interval=interval.stated_interval(fitted, coverage, left_out),
    )


# The command ----------------------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "kinds", nargs="*", type=_kind, metavar="KIND", help=f"of {', '.join(KINDS)} (default: linear mlp)"
    )
    shared.add_data(parser)
    shared.add_coverage(parser)
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")


def run(arguments: argparse.Namespace) -> int:
    """Fit and judge each kind with its default options, print the comparison, and return the exit code."""
    kinds: list[Kind] = arguments.kinds or ["linear", "mlp"]
    architectures = [Architecture(kind) for kind in dict.fromkeys(kinds)]
    dataset, split = shared.load(arguments)
    interval.rank(min(len(dataset), MAXIMUM_REFITS), arguments.coverage)  # refuses before the fits, not after
    evaluations = []
    for architecture in architectures:
        options = default_options(architecture.kind, built_in=dataset.is_built_in)
        options = dataclasses.replace(options, seed=arguments.seed)
        with progress.shown(architecture.kind, options.epochs) as watch:
            fitted = train(dataset, split, architecture, options, watch)
        with progress.shown(f"{architecture.kind}, leave-one-out", options.epochs) as watch:
            left_out = leave_one_out(fitted, watch)
        evaluations.append(evaluate(fitted, left_out, arguments.coverage))
    if arguments.json:
        print(as_json(evaluations))  # noqa: T201 - this is what was asked for
    else:
        console = terminal.console()
        console.print(table(evaluations, f"{len(dataset)} readings ({dataset.source}; split: {split.name})"))
        for line in verdict(evaluations):
            console.print(line, markup=False)
    return 0


def _kind(text: str) -> str:
    if text not in KINDS:
        raise argparse.ArgumentTypeError(f"no kind {text!r}: there are {', '.join(KINDS)}")
    return text


def as_json(evaluations: Sequence[Evaluation]) -> str:
    """The evaluations as a JSON list; errors in °C, mean squared errors in °C²."""
    return json.dumps([dataclasses.asdict(evaluation) for evaluation in evaluations], indent=2)


def table(evaluations: Sequence[Evaluation], title: str) -> Table:
    """The evaluations side by side, a column each."""
    shown = terminal.table(escape(title), "", *[evaluation.kind for evaluation in evaluations])
    cells = [dict(_rows(evaluation)) for evaluation in evaluations]
    for label in cells[0]:
        shown.add_row(label, *[column[label] for column in cells])
    return shown


def _rows(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Labels and cells of one column of the table."""
    stated, left_out = evaluation.interval, evaluation.left_out
    rows = [
        ("parameters", str(evaluation.parameter_count)),
        *_error_rows("training", evaluation.training),
        *_error_rows("validation", evaluation.validation),
        *_error_rows("leave-one-out", left_out.errors),
    ]
    if evaluation.law is not None:
        rows += _law_rows("training range", evaluation.law.training_range)
        rows += _law_rows("all readings", evaluation.law.readings_range)
        rows += _law_rows("outside training", evaluation.law.outside)
    return [
        *rows,
        (f"interval, {stated.coverage:.0%}, plain jackknife (°C)", f"± {left_out.plain_jackknife_half_width:.2f}"),
        (f"interval, {stated.coverage:.0%}, {stated.method}, stated (°C)", f"± {stated.half_width_celsius:.2f}"),
    ]


def _error_rows(label: str, found: Errors) -> list[tuple[str, str]]:
    return [
        (f"{label}: mean squared error (°C²)", f"{found.mean_squared_error:.4f}"),
        (f"{label}: mean absolute error (°C)", f"{found.mean_absolute_error:.4f}"),
        (f"{label}: worst error (°C)", f"{found.worst_error:.4f}"),
    ]


def _law_rows(label: str, found: LawErrors) -> list[tuple[str, str]]:
    where = f"against the law, {label}, {found.low_fahrenheit:g} … {found.high_fahrenheit:g} °F"
    return [
        (f"{where}: mean (°C)", f"{found.mean_absolute_error:.4f}"),
        (f"{where}: worst (°C)", f"{found.worst_error:.4f}"),
    ]


def verdict(evaluations: Sequence[Evaluation]) -> list[str]:
    """Say by which measures the MLP is worse than the linear model, and by which it is not, where both are there."""
    by_kind = {evaluation.kind: evaluation for evaluation in evaluations}
    if not {"linear", "mlp"} <= set(by_kind):
        return []
    linear, mlp = _measures(by_kind["linear"]), _measures(by_kind["mlp"])
    worse = [name for name in linear if mlp[name] > linear[name]]
    better = [name for name in linear if name not in worse]
    lines = [""]
    for names, judgement in ((worse, "worse than"), (better, "no worse than")):
        if names:
            lines.append(f"The mlp is {judgement} the linear model in")
            lines += [f"  {name}: {mlp[name]:.2f} against {linear[name]:.2f}" for name in names]
    return lines


def _measures(evaluation: Evaluation) -> dict[str, float]:
    measures = {
        "training loss (°C²)": evaluation.training.mean_squared_error,
        "validation loss (°C²)": evaluation.validation.mean_squared_error,
        "leave-one-out loss (°C²)": evaluation.left_out.errors.mean_squared_error,
    }
    if evaluation.law is not None:
        measures["mean error against the law over all readings (°C)"] = (
            evaluation.law.readings_range.mean_absolute_error
        )
        measures["mean error against the law outside the training range (°C)"] = (
            evaluation.law.outside.mean_absolute_error
        )
    return measures
