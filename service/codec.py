"""Bytes ↔ queries and answers, for the product's own API.

Requests are read with the generated classes, but for the packed floats of a long one: an array where they lie. Answers
are written in parts: what protobuf writes of the small fields, and the floats as views of the engine's output (see
`wire.py`).
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias, TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from proto.quicksilver.v1 import converter_pb2 as api
from service.alike import Bytes, Pattern, bytes_of, write_bodies
from service.calls import Body, Codec, Request, UnaryMethod
from service.errors import InvalidRequestError, MalformedError, ServiceError
from service.fields import MAX_FIELDS, check_fields
from service.models import Choice
from service.query import Answer, ConvertQuery, OnExtrapolation, Query, interval_bounds
from service.remembered import Remembered
from service.status import code_of
from service.wire import (
    LITTLE_ENDIAN,
    Part,
    array_of,
    field_head,
    length_delimited,
    packed_ascending,
    packed_floats,
    take_out,
)

_CELSIUS: Final = api.ConvertResponse.CELSIUS_FIELD_NUMBER
_INTERVAL: Final = api.ConvertResponse.INTERVAL_FIELD_NUMBER
_LOWER: Final = api.PredictionInterval.CELSIUS_LOWER_FIELD_NUMBER
_UPPER: Final = api.PredictionInterval.CELSIUS_UPPER_FIELD_NUMBER
_EXTRAPOLATED_ROWS: Final = api.ConvertResponse.EXTRAPOLATED_ROWS_FIELD_NUMBER
_REQUEST_ID: Final = api.ConvertResponse.REQUEST_ID_FIELD_NUMBER

_ON_EXTRAPOLATION: Final = {
    api.ON_EXTRAPOLATION_UNSPECIFIED: OnExtrapolation.FLAG,
    **{int(choice): choice for choice in OnExtrapolation},
}
_MANY_ROWS: Final = 1000
_FLOAT32: Final = np.dtype(np.float32)
_FLOAT_BYTES: Final = 4
_FAHRENHEIT_TAG: Final = field_head(api.ConvertRequest.FAHRENHEIT_FIELD_NUMBER, 0)[:1]
_REQUEST_ID_TAG: Final = field_head(api.ConvertRequest.REQUEST_ID_FIELD_NUMBER, 0)[:1]
MAX_REQUEST_ID_BYTES: Final = 120
_SHORT_BYTES: Final = 512
COPIED_BYTES: Final = 4096
"""Up to here protobuf copies a request's temperatures faster than its fields are walked to make a view of them."""
_MOST_FIELDS: Final = 16
"""Fields of a request that is walked: each of its own twice, and two more."""
_MAX_CUT_BYTES: Final = 124
"""The most whole floats whose length takes one byte."""

_INSIDE: Final = api.ConvertResponse(domain_status=api.DOMAIN_STATUS_INSIDE).SerializeToString()
_OUTSIDE: Final = api.ConvertResponse(domain_status=api.DOMAIN_STATUS_OUTSIDE).SerializeToString()
_UNKNOWN: Final = api.ConvertResponse(domain_status=api.DOMAIN_STATUS_UNKNOWN).SerializeToString()


MessageT = TypeVar("MessageT", bound=Message)

Keep: TypeAlias = Callable[[ConvertQuery, Answer], None]
"""Learns what was answered to a request that had an id, on the thread that encodes the answer."""


def parse(message_type: type[MessageT], body: bytes, most_fields: int = MAX_FIELDS) -> MessageT:
    """Read a message.

    Raises:
        MalformedError: the bytes are no such message.
        TooManyFieldsError: it has more than `most_fields`; then nothing was made of it.
    """
    check_fields(message_type, body, most_fields)
    try:
        return message_type.FromString(body)
    except DecodeError:
        raise MalformedError(f"the bytes are not a {message_type.DESCRIPTOR.full_name}") from None


def unary(path: str, request_type: type[MessageT], answer: Callable[[MessageT], Message]) -> UnaryMethod:
    """Make a method of a function from one message to another."""
    return UnaryMethod(path, lambda body, _context: answer(parse(request_type, body)).SerializeToString())


def choice_of(message: api.ConvertRequest | api.GetModelRequest) -> Choice:
    """Return the version or label that a request names, or None.

    Raises:
        InvalidRequestError: the version is not a whole number from 1, or the label is empty.
    """
    named = message.WhichOneof("choice")
    if named == "version":
        if message.version < 1:
            raise InvalidRequestError("version", f"{message.version} is not a whole number from 1")
        return message.version
    if named == "label":
        if not message.label:
            raise InvalidRequestError("label", "is empty")
        return message.label
    return None


