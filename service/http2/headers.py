"""gRPC's header blocks, read and written. Pure functions over lists of pairs of bytes; nothing here knows a socket.

Format: github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md; status messages are percent-encoded UTF-8, values of keys that
end in `-bin` are base64, and time limits are up to eight digits and a unit.
"""

import base64
import binascii
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from service.calls import Metadata
from service.errors import MalformedError, ServiceError, TooLargeError, UnimplementedError
from service.http2.messages import ENCODINGS, IDENTITY
from service.status import DETAILS_KEY, Code, code_of, details_of

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

_CONTENT_TYPE: Final = (b"content-type", b"application/grpc")
_ACCEPTED_ENCODINGS: Final = (b"grpc-accept-encoding", ",".join((IDENTITY, *ENCODINGS)).encode())
_OURS: Final = re.compile(rb"application/grpc(\+proto)?[ \t]*(;.*)?", re.DOTALL)
_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNIT_SECONDS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_METADATA_KEY: Final = re.compile(r"[0-9a-z_.-]+")
_NOT_METADATA: Final = frozenset(
    (b"te", b"content-type", b"grpc-timeout", b"grpc-encoding", b"grpc-accept-encoding", b"grpc-message-type")
)
_FIELD_OVERHEAD_BYTES: Final = 32  # RFC 9113, 6.5.2
_MAX_MESSAGE_CHARACTERS: Final = 1024
_MAX_DETAILS_BYTES: Final = 4096  # clients refuse trailers over 8 KiB

_HTTP_METHOD_NOT_ALLOWED: Final = b"405"
_HTTP_UNSUPPORTED_MEDIA_TYPE: Final = b"415"


