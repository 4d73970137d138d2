"""Calls that fail leave nothing to the garbage collector: their bytes are gone when they are no longer counted."""

import contextlib
import gc
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from proto.inference.v2 import open_inference_pb2 as inference
from proto.quicksilver.v1 import converter_pb2 as api
from proto.repository import Repository
from service.calls import Request
from service.codec import ConvertCodec
from service.config import Settings
from service.dataplane import Dataplane
from service.engine import EngineOptions
from service.errors import MalformedError, OverloadedError, ServiceError, Shed, without_frames
from service.grpcio_stream import GrpcioStream
from service.http2.streams import Stream
from service.models import Models, VersionPolicy
from service.ordered_stream import OrderedStream
from service.server import Server
from service.status import Code
from tests.service.artefacts import make_artefact
from tests.service.http2.raw import RawClient, framed, request
from tests.service.http2.serving import Tally

CALLS = 5
KEPT = (Request, ServiceError, OrderedStream, Stream, GrpcioStream)
CONVERTER = "/quicksilver.v1.ConverterService"
INFERENCE = "/inference.GRPCInferenceService"

FAILING: dict[str, api.ConvertRequest] = {
    "unknown model": api.ConvertRequest(model="nosuch", fahrenheit=[50.0]),
    "no rows": api.ConvertRequest(),
    "impossible": api.ConvertRequest(fahrenheit=[-1e6]),
    "outside": api.ConvertRequest(fahrenheit=[1e4], on_extrapolation=api.ON_EXTRAPOLATION_REJECT),
}
_INFER = inference.ModelInferRequest(model_name="nosuch", id="a")
_NO_INPUTS = inference.ModelInferRequest(model_name="linear", id="a")
_BROKEN = b"\xff\xff"
CASES: list[tuple[str, str, bytes]] = [
    *((f"Convert, {name}", f"{CONVERTER}/Convert", each.SerializeToString()) for name, each in FAILING.items()),
    *(
        (
            f"ConvertStream, {name}",
            f"{CONVERTER}/ConvertStream",
            api.ConvertStreamRequest(id="a", request=each).SerializeToString(),
        )
        for name, each in FAILING.items()
    ),
    ("Convert, malformed", f"{CONVERTER}/Convert", _BROKEN),
    ("ConvertStream, malformed", f"{CONVERTER}/ConvertStream", _BROKEN),
    ("GetModel, unknown model", f"{CONVERTER}/GetModel", api.GetModelRequest(model="nosuch").SerializeToString()),
    ("ModelInfer, unknown model", f"{INFERENCE}/ModelInfer", _INFER.SerializeToString()),
    ("ModelInfer, no inputs", f"{INFERENCE}/ModelInfer", _NO_INPUTS.SerializeToString()),
    ("ModelStreamInfer, unknown model", f"{INFERENCE}/ModelStreamInfer", _INFER.SerializeToString()),
    ("ModelStreamInfer, no inputs", f"{INFERENCE}/ModelStreamInfer", _NO_INPUTS.SerializeToString()),
    ("no such method", "/nobody/Knows", b""),
]


@contextlib.contextmanager
def collector_off() -> Iterator[None]:
    """Let nothing be collected but what nobody refers to; what was there before is not looked at."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def kept() -> list[str]:
    """The kinds of what is left of calls."""
    return [type(each).__name__ for each in gc.get_objects() if issubclass(type(each), KEPT)]


def assert_nothing_kept() -> None:
    """Wait for the last call, which is just ending, and see that nothing is left of any."""
    limit = time.monotonic() + 20
    while (left := kept()) and time.monotonic() < limit:
        time.sleep(0.01)
    assert left == []


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with one model."""
    made = Repository(tmp_path_factory.mktemp("models"))
    made.publish("linear", make_artefact())
    return made.root


