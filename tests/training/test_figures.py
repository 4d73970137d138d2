"""The report's figures: what is drawn is what the models answer and what the data holds."""

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from tests.training import subjects
from training import figures, law, plots
from training.figures import Subject
from training.plots import LIGHT

Subjects = tuple[Subject, Subject]
BOTH = pytest.mark.parametrize("make", [subjects.published, subjects.crowd])


def curve(axes: Axes, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The data of the one line of that name."""
    (line,) = [line for line in axes.lines if line.get_gid() == name]
    return data(line)


def data(line: Line2D) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The x and y of a line, as they were given."""
    return np.asarray(line.get_xdata(), dtype=np.float64), np.asarray(line.get_ydata(), dtype=np.float64)


def shaded(axes: Axes, name: str) -> Rectangle:
    """The one shaded range of that name."""
    (patch,) = [patch for patch in axes.patches if patch.get_gid() == name]
    assert isinstance(patch, Rectangle)
    return patch


@BOTH
def test_the_fitted_curves_are_the_models_answers(make: Callable[[], Subjects]) -> None:
    """Every curve of the fit is what its model answers, and the dashed one is the exact law."""
    pair = make()
    for axes, subject in zip(figures.draw_fit(pair, LIGHT).axes, pair, strict=True):
        x, y = curve(axes, subject.name)
        assert_array_equal(y, subject.fitted.model.predict(x[:, None]))
        x, y = curve(axes, "exact law")
        assert_allclose(y, (x - 32) / 1.8)


@BOTH
def test_every_reading_is_drawn_where_it_was_read(make: Callable[[], Subjects]) -> None:
    """Training and validation readings are drawn apart, each reading once."""
    pair = make()
    for axes, subject in zip(figures.draw_fit(pair, LIGHT).axes, pair, strict=True):
        dataset, split = subject.fitted.dataset, subject.fitted.split
        for name, rows in (("training", split.training), ("validation", split.validation)):
            x, y = curve(axes, f"{name} readings")
            assert_array_equal(x, dataset.features[rows, 0])
            assert_array_equal(y, dataset.celsius[rows])


def test_answers_are_drawn_at_the_readings() -> None:
    """Each of the eleven readings has a cross where the model answers."""
    pair = subjects.published()
    for axes, subject in zip(figures.draw_fit(pair, LIGHT).axes, pair, strict=True):
        x, y = curve(axes, "answers")
        assert_array_equal(x, subject.fitted.dataset.features[:, 0])
        assert_array_equal(y, subject.fitted.model.predict(subject.fitted.dataset.features))


def test_the_fit_is_shown_from_20_to_90() -> None:
    """The built-in readings, 21.8 … 81.9 °F, are drawn over 20 … 90 °F."""
    for axes in figures.draw_fit(subjects.published(), LIGHT).axes:
        assert axes.get_xlim() == (20, 90)


@BOTH
def test_the_training_range_is_the_datas(make: Callable[[], Subjects]) -> None:
    """What is shaded as the training range begins and ends at the least and greatest training reading."""
    pair = make()
    fitted = pair[0].fitted
    trained = fitted.dataset.features[fitted.split.training, 0]
    hidden = figures.draw_hidden_layer(pair[1], LIGHT).axes[:8]
    for axes in (figures.draw_extrapolation(pair, LIGHT).axes[0], *hidden):
        patch = shaded(axes, "training range")
        assert (patch.get_x(), patch.get_x() + patch.get_width()) == pytest.approx((trained.min(), trained.max()))


def test_extrapolation_spans_the_weather_and_the_kettle() -> None:
    """Both models and the exact law are drawn from -40 to 220 °F, each as it answers."""
    pair = subjects.published()
    (axes,) = figures.draw_extrapolation(pair, LIGHT).axes
    for subject in pair:
        x, y = curve(axes, subject.name)
        assert (x[0], x[-1]) == (-40, 220)
        assert_array_equal(y, subject.fitted.model.predict(x[:, None]))
    x, y = curve(axes, "exact law")
    assert_array_equal(y, law.celsius(x))


@BOTH
def test_the_title_says_by_how_much(make: Callable[[], Subjects]) -> None:
    """The title names the model that is furthest off at the probe, its answer, and its distance from the law."""
    pair = make()
    at = figures.probe(pair[0])
    truth = float(law.celsius(np.array(at)))
    answers = {each.name: float(each.fitted.model.predict(np.array([[at]]))[0]) for each in pair}
    name, answer = max(answers.items(), key=lambda item: abs(item[1] - truth))
    title = figures.draw_extrapolation(pair, LIGHT).get_suptitle().replace("\n", " ")
    where = "above" if answer > truth else "below"
    distance = plots.number(abs(answer - truth), 1)
    assert title == (
        f"At {plots.short(at)} °F the {name} answers {plots.number(answer, 1)} °C, {distance} °C {where} the exact law"
    )


def test_the_probe_is_a_guess() -> None:
    """Models are probed at 212 °F, or beyond their readings where they learned 212 °F."""
    assert figures.probe(subjects.published()[0]) == 212
    crowd = subjects.crowd()[0]
    assert crowd.training_range[1] > 212
    assert figures.probe(crowd) > crowd.training_range[1]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (1.26, "1.3 °C above the exact law"),
        (-66.0, "66.0 °C below the exact law"),
        (0.04, "as the exact law does"),
        (-0.04, "as the exact law does"),
    ],
)
def test_side(error: float, text: str) -> None:
    """An error is told by its size and its side."""
    assert figures.side(error) == text


