"""The requests that are sent and the answers that must come: bytes for each protocol, and the check of their values."""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from proto.inference.v2 import open_inference_pb2 as open_inference
from proto.quicksilver.v1 import converter_pb2 as converter
from proto.runtime import onnxruntime

MODEL: Final = "mlp"
GRPC_HEADERS: Final = (("content-type", "application/grpc"), ("te", "trailers"))
JSON_HEADERS: Final = (("content-type", "application/json"),)
_TOLERANCE_CELSIUS: Final = 1e-4
"""How far an answer may be from ONNX Runtime's own: a batch of another size may round in another order."""

Rows = NDArray[np.float32]


class WrongAnswerError(Exception):
    """A server answered, and not with the right values; the message says how far off it was."""


@dataclass(frozen=True)
class Exchange:
    """One request, and what its answer has to be."""

    path: str
    body: bytes
    """The message, without gRPC's prefix."""
    headers: tuple[tuple[str, str], ...]
    read: Callable[[bytes], Rows]
    expected: Rows
    grpc: bool = True

    @property
    def frame(self) -> bytes:
        """What a load generator sends as the body of an HTTP request."""
        return framed(self.body) if self.grpc else self.body

    def check(self, answer: bytes) -> None:
        """Raise WrongAnswerError unless the answer holds the right values."""
        celsius = self.read(answer)
        if celsius.shape != self.expected.shape:
            raise WrongAnswerError(f"{self.path}: {celsius.size} values came, not {self.expected.size}")
        error = float(np.abs(celsius - self.expected).max())
        if not error <= _TOLERANCE_CELSIUS:
            raise WrongAnswerError(f"{self.path}: a value is {error:.3g} °C off what ONNX Runtime answers")


def framed(message: bytes) -> bytes:
    """A gRPC message with its prefix: not compressed, and its length."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def readings(values: int) -> Rows:
    """As many temperatures in °F, float32 `[values]`, inside what the model was trained on."""
    return np.linspace(35.0, 80.0, values, dtype=np.float32)


@functools.cache
def _session(model_file: Path) -> Any:  # noqa: ANN401 - ONNX Runtime publishes no types
    return onnxruntime.InferenceSession(str(model_file), providers=["CPUExecutionProvider"])


def expected(model_file: Path, fahrenheit: Rows) -> Rows:
    """What ONNX Runtime itself answers with the same file, float32 `[N]`."""
    answer: Rows = _session(model_file).run(["celsius"], {"fahrenheit": fahrenheit.reshape(-1, 1)})[0].ravel()
    return answer


# Open Inference -------------------------------------------------------------------------------------------------------


def infer_request(rows: Rows, model: str = MODEL) -> bytes:
    """A ModelInferRequest with one raw FP32 tensor `[N, 1]`."""
    request = open_inference.ModelInferRequest(model_name=model, raw_input_contents=[rows.tobytes()])
    request.inputs.add(name="fahrenheit", datatype="FP32", shape=[len(rows), 1])
    return request.SerializeToString()


def read_infer(answer: bytes) -> Rows:
    """The first output, raw or typed."""
    response = open_inference.ModelInferResponse.FromString(answer)
    if response.raw_output_contents:
        return np.frombuffer(response.raw_output_contents[0], "<f4")
    return np.array(response.outputs[0].contents.fp32_contents, np.float32)


def infer(model_file: Path, values: int, model: str = MODEL) -> Exchange:
    """`ModelInfer`, the same bytes for every server that speaks it."""
    rows = readings(values)
    path = "/inference.GRPCInferenceService/ModelInfer"
    return Exchange(path, infer_request(rows, model), GRPC_HEADERS, read_infer, expected(model_file, rows))


def infer_stream(model_file: Path, values: int) -> Exchange:
    """`ModelStreamInfer`: one message of a stream, and its answer."""
    rows = readings(values)
    path = "/inference.GRPCInferenceService/ModelStreamInfer"
    return Exchange(path, infer_request(rows), GRPC_HEADERS, _read_infer_stream, expected(model_file, rows))


def _read_infer_stream(answer: bytes) -> Rows:
    response = open_inference.ModelStreamInferResponse.FromString(answer)
    return read_infer(response.infer_response.SerializeToString())


# Quicksilver's own ----------------------------------------------------------------------------------------------------


def convert_request(rows: Rows) -> bytes:
    """A ConvertRequest for the benchmark's model."""
    return converter.ConvertRequest(model=MODEL, fahrenheit=rows).SerializeToString()


def _read_convert(answer: bytes) -> Rows:
    return np.array(converter.ConvertResponse.FromString(answer).celsius, np.float32)


def convert(model_file: Path, values: int) -> Exchange:
    """`Convert`, this product's own method."""
    rows = readings(values)
    path = "/quicksilver.v1.ConverterService/Convert"
    return Exchange(path, convert_request(rows), GRPC_HEADERS, _read_convert, expected(model_file, rows))


def convert_stream(model_file: Path, values: int) -> Exchange:
    """`ConvertStream`: one message of a stream, and its answer."""
    rows = readings(values)
    body = converter.ConvertStreamRequest(
        request=converter.ConvertRequest(model=MODEL, fahrenheit=rows)
    ).SerializeToString()
    path = "/quicksilver.v1.ConverterService/ConvertStream"
    return Exchange(path, body, GRPC_HEADERS, _read_convert_stream, expected(model_file, rows))


def _read_convert_stream(answer: bytes) -> Rows:
    return np.array(converter.ConvertStreamResponse.FromString(answer).response.celsius, np.float32)


# HTTP and JSON, for servers that speak nothing else -------------------------------------------------------------------


def _read_litserve(answer: bytes) -> Rows:
    return np.array(json.loads(answer)["celsius"], np.float32)


def _read_rows(answer: bytes) -> Rows:
    return np.array(json.loads(answer), np.float32).ravel()


def litserve(model_file: Path, values: int) -> Exchange:
    """A list of numbers, as LitServe's documentation has it."""
    rows = readings(values)
    body = json.dumps({"fahrenheit": rows.tolist()}).encode()
    return Exchange("/predict", body, JSON_HEADERS, _read_litserve, expected(model_file, rows), grpc=False)


def bentoml(model_file: Path, values: int) -> Exchange:
    """A list of rows, as BentoML's documentation has it."""
    rows = readings(values)
    body = json.dumps({"fahrenheit": rows.reshape(-1, 1).tolist()}).encode()
    return Exchange("/convert", body, JSON_HEADERS, _read_rows, expected(model_file, rows), grpc=False)


# The echo -------------------------------------------------------------------------------------------------------------


def echo(model_file: Path, values: int) -> Exchange:
    """The bytes of `ModelInfer`, to be given back as they are."""
    request = infer(model_file, values)
    rows = readings(values)
    return Exchange("/benchmarks.Echo/Echo", request.body, GRPC_HEADERS, _read_echo, rows)


def _read_echo(answer: bytes) -> Rows:
    return np.frombuffer(open_inference.ModelInferRequest.FromString(answer).raw_input_contents[0], "<f4")
