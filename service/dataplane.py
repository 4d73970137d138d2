"""A list of calls in, each with its answer or its error out. It knows no transport, and no clock but the one given.

A burst goes through three steps: `bind` decodes each request and finds its model; `group` decides which calls share a
run; `execute` runs them and gives each call its rows back. One call's error never touches its neighbours.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeAlias

import numpy as np
import structlog
from numpy.typing import NDArray

from service.alike import Crowd, crowds
from service.calls import Body, Request, Steps
from service.catalogue import Trial
from service.engine import InputsRefusedError, Tensor
from service.errors import (
    CancelledError,
    ExpiredError,
    InternalError,
    InvalidRequestError,
    OutsideDomainError,
    ServiceError,
)
from service.loading import NONE
from service.models import LoadedVersion, Models
from service.query import Answer, OnExtrapolation, Query, check_temperatures, possible
from service.traceparent import request_id

log = structlog.get_logger(__name__)

FAULTS_ALONE: Final = 2
"""Calls of a failed shared run that may fail alone, by a fault of the server, before the others are given up too."""


_IDS_TOLD: Final = 8
"""Requests of a run that failed whose ids the log has."""
_DEAD: Final = (CancelledError, ExpiredError)
"""Errors of calls that nobody waits for."""

Served: TypeAlias = tuple[list[Tensor], list[Tensor]]
"""What went into a run and what came out of it: an array for each input, and for each output, of the model."""


class RunObserver(Protocol):
    """Is told of every run, once, by whichever thread ran it."""

    def ran(
        self,
        version: LoadedVersion,
        rows: int,
        queue_seconds: Sequence[float],
        inference_seconds: float,
        served: Served,
    ) -> None:
        """Learn of a run: its rows, how long each of its calls had waited, how long ONNX Runtime took, its arrays.

        The arrays may be views of what came from the network, and must neither be changed nor kept.
        """


@dataclass(frozen=True, slots=True)
class RunTimes:
    """How long the steps of one run took."""

    queue_seconds: float
    """Waiting, of all its calls together."""
    join_seconds: float
    """Joining and checking the rows."""
    inference_seconds: float
    """ONNX Runtime."""
    encode_seconds: float
    """Taking the answers apart and encoding them."""


class RunStatistics(Protocol):
    """Is told more of every run than a RunObserver, and of the calls of a version that fail."""

    def ran(self, version: LoadedVersion, rows: int, answered_seconds: Sequence[float], times: RunTimes) -> None:
        """Learn of a run: its rows, how long each call that was answered took from arrival to answer, its steps."""

    def failed(self, version: LoadedVersion, seconds: Sequence[float]) -> None:
        """Learn of calls of a version that were not answered, each after its own time."""


class NoStatistics:
    """Keeps nothing."""

    def ran(self, version: LoadedVersion, rows: int, answered_seconds: Sequence[float], times: RunTimes) -> None:
        """Keep nothing."""

    def failed(self, version: LoadedVersion, seconds: Sequence[float]) -> None:
        """Keep nothing."""


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


class CanaryRule(Protocol):
    """Decides what canaries get."""

    def divert(self, calls: Sequence[Bound], trials: Mapping[LoadedVersion, Trial]) -> list[Bound]:
        """Give those of the calls to canaries that shall go there; `Diverted` are the calls that went."""

    def fell_back(self, version: LoadedVersion, requests: int) -> None:
        """Learn that a canary failed so many requests, which the stable version has answered."""

    def answered(self, trial: Trial, calls: Sequence[Bound], outputs: Sequence[Tensor]) -> None:
        """Learn of a run of a stable version that has a canary: its calls, and its outputs, in their order."""

    def delivered(self, requests: Sequence[Request]) -> None:
        """Learn that requests have their answers."""


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

    ran: "Ran | None" = None
    """What there is to tell of it, until it was told."""

    @property
    def requests(self) -> list[Request]:
        """All requests that share it, in the order of their rows."""
        return [request for call in self.calls for request in call.requests]

    def add(self, call: Bound) -> None:
        """Let one more call share the run."""
        self.calls.append(call)
        self.rows += call.rows


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Bounds of one call and of one run, in rows."""

    max_rows_per_request: int = 1 << 20
    max_batch_rows: int = 1 << 14
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


