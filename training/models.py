"""The converters as PyTorch modules: `[B, N_in]` in the columns' own units to `[B, 1]` in °C.

The scaling stands inside each module, so that the exported graph takes plain °F. A converter is called, never its
`forward`.

Constants have as many dimensions as the rows, [1, 1] or [1, N_in]: a number, or [1], ONNX Runtime applies to [B, 1] one
element after the other, which takes longer than the rest of a graph; [1, 1] to all at once. The bits are the same.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.dataset import Dataset
from training.options import Activation, Architecture, Optimizer, uses_published_scaling

PUBLISHED_SCALE: Final = 0.1

_ACTIVATIONS: Final[dict[Activation, Callable[[], nn.Module]]] = {
    "tanh": nn.Tanh,
    "hardtanh": nn.Hardtanh,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.01),
}


def activation(name: Activation) -> nn.Module:
    """A fresh activation module by its name."""
    return _ACTIVATIONS[name]()


class Scale(nn.Module):
    """Multiplies every column by one constant factor, which keeps plain gradient descent's steps usable."""

    factor: Tensor

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.register_buffer("factor", torch.tensor([[factor]], dtype=torch.float32))

    def forward(self, columns: Tensor) -> Tensor:
        """[B, N_in] to [B, N_in]."""
        return columns * self.factor


class Standardise(nn.Module):
    """Brings each column to mean 0 and standard deviation 1 on the rows it was measured on."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: NDArray[np.float64], deviation: NDArray[np.float64]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean[None], dtype=torch.float32))
        self.register_buffer("deviation", torch.tensor(deviation[None], dtype=torch.float32))

    def forward(self, columns: Tensor) -> Tensor:
        """[B, N_in] to [B, N_in]."""
        return (columns - self.mean) / self.deviation


class Restore(nn.Module):
    """Brings the core's output, made to be of the order of 1, back to °C: the inverse of standardising the target."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: float, deviation: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([[mean]], dtype=torch.float32))
        self.register_buffer("deviation", torch.tensor([[deviation]], dtype=torch.float32))

    def forward(self, standardised: Tensor) -> Tensor:
        """[B, 1] to [B, 1] in °C."""
        return standardised * self.deviation + self.mean


class Quadratic(nn.Module):
    """For each row a·x² + b·x + c, each column with an `a` and a `b` of its own, and no products between columns."""

    def __init__(self, n_inputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_inputs, 1)
        self.square = nn.Linear(n_inputs, 1, bias=False)

    def forward(self, columns: Tensor) -> Tensor:
        """[B, N_in] to [B, 1]."""
        square: Tensor = self.square(columns * columns)
        linear: Tensor = self.linear(columns)
        return square + linear


class Converter(nn.Module):
    """A converter of any kind: scaling, the layers of its kind, and for standardised data the way back to °C.

    The layers of its kind stand directly in the module under their published names: `linear`; or `hidden_linear`,
    `hidden_activation`, `output_linear`, further hidden layers with `_2`, `_3`, … behind; or `quadratic`.

    `unit`, in °C, is the size of an error that the optimizer is to see as 1: 1 °C for published scaling, the target's
    standard deviation for standardised data, which makes the usable step sizes independent of the data's spread.
    """

    unit: Tensor

    def __init__(self, architecture: Architecture, n_inputs: int, scaling: nn.Module, restore: Restore | None) -> None:
        super().__init__()
        self.architecture = architecture
        self.n_inputs = n_inputs
        self.register_buffer("unit", torch.ones(()) if restore is None else restore.deviation.reshape(()).clone())
        self.scaling = scaling
        for name, layer in _layers(architecture, n_inputs).items():
            self.add_module(name, layer)
        self.restore = nn.Identity() if restore is None else restore

    def forward(self, columns: Tensor) -> Tensor:
        """[B, N_in] in the columns' own units to [B, 1] in °C."""
        values: Tensor = columns
        for layer in self.children():  # in the order they were added
            values = layer(values)
        return values

    def predict(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Answers in °C, float64 [N], for features [N, N_in]: computed in float32 as the exported model does."""
        with torch.no_grad():
            answers: NDArray[np.float32] = self(torch.tensor(features, dtype=torch.float32))[:, 0].numpy()
        return answers.astype(np.float64)

    def affine(self) -> tuple[NDArray[np.float64], float]:
        """Slopes [N_in] in °C per unit of each column, and the answer in °C at zero: all there is to a linear model."""
        exact = self.in_double()
        with torch.no_grad():
            corners = torch.cat([torch.zeros(1, self.n_inputs), torch.eye(self.n_inputs)]).double()
            answers = exact(corners)[:, 0].numpy()
        return answers[1:] - answers[0], float(answers[0])

    def in_double(self) -> "Converter":
        """A copy of this converter that computes in float64, with the same parameters."""
        return copy.deepcopy(self).double()

    def parameter_count(self) -> int:
        """How many numbers were fitted."""
        return sum(parameter.numel() for parameter in self.parameters())

    def description(self) -> dict[str, Any]:
        """The architecture as JSON knows it: what it takes to build the module again."""
        described: dict[str, Any] = {
            "n_inputs": self.n_inputs,
            "scaling": type(self.scaling).__name__.lower(),
            "parameters": {name: list(parameter.shape) for name, parameter in self.named_parameters()},
        }
        if self.architecture.kind == "mlp":
            described |= {"hidden": list(self.architecture.hidden), "activation": self.architecture.activation}
        return described


def _layers(architecture: Architecture, n_inputs: int) -> "OrderedDict[str, nn.Module]":
    if architecture.kind == "linear":
        return OrderedDict(linear=nn.Linear(n_inputs, 1))
    if architecture.kind == "quadratic":
        return OrderedDict(quadratic=Quadratic(n_inputs))
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    width = n_inputs
    for number, units in enumerate(architecture.hidden, start=1):
        suffix = "" if number == 1 else f"_{number}"
        layers[f"hidden_linear{suffix}"] = nn.Linear(width, units)
        layers[f"hidden_activation{suffix}"] = activation(architecture.activation)
        width = units
    layers["output_linear"] = nn.Linear(width, 1)
    return layers


def build(
    architecture: Architecture, n_inputs: int, *, scaling: nn.Module, restore: Restore | None = None, seed: int = 0
) -> Converter:
    """A fresh converter with PyTorch's own initialisation under a seed; the global random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Converter(architecture, n_inputs, scaling, restore)


def build_for(
    dataset: Dataset,
    rows: NDArray[np.int64],
    architecture: Architecture,
    seed: int = 0,
    optimizer: Optimizer = "sgd",
) -> Converter:
    """A fresh converter with the scaling that belongs to the fit: 0.1 as published, or standardised over `rows`."""
    n_inputs = len(dataset.columns)
    if uses_published_scaling(architecture.kind, built_in=dataset.is_built_in, optimizer=optimizer):
        return build(architecture, n_inputs, scaling=Scale(PUBLISHED_SCALE), seed=seed)
    features, celsius = dataset.features[rows], dataset.celsius[rows]
    return build(
        architecture,
        n_inputs,
        scaling=Standardise(features.mean(axis=0), _deviation(features)),
        restore=Restore(float(celsius.mean()), float(_deviation(celsius))),
        seed=seed,
    )


def _deviation(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard deviation over the rows, 1 where all rows are alike: such a column is only shifted."""
    deviation = values.std(axis=0)
    return np.where(deviation > 0, deviation, 1.0)
