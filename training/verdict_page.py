"""A verdict as one HTML page, with nothing outside itself: a pure function of the verdict."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from matplotlib.figure import Figure

from training import pages, plots
from training.gate import GroupErrors
from training.pages import Picture
from training.plots import Label, Theme, number, short
from training.verdict import Verdict

_HEADLINES: Final = {
    "accepted": "The challenger takes part",
    "rejected": "The challenger is rejected",
    "not_enough_data": "Not enough data to judge by",
    "failed": "No verdict",
}
_HOUR: Final = 3600.0


def page(verdict: Verdict) -> bytes:
    """The page."""
    drawn = [pages.draw(_picture(verdict.errors_over_time))] if verdict.errors_over_time else []
    return pages.render(
        "verdict.html",
        verdict=verdict,
        headline=_HEADLINES[verdict.outcome],
        made_at=moment(verdict.made_at_seconds),
        pictures=drawn,
        parts=[
            (name, part.rows, moment(part.since_seconds), moment(part.until_seconds), ", ".join(part.sources))
            for name, part in verdict.observations.parts.items()
        ],
        champion_until=moment(verdict.champion.observed_until_seconds) if verdict.champion else "",
        rules=_rules(verdict),
        number=number,
    ).encode()


def moment(seconds: float | None) -> str:
    """A Unix time as people read it, in UTC; a dash for none."""
    if seconds is None:
        return "–"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _rules(verdict: Verdict) -> list[tuple[str, str]]:
    rules, bounds, recipe = verdict.rules, verdict.bounds, verdict.recipe
    return [
        ("window", f"{short(rules.window_seconds / _HOUR)} h"),
        ("most observations", f"{rules.most_rows}"),
        ("least observations", f"{rules.minimum_rows} used, {rules.minimum_held_out} held out"),
        ("least sources", f"{rules.minimum_sources}, with {rules.minimum_source_rows} held-out rows each"),
        ("a source's share", f"at most {rules.source_share:.0%}, in each stretch of time and over all"),
        ("outliers", f"beyond {rules.outlier_deviations:g} robust standard deviations from the line of a stretch"),
        ("held out", f"the newest {rules.held_out_share:.0%}"),
        ("absolute bound", f"{bounds.absolute_celsius:g} °C"),
        ("margin", f"{bounds.margin_celsius:g} °C"),
        ("sources apart", f"at most {bounds.agreement_celsius:g} °C"),
        ("significance", f"{bounds.significance:g}"),
        ("fits", f"{', '.join(recipe.kinds)}; {recipe.seeds} seeds from {recipe.first_seed}"),
        ("base data", verdict.base_data or "none"),
    ]


def _picture(groups: Sequence[GroupErrors]) -> Picture:
    ours = sum(group.challenger for group in groups) / len(groups)
    said = f"The challenger's error over the held-out rows is {number(ours)} °C"
    if all(group.champion is not None for group in groups):
        theirs = sum(group.champion or 0.0 for group in groups) / len(groups)
        said += f", the champion's {number(theirs)} °C"
    return Picture(
        name="errors-over-time",
        alternative=f"{said}, drawn over time in {len(groups)} groups of rows.",
        caption="Mean absolute errors over groups of held-out rows, by time. Neither model was fitted to any of them.",
        draw=lambda theme: draw_errors(groups, said, theme),
    )


def draw_errors(groups: Sequence[GroupErrors], title: str, theme: Theme) -> Figure:
    """Draw both models' errors over the held-out groups, against hours since the first of them."""
    figure = plots.new_figure(theme, title, height_inches=3.6)
    axes = figure.add_subplot()
    plots.style_axes(axes, theme, x_label="hours since the first held-out row", y_label="mean absolute error (°C)")
    start = groups[0].since_seconds
    hours = [((group.since_seconds + group.until_seconds) / 2 - start) / _HOUR for group in groups]
    lines = {"challenger": [group.challenger for group in groups]}
    if all(group.champion is not None for group in groups):
        lines["champion"] = [group.champion or 0.0 for group in groups]
    for (name, values), colour in zip(lines.items(), theme.series, strict=False):
        axes.plot(hours, values, color=colour, linewidth=2.0, marker="o", markersize=4, gid=name)
    axes.set_ylim(bottom=0.0)
    plots.label_right(
        axes,
        [Label(values[-1], name, colour) for (name, values), colour in zip(lines.items(), theme.series, strict=False)],
    )
    return figure