@pytest.fixture(scope="module", params=["http2", "grpcio"])
def address(repository: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A server with either front."""
    chosen: dict[str, Any] = {"transport": request.param, "listen": "127.0.0.1:0", "http_listen": "127.0.0.1:0"}
    server = Server(Settings(repository=repository, default_model="linear", **chosen))
    server.start()
    try:
        yield server.address
    finally:
        server.stop()


def fails(channel: grpc.Channel, path: str, body: bytes) -> bool:
    """Whether a call fails, or what it sends is answered by an error alone."""
    call: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(path)
    try:
        found = list(call(iter([body]), timeout=60))
    except grpc.RpcError as error:
        return error.code() not in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
    if path.endswith("ConvertStream"):
        return api.ConvertStreamResponse.FromString(found[0]).WhichOneof("outcome") == "error"
    return bool(inference.ModelStreamInferResponse.FromString(found[0]).error_message)


@pytest.mark.parametrize(("name", "path", "body"), CASES, ids=[case[0] for case in CASES])
def test_failed_calls(address: str, name: str, path: str, body: bytes) -> None:
    """Of calls that failed nothing is left once they are over, over a real socket, on either front."""
    del name
    with grpc.insecure_channel(address) as channel:
        assert fails(channel, path, body)
        with collector_off():
            for _ in range(CALLS):
                assert fails(channel, path, body)
            assert_nothing_kept()


@pytest.mark.parametrize("address", ["http2"], indirect=True)  # grpcio inflates by itself
@pytest.mark.parametrize("method", ["Convert", "ConvertStream", "GetModel"])
@pytest.mark.parametrize("size", [100, 1 << 20])
def test_messages_that_cannot_be_inflated(address: str, method: str, size: int) -> None:
    """What says that it is compressed and is not leaves nothing either; a large one fails on a worker's thread."""
    fields = request(f"{CONVERTER}/{method}", ("grpc-encoding", "gzip"))
    with RawClient(address) as client:
        client.open_windows()
        with collector_off():
            for _ in range(CALLS):
                answer = client.unary(framed(bytes(size), 1), fields)
                assert answer.status in {Code.INTERNAL, Code.INVALID_ARGUMENT, Code.RESOURCE_EXHAUSTED}
            assert_nothing_kept()


@pytest.mark.parametrize("body", [each.SerializeToString() for each in FAILING.values()], ids=list(FAILING))
@pytest.mark.parametrize("dead", ["no", "cancelled", "expired"])
def test_outcomes(repository: Path, body: bytes, dead: str) -> None:
    """The error of a request does not lead back to it, whether it failed by its own or nobody waits for it."""
    models = Models(Repository(repository), EngineOptions(device="cpu"), policy=VersionPolicy(), default_model="linear")
    models.load()
    dataplane = Dataplane(models, Tally())
    body = bytes(bytearray(body or b"\x0a\x00"))  # of its own: others refer to the empty one
    before = sys.getrefcount(body)
    with collector_off():
        request = Request(ConvertCodec(), body, lambda _: None, time.monotonic())
        if dead == "expired":
            request.deadline_seconds = 0.0
        request.cancelled = dead == "cancelled"
        dataplane.answer([request])
        assert isinstance(request.outcome, ServiceError)
        del request
        assert sys.getrefcount(body) == before


def test_refused_by_the_runner() -> None:
    """A stream's request that is not accepted leaves nothing either."""

    class Refused(ConvertCodec):
        def encode_error(self, error: ServiceError) -> list[bytes]:
            return [error.message.encode()]

    class Sent:
        context = type("Context", (), {"deadline_seconds": 1.0, "metadata": (), "trace": None})()

        def send(self, message: object) -> None:
            del message

    def submit(request: Request) -> None:
        refusal = OverloadedError(f"{len(request.body)} bytes too many", Shed.BYTES)
        raise refusal

    body = bytes(1000)
    before = sys.getrefcount(body)
    with collector_off():
        OrderedStream(Sent(), submit, lambda _: Refused()).receive(body)  # type: ignore[arg-type]
        assert sys.getrefcount(body) == before


def test_without_frames() -> None:
    """Neither the error's own frames nor those of what led to it are kept; what callers are told is."""
    try:
        try:
            int("x")
        except ValueError as fault:
            raise MalformedError("no number") from fault
    except MalformedError as raised:
        error = raised
    bare = without_frames(error)
    assert bare is error
    assert [bare.__traceback__, bare.__cause__, bare.__context__] == [None] * 3
    assert error.message == "no number"
