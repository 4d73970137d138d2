"""Calls that stream, in either or both directions."""

import math
import threading
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Final

import structlog

from service.calls import (
    Body,
    Context,
    Inlet,
    Request,
    StreamMethod,
    Trace,
)
from service.errors import (
    InternalError,
    MalformedError,
    OverloadedError,
    ServiceError,
    Shed,
    without_frames,
)
from service.http2.aside import Aside
from service.http2.headers import RequestHead, response, trailers, trailers_only
from service.http2.messages import Assembler, Message, inflate
from service.http2.streams import FIELDS, OPEN, Link, Stream, internal
from service.status import Code, code_of

log = structlog.get_logger(__name__)

_MAX_ON_THE_WAY_BYTES: Final = 1 << 20
"""Between a handler's thread and the loop; beyond, the handler pauses as it does for a slow caller."""


class StreamCall(Stream):
    """A call that streams: the `Outlet` of its handler, and whoever feeds its `Inlet`.

    The handler is told one thing at a time, on the loop's thread, and never from within its own `send` or `close`.
    Once the call is over, however it ended, it is told so by `cancel`.
    """

    __slots__ = (
        *FIELDS,
        "_arrived_bytes",
        "_aside",
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
        "_replied",
        "_submitted",
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
        self._aside: Aside[bytes] | None = None
        """The message that a worker inflates; those behind it wait."""
        self._messages = 0
        self._submitted = self._replied = 0
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
            self.fail(internal(fault, self._tally.path, self._head.metadata))

    def _submit(self, request: Request) -> None:
        reply = request.reply

        def replied(request: Request) -> None:
            self._replied += 1
            reply(request)

        request.reply = replied
        self._link.burst.submit(self._link, request)
        self._submitted += 1

    @property
    def idle_since(self) -> float:
        """Since when nothing came or was sent; infinity while the handler is busy or waits for a run or a worker."""
        waits = self._submitted > self._replied or self._aside is not None
        busy = waits or (self._inlet is not None and self._inlet.busy)
        return math.inf if self.phase == OPEN and busy and not self._full else self.moved_seconds

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
            self.fail(internal(fault, self._tally.path, self._head.metadata))
            return
        if self._link.swamped:
            self.fail(OverloadedError("the caller takes its answers too slowly", Shed.SLOW_READER))
            return
        self.moved_seconds = monotonic()
        message = self._link.burst.allowance.framed(body, self._head.answer_encoding)
        self._link.send_message(self.stream_id, message)
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
            self.fail(internal(fault, self._tally.path, self._head.metadata))
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
        """Whether the handler is told nothing for the time being.

        That is: it is busy, the next message for it is being inflated, or the link is clogged.
        """
        return self._inlet is None or self._aside is not None or self._inlet.busy or self._link.clogged

    def pump(self) -> None:
        """Tell the handler what it can take."""
        if self.phase == OPEN and self._inlet is not None:
            self._tell(partial(self._pump, self._inlet))

    def _tell(self, what: Callable[[], None]) -> None:
        try:
            what()
        except ServiceError as error:
            self.fail(without_frames(error))  # some are raised where they are still known by a name
        except Exception as fault:  # noqa: BLE001 - a handler's fault concerns its call alone
            self.fail(internal(fault, self._tally.path, self._head.metadata))

    def _pump(self, inlet: Inlet) -> None:
        while self.phase == OPEN and not self.stopped and (message := self._assembler.take()) is not None:
            if self._messages and not self._method.client_streams:
                raise MalformedError("more than one message came where the method takes one")
            self._messages += 1
            body = self._inflated(message)
            self._give_consumed()
            if body is not None:
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

    def _inflated(self, message: Message) -> bytes | None:
        """Return a message's body, or None where a worker inflates it first."""
        if not message.compressed:
            return message.body
        burst, encoding = self._link.burst, self._head.encoding
        body = burst.allowance.inflate(message.body, encoding)
        if body is None:
            work = partial(inflate, message.body, encoding, burst.limits.max_message_bytes)
            self._aside = Aside(self._link, len(message.body), work, self._go_on)
        return body

    def _go_on(self, inflated: bytes | ServiceError) -> None:
        """Take the message that a worker inflated, and what came behind it."""
        self._aside = None
        if self.phase == OPEN and self._inlet is not None:
            self._tell(partial(self._receive_inflated, self._inlet, inflated))
            self._link.pump_later(self)

    def _receive_inflated(self, inlet: Inlet, inflated: bytes | ServiceError) -> None:
        if isinstance(inflated, ServiceError):
            raise inflated
        self._give_consumed()
        inlet.receive(inflated)
        self._pump(inlet)

    def _release(self) -> None:
        if self._aside is not None:
            self._aside.cancel()
            self._aside = None

    def _give_consumed(self) -> None:
        waiting = 0 if self._aside is None else self._aside.size
        consumed = self._held - self._assembler.held_bytes - waiting
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
        self._inlet = None  # which refers to this as its outlet
