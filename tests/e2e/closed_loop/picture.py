"""Draws a run: the error of the answers over the days, which version made them, what happened, and what was killed."""

from typing import Final

from matplotlib.axes import Axes

from tests.e2e.closed_loop.world import Mark, World
from training import plots
from training.plots import LIGHT, Label

TITLE: Final = "A thermometer drifts, a source lies: only what is better takes over"
LANES: Final = ("database", "job", "server")
"""What is killed, each in a lane of its own, from below."""
_STEPS: Final = 3
_STEP_DAYS: Final = 12.0
"""Texts that are nearer to each other than this stand at different heights."""


def draw(world: World) -> bytes:
    """Draw it, as a PNG."""
    figure = plots.new_figure(LIGHT, TITLE, height_inches=4.6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(6, 1))
    plots.style_axes(above, LIGHT, y_label="mean absolute error (°C)")
    above.set_ylim(0.0, 1.5 * max(each.error_celsius for each in world.answered))
    above.set_xlim(0.0, world.day + 0.5)
    labels = _draw_errors(above, world)
    for axes in (above, below):
        for turn in world.turns:
            axes.axvline(turn.day, color=LIGHT.muted, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
    _write_turns(above, sorted(world.turns))
    _draw_kills(below, world)
    plots.label_right(above, labels)
    return plots.png(figure)


def _draw_errors(axes: Axes, world: World) -> list[Label]:
    labels = []
    versions = sorted({each.version for each in world.answered})
    for version, colour in zip(versions, LIGHT.series, strict=False):
        made = [each for each in world.answered if each.version == version]
        axes.plot(
            [each.day for each in made],
            [each.error_celsius for each in made],
            color=colour,
            linewidth=2.0,
            marker="o",
            markersize=3,
        )
        labels.append(Label(made[-1].error_celsius, f"version {version}", colour))
    return labels


def _write_turns(axes: Axes, turns: list[Mark]) -> None:
    """Say what happened, to the right of its day; of neighbours, one below the other."""
    _, top = axes.get_ylim()
    last_day, step = -_STEP_DAYS, 0
    for day, text in turns:
        step = (step + 1) % _STEPS if day - last_day < _STEP_DAYS else 0
        last_day = day
        axes.text(
            day + 0.25,
            top * (0.99 - 0.115 * step),
            text,
            color=LIGHT.muted,
            fontsize=plots.SMALL_POINTS,
            verticalalignment="top",
            bbox={"facecolor": LIGHT.surface, "edgecolor": "none", "pad": 1.0},
        )


def _draw_kills(axes: Axes, world: World) -> None:
    plots.style_axes(axes, LIGHT, x_label="days")
    axes.set_yticks(range(len(LANES)), [f"{lane} killed" for lane in LANES])
    axes.set_ylim(-0.6, len(LANES) - 0.4)
    places = [(kill.day, LANES.index(kill.text)) for kill in world.kills]
    axes.plot(*zip(*places, strict=True), color=LIGHT.ink, linestyle="", marker="x", markersize=6, markeredgewidth=1.6)