# Losses ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epochs", [1, 2, 7, 240, 241, 5000])
def test_the_envelope_holds_every_loss(epochs: int) -> None:
    """Thinned out, a history keeps its ends, its extremes and, bin by bin, its mean; low ≤ mean ≤ high."""
    losses = np.random.default_rng(epochs).exponential(size=epochs) + 0.1
    at, low, middle, high = figures.envelope(losses)
    assert len(at) == len(low) == len(middle) == len(high) <= 240
    assert (np.diff(at) > 0).all()
    assert 1 <= at[0] <= at[-1] <= epochs
    assert low.min() == losses.min()
    assert high.max() == losses.max()
    assert (low <= middle + 1e-12).all()
    assert (middle <= high + 1e-12).all()


def test_few_epochs_are_drawn_as_they_are() -> None:
    """The first epochs are not thinned out."""
    losses = np.array([9.0, 4.0, 2.0, 1.0])
    at, low, middle, high = figures.envelope(losses)
    assert_array_equal(at, [1, 2, 3, 4])
    for drawn in (low, middle, high):
        assert_array_equal(drawn, losses)


def test_loss_curves_are_the_histories() -> None:
    """The first epoch drawn is the first of the history, and the dashed line is the law's own loss on the same rows."""
    pair = subjects.published()
    for axes, subject in zip(figures.draw_losses(pair, LIGHT).axes, pair, strict=True):
        history = subject.fitted.history
        assert curve(axes, "training loss")[1][0] == history.training[0]
        assert curve(axes, "validation loss")[1][0] == history.validation[0]
        assert axes.get_xscale() == axes.get_yscale() == "log"
        rows = subject.fitted.split.training
        noise = law.celsius(subject.fahrenheit[rows]) - subject.fitted.dataset.celsius[rows]
        assert curve(axes, "exact law")[1][0] == pytest.approx(np.mean(noise**2))


def test_loss_picture_explains_its_band_by_itself() -> None:
    """The picture alone, without the page around it, names every mark that it makes."""
    (key,) = figures.draw_losses(subjects.published(), LIGHT).legends
    assert "range of neighbouring epochs" in [text.get_text() for text in key.get_texts()]


# Residuals ------------------------------------------------------------------------------------------------------------


@BOTH
def test_residuals_are_those_of_the_refits(make: Callable[[], Subjects]) -> None:
    """Diamonds stand at the leave-one-out residuals, circles at those of the fit, and the band is the interval's."""
    pair = make()
    for axes, subject in zip(figures.draw_residuals(pair, LIGHT).axes, pair, strict=True):
        rows, dataset = subject.left_out.rows, subject.fitted.dataset
        x, y = curve(axes, "left out")
        assert_array_equal(x, dataset.features[rows, 0])
        assert_array_equal(y, subject.left_out.residuals)
        (circles,) = [each for each in axes.collections if each.get_gid() == "fit"]
        inside = subject.fitted.model.predict(dataset.features[rows]) - dataset.celsius[rows]
        assert_allclose(np.asarray(circles.get_offsets())[:, 1], inside)
        half = subject.evaluation.interval.half_width_celsius
        band = shaded(axes, "interval")
        assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((-half, half))


# The hidden layer -----------------------------------------------------------------------------------------------------


@BOTH
def test_the_units_add_up_to_the_answer(make: Callable[[], Subjects]) -> None:
    """What the hidden units add, and the resting answer, are together what the model answers."""
    _, mlp = make()
    x = np.linspace(-40, 220, 53)
    layer = figures.hidden_layer(mlp.fitted.model, x)
    assert layer.contributions.shape == layer.received.shape == (8, 53)
    assert_allclose(layer.contributions.sum(axis=0) + layer.resting, mlp.answer(x), atol=1e-3)


def test_each_unit_has_its_panel() -> None:
    """Panel n of the hidden layer draws what unit n adds, and the bars are the gradient that fit kept."""
    mlp = subjects.published()[1]
    *panels, bars = figures.draw_hidden_layer(mlp, LIGHT).axes
    for unit, axes in enumerate(panels):
        x, y = curve(axes, "contribution")
        assert_array_equal(y, figures.hidden_layer(mlp.fitted.model, x).contributions[unit])
        assert axes.get_title(loc="left") == f"unit {unit}"
    gradient = mlp.fitted.hidden_gradient
    assert gradient is not None
    widths = [patch.get_width() for patch in bars.patches if isinstance(patch, Rectangle)]
    assert_allclose(widths, gradient[:, 0], rtol=1e-6)  # published scaling: the loss is in °C² as it is


def test_only_a_network_has_a_hidden_layer() -> None:
    """The linear model has no hidden units to show."""
    simple, flexible = subjects.published()
    assert not figures.has_one_hidden_layer(simple.fitted.model)
    assert figures.has_one_hidden_layer(flexible.fitted.model)


# All of them ----------------------------------------------------------------------------------------------------------


@BOTH
def test_axes_have_units(make: Callable[[], Subjects]) -> None:
    """Every axis that is named states its unit, and epochs have none."""
    pair = make()
    drawn = [
        draw(pair, LIGHT)
        for draw in (figures.draw_fit, figures.draw_losses, figures.draw_residuals, figures.draw_extrapolation)
    ]
    named = [label for figure in drawn for axes in figure.axes for label in (axes.get_xlabel(), axes.get_ylabel())]
    assert {label for label in named if label} > {"epoch"}
    assert [label for label in named if label and "°" not in label] == ["epoch", "epoch"]
