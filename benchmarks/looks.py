"""How often a promotion is wrong, and how soon a right one comes, on simulated thermometers.

Two converters answer the same noisy readings. Each is off from the law by an offset of its own, and the reader's noise
is the same for both. After every observation somebody looks, and promotes when the rule says so: the sequential test of
`service.promotion`, or a paired t-test at the same level. `python -m benchmarks.looks` writes docs/canary/*.png, and
prints the figures of docs/canary.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from service.promotion import Rule, losses
from service.sequential import log_wealth_path
from training.plots import LIGHT, new_figure, png, style_axes

ROWS: Final = 5000
RUNS: Final = 1000
SEED: Final = 20_261_122
NOISE_CELSIUS: Final = 2.0
"""Of a person reading a dial, one standard deviation: what the published readings show."""
SPREAD_CELSIUS: Final = 0.3
"""How far each version's answer to a reading lies from its offset, one standard deviation."""
NORMAL_QUANTILE: Final = 1.6449
"""One-sided, for 5 %; with thirty rows and more Student's is nearly the same."""

Counts = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two converters, by how far each is off, in °C."""

    present_celsius: float
    candidate_celsius: float


EQUAL: Final = Pair(0.5, -0.5)
"""Equally good, and not the same."""
BETTER: Final = (Pair(0.5, 0.0), Pair(1.0, 0.0), Pair(2.0, 0.0), Pair(4.0, 0.0))


def gains(pair: Pair, rows: int, rule: Rule, generator: np.random.Generator) -> NDArray[np.float64]:
    """By how much the candidate's loss is smaller, row after row, in units of the cap: float64 `[rows]`."""
    noise = generator.normal(0, NOISE_CELSIUS, rows)
    present = losses(noise + pair.present_celsius + generator.normal(0, SPREAD_CELSIUS, rows), rule.cap_celsius)
    candidate = losses(noise + pair.candidate_celsius + generator.normal(0, SPREAD_CELSIUS, rows), rule.cap_celsius)
    return (present - candidate) / rule.cap_celsius


def first_by_betting(values: NDArray[np.float64], rule: Rule) -> float:
    """After how many rows the sequential test promotes; infinity for never."""
    return _first(log_wealth_path(values, 0.0) >= -math.log(rule.rate), rule.least_rows)


def first_by_looking(values: NDArray[np.float64], rule: Rule) -> float:
    """After how many rows somebody promotes who looks at the p-value of a paired t-test after each."""
    rows = np.arange(1, len(values) + 1)
    mean = np.cumsum(values) / rows
    variance = np.maximum(np.cumsum(values**2) / rows - mean**2, 1e-12)
    return _first(mean * np.sqrt(rows / variance) > NORMAL_QUANTILE, rule.least_rows)


def simulate(pair: Pair, runs: int, rows: int, rule: Rule, seed: int = SEED) -> tuple[Counts, Counts]:
    """After how many rows each of many runs promotes, by the sequential test and by looking at p-values: `[runs]`."""
    generator = np.random.default_rng(seed)
    made = [gains(pair, rows, rule, generator) for _ in range(runs)]
    return (
        np.array([first_by_betting(values, rule) for values in made]),
        np.array([first_by_looking(values, rule) for values in made]),
    )


def _first(decided: NDArray[np.bool_], least_rows: int) -> float:
    places = np.flatnonzero(decided[least_rows - 1 :])
    return float(places[0] + least_rows) if len(places) else math.inf


def promoted_by(firsts: Counts, rows: NDArray[np.int64]) -> Counts:
    """The part of the runs that has promoted after so many rows."""
    return np.searchsorted(np.sort(firsts), rows, side="right") / len(firsts)


def draw_equals(betting: Counts, looking: Counts, rule: Rule) -> Figure:
    """Draw how many runs promoted a canary that is no better, as time goes on."""
    rows = _places(rule)
    figure, axes = _figure("Promotions of a canary that is no better, with a look after every row")
    axes.set_ylim(0, 0.5)
    for firsts, name, colour in ((looking, "p < 0.05", LIGHT.second), (betting, "betting", LIGHT.first)):
        part = promoted_by(firsts, rows)
        axes.plot(rows, part, color=colour, linewidth=2)
        axes.annotate(f"{name}: {part[-1]:.1%}", (rows[-1], part[-1]), xytext=(-4, 4), color=colour,
                      textcoords="offset points", ha="right")  # fmt: skip
    axes.axhline(rule.rate, color=LIGHT.muted, linewidth=1, linestyle="--")
    axes.annotate(f"promised: at most {rule.rate:.0%}", (rows[-1], rule.rate), xytext=(-4, 4), color=LIGHT.muted,
                  textcoords="offset points", ha="right")  # fmt: skip
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
    betting, looking = simulate(EQUAL, RUNS, ROWS, rule)
    (directory / "false_promotions.png").write_bytes(png(draw_equals(betting, looking, rule)))
    for name, firsts in {"betting": betting, "p < 0.05": looking}.items():
        print(f"no better, {name}: {np.isfinite(firsts).mean():.1%} promoted")  # noqa: T201 - for the page
    better = [simulate(pair, RUNS // 5, ROWS, rule)[0] for pair in BETTER]
    (directory / "true_promotions.png").write_bytes(png(draw_better(better, rule)))
    for pair, firsts in zip(BETTER, better, strict=True):
        gain = gains(pair, 1_000_000, rule, np.random.default_rng(SEED)).mean() * rule.cap_celsius
        half, most = (float(np.quantile(firsts, level, method="higher")) for level in (0.5, 0.9))
        part = np.isfinite(firsts).mean()
        print(f"| {pair.present_celsius:g} °C | {gain:.2f} °C | {part:.0%} | {half:.0f} | {most:.0f} |")  # noqa: T201 - as above


if __name__ == "__main__":
    main()
