"""What versions have done, as plain numbers that can be sent to another process and joined with those of others.

No runtime and no message is needed for it: the parent of several workers joins their tables, too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

MAX_BATCH_SIZES: Final = 1024
"""Sizes of runs that are told apart for one version; runs of further sizes count in the totals alone."""


@dataclass(slots=True)
class Duration:
    """How often, and for how many seconds altogether."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        """Add so many, of so many seconds together."""
        self.count += count
        self.seconds += seconds

    def join(self, other: "Duration") -> None:
        """Add what another holds."""
        self.add(other.seconds, other.count)


@dataclass(slots=True)
class Steps:
    """The three steps of a run."""

    join_rows: Duration = field(default_factory=Duration)
    infer: Duration = field(default_factory=Duration)
    encode: Duration = field(default_factory=Duration)

    def join(self, other: "Steps") -> None:
        """Add what another holds."""
        self.join_rows.join(other.join_rows)
        self.infer.join(other.infer)
        self.encode.join(other.encode)


@dataclass(slots=True)
class Table:
    """What one version did."""

    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    steps: Steps = field(default_factory=Steps)
    by_size: dict[int, Steps] = field(default_factory=dict)
    """The steps of runs by their rows, for the sizes that came first."""
    inferences: int = 0
    executions: int = 0
    last_inference_ms: int = 0

    def steps_of(self, size: int) -> Steps | None:
        """The steps of runs of a size; None where too many sizes are told apart already."""
        steps = self.by_size.get(size)
        if steps is None and len(self.by_size) < MAX_BATCH_SIZES:
            steps = self.by_size[size] = Steps()
        return steps

    def join(self, other: "Table") -> None:
        """Add what another holds."""
        for mine, theirs in ((self.success, other.success), (self.fail, other.fail), (self.queue, other.queue)):
            mine.join(theirs)
        self.steps.join(other.steps)
        for size, theirs_of_size in other.by_size.items():
            steps = self.steps_of(size)
            if steps is not None:
                steps.join(theirs_of_size)
        self.inferences += other.inferences
        self.executions += other.executions
        self.last_inference_ms = max(self.last_inference_ms, other.last_inference_ms)


Key: TypeAlias = tuple[str, int]
"""A model's name and a version of it."""

Tables: TypeAlias = Mapping[Key, Table]


def joined(all_tables: Iterable[Tables]) -> dict[Key, Table]:
    """What several processes did, as one would have counted it. The tables given stay as they are."""
    total: dict[Key, Table] = {}
    for tables in all_tables:
        for key, table in tables.items():
            total.setdefault(key, Table()).join(table)
    return total


def to_plain(tables: Tables) -> list[Any]:
    """Write tables as what JSON knows."""
    return [[*key, _plain(table)] for key, table in tables.items()]


def from_plain(plain: Iterable[Any]) -> dict[Key, Table]:
    """Read what `to_plain` wrote."""
    return {(name, version): _table(content) for name, version, content in plain}


def _plain(table: Table) -> list[Any]:
    durations = [[each.count, each.seconds] for each in (table.success, table.fail, table.queue)]
    sizes = [[size, _plain_steps(steps)] for size, steps in table.by_size.items()]
    return [durations, _plain_steps(table.steps), sizes, table.inferences, table.executions, table.last_inference_ms]


def _plain_steps(steps: Steps) -> list[Any]:
    return [[each.count, each.seconds] for each in (steps.join_rows, steps.infer, steps.encode)]


def _table(content: list[Any]) -> Table:
    durations, steps, sizes, inferences, executions, last_inference_ms = content
    by_size = {size: _steps(each) for size, each in sizes}
    success, fail, queue = (Duration(*each) for each in durations)
    return Table(success, fail, queue, _steps(steps), by_size, inferences, executions, last_inference_ms)


def _steps(content: list[Any]) -> Steps:
    return Steps(*(Duration(*each) for each in content))


class TablesLedger:
    """Joins what workers report, so that counts outlive the worker that counted them.

    Guarantees: the sum is that of the last reports of the living, and of what the dead had reported of versions that a
    living one still has.
    """

    def __init__(self) -> None:
        self._last: dict[int, dict[Key, Table]] = {}
        self._departed: dict[Key, Table] = {}

    def report(self, worker: int, tables: dict[Key, Table]) -> None:
        """Learn what a worker has counted since it began. Each process has a number of its own."""
        self._last[worker] = tables

    def leave(self, worker: int) -> None:
        """Learn that a worker is gone: what it counted stays counted."""
        self._departed = joined((self._departed, self._last.pop(worker, {})))

    def total(self) -> dict[Key, Table]:
        """What all of them did."""
        if self._last:
            known = {key for tables in self._last.values() for key in tables}
            self._departed = {key: table for key, table in self._departed.items() if key in known}
        return joined((*self._last.values(), self._departed))
