"""The product's API over a real channel: each row of the error table, and what an answer tells."""

import math
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any
from urllib.request import urlopen

import grpc
import pytest

from proto.quicksilver.v1 import converter_pb2 as api
from proto.quicksilver.v1.converter_pb2_grpc import ConverterServiceStub
from proto.repository import Repository
from proto.traffic import CanaryTraffic
from service.client import error_from
from service.server import Server
from service.status import Code
from tests.service.artefacts import DOMAIN, HALF_WIDTH_CELSIUS, exact_celsius
from tests.service.conftest import StartServer
from tests.waiting import until

TIMEOUT_SECONDS = 30


@pytest.fixture
def stub(channel: grpc.Channel) -> ConverterServiceStub:
    """The generated client."""
    return ConverterServiceStub(channel)


def _failure(call: Callable[[], object]) -> Any:  # noqa: ANN401 - a ConverterError, read by its attributes
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return error_from(caught.value)


def _convert(stub: ConverterServiceStub, *fahrenheit: float, **fields: Any) -> api.ConvertResponse:  # noqa: ANN401 - any field
    return stub.Convert(api.ConvertRequest(fahrenheit=fahrenheit, **fields), timeout=TIMEOUT_SECONDS)


def test_an_answer_names_who_made_it(stub: ConverterServiceStub) -> None:
    """Values, model, version and the state of the domain come back, in request order."""
    answer = _convert(stub, 32, 50, 68)
    assert list(answer.celsius) == pytest.approx([0, 10, 20], abs=1e-4)
    assert (answer.model, answer.version, answer.domain_status) == ("linear", 1, api.DOMAIN_STATUS_INSIDE)
    assert _convert(stub, 32, version=2).celsius == pytest.approx([5], abs=1e-4)


def test_extrapolation_is_flagged_by_default(stub: ConverterServiceStub) -> None:
    """Rows outside the training range are answered and listed."""
    answer = _convert(stub, 212, 50, -40)
    assert answer.domain_status == api.DOMAIN_STATUS_OUTSIDE
    assert list(answer.extrapolated_rows) == [0, 2]
    assert list(answer.celsius) == pytest.approx([100, 10, -40], abs=1e-4)


def test_an_interval_surrounds_the_answer_inside_the_domain_alone(stub: ConverterServiceStub) -> None:
    """Bounds with their coverage inside, NaN outside."""
    answer = _convert(stub, 50, 212, interval=True)
    assert answer.interval.coverage == 0.8
    assert answer.interval.celsius_lower[0] == pytest.approx(10 - HALF_WIDTH_CELSIUS, abs=1e-4)
    assert answer.interval.celsius_upper[0] == pytest.approx(10 + HALF_WIDTH_CELSIUS, abs=1e-4)
    assert math.isnan(answer.interval.celsius_lower[1])
    assert math.isnan(answer.interval.celsius_upper[1])


@pytest.mark.parametrize(
    ("fields", "code", "text"),
    [
        ({"fahrenheit": []}, Code.INVALID_ARGUMENT, "fahrenheit: is empty"),
        ({"fahrenheit": [1, math.nan]}, Code.INVALID_ARGUMENT, r"fahrenheit\[1\]: nan is not a temperature"),
        ({"fahrenheit": [math.inf]}, Code.INVALID_ARGUMENT, r"fahrenheit\[0\]: inf is not a temperature"),
        ({"fahrenheit": [1, 2, -math.inf]}, Code.INVALID_ARGUMENT, r"fahrenheit\[2\]: -inf"),
        ({"fahrenheit": [-500]}, Code.INVALID_ARGUMENT, r"fahrenheit\[0\]: -500 is below absolute zero"),
        ({"fahrenheit": [1], "version": -1}, Code.INVALID_ARGUMENT, "version: -1 is not a whole number from 1"),
        ({"fahrenheit": [1], "model": "absent"}, Code.NOT_FOUND, "no model 'absent': there are linear, plain"),
        ({"fahrenheit": [1], "version": 7}, Code.NOT_FOUND, "no version 7 of 'linear': there are 1, 2"),
        ({"fahrenheit": [1], "label": "canary"}, Code.NOT_FOUND, "no label 'canary' on 'linear': there are stable"),
        ({"fahrenheit": [212], "on_extrapolation": 2}, Code.OUT_OF_RANGE, "row 0, 212, lies outside"),
        ({"fahrenheit": [1], "model": "plain", "interval": True}, Code.FAILED_PRECONDITION, "no Quicksilver metadata"),
        ({"fahrenheit": [1], "model": "plain", "on_extrapolation": 2}, Code.FAILED_PRECONDITION, "a training domain"),
    ],
)
def test_what_cannot_be_answered_is_refused_by_name(
    stub: ConverterServiceStub, fields: dict[str, Any], code: Code, text: str
) -> None:
    """Each wrong request gets its own code and a message that names what was wrong."""
    error = _failure(lambda: stub.Convert(api.ConvertRequest(**fields), timeout=TIMEOUT_SECONDS))
    assert error.code is code
    assert re.search(text, error.message)
    if code is Code.INVALID_ARGUMENT:
        assert list(error.violations) == [error.message.partition(":")[0]]


