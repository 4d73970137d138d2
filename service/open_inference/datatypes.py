"""The datatypes that both the protocol and ONNX Runtime have, and how each is held and written."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from proto.inference.v2 import open_inference_pb2 as pb
from service.engine import TensorSpec
from service.errors import InvalidRequestError, UnsupportedError


@dataclass(frozen=True, slots=True, eq=False)
class Datatype:
    """One type of element."""

    name: str
    """As requests and answers call it."""
    onnx_type: str
    """As ONNX Runtime calls a tensor of it."""
    storage: np.dtype[np.generic]
    """How an array holds it: BF16 as the 16 bits it is made of, BYTES as Python's `str`."""
    contents: str | None
    """The field of `InferTensorContents` for it; None where there is none, so that raw contents alone can hold it."""
    typed: np.dtype[np.generic]
    """How protobuf holds the values of that field: its integers are wider than some of the types."""
    config: pb.DataType.ValueType
    """As `ModelConfig` calls it."""
    packed_field: int | None
    """Number of the typed field, where its packed values on the wire are the array's own memory, and no varints."""


_WIDER: Final = {"int_contents": np.dtype(np.int32), "uint_contents": np.dtype(np.uint32)}
_PACKED_AS_IN_MEMORY: Final = {"bool_contents", "fp32_contents", "fp64_contents"}


def _datatype(name: str, onnx_name: str, storage: type[np.generic], contents: str | None, config: str) -> Datatype:
    packed = contents if contents in _PACKED_AS_IN_MEMORY else None
    number = pb.InferTensorContents.DESCRIPTOR.fields_by_name[packed].number if packed else None
    held = np.dtype(storage)
    typed = _WIDER.get(contents or "", held)
    return Datatype(name, f"tensor({onnx_name})", held, contents, typed, pb.DataType.Value(config), number)


ALL: Final = (
    _datatype("BOOL", "bool", np.bool_, "bool_contents", "TYPE_BOOL"),
    _datatype("UINT8", "uint8", np.uint8, "uint_contents", "TYPE_UINT8"),
    _datatype("UINT16", "uint16", np.uint16, "uint_contents", "TYPE_UINT16"),
    _datatype("UINT32", "uint32", np.uint32, "uint_contents", "TYPE_UINT32"),
    _datatype("UINT64", "uint64", np.uint64, "uint64_contents", "TYPE_UINT64"),
    _datatype("INT8", "int8", np.int8, "int_contents", "TYPE_INT8"),
    _datatype("INT16", "int16", np.int16, "int_contents", "TYPE_INT16"),
    _datatype("INT32", "int32", np.int32, "int_contents", "TYPE_INT32"),
    _datatype("INT64", "int64", np.int64, "int64_contents", "TYPE_INT64"),
    _datatype("FP16", "float16", np.float16, None, "TYPE_FP16"),
    _datatype("FP32", "float", np.float32, "fp32_contents", "TYPE_FP32"),
    _datatype("FP64", "double", np.float64, "fp64_contents", "TYPE_FP64"),
    _datatype("BYTES", "string", np.object_, "bytes_contents", "TYPE_STRING"),
    _datatype("BF16", "bfloat16", np.uint16, None, "TYPE_BF16"),
)

BY_NAME: Final = {datatype.name: datatype for datatype in ALL}
BY_ONNX_TYPE: Final = {datatype.onnx_type: datatype for datatype in ALL}
BOOL: Final = BY_NAME["BOOL"]
BYTES: Final = BY_NAME["BYTES"]
FP32: Final = BY_NAME["FP32"]


def named(name: str, field: str) -> Datatype:
    """Return the datatype that a request names.

    Raises:
        InvalidRequestError: the protocol, or ONNX Runtime, has none of that name.
    """
    datatype = BY_NAME.get(name)
    if datatype is None:
        raise InvalidRequestError(field, f"no datatype {name[:80]!r}: there are {', '.join(BY_NAME)}")
    return datatype


def of(spec: TensorSpec) -> Datatype:
    """Return the datatype of a model's input or output.

    Raises:
        UnsupportedError: the protocol has none for it.
    """
    datatype = BY_ONNX_TYPE.get(spec.onnx_type)
    if datatype is None:
        raise UnsupportedError(f"{spec.name!r} is a {spec.onnx_type}, for which the protocol has no datatype")
    return datatype
