"""The gallery's figures: the activation functions, and how neurons compose into a curve. Pure functions of a theme."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Final

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from training import models, plots
from training.neurons import Neuron, Term, TwoLayers
from training.options import ACTIVATIONS
from training.pages import Picture
from training.plots import Theme, number, short
from training.sensitivity import (
    SENSITIVE_SHARE,
    Function,
    Range,
    remaining_slope,
    saturated_ranges,
    sensitive_ranges,
    slope,
)

DRAWN: Final = 6.0
"""Pictures show inputs from -DRAWN to DRAWN. They have no unit: an activation sees weighted sums, not temperatures."""

STEP: Final = 0.5
STEPPED_INPUTS: Final = (-2.2, 0.1, 2.5)
"""Inputs of tanh that are looked at up close: saturated, sensitive, saturated."""

_ROOM: Final = 3.5  # the width, in inputs, that the word "saturated" needs in a panel
_SAMPLES: Final = 1001
_COLUMNS: Final = 3
_TICKS: Final = (-6, -3, 0, 3, 6)


# Pictures -------------------------------------------------------------------------------------------------------------


def draw_activations(activations: Mapping[str, Function], theme: Theme) -> Figure:
    """Draw each activation function above its slope, over −DRAWN … DRAWN, with its sensitive range marked."""
    rows = math.ceil(len(activations) / _COLUMNS)
    figure = plots.new_figure(
        theme,
        f"Sensitive, in the bands, is where the slope is at least {SENSITIVE_SHARE:.0%} of its greatest",
        height_inches=0.7 + 3.0 * rows,
    )
    grid = GridSpec(2 * rows, _COLUMNS, figure=figure, height_ratios=[2.6, 1] * rows)
    for index, (name, function) in enumerate(activations.items()):
        row, column = divmod(index, _COLUMNS)
        upper = figure.add_subplot(grid[2 * row, column])
        lower = figure.add_subplot(grid[2 * row + 1, column], sharex=upper)
        _draw_activation(upper, lower, name, function, theme)
        if column == 0:
            plots.name_y(upper, "output (no unit)", theme)
            plots.name_y(lower, "slope", theme)
        if index + _COLUMNS >= len(activations):
            lower.set_xlabel("input x (no unit)", color=theme.muted, fontsize=plots.TEXT_POINTS)
    figure.align_ylabels()
    return figure


def _draw_activation(upper: Axes, lower: Axes, name: str, function: Function, theme: Theme) -> None:
    """Draw one function in `upper` and its slope in `lower`."""
    x = torch.linspace(-DRAWN, DRAWN, _SAMPLES, dtype=torch.float64)
    ranges = sensitive_ranges(function)
    plots.style_axes(upper, theme, title=name)
    plots.style_axes(lower, theme)
    for axes in (upper, lower):
        _mark(axes, ranges, theme)
    upper.plot(x, function(x), color=theme.muted, linewidth=2)
    lower.plot(x, slope(function, x), color=theme.second, linewidth=1.5)
    for low, high in ranges:
        inside = x[(x > low) & (x < high)]
        upper.plot(inside, function(inside), color=theme.first, linewidth=2.6)
    conditions = ", ".join(map(str, ranges))
    upper.set_title(f"sensitive: {conditions}", color=theme.first, fontsize=plots.SMALL_POINTS, loc="right")
    _name_saturated(upper, function, ranges, theme)
    upper.tick_params(labelbottom=False)
    lower.set_ylim(-0.08, 1.12)
    lower.set_yticks([0, 0.5, 1])


def _mark(axes: Axes, ranges: Sequence[Range], theme: Theme) -> None:
    """Shade the sensitive ranges, and look from −DRAWN to DRAWN."""
    for low, high in ranges:
        axes.axvspan(max(low, -DRAWN), min(high, DRAWN), color=theme.shade, zorder=0)
    axes.set_xlim(-DRAWN, DRAWN)
    axes.set_xticks(_TICKS)


def _name_saturated(axes: Axes, function: Function, ranges: Sequence[Range], theme: Theme) -> None:
    """Write "saturated" where it applies and there is room; where a slope is left for good, write how much."""
    for saturated in saturated_ranges(ranges):
        left, right = max(saturated.low, -DRAWN), min(saturated.high, DRAWN)
        if right - left < _ROOM:
            continue
        left_over = short(remaining_slope(function, saturated), 3)
        text = "saturated" if left_over == "0" else f"saturated\n(slope {left_over})"
        place = ((left + right + 2 * DRAWN) / (4 * DRAWN), 0.5)
        plots.write(axes, place, text, theme.muted, "center")


def draw_tanh_steps(theme: Theme) -> Figure:
    """Draw what the same step of the input does to tanh where it is sensitive and where it is saturated."""
    changes = [float(torch.tanh(torch.tensor(x + STEP)) - torch.tanh(torch.tensor(x))) for x in STEPPED_INPUTS]
    figure = plots.new_figure(
        theme,
        f"The same step of {short(STEP)} at the input moves tanh by {number(max(changes))} where it is steep "
        f"and by {number(min(changes), 3)} where it is saturated",
        height_inches=4.4,
    )
    axes = figure.add_subplot()
    plots.style_axes(axes, theme, x_label="input x (no unit)", y_label="tanh(x) (no unit)")
    _mark(axes, sensitive_ranges(torch.tanh), theme)
    x = torch.linspace(-DRAWN, DRAWN, _SAMPLES)
    axes.plot(x, torch.tanh(x), color=theme.muted, linewidth=2)
    for start, change in zip(STEPPED_INPUTS, changes, strict=True):
        _draw_step(axes, start, change, theme)
    axes.set_ylim(-1.2, 1.35)
    conditions = ", ".join(map(str, sensitive_ranges(torch.tanh)))
    plots.write(axes, (0.5, 0.94), f"sensitive: {conditions}", theme.first, "center")
    for side in (0.12, 0.88):
        plots.write(axes, (side, 0.94), "saturated", theme.muted, "center")
    return figure


def _draw_step(axes: Axes, start: float, change: float, theme: Theme) -> None:
    """Draw a step of STEP from `start` along the curve, with the input, the output and the change of the output."""
    x = torch.linspace(start, start + STEP, 50)
    y = torch.tanh(x)
    axes.plot(x, y, color=theme.second, linewidth=5, solid_capstyle="butt")
    axes.plot([start], [float(y[0])], "o", color=theme.first, markersize=6)
    is_upper = float(y.mean()) > 0  # the curve leaves room below its upper arm, and above its lower one
    axes.annotate(
        f"tanh({short(start)}) = {number(float(y[0]), 4)}\nx + {short(STEP)} adds {number(change, 4)}",
        xy=(start + STEP / 2, float(y.mean())),
        xytext=(14, -12) if is_upper else (-14, 12),
        textcoords="offset points",
        horizontalalignment="left" if is_upper else "right",
        verticalalignment="top" if is_upper else "bottom",
        color=theme.ink,
        fontsize=plots.TEXT_POINTS,
    )


FAMILIES: Final = {
    "weight: how steep": (Term(Neuron(0.5, 0), 1), Term(Neuron(1, 0), 1), Term(Neuron(4, 0), 1)),
    "bias: where": (Term(Neuron(1, 2), 1), Term(Neuron(1, 0), 1), Term(Neuron(1, -2), 1)),
    "next layer's weight: how tall": (Term(Neuron(1, 0), 1), Term(Neuron(1, 0), 0.4), Term(Neuron(1, 0), -0.7)),
}
"""Neurons that differ from one another in one thing, by what that thing decides."""

SUMMED: Final = (
    Term(Neuron(1, 0), 1.5),
    Term(Neuron(3, 6), 0.8),
    Term(Neuron(3, -2), -1.2),
    Term(Neuron(2, -7), 1),
)
"""Four neurons whose weighted sum is no longer the shape of any one of them."""


def draw_families(theme: Theme) -> Figure:
    """Draw what a tanh neuron's weight, its bias and the weight of its answer do to its curve."""
    figure = plots.new_figure(theme, "A tanh neuron is one bend, and three numbers shape it", height_inches=3.7)
    x = torch.linspace(-DRAWN, DRAWN, _SAMPLES)
    for index, (title, terms) in enumerate(FAMILIES.items()):
        axes = figure.add_subplot(1, len(FAMILIES), index + 1)
        plots.style_axes(axes, theme, x_label="input x (no unit)", title=title)
        for line, (term, colour) in enumerate(zip(terms, theme.series, strict=False)):
            axes.plot(x, term(x), color=colour, linewidth=2)
            plots.write(axes, (0.97, 0.03 + 0.08 * (len(terms) - 1 - line)), str(term), colour)
        axes.set_xlim(-DRAWN, DRAWN)
        axes.set_xticks(_TICKS)
        axes.set_ylim(-2.1, 1.2)
        axes.set_yticks([-1, 0, 1])
    plots.name_y(figure.axes[0], "output (no unit)", theme)
    return figure