@dataclass(frozen=True, slots=True)
class RequestHead:
    """What the header block of a gRPC call says."""

    path: bytes
    timeout_seconds: float
    encoding: str
    """How compressed messages of the client are encoded: a key of `ENCODINGS`, or `identity`."""
    answer_encoding: str
    """How answers are encoded: as the client's own messages, where it reads that too."""
    metadata: Metadata


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a header block is not taken: the whole answer, and the gRPC code it stands for."""

    answer: Headers
    code: Code


def read_head(headers: Headers, max_list_bytes: int) -> RequestHead | Refusal:
    """Read the header block of a request, pseudo-headers first, as HTTP/2 delivers it."""
    try:
        return _read_head(headers, max_list_bytes)
    except ServiceError as error:
        return Refusal(trailers_only(error), code_of(error))


def list_bytes(headers: Headers) -> int:
    """Size of a header list in bytes, as HTTP/2 counts it for SETTINGS_MAX_HEADER_LIST_SIZE."""
    return sum(len(name) + len(value) + _FIELD_OVERHEAD_BYTES for name, value in headers)


def _read_head(headers: Headers, max_list_bytes: int) -> RequestHead | Refusal:
    size = list_bytes(headers) + _FIELD_OVERHEAD_BYTES * sum(
        value.count(b",") for name, value in headers if name.endswith(b"-bin") or name == b"grpc-accept-encoding"
    )  # each of several values takes as much to keep as a field does
    if size > max_list_bytes:
        raise TooLargeError(f"the header list has {size} bytes, {max_list_bytes} are allowed")
    fields = dict(headers)  # of keys that repeat, the last: only metadata may repeat
    if fields.get(b":method") != b"POST":
        return Refusal([(b":status", _HTTP_METHOD_NOT_ALLOWED), (b"allow", b"POST")], Code.INTERNAL)
    if not _OURS.fullmatch(fields.get(b"content-type", b"")):
        return Refusal([(b":status", _HTTP_UNSUPPORTED_MEDIA_TYPE)], Code.INTERNAL)
    encoding = _read_encoding(fields.get(b"grpc-encoding", b"identity"))
    accepted = [name.strip() for name in fields.get(b"grpc-accept-encoding", b"").decode("latin-1").split(",")]
    return RequestHead(
        path=fields[b":path"],
        timeout_seconds=read_timeout(fields.get(b"grpc-timeout")),
        encoding=encoding,
        answer_encoding=encoding if encoding in accepted else IDENTITY,
        metadata=read_metadata(headers),
    )


def _read_encoding(value: bytes) -> str:
    encoding = value.decode("latin-1")
    if encoding != IDENTITY and encoding not in ENCODINGS:
        raise UnimplementedError(
            f"grpc-encoding {encoding!r} is not known here: {', '.join((IDENTITY, *ENCODINGS))} are"
        )
    return encoding


def read_timeout(value: bytes | None) -> float:
    """Return a `grpc-timeout` in seconds; infinity where there is none.

    Raises:
        MalformedError: it is not one to eight digits and one of the units H, M, S, m, u, n.
    """
    if value is None:
        return math.inf
    match = _TIMEOUT.fullmatch(value)
    if match is None:
        raise MalformedError(f"grpc-timeout {value.decode('latin-1')!r} is not up to eight digits and a unit of HMSmun")
    return int(match[1]) * _UNIT_SECONDS[match[2]]


def read_metadata(headers: Headers) -> Metadata:
    """Return the metadata of a header block: what is neither HTTP/2's nor gRPC's own.

    Raises:
        MalformedError: the value of a key that ends in `-bin` is not base64.
    """
    metadata: list[tuple[str, str | bytes]] = []
    for name, value in headers:
        if name.startswith(b":") or name in _NOT_METADATA:
            continue
        key = name.decode("latin-1")
        if not name.endswith(b"-bin"):
            metadata.append((key, value.decode("latin-1")))
            continue
        metadata.extend((key, _read_base64(key, part)) for part in value.split(b","))
    return tuple(metadata)


def _read_base64(key: str, value: bytes) -> bytes:
    text = value.strip()
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise MalformedError(f"metadata {key!r} is not base64, as the end of its name promises") from None


def response(encoding: str = IDENTITY, metadata: Metadata = ()) -> Headers:
    """The header block that goes before messages."""
    encoded = () if encoding == IDENTITY else ((b"grpc-encoding", encoding.encode()),)
    return [(b":status", b"200"), _CONTENT_TYPE, *encoded, *_write_metadata(metadata)]


def trailers(error: ServiceError | None, metadata: Metadata = ()) -> Headers:
    """The header block that goes after messages."""
    if error is None:
        return [(b"grpc-status", b"0"), *_write_metadata(metadata)]
    return [*_status(error), *_write_metadata(metadata)]


def trailers_only(error: ServiceError, metadata: Metadata = ()) -> Headers:
    """The whole answer to a call that fails before any message is sent."""
    accepted = (_ACCEPTED_ENCODINGS,) if isinstance(error, UnimplementedError) else ()
    return [(b":status", b"200"), _CONTENT_TYPE, *accepted, *_status(error), *_write_metadata(metadata)]


def percent_encode(message: str) -> bytes:
    """Write a status message: bytes of its UTF-8 outside space … tilde, and the percent sign, as `%XX`."""
    text = message[:_MAX_MESSAGE_CHARACTERS].encode("utf-8", "replace")
    return b"".join(bytes((byte,)) if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte for byte in text)  # noqa: PLR2004 - space, tilde, percent


def _status(error: ServiceError) -> list[tuple[bytes, bytes]]:
    status = [(b"grpc-status", b"%d" % code_of(error)), (b"grpc-message", percent_encode(error.message))]
    details = details_of(error)
    if details is not None and len(details) <= _MAX_DETAILS_BYTES:
        status.append((DETAILS_KEY.encode(), _write_base64(details)))
    return status


def _write_base64(value: bytes) -> bytes:
    return base64.b64encode(value).rstrip(b"=")


def _write_metadata(metadata: Metadata) -> list[tuple[bytes, bytes]]:
    return [_write_field(key, value) for key, value in metadata]


def _write_field(key: str, value: str | bytes) -> tuple[bytes, bytes]:
    if not _METADATA_KEY.fullmatch(key):
        raise ValueError(f"{key!r} cannot be a key of metadata: a-z, 0-9, '_', '-' and '.' can")
    if isinstance(value, bytes) != key.endswith("-bin"):
        raise ValueError(f"the value of {key!r} must be {'bytes' if key.endswith('-bin') else 'text'}")
    return key.encode(), _write_base64(value) if isinstance(value, bytes) else value.encode("ascii")


HEAD: Final[Headers] = tuple(response())
"""The header block that goes before an ordinary answer."""
TAIL: Final[Headers] = tuple(trailers(None))
"""The one that goes after it."""
