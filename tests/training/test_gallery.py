"""The gallery: where activations are sensitive, what neurons compose into, and the page that shows it."""

import argparse
import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from tests.training.pages_read import Page, is_blank, pixels
from training import gallery, gallery_figures, models, plots
from training.neurons import Neuron, Term, TwoLayers
from training.options import ACTIVATIONS, Activation
from training.sensitivity import Range, remaining_slope, saturated_ranges, sensitive_ranges, slope

INPUTS = torch.linspace(-7.95, 7.95, 100, dtype=torch.float64)  # none on a kink

shares = st.floats(0.001, 0.9)
hundredths = st.integers(-500, 500).map(lambda value: value / 100)
neurons = st.builds(Neuron, hundredths, hundredths)


@given(share=shares)
def test_tanh_is_sensitive_where_analysis_says(share: float) -> None:
    """The slope of tanh, 1 - tanh², is at least a share s of its greatest for |x| up to artanh(sqrt(1 - s))."""
    edge = math.atanh(math.sqrt(1 - share))
    (found,) = sensitive_ranges(torch.tanh, share)
    assert found == pytest.approx(Range(-edge, edge), abs=1e-9)


@given(share=shares)
def test_sigmoid_is_sensitive_where_analysis_says(share: float) -> None:
    """The sigmoid is tanh at half the input: its range is twice as wide."""
    edge = 2 * math.atanh(math.sqrt(1 - share))
    (found,) = sensitive_ranges(torch.sigmoid, share)
    assert found == pytest.approx(Range(-edge, edge), abs=1e-9)


@given(share=shares)
def test_softplus_is_sensitive_where_analysis_says(share: float) -> None:
    """The slope of softplus is the sigmoid, which is a share s from ln(s / (1 - s)) on."""
    (found,) = sensitive_ranges(torch.nn.functional.softplus, share)
    assert found == pytest.approx(Range(math.log(share / (1 - share)), math.inf), abs=1e-6)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("hardtanh", Range(-1, 1)), ("relu", Range(0, math.inf)), ("leaky_relu", Range(0, math.inf))],
)
def test_kinks_bound_the_sensitive_range(name: Activation, expected: Range) -> None:
    """Functions made of straight lines are sensitive between their kinks."""
    (found,) = sensitive_ranges(models.activation(name))
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slopes_are_slopes(name: Activation) -> None:
    """Autograd's slope is the rise over a small step, for every activation on offer."""
    function = models.activation(name)
    step = 1e-6
    rise = (function(INPUTS + step) - function(INPUTS - step)) / (2 * step)
    torch.testing.assert_close(slope(function, INPUTS), rise, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_input_is_sensitive_or_saturated(name: Activation) -> None:
    """The sensitive and the saturated ranges cover the line without overlap."""
    sensitive = sensitive_ranges(models.activation(name))
    ranges = sorted([*sensitive, *saturated_ranges(sensitive)])
    assert ranges[0].low == -math.inf
    assert ranges[-1].high == math.inf
    assert [each.high for each in ranges[:-1]] == [each.low for each in ranges[1:]]


def test_a_range_in_several_pieces() -> None:
    """A function that is steep twice has two sensitive ranges."""
    found = sensitive_ranges(lambda x: torch.nn.functional.hardtanh(x + 5) + torch.nn.functional.hardtanh(x - 5))
    assert [tuple(each) for each in found] == [pytest.approx((-6, -4)), pytest.approx((4, 6))]


@pytest.mark.parametrize(("name", "left"), [("leaky_relu", 0.01), ("relu", 0), ("tanh", 0)])
def test_what_slope_is_left(name: Activation, left: float) -> None:
    """Far out in saturation a leaky ReLU keeps a hundredth of its slope, the others nothing."""
    function = models.activation(name)
    saturated = saturated_ranges(sensitive_ranges(function))[0]
    assert remaining_slope(function, saturated) == pytest.approx(left, abs=1e-9)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (Range(-2.178, 2.178), "|x| < 2.18"),
        (Range(0, math.inf), "x > 0"),
        (Range(-math.inf, -1.5), "x < −1.5"),
        (Range(-1, 2), "−1 < x < 2"),
        (Range(-math.inf, math.inf), "every x"),
    ],
)
def test_ranges_read_as_conditions(given: Range, text: str) -> None:
    """A range is written as a condition on x."""
    assert str(given) == text


# Neurons --------------------------------------------------------------------------------------------------------------


