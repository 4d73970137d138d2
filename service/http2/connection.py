"""One peer: bytes of a socket ↔ calls. The only file that knows ngh2.

What comes in is read frame by frame and handed to the calls; what they send is queued in ngh2 and written once a turn.
Both directions are bounded: windows are opened by hand, and only while there is room for what they let in; a peer that
does not take its answers gets no more of them made.
"""

import asyncio
import math
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Final, NamedTuple, cast

import structlog
from ngh2 import Configuration, Connection, DenialOfServiceError, ErrorCode, NGH2Error, Role, Setting
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

from service.calls import BatchedMethod, Method, Request, Trace, Tracer
from service.closed import Closed
from service.errors import DrainingError, ServiceError, Shed, UnimplementedError
from service.http2.ages import Step, Times, age_limit, next_step, old_or_idle
from service.http2.budget import Budget
from service.http2.burst import Burst, Tally
from service.http2.deadlines import Wheel
from service.http2.hand import Hand
from service.http2.headers import Headers, Refusal, RequestHead, trailers_only
from service.http2.heads import Heads
from service.http2.limits import HARD_HEADER_FACTOR, Http2Limits
from service.http2.opening import open_stream
from service.http2.pace import Pace
from service.http2.streaming import StreamCall
from service.http2.streams import Stream
from service.http2.unary import Call
from service.http2.whole import whole_call
from service.status import code_of

log = structlog.get_logger(__name__)

_CHANCE: Final = random.Random()  # noqa: S311 - spreads load, guards nothing
_DRAIN_PING: Final = b"draining"
_KEEPALIVE_PING: Final = b"are you?"
_PATH_SHOWN: Final = 200
_ORDINARY_CLOSES: Final = frozenset((ErrorCode.NO_ERROR, ErrorCode.CANCEL, ErrorCode.REFUSED_STREAM))
_PROVOKED_RESET_COST: Final = 10
"""Control frames that a stream counts for which we had to reset since its peer broke the rules."""
_STREAM_PART: Final = 4
"""One stream may fill this part of what may wait for its peer before its handler is asked to pause."""
_WRITE_BUFFER_BYTES: Final = 1 << 20
_FRAME_HEADER: Final = b"\x00\x00\x08\x07\x00\x00\x00\x00\x00"  # GOAWAY on stream 0, eight bytes follow


class _Known(NamedTuple):
    """What a header block asks for."""

    headers: Headers
    head: RequestHead
    method: Method
    tally: Tally
    may_be_whole: bool
    """Whether a call that begins so may be a `WholeCall`."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What all connections of a front have in common."""

    methods: Mapping[bytes, Method]
    limits: Http2Limits
    burst: Burst
    budget: Budget
    heads: Heads
    wheel: Wheel[Stream]
    waiters: set["Peer"]
    """Connections that keep something back until there is room again."""
    gone: Callable[["Peer", Closed], None]
    """Told when a connection is lost, and why."""
    tracer: Tracer | None


