"""What a connection's peer sent, frame by frame: calls are opened or refused, and given what is theirs."""

from typing import Final

from ngh2 import ErrorCode
from ngh2.events import (
    ConnectionClosed,
    DataReceived,
    Event,
    PingAcknowledged,
    RequestReceived,
    SettingsReceived,
    StreamClosed,
    TrailersReceived,
)

from service.calls import BatchedMethod, Trace
from service.closed import Closed
from service.errors import ServiceError, UnimplementedError
from service.http2.headers import Refusal, trailers_only
from service.http2.line import Line
from service.http2.open_calls import OpenCalls
from service.http2.opening import Known, open_stream
from service.http2.outgoing import DRAIN_PING, Outgoing
from service.http2.shared import Shared
from service.http2.streaming import StreamCall
from service.http2.whole import whole_call
from service.status import code_of

_ORDINARY_CLOSES: Final = frozenset((ErrorCode.NO_ERROR, ErrorCode.CANCEL, ErrorCode.REFUSED_STREAM))
_PATH_SHOWN: Final = 200
_PROVOKED_RESET_COST: Final = 10
"""Control frames that a stream counts for which we had to reset since its peer broke the rules."""


class Incoming:
    """Reads what ngh2 made of a connection's bytes. It is told each time whose link that is, and keeps no reference."""

    def __init__(self, shared: Shared, line: Line, calls: OpenCalls) -> None:
        self.last_stream = 0
        """The last stream on which a call was asked for."""
        self._shared = shared
        self._burst = shared.burst
        self._budget = shared.budget
        self._tracer = shared.tracer
        self._http2 = line.http2
        self._times = line.times
        self._calls = calls
        self._known: Known | None = None
        """What the header block of the last call asked for."""

    def read(self, link: Outgoing, now: float) -> int:
        """Hand on what ngh2 made of the bytes, and return how many frames brought nothing.

        Raises:
            NGH2Error: the peer broke the rules.
        """
        control = 0
        for event in self._http2.events():
            if isinstance(event, DataReceived):
                control += self._read_data(link, event, now)
            elif isinstance(event, RequestReceived):
                self._read_request(link, event, now)
            else:
                self._open_rest(link, now)
                if isinstance(event, StreamClosed):
                    control += self._stream_closed(link, event)
                else:
                    control += 1
                    self._read_other(link, event)
        self._open_rest(link, now)
        return control

    # Calls that begin -------------------------------------------------------------------------------------------------

    def _read_request(self, link: Outgoing, event: RequestReceived, now: float) -> None:
        self.last_stream = event.stream_id
        known = self._known
        if known is None or event.headers != known.headers:
            known = self._meet(link, event)
            if known is None:
                return
        try:
            self._budget.admit_call(len(self._calls.streams) + len(self._calls.openings))
        except ServiceError as error:
            self._refuse_with(link, event, known.method.path, error)
            return
        self._budget.calls += 1
        tracer = self._tracer
        trace = None if tracer is None else tracer.begin(known.method.path, known.head.metadata, now)
        if known.may_be_whole and not event.end_stream and trace is None:
            self._calls.openings[event.stream_id] = event, known
        else:
            self._open(link, event, known, now, trace)

    def _meet(self, link: Outgoing, event: RequestReceived) -> Known | None:
        """Read a header block that is not that of the call before; None where the call is refused for it."""
        head = self._shared.heads.read(event.headers)
        if isinstance(head, Refusal):
            self._refuse(link, event, "", head)
            return None
        method = self._shared.methods.get(head.path)
        if method is None:
            shown = head.path[:_PATH_SHOWN].decode("utf-8", "replace")
            self._refuse_with(link, event, "", UnimplementedError(f"no method {shown}"))
            return None
        may_be_whole = isinstance(method, BatchedMethod) and head.timeout_seconds > 0
        self._known = Known(event.headers, head, method, self._burst.tally(method.path), may_be_whole)
        return self._known

    def _open(
        self, link: Outgoing, event: RequestReceived, known: Known, now: float, trace: Trace | None = None
    ) -> None:
        try:
            stream = open_stream(link, event.stream_id, known.method, known.head, now, trace)
        except ServiceError as error:
            if trace is not None:
                trace.end(code_of(error), 0.0)
            self._budget.calls -= 1
            self._refuse_with(link, event, known.method.path, error)
            return
        self._calls.keep(stream)
        if isinstance(stream, StreamCall):
            stream.start()
        if event.end_stream:
            stream.receive(b"", True)

    def _open_rest(self, link: Outgoing, now: float) -> None:
        """Open the calls of which nothing but the head is there yet."""
        openings = self._calls.openings
        while openings:
            self._open(link, *openings.pop(next(iter(openings))), now)

    def _open_whole(self, link: Outgoing, event: DataReceived, now: float) -> bool:
        """Open a call that its first bytes complete, and have it answered; False where it is another kind of call."""
        request, known = self._calls.openings.pop(event.stream_id)
        method = known.method
        if event.end_stream and isinstance(method, BatchedMethod):
            try:
                call = whole_call(link, event.stream_id, known.tally, method, known.head, event.data, now)
            except ServiceError:  # the other kind of call will be told the same
                call = None
            if call is not None:
                self._calls.keep(call)
                self._burst.add(call, len(event.data))
                return True
        self._open(link, request, known, now)
        return False

    def _refuse_with(self, link: Outgoing, event: RequestReceived, path: str, error: ServiceError) -> None:
        if error.shed is not None:
            self._burst.shed(error.shed)
        self._refuse(link, event, path, Refusal(trailers_only(error), code_of(error)))

    def _refuse(self, link: Outgoing, event: RequestReceived, path: str, refusal: Refusal) -> None:
        link.refuse(event.stream_id, refusal.answer, ended=event.end_stream)
        self._burst.tally(path).started += 1
        self._burst.failed(path, refusal.code, 0.0)

    # Calls that go on, and end ----------------------------------------------------------------------------------------

    def _read_data(self, link: Outgoing, event: DataReceived, now: float) -> int:
        stream_id, data, ended = event.stream_id, event.data, event.end_stream
        calls = self._calls
        may_go_on = True
        if stream_id not in calls.openings or not self._open_whole(link, event, now):
            stream = calls.streams.get(stream_id)
            may_go_on = True if stream is None else stream.receive(data, ended)
        if data:
            if may_go_on and not link.held_back:
                self._http2.acknowledge_received_data(len(data), stream_id)
            else:
                link.owe(stream_id, len(data))
            return 0
        return 0 if ended else 1

    def _stream_closed(self, link: Outgoing, event: StreamClosed) -> int:
        link.forget(event.stream_id)
        self._calls.end(event.stream_id)
        return 0 if event.error_code in _ORDINARY_CLOSES else _PROVOKED_RESET_COST

    # The connection ---------------------------------------------------------------------------------------------------

    def _read_other(self, link: Outgoing, event: Event) -> None:
        if isinstance(event, TrailersReceived):  # they end the peer's side
            stream = self._calls.streams.get(event.stream_id)
            if stream is not None:
                stream.receive(b"", True)
        elif isinstance(event, SettingsReceived):
            self._times.greeted = True
        elif isinstance(event, PingAcknowledged):
            if event.opaque_data == DRAIN_PING:
                link.last_call()
        elif isinstance(event, ConnectionClosed):
            link.close(Closed.MISUSE if event.error_code else Closed.PEER)  # ngh2, too, sends peers away
