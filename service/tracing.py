"""Traces of calls, with OpenTelemetry, sent to a collector over OTLP. Imported where they are asked for alone.

A traced call is a span of kind server, a child of the caller's where that names one; below it are `queue`, `run` and
`encode` of each of its requests. Which calls are traced is decided as they come: as the caller decided, or by chance.
"""

import math
import os
import random
import time
from collections.abc import Callable
from typing import Final

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from service.calls import Metadata, Steps
from service.status import Code
from service.traceparent import Parent, read_parent

_FAULTS: Final = frozenset(
    (
        Code.UNKNOWN,
        Code.DEADLINE_EXCEEDED,
        Code.UNIMPLEMENTED,
        Code.INTERNAL,
        Code.UNAVAILABLE,
        Code.DATA_LOSS,
    )
)
"""Codes that are the server's fault, by OpenTelemetry's conventions for gRPC."""
_EXPORT_SECONDS: Final = 5.0
_NS: Final = 1_000_000_000

TellExemplar = Callable[[str, float, str], None]
"""Is told of a traced call that ended: the method's path, its seconds, the id of its trace."""


class CallTrace:
    """One traced call. Its methods may be called by any thread; `end` once, last of all."""

    __slots__ = ("_path", "_span", "_tracer", "_zero_ns")

    def __init__(self, tracer: "Tracer", span: Span, path: str, zero_ns: int) -> None:
        self._tracer = tracer
        self._span = span
        self._path = path
        self._zero_ns = zero_ns
        """When the monotonic clock was at 0, in Unix time."""

    def ran(self, steps: Steps) -> None:
        """Record the run of one of the call's requests."""
        attributes: dict[str, str | int] = {
            "quicksilver.model": steps.model,
            "quicksilver.version": steps.version,
            "quicksilver.batch_rows": steps.rows,
            "quicksilver.batch_calls": steps.calls,
        }
        times = (steps.received_seconds, steps.began_seconds, steps.ended_seconds, steps.encoded_seconds)
        for name, start, end in zip(("queue", "run", "encode"), times, times[1:], strict=False):
            self._tracer.child(self._span, name, self._ns(start), self._ns(end), attributes if name == "run" else None)

    def end(self, code: Code, seconds: float) -> None:
        """Record how the call ended, and after how long."""
        self._span.set_attribute("rpc.grpc.status_code", int(code))
        if code in _FAULTS:
            self._span.set_status(Status(StatusCode.ERROR))
        self._tracer.ended(self._span, self._path, seconds)

    def _ns(self, seconds: float) -> int:
        return self._zero_ns + round(seconds * _NS)


class Tracer:
    """Begins traces, and sends what they recorded to a collector, in batches, on a thread of its own.

    What a collector does not take is dropped, and calls never wait for it.
    """

    def __init__(self, endpoint: str, ratio: float, tell_exemplar: TellExemplar) -> None:
        """Send to `http://HOST:PORT`, or https, where a collector takes OTLP over gRPC."""
        self._ratio = ratio
        self._tell_exemplar = tell_exemplar
        service = os.environ.get("OTEL_SERVICE_NAME", "quicksilver")
        resource = Resource.create({"service.name": service, "process.pid": os.getpid()})
        self._provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint, timeout=_EXPORT_SECONDS)))
        self._tracer = self._provider.get_tracer("quicksilver")

    def begin(self, path: str, metadata: Metadata, received_seconds: float) -> CallTrace | None:
        """Begin the trace of a call that came at this time of the monotonic clock; None where it is not traced."""
        parent = read_parent(metadata)
        if not (random.random() < self._ratio if parent is None else parent.sampled):  # noqa: S311 - guards nothing
            return None
        service, _, method = path.removeprefix("/").rpartition("/")
        zero_ns = time.time_ns() - time.monotonic_ns()
        span = self._tracer.start_span(
            path.removeprefix("/"),
            None if parent is None else set_span_in_context(NonRecordingSpan(_context(parent))),
            SpanKind.SERVER,
            {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method},
            start_time=zero_ns + round(received_seconds * _NS),
        )
        return CallTrace(self, span, path, zero_ns)

    def child(
        self, parent: Span, name: str, start_ns: int, end_ns: int, attributes: dict[str, str | int] | None
    ) -> None:
        """Record a span that is over, below another."""
        span = self._tracer.start_span(name, set_span_in_context(parent), attributes=attributes, start_time=start_ns)
        span.end(end_ns)

    def ended(self, span: Span, path: str, seconds: float) -> None:
        """End the span of a call."""
        span.end()
        self._tell_exemplar(path, seconds, format(span.get_span_context().trace_id, "032x"))

    def stop(self) -> None:
        """Send what is left, and end."""
        self._provider.force_flush(math.ceil(_EXPORT_SECONDS * 1000))
        self._provider.shutdown()


def _context(parent: Parent) -> SpanContext:
    return SpanContext(
        int(parent.trace_id, 16),
        int(parent.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
        trace_state=TraceState.from_header([parent.state]) if parent.state else None,
    )