def _configuration(limits: Http2Limits) -> Configuration:
    hard_bytes = HARD_HEADER_FACTOR * limits.max_header_list_bytes
    return Configuration(
        auto_window_update=False,
        max_inbound_header_list_size=hard_bytes,
        max_inbound_header_count=hard_bytes // 40,
        max_send_header_block_length=hard_bytes,
        stream_reset_rate_limit=(limits.control_frames_burst, limits.control_frames_per_second),
        glitch_rate_limit=(limits.control_frames_burst // 4, limits.control_frames_per_second // 4 or 1),
    )


class Peer(Hand, asyncio.Protocol):
    """One connection, from `connection_made` to `connection_lost`. It is a `Link` to its calls.

    Guarantees: when it is gone, so are its calls, and the budget has back what they took.
    """

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared.limits, shared.budget)
        self.burst = shared.burst
        self._shared = shared
        self._wheel = shared.wheel
        self._tracer = shared.tracer
        self._transport: asyncio.Transport | None = None
        self._http2 = Connection(Role.SERVER, _configuration(shared.limits))
        self._streams: dict[int, Stream] = {}
        self._known: _Known | None = None
        """What the header block of the last call asked for."""
        self._openings: dict[int, tuple[RequestReceived, _Known]] = {}
        """Calls that were admitted, and are opened once more of them was read, or nothing more is there to read."""
        self._stopping: set[int] = set()
        """Streams that are answered, or refused, while the peer may still send."""
        self._owed: dict[int, int] = {}
        """Bytes received on a stream for which no window was opened again."""
        self._waiting: deque[Call] = deque()
        self._pumps: dict[StreamCall, None] = {}
        self._pausing: dict[StreamCall, None] = {}
        """Streams whose handlers wait for room."""
        self._fresh: list[Stream] = []
        self._last_stream = 0
        self._answers = 0
        self._paused = False
        self._why: Closed | None = None
        """What ends it on our side, first of all."""
        now = monotonic()
        old = age_limit(now, shared.limits, _CHANCE)
        self.times = Times(connected=now, age_limit=old, heard=now, idle_since=now)
        self._pace = Pace(shared.limits, now)

    # Told by the loop -------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the peer."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(_WRITE_BUFFER_BYTES)
        limits = self._limits
        self._http2.initiate_connection(
            {
                Setting.MAX_CONCURRENT_STREAMS: limits.max_calls_per_connection,
                Setting.INITIAL_WINDOW_SIZE: limits.stream_window_bytes,
                Setting.MAX_HEADER_LIST_SIZE: limits.max_header_list_bytes,
            }
        )
        self._http2.set_local_window_size(limits.connection_window_bytes)
        self.burst.touch(self)

    def data_received(self, data: bytes) -> None:
        """Read what came."""
        if self.times.closing < math.inf:
            return
        self.burst.catch_up()
        now = self.times.heard = monotonic()
        try:
            self._http2.receive_data(data)
            control = self._read(now)
        except NGH2Error as error:
            self._broken(error)
            return
        if control and not self._pace.spend(control, now):
            self._ends_by(Closed.MISUSE)
            self._terminate(ErrorCode.ENHANCE_YOUR_CALM, "too many control frames")
            return
        self.burst.touch(self)

    def pause_writing(self) -> None:
        """Stop writing: the peer does not read. What it asks for waits with it."""
        self._paused = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on writing."""
        self._paused = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        self.burst.touch(self)

    def connection_lost(self, _reason: Exception | None) -> None:
        """End what is left."""
        self._transport = None
        self.times.closing = min(self.times.closing, monotonic())
        self._forget_calls()
        self.leave_unsent(0)
        self._shared.waiters.discard(self)
        self._shared.gone(self, self._why or Closed.PEER)

    def _forget_calls(self) -> None:
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            self._close_stream(stream)
        self._waiting.clear()
        self._pumps.clear()
        self._pausing.clear()
        self._fresh.clear()
        self._owed.clear()
        self._budget.calls -= len(self._openings)
        self._openings.clear()

    # Reading ----------------------------------------------------------------------------------------------------------

    def _read(self, now: float) -> int:
        """Hand on what ngh2 made of the bytes, and return how many frames brought nothing."""
        control = 0
        for event in self._http2.events():
            if isinstance(event, DataReceived):
                control += self._read_data(event, now)
            elif isinstance(event, RequestReceived):
                self._read_request(event, now)
            else:
                self._open_rest(now)
                if isinstance(event, StreamClosed):
                    control += self._stream_closed(event)
                else:
                    control += 1
                    self._read_other(event)
        self._open_rest(now)
        return control

    def _read_request(self, event: RequestReceived, now: float) -> None:
        self._last_stream = event.stream_id
        known = self._known
        if known is None or event.headers != known.headers:
            known = self._meet(event)
            if known is None:
                return
        try:
            self._budget.admit_call()
        except ServiceError as error:
            self._refuse_with(event, known.method.path, error)
            return
        self._budget.calls += 1
        tracer = self._tracer
        trace = None if tracer is None else tracer.begin(known.method.path, known.head.metadata, now)
        if known.may_be_whole and not event.end_stream and trace is None:
            self._openings[event.stream_id] = event, known
        else:
            self._open(event, known, now, trace)

    def _meet(self, event: RequestReceived) -> "_Known | None":
        """Read a header block that is not that of the call before; None where the call is refused for it."""
        head = self._shared.heads.read(event.headers)
        if isinstance(head, Refusal):
            self._refuse(event, "", head)
            return None
        method = self._shared.methods.get(head.path)
        if method is None:
            shown = head.path[:_PATH_SHOWN].decode("utf-8", "replace")
            self._refuse_with(event, "", UnimplementedError(f"no method {shown}"))
            return None
        may_be_whole = isinstance(method, BatchedMethod) and head.timeout_seconds > 0
        self._known = _Known(event.headers, head, method, self.burst.tally(method.path), may_be_whole)
        return self._known

    def _open(self, event: RequestReceived, known: "_Known", now: float, trace: Trace | None = None) -> None:
        try:
            stream = open_stream(self, event.stream_id, known.method, known.head, now, trace)
        except ServiceError as error:
            if trace is not None:
                trace.end(code_of(error), 0.0)
            self._budget.calls -= 1
            self._refuse_with(event, known.method.path, error)
            return
        self._keep(stream)
        if isinstance(stream, StreamCall):
            stream.start()
        if event.end_stream:
            stream.receive(b"", True)

    def _keep(self, stream: Stream) -> None:
        self._streams[stream.stream_id] = stream
        self.times.idle_since = math.inf
        if stream.due < math.inf:
            self._fresh.append(stream)

    def _open_rest(self, now: float) -> None:
        """Open the calls of which nothing but the head is there yet."""
        while self._openings:
            self._open(*self._openings.pop(next(iter(self._openings))), now)

    def _open_whole(self, event: DataReceived, now: float) -> bool:
        """Open a call that its first bytes complete, and have it answered; False where it is another kind of call."""
        request, known = self._openings.pop(event.stream_id)
        method = known.method
        if event.end_stream and isinstance(method, BatchedMethod):
            try:
                call = whole_call(self, event.stream_id, known.tally, method, known.head, event.data, now)
            except ServiceError:  # the other kind of call will be told the same
                call = None
            if call is not None:
                self._keep(call)
                self.burst.add(call, len(event.data))
                return True
        self._open(request, known, now)
        return False

    def _refuse_with(self, event: RequestReceived, path: str, error: ServiceError) -> None:
        if error.shed is not None:
            self.burst.shed(error.shed)
        self._refuse(event, path, Refusal(trailers_only(error), code_of(error)))

    def _refuse(self, event: RequestReceived, path: str, refusal: Refusal) -> None:
        self._queue(lambda http2: http2.send_response(event.stream_id, refusal.answer, end_stream=True))
        if not event.end_stream:
            self._stopping.add(event.stream_id)
        self.burst.tally(path).started += 1
        self.burst.failed(path, refusal.code, 0.0)
        self._answers += 1

    def _ends_by(self, why: Closed) -> None:
        """Note why the connection ends, where nothing else ended it before."""
        self._why = self._why or why

    def _read_data(self, event: DataReceived, now: float) -> int:
        stream_id, data, ended = event.stream_id, event.data, event.end_stream
        may_go_on = True
        if stream_id not in self._openings or not self._open_whole(event, now):
            stream = self._streams.get(stream_id)
            may_go_on = True if stream is None else stream.receive(data, ended)
        if data:
            if may_go_on and not self.held_back:
                self._http2.acknowledge_received_data(len(data), stream_id)
            else:
                self._owed[stream_id] = self._owed.get(stream_id, 0) + len(data)
                self._shared.waiters.add(self)
            return 0
        return 0 if ended else 1

    def _read_other(self, event: Event) -> None:
        if isinstance(event, TrailersReceived):  # they end the peer's side
            stream = self._streams.get(event.stream_id)
            if stream is not None:
                stream.receive(b"", True)
        elif isinstance(event, SettingsReceived):
            self.times.greeted = True
        elif isinstance(event, PingAcknowledged):
            if event.opaque_data == _DRAIN_PING:
                self._last_call()
        elif isinstance(event, ConnectionClosed):
            self._ends_by(Closed.MISUSE if event.error_code else Closed.PEER)  # ngh2, too, sends peers away
            self._close()

    def _stream_closed(self, event: StreamClosed) -> int:
        stream_id = event.stream_id
        self._stopping.discard(stream_id)
        owed = self._owed.pop(stream_id, 0)
        if owed:
            self._http2.acknowledge_received_data(owed, stream_id)
        stream = self._streams.pop(stream_id, None)
        if stream is not None:
            self._close_stream(stream)
        if not self._streams:
            self.times.idle_since = self.times.heard
        return 0 if event.error_code in _ORDINARY_CLOSES else _PROVOKED_RESET_COST

    def _close_stream(self, stream: Stream) -> None:
        stream.closed()
        self._budget.calls -= 1
        if stream.armed:
            self._wheel.discard(stream, stream.due)

    def _broken(self, error: NGH2Error) -> None:
        """The peer broke the rules so that ngh2 gave up; the GOAWAY that it can no longer write is written here."""
        if self._transport is None or self.times.closing < math.inf:
            return
        if (
            self.times.last_called and not self._streams and not self._openings
        ):  # it spoke on after its connection's end
            self._close()
            return
        log.debug("connection broke off", reason=str(error))
        self._ends_by(Closed.MISUSE)
        last = self._last_stream  # one less, and its client would take an answered call for one that never began
        excess = isinstance(error, DenialOfServiceError)
        code = ErrorCode.ENHANCE_YOUR_CALM if excess else ErrorCode.PROTOCOL_ERROR
        self._transport.write(_FRAME_HEADER + last.to_bytes(4, "big") + int(code).to_bytes(4, "big"))
        self._close()

    # A link to the calls ----------------------------------------------------------------------------------------------

    def run(self, request: Request, weight_bytes: int) -> None:
        """Have a request answered; its reply is called on the loop's thread."""
        size, reply = len(request.body), request.reply

        def answered(request: Request) -> None:
            self._running -= size
            self._budget.give(size)
            reply(request)

        self._running += size
        self._budget.take(size)
        request.reply = answered
        self.burst.add(request, weight_bytes)

    def send_answer(self, stream_id: int, head: Headers, framed: bytes, tail: Headers) -> None:
        """Send a whole answer with one message."""
        http2 = self._http2
        self._queued += len(framed)
        self._answers += 1
        try:
            http2.send_response(stream_id, head)
            http2.send_data(stream_id, framed)
            http2.send_trailers(stream_id, tail)
        except NGH2Error as error:
            log.debug("answer came too late", reason=str(error))
        self.burst.touch(self)

    def send_only(self, stream_id: int, headers: Headers) -> None:
        """Send a header block that is the whole answer."""
        self._queue(lambda http2: http2.send_response(stream_id, headers, end_stream=True))
        self._answers += 1

    def send_head(self, stream_id: int, headers: Headers) -> None:
        """Send the header block before the messages."""
        self._queue(lambda http2: http2.send_response(stream_id, headers))

    def send_message(self, stream_id: int, framed: bytes) -> None:
        """Send one message with its prefix."""
        self._queued += len(framed)
        self._queue(lambda http2: http2.send_data(stream_id, framed))
        if self._queued > self._limits.max_unsent_bytes:
            self._push()

    def send_trailers(self, stream_id: int, headers: Headers) -> None:
        """Send the header block that ends the call."""
        self._queue(lambda http2: http2.send_trailers(stream_id, headers))
        self._answers += 1

    def stop_peer(self, stream_id: int) -> None:
        """Once the answer is sent, tell the peer that the rest of its request is not wanted."""
        if stream_id in self._streams:
            self._stopping.add(stream_id)

    def reset(self, stream_id: int) -> None:
        """Cut the stream off, with what is not yet sent."""
        self._queue(lambda http2: http2.reset_stream(stream_id, ErrorCode.CANCEL))

    def wait(self, call: Call) -> None:
        """Keep a complete call until the link is no longer clogged, then `run` it."""
        self._waiting.append(call)
        self._shared.waiters.add(self)

    def pump_later(self, stream: StreamCall) -> None:
        """Have `pump` called before the next flush."""
        self._pumps[stream] = None
        self.burst.touch(self)

    def is_full(self, stream_id: int) -> bool:
        """Whether a stream should be sent no more for the time being: too much waits for the peer."""
        return self.clogged or self._http2.queued_body_size(stream_id) > self._limits.max_unsent_bytes // _STREAM_PART

    def resume_later(self, stream: StreamCall) -> None:
        """Have `resume` called once the stream is not full, in another turn of the loop."""
        self._pausing[stream] = None
        self._shared.waiters.add(self)
        self.burst.touch(self)

    def _queue(self, action: Callable[[Connection], None]) -> None:
        if self._transport is None or self.times.closing < math.inf:
            return
        try:
            action(self._http2)
        except NGH2Error as error:  # the stream went away in the same turn; its StreamClosed is on the way
            log.debug("answer came too late", reason=str(error))
        self.burst.touch(self)

    # Writing ----------------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write what there is to write."""
        self._relieve()
        if self._transport is None or self._paused or self.times.closing < math.inf:
            return
        try:
            self._write()
        except NGH2Error as error:
            self._broken(error)

    def settle(self) -> None:
        """See what was changed by writing; also where so much was written that no more may be."""
        if self._transport is None or self.times.closing < math.inf:
            return
        try:
            if self._stopping:
                self._write()  # what was queued since the last flush: a reset would overtake it
            self._read(self.times.heard)
            if self._stopping:
                self._stop_answered()
        except NGH2Error as error:
            self._broken(error)
            return
        self._arm()
        self._count_unsent()
        if self._pausing:
            self._wake()

    def _wake(self) -> None:
        """Let handlers go on that have room again; not in this turn, since one that pours would never let it end."""
        for stream in [stream for stream in self._pausing if not self.is_full(stream.stream_id)]:
            del self._pausing[stream]
            self.burst.loop.call_soon(stream.resume)

    def _write(self) -> None:
        out = self._http2.data_to_send()
        if out and self._transport is not None:
            self._transport.write(out)
            self._pace.sent(self._answers, len(out))
            self._answers = 0

    def _push(self) -> None:
        """Write within a turn, so that one call's many answers do not lie here; events are left for the flush."""
        if self._transport is None or self._paused or self.times.closing < math.inf:
            return
        try:
            self._transport.write(self._http2.data_to_send())
        except NGH2Error as error:
            log.debug("nothing could be written", reason=str(error))
            return
        self._count_unsent()

    def _stop_answered(self) -> None:
        """Reset streams whose answer is out, so that their peer stops sending."""
        for stream_id in [stream_id for stream_id in self._stopping if self._is_sent(stream_id)]:
            self._stopping.discard(stream_id)
            self._http2.reset_stream(stream_id, ErrorCode.NO_ERROR)
        self._write()
        self._read(self.times.heard)

    def _is_sent(self, stream_id: int) -> bool:
        if self._http2.queued_body_size(stream_id):
            return False
        if stream_id not in self._streams:
            return True
        # an empty window keeps even trailers back
        return self._http2.stream_remote_window_size(stream_id) > 0 and self._http2.remote_window_size > 0

    def _arm(self) -> None:
        """Set the timers of calls that outlived their first turn."""
        if self._streams:
            for stream in self._fresh:
                if stream.due < math.inf and stream.stream_id in self._streams:
                    self._wheel.add(stream, stream.due)
                    stream.armed = True
        self._fresh.clear()

    def _count_unsent(self) -> None:
        if self._transport is None:
            return
        self.leave_unsent(self._http2.queued_body_size() + self._transport.get_write_buffer_size())

    def _relieve(self) -> None:
        """Go on with what was kept back, where there is room again."""
        pumps, self._pumps = self._pumps, {}
        for pumped in pumps:
            pumped.pump()
        if self not in self._shared.waiters or self.clogged:
            return
        while self._waiting and not self.clogged:
            self._waiting.popleft().run()
        for stream_id in list(self._owed):
            stream = self._streams.get(stream_id)
            if isinstance(stream, StreamCall):
                stream.pump()
                if stream.stopped:
                    continue
            if not self.held_back:
                self._http2.acknowledge_received_data(self._owed.pop(stream_id), stream_id)
        if not self._waiting and not self._owed and not self._pausing:
            self._shared.waiters.discard(self)

    # As time passes ---------------------------------------------------------------------------------------------------

    @property
    def begun(self) -> bool:
        """Whether there ever was a connection."""
        return self._transport is not None or self.times.closing < math.inf

    @property
    def lost(self) -> bool:
        """Whether the connection is gone."""
        return self._transport is None

    def look(self, now: float) -> None:
        """Do what the connection's age and silence ask for."""
        if self._takes_the_rest(now):
            self.times.closing = now
        step = next_step(self.times, now, self._limits)
        if step is Step.PING:
            self.times.pinged = now
            self._queue(lambda http2: http2.ping(_KEEPALIVE_PING))
        elif step is Step.DRAIN:
            self.drain(now, self._limits.age_grace_seconds, old_or_idle(self.times, now))
        elif step is Step.LAST_CALL:
            self._last_call()
        elif step is Step.CUT_CALLS:
            self.cut(DrainingError("the connection is at its end", Shed.CONNECTION_AGE), Closed.AGE)
        elif step is Step.ABORT:
            self.abort(Closed.KEEPALIVE if self.times.greeted else Closed.HANDSHAKE)

    def _takes_the_rest(self, now: float) -> bool:
        """Whether a drained peer has yet to take answers that were written, and still may: it only reads slowly."""
        if self._transport is None or not self.times.closing < math.inf or now >= self.times.drain_end:
            return False
        return self.times.drain_end < math.inf and self._transport.get_write_buffer_size() > 0

    def drain(self, now: float, grace_seconds: float, why: Closed) -> None:
        """Let the peer open no more calls, finish those it has, and close.

        The peer's answer to a ping tells that it knows: calls that it opened before are still answered. One that did
        not greet yet is told as well, since its first calls may be under way.
        """
        self._ends_by(why)
        if self.times.notified < math.inf:
            self.times.drain_end = min(self.times.drain_end, now + grace_seconds)
            return
        self.times.notified, self.times.drain_end = now, now + grace_seconds
        self._queue(lambda http2: http2.send_shutdown_notice())
        self._queue(lambda http2: http2.ping(_DRAIN_PING))

    def cut(self, error: ServiceError, why: Closed, *, enough: bool = False) -> None:
        """End all calls with an error, and close; `enough` tells the peer that it asked for too much."""
        self._ends_by(why)
        for stream in list(self._streams.values()):
            stream.fail(error)
        self.flush()
        self._terminate(ErrorCode.ENHANCE_YOUR_CALM if enough else ErrorCode.NO_ERROR, error.message)

    def abort(self, why: Closed = Closed.FAULT) -> None:
        """Drop the connection."""
        self._ends_by(why)
        self.times.closing = min(self.times.closing, monotonic())
        if self._transport is not None:
            self._transport.abort()

    def _last_call(self) -> None:
        if not self.times.last_called:
            self.times.last_called = True
            self._queue(lambda http2: http2.send_goaway(ErrorCode.NO_ERROR))

    def _terminate(self, code: ErrorCode, reason: str) -> None:
        if self._transport is None or self.times.closing < math.inf:
            return
        log.debug("connection is ended", reason=reason)
        try:
            self._http2.terminate_connection(code)
            self._transport.write(self._http2.data_to_send())
        except NGH2Error as error:
            log.debug("no GOAWAY could be sent", reason=str(error))
        self._close()

    def _close(self) -> None:
        """Close once the peer has taken what was written: not before, since unread bytes of its would cut that off."""
        if self._transport is None or self.times.closing < math.inf:
            return
        self.times.closing = monotonic()
        self._forget_calls()
        if self._paused:
            self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()
