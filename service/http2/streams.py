"""The calls of one connection: what each has received, what becomes of it, and that it ends exactly once.

Nothing here knows HTTP/2's frames. A `Link` carries what a call sends; whoever owns the link tells the call what came.
"""

import threading
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from service.calls import (
    BatchedMethod,
    Body,
    Codec,
    Context,
    Inlet,
    Metadata,
    Method,
    Request,
    StreamMethod,
    Trace,
    UnaryMethod,
)
from service.errors import (
    ExpiredError,
    InternalError,
    MalformedError,
    OverloadedError,
    ServiceError,
    Shed,
)
from service.http2.burst import Burst, Tally
from service.http2.headers import Headers, RequestHead, response, trailers, trailers_only
from service.http2.messages import IDENTITY, Assembler, Message, deflate, frame, inflate
from service.query import Answer, Query
from service.status import Code, code_of
from service.traceparent import request_id

log = structlog.get_logger(__name__)

RESPONSE: Final = response()
TRAILERS: Final = trailers(None)
_WORST_RATIO: Final = 1032  # deflate cannot shrink more than this
_COMPRESSION_PAYS_BYTES: Final = 1024
_MAX_ON_THE_WAY_BYTES: Final = 1 << 20
"""Between a handler's thread and the loop; beyond, the handler pauses as it does for a slow caller."""

FIELDS: Final = (
    "_ended",
    "_held",
    "_link",
    "_tally",
    "_trace",
    "armed",
    "deadline_seconds",
    "due",
    "phase",
    "received_seconds",
    "stream_id",
)
"""Slots that every call has."""

OPEN: Final = 0
"""The call waits for its message, or for its answer."""
ANSWERED: Final = 1
"""Its whole answer was handed to the link; it may wait there for the peer to take it."""
CLOSED: Final = 2
"""Nothing of it is left on the connection."""


class Link(Protocol):
    """The connection, as its calls see it. Called on the loop's thread."""

    burst: Burst

    @property
    def clogged(self) -> bool:
        """Whether no further call may be run: too many answers wait for the peer, or are being made for it."""

    @property
    def swamped(self) -> bool:
        """Whether so many answers wait for the peer that even calls that were begun must not add to them."""

    def send_answer(self, stream_id: int, head: Headers, framed: bytes, tail: Headers) -> None:
        """Send a whole answer with one message."""

    def send_only(self, stream_id: int, headers: Headers) -> None:
        """Send a header block that is the whole answer."""

    def send_head(self, stream_id: int, headers: Headers) -> None:
        """Send the header block before the messages."""

    def send_message(self, stream_id: int, framed: bytes) -> None:
        """Send one message with its prefix."""

    def send_trailers(self, stream_id: int, headers: Headers) -> None:
        """Send the header block that ends the call."""

    def stop_peer(self, stream_id: int) -> None:
        """Once the answer is sent, tell the peer that the rest of its request is not wanted."""

    def reset(self, stream_id: int) -> None:
        """Cut the stream off, with what is not yet sent."""

    def take(self, size: int) -> None:
        """Count bytes of a request into what is in hand."""

    def give(self, size: int) -> None:
        """Count them out."""

    def begin(self, size: int) -> None:
        """Count bytes of a request into what is in hand, and into what is being answered. Raises as `take`."""

    def finish(self, size: int) -> None:
        """Count them out of both."""

    def run(self, request: Request, weight_bytes: int) -> None:
        """Have a request answered; its reply is called on the loop's thread."""

    def running(self, size: int) -> None:
        """Count bytes of requests that are being answered for this link, in and (negative) out."""

    def wait(self, call: "Call") -> None:
        """Keep a complete call until the link is no longer clogged, then `run` it."""

    def pump_later(self, stream: "StreamCall") -> None:
        """Have `pump` called before the next flush."""

    def is_full(self, stream_id: int) -> bool:
        """Whether a stream should be sent no more for the time being."""

    def resume_later(self, stream: "StreamCall") -> None:
        """Have `resume` called once the stream is not full, in another turn of the loop."""


