"""What several workers counted, as one: pure functions on snapshots, and the ledger that also knows the dead.

Joining the parts of a workload that was split gives what one process would have counted of all of it.
"""

from collections.abc import Iterable, Iterator, Mapping
from operator import add
from typing import TypeVar

from service.snapshot import (
    FAMILIES,
    VERSION_LABELS,
    Counter,
    Distribution,
    Exemplar,
    Histogram,
    Labels,
    Snapshot,
    Window,
)

ValueT = TypeVar("ValueT", float, Distribution)

_MODEL, _VERSION = VERSION_LABELS


def merge(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Join snapshots: distributions are added, counters and gauges go together as their family says."""
    numbers: dict[str, dict[Labels, float]] = {}
    distributions: dict[str, dict[Labels, Distribution]] = {}
    windows: dict[Labels, Window] = {}
    exemplars: dict[Labels, dict[int, Exemplar]] = {}
    for snapshot in snapshots:
        for labels, window in snapshot.windows.items():
            windows[labels] = both(windows[labels], window) if labels in windows else window
        for labels, known in snapshot.exemplars.items():
            kept = exemplars.setdefault(labels, {})
            for place, exemplar in known.items():
                kept[place] = max(kept.get(place, exemplar), exemplar, key=lambda each: each.timestamp_seconds)
        for name, series in snapshot.numbers.items():
            into = numbers.setdefault(name, {})
            for labels, value in series.items():
                into[labels] = _joined(name, into[labels], value) if labels in into else value
        for name, held in snapshot.distributions.items():
            joined = distributions.setdefault(name, {})
            for labels, distribution in held.items():
                joined[labels] = added(joined[labels], distribution) if labels in joined else distribution
    return Snapshot(numbers, distributions, windows, exemplars)


def _joined(name: str, one: float, other: float) -> float:
    family = FAMILIES[name]
    if not isinstance(family, Histogram) and family.together != "sum":
        return min(one, other) if family.together == "least" else max(one, other)
    return one + other


def added(one: Distribution, other: Distribution) -> Distribution:
    """What both hold."""
    counts = tuple(mine + theirs for mine, theirs in zip(one.counts, other.counts, strict=True))
    return Distribution(counts, one.total + other.total)


def both(one: Window, other: Window) -> Window:
    """What two windows found together; the fuller one where a version changed, so that they have other references."""
    if one.expected != other.expected:
        return max(one, other, key=lambda window: window.rows)
    columns = zip(one.found, other.found, strict=True)
    found = tuple(tuple(map(add, mine, theirs)) for mine, theirs in columns)
    return Window(one.expected, found)


def lasting(snapshot: Snapshot) -> Snapshot:
    """What stays true of a process that is gone: what it counted, and not the state it was in."""
    counters = {name: dict(series) for name, series in snapshot.numbers.items() if isinstance(FAMILIES[name], Counter)}
    return Snapshot(counters, snapshot.distributions)


def set_back(before: Snapshot, after: Snapshot) -> Snapshot:
    """The counts of one process that its next snapshot no longer has: a version went there, or went and came again."""
    old, new = lasting(before), lasting(after)
    return Snapshot(
        {
            name: {
                labels: value for labels, value in series.items() if value > new.numbers.get(name, {}).get(labels, 0.0)
            }
            for name, series in old.numbers.items()
        },
        {
            name: {
                labels: value
                for labels, value in series.items()
                if _is_less(new.distributions.get(name, {}).get(labels), value)
            }
            for name, series in old.distributions.items()
        },
    )


def _is_less(after: Distribution | None, before: Distribution) -> bool:
    if after is None:
        return any(before.counts)
    return any(now < then for now, then in zip(after.counts, before.counts, strict=True))


def of_known(snapshot: Snapshot, living: Snapshot) -> Snapshot:
    """What a snapshot says of models and versions that a living process knows, and of what has no model at all."""
    known = set(_identities(living))
    return Snapshot(
        {name: _kept(name, series, known) for name, series in snapshot.numbers.items()},
        {name: _kept(name, series, known) for name, series in snapshot.distributions.items()},
    )


def _identities(snapshot: Snapshot) -> Iterator[Labels]:
    for kind in (snapshot.numbers, snapshot.distributions):
        for name, series in kind.items():
            for labels in series:
                yield _identity(name, labels)


def _identity(name: str, labels: Labels) -> Labels:
    """The model, or the model and version, that a series is about; empty for others."""
    named = dict(zip(FAMILIES[name].labels, labels, strict=True))
    return tuple(named[label] for label in (_MODEL, _VERSION) if label in named)


def _kept(name: str, series: Mapping[Labels, ValueT], known: set[Labels]) -> dict[Labels, ValueT]:
    kept = {labels: (_identity(name, labels), value) for labels, value in series.items()}
    return {labels: value for labels, (identity, value) in kept.items() if not identity or identity in known}


class Ledger:
    """Joins what workers report, so that no counter goes back when one is replaced or drops a version.

    Guarantees: the sum is that of the last reports of the living, and of all that the dead had counted, and workers
    that dropped a version which others still have; a series of a version that no living worker knows is gone. Nothing
    is dropped while nobody lives.
    """

    def __init__(self) -> None:
        self._last: dict[int, Snapshot] = {}
        self._departed = Snapshot()

    def report(self, worker: int, snapshot: Snapshot) -> None:
        """Learn what a worker has counted since it began. Each process has a number of its own."""
        before = self._last.get(worker, Snapshot())
        self._last[worker] = snapshot
        self._depart(set_back(before, snapshot))

    def leave(self, worker: int) -> None:
        """Learn that a worker is gone: what it counted stays counted."""
        self._depart(lasting(self._last.pop(worker, Snapshot())))

    def total(self) -> Snapshot:
        """What all of them counted, and the state of the living."""
        return merge((*self._last.values(), self._departed))

    def _depart(self, counts: Snapshot) -> None:
        self._departed = merge((self._departed, counts))
        if self._last:
            self._departed = of_known(self._departed, merge(self._last.values()))
