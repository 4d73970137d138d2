"""A call of grpcio's in the words of `service.calls`, and who is told of it."""

import math
from time import monotonic
from typing import Protocol

import grpc

from service.calls import Context
from service.errors import CancelledError, ExpiredError, ServiceError, Shed
from service.status import Code


class CallObserver(Protocol):
    """Is told of every call when it begins and when it ends."""

    def started(self, path: str) -> None:
        """Learn that a call of a method began."""

    def handled(self, path: str, code: Code, seconds: float) -> None:
        """Learn that a call ended."""

    def shed(self, reason: Shed) -> None:
        """Learn that a call was refused for load. The runner tells of those that it refuses itself."""


def context_of(context: grpc.ServicerContext) -> Context:
    """The call's metadata and deadline."""
    return Context(metadata_of(context), _deadline(context))


def metadata_of(context: grpc.ServicerContext) -> list[tuple[str, str | bytes]]:
    """The metadata that the caller sent."""
    return [(str(key), value) for key, value in context.invocation_metadata()]


def _deadline(context: grpc.ServicerContext) -> float:
    remaining = context.time_remaining()
    return math.inf if remaining is None else monotonic() + remaining


def ended(deadline_seconds: float) -> ServiceError:
    """Say why a call is over that nobody here ended."""
    if monotonic() >= deadline_seconds:
        return ExpiredError("the deadline passed before the answer")
    return CancelledError("the call was cancelled")
