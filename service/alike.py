"""Requests that differ in their values alone: read as one array, whatever their number, and answered as one.

Clients that send row after row repeat every byte but the row's own. Where enough of those arrive together, looking at
each of them costs more than the model; so the first is read, the others are compared with it, all at once, and the
values of all are one slice of the table that their bytes make.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.calls import Request
from service.query import Query

MIN_CALLS: Final = 4
"""Fewer are read one by one, which is quicker then."""
MAX_BYTES: Final = 1 << 14
"""Longer requests are read one by one: their values outweigh what is around them."""

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Pattern:
    """What a request says apart from its values, and where these lie."""

    start: int
    stop: int
    query: Callable[[Bytes], Query]
    """Makes one query of the values of many requests: uint8 `[calls, stop - start]`, contiguous."""


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
    if len({request.codec for request in requests}) == 1 and len({len(request.body) for request in requests}) == 1:
        return [list(requests)]
    by_shape: defaultdict[tuple[object, int], list[Request]] = defaultdict(list)
    for request in requests:
        by_shape[request.codec, len(request.body)].append(request)
    return by_shape.values()


def _gather(requests: list[Request]) -> tuple[Crowd | None, list[Request]]:
    """Take the requests of equal length that are like the first."""
    first = requests[0].body
    pattern = requests[0].codec.pattern(first)
    if pattern is None:
        return None, requests
    start, stop = pattern.start, pattern.stop
    table = np.frombuffer(b"".join([request.body for request in requests]), np.uint8).reshape(-1, len(first))
    around = [part for part in (table[:, :start], table[:, stop:]) if part.size]
    is_same = [part == part[0] for part in around]
    others: list[Request] = []
    if not all([part.all() for part in is_same]):  # noqa: C419 - quicker than a generator
        alike = np.logical_and.reduce([part.all(axis=1) for part in is_same])
        others = [request for request, is_alike in zip(requests, alike.tolist(), strict=True) if not is_alike]
        requests = [request for request, is_alike in zip(requests, alike.tolist(), strict=True) if is_alike]
        if len(requests) < MIN_CALLS:
            return None, requests + others
        table = table[alike]
    return Crowd(requests, pattern.query(np.ascontiguousarray(table[:, start:stop]))), others


def table(columns: Sequence[bytes | Bytes], rows: int) -> list[bytes]:
    """Write rows of bytes, column after column: bytes that are the same in every row, or a uint8 `[rows, width]`."""
    width = sum(len(column) if isinstance(column, bytes) else column.shape[1] for column in columns)
    whole = np.empty((rows, width), np.uint8)
    start = 0
    for column in columns:
        part = np.frombuffer(column, np.uint8) if isinstance(column, bytes) else column
        stop = start + part.shape[-1]
        whole[:, start:stop] = part
        start = stop
    joined = whole.tobytes()
    return [joined[row * width : (row + 1) * width] for row in range(rows)]


def bytes_of(values: NDArray[np.generic], rows: int) -> Bytes:
    """The bytes of an array of numbers, as many rows as there are calls: uint8 `[rows, width]`."""
    return np.ascontiguousarray(values).reshape(rows, -1).view(np.uint8)
