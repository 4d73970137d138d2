"""Contents of tensors ↔ arrays: raw little-endian bytes, or typed values.

Raw numbers become arrays over the request's own bytes, and arrays raw bytes, without a copy where the machine is
little-endian; the bytes may lie off the boundary that their type needs. BYTES are, raw, each a length in 4 bytes and so
many bytes of UTF-8, which is what ONNX's strings are.
"""

import struct
from collections.abc import Sequence
from typing import Any, Final, cast

import numpy as np

from proto.inference.v2 import open_inference_pb2 as pb
from service.engine import Tensor
from service.errors import InvalidRequestError
from service.open_inference.datatypes import BOOL, BYTES, Datatype
from service.open_inference.request import InputHead
from service.wire import LITTLE_ENDIAN, Part, array_bytes, array_of, length_delimited

_LENGTH: Final = struct.Struct("<I")


def from_raw(tensor: InputHead, raw: bytes | memoryview) -> Tensor:
    """Read raw contents.

    Raises:
        InvalidRequestError: they are not as long as the shape says, or are no strings.
    """
    datatype = tensor.datatype
    if datatype is BYTES:
        return _strings(tensor, _take_strings(tensor, raw))
    if len(raw) != tensor.raw_bytes:
        raise InvalidRequestError(
            tensor.field,
            f"{len(raw)} bytes of raw contents, where {datatype.name} of shape {list(tensor.shape)} "
            f"has {tensor.raw_bytes}",
        )
    array = np.frombuffer(raw, datatype.storage)
    if datatype is BOOL:
        array = array.view(np.uint8) != 0  # a bool in memory is 0 or 1, whatever was sent
    elif not LITTLE_ENDIAN:
        array = array.byteswap()
    return _shaped(tensor, array)


def from_typed(tensor: InputHead, contents: pb.InferTensorContents) -> Tensor:
    """Read typed contents.

    Raises:
        InvalidRequestError: they stand in another type's field, are not as many as the shape says, or do not fit the
            type; or the type has no typed contents.
    """
    field, datatype = tensor.field, tensor.datatype
    if datatype.contents is None:
        raise InvalidRequestError(field, f"{datatype.name} has no typed contents: send it as raw contents")
    if foreign := [known.name for known, _ in contents.ListFields() if known.name != datatype.contents]:
        raise InvalidRequestError(field, f"{foreign[0]} is set, where {datatype.name} stands in {datatype.contents}")
    values = getattr(contents, datatype.contents)
    if len(values) != tensor.elements:
        raise InvalidRequestError(
            field,
            f"{len(values)} values in {datatype.contents}, where shape {list(tensor.shape)} has {tensor.elements}",
        )
    if datatype is BYTES:
        return _strings(tensor, values)
    return _shaped(tensor, _numbers(tensor, values))


def to_raw(datatype: Datatype, array: Tensor) -> Part:
    """Write raw contents: of numbers a view of the array where it is contiguous."""
    if datatype is BYTES:
        texts = [str(text).encode() for text in array.ravel().tolist()]
        return b"".join(part for text in texts for part in (_LENGTH.pack(len(text)), text))
    return array_bytes(array)


def to_typed(datatype: Datatype, array: Tensor) -> list[Part]:
    """Write the fields of an `InferTensorContents`, in parts. The datatype must have typed contents."""
    assert datatype.contents is not None  # noqa: S101 - the caller chose raw contents otherwise
    if not array.size:
        return []
    if datatype.packed_field is not None:
        return length_delimited(datatype.packed_field, [array_bytes(array)])
    values = array.ravel().tolist()
    if datatype is BYTES:
        values = [str(text).encode() for text in values]
    contents = pb.InferTensorContents(**cast("dict[str, Any]", {datatype.contents: values}))
    return [contents.SerializeToString()]


def _shaped(tensor: InputHead, array: Tensor) -> Tensor:
    try:
        return array.reshape(tensor.shape)
    except ValueError as error:  # more dimensions, or larger ones beside a 0, than NumPy has
        raise InvalidRequestError(tensor.field, f"shape {list(tensor.shape)} cannot be had: {error}") from None


def _numbers(tensor: InputHead, values: Any) -> Tensor:  # noqa: ANN401 - a repeated field of any type
    datatype = tensor.datatype
    array = array_of(values, datatype.typed)
    if datatype.typed == datatype.storage:
        return array
    fitted = array.astype(datatype.storage)
    wrong = np.flatnonzero(fitted != array)
    if wrong.size:
        raise InvalidRequestError(tensor.field, f"value {wrong[0]}, {array[wrong[0]]}, is not of {datatype.name}")
    return fitted


def _take_strings(tensor: InputHead, raw: bytes | memoryview) -> list[bytes]:
    """Take the texts apart, and no more of them than there should be: each, however short, becomes an object."""
    texts: list[bytes] = []
    start = 0
    while start < len(raw):
        if len(texts) >= tensor.elements:
            raise InvalidRequestError(
                tensor.field,
                f"the raw contents go on after {len(texts)} texts, which are all that shape {list(tensor.shape)} has",
            )
        begin = start + _LENGTH.size
        length = _LENGTH.unpack_from(raw, start)[0] if begin <= len(raw) else 0
        start = begin + length
        if start > len(raw):
            raise InvalidRequestError(
                tensor.field,
                f"the raw contents end within element {len(texts)}: each is a length in 4 bytes, then its bytes",
            )
        texts.append(bytes(raw[begin:start]))
    return texts


def _strings(tensor: InputHead, texts: Sequence[bytes]) -> Tensor:
    if len(texts) != tensor.elements:
        raise InvalidRequestError(
            tensor.field, f"{len(texts)} texts, where shape {list(tensor.shape)} has {tensor.elements}"
        )
    array = np.empty(len(texts), dtype=np.object_)
    for index, text in enumerate(texts):
        try:
            array[index] = text.decode()
        except UnicodeDecodeError:
            raise InvalidRequestError(tensor.field, f"element {index} is not UTF-8, which ONNX's strings are") from None
    return _shaped(tensor, array)
