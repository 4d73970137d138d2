"""ReportObservations and StreamObservations, for any front: bytes to the recorder, its outcomes to bytes."""

import threading
from collections.abc import Callable
from typing import Final, TypeAlias

from proto.quicksilver.v1 import converter_pb2 as api
from service.calls import Context, Inlet, Method, Outlet, StreamMethod, Submit
from service.errors import ServiceError
from service.observations.recorder import Outcome, Report

MAX_WAITING: Final = 8
"""Messages of one stream that wait to be stored; further ones stay with the client."""

Guard: TypeAlias = Callable[[Context], None]
"""Raises a ServiceError where the caller may not report."""
Record: TypeAlias = Callable[[Report], None]
"""Takes a report to store. Raises a ServiceError where it is not taken."""


def methods(service: str, record: Record, guard: Guard) -> list[Method]:
    """Return the two methods of a service. The guard is asked before anything is done."""

    def unary(outlet: Outlet, _submit: Submit) -> Inlet:
        return _Reports(outlet, record, guard, single=True)

    def stream(outlet: Outlet, _submit: Submit) -> Inlet:
        return _Reports(outlet, record, guard, single=False)

    return [
        StreamMethod(f"/{service}/ReportObservations", client_streams=False, server_streams=False, open=unary),
        StreamMethod(f"/{service}/StreamObservations", client_streams=True, server_streams=True, open=stream),
    ]


class _Reports(Inlet):
    """One call: each message is a report, and is answered when it is durable; the recorder keeps their order.

    What was taken is stored, also where the caller leaves.
    """

    def __init__(self, outlet: Outlet, record: Record, guard: Guard, *, single: bool) -> None:
        self._outlet = outlet
        self._record = record
        self._guard = guard
        self._single = single
        self._lock = threading.Lock()
        self._waiting = 0
        """Messages that are not stored yet."""
        self._unanswered = 0
        """Messages whose answer is not sent yet."""
        self._half_closed = single

    @property
    def busy(self) -> bool:
        """Whether as many messages wait as may."""
        return self._waiting >= MAX_WAITING

    def receive(self, message: bytes) -> None:
        """Have a message stored."""
        self._guard(self._outlet.context)
        with self._lock:
            self._waiting += 1
            self._unanswered += 1
        self._record(Report(message, self._done))

    def half_close(self) -> None:
        """End the call once everything is answered."""
        if self._single:
            return
        self._guard(self._outlet.context)
        with self._lock:
            self._half_closed = True
            over = self._unanswered == 0
        if over:
            self._outlet.close()

    def cancel(self) -> None:
        """Go on: what was taken is stored."""

    def _done(self, outcome: Outcome) -> None:
        with self._lock:
            self._waiting -= 1  # before the answer: with that the front looks whether there is room
        if isinstance(outcome, ServiceError):
            self._outlet.close(outcome)
            return
        answer = api.ReportObservationsResponse(accepted=outcome.accepted, duplicates=outcome.duplicates)
        self._outlet.send(answer.SerializeToString())
        with self._lock:
            self._unanswered -= 1  # after the answer: a half-close in between must not end the call without it
            over = self._half_closed and self._unanswered == 0
        if over:
            self._outlet.close()
