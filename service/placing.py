"""Several sessions of one model timed against each other when it is loaded, and served as one.

What is measured is what is served: the sessions themselves, with their threads and on their devices, on rows that the
model takes. The first session is the one that is always there; a rival that answers wrongly, or cannot be made, is left
out with a word in the log.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import structlog

from service.engine import Graph, Tensor
from service.placement import Measured, Placement, decide

log = structlog.get_logger(__name__)

_FIRST_ROWS: Final = 1
_GROWTH: Final = 4
MAX_ROWS: Final = 1 << 20
MAX_BYTES: Final = 16 << 20
"""Of the inputs of one measured run: some models take a lot for a row."""
MAX_RUN_SECONDS: Final = 0.05
"""Sizes from which a run takes longer than this at every place are not measured further: the last choice holds on."""
_TEXT_BYTES: Final = 64
"""What a text takes, about, as NumPy holds it."""
_REPEATS: Final = 7
_SIZE_SECONDS: Final = 0.05
"""Repeats of one size at one place end after this."""


@dataclass(frozen=True, slots=True)
class Place:
    """A session, and the name by which the log and the API know it."""

    name: str
    engine: Graph


class PlacedEngine:
    """Sessions of one model as one: each run goes to the session that was the faster one for as many rows.

    `device` is `cuda` where any run goes there. The other attributes are those of the first session.
    """

    def __init__(self, engines: Sequence[Graph], placement: Placement) -> None:
        first = engines[0]
        self.inputs, self.outputs, self.metadata = first.inputs, first.outputs, first.metadata
        used = sorted(set(placement.chosen))
        devices = {engines[place].device for place in used}
        self.device = "cuda" if "cuda" in devices else first.device
        # A session that no run goes to is not kept: it would hold its weights and threads for nothing.
        self._engines = {place: engines[place] for place in used}
        self._placement = placement

    def run(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Run the graph once, as `Engine.run`."""
        return self._engines[self._placement.place(len(tensors[0]))].run(tensors)


def can_be_placed(engine: Graph) -> bool:
    """Whether everything is a tensor, and the number of rows is the first dimension of every input, and free."""
    if any(spec.dtype is None for spec in (*engine.inputs, *engine.outputs)):
        return False
    return bool(engine.inputs) and all(spec.shape and spec.shape[0] is None for spec in engine.inputs)


def measured(
    places: Sequence[Place],
    rows: Sequence[Tensor],
    together_up_to_rows: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Placement:
    """Time the places on several sizes of runs, made of the rows given, and choose by them.

    A rival that fails at a size has failed for the larger ones, too. Where the first place fails, the sizes end. Places
    on different devices are never taken to give the same bits, whatever came out.
    """
    found: list[Measured] = []
    failed: set[int] = set()
    same_bits = len({place.engine.device for place in places}) == 1  # other devices have other kernels
    for tensors in _sizes(rows):
        seconds, answers = [], []
        for number, place in enumerate(places):
            took, answer = (math.inf, None) if number in failed else _timed(place, tensors, clock)
            if answer is None:
                failed.add(number)
            seconds.append(took)
            answers.append(answer)
        if 0 in failed:
            break
        found.append(Measured(len(tensors[0]), tuple(seconds)))
        same_bits = same_bits and all(answer is None or _same(answers[0], answer) for answer in answers[1:])
        if min(seconds) > MAX_RUN_SECONDS:
            break
    return decide([place.name for place in places], found, same_bits=same_bits, together_up_to_rows=together_up_to_rows)


def _sizes(rows: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Runs of more and more rows, which repeat the ones given."""
    count = _FIRST_ROWS
    bytes_each = sum(_bytes(tensor) / len(tensor) for tensor in rows)
    while count <= MAX_ROWS and count * bytes_each <= MAX_BYTES:
        yield [np.resize(tensor, (count, *tensor.shape[1:])) for tensor in rows]
        count *= _GROWTH


def _bytes(tensor: Tensor) -> int:
    return tensor.size * _TEXT_BYTES if tensor.dtype == np.object_ else tensor.nbytes


def _timed(place: Place, tensors: list[Tensor], clock: Callable[[], float]) -> tuple[float, list[Tensor] | None]:
    """The least of several times, since whatever else the machine does only adds to it, and the answers."""
    try:
        answer = place.engine.run(tensors)  # the first one pays for allocations
        least, began = math.inf, clock()
        for _ in range(_REPEATS):
            start = clock()
            place.engine.run(tensors)
            end = clock()
            least = min(least, end - start)
            if end - began > _SIZE_SECONDS:
                break
    except Exception as error:  # noqa: BLE001 - whatever it is, such a run must not go there
        log.warning("a place cannot run so many rows", place=place.name, rows=len(tensors[0]), reason=str(error))
        return math.inf, None
    return least, answer


def _same(one: list[Tensor] | None, other: list[Tensor]) -> bool:
    return one is not None and all(
        mine.dtype == theirs.dtype and mine.shape == theirs.shape and _bits(mine) == _bits(theirs)
        for mine, theirs in zip(one, other, strict=True)
    )


def _bits(tensor: Tensor) -> object:
    return tensor.tolist() if tensor.dtype == np.object_ else tensor.tobytes()
