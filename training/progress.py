"""Shows a fit as it goes, on standard error: a bar with the current losses on a terminal, plain lines elsewhere."""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TextIO

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from training.fit import Progress

_LINES: Final = 5
_UPDATES: Final = 200


@contextmanager
def shown(label: str, epochs: int, stream: TextIO | None = None) -> Iterator[Progress]:
    """Show a fit of so many epochs under a label while it runs. The stream is standard error where none is given."""
    stream = stream or sys.stderr
    if not stream.isatty():
        yield _Lines(label, epochs, stream)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[losses]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(file=stream)) as bar:
        yield _Ticks(bar, label, epochs)


class _Ticks:
    """Moves a bar, some hundred times a fit."""

    def __init__(self, bar: Bar, label: str, epochs: int) -> None:
        self._bar = bar
        self._task = bar.add_task(label, total=epochs, losses="")
        self._every = max(1, epochs // _UPDATES)
        self._epochs = epochs

    def __call__(self, epoch: int, training_loss: float, validation_loss: float) -> None:
        if epoch % self._every == 0 or epoch == self._epochs:
            self._bar.update(self._task, completed=epoch, losses=_losses(training_loss, validation_loss))


class _Lines:
    """Writes a line now and then, for logs and pipes: at the first epoch, and five times more a fit."""

    def __init__(self, label: str, epochs: int, stream: TextIO) -> None:
        self._label = label
        self._epochs = epochs
        self._every = max(1, epochs // _LINES)
        self._stream = stream

    def __call__(self, epoch: int, training_loss: float, validation_loss: float) -> None:
        if epoch == 1 or epoch % self._every == 0 or epoch == self._epochs:
            losses = _losses(training_loss, validation_loss)
            print(f"{self._label}: epoch {epoch} of {self._epochs}, {losses}", file=self._stream, flush=True)


def _losses(training_loss: float, validation_loss: float) -> str:
    """The losses in °C², the validation loss only where there is one."""
    training = f"training loss {training_loss:.4f}"
    return training if math.isnan(validation_loss) else f"{training}, validation loss {validation_loss:.4f}"
