"""What a fit is asked to do: the kind of model, its shape, and how it is trained. Pure values, nothing of torch.

The command line reads its choices and defaults here, so that `--help` and a refusal cost no import of torch.

Optimizers go by their names in `torch.optim`, in lower case. Only those are offered whose step treats every parameter
by itself: then many fits can be stepped as one stacked fit (see `training.ensemble`), which makes leave-one-out and
runs over many seeds affordable. `sgd` is plain stochastic gradient descent on the full batch, without momentum.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

Kind = Literal["linear", "mlp", "quadratic"]
Activation = Literal["tanh", "hardtanh", "sigmoid", "softplus", "relu", "leaky_relu"]
Optimizer = Literal["sgd", "adam", "adamw", "nadam", "radam", "rmsprop", "adagrad", "adamax"]

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
ACTIVATIONS: Final[tuple[Activation, ...]] = get_args(Activation)
OPTIMIZERS: Final[tuple[Optimizer, ...]] = get_args(Optimizer)


@dataclass(frozen=True, slots=True)
class Architecture:
    """The shape of a converter. `hidden` (units of each hidden layer) and `activation` matter to an MLP alone."""

    kind: Kind
    hidden: tuple[int, ...] = (8,)
    activation: Activation = "tanh"

    def __post_init__(self) -> None:
        """Raise ValueError for a kind or activation that is not known, or a hidden layer without units."""
        if self.kind not in KINDS:
            raise ValueError(f"no model kind {self.kind!r}: there are {', '.join(KINDS)}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"no activation {self.activation!r}: there are {', '.join(ACTIVATIONS)}")
        if self.kind == "mlp" and not (self.hidden and min(self.hidden) >= 1):
            raise ValueError(f"an MLP needs hidden layers of at least one unit, not {self.hidden}")


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How a fit goes. Full batch always: one epoch is one step.

    Attributes:
        epochs: steps at most.
        learning_rate: the optimizer's step size, all its other settings being torch's defaults.
        optimizer: one of `OPTIMIZERS`.
        patience: stop when the validation loss has not fallen for so many epochs, and keep the best parameters;
            None runs all epochs and keeps the last.
        seed: of the initial parameters.
    """

    epochs: int
    learning_rate: float
    optimizer: Optimizer = "sgd"
    patience: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError for a number out of bounds or an optimizer that is not known."""
        if self.epochs < 1:
            raise ValueError(f"epochs must be at least 1, not {self.epochs}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate must be positive and finite, not {self.learning_rate}")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"no optimizer {self.optimizer!r}: there are {', '.join(OPTIMIZERS)}")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience must be at least 1, not {self.patience}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be from 0 to 2^63 - 1, not {self.seed}")

    def hyperparameters(self) -> dict[str, Any]:
        """The settings that shaped the parameters, the seed apart, as JSON knows them."""
        return {
            "epochs": self.epochs,
            "learning_rate": self.learning_rate,
            "optimizer": self.optimizer,
            "patience": self.patience,
        }


# As published, on readings scaled by 0.1.
PUBLISHED: Final[dict[Kind, FitOptions]] = {
    "linear": FitOptions(epochs=3000, learning_rate=1e-2),
    "mlp": FitOptions(epochs=5000, learning_rate=1e-3),
}

# On standardised columns and targets. Adam, since the largest stable step of plain descent depends on the data's higher
# moments (a quadratic's on the eighth), and Adam's does not.
STANDARDISED: Final[dict[Kind, FitOptions]] = {
    "linear": FitOptions(epochs=3000, learning_rate=1e-2, optimizer="adam"),
    "mlp": FitOptions(epochs=5000, learning_rate=1e-2, optimizer="adam"),
    "quadratic": FitOptions(epochs=5000, learning_rate=1e-2, optimizer="adam"),
}

# Each optimizer's step size on standardised columns and targets: with these a linear model converges in its epochs. The
# step of RMSprop does not shrink near the optimum, so it has to be the smaller; Adagrad's shrinks all the way, so it
# begins the greater; plain descent takes its step times the slope, which flattens on the way.
_STANDARDISED_RATES: Final[dict[Optimizer, float]] = {
    "sgd": 0.1,
    "adam": 1e-2,
    "adamw": 1e-2,
    "nadam": 1e-2,
    "radam": 1e-2,
    "rmsprop": 1e-3,
    "adagrad": 0.5,
    "adamax": 1e-2,
}


def uses_published_scaling(kind: Kind, *, built_in: bool, optimizer: Optimizer = "sgd") -> bool:
    """Whether the published scaling (readings times 0.1) belongs to a fit; else the model standardises.

    It belongs to the published runs: those kinds, on the built-in readings, by plain gradient descent. Optimizers that
    give each parameter a step of about their rate take tens of thousands of them to a bias of -18 on such a scale.
    """
    return built_in and kind in PUBLISHED and optimizer == "sgd"


def default_options(kind: Kind, *, built_in: bool, optimizer: Optimizer | None = None) -> FitOptions:
    """The options known to converge for a kind of model on the built-in readings or on others, by an optimizer.

    None for the optimizer takes the one that belongs to the kind and the data.
    """
    if uses_published_scaling(kind, built_in=built_in, optimizer=optimizer or "sgd"):
        return PUBLISHED[kind]
    default = STANDARDISED[kind]
    if optimizer is None:
        return default
    return replace(default, optimizer=optimizer, learning_rate=_STANDARDISED_RATES[optimizer])
