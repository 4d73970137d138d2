"""ModelStatistics: what each version has done, in whole counts and nanoseconds, kept as cheaply as metrics are."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from proto.inference.v2 import open_inference_pb2 as pb
from service.models import LoadedVersion, Models
from service.open_inference.request import choice_of
from service.open_inference.tables import Duration, Key, Steps, Table, Tables, to_plain
from service.run_observers import RunTimes

_NS: Final = 1_000_000_000


class Statistics:
    """Is told of runs and failures by whichever thread they happen on, and tells them as the protocol has them.

    Tables of versions that are gone are dropped when one for a new version is made, so that their number is bounded
    by what is loaded.
    """

    def __init__(self, models: Models, wall_clock: Callable[[], float] = time.time) -> None:
        self._models = models
        self._wall_clock = wall_clock
        self._lock = threading.Lock()
        self._tables: dict[Key, Table] = {}
        self.gather: Callable[[], Tables] | None = None
        """Where several processes serve: returns the tables of all of them. It may take a while."""

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
            _add(table.steps, times, calls)
            table.inferences += size
            table.executions += 1
            table.last_inference_ms = max(table.last_inference_ms, now_ms)
            steps = table.steps_of(size)
            if steps is not None:
                _add(steps, times, 1)

    def failed(self, version: LoadedVersion, seconds: Sequence[float]) -> None:
        """Learn of calls of a version that were not answered, each after its own time."""
        with self._lock:
            self._table(version).fail.add(sum(seconds), len(seconds))

    def _table(self, version: LoadedVersion) -> Table:
        key = version.name, version.version
        table = self._tables.get(key)
        if table is None:
            held = set(self._loaded())
            self._tables = {key: kept for key, kept in self._tables.items() if key in held}
            table = self._tables[key] = Table()
        return table

    def _loaded(self) -> Iterator[Key]:
        for model in self._models.catalogue.models.values():
            yield from ((model.name, number) for number, entry in model.versions.items() if entry.loaded is not None)

    # Asked by the parent ----------------------------------------------------------------------------------------------

    def plain(self) -> list[Any]:
        """What every version that is loaded has done in this process, as `to_plain` writes it."""
        keys = sorted(self._loaded())
        with self._lock:
            return to_plain({key: self._tables.get(key) or Table() for key in keys})

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
        if self.gather is not None:
            return _response(keys, self.gather())
        with self._lock:
            return _response(keys, self._tables)


def _add(steps: Steps, times: RunTimes, count: int) -> None:
    """Add a run that counts `count` times."""
    steps.join_rows.add(times.join_seconds * count, count)
    steps.infer.add(times.inference_seconds * count, count)
    steps.encode.add(times.encode_seconds * count, count)


def _response(keys: Sequence[Key], tables: Tables) -> pb.ModelStatisticsResponse:
    return pb.ModelStatisticsResponse(model_stats=[_message(key, tables.get(key) or Table()) for key in keys])


def _message(key: Key, table: Table) -> pb.ModelStatistics:
    return pb.ModelStatistics(
        name=key[0],
        version=str(key[1]),
        last_inference=table.last_inference_ms,
        inference_count=table.inferences,
        execution_count=table.executions,
        inference_stats=pb.InferStatistics(
            success=_duration(table.success),
            fail=_duration(table.fail),
            queue=_duration(table.queue),
            compute_input=_duration(table.steps.join_rows),
            compute_infer=_duration(table.steps.infer),
            compute_output=_duration(table.steps.encode),
            cache_hit=pb.StatisticDuration(),
            cache_miss=pb.StatisticDuration(),
        ),
        batch_stats=[
            pb.InferBatchStatistics(
                batch_size=size,
                compute_input=_duration(steps.join_rows),
                compute_infer=_duration(steps.infer),
                compute_output=_duration(steps.encode),
            )
            for size, steps in sorted(table.by_size.items())
        ],
    )


def _duration(duration: Duration) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=duration.count, ns=round(duration.seconds * _NS))
