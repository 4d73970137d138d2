"""The loop: that it descends as gradient descent does, stops when it should, and says when it fails."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from tests.training.conftest import MakeReadings
from training.dataset import Dataset, Split, seeded_split
from training.errors import DataError, DivergedError
from training.fit import Fitted, fit, train
from training.models import Converter, Scale, build, build_for
from training.options import KINDS, OPTIMIZERS, PUBLISHED, Architecture, FitOptions, Optimizer, default_options


def least_squares_loss(readings: Dataset, rows: np.ndarray, *, squares: bool = False) -> float:
    """The mean squared error in °C² of the exact least-squares optimum, a + b·x (+ c·x²) in each column."""
    columns = readings.features[rows]
    columns = (columns - columns.mean(axis=0)) / columns.std(axis=0)
    parts = [np.ones((len(rows), 1)), columns, *([columns**2] if squares else [])]
    design = np.hstack(parts)
    solution = np.linalg.lstsq(design, readings.celsius[rows])[0]
    return float(np.mean((design @ solution - readings.celsius[rows]) ** 2))


def test_loop_is_full_batch_gradient_descent(readings: Dataset, split: Split) -> None:
    """Each epoch's losses are those of gradient descent done by hand, in float64 and without torch."""
    options = FitOptions(epochs=300, learning_rate=1e-2, seed=4)
    model = build_for(readings, split.training, Architecture("linear"), options.seed)
    weight, bias = model.get_parameter("linear.weight").item(), model.get_parameter("linear.bias").item()
    fitted = fit(model, readings, split, options)
    scaled, truth = 0.1 * readings.features[:, 0], readings.celsius
    training, validation = split.training, split.validation
    for epoch in range(options.epochs):
        errors = weight * scaled + bias - truth
        assert fitted.history.training[epoch] == pytest.approx(np.mean(errors[training] ** 2), rel=1e-4)
        assert fitted.history.validation[epoch] == pytest.approx(np.mean(errors[validation] ** 2), rel=1e-4)
        weight -= options.learning_rate * 2.0 * float(np.mean(errors[training] * scaled[training]))
        bias -= options.learning_rate * 2.0 * float(np.mean(errors[training]))
    assert model.get_parameter("linear.weight").item() == pytest.approx(weight, rel=1e-4)


def test_published_linear_run_ends_at_the_published_parameters(linear: Fitted) -> None:
    """Weight within 0.01 and bias within 0.06 of the published ones, as over any usual start."""
    assert linear.model.get_parameter("linear.weight").item() == pytest.approx(5.4319, abs=0.01)
    assert linear.model.get_parameter("linear.bias").item() == pytest.approx(-17.9693, abs=0.06)


def test_same_seed_gives_the_same_fit_and_another_seed_another(readings: Dataset, split: Split) -> None:
    """A fit is determined by its data, its options and its seed, to the last bit."""
    options = FitOptions(epochs=50, learning_rate=1e-3, seed=1)
    first, again = (train(readings, split, Architecture("mlp"), options) for _ in range(2))
    other = train(readings, split, Architecture("mlp"), dataclasses.replace(options, seed=2))
    assert first.history.training.tolist() == again.history.training.tolist()
    assert first.history.training.tolist() != other.history.training.tolist()


def test_history_holds_the_losses_as_each_epoch_began(mlp: Fitted) -> None:
    """One entry an epoch in float64, the first that of the untrained model; the fitted loss follows the last."""
    untrained = build_for(mlp.dataset, mlp.split.training, mlp.architecture, mlp.options.seed)
    errors = untrained.predict(mlp.dataset.features) - mlp.dataset.celsius
    assert len(mlp.history) == mlp.options.epochs
    assert mlp.history.training.dtype == np.float64
    assert mlp.history.training[0] == pytest.approx(np.mean(errors[mlp.split.training] ** 2), rel=1e-5)
    assert mlp.history.validation[0] == pytest.approx(np.mean(errors[mlp.split.validation] ** 2), rel=1e-5)
    assert mlp.training_loss == pytest.approx(mlp.history.training[-1], rel=0.01)


def test_hidden_gradient_is_that_of_the_last_epoch(readings: Dataset, split: Split) -> None:
    """The gradient kept is the one that autograd gives at the parameters with which the last epoch began."""
    options = FitOptions(epochs=10, learning_rate=1e-3)
    fitted = train(readings, split, Architecture("mlp", (13,)), options)
    before = train(readings, split, Architecture("mlp", (13,)), dataclasses.replace(options, epochs=9)).model
    inputs = torch.tensor(readings.features[split.training], dtype=torch.float32)
    truth = torch.tensor(readings.celsius[split.training], dtype=torch.float32)
    loss = ((before(inputs)[:, 0] - truth) ** 2).mean()
    (expected,) = torch.autograd.grad(loss, [before.get_parameter("hidden_linear.weight")])
    assert fitted.hidden_gradient is not None
    assert fitted.hidden_gradient.shape == (13, 1)
    assert fitted.hidden_gradient == pytest.approx(expected.numpy(), rel=1e-4)
    assert set(fitted.gradients) == {name for name, _ in fitted.model.named_parameters()}


