"""Contents of tensors ↔ arrays: raw little-endian bytes, or typed values.

Raw numbers become arrays over the request's own bytes, and arrays raw bytes, without a copy where the machine is
little-endian and the bytes lie on the boundary their type needs. BYTES are, raw, each a length in 4 bytes and so many
bytes of UTF-8, which is what ONNX's strings are.
"""

import struct
import sys
from collections.abc import Iterable
from typing import Any, Final, cast

import numpy as np

from proto.inference.v2 import open_inference_pb2 as pb
from service.engine import Tensor
from service.errors import InvalidRequestError
from service.open_inference.datatypes import BOOL, BYTES, Datatype
from service.wire import Part, length_delimited, little_endian

_LENGTH: Final = struct.Struct("<I")
_PACKED_AS_IN_MEMORY: Final = {"BOOL": np.bool_, "FP32": np.float32, "FP64": np.float64}
"""Types whose packed values on the wire are the array's own memory; the other typed fields hold varints or texts."""


def elements(shape: Iterable[int]) -> int:
    """How many elements a shape holds; of any size, unlike NumPy's product."""
    count = 1
    for size in shape:
        count *= size
    return count


def from_raw(field: str, datatype: Datatype, shape: tuple[int, ...], raw: bytes | memoryview) -> Tensor:
    """Read raw contents.

    Raises:
        InvalidRequestError: they are not as long as the shape says, or are no strings.
    """
    if datatype is BYTES:
        return _strings(field, shape, _take_strings(field, raw))
    expected = elements(shape) * datatype.storage.itemsize
    if len(raw) != expected:
        raise InvalidRequestError(
            field, f"{len(raw)} bytes of raw contents, where {datatype.name} of shape {list(shape)} has {expected}"
        )
    array = np.frombuffer(raw, datatype.storage)
    if datatype is BOOL:
        array = array.view(np.uint8) != 0  # a bool in memory is 0 or 1, whatever was sent
    elif sys.byteorder != "little":
        array = array.byteswap()
    elif not array.flags.aligned:
        array = array.copy()
    return _shaped(field, array, shape)


def from_typed(field: str, datatype: Datatype, shape: tuple[int, ...], contents: pb.InferTensorContents) -> Tensor:
    """Read typed contents.

    Raises:
        InvalidRequestError: they stand in another type's field, are not as many as the shape says, or do not fit the
            type; or the type has no typed contents.
    """
    if datatype.contents is None:
        raise InvalidRequestError(field, f"{datatype.name} has no typed contents: send it as raw contents")
    if foreign := [known.name for known, _ in contents.ListFields() if known.name != datatype.contents]:
        raise InvalidRequestError(field, f"{foreign[0]} is set, where {datatype.name} stands in {datatype.contents}")
    values = getattr(contents, datatype.contents)
    if len(values) != elements(shape):
        raise InvalidRequestError(
            field,
            f"{len(values)} values in {datatype.contents}, where shape {list(shape)} has {elements(shape)}",
        )
    if datatype is BYTES:
        return _strings(field, shape, list(values))
    return _shaped(field, _numbers(field, datatype, values), shape)


def to_raw(datatype: Datatype, array: Tensor) -> Part:
    """Write raw contents: of numbers a view of the array where it is contiguous."""
    if datatype is BYTES:
        texts = [str(text).encode() for text in array.ravel().tolist()]
        return b"".join(part for text in texts for part in (_LENGTH.pack(len(text)), text))
    return little_endian(array)


def to_typed(datatype: Datatype, array: Tensor) -> list[Part]:
    """Write the fields of an `InferTensorContents`, in parts. The datatype must have typed contents."""
    assert datatype.contents is not None  # noqa: S101 - the caller chose raw contents otherwise
    if not array.size:
        return []
    if datatype.name in _PACKED_AS_IN_MEMORY:
        number = pb.InferTensorContents.DESCRIPTOR.fields_by_name[datatype.contents].number
        return length_delimited(number, [little_endian(array)])
    values = array.ravel().tolist()
    if datatype is BYTES:
        values = [str(text).encode() for text in values]
    contents = pb.InferTensorContents(**cast("dict[str, Any]", {datatype.contents: values}))
    return [contents.SerializeToString()]


def _shaped(field: str, array: Tensor, shape: tuple[int, ...]) -> Tensor:
    try:
        return array.reshape(shape)
    except ValueError as error:  # more dimensions, or larger ones beside a 0, than NumPy has
        raise InvalidRequestError(field, f"shape {list(shape)} cannot be had: {error}") from None


def _numbers(field: str, datatype: Datatype, values: Any) -> Tensor:  # noqa: ANN401 - a repeated field of any type
    try:
        return np.array(values, dtype=datatype.storage)
    except OverflowError:
        limits = np.iinfo(cast("np.dtype[np.integer[Any]]", datatype.storage))
        index = next(index for index, value in enumerate(values) if not limits.min <= value <= limits.max)
        raise InvalidRequestError(field, f"value {index}, {values[index]}, is not of {datatype.name}") from None


def _take_strings(field: str, raw: bytes | memoryview) -> list[bytes]:
    texts = []
    start = 0
    while start < len(raw):
        begin = start + _LENGTH.size
        length = _LENGTH.unpack_from(raw, start)[0] if begin <= len(raw) else 0
        start = begin + length
        if start > len(raw):
            raise InvalidRequestError(
                field, f"the raw contents end within element {len(texts)}: each is a length in 4 bytes, then its bytes"
            )
        texts.append(bytes(raw[begin:start]))
    return texts


def _strings(field: str, shape: tuple[int, ...], texts: list[bytes]) -> Tensor:
    if len(texts) != elements(shape):
        raise InvalidRequestError(field, f"{len(texts)} texts, where shape {list(shape)} has {elements(shape)}")
    array = np.empty(len(texts), dtype=np.object_)
    for index, text in enumerate(texts):
        try:
            array[index] = text.decode()
        except UnicodeDecodeError:
            raise InvalidRequestError(field, f"element {index} is not UTF-8, which ONNX's strings are") from None
    return _shaped(field, array, shape)
