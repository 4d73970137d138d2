"""Requests and answers of the protocol, written and read with the generated messages and NumPy alone."""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from proto.inference.v2 import open_inference_pb2 as pb

TIMEOUT_SECONDS = 30

Array = np.ndarray[Any, Any]

STORAGE = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
    "BF16": np.uint16,
}
CONTENTS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def raw_of(datatype: str, array: Array) -> bytes:
    """Raw contents, as the protocol describes them."""
    if datatype != "BYTES":
        return array.astype(array.dtype.newbyteorder("<")).tobytes()
    texts = [text.encode() for text in array.ravel().tolist()]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def array_of(datatype: str, shape: Sequence[int], raw: bytes) -> Array:
    """Read raw contents."""
    if datatype != "BYTES":
        return np.frombuffer(raw, np.dtype(STORAGE[datatype]).newbyteorder("<")).reshape(shape)
    texts = []
    while raw:
        (length,) = struct.unpack_from("<I", raw)
        texts.append(raw[4 : 4 + length].decode())
        raw = raw[4 + length :]
    return np.array(texts, dtype=np.object_).reshape(shape)


def request(
    model: str,
    inputs: Mapping[str, tuple[str, Array]],
    *,
    typed: bool = False,
    outputs: Sequence[str] = (),
    **fields: Any,  # noqa: ANN401 - any field
) -> pb.ModelInferRequest:
    """A request for a model: arrays by name, each with its datatype."""
    message = pb.ModelInferRequest(model_name=model, **fields)
    for name, (datatype, array) in inputs.items():
        tensor = message.inputs.add(name=name, datatype=datatype, shape=array.shape)
        if typed:
            values = array.ravel().tolist()
            getattr(tensor.contents, CONTENTS[datatype]).extend(
                [text.encode() for text in values] if datatype == "BYTES" else values
            )
        else:
            message.raw_input_contents.append(raw_of(datatype, array))
    for name in outputs:
        message.outputs.add(name=name)
    return message


def fahrenheit(*values: float, model: str = "linear", typed: bool = False, **fields: Any) -> pb.ModelInferRequest:  # noqa: ANN401 - any field
    """A request for a converter."""
    rows = np.array(values, dtype=np.float32).reshape(-1, 1)
    return request(model, {"fahrenheit": ("FP32", rows)}, typed=typed, **fields)


def outputs_of(answer: pb.ModelInferResponse) -> dict[str, Array]:
    """The outputs of an answer by name, from whichever contents it has."""
    arrays = {}
    for index, output in enumerate(answer.outputs):
        if answer.raw_output_contents:
            arrays[output.name] = array_of(output.datatype, output.shape, answer.raw_output_contents[index])
        else:
            values = list(getattr(output.contents, CONTENTS[output.datatype]))
            if output.datatype == "BYTES":
                values = [text.decode() for text in values]
            arrays[output.name] = np.array(values, dtype=STORAGE[output.datatype]).reshape(output.shape)
    return arrays
