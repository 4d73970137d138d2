"""Many fits as one: converters of one shape, their parameters stacked, each fitted to rows of its own.

A stacked epoch of twenty small models costs little more than one model's, so that leave-one-out and runs over many
seeds take seconds. Each member takes exactly the steps that `training.fit.fit` would take with it alone, up to float32
rounding: the summed loss gives each member its own gradient, and every optimizer offered treats numbers one by one.

Of the published MLP, rounding decides one thing more. From about epoch 1,150 on, the rate of 1e-3 is as large as the
surface's curvature bears, and the loss swings between two values from one epoch to the next. Which of the two an odd
epoch has is settled by the last bit, so that losses of two runs agree over two neighbouring epochs, not epoch by epoch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from training.dataset import Dataset, Split
from training.errors import DivergedError
from training.fit import EXPLOSION, Progress, explosion_limit, fitting_threads, make_optimizer, unwatched
from training.models import Converter
from training.options import FitOptions


@dataclass(frozen=True, slots=True, eq=False)
class Histories:
    """Losses in °C², float64 [epochs, members], as each epoch began; NaN where there were no validation rows."""

    training: NDArray[np.float64]
    validation: NDArray[np.float64]


def fit_together(
    models: Sequence[Converter],
    dataset: Dataset,
    splits: Sequence[Split],
    options: FitOptions,
    progress: Progress = unwatched,
) -> Histories:
    """Fit each model in place to the training rows of its own split; all epochs, no early stopping.

    The splits are alike in size; their validation rows may be none. `progress` is told the mean losses over the models.

    Raises:
        DivergedError: the training loss of any model became infinite or exploded.
    """
    with fitting_threads(len(models) * dataset.features.size):
        return _fit_together(models, dataset, splits, options, progress)


def _fit_together(
    models: Sequence[Converter], dataset: Dataset, splits: Sequence[Split], options: FitOptions, progress: Progress
) -> Histories:
    parameters, buffers = stack_module_state(list(models))
    optimizer = make_optimizer(options, parameters.values())
    answers_of = vmap(lambda p, b, x: functional_call(models[0], (p, b), (x,)))
    features, truths = _tensors(dataset, splits)
    rows = len(splits[0].training)
    unit_squared = buffers["unit"].square()
    histories: list[tuple[Tensor, Tensor]] = []
    limit = explosion_limit(dataset)
    for epoch in range(1, options.epochs + 1):
        squares = (answers_of(parameters, buffers, features) - truths).square()
        losses, held_out = squares[:, :rows].mean((1, 2)), squares[:, rows:].detach().mean((1, 2))
        histories.append((losses.detach(), held_out))
        _check(epoch, losses.detach(), torch.clamp(EXPLOSION * histories[0][0], min=limit), options)
        progress(epoch, losses.mean().item(), held_out.mean().item())
        optimizer.zero_grad()
        (losses / unit_squared).sum().backward()
        optimizer.step()
    _unstack(parameters, models)
    return Histories(_table(histories, 0), _table(histories, 1))


def _tensors(dataset: Dataset, splits: Sequence[Split]) -> tuple[Tensor, Tensor]:
    """Features [members, rows, N_in] and truths [members, rows, 1], float32: training rows first, then validation."""
    places = np.stack([np.concatenate([split.training, split.validation]) for split in splits])
    features = torch.tensor(dataset.features[places], dtype=torch.float32)
    return features, torch.tensor(dataset.celsius[places], dtype=torch.float32)[..., None]


def _table(histories: list[tuple[Tensor, Tensor]], which: int) -> NDArray[np.float64]:
    table: NDArray[np.float64] = torch.stack([pair[which] for pair in histories]).double().numpy()
    return table


def _check(epoch: int, losses: Tensor, limit: Tensor, options: FitOptions) -> None:
    if not bool((losses <= limit).all()):  # NaN stops too
        raise DivergedError(epoch, float(losses[~(losses <= limit)][0]), options.learning_rate)


def _unstack(parameters: dict[str, Tensor], models: Sequence[Converter]) -> None:
    with torch.no_grad():
        for member, model in enumerate(models):
            for name, parameter in model.named_parameters():
                parameter.copy_(parameters[name][member])
