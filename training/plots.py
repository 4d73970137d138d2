"""One design for all figures: two themes, a house style for axes, and labels that stand beside what they name.

A figure is made by a pure function of data and a `Theme`. Nothing here touches matplotlib's global state: no pyplot, no
rcParams. Every figure is an object of its own, drawn by Agg, and looks the same with and without a screen.

The colours start from the Okabe-Ito palette, which people with colour-blindness can tell apart, darkened or lightened
until text in them can be read on the theme's surface. No figure relies on colour alone: a line carries its name.
"""

import io
import itertools
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

WIDTH_INCHES: Final = 8.0
DOTS_PER_INCH: Final = 160

TITLE_POINTS: Final = 12.0
TEXT_POINTS: Final = 9.5
SMALL_POINTS: Final = 8.5

_TITLE_CHARACTERS_PER_INCH: Final = 9.5  # of DejaVu Sans bold at TITLE_POINTS, measured
_LINE_HEIGHT: Final = 1.35  # of a label, in its font size


@dataclass(frozen=True, slots=True)
class Theme:
    """The colours of one surface. Every colour but `grid` and `shade` is readable as text on `surface`."""

    name: str
    surface: str
    ink: str
    muted: str
    grid: str
    shade: str
    """Fills a range that is marked; text on it stays readable."""
    first: str
    second: str
    third: str
    fourth: str

    @property
    def series(self) -> tuple[str, str, str, str]:
        """The colours of lines, in the order in which they are given out."""
        return (self.first, self.second, self.third, self.fourth)

    @property
    def inks(self) -> tuple[str, ...]:
        """Every colour that text may have."""
        return (self.ink, self.muted, *self.series)


LIGHT: Final = Theme(
    name="light",
    surface="#ffffff",
    ink="#1b1f24",
    muted="#5b636d",
    grid="#e3e6ea",
    shade="#eef2f6",
    first="#0067a3",
    second="#b94a00",
    third="#00785a",
    fourth="#9c4a80",
)
DARK: Final = Theme(
    name="dark",
    surface="#16191d",
    ink="#eceff2",
    muted="#a3abb5",
    grid="#30363d",
    shade="#22272e",
    first="#5fb7ee",
    second="#f09a5a",
    third="#3fc39c",
    fourth="#e08fc2",
)
THEMES: Final = (LIGHT, DARK)


def new_figure(theme: Theme, title: str, *, height_inches: float, width_inches: float = WIDTH_INCHES) -> Figure:
    """Return an empty figure whose title, a sentence that says what is seen, stands at its top left."""
    figure = Figure(figsize=(width_inches, height_inches), dpi=DOTS_PER_INCH, facecolor=theme.surface)
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.06)
    figure.suptitle(
        textwrap.fill(title, int(width_inches * _TITLE_CHARACTERS_PER_INCH)),
        x=0.012,
        horizontalalignment="left",
        fontsize=TITLE_POINTS,
        fontweight="bold",
        color=theme.ink,
    )
    return figure


def style_axes(axes: Axes, theme: Theme, *, x_label: str = "", y_label: str = "", title: str = "") -> None:
    """Give axes the house style. The labels carry the units."""
    axes.set_facecolor(theme.surface)
    axes.set_axisbelow(True)
    axes.grid(visible=True, color=theme.grid, linewidth=0.7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(theme.muted)
    axes.tick_params(which="both", colors=theme.muted, labelsize=SMALL_POINTS, length=3)
    axes.set_xlabel(x_label, color=theme.muted, fontsize=TEXT_POINTS)
    name_y(axes, y_label, theme)
    axes.set_title(title, color=theme.ink, fontsize=TEXT_POINTS, loc="left")


def name_y(axes: Axes, text: str, theme: Theme) -> None:
    """Name the y-axis, with its unit."""
    axes.set_ylabel(text, color=theme.muted, fontsize=TEXT_POINTS)


def write(
    axes: Axes, place: tuple[float, float], text: str, colour: str, side: Literal["left", "center", "right"] = "right"
) -> None:
    """Write small text whose `side` stands at `place`, in fractions of the axes."""
    axes.text(*place, text, transform=axes.transAxes, horizontalalignment=side, color=colour, fontsize=SMALL_POINTS)


def png(figure: Figure) -> bytes:
    """Draw a figure as a PNG. The same figure gives the same bytes: no date and no version stands in them."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


# Labels ---------------------------------------------------------------------------------------------------------------


class Label(NamedTuple):
    """A text that belongs to the height `y` of the axes' right edge, in data units."""

    y: float
    text: str
    colour: str


def label_right(axes: Axes, labels: Iterable[Label]) -> None:
    """Write labels outside the right edge, each at its height, moved apart where they would overlap.

    Call it when the limits of the y-axis are set: heights are measured in them.
    """
    figure = axes.get_figure(root=True)
    if figure is None:
        raise ValueError("these axes belong to no figure")
    figure.draw_without_rendering()  # lays the figure out, so that the height of the axes is known
    ordered = sorted(labels, key=lambda label: label.y)
    low, high = axes.get_ylim()
    axes_height_points = axes.get_window_extent().height * 72 / figure.dpi
    fractions = [(label.y - low) / (high - low) for label in ordered]
    lines = max((label.text.count("\n") + 1 for label in ordered), default=1)
    gap = lines * _LINE_HEIGHT * TEXT_POINTS / axes_height_points
    for label, height in zip(ordered, spread(fractions, gap), strict=True):
        axes.annotate(
            label.text,
            xy=(1, height),
            xycoords="axes fraction",
            xytext=(6, 0),
            textcoords="offset points",
            verticalalignment="center",
            color=label.colour,
            fontsize=TEXT_POINTS,
            annotation_clip=False,
        )


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Move ascending heights apart to at least `gap`, keeping their order and, of every cluster, its mean.

    The least total squared move: pool-adjacent-violators on the heights less their share of the gaps (Barlow et al.,
    Statistical Inference under Order Restrictions, 1972).
    """
    clusters: list[list[float]] = []
    for index, height in enumerate(heights):
        clusters.append([height - index * gap])
        while len(clusters) > 1 and _mean(clusters[-2]) > _mean(clusters[-1]):
            violator = clusters.pop()
            clusters[-1] += violator
    pooled = itertools.chain.from_iterable([_mean(cluster)] * len(cluster) for cluster in clusters)
    return [height + index * gap for index, height in enumerate(pooled)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


# Numbers --------------------------------------------------------------------------------------------------------------


MINUS: Final = "\N{MINUS SIGN}"


def number(value: float, digits: int = 2) -> str:
    """Write a number with a true minus sign, `digits` after the point, and no minus before a zero."""
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", MINUS)


def short(value: float, digits: int = 2) -> str:
    """Write a number as `number` does, without the zeros at its end."""
    text = number(value, digits)
    return text.rstrip("0").rstrip(".") if "." in text else text
