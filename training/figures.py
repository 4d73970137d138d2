"""The report's figures: what two fitted converters of °F do, side by side. Pure functions of fits and a theme."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from torch import nn

from training import law, plots
from training.evaluate import Evaluation
from training.fit import Fitted
from training.leave_one_out import LeaveOneOut
from training.metrics import LawReport, wide_range
from training.models import Converter
from training.plots import Label, Theme, number, short
from training.sensitivity import sensitive_ranges

BOILING_FAHRENHEIT: Final = 212.0

READING_AXIS: Final = "thermometer reading (°F)"
CELSIUS_AXIS: Final = "temperature (°C)"

_SAMPLES: Final = 801
_ROUNDING: Final = 10.0  # the fit is drawn between whole tens of °F
_BINS: Final = 240  # of epochs, evenly on a logarithmic axis
_UNIT_COLUMNS: Final = 4
_CROWD: Final = 40  # more readings than this are drawn small, and without a line to each answer


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A fitted converter of °F under the name it goes by, with what leaving readings out showed of it."""

    name: str
    fitted: Fitted
    left_out: LeaveOneOut
    evaluation: Evaluation

    @property
    def law(self) -> LawReport:
        """The true errors. Raises ValueError where the readings are not in °F: no exact law is known for others."""
        if self.evaluation.law is None:
            raise ValueError(f"the columns {self.fitted.dataset.columns} are no reading in °F")
        return self.evaluation.law

    @property
    def fahrenheit(self) -> NDArray[np.float64]:
        """All readings [N]."""
        return self.fitted.dataset.features[:, 0]

    @property
    def training_range(self) -> tuple[float, float]:
        """Least and greatest reading in °F among those it was fitted to."""
        low, high = self.fitted.training_range
        return float(low[0]), float(high[0])

    @property
    def is_crowd(self) -> bool:
        """Whether there are so many readings that single ones cannot be told apart in a picture."""
        return len(self.fitted.dataset) > _CROWD

    def answer(self, fahrenheit: NDArray[np.float64]) -> NDArray[np.float64]:
        """Answers in °C [N] for readings [N]."""
        return self.fitted.model.predict(fahrenheit[:, None])

    def residuals(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Answer minus truth in °C, on some rows of the readings."""
        return self.answer(self.fahrenheit[rows]) - self.fitted.dataset.celsius[rows]


def probe(subject: Subject) -> float:
    """The reading in °F at which extrapolation is judged: 212, or the end of the wide range where 212 was learned."""
    low, high = subject.training_range
    return BOILING_FAHRENHEIT if high < BOILING_FAHRENHEIT else wide_range(low, high)[1]


def side(error: float, digits: int = 1) -> str:
    """Say in words how far an answer lies from the exact law, from its error in °C."""
    if round(abs(error), digits) == 0:
        return "as the exact law does"
    return f"{number(abs(error), digits)} °C {'above' if error > 0 else 'below'} the exact law"


# The fit --------------------------------------------------------------------------------------------------------------


def fit_range(fahrenheit: NDArray[np.float64]) -> tuple[float, float]:
    """The whole tens of °F that enclose all readings: 20 … 90 for the built-in ones."""
    low = math.floor(fahrenheit.min() / _ROUNDING) * _ROUNDING
    high = math.ceil(fahrenheit.max() / _ROUNDING) * _ROUNDING
    return low, high


def draw_fit(subjects: Sequence[Subject], theme: Theme) -> Figure:
    """Draw each model's curve through the readings, and its answers at them."""
    misses = {each.name: _root_mean_square(each.residuals(np.arange(len(each.fitted.dataset)))) for each in subjects}
    figure = plots.new_figure(
        theme, f"{len(subjects[0].fahrenheit)} readings, missed by {_named(misses)}, RMS", height_inches=5.0
    )
    panels = _panels(figure, subjects, theme)
    for axes, subject, colour in zip(panels, subjects, theme.series, strict=False):
        low, high = fit_range(subject.fahrenheit)
        x = np.linspace(low, high, _SAMPLES)
        axes.plot(
            x, law.celsius(x), color=theme.muted, linewidth=1.2, linestyle=(0, (4, 3)), zorder=2.4, gid="exact law"
        )
        axes.plot(x, subject.answer(x), color=colour, linewidth=2.2, zorder=2.5, gid=subject.name)
        _draw_readings(axes, subject, colour, theme)
        axes.set_xlim(low, high)
        axes.set_title(subject.name, color=colour, fontsize=plots.TITLE_POINTS, loc="left")
    plots.name_y(panels[0], CELSIUS_AXIS, theme)
    key = {
        "reading it was fitted to": _marker("o", theme.ink, theme.ink),
        "reading held out": _marker("o", theme.ink, theme.surface),
        "exact law": _dashes(theme),
    }
    if not subjects[0].is_crowd:
        key["the model's answer"] = _marker("x", theme.muted, theme.muted)
    _key(figure, theme, key)
    return figure


def _draw_readings(axes: Axes, subject: Subject, colour: str, theme: Theme) -> None:
    """Draw the readings, filled where they were fitted to, and a line from each to the model's answer."""
    fahrenheit, celsius, split = subject.fahrenheit, subject.fitted.dataset.celsius, subject.fitted.split
    size, order, edge = (2.5, 2.0, theme.muted) if subject.is_crowd else (6.0, 3.0, theme.ink)
    for rows, face, gid in (
        (split.training, edge, "training readings"),
        (split.validation, theme.surface, "validation readings"),
    ):
        (points,) = axes.plot(fahrenheit[rows], celsius[rows], "o", color=edge, markersize=size, zorder=order, gid=gid)
        points.set_markerfacecolor(face)
    if not subject.is_crowd:
        answers = subject.answer(fahrenheit)
        axes.vlines(fahrenheit, celsius, answers, color=colour, linewidth=1, alpha=0.7)
        axes.plot(fahrenheit, answers, "x", markersize=6, color=colour, zorder=3.5, gid="answers")


def _root_mean_square(errors: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(errors**2)))


