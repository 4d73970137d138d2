"""gRPC's message framing: a flag byte, four bytes of length, the message; and compression, bounded as it inflates.

Nothing is reserved for what a length merely announces: parts are kept as they came, and joined once all are there.
"""

import struct
import zlib
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from service.calls import Body
from service.errors import MalformedError, TooLargeError

IDENTITY: Final = "identity"
ENCODINGS: Final = {"gzip": 31, "deflate": 15}
"""Encodings other than identity, and the `wbits` by which zlib knows them."""

PREFIX_BYTES: Final = 5
_PREFIX: Final = struct.Struct(">BI")
_PREFIXES: Final = [_PREFIX.pack(0, size) for size in range(1024)]
"""Of messages that are not compressed, by their size: nearly all are short."""
_SMALL_PART_BYTES: Final = 4096
_JOINED_BYTES: Final = 1 << 16
_COMPRESSION_LEVEL: Final = 1  # floats hardly shrink: the least work


class Message(NamedTuple):
    """One message as it came."""

    compressed: bool
    body: bytes


class Assembler:
    """Puts the messages of one stream together from parts of any size.

    A message over `max_message_bytes` is refused at its prefix. What is held is what came, plus one part; parts of a
    few bytes are merged, so that they weigh no more than they hold.
    """

    __slots__ = ("_compressed", "_max_bytes", "_needed", "_offset", "_parts", "held_bytes")

    def __init__(self, max_message_bytes: int) -> None:
        self._max_bytes = max_message_bytes
        self._parts: deque[bytes | bytearray] = deque()
        self._offset = 0
        """Bytes of the first part that were taken already."""
        self._needed = PREFIX_BYTES
        """Bytes of the prefix, or of the message behind it once that was read off."""
        self._compressed: bool | None = None
        """The flag of the message being read; None while its prefix is incomplete."""
        self.held_bytes = 0

    def feed(self, part: bytes) -> None:
        """Take more bytes of the stream."""
        if not part:
            return
        self.held_bytes += len(part)
        last = self._parts[-1] if self._parts else None
        if len(part) >= _SMALL_PART_BYTES:
            self._parts.append(part)
        elif isinstance(last, bytearray):
            last += part
        else:
            self._parts.append(bytearray(part))

    def feed_middle(self, part: bytes) -> bool:
        """Take a large part from the middle of a message, and tell whether it is one."""
        held = self.held_bytes + len(part)
        if held >= self._needed or len(part) < _SMALL_PART_BYTES:
            return False
        self.held_bytes = held
        self._parts.append(part)
        return True

    def take(self) -> Message | None:
        """Return the next message that is complete, or None.

        Raises:
            TooLargeError: the next message is larger than allowed.
            MalformedError: its flag is neither 0 nor 1.
        """
        if self._compressed is None:
            if self.held_bytes < PREFIX_BYTES:
                return None
            flag, self._needed = _PREFIX.unpack(self._cut(PREFIX_BYTES))
            check_prefix(flag, self._needed, self._max_bytes)
            self._compressed = bool(flag)
        if self.held_bytes < self._needed:
            return None
        message = Message(self._compressed, self._cut(self._needed))
        self._compressed = None
        self._needed = PREFIX_BYTES
        return message

    @property
    def lacks(self) -> int:
        """Bytes to be fed before `take` has anything to give, or to find out; 0 or less where it has."""
        return self._needed - self.held_bytes

    @property
    def between_messages(self) -> bool:
        """Whether no part of a message is held: where a stream may end."""
        return self._compressed is None and not self.held_bytes

    def _cut(self, size: int) -> bytes:
        """Take bytes off the front, copying each once."""
        self.held_bytes -= size
        if not self.held_bytes and self._parts:
            return self._cut_all()
        pieces: list[bytes | bytearray | memoryview] = []
        while size:
            part, start = self._parts[0], self._offset
            end = min(start + size, len(part))
            pieces.append(part if end - start == len(part) else memoryview(part)[start:end])
            size -= end - start
            if end == len(part):
                self._parts.popleft()
                self._offset = 0
            else:
                self._offset = end
        cut = b"".join(pieces)
        for piece in pieces:
            if isinstance(piece, memoryview):
                piece.release()  # a bytearray that is looked at cannot grow
        return cut

    def _cut_all(self) -> bytes:
        """Take all bytes: a message that is the last one, as most are, in fewer steps."""
        first, *others = self._parts
        cut = b"".join((memoryview(first)[self._offset :], *others) if self._offset else (first, *others))
        self._parts.clear()
        self._offset = 0
        return cut


def check_prefix(flag: int, length: int, max_bytes: int) -> None:
    """Refuse a message by its prefix.

    Raises:
        MalformedError: the flag is neither 0 nor 1.
        TooLargeError: the length is more than `max_bytes`.
    """
    if flag > 1:
        raise MalformedError(f"the compressed-flag of a message is {flag}: 0 and 1 are known")
    if length > max_bytes:
        raise TooLargeError(f"the message has {length} bytes: max_message_bytes is {max_bytes}")


def inflate(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Undo a compression, up to `max_bytes` and one more.

    Raises:
        TooLargeError: there would be more; nothing beyond was inflated.
        MalformedError: it is not what the encoding promises, or nothing was promised.
    """
    if encoding == IDENTITY:
        raise MalformedError("a message is flagged as compressed, and no grpc-encoding says how")
    inflater = zlib.decompressobj(ENCODINGS[encoding])
    try:
        inflated = inflater.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise MalformedError(f"the message is not {encoding}: {error}") from None
    if len(inflated) > max_bytes:
        raise TooLargeError(f"the message inflates to more than max_message_bytes, {max_bytes}")
    if not inflater.eof or inflater.unused_data:
        raise MalformedError(
            f"the message is not {encoding}: it {'goes on after' if inflater.eof else 'does not reach'} its end"
        )
    return inflated


def deflate(parts: Iterable[bytes | memoryview], encoding: str) -> bytes:
    """Compress a body."""
    deflater = zlib.compressobj(_COMPRESSION_LEVEL, wbits=ENCODINGS[encoding])
    return b"".join([*(deflater.compress(part) for part in parts), deflater.flush()])


def prefix(size: int, compressed: bool = False) -> bytes:  # noqa: FBT001, FBT002 - called for every call, where names cost
    """What goes before a message of so many bytes."""
    return _PREFIXES[size] if size < len(_PREFIXES) and not compressed else _PREFIX.pack(compressed, size)


def frame(body: Body, *, compressed: bool = False) -> bytes:
    """Put the prefix before a body, joining its parts."""
    if len(body) == 1:  # as that of every small answer: there a sum costs more than all the rest
        return prefix(len(body[0]), compressed) + body[0]
    return b"".join((prefix(sum(map(len, body)), compressed), *body))


def framed_parts(body: Body, *, compressed: bool = False) -> Sequence[bytes | memoryview]:
    """Put the prefix before a body; the parts of a large one stay as they are, so that nothing is copied.

    A small part must be copied: what it looks at may be the rows of a whole run, which would be kept for its sake.
    """
    size = sum(map(len, body))
    parts = (prefix(size, compressed), *body)
    return parts if size > _JOINED_BYTES else (b"".join(parts),)