def draw_sum(theme: Theme) -> Figure:
    """Draw four neurons, and below each the weighted sum of the neurons up to it."""
    figure = plots.new_figure(
        theme, "Four bends, added one by one, make a curve that no single one has", height_inches=4.8
    )
    x = torch.linspace(-DRAWN, DRAWN, _SAMPLES)
    above = list(figure.subplots(2, len(SUMMED), sharex=True, sharey="row"))
    total = torch.zeros_like(x)
    for index, (term, colour) in enumerate(zip(SUMMED, theme.series, strict=True)):
        upper, lower = above[0][index], above[1][index]
        plots.style_axes(upper, theme)
        upper.set_title(str(term), color=colour, fontsize=plots.SMALL_POINTS, loc="left")
        upper.plot(x, term(x), color=colour, linewidth=2)
        plots.style_axes(lower, theme, x_label="input x (no unit)")
        if index:
            lower.plot(x, total, color=theme.muted, linewidth=1.2, linestyle=(0, (4, 2)))
        total = total + term(x)
        lower.plot(x, total, color=theme.ink, linewidth=2.2)
        plots.write(lower, (0.97, 0.05), "the first" if index == 0 else f"sum of {index + 1}", theme.ink)
    above[0][0].set_xlim(-DRAWN, DRAWN)
    above[0][0].set_xticks(_TICKS)
    plots.name_y(above[0][0], "one neuron (no unit)", theme)
    plots.name_y(above[1][0], "sum so far (no unit)", theme)
    return figure


