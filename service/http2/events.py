"""What the peer of an HTTP/2 connection said, as the session tells it."""

from typing import NamedTuple, TypeAlias

from service.http2.field_blocks import Fields
from service.http2.frames import ErrorCode

Whole: TypeAlias = tuple[int, Fields, bytes]
"""A request whose data came in one frame: its stream, its header list, its data. There is no more of it."""


class Begun(NamedTuple):
    """A request of which the header list came."""

    stream_id: int
    fields: Fields
    ended: bool


class More(NamedTuple):
    """Data of a request, or its end."""

    stream_id: int
    data: bytes
    ended: bool


class Parts(list[tuple[int, bytes]]):
    """Data from the middle of requests, each with its stream: a large one comes in many, between those of others."""


class Greeted(NamedTuple):
    """The peer's settings came."""


class Answered(NamedTuple):
    """The peer answered a ping."""

    data: bytes


class Ended(NamedTuple):
    """The connection is over: a GOAWAY waits to be written."""

    code: ErrorCode
    reason: str


Event: TypeAlias = Begun | More | Parts | Greeted | Answered | Ended
