"""The house style: legible in both themes, labels apart, and no global state."""

import subprocess
import sys
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from numpy.typing import NDArray

from tests.training.pages_read import is_blank, pixels
from training import plots
from training.plots import DARK, LIGHT, THEMES, Label, Theme

# Machado, Oliveira and Fernandes 2009, severity 1.0: how linear RGB is seen without one kind of cone.
COLOUR_BLINDNESS = {
    "none": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def linear_rgb(colour: str) -> NDArray[np.float64]:
    """A colour on the screen as linear light, without gamma."""
    values = np.array(to_rgb(colour))
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """Contrast ratio, 1 … 21, as WCAG 2.2 defines it."""
    low, high = sorted(float(linear_rgb(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear RGB to CIELAB under D65, in which a distance of about 2.3 can just be seen."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = to_xyz @ np.clip(linear, 0, 1) / [0.95047, 1, 1.08883]
    fx, fy, fz = (np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (x, y, z))
    return np.array([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_text_is_readable(theme: Theme) -> None:
    """Every colour that text may have keeps WCAG's 4.5 to 1 on the surface and on a shaded range."""
    ratios = {(ink, ground): contrast(ink, ground) for ink in theme.inks for ground in (theme.surface, theme.shade)}
    assert min(ratios.values()) >= 4.5, ratios


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
@pytest.mark.parametrize("sight", COLOUR_BLINDNESS)
def test_lines_can_be_told_apart(theme: Theme, sight: str) -> None:
    """No two line colours look alike to anybody, and the two models' colours are far apart."""
    seen = [lab(COLOUR_BLINDNESS[sight] @ linear_rgb(colour)) for colour in theme.series]
    assert min(np.linalg.norm(one - other) for one, other in combinations(seen, 2)) > 9
    assert np.linalg.norm(seen[0] - seen[1]) > 60


@given(
    heights=st.lists(st.floats(-10, 10), min_size=1, max_size=12).map(sorted),
    gap=st.floats(0, 3),
)
def test_spread_keeps_labels_apart(heights: list[float], gap: float) -> None:
    """Heights end up at least the gap apart, in their order and around the same mean; what was apart stays."""
    moved = plots.spread(heights, gap)
    assert all(high - low >= gap - 1e-9 for low, high in pairwise(moved))
    assert np.mean(moved) == pytest.approx(np.mean(heights), abs=1e-9)
    if all(high - low >= gap for low, high in pairwise(heights)):
        assert moved == pytest.approx(heights, abs=1e-9)


@given(heights=st.lists(st.floats(-10, 10), min_size=2, max_size=6).map(sorted), gap=st.floats(0.1, 3), data=st.data())
def test_spread_moves_no_more_than_it_must(heights: list[float], gap: float, data: st.DataObject) -> None:
    """No other arrangement that keeps the gaps has a smaller sum of squared moves."""
    best = np.sum((np.array(plots.spread(heights, gap)) - heights) ** 2)
    start = data.draw(st.floats(-12, 12))
    extra = data.draw(st.lists(st.floats(0, 2), min_size=len(heights) - 1, max_size=len(heights) - 1))
    other = start + np.concatenate([[0.0], np.cumsum(np.array(extra) + gap)])
    assert best <= np.sum((other - heights) ** 2) + 1e-6


def draw_labels(heights: list[float]) -> Figure:
    """A figure with labels at some heights of 0 … 1."""
    figure = plots.new_figure(LIGHT, "Labels", height_inches=4)
    axes = figure.add_subplot()
    plots.style_axes(axes, LIGHT, x_label="x (no unit)", y_label="y (no unit)")
    axes.set_ylim(0, 1)
    plots.label_right(axes, [Label(height, f"label\n{height}", LIGHT.first) for height in heights])
    return figure


@pytest.mark.parametrize("heights", [[0.5, 0.5, 0.5], [0.1, 0.9], [0.95, 0.97, 0.2], [0.0, 0.01, 0.02, 1.0]])
def test_labels_neither_overlap_nor_are_clipped(heights: list[float]) -> None:
    """Labels at the right edge stand inside the figure, and none covers another, however close their heights."""
    figure = draw_labels(heights)
    plots.png(figure)
    texts = [child for child in figure.axes[0].get_children() if isinstance(child, Annotation)]
    boxes = [text.get_window_extent() for text in texts]
    assert len(boxes) == len(heights)
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert all(figure.bbox.x1 >= box.x1 and box.x0 >= figure.axes[0].bbox.x1 for box in boxes)


@pytest.mark.parametrize("title", ["Short", "A sentence that goes on and on " * 6])
def test_titles_fit(title: str) -> None:
    """A title is wrapped so that no line of it leaves the figure."""
    figure = plots.new_figure(LIGHT, title, height_inches=4)
    plots.png(figure)
    (text,) = [child for child in figure.get_children() if isinstance(child, Text) and child.get_text()]
    assert text.get_text().replace("\n", " ") == title.strip()
    assert text.get_window_extent().x1 <= figure.bbox.x1


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(1.005, 2, "1.00"), (-2.5, 1, "−2.5"), (-0.001, 2, "0.00"), (100, 1, "100.0"), (-0.0, 0, "0")],
)
def test_number(value: float, digits: int, text: str) -> None:
    """Numbers have a true minus sign, and zero has none."""
    assert plots.number(value, digits) == text


@pytest.mark.parametrize(("value", "text"), [(2.0, "2"), (2.5, "2.5"), (-0.25, "−0.25"), (100.0, "100"), (-0.001, "0")])
def test_short(value: float, text: str) -> None:
    """A short number ends in no zero behind the point, and keeps those before it."""
    assert plots.short(value) == text


def test_the_same_figure_gives_the_same_bytes() -> None:
    """A PNG holds the picture alone: drawn twice it is the same to the byte, it decodes, and it is not blank."""
    first, second = (plots.png(draw_labels([0.3, 0.6])) for _ in range(2))
    assert first == second
    image = pixels(first)
    assert image.shape == (640, 1280, 3)
    assert not is_blank(image)


def test_themes_differ() -> None:
    """The dark theme is drawn on a dark surface, the light one on a light one."""
    corners = [pixels(plots.png(plots.new_figure(theme, "Surface", height_inches=2)))[0, 0] for theme in (DARK, LIGHT)]
    assert corners[0].max() < 64
    assert corners[1].min() > 192


def test_no_global_state() -> None:
    """Drawing neither imports pyplot nor changes matplotlib's settings."""
    program = """
import sys, matplotlib
settings = lambda: {name: matplotlib.rcParams[name] for name in matplotlib.rcParams if name != "backend"}
before = settings()
from training import gallery_figures, plots
plots.png(gallery_figures.draw_families(plots.DARK))
sys.exit("pyplot" if "matplotlib.pyplot" in sys.modules else "settings" if before != settings() else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert done.stderr.strip() == ""
    assert done.returncode == 0