def test_more_rows_than_the_limit_are_refused_naming_it(start_server: StartServer) -> None:
    """The message says which setting, and its value."""
    with grpc.insecure_channel(start_server(max_rows_per_request=10).address) as channel:
        error = _failure(lambda: _convert(ConverterServiceStub(channel), *[50.0] * 11))
    assert (error.code, error.message) == (
        Code.INVALID_ARGUMENT,
        "fahrenheit: 11 rows are more than max_rows_per_request, 10",
    )


def test_a_message_over_the_limit_is_refused_naming_it(start_server: StartServer) -> None:
    """A message that is too large costs its sender the call."""
    with grpc.insecure_channel(start_server(max_message_bytes=1024).address) as channel:
        error = _failure(lambda: _convert(ConverterServiceStub(channel), *[50.0] * 1000))
    assert error.code is Code.RESOURCE_EXHAUSTED
    assert "1024" in error.message


def test_bytes_that_are_no_request_are_refused(channel: grpc.Channel) -> None:
    """Garbage is answered at once, and the next call works."""
    call: Any = channel.unary_unary("/quicksilver.v1.ConverterService/Convert")
    assert _failure(lambda: call(b"\xff\xff", timeout=TIMEOUT_SECONDS)).code is Code.INTERNAL
    assert _convert(ConverterServiceStub(channel), 50).version == 1


def test_an_unknown_method_is_unimplemented(channel: grpc.Channel) -> None:
    """The message names it."""
    call: Any = channel.unary_unary("/quicksilver.v1.ConverterService/Guess")
    error = _failure(lambda: call(b"", timeout=TIMEOUT_SECONDS))
    assert (error.code, error.message) == (Code.UNIMPLEMENTED, "no method /quicksilver.v1.ConverterService/Guess")


def test_a_version_that_failed_to_load_is_unavailable(start_server: StartServer, repository: Repository) -> None:
    """It is known, it cannot answer, and the reason is told."""
    repository.publish("linear", b"broken")
    with grpc.insecure_channel(start_server().address) as channel:
        error = _failure(lambda: _convert(ConverterServiceStub(channel), 50, version=3))
    assert error.code is Code.UNAVAILABLE
    assert "linear/3 cannot answer: ONNX Runtime cannot load the file" in error.message


LARGE = 20_000
"""Rows of a request that either front runs on another thread, so that a stalled run stalls nothing else."""