def test_linear_model_has_no_hidden_gradient(linear: Fitted) -> None:
    """Where there is no hidden layer there is no gradient of one."""
    assert linear.hidden_gradient is None


def test_training_range_is_that_of_the_training_rows(linear: Fitted) -> None:
    """33.9 … 81.9 °F on the published split: the coldest reading, 21.8, is held out."""
    low, high = linear.training_range
    assert (low.tolist(), high.tolist()) == ([33.9], [81.9])


# Defaults that converge -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high"), [(-40.0, 220.0), (-450.0, 3000.0), (68.0, 69.0), (20.0, 90.0)])
@pytest.mark.parametrize("kind", ["linear", "quadratic"])
def test_defaults_converge_to_least_squares(make_readings: MakeReadings, low: float, high: float, kind: str) -> None:
    """On data of any spread the default fit ends within 0.1 % of the exact optimum's loss."""
    readings = make_readings(low, high)
    split = seeded_split(len(readings), 0)
    fitted = train(readings, split, Architecture(kind))  # type: ignore[arg-type] # pytest knows no literals
    optimum = least_squares_loss(readings, split.training, squares=kind == "quadratic")
    assert fitted.training_loss == pytest.approx(optimum, rel=1e-3)


def test_defaults_converge_on_skewed_columns() -> None:
    """A column with far outliers, on which plain descent on a quadratic explodes, is no trouble for the defaults."""
    values = np.exp(np.random.default_rng(1).normal(0.0, 2.0, 60)) + 40.0
    readings = Dataset(values[:, None], 0.001 * values**2 + values, ("fahrenheit",), "made up")
    split = seeded_split(len(readings), 0)
    fitted = train(readings, split, Architecture("quadratic"))
    assert fitted.training_loss < 1e-3 * np.var(readings.celsius)
    plain = FitOptions(epochs=100, learning_rate=0.1)
    with pytest.raises(DivergedError):
        train(readings, split, Architecture("quadratic"), plain)


def test_several_columns_are_fitted(two_columns: Dataset) -> None:
    """A linear model of temperature and pressure finds what both contribute."""
    fitted = train(two_columns, seeded_split(len(two_columns), 0), Architecture("linear"))
    slopes, _ = fitted.model.affine()
    assert slopes == pytest.approx([5.0 / 9.0, 0.02], abs=0.01)
    assert fitted.validation_loss < 1.0


def test_mlp_of_two_layers_converges_on_a_wide_range(make_readings: MakeReadings) -> None:
    """The default rate suits an MLP of several layers too."""
    readings = make_readings(-40.0, 220.0)
    split = seeded_split(len(readings), 0)
    options = dataclasses.replace(default_options("mlp", built_in=False), epochs=1500)
    fitted = train(readings, split, Architecture("mlp", (8, 8)), options)
    assert fitted.training_loss < 2.0 * least_squares_loss(readings, split.training)


def test_published_rate_diverges_on_a_wide_range(make_readings: MakeReadings) -> None:
    """The published scaling and rate do not carry over to other data, which is why these are standardised."""
    readings = make_readings(-40.0, 220.0)
    model = build(Architecture("linear"), 1, scaling=Scale(0.1))
    with pytest.raises(DivergedError):
        fit(model, readings, seeded_split(len(readings), 0), default_options("linear", built_in=True))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_descends(readings: Dataset, split: Split, optimizer: Optimizer) -> None:
    """Each optimizer lowers the loss, and is the one of that name in torch."""
    fitted = train(readings, split, Architecture("linear"), FitOptions(200, 1e-2, optimizer))
    assert fitted.training_loss < fitted.history.training[0]


@pytest.mark.parametrize("optimizer", sorted(set(OPTIMIZERS) - {"sgd"}))
def test_defaults_of_every_optimizer_converge_on_the_built_in_readings(
    readings: Dataset, split: Split, optimizer: Optimizer
) -> None:
    """Whichever optimizer is named, its default rate ends within 0.1 % of the exact optimum's loss."""
    fitted = train(
        readings, split, Architecture("linear"), default_options("linear", built_in=True, optimizer=optimizer)
    )
    assert fitted.options.optimizer == optimizer
    assert fitted.training_loss == pytest.approx(least_squares_loss(readings, split.training), rel=1e-3)


def test_plain_descent_keeps_the_published_recipe() -> None:
    """Naming the published runs' optimizer changes nothing of them."""
    for kind, published in PUBLISHED.items():
        assert default_options(kind, built_in=True, optimizer="sgd") == published
        assert default_options(kind, built_in=True) == published