class Stream:
    """What all calls have in common. Guarantees: it is told to the observer once, and gives back all it took."""

    if not TYPE_CHECKING:  # which would have it that nothing can be assigned
        __slots__ = ()  # the kinds of calls have FIELDS and their own: one of them is a Request as well

    _link: Link
    stream_id: int
    _tally: Tally
    received_seconds: float
    deadline_seconds: float
    phase: int
    due: float
    """When the call must be looked at next; infinity for never."""
    armed: bool
    """Whether whoever looks knows of it: most calls are over before they need to be looked at."""
    _ended: bool
    """Whether the peer sends no more."""
    _held: int
    _trace: Trace | None = None

    def _begin(  # noqa: PLR0917 - called for every call, where names cost
        self, link: Link, stream_id: int, path: str, received: float, deadline: float, trace: Trace | None
    ) -> None:
        self._link = link
        self._trace = trace
        self.stream_id = stream_id
        self._tally = link.burst.tally(path)
        self._tally.started += 1
        self.received_seconds = received
        self.deadline_seconds = deadline
        self.phase = OPEN
        self.due = deadline
        self.armed = False
        self._ended = False
        self._held = 0

    def receive(self, data: bytes, ended: bool) -> bool:  # noqa: FBT001 - as the frame has it
        """Take what came, and tell whether the peer may send as much again."""
        self._ended |= ended
        if self.phase != OPEN:
            return True
        try:
            return self._receive(data)
        except ServiceError as error:
            self.fail(error)
            return True

    def fail(self, error: ServiceError) -> None:
        """End the call with an error, where it was not answered yet."""
        if self.phase != OPEN:
            return
        if error.shed is not None:
            self._link.burst.shed(error.shed)
        self._send_error(error)
        self._answered(code_of(error))

    def closed(self) -> None:
        """Learn that the stream is gone, for whatever reason."""
        self._ended = True
        if self.phase == OPEN:
            self._answered(Code.CANCELLED)
        self.phase = CLOSED

    def look(self, now: float) -> None:
        """Do what is due. `due` may be set anew."""
        self.due = self.deadline_seconds
        if now < self.deadline_seconds:
            return
        if self.phase == OPEN:
            self.fail(ExpiredError("the deadline passed before the answer"))
        else:
            self._link.reset(self.stream_id)

    def _receive(self, data: bytes) -> bool:
        raise NotImplementedError

    def _send_error(self, error: ServiceError) -> None:
        self._link.send_only(self.stream_id, trailers_only(error))

    def _answered(self, code: Code) -> None:
        self.phase = ANSWERED
        seconds = monotonic() - self.received_seconds
        if code is Code.OK:
            self._tally.answered_seconds.append(seconds)
        else:
            self._link.burst.failed(self._tally.path, code, seconds)
        if self._trace is not None:
            self._trace.end(code, seconds)
        self._link.give(self._held)
        self._held = 0
        self._release()
        if not self._ended:
            self._link.stop_peer(self.stream_id)

    def _release(self) -> None:
        """Let go of everything that the call held."""

    def _take(self, size: int) -> None:
        self._link.take(size)
        self._held += size