class _Stall:
    """Holds a version's runs until it is let go."""

    def __init__(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        engine = server.models.catalogue.resolve("linear", 1).engine
        run = engine.run
        self.entered = threading.Event()
        self.released = threading.Event()
        self.rows: list[int] = []

        def stalled(tensors: list[Any]) -> list[Any]:
            self.entered.set()
            self.released.wait(TIMEOUT_SECONDS)
            self.rows.append(len(tensors[0]))
            return run(tensors)

        monkeypatch.setattr(engine, "run", stalled)


def test_too_much_waiting_work_is_refused_at_once(start_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was accepted is answered; what is over the limit learns so before anything of it is run."""
    server = start_server(max_waiting_calls=3)
    stall = _Stall(server, monkeypatch)
    with grpc.insecure_channel(server.address) as channel:
        stub = ConverterServiceStub(channel)
        request = api.ConvertRequest(fahrenheit=[50] * LARGE)
        accepted = [stub.Convert.future(request, timeout=TIMEOUT_SECONDS)]
        assert stall.entered.wait(TIMEOUT_SECONDS)
        others = [stub.Convert.future(request, timeout=TIMEOUT_SECONDS) for _ in range(5)]
        until(lambda: sum(call.done() for call in others) == 3, "three refusals")
        refused = [call for call in others if call.done()]
        stall.released.set()
        accepted += [call for call in others if call not in refused]
        assert [len(call.result().celsius) for call in accepted] == [LARGE] * 3
    assert [error_from(call.exception()).code for call in refused] == [Code.RESOURCE_EXHAUSTED] * 3
    assert server.metrics.snapshot().numbers["quicksilver_shed_calls"]["calls",] == 3


def test_rows_are_not_run_for_a_caller_whose_deadline_passed(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that expires while it waits gets DEADLINE_EXCEEDED, and the engine never sees its rows."""
    server = start_server()
    stall = _Stall(server, monkeypatch)
    with grpc.insecure_channel(server.address) as channel:
        stub = ConverterServiceStub(channel)
        first = stub.Convert.future(api.ConvertRequest(fahrenheit=[50] * LARGE), timeout=TIMEOUT_SECONDS)
        assert stall.entered.wait(TIMEOUT_SECONDS)
        late = api.ConvertRequest(fahrenheit=[50] * (LARGE + 1))
        for seconds in (0.2, 1.0, 5.0):  # a busy machine's client may give up before it sent anything
            error = _failure(partial(stub.Convert, late, timeout=seconds))
            if _started(server) > 1:
                break
        # The client keeps the deadline too, and resets the call: whichever comes first.
        until(
            lambda: _handled(server, "DeadlineExceeded") + _handled(server, "Canceled") == _started(server) - 1 > 0,
            "the end of the expired call",
        )
        stall.released.set()
        assert first.result().version == 1
        _convert(stub, *[50] * (LARGE + 2))
    assert error.code is Code.DEADLINE_EXCEEDED
    assert stall.rows == [LARGE, LARGE + 2]


def test_rows_are_not_run_for_a_caller_who_left(start_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancelled call leaves the batch before it runs; its neighbours stay."""
    server = start_server()
    stall = _Stall(server, monkeypatch)
    with grpc.insecure_channel(server.address) as channel:
        stub = ConverterServiceStub(channel)
        first = stub.Convert.future(api.ConvertRequest(fahrenheit=[50] * LARGE), timeout=TIMEOUT_SECONDS)
        assert stall.entered.wait(TIMEOUT_SECONDS)
        leaver = stub.Convert.future(api.ConvertRequest(fahrenheit=[50] * (LARGE + 1)), timeout=TIMEOUT_SECONDS)
        stayer = stub.Convert.future(api.ConvertRequest(fahrenheit=[50] * (LARGE + 2)), timeout=TIMEOUT_SECONDS)
        until(lambda: _waiting(server) >= 3, "three calls to wait")
        leaver.cancel()
        until(lambda: _handled(server, "Canceled") == 1, "the end of the cancelled call")
        stall.released.set()
        assert (first.result().version, len(stayer.result().celsius)) == (1, LARGE + 2)
    assert stall.rows == [LARGE, LARGE + 2]


def test_a_stalled_large_call_does_not_hold_up_small_ones(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a large call runs on another version, small calls are answered."""
    server = start_server()
    stall = _Stall(server, monkeypatch)
    with grpc.insecure_channel(server.address) as channel:
        stub = ConverterServiceStub(channel)
        first = stub.Convert.future(api.ConvertRequest(fahrenheit=[50] * LARGE), timeout=TIMEOUT_SECONDS)
        assert stall.entered.wait(TIMEOUT_SECONDS)
        assert _convert(stub, 50, version=2).version == 2
        stall.released.set()
        assert first.result().version == 1


def _scrape(server: Server) -> str:
    with urlopen(f"http://{server.http_address}/metrics") as answer:
        return str(answer.read().decode())


def _waiting(server: Server) -> float:
    return _sum(server, "quicksilver_in_flight_calls")


def _started(server: Server) -> float:
    """Calls of Convert that began."""
    return _sum(server, "grpc_server_started_total", 'grpc_method="Convert"')


def _handled(server: Server, code: str) -> float:
    """Calls of Convert that ended with a code."""
    return _sum(server, "grpc_server_handled_total", f'grpc_code="{code}"', 'grpc_method="Convert"')


def _sum(server: Server, name: str, *labels: str) -> float:
    lines = [line for line in _scrape(server).splitlines() if line.startswith(name)]
    return sum(float(line.rpartition(" ")[2]) for line in lines if all(label in line for label in labels))


# ConvertStream --------------------------------------------------------------------------------------------------------


def _stream(
    stub: ConverterServiceStub, requests: Iterable[api.ConvertStreamRequest]
) -> list[api.ConvertStreamResponse]:
    return list(stub.ConvertStream(iter(requests), timeout=TIMEOUT_SECONDS))


def test_a_stream_answers_in_order(stub: ConverterServiceStub) -> None:
    """Hundreds of requests on one stream, more than may wait at once, each answered once and in order."""
    requests = [
        api.ConvertStreamRequest(id=str(index), request=api.ConvertRequest(fahrenheit=[index], version=index % 2 + 1))
        for index in range(500)
    ]
    answers = _stream(stub, requests)
    assert [answer.id for answer in answers] == [request.id for request in requests]
    for index, answer in enumerate(answers):
        expected = exact_celsius(index) + 5 * (index % 2)
        assert list(answer.response.celsius) == pytest.approx([expected], abs=1e-3)


def test_a_bad_request_on_a_stream_leaves_the_others_alone(stub: ConverterServiceStub) -> None:
    """Its answer is an error with code and message; the stream goes on."""
    answers = _stream(
        stub,
        [
            api.ConvertStreamRequest(id="a", request=api.ConvertRequest(fahrenheit=[50])),
            api.ConvertStreamRequest(id="b", request=api.ConvertRequest(fahrenheit=[])),
            api.ConvertStreamRequest(id="c", request=api.ConvertRequest(fahrenheit=[math.nan])),
            api.ConvertStreamRequest(id="d", request=api.ConvertRequest(fahrenheit=[50], model="absent")),
            api.ConvertStreamRequest(id="e", request=api.ConvertRequest(fahrenheit=[50])),
        ],
    )
    assert [(answer.id, answer.error.code) for answer in answers] == [("a", 0), ("b", 3), ("c", 3), ("d", 5), ("e", 0)]
    assert answers[2].error.message == "fahrenheit[0]: nan is not a temperature"


def test_an_empty_stream_ends(stub: ConverterServiceStub) -> None:
    """No request, no answer, no error."""
    assert _stream(stub, []) == []


def test_a_large_request_on_a_stream_keeps_its_place(stub: ConverterServiceStub) -> None:
    """A large request runs on another thread; the small one behind it waits for its turn to be sent."""
    requests = [
        api.ConvertStreamRequest(id=str(rows), request=api.ConvertRequest(fahrenheit=[50.0] * rows))
        for rows in (1, 100_000, 2)
    ]
    assert [len(answer.response.celsius) for answer in _stream(stub, requests)] == [1, 100_000, 2]


def test_answers_come_before_the_stream_ends(stub: ConverterServiceStub) -> None:
    """A client may wait for an answer before it sends the next request."""
    answers: list[float] = []
    turn = threading.Semaphore(1)

    def requests() -> Iterator[api.ConvertStreamRequest]:
        for value in (32.0, 50.0, 68.0):
            assert turn.acquire(timeout=TIMEOUT_SECONDS)
            yield api.ConvertStreamRequest(request=api.ConvertRequest(fahrenheit=[value]))

    for answer in stub.ConvertStream(requests(), timeout=TIMEOUT_SECONDS):
        answers.extend(answer.response.celsius)
        turn.release()
    assert answers == pytest.approx([0, 10, 20], abs=1e-4)


def test_a_stream_that_is_no_stream_of_requests_ends_with_an_error(channel: grpc.Channel) -> None:
    """Not even an id can be read from garbage, so the call ends."""
    call: Any = channel.stream_stream("/quicksilver.v1.ConverterService/ConvertStream")
    assert _failure(lambda: list(call(iter([b"\xff\xff"]), timeout=TIMEOUT_SECONDS))).code is Code.INTERNAL


@pytest.mark.parametrize("transport", ["grpcio"])  # the other front has no thread a call
def test_streams_leave_threads_for_other_calls(start_server: StartServer) -> None:
    """Half of the threads may be held by streams; one more is refused, and other calls are answered."""
    server = start_server(grpcio_threads=4)
    with grpc.insecure_channel(server.address) as channel:
        stub = ConverterServiceStub(channel)
        over = threading.Event()

        def forever() -> Iterator[api.ConvertStreamRequest]:
            yield api.ConvertStreamRequest(request=api.ConvertRequest(fahrenheit=[50]))
            over.wait(TIMEOUT_SECONDS)

        held = [stub.ConvertStream(forever(), timeout=TIMEOUT_SECONDS) for _ in range(2)]
        for call in held:
            next(call)
        assert _failure(lambda: _stream(stub, [])).code is Code.RESOURCE_EXHAUSTED
        assert server.metrics.snapshot().numbers["quicksilver_shed_calls"]["streams",] == 1
        assert _convert(stub, 50).version == 1
        over.set()
        assert [list(call) for call in held] == [[], []]
        assert _stream(stub, []) == []


# ListModels, GetModel -------------------------------------------------------------------------------------------------


def test_the_models_are_listed(stub: ConverterServiceStub) -> None:
    """Names, versions, states, labels, defaults and limits."""
    answer = stub.ListModels(api.ListModelsRequest(), timeout=TIMEOUT_SECONDS)
    assert [(model.name, model.default_version) for model in answer.models] == [("linear", 1), ("plain", 1)]
    versions = [(entry.version, entry.state, list(entry.labels)) for entry in answer.models[0].versions]
    assert versions == [(1, api.VERSION_STATE_READY, ["stable"]), (2, api.VERSION_STATE_READY, [])]
    assert answer.default_model == "linear"
    assert answer.limits.max_rows_per_request == 1 << 20


def test_a_model_tells_how_it_was_made(stub: ConverterServiceStub) -> None:
    """Device, file, domain, interval and training come from the artefact itself."""
    answer = stub.GetModel(api.GetModelRequest(model="linear"), timeout=TIMEOUT_SECONDS)
    assert (answer.model, answer.version.version, answer.kind, answer.device) == ("linear", 1, "linear", "cpu")
    assert [(column.name, column.minimum, column.maximum) for column in answer.domain] == [("fahrenheit", *DOMAIN)]
    assert answer.interval.half_width_celsius == HALF_WIDTH_CELSIUS
    assert (answer.training.seed, answer.training.epochs, answer.training.dataset_rows) == (7, 3000, 11)
    assert answer.metadata["quicksilver.kind"] == "linear"
    assert len(answer.sha256) == 64


def test_a_plain_model_tells_only_what_is_known(stub: ConverterServiceStub) -> None:
    """Nothing is invented where the file is silent."""
    answer = stub.GetModel(api.GetModelRequest(model="plain"), timeout=TIMEOUT_SECONDS)
    assert not answer.HasField("interval")
    assert not answer.HasField("training")
    assert (answer.kind, list(answer.domain), dict(answer.metadata)) == ("", [], {})


def test_a_failed_version_is_described_by_its_reason(start_server: StartServer, repository: Repository) -> None:
    """An operator finds out over the API why a version does not answer."""
    repository.publish("linear", b"broken")
    with grpc.insecure_channel(start_server().address) as channel:
        stub = ConverterServiceStub(channel)
        answer = stub.GetModel(api.GetModelRequest(version=3), timeout=TIMEOUT_SECONDS)
    assert answer.version.state == api.VERSION_STATE_FAILED
    assert answer.version.reason.startswith("ONNX Runtime cannot load the file")


def test_what_a_canary_gets_is_told_while_it_is_in_effect(
    stub: ConverterServiceStub, server: Server, repository: Repository
) -> None:
    """By its version, in the list and in full; a rule for a canary that cannot answer is none."""
    for traffic, told in ((CanaryTraffic(share=0.25), (0.25, False)), (CanaryTraffic(shadow=True), (0.0, True))):
        repository.set_label("linear", "canary", 2)
        repository.set_canary_traffic("linear", traffic)
        server.models.refresh()
        (listed,) = [model for model in stub.ListModels(api.ListModelsRequest()).models if model.name == "linear"]
        assert [(each.canary_share, each.shadow) for each in listed.versions] == [(0.0, False), told]
        described = stub.GetModel(api.GetModelRequest(model="linear", label="canary")).version
        assert (described.canary_share, described.shadow) == told
    repository.set_label("linear", "canary", 1)
    server.models.refresh()
    described = stub.GetModel(api.GetModelRequest(model="linear")).version
    assert (described.canary_share, described.shadow) == (0.0, False)
