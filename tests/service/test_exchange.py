"""What a client says, call by call, with no server and no clock."""

from collections.abc import Callable

import numpy as np
import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from proto.quicksilver.v1 import converter_pb2 as api
from proto.quicksilver.v1.converter_pb2 import DESCRIPTOR
from service.client_errors import ConverterError, InvalidRequestError
from service.conversion import Choice, Conversion, Options
from service.exchange import CHUNK_ROWS, PARSERS, Call, Exchange, Exchanges, chunk_rows
from service.status import Code

ROOMY = api.Limits(max_rows_per_request=1 << 20, max_message_bytes=8 << 20)


class _Server:
    """Answers calls by the exact law, a few rows at a time; keeps the requests; its stable version moves at each."""

    def __init__(self, limits: api.Limits = ROOMY) -> None:
        self._limits = limits
        self.requests: list[api.ConvertRequest] = []
        self.asked_for_limits = 0

    def __call__(self, call: Call) -> Message:
        if call.path.endswith("ListModels"):
            self.asked_for_limits += 1
            return api.ListModelsResponse(limits=self._limits)
        request = api.ConvertRequest.FromString(call.request)
        self.requests.append(request)
        assert len(request.fahrenheit) <= self._limits.max_rows_per_request
        assert len(call.request) <= self._limits.max_message_bytes
        return api.ConvertResponse(
            model=request.model or "default",
            version=request.version or len(self.requests),
            celsius=[(fahrenheit - 32) / 1.8 for fahrenheit in request.fahrenheit],
            domain_status=api.DOMAIN_STATUS_INSIDE,
        )


def _drive(exchange: Exchange[Conversion], answer: Callable[[Call], Message]) -> Conversion:
    try:
        call = next(exchange)
        while True:
            try:
                reply = answer(call)
            except ConverterError as error:
                call = exchange.throw(error)
            else:
                call = exchange.send(reply)
    except StopIteration as done:
        conversion: Conversion = done.value
        return conversion


def _exchanges() -> Exchanges:
    return Exchanges(Choice())


@given(rows=st.integers(1, 300), limit=st.integers(1, 100), max_bytes=st.integers(1024, 2048))
def test_rows_are_cut_to_the_servers_limits_and_come_back_in_order(rows: int, limit: int, max_bytes: int) -> None:
    """No request breaks a limit, none is empty, and every row is asked for once and answered in its place."""
    server = _Server(api.Limits(max_rows_per_request=limit, max_message_bytes=max_bytes))
    fahrenheit = np.arange(rows, dtype=np.float32)
    conversion = _drive(_exchanges().convert(fahrenheit, Choice(), Options()), server)
    np.testing.assert_allclose(conversion.celsius, (fahrenheit - 32) / 1.8, rtol=1e-6, atol=1e-6)
    assert [value for request in server.requests for value in request.fahrenheit] == fahrenheit.tolist()


def test_all_rows_come_from_the_version_that_answered_first() -> None:
    """A label that moves between two requests of one conversion does not mix versions."""
    server = _Server(api.Limits(max_rows_per_request=2, max_message_bytes=1024))
    conversion = _drive(_exchanges().convert(range(5), Choice(label="canary"), Options()), server)
    assert server.requests[0].WhichOneof("choice") == "label"
    assert [(request.model, request.version) for request in server.requests[1:]] == [("default", 1)] * 2
    assert (conversion.model, conversion.version) == ("default", 1)


def test_limits_are_asked_for_once_and_not_for_a_single_row() -> None:
    """One conversion of one value is one call; the limits are learned by the first that has more."""
    exchanges, server = _exchanges(), _Server()
    _drive(exchanges.convert(32, Choice(), Options()), server)
    assert server.asked_for_limits == 0
    for _ in range(3):
        _drive(exchanges.convert([32, 50], Choice(), Options()), server)
    assert server.asked_for_limits == 1


def test_no_rows_are_left_to_the_server_to_refuse() -> None:
    """An empty array makes one empty request, so that the answer is the server's own."""
    server = _Server()
    _drive(_exchanges().convert([], Choice(), Options()), server)
    assert [len(request.fahrenheit) for request in server.requests] == [0]


def test_an_error_of_a_later_request_names_the_callers_index() -> None:
    """A bad value in the third request is not said to stand in the first."""

    def server(call: Call) -> Message:
        if call.path.endswith("ListModels"):
            return api.ListModelsResponse(limits=api.Limits(max_rows_per_request=2, max_message_bytes=1024))
        request = api.ConvertRequest.FromString(call.request)
        if 5.0 in request.fahrenheit:
            field = f"fahrenheit[{list(request.fahrenheit).index(5.0)}]"
            raise InvalidRequestError(Code.INVALID_ARGUMENT, f"{field}: no", {field: "no"})
        return api.ConvertResponse(model="m", version=1, celsius=request.fahrenheit)

    with pytest.raises(InvalidRequestError) as caught:
        _drive(_exchanges().convert(np.arange(8).reshape(2, 4), Choice(), Options()), server)
    assert caught.value.violations == {"fahrenheit[1, 1]": "no"}


def test_a_chunk_never_exceeds_what_is_good_for_both_sides() -> None:
    """A server that takes everything gets requests of a moderate size."""
    assert chunk_rows(api.Limits(max_rows_per_request=1 << 28, max_message_bytes=1 << 30)) == CHUNK_ROWS
    assert chunk_rows(api.Limits()) == 1


def test_every_path_is_a_method_of_the_service() -> None:
    """The client calls methods that the contract has, and reads the answers it promises."""
    service = DESCRIPTOR.services_by_name["ConverterService"]
    for path, parse in PARSERS.items():
        _, service_name, method = path.split("/")
        assert service_name == service.full_name
        assert parse(b"").DESCRIPTOR is service.methods_by_name[method].output_type
