"""Which of several places a run goes to, by its rows: decided from times that were measured. Pure; nothing runs here.

The places are sessions of one model: on the CPU, on CUDA, on the CPU with more threads. Times are noisy, and a place
with more parallel hands needs more rows to be worth it. So the places come in the order in which they take over as runs
grow, and the choice never goes back: of all such choices it is the one whose runs cost least, each size weighed alike.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

WORTH: Final = 0.1
"""The part of a run's time that a later place must save to be taken: less is noise, or not worth its threads."""


@dataclass(frozen=True, slots=True)
class Measured:
    """How long one run of so many rows took at each place, in seconds; infinite where it failed."""

    rows: int
    seconds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where runs go, and why."""

    places: tuple[str, ...]
    """Names of the places, in the order in which they take over."""
    starts: tuple[int, ...]
    """Rows from which each range holds, ascending; the first is 0."""
    chosen: tuple[int, ...]
    """The place of each range, an index into `places`."""
    measured: tuple[Measured, ...]
    same_bits: bool
    """Whether all places are on one device, and gave the same bits wherever they were measured."""

    def place(self, rows: int) -> int:
        """The place of a run, an index into `places`."""
        return self.chosen[bisect_right(self.starts, rows) - 1]

    def ranges(self) -> Iterator[tuple[int, str]]:
        """The rows from which each range holds, and the name of its place."""
        for start, chosen in zip(self.starts, self.chosen, strict=True):
            yield start, self.places[chosen]


def decide(
    places: Sequence[str], measured: Sequence[Measured], *, same_bits: bool, together_up_to_rows: int
) -> Placement:
    """Choose a place for every number of rows.

    A measured size speaks for the rows from it to the next one. Where places do not give the same bits, all runs of up
    to `together_up_to_rows` go to one place: calls share runs up to that size, and a call's answer must not depend on
    its company. Larger runs are of one call each.
    """
    ordered = sorted(measured, key=lambda each: each.rows)
    groups = _groups(ordered, 0 if same_bits else together_up_to_rows)
    path = _cheapest_path([_cost(group, len(places)) for group in groups])
    starts, chosen = [0], [path[0] if path else 0]
    for before, after in pairwise(range(len(path))):
        if path[after] != path[before]:
            starts.append(groups[after][0].rows)
            chosen.append(path[after])
    return Placement(tuple(places), tuple(starts), tuple(chosen), tuple(ordered), same_bits)


def _groups(ordered: Sequence[Measured], together_up_to_rows: int) -> list[list[Measured]]:
    """Sizes that must have the same place, each group of them with the rows where it begins."""
    together = [each for each in ordered if each.rows <= together_up_to_rows]
    return ([together] if together else []) + [[each] for each in ordered[len(together) :]]


def _cost(group: Sequence[Measured], places: int) -> list[float]:
    """What each place costs for a group: its time, of the first place's, and what a later place must save on top."""
    costs = [0.0] * places
    for each in group:
        best = min(each.seconds)
        for place, seconds in enumerate(each.seconds):
            relative = seconds / best if math.isfinite(best) else 1.0
            costs[place] += relative if place == 0 else relative / (1.0 - WORTH)
    return costs


def _cheapest_path(costs: Sequence[Sequence[float]]) -> list[int]:
    """A place for each group that never goes back, so that all together cost least; of equals, the earlier place."""
    best: list[tuple[float, list[int]]] = []
    for cost in costs:
        step: list[tuple[float, list[int]]] = []
        for place, own in enumerate(cost):
            reached = min(best[: place + 1], key=lambda path: path[0]) if best else (0.0, [])
            step.append((reached[0] + own, [*reached[1], place]))
        best = step
    return min(best, key=lambda path: path[0])[1] if best else []
