"""Reading requests: what is found by its bytes is what protobuf reads, and what is remembered is bounded."""

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proto.inference.v2 import open_inference_pb2 as pb
from service.errors import InvalidRequestError, MalformedError, ServiceError, UnimplementedError
from service.fields import MAX_FIELDS
from service.open_inference.infer import MAX_SEARCHED_BYTES, InferCodec
from service.open_inference.request import COPIED_BYTES, MAX_REMEMBERED_BYTES, Heads, choice_of
from service.remembered import MAX_REMEMBERED, Remembered
from service.wire import take_out

ID = pb.ModelInferRequest.ID_FIELD_NUMBER
RAW = pb.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
TENSORS = st.builds(
    pb.ModelInferRequest.InferInputTensor,
    name=TEXTS,
    datatype=st.sampled_from(["FP32", "INT64", "BYTES"]),
    shape=st.lists(st.integers(0, 300), max_size=3),
)
MESSAGES = st.builds(
    pb.ModelInferRequest,
    model_name=TEXTS,
    model_version=st.sampled_from(["", "1", "42", "stable"]),
    id=TEXTS,
    inputs=st.lists(TENSORS, max_size=3),
    outputs=st.lists(st.builds(pb.ModelInferRequest.InferRequestedOutputTensor, name=TEXTS), max_size=2),
    raw_input_contents=st.lists(st.binary(max_size=300), max_size=3),
)


@given(messages=st.lists(MESSAGES, min_size=1, max_size=3))
def test_fields_are_taken_out_as_protobuf_reads_them(messages: list[pb.ModelInferRequest]) -> None:
    """Of any message, and of several one after the other, which are one message to protobuf."""
    body = b"".join(message.SerializeToString() for message in messages)
    whole = pb.ModelInferRequest.FromString(body)
    taken = take_out(body, ID, RAW, MAX_FIELDS)
    assert taken is not None
    assert list(map(bytes, taken.second)) == list(whole.raw_input_contents)
    assert taken.first.decode() == whole.id
    rest = pb.ModelInferRequest.FromString(taken.rest)
    whole.ClearField("id")
    whole.ClearField("raw_input_contents")
    assert rest == whole


@given(body=st.binary(max_size=40))
def test_bytes_of_any_kind_are_left_to_protobuf_or_taken_apart_as_it_does(body: bytes) -> None:
    """Nothing is read past the end, and nothing is taken that protobuf would not take."""
    taken = take_out(body, ID, RAW, MAX_FIELDS)
    try:
        whole = pb.ModelInferRequest.FromString(body)
    except Exception:  # noqa: BLE001 - whatever protobuf raises for garbage
        return
    if taken is not None:
        assert list(map(bytes, taken.second)) == list(whole.raw_input_contents)
        assert taken.first.decode() == whole.id


@given(message=MESSAGES.filter(lambda message: len(message.inputs) == len(message.raw_input_contents)))
def test_small_and_large_requests_are_read_alike(message: pb.ModelInferRequest) -> None:
    """The way through protobuf and the way through views find the same head, id and contents."""
    heads = Heads()
    small = heads.read(message.SerializeToString())
    if not message.raw_input_contents:
        assert [small.raw, len(small.typed)] == [(), len(message.inputs)]
        return
    padded = pb.ModelInferRequest()
    padded.CopyFrom(message)
    padded.raw_input_contents[0] += bytes(COPIED_BYTES)
    large = heads.read(padded.SerializeToString())
    assert large.head is small.head
    assert large.id == small.id == message.id.encode()
    assert list(map(bytes, small.raw)) == list(message.raw_input_contents)
    assert list(map(bytes, large.raw)) == list(padded.raw_input_contents)


def _request(**fields: Any) -> pb.ModelInferRequest:  # noqa: ANN401 - any field
    message = pb.ModelInferRequest(**{"model_name": "m", "raw_input_contents": [bytes(4)], **fields})
    message.inputs.add(name="x", datatype="FP32", shape=[1])
    return message


def test_the_same_head_is_the_same_object() -> None:
    """Whatever the id and the contents are, raw or typed."""
    heads = Heads()
    typed = _request(id="c")
    typed.ClearField("raw_input_contents")
    typed.inputs[0].contents.fp32_contents.append(1.5)
    first, second, third = (
        heads.read(each.SerializeToString()) for each in (_request(id="a"), _request(id="b"), typed)
    )
    assert first.head is second.head is third.head
    assert [first.id, second.id, third.id] == [b"a", b"b", b"c"]
    assert list(third.typed[0].fp32_contents) == [1.5]


