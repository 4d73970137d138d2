"""Batches without a timer, for a front that has threads: one runner takes everything that waits, answers it, repeats.

While a batch runs, the next one forms by itself; a request that finds the runner idle is answered at once.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from service.calls import Request
from service.dataplane import Dataplane
from service.errors import DrainingError, OverloadedError, Shed
from service.runs import Run


class Runner:
    """Answers submitted requests on a thread of its own.

    Guarantees: each accepted request has its `reply` called exactly once, also when the runner stops. What waits is
    bounded by `max_waiting_calls` and `max_waiting_bytes`; over them a request is refused at once. Runs of at least
    `long_run_rows` go to a second thread, so that small requests do not wait behind large ones. `refused` is told why,
    once for each request that is not accepted.
    """

    def __init__(
        self,
        dataplane: Dataplane,
        *,
        max_waiting_calls: int,
        max_waiting_bytes: int,
        long_run_rows: int,
        refused: Callable[[Shed], None] = lambda _reason: None,
    ) -> None:
        self._dataplane = dataplane
        self._refused = refused
        self._max_calls = max_waiting_calls
        self._max_bytes = max_waiting_bytes
        self._long_run_rows = long_run_rows
        self._arrived = threading.Condition()
        self._waiting: list[Request] = []
        self._calls_in_hand = 0
        self._bytes_in_hand = 0
        self._stopping = False
        self._long_runs = ThreadPoolExecutor(1, thread_name_prefix="long-runs")
        self._thread = threading.Thread(target=self._work, name="runner", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def submit(self, request: Request) -> None:
        """Let a request wait for the next batch.

        Raises:
            DrainingError: the runner is stopping.
            OverloadedError: a limit on what waits is reached; the message names it.
        """
        with self._arrived:
            refusal = self._refusal(request)
            if refusal is None:
                self._calls_in_hand += 1
                self._bytes_in_hand += len(request.body)
                self._waiting.append(request)
                self._arrived.notify()
        if refusal is not None:
            self._refused(refusal.shed)
            raise refusal

    def _refusal(self, request: Request) -> DrainingError | OverloadedError | None:
        """Why a request is not accepted, where it is not. The lock is held."""
        if self._stopping:
            return DrainingError("the server is stopping")
        if self._calls_in_hand >= self._max_calls:
            text = f"{self._calls_in_hand} calls wait already: max_waiting_calls is {self._max_calls}"
            return OverloadedError(text, Shed.CALLS)
        if self._bytes_in_hand + len(request.body) > self._max_bytes and self._calls_in_hand:
            text = f"{self._bytes_in_hand} bytes wait already: max_waiting_bytes is {self._max_bytes}"
            return OverloadedError(text, Shed.BYTES)
        return None

    def stop(self) -> None:
        """Accept nothing more, answer what was accepted, and return when all of it is answered."""
        with self._arrived:
            self._stopping = True
            self._arrived.notify()
        if self._thread.is_alive():
            self._thread.join()
        self._long_runs.shutdown()

    def _work(self) -> None:
        while self._answer(self._take()):
            pass

    def _answer(self, batch: list[Request]) -> bool:
        """Answer a batch, and tell whether there was one.

        In a function of its own: while the next batch is waited for, nothing here holds what answered the last one.
        """
        if not batch:
            return False
        runs = self._dataplane.plan(batch)
        self._reply([request for request in batch if request.outcome is not None])
        for run in runs:
            if run.rows >= self._long_run_rows:
                self._long_runs.submit(self._execute, run)
            else:
                self._execute(run)
        return True

    def _take(self) -> list[Request]:
        """Wait for requests and take all of them; an empty list means that there will be none."""
        with self._arrived:
            while not self._waiting and not self._stopping:
                self._arrived.wait()
            batch, self._waiting = self._waiting, []
            return batch

    def _execute(self, run: Run) -> None:
        self._dataplane.execute(run)
        self._dataplane.record(run)
        self._reply(run.requests)

    def _reply(self, requests: Sequence[Request]) -> None:
        for request in requests:
            with self._arrived:
                self._calls_in_hand -= 1
                self._bytes_in_hand -= len(request.body)
            request.deliver()
        self._dataplane.delivered(requests)
