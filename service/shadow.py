"""Runs canaries on copies of rows that were answered, and measures how far their answers lie from those given.

It gets what is left over: copies wait in a bounded queue, one thread runs them after the answers went out, for a part
of the time only, and whatever goes wrong there is counted and goes no further.
"""

import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final, NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from service.catalogue import Trial
from service.engine import Tensor
from service.snapshot import DIFFERENCE_CELSIUS_BOUNDS, Distribution, Labels

log = structlog.get_logger(__name__)

STOP_SECONDS: Final = 5.0
"""How long a run that is under way is waited for when the server stops; it ends with the process."""


@dataclass(frozen=True, slots=True)
class ShadowLimits:
    """What the shadow may take."""

    queue_bytes: int = 8 << 20
    """Bytes of the rows and answers that wait; a copy that would be more is dropped."""
    time_share: float = 0.2
    """The part of the time, of one thread's, in which canaries may run."""
    gather_seconds: float = 0.005
    """Copies are taken so long after the first came: the answers are gone by then, and many copies are one run."""
    run_rows: int = 4096
    """Copies are joined up to this."""


class Copy(NamedTuple):
    """Rows that a stable version answered, for its canary."""

    trial: Trial
    tensors: tuple[Tensor, ...]
    """One array for each input, rows along axis 0."""
    outputs: Sequence[Tensor]
    """What the stable version made of them."""
    rows: int

    @property
    def size_bytes(self) -> int:
        """What it holds in memory."""
        return sum(array.nbytes for array in (*self.tensors, *self.outputs))


class _Table:
    """What one canary did in the shadow."""

    def __init__(self) -> None:
        self.rows = 0
        self.failed_rows = 0
        self.counts: NDArray[np.int64] = np.zeros(len(DIFFERENCE_CELSIUS_BOUNDS) + 1, np.int64)
        self.total_celsius = 0.0


