"""Fits a converter to readings: the explicit full-batch loop, in float32, with the mean squared error in °C².

    model = build_for(dataset, split.training, Architecture("mlp"), seed=0)
    fitted = fit(model, dataset, split, default_options("mlp", built_in=True))

Optimizers go by their names in `torch.optim`, in lower case: see `training.options`.
"""

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.dataset import Dataset, Split
from training.errors import DataError, DivergedError
from training.models import Converter, build_for
from training.options import Architecture, FitOptions, Optimizer, default_options

# A training loss so many times above the larger of its first value and the target's variance has exploded.
EXPLOSION: Final = 1e4

# Up to so many numbers in the features, one thread is the faster.
ONE_THREAD_NUMBERS: Final = 20_000

_OPTIMIZERS: Final[dict[Optimizer, Callable[..., torch.optim.Optimizer]]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "adamax": torch.optim.Adamax,
}


class Progress(Protocol):
    """Watches a fit; called after every epoch, so it has to be quick."""

    def __call__(self, epoch: int, training_loss: float, validation_loss: float) -> None:
        """Take note of an epoch, counted from 1, and of the losses in °C² with which it began."""


def unwatched(epoch: int, training_loss: float, validation_loss: float) -> None:
    """Watch nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """Losses in °C², float64 [epochs], as each epoch began, that is before its step."""

    training: NDArray[np.float64]
    validation: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.training)

    @property
    def late_fall(self) -> float:
        """By what share the mean training loss of the last tenth of the epochs lies below that of the tenth before.

        0 for a fit of fewer than 20 epochs, which has no such tenths, and where the loss rose.
        """
        tenth = len(self) // 10
        before, last = self.training[-2 * tenth : -tenth].mean(), self.training[-tenth:].mean()
        return max(0.0, 1.0 - float(last / before)) if tenth > 1 and before > 0 else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A fitted converter, and everything that made it.

    `gradients` holds, by parameter name, the gradient of the last epoch run (of the loss in units of `model.unit`).
    `best_epoch` is the epoch whose parameters were kept where the fit watched its validation loss, else None.
    """

    model: Converter
    dataset: Dataset
    split: Split
    options: FitOptions
    history: History
    gradients: dict[str, NDArray[np.float32]]
    best_epoch: int | None = None

    @property
    def architecture(self) -> Architecture:
        """The shape of the model."""
        return self.model.architecture

    @property
    def hidden_gradient(self) -> NDArray[np.float32] | None:
        """Gradient [hidden, N_in] of the first hidden layer's weights after training; None without such a layer."""
        return self.gradients.get("hidden_linear.weight")

    @property
    def training_range(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Least and greatest value [N_in] of each column in the training rows: where the model may be trusted."""
        rows = self.dataset.features[self.split.training]
        return rows.min(axis=0), rows.max(axis=0)

    @property
    def training_loss(self) -> float:
        """Mean squared error in °C² of the fitted parameters over the training rows."""
        return self._loss(self.split.training)

    @property
    def validation_loss(self) -> float:
        """Mean squared error in °C² of the fitted parameters over the validation rows."""
        return self._loss(self.split.validation)

    def _loss(self, rows: NDArray[np.int64]) -> float:
        errors = self.model.predict(self.dataset.features[rows]) - self.dataset.celsius[rows]
        return float(np.mean(errors**2))


def fit(
    model: Converter, dataset: Dataset, split: Split, options: FitOptions, progress: Progress = unwatched
) -> Fitted:
    """Fit a model in place to the training rows, and return it with its history.

    Raises:
        DataError: a column holds one value only in the training rows.
        DivergedError: the training loss became infinite or exploded.
    """
    check_training_rows(dataset, split)
    with fitting_threads(dataset.features.size):
        return _fit(model, dataset, split, options, progress)


def _fit(model: Converter, dataset: Dataset, split: Split, options: FitOptions, progress: Progress) -> Fitted:
    training = _tensors(dataset, split.training)
    validation = _tensors(dataset, split.validation)
    optimizer = make_optimizer(options, model.parameters())
    loss_function = nn.MSELoss()
    limit = explosion_limit(dataset)
    unit_squared = model.unit.square()
    keeper = _Keeper(options.patience)
    losses: list[tuple[float, float]] = []
    for epoch in range(1, options.epochs + 1):
        training_loss = loss_function(model(training[0]), training[1])
        with torch.no_grad():
            validation_loss = loss_function(model(validation[0]), validation[1])
        losses.append((training_loss.item(), validation_loss.item()))
        if not losses[-1][0] <= max(limit, EXPLOSION * losses[0][0]):  # NaN stops too
            raise DivergedError(epoch, losses[-1][0], options.learning_rate)
        progress(epoch, *losses[-1])
        if keeper.is_done(epoch, losses[-1][1], model):
            break
        optimizer.zero_grad()
        (training_loss / unit_squared).backward()
        optimizer.step()
    keeper.restore(model)
    return Fitted(model, dataset, split, options, _history(losses), _gradients(model), keeper.best_epoch)


def train(
    dataset: Dataset,
    split: Split,
    architecture: Architecture,
    options: FitOptions | None = None,
    progress: Progress = unwatched,
) -> Fitted:
    """Build the converter that belongs to the data and fit it: `build_for` and `fit`, with the default options."""
    options = options or default_options(architecture.kind, built_in=dataset.is_built_in)
    check_training_rows(dataset, split)
    model = build_for(dataset, split.training, architecture, options.seed, options.optimizer)
    return fit(model, dataset, split, options, progress)


def check_training_rows(dataset: Dataset, split: Split) -> None:
    """Raise DataError where the split leaves a column constant in the training rows: nothing can be learned from it."""
    for place, column in enumerate(dataset.columns):
        values = dataset.features[split.training, place].astype(np.float32)
        if np.ptp(values) == 0:
            raise DataError(dataset.source, f"all training rows of this split hold {values[0]:g}", column=column)


def make_optimizer(options: FitOptions, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """The optimizer by its name, with torch's defaults for all but the step size."""
    return _OPTIMIZERS[options.optimizer](parameters, lr=options.learning_rate)


def explosion_limit(dataset: Dataset) -> float:
    """The loss in °C² above which a fit has diverged, whatever it began with."""
    return EXPLOSION * float(np.var(dataset.celsius))


@contextlib.contextmanager
def fitting_threads(numbers: int) -> Iterator[None]:
    """Let torch use one thread while a batch holds few numbers: threads would wait for each other longer than compute.

    It also makes the result of a small fit the same on every number of cores.
    """
    before = torch.get_num_threads()
    if numbers <= ONE_THREAD_NUMBERS:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Keeper:
    """Early stopping: keeps the parameters of the lowest validation loss seen, and says when patience has run out."""

    def __init__(self, patience: int | None) -> None:
        self._patience = patience
        self._best_loss = float("inf")
        self._best_state: dict[str, Tensor] = {}
        self.best_epoch: int | None = None

    def is_done(self, epoch: int, validation_loss: float, model: nn.Module) -> bool:
        if self._patience is None:
            return False
        if validation_loss < self._best_loss:
            self._best_loss, self.best_epoch = validation_loss, epoch
            self._best_state = copy.deepcopy(model.state_dict())
            return False
        return self.best_epoch is not None and epoch - self.best_epoch >= self._patience

    def restore(self, model: nn.Module) -> None:
        if self._best_state:
            model.load_state_dict(self._best_state)


def _tensors(dataset: Dataset, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Features [B, N_in] and truths [B, 1] of some rows, float32 as published."""
    features = torch.tensor(dataset.features[rows], dtype=torch.float32)
    return features, torch.tensor(dataset.celsius[rows], dtype=torch.float32)[:, None]


def _history(losses: list[tuple[float, float]]) -> History:
    table = np.array(losses, dtype=np.float64)
    return History(table[:, 0].copy(), table[:, 1].copy())


def _gradients(model: nn.Module) -> dict[str, NDArray[np.float32]]:
    named = ((name, parameter.grad) for name, parameter in model.named_parameters())
    return {name: gradient.numpy().copy() for name, gradient in named if gradient is not None}
