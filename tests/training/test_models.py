"""The modules: their names, their shapes, their scaling, and what they compute."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from tests.training.conftest import MakeReadings
from training.dataset import Dataset, Split, built_in
from training.models import Converter, Restore, Scale, Standardise, activation, build, build_for
from training.options import ACTIVATIONS, KINDS, Activation, Architecture, default_options

SCALE = Scale(0.1)


def shapes(model: Converter) -> dict[str, list[int]]:
    """Every parameter's shape by its name."""
    return {name: list(parameter.shape) for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("units", [1, 8, 9, 13])
def test_mlp_has_the_published_names_and_shapes(units: int) -> None:
    """A hidden layer of n units gives parameters of [n,1], [n], [1,n], [1] under their published names."""
    model = build(Architecture("mlp", (units,)), 1, scaling=SCALE)
    assert shapes(model) == {
        "hidden_linear.weight": [units, 1],
        "hidden_linear.bias": [units],
        "output_linear.weight": [1, units],
        "output_linear.bias": [1],
    }
    assert isinstance(model.get_submodule("hidden_activation"), nn.Tanh)
    assert model.parameter_count() == 3 * units + 1


def test_further_hidden_layers_are_numbered() -> None:
    """Any number of hidden layers, of any widths, the second and third named `_2` and `_3`."""
    model = build(Architecture("mlp", (4, 3, 2), "relu"), 2, scaling=SCALE)
    names = [name for name, _ in model.named_children()]
    expected = [f"hidden_{part}{suffix}" for suffix in ("", "_2", "_3") for part in ("linear", "activation")]
    assert names == ["scaling", *expected, "output_linear", "restore"]
    assert shapes(model)["hidden_linear.weight"] == [4, 2]
    assert shapes(model)["hidden_linear_3.weight"] == [2, 3]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_inputs", [1, 3])
@pytest.mark.parametrize("rows", [0, 1, 11])
def test_batches_come_first(kind: str, n_inputs: int, rows: int) -> None:
    """Every kind takes [B, N_in] and gives [B, 1], for any batch, none included."""
    model = build(Architecture(kind), n_inputs, scaling=SCALE)  # type: ignore[arg-type] # pytest knows no literals
    assert model(torch.zeros(rows, n_inputs)).shape == (rows, 1)


def test_linear_is_the_published_formula() -> None:
    """The answer is weight · 0.1 · °F + bias, the scaling inside the module."""
    model = build(Architecture("linear"), 1, scaling=SCALE)
    with torch.no_grad():
        model.get_parameter("linear.weight").fill_(5.4319)
        model.get_parameter("linear.bias").fill_(-17.9693)
    assert model.predict(np.array([[32.0]]))[0] == pytest.approx(5.4319 * 3.2 - 17.9693, abs=1e-5)
    slopes, intercept = model.affine()
    assert (slopes[0], intercept) == pytest.approx((0.54319, -17.9693), abs=1e-6)


def test_mlp_is_its_formula() -> None:
    """The answer is v · tanh(w · 0.1 · °F + b) + c, computed here in NumPy."""
    model = build(Architecture("mlp"), 1, scaling=SCALE, seed=3)
    w, b, v, c = (parameter.detach().double().numpy() for parameter in model.parameters())
    fahrenheit = np.linspace(-40.0, 220.0, 20)[:, None]
    expected = np.tanh(0.1 * fahrenheit @ w.T + b) @ v.T + c
    assert model.predict(fahrenheit) == pytest.approx(expected[:, 0], abs=1e-6)


def test_quadratic_is_its_formula() -> None:
    """The answer is a · x² + b · x + c on standardised columns, a and b for each, brought back to °C."""
    scaling = Standardise(np.array([50.0, 1000.0]), np.array([20.0, 30.0]))
    model = build(Architecture("quadratic"), 2, scaling=scaling, restore=Restore(10.0, 8.0), seed=1)
    a = model.get_parameter("quadratic.square.weight").detach().numpy()[0]
    b = model.get_parameter("quadratic.linear.weight").detach().numpy()[0]
    c = model.get_parameter("quadratic.linear.bias").item()
    inputs = np.array([[32.0, 990.0], [90.0, 1040.0]])
    x = (inputs - [50.0, 1000.0]) / [20.0, 30.0]
    assert model.predict(inputs) == pytest.approx(8.0 * (x**2 @ a + x @ b + c) + 10.0, abs=1e-5)


FORMULAS: dict[Activation, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "tanh": np.tanh,
    "hardtanh": lambda x: np.clip(x, -1.0, 1.0),
    "sigmoid": lambda x: 1.0 / (1.0 + np.exp(-x)),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "relu": lambda x: np.maximum(x, 0.0),
    "leaky_relu": lambda x: np.where(x > 0.0, x, 0.01 * x),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_the_functions_they_are_named_for(name: Activation) -> None:
    """All six, against their formulas; and tanh at the published points."""
    x = np.linspace(-5.0, 5.0, 101)
    assert activation(name)(torch.tensor(x)).numpy() == pytest.approx(FORMULAS[name](x), abs=1e-9)


def test_tanh_saturates_as_published() -> None:
    """tanh(-2.2), tanh(0.1) and tanh(2.5), to four places."""
    answers = activation("tanh")(torch.tensor([-2.2, 0.1, 2.5])).tolist()
    assert answers == pytest.approx([-0.9757, 0.0997, 0.9866], abs=5e-5)


def test_initialisation_is_torchs_own_under_the_seed() -> None:
    """The parameters are those of torch's layers made in order after `manual_seed`."""
    torch.manual_seed(17)
    hidden, output = nn.Linear(1, 8), nn.Linear(8, 1)
    model = build(Architecture("mlp"), 1, scaling=SCALE, seed=17)
    expected = [*hidden.parameters(), *output.parameters()]
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(model.parameters(), expected, strict=True))


def test_building_leaves_the_global_random_state_alone() -> None:
    """What else draws random numbers draws the same whether a model was built between or not."""
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build(Architecture("mlp"), 1, scaling=SCALE, seed=1)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_built_in_readings_get_the_scaling_that_belongs_to_the_kind(kind: str) -> None:
    """0.1 for the published kinds on the built-in readings, standardised for the quadratic and for other data."""
    readings = built_in()
    rows = np.arange(len(readings))
    model = build_for(readings, rows, Architecture(kind))  # type: ignore[arg-type] # pytest knows no literals
    assert isinstance(model.scaling, Standardise if kind == "quadratic" else Scale)
    other = Dataset(readings.features.copy(), readings.celsius.copy(), readings.columns, "file.csv")
    model = build_for(other, rows, Architecture(kind))  # type: ignore[arg-type] # as above
    assert isinstance(model.scaling, Standardise)


def test_standardising_is_measured_on_the_rows_given(two_columns: Dataset) -> None:
    """The columns get mean 0 and deviation 1 on those rows, not on the rows held out."""
    rows = np.arange(5, 20)
    model = build_for(two_columns, rows, Architecture("linear"))
    scaled = model.scaling(torch.tensor(two_columns.features[rows], dtype=torch.float32)).numpy()
    assert scaled.mean(axis=0) == pytest.approx([0.0, 0.0], abs=1e-5)
    assert scaled.std(axis=0) == pytest.approx([1.0, 1.0], abs=1e-5)
    assert model.unit.item() == pytest.approx(two_columns.celsius[rows].std(), rel=1e-6)


def test_double_computes_the_same_and_leaves_the_model_as_it_was(make_readings: MakeReadings) -> None:
    """The copy in float64 answers alike, to rounding, and the model stays in float32."""
    readings = make_readings(0.0, 100.0)
    model = build_for(readings, np.arange(len(readings)), Architecture("mlp"))
    exact = model.in_double()(torch.tensor(readings.features))[:, 0].detach().numpy()
    assert exact == pytest.approx(model.predict(readings.features), abs=1e-4)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("cubic",), "no model kind 'cubic'"),
        (("mlp", ()), "at least one unit"),
        (("mlp", (8, 0)), "at least one unit"),
        (("mlp", (8,), "swish"), "no activation 'swish'"),
    ],
)
def test_architectures_that_cannot_be_are_refused(arguments: tuple[object, ...], says: str) -> None:
    """The error names what was wrong and what there is."""
    with pytest.raises(ValueError, match=says):
        Architecture(*arguments)  # type: ignore[arg-type] # wrong on purpose


def test_default_options_are_the_published_ones_on_the_built_in_readings(split: Split) -> None:
    """SGD at 1e-2 over 3,000 epochs for the linear model, at 1e-3 over 5,000 for the MLP."""
    linear, mlp = default_options("linear", built_in=True), default_options("mlp", built_in=True)
    assert (linear.optimizer, linear.learning_rate, linear.epochs) == ("sgd", 1e-2, 3000)
    assert (mlp.optimizer, mlp.learning_rate, mlp.epochs) == ("sgd", 1e-3, 5000)
    assert len(split.training) == 9
