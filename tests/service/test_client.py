"""Both clients against real servers. What they share in what they say is tested in test_exchange.py."""

import asyncio
import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import ArrayLike

from proto.quicksilver.v1 import converter_pb2 as api
from proto.repository import Repository
from service.client import (
    AsyncConverter,
    Conversion,
    Converter,
    ConverterError,
    DeadlineError,
    InvalidRequestError,
    OutsideDomainError,
    ServerBusyError,
    ServerUnavailableError,
    UnknownModelError,
    UnsupportedError,
)
from service.exchange import CHUNK_ROWS
from service.server import Server
from tests.service.artefacts import DOMAIN, HALF_WIDTH_CELSIUS
from tests.service.conftest import StartServer


class _Both:
    """Either client behind one face, so that each promise is tested of both."""

    def __init__(self, kind: str, address: str, options: dict[str, Any]) -> None:
        self._kind, self._address, self._options = kind, address, options

    def convert(self, fahrenheit: Any, **options: Any) -> Conversion:  # noqa: ANN401 - whatever a test asks for
        conversion: Conversion = self._call(lambda client: client.convert(fahrenheit, **options))
        return conversion

    def models(self) -> api.ListModelsResponse:
        answer: api.ListModelsResponse = self._call(lambda client: client.models())
        return answer

    def model(self, *arguments: Any, **options: Any) -> api.GetModelResponse:  # noqa: ANN401 - as above
        answer: api.GetModelResponse = self._call(lambda client: client.model(*arguments, **options))
        return answer

    def _call(self, call: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - three methods' answers
        if self._kind == "threads":
            with Converter(self._address, **self._options) as converter:
                return call(converter)

        async def run() -> Any:  # noqa: ANN401 - as above
            async with AsyncConverter(self._address, **self._options) as converter:
                return await call(converter)

        return asyncio.run(run())


Connect = Callable[..., _Both]


@pytest.fixture(params=["threads", "asyncio"])
def connect(request: pytest.FixtureRequest) -> Connect:
    """Makes a client of either kind for an address."""
    return lambda address, **options: _Both(request.param, address, options)


@pytest.fixture
def client(connect: Connect, server: Server) -> _Both:
    """A client of `server`."""
    return connect(server.address)


_Answer = Callable[[bytes, grpc.ServicerContext], bytes]


def _roomy(_body: bytes, _context: grpc.ServicerContext) -> bytes:
    limits = api.Limits(max_rows_per_request=1 << 20, max_message_bytes=8 << 20)
    return api.ListModelsResponse(limits=limits).SerializeToString()


@contextlib.contextmanager
def _serving(answer: _Answer, list_models: _Answer = _roomy) -> Iterator[str]:
    """A server of our own making: one that does to Convert what a good server does not."""
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Convert": grpc.unary_unary_rpc_method_handler(answer),
        "ListModels": grpc.unary_unary_rpc_method_handler(list_models),
    }
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("quicksilver.v1.ConverterService", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@pytest.mark.parametrize(
    "fahrenheit",
    [
        98.6,
        [32, 50],
        [[32.0], [212.0]],
        np.arange(24, dtype=">i2").reshape(2, 3, 4),
        np.float64(50),
        np.full((1, 2, 1), 50.0),
    ],
)
def test_the_answer_has_the_shape_of_the_question(client: _Both, fahrenheit: Any) -> None:  # noqa: ANN401 - any array
    """A number, lists, and arrays of any shape and dtype."""
    conversion = client.convert(fahrenheit)
    expected = (np.asarray(fahrenheit, dtype=np.float64) - 32) * 5 / 9
    assert conversion.celsius.dtype == np.float32
    assert conversion.celsius.shape == expected.shape
    np.testing.assert_allclose(conversion.celsius, expected, atol=1e-4)
    assert (conversion.model, conversion.version) == ("linear", 1)
    assert conversion.lower is None


def test_bounds_and_flags_come_in_the_same_shape(client: _Both) -> None:
    """An interval where it was asked for: NaN outside the training range, where the flag stands."""
    conversion = client.convert([[50, 212], [DOMAIN[0] - 1, 60]], interval=True)
    assert conversion.outside is not None
    assert conversion.lower is not None
    assert conversion.upper is not None
    assert conversion.outside.tolist() == [[False, True], [True, False]]
    np.testing.assert_array_equal(np.isnan(conversion.lower), conversion.outside)
    np.testing.assert_array_equal(np.isnan(conversion.upper), conversion.outside)
    assert conversion.coverage == 0.8
    assert conversion.upper[0, 0] - conversion.lower[0, 0] == pytest.approx(2 * HALF_WIDTH_CELSIUS, abs=1e-4)


def test_nobody_looks_where_the_domain_is_ignored(client: _Both) -> None:
    """No flags where the request did not want them, nor where the model's file states no domain."""
    assert client.convert([212], on_extrapolation="ignore").outside is None
    assert client.convert([212], model="plain").outside is None


def test_a_version_answers_by_number_or_by_default(connect: Connect, server: Server) -> None:
    """Of a call or of the client."""
    assert connect(server.address).convert(32, version=2).version == 2
    assert connect(server.address, version=2).convert(32).version == 2
    assert connect(server.address, version=2).convert(32, model="linear").version == 1
    assert connect(server.address, label="stable").convert(32, version=2).version == 2


@pytest.mark.parametrize("limit", [1, 3, 10])
def test_what_exceeds_the_servers_limit_is_split(connect: Connect, start_server: StartServer, limit: int) -> None:
    """Even where the limit is one row."""
    server = start_server(max_rows_per_request=limit)
    fahrenheit = np.linspace(30, 80, 25).reshape(5, 5)
    conversion = connect(server.address).convert(fahrenheit, interval=True)
    np.testing.assert_allclose(conversion.celsius, (fahrenheit - 32) * 5 / 9, atol=1e-4)
    assert conversion.lower is not None
    np.testing.assert_allclose(conversion.celsius - conversion.lower, HALF_WIDTH_CELSIUS, atol=1e-4)


def test_a_message_limit_splits_as_well(connect: Connect, start_server: StartServer) -> None:
    """The least message a server can be set to take holds 128 temperatures."""
    server = start_server(max_message_bytes=1024)
    fahrenheit = np.linspace(30, 80, 1000)
    conversion = connect(server.address, model="linear", label="stable").convert(fahrenheit)
    np.testing.assert_allclose(conversion.celsius, (fahrenheit - 32) * 5 / 9, atol=1e-4)


def test_more_than_one_request_of_full_size(client: _Both) -> None:
    """Rows keep their places, and flags theirs, across requests."""
    fahrenheit = np.full(2 * CHUNK_ROWS + 5, 50.0)
    fahrenheit[[0, CHUNK_ROWS, 2 * CHUNK_ROWS + 4]] = 212
    conversion = client.convert(fahrenheit)
    assert conversion.outside is not None
    assert np.flatnonzero(conversion.outside).tolist() == [0, CHUNK_ROWS, 2 * CHUNK_ROWS + 4]
    assert np.flatnonzero(conversion.celsius > 50).tolist() == [0, CHUNK_ROWS, 2 * CHUNK_ROWS + 4]


@pytest.mark.parametrize(
    ("fahrenheit", "options", "error", "words"),
    [
        ([], {}, InvalidRequestError, "fahrenheit: is empty"),
        (np.zeros((0, 3)), {}, InvalidRequestError, "fahrenheit: is empty"),
        ([1, np.nan], {}, InvalidRequestError, r"fahrenheit\[1\]: nan is not a temperature"),
        ([[1], [-500]], {}, InvalidRequestError, r"fahrenheit\[1, 0\]: -500 is below absolute zero"),
        ([50, 212], {"on_extrapolation": "reject"}, OutsideDomainError, "row 1, 212, lies outside"),
        ([50], {"model": "nope"}, UnknownModelError, "no model 'nope': there are linear, plain"),
        ([50], {"version": 9}, UnknownModelError, "no version 9 of 'linear'"),
        ([50], {"label": "canary"}, UnknownModelError, "no label 'canary'"),
        ([50], {"model": "plain", "interval": True}, UnsupportedError, "does not state"),
    ],
)
def test_each_refusal_is_an_error_of_its_kind(
    client: _Both, fahrenheit: ArrayLike, options: dict[str, Any], error: type[ConverterError], words: str
) -> None:
    """The message is the server's, with the index as the caller counts."""
    with pytest.raises(error, match=words):
        client.convert(fahrenheit, **options)


def test_a_violation_names_its_field(client: _Both) -> None:
    """A program needs no regular expression to find what was wrong."""
    with pytest.raises(InvalidRequestError) as caught:
        client.convert([50, -1000])
    assert caught.value.violations == {"fahrenheit[1]": "-1000 is below absolute zero (-459.67 °F)"}


@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        (np.inf, InvalidRequestError, r"fahrenheit\[2, 3\]: inf"),
        (212, OutsideDomainError, r"row \[2, 3\], 212"),
    ],
)
def test_an_index_in_a_later_request_is_the_callers(
    start_server: StartServer, bad: float, error: type[ConverterError], words: str
) -> None:
    """The server counts from each request's beginning; the caller gave one array."""
    fahrenheit = np.full((4, 5), 50.0)
    fahrenheit[2, 3] = bad
    with Converter(start_server(max_rows_per_request=3).address) as converter, pytest.raises(error, match=words):
        converter.convert(fahrenheit, on_extrapolation="reject")


