"""The burst is the batch: whatever became complete in one turn of the event loop is answered together.

No timer, no queue: the first request of a turn asks the loop to be called when the turn is over, and by then every
socket that was readable has been read. An idle server answers at once, a busy one batches by itself.
"""

import asyncio
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Final, Protocol

import structlog

from service.calls import Request
from service.closed import Closed
from service.dataplane import Dataplane
from service.errors import DrainingError, OverloadedError, Shed
from service.http2.budget import Budget
from service.http2.compression import Allowance
from service.http2.costs import Costs
from service.http2.frames import LEAST_MAX_FRAME_BYTES
from service.http2.limits import Http2Limits
from service.runs import Run
from service.status import Code

log = structlog.get_logger(__name__)


class FrontObserver(Protocol):
    """Is told of calls, many at once; an unknown path is the empty one."""

    def started(self, path: str, calls: int = 1) -> None:
        """Learn that calls of a method began."""

    def handled_many(self, path: str, code: Code, seconds: Sequence[float]) -> None:
        """Learn that calls of a method ended with the same code, each after its own time."""

    def shed(self, reason: Shed, calls: int = 1) -> None:
        """Learn that calls were refused for load, or given up."""

    def connection_opened(self) -> None:
        """Learn that a connection came."""

    def connection_closed(self, reason: Closed) -> None:
        """Learn that a connection is gone."""


_MOST_GO_ON: Final = 4
"""Connections that go on reading in one turn: an honest call beside any number of floods waits for no more of them."""


class Flushable(Protocol):
    """A connection, as far as a burst is concerned."""

    def go_on(self) -> None:
        """Read more of what came, where not all was read."""

    def flush(self) -> None:
        """Write what there is to write."""

    def settle(self) -> None:
        """See what that changed; called after the bytes went out."""

    def abort(self) -> None:
        """Drop the connection."""


class Away(Protocol):
    """A piece of work for one call that a worker does."""

    @property
    def cancelled(self) -> bool:
        """Whether it need not be done any more."""

    def work(self) -> None:
        """Do it, on a worker's thread."""

    def deliver(self) -> None:
        """Tell what came of it, on the loop's thread."""


class Runs(Protocol):
    """A connection, as far as a stream's requests are concerned."""

    def run(self, request: Request, weight_bytes: int) -> None:
        """Count a request among those that are run for this connection, and add it to the burst."""


class Tally:
    """Calls of one method since the observer was last told: plain counts, since every call passes here."""

    __slots__ = ("answered_seconds", "path", "started")

    def __init__(self, path: str) -> None:
        self.path = path
        self.started = 0
        self.answered_seconds: list[float] = []
        """How long each call took that ended well; the others are told of one by one."""


