"""Who is told of runs, and what of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from service.engine import Tensor
from service.models import LoadedVersion

Served: TypeAlias = tuple[list[Tensor], list[Tensor]]
"""What went into a run and what came out of it: an array for each input, and for each output, of the model."""


class RunObserver(Protocol):
    """Is told of every run, once, by whichever thread ran it."""

    def ran(
        self,
        version: LoadedVersion,
        rows: int,
        queue_seconds: Sequence[float],
        inference_seconds: float,
        served: Served,
    ) -> None:
        """Learn of a run: its rows, how long each of its calls had waited, how long ONNX Runtime took, its arrays.

        The arrays may be views of what came from the network, and must neither be changed nor kept.
        """


@dataclass(frozen=True, slots=True)
class RunTimes:
    """How long the steps of one run took."""

    queue_seconds: float
    """Waiting, of all its calls together."""
    join_seconds: float
    """Joining and checking the rows."""
    inference_seconds: float
    """ONNX Runtime."""
    encode_seconds: float
    """Taking the answers apart and encoding them."""


class RunStatistics(Protocol):
    """Is told more of every run than a RunObserver, and of the calls of a version that fail."""

    def ran(self, version: LoadedVersion, rows: int, answered_seconds: Sequence[float], times: RunTimes) -> None:
        """Learn of a run: its rows, how long each call that was answered took from arrival to answer, its steps."""

    def failed(self, version: LoadedVersion, seconds: Sequence[float]) -> None:
        """Learn of calls of a version that were not answered, each after its own time."""


class NoStatistics:
    """Keeps nothing."""

    def ran(self, version: LoadedVersion, rows: int, answered_seconds: Sequence[float], times: RunTimes) -> None:
        """Keep nothing."""

    def failed(self, version: LoadedVersion, seconds: Sequence[float]) -> None:
        """Keep nothing."""