def test_the_models_can_be_listed_and_described(client: _Both) -> None:
    """What there is, and all that is known of a version."""
    assert [model.name for model in client.models().models] == ["linear", "plain"]
    assert client.model("linear", version=2).version.version == 2
    assert client.model(label="stable").kind == "linear"


def test_nobody_listening_is_said_with_the_address(connect: Connect) -> None:
    """The address, and the system's reason."""
    with pytest.raises(
        ServerUnavailableError, match=r"^UNAVAILABLE: cannot connect to 127\.0\.0\.1:1: Connection refus"
    ):
        connect("127.0.0.1:1").convert(32)


def test_a_deadline_is_kept(connect: Connect) -> None:
    """A server that does not answer is not waited for."""
    over = threading.Event()

    def never(_body: bytes, _context: grpc.ServicerContext) -> bytes:
        over.wait()
        return b""

    with _serving(never) as address:
        try:
            with pytest.raises(DeadlineError, match=address):
                connect(address, timeout_seconds=0.2).convert(32)
        finally:
            over.set()


@pytest.mark.parametrize("timeout_seconds", [0, -1, float("nan")])
def test_a_timeout_that_makes_no_sense_is_refused(connect: Connect, timeout_seconds: float) -> None:
    """Before any call."""
    with pytest.raises(ValueError, match="timeout_seconds"):
        connect("127.0.0.1:1", timeout_seconds=timeout_seconds).convert(32)


