"""What can go wrong with a call, in the words of the domain. No transport is known here; `status.py` maps to codes.

ServiceError
├── InvalidRequestError      the request makes no sense, or breaks a rule
├── TooManyFieldsError       a message has more fields than this server makes objects of
├── TooLargeError            a message, or a header list, is larger than this server takes
├── UnknownModelError        no such model, version or label
├── AlreadyExistsError       what was sent exists already, and never changes
├── UnauthenticatedError     an admin method was called without its token
├── PermissionDeniedError    an admin method was called with a wrong token, or where it is closed
├── UnsupportedError         the model cannot do what the request asks of it
├── OutsideDomainError       a row lies outside the training domain, and the request said to reject
├── NotReadyError            the model is known but cannot answer now
├── StoreError               the store of observations cannot be reached
├── OverloadedError          too much work waits already
├── DrainingError            the server is stopping
├── ExpiredError             the deadline passed before the answer
├── CancelledError           the caller went away
├── UnimplementedError       no such method, or an encoding nobody here speaks
├── MalformedError           what came is not a message of the method's type
└── InternalError            a fault of the server; the message holds the id under which the log tells more
"""

import uuid
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """Which field of a request broke which rule, for `google.rpc.BadRequest`."""

    field: str
    description: str


class Shed(Enum):
    """Why work is refused, or given up, that another time or another server would do. The values label a metric."""

    CALLS = "calls"
    """As many calls are open, or wait, as may."""
    BYTES = "bytes"
    """As many bytes are in hand as may be."""
    STREAMS = "streams"
    """As many streams are open as there are threads for them; of grpcio's front."""
    LONG_CALLS = "long_calls"
    """As many calls that take long are at work as may be."""
    OBSERVATIONS = "observations"
    """As many observations were reported lately, or wait to be stored, as may be."""
    SLOW_READER = "slow_reader"
    """The caller takes its answers too slowly."""
    STALLED = "stalled"
    """Too much was in hand for too long, and what the caller's connection had of it did not move."""
    CONNECTION_AGE = "connection_age"
    """The connection was old or idle, and its last calls did not end in time."""
    DRAINING = "draining"
    """The server is stopping."""


class ServiceError(Exception):
    """Why a call is not answered. The message is meant for the caller, and names what was wrong."""

    shed: Shed | None = None
    """Why it was refused for load, where that is so."""

    def __init__(self, message: str, violations: tuple[FieldViolation, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.violations = violations


Error = TypeVar("Error", bound=ServiceError)


def without_frames(error: Error) -> Error:
    """Return the error without its traceback and without the errors that led to it.

    For one that is kept where its frames lead back to: a request whose outcome it becomes would hold itself, and its
    body, until the garbage collector comes by.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error


class InvalidRequestError(ServiceError):
    """The request makes no sense or breaks a rule; the violation names the field."""

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}", (FieldViolation(field, description),))


class TooManyFieldsError(ServiceError):
    """A message has more fields than this server makes objects of; it was not read, so that its id is not known."""


class TooLargeError(ServiceError):
    """A message is larger than `max_message_bytes`, as sent or once inflated; or a header list is larger than taken."""


class UnknownModelError(ServiceError):
    """There is no such model, version or label; the message names those that exist."""


class AlreadyExistsError(ServiceError):
    """What was sent is there already with other content: a version of a model, or an observation under its id."""


class UnauthenticatedError(ServiceError):
    """An admin method was called without the token that this server wants for it."""


class PermissionDeniedError(ServiceError):
    """An admin method was called with a wrong token, or on a server where nobody may call it."""


class UnsupportedError(ServiceError):
    """The model is there but cannot do this: its file does not state what the request needs."""


class OutsideDomainError(ServiceError):
    """A row lies outside the training domain of the model, and the request said to reject it."""


class NotReadyError(ServiceError):
    """The model is known but has no version that can answer now; the message says why."""


class StoreError(ServiceError):
    """The store of observations cannot be reached, or failed; none of what was reported is known to be stored."""


class OverloadedError(ServiceError):
    """A limit on waiting work is reached. The call was not accepted, and may be sent again later."""

    shed: Shed

    def __init__(self, message: str, shed: Shed) -> None:
        super().__init__(message)
        self.shed = shed


class DrainingError(ServiceError):
    """The server is stopping. The call was not accepted, and may be sent to another server."""

    shed: Shed

    def __init__(self, message: str, shed: Shed = Shed.DRAINING) -> None:
        super().__init__(message)
        self.shed = shed


class ExpiredError(ServiceError):
    """The deadline passed before the call was run; its rows were not run."""


class CancelledError(ServiceError):
    """The caller cancelled or disconnected; nobody waits for the answer."""


class UnimplementedError(ServiceError):
    """The method does not exist, or the message is encoded in a way that nobody here speaks."""


class MalformedError(ServiceError):
    """The bytes are not a message of the type that the method takes."""


class InternalError(ServiceError):
    """A fault in the server. The caller gets an id; what happened stands in the log under it."""

    def __init__(self) -> None:
        self.id = uuid.uuid4().hex
        super().__init__(f"internal error {self.id}: the server's log tells more under this id")