class ConvertCodec(Codec):
    """`quicksilver.v1.ConvertRequest` and `ConvertResponse`.

    A client that sends temperature after temperature repeats everything around them, but for the request's id. So a
    short request whose bytes before and behind its temperatures, without an id at their end, were read once is not
    parsed again. What is answered to a request with an id is passed to `keep`.
    """

    def __init__(self, keep: Keep | None = None) -> None:
        self._read: Remembered[tuple[bytes, bytes], ConvertQuery] = Remembered()
        self._keep = keep

    def decode(self, body: bytes) -> ConvertQuery:
        """Read a request; its options are checked here, its temperatures together with those of the whole batch.

        Raises:
            MalformedError: the bytes are not a ConvertRequest.
            InvalidRequestError: it holds no temperature, an option that does not exist, or an id that is none.
        """
        cut = cut_out(body) if len(body) <= _SHORT_BYTES else None
        if cut and cut.behind:
            cut = without_id(cut)
        known = self._read.get((cut.before, cut.behind)) if cut else None
        if cut and known:
            rows = np.frombuffer(body, np.float32, cut.values, cut.start)
            return ConvertQuery(known.model, known.choice, rows, known.interval, known.on_extrapolation, cut.request_id)
        query = _in_place(body) if len(body) > COPIED_BYTES else None
        if query is None:
            query = query_of(parse(api.ConvertRequest, body))
        if cut and is_around(cut):
            self._read.put((cut.before, cut.behind), query)
        return query

    def encode(self, query: Query, answer: Answer) -> Body:
        """Write an answer in parts."""
        assert isinstance(query, ConvertQuery)  # noqa: S101 - a codec encodes what it decoded
        celsius = answer.outputs[0].reshape(-1)
        if query.request_id and self._keep is not None:
            self._keep(query, answer)
        return [
            _head(answer.version.name, answer.version.version),
            *packed_floats(_CELSIUS, celsius),
            *(_interval(answer) if query.interval else ()),
            *_domain(query, answer),
            *(length_delimited(_REQUEST_ID, [query.request_id.encode()]) if query.request_id else ()),
        ]

    def pattern(self, body: bytes) -> Pattern | None:
        """Tell where the temperatures of a request stand, if requests like it were read before."""
        cut = cut_out(body)
        known = cut and self._read.get((cut.before, cut.behind))
        if not cut or not known:
            return None

        def query(values: Bytes) -> ConvertQuery:
            rows = values.view(np.float32).reshape(-1)
            return ConvertQuery(known.model, known.choice, rows, known.interval, known.on_extrapolation)

        return Pattern(cut.start, cut.start + cut.values * _FLOAT_BYTES, query)

    def encode_alike(self, query: Query, answer: Answer, requests: Sequence[Request], rows: int) -> list[Body] | None:
        """Write many answers at once; those with rows outside the training domain each on its own."""
        assert isinstance(query, ConvertQuery)  # noqa: S101 - a codec encodes what it decoded
        if query.interval or not LITTLE_ENDIAN:
            return None
        calls = len(requests)
        celsius = bytes_of(answer.outputs[0], calls)
        flags = query.on_extrapolation is not OnExtrapolation.IGNORE
        domain = b"" if not flags else _UNKNOWN if answer.outside is None else _INSIDE
        head = _head(answer.version.name, answer.version.version) + field_head(_CELSIUS, celsius.shape[1])
        bodies = write_bodies(head, [(celsius, domain)])
        if flags and answer.outside is not None and not answer.inside:
            for call in np.flatnonzero(answer.outside.reshape(calls, rows).any(axis=1)).tolist():
                bodies[call] = self.encode(query, answer.part(slice(call * rows, (call + 1) * rows)))
        return bodies


class ConvertStreamCodec(Codec):
    """`quicksilver.v1.ConvertStreamRequest` and `ConvertStreamResponse`, one message of a stream each.

    A codec of its own for each message, since it holds the id that goes back with the answer.
    """

    def __init__(self, message: api.ConvertStreamRequest, keep: Keep | None = None) -> None:
        self._message = message
        self._keep = keep

    def decode(self, _body: bytes) -> ConvertQuery:
        """Return the query of the message; its bytes were read already, for its id."""
        return query_of(self._message.request)

    def encode(self, query: Query, answer: Answer) -> Body:
        """Write an answer in parts, behind the id."""
        response = list(ConvertCodec(self._keep).encode(query, answer))
        return [self._id(), *length_delimited(api.ConvertStreamResponse.RESPONSE_FIELD_NUMBER, response)]

    def encode_error(self, error: ServiceError) -> Body:
        """Write the error that stands in the place of an answer."""
        message = api.ConvertError(code=code_of(error), message=error.message)
        return [api.ConvertStreamResponse(id=self._message.id, error=message).SerializeToString()]

    def _id(self) -> bytes:
        return api.ConvertStreamResponse(id=self._message.id).SerializeToString()


class Cut(NamedTuple):
    """A short request, cut where a packed field of temperatures seems to stand."""

    before: bytes
    """The bytes before the values, the field's tag and length among them."""
    behind: bytes
    start: int
    """Where the values begin."""
    values: int
    request_id: str = ""
    """The request's id, where it was taken from the end of what is behind."""


