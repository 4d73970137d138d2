"""ModelStreamInfer over a real channel: every request answered once, in order, and errors in either of two ways."""

import threading
from collections.abc import Iterable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from proto.inference.v2 import open_inference_pb2 as pb
from proto.inference.v2.open_inference_pb2_grpc import GRPCInferenceServiceStub
from service.errors import OverloadedError, Shed
from service.open_inference.infer import InferCodec
from service.open_inference.stream import InferStreamCodec
from tests.service.open_inference.calls import TIMEOUT_SECONDS, fahrenheit, outputs_of, request

GRPC_ERROR = (("triton_grpc_error", "true"),)


def _stream(
    stub: GRPCInferenceServiceStub,
    requests: Iterable[pb.ModelInferRequest],
    **options: Any,  # noqa: ANN401 - of the call
) -> Iterator[pb.ModelStreamInferResponse]:
    return stub.ModelStreamInfer(iter(requests), timeout=TIMEOUT_SECONDS, **options)


def test_answers_come_in_order(any_stub: GRPCInferenceServiceStub) -> None:
    """Of different models and sizes, raw and typed, more of them than may wait at once."""
    asked = [fahrenheit(*[50.0] * (1 + index % 3), id=str(index), typed=index % 2 == 0) for index in range(300)]
    asked[7] = fahrenheit(*np.linspace(-40, 212, 50_000).tolist(), id="7")
    answers = list(_stream(any_stub, asked))
    assert [answer.infer_response.id for answer in answers] == [str(index) for index in range(300)]
    assert not any(answer.error_message for answer in answers)
    for message, answer in zip(asked, answers, strict=True):
        assert len(outputs_of(answer.infer_response)["celsius"]) == message.inputs[0].shape[0]
        assert bool(answer.infer_response.raw_output_contents) is bool(message.raw_input_contents)


def test_an_error_stands_in_the_place_of_its_answer(any_stub: GRPCInferenceServiceStub) -> None:
    """With the id of its request, and the stream goes on: whatever was wrong, and wherever it was found."""
    shared = fahrenheit(1, id="shared")
    shared.inputs[0].parameters["shared_memory_region"].string_param = "r"
    asked = [
        fahrenheit(32, id="a"),
        fahrenheit(1, id="b", model="absent"),
        fahrenheit(-500, id="c"),
        fahrenheit(1, id="d", model_version="0"),
        shared,
        request("lookup", {"x": ("INT64", np.array([9]))}, id="e"),
        fahrenheit(50, id="f"),
    ]
    answers = list(_stream(any_stub, asked))
    assert [answer.infer_response.id for answer in answers] == ["a", "b", "c", "d", "shared", "e", "f"]
    assert [bool(answer.error_message) for answer in answers] == [False, True, True, True, True, True, False]
    assert answers[1].error_message.startswith("no model 'absent'")
    assert answers[2].error_message == "fahrenheit[0]: -500 is below absolute zero (-459.67 °F)"
    assert outputs_of(answers[-1].infer_response)["celsius"].item() == pytest.approx(10, abs=1e-4)


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (fahrenheit(1, model="absent"), grpc.StatusCode.NOT_FOUND),
        (fahrenheit(-500), grpc.StatusCode.INVALID_ARGUMENT),
        (fahrenheit(1, model_version="0"), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_with_grpc_errors_the_first_one_ends_the_stream(
    any_stub: GRPCInferenceServiceStub, bad: pb.ModelInferRequest, code: grpc.StatusCode
) -> None:
    """With its real status; what was asked before is answered, what comes behind is not."""
    call = _stream(any_stub, [fahrenheit(32, id="a"), bad, fahrenheit(50, id="b")], metadata=GRPC_ERROR)
    assert next(call).infer_response.id == "a"
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    assert caught.value.code() is code


def test_a_request_of_too_many_fields_ends_the_stream(any_stub: GRPCInferenceServiceStub) -> None:
    """It is not read, so its id is not known; what was answered before stays, and ModelInfer refuses it alike."""
    many = fahrenheit(1, id="many")
    for _ in range(100_000):
        many.outputs.add()
    answered = threading.Event()

    def asked() -> Iterator[pb.ModelInferRequest]:
        yield fahrenheit(32, id="a")
        assert answered.wait(TIMEOUT_SECONDS)  # what waits for its answer when the stream ends gets none
        yield many

    call = _stream(any_stub, asked())
    assert next(call).infer_response.id == "a"
    answered.set()
    with pytest.raises(grpc.RpcError, match="more than 2048 fields") as caught:
        next(call)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.RpcError, match="more than 2048 fields") as caught:
        any_stub.ModelInfer(many, timeout=TIMEOUT_SECONDS)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("metadata", [(), (("triton_grpc_error", "false"),)])
def test_grpc_errors_must_be_asked_for(
    any_stub: GRPCInferenceServiceStub, metadata: tuple[tuple[str, str], ...]
) -> None:
    """Any other value of the key, and none, leave the stream open."""
    answers = list(_stream(any_stub, [fahrenheit(1, model="absent"), fahrenheit(32)], metadata=metadata))
    assert [bool(answer.error_message) for answer in answers] == [True, False]


def test_an_answer_says_that_it_is_the_last_where_that_is_asked(any_stub: GRPCInferenceServiceStub) -> None:
    """As a client of streams that may have several answers a request wants to know it."""
    asked = fahrenheit(32)
    asked.parameters["triton_enable_empty_final_response"].bool_param = True
    told, untold = _stream(any_stub, [asked, fahrenheit(32)])
    assert told.infer_response.parameters["triton_final_response"].bool_param
    assert not untold.infer_response.parameters


def test_answers_come_before_the_stream_ends(any_stub: GRPCInferenceServiceStub) -> None:
    """A client may wait for an answer before it sends the next request."""
    turn = threading.Semaphore(1)

    def requests() -> Iterator[pb.ModelInferRequest]:
        for value in (32.0, 50.0, 68.0):
            assert turn.acquire(timeout=TIMEOUT_SECONDS)
            yield fahrenheit(value)

    celsius = []
    for answer in _stream(any_stub, requests()):
        celsius.append(outputs_of(answer.infer_response)["celsius"].item())
        turn.release()
    assert celsius == pytest.approx([0, 10, 20], abs=1e-4)


def test_garbage_ends_the_stream(any_channel: grpc.Channel) -> None:
    """Not even an id can be read from it."""
    call: Any = any_channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
    with pytest.raises(grpc.RpcError) as caught:
        list(call(iter([b"\xff\xff"]), timeout=TIMEOUT_SECONDS))
    assert caught.value.code() is grpc.StatusCode.INTERNAL


def test_an_empty_stream_ends(any_stub: GRPCInferenceServiceStub) -> None:
    """No request, no answer, no error."""
    assert list(_stream(any_stub, [])) == []


def test_a_request_that_was_refused_unread_is_told_by_its_id() -> None:
    """However long it is; where not even an id can be read, the call ends."""
    refused = OverloadedError("too many calls", Shed.CALLS)
    for asked in (
        fahrenheit(32, id="a"),
        fahrenheit(*[32.0] * 5000, id="a"),
        fahrenheit(*[1.0] * 5000, id="a", typed=True),
    ):
        body = InferStreamCodec(InferCodec(), asked.SerializeToString(), ends_on_error=False).encode_error(refused)
        assert body is not None
        answer = pb.ModelStreamInferResponse.FromString(b"".join(map(bytes, body)))
        assert (answer.infer_response.id, answer.error_message) == ("a", "too many calls")
    assert InferStreamCodec(InferCodec(), b"\xff\xff", ends_on_error=False).encode_error(refused) is None
