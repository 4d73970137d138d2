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
from rich.console import Console
from rich.table import Table

from training import arguments as shared
from training import progress
from training.dataset import Dataset, Split, built_in, published_split
from training.ensemble import Histories, fit_together
from training.fit import Fitted, Progress, train
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


def least_squares(dataset: Dataset, rows: NDArray[np.int64]) -> tuple[Line, float]:
    """The exact optimum of the linear model on scaled readings, and its mean squared error in °C²; in float64."""
    scaled = PUBLISHED_SCALE * dataset.features[rows]
    design = np.hstack([scaled, np.ones_like(scaled)])
    solution = np.linalg.lstsq(design, dataset.celsius[rows])[0]
    residuals = design @ solution - dataset.celsius[rows]
    return Line(float(solution[0]), float(solution[1])), float(np.mean(residuals**2))


def run_mlp_seeds(dataset: Dataset, split: Split, seeds: Sequence[int], watch: Progress) -> Histories:
    """Fit the published MLP from each seed, all of them stacked."""
    models = [build_for(dataset, split.training, Architecture("mlp"), seed) for seed in seeds]
    return fit_together(models, dataset, [split] * len(models), PUBLISHED["mlp"], watch)


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
    dataset, split = built_in(), published_split()
    options = dataclasses.replace(PUBLISHED["linear"], seed=arguments.seed)
    with progress.shown("linear", options.epochs) as watch:
        linear = train(dataset, split, Architecture("linear"), options, watch)
    seeds = range(arguments.seed, arguments.seed + arguments.mlp_seeds)
    with progress.shown(f"mlp from {len(seeds)} seeds, mean", PUBLISHED["mlp"].epochs) as watch:
        mlp = run_mlp_seeds(dataset, split, seeds, watch)
    ours = losses_at(linear, list(PUBLISHED_LINEAR))
    verdict = judge(ours)
    console = Console(highlight=False)
    console.print(_linear_table(ours, arguments.seed))
    console.print(_line_table(linear))
    console.print(_mlp_table(mlp, seeds))
    console.print(_verdict_text(verdict))
    return 0 if verdict.passed else 1


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _linear_table(ours: Mapping[int, Losses], seed: int) -> Table:
    table = _table(f"linear, seed {seed}: loss in °C²", "epoch", "loss", "published", "ours", "difference")
    for epoch, published in PUBLISHED_LINEAR.items():
        for name, theirs, mine in zip(Losses._fields, published, ours[epoch], strict=True):
            table.add_row(f"{epoch:,}", name, f"{theirs:.4f}", f"{mine:.4f}", f"{mine - theirs:+.4f}")
    return table


def _line_table(linear: Fitted) -> Table:
    """The fitted line beside the published one and the exact optimum of the same nine samples, on scaled readings."""
    slopes, intercept = linear.model.affine()
    ours = Line(float(slopes[0]) / PUBLISHED_SCALE, intercept)
    optimum, loss = least_squares(linear.dataset, linear.split.training)
    table = _table(
        "\nlinear: parameters on scaled readings", "parameter", "published", "ours", "difference", "least squares"
    )
    for name, theirs, mine, exact in zip(Line._fields, PUBLISHED_LINE, ours, optimum, strict=True):
        table.add_row(name, f"{theirs:.4f}", f"{mine:.4f}", f"{mine - theirs:+.4f}", f"{exact:.5f}")
    validation = linear.dataset.celsius[linear.split.validation]
    answers = optimum.weight * PUBLISHED_SCALE * linear.dataset.features[linear.split.validation, 0] + optimum.bias
    table.add_row("training loss at the end", "", f"{linear.training_loss:.4f}", "", f"{loss:.5f}")
    exact_validation = float(np.mean((answers - validation) ** 2))
    table.add_row("validation loss at the end", "", f"{linear.validation_loss:.4f}", "", f"{exact_validation:.5f}")
    return table


def _mlp_table(histories: Histories, seeds: range) -> Table:
    table = _table(
        f"\nmlp, seeds {seeds[0]} … {seeds[-1]}: loss in °C²",
        *("epoch", "loss", "published", "our median", "least", "greatest", "seeds below the published"),
    )
    for epoch, published in PUBLISHED_MLP.items():
        for name, theirs in zip(Losses._fields, published, strict=True):
            ours = getattr(histories, name)[epoch - 1]
            figures = (theirs, np.median(ours), ours.min(), ours.max())
            below = f"{np.count_nonzero(ours < theirs)} of {len(ours)}"
            table.add_row(f"{epoch:,}", name, *[f"{figure:.4f}" for figure in figures], below)
    return table


def _verdict_text(verdict: Verdict) -> str:
    outcome = "reproduced" if verdict.passed else "NOT REPRODUCED"
    return (
        f"\n{outcome}: at epoch {JUDGED_EPOCH:,} the linear training loss is "
        f"{verdict.training_difference:+.4f} from the published one (±{TRAINING_TOLERANCE} allowed), "
        f"the validation loss {verdict.validation_difference:+.4f} (±{VALIDATION_TOLERANCE} allowed)"
    )
