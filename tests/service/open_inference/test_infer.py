"""ModelInfer over a real channel, through both fronts: any model, either encoding, and each row of the error table."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from proto.inference.v2 import open_inference_pb2 as pb
from proto.inference.v2.open_inference_pb2_grpc import GRPCInferenceServiceStub
from proto.repository import Repository
from service.client import error_from
from service.engine import EngineOptions
from service.loading import load_version
from service.open_inference.infer import InferCodec
from service.query import Answer
from service.server import Server
from service.status import Code
from tests.service.artefacts import HALF_WIDTH_CELSIUS, exact_celsius, make_artefact
from tests.service.conftest import StartServer
from tests.service.open_inference import graphs
from tests.service.open_inference.calls import CONTENTS, STORAGE, TIMEOUT_SECONDS, fahrenheit, outputs_of, request

SOME_VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False, False, True],
    "BYTES": ["", "°C", "a\0b", "x" * 300],
    "BF16": [0x3F80, 0xC000, 0x0000, 0x7FC0],
    "FP16": [1.5, -2.0, 65504.0, float("-inf")],
    "FP32": [1.5, -2.0, 3.4e38, float("-inf")],
    "FP64": [1.5, -2.0, 1.7e308, 5e-324],
}


def _values(datatype: str) -> Any:  # noqa: ANN401 - an array of any type
    storage = STORAGE[datatype]
    if datatype not in SOME_VALUES:
        limits = np.iinfo(storage)
        return np.array([[limits.min, limits.max], [0, 1]], dtype=storage)
    return np.array(SOME_VALUES[datatype], dtype=storage).reshape(2, 2)


def _infer(stub: GRPCInferenceServiceStub, message: pb.ModelInferRequest) -> pb.ModelInferResponse:
    return stub.ModelInfer(message, timeout=TIMEOUT_SECONDS)


def _failure(call: Callable[[], object]) -> Any:  # noqa: ANN401 - a ConverterError, read by its attributes
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return error_from(caught.value)


def test_every_datatype_is_answered_in_the_encoding_of_its_request(any_stub: GRPCInferenceServiceStub) -> None:
    """Bit for bit, raw for raw, and typed for typed where the protocol has typed contents."""
    for datatype in graphs.ELEMENT_TYPES:
        values = _values(datatype)
        for typed in (False, True) if datatype in CONTENTS else (False,):
            message = request(f"identity_{datatype.lower()}", {"x": (datatype, values)}, typed=typed, id="17")
            answer = _infer(any_stub, message)
            assert (answer.model_name, answer.model_version, answer.id) == (message.model_name, "1", "17")
            assert [output.datatype for output in answer.outputs] == [datatype]
            assert bool(answer.raw_output_contents) is not typed
            assert answer.outputs[0].HasField("contents") is typed
            assert not answer.parameters
            back = outputs_of(answer)["y"]
            assert back.shape == values.shape
            assert back.tolist() == values.tolist() or back.tobytes() == values.tobytes()


def test_a_large_answer_is_its_head_and_the_output_itself(tmp_path: Path) -> None:
    """Two parts to be sent, the second of which is what ONNX Runtime wrote, and no copy of it."""
    repository = Repository(tmp_path)
    repository.publish("linear", make_artefact())
    version = load_version(repository, "linear", 1, EngineOptions(device="cpu"))
    values = np.linspace(30, 80, 1 << 16, dtype=np.float32).reshape(-1, 1)
    codec = InferCodec()
    query = codec.decode(request("linear", {"fahrenheit": ("FP32", values)}, id="17").SerializeToString())
    query.bind(version)
    outputs = version.engine.run([values])
    head, contents = codec.encode(query, Answer(version, outputs, None, inside=True))
    assert np.shares_memory(outputs[0], np.frombuffer(contents, np.uint8))
    answer = pb.ModelInferResponse.FromString(b"".join([head, contents]))
    assert (answer.model_name, answer.model_version, answer.id) == ("linear", "1", "17")
    assert outputs_of(answer)["celsius"].tobytes() == outputs[0].tobytes()


def test_several_inputs_and_outputs_go_by_their_names(any_stub: GRPCInferenceServiceStub) -> None:
    """In any order, with the outputs that were asked for, in the order they were asked for."""
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.full((2, 3), 0.5, dtype=np.float32)
    inputs = {"flag": ("BOOL", np.array([True, False])), "b": ("FP32", b), "a": ("FP32", a)}
    for typed in (False, True):
        answer = _infer(any_stub, request("two_by_two", inputs, typed=typed))
        assert [output.name for output in answer.outputs] == ["total", "flipped"]
        assert outputs_of(answer)["total"].tolist() == (a + b).tolist()
        assert outputs_of(answer)["flipped"].tolist() == [False, True]
        chosen = _infer(any_stub, request("two_by_two", inputs, typed=typed, outputs=["flipped", "total"]))
        assert [output.name for output in chosen.outputs] == ["flipped", "total"]
        one = _infer(any_stub, request("two_by_two", inputs, typed=typed, outputs=["flipped"]))
        assert {name: array.tolist() for name, array in outputs_of(one).items()} == {"flipped": [False, True]}


def test_scalars_fixed_and_empty_batches_are_answered(any_stub: GRPCInferenceServiceStub) -> None:
    """No dimension, a fixed first dimension, no rows at all."""
    number = np.array(2.5, dtype=np.float32)
    assert outputs_of(_infer(any_stub, request("scalar", {"x": ("FP32", number)})))["y"] == 5.0
    batch = np.arange(8, dtype=np.float32).reshape(4, 2)
    assert outputs_of(_infer(any_stub, request("fixed", {"x": ("FP32", batch)})))["y"].tolist() == (-batch).tolist()
    none = np.empty((0, 2), dtype=np.int64)
    for typed in (False, True):
        answer = _infer(any_stub, request("identity_int64", {"x": ("INT64", none)}, typed=typed))
        assert list(answer.outputs[0].shape) == [0, 2]


@pytest.mark.parametrize("typed", [False, True])
def test_converters_answer_after_the_exact_law(any_stub: GRPCInferenceServiceStub, typed: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """By default, by version, by label, and in one run with `Convert`'s own calls."""
    answer = _infer(any_stub, fahrenheit(-40, 32, 50, 212, typed=typed))
    assert outputs_of(answer)["celsius"].ravel() == pytest.approx([-40, 0, 10, 100], abs=1e-4)
    assert (answer.model_name, answer.model_version) == ("linear", "1")
    second = _infer(any_stub, fahrenheit(32, model_version="2", typed=typed))
    assert outputs_of(second)["celsius"].item() == pytest.approx(5, abs=1e-4)
    assert _infer(any_stub, fahrenheit(32, model_version="stable", typed=typed)).model_version == "1"


