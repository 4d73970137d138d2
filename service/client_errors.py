"""What can go wrong with a call, as a client of the product's own API sees it.

ConverterError
├── InvalidRequestError      INVALID_ARGUMENT: the request breaks a rule
├── UnknownModelError        NOT_FOUND: no such model, version or label
├── UnsupportedError         FAILED_PRECONDITION: the model cannot do what was asked
├── OutsideDomainError       OUT_OF_RANGE: a row lies outside the training domain, and the request said to reject it
├── ServerBusyError          RESOURCE_EXHAUSTED: the server has reached a limit
├── DeadlineError            DEADLINE_EXCEEDED: no answer came in time
└── ServerUnavailableError   UNAVAILABLE: the server cannot be reached, drains, or its model is not ready
"""

from typing import Any, Final

from google.rpc import error_details_pb2, status_pb2

from service.status import DETAILS_KEY, Code

_CANNOT_CONNECT: Final = "failed to connect to all addresses"
"""How gRPC begins what it says of an address where nobody answers; the reason ends the text, after its last colon."""


class ConverterError(Exception):
    """There is no answer. `code` is the gRPC status, `violations` the fields that were wrong, by name, and why."""

    def __init__(self, code: Code, message: str, violations: dict[str, str] | None = None) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message
        self.violations = violations or {}


class InvalidRequestError(ConverterError):
    """The request breaks a rule: INVALID_ARGUMENT."""


class UnknownModelError(ConverterError):
    """There is no such model, version or label: NOT_FOUND."""


class UnsupportedError(ConverterError):
    """The model cannot do what was asked: FAILED_PRECONDITION."""


class OutsideDomainError(ConverterError):
    """A row lies outside the training domain, and the request said to reject it: OUT_OF_RANGE."""


class ServerBusyError(ConverterError):
    """The server has reached a limit: RESOURCE_EXHAUSTED."""


class DeadlineError(ConverterError):
    """No answer came in time: DEADLINE_EXCEEDED."""


class ServerUnavailableError(ConverterError):
    """The server cannot be reached, drains, or its model is not ready: UNAVAILABLE, after several tries."""


ERRORS: Final[dict[Code, type[ConverterError]]] = {
    Code.INVALID_ARGUMENT: InvalidRequestError,
    Code.NOT_FOUND: UnknownModelError,
    Code.FAILED_PRECONDITION: UnsupportedError,
    Code.OUT_OF_RANGE: OutsideDomainError,
    Code.RESOURCE_EXHAUSTED: ServerBusyError,
    Code.DEADLINE_EXCEEDED: DeadlineError,
    Code.UNAVAILABLE: ServerUnavailableError,
}


def error_from(error: Any, address: str = "the server") -> ConverterError:  # noqa: ANN401 - a grpc.RpcError that is also a grpc.Call, sync or asyncio
    """Make the typed error of a failed call to `address`, with the fields that `google.rpc.BadRequest` names."""
    code = Code(error.code().value[0])
    violations = {}
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY:
            violations = _violations(value)
    return ERRORS.get(code, ConverterError)(code, _message(code, error.details() or "", address), violations)


def _message(code: Code, details: str, address: str) -> str:
    """Say which server it was where the server itself could not."""
    if details.startswith(_CANNOT_CONNECT):
        return f"cannot connect to {address}: {details.rpartition(': ')[2]}"
    if code in {Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.UNKNOWN}:
        return f"{address}: {details}"
    return details


def _violations(serialised: bytes) -> dict[str, str]:
    bad_request = error_details_pb2.BadRequest()
    violations: dict[str, str] = {}
    for detail in status_pb2.Status.FromString(serialised).details:
        if detail.Unpack(bad_request):
            violations |= {violation.field: violation.description for violation in bad_request.field_violations}
    return violations