class Call(Stream):
    """A unary call: one message, one answer."""

    __slots__ = (*FIELDS, "_assembler", "_head", "_max_bytes", "_message", "_method", "_request")

    def __init__(  # noqa: PLR0917 - called for every call, where names cost
        self,
        link: Link,
        stream_id: int,
        method: BatchedMethod | UnaryMethod,
        head: RequestHead,
        received: float,
        trace: Trace | None,
    ) -> None:
        self._begin(link, stream_id, method.path, received, received + head.timeout_seconds, trace)
        self._method = method
        self._head = head
        limits = link.burst.limits
        self._max_bytes = limits.max_message_bytes
        self.due = min(self.deadline_seconds, received + limits.receive_seconds)
        self._assembler: Assembler | None = None
        self._message: Message | None = None
        self._request: Request | None = None

    def _receive(self, data: bytes) -> bool:
        self._take(len(data))
        if self._assembler is None:
            self._assembler = Assembler(self._max_bytes)
        self._assemble(self._assembler, data)
        return True

    def _assemble(self, assembler: Assembler, data: bytes) -> None:
        assembler.feed(data)
        if self._message is None:
            self._message = assembler.take()
        if self._message is not None and not assembler.between_messages:
            raise MalformedError("more than one message came in a unary call")
        if not self._ended:
            return
        if self._message is None:
            raise MalformedError(
                "the request ended without a message" if assembler.between_messages else "the message is incomplete"
            )
        self.run()

    def run(self) -> None:
        """Have the complete message answered, now or once the link is no longer clogged."""
        message, method = self._message, self._method
        assert message is not None  # noqa: S101 - called when it is complete
        if self.phase != OPEN:
            return
        if isinstance(method, UnaryMethod):
            self._answer(method, message)
        elif self._link.clogged:
            self._link.wait(self)
        else:
            self._submit(method.codec, message)

    def _submit(self, codec: Codec, message: Message) -> None:
        body, weight = message.body, len(message.body)
        if message.compressed or self._head.answer_encoding != IDENTITY:
            codec = _Compressed(codec, self._head, self._max_bytes, inflating=message.compressed)
            weight = min(weight * _WORST_RATIO, self._max_bytes)
        self._message = self._assembler = None
        self._request = Request(
            codec, body, self._replied, self.received_seconds, self.deadline_seconds, self._head.metadata
        )
        self._request.trace = self._trace
        self._link.running(len(body))
        self._link.burst.add(self._request, weight)

    def _replied(self, request: Request) -> None:
        link, outcome = self._link, request.outcome
        link.running(-len(request.body))
        if self.phase != OPEN:
            return
        if isinstance(outcome, ServiceError) or outcome is None:
            self.fail(outcome or InternalError())
            return
        head, compressed = RESPONSE, False
        if isinstance(request.codec, _Compressed) and request.codec.compressed_answer:
            head, compressed = response(self._head.answer_encoding), True
        link.send_answer(self.stream_id, head, frame(outcome, compressed=compressed), TRAILERS)
        self._request = None
        self.phase = ANSWERED
        seconds = link.burst.now - self.received_seconds
        self._tally.answered_seconds.append(seconds)
        if self._trace is not None:
            self._trace.end(Code.OK, seconds)
        link.give(self._held)
        self._held = 0

    def _answer(self, method: UnaryMethod, message: Message) -> None:
        """Answer on the spot, with the metadata that the method sets."""
        link, stream_id, encoding = self._link, self.stream_id, self._head.answer_encoding
        context = Context(self._head.metadata, self.deadline_seconds)
        body = inflate(message.body, self._head.encoding, self._max_bytes) if message.compressed else message.body
        answer, error = _guarded(partial(method.answer, body, context), method.path, context.metadata)
        try:
            head, tail = response(encoding, context.initial_metadata), trailers(error, context.trailing_metadata)
            only = trailers_only(error, context.trailing_metadata) if error else None
        except ValueError as fault:
            raise _internal(fault, method.path, self._head.metadata) from None
        if error is not None and only is not None:
            link.send_only(stream_id, only)
            self._answered(code_of(error))
            return
        framed, _ = _framed([answer or b""], encoding)
        link.send_answer(stream_id, head, framed, tail)
        self._answered(Code.OK)

    def look(self, now: float) -> None:
        """End the call where its deadline passed, or where its message takes too long to arrive."""
        super().look(now)
        if self.phase == OPEN and not self._ended:
            limit = self._link.burst.limits.receive_seconds
            if now >= self.received_seconds + limit:
                self.fail(ExpiredError(f"the request did not arrive within {limit} s"))
            else:
                self.due = min(self.deadline_seconds, self.received_seconds + limit)

    def _release(self) -> None:
        if self._request is not None:
            self._request.cancelled = True  # of no consequence where it was answered
            self._request = None
        self._message = self._assembler = None


