"""What the report says: its pictures with their captions, its tables, and its findings. Pure functions of fits.

Every sentence about the models is made from numbers; none is written down in advance for the built-in readings.
"""

import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training import figures, law
from training.figures import Subject, probe, side
from training.interval import MINIMUM_CALIBRATION_ROWS
from training.metrics import wide_range
from training.pages import Picture
from training.plots import MINUS, number, short

PACKAGES: Final = ("quicksilver-serving", "torch", "numpy", "matplotlib")

LAW: Final = f"C = (F {MINUS} 32) · 5/9".replace(" ", "\N{NO-BREAK SPACE}")

MATERIAL: Final = 0.1
"""The part of an error by which another has to exceed it before anything is concluded."""

_SWING_EPOCHS: Final = 100
_SWING: Final = 0.05  # of the mean loss: a validation loss that moves more in the last epochs is worth a sentence


# Numbers side by side -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Measure:
    """One line of the comparison: a value for each subject, and which of them is the least where less is better."""

    label: str
    unit: str
    values: tuple[float, ...]
    digits: int = 2
    less_is_better: bool = True

    @property
    def cells(self) -> list[str]:
        """The values as they are written."""
        return [number(value, self.digits) for value in self.values]

    @property
    def best(self) -> int | None:
        """The place of the least value; None where less is not better, or where two are written alike."""
        least = min(range(len(self.values)), key=self.values.__getitem__)
        is_alone = self.cells.count(self.cells[least]) == 1
        return least if self.less_is_better and is_alone else None


def measures(subjects: Sequence[Subject]) -> dict[str, Measure]:
    """All numbers that are set side by side, by the names that the findings know them by."""
    first = subjects[0]
    held_out = len(first.fitted.split.validation)
    coverage = first.evaluation.interval.coverage
    readings = _span(float(first.fahrenheit.min()), float(first.fahrenheit.max()))
    at = probe(first)

    def measure(label: str, unit: str, value: Callable[[Subject], float]) -> Measure:
        return Measure(label, unit, tuple(value(subject) for subject in subjects))

    return {
        "training": measure("training loss", "°C²", lambda s: s.evaluation.training.mean_squared_error),
        "validation": measure(
            f"validation loss, {held_out} readings", "°C²", lambda s: s.evaluation.validation.mean_squared_error
        ),
        "left out": measure(
            "leave-one-out mean squared error", "°C²", lambda s: s.evaluation.left_out.errors.mean_squared_error
        ),
        "left out, absolute": measure(
            "leave-one-out mean error", "°C", lambda s: s.evaluation.left_out.errors.mean_absolute_error
        ),
        "left out, worst": measure(
            "leave-one-out worst error", "°C", lambda s: s.evaluation.left_out.errors.worst_error
        ),
        "law": measure(
            f"mean error against the exact law over all readings, {readings}",
            "°C",
            lambda s: s.law.readings_range.mean_absolute_error,
        ),
        "law, trained": measure(
            f"mean error against the exact law over the training range, {_span(*first.training_range)}",
            "°C",
            lambda s: s.law.training_range.mean_absolute_error,
        ),
        "law, outside": measure(
            f"mean error against the exact law outside it, {_span(*wide_range(*first.training_range))}",
            "°C",
            lambda s: s.law.outside.mean_absolute_error,
        ),
        "law, beyond": measure(
            f"error against the exact law at {short(at)} °F", "°C", lambda s: abs(_law_error(s, at))
        ),
        "interval": measure(
            f"half-width of the {coverage:.0%} interval", "°C", lambda s: s.evaluation.interval.half_width_celsius
        ),
        "parameters": Measure(
            "parameters", "", tuple(float(each.evaluation.parameter_count) for each in subjects), 0, False
        ),
    }


def _span(low: float, high: float) -> str:
    return f"{short(low)} … {short(high)} °F"


def _law_error(subject: Subject, fahrenheit: float) -> float:
    """Answer minus the exact law's, in °C."""
    at = np.array([fahrenheit])
    return float((subject.answer(at) - law.celsius(at))[0])


# Findings -------------------------------------------------------------------------------------------------------------


def findings(simple: Subject, flexible: Subject) -> list[str]:
    """Say what the numbers show of the two, and what they do not show: a sentence or two each."""
    names = (simple.name, flexible.name)
    found = measures((simple, flexible))
    held_out = len(simple.fitted.split.validation)
    validation = _lower(found["validation"], f"On the {held_out} readings held out", names)
    if held_out < MINIMUM_CALIBRATION_ROWS:
        validation += f" {held_out} readings are too few to judge a model by."
    return [
        overfit(simple, flexible),
        _lower(found["training"], "On the readings they were fitted to", names),
        validation,
        f"{_lower(found['left out'], 'On readings left out one by one', names)} {_paired(simple, flexible)}",
        _lower(found["law"], "Against the exact law, over all readings,", names, "mean error"),
        beyond((simple, flexible)),
    ]


