"""Requests with their model found, and the runs that they share."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from service.calls import Request
from service.engine import Tensor
from service.models import LoadedVersion
from service.query import Query


@dataclass(slots=True, eq=False)
class Bound:
    """A query with its model found, its arrays in the order of the model's inputs, and the requests that ask it.

    Nearly always it is one request's. Several that differ in their values alone share a query; then each of them has
    as many of the rows as the others, one after the other.
    """

    requests: list[Request]
    query: Query
    version: LoadedVersion
    tensors: tuple[Tensor, ...]
    rows: int

    @property
    def rows_each(self) -> int:
        """Rows of each request."""
        return self.rows // len(self.requests)

    def waiting(self) -> "Bound | None":
        """The same for the requests that have no outcome yet; None where all have one."""
        waits = [request.outcome is None for request in self.requests]
        if all(waits):
            return self
        if not any(waits):
            return None
        return self.only(waits)

    def only(self, chosen: Sequence[bool]) -> "Bound":
        """The same for some of the requests."""
        rows = np.repeat(chosen, self.rows_each)
        requests = [request for request, is_chosen in zip(self.requests, chosen, strict=True) if is_chosen]
        tensors = tuple([tensor[rows] for tensor in self.tensors])
        return replace(self, requests=requests, tensors=tensors, rows=len(requests) * self.rows_each)

    def parts(self, calls: int) -> "Iterator[Bound]":
        """The same in parts of at most so many requests."""
        if len(self.requests) <= calls:
            yield self
            return
        for first in range(0, len(self.requests), calls):
            requests = self.requests[first : first + calls]
            rows = slice(first * self.rows_each, (first + len(requests)) * self.rows_each)
            tensors = tuple([tensor[rows] for tensor in self.tensors])
            yield replace(self, requests=requests, tensors=tensors, rows=len(requests) * self.rows_each)


@dataclass(slots=True, eq=False)
class Diverted(Bound):
    """Requests that named no version, given to a canary; where that fails them, the stable version answers."""

    stable: LoadedVersion
    stable_query: Query
    """The query as it is bound to the stable version; the arrays are the same for both."""


@dataclass(frozen=True, slots=True)
class Ran:
    """When the steps of a run were, on the dataplane's clock, and the calls that were in it."""

    calls: list[Bound]
    arrays: tuple[list[Tensor], list[Tensor]]
    """What went into ONNX Runtime, and what came out."""
    started: float
    """Joining and checking the rows began."""
    began: float
    """ONNX Runtime began."""
    ended: float
    """ONNX Runtime ended."""
    encoded: float
    """The answers were there."""


@dataclass(slots=True, eq=False)
class Run:
    """Calls that share one run of one version."""

    version: LoadedVersion
    calls: list[Bound] = field(default_factory=list)
    rows: int = 0

    any_failed: bool = False
    """Whether a request that shares it was not answered, once it was executed."""
    ran: "Ran | None" = None
    """What there is to tell of it, until it was told."""

    @property
    def requests(self) -> list[Request]:
        """All requests that share it, in the order of their rows."""
        return requests_of(self.calls)

    def add(self, call: Bound) -> None:
        """Let one more call share the run."""
        self.calls.append(call)
        self.rows += call.rows


def requests_of(calls: Sequence[Bound]) -> list[Request]:
    """All requests of some calls, in the order of their rows; the list is not to be changed."""
    return calls[0].requests if len(calls) == 1 else [request for call in calls for request in call.requests]


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Bounds of one call and of one run, in rows."""

    max_rows_per_request: int = 1 << 20
    max_batch_rows: int = 1 << 15
    """Calls are joined up to this. A single call may be larger; it runs alone."""
    solo_rows: int = 1 << 12
    """A call with this many rows runs alone: joining would copy it and save next to nothing."""


def group(calls: Iterable[Bound], limits: BatchLimits) -> list[Run]:
    """Decide which calls share a run. Pure; keeps the order of the calls within each run.

    Calls share a run where they go to the same version, its rows are independent, and their arrays differ in nothing
    but the number of rows.
    """
    runs: list[Run] = []
    open_runs: dict[object, Run] = {}
    for call in calls:
        shares = call.rows < limits.solo_rows and call.version.rows_independent
        tensors = call.tensors
        shapes = tensors[0].shape[1:] if len(tensors) == 1 else tuple([tensor.shape[1:] for tensor in tensors])
        key = (call.version, shapes)
        run = open_runs.get(key) if shares else None
        if run is None or run.rows + call.rows > limits.max_batch_rows:
            run = Run(call.version)
            runs.append(run)
            if shares:
                open_runs[key] = run
        run.add(call)
    return runs
