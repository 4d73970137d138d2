"""The command `quicksilver reproduce`: trains as published, and sets the published figures beside ours.

The linear model's error surface is convex, so that from any seed it ends near the published losses: they are judged.
The MLP's is not, and each seed ends elsewhere: the published run is one draw from a distribution, and is shown beside
the median and the range over many seeds. No seed is looked for: the verdict holds for whichever is given.
"""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from training import arguments as shared
from training import progress, terminal
from training.dataset import Dataset, built_in, published_split
from training.ensemble import Histories, fit_together
from training.fit import Fitted, Progress, train, unwatched
from training.models import PUBLISHED_SCALE, build_for
from training.options import PUBLISHED, Architecture

TRAINING_TOLERANCE: Final = 0.01
VALIDATION_TOLERANCE: Final = 0.05
JUDGED_EPOCH: Final = 3000
MINIMUM_MLP_SEEDS: Final = 20


class Losses(NamedTuple):
    """Training and validation loss in °C², as an epoch began."""

    training: float
    validation: float


class Line(NamedTuple):
    """A linear model on scaled readings."""

    weight: float
    bias: float


PUBLISHED_LINEAR: Final = {1000: Losses(4.8053, 4.7307), 2000: Losses(3.0285, 3.0889), 3000: Losses(2.8569, 3.9105)}
PUBLISHED_LINE: Final = Line(5.4319, -17.9693)
PUBLISHED_MLP: Final = {1000: Losses(6.6642, 3.7330), 3000: Losses(2.9653, 1.0005), 5000: Losses(2.1141, 2.0215)}


PUBLISHED_MLP_ANSWERS: Final = (-1.9930, 20.8729)
"""In °C, after the last epoch, to the two readings held out, of which the truths are -4 and 21."""


class MlpRuns(NamedTuple):
    """The MLP from several seeds: its losses, and its answers [seeds, held out] in °C to the readings held out."""

    histories: Histories
    answers: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Verdict:
    """How far the linear run is from the published one at the judged epoch, in °C², and whether that is near enough."""

    training_difference: float
    validation_difference: float

    @property
    def passed(self) -> bool:
        """Whether both differences keep their tolerance."""
        return (
            abs(self.training_difference) <= TRAINING_TOLERANCE
            and abs(self.validation_difference) <= VALIDATION_TOLERANCE
        )


def judge(ours: Mapping[int, Losses]) -> Verdict:
    """Judge the linear run by its losses at epoch 3,000. `ours` maps epochs to losses."""
    published, mine = PUBLISHED_LINEAR[JUDGED_EPOCH], ours[JUDGED_EPOCH]
    return Verdict(mine.training - published.training, mine.validation - published.validation)


def losses_at(fitted: Fitted, epochs: Sequence[int]) -> dict[int, Losses]:
    """The losses of a run at some epochs, counted from 1."""
    history = fitted.history
    return {epoch: Losses(history.training[epoch - 1], history.validation[epoch - 1]) for epoch in epochs}


def least_squares(dataset: Dataset, rows: NDArray[np.int64]) -> Line:
    """The exact optimum of the linear model on scaled readings; in float64."""
    scaled = PUBLISHED_SCALE * dataset.features[rows]
    solution = np.linalg.lstsq(np.hstack([scaled, np.ones_like(scaled)]), dataset.celsius[rows])[0]
    return Line(float(solution[0]), float(solution[1]))


def mean_squared_error(line: Line, dataset: Dataset, rows: NDArray[np.int64]) -> float:
    """Of a line's answers to some readings, in °C²; in float64."""
    answers = line.weight * PUBLISHED_SCALE * dataset.features[rows, 0] + line.bias
    return float(np.mean((answers - dataset.celsius[rows]) ** 2))


def run_linear(seed: int, watch: Progress = unwatched) -> Fitted:
    """Fit the linear model as published, from a seed."""
    options = dataclasses.replace(PUBLISHED["linear"], seed=seed)
    return train(built_in(), published_split(), Architecture("linear"), options, watch)


def run_mlp(seeds: Sequence[int], watch: Progress = unwatched) -> MlpRuns:
    """Fit the MLP as published from each seed, all of them stacked."""
    dataset, split = built_in(), published_split()
    models = [build_for(dataset, split.training, Architecture("mlp"), seed) for seed in seeds]
    histories = fit_together(models, dataset, [split] * len(models), PUBLISHED["mlp"], watch)
    held_out = dataset.features[split.validation]
    return MlpRuns(histories, np.array([model.predict(held_out) for model in models]))


