"""A stream of requests, each answered once, in the order they came; the same for every API that has one."""

from collections import deque
from collections.abc import Callable
from threading import Lock
from time import monotonic
from typing import Final, Protocol

from service.calls import Body, Codec, Inlet, Outlet, Request, Submit
from service.errors import CancelledError, ServiceError, without_frames

MAX_STREAM_REQUESTS: Final = 64
"""Requests of one stream that may wait for their answers; further ones stay with the client."""


class StreamCodec(Codec, Protocol):
    """The codec of one message of a stream; it knows what must go back with the answer."""

    def encode_error(self, error: ServiceError) -> Body | None:
        """Write the error that stands in the place of an answer; None where it shall end the call."""


class OrderedStream(Inlet):
    """One call: many requests, each answered once, in the order they came.

    Answers may become ready in another order and on another thread; each waits for those before it. A request that
    cannot be answered takes its place in the order with its error. `codec_of` makes the codec of a message; what it
    raises ends the call.
    """

    def __init__(self, outlet: Outlet, submit: Submit, codec_of: Callable[[bytes], StreamCodec]) -> None:
        self._outlet = outlet
        self._submit = submit
        self._codec_of = codec_of
        self._lock = Lock()
        self._waiting: deque[tuple[Request, StreamCodec]] = deque()
        self._half_closed = False

    @property
    def busy(self) -> bool:
        """Whether `MAX_STREAM_REQUESTS` wait for their answers."""
        return len(self._waiting) >= MAX_STREAM_REQUESTS

    def receive(self, message: bytes) -> None:
        """Submit one request of the stream.

        Raises:
            ServiceError: no codec can be made for the message, so that nothing is known to answer it by.
        """
        codec = self._codec_of(message)
        context = self._outlet.context
        request = Request(codec, message, self._reply, monotonic(), context.deadline_seconds, context.metadata)
        request.trace = context.trace
        with self._lock:
            self._waiting.append((request, codec))
        try:
            self._submit(request)
        except ServiceError as error:
            request.outcome = without_frames(error)
            self._reply(request)

    def half_close(self) -> None:
        """End the call once everything is answered."""
        with self._lock:
            self._half_closed = True
            self._flush()

    def cancel(self) -> None:
        """Let nothing be run any more for this call."""
        with self._lock:
            self._abandon()

    def _reply(self, _request: Request) -> None:
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        """Send the answers that nothing stands before. The lock is held, so that they go out in order."""
        while self._waiting and self._waiting[0][0].outcome is not None:
            request, codec = self._waiting.popleft()
            outcome = request.outcome
            if isinstance(outcome, CancelledError):
                continue
            body = codec.encode_error(outcome) if isinstance(outcome, ServiceError) else outcome
            if body is None:
                assert isinstance(outcome, ServiceError)  # noqa: S101 - the loop's condition: there is an outcome
                self._outlet.close(outcome)
                self._abandon()
                return
            self._outlet.send(body)
        if self._half_closed and not self._waiting:
            self._outlet.close()

    def _abandon(self) -> None:
        for request, _ in self._waiting:
            request.cancelled = True
