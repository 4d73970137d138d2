"""What passes between a front and everything behind it: calls that know nothing of HTTP/2 or of grpcio.

A front turns bytes on a socket into these, and these into bytes on a socket. Three kinds of method cover the four of
gRPC: batched (unary calls that are answered together), unary, and streams in either or both directions.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

import structlog

from service.errors import InternalError, ServiceError
from service.query import Answer, Query

if TYPE_CHECKING:
    from service.alike import Pattern
    from service.status import Code

log = structlog.get_logger(__name__)

Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]
"""Keys and values of a call's metadata, in order; values of keys that end in `-bin` are bytes."""

Body: TypeAlias = Sequence[bytes | memoryview]
"""A serialised message in parts, to be sent one after the other; large parts are views of the engine's own output."""


class Codec(Protocol):
    """Turns the bytes of one method's messages into queries, and answers into bytes."""

    def decode(self, body: bytes) -> Query:
        """Read a request. Raises a ServiceError where it makes no sense."""

    def encode(self, query: Query, answer: Answer) -> Body:
        """Write the answer to a query. Raises a ServiceError where the model cannot give what the query asks for."""

    def pattern(self, body: bytes) -> "Pattern | None":  # noqa: ARG002 - what a codec may do, and need not
        """Tell how requests like this one are read together; None where they have to be read one by one."""
        return None

    def encode_alike(
        self,
        query: Query,  # noqa: ARG002 - as above
        answer: Answer,  # noqa: ARG002
        requests: "Sequence[Request]",  # noqa: ARG002
        rows: int,  # noqa: ARG002
    ) -> Sequence[Body] | None:
        """Write the answers to requests of so many rows each at once; None where each is to be written alone."""
        return None


@dataclass(frozen=True, slots=True)
class Steps:
    """When a request went from step to step, in seconds of the monotonic clock, and the run it shared."""

    received_seconds: float
    began_seconds: float
    """When ONNX Runtime began."""
    ended_seconds: float
    encoded_seconds: float
    model: str
    version: int
    rows: int
    """Of the whole run."""
    calls: int
    """That shared it."""


class Trace(Protocol):
    """Is told what becomes of one call, on any thread, where somebody follows it."""

    def ran(self, steps: Steps) -> None:
        """Learn of the run of one of the call's requests."""

    def end(self, code: "Code", seconds: float) -> None:
        """Learn how the call ended and how long it took, last of all."""


class Tracer(Protocol):
    """Decides which calls are followed."""

    def begin(self, path: str, metadata: Metadata, received_seconds: float) -> Trace | None:
        """Begin to follow a call that came at this time of the monotonic clock, or leave it alone."""


@dataclass(slots=True, eq=False)
class Request:
    """One message that waits to be answered together with whatever else waits.

    The front fills it and submits it; the dataplane sets `outcome`, once; then `reply` is called with it, once. `reply`
    may be called on another thread than the one that submitted, and must not block. Times are of `time.monotonic`.
    """

    codec: Codec
    body: bytes
    reply: Callable[["Request"], None]
    received_seconds: float
    deadline_seconds: float = math.inf
    metadata: Metadata = ()
    """The call's metadata; of a stream's request, those of its stream."""
    cancelled: bool = False
    """Set by the front when nobody waits any longer; the rows are then not run."""
    outcome: Body | ServiceError | None = None
    trace: Trace | None = None
    """Who follows the call; of a stream's request, the stream's."""

    def deliver(self) -> None:
        """Call `reply`, with an error where a bug left no outcome. What `reply` raises concerns this call alone."""
        if self.outcome is None:
            self.outcome = InternalError()
            log.error("request came back without an outcome", error_id=self.outcome.id)
        try:
            self.reply(self)
        except Exception:  # a fault of one call's handler must not keep the others from their answers
            log.exception("reply failed")


Submit: TypeAlias = Callable[[Request], None]
"""Hands a request on to be batched. Raises OverloadedError or DrainingError where it is not accepted."""


@dataclass(slots=True)
class Context:
    """What a unary method may know of its call, and the metadata it may send back."""

    metadata: Metadata
    deadline_seconds: float = math.inf
    initial_metadata: list[tuple[str, str | bytes]] = field(default_factory=list)
    trailing_metadata: list[tuple[str, str | bytes]] = field(default_factory=list)
    trace: Trace | None = None
    """Who follows the call."""


class Outlet(Protocol):
    """The sending side of a stream. Used by any thread, by one at a time; after `close` it does nothing."""

    @property
    def context(self) -> Context:
        """The call's metadata and deadline. Initial metadata goes out with the first message."""

    @property
    def full(self) -> bool:
        """Whether as much waits for the caller to take it as should.

        A handler with more to send then stops, and is told by `Inlet.resume` when there is room. One that goes on loses
        its call in the end, with RESOURCE_EXHAUSTED.
        """

    def send(self, message: bytes | Body) -> None:
        """Send one message, whether there is room or not."""

    def close(self, error: ServiceError | None = None) -> None:
        """End the call, successfully or with an error."""


class Inlet(Protocol):
    """The receiving side of a stream: what a front tells a handler. Never called concurrently for one stream."""

    @property
    def busy(self) -> bool:
        """Whether the handler has enough to do. The front reads no further message until it is False again.

        It may change with every `Outlet.send`, so that is when a front asks anew.
        """

    def receive(self, message: bytes) -> None:
        """Take one message of the client. A ServiceError raised here ends the call with it."""

    def half_close(self) -> None:
        """Learn that the client sends no more."""

    def resume(self) -> None:
        """Learn that the outlet, which said that it is full, has room again. It may be told without need."""
        return

    def cancel(self) -> None:
        """Learn that the call is over: cancelled, expired, or disconnected."""


@dataclass(frozen=True, slots=True)
class BatchedMethod:
    """A unary method whose calls are answered together with all others that wait."""

    path: str
    codec: Codec


@dataclass(frozen=True, slots=True)
class UnaryMethod:
    """A unary method that is answered at once, on its own. It must not block."""

    path: str
    answer: Callable[[bytes, Context], bytes]


@dataclass(frozen=True, slots=True)
class StreamMethod:
    """A method where the client, the server, or both send any number of messages."""

    path: str
    client_streams: bool
    server_streams: bool
    open: Callable[[Outlet, Submit], Inlet]


Method: TypeAlias = BatchedMethod | UnaryMethod | StreamMethod


def grpc_type(method: Method) -> str:
    """Name the kind of a method as the `grpc_type` label of the ecosystem's metrics does."""
    if not isinstance(method, StreamMethod):
        return "unary"
    return {
        (False, False): "unary",
        (False, True): "server_stream",
        (True, False): "client_stream",
        (True, True): "bidi_stream",
    }[method.client_streams, method.server_streams]