class Burst:
    """Collects requests, and answers them when the turn of the loop is over.

    Guarantees: each accepted request has its `reply` called exactly once, on the loop's thread. Large requests are
    worked on by another thread, and runs of small ones that are expected to last by a third: small ones do not wait
    for either. Connections that were touched are flushed once a turn. All but `submit` is called on the loop's thread.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        dataplane: Dataplane,
        limits: Http2Limits,
        budget: Budget,
        observer: FrontObserver,
    ) -> None:
        self.loop = loop
        self.limits = limits
        self.budget = budget
        self.thread_id = threading.get_ident()
        self._dataplane = dataplane
        self._observer = observer
        self._small: list[Request] = []
        self._large: deque[tuple[Request, int]] = deque()
        self._asides: deque[Away] = deque()
        self._aside_was_last = False
        """Whether the last thing given to a worker was work for one call: those and large requests take turns."""
        self.allowance = Allowance(limits)
        self._dirty: dict[Flushable, None] = {}
        self._behind: dict[Flushable, None] = {}
        """Connections of which more came than was read, in the order in which they go on."""
        self._scheduled = False
        self._flushed: list[Flushable] = []
        self._ran: list[tuple[Run, float]] = []
        """Runs of this turn, with the seconds they took, of which nobody was told yet."""
        self._costs = Costs()
        self._workers = ThreadPoolExecutor(limits.worker_threads, thread_name_prefix="large-calls")
        self._long_runs = ThreadPoolExecutor(limits.worker_threads, thread_name_prefix="long-runs")
        """Of small requests, which do not wait for large ones here either."""
        self._idle_workers = limits.worker_threads
        self._stopped = False
        self._tallies: dict[str, Tally] = {}
        self._failed: dict[tuple[str, Code], list[float]] = defaultdict(list)
        self._shed: Counter[Shed] = Counter()
        self.now = monotonic()
        """The time when requests were last answered: near enough for how long each took."""

    def submit(self, peer: Runs, request: Request) -> None:
        """Accept a request of a stream's handler, on any thread.

        Raises:
            OverloadedError: a limit on what is in hand is reached.
            DrainingError: the front was stopped.
        """
        if self._stopped:
            self._observer.shed(Shed.DRAINING)
            raise DrainingError("the server is stopping")
        try:
            self.budget.admit_bytes()
        except OverloadedError as error:
            self._observer.shed(error.shed)
            raise
        if threading.get_ident() == self.thread_id:
            peer.run(request, len(request.body))
        else:
            self.loop.call_soon_threadsafe(peer.run, request, len(request.body))

    def add(self, request: Request, weight_bytes: int) -> None:
        """Let a request be answered in this burst, or by a worker where it weighs too much."""
        if weight_bytes > self.limits.inline_bytes:
            self._large.append((request, weight_bytes))
        else:
            self._small.append(request)
        self._schedule()

    def add_all(self, requests: Sequence[Request]) -> None:
        """Let requests be answered in this burst that came in a frame each, and weigh no more than they hold."""
        if self.limits.inline_bytes >= LEAST_MAX_FRAME_BYTES:
            self._small += requests
            self._schedule()
            return
        for request in requests:
            self.add(request, len(request.body))

    def aside(self, work: Away) -> None:
        """Have a worker do something for one call; it is told on the loop's thread, unless it was cancelled."""
        self._asides.append(work)
        self._schedule()

    def touch(self, peer: Flushable) -> None:
        """Flush a connection when the turn is over."""
        self._dirty[peer] = None
        self._schedule()

    def later(self, peer: Flushable) -> None:
        """Have a connection go on reading, when it is its turn among those that are behind."""
        self._behind[peer] = None
        self._schedule()

    def tally(self, path: str) -> Tally:
        """Where calls of a method are counted."""
        tally = self._tallies.get(path)
        if tally is None:
            tally = self._tallies[path] = Tally(path)
        return tally

    def failed(self, path: str, code: Code, seconds: float) -> None:
        """Note a call that did not end well; it is told in this turn's end, also where it ended with its connection."""
        self._failed[path, code].append(seconds)
        self._schedule()

    def shed(self, reason: Shed) -> None:
        """Note a call that was refused for load, or given up."""
        self._shed[reason] += 1

    async def stop(self) -> None:
        """Let the workers finish what they began, give up the rest, and tell what was not told yet."""
        self._stopped = True
        for threads in (self._workers, self._long_runs):
            await self.loop.run_in_executor(None, threads.shutdown)
        self._give_up()
        self._keep_books()

    def _give_up(self) -> None:
        """Fail what nobody will run: once the front stopped, and so has no connection whose calls these could be."""
        requests = [*self._small, *(request for request, _ in self._large)]
        self._small = []
        self._large.clear()
        self._asides.clear()
        for request in requests:
            request.outcome = DrainingError("the server is stopping")
        self._reply(requests)

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        if self._stopped:
            self._give_up()
        if self._small:
            self._answer(self._take_small())
        if self._large or self._asides:
            self._dispatch()
        while self._dirty:
            peer = self._dirty.popitem()[0]
            self._guarded(peer, peer.flush)
            self._flushed.append(peer)
        self.allowance.renew()
        for _ in range(min(_MOST_GO_ON, len(self._behind))):
            peer = next(iter(self._behind))
            del self._behind[peer]
            self._guarded(peer, peer.go_on)
        if self._behind:
            self._schedule()
        self.loop.call_soon(self._settle)  # the loop sends what was written first: nobody waits for the books
        if self._small:
            self._schedule()

    def _settle(self) -> None:
        """Do what can wait until the answers are on their way."""
        flushed, self._flushed = self._flushed, []
        for peer in flushed:
            self._guarded(peer, peer.settle)
        self._keep_books()

    def catch_up(self) -> None:
        """Tell of the last turn before anything new is read: who has an answer finds it counted."""
        if self._ran:
            self._keep_books()

    def _keep_books(self) -> None:
        """Tell the observers what happened."""
        ran, self._ran = self._ran, []
        for run, seconds in ran:
            self._costs.learn(run.version, run.rows, seconds)
            self._dataplane.record(run)
        self._report()

    def _guarded(self, peer: Flushable, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception:  # a fault on one connection must not keep the others from their answers
            log.exception("connection failed")
            peer.abort()

    def _take_small(self) -> list[Request]:
        """As many small requests as may hold up the loop; nearly always all of them."""
        requests, weight = self._small, 0
        if sum([len(request.body) for request in requests]) > self.limits.inline_burst_bytes:
            for index, request in enumerate(requests):
                weight += len(request.body)
                if weight > self.limits.inline_burst_bytes:
                    self._small = requests[index + 1 :]
                    return requests[: index + 1]
        self._small = []
        return requests

    def _answer(self, requests: list[Request]) -> None:
        try:
            runs = self._dataplane.plan(requests)
        except Exception:  # what has no outcome is answered with an internal error
            log.exception("requests could not be planned")
            runs = []
        away = [run for run in runs if not self._runs_here(run)]
        self._reply(self._elsewhere(requests, away))

    def _runs_here(self, run: Run) -> bool:
        """Execute a run, or have a thread do so where it is expected to last."""
        if self._costs.expected_seconds(run.version, run.rows) > self.limits.inline_seconds:
            self._long_runs.submit(self._execute, run)
            return False
        began = monotonic()
        self._dataplane.execute(run)
        self._ran.append((run, monotonic() - began))
        return True

    def _elsewhere(self, requests: list[Request], away: list[Run]) -> list[Request]:
        """The requests without those of runs that are executed elsewhere."""
        if not away:
            return requests
        absent = {id(request) for run in away for request in run.requests}
        return [request for request in requests if id(request) not in absent]

    def _dispatch(self) -> None:
        """Give idle workers something to do: by turns work for one call, and large requests."""
        while self._idle_workers and (self._large or self._asides):
            if self._asides and self._asides[0].cancelled:
                self._asides.popleft()
                continue
            self._aside_was_last = bool(self._asides) and not (self._large and self._aside_was_last)
            self._idle_workers -= 1
            if self._aside_was_last:
                self._workers.submit(self._work_aside, self._asides.popleft())
            else:
                self._workers.submit(self._work, self._take_lane())

    def _take_lane(self) -> list[Request]:
        """At least one large request, and as many as `lane_bytes` hold."""
        requests: list[Request] = []
        weight = 0
        while self._large and (not requests or weight + self._large[0][1] <= self.limits.lane_bytes):
            request, size = self._large.popleft()
            requests.append(request)
            weight += size
        return requests

    # On a worker's thread ---------------------------------------------------------------------------------------------

    def _work(self, requests: list[Request]) -> None:
        try:
            self._dataplane.answer(requests)
        finally:
            self.loop.call_soon_threadsafe(self._worked, requests)

    def _work_aside(self, work: Away) -> None:
        try:
            work.work()
        finally:
            self.loop.call_soon_threadsafe(self._worked_aside, work)

    def _execute(self, run: Run) -> None:
        began = monotonic()
        try:
            self._dataplane.execute(run)
            self._dataplane.record(run)
        finally:
            self.loop.call_soon_threadsafe(self._executed, run, monotonic() - began)

    # Back on the loop -------------------------------------------------------------------------------------------------

    def _worked(self, requests: list[Request]) -> None:
        self._idle_workers += 1
        self._reply(requests)
        self._schedule()

    def _worked_aside(self, work: Away) -> None:
        self._idle_workers += 1
        self._schedule()
        work.deliver()

    def _executed(self, run: Run, seconds: float) -> None:
        self._costs.learn(run.version, run.rows, seconds)
        self._reply(run.requests)
        self._schedule()

    def _reply(self, requests: list[Request]) -> None:
        self.now = monotonic()
        for request in requests:
            request.deliver()
        self._dataplane.delivered(requests)

    def _report(self) -> None:
        for tally in self._tallies.values():
            if tally.started:
                self._observer.started(tally.path, tally.started)
                tally.started = 0
            if tally.answered_seconds:
                self._observer.handled_many(tally.path, Code.OK, tally.answered_seconds)
                tally.answered_seconds = []
        if self._failed:
            failed, self._failed = self._failed, defaultdict(list)
            for (path, code), seconds in failed.items():
                self._observer.handled_many(path, code, seconds)
        if self._shed:
            shed, self._shed = self._shed, Counter()
            for reason, calls in shed.items():
                self._observer.shed(reason, calls)
