"""Contents of tensors: every datatype comes back as it went, raw and typed, and nothing else is let in."""

import re
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies

from proto.inference.v2 import open_inference_pb2 as pb
from service.errors import InvalidRequestError
from service.open_inference.datatypes import ALL, BY_NAME, Datatype
from service.open_inference.request import InputHead
from service.open_inference.tensors import from_raw, from_typed, to_raw, to_typed
from tests.service.open_inference import calls, graphs

TYPED = [datatype for datatype in ALL if datatype.contents is not None]
SHAPES = numpy_strategies.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)


def _arrays(datatype: Datatype) -> st.SearchStrategy[calls.Array]:
    if datatype.name == "BYTES":
        texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
        return SHAPES.flatmap(
            lambda shape: st.lists(texts, min_size=int(np.prod(shape)), max_size=int(np.prod(shape))).map(
                lambda values: _objects(values, shape)
            )
        )
    return numpy_strategies.arrays(datatype.storage, SHAPES)


def _objects(values: list[str], shape: tuple[int, ...]) -> calls.Array:
    array = np.empty(len(values), dtype=np.object_)
    array[:] = values
    return array.reshape(shape)


def _same(one: calls.Array, other: calls.Array) -> bool:
    if one.dtype == np.object_:
        return one.shape == other.shape and bool(one.tolist() == other.tolist())
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def test_the_datatypes_are_those_of_both_sides() -> None:
    """Each has its own name, its own ONNX type, and its own place in a model's configuration."""
    assert {datatype.name for datatype in ALL} == set(graphs.ELEMENT_TYPES) == set(calls.STORAGE)
    assert len({datatype.onnx_type for datatype in ALL}) == len({datatype.config for datatype in ALL}) == len(ALL)
    assert {datatype.config for datatype in ALL} == set(pb.DataType.values()) - {pb.TYPE_INVALID}


@pytest.mark.parametrize("datatype", ALL, ids=lambda datatype: datatype.name)
@given(data=st.data())
def test_raw_contents_come_back(datatype: Datatype, data: st.DataObject) -> None:
    """Bit for bit, for any shape, with and without elements, and from an address of any alignment."""
    array = data.draw(_arrays(datatype))
    raw = bytes(to_raw(datatype, array))
    assert raw == calls.raw_of(datatype.name, array)
    tensor = InputHead("x", datatype, array.shape)
    offset = data.draw(st.integers(0, 8))
    moved = memoryview(bytes(offset) + raw)[offset:]
    for contents in (raw, moved):
        back = from_raw(tensor, contents)
        assert _same(back, array)


@pytest.mark.parametrize("datatype", TYPED, ids=lambda datatype: datatype.name)
@given(data=st.data())
def test_typed_contents_come_back(datatype: Datatype, data: st.DataObject) -> None:
    """What is written is what protobuf reads, and reads back as the same array."""
    array = data.draw(_arrays(datatype))
    contents = pb.InferTensorContents.FromString(b"".join(map(bytes, to_typed(datatype, array))))
    back = from_typed(InputHead("x", datatype, array.shape), contents)
    assert _same(back, array)


@pytest.mark.parametrize("datatype", ALL, ids=lambda datatype: datatype.name)
@given(shape=SHAPES, change=st.integers(-9, 9).filter(bool))
def test_raw_contents_of_another_size_are_refused(datatype: Datatype, shape: tuple[int, ...], change: int) -> None:
    """Too few bytes and too many, for every datatype."""
    array = (
        _objects([""] * int(np.prod(shape)), shape) if datatype.name == "BYTES" else np.zeros(shape, datatype.storage)
    )
    raw = bytes(to_raw(datatype, array))
    wrong = raw + bytes(change) if change > 0 else raw[:change]
    if len(wrong) == len(raw):
        return
    with pytest.raises(InvalidRequestError, match=r"^inputs\[x\]: "):
        from_raw(InputHead("x", datatype, array.shape), wrong)


