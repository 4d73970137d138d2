"""Whether a header list is one that HTTP/2 allows in a request (RFC 9113, sections 8.2 and 8.3). Pure functions."""

import re
from typing import Final, NamedTuple, TypeAlias

_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE: Final = re.compile(rb"(?:[^\x00\r\n\t ](?:[^\x00\r\n]*[^\x00\r\n\t ])?)?")
_PSEUDO_VALUE: Final = re.compile(rb"[^\x00-\x20\x7f]*")
_OF_A_CONNECTION: Final = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)
_PSEUDO: Final = frozenset((b":method", b":scheme", b":path", b":authority"))
_WANTED: Final = frozenset((b":method", b":scheme", b":path"))
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")

Fields: TypeAlias = tuple[tuple[bytes, bytes], ...]


class RequestFields(NamedTuple):
    """The header list of a request, with nothing wrong in it."""

    fields: Fields
    data_bytes: int
    """How many bytes of data the request says that it has; −1 where it does not say."""


def read_request(fields: Fields) -> RequestFields | None:
    """Look at the header list of a request; None where HTTP/2 does not allow it."""
    if not is_request(fields):
        return None
    said = {value for name, value in fields if name == b"content-length"}
    if not said:
        return RequestFields(fields, -1)
    (value, *others) = said
    return RequestFields(fields, int(value)) if not others and _LENGTH.fullmatch(value) else None


def is_request(fields: Fields) -> bool:
    """Whether HTTP/2 allows the header list as that of a request."""
    pseudo = {name: value for name, value in fields if name.startswith(b":")}
    first, others = fields[: len(pseudo)], fields[len(pseudo) :]
    if dict(first) != pseudo or not _WANTED <= pseudo.keys() <= _PSEUDO:  # twice there, behind others, or missing
        return False
    if not pseudo[b":path"].startswith(b"/") or not pseudo[b":method"]:
        return False
    return all(map(_PSEUDO_VALUE.fullmatch, pseudo.values())) and are_trailers(others)


def are_trailers(fields: Fields) -> bool:
    """Whether HTTP/2 allows the header list behind pseudo-fields, or as trailers, which have none."""
    return all(
        _NAME.fullmatch(name)
        and _VALUE.fullmatch(value)
        and name not in _OF_A_CONNECTION
        and (name != b"te" or value == b"trailers")
        for name, value in fields
    )