@pytest.mark.parametrize("typed", [False, True])
def test_a_converter_gives_bounds_and_flags_when_asked_by_name(
    any_stub: GRPCInferenceServiceStub,
    typed: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """Bounds inside the training range and NaN outside; and which rows those are."""
    wanted = ["extrapolated", "celsius_upper", "celsius", "celsius_lower"]
    answer = _infer(any_stub, fahrenheit(50, 212, typed=typed, outputs=wanted))
    assert [output.name for output in answer.outputs] == wanted
    outputs = outputs_of(answer)
    assert outputs["extrapolated"].tolist() == [[False], [True]]
    assert {array.shape for array in outputs.values()} == {(2, 1)}
    assert outputs["celsius"].ravel() == pytest.approx([10, 100], abs=1e-4)
    upper, lower = outputs["celsius_upper"].ravel(), outputs["celsius_lower"].ravel()
    assert upper == pytest.approx([10 + HALF_WIDTH_CELSIUS, np.nan], abs=1e-4, nan_ok=True)
    assert lower == pytest.approx([10 - HALF_WIDTH_CELSIUS, np.nan], abs=1e-4, nan_ok=True)


def test_a_large_request_is_answered(any_stub: GRPCInferenceServiceStub) -> None:
    """Every row, in order, at bytes that lie on no boundary."""
    values = np.linspace(-40, 212, 100_001, dtype=np.float32)
    for identity in ("", "1", "22", "333"):
        answer = _infer(any_stub, fahrenheit(*values.tolist(), id=identity))
        assert answer.id == identity
        expected = [exact_celsius(value) for value in values.tolist()]
        np.testing.assert_allclose(outputs_of(answer)["celsius"].ravel(), expected, rtol=0, atol=1e-4)


def test_what_the_protocol_cannot_hold_is_refused_and_the_rest_is_given(any_stub: GRPCInferenceServiceStub) -> None:
    """A graph with a sequence among its outputs answers for the others, when they are asked for by name."""
    inputs = {"x": ("FP32", np.array([1, 2], dtype=np.float32))}
    error = _failure(lambda: _infer(any_stub, request("sequence_of", inputs)))
    assert error.code is Code.FAILED_PRECONDITION
    assert "'pieces' is a seq(tensor(float)), for which the protocol has no datatype" in error.message
    assert outputs_of(_infer(any_stub, request("sequence_of", inputs, outputs=["y"])))["y"].tolist() == [-1, -2]


ROWS = np.array([[50.0]], dtype=np.float32)


def _changed(change: Callable[[pb.ModelInferRequest], object], **fields: Any) -> pb.ModelInferRequest:  # noqa: ANN401 - any field
    message = fahrenheit(50, **fields)
    change(message)
    return message


@pytest.mark.parametrize(
    ("message", "code", "text"),
    [
        (fahrenheit(1, model="absent"), Code.NOT_FOUND, "no model 'absent': there are"),
        (fahrenheit(1, model_version="7"), Code.NOT_FOUND, "no version 7 of 'linear': there are 1, 2"),
        (fahrenheit(1, model_version="canary"), Code.NOT_FOUND, "no label 'canary' on 'linear'"),
        (fahrenheit(1, model_version="-1"), Code.INVALID_ARGUMENT, "model_version: '-1' is neither"),
        (fahrenheit(1, np.nan), Code.INVALID_ARGUMENT, r"fahrenheit\[1\]: nan is not a temperature"),
        (fahrenheit(-460, typed=True), Code.INVALID_ARGUMENT, r"fahrenheit\[0\]: -460 is below absolute zero"),
        (
            fahrenheit(1, outputs=["kelvin"]),
            Code.INVALID_ARGUMENT,
            "no output 'kelvin': it gives celsius, celsius_lower",
        ),
        (fahrenheit(1, outputs=["celsius"] * 2), Code.INVALID_ARGUMENT, "outputs: one is asked for twice"),
        (fahrenheit(1, model="plain", outputs=["extrapolated"]), Code.INVALID_ARGUMENT, "it gives celsius$"),
        (request("linear", {}), Code.INVALID_ARGUMENT, "inputs: 'fahrenheit' is missing"),
        (request("linear", {"x": ("FP32", ROWS)}), Code.INVALID_ARGUMENT, "linear/1 has no input 'x': it takes"),
        (
            request("linear", {"fahrenheit": ("FP64", ROWS.astype(np.float64))}),
            Code.INVALID_ARGUMENT,
            r"inputs\[fahrenheit\].datatype: is FP64; the model takes FP32",
        ),
        (
            request("linear", {"fahrenheit": ("FP32", ROWS.ravel())}),
            Code.INVALID_ARGUMENT,
            r"inputs\[fahrenheit\].shape: is \[1\]; the model takes \[-1, 1\]",
        ),
        (
            request("linear", {"fahrenheit": ("FP32", np.zeros((2, 2), np.float32))}),
            Code.INVALID_ARGUMENT,
            r"is \[2, 2\]; the model takes \[-1, 1\]",
        ),
        (request("fixed", {"x": ("FP32", np.zeros((3, 2), np.float32))}), Code.INVALID_ARGUMENT, r"takes \[4, 2\]"),
        (_changed(lambda m: m.inputs.append(m.inputs[0])), Code.INVALID_ARGUMENT, "1 entries for 2 inputs"),
        (
            _changed(lambda m: m.inputs.append(m.inputs[0]), typed=True),
            Code.INVALID_ARGUMENT,
            "'fahrenheit' is there twice",
        ),
        (_changed(lambda m: m.raw_input_contents.append(b"")), Code.INVALID_ARGUMENT, "2 entries for 1 inputs"),
        (
            _changed(lambda m: m.raw_input_contents.__setitem__(0, b"123")),
            Code.INVALID_ARGUMENT,
            r"3 bytes of raw contents, where FP32 of shape \[1, 1\] has 4",
        ),
        (
            _changed(lambda m: m.inputs[0].contents.fp32_contents.append(1)),
            Code.INVALID_ARGUMENT,
            r"inputs\[fahrenheit\].contents: is set beside raw_input_contents: one of them, not both",
        ),
        (
            _changed(lambda m: m.inputs[0].contents.fp32_contents.append(1), typed=True),
            Code.INVALID_ARGUMENT,
            r"2 values in fp32_contents, where shape \[1, 1\] has 1",
        ),
        (
            request("lookup", {"x": ("INT64", np.array([1, 7]))}),
            Code.INVALID_ARGUMENT,
            "indices element out of data bounds",
        ),
        (
            _changed(lambda m: setattr(m.inputs[0].parameters["shared_memory_region"], "string_param", "r")),
            Code.UNIMPLEMENTED,
            "the shared memory extensions are not here",
        ),
    ],
)
def test_what_cannot_be_answered_is_refused_by_name(
    any_stub: GRPCInferenceServiceStub, message: pb.ModelInferRequest, code: Code, text: str
) -> None:
    """Each wrong request gets its own code and a message that names what was wrong."""
    error = _failure(lambda: _infer(any_stub, message))
    assert error.code is code
    assert re.search(text, error.message), error.message
    if code is Code.INVALID_ARGUMENT:
        assert list(error.violations) == [error.message.partition(": ")[0]]


def test_bytes_that_are_no_request_are_refused(any_channel: grpc.Channel) -> None:
    """Garbage is answered at once, and the next call works."""
    call: Any = any_channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    assert _failure(lambda: call(b"\xff\xff", timeout=TIMEOUT_SECONDS)).code is Code.INTERNAL
    assert _infer(GRPCInferenceServiceStub(any_channel), fahrenheit(32)).model_version == "1"


def test_a_version_that_failed_to_load_is_unavailable(start_server: StartServer, repository: Repository) -> None:
    """It is known, it cannot answer, and the reason is told."""
    repository.publish("linear", b"broken")
    with grpc.insecure_channel(start_server(version_policy="all").address) as channel:
        error = _failure(lambda: _infer(GRPCInferenceServiceStub(channel), fahrenheit(1, model_version="3")))
    assert error.code is Code.UNAVAILABLE
    assert "linear/3 cannot answer: ONNX Runtime cannot load the file" in error.message


def test_more_rows_than_the_limit_are_refused_naming_it(start_server: StartServer) -> None:
    """For a converter and for any other model."""
    with grpc.insecure_channel(start_server(max_rows_per_request=3).address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        many = {"fahrenheit": ("FP32", np.zeros((4, 1), dtype=np.float32))}
        errors = [
            _failure(lambda: _infer(stub, fahrenheit(1, 2, 3, 4))),
            _failure(lambda: _infer(stub, request("plain", many))),
        ]
    assert [(error.code, error.message) for error in errors] == [
        (Code.INVALID_ARGUMENT, "fahrenheit: 4 rows are more than max_rows_per_request, 3"),
        (Code.INVALID_ARGUMENT, "inputs: 4 rows are more than max_rows_per_request, 3"),
    ]


def test_a_retired_version_is_not_kept_by_what_is_remembered_of_it(server: Server, channel: grpc.Channel) -> None:
    """Once its last call is answered, nothing of a version that was unloaded stays in memory."""
    stub = GRPCInferenceServiceStub(channel)
    for typed in (False, True):
        _infer(stub, fahrenheit(50, typed=typed, outputs=["celsius", "extrapolated"]))
    assert server.models.unload_model("linear").wait(TIMEOUT_SECONDS)