def cut_out(body: bytes) -> Cut | None:
    """Cut a request at the first byte that could be the tag of its temperatures; None where they cannot follow it."""
    start = body.find(_FAHRENHEIT_TAG) + 2
    if start == 1 or start >= len(body):
        return None
    size = body[start - 1]
    if not LITTLE_ENDIAN or size > _MAX_CUT_BYTES or size % _FLOAT_BYTES or start + size > len(body):
        return None
    return Cut(body[:start], body[start + size :], start, size // _FLOAT_BYTES)


def without_id(cut: Cut) -> Cut:
    """Take the request's id from where every common writer puts it, the end; elsewhere it stays where it is.

    Whether it is one shows in what is left: where that is whole fields, as `is_around` looks, the tag was a tag.
    """
    behind = cut.behind
    at = behind.find(_REQUEST_ID_TAG)
    if at < 0 or at + 2 >= len(behind) or at + 2 + behind[at + 1] != len(behind):
        return cut
    request_id = behind[at + 2 :]
    if len(request_id) > MAX_REQUEST_ID_BYTES or not request_id.isascii():
        return cut
    text = request_id.decode()
    return Cut(cut.before, behind[:at], cut.start, cut.values, text) if text.isprintable() else cut


def is_around(cut: Cut) -> bool:
    """Whether what was cut out of a valid request is the temperatures, all of them, whatever their values, and its id.

    It is where the bytes before the tag are whole fields: then the tag is one, and no part of a text.
    """
    try:
        before = api.ConvertRequest.FromString(cut.before[:-2])
        behind = api.ConvertRequest.FromString(cut.behind)
    except DecodeError:
        return False
    return not (before.fahrenheit or behind.fahrenheit or before.request_id or behind.request_id)


def _in_place(body: bytes) -> ConvertQuery | None:
    """Read a request whose temperatures stay where they are; None where they are not one packed field of it."""
    taken = take_out(body, 0, api.ConvertRequest.FAHRENHEIT_FIELD_NUMBER, _MOST_FIELDS)
    if taken is None or len(taken.second) != 1 or not LITTLE_ENDIAN:
        return None
    values = taken.second[0]
    if not values or len(values) % _FLOAT_BYTES:
        return None
    return query_of(parse(api.ConvertRequest, taken.rest), np.frombuffer(values, np.float32))


def query_of(message: api.ConvertRequest, rows: NDArray[np.float32] | None = None) -> ConvertQuery:
    """Turn a parsed request into a query; of temperatures that were taken out of it before, `[N]`, where given.

    Raises:
        InvalidRequestError: it holds no temperature, an option that does not exist, or an id that is none.
    """
    if rows is None:
        rows = _rows(message)
    on_extrapolation = _ON_EXTRAPOLATION.get(message.on_extrapolation)
    if on_extrapolation is None:
        raise InvalidRequestError("on_extrapolation", f"has no value {message.on_extrapolation}")
    request_id = message.request_id
    if request_id and (len(request_id.encode()) > MAX_REQUEST_ID_BYTES or not request_id.isprintable()):
        raise InvalidRequestError("request_id", f"is not at most {MAX_REQUEST_ID_BYTES} bytes of printable text")
    return ConvertQuery(message.model, choice_of(message), rows, message.interval, on_extrapolation, request_id)


def _rows(message: api.ConvertRequest) -> NDArray[np.float32]:
    values = message.fahrenheit
    if not values:
        raise InvalidRequestError("fahrenheit", "is empty; name at least one temperature")
    return array_of(values, _FLOAT32)


@lru_cache(maxsize=256)
def _head(name: str, version: int) -> bytes:
    return api.ConvertResponse(model=name, version=version).SerializeToString()


def _interval(answer: Answer) -> list[Part]:
    lower, upper = interval_bounds(answer)
    assert answer.version.interval is not None  # noqa: S101 - there are bounds
    coverage = api.PredictionInterval(coverage=answer.version.interval.coverage).SerializeToString()
    return length_delimited(_INTERVAL, [coverage, *packed_floats(_LOWER, lower), *packed_floats(_UPPER, upper)])


def _domain(query: ConvertQuery, answer: Answer) -> list[Part]:
    if query.on_extrapolation is OnExtrapolation.IGNORE:
        return []
    if answer.inside:
        return [_INSIDE]
    if answer.outside is None:
        return [_UNKNOWN]
    rows = np.flatnonzero(answer.outside)
    if len(rows) > _MANY_ROWS:
        return [_OUTSIDE, *packed_ascending(_EXTRAPOLATED_ROWS, rows)]
    if not len(rows):
        return [_INSIDE]
    message = api.ConvertResponse(domain_status=api.DOMAIN_STATUS_OUTSIDE, extrapolated_rows=rows.tolist())
    return [message.SerializeToString()]
