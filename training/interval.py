"""The prediction interval: how far from an answer the truth may lie, with a coverage that is really attained.

Two methods, each with a guarantee that needs no assumption about noise or model, only that readings to come are
exchangeable with those of the data. `a` is 1 - coverage, and a rank counts n absolute residuals from the smallest.

split-conformal (Vovk, Gammerman and Shafer 2005; Lei, G'Sell, Rinaldo, Tibshirani and Wasserman 2018): the residual of
    rank ceil((1 - a)(n + 1)) among validation rows, which the fit never saw. Coverage at least 1 - a. Sharp, and taken
    wherever there are 20 validation rows or more and early stopping has not looked at them.

jackknife-minmax (Barber, Candes, Ramdas and Tibshirani, "Predictive inference with the jackknife+", 2021): the
    residual of that rank among the leave-one-out residuals, counted from the least and the greatest answer of all the
    refits rather than from one model's. Coverage at least 1 - a, for any number of rows and however unstable the model.
    An answer's interval there depends on the input; ours is one half-width for all inputs, the residual plus the
    greatest distance found between the exported model and any refit within the training domain, so that it contains
    theirs wherever the distance is no greater. It is sought at the training rows and at 1,024 points: evenly spaced in
    one column; in several, drawn from the box, with the box's corners beside them up to ten columns. For a linear model
    the corners hold the greatest distance exactly; for others it is sampled, closely in one column, and in several it
    may be greater between the points. The one half-width makes it conservative at most inputs.

Why not the plain jackknife, answer ± the residual of that rank? It has no such guarantee: where a model hangs on single
rows, as an overfitted one does, it can cover less than it says (the same paper, section 2). The jackknife+ has one, of
1 - 2a only. `plain_jackknife` is there to be shown beside the other, never to be stated.

The coverage is an average over readings like those of the data. It says nothing of inputs outside the training domain,
for which no interval is stated, and it is not a promise for each single input.
"""

import itertools
import math
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from proto.artefact import Interval
from training.dataset import Dataset, Split
from training.errors import CoverageError
from training.fit import Fitted, Progress, unwatched
from training.leave_one_out import MAXIMUM_REFITS, LeaveOneOut, leave_one_out
from training.options import FitOptions

MINIMUM_CALIBRATION_ROWS: Final = 20

SPLIT_CONFORMAL: Final = "split-conformal"
JACKKNIFE_MINMAX: Final = "jackknife-minmax"

_DOMAIN_SAMPLES: Final = 1024
_MOST_COLUMNS_WITH_CORNERS: Final = 10  # 2^10 corners


def rank(samples: int, coverage: float) -> int:
    """The rank ceil(coverage · (samples + 1)), from 1, of the residual that an interval of this coverage takes.

    Raises:
        CoverageError: the coverage is none, or more than `samples / (samples + 1)`, which so many samples cannot show.
    """
    if not 0 < coverage < 1:
        raise CoverageError(f"a coverage lies between 0 and 1, not at {coverage:g}")
    wanted = math.ceil(Fraction(repr(float(coverage))) * (samples + 1))  # exact: in floats 0.8 · 5 could exceed 4
    if wanted > samples:
        raise CoverageError(
            f"{samples} samples support an interval of coverage {samples / (samples + 1):.4f} at most, not {coverage:g}"
        )
    return wanted


def split_conformal(residuals: NDArray[np.float64], coverage: float) -> Interval:
    """The interval from residuals [n] in °C of rows that the fit never saw."""
    return Interval(_ranked(residuals, coverage), coverage, SPLIT_CONFORMAL)


def jackknife_minmax(residuals: NDArray[np.float64], spread: float, coverage: float) -> Interval:
    """The interval from leave-one-out residuals [n] and the `spread`, both in °C.

    The spread is the greatest distance between the exported model and any refit within the training domain.
    """
    return Interval(_ranked(residuals, coverage) + spread, coverage, JACKKNIFE_MINMAX)


def plain_jackknife(residuals: NDArray[np.float64], coverage: float) -> float:
    """Half-width in °C of the plain jackknife: for comparison, since it guarantees no coverage."""
    return _ranked(residuals, coverage)


def _ranked(residuals: NDArray[np.float64], coverage: float) -> float:
    return float(np.sort(np.abs(residuals))[rank(len(residuals), coverage) - 1])


def choose_method(dataset: Dataset, split: Split, options: FitOptions, coverage: float) -> str:
    """Choose the method for a fit, before or after it is made: a pure decision.

    Raises:
        CoverageError: neither method can state this coverage from these readings.
    """
    held_out = len(split.validation)
    if held_out >= MINIMUM_CALIBRATION_ROWS and options.patience is None and _supports(held_out, coverage):
        return SPLIT_CONFORMAL
    rank(min(len(dataset), MAXIMUM_REFITS), coverage)
    return JACKKNIFE_MINMAX


def _supports(samples: int, coverage: float) -> bool:
    return coverage <= samples / (samples + 1)


def stated_interval(
    fitted: Fitted, coverage: float, left_out: LeaveOneOut | None = None, progress: Progress = unwatched
) -> Interval:
    """The interval that a fitted model may state of itself. Leave-one-out is run where it is needed and not given.

    Raises:
        CoverageError: the readings do not support the coverage.
        DivergedError: a refit diverged.
    """
    if choose_method(fitted.dataset, fitted.split, fitted.options, coverage) == SPLIT_CONFORMAL:
        rows = fitted.split.validation
        answers = fitted.model.predict(fitted.dataset.features[rows])
        return split_conformal(answers - fitted.dataset.celsius[rows], coverage)
    left_out = left_out or leave_one_out(fitted, progress)
    return jackknife_minmax(left_out.residuals, spread(fitted, left_out), coverage)


def spread(fitted: Fitted, left_out: LeaveOneOut) -> float:
    """Greatest distance in °C between the fitted model and any refit, over a sample of the training domain.

    Exact for a linear model of up to ten columns; see the top of the file for the others.
    """
    inputs = _domain_samples(fitted)
    answers = fitted.model.predict(inputs)
    return max(float(np.max(np.abs(refit.predict(inputs) - answers))) for refit in left_out.refits)


def _domain_samples(fitted: Fitted) -> NDArray[np.float64]:
    """Inputs [M, N_in] over the training domain: the training rows, and points of the box that holds them."""
    rows = fitted.dataset.features[fitted.split.training]
    low, high = rows.min(axis=0), rows.max(axis=0)
    columns = rows.shape[1]
    if columns == 1:
        shares = np.linspace(0.0, 1.0, _DOMAIN_SAMPLES)[:, None]
    else:
        shares = np.random.default_rng(fitted.options.seed).random((_DOMAIN_SAMPLES, columns))
    if 1 < columns <= _MOST_COLUMNS_WITH_CORNERS:
        shares = np.concatenate([shares, list(itertools.product((0.0, 1.0), repeat=columns))])
    return np.concatenate([rows, low + shares * (high - low)])