def overfit(simple: Subject, flexible: Subject) -> str:
    """Decide whether the flexible model overfits: lower loss where it was fitted, and higher error where it was not.

    A higher error counts where it matters: a mean squared error from `MATERIAL` of the simple model's on, a mean error
    against the exact law from `MATERIAL` of the simple model's root mean squared training error on.
    """
    found = {name: measure.values for name, measure in measures((simple, flexible)).items()}
    if found["training"][1] >= found["training"][0]:
        return f"The {flexible.name} does not even fit its own readings better: no sign of overfitting."
    signs = {
        "the leave-one-out error": _exceeds(found["left out"], found["left out"][0]),
        "the error against the exact law": _exceeds(found["law"], math.sqrt(found["training"][0])),
    }
    shown = [name for name, is_sign in signs.items() if is_sign]
    hidden = [name for name, is_sign in signs.items() if not is_sign]
    if not shown:
        return (
            f"The {flexible.name} fits its own readings better than the {simple.name}, and by {_listed(hidden)} it is "
            "not materially worse: no sign of overfitting."
        )
    agrees = "shows it too" if _exceeds(found["validation"], found["validation"][0]) else "does not"
    conclusion = (
        f"The {flexible.name} follows the noise of its readings: it overfits. {_listed(shown).capitalize()} "
        f"{'show' if len(shown) > 1 else 'shows'} it; the validation loss {agrees}."
    )
    return conclusion + (f" By {_listed(hidden)} it is not materially worse." if hidden else "")


def _exceeds(values: Sequence[float], scale: float) -> bool:
    """Whether the second value is higher than the first by a material part of the scale."""
    return values[1] - values[0] > MATERIAL * scale


def beyond(subjects: Sequence[Subject]) -> str:
    """Say what each answers far outside the readings it was fitted to."""
    at = probe(subjects[0])
    answers = [
        f"the {each.name} answers {number(float(each.answer(np.array([at]))[0]), 1)} °C, {side(_law_error(each, at))}"
        for each in subjects
    ]
    range_ = _span(*subjects[0].training_range)
    return f"At {short(at)} °F, far outside the training range of {range_}, {'; '.join(answers)}."


def swing(subject: Subject) -> str | None:
    """Say how far the validation loss still moves in the last epochs; None where it is at rest."""
    last = subject.fitted.history.validation[-_SWING_EPOCHS:]
    low, high = float(last.min()), float(last.max())
    if high - low <= _SWING * float(last.mean()):
        return None
    return (
        f"The validation loss of the {subject.name} is not at rest: over the last {len(last)} epochs it moves "
        f"between {number(low)} and {number(high)} °C²"
        + (
            ", up and down from one epoch to the next: the step size is at the edge of stability."
            if _alternates(last)
            else "."
        )
    )


def _alternates(losses: NDArray[np.float64]) -> bool:
    """Whether most steps turn back on the one before."""
    steps = np.diff(losses)
    return len(steps) > 1 and float(np.mean(steps[1:] * steps[:-1] < 0)) > 0.5  # noqa: PLR2004 - most


def _lower(measure: Measure, where: str, names: Sequence[str], what: str = "loss") -> str:
    values = " against ".join(f"{cell} {measure.unit}" for cell in measure.cells)
    if measure.best is None:
        return f"{where} neither has the lower {what}: {values}."
    return f"{where} the {names[measure.best]} has the lower {what}: {values} ({' against '.join(names)})."


def _paired(simple: Subject, flexible: Subject) -> str:
    """Say on how many left-out readings the flexible model errs by more: a mean may hang on one of them."""
    errors = [np.abs(np.array(each.evaluation.left_out.residuals)) for each in (simple, flexible)]
    worse = int(np.sum(errors[1] > errors[0]))
    return f"The {flexible.name} errs by more on {worse} of the {len(errors[0])}."


def _listed(items: Sequence[str]) -> str:
    return " and ".join(items)


# Pictures -------------------------------------------------------------------------------------------------------------


def pictures(subjects: Sequence[Subject]) -> dict[str, Picture]:
    """The report's pictures by name."""
    names = _listed([each.name for each in subjects])
    made = [
        Picture(
            "fit",
            f"The readings, and the fitted curves of {names} beside the exact law.",
            ("" if subjects[0].is_crowd else "Each reading with a line to the model's answer at it. ")
            + f"The dashed line is the exact law, {LAW}, which no model was shown: what separates a reading from it is "
            "noise.",
            partial(figures.draw_fit, subjects),
        ),
        Picture(
            "losses",
            f"Training and validation loss of {names} by epoch, on logarithmic axes.",
            _losses_caption(subjects),
            partial(figures.draw_losses, subjects),
        ),
        Picture(
            "residuals",
            f"Residuals of {names} at the readings, in the fit and when each reading is left out.",
            _residuals_caption(subjects),
            partial(figures.draw_residuals, subjects),
        ),
        Picture(
            "extrapolation",
            beyond(subjects),
            f"Both models beside the exact law. {beyond(subjects)} Nothing in an answer tells that it is a guess: "
            "only a server that knows the training range can flag it.",
            partial(figures.draw_extrapolation, subjects),
        ),
    ]
    made += [_hidden_picture(each) for each in subjects if figures.has_one_hidden_layer(each.fitted.model)]
    return {picture.name: picture for picture in made}


