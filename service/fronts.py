"""Which front serves, and with which bounds: decided from the settings."""

import math
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from service.calls import Method, Tracer
from service.config import Settings
from service.dataplane import Dataplane
from service.front_grpcio import GrpcioFront, GrpcioOptions
from service.front_http2 import Http2LoopThread
from service.http2 import Certificates, Http2Limits
from service.metrics import Metrics
from service.runner import Runner
from service.workers.handoff import Arrivals

_FEW_CALLS: Final = 64
"""A connection of the fast front may have so many calls open, however few there may be over all."""
_MANY_CALLS: Final = 1024
"""More it may not have, however many there may be."""


class Front(Protocol):
    """Serves methods over gRPC. `start` and `stop` are called once each."""

    def start(self) -> str:
        """Listen, and return the address with its real port. Raises AddressError where that cannot be."""

    def stop(self, drain_seconds: float) -> bool:
        """Refuse new calls, let those in flight finish, and tell whether all did within the time given."""


MakeFront = Callable[[Settings, Mapping[str, Method], Dataplane, Metrics], Front]


def make_front(  # noqa: PLR0917 - each of another kind
    settings: Settings,
    methods: Mapping[str, Method],
    dataplane: Dataplane,
    metrics: Metrics,
    arrivals: Arrivals | None = None,
    tracer: Tracer | None = None,
) -> Front:
    """Make the front that the settings name; `auto` is the fast one.

    With `arrivals` it serves connections that another process accepts, which grpcio's cannot.
    """
    if settings.transport == "grpcio":
        return _grpcio(settings, methods, dataplane, metrics, tracer)
    return _http2(settings, methods, dataplane, metrics, arrivals, tracer)


def _grpcio(
    settings: Settings,
    methods: Mapping[str, Method],
    dataplane: Dataplane,
    metrics: Metrics,
    tracer: Tracer | None,
) -> Front:
    runner = Runner(
        dataplane,
        max_waiting_calls=settings.max_waiting_calls,
        max_waiting_bytes=settings.max_waiting_bytes,
        long_run_rows=settings.solo_rows,
        refused=metrics.shed,
    )
    options = GrpcioOptions(
        address=settings.listen,
        threads=settings.grpcio_threads,
        max_concurrent_calls=settings.max_concurrent_calls,
        max_message_bytes=settings.max_message_bytes,
        tls=settings.tls,
    )
    return GrpcioFront(methods, runner, metrics, options, tracer)


def _http2(  # noqa: PLR0917 - as above
    settings: Settings,
    methods: Mapping[str, Method],
    dataplane: Dataplane,
    metrics: Metrics,
    arrivals: Arrivals | None,
    tracer: Tracer | None,
) -> Front:
    limits = http2_limits(settings)
    metrics.knows_connections()
    tls = settings.tls
    certificates = Certificates(tls.certificate, tls.key, tls.client_authorities) if tls else None
    return Http2LoopThread(
        methods,
        dataplane,
        metrics,
        limits,
        address=settings.listen,
        certificates=certificates,
        arrivals=arrivals,
        tracer=tracer,
    )


def http2_limits(settings: Settings) -> Http2Limits:
    """The fast front's bounds in one process with these settings, which are a worker's part where there are several.

    One connection may have a quarter of the bytes and of the calls in hand, though always one message and a few calls.
    """
    return Http2Limits(
        max_connections=settings.max_connections,
        max_calls=settings.max_waiting_calls,
        max_calls_per_connection=max(_FEW_CALLS, min(_MANY_CALLS, settings.max_waiting_calls // 4)),
        max_message_bytes=settings.max_message_bytes,
        max_bytes_in_hand=settings.max_waiting_bytes,
        max_connection_bytes_in_hand=max(settings.max_message_bytes, settings.max_waiting_bytes // 4),
        max_idle_seconds=settings.max_idle_seconds or math.inf,
        max_age_seconds=settings.max_age_seconds or math.inf,
        keepalive_seconds=settings.keepalive_seconds or math.inf,
    )
