"""Errors and their status codes."""

from google.rpc import error_details_pb2, status_pb2

from service import errors
from service.status import CODES, Code, code_of, details_of


def _all_errors(base: type[errors.ServiceError] = errors.ServiceError) -> set[type[errors.ServiceError]]:
    return set(base.__subclasses__()).union(*(_all_errors(child) for child in base.__subclasses__()))


def test_every_error_has_a_code() -> None:
    """No domain error can reach a front without a status code, and no code stands for an error that is gone."""
    assert set(CODES) == _all_errors()


def test_the_tree_at_the_top_of_the_module_is_complete() -> None:
    """Every error is drawn in the tree that a reader sees first."""
    assert all(error.__name__ in (errors.__doc__ or "") for error in _all_errors())


def test_violations_travel_as_bad_request() -> None:
    """A client that knows google.rpc learns which field was wrong, and the same code and message as in the status."""
    error = errors.InvalidRequestError("fahrenheit[3]", "nan is not a temperature")
    status = status_pb2.Status.FromString(details_of(error) or b"")
    bad_request = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(bad_request)
    assert (status.code, status.message) == (Code.INVALID_ARGUMENT, "fahrenheit[3]: nan is not a temperature")
    assert [(v.field, v.description) for v in bad_request.field_violations] == [
        ("fahrenheit[3]", "nan is not a temperature")
    ]


def test_an_error_without_violations_has_no_details() -> None:
    """Nothing is sent that says nothing."""
    assert details_of(errors.DrainingError("the server is stopping")) is None


def test_an_internal_error_tells_its_id_and_nothing_else() -> None:
    """Two faults can be told apart in the log; the caller learns no more."""
    first, second = errors.InternalError(), errors.InternalError()
    assert first.id != second.id
    assert first.id in first.message
    assert code_of(first) is Code.INTERNAL
