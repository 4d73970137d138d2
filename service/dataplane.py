"""A list of calls in, each with its answer or its error out. It knows no transport, and no clock but the one given.

A burst goes through three steps: `bind` decodes each request and finds its model; `group` decides which calls share a
run; `execute` runs them and gives each call its rows back. One call's error never touches its neighbours.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from service.alike import Crowd, crowds
from service.calls import Request, Steps
from service.catalogue import Trial
from service.engine import InputsRefusedError, Tensor
from service.errors import (
    CancelledError,
    ExpiredError,
    InternalError,
    InvalidRequestError,
    ServiceError,
    without_frames,
)
from service.faults import tell_fault
from service.models import LoadedVersion, Models
from service.rows import hand_out, join, refuse_rows
from service.run_observers import NoStatistics, RunObserver, RunStatistics, RunTimes
from service.runs import BatchLimits, Bound, Diverted, Ran, Run, group, requests_of

FAULTS_ALONE: Final = 2
"""Calls of a failed shared run that may fail alone, by a fault of the server, before the others are given up too."""

_DEAD: Final = (CancelledError, ExpiredError)
"""Errors of calls that nobody waits for."""


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
                request.outcome = without_frames(error)
            except Exception as fault:  # noqa: BLE001 - whatever it is, it concerns this request alone
                request.outcome = tell_fault(fault, "request could not be decoded", [request])
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
        run.any_failed = self._count_failures(run.version, requests)
        if error is not None and len(requests) > 1:
            self._run_alone([single for call in run.calls if (left := call.waiting()) for single in left.parts(1)])
        return run.any_failed or error is not None

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
            return tell_fault(fault, "run failed", run.requests, **facts)
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
        batch = join(run.version, calls)
        if refuse_rows(calls, batch):
            calls = _waiting(calls)
            batch = join(run.version, calls)
        if not calls:
            return
        began = self._clock()
        outputs = run.version.engine.run(batch.tensors)
        ended = self._clock()
        hand_out(run.version, calls, outputs, batch)
        if self._canaries is not None and (trial := self._models.catalogue.trials.get(run.version)):
            self._canaries.answered(trial, calls, outputs)
        run.ran = Ran(calls, (batch.tensors, outputs), started, began, ended, self._clock())

    def record(self, run: Run) -> None:
        """Tell the observers of a run that was executed: once its calls have their answers, for whom they wait."""
        ran, run.ran = run.ran, None
        if ran is None:
            return
        requests = requests_of(ran.calls)
        rows = sum([call.rows for call in ran.calls])
        received = [request.received_seconds for request in requests]
        waited = [ran.began - seconds for seconds in received]
        self._observer.ran(run.version, rows, waited, ran.ended - ran.began, ran.arrays)
        if self._traced:
            _tell_traces(run.version, requests, rows, (ran.began, ran.ended, ran.encoded))
        if run.any_failed:
            received = [each.received_seconds for each in requests if not isinstance(each.outcome, ServiceError)]
        taken = [ran.encoded - seconds for seconds in received]
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
            request.outcome = without_frames(error)
    return _waiting(calls) if dead else calls


def _waiting(calls: Sequence[Bound]) -> list[Bound]:
    return [left for call in calls if (left := call.waiting()) is not None]
