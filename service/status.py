"""The one table from domain errors to gRPC status codes, and the details that travel with a status."""

from enum import IntEnum
from typing import Final

from google.rpc import error_details_pb2, status_pb2

from service import errors

DETAILS_KEY: Final = "grpc-status-details-bin"
"""Trailing metadata that carries a serialised `google.rpc.Status`."""


class Code(IntEnum):
    """gRPC status codes, as its protocol numbers them."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


CODES: Final[dict[type[errors.ServiceError], Code]] = {
    errors.InvalidRequestError: Code.INVALID_ARGUMENT,
    errors.TooManyFieldsError: Code.INVALID_ARGUMENT,
    errors.TooLargeError: Code.RESOURCE_EXHAUSTED,
    errors.UnknownModelError: Code.NOT_FOUND,
    errors.AlreadyExistsError: Code.ALREADY_EXISTS,
    errors.UnauthenticatedError: Code.UNAUTHENTICATED,
    errors.PermissionDeniedError: Code.PERMISSION_DENIED,
    errors.UnsupportedError: Code.FAILED_PRECONDITION,
    errors.OutsideDomainError: Code.OUT_OF_RANGE,
    errors.NotReadyError: Code.UNAVAILABLE,
    errors.StoreError: Code.UNAVAILABLE,
    errors.OverloadedError: Code.RESOURCE_EXHAUSTED,
    errors.DrainingError: Code.UNAVAILABLE,
    errors.ExpiredError: Code.DEADLINE_EXCEEDED,
    errors.CancelledError: Code.CANCELLED,
    errors.UnimplementedError: Code.UNIMPLEMENTED,
    errors.MalformedError: Code.INTERNAL,
    errors.InternalError: Code.INTERNAL,
}


def code_of(error: errors.ServiceError) -> Code:
    """Return the status code of an error."""
    return CODES[type(error)]


def details_of(error: errors.ServiceError) -> bytes | None:
    """Return a serialised `google.rpc.Status` that names the wrong fields, or None where there are none."""
    if not error.violations:
        return None
    bad_request = error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field=violation.field, description=violation.description)
            for violation in error.violations
        ]
    )
    status = status_pb2.Status(code=code_of(error), message=error.message)
    status.details.add().Pack(bad_request)
    serialised: bytes = status.SerializeToString()
    return serialised
