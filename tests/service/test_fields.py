"""Fields are counted as protobuf reads them, whatever the bytes; what is over the bound is refused unread."""

import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st

from proto.inference.v2 import open_inference_pb2 as pb
from proto.quicksilver.v1 import converter_pb2 as api
from service.codec import parse
from service.errors import MalformedError, TooManyFieldsError
from service.fields import FIELD_BYTES, MAX_FIELDS, check_fields
from service.wire import varint

PARAMETERS = st.dictionaries(
    st.text(st.characters(codec="ascii"), max_size=3), st.builds(pb.InferParameter, int64_param=st.integers(0, 9))
)
TENSORS = st.builds(
    pb.ModelInferRequest.InferInputTensor,
    name=st.text(st.characters(codec="ascii"), max_size=3),
    shape=st.lists(st.integers(0, 300), max_size=3),
    parameters=PARAMETERS,
    contents=st.none() | st.builds(pb.InferTensorContents, bytes_contents=st.lists(st.binary(max_size=3), max_size=9)),
)
MESSAGES = st.builds(
    pb.ModelInferRequest,
    id=st.text(st.characters(codec="ascii"), max_size=3),
    inputs=st.lists(TENSORS, max_size=4),
    parameters=PARAMETERS,
    raw_input_contents=st.lists(st.binary(max_size=9), max_size=4),
)


def length_delimited(tag: bytes, value: bytes) -> bytes:
    """One field."""
    return tag + varint(len(value)) + value


def fields_of(message: Message) -> int:
    """How many fields a message has, by what protobuf read; a map's entry has a key and a value, even empty."""
    count = 0
    for field, value in message.ListFields():
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            count += 3 * len(value)
            continue
        repeats = field.is_repeated
        values = value if repeats and not field.is_packed else [value]
        count += len(values)
        if kind is not None and kind.full_name != "inference.InferTensorContents":
            count += sum(map(fields_of, values))
    return count


@given(message=MESSAGES)
def test_the_count_is_that_of_what_protobuf_reads(message: pb.ModelInferRequest) -> None:
    """So many fields are read, and with one less allowed they are refused."""
    body = message.SerializeToString()
    fields = fields_of(message)
    check_fields(pb.ModelInferRequest, body, fields)
    if fields and len(body) > FIELD_BYTES * (fields - 1):
        with pytest.raises(TooManyFieldsError, match=f"more than {fields - 1} fields"):
            check_fields(pb.ModelInferRequest, body, fields - 1)


@given(body=st.binary(max_size=60) | st.binary(max_size=30).map(lambda inner: length_delimited(b"\x2a", inner)))
def test_bytes_of_any_kind(body: bytes) -> None:
    """Nothing that protobuf reads has more objects than were counted."""
    try:
        message = pb.ModelInferRequest.FromString(body)
    except DecodeError:
        return
    objects = len(message.inputs) + len(message.outputs) + len(message.parameters) + len(message.raw_input_contents)
    objects += sum(len(tensor.parameters) + len(tensor.shape) for tensor in message.inputs if len(tensor.shape) <= 1)
    if objects:
        with pytest.raises((TooManyFieldsError, MalformedError)):
            check_fields(pb.ModelInferRequest, body, min(objects - 1, (len(body) - 1) // FIELD_BYTES))


@pytest.mark.parametrize("tag", [b"\x2a", b"\xaa\x00", b"\xaa\x80\x80\x80\x00"], ids=["short", "two", "five"])
@pytest.mark.parametrize("length", [b"\x00", b"\x80\x00"], ids=["short", "long"])
def test_a_tag_or_length_may_be_longer_than_it_needs(tag: bytes, length: bytes) -> None:
    """Protobuf reads these as inputs, so they are counted, and what is within them is."""
    assert len(pb.ModelInferRequest.FromString(tag + length).inputs) == 1
    most = len(tag + length) * MAX_FIELDS // FIELD_BYTES
    with pytest.raises(TooManyFieldsError):
        check_fields(pb.ModelInferRequest, (tag + length) * (most + 1), most)
    nested = length_delimited(tag, b"\x22\x00" * (MAX_FIELDS + 1))
    with pytest.raises(TooManyFieldsError):
        check_fields(pb.ModelInferRequest, nested)


@pytest.mark.parametrize(
    "unit",
    [
        b"\x22\x00",
        b"\x2a\x00",
        b"\x32\x00",
        b"\x3a\x00",
        length_delimited(b"\x2a", b"\x18\x01"),
        length_delimited(b"\x32", b"\x12\x00"),
        b"\x7b\x7c",
        b"\x78\x01",
        b"\x79" + bytes(8),
        b"\x7d" + bytes(4),
    ],
    ids=["parameters", "inputs", "outputs", "raw", "shapes", "of outputs", "groups", "varints", "fixed64", "fixed32"],
)
def test_the_bound(unit: bytes) -> None:
    """As many as may be are read; a message of eight megabytes is refused before protobuf sees it."""
    parse(pb.ModelInferRequest, unit * (MAX_FIELDS // 3))
    with pytest.raises(TooManyFieldsError, match=r"inference\.ModelInferRequest has more than 2048 fields"):
        parse(pb.ModelInferRequest, unit * ((8 << 20) // len(unit)))


@pytest.mark.parametrize(
    "end", [b"\x2a", b"\x2a\x05", b"\xff" * 11, b"\x08", b"\x79\x00", b"\x7e", b"\x2a\x02\x0a\x05"]
)
def test_a_field_without_an_end(end: bytes) -> None:
    """It is no message, nor to protobuf."""
    body = length_delimited(b"\x3a", bytes(FIELD_BYTES * MAX_FIELDS)) + end
    with pytest.raises(DecodeError):
        pb.ModelInferRequest.FromString(body)
    with pytest.raises(MalformedError):
        check_fields(pb.ModelInferRequest, body)


def test_lists_of_numbers_are_not_counted() -> None:
    """Nor are they where a writer does not pack them."""
    unpacked = b"\x25\x00\x00\x48\x42" * 100_000
    assert len(parse(api.ConvertRequest, unpacked).fahrenheit) == 100_000
    tensor = length_delimited(b"\x2a", length_delimited(b"\x2a", unpacked.replace(b"\x25", b"\x35")))
    assert len(parse(pb.ModelInferRequest, tensor).inputs[0].contents.fp32_contents) == 100_000
