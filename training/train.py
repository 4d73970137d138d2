"""The command `quicksilver train`: readings in; a fitted converter, exported and published, out.

Nothing of torch is imported until a fit is really to be made, so that `--help`, a refusal, and `--unless-published` are
answered at once.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from proto.repository import Repository, check_name
from training import arguments as shared
from training import places, telemetry
from training.dataset import Dataset
from training.errors import TelemetryError
from training.options import ACTIVATIONS, KINDS, OPTIMIZERS, PUBLISHED, Architecture, FitOptions, default_options

MATERIAL_FALL: Final = 0.1
"""A training loss that falls by this share over the last tenth of a fit has not arrived."""

if TYPE_CHECKING:
    from proto.artefact import Interval
    from training.fit import Fitted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("kind", choices=KINDS, help="the kind of converter")
    shared.add_data(parser)
    model = parser.add_argument_group("model (of an MLP)")
    model.add_argument(
        "--hidden", type=_widths, metavar="8,8", help="units of each hidden layer, first to last (default: 8)"
    )
    model.add_argument("--activation", choices=ACTIVATIONS, help="of the hidden layers (default: tanh)")
    fit = parser.add_argument_group("fit (the defaults are the published ones on the built-in readings)")
    fit.add_argument("--epochs", type=shared.whole(1), metavar="N", help="steps, each on all training rows")
    fit.add_argument("--learning-rate", type=_positive, metavar="RATE", help="step size (default: the optimizer's)")
    fit.add_argument(
        "--optimizer", choices=OPTIMIZERS, help="by its name in torch.optim; any but sgd standardises the columns"
    )
    fit.add_argument(
        "--patience",
        type=shared.whole(1),
        metavar="N",
        help="stop when the validation loss has not fallen for so many epochs, and keep the best (default: never)",
    )
    shared.add_coverage(parser)
    result = parser.add_argument_group("result")
    result.add_argument("--output", type=Path, metavar="FILE.onnx", help="write the exported converter here")
    result.add_argument("--publish", type=Path, metavar="REPOSITORY", help="publish it into this model repository")
    result.add_argument("--name", metavar="NAME", help="publish it under this name (default: the kind)")
    result.add_argument(
        "--unless-published",
        action="store_true",
        help="do nothing where the repository holds a version under that name already",
    )
    shared.add_telemetry(parser)


def run(arguments: argparse.Namespace) -> int:
    """Train as asked, and return the exit code."""
    if arguments.publish is None and (arguments.unless_published or arguments.name is not None):
        return _misused(f"{'--unless-published' if arguments.unless_published else '--name'} needs --publish")
    if arguments.kind != "mlp" and (arguments.hidden or arguments.activation):
        return _misused(f"--hidden and --activation belong to an mlp, not to a {arguments.kind} model")
    name = check_name(arguments.kind if arguments.name is None else arguments.name)
    if arguments.unless_published and (versions := Repository(arguments.publish).versions(name)):
        _say(f"{name}/{versions[-1]} is in {arguments.publish}/ already: nothing to do")
        return 0
    if arguments.output is not None:
        places.check_file_path(arguments.output)
    if arguments.publish is not None:
        places.check_directory(arguments.publish)
        places.check_directory(arguments.publish / name)
    telemetry.check_places(arguments.push_to, arguments.metrics_file)
    if arguments.metrics_file is not None:
        places.check_file_path(arguments.metrics_file)
    _train_and_tell(arguments, name)
    return 0


def _misused(problem: str) -> int:
    print(f"quicksilver train: {problem}", file=sys.stderr)  # noqa: T201 - the terminal is who asked
    return 2


def _train_and_tell(arguments: argparse.Namespace, name: str) -> None:
    """Train, and deliver the job's metrics, also where it failed. A delivery that fails is told, and fails nothing."""
    began = time.monotonic()
    lines: list[str] = []
    try:
        fitted = _train(arguments, name, lines)
    except Exception:
        _tell(arguments, job_metrics(name, None, time.monotonic() - began))
        raise
    else:
        _tell(arguments, job_metrics(name, fitted, time.monotonic() - began))
    finally:
        if lines:
            _say("\n".join(lines))  # last: a reader that has left (`| head`) keeps nothing from being written


def job_metrics(name: str, fitted: "Fitted | None", duration_seconds: float) -> telemetry.JobMetrics:
    """What is told of a job that ends now; None for `fitted` where it failed."""
    now = time.time()
    if fitted is None:
        return telemetry.JobMetrics(name, duration_seconds, now, "failed")
    return telemetry.JobMetrics(
        model=name,
        duration_seconds=duration_seconds,
        ended_timestamp_seconds=now,
        training_loss=fitted.training_loss,
        validation_loss=fitted.validation_loss,
        epochs=len(fitted.history),
    )


def _tell(arguments: argparse.Namespace, job: telemetry.JobMetrics) -> None:
    try:
        telemetry.deliver(job, arguments.push_to, arguments.metrics_file)
    except TelemetryError as error:
        print(f"quicksilver train: {error}", file=sys.stderr)  # noqa: T201 - the terminal is who asked