def evaluate(formula: str, **values: float) -> float:
    """The value of a formula as it is written in a picture."""
    program = re.sub(r"(\d) ?([A-Za-z])", r"\1*\2", formula.replace("−", "-"))
    return float(eval(program, {"__builtins__": {}, "tanh": math.tanh}, values))  # noqa: S307 - formulas of ours


@given(neuron=neurons, weight=hundredths, x=st.floats(-6, 6))
def test_formulas_say_what_is_drawn(neuron: Neuron, weight: float, x: float) -> None:
    """A formula, read as mathematics, gives what the neuron and its weighted answer give."""
    at = torch.tensor(x, dtype=torch.float64)
    assert evaluate(str(neuron), x=x) == pytest.approx(float(neuron(at)), abs=1e-9)
    term = Term(neuron, weight)
    assert evaluate(str(term), x=x) == pytest.approx(float(term(at)), abs=1e-9)


@given(first=st.lists(st.builds(Term, neurons, hundredths), min_size=1, max_size=4), bias=hundredths, x=hundredths)
def test_two_layers_compose(first: list[Term], bias: float, x: float) -> None:
    """The second layer receives what its formula says of A, B, …, and answers with tanh of it."""
    composed = TwoLayers(tuple(first), bias)
    at = torch.tensor(x, dtype=torch.float64)
    letters = {name: float(term.neuron(at)) for name, term in zip("ABCD", first, strict=False)}
    received = evaluate(str(composed), **letters)
    assert float(composed.received(at)) == pytest.approx(received, abs=1e-9)
    assert float(composed(at)) == pytest.approx(math.tanh(received), abs=1e-9)


# Pictures -------------------------------------------------------------------------------------------------------------


def bands(axes: Axes) -> Iterator[tuple[float, float]]:
    """Left and right edge of every shaded range."""
    for patch in axes.patches:
        if isinstance(patch, Rectangle):
            yield patch.get_x(), patch.get_x() + patch.get_width()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_bands_are_the_sensitive_ranges(name: Activation) -> None:
    """What is shaded, above and below, is the sensitive range cut to the window."""
    function = models.activation(name)
    figure = gallery_figures.draw_activations({name: function}, plots.LIGHT)
    drawn = gallery_figures.DRAWN
    expected = [(max(low, -drawn), min(high, drawn)) for low, high in sensitive_ranges(function)]
    for axes in figure.axes:
        assert list(bands(axes)) == [pytest.approx(each) for each in expected]


def first_lines(figure: Figure) -> list[Line2D]:
    """The first line of each panel."""
    return [axes.lines[0] for axes in figure.axes]


def test_curves_are_the_functions() -> None:
    """The grey curve of a panel is the activation, and the curve below it its slope."""
    figure = gallery_figures.draw_activations({"tanh": torch.tanh}, plots.LIGHT)
    upper, lower = (
        (torch.as_tensor(line.get_xdata()), torch.as_tensor(line.get_ydata())) for line in first_lines(figure)
    )
    torch.testing.assert_close(upper[1], torch.tanh(upper[0]))
    torch.testing.assert_close(lower[1], 1 - torch.tanh(lower[0]) ** 2)


def test_sums_add_up() -> None:
    """The last curve of the sum is the sum of the curves drawn above."""
    axes = gallery_figures.draw_sum(plots.LIGHT).axes
    parts = [torch.as_tensor(panel.lines[0].get_ydata()) for panel in axes[: len(gallery_figures.SUMMED)]]
    total = torch.as_tensor(axes[-1].lines[-1].get_ydata())
    torch.testing.assert_close(total, torch.stack(parts).sum(dim=0))


def test_the_command_writes_a_page_and_its_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`quicksilver gallery` writes one page that needs nothing else, and PNGs that show something."""
    parser = argparse.ArgumentParser()
    gallery.add_arguments(parser)
    assert gallery.run(parser.parse_args(["--output", str(tmp_path / "new" / "gallery")])) == 0
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(written) == sorted((tmp_path / "new" / "gallery").iterdir())
    page = Page(written[0].read_text(encoding="utf-8"))
    assert page.outside_references() == []
    assert len(page.images()) == 2 * len(written[1:]) == 10
    assert not any(is_blank(image) for image in page.images())
    assert not any(is_blank(pixels(path)) for path in written[1:])
    assert all(attributes["alt"] for tag, attributes in page.tags if tag == "img")