COMPOSED: Final = {
    "a bump becomes a switch": TwoLayers((Term(Neuron(1, 1.5), 4), Term(Neuron(1, -1.5), -4)), -4),
    "of two steps one is hidden": TwoLayers((Term(Neuron(2, 5), 1.2), Term(Neuron(2, -5), 1.2)), 1.5),
    "a wave as tall as its tails": TwoLayers((Term(Neuron(1.5, 0), 9), Term(Neuron(0.6, 0), -13)), 0),
}
"""Second-layer neurons of two neurons each, by what the second tanh does to the sum it receives."""

_NAMES: Final = ("A", "B")  # of the first layer's neurons in a formula


def draw_two_layers(theme: Theme) -> Figure:
    """Draw, for each composition, the first layer's neurons, their weighted sum, and the second layer's answer."""
    figure = plots.new_figure(theme, "Two layers: a neuron of neurons bends what is bent already", height_inches=7)
    grid = figure.subplots(len(COMPOSED), 3, sharex=True, squeeze=False)
    for row, (effect, composed) in zip(grid, COMPOSED.items(), strict=True):
        _draw_composition(row, composed, effect, theme)
    for axes, label in zip(grid[-1], ("layer 1: A and B", "what layer 2 receives: z", "layer 2: tanh(z)"), strict=True):
        axes.set_xlabel(f"input x (no unit)\n{label}", color=theme.muted, fontsize=plots.TEXT_POINTS)
    figure.align_ylabels()
    return figure


