"""HPACK's field blocks, read and written: one reader and one writer a connection. Nothing here knows HTTP/2's frames.

Format: RFC 7541. Both tables are one list that is read from its end: field 1 of the static table is the last entry,
before field 61 stands what was added to the dynamic table last, and its oldest entry is the first of all.
"""

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Final, TypeAlias

from service.http2.huffman import HuffmanError
from service.http2.huffman import decode as decode_huffman

Field: TypeAlias = tuple[bytes, bytes]
Fields: TypeAlias = tuple[Field, ...]

DEFAULT_TABLE_BYTES: Final = 4096  # RFC 9113, 6.5.2
DEFAULT_KNOWN_BYTES: Final = 8192

_STATIC: Final[tuple[Field, ...]] = tuple(
    (name.encode(), value.encode())
    for name, _, value in (
        line.strip().partition("=")
        for line in """
            :authority
            :method=GET
            :method=POST
            :path=/
            :path=/index.html
            :scheme=http
            :scheme=https
            :status=200
            :status=204
            :status=206
            :status=304
            :status=400
            :status=404
            :status=500
            accept-charset
            accept-encoding=gzip, deflate
            accept-language
            accept-ranges
            accept
            access-control-allow-origin
            age
            allow
            authorization
            cache-control
            content-disposition
            content-encoding
            content-language
            content-length
            content-location
            content-range
            content-type
            cookie
            date
            etag
            expect
            expires
            from
            host
            if-match
            if-modified-since
            if-none-match
            if-range
            if-unmodified-since
            last-modified
            link
            location
            max-forwards
            proxy-authenticate
            proxy-authorization
            range
            referer
            refresh
            retry-after
            server
            set-cookie
            strict-transport-security
            transfer-encoding
            user-agent
            vary
            via
            www-authenticate
        """.strip().splitlines()
    )
)
"""RFC 7541, appendix A: fields 1 to 61."""
_STATIC_SIZE: Final = len(_STATIC)
_NEWEST: Final = -_STATIC_SIZE  # where the list of both tables takes a new entry
_FIELD_OVERHEAD_BYTES: Final = 32  # of an entry of the table, RFC 7541, 4.1; and of a field in a list, RFC 9113, 6.5.2
_STATIC_FIELD_BYTES: Final = max(len(name) + len(value) + _FIELD_OVERHEAD_BYTES for name, value in _STATIC)

# A field's first byte: its highest bits say what it is, the others begin a number.
_INDEXED: Final = 0x80
_ADDED: Final = 0x40
_TABLE_SIZE: Final = 0x20
_PLAIN: Final = 0x00  # not added to the table; 0x10, never to be added to any, differs for those who pass it on
_SEVEN_BITS: Final = 0x7F
_SIX_BITS: Final = 0x3F
_FIVE_BITS: Final = 0x1F
_FOUR_BITS: Final = 0x0F
_LONG_INDEX: Final = _INDEXED | _SEVEN_BITS
_HUFFMAN: Final = 0x80  # in the first byte of a string
_HUFFMAN_FACTOR: Final = 2  # more than a string grows as it is read: the shortest code has five bits
_NUMBER_SHIFTS: Final = (0, 7, 14, 21)  # of the bytes after a number's first: more bits than any right number needs
_MAX_SIZE_UPDATES: Final = 2  # RFC 7541, 4.2: the smallest size since the last block, and the last

# The most memory that a remembered block takes in CPython, with its place in a dict, from what it has.
_KNOWN_BLOCK_BYTES: Final = 180
_KNOWN_BYTES_PER_BYTE: Final = 3  # the block itself, and its strings
_KNOWN_FIELD_BYTES: Final = 8
_KNOWN_LITERAL_BYTES: Final = 180  # of a field that is not an entry of a table: a tuple and two strings


class FieldBlockError(Exception):
    """A field block breaks RFC 7541: what either side holds for its table may differ, the connection is lost."""


class FieldListTooLongError(Exception):
    """A field block has more than is taken. It may not have been read to its end: the connection is lost as well."""


