"""ModelStatistics: what each version has done, in whole counts and nanoseconds, kept as cheaply as metrics are."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from proto.inference.v2 import open_inference_pb2 as pb
from service.dataplane import RunTimes
from service.models import LoadedVersion, Models
from service.open_inference.request import choice_of

MAX_BATCH_SIZES: Final = 1024
"""Sizes of runs that are told apart for one version; runs of further sizes count in the totals alone."""

_NS: Final = 1_000_000_000


class _Duration:
    """How often, and for how many seconds altogether."""

    __slots__ = ("count", "seconds")

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        self.count += count
        self.seconds += seconds

    def message(self) -> pb.StatisticDuration:
        return pb.StatisticDuration(count=self.count, ns=round(self.seconds * _NS))


@dataclass(slots=True)
class _Steps:
    """The three steps of a run."""

    join: _Duration = field(default_factory=_Duration)
    infer: _Duration = field(default_factory=_Duration)
    encode: _Duration = field(default_factory=_Duration)

    def add(self, times: RunTimes, count: int) -> None:
        """Add a run that counts `count` times."""
        self.join.add(times.join_seconds * count, count)
        self.infer.add(times.inference_seconds * count, count)
        self.encode.add(times.encode_seconds * count, count)


@dataclass(slots=True)
class _Table:
    """What one version did."""

    success: _Duration = field(default_factory=_Duration)
    fail: _Duration = field(default_factory=_Duration)
    queue: _Duration = field(default_factory=_Duration)
    steps: _Steps = field(default_factory=_Steps)
    by_size: dict[int, _Steps] = field(default_factory=dict)
    inferences: int = 0
    executions: int = 0
    last_inference_ms: int = 0


class Statistics:
    """Is told of runs and failures by whichever thread they happen on, and tells them as the protocol has them.

    Tables of versions that are gone are dropped when one for a new version is made, so that their number is bounded
    by what is loaded.
    """

    def __init__(self, models: Models, wall_clock: Callable[[], float] = time.time) -> None:
        self._models = models
        self._wall_clock = wall_clock
        self._lock = threading.Lock()
        self._tables: dict[tuple[str, int], _Table] = {}

    # Told by the dataplane --------------------------------------------------------------------------------------------

    def ran(self, version: LoadedVersion, rows: int, answered_seconds: Sequence[float], times: RunTimes) -> None:
        """Learn of a run: its rows, how long each call that was answered took from arrival to answer, its steps."""
        size = rows if version.rows_independent else 1
        calls = len(answered_seconds)
        now_ms = round(self._wall_clock() * 1000)
        with self._lock:
            table = self._table(version)
            table.success.add(sum(answered_seconds), calls)
            table.queue.add(times.queue_seconds, calls)
            table.steps.add(times, calls)
            table.inferences += size
            table.executions += 1
            table.last_inference_ms = max(table.last_inference_ms, now_ms)
            steps = table.by_size.get(size)
            if steps is None and len(table.by_size) < MAX_BATCH_SIZES:
                steps = table.by_size[size] = _Steps()
            if steps is not None:
                steps.add(times, 1)

    def failed(self, version: LoadedVersion, seconds: Sequence[float]) -> None:
        """Learn of calls of a version that were not answered, each after its own time."""
        with self._lock:
            self._table(version).fail.add(sum(seconds), len(seconds))

    def _table(self, version: LoadedVersion) -> _Table:
        key = version.name, version.version
        table = self._tables.get(key)
        if table is None:
            held = set(self._loaded())
            self._tables = {key: kept for key, kept in self._tables.items() if key in held}
            table = self._tables[key] = _Table()
        return table

    def _loaded(self) -> Iterator[tuple[str, int]]:
        for model in self._models.catalogue.models.values():
            yield from ((model.name, number) for number, entry in model.versions.items() if entry.loaded is not None)

    # Asked by clients -------------------------------------------------------------------------------------------------

    def answer(self, request: pb.ModelStatisticsRequest) -> pb.ModelStatisticsResponse:
        """Tell what one version has done, or all loaded ones of a model, or of all models.

        Raises:
            InvalidRequestError: what stands for a version is none, or one is named without its model.
            ServiceError: as `Catalogue.resolve`, where a model is named.
        """
        choice = choice_of(request.version, "version")
        catalogue = self._models.catalogue
        if choice is not None:
            wanted = catalogue.resolve(request.name, choice)
            keys = [(wanted.name, wanted.version)]
        else:
            name = catalogue.model(request.name).name if request.name else ""
            keys = sorted(key for key in self._loaded() if not name or key[0] == name)
        with self._lock:
            return pb.ModelStatisticsResponse(
                model_stats=[_message(key, self._tables.get(key) or _Table()) for key in keys]
            )


def _message(key: tuple[str, int], table: _Table) -> pb.ModelStatistics:
    return pb.ModelStatistics(
        name=key[0],
        version=str(key[1]),
        last_inference=table.last_inference_ms,
        inference_count=table.inferences,
        execution_count=table.executions,
        inference_stats=pb.InferStatistics(
            success=table.success.message(),
            fail=table.fail.message(),
            queue=table.queue.message(),
            compute_input=table.steps.join.message(),
            compute_infer=table.steps.infer.message(),
            compute_output=table.steps.encode.message(),
            cache_hit=pb.StatisticDuration(),
            cache_miss=pb.StatisticDuration(),
        ),
        batch_stats=[
            pb.InferBatchStatistics(
                batch_size=size,
                compute_input=steps.join.message(),
                compute_infer=steps.infer.message(),
                compute_output=steps.encode.message(),
            )
            for size, steps in sorted(table.by_size.items())
        ],
    )
