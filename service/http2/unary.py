"""Unary calls of every kind: their one message may come in parts, compressed, or late."""

from functools import partial
from typing import Final, NamedTuple

import structlog

from service.calls import (
    BatchedMethod,
    Codec,
    Context,
    Metadata,
    Request,
    Trace,
    UnaryMethod,
)
from service.errors import (
    ExpiredError,
    InternalError,
    MalformedError,
    ServiceError,
    without_frames,
)
from service.http2.aside import Aside
from service.http2.compression import Compressed, framed
from service.http2.headers import HEAD, TAIL, RequestHead, response, trailers, trailers_only
from service.http2.messages import IDENTITY, Assembler, Message, framed_parts, inflate
from service.http2.streams import ANSWERED, FIELDS, OPEN, Link, Stream, internal
from service.status import Code, code_of

log = structlog.get_logger(__name__)

_WORST_RATIO: Final = 1032  # deflate cannot shrink more than this


class _Answer(NamedTuple):
    """What a unary method answered: a body, with its prefix where a worker put it there already, or an error."""

    body: bytes
    framed: bytes | None = None
    error: ServiceError | None = None


class Call(Stream):
    """A unary call: one message, one answer."""

    __slots__ = (*FIELDS, "_aside", "_assembler", "_head", "_max_bytes", "_message", "_method", "_request")

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
        self._aside: Aside[_Answer] | None = None

    def take_part(self, data: bytes, now: float) -> bool:
        """Take a part from the middle of a large message, and tell whether it is one; else it is for `receive`.

        Nothing comes of it but bytes in hand, which whoever calls counts for the link.
        """
        assembler = self._assembler
        if assembler is None or self.phase != OPEN or not assembler.feed_middle(data):
            return False
        self._held += len(data)
        self.moved_seconds = now
        return True

    def _receive(self, data: bytes) -> bool:
        self._take(len(data))
        if self._assembler is None:
            self._assembler = Assembler(self._max_bytes)
        self._assembler.feed(data)
        if self._ended or self._message is not None or self._assembler.lacks <= 0:
            self._assemble(self._assembler)
        return True

    def _assemble(self, assembler: Assembler) -> None:
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
            codec = Compressed(codec, self._head, self._max_bytes, inflating=message.compressed)
            weight = min(weight * _WORST_RATIO, self._max_bytes)
        if message.compressed:  # however small: many of them would inflate to much in one turn
            weight = max(weight, self._link.burst.limits.inline_bytes + 1)
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
        head, compressed = HEAD, False
        if isinstance(request.codec, Compressed) and request.codec.compressed_answer:
            head, compressed = response(self._head.answer_encoding), True
        link.send_answer(self.stream_id, head, framed_parts(outcome, compressed=compressed), TAIL)
        self._request = None
        self.phase = ANSWERED
        seconds = link.burst.now - self.received_seconds
        self._tally.answered_seconds.append(seconds)
        if self._trace is not None:
            self._trace.end(Code.OK, seconds)
        link.give(self._held)
        self._held = 0

    def _answer(self, method: UnaryMethod, message: Message) -> None:
        """Have the method answer: on the spot where its message is small, by a worker where it is not."""
        burst, head = self._link.burst, self._head
        context = Context(head.metadata, self.deadline_seconds)
        body: bytes | None = message.body
        if message.compressed:
            body = burst.allowance.inflate(message.body, head.encoding)
        elif len(message.body) > burst.limits.inline_bytes:
            body = None
        if body is not None:
            self._send(_guarded(partial(method.answer, body, context), method.path, context.metadata), context)
            return
        self._message = self._assembler = None
        work = partial(_answer_aside, method, message, context, head, self._max_bytes)
        self._aside = Aside(self._link, len(message.body), work, partial(self._go_on, context))

    def _go_on(self, context: Context, answer: _Answer | ServiceError) -> None:
        """Send what a worker had the method answer."""
        self._aside = None
        if self.phase != OPEN:
            return
        try:
            if isinstance(answer, ServiceError):
                raise answer
            self._send(answer, context)
        except ServiceError as error:
            self.fail(without_frames(error))  # it may be raised where it is still known by a name

    def _send(self, answer: _Answer, context: Context) -> None:
        """Send an answer or an error, with the metadata that the method set."""
        link, stream_id, encoding, error = self._link, self.stream_id, self._head.answer_encoding, answer.error
        try:
            head, tail = response(encoding, context.initial_metadata), trailers(error, context.trailing_metadata)
            only = trailers_only(error, context.trailing_metadata) if error else None
        except ValueError as fault:
            raise internal(fault, self._method.path, self._head.metadata) from None
        if error is not None and only is not None:
            link.send_only(stream_id, only)
            self._answered(code_of(error))
            return
        message = answer.framed or link.burst.allowance.framed([answer.body], encoding)
        link.send_answer(stream_id, head, (message,), tail)
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
        if self._aside is not None:
            self._aside.cancel()
            self._aside = None
        if self._request is not None:
            self._request.cancelled = True  # of no consequence where it was answered
            self._request = None
        self._message = self._assembler = None


def _guarded(answer: "partial[bytes]", path: str, metadata: Metadata) -> _Answer:
    """Call a unary method: its answer, or its error."""
    try:
        return _Answer(answer() or b"")
    except ServiceError as error:
        return _Answer(b"", error=without_frames(error))
    except Exception as fault:  # noqa: BLE001 - a method's fault concerns its call alone
        return _Answer(b"", error=internal(fault, path, metadata))


def _answer_aside(
    method: UnaryMethod, message: Message, context: Context, head: RequestHead, max_bytes: int
) -> _Answer:
    """Inflate, answer and deflate, on a worker's thread. Raises a ServiceError where it cannot be inflated."""
    body = inflate(message.body, head.encoding, max_bytes) if message.compressed else message.body
    answer = _guarded(partial(method.answer, body, context), method.path, context.metadata)
    return answer if answer.error else answer._replace(framed=framed([answer.body], head.answer_encoding))