def test_no_deadline_can_be_asked_for(connect: Connect, server: Server) -> None:
    """An infinite timeout waits as long as it takes."""
    assert connect(server.address, timeout_seconds=float("inf")).convert(32).celsius == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("rows", [1, CHUNK_ROWS])
def test_what_was_not_begun_is_tried_again(connect: Connect, rows: int) -> None:
    """UNAVAILABLE is retried, also with a request of full size, which gRPC by itself would not keep."""
    refused: list[int] = []

    def second_time(body: bytes, context: grpc.ServicerContext) -> bytes:
        if not refused:
            refused.append(len(body))
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        request = api.ConvertRequest.FromString(body)
        return api.ConvertResponse(model="m", version=1, celsius=request.fahrenheit).SerializeToString()

    with _serving(second_time) as address:
        conversion = connect(address).convert(np.full(rows, 50.0))
    assert refused
    assert conversion.celsius.shape == (rows,)


def test_other_refusals_are_not_tried_again(connect: Connect) -> None:
    """A busy server is not made busier."""
    calls = []

    def busy(body: bytes, context: grpc.ServicerContext) -> bytes:
        calls.append(body)
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much")
        raise AssertionError

    with _serving(busy) as address, pytest.raises(ServerBusyError, match="too much"):
        connect(address).convert(32)
    assert len(calls) == 1