def _draw_composition(row: Sequence[Axes], composed: TwoLayers, effect: str, theme: Theme) -> None:
    """Draw one composition in three axes side by side."""
    x = torch.linspace(-DRAWN, DRAWN, _SAMPLES)
    first, received, second = row
    for axes in row:
        plots.style_axes(axes, theme)
        axes.set_xlim(-DRAWN, DRAWN)
        axes.set_xticks(_TICKS)
    for index, (name, term, colour) in enumerate(zip(_NAMES, composed.first, theme.series, strict=False)):
        first.plot(x, term.neuron(x), color=colour, linewidth=2)
        plots.write(first, (0.97, 0.16 - 0.12 * index), f"{name} = {term.neuron}", colour)
    first.set_ylim(-1.9, 1.15)
    first.set_yticks([-1, 0, 1])
    plots.name_y(first, "output (no unit)", theme)
    received.plot(x, composed.received(x), color=theme.ink, linewidth=2)
    received.set_title(f"z = {composed}", color=theme.ink, fontsize=plots.SMALL_POINTS, loc="left")
    second.plot(x, composed(x), color=theme.fourth, linewidth=2.4)
    second.set_ylim(-1.15, 1.15)
    second.set_yticks([-1, 0, 1])
    second.set_title(f"tanh(z): {effect}", color=theme.fourth, fontsize=plots.SMALL_POINTS, loc="left")


# The pictures, and what is said of them -------------------------------------------------------------------------------


def pictures() -> list[Picture]:
    """The gallery's pictures in the order in which they are told."""
    activations: dict[str, Function] = {name: models.activation(name) for name in ACTIVATIONS}
    conditions = {name: ", ".join(map(str, sensitive_ranges(function))) for name, function in activations.items()}
    listed = "; ".join(f"{name}: {condition}" for name, condition in conditions.items())
    return [
        Picture(
            "activations",
            f"Each activation function above its slope. Sensitive ranges: {listed}.",
            f"Sensitive means here: the size of the slope, by autograd, is at least {SENSITIVE_SHARE:.0%} of the "
            f"greatest the function has anywhere. {listed}. Elsewhere a function is saturated: its output hardly moves "
            "and next to no gradient flows back. What leaky_relu keeps there is small, but it does not fade.",
            functools.partial(draw_activations, activations),
        ),
        Picture(
            "tanh-steps",
            "tanh with three steps of the same width marked: one in the sensitive range and two beyond it.",
            "The same step at the input, taken at three places. What a saturated neuron is told, it hardly passes on, "
            "and what its loss is, it hardly learns.",
            draw_tanh_steps,
        ),
        Picture(
            "neuron",
            "Three panels of tanh curves with different weights, biases, and weights of the next layer.",
            "The weight sets how steep the bend is, the bias where it stands, and the weight that the next layer gives "
            "the answer how tall it is and which way it goes. Training a hidden layer of n neurons chooses 3n such "
            "numbers and the output's bias.",
            draw_families,
        ),
        Picture(
            "sum",
            "Above: four weighted tanh neurons. Below: their sum as it grows from one to four.",
            "One hidden layer: the output is a weighted sum of bends. Dashed is the sum before the neuron above was "
            "added. Beyond the last bend the sum is constant, whatever the truth does there.",
            draw_sum,
        ),
        Picture(
            "two-layers",
            "Three compositions, each with its first layer, the sum the second layer receives, and its answer.",
            "Two hidden layers: a neuron of the second bends the sum it receives once more. Where that sum is far from "
            "0 the second tanh saturates, and shapes of the first layer vanish or turn into switches.",
            draw_two_layers,
        ),
    ]
