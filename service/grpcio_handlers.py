"""The methods of grpcio's front: each call finds its own, is observed, and ends with the status of its error."""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from time import monotonic
from typing import Any, Final

import grpc
import structlog

from service.calls import BatchedMethod, Method, Request, StreamMethod, Trace, Tracer, UnaryMethod
from service.errors import (
    CancelledError,
    InternalError,
    OverloadedError,
    ServiceError,
    Shed,
    UnimplementedError,
    without_frames,
)
from service.grpcio_call import CallObserver, context_of, ended, metadata_of
from service.grpcio_stream import GrpcioStream
from service.runner import Runner
from service.status import DETAILS_KEY, Code, code_of, details_of
from service.traceparent import request_id

log = structlog.get_logger(__name__)

_STATUS: Final = {status.value[0]: status for status in grpc.StatusCode}


class Handlers(grpc.GenericRpcHandler):
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
                yield from GrpcioStream(method, self._runner, context, self._observer, trace).answers(messages)

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
        trace = None if self._tracer is None else self._tracer.begin(path, metadata_of(context), began)
        error: ServiceError | None = None
        try:
            yield trace
        except ServiceError as raised:
            error = without_frames(raised)
        except GeneratorExit:  # grpcio gives up on a stream whose client left
            error = CancelledError("the caller left")
            raise
        except Exception as fault:
            error = InternalError()
            request = request_id(metadata_of(context))
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
    known = context_of(context)
    request = Request(method.codec, body, lambda _: done.set(), monotonic(), known.deadline_seconds, known.metadata)
    request.trace = trace

    def abandon() -> None:
        request.cancelled = True
        done.set()

    if not context.add_callback(abandon):
        raise ended(request.deadline_seconds)
    runner.submit(request)
    done.wait()  # at the deadline grpcio ends the call, which abandons it
    if request.outcome is None:
        raise ended(request.deadline_seconds)
    if isinstance(request.outcome, ServiceError):
        raise request.outcome
    return b"".join(request.outcome)


def _answer_unary(method: UnaryMethod, body: bytes, context: grpc.ServicerContext) -> bytes:
    known = context_of(context)
    answer = method.answer(body, known)
    if known.initial_metadata:
        context.send_initial_metadata(tuple(known.initial_metadata))
    if known.trailing_metadata:
        context.set_trailing_metadata(tuple(known.trailing_metadata))
    return answer


def _abort(context: grpc.ServicerContext, error: ServiceError) -> None:
    details = details_of(error)
    if details is not None:
        context.set_trailing_metadata((*(context.trailing_metadata() or ()), (DETAILS_KEY, details)))
    context.abort(_STATUS[code_of(error)], error.message)