class StreamCall(Stream):
    """A call that streams: the `Outlet` of its handler, and whoever feeds its `Inlet`.

    The handler is told one thing at a time, on the loop's thread, and never from within its own `send` or `close`.
    Once the call is over, however it ended, it is told so by `cancel`.
    """

    __slots__ = (
        *FIELDS,
        "_arrived_bytes",
        "_asked",
        "_assembler",
        "_cancelled",
        "_context",
        "_full",
        "_half_closed",
        "_handed_bytes",
        "_head",
        "_head_sent",
        "_inlet",
        "_messages",
        "_method",
    )

    def __init__(  # noqa: PLR0917 - as the other kinds of calls
        self,
        link: Link,
        stream_id: int,
        method: StreamMethod,
        head: RequestHead,
        received: float,
        trace: Trace | None,
    ) -> None:
        self._begin(link, stream_id, method.path, received, received + head.timeout_seconds, trace)
        self._method = method
        self._head = head
        self._head_sent = False
        self._context = Context(head.metadata, self.deadline_seconds, trace=trace)
        self._assembler = Assembler(link.burst.limits.max_message_bytes)
        self._inlet: Inlet | None = None
        self._messages = 0
        self._half_closed = False
        self._cancelled = False
        self._full = False
        self._asked = False
        """Whether another thread was told that the outlet is full, or is just finding out."""
        self._handed_bytes = 0
        """Bytes that another thread sent; written by it alone."""
        self._arrived_bytes = 0
        """Those of them that came to the loop; written there alone."""

    @property
    def context(self) -> Context:
        """The call's metadata and deadline."""
        return self._context

    def start(self) -> None:
        """Open the handler."""
        try:
            self._inlet = self._method.open(self, self._submit)
        except ServiceError as error:
            self.fail(error)
        except Exception as fault:  # noqa: BLE001 - a handler's fault concerns its call alone
            self.fail(_internal(fault, self._tally.path, self._head.metadata))

    def _submit(self, request: Request) -> None:
        self._link.burst.submit(self._link, request)

    # The outlet, on any thread ----------------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether as much waits for the caller to take it as should."""
        if threading.get_ident() == self._link.burst.thread_id:
            return self._find_full()
        self._asked = True  # before it is found out, so that whatever ends it on the loop meanwhile is told
        on_the_way = self._handed_bytes - self._arrived_bytes
        self._asked = self.phase == OPEN and (self._full or on_the_way > _MAX_ON_THE_WAY_BYTES)
        return self._asked

    def send(self, message: bytes | Body) -> None:
        """Send one message."""
        body = [message] if isinstance(message, bytes) else message
        if threading.get_ident() == self._link.burst.thread_id:
            self._send(body)
            return
        size = sum(map(len, body))
        self._handed_bytes += size
        self._on_loop(partial(self._send_from_afar, body, size))

    def close(self, error: ServiceError | None = None) -> None:
        """End the call."""
        self._on_loop(partial(self._close, error))

    def _on_loop(self, action: partial[None]) -> None:
        burst = self._link.burst
        if threading.get_ident() == burst.thread_id:
            action()
        elif not burst.loop.is_closed():
            burst.loop.call_soon_threadsafe(action)

    def _send_from_afar(self, body: Body, size: int) -> None:
        self._arrived_bytes += size
        self._send(body)
        if not self._find_full() and self._asked:
            self._link.resume_later(self)

    def _find_full(self) -> bool:
        self._full = self.phase == OPEN and self._link.is_full(self.stream_id)
        if self._full:
            self._link.resume_later(self)
        return self._full

    def resume(self) -> None:
        """Tell the handler that there is room again."""
        self._full = self._asked = False
        if self.phase == OPEN and self._inlet is not None:
            self._tell(self._inlet.resume)

    def _send(self, body: Body) -> None:
        if self.phase != OPEN:
            return
        try:
            self._send_head()
        except ValueError as fault:
            self.fail(_internal(fault, self._tally.path, self._head.metadata))
            return
        if self._link.swamped:
            self.fail(OverloadedError("the caller takes its answers too slowly", Shed.SLOW_READER))
            return
        framed, _ = _framed(body, self._head.answer_encoding)
        self._link.send_message(self.stream_id, framed)
        self._link.pump_later(self)

    def _close(self, error: ServiceError | None) -> None:
        if self.phase != OPEN:
            return
        try:
            if error is None:
                self._send_head()
                self._link.send_trailers(self.stream_id, trailers(None, self._context.trailing_metadata))
            else:
                self._send_error(error)
        except ValueError as fault:
            self.fail(_internal(fault, self._tally.path, self._head.metadata))
            return
        if error is not None and error.shed is not None:
            self._link.burst.shed(error.shed)
        self._answered(Code.OK if error is None else code_of(error))

    def _send_head(self) -> None:
        if not self._head_sent:
            metadata = self._context.initial_metadata
            self._link.send_head(self.stream_id, response(self._head.answer_encoding, metadata))
            self._head_sent = True

    def _send_error(self, error: ServiceError) -> None:
        metadata = [] if isinstance(error, InternalError) else self._context.trailing_metadata
        if self._head_sent:
            self._link.send_trailers(self.stream_id, trailers(error, metadata))
        else:
            self._link.send_only(self.stream_id, trailers_only(error, metadata))

    # The inlet --------------------------------------------------------------------------------------------------------

    def _receive(self, data: bytes) -> bool:
        self._take(len(data))
        self._assembler.feed(data)
        self.pump()
        return self._assembler.held_bytes == 0 or not self.stopped

    @property
    def stopped(self) -> bool:
        """Whether the handler is told nothing for the time being: it is busy, or the link is clogged."""
        return self._inlet is None or self._inlet.busy or self._link.clogged

    def pump(self) -> None:
        """Tell the handler what it can take."""
        if self.phase == OPEN and self._inlet is not None:
            self._tell(partial(self._pump, self._inlet))

    def _tell(self, what: Callable[[], None]) -> None:
        try:
            what()
        except ServiceError as error:
            self.fail(error)
        except Exception as fault:  # noqa: BLE001 - a handler's fault concerns its call alone
            self.fail(_internal(fault, self._tally.path, self._head.metadata))

    def _pump(self, inlet: Inlet) -> None:
        while self.phase == OPEN and not self.stopped and (message := self._assembler.take()) is not None:
            if self._messages and not self._method.client_streams:
                raise MalformedError("more than one message came where the method takes one")
            self._messages += 1
            body = self._inflated(message)
            self._give_consumed()
            inlet.receive(body)
        self._give_consumed()
        if self._ended and not self._half_closed and self.phase == OPEN and not self.stopped:
            self._end(inlet)

    def _end(self, inlet: Inlet) -> None:
        if not self._assembler.between_messages:
            raise MalformedError("the stream ended within a message")
        if not self._messages and not self._method.client_streams:
            raise MalformedError("the request ended without a message")
        self._half_closed = True
        inlet.half_close()

    def _inflated(self, message: Message) -> bytes:
        if not message.compressed:
            return message.body
        return inflate(message.body, self._head.encoding, self._link.burst.limits.max_message_bytes)

    def _give_consumed(self) -> None:
        consumed = self._held - self._assembler.held_bytes
        if consumed and self.phase == OPEN:
            self._held -= consumed
            self._link.give(consumed)

    def closed(self) -> None:
        """Learn that the stream is gone; the handler learns it too."""
        super().closed()
        if self._inlet is not None and not self._cancelled:
            self._cancelled = True
            try:
                self._inlet.cancel()
            except Exception:  # a handler's fault concerns its call alone
                log.exception("handler failed while its call was cancelled", method=self._tally.path)


