"""Every status has its error."""

import grpc
import pytest

from service import client_errors
from service.client_errors import ERRORS, ConverterError, error_from
from service.status import CODES, Code

CAUGHT_AS_THE_BASE = {Code.CANCELLED, Code.UNIMPLEMENTED, Code.INTERNAL}
OF_ADMIN_METHODS = {Code.ALREADY_EXISTS, Code.UNAUTHENTICATED, Code.PERMISSION_DENIED}
"""Said by methods that this client does not call."""


class _Failure:
    """What grpcio raises, as far as it is read."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        self._code = code
        self._details = details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> None:
        return None


def test_every_code_of_the_server_has_its_error() -> None:
    """What the server can say about a conversion is a type of its own, but for faults of either side."""
    assert {*CODES.values()} - CAUGHT_AS_THE_BASE - OF_ADMIN_METHODS == {*ERRORS}
    assert len({*ERRORS.values()}) == len(ERRORS)


def test_the_tree_is_drawn_whole() -> None:
    """The module's docstring names every error, and says its code."""
    for code, error in ERRORS.items():
        assert f"{error.__name__} " in (client_errors.__doc__ or "")
        assert f"{code.name}:" in (client_errors.__doc__ or "")
        assert code.name in (error.__doc__ or "")


@pytest.mark.parametrize("status", list(grpc.StatusCode))
def test_any_status_of_grpc_is_understood(status: grpc.StatusCode) -> None:
    """No code is unknown to the client; those without a type of their own are plain ConverterErrors."""
    error = error_from(_Failure(status, "why"), "host:1")
    assert isinstance(error, ConverterError)
    assert error.code.name == status.name
    assert "why" in str(error)


def test_who_cannot_be_reached_is_named() -> None:
    """The address stands in the message, and the system's reason, and nothing of gRPC's inner life."""
    details = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: connect: Connection refused"
    error = error_from(_Failure(grpc.StatusCode.UNAVAILABLE, details), "127.0.0.1:1")
    assert str(error) == "UNAVAILABLE: cannot connect to 127.0.0.1:1: Connection refused"