def test_plain_descent_converges_on_other_data(make_readings: MakeReadings) -> None:
    """On standardised columns its default rate is a greater one."""
    readings = make_readings(-40.0, 220.0)
    split = seeded_split(len(readings), 0)
    options = default_options("linear", built_in=False, optimizer="sgd")
    fitted = train(readings, split, Architecture("linear"), options)
    assert fitted.training_loss == pytest.approx(least_squares_loss(readings, split.training), rel=1e-3)


# Early stopping -------------------------------------------------------------------------------------------------------


def test_early_stopping_keeps_the_best_and_waits_as_long_as_told(readings: Dataset, split: Split) -> None:
    """The parameters kept are those of the lowest validation loss, and the fit ends `patience` epochs later."""
    options = FitOptions(epochs=5000, learning_rate=1e-3, patience=40)
    fitted = train(readings, split, Architecture("mlp"), options)
    best = int(np.argmin(fitted.history.validation))
    assert fitted.best_epoch == best + 1
    assert len(fitted.history) == best + 1 + 40 < options.epochs
    assert fitted.validation_loss == pytest.approx(fitted.history.validation[best], rel=1e-4)
    assert fitted.training_loss == pytest.approx(fitted.history.training[best], rel=1e-4)


def test_early_stopping_changes_no_step(readings: Dataset, split: Split) -> None:
    """Watching the validation loss does not change the way there."""
    options = FitOptions(epochs=60, learning_rate=1e-3)
    plain = train(readings, split, Architecture("mlp"), options)
    watched = train(readings, split, Architecture("mlp"), dataclasses.replace(options, patience=60))
    assert watched.history.training.tolist() == plain.history.training.tolist()


# Failing --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_diverging_loss_stops_with_a_smaller_rate_to_try(readings: Dataset, split: Split, kind: str) -> None:
    """The error names the epoch and the rate, and suggests a tenth of it."""
    with pytest.raises(DivergedError, match=r"diverged.*such as 100 in place of 1000") as caught:
        train(readings, split, Architecture(kind), FitOptions(200, 1000.0))  # type: ignore[arg-type] # as above
    assert caught.value.epoch < 200


def test_loss_that_is_not_a_number_stops(readings: Dataset, split: Split) -> None:
    """A NaN is caught in the epoch it appears, before it can be kept."""
    model = build(Architecture("linear"), 1, scaling=Scale(math.nan))
    with pytest.raises(DivergedError, match="epoch 1"):
        fit(model, readings, split, FitOptions(10, 1e-2))


def test_training_rows_of_one_value_are_refused() -> None:
    """A split that leaves nothing to learn from is an error that names the column, before any epoch."""
    readings = Dataset(np.array([[50.0], [50.0], [60.0]]), np.array([1.0, 2.0, 3.0]), ("fahrenheit",), "f.csv")
    with pytest.raises(DataError, match=r"f\.csv, column 'fahrenheit': all training rows of this split hold 50"):
        train(readings, Split(np.array([0, 1]), np.array([2])), Architecture("linear"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"epochs": 0}, "epochs"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": math.inf}, "learning_rate"),
        ({"optimizer": "lbfgs"}, "no optimizer 'lbfgs'"),
        ({"patience": 0}, "patience"),
        ({"seed": -1}, "seed"),
    ],
)
def test_options_out_of_bounds_are_refused(change: dict[str, object], says: str) -> None:
    """The error names the option."""
    with pytest.raises(ValueError, match=says):
        dataclasses.replace(FitOptions(10, 1e-2), **change)  # type: ignore[arg-type] # wrong on purpose


# Watching -------------------------------------------------------------------------------------------------------------


def test_progress_is_told_of_every_epoch(readings: Dataset, split: Split) -> None:
    """The observer sees each epoch once, with the losses that the history keeps."""
    seen: list[tuple[int, float, float]] = []
    options = FitOptions(25, 1e-2)
    fitted = train(readings, split, Architecture("linear"), options, lambda *told: seen.append(told))
    assert [epoch for epoch, _, _ in seen] == list(range(1, 26))
    assert [loss for _, loss, _ in seen] == fitted.history.training.tolist()
    assert [loss for _, _, loss in seen] == fitted.history.validation.tolist()


def test_threads_are_given_back(readings: Dataset, split: Split) -> None:
    """A fit leaves torch's number of threads as it was, also where it fails."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(DivergedError):
            train(readings, split, Architecture("linear"), FitOptions(200, 1000.0))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_model_is_fitted_in_place(readings: Dataset, split: Split) -> None:
    """The fitted model is the module that was given."""
    model: Converter = build_for(readings, split.training, Architecture("linear"))
    assert fit(model, readings, split, FitOptions(5, 1e-2)).model is model