def _train(arguments: argparse.Namespace, name: str, lines: list[str]) -> "Fitted":
    """Fit, export, publish. `lines` gets what there is to say, also where a later step fails."""
    # torch takes seconds to import, so only a real fit pays for it: see the top of the file.
    from training import fit, interval, progress  # noqa: PLC0415 - as above

    dataset, split = shared.load(arguments)
    architecture, options = architecture_of(arguments), options_of(arguments, dataset)
    method = interval.choose_method(dataset, split, options, arguments.coverage)  # refuses before the fit, not after
    with progress.shown(arguments.kind, options.epochs) as watch:
        fitted = fit.train(dataset, split, architecture, options, watch)
    if method == interval.JACKKNIFE_MINMAX:
        with progress.shown("leave-one-out refits", options.epochs) as watch:
            stated = interval.stated_interval(fitted, arguments.coverage, progress=watch)
    else:
        stated = interval.stated_interval(fitted, arguments.coverage)
    if warning := unfinished(fitted):
        print(f"quicksilver train: {warning}", file=sys.stderr)  # noqa: T201 - the terminal is who asked
    lines += summary(fitted, stated)
    for line in _deliver(arguments, name, fitted, stated):
        lines.append(line)  # one by one, as steps are done
    return fitted


def _deliver(arguments: argparse.Namespace, name: str, fitted: "Fitted", stated: "Interval") -> Iterator[str]:
    """Export where a file or a repository is to have it, and say so step by step."""
    if arguments.output is None and arguments.publish is None:
        return
    from training import export, publish  # noqa: PLC0415 - these import torch's exporter and ONNX Runtime

    model = export.export(fitted, stated)
    if arguments.output is not None:
        export.write(arguments.output, model)
        yield f"wrote {arguments.output} ({len(model):,} bytes)"
    if arguments.publish is not None:
        version = publish.publish(Repository(arguments.publish), name, model)
        yield f"published {name}/{version} to {arguments.publish}/"


def architecture_of(arguments: argparse.Namespace) -> Architecture:
    """The shape of model that the options ask for."""
    asked = {"hidden": arguments.hidden, "activation": arguments.activation}
    return Architecture(arguments.kind, **{key: value for key, value in asked.items() if value is not None})


def options_of(arguments: argparse.Namespace, dataset: Dataset) -> FitOptions:
    """The fit that the options ask for: the defaults for this kind and data, with what was given put over them."""
    asked = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(FitOptions)}
    given = {key: value for key, value in asked.items() if value is not None}
    defaults = default_options(arguments.kind, built_in=dataset.is_built_in, optimizer=arguments.optimizer)
    return dataclasses.replace(defaults, **given)


def unfinished(fitted: "Fitted") -> str | None:
    """Say that the training loss was still falling materially as the epochs ran out; None where it was not.

    A fit that stopped early chose its end. The published runs end where they were published to end, the MLP's in
    mid-fall: nothing is said of their recipe, unchanged but for the seed.
    """
    options, fall = fitted.options, fitted.history.late_fall
    published = PUBLISHED.get(fitted.architecture.kind)
    is_published = fitted.dataset.is_built_in and published == dataclasses.replace(options, seed=0)
    if fall < MATERIAL_FALL or is_published or len(fitted.history) < options.epochs:
        return None
    return (
        f"the training loss still fell by {fall:.0%} over the last tenth of the {options.epochs:,} epochs: "
        "more --epochs or a greater --learning-rate would fit more closely"
    )


def summary(fitted: "Fitted", stated: "Interval") -> list[str]:
    """What was fitted, in a few lines."""
    options, dataset = fitted.options, fitted.dataset
    kept = "" if fitted.best_epoch is None else f", kept epoch {fitted.best_epoch:,}"
    fit = f"{options.optimizer} at {options.learning_rate:g}, {len(fitted.history):,} epochs{kept}, seed {options.seed}"
    lines = [
        f"{fitted.architecture.kind}: {len(dataset)} readings ({dataset.source}; split: {fitted.split.name})",
        f"  fit              {fit}",
        f"  training loss    {fitted.training_loss:.4f} °C²",
        f"  validation loss  {fitted.validation_loss:.4f} °C²",
    ]
    if fitted.architecture.kind == "linear":
        lines += _learned(fitted)
    low, high = fitted.training_range
    trained = zip(dataset.columns, low, high, strict=True)
    lines.append("  trained over     " + ", ".join(f"{name} {least:g} … {most:g}" for name, least, most in trained))
    interval = f"± {stated.half_width_celsius:.2f} °C covers {stated.coverage:.0%} ({stated.method})"
    return [*lines, f"  interval         {interval}"]


def _learned(fitted: "Fitted") -> list[str]:
    """A linear model's parameters as they are, on scaled columns, and the formula they amount to on plain ones."""
    layer = fitted.model.get_submodule("linear")
    parameters = ", ".join(f"{name} {_numbers(value.flatten().tolist())}" for name, value in layer.named_parameters())
    slopes, intercept = fitted.model.affine()
    terms = "".join(f"{slope:+.5f} · {name} " for slope, name in zip(slopes, fitted.dataset.columns, strict=True))
    return [
        f"  learned          {parameters} (on scaled columns)",
        f"  that is          celsius = {terms.removeprefix('+')}{intercept:+.4f}",
    ]


def _numbers(values: list[float]) -> str:
    return " ".join(f"{value:.4f}" for value in values)


def _widths(text: str) -> tuple[int, ...]:
    return tuple(shared.whole(1)(part.strip()) for part in text.split(","))


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - this is what was asked for
