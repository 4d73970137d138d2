"""Leave-one-out: refit without a row, predict that row, and so for every row.

The refits follow the recipe of the fit that is judged (same shape, seed, optimizer, rate), each on all other rows of
the data, training and validation alike, with the scaling measured anew on those rows. They run all epochs of the
recipe, also where the fit itself stopped early: nothing about a refit may depend on the row it is judged by.

The eleven refits of the tanh MLP, 5,000 epochs each, run stacked and take about 4 seconds on one core.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.dataset import Split
from training.ensemble import fit_together
from training.fit import Fitted, Progress, unwatched
from training.models import Converter, build_for

MAXIMUM_REFITS: Final = 100
"""Of larger data, so many rows are drawn, under the seed of the fit, and leave-one-out runs over these alone."""


@dataclass(frozen=True, slots=True, eq=False)
class LeaveOneOut:
    """What leaving each row out showed: `rows` [n], and `residuals` [n] in °C, answer minus truth.

    `refits[i]` was fitted to all of `rows` but `rows[i]`.
    """

    rows: NDArray[np.int64]
    residuals: NDArray[np.float64]
    refits: tuple[Converter, ...]


def leave_one_out(fitted: Fitted, progress: Progress = unwatched) -> LeaveOneOut:
    """Refit without each row in turn.

    Raises:
        DivergedError: a refit diverged.
    """
    dataset, seed, optimizer = fitted.dataset, fitted.options.seed, fitted.options.optimizer
    rows = _drawn(len(dataset), seed)
    splits = [Split(np.delete(rows, place), rows[:0]) for place in range(len(rows))]
    refits = [build_for(dataset, split.training, fitted.architecture, seed, optimizer) for split in splits]
    fit_together(refits, dataset, splits, fitted.options, progress)
    answers = [model.predict(dataset.features[[row]])[0] for model, row in zip(refits, rows, strict=True)]
    return LeaveOneOut(rows, np.array(answers) - dataset.celsius[rows], tuple(refits))


def _drawn(rows: int, seed: int) -> NDArray[np.int64]:
    if rows <= MAXIMUM_REFITS:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, MAXIMUM_REFITS, replace=False))
