"""The reference front, on grpcio's thread-based server.

It is `grpc.server` and not `grpc.aio`: one request with a path that is not UTF-8 ends the latter's main loop.
Each call holds a thread while it waits for its answer, so the pool bounds how many calls can share a batch.
"""

import contextlib
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, Protocol

import grpc
import structlog

from service.address import AddressError
from service.calls import (
    BatchedMethod,
    Body,
    Context,
    Inlet,
    Method,
    Request,
    StreamMethod,
    Trace,
    Tracer,
    UnaryMethod,
)
from service.config import Tls
from service.errors import (
    CancelledError,
    ExpiredError,
    InternalError,
    OverloadedError,
    ServiceError,
    Shed,
    UnimplementedError,
)
from service.runner import Runner
from service.status import DETAILS_KEY, Code, code_of, details_of
from service.traceparent import request_id

log = structlog.get_logger(__name__)

_STATUS: Final = {status.value[0]: status for status in grpc.StatusCode}

_MAX_UNSENT: Final = 64
"""Messages of one stream that may wait to be sent before its handler is full, and no further one is read."""

_MAX_UNSENT_BYTES: Final = 2 << 20
"""Bytes of them, likewise."""

_SWAMPED_FACTOR: Final = 16
"""A handler that sends so many times more than may wait loses its call."""


class CallObserver(Protocol):
    """Is told of every call when it begins and when it ends."""

    def started(self, path: str) -> None:
        """Learn that a call of a method began."""

    def handled(self, path: str, code: Code, seconds: float) -> None:
        """Learn that a call ended."""

    def shed(self, reason: Shed) -> None:
        """Learn that a call was refused for load. The runner tells of those that it refuses itself."""


@dataclass(frozen=True, slots=True)
class GrpcioOptions:
    """Bounds of the front."""

    address: str = "127.0.0.1:50051"
    """`HOST:PORT` or `unix:PATH`; port 0 takes a free one."""
    threads: int = 64
    """Calls that are worked on at once. Half of them may be streams, which keep their thread as long as they last."""
    max_concurrent_calls: int = 1024
    """Calls that are worked on or wait for a thread; further ones are refused with RESOURCE_EXHAUSTED."""
    max_message_bytes: int = 8 << 20
    """Bytes of one message from a client; a larger one is refused with RESOURCE_EXHAUSTED."""
    tls: Tls | None = None
    """Certificates, read once, when the front starts; None speaks no TLS."""


