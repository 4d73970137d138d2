"""What training costs: time to fit beside the closed form, and an epoch beside PyTorch's own floor. TIMES. Prints JSON.

The floor is the same epochs with nothing around them: forward, loss, backward and step of the same module with the same
optimizer, and the validation loss; no history, no checks, no progress.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from training.dataset import built_in, published_split
from training.fit import fit, fitting_threads, make_optimizer
from training.models import Converter, build_for
from training.options import Architecture, FitOptions, Kind, default_options

_KINDS: Final[tuple[Kind, ...]] = ("linear", "mlp")


def seconds_of(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def bare_epochs(
    model: Converter, options: FitOptions, training: tuple[Tensor, Tensor], held: tuple[Tensor, Tensor]
) -> None:
    """The epochs of a fit, and nothing else."""
    optimizer = make_optimizer(options, model.parameters())
    loss_function = nn.MSELoss()
    for _ in range(options.epochs):
        loss = loss_function(model(training[0]), training[1])
        with torch.no_grad():
            loss_function(model(held[0]), held[1])
        optimizer.zero_grad()
        (loss / model.unit.square()).backward()
        optimizer.step()


def main() -> None:
    """Measure, and print one line."""
    times = int(sys.argv[1])
    dataset, split = built_in(), published_split()
    rows = [
        (torch.tensor(dataset.features[part], dtype=torch.float32),
         torch.tensor(dataset.celsius[part], dtype=torch.float32)[:, None])
        for part in (split.training, split.validation)
    ]  # fmt: skip
    result: dict[str, object] = {}
    for kind in _KINDS:
        options = default_options(kind, built_in=True)

        def new(kind: Kind = kind) -> Converter:
            return build_for(dataset, split.training, Architecture(kind), seed=0)

        ours, floor = [], []
        for _ in range(times):
            ours.append(seconds_of(lambda: fit(new(), dataset, split, options)))  # noqa: B023 - called at once
            with fitting_threads(dataset.features.size):
                floor.append(seconds_of(lambda: bare_epochs(new(), options, rows[0], rows[1])))  # noqa: B023 - as above
        result[kind] = {
            "epochs": options.epochs,
            "fit_seconds": statistics.median(ours),
            "floor_seconds": statistics.median(floor),
        }
    design = np.column_stack([dataset.features[split.training], np.ones(len(split.training))])
    truths = dataset.celsius[split.training]
    repeats = 1000
    closed = seconds_of(lambda: [np.linalg.lstsq(design, truths, rcond=None) for _ in range(repeats)]) / repeats
    result["closed_form_seconds"] = closed
    print(json.dumps(result))  # noqa: T201 - whoever started this process reads it


if __name__ == "__main__":
    main()
