"""The challengers of a champion: fits of several kinds, from several seeds, to several lengths of the past.

How much of the past still holds is not known: after a jump of the thermometer only what came since. So each kind is
fitted to all there is, the base data included, and to the newest half and quarter of the observations alone. The rows
of validation, newer than those, choose among the fits; the rows held out for the gate are seen by none.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.dataset import FAHRENHEIT, Dataset, Split
from training.ensemble import Histories, fit_together
from training.errors import DataError, DivergedError
from training.fit import Fitted, History, Progress, check_training_rows
from training.models import build_for
from training.observed import MINIMUM_FITTED, Parts
from training.options import Architecture, FitOptions, Kind, default_options

RECENT: Final = (1.0, 0.5, 0.25)
"""The shares of the training observations, counted from the newest, that are fitted to."""

Shown = Callable[[str, int], AbstractContextManager[Progress]]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Which fits are made."""

    kinds: tuple[Kind, ...] = ("linear", "mlp")
    seeds: int = 3
    """From this many seeds each, from `first_seed` on."""
    first_seed: int = 0
    epochs: int | None = None
    """Steps of each fit; None for the defaults of its kind."""
    coverage: float = 0.8
    """Of the challenger's prediction interval."""


@dataclass(frozen=True, slots=True, eq=False)
class Challenger:
    """One fit, and its mean absolute error in °C on the validation rows."""

    fitted: Fitted
    recent: float
    validation_error: float

    def figures(self) -> "Figures":
        """What a verdict says of it."""
        return Figures(
            kind=self.fitted.architecture.kind,
            seed=self.fitted.options.seed,
            recent=self.recent,
            training_rows=len(self.fitted.split.training),
            validation_error_celsius=self.validation_error,
        )


@dataclass(frozen=True, slots=True)
class Figures:
    """A fit in numbers."""

    kind: str
    seed: int
    recent: float
    """The share of the training observations that it was fitted to, counted from the newest."""
    training_rows: int
    validation_error_celsius: float


def assemble(base: Dataset | None, parts: Parts) -> Dataset:
    """Base data, training and validation observations in this order, as one set of readings.

    Raises:
        DataError: the base data is not of one column in °F.
    """
    if base is not None and base.fahrenheit is None:
        raise DataError(base.source, f"retraining is for one column in °F, not for {', '.join(base.columns)}")
    readings = [] if base is None else [base.features[:, 0]]
    truths = [] if base is None else [base.celsius]
    for part in (parts.training, parts.validation):
        readings.append(part.fahrenheit)
        truths.append(part.celsius)
    observations = len(parts.training) + len(parts.validation)
    source = f"{observations} observations" if base is None else f"{base.source} and {observations} observations"
    return Dataset(
        np.concatenate(readings)[:, None],
        np.concatenate(truths),
        (FAHRENHEIT,),
        source,
        observed_until_seconds=parts.observed_until_seconds,
    )


def splits(base_rows: int, parts: Parts) -> dict[float, Split]:
    """The rows of `assemble` to fit to, by the share of the training observations; too small a share is left out."""
    observed, validated = len(parts.training), len(parts.validation)
    end = base_rows + observed
    validation = np.arange(end, end + validated)
    found = {}
    for recent in RECENT:
        rows = math.ceil(recent * observed)
        if recent == RECENT[0] or rows >= MINIMUM_FITTED:
            first = 0 if recent == RECENT[0] else end - rows
            found[recent] = Split(np.arange(first, end), validation, f"by time, newest {recent:g} of observations")
    return found


def fit_all(base: Dataset | None, parts: Parts, recipe: Recipe, shown: Shown) -> list[Challenger]:
    """Make the fits of a recipe, the best on the validation rows first. One that diverges is left out.

    Raises:
        DataError: the base data is not of one column in °F, or all readings to fit to are equal.
        DivergedError: every fit diverged.
    """
    dataset = assemble(base, parts)
    found: list[Challenger] = []
    diverged: DivergedError | None = None
    for recent, split in splits(0 if base is None else len(base), parts).items():
        check_training_rows(dataset, split)
        for kind in recipe.kinds:
            try:
                found += _fit_seeds(dataset, split, _Which(kind, recent), recipe, shown)
            except DivergedError as error:
                diverged = error
    if not found and diverged is not None:
        raise diverged
    return sorted(found, key=lambda challenger: challenger.validation_error)


class _Which(NamedTuple):
    """Of the fits of a recipe, those that differ by their seed alone."""

    kind: Kind
    recent: float


def _fit_seeds(dataset: Dataset, split: Split, which: _Which, recipe: Recipe, shown: Shown) -> list[Challenger]:
    """One kind on one set of rows from every seed, stacked."""
    kind, recent = which
    options = default_options(kind, built_in=False)
    options = dataclasses.replace(options, epochs=recipe.epochs or options.epochs)
    seeds = range(recipe.first_seed, recipe.first_seed + recipe.seeds)
    models = [build_for(dataset, split.training, Architecture(kind), seed, options.optimizer) for seed in seeds]
    with shown(f"{kind}, newest {recent:g}, {recipe.seeds} seeds", options.epochs) as watch:
        histories = fit_together(models, dataset, [split] * len(models), options, watch)
    fits = [
        Fitted(model, dataset, split, _seeded(options, seed), _of_member(histories, member), gradients={})
        for member, (model, seed) in enumerate(zip(models, seeds, strict=True))
    ]
    return [Challenger(fitted, recent, _validation_error(fitted)) for fitted in fits]


def _seeded(options: FitOptions, seed: int) -> FitOptions:
    return dataclasses.replace(options, seed=seed)


def _of_member(histories: Histories, member: int) -> History:
    return History(histories.training[:, member].copy(), histories.validation[:, member].copy())


def _validation_error(fitted: Fitted) -> float:
    rows = fitted.split.validation
    return float(np.mean(np.abs(fitted.model.predict(fitted.dataset.features[rows]) - fitted.dataset.celsius[rows])))


def absolute_errors(answers: NDArray[np.floating], celsius: NDArray[np.float64]) -> NDArray[np.float64]:
    """|answer - truth| in °C [N]."""
    return np.abs(answers.astype(np.float64) - celsius)


def figures_of(challengers: Sequence[Challenger]) -> list[Figures]:
    """All fits in numbers, in their order."""
    return [challenger.figures() for challenger in challengers]