class GrpcioFront:
    """Serves methods over gRPC. `start` and `stop` are called once each."""

    def __init__(
        self,
        methods: Mapping[str, Method],
        runner: Runner,
        observer: CallObserver,
        options: GrpcioOptions,
        tracer: Tracer | None = None,
    ) -> None:
        self._runner = runner
        self._options = options
        self._pool = ThreadPoolExecutor(options.threads, thread_name_prefix="grpcio")
        self._server = grpc.server(
            self._pool,
            handlers=[_Handlers(methods, runner, observer, tracer, max_streams=max(1, options.threads // 2))],
            options=[
                ("grpc.max_receive_message_length", options.max_message_bytes),
                ("grpc.max_send_message_length", -1),  # what may be asked for may be answered
                ("grpc.so_reuseport", 0),  # a port in use is an error, not a port shared with a stranger
            ],
            maximum_concurrent_rpcs=options.max_concurrent_calls,
        )

    def start(self) -> str:
        """Listen, and return the address with its real port.

        Raises:
            AddressError: the address is in use, or is none.
        """
        address = self._options.address
        try:
            port = self._add_port(address)
        except RuntimeError as error:
            raise AddressError(
                f"cannot listen on {address}: it must be HOST:PORT or unix:PATH, and not in use"
            ) from error
        self._runner.start()
        self._server.start()
        return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"

    def _add_port(self, address: str) -> int:
        tls = self._options.tls
        if tls is None:
            return self._server.add_insecure_port(address)
        try:
            pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
            authorities = tls.client_authorities.read_bytes() if tls.client_authorities else None
        except OSError as error:
            raise AddressError(f"cannot use {error.filename} for TLS: {error.strerror}") from error
        credentials = grpc.ssl_server_credentials([pair], authorities, require_client_auth=authorities is not None)
        return self._server.add_secure_port(address, credentials)

    def stop(self, drain_seconds: float) -> bool:
        """Refuse new calls, let those in flight finish, and tell whether all did within the time given."""
        stopped = self._server.stop(drain_seconds)
        finished = stopped.wait(drain_seconds)
        stopped.wait()
        self._runner.stop()
        self._pool.shutdown()
        return finished


class _Handlers(grpc.GenericRpcHandler):
    """Finds the handler of a method by its path."""

    def __init__(
        self,
        methods: Mapping[str, Method],
        runner: Runner,
        observer: CallObserver,
        tracer: Tracer | None,
        *,
        max_streams: int,
    ) -> None:
        self._runner = runner
        self._observer = observer
        self._tracer = tracer
        self._stream_places = threading.BoundedSemaphore(max_streams)
        self._handlers = {path: self._handler(method) for path, method in methods.items()}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:  # noqa: ANN401 - grpcio's, without types
        """Return the handler for a path; for an unknown one a handler that says so, and is counted."""
        path = handler_call_details.method
        return self._handlers.get(path) or self._unknown(path)

    def _handler(self, method: Method) -> Any:  # noqa: ANN401 - grpcio's, without types
        if isinstance(method, BatchedMethod):
            return self._unary(
                method.path, lambda body, context, trace: _answer_batched(method, self._runner, body, context, trace)
            )
        if isinstance(method, UnaryMethod):
            return self._unary(method.path, lambda body, context, _trace: _answer_unary(method, body, context))
        return self._stream(method)

    def _unary(self, path: str, answer: Callable[[bytes, grpc.ServicerContext, Trace | None], bytes]) -> Any:  # noqa: ANN401 - as above
        def call(body: bytes, context: grpc.ServicerContext) -> bytes:
            with self._observed(path, context) as trace:
                return answer(body, context, trace)

        return grpc.unary_unary_rpc_method_handler(call)

    def _stream(self, method: StreamMethod) -> Any:  # noqa: ANN401 - grpcio's, without types
        def call(messages: Iterable[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            with self._observed(method.path, context) as trace, self._stream_place():
                yield from _Stream(method, self._runner, context, self._observer, trace).answers(messages)

        if not method.server_streams:
            return grpc.stream_unary_rpc_method_handler(lambda messages, context: b"".join(call(messages, context)))
        if not method.client_streams:
            return grpc.unary_stream_rpc_method_handler(lambda message, context: call([message], context))
        return grpc.stream_stream_rpc_method_handler(call)

    def _unknown(self, path: str) -> Any:  # noqa: ANN401 - grpcio's, without types
        def call(_messages: Iterable[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            with self._observed(path, context):
                raise UnimplementedError(f"no method {path}")
            yield b""  # never reached: it makes this a generator, as grpcio needs

        return grpc.stream_stream_rpc_method_handler(call)

    @contextlib.contextmanager
    def _observed(self, path: str, context: grpc.ServicerContext) -> Iterator[Trace | None]:
        """Tell the observer of a call, and end it with the status of whatever error comes out of it."""
        began = monotonic()
        self._observer.started(path)
        trace = None if self._tracer is None else self._tracer.begin(path, _metadata(context), began)
        error: ServiceError | None = None
        try:
            yield trace
        except ServiceError as raised:
            error = raised
        except GeneratorExit:  # grpcio gives up on a stream whose client left
            error = CancelledError("the caller left")
            raise
        except Exception as fault:
            error = InternalError()
            request = request_id(_metadata(context))
            log.error("call failed", method=path, error_id=error.id, request_id=request, exc_info=fault)
        finally:
            code, seconds = Code.OK if error is None else code_of(error), monotonic() - began
            self._observer.handled(path, code, seconds)
            if trace is not None:
                trace.end(code, seconds)
        if error is not None:
            _abort(context, error)

    @contextlib.contextmanager
    def _stream_place(self) -> Iterator[None]:
        if not self._stream_places.acquire(blocking=False):
            self._observer.shed(Shed.STREAMS)
            raise OverloadedError("as many streams are open as this server takes: half of grpcio_threads", Shed.STREAMS)
        try:
            yield
        finally:
            self._stream_places.release()


def _answer_batched(
    method: BatchedMethod, runner: Runner, body: bytes, context: grpc.ServicerContext, trace: Trace | None
) -> bytes:
    done = threading.Event()
    known = _context(context)
    request = Request(method.codec, body, lambda _: done.set(), monotonic(), known.deadline_seconds, known.metadata)
    request.trace = trace

    def abandon() -> None:
        request.cancelled = True
        done.set()

    if not context.add_callback(abandon):
        raise _ended(request.deadline_seconds)
    runner.submit(request)
    done.wait()  # at the deadline grpcio ends the call, which abandons it
    if request.outcome is None:
        raise _ended(request.deadline_seconds)
    if isinstance(request.outcome, ServiceError):
        raise request.outcome
    return b"".join(request.outcome)


def _answer_unary(method: UnaryMethod, body: bytes, context: grpc.ServicerContext) -> bytes:
    known = _context(context)
    answer = method.answer(body, known)
    if known.initial_metadata:
        context.send_initial_metadata(tuple(known.initial_metadata))
    if known.trailing_metadata:
        context.set_trailing_metadata(tuple(known.trailing_metadata))
    return answer


class _Stream:
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
        self.context = _context(context)
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
                self._error = error
                self._changed.notify_all()
                if error is not None and error.shed is not None:
                    self._observer.shed(error.shed)

    # The call ---------------------------------------------------------------------------------------------------------

    def answers(self, messages: Iterable[bytes]) -> Iterator[bytes]:
        """Yield what the handler sends, until it closes; raise the error it closed with."""
        if not self._grpc_context.add_callback(self._over):
            raise _ended(self.context.deadline_seconds)
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
        self.close(_ended(self.context.deadline_seconds))
        with self._turn:
            self._inlet.cancel()


def _context(context: grpc.ServicerContext) -> Context:
    return Context(_metadata(context), _deadline(context))


def _metadata(context: grpc.ServicerContext) -> list[tuple[str, str | bytes]]:
    return [(str(key), value) for key, value in context.invocation_metadata()]


def _deadline(context: grpc.ServicerContext) -> float:
    remaining = context.time_remaining()
    return math.inf if remaining is None else monotonic() + remaining


def _ended(deadline_seconds: float) -> ServiceError:
    """Say why a call is over that nobody here ended."""
    if monotonic() >= deadline_seconds:
        return ExpiredError("the deadline passed before the answer")
    return CancelledError("the call was cancelled")


def _abort(context: grpc.ServicerContext, error: ServiceError) -> None:
    details = details_of(error)
    if details is not None:
        context.set_trailing_metadata((*(context.trailing_metadata() or ()), (DETAILS_KEY, details)))
    context.abort(_STATUS[code_of(error)], error.message)
