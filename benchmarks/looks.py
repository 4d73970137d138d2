"""How often a promotion is wrong, and how soon a right one comes, on simulated thermometers.

Two converters answer the same noisy readings. Each is off from the law by an offset of its own, and the reader's noise
is the same for both; in half of the simulations most of it lasts from row to row. After every observation somebody
looks, and promotes when the rule says so: the sequential test of `service.promotion`, or a paired t-test at the same
level. `python -m benchmarks.looks` writes docs/canary/*.png, and prints the figures of docs/canary.md.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from service.observations.figures import share
from service.promotion import Rule, block_means, losses, wanted
from service.sequential import log_wealth_path
from training.plots import LIGHT, new_figure, png, style_axes

ROWS: Final = 5000
RUNS: Final = 1000
SEED: Final = 20_261_122
NOISE_CELSIUS: Final = 2.0
"""Of a person reading a dial, one standard deviation: what the published readings show."""
SPREAD_CELSIUS: Final = 0.3
"""How far each version's answer to a reading lies from its offset, one standard deviation."""
LASTING: Final = (0.0, 0.9, 0.95)
"""The part of the noise that stays from row to row, in each simulation of equals."""
OTHER_BLOCKS: Final = (1, 10, 40)
"""Rows of a block, beside those of the rule."""
BETTING: Final = ("betting", "betting, lasting noise")
NORMAL_QUANTILE: Final = 1.6449
"""One-sided, for 5 %; with thirty rows and more Student's is nearly the same."""

_ABOVE_THE_PROMISE: Final = {BETTING[0]: 12, BETTING[1]: 24}
"""Points between the end of a line that lies on the axis and its name."""