class FieldBlockReader:
    """Reads the field blocks of one connection, in the order in which they came. Once it raised, it is of no more use.

    Time is linear in a block's size. A block whose reading left the table as it was means the same until the table
    changes: such blocks are remembered, and found again by one look-up.

    Args:
        max_list_bytes: how large a block's fields may be: the bytes of names and values, and 32 for each field.
        max_fields: how many fields a block may have.
        table_bytes: SETTINGS_HEADER_TABLE_SIZE as the peer knows it: how large the table is, and may at most be.
        known_bytes: memory for the blocks that are remembered. A usual one of a gRPC client takes some 300 bytes.
        forgotten: called when blocks that were remembered no longer are.
    """

    def __init__(
        self,
        max_list_bytes: int,
        max_fields: int,
        table_bytes: int = DEFAULT_TABLE_BYTES,
        known_bytes: int = DEFAULT_KNOWN_BYTES,
        forgotten: Callable[[], None] | None = None,
    ) -> None:
        self.known: dict[bytes, Fields] = {}
        """Fields of blocks that mean the same until the next call of `read`: what is found here need not be read.

        Emptied when the table changes, and when full.
        """
        self._known_bytes = 0
        self._max_known_bytes = known_bytes
        self._forgotten = forgotten
        self._max_list_bytes = max_list_bytes
        self._max_fields = max_fields
        self._max_table_bytes = table_bytes
        self._table_limit_bytes = table_bytes
        self._table_bytes = 0
        self._table: list[Field] = list(reversed(_STATIC))
        self._largest_field_bytes = _STATIC_FIELD_BYTES
        """No entry of the table is larger, or ever was."""

    def read(self, block: bytes) -> Fields:
        """Read a block. While the table stays as it is, the same block gives the same object.

        Raises:
            FieldBlockError: it breaks RFC 7541.
            FieldListTooLongError: it has more fields, or larger ones, than are taken.
        """
        known = self.known.get(block)
        if known is not None:
            return known
        try:
            return self._read(block)
        except IndexError:
            raise FieldBlockError("a field block is cut short, or refers beyond the tables") from None
        except HuffmanError as error:
            raise FieldBlockError(f"a field block is not to be read: {error}") from None

    def _read(self, block: bytes) -> Fields:
        end = len(block)
        at = self._resize(block) if end and _TABLE_SIZE <= block[0] < _ADDED else 0
        changed, literals = at > 0, 0
        table, max_fields = self._table, self._max_fields
        fields: list[Field] = []
        add = fields.append
        while at < end:
            first = block[at]
            at += 1
            if first > _INDEXED:
                if first < _LONG_INDEX:
                    add(table[_INDEXED - first])
                else:
                    index, at = _read_number(block, at, _SEVEN_BITS)
                    add(table[-index])
                continue
            field, at = self._read_literal(block, at, first)
            add(field)
            literals += 1
            if first >= _ADDED:
                self._add(field)
                changed = True
            if len(fields) > max_fields:
                break
        self._check_bounds(block, fields)
        known = tuple(fields)
        if changed:
            self._forget()
        else:
            self._remember(block, known, literals)
        return known

    def _read_literal(self, block: bytes, at: int, first: int) -> tuple[Field, int]:
        """Read what follows the first byte of a field that is not in the tables: the field, and where it ends."""
        if first >= _ADDED:
            mask = _SIX_BITS
        elif first < _TABLE_SIZE:
            mask = _FOUR_BITS
        else:
            raise FieldBlockError("a field block changes the table's size after its beginning")
        index = first & mask
        if index == mask:
            index, at = _read_number(block, at, mask)
        if index:
            name = self._table[-index][0]
        elif first == _INDEXED:
            raise FieldBlockError("a field block refers to field 0")
        else:
            name, at = _read_string(block, at)
        value, at = _read_string(block, at)
        return (name, value), at

    def _check_bounds(self, block: bytes, fields: list[Field]) -> None:
        """Measure a list, if it may be too large: each field is in the table, or partly so and partly in the block."""
        count = len(fields)
        size = count * self._largest_field_bytes + len(block) * _HUFFMAN_FACTOR
        if size > self._max_list_bytes:
            size = count * _FIELD_OVERHEAD_BYTES + sum(map(len, chain.from_iterable(fields)))
        if size > self._max_list_bytes or count > self._max_fields:
            raise FieldListTooLongError(
                f"a field block has {count} fields of {size} bytes or more: "
                f"{self._max_fields} of {self._max_list_bytes} are taken"
            )

    def _remember(self, block: bytes, fields: Fields, literals: int) -> None:
        own = _KNOWN_BYTES_PER_BYTE * len(block) + _KNOWN_LITERAL_BYTES * literals
        size = _KNOWN_BLOCK_BYTES + _KNOWN_FIELD_BYTES * len(fields) + own
        if size > self._max_known_bytes:
            return
        if self._known_bytes + size > self._max_known_bytes:
            self._forget()
        self._known_bytes += size
        self.known[block] = fields

    def _forget(self) -> None:
        if self.known:
            self.known.clear()
            self._known_bytes = 0
            if self._forgotten is not None:
                self._forgotten()

    def _resize(self, block: bytes) -> int:
        """Carry out the changes of the table's size that a block begins with, and return where they end."""
        at = updates = 0
        while at < len(block) and _TABLE_SIZE <= block[at] < _ADDED:
            size = block[at] & _FIVE_BITS
            at += 1
            if size == _FIVE_BITS:
                size, at = _read_number(block, at, _FIVE_BITS)
            updates += 1
            if updates > _MAX_SIZE_UPDATES or size > self._max_table_bytes:
                raise FieldBlockError(
                    f"a field block sets the table's size to {size} bytes by its update {updates}: "
                    f"{self._max_table_bytes} bytes and {_MAX_SIZE_UPDATES} updates are allowed"
                )
            self._table_limit_bytes = size
            self._evict()
        return at

    def _add(self, field: Field) -> None:
        """Add a field to the table. One that is larger than the table only empties it."""
        name, value = field
        size = len(name) + len(value) + _FIELD_OVERHEAD_BYTES
        if size > self._largest_field_bytes:  # noqa: PLR1730 - `max` is a call, where each new field comes by
            self._largest_field_bytes = size
        self._table.insert(_NEWEST, field)
        self._table_bytes += size
        if self._table_bytes > self._table_limit_bytes:
            self._evict()

    def _evict(self) -> None:
        """Drop the oldest entries until the others fit."""
        pop, size, limit = self._table.pop, self._table_bytes, self._table_limit_bytes
        while size > limit:
            name, value = pop(0)
            size -= len(name) + len(value) + _FIELD_OVERHEAD_BYTES
        self._table_bytes = size


