"""What a fitted converter states of itself: builds the artefact that is written into its file."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from proto.artefact import Artefact, Column, GoldenVectors, Histogram, Interval
from training.fit import Fitted
from training.parity import Parity, wide_range

GOLDEN_RELATIVE_TOLERANCE: Final = 1e-5
GOLDEN_ABSOLUTE_TOLERANCE_CELSIUS: Final = 1e-4
_GOLDEN_ROUNDINGS: Final = 10.0
_GOLDEN_INSIDE: Final = 9
_GOLDEN_BEYOND: Final = 7

_MAXIMUM_BINS: Final = 10


def describe(fitted: Fitted, interval: Interval | None, parity: Parity) -> Artefact:
    """Everything the file's metadata holds, taken from the fit: the same fit, the same artefact."""
    return Artefact(
        kind=fitted.architecture.kind,
        architecture=fitted.model.description(),
        parameter_count=fitted.model.parameter_count(),
        seed=fitted.options.seed,
        hyperparameters=fitted.options.hyperparameters()
        | {"split": fitted.split.name, "training_rows": len(fitted.split.training), "best_epoch": fitted.best_epoch},
        dataset_sha256=fitted.dataset.sha256,
        dataset_rows=len(fitted.dataset),
        training_loss=fitted.training_loss,
        validation_loss=fitted.validation_loss,
        epochs=len(fitted.history),
        torch_version=torch.__version__,
        onnx_version=onnx.__version__,
        git_commit=git_commit(),
        columns=_columns(fitted),
        interval=interval,
        golden=_golden(fitted, parity.max_rounding),
        parity_max_difference_celsius=parity.max_difference,
        observed_until_seconds=fitted.dataset.observed_until_seconds,
    )


def _columns(fitted: Fitted) -> tuple[Column, ...]:
    """Range and histogram of the training rows, column by column: these are what the model was trained on."""
    rows = fitted.dataset.features[fitted.split.training]
    return tuple(
        Column(name, float(values.min()), float(values.max()), histogram(values))
        for name, values in zip(fitted.dataset.columns, rows.T, strict=True)
    )


def histogram(values: NDArray[np.float64]) -> Histogram:
    """Counts of values [n] in up to ten bins of equal width, about sqrt(n) of them."""
    bins = min(_MAXIMUM_BINS, max(2, round(len(values) ** 0.5)))
    counts, edges = np.histogram(values, bins)
    return Histogram(tuple(edges.tolist()), tuple(counts.tolist()))


def _golden(fitted: Fitted, rounding: float) -> GoldenVectors:
    """Inputs from corner to corner of the training range, and of the range beyond, with PyTorch's answers.

    The tolerance is one that any engine in float32 keeps, on a CPU or a GPU, and that TensorFloat-32 does not.
    """
    inside = np.linspace(*fitted.training_range, _GOLDEN_INSIDE)
    beyond = np.linspace(*wide_range(fitted), _GOLDEN_BEYOND)
    inputs = np.concatenate([inside, beyond]).astype(np.float32).astype(np.float64)
    return GoldenVectors(
        inputs=tuple(tuple(row) for row in inputs.tolist()),
        outputs=tuple(fitted.model.predict(inputs).tolist()),
        absolute_tolerance=max(GOLDEN_ABSOLUTE_TOLERANCE_CELSIUS, _GOLDEN_ROUNDINGS * rounding),
        relative_tolerance=GOLDEN_RELATIVE_TOLERANCE,
    )


def git_commit(source: Path = Path(__file__)) -> str | None:
    """The commit of the source that trains, where it is a git checkout and git is there; None otherwise.

    `-dirty` follows where a file that the checkout knows has been changed since: the commit alone is not the source.
    """
    source = source.resolve()
    git = shutil.which("git")
    if git is None:
        return None

    def ask(*words: str) -> str | None:
        command = [git, "--no-optional-locks", "-C", str(source.parent), *words]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no outside words
        return answer.stdout.strip() if answer.returncode == 0 else None

    # An installed copy may lie inside some other project's checkout: the commit counts only if it knows this file.
    if not ask("ls-files", "--error-unmatch", source.name):
        return None
    return ask("describe", "--always", "--exclude=*", "--abbrev=40", "--dirty")