Counts = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two converters, by how far each is off, in °C."""

    present_celsius: float
    candidate_celsius: float


EQUAL: Final = Pair(0.5, -0.5)
"""Equally good, and not the same."""
BETTER: Final = (Pair(0.5, 0.0), Pair(1.0, 0.0), Pair(2.0, 0.0), Pair(4.0, 0.0))


def gains(pair: Pair, *, runs: int, rows: int, rule: Rule, lasting: float = 0.0, seed: int = SEED) -> Counts:
    """By how much the candidate's loss is smaller, in units of the cap, in many runs: float64 `[runs, rows]`.

    `lasting` is the part of the reader's noise that stays from one row to the next: a first-order autoregression.
    """
    generator = np.random.default_rng(seed)
    noise = generator.normal(0, NOISE_CELSIUS, (runs, rows))
    for row in range(1, rows if lasting else 0):
        noise[:, row] = lasting * noise[:, row - 1] + math.sqrt(1 - lasting**2) * noise[:, row]
    off = [pair.present_celsius, pair.candidate_celsius]
    present, candidate = (
        losses(noise + each + generator.normal(0, SPREAD_CELSIUS, noise.shape), rule.cap_celsius) for each in off
    )
    return (present - candidate) / rule.cap_celsius


def first_by_betting(values: Counts, rule: Rule) -> Counts:
    """After how many rows the sequential test promotes, in each run: `[runs]`; infinity for never."""
    paths = [log_wealth_path(block_means(run, rule.block_rows), 0.0) for run in values]
    rows = (np.arange(len(paths[0])) + 1) * rule.block_rows  # a block decides when it is full
    return _first(np.array(paths) >= wanted(rule), rows, rule)


def first_by_looking(values: Counts, rule: Rule) -> Counts:
    """After how many rows somebody promotes who looks at the p-value of a paired t-test after each: `[runs]`."""
    rows = np.arange(1, values.shape[1] + 1)
    mean = np.cumsum(values, axis=1) / rows
    variance = np.maximum(np.cumsum(values**2, axis=1) / rows - mean**2, 1e-12)
    return _first(mean * np.sqrt(rows / variance) > NORMAL_QUANTILE, rows, rule)


def _first(decided: NDArray[np.bool_], rows: NDArray[np.int64], rule: Rule) -> Counts:
    """After how many rows each run is decided first, of the looks after `rows`: from the least on that is asked for."""
    counted = decided & (rows >= rule.least_rows)
    return np.where(counted.any(axis=1), rows[counted.argmax(axis=1)].astype(np.float64), math.inf)


def promoted_by(firsts: Counts, rows: NDArray[np.int64]) -> Counts:
    """The part of the runs that has promoted after so many rows."""
    return np.searchsorted(np.sort(firsts), rows, side="right") / len(firsts)


def draw_equals(wrong: Mapping[str, Counts], rule: Rule) -> Figure:
    """Draw how many runs promoted a canary that is no better, as time goes on."""
    rows = _places(rule)
    figure, axes = _figure("Promotions of a canary that is no better, with a look after every row")
    axes.set_ylim(0, 1.0)
    for (name, firsts), colour in zip(wrong.items(), LIGHT.series, strict=False):
        part = promoted_by(firsts, rows)
        axes.plot(rows, part, color=colour, linewidth=2)
        above = _ABOVE_THE_PROMISE.get(name, 4)
        axes.annotate(f"{name}: {part[-1]:.1%}", (rows[-1], part[-1]), xytext=(-4, above), color=colour,
                      textcoords="offset points", ha="right")  # fmt: skip
    axes.axhline(rule.rate, color=LIGHT.muted, linewidth=1, linestyle="--")
    axes.annotate(f"promised: at most {rule.rate:.0%}", (rows[len(rows) // 3], rule.rate), xytext=(0, 4),
                  color=LIGHT.muted, textcoords="offset points")  # fmt: skip
    return figure


def draw_better(all_firsts: Sequence[Counts], rule: Rule) -> Figure:
    """Draw how many runs promoted a canary that is better, as time goes on, for each of `BETTER`."""
    rows = _places(rule)
    figure, axes = _figure("Promotions of a canary that is better")
    for pair, firsts, colour in zip(BETTER, all_firsts, LIGHT.series, strict=True):
        part = promoted_by(firsts, rows)
        axes.plot(rows, part, color=colour, linewidth=2)
        place = min(int(np.searchsorted(part, 0.5)), len(rows) - 1)
        axes.annotate(f"{pair.present_celsius:g} °C off", (rows[place], part[place]), xytext=(6, -4), color=colour,
                      textcoords="offset points")  # fmt: skip
    return figure


def _figure(title: str) -> tuple[Figure, Axes]:
    figure = new_figure(LIGHT, title, height_inches=3.6)
    axes = figure.subplots()
    style_axes(axes, LIGHT, x_label="observations", y_label="part of the runs that promoted")
    axes.set_xscale("log")
    axes.set_ylim(0, 1.05)
    return figure, axes


def _places(rule: Rule) -> NDArray[np.int64]:
    return np.unique(np.geomspace(rule.least_rows, ROWS, 200).astype(np.int64))


def main(directory: Path = Path("docs/canary")) -> None:
    """Simulate, draw, and print the figures."""
    rule = Rule()
    directory.mkdir(parents=True, exist_ok=True)
    noises = {lasting: gains(EQUAL, runs=RUNS, rows=ROWS, rule=rule, lasting=lasting) for lasting in LASTING}
    own, shared = noises[0.0], noises[0.9]
    drawn = {
        "p < 0.05, lasting noise": first_by_looking(shared, rule),
        "p < 0.05": first_by_looking(own, rule),
        BETTING[1]: first_by_betting(shared, rule),
        BETTING[0]: first_by_betting(own, rule),
    }
    (directory / "false_promotions.png").write_bytes(png(draw_equals(drawn, rule)))
    for block_rows in (rule.block_rows, *OTHER_BLOCKS):
        of_blocks = replace(rule, block_rows=block_rows)
        rates = " | ".join(_rate(first_by_betting(values, of_blocks)) for values in noises.values())
        print(f"| betting on blocks of {block_rows} | {rates} |")  # noqa: T201 - for the page
    print(f"| p < 0.05 | {' | '.join(_rate(first_by_looking(values, rule)) for values in noises.values())} |")  # noqa: T201 - as above
    better = [gains(pair, runs=RUNS // 5, rows=ROWS, rule=rule) for pair in BETTER]
    all_firsts = [first_by_betting(values, rule) for values in better]
    (directory / "true_promotions.png").write_bytes(png(draw_better(all_firsts, rule)))
    for pair, values, firsts in zip(BETTER, better, all_firsts, strict=True):
        gain = values.mean() * rule.cap_celsius
        half, most = (float(np.quantile(firsts, level, method="higher")) for level in (0.5, 0.9))
        part = np.isfinite(firsts).mean()
        print(f"| {pair.present_celsius:g} °C | {gain:.2f} °C | {part:.0%} | {half:.0f} | {most:.0f} |")  # noqa: T201 - as above


def _rate(firsts: Counts) -> str:
    """The part of the runs that promoted, with the bounds that hold it with 95 %."""
    found = share(int(np.isfinite(firsts).sum()), len(firsts))
    return f"{found.value:.1%} ({found.lower:.1%} … {found.upper:.1%})".replace("%", " %")


if __name__ == "__main__":
    main()