@pytest.mark.parametrize("rows", [1, COPIED_BYTES, MAX_SEARCHED_BYTES])
def test_a_request_that_is_like_another_is_read_as_if_it_were_the_first(rows: int) -> None:
    """Its elements are its own; and one of the same length that differs in anything else is not taken for its like."""
    remembering = InferCodec()
    for value, fields in enumerate([{}, {}, {"model_name": "n"}, {"id": "2"}, {"id": "3"}, {"model_version": "1"}, {}]):
        head, contents = _request(**{"id": "1", **fields}), np.full(rows, value, np.float32).tobytes()
        head.inputs[0].shape[:] = [rows]
        head.ClearField("raw_input_contents")
        raw = pb.ModelInferRequest(raw_input_contents=[contents])
        for parts in ((head, raw), (raw, head)):
            body = b"".join(part.SerializeToString() for part in parts)
            for codec in (remembering, InferCodec()):
                query = codec.decode(body)
                assert query.asked.head.model == head.model_name
                assert query.asked.head.choice == choice_of(head.model_version)
                assert query.identity == head.id.encode()
                assert [tensor.tobytes() for tensor in query.tensors] == [contents]


IDS = st.sampled_from([b"abc", b"xyz", b"\x1a\x01a", "ö1".encode(), b"\xff\xfe\xfd"])
"""Of one length: plain ones, one that looks like a field, one that is not ASCII, and one that is not UTF-8."""


@given(
    order=st.permutations(range(6)),
    twice=st.booleans(),
    requests=st.lists(
        st.tuples(st.sampled_from([b"plain", b"\x1a\x03abc", b"\x1a\x03xyz"]), IDS, IDS, st.sampled_from([b"1", b"2"])),
        min_size=2,
        max_size=6,
    ),
)
@example(  # what looks like an id's field, in a text in front of the field itself
    order=[0, 1, 2, 3, 4, 5],
    twice=False,
    requests=[(b"\x1a\x03abc", b"abc", b"abc", b"1"), (b"\x1a\x03xyz", b"abc", b"abc", b"1")],
)
@example(  # the last of two ids counts
    order=[0, 1, 2, 3, 4, 5], twice=True, requests=[(b"plain", b"abc", b"abc", b"1"), (b"plain", b"xyz", b"abc", b"1")]
)
@example(  # something else differs, behind the id
    order=[0, 1, 2, 3, 4, 5], twice=False, requests=[(b"plain", b"abc", b"", b"1"), (b"plain", b"abc", b"", b"2")]
)
def test_a_request_is_read_with_its_own_id_wherever_that_stands(
    *, order: list[int], twice: bool, requests: list[tuple[bytes, bytes, bytes, bytes]]
) -> None:
    """After others of its length as by itself: also with fields in any order, or two ids."""
    remembering = InferCodec()
    inputs = pb.ModelInferRequest(inputs=_request().inputs).SerializeToString()
    for value, (name, first, second, version) in enumerate(requests):
        raw = pb.ModelInferRequest(raw_input_contents=[np.float32(value).tobytes()]).SerializeToString()
        again = b"\x1a\x03" + second if twice else b""
        fields = [b"\x0a\x05" + name, b"\x1a\x03" + first, again, b"\x12\x01" + version, inputs, raw]
        body = b"".join(fields[place] for place in order)
        assert _read(remembering, body) == _read(InferCodec(), body)


def _read(codec: InferCodec, body: bytes) -> tuple[Any, ...]:
    try:
        query = codec.decode(body)
    except ServiceError as error:
        return type(error), error.message
    assert query.identity.decode() == pb.ModelInferRequest.FromString(body).id
    return query.identity, query.model, query.choice, [tensor.tobytes() for tensor in query.tensors]