class _Compressed(Codec):
    """A codec whose messages are compressed: so that the work is done where the others decode and encode."""

    __slots__ = ("_codec", "_head", "_inflating", "_max_bytes", "compressed_answer")

    def __init__(self, codec: Codec, head: RequestHead, max_bytes: int, *, inflating: bool) -> None:
        self._codec = codec
        self._head = head
        self._inflating = inflating
        self._max_bytes = max_bytes
        self.compressed_answer = False

    def decode(self, body: bytes) -> Query:
        """Inflate, and decode."""
        return self._codec.decode(inflate(body, self._head.encoding, self._max_bytes) if self._inflating else body)

    def encode(self, query: Query, answer: Answer) -> Body:
        """Encode, and compress where that pays."""
        body = self._codec.encode(query, answer)
        if not _pays(body, self._head.answer_encoding):
            return body
        self.compressed_answer = True
        return [deflate(body, self._head.answer_encoding)]


def _pays(body: Body, encoding: str) -> bool:
    return encoding != IDENTITY and sum(map(len, body)) >= _COMPRESSION_PAYS_BYTES


def _framed(body: Body, encoding: str) -> tuple[bytes, bool]:
    if not _pays(body, encoding):
        return frame(body), False
    return frame([deflate(body, encoding)], compressed=True), True


def _guarded(answer: "partial[bytes]", path: str, metadata: Metadata) -> tuple[bytes | None, ServiceError | None]:
    """Call a unary method: its answer, or its error."""
    try:
        return answer(), None
    except ServiceError as error:
        return None, error
    except Exception as fault:  # noqa: BLE001 - a method's fault concerns its call alone
        return None, _internal(fault, path, metadata)


def _internal(fault: Exception, path: str, metadata: Metadata) -> InternalError:
    error = InternalError()
    log.error("call failed", method=path, error_id=error.id, request_id=request_id(metadata), exc_info=fault)
    return error


def open_stream(  # noqa: PLR0917 - called for every call, where names cost
    link: Link, stream_id: int, method: Method, head: RequestHead, received: float, trace: Trace | None = None
) -> Stream:
    """Begin a call.

    Raises:
        ExpiredError: its deadline is over already, so that nothing is run.
    """
    if head.timeout_seconds <= 0:
        raise ExpiredError("the deadline passed before the call arrived")
    if not isinstance(method, StreamMethod):
        return Call(link, stream_id, method, head, received, trace)
    return StreamCall(link, stream_id, method, head, received, trace)
