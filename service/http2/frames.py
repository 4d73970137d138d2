"""HTTP/2's frames as bytes (RFC 9113, sections 4 and 6 to 7): numbers, bounds, and how the small ones are written."""

import struct
from enum import IntEnum
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER: Final = struct.Struct(">HBBBL")
"""Length (its upper sixteen bits, its lower eight), type, flags, stream."""
HEADER_BYTES: Final = HEADER.size
STREAM_MASK: Final = 0x7FFF_FFFF
"""The bits of a stream's number; the one above them is reserved, and ignored."""

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

ACK: Final = 0x01
END_STREAM: Final = 0x01
END_HEADERS: Final = 0x04
PADDED: Final = 0x08
PRIORITISED: Final = 0x20

HEADER_TABLE_SIZE: Final = 1
ENABLE_PUSH: Final = 2
MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
MAX_FRAME_SIZE: Final = 5
MAX_HEADER_LIST_SIZE: Final = 6
SETTING: Final = struct.Struct(">HL")

LEAST_MAX_FRAME_BYTES: Final = 1 << 14
MOST_MAX_FRAME_BYTES: Final = (1 << 24) - 1
DEFAULT_WINDOW_BYTES: Final = (1 << 16) - 1
MOST_WINDOW_BYTES: Final = (1 << 31) - 1
MOST_STREAM_ID: Final = STREAM_MASK
PING_BYTES: Final = 8
NUMBER_BYTES: Final = 4
"""What RST_STREAM and WINDOW_UPDATE carry."""
PRIORITY_BYTES: Final = 5
GOAWAY_BYTES: Final = 8
"""What GOAWAY carries at the least."""


class ErrorCode(IntEnum):
    """Why a stream or a connection ended (RFC 9113, section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


def header(size: int, kind: int, flags: int, stream_id: int) -> bytes:
    """What goes before a frame's `size` bytes."""
    return HEADER.pack(size >> 8, size & 0xFF, kind, flags, stream_id)


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    return header(len(payload), kind, flags, stream_id) + payload


def number_frame(kind: int, stream_id: int, number: int) -> bytes:
    """A frame that carries one number: RST_STREAM its code, WINDOW_UPDATE its increment."""
    return frame(kind, 0, stream_id, number.to_bytes(NUMBER_BYTES, "big"))


def settings_frame(settings: dict[int, int]) -> bytes:
    """What we ask of the peer."""
    return frame(SETTINGS, 0, 0, b"".join([SETTING.pack(*each) for each in settings.items()]))


def goaway_frame(last_stream_id: int, code: int) -> bytes:
    """The last stream that was taken up, and why no further one is."""
    return frame(GOAWAY, 0, 0, last_stream_id.to_bytes(4, "big") + code.to_bytes(4, "big"))


def block_frames(stream_id: int, block: bytes, max_frame_bytes: int, *, end: bool) -> bytes:
    """A header block, in as many frames as it takes; `end` where nothing follows it on its stream."""
    ended = END_STREAM if end else 0
    if len(block) <= max_frame_bytes:
        return frame(HEADERS, END_HEADERS | ended, stream_id, block)
    pieces = [block[at : at + max_frame_bytes] for at in range(0, len(block), max_frame_bytes)]
    frames = [frame(HEADERS, ended, stream_id, pieces[0])]
    frames += [frame(CONTINUATION, 0, stream_id, piece) for piece in pieces[1:-1]]
    return b"".join([*frames, frame(CONTINUATION, END_HEADERS, stream_id, pieces[-1])])
