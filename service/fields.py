"""How many fields a message has, counted on its bytes before protobuf makes objects of them.

A field takes two bytes on the wire and some hundred as an object, so that the largest message of empty tensors would
take gigabytes and many seconds. Counting stops at the bound, so what refuses such a message costs the bound alone.
Format: protobuf.dev/programming-guides/encoding.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Final, cast

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from service.errors import MalformedError, TooManyFieldsError

MAX_FIELDS: Final = 2048
"""Fields of a message and of the messages in it: some 400 tensors, each with its name, datatype, shape and contents."""
FIELD_BYTES: Final = 2
"""The fewest that a field takes: a tag, and a value or its length."""

_VARINT, _FIXED64, _LENGTH_DELIMITED, _GROUP, _END_GROUP, _FIXED32 = range(6)
_TAG_BITS: Final = 0xFFFF_FFFF
_MAX_VARINT_BITS: Final = 70
_SIZES: Final = {_FIXED64: 8, _FIXED32: 4, _GROUP: 0, _END_GROUP: 0}


def check_fields(message_type: type[Message], body: bytes, most: int = MAX_FIELDS) -> None:
    """Refuse a message of too many fields.

    Fields are counted however often each comes, known or not, in the message and in all messages within that hold
    messages themselves. Those that hold none are one field: what repeats in them is numbers, or is counted by who
    reads it. A message of up to `FIELD_BYTES` × `most` bytes cannot have more, and is not walked.

    Raises:
        TooManyFieldsError: there are more than `most`.
        MalformedError: a field has no end, or ends behind the message.
    """
    if len(body) <= FIELD_BYTES * most:
        return
    descriptor = cast("Descriptor", message_type.DESCRIPTOR)
    walked = _walked(descriptor)
    if walked is None:
        return
    name = descriptor.full_name
    fields = 0
    levels: list[tuple[int, int, Mapping[int, Descriptor]]] = [(0, len(body), walked)]
    while levels:
        position, end, within = levels.pop()
        while position < end:
            fields += 1
            if fields > most:
                raise TooManyFieldsError(f"{name} has more than {most} fields, those of the messages in it among them")
            tag, position = _varint(body, position, end, name)
            position, stop = _value(body, tag & 7, position, end, name)
            inner = within.get((tag & _TAG_BITS) >> 3) if tag & 7 == _LENGTH_DELIMITED else None
            if inner is not None:
                levels.append((position, stop, _walked(inner) or {}))
            position = stop


@lru_cache(maxsize=256)
def _walked(descriptor: Descriptor) -> Mapping[int, Descriptor] | None:
    """The fields, by number, whose messages hold messages; None where the message itself holds none."""
    inner = {field.number: field.message_type for field in descriptor.fields if field.message_type is not None}
    if not inner:
        return None
    return {
        number: message
        for number, message in inner.items()
        if any(field.message_type is not None for field in message.fields)
    }


def _value(body: bytes, wire_type: int, position: int, end: int, name: str) -> tuple[int, int]:
    """Where a value begins, behind its length if it has one, and where it stops."""
    if wire_type == _VARINT:
        stop = _varint(body, position, end, name)[1]
    elif wire_type == _LENGTH_DELIMITED:
        length, position = _varint(body, position, end, name)
        stop = position + length
    else:
        stop = position + _SIZES.get(wire_type, end)
    if stop > end:
        raise _malformed(name)
    return position, stop


def _varint(body: bytes, position: int, end: int, name: str) -> tuple[int, int]:
    """A number, and where it ends."""
    value = shift = 0
    while position < end and shift < _MAX_VARINT_BITS:
        byte = body[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the bit that says that more follows
            return value, position
        shift += 7
    raise _malformed(name)


def _malformed(name: str) -> MalformedError:
    return MalformedError(f"the bytes are not a {name}")
