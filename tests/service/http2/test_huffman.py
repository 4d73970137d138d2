"""HPACK's Huffman code, held against RFC 7541 and against the `hpack` library's."""

import threading

import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import given
from hypothesis import strategies as st

from service.http2 import huffman
from service.http2.huffman import HuffmanError, decode

ENCODER = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
END_OF_STRING = "1" * 30


def packed(bits: str) -> bytes:
    """Bits as bytes; they have to fill them."""
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def bits_of(symbol: int) -> str:
    """A byte's code, by the other library."""
    return f"{REQUEST_CODES[symbol]:0{REQUEST_CODES_LENGTH[symbol]}b}"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("f1e3c2e5f23a6ba0ab90f4ff", b"www.example.com"),
        ("a8eb10649cbf", b"no-cache"),
        ("25a849e95ba97d7f", b"custom-key"),
        ("25a849e95bb8e8b4bf", b"custom-value"),
        ("6402", b"302"),
        ("aec3771a4b", b"private"),
        ("d07abe941054d444a8200595040b8166e082a62d1bff", b"Mon, 21 Oct 2013 20:13:21 GMT"),
        ("9d29ad171863c78f0b97c8e9ae82ae43d3", b"https://www.example.com"),
        ("", b""),
    ],
)
def test_examples(data: str, text: bytes) -> None:
    """The strings of RFC 7541, appendix C, are read as it says."""
    assert decode(bytes.fromhex(data)) == text


@pytest.mark.parametrize("symbol", range(256))
def test_every_byte_has_its_code(symbol: int) -> None:
    """Each byte is read from its own code, behind each number of bits that a byte can begin with."""
    for before in range(8):
        text = b"0" * before + bytes((symbol,)) * 9
        assert decode(ENCODER.encode(text)) == text


@given(st.binary(max_size=300))
def test_all_strings_come_back(text: bytes) -> None:
    """What the other library encodes is what was encoded."""
    assert decode(ENCODER.encode(text)) == text


@given(st.binary(max_size=40))
def test_each_string_is_encoded_in_one_way(data: bytes) -> None:
    """Any bytes are refused, or are just what their text is encoded as: no padding is taken that is not right."""
    try:
        text = decode(data)
    except HuffmanError:
        return
    assert ENCODER.encode(text) == data


@pytest.mark.parametrize("padding", range(8))
def test_up_to_seven_ones_are_padding(padding: int) -> None:
    """Behind the last code may be as many ones as fill its byte."""
    symbol = next(byte for byte in range(256) if (REQUEST_CODES_LENGTH[byte] + padding) % 8 == 0)
    assert decode(packed(bits_of(symbol) + "1" * padding)) == bytes((symbol,))


@pytest.mark.parametrize("text", [b"", b"0", b"00000000", b"www.example.com", b"\xff\x00"])
@pytest.mark.parametrize("more", [b"\xff", b"\xff\xff", b"\xff\xff\xff"])
def test_eight_ones_are_no_padding(text: bytes, more: bytes) -> None:
    """A byte of padding is one too many."""
    with pytest.raises(HuffmanError):
        decode(ENCODER.encode(text) + more)


@pytest.mark.parametrize("padding", ["0", "00", "000", "10", "110", "1110", "011", "1101"])
def test_padding_is_ones(padding: str) -> None:
    """Bits behind the last code that begin another symbol's are no padding."""
    symbol = next(byte for byte in range(256) if (REQUEST_CODES_LENGTH[byte] + len(padding)) % 8 == 0)
    with pytest.raises(HuffmanError):
        decode(packed(bits_of(symbol) + padding))


@pytest.mark.parametrize("before", range(8))
def test_the_end_of_string_is_no_symbol(before: int) -> None:
    """The code of the end of string is refused wherever it stands, and nothing after it makes that good."""
    bits = bits_of(ord("0")) * before + END_OF_STRING
    for after in (b"", b"0", b"www.example.com"):
        more = bits + "".join(map(bits_of, after))
        with pytest.raises(HuffmanError):
            decode(packed(more + "1" * (-len(more) % 8)))


def test_threads_fill_the_same_rows() -> None:
    """Threads that come to the same rows for the first time read the same."""
    for row in huffman._ROWS:  # noqa: SLF001 - as at the start of a process
        row.clear()
    text = bytes(range(256)) * 4
    data = ENCODER.encode(text)
    read: list[bytes] = []
    threads = [threading.Thread(target=lambda: read.append(decode(data))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read == [text] * len(threads)