class Shadow:
    """Runs copies on a thread of its own, which starts with the first of them. Any thread may call any method.

    Guarantees: `offer` takes no longer than putting something into a list, and never raises; what waits is bounded;
    each copy is run, or counted as dropped.
    """

    def __init__(self, limits: ShadowLimits | None = None) -> None:
        self._limits = limits or ShadowLimits()
        self._changed = threading.Condition()
        self._waiting: list[Copy] = []
        self.waiting_bytes = 0
        """Bytes that wait for their run."""
        self._stopped = False
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._tables: dict[Labels, _Table] = {}
        self._dropped: Counter[Labels] = Counter()

    def offer(self, copy: Copy) -> None:
        """Let a copy wait for its run, or drop it where as much waits as may."""
        with self._changed:
            is_full = self._stopped or self.waiting_bytes + copy.size_bytes > self._limits.queue_bytes
            if is_full or not self._is_working():
                with self._lock:
                    self._dropped[copy.trial.canary.name,] += copy.rows
                return
            self._waiting.append(copy)
            self.waiting_bytes += copy.size_bytes
            if len(self._waiting) == 1:
                self._changed.notify_all()

    def _is_working(self) -> bool:
        """Start the thread with the first copy; False where the process can have no further thread now."""
        if self._thread is None:
            thread = threading.Thread(target=self._work, name="shadow", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return False
            self._thread = thread
        return True

    def stop(self) -> None:
        """Run nothing more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)

    # Asked for metrics ------------------------------------------------------------------------------------------------

    def add_to(
        self,
        numbers: MutableMapping[str, dict[Labels, float]],
        distributions: MutableMapping[str, dict[Labels, Distribution]],
        versions: Collection[Labels],
    ) -> None:
        """Add what was counted of the versions given; a last run may have counted for one that is gone."""
        models = {model for model, _ in versions}
        with self._lock:
            dropped = {labels: float(rows) for labels, rows in self._dropped.items() if labels[0] in models}
            zeros: dict[Labels, float] = {
                (model,): 0.0 for model, version in self._tables if (model, version) in versions
            }
            numbers["quicksilver_shadow_dropped_rows"] = {**zeros, **dropped}  # a rate needs a beginning
            for labels, table in [item for item in self._tables.items() if item[0] in versions]:
                numbers["quicksilver_shadow_rows"][labels] = table.rows
                numbers["quicksilver_shadow_failed_rows"][labels] = table.failed_rows
                distributions["quicksilver_shadow_difference_celsius"][labels] = Distribution(
                    tuple(table.counts.tolist()), table.total_celsius
                )

    def forget_but(self, versions: Collection[Labels]) -> None:
        """Drop what was counted of other versions than these, and of their models."""
        models = {model for model, _ in versions}
        with self._lock:
            for labels in self._tables.keys() - set(versions):
                del self._tables[labels]
            for labels in [labels for labels in self._dropped if labels[0] not in models]:
                del self._dropped[labels]

    # On its own thread ------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while self._round():
            pass

    def _round(self) -> bool:
        """Run what waits, then rest as long as the share of the time asks for; False when there will be no more."""
        if not self._wait():
            return False
        began = time.monotonic()
        self._run_waiting()
        spent = time.monotonic() - began
        with self._changed:
            return not self._changed.wait_for(lambda: self._stopped, spent * (1 / self._limits.time_share - 1))

    def _wait(self) -> bool:
        """Wait for a copy, and then as long as answers need to go out; False when stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._waiting)
            return not self._changed.wait_for(lambda: self._stopped, self._limits.gather_seconds)

    def _run_waiting(self) -> None:
        """Run what waits. In a function of its own: nothing here holds a version while the next copies are awaited."""
        with self._changed:
            copies, self._waiting = self._waiting, []
            self.waiting_bytes = 0
        for together in joined(copies, self._limits.run_rows):
            trial = together[0].trial
            try:
                self._run(trial, together)
            except Exception as fault:  # noqa: BLE001 - a canary may fail in any way, and concerns nobody
                self._failed(trial, sum(copy.rows for copy in together), fault)

    def _run(self, trial: Trial, copies: Sequence[Copy]) -> None:
        tensors = [np.concatenate(columns) for columns in zip(*(copy.tensors for copy in copies), strict=True)]
        outputs = trial.canary.engine.run(tensors)
        rows = sum(copy.rows for copy in copies)
        given = [copy.outputs[0] for copy in copies]
        difference = differences_celsius(outputs[0], given) if trial.stable.converts else np.empty(0)
        finite = difference[np.isfinite(difference)]
        with self._lock:
            table = self._table(trial)
            table.rows += rows
            table.failed_rows += len(difference) - len(finite)
            places = np.searchsorted(DIFFERENCE_CELSIUS_BOUNDS, finite)
            table.counts += np.bincount(places, minlength=len(table.counts))
            table.total_celsius += float(finite.sum())

    def _failed(self, trial: Trial, rows: int, fault: Exception) -> None:
        """Count rows that a canary could not answer; the first time, say why."""
        with self._lock:
            table = self._table(trial)
            is_first = not table.failed_rows
            table.rows += rows
            table.failed_rows += rows
        if is_first:
            log.error("canary failed in the shadow", model=trial.canary.name, version=trial.canary.version,
                      exc_info=fault)  # fmt: skip

    def _table(self, trial: Trial) -> _Table:
        return self._tables.setdefault((trial.canary.name, str(trial.canary.version)), _Table())


def differences_celsius(canary: Tensor, stable: Sequence[Tensor]) -> NDArray[np.float64]:
    """How far a canary's answers `[N, 1]` lie from those given for the same rows, in parts: float64 `[N]`."""
    distances: NDArray[np.float64] = np.abs(canary.ravel().astype(np.float64) - np.concatenate(stable).ravel())
    return distances


def joined(copies: Iterable[Copy], run_rows: int) -> Iterator[list[Copy]]:
    """Part copies into those that can share a run: of one canary, whose rows are independent, and of one shape."""
    for _, alike in groupby(copies, lambda copy: (copy.trial, [tensor.shape[1:] for tensor in copy.tensors])):
        together: list[Copy] = []
        rows = 0
        for copy in alike:
            if together and (rows + copy.rows > run_rows or not copy.trial.canary.rows_independent):
                yield together
                together, rows = [], 0
            together.append(copy)
            rows += copy.rows
        yield together