def _named(values: Mapping[str, float], unit: str = "°C") -> str:
    """Write a value for each subject: `1.74 °C (linear) and 1.47 °C (tanh MLP)`."""
    return " and ".join(f"{number(value)} {unit} ({name})" for name, value in values.items())


# Losses ---------------------------------------------------------------------------------------------------------------


def draw_losses(subjects: Sequence[Subject], theme: Theme) -> Figure:
    """Draw training and validation loss by epoch, both axes logarithmic, beside the loss of the exact law."""
    ends = {each.name: each.fitted.training_loss for each in subjects}
    figure = plots.new_figure(theme, f"The training loss ends at {_named(ends, '°C²')}", height_inches=4.7)
    panels = _panels(figure, subjects, theme)
    for axes, subject, colour in zip(panels, subjects, theme.series, strict=False):
        history = subject.fitted.history
        floor = _law_loss(subject)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.axhline(floor, color=theme.muted, linewidth=1.2, linestyle=(0, (4, 3)), gid="exact law")
        for losses, line_colour, name in (
            (history.validation, theme.ink, "validation"),
            (history.training, colour, "training"),
        ):
            epochs, low, middle, high = envelope(losses)
            axes.fill_between(epochs, low, high, color=line_colour, alpha=0.25, linewidth=0)
            axes.plot(
                epochs, middle, color=line_colour, linewidth=2.2 if name == "training" else 1.3, gid=f"{name} loss"
            )
        axes.set_xlim(1, max(len(history), 2))
        axes.set_xlabel("epoch", color=theme.muted, fontsize=plots.TEXT_POINTS)
        axes.set_title(subject.name, color=colour, fontsize=plots.TITLE_POINTS, loc="left")
    plots.name_y(panels[0], "mean squared error (°C²)", theme)
    _key(
        figure,
        theme,
        {
            "training loss": Line2D([], [], color=theme.muted, linewidth=2.2),
            "validation loss": Line2D([], [], color=theme.ink, linewidth=1.3),
            "training loss of the exact law": _dashes(theme),
            "range of neighbouring epochs": Line2D([], [], color=theme.muted, alpha=0.25, linewidth=8.0),
        },
    )
    return figure