# The command ----------------------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    shared.add_seed(parser, "of the linear run, and the first of the MLP's")
    parser.add_argument(
        "--mlp-seeds",
        type=shared.whole(MINIMUM_MLP_SEEDS),
        default=MINIMUM_MLP_SEEDS,
        metavar="N",
        help="how many seeds the MLP runs from, at least %(default)s (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Train both as published and print the comparison. Return 1 where the linear run is out of tolerance."""
    with progress.shown("linear", PUBLISHED["linear"].epochs) as watch:
        linear = run_linear(arguments.seed, watch)
    seeds = range(arguments.seed, arguments.seed + arguments.mlp_seeds)
    with progress.shown(f"mlp from {len(seeds)} seeds, mean", PUBLISHED["mlp"].epochs) as watch:
        mlp = run_mlp(seeds, watch)
    ours = losses_at(linear, list(PUBLISHED_LINEAR))
    verdict = judge(ours)
    console = terminal.console()
    console.print(_linear_table(ours, arguments.seed))
    console.print(_line_table(linear))
    console.print(_mlp_table(mlp.histories, seeds))
    console.print(_answers_table(mlp.answers))
    console.print(_verdict_text(verdict))
    return 0 if verdict.passed else 1


def _linear_table(ours: Mapping[int, Losses], seed: int) -> Table:
    table = terminal.table(f"linear, seed {seed}: loss in °C²", "epoch", "loss", "published", "ours", "difference")
    for epoch, published in PUBLISHED_LINEAR.items():
        for name, theirs, mine in zip(Losses._fields, published, ours[epoch], strict=True):
            table.add_row(f"{epoch:,}", name, f"{theirs:.4f}", f"{mine:.4f}", f"{mine - theirs:+.4f}")
    return table


def _line_table(linear: Fitted) -> Table:
    """The fitted line beside the published one and the exact optimum of the same nine samples, on scaled readings."""
    slopes, intercept = linear.model.affine()
    ours = Line(float(slopes[0]) / PUBLISHED_SCALE, intercept)
    dataset, split = linear.dataset, linear.split
    everything = np.arange(len(dataset))
    nine, eleven = least_squares(dataset, split.training), least_squares(dataset, everything)
    table = terminal.table(
        "\nlinear: parameters on scaled readings, beside the exact least-squares optimum",
        *("", "published", "ours", "difference", "optimum of the 9 trained on", "of all 11"),
    )
    for name, theirs, mine, *exact in zip(Line._fields, PUBLISHED_LINE, ours, nine, eleven, strict=True):
        figures = (f"{theirs:.4f}", f"{mine:.4f}", f"{mine - theirs:+.4f}", *[f"{value:.5f}" for value in exact])
        table.add_row(name, *figures)
    trained_on = (mean_squared_error(nine, dataset, split.training), mean_squared_error(eleven, dataset, everything))
    table.add_row("loss on them", "", f"{linear.training_loss:.4f}", "", *[f"{loss:.5f}" for loss in trained_on])
    held_out = mean_squared_error(nine, dataset, split.validation)
    table.add_row("validation loss", "", f"{linear.validation_loss:.4f}", "", f"{held_out:.5f}", "")
    return table


def _mlp_table(histories: Histories, seeds: range) -> Table:
    table = terminal.table(
        f"\nmlp, seeds {seeds[0]} … {seeds[-1]}: loss in °C²",
        *("epoch", "loss", "published", "our median", "difference", "least", "greatest", "seeds below"),
    )
    for epoch, published in PUBLISHED_MLP.items():
        for name, theirs in zip(Losses._fields, published, strict=True):
            ours = getattr(histories, name)[epoch - 1]
            table.add_row(f"{epoch:,}", name, *_beside(theirs, ours))
    return table


def _answers_table(answers: NDArray[np.float64]) -> Table:
    """The MLP's answers [seeds, held out] in °C to the readings held out, beside the published ones and the truths."""
    dataset, split = built_in(), published_split()
    table = terminal.table(
        "\nmlp: answers to the readings held out in °C, after the last epoch",
        *("reading in °F", "truth", "published", "our median", "difference", "least", "greatest", "seeds below"),
    )
    for place, (row, theirs) in enumerate(zip(split.validation, PUBLISHED_MLP_ANSWERS, strict=True)):
        truth = f"{dataset.celsius[row]:g}"
        table.add_row(f"{dataset.features[row, 0]:g}", truth, *_beside(theirs, answers[:, place]))
    return table


def _beside(theirs: float, ours: NDArray[np.float64]) -> tuple[str, ...]:
    """A published figure beside those of our seeds [n]: median, its difference, range, and how many lie below it."""
    median = float(np.median(ours))
    below = f"{np.count_nonzero(ours < theirs)} of {len(ours)}"
    return (
        f"{theirs:.4f}",
        f"{median:.4f}",
        f"{median - theirs:+.4f}",
        f"{ours.min():.4f}",
        f"{ours.max():.4f}",
        below,
    )


def _verdict_text(verdict: Verdict) -> str:
    outcome = "Reproduced" if verdict.passed else "NOT REPRODUCED"
    return (
        f"\n{outcome}: at epoch {JUDGED_EPOCH:,} the linear run is from the published one\n"
        f"  {verdict.training_difference:+.4f} °C² in training loss (± {TRAINING_TOLERANCE} allowed)\n"
        f"  {verdict.validation_difference:+.4f} °C² in validation loss (± {VALIDATION_TOLERANCE} allowed)"
    )
