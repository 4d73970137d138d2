"""The plots of docs/performance: what a request costs on each server, and how that grows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure

from benchmarks.peers import ALL, QUICKSILVER
from benchmarks.plan import FULL, ROWS_1024, ROWS_65536, SMALL, Closed
from benchmarks.summary import CPU, is_clean, onnxruntime_per_100k, spread
from training.plots import LIGHT, SMALL_POINTS, new_figure, png, style_axes

_THEME: Final = LIGHT
_TITLES: Final = {server.key: server.title for server in ALL}
_COSTS: Final = ((SMALL, "cost_small"), (ROWS_1024, "cost_1024"), (ROWS_65536, "cost_65536"))


def draw_all(results: Mapping[str, Any], directory: Path) -> dict[str, str]:
    """Write every plot that the results have figures for; return what each shows, by its file's name."""
    figures: dict[str, tuple[Figure, str]] = {}
    for workload, name in _COSTS:
        bars = _costs(results, workload)
        if bars:
            title = f"CPU-seconds for 100,000 requests: {workload.title}"
            figures[name] = (_draw_bars(bars, title), title)
    for key, steps in results["growth"].items():
        lines = _lines(steps)
        if lines:
            growth = next(growth for growth in FULL.growth if growth.key == key)
            title = f"What a request costs as {growth.axis} grow"
            figures[f"growth_{key}"] = (_draw_growth(lines, growth.axis, title, by_row=key == "rows"), title)
    models = _lines({QUICKSILVER.key: results["models"]})
    if models:
        title = "What a request costs as models in the repository grow"
        figures["growth_models"] = (_draw_growth(models, "models", title, by_row=False), title)
    for name, (figure, _) in figures.items():
        (directory / f"{name}.png").write_bytes(png(figure))
    return {name: title for name, (_, title) in figures.items()}


def _costs(results: Mapping[str, Any], workload: Closed) -> list[tuple[str, float, float, float]]:
    """Title, median, least and greatest CPU-seconds, the cheapest first."""
    rows = []
    for server in ALL:
        value = spread(results["samples"].get(server.key, {}).get(workload.key, ()), CPU)
        if value is not None:
            rows.append((server.title, value.median, value.low, value.high))
    alone = onnxruntime_per_100k(results["limits"], workload.values)
    if rows and alone is not None:
        rows.append(("ONNX Runtime alone", alone, alone, alone))
    return sorted(rows, key=lambda row: row[1])


def _draw_bars(rows: Sequence[tuple[str, float, float, float]], title: str) -> Figure:
    figure = new_figure(_THEME, title, height_inches=1.1 + 0.27 * len(rows))
    axes = figure.subplots()
    style_axes(axes, _THEME, x_label="logarithmic; lines span the rounds")
    places = range(len(rows))
    axes.barh(places, [row[1] for row in rows], height=0.62, color=[_colour(row[0]) for row in rows])
    for place, (_, median, low, high) in zip(places, rows, strict=True):
        axes.plot([low, high], [place, place], color=_THEME.ink, linewidth=1)
        axes.annotate(
            f"{median:,.3g}", (high, place), xytext=(4, 0), textcoords="offset points",
            verticalalignment="center", fontsize=SMALL_POINTS, color=_THEME.muted,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(rows[0][2] / 2, rows[-1][3] * 2)
    axes.set_yticks(list(places), [row[0] for row in rows])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    return figure


def _colour(title: str) -> str:
    if title.startswith("Quicksilver"):
        return _THEME.first
    if title.startswith(("Echo", "ONNX")):
        return _THEME.muted
    return _THEME.second


def _lines(steps: Mapping[str, Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Points (size, CPU-seconds a request) of each server, by its title."""
    lines = {}
    for server, samples in steps.items():
        points = [(float(size), sample[CPU] / 100_000) for size, sample in samples.items() if is_clean(sample)]
        if len(points) > 1:
            lines[_TITLES[server]] = sorted(points)
    return lines


def _draw_growth(lines: Mapping[str, Sequence[tuple[float, float]]], axis: str, title: str, *, by_row: bool) -> Figure:
    """One plot of the cost of a request; beside it, where rows grow, one of the cost of a row."""
    figure = new_figure(_THEME, title, height_inches=3.6)
    axes = figure.subplots(1, 2 if by_row else 1, squeeze=False)[0]
    kinds = [("CPU microseconds a request", False), ("CPU microseconds a row", True)][: len(axes)]
    for panel, (label, divide) in zip(axes, kinds, strict=True):
        style_axes(panel, _THEME, x_label=axis, y_label=label)
        panel.set_xscale("log")
        panel.set_yscale("log")
        for colour, (name, points) in zip(_THEME.series, lines.items(), strict=False):
            heights = [1e6 * cost / (size if divide else 1) for size, cost in points]
            panel.plot([size for size, _ in points], heights, color=colour, marker="o", markersize=3.5, label=name)
    axes[-1].legend(frameon=False, fontsize=SMALL_POINTS, labelcolor=_THEME.ink)
    return figure
