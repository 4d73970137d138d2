"""What a client says, call by call, with no server and no clock."""

from collections.abc import Callable
from concurrent.futures import Future

import numpy as np
import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from proto.quicksilver.v1 import converter_pb2 as api
from proto.quicksilver.v1.converter_pb2 import DESCRIPTOR
from service.client_errors import ConverterError, InvalidRequestError, ServerBusyError
from service.conversion import Choice, Conversion, Options
from service.exchange import CHUNK_ROWS, PARSERS, Asked, Call, Exchange, Exchanges, chunk_rows
from service.status import Code

ROOMY = api.Limits(max_rows_per_request=1 << 20, max_message_bytes=8 << 20)


class _Server:
    """Answers calls by the exact law, a few rows at a time; keeps the requests; its stable version moves at each."""

    def __init__(self, limits: api.Limits = ROOMY) -> None:
        self.limits = limits
        self.requests: list[api.ConvertRequest] = []
        self.asked_for_limits = 0

    def __call__(self, call: Call) -> Message:
        if call.path.endswith("ListModels"):
            self.asked_for_limits += 1
            return api.ListModelsResponse(limits=self.limits)
        request = api.ConvertRequest.FromString(call.request)
        self.requests.append(request)
        assert len(request.fahrenheit) <= self.limits.max_rows_per_request
        assert len(call.request) <= self.limits.max_message_bytes
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
            assert isinstance(call, Call)
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


def _requests(exchange: Exchange[Conversion], server: _Server) -> Conversion:
    """Drive an exchange against a server that refuses what breaks its limits, as a real one does."""

    def answer(call: Call) -> Message:
        if call.path.endswith("/Convert"):
            rows = len(api.ConvertRequest.FromString(call.request).fahrenheit)
            if rows > server.limits.max_rows_per_request:
                raise InvalidRequestError(Code.INVALID_ARGUMENT, "too many rows", {"fahrenheit": "too many rows"})
            if len(call.request) > server.limits.max_message_bytes:
                raise ServerBusyError(Code.RESOURCE_EXHAUSTED, "the message is too large")
        return server(call)

    return _drive(exchange, answer)


@pytest.mark.parametrize(("rows", "max_bytes"), [(3, 8 << 20), (1 << 20, 1024)])
def test_a_server_that_came_back_with_smaller_limits_is_asked_for_them_again(rows: int, max_bytes: int) -> None:
    """The conversion goes on in smaller requests, and so does the next, without asking a third time."""
    exchanges, server = _exchanges(), _Server()
    _requests(exchanges.convert(range(1000), Choice(), Options()), server)
    server.limits = api.Limits(max_rows_per_request=rows, max_message_bytes=max_bytes)
    for _ in range(2):
        conversion = _requests(exchanges.convert(range(1000), Choice(), Options()), server)
        np.testing.assert_allclose(conversion.celsius, (np.arange(1000) - 32) / 1.8, rtol=1e-5, atol=1e-5)
    assert server.asked_for_limits == 2


def test_a_refusal_that_is_not_about_limits_is_asked_about_once() -> None:
    """Where the limits are what they were, the server's reason stands, and the request is not made again."""
    exchanges, server, refused = _exchanges(), _Server(), []

    def busy(call: Call) -> Message:
        if call.path.endswith("/Convert"):
            refused.append(call)
            raise ServerBusyError(Code.RESOURCE_EXHAUSTED, "too many calls")
        return server(call)

    with pytest.raises(ServerBusyError, match="too many calls"):
        _drive(exchanges.convert([32, 50], Choice(), Options()), busy)
    assert (len(refused), server.asked_for_limits) == (1, 2)


def _start(exchanges: Exchanges) -> tuple[Exchange[Conversion], Call | Asked]:
    exchange = exchanges.convert([32, 50], Choice(), Options())
    return exchange, next(exchange)


def test_exchanges_that_begin_together_ask_for_the_limits_once() -> None:
    """The first asks; the others wait for what it learns."""
    exchanges, server = _exchanges(), _Server()
    (first, question), *others = [_start(exchanges) for _ in range(5)]
    assert isinstance(question, Call)
    assert all(isinstance(waits_for, Future) for _, waits_for in others)
    first.send(server(question))
    for exchange, waits_for in others:
        assert isinstance(waits_for, Future)
        assert isinstance(exchange.send(waits_for.result(timeout=0)), Call)
    assert server.asked_for_limits == 1


def test_a_question_that_fails_fails_for_all_who_wait_and_the_next_asks_anew() -> None:
    """Nobody waits one deadline after the other, and a failure is not remembered."""
    exchanges = _exchanges()
    (first, _), (_, waits_for) = _start(exchanges), _start(exchanges)
    with pytest.raises(ServerBusyError):
        first.throw(ServerBusyError(Code.RESOURCE_EXHAUSTED, "no"))
    assert isinstance(waits_for, Future)
    assert isinstance(waits_for.exception(timeout=0), ServerBusyError)
    assert isinstance(_start(exchanges)[1], Call)


def test_a_question_given_up_is_asked_by_one_of_those_who_wait() -> None:
    """A cancelled task touches nobody else."""
    exchanges = _exchanges()
    (first, _), (second, waits_for), (third, _) = (_start(exchanges) for _ in range(3))
    first.close()
    assert isinstance(waits_for, Future)
    found = waits_for.result(timeout=0)
    assert isinstance(second.send(found), Call)
    assert isinstance(third.send(found), Future)


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
