"""Requests that differ in their values alone: read as one array, whatever their number, and answered as one.

Clients that send row after row repeat every byte but the row's own. Where enough of those arrive together, looking at
each of them costs more than the model; so the first is read, the others are compared with it, all at once, and the
values of all are one slice of the table that their bytes make. Each may have an id of its own: it is left out of the
comparison, and taken from the request where its answer is written.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.calls import Body, Request
from service.query import Query
from service.wire import array_bytes

MIN_CALLS: Final = 3
"""Fewer are read one by one, which is quicker then."""
MAX_BYTES: Final = 1 << 14
"""Longer requests are read one by one: their values outweigh what is around them."""
_ASCII: Final = 128
"""Bytes below it are characters."""

Bytes = NDArray[np.uint8]


class Pattern(NamedTuple):
    """What a request says apart from its values, and where these lie."""

    start: int
    stop: int
    query: Callable[[Bytes], Query]
    """Makes one query of the values of many requests: uint8 `[calls, stop - start]`, contiguous."""
    identity: slice | None = None
    """Where each has an id of its own, before its values; one that is not ASCII is left to be read by itself."""

    @property
    def around(self) -> list[slice]:
        """What is the same in all of them."""
        behind = slice(self.stop, None)
        if self.identity is None:
            return [slice(self.start), behind]
        return [slice(self.identity.start), slice(self.identity.stop, self.start), behind]


class Crowd(NamedTuple):
    """Requests of one pattern, and the query that all of them are together."""

    requests: list[Request]
    query: Query


def crowds(requests: Sequence[Request]) -> tuple[list[Crowd], list[Request]]:
    """Find the requests that differ in their values alone; what is left over is read one by one."""
    if len(requests) < MIN_CALLS:
        return [], list(requests)
    found: list[Crowd] = []
    single: list[Request] = []
    for same in _of_one_shape(requests):
        if len(same) < MIN_CALLS or len(same[0].body) > MAX_BYTES:
            single += same
            continue
        try:
            crowd, others = _gather(same)
        except Exception:  # noqa: BLE001 - whatever is wrong with one, it alone is told, when it is read by itself
            crowd, others = None, same
        single += others
        if crowd is not None:
            found.append(crowd)
    return found, single


def _of_one_shape(requests: Sequence[Request]) -> Iterable[list[Request]]:
    """Requests of one codec and one length; nearly always that is all of them."""
    codecs, sizes = [request.codec for request in requests], [len(request.body) for request in requests]
    if codecs.count(codecs[0]) == sizes.count(sizes[0]) == len(requests):
        return [list(requests)]
    by_shape: defaultdict[tuple[object, int], list[Request]] = defaultdict(list)
    for request in requests:
        by_shape[request.codec, len(request.body)].append(request)
    return by_shape.values()


def _gather(requests: list[Request]) -> tuple[Crowd | None, list[Request]]:
    """Take the requests of equal length that are like the first, in all but their values and their ids."""
    bodies = [request.body for request in requests]
    first = bodies[0]
    pattern = requests[0].codec.pattern(first)
    if pattern is None:
        return None, requests
    table = np.frombuffer(b"".join(bodies), np.uint8).reshape(len(bodies), -1)
    others: list[Request] = []
    if not _all_are_like(first, table, pattern):
        alike = _which_are_like(first, table, pattern)
        others = [request for request, is_alike in zip(requests, alike.tolist(), strict=True) if not is_alike]
        requests = [request for request, is_alike in zip(requests, alike.tolist(), strict=True) if is_alike]
        if len(requests) < MIN_CALLS:
            return None, requests + others
        table = table[alike]
    return Crowd(requests, pattern.query(np.ascontiguousarray(table[:, pattern.start : pattern.stop]))), others


def _all_are_like(first: bytes, table: Bytes, pattern: Pattern) -> bool:
    """Whether nobody differs from the first in more than its values and its id."""
    if pattern.identity is not None and not table[:, pattern.identity].tobytes().isascii():
        return False
    return all([_all_say(table[:, part], first[part]) for part in pattern.around])  # noqa: C419 - quicker than a generator


def _which_are_like(first: bytes, table: Bytes, pattern: Pattern) -> NDArray[np.bool_]:
    which: NDArray[np.bool_] = np.logical_and.reduce(
        [_which_say(table[:, part], first[part]) for part in pattern.around]
    )
    return which if pattern.identity is None else which & (table[:, pattern.identity] < _ASCII).all(axis=1)


def _all_say(part: Bytes, text: bytes) -> bool:
    """Whether each row of `[calls, width]` holds the bytes given: one comparison, where NumPy would make an array."""
    return not text or part.tobytes() == text * len(part)


def _which_say(part: Bytes, text: bytes) -> NDArray[np.bool_]:
    """Which rows of `[calls, width]` hold the bytes given."""
    which: NDArray[np.bool_] = (part == np.frombuffer(text, np.uint8)).all(axis=1)
    return which


def write_bodies(head: bytes, columns: Sequence[tuple[Bytes, bytes]]) -> list[Body]:
    """Write the body of each call, in one part.

    All begin with `head`. A column is the calls' own bytes, uint8 `[calls, width]`, contiguous, and those that follow
    them in every body. They are copied once, and the bodies hold nothing of the arrays.
    """
    (first, behind), *further = columns
    if not further:
        return [[head + own + behind] for own in _rows(first)]
    parts: list[Iterable[bytes | memoryview]] = []
    for own, same in columns:
        parts += [_rows(own), repeat(same)]
    return [[b"".join((head, *row))] for row in zip(*parts, strict=False)]


def _rows(column: Bytes) -> Sequence[bytes | memoryview]:
    rows, width = column.shape
    if not width:
        return [b""] * rows
    whole = array_bytes(column)
    return [whole[start : start + width] for start in range(0, rows * width, width)]


def bytes_of(values: NDArray[np.generic], rows: int) -> Bytes:
    """The bytes of an array of numbers, as many rows as there are calls: uint8 `[rows, width]`."""
    return np.ascontiguousarray(values).reshape(rows, -1).view(np.uint8)