class Dataplane:
    """Answers bursts of requests.

    Guarantees: after `answer` returns, every request has exactly one outcome, set from its own rows alone; nothing is
    raised for a single request's sake. It may be called by several threads at once, with different requests.
    """

    def __init__(
        self,
        models: Models,
        observer: RunObserver,
        limits: BatchLimits | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        statistics: RunStatistics | None = None,
        canaries: CanaryRule | None = None,
        traced: bool = False,
    ) -> None:
        self._models = models
        self._observer = observer
        self._limits = limits or BatchLimits()
        self._clock = clock
        self._statistics = statistics or NoStatistics()
        self._canaries = canaries
        self._traced = traced

    def answer(self, requests: Sequence[Request]) -> None:
        """Set the outcome of every request."""
        for run in self.plan(requests):
            self.execute(run)
            self.record(run)

    def plan(self, requests: Sequence[Request]) -> list[Run]:
        """Decode requests and group them into runs; those that cannot be run get their outcome here."""
        now = self._clock()
        bound: list[Bound] = []
        together, single = crowds(requests)
        for crowd in together:
            shared = self._bind_crowd(crowd)
            if shared is None:  # one by one they are told what is wrong with each
                single += crowd.requests
            else:
                bound += shared.parts(max(1, self._limits.max_batch_rows // shared.rows_each))
        for request in single:
            try:
                bound.append(self._bind(request, now))
            except ServiceError as error:
                request.outcome = error
            except Exception as fault:  # noqa: BLE001 - whatever it is, it concerns this request alone
                request.outcome = _fault(fault, "request could not be decoded", [request])
        if self._canaries is not None and (trials := self._models.catalogue.trials):
            bound = self._canaries.divert(bound, trials)
        return group(bound, self._limits)

    def execute(self, run: Run) -> None:
        """Run once, and set the outcome of every call that shares the run. `record` is to follow.

        Where a shared run fails, its calls are run alone: what one of them sent may be what failed it. What a canary
        failed that was not asked for it is answered by the stable version.
        """
        if self._run(run):
            for call in run.calls:
                if isinstance(call, Diverted):
                    self._fall_back(call)

    def delivered(self, requests: Sequence[Request]) -> None:
        """Learn that requests were delivered: what waited for their answers to be given may go on."""
        if self._canaries is not None:
            self._canaries.delivered(requests)

    def _run(self, run: Run) -> bool:
        """Do so for whatever version it is, and tell whether a request may have failed."""
        error = self._attempt(run)
        requests = run.requests
        if error is not None and len(requests) == 1 and requests[0].outcome is None:
            requests[0].outcome = error
        any_failed = self._count_failures(run.version, requests)
        if error is not None and len(requests) > 1:
            self._run_alone([single for call in run.calls if (left := call.waiting()) for single in left.parts(1)])
        return any_failed or error is not None

    def _fall_back(self, call: Diverted) -> None:
        """Answer by the stable version what its canary did not; of those that nobody waits for, nothing is run."""
        for request in call.requests:
            if isinstance(request.outcome, ServiceError) and not isinstance(request.outcome, _DEAD):
                request.outcome = None
        failed = call.waiting()
        if failed is None:
            return
        stable = Bound(failed.requests, call.stable_query, call.stable, failed.tensors, failed.rows)
        for run in group([stable] if call.stable.rows_independent else stable.parts(1), self._limits):
            self._run(run)
            self.record(run)
        # What the stable version refuses as well was the caller's own mistake, and no fault of the canary.
        answered = sum(not isinstance(request.outcome, ServiceError) for request in failed.requests)
        if answered and self._canaries is not None:
            self._canaries.fell_back(call.version, answered)

    def _attempt(self, run: Run) -> ServiceError | None:
        try:
            self._execute(run)
        except InputsRefusedError as error:
            return InvalidRequestError("inputs", str(error))
        except Exception as fault:  # noqa: BLE001 - whatever it is, every call of the run must have an outcome
            facts = {"model": run.version.name, "version": run.version.version, "rows": run.rows}
            return _fault(fault, "run failed", run.requests, **facts)
        return None

    def _run_alone(self, calls: Sequence[Bound]) -> None:
        """Run each call alone, until so many fail for no reason of their own that no further one is worth a try."""
        faults: list[InternalError] = []
        for call in calls:
            (request,) = call.requests
            if len(faults) < FAULTS_ALONE:
                run = Run(call.version, [call], call.rows)
                self._run(run)
                self.record(run)
            else:
                request.outcome = faults[-1]
                self._count_failures(call.version, [request])
            if isinstance(request.outcome, InternalError):
                faults.append(request.outcome)

    def _count_failures(self, version: LoadedVersion, requests: Sequence[Request]) -> bool:
        """Tell the statistics of requests that failed, and tell whether there were any."""
        failed = [request.received_seconds for request in requests if isinstance(request.outcome, ServiceError)]
        if failed:
            now = self._clock()
            self._statistics.failed(version, [now - received for received in failed])
        return bool(failed)

    def _bind_crowd(self, crowd: Crowd) -> Bound | None:
        """Bind requests that differ in their values alone; None where they have to be bound one by one."""
        query, calls = crowd.query, len(crowd.requests)
        try:
            version = self._models.catalogue.resolve(query.model, query.choice)
            tensors = query.bind(version)
        except ServiceError:
            return None
        rows = len(tensors[0])
        if not version.rows_independent or rows > calls * self._limits.max_rows_per_request:
            return None
        return Bound(crowd.requests, query, version, tensors, rows)

    def _bind(self, request: Request, now: float) -> Bound:
        refuse_dead(request, now)
        query = request.codec.decode(request.body)
        version = self._models.catalogue.resolve(query.model, query.choice)
        try:
            tensors = query.bind(version)
            rows = len(tensors[0]) if tensors and tensors[0].ndim else 1
            if rows > self._limits.max_rows_per_request:
                raise InvalidRequestError(
                    "fahrenheit" if query.fahrenheit else "inputs",
                    f"{rows} rows are more than max_rows_per_request, {self._limits.max_rows_per_request}",
                )
        except ServiceError:
            self._statistics.failed(version, [now - request.received_seconds])
            raise
        return Bound([request], query, version, tensors, rows)

    def _execute(self, run: Run) -> None:
        started = self._clock()
        calls = _living(run.calls, started)
        batch = _join(run.version, calls)
        if _refuse_rows(calls, batch):
            calls = _waiting(calls)
            batch = _join(run.version, calls)
        if not calls:
            return
        began = self._clock()
        outputs = run.version.engine.run(batch.tensors)
        ended = self._clock()
        _hand_out(run.version, calls, outputs, batch)
        if self._canaries is not None and (trial := self._models.catalogue.trials.get(run.version)):
            self._canaries.answered(trial, calls, outputs)
        run.ran = Ran(calls, (batch.tensors, outputs), started, began, ended, self._clock())

    def record(self, run: Run) -> None:
        """Tell the observers of a run that was executed: once its calls have their answers, for whom they wait."""
        ran, run.ran = run.ran, None
        if ran is None:
            return
        requests = [request for call in ran.calls for request in call.requests]
        rows = sum([call.rows for call in ran.calls])
        waited = [ran.began - request.received_seconds for request in requests]
        self._observer.ran(run.version, rows, waited, ran.ended - ran.began, ran.arrays)
        if self._traced:
            _tell_traces(run.version, requests, rows, (ran.began, ran.ended, ran.encoded))
        taken = [ran.encoded - each.received_seconds for each in requests if not isinstance(each.outcome, ServiceError)]
        joining = ran.began - ran.started
        times = RunTimes(sum(waited) - joining * len(waited), joining, ran.ended - ran.began, ran.encoded - ran.ended)
        self._statistics.ran(run.version, rows, taken, times)


def _tell_traces(
    version: LoadedVersion, requests: Sequence[Request], rows: int, times: tuple[float, float, float]
) -> None:
    """Tell those who follow calls of a run: when it began, when it ended, and when its answers were encoded."""
    for request in requests:
        if request.trace is not None:
            steps = Steps(request.received_seconds, *times, version.name, version.version, rows, len(requests))
            request.trace.ran(steps)


def refuse_dead(request: Request, now: float) -> None:
    """Raise for a request that nobody waits for any longer."""
    if request.cancelled:
        raise CancelledError("the call was cancelled before it was run")
    if now >= request.deadline_seconds:
        raise ExpiredError("the deadline passed before the call was run")


def _living(calls: list[Bound], now: float) -> list[Bound]:
    """Return the calls that somebody still waits for; the others get their outcome here."""
    dead = [
        request for call in calls for request in call.requests if request.cancelled or now >= request.deadline_seconds
    ]
    for request in dead:
        try:
            refuse_dead(request, now)
        except ServiceError as error:
            request.outcome = error
    return _waiting(calls) if dead else calls


def _waiting(calls: Sequence[Bound]) -> list[Bound]:
    return [left for call in calls if (left := call.waiting()) is not None]


@dataclass(slots=True)
class _Batch:
    """The rows of all calls of a run: one array an input, and which rows lie outside the training domain."""

    tensors: list[Tensor]
    outside: NDArray[np.bool_] | None
    inside: bool
    """Whether it is known that none does."""


def _join(version: LoadedVersion, calls: Sequence[Bound]) -> _Batch:
    """Put the rows of all calls one after the other; no copy where there is one call."""
    if len(calls) == 1:
        tensors = list(calls[0].tensors)
    else:
        tensors = [np.concatenate(columns) for columns in zip(*(call.tensors for call in calls), strict=True)]
    outside = version.outside(tensors[0]) if tensors else None
    return _Batch(tensors, outside, inside=outside is not None and (outside.base is NONE or not outside.any()))


def _refuse_rows(calls: Sequence[Bound], batch: _Batch) -> bool:
    """Set the outcome of calls whose rows must not be run, and tell whether there were any.

    All rows are looked at together; the single calls only where something is wrong with one of them.
    """
    # Inside the training domain nothing is impossible.
    if batch.inside or not calls:
        return False
    tensors, outside = batch.tensors, batch.outside
    impossible = any(call.query.fahrenheit for call in calls) and not possible(tensors[0]).all()
    if not impossible and outside is None:
        return False
    start = 0
    for call in calls:
        for request in call.requests:
            rows = slice(start, start + call.rows_each)
            start += call.rows_each
            try:
                _check_rows(call, tensors[0][rows], None if outside is None else outside[rows])
            except ServiceError as error:
                request.outcome = error
    return any(request.outcome is not None for call in calls for request in call.requests)


def _check_rows(call: Bound, rows: Tensor, outside: NDArray[np.bool_] | None) -> None:
    if call.query.fahrenheit:
        check_temperatures(rows.ravel())
    if outside is None or call.query.on_extrapolation is not OnExtrapolation.REJECT or not outside.any():
        return
    index = int(outside.argmax())
    domains = zip(*(column.tolist() for column in call.version.domain or ()), strict=True)
    ranges = ", ".join(f"{low:.6g} … {high:.6g}" for low, high in domains)
    raise OutsideDomainError(
        f"row {index}, {', '.join(f'{value:.9g}' for value in rows[index].tolist())}, "
        f"lies outside what {call.version} was trained on: {ranges}"
    )


def _hand_out(version: LoadedVersion, calls: Sequence[Bound], outputs: list[Tensor], batch: _Batch) -> None:
    """Give each call its own rows of the outputs, encoded."""
    whole = Answer(version, outputs, batch.outside, batch.inside)
    start = 0
    for call in calls:
        answer = whole if len(calls) == 1 else whole.part(slice(start, start + call.rows))
        start += call.rows
        if len(call.requests) > 1:
            _encode_all(call, answer)
        else:
            call.requests[0].outcome = _encode(call, call.requests[0], answer)


def _encode_all(call: Bound, answer: Answer) -> None:
    """Encode the answers to requests that differ in their values alone: together, or else each for itself."""
    rows = call.rows_each
    try:
        bodies = call.requests[0].codec.encode_alike(call.query, answer, len(call.requests), rows)
    except Exception:  # noqa: BLE001 - whatever it is, it will be told where each is encoded alone
        bodies = None
    if bodies is not None:
        for request, body in zip(call.requests, bodies, strict=True):
            request.outcome = body
        return
    for index, request in enumerate(call.requests):
        request.outcome = _encode(call, request, answer.part(slice(index * rows, (index + 1) * rows)))


def _encode(call: Bound, request: Request, answer: Answer) -> Body | ServiceError:
    try:
        return request.codec.encode(call.query, answer)
    except ServiceError as error:
        return error
    except Exception as fault:  # noqa: BLE001 - whatever it is, it concerns this call alone
        facts = {"model": call.version.name, "version": call.version.version}
        return _fault(fault, "answer could not be encoded", [request], **facts)


def _fault(fault: Exception, event: str, requests: Sequence[Request], **facts: object) -> InternalError:
    """Log a fault under a new id, beside those of the requests, and return the error that tells the id alone."""
    error = InternalError()
    ids = [known for request in requests[:_IDS_TOLD] if (known := request_id(request.metadata)) is not None]
    log.error(event, error_id=error.id, request_ids=ids, exc_info=fault, **facts)
    return error
