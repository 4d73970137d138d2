"""Bytes to queries and answers to bytes: what we write ourselves is what protobuf would have written."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from proto.quicksilver.v1 import converter_pb2 as api
from proto.repository import Repository
from service.codec import COPIED_BYTES, ConvertCodec, ConvertStreamCodec, parse, query_of
from service.engine import EngineOptions
from service.errors import InvalidRequestError, MalformedError, ServiceError, UnsupportedError
from service.models import LoadedVersion, load_version
from service.query import Answer, ConvertQuery, OnExtrapolation
from service.wire import array_bytes, packed_ascending, packed_floats, varint
from tests.service.artefacts import HALF_WIDTH_CELSIUS, make_artefact

FLOATS = hnp.arrays(np.float32, st.integers(1, 300), elements=st.floats(width=32, allow_nan=False))


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> LoadedVersion:
    """A loaded converter."""
    repository = Repository(Path(tmp_path_factory.mktemp("models")))
    repository.publish("linear", make_artefact())
    return load_version(repository, "linear", 1, EngineOptions(device="cpu"))


def _query(**options: object) -> ConvertQuery:
    return replace(ConvertQuery("linear", None, np.zeros(1, np.float32)), **options)  # type: ignore[arg-type] # any option


@given(celsius=FLOATS, data=st.data())
def test_an_answer_parses_as_the_message_it_stands_for(
    version: LoadedVersion, celsius: NDArray[np.float32], data: st.DataObject
) -> None:
    """Written by hand and parsed by protobuf, an answer has every field as it was, in canonical bytes."""
    repeats = data.draw(st.sampled_from([1, 500]))  # few rows outside, and many
    celsius, outside = np.tile(celsius, repeats), np.tile(data.draw(hnp.arrays(np.bool_, len(celsius))), repeats)
    interval = data.draw(st.booleans())
    request_id = data.draw(st.sampled_from(["", "r-1", "é"]))
    answer = Answer(version, [celsius.reshape(-1, 1)], outside, inside=not outside.any())
    written = b"".join(ConvertCodec().encode(_query(interval=interval, request_id=request_id), answer))

    expected = api.ConvertResponse(model="linear", version=1, celsius=celsius.tolist(), request_id=request_id)
    expected.domain_status = api.DOMAIN_STATUS_OUTSIDE if outside.any() else api.DOMAIN_STATUS_INSIDE
    expected.extrapolated_rows.extend(np.flatnonzero(outside).tolist())
    if interval:
        half_width = np.where(outside, np.float32(np.nan), np.float32(HALF_WIDTH_CELSIUS))
        with np.errstate(over="ignore"):
            expected.interval.celsius_lower.extend((celsius - half_width).tolist())
            expected.interval.celsius_upper.extend((celsius + half_width).tolist())
        expected.interval.coverage = 0.8
    assert written == expected.SerializeToString()


@given(value=st.integers(0, 1 << 63))
def test_varints_are_protobufs(value: int) -> None:
    """A whole number of any size is written as protobuf writes it."""
    message = api.TrainingRun(dataset_rows=value) if value < 1 << 63 else None
    if message is not None and value:
        assert message.SerializeToString() == b"\x30" + varint(value)


@given(
    count=st.integers(1, 400),
    start=st.sampled_from([0, 1, 100, 127, 16_000, 2_097_000, (1 << 28) - 9, (1 << 32) - 400]),
)
def test_ascending_numbers_are_protobufs(count: int, start: int) -> None:
    """Few and many, of one length on the wire and of several."""
    rows = np.arange(start, start + count)
    message = api.ConvertResponse(extrapolated_rows=rows.tolist())
    field = api.ConvertResponse.EXTRAPOLATED_ROWS_FIELD_NUMBER
    assert b"".join(packed_ascending(field, rows)) == message.SerializeToString()


def test_no_values_make_no_field() -> None:
    """An empty list is not written, as in proto3."""
    assert packed_floats(3, np.zeros(0, np.float32)) == []


@pytest.mark.parametrize("step", [1, 2, -1])
def test_any_memory_layout_is_written_in_order(step: int) -> None:
    """Rows that do not lie one after the other in memory are still written one after the other."""
    values = np.arange(10, dtype=np.float32)[::step]
    parsed = api.ConvertResponse.FromString(b"".join(packed_floats(3, values)))
    assert list(parsed.celsius) == values.tolist()


def test_rows_of_a_shared_run_are_not_kept_alive_by_an_answer_that_nobody_takes() -> None:
    """Many values are a view where they are all of their array, and a copy where they are a part of a larger one."""
    values = np.arange(100_000, dtype=np.float32).reshape(-1, 1)
    whole, part = array_bytes(values.reshape(-1)), array_bytes(values[10:60_000].reshape(-1))
    assert isinstance(whole, memoryview)
    assert isinstance(part, bytes)
    assert part == whole[40:240_000]


def test_floats_that_are_not_packed_are_read_too() -> None:
    """A client that writes each float with a tag of its own, as it may, is understood."""
    body = b"".join(b"\x25" + np.float32(value).tobytes() for value in (32, 212))
    assert ConvertCodec().decode(body).rows.tolist() == [32.0, 212.0]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (api.ConvertRequest(), "fahrenheit"),
        (api.ConvertRequest(fahrenheit=[1], version=0), "version"),
        (api.ConvertRequest(fahrenheit=[1], version=-3), "version"),
        (api.ConvertRequest(fahrenheit=[1], label=""), "label"),
        (api.ConvertRequest(fahrenheit=[1], request_id="a\nb"), "request_id"),
        (api.ConvertRequest(fahrenheit=[1], request_id="x" * 121), "request_id"),
        (api.ConvertRequest(fahrenheit=[1], on_extrapolation=9), "on_extrapolation"),  # type: ignore[arg-type] # no such value
    ],
)
def test_a_request_that_makes_no_sense_is_refused_by_field(request_: api.ConvertRequest, field: str) -> None:
    """The error names the field that is wrong."""
    with pytest.raises(InvalidRequestError) as caught:
        ConvertCodec().decode(request_.SerializeToString())
    assert caught.value.violations[0].field == field


def test_requests_that_differ_in_their_id_are_read_once() -> None:
    """Ids fill no table: what is remembered of a client is the same whatever its ids are."""
    codec = ConvertCodec()
    for number in range(50):
        body = api.ConvertRequest(fahrenheit=[32], interval=True, request_id=f"r{number}").SerializeToString()
        assert codec.decode(body).request_id == f"r{number}"
        assert codec.pattern(body) is None
    assert len(codec._read) == 1  # noqa: SLF001 - what is kept shows nowhere else


def test_bytes_that_are_no_message_are_refused() -> None:
    """Garbage is named as such."""
    with pytest.raises(MalformedError, match=r"quicksilver\.v1\.ConvertRequest"):
        ConvertCodec().decode(b"\xff\xff\xff")


def test_a_version_and_a_label_are_read() -> None:
    """Which version shall answer comes through."""
    assert ConvertCodec().decode(api.ConvertRequest(fahrenheit=[1], version=3).SerializeToString()).choice == 3
    assert (
        ConvertCodec().decode(api.ConvertRequest(fahrenheit=[1], label="canary").SerializeToString()).choice == "canary"
    )


def test_an_unknown_domain_is_said_to_be_unknown(version: LoadedVersion) -> None:
    """No flag is not the same as inside."""
    answer = Answer(version, [np.ones((1, 1), np.float32)], None, inside=False)
    parsed = api.ConvertResponse.FromString(b"".join(ConvertCodec().encode(_query(), answer)))
    assert parsed.domain_status == api.DOMAIN_STATUS_UNKNOWN
    with pytest.raises(UnsupportedError):
        ConvertCodec().encode(_query(interval=True), answer)


def test_nobody_looks_where_nobody_was_asked_to(version: LoadedVersion) -> None:
    """`ON_EXTRAPOLATION_IGNORE` leaves the status out."""
    answer = Answer(version, [np.ones((1, 1), np.float32)], np.array([True]), inside=False)
    query = _query(on_extrapolation=OnExtrapolation.IGNORE)
    parsed = api.ConvertResponse.FromString(b"".join(ConvertCodec().encode(query, answer)))
    assert parsed.domain_status == api.DOMAIN_STATUS_UNSPECIFIED
    assert not parsed.extrapolated_rows


@given(identifier=st.text(max_size=20))
def test_a_stream_answer_carries_its_id(version: LoadedVersion, identifier: str) -> None:
    """Whatever the id is, it comes back, with the answer and with the error."""
    message = api.ConvertStreamRequest(id=identifier, request=api.ConvertRequest(fahrenheit=[32]))
    codec = ConvertStreamCodec(message)
    query = codec.decode(b"")
    answer = Answer(version, [np.array([[7.5]], np.float32)], np.array([False]), inside=True)
    parsed = api.ConvertStreamResponse.FromString(b"".join(codec.encode(query, answer)))
    assert (parsed.id, list(parsed.response.celsius)) == (identifier, [7.5])

    failed = api.ConvertStreamResponse.FromString(b"".join(codec.encode_error(InvalidRequestError("x", "is wrong"))))
    assert (failed.id, failed.error.code, failed.error.message) == (identifier, 3, "x: is wrong")


REQUESTS = st.builds(
    api.ConvertRequest,
    model=st.sampled_from(["", "linear", 'a"b', '"', '""\x04']),
    label=st.sampled_from(["stable", '"', '"\x04abcd']),
    fahrenheit=st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=40),
    interval=st.booleans(),
    on_extrapolation=st.sampled_from([0, 1, 2, 3]),
    request_id=st.one_of(st.just(""), st.sampled_from([":", ':!"', "é", "a:b"]), st.uuids().map(str)),
)


@given(requests=st.lists(REQUESTS, min_size=1, max_size=12), data=st.data())
def test_a_request_is_read_the_same_whatever_was_read_before(
    requests: list[api.ConvertRequest], data: st.DataObject
) -> None:
    """What is remembered of requests that look alike never leaks into another, whatever their texts hold."""
    codec = ConvertCodec()
    for request in requests * 2:
        body = request.SerializeToString()
        if data.draw(st.booleans()):  # fields in another order, as any client may write them
            body = api.ConvertRequest(interval=request.interval).SerializeToString() + body
        if data.draw(st.booleans()):  # a second id, of which the last counts
            body = api.ConvertRequest(request_id="first").SerializeToString() + body
        query, fresh = codec.decode(body), query_of(api.ConvertRequest.FromString(body))
        assert query.rows.tolist() == fresh.rows.tolist() == list(request.fahrenheit)
        assert (query.model, query.choice) == (request.model, request.label)
        assert (query.interval, query.on_extrapolation) == (fresh.interval, fresh.on_extrapolation)
        assert query.request_id == fresh.request_id == api.ConvertRequest.FromString(body).request_id


@given(body=st.binary(max_size=60), known=REQUESTS)
def test_bytes_are_refused_the_same_whatever_was_read_before(body: bytes, known: api.ConvertRequest) -> None:
    """Damaged requests are not taken for one that was read: they are read, or refused, as if they were the first."""
    codec = ConvertCodec()
    good = known.SerializeToString()
    codec.decode(good)
    for damaged in (body, good[:-1], good + body, good[: len(good) // 2] + body):
        assert _outcome(codec.decode, damaged) == _outcome(ConvertCodec().decode, damaged)


LONG = np.linspace(-40, 120, COPIED_BYTES, dtype=np.float32)


@given(request=REQUESTS, data=st.data())
def test_a_long_request_is_read_as_protobuf_reads_it(request: api.ConvertRequest, data: st.DataObject) -> None:
    """Whatever stands beside its temperatures, in whatever order, in how many fields; and refused alike if damaged."""
    few = [api.ConvertRequest(fahrenheit=[1, 2]).SerializeToString(), b"\x25" + np.float32(3).tobytes(), b"\x22\x00"]
    others = [api.ConvertRequest(version=1 << 40), api.ConvertRequest(version=7), api.ConvertRequest(request_id="b")]
    choices = [*few, *(other.SerializeToString() for other in others), b"\x7a\x01x", b"\x80\x01\x01", b"\x50\x01"]
    beside = data.draw(st.lists(st.sampled_from(choices), max_size=3))
    request.ClearField("fahrenheit")
    long = api.ConvertRequest(fahrenheit=LONG).SerializeToString()
    body = b"".join(data.draw(st.permutations([long, request.SerializeToString(), *beside])))
    assert _outcome(ConvertCodec().decode, body) == _outcome(_as_protobuf, body)

    at, change = data.draw(st.integers(0, 60)), data.draw(st.binary(max_size=3))
    for damaged in (body[:at] + change + body[at + len(change) :], body[: len(body) - at], body + change):
        assert _outcome(ConvertCodec().decode, damaged) == _outcome(_as_protobuf, damaged)


def test_a_long_request_is_read_where_it_lies() -> None:
    """Its temperatures are a view of its bytes, not a copy; of more fields than are looked at, protobuf makes one."""
    body = api.ConvertRequest(model="linear", fahrenheit=LONG, request_id="7").SerializeToString()
    query = ConvertCodec().decode(body)
    assert np.shares_memory(query.rows, np.frombuffer(body, np.uint8))
    crowded = ConvertCodec().decode(body + api.ConvertRequest(label="stable").SerializeToString() * 50)
    assert crowded.rows.tobytes() == query.rows.tobytes()
    assert crowded.choice == "stable"


def _as_protobuf(body: bytes) -> ConvertQuery:
    return query_of(parse(api.ConvertRequest, body))


def _outcome(read: Callable[[bytes], ConvertQuery], body: bytes) -> object:
    try:
        query = read(body)
    except ServiceError as error:
        return type(error), error.message
    return query.model, query.choice, query.rows.tobytes(), query.interval, query.on_extrapolation, query.request_id
