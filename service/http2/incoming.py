"""What a connection's peer sent, event by event: calls are opened or refused, and given what is theirs."""

from collections.abc import Sequence
from typing import Final

import structlog

from service.closed import Closed
from service.errors import ServiceError, UnimplementedError
from service.http2.events import Answered, Begun, Ended, Event, Greeted, More, Parts, Whole
from service.http2.headers import Headers, Refusal, list_bytes, trailers_only
from service.http2.line import Line
from service.http2.open_calls import OpenCalls
from service.http2.opening import Known, known_of, open_stream
from service.http2.outgoing import DRAIN_PING, Outgoing
from service.http2.shared import Shared
from service.http2.streaming import StreamCall
from service.http2.streams import Stream
from service.http2.unary import Call
from service.http2.whole import WholeCall, whole_calls
from service.status import code_of

log = structlog.get_logger(__name__)

_MAX_KNOWN: Final = 32
_MAX_KNOWN_BYTES: Final = 8192
"""Header lists that a connection remembers, and their size; a client whose calls all differ gains nothing by more."""
_PATH_SHOWN: Final = 200


class Incoming:
    """Reads what the session made of a connection's bytes.

    It is told each time whose link that is, and keeps no reference.
    """

    def __init__(self, shared: Shared, line: Line, calls: OpenCalls) -> None:
        self._shared = shared
        self._burst = shared.burst
        self._budget = shared.budget
        self._tracer = shared.tracer
        self._http2 = line.http2
        self._times = line.times
        self._calls = calls
        self._known: dict[int, Known] = {}
        """What header lists ask for, by their identity: the session gives the same object for the same block."""
        self._known_bytes = 0

    def read(self, link: Outgoing, now: float) -> None:
        """Hand on what came, and end the calls whose streams ended."""
        session = self._http2
        if session.wholes:
            wholes, session.wholes = session.wholes, []
            self._read_wholes(link, wholes, now)
        if session.events:
            events, session.events = session.events, []
            for event in events:
                if isinstance(event, Parts):
                    self._read_parts(link, event, now)
                elif isinstance(event, More):
                    self._read_more(link, *event)
                else:
                    self._read_event(link, event, now)
        if session.closed:
            closed, session.closed = session.closed, []
            link.forget(closed)
            self._calls.end(closed)
        if session.finished:
            link.close(Closed.PEER)

    # Calls that begin -------------------------------------------------------------------------------------------------

    def _read_wholes(self, link: Outgoing, wholes: list[Whole], now: float) -> None:
        """Open calls of which all came at once, and have them answered: together where they are alike, as most are."""
        size = sum([len(data) for _, _, data in wholes])
        if link.held_back:
            link.owe(0, size)
        else:
            self._http2.acknowledge(0, size)
        while wholes:
            known = self._known.get(id(wholes[0][1]))
            calls: list[WholeCall] = []
            if known is not None and known.may_be_whole and self._tracer is None and link.has_room(len(wholes), size):
                calls, wholes = whole_calls(link, known, wholes, now)
                self._run(calls)
                self._budget.calls += len(calls)
            if not calls:
                alike = wholes[0][1]  # none of those that are like it is plain, or there is no room
                for whole in wholes:
                    if whole[1] is alike:
                        self._read_whole(link, whole, now)
                wholes = [whole for whole in wholes if whole[1] is not alike]

    def _read_whole(self, link: Outgoing, whole: Whole, now: float) -> None:
        """Open a call of which all came at once, and have it answered, whatever it is."""
        stream_id, fields, data = whole
        known = self._admit(link, stream_id, fields, ended=True)
        if known is None:
            return
        if known.may_be_whole and self._tracer is None and link.has_room(1, len(data)):
            calls, _ = whole_calls(link, known, [whole], now)
            if calls:
                self._run(calls)
                return
        stream = self._open(link, stream_id, known, now, ended=True)
        if stream is not None:
            stream.receive(data, True)

    def _run(self, calls: Sequence[WholeCall]) -> None:
        if calls:
            self._calls.keep_all(calls)
            self._burst.add_all(calls)

    def _admit(self, link: Outgoing, stream_id: int, fields: Headers, *, ended: bool) -> Known | None:
        """Find out what is asked for, and count a call; None where it is refused."""
        known = self._known.get(id(fields)) or self._meet(link, stream_id, fields, ended=ended)
        if known is None:
            return None
        try:
            self._budget.admit_call(len(self._calls.streams))
        except ServiceError as error:
            self._refuse_with(link, stream_id, known.method.path, error, ended=ended)
            return None
        self._budget.calls += 1
        return known

    def _meet(self, link: Outgoing, stream_id: int, fields: Headers, *, ended: bool) -> Known | None:
        """Read a header list that was not met before; None where the call is refused for it."""
        head = self._shared.heads.read(fields)
        if isinstance(head, Refusal):
            self._refuse(link, stream_id, "", head, ended=ended)
            return None
        method = self._shared.methods.get(head.path)
        if method is None:
            shown = head.path[:_PATH_SHOWN].decode("utf-8", "replace")
            self._refuse_with(link, stream_id, "", UnimplementedError(f"no method {shown}"), ended=ended)
            return None
        known = known_of(fields, head, method, self._burst.tally(method.path))
        self._remember(known)
        return known

    def _remember(self, known: Known) -> None:
        size = list_bytes(known.headers)
        if size > _MAX_KNOWN_BYTES:
            return
        if len(self._known) >= _MAX_KNOWN or self._known_bytes + size > _MAX_KNOWN_BYTES:
            self._known.clear()
            self._known_bytes = 0
        self._known[id(known.headers)] = known
        self._known_bytes += size

    def _open(self, link: Outgoing, stream_id: int, known: Known, now: float, *, ended: bool) -> Stream | None:
        tracer = self._tracer
        trace = None if tracer is None else tracer.begin(known.method.path, known.head.metadata, now)
        try:
            if known.head_bytes:
                link.keep_head(stream_id, known.head_bytes)
            stream = open_stream(link, stream_id, known.method, known.head, now, trace)
        except ServiceError as error:
            if trace is not None:
                trace.end(code_of(error), 0.0)
            self._budget.calls -= 1
            self._refuse_with(link, stream_id, known.method.path, error, ended=ended)
            return None
        self._calls.keep(stream)
        if isinstance(stream, StreamCall):
            stream.start()
        return stream

    def _refuse_with(self, link: Outgoing, stream_id: int, path: str, error: ServiceError, *, ended: bool) -> None:
        if error.shed is not None:
            self._burst.shed(error.shed)
        self._refuse(link, stream_id, path, Refusal(trailers_only(error), code_of(error)), ended=ended)

    def _refuse(self, link: Outgoing, stream_id: int, path: str, refusal: Refusal, *, ended: bool) -> None:
        link.refuse(stream_id, refusal.answer, ended=ended)
        self._burst.tally(path).started += 1
        self._burst.failed(path, refusal.code, 0.0)

    # What else came ---------------------------------------------------------------------------------------------------

    def _read_event(self, link: Outgoing, event: Event, now: float) -> None:
        if isinstance(event, Begun):
            known = self._admit(link, event.stream_id, event.fields, ended=event.ended)
            stream = known and self._open(link, event.stream_id, known, now, ended=event.ended)
            if stream and event.ended:
                stream.receive(b"", True)
        elif isinstance(event, Greeted):
            self._times.greeted = True
        elif isinstance(event, Answered):
            if event.data == DRAIN_PING:
                link.last_call()
        elif isinstance(event, Ended):
            log.debug("connection broke off", reason=event.reason)
            link.break_off()

    def _read_parts(self, link: Outgoing, parts: Parts, now: float) -> None:
        """Hand on parts from the middle of requests: together where nothing stands in the way of any, as mostly."""
        size = sum([len(data) for _, data in parts])
        if not link.has_room(0, size):
            for stream_id, data in parts:
                self._read_more(link, stream_id, data, False)
            return
        streams, taken = self._calls.streams, Parts()
        for stream_id, data in parts:
            stream = streams.get(stream_id)
            if isinstance(stream, Call) and stream.take_part(data, now):
                taken.append((stream_id, data))
            else:
                self._read_more(link, stream_id, data, False)
        if len(taken) < len(parts):
            size = sum([len(data) for _, data in taken])
        link.hold(size)
        if link.held_back:
            for stream_id, data in taken:
                link.owe(stream_id, len(data))
        else:
            self._http2.acknowledge_all(taken, size)

    def _read_more(self, link: Outgoing, stream_id: int, data: bytes, ended: bool) -> None:  # noqa: FBT001 - as the frame has it
        stream = self._calls.streams.get(stream_id)
        may_go_on = True if stream is None else stream.receive(data, ended)
        if not data:
            return
        if may_go_on and not link.held_back:
            self._http2.acknowledge(stream_id, len(data))
        else:
            link.owe(stream_id, len(data))
