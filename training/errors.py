"""What can go wrong in training, as one small tree; the command line prints any of them as one line.

TrainingError
├── DataError        the readings cannot be used
├── SplitError       the readings cannot be divided as asked
├── DivergedError    the loss left all bounds
├── CoverageError    so few readings cannot support an interval of that coverage
├── ExportError      a model file cannot be run, or is not the model that was fitted
├── PublishError     a file may not go into a repository, or could not be put there
├── TelemetryError   what a job tells of itself reached no one
├── ChampionError    the version that answers now cannot be judged against
├── BusyError        another job retrains this model just now
└── TrialError       a real server does not serve a file as it should
"""

from pathlib import Path


class TrainingError(Exception):
    """Anything that training refuses or fails at; the message is one line, fit for whoever typed the command."""


class DataError(TrainingError):
    """Readings cannot be used: a missing column, a cell that is no number, too few rows.

    The message names the source, and the column where there is one. Of text it names the line, counted from 1, header
    and blank lines included, as an editor counts; of a Parquet file the row, from 1.
    """

    def __init__(
        self,
        source: Path | str,
        problem: str,
        *,
        line: int | None = None,
        row: int | None = None,
        column: str | None = None,
    ) -> None:
        place = [str(source)]
        if line is not None:
            place.append(f"line {line}")
        if row is not None:
            place.append(f"row {row}")
        if column is not None:
            place.append(f"column {column!r}")
        super().__init__(f"{', '.join(place)}: {problem}")
        self.source = str(source)
        self.line = line
        self.row = row
        self.column = column


class SplitError(TrainingError):
    """The readings cannot be divided into training and validation rows as asked."""


class DivergedError(TrainingError):
    """The training loss became infinite or exploded; the message suggests a smaller learning rate."""

    def __init__(self, epoch: int, loss: float, learning_rate: float) -> None:
        super().__init__(
            f"training diverged: the loss reached {loss:.4g} at epoch {epoch}; "
            f"try a smaller learning rate, such as {learning_rate / 10:g} in place of {learning_rate:g}"
        )
        self.epoch = epoch
        self.learning_rate = learning_rate


class CoverageError(TrainingError):
    """An interval of the coverage asked for cannot be had from so few readings."""


class ExportError(TrainingError):
    """A model file, exported or given, is not a valid model, cannot be run, or does not answer as the fitted model."""


class PublishError(TrainingError):
    """A file is not an ONNX model, its metadata is missing or wrong, or the repository or server does not take it."""


class TelemetryError(TrainingError):
    """The place that a job's metrics are to go to is none, or does not take them; the message names it."""


class ChampionError(TrainingError):
    """The version that answers by default cannot be judged against, or it or labels were changed meanwhile."""


class BusyError(TrainingError):
    """Another job retrains this model just now."""


class TrialError(TrainingError):
    """A real server did not start with a file, or did not answer as the file does elsewhere; the message says how."""
