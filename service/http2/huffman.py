"""HPACK's Huffman code: strings of header fields, read. Pure; nothing here knows a table or a connection.

Format: RFC 7541, 5.2 and appendix B. Its code is canonical: codes of one length follow each other as their symbols
do, and a longer code begins where the shorter ones end, so that the lengths alone say all of it.

A byte costs one step: from a row, which stands for the bits of a code that has begun, to the next row and what was
completed on the way. A row is filled when a string first comes to it: text comes to few, and all take 6 MB.
"""

from typing import Final, TypeAlias

_Steps: TypeAlias = list[tuple[int, bytes]]
"""By the bits that come, from 0 to all ones: the node they lead to, and the bytes they complete."""
_Row: TypeAlias = "list[tuple[_Row, bytes]]"
"""By the byte that comes: the row it leads to, and the bytes it completes. Empty until a string comes to it."""

_LENGTHS: Final = (  # of the codes of the bytes 0 to 255 and of the end of string, in bits: a digit in base 36 each
    "dnsssssssoussussssssssusssssssss6aacd68baa8b8666555666666678f6ca"
    "d67777777777777777777777878djde6f56565666577666567655677777fbeds"
    "kmkkmmmnmnnnnnonoomnonnnnlmnmnnomlkmmnnlnmmolmnnllmlnmnnkmmmnmmn"
    "qqkjmnmpqqqrrqopjlqrrqrollqqsrrrkoklmllnmmppooqnqrqqrrrrrsrrrrrq"
    "u"
)
_END_OF_STRING: Final = 256  # the symbol; it never stands in a string, only its first bits do, as padding
_MAX_PADDING_BITS: Final = 7
_ROOT: Final = 0
_FAILED: Final = 256  # where the end of string leads; the 257 codes have 256 nodes above them, 0 to 255


class HuffmanError(ValueError):
    """A string is not in HPACK's Huffman code: its padding is wrong, or the end of string is in it."""


def decode(data: bytes) -> bytes:
    """Read a string. Time is linear in its size; the result has at most 8/5 of it.

    Raises:
        HuffmanError: the end of string is in it, its padding has more than 7 bits, or not all are ones.
    """
    row = _ROWS[_ROOT]
    pieces: list[bytes] = []
    append = pieces.append
    for byte in data:
        try:
            row, piece = row[byte]
        except IndexError:
            _fill(row)
            row, piece = row[byte]
        append(piece)
    if id(row) not in _ENDS:
        raise HuffmanError("a string does not end in up to seven ones, or the end of string is in it")
    return b"".join(pieces)


def _fill(row: _Row) -> None:
    """Fill an empty row. Threads that do so at the same time write the same."""
    node = next(node for node, candidate in enumerate(_ROWS) if candidate is row)
    row[:] = [(_ROWS[end], first + second) for between, first in _NIBBLES[node] for end, second in _NIBBLES[between]]


def _single_bits() -> list[_Steps]:
    """Each node's steps by one bit: the codes as a tree, of which node 0 is the root."""
    tree: list[_Steps] = [[(_FAILED, b"")] * 2 for _ in range(_FAILED + 1)]
    nodes, code, width = 1, 0, 0
    for length, symbol in sorted((int(digit, 36), symbol) for symbol, digit in enumerate(_LENGTHS)):
        code, width = code << length - width, length
        node = _ROOT
        for shift in range(length - 1, 0, -1):
            bit = code >> shift & 1
            if tree[node][bit][0] == _FAILED:
                tree[node][bit] = (nodes, b"")
                nodes += 1
            node = tree[node][bit][0]
        if symbol != _END_OF_STRING:
            tree[node][code & 1] = (_ROOT, bytes((symbol,)))
        code += 1
    return tree


def _twice(steps: list[_Steps]) -> list[_Steps]:
    """Each node's steps by twice as many bits."""
    return [[(end, a + b) for between, a in own for end, b in steps[between]] for own in steps]


def _ends(bits: list[_Steps]) -> frozenset[int]:
    """Identities of the rows a string may end in: the root's, and those that up to seven ones lead to."""
    nodes = [_ROOT]
    for _ in range(_MAX_PADDING_BITS):
        nodes.append(bits[nodes[-1]][1][0])
    return frozenset(id(_ROWS[node]) for node in nodes)


_BITS: Final = _single_bits()
_NIBBLES: Final = _twice(_twice(_BITS))
_ROWS: Final[list[_Row]] = [[] for _ in _BITS]
_ENDS: Final = _ends(_BITS)