def test_what_is_remembered_is_bounded() -> None:
    """Neither many heads nor a long one stays in memory."""
    table: Remembered[int, int] = Remembered()
    for key in range(MAX_REMEMBERED * 3 + 7):
        table.put(key, key)
        assert len(table._entries) <= MAX_REMEMBERED  # noqa: SLF001 - the bound is what is promised
    heads = Heads()
    long = _request(model_version="1")
    long.model_name = "m" * MAX_REMEMBERED_BYTES
    body = long.SerializeToString()
    assert heads.read(body).head is not heads.read(body).head


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda m: m.raw_input_contents.append(b""), InvalidRequestError, "2 entries for 1 inputs"),
        (lambda m: m.inputs[0].contents.fp32_contents.append(1), InvalidRequestError, "beside raw_input_contents"),
        (lambda m: setattr(m.inputs[0], "datatype", "FP8"), InvalidRequestError, "no datatype 'FP8': there are BOOL"),
        (lambda m: m.inputs[0].shape.append(-1), InvalidRequestError, r"\[1, -1\] has a negative dimension"),
        (lambda m: setattr(m, "model_version", "1.5"), InvalidRequestError, "'1.5' is neither a whole number"),
        (
            lambda m: setattr(m.inputs[0].parameters["shared_memory_region"], "string_param", "r"),
            UnimplementedError,
            "shared memory",
        ),
        (
            lambda m: setattr(m.outputs.add(name="y").parameters["classification"], "int64_param", 3),
            UnimplementedError,
            "classification",
        ),
        (
            lambda m: setattr(m.outputs.add(name="y").parameters["shared_memory_region"], "string_param", "r"),
            UnimplementedError,
            "shared memory",
        ),
    ],
)
def test_a_request_that_cannot_be_is_refused(change: Any, error: type[Exception], text: str) -> None:  # noqa: ANN401 - a function of the message
    """Each with an error that names the field, small and large alike."""
    for size in (4, COPIED_BYTES * 2):
        message = _request()
        message.raw_input_contents[0] = bytes(size)
        change(message)
        with pytest.raises(error, match=text):
            Heads().read(message.SerializeToString())


@pytest.mark.parametrize("size", [4, COPIED_BYTES * 2])
def test_an_id_that_is_no_text_is_no_message(size: int) -> None:
    """As protobuf has it, whichever way the request is read."""
    body = b"\x1a\x01\xff" + pb.ModelInferRequest(model_name="m", raw_input_contents=[bytes(size)]).SerializeToString()
    with pytest.raises(MalformedError, match=r"not an? inference\.ModelInferRequest"):
        Heads().read(body)


@pytest.mark.parametrize(
    ("text", "choice"), [("", None), ("1", 1), ("17", 17), ("stable", "stable"), ("canary-2", "canary-2")]
)
def test_a_version_is_a_number_or_a_label(text: str, choice: object) -> None:
    """And nothing is what answers by default."""
    assert choice_of(text) == choice


@pytest.mark.parametrize("text", ["0", "01", "-1", "1.0", " 1", "1 ", "²", "A", "../1", "1" * 19, "9" * 5000])
def test_other_versions_are_refused(text: str) -> None:
    """Whatever Python would make of them."""
    with pytest.raises(InvalidRequestError, match="neither a whole number from 1 nor a label"):
        choice_of(text)


def test_more_dimensions_than_an_array_has_are_refused_before_they_are_multiplied() -> None:
    """A shape of a million large dimensions costs nothing but its reading."""
    message = _request()
    message.inputs[0].shape.extend([1 << 62] * 1_000_000)
    with pytest.raises(InvalidRequestError, match=r"inputs\[x\].shape: has 1000001 dimensions; 64 may be"):
        Heads().read(message.SerializeToString())


def test_errors_repeat_only_the_beginning_of_what_was_sent() -> None:
    """So that a message as large as may be is not answered by another."""
    for change in (
        lambda m: m.inputs.add(name="x" * 100_000, datatype="FP32").shape.append(-1),
        lambda m: setattr(m.inputs[0], "datatype", "F" * 100_000),
        lambda m: setattr(m, "model_version", "-" * 100_000),
    ):
        message = _request()
        change(message)
        with pytest.raises(InvalidRequestError) as caught:
            Heads().read(message.SerializeToString())
        assert len(caught.value.message) < 1000


@given(body=st.binary(max_size=200), cut=st.integers(0, 80), at=st.integers(0, 80))
def test_whatever_comes_is_read_or_refused(body: bytes, cut: int, at: int) -> None:
    """Bytes put into a valid message, or in the place of some of it, raise nothing but errors of the domain."""
    message = _request(id="17").SerializeToString()
    for mangled in (body, message[:at] + body + message[at:], message[:at] + body[:4] + message[at + cut % 5 :]):
        with contextlib.suppress(ServiceError):
            InferCodec().decode(mangled)