def _losses_caption(subjects: Sequence[Subject]) -> str:
    always = (
        "Mean squared error as each epoch began; the line is the mean and the band the range of neighbouring epochs. "
        "A training loss below the dashed line is lower than the truth itself would have: it was bought with noise."
    )
    return " ".join([always, *filter(None, map(swing, subjects))])


def _residuals_caption(subjects: Sequence[Subject]) -> str:
    first = subjects[0]
    drawn, rows = len(first.left_out.rows), len(first.fitted.dataset)
    how = (
        "fitted anew without each reading"
        if drawn == rows
        else f"fitted anew to {drawn} of the {rows} readings, without each of them in turn"
    )
    return (
        f"Answer minus truth. For leave-one-out the model is {how}, by the same recipe, and asked for the one it never "
        "saw; the longer the line between the two marks, the more the model hung on that reading. Shaded is the "
        "interval that the model states of itself."
    )


def _hidden_picture(subject: Subject) -> Picture:
    layer = figures.hidden_layer(subject.fitted.model, np.array(subject.training_range))
    idle = figures.saturated_units(subject)
    saturated = (
        f" Saturated over the whole training range: {_listed([f'unit {unit}' for unit in idle])}; "
        "next to no gradient reaches what does not move."
        if idle
        else ""
    )
    return Picture(
        "hidden-layer",
        f"What each hidden unit of the {subject.name} adds to its answer, and the gradient of each unit's weight.",
        f"The answer is {number(layer.resting, 2)} °C plus the sum of the units. Beyond the last bend every unit is "
        f"constant, and so is the model.{saturated} On the right the gradient of the training loss by each unit's "
        "weight, as the last epoch found it.",
        partial(figures.draw_hidden_layer, subject),
    )


# Tables ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Parameter:
    """One fitted tensor as it is written: its numbers in full, so that they can be read back to the bit."""

    name: str
    shape: str
    values: str
    gradient: str


def parameters(subject: Subject) -> list[Parameter]:
    """Every parameter of a model, in the module's order."""
    fitted = subject.fitted
    return [
        Parameter(
            name,
            str(list(tensor.shape)),
            _numbers(tensor.detach().numpy()),
            _gradient(fitted.gradients.get(name), float(fitted.model.unit)),
        )
        for name, tensor in fitted.model.named_parameters()
    ]


def _numbers(values: NDArray[np.float32]) -> str:
    """Each number as the shortest text that gives the same float32 again."""
    return ", ".join(str(value) for value in values.ravel())


def _gradient(gradient: NDArray[np.float32] | None, unit: float) -> str:
    """The gradient in °C², to three digits."""
    return "" if gradient is None else ", ".join(f"{value * unit**2:.3g}" for value in gradient.ravel())


def formula(subject: Subject) -> str | None:
    """A linear model in plain °F, whatever its scaling, beside the exact law; None for others."""
    if subject.fitted.architecture.kind != "linear":
        return None
    (slope,), intercept = subject.fitted.model.affine()
    sign = "+" if intercept >= 0 else MINUS
    return f"C = {number(slope, 5)} · F {sign} {number(abs(intercept), 4)}"


def recipe(subjects: Sequence[Subject]) -> list[tuple[str, str]]:
    """How the report was made, as labels and values: enough to make it again."""
    dataset, split = subjects[0].fitted.dataset, subjects[0].fitted.split
    made = [
        ("readings", f"{len(dataset)}, {dataset.source}"),
        ("SHA-256 of the readings", dataset.sha256),
        ("split", f"{split.name}: {len(split.training)} to train on, {len(split.validation)} held out"),
    ]
    made += [(each.name, _training(each)) for each in subjects]
    made += [(package, version(package)) for package in PACKAGES]
    return [*made, ("Python", platform.python_version())]


def _training(subject: Subject) -> str:
    options, epochs = subject.fitted.options, len(subject.fitted.history)
    rate = f"{options.optimizer} at {options.learning_rate:g}"
    return f"seed {options.seed}, {rate}, {epochs:,} epochs on all training rows at once"


def content(subjects: Sequence[Subject], drawn: Mapping[str, Any]) -> dict[str, Any]:
    """All that the template asks for; the pictures, once drawn, come from whoever draws them."""
    simple, flexible = subjects
    conclusion, *details = findings(simple, flexible)
    return {
        "subjects": [
            {
                "name": each.name,
                "parameters": parameters(each),
                "formula": formula(each),
                "interval": each.evaluation.interval,
            }
            for each in subjects
        ],
        "law": f"C = {number(5 / 9, 5)} · F {MINUS} {number(160 / 9, 4)}",
        "readings": len(simple.fitted.dataset),
        "conclusion": conclusion,
        "findings": details,
        "measures": list(measures(subjects).values()),
        "plain_jackknife": [number(each.evaluation.left_out.plain_jackknife_half_width) for each in subjects],
        "recipe": recipe(subjects),
        "pictures": drawn,
    }