def test_threads_share_a_converter(server: Server) -> None:
    """Every thread gets its own answers."""
    with Converter(server.address) as converter, ThreadPoolExecutor(8) as threads:
        offsets = range(40)
        answers = threads.map(lambda offset: converter.convert(np.arange(30, 60) + offset / 10).celsius, offsets)
        for offset, celsius in zip(offsets, answers, strict=True):
            np.testing.assert_allclose(celsius, (np.arange(30, 60) + offset / 10 - 32) * 5 / 9, atol=1e-4)


async def test_tasks_share_a_converter(server: Server) -> None:
    """Every task gets its own answers."""
    async with AsyncConverter(server.address) as converter:
        answers = await asyncio.gather(*(converter.convert([offset, 50]) for offset in range(100)))
    for offset, answer in enumerate(answers):
        np.testing.assert_allclose(answer.celsius, [(offset - 32) * 5 / 9, 10], atol=1e-4)


async def test_first_calls_that_begin_together_ask_for_the_limits_once() -> None:
    """However many tasks convert at once, and whichever of them is cancelled meanwhile."""
    asked: list[bytes] = []
    begun, go_on = threading.Event(), threading.Event()

    def list_models(body: bytes, _context: grpc.ServicerContext) -> bytes:
        asked.append(body)
        begun.set()
        go_on.wait()
        limits = api.Limits(max_rows_per_request=1 << 20, max_message_bytes=8 << 20)
        return api.ListModelsResponse(limits=limits).SerializeToString()

    def echo(body: bytes, _context: grpc.ServicerContext) -> bytes:
        request = api.ConvertRequest.FromString(body)
        return api.ConvertResponse(model="m", version=1, celsius=request.fahrenheit).SerializeToString()

    with _serving(echo, list_models) as address:
        async with AsyncConverter(address) as converter:
            tasks = [asyncio.create_task(converter.convert([task, 50])) for task in range(50)]
            await asyncio.to_thread(begun.wait)
            tasks[7].cancel()
            go_on.set()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert len(asked) == 1
    assert isinstance(answers.pop(7), asyncio.CancelledError)
    assert [answer.celsius[0] for answer in answers if isinstance(answer, Conversion)] == [*range(7), *range(8, 50)]


async def test_a_cancelled_task_touches_nobody_else() -> None:
    """Its call is cancelled at the server, and the client goes on."""
    begun, cancelled = threading.Event(), threading.Event()

    def slow_or_not(body: bytes, context: grpc.ServicerContext) -> bytes:
        request = api.ConvertRequest.FromString(body)
        if request.fahrenheit[0] == 1:
            context.add_callback(cancelled.set)
            begun.set()
            cancelled.wait()
        return api.ConvertResponse(model="m", version=1, celsius=request.fahrenheit).SerializeToString()

    with _serving(slow_or_not) as address:
        async with AsyncConverter(address) as converter:
            abandoned = asyncio.create_task(converter.convert(1))
            await asyncio.to_thread(begun.wait)
            other = asyncio.create_task(converter.convert(2))
            abandoned.cancel()
            with pytest.raises(asyncio.CancelledError):
                await abandoned
            assert (await other).celsius == 2
            assert await asyncio.to_thread(cancelled.wait)


def test_the_client_works_without_the_runtime_and_the_server() -> None:
    """Who only asks needs no ONNX Runtime, and never imports the Open Inference stubs."""
    program = (
        "import sys, service.client, service.cli\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "assert not loaded & {'onnxruntime', 'torch', 'onnx', 'training'}, loaded\n"
        "assert not [name for name in sys.modules if name.startswith('proto.inference')]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_label_that_moves_reaches_the_next_conversion(server: Server, repository: Repository) -> None:
    """The client pins a version for one conversion, and forgets it after."""
    with Converter(server.address) as converter:
        assert converter.convert([32, 50]).version == 1
        repository.set_label("linear", "stable", 2)
        server.models.load()
        assert converter.convert([32, 50]).version == 2
