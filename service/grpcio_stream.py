"""A streaming call on grpcio's front."""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

import grpc
import structlog

from service.calls import Body, Inlet, StreamMethod, Trace
from service.errors import InternalError, OverloadedError, ServiceError, Shed, without_frames
from service.grpcio_call import CallObserver, context_of, ended
from service.runner import Runner

log = structlog.get_logger(__name__)

_MAX_UNSENT: Final = 64
"""Messages of one stream that may wait to be sent before its handler is full, and no further one is read."""

_MAX_UNSENT_BYTES: Final = 2 << 20
"""Bytes of them, likewise."""

_SWAMPED_FACTOR: Final = 16
"""A handler that sends so many times more than may wait loses its call."""


class GrpcioStream:
    """One streaming call: reads on a thread of its own, sends on the thread that grpcio gave the call."""

    def __init__(
        self,
        method: StreamMethod,
        runner: Runner,
        context: grpc.ServicerContext,
        observer: CallObserver,
        trace: Trace | None,
    ) -> None:
        self._grpc_context = context
        self._observer = observer
        self.context = context_of(context)
        self.context.trace = trace
        self._changed = threading.Condition()
        self._unsent: deque[bytes] = deque()
        self._unsent_bytes = 0
        self._told_full = False
        self._closed = False
        self._error: ServiceError | None = None
        self._turn = threading.Lock()  # the handler is told one thing at a time
        self._inlet: Inlet = method.open(self, runner.submit)

    # The outlet, as the handler sees it -------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether as much waits for the caller to take it as should."""
        with self._changed:
            self._told_full = self._is_full()
            return self._told_full

    def _is_full(self) -> bool:
        waits = len(self._unsent) >= _MAX_UNSENT or self._unsent_bytes >= _MAX_UNSENT_BYTES
        return waits and not self._closed

    def send(self, message: bytes | Body) -> None:
        """Let a message wait to be sent."""
        with self._changed:
            if self._closed:
                return
            if self._unsent_bytes >= _SWAMPED_FACTOR * _MAX_UNSENT_BYTES:
                self._unsent.clear()
                self.close(OverloadedError("the caller takes its answers too slowly", Shed.SLOW_READER))
                return
            body = message if isinstance(message, bytes) else b"".join(message)
            self._unsent.append(body)
            self._unsent_bytes += len(body)
            self._changed.notify_all()

    def close(self, error: ServiceError | None = None) -> None:
        """End the call once everything is sent."""
        with self._changed:
            if not self._closed:
                self._closed = True
                self._error = None if error is None else without_frames(error)
                self._changed.notify_all()
                if error is not None and error.shed is not None:
                    self._observer.shed(error.shed)

    # The call ---------------------------------------------------------------------------------------------------------

    def answers(self, messages: Iterable[bytes]) -> Iterator[bytes]:
        """Yield what the handler sends, until it closes; raise the error it closed with."""
        if not self._grpc_context.add_callback(self._over):
            raise ended(self.context.deadline_seconds)
        threading.Thread(target=self._read, args=(messages,), name="grpcio-reader", daemon=True).start()
        sent_any = False
        while (message := self._next()) is not None:
            if not sent_any and self.context.initial_metadata:
                self._grpc_context.send_initial_metadata(tuple(self.context.initial_metadata))
            sent_any = True
            yield message
        if self.context.trailing_metadata:
            self._grpc_context.set_trailing_metadata(tuple(self.context.trailing_metadata))
        if self._error is not None:
            raise self._error

    def _next(self) -> bytes | None:
        with self._changed:
            while not self._unsent and not self._closed:
                self._changed.wait()
            self._changed.notify_all()
            message = self._unsent.popleft() if self._unsent else None
            self._unsent_bytes -= len(message or b"")
            has_room_again = self._told_full and not self._is_full()
            self._told_full = self._told_full and not has_room_again
        if has_room_again:
            self._resume()
        return message

    def _resume(self) -> None:
        """Tell the handler that there is room, on the thread that made it."""
        with self._turn:
            if self._closed:
                return
            try:
                self._inlet.resume()
            except ServiceError as error:
                self.close(error)
            except Exception as fault:  # noqa: BLE001 - a handler's fault concerns its call alone
                self._fail(fault)

    def _fail(self, fault: Exception) -> None:
        internal = InternalError()
        log.error("stream failed", error_id=internal.id, exc_info=fault)
        self.close(internal)

    def _read(self, messages: Iterable[bytes]) -> None:
        try:
            for message in messages:
                with self._turn:
                    if self._closed:
                        return
                    self._inlet.receive(message)
                self._wait_until_idle()
            with self._turn:
                if not self._closed:
                    self._inlet.half_close()
        except ServiceError as error:
            self.close(error)
        except Exception as fault:  # noqa: BLE001 - grpcio, too, raises a bare one: where the call is over
            if not self._closed and self._grpc_context.is_active():
                self._fail(fault)

    def _wait_until_idle(self) -> None:
        with self._changed:
            while not self._closed and (self._inlet.busy or self._is_full()):
                self._changed.wait()

    def _over(self) -> None:
        """Learn from grpcio that the call has ended, in whatever way."""
        self.close(ended(self.context.deadline_seconds))
        with self._turn:
            self._inlet.cancel()
            del self._inlet  # which refers to this as its outlet, and is used by nobody once this is closed