def _read_number(block: bytes, at: int, number: int) -> tuple[int, int]:
    """Read the bytes of a number that follow its first, whose bits are all ones: the number, and where it ends."""
    for shift in _NUMBER_SHIFTS:
        byte = block[at]
        at += 1
        number += (byte & _SEVEN_BITS) << shift
        if byte <= _SEVEN_BITS:
            return number, at
    raise FieldBlockError("a number in a field block has more than five bytes")


def _read_string(block: bytes, at: int) -> tuple[bytes, int]:
    """Read a string: its bytes, and where it ends."""
    first = block[at]
    at += 1
    size = first & _SEVEN_BITS
    if size == _SEVEN_BITS:
        size, at = _read_number(block, at, _SEVEN_BITS)
    end = at + size
    if end > len(block):
        raise FieldBlockError("a string in a field block is cut short")
    text = block[at:end]
    return (decode_huffman(text) if first >= _HUFFMAN else text), end


class FieldBlockWriter:
    """Writes the field blocks of one connection, to be sent in the order in which they were written.

    What all answers have is added to the peer's table when it is first written, and is one byte from then on. What
    else is not in the static table is written out, and without Huffman's code: it differs from answer to answer.
    """

    def __init__(self) -> None:
        self._added: dict[Field, bytes] = {}
        """What is in the peer's table, oldest first, and how it is written now."""
        self._adds = True
        self._owes_update = False

    @property
    def ready(self) -> bool:
        """Whether all that is ever added to the peer's table is there.

        While this is true the same fields are written as the same bytes, which may then be kept and sent again without
        a call of `write`, in any order. `limit_table` may end it.
        """
        return len(self._added) == len(_COMMON)

    def limit_table(self, size: int) -> None:
        """Take the peer's SETTINGS_HEADER_TABLE_SIZE, in bytes; before it is acknowledged, send what was written.

        The default leaves more than our entries need, so a larger size changes nothing. Below the default we give the
        table up: the next block sets its size to 0, and nothing is added any more, whatever size is allowed later. That
        is right for every size without a way to evict an entry; the price, some 40 bytes an answer, is paid only by
        clients that ask for less than the default, and those that are common do not.
        """
        if size < DEFAULT_TABLE_BYTES and self._adds:
            self._adds = False
            self._owes_update = True
            self._added.clear()

    def write(self, fields: Iterable[Field]) -> bytes:
        """Write a block. Names are to be in lower case, as HTTP/2 has them; nothing is checked here."""
        added = self._added
        parts = [_INDEXED_STATIC.get(field) or added.get(field) or self._write_literal(field) for field in fields]
        if self._owes_update:
            self._owes_update = False
            parts.insert(0, _TABLE_OF_NO_BYTES)
        return b"".join(parts)

    def _write_literal(self, field: Field) -> bytes:
        if self._adds and field in _COMMON:
            oldest = _STATIC_SIZE + len(self._added) + 1
            for age, entry in enumerate((*self._added, field)):
                self._added[entry] = _number(_INDEXED, _SEVEN_BITS, oldest - age)
            return _literal(_ADDED, _SIX_BITS, field)
        return _literal(_PLAIN, _FOUR_BITS, field)


def _literal(kind: int, mask: int, field: Field) -> bytes:
    name, value = field
    index = _INDEX_OF_NAME.get(name, 0)
    return _number(kind, mask, index) + (b"" if index else _string(name)) + _string(value)


def _string(text: bytes) -> bytes:
    return _number(0, _SEVEN_BITS, len(text)) + text


def _number(kind: int, mask: int, number: int) -> bytes:
    """A number whose first byte has only the bits of `mask`; the others say what it is. RFC 7541, 5.1."""
    if number < mask:
        return bytes((kind | number,))
    written = bytearray((kind | mask,))
    number -= mask
    while number > _SEVEN_BITS:
        written.append(number & _SEVEN_BITS | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


_INDEXED_STATIC: Final = {field: _number(_INDEXED, _SEVEN_BITS, index) for index, field in enumerate(_STATIC, 1)}
_INDEX_OF_NAME: Final = {name: index for index, (name, _) in reversed(list(enumerate(_STATIC, 1)))}
_COMMON: Final = frozenset({(b"content-type", b"application/grpc"), (b"grpc-status", b"0")})
"""What is added to the peer's table: 104 bytes there."""
_TABLE_OF_NO_BYTES: Final = _number(_TABLE_SIZE, _FIVE_BITS, 0)