def envelope(losses: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Thin out losses [epochs] for a logarithmic axis: epochs from 1, and the least, mean and greatest loss at each.

    A loss that jumps from one epoch to the next would be drawn as a solid block; as a range and a mean it can be read.
    """
    edges = np.unique(np.round(np.geomspace(1, len(losses) + 1, _BINS + 1)).astype(int))
    bins = [losses[start - 1 : end - 1] for start, end in pairwise(edges)]
    middle, low, high = (np.array([f(each) for each in bins]) for f in (np.mean, np.min, np.max))
    return (edges[:-1] + edges[1:] - 1) / 2, low, middle, high


def _law_loss(subject: Subject) -> float:
    """Mean squared error in °C² of the exact law on the training readings: their noise."""
    rows = subject.fitted.split.training
    errors = law.celsius(subject.fahrenheit[rows]) - subject.fitted.dataset.celsius[rows]
    return float(np.mean(errors**2))


# Residuals ------------------------------------------------------------------------------------------------------------


def draw_residuals(subjects: Sequence[Subject], theme: Theme) -> Figure:
    """Draw each reading's residual in the fit, and the one it has when the model is refitted without it."""
    misses = {each.name: _root_mean_square(each.left_out.residuals) for each in subjects}
    figure = plots.new_figure(theme, f"Left out, missed by {_named(misses)}, RMS", height_inches=4.7)
    panels = _panels(figure, subjects, theme)
    for axes, subject, colour in zip(panels, subjects, theme.series, strict=False):
        _draw_interval(axes, subject, theme)
        axes.axhline(0, color=theme.ink, linewidth=1)
        rows = subject.left_out.rows
        x, inside, outside = subject.fahrenheit[rows], subject.residuals(rows), subject.left_out.residuals
        size = 3.0 if subject.is_crowd else 5.5
        axes.vlines(x, inside, outside, color=colour, linewidth=1.2, alpha=0.7)
        face = np.where(np.isin(rows, subject.fitted.split.training), colour, theme.surface)
        axes.scatter(x, inside, s=size**2, c=list(face), edgecolors=colour, zorder=3, gid="fit")
        axes.plot(x, outside, "D", markersize=size, color=theme.ink, gid="left out")
        axes.set_xlim(*fit_range(subject.fahrenheit))
        axes.set_title(subject.name, color=colour, fontsize=plots.TITLE_POINTS, loc="left")
    plots.name_y(panels[0], "answer minus truth (°C)", theme)
    _key(
        figure,
        theme,
        {
            "in the fit": _marker("o", theme.muted, theme.muted),
            "held out by the split": _marker("o", theme.muted, theme.surface),
            "refitted without it": _marker("D", theme.ink, theme.ink),
        },
    )
    return figure


def _draw_interval(axes: Axes, subject: Subject, theme: Theme) -> None:
    """Shade the stated interval around an answer, turned around: where residuals lie that it covers."""
    stated = subject.evaluation.interval
    half = stated.half_width_celsius
    axes.axhspan(-half, half, color=theme.shade, zorder=0, gid="interval")
    text = f"shaded: {stated.coverage:.0%} interval, ±{number(half)} °C"
    axes.set_title(text, color=theme.muted, fontsize=plots.SMALL_POINTS, loc="right")


# Beyond the readings --------------------------------------------------------------------------------------------------


def draw_extrapolation(subjects: Sequence[Subject], theme: Theme) -> Figure:
    """Draw the models over the wide range beside the exact law, with the range they were trained on shaded."""
    low, high = subjects[0].training_range
    at = probe(subjects[0])
    truth = float(law.celsius(np.array(at)))
    answers = [float(each.answer(np.array([at]))[0]) for each in subjects]
    worst = int(np.argmax(np.abs(np.array(answers) - truth)))
    figure = plots.new_figure(
        theme,
        f"At {short(at)} °F the {subjects[worst].name} answers {number(answers[worst], 1)} °C, "
        f"{side(answers[worst] - truth)}",
        height_inches=5.0,
    )
    axes = figure.add_subplot()
    plots.style_axes(axes, theme, x_label=READING_AXIS, y_label=CELSIUS_AXIS)
    axes.axvspan(low, high, color=theme.shade, zorder=0, gid="training range")
    x = np.linspace(*wide_range(low, high), _SAMPLES)
    axes.plot(x, law.celsius(x), color=theme.ink, linewidth=1.4, linestyle=(0, (4, 3)), gid="exact law")
    labels = [Label(truth, f"exact law\n{number(truth, 1)} °C", theme.ink)]
    for subject, answer, colour in zip(subjects, answers, theme.series, strict=False):
        axes.plot(x, subject.answer(x), color=colour, linewidth=2.2, gid=subject.name)
        axes.plot([at], [answer], "o", color=colour, markersize=6)
        labels.append(Label(answer, f"{subject.name}\n{number(answer, 1)} °C", colour))
    axes.axvline(at, color=theme.muted, linewidth=0.8, linestyle=(0, (1, 2)))
    axes.set_xlim(x[0], x[-1])
    _name_training_range(axes, low, high, theme)
    plots.label_right(axes, labels)
    return figure


def _name_training_range(axes: Axes, low: float, high: float, theme: Theme) -> None:
    axes.annotate(
        f"trained on\n{short(low)} … {short(high)} °F",
        xy=((low + high) / 2, 0.97),
        xycoords=axes.get_xaxis_transform(),
        horizontalalignment="center",
        verticalalignment="top",
        color=theme.muted,
        fontsize=plots.SMALL_POINTS,
    )


# The hidden layer -----------------------------------------------------------------------------------------------------


class HiddenLayer(NamedTuple):
    """The one hidden layer of a model, for readings [N]: for each unit what it takes in and what it adds.

    `received` [units, N] has no unit. `contributions` [units, N] are in °C: with `resting` their sum is the answer.
    """

    received: NDArray[np.float64]
    contributions: NDArray[np.float64]
    resting: float


def has_one_hidden_layer(model: Converter) -> bool:
    """Whether what a hidden unit adds can be told apart: so it is with exactly one hidden layer."""
    return model.architecture.kind == "mlp" and len(model.architecture.hidden) == 1


def hidden_layer(model: Converter, fahrenheit: NDArray[np.float64]) -> HiddenLayer:
    """Take a model with one hidden layer apart, for readings [N]."""
    with torch.no_grad():
        scaled = model.get_submodule("scaling")(torch.tensor(fahrenheit, dtype=torch.float32)[:, None])
        received = model.get_submodule("hidden_linear")(scaled)
        output = model.get_parameter("output_linear.weight")[0] * model.unit
        added = model.get_submodule("hidden_activation")(received) * output
        resting: float = model.get_submodule("restore")(model.get_parameter("output_linear.bias")).item()
    return HiddenLayer(received.T.double().numpy(), added.T.double().numpy(), resting)


def saturated_units(subject: Subject) -> list[int]:
    """The hidden units whose activation is saturated over the whole training range."""
    received = hidden_layer(subject.fitted.model, np.linspace(*subject.training_range, _SAMPLES)).received
    is_sensitive = np.zeros_like(received, dtype=bool)
    for low, high in sensitive_ranges(subject.fitted.model.get_submodule("hidden_activation")):
        is_sensitive |= (low < received) & (received < high)
    return np.flatnonzero(~is_sensitive.any(axis=1)).tolist()


def draw_hidden_layer(subject: Subject, theme: Theme) -> Figure:
    """Draw what each hidden unit adds to the answer, and the gradient that its weight was left with."""
    x = np.linspace(*wide_range(*subject.training_range), _SAMPLES)
    layer = hidden_layer(subject.fitted.model, x)
    units = len(layer.contributions)
    rows = math.ceil(units / _UNIT_COLUMNS)
    figure = plots.new_figure(
        theme,
        f"The {subject.name} is a sum of {units} units; grey is where a unit is saturated",
        height_inches=1.5 + 1.55 * rows,
    )
    grid = figure.add_gridspec(rows, _UNIT_COLUMNS + 1, width_ratios=[1] * _UNIT_COLUMNS + [1.5])
    activation = subject.fitted.model.get_submodule("hidden_activation")
    first: Axes | None = None
    for unit in range(units):
        row, column = divmod(unit, _UNIT_COLUMNS)
        axes = figure.add_subplot(grid[row, column], sharex=first, sharey=first)
        first = first or axes
        plots.style_axes(axes, theme, title=f"unit {unit}")
        axes.axvspan(*subject.training_range, color=theme.shade, zorder=0, gid="training range")
        _draw_unit(axes, activation, (x, layer.received[unit], layer.contributions[unit]), theme)
        axes.set_xlim(x[0], x[-1])
        axes.tick_params(labelleft=column == 0, labelbottom=unit + _UNIT_COLUMNS >= units)
    figure.supylabel("what the unit adds to the answer (°C)", color=theme.muted, fontsize=plots.TEXT_POINTS)
    figure.supxlabel(
        READING_AXIS + "; shaded: the training range", color=theme.muted, fontsize=plots.TEXT_POINTS, x=0.4
    )
    _draw_gradient(figure.add_subplot(grid[:, _UNIT_COLUMNS]), subject, theme)
    return figure


def _draw_unit(axes: Axes, activation: nn.Module, curves: tuple[NDArray[np.float64], ...], theme: Theme) -> None:
    """Draw what one unit adds, in colour where its activation is sensitive; `curves` are readings, input and output."""
    x, received, added = curves
    axes.plot(x, added, color=theme.muted, linewidth=1.4, gid="contribution")
    for low, high in sensitive_ranges(activation):
        axes.plot(x, np.where((low < received) & (received < high), added, np.nan), color=theme.second, linewidth=2.4)


def hidden_gradient(subject: Subject) -> NDArray[np.float64]:
    """Gradient [units] of the training loss, in °C², by each hidden unit's weight, as the last epoch found it."""
    gradient = subject.fitted.gradients["hidden_linear.weight"][:, 0].astype(np.float64)
    return gradient * float(subject.fitted.model.unit) ** 2


def _draw_gradient(axes: Axes, subject: Subject, theme: Theme) -> None:
    gradient = hidden_gradient(subject)
    plots.style_axes(axes, theme, x_label="gradient (°C²)", title="gradient by weight")
    units = np.arange(len(gradient))
    axes.barh(units, gradient, color=theme.second, height=0.6)
    axes.axvline(0, color=theme.ink, linewidth=1)
    axes.locator_params(axis="x", nbins=4)
    axes.set_yticks(units, [f"unit {unit}" for unit in units])
    axes.invert_yaxis()


# What the figures share -----------------------------------------------------------------------------------------------


def _panels(figure: Figure, subjects: Sequence[Subject], theme: Theme) -> list[Axes]:
    """One panel a subject, side by side, with a common y-axis."""
    panels = [figure.add_subplot(1, len(subjects), 1)]
    panels += [figure.add_subplot(1, len(subjects), index + 1, sharey=panels[0]) for index in range(1, len(subjects))]
    for axes in panels:
        plots.style_axes(axes, theme, x_label=READING_AXIS)
    return panels


def _marker(shape: str, edge: str, face: str) -> Line2D:
    return Line2D([], [], linestyle="none", marker=shape, markeredgecolor=edge, markerfacecolor=face, markersize=6)


def _dashes(theme: Theme) -> Line2D:
    """How the exact law is drawn."""
    return Line2D([], [], color=theme.muted, linewidth=1.2, linestyle=(0, (4, 3)))


def _key(figure: Figure, theme: Theme, entries: Mapping[str, Line2D]) -> None:
    """Name the markers under the panels, where they are too many to be labelled one by one."""
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside lower left",
        ncols=len(entries),
        frameon=False,
        fontsize=plots.SMALL_POINTS,
        labelcolor=theme.ink,
        handlelength=1.6,
        columnspacing=2.0,
    )