@pytest.mark.parametrize(
    ("datatype", "shape", "contents", "text"),
    [
        ("FP32", [2], {"fp32_contents": [1.0]}, "1 values in fp32_contents, where shape [2] has 2"),
        ("FP32", [1], {"int_contents": [1]}, "int_contents is set, where FP32 stands in fp32_contents"),
        ("FP32", [1], {"fp32_contents": [1.0], "bytes_contents": [b""]}, "bytes_contents is set"),
        ("INT8", [2], {"int_contents": [1, 128]}, "value 1, 128, is not of INT8"),
        ("INT16", [1], {"int_contents": [-40_000]}, "value 0, -40000, is not of INT16"),
        ("UINT8", [1], {"uint_contents": [256]}, "value 0, 256, is not of UINT8"),
        ("INT8", [500], {"int_contents": [-128, 127] * 249 + [1, -129]}, "value 499, -129, is not of INT8"),
        ("UINT16", [500], {"uint_contents": [65535] * 499 + [1 << 16]}, "value 499, 65536, is not of UINT16"),
        ("FP16", [1], {"fp32_contents": [1.0]}, "FP16 has no typed contents: send it as raw contents"),
        ("BF16", [1], {}, "BF16 has no typed contents"),
        ("BYTES", [1], {"bytes_contents": [b"\xff"]}, "element 0 is not UTF-8"),
        ("FP32", [0, 1 << 62, 1 << 62], {}, "cannot be had"),
        ("FP32", [1] * 70, {"fp32_contents": [1.0]}, "cannot be had"),
    ],
)
def test_typed_contents_that_do_not_fit_are_refused(
    datatype: str, shape: list[int], contents: dict[str, Any], text: str
) -> None:
    """The error names the input and what is wrong with it."""
    with pytest.raises(InvalidRequestError, match=re.escape(text)):
        from_typed(InputHead("x", BY_NAME[datatype], tuple(shape)), pb.InferTensorContents(**contents))


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"\x01\x00\x00", "the raw contents end within element 0"),
        (b"\x05\x00\x00\x00abc", "the raw contents end within element 0"),
        (b"\x00\x00\x00\x00\xff\xff\xff\xff", "the raw contents go on after 1 texts, which are all that shape [1] has"),
        (b"", "0 texts, where shape [1] has 1"),
        (b"\x01\x00\x00\x00\xff", "element 0 is not UTF-8"),
    ],
)
def test_raw_texts_that_do_not_fit_are_refused(raw: bytes, text: str) -> None:
    """A length that promises more than there is reads nothing beyond the end."""
    with pytest.raises(InvalidRequestError, match=re.escape(text)):
        from_raw(InputHead("x", BY_NAME["BYTES"], (1,)), raw)


def test_no_more_raw_texts_are_read_than_the_shape_has() -> None:
    """Millions of empty ones, which a message has room for, are not made before they are counted."""
    raw = bytes(4 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequestError, match="go on after 3 texts"):
            from_raw(InputHead("x", BY_NAME["BYTES"], (3,)), raw)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_any_byte_but_zero_is_true() -> None:
    """A model never sees a bool that is neither 0 nor 1 in memory."""
    array = from_raw(InputHead("x", BY_NAME["BOOL"], (4,)), b"\x00\x01\x02\xff")
    assert array.view(np.uint8).tolist() == [0, 1, 1, 1]


def test_large_raw_contents_are_not_copied() -> None:
    """The array lies where the request's bytes do, and an answer's bytes where the array does."""
    raw = np.arange(65_536, dtype=np.float32).tobytes()
    array = from_raw(InputHead("x", BY_NAME["FP32"], (65_536, 1)), raw)
    assert np.shares_memory(array, np.frombuffer(raw, np.uint8))
    assert np.shares_memory(array, np.frombuffer(to_raw(BY_NAME["FP32"], array), np.uint8))
