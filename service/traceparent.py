"""Which trace a call belongs to, and what it is known by: read from its metadata, by pure functions.

Format of `traceparent`: W3C Trace Context, section 3.2 (www.w3.org/TR/trace-context).
"""

import re
from dataclasses import dataclass
from typing import Final

from service.calls import Metadata

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_ONLY_VERSION: Final = "00"
_NO_VERSION: Final = "ff"
_SAMPLED: Final = 1
_REQUEST_ID_KEY: Final = "x-request-id"
_MAX_ID_CHARACTERS: Final = 128


@dataclass(frozen=True, slots=True)
class Parent:
    """The span that a call belongs to, of whoever made it."""

    trace_id: str
    """32 hexadecimal digits."""
    span_id: str
    """16 hexadecimal digits."""
    sampled: bool
    """Whether the caller records its trace."""
    state: str = ""
    """What vendors added, to be passed on as it is."""


def read_parent(metadata: Metadata) -> Parent | None:
    """Return the caller's span; None where it names none, or not as the format has it."""
    fields = {key: value for key, value in metadata if key in {"traceparent", "tracestate"}}
    text = fields.get("traceparent")
    match = _TRACEPARENT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == _NO_VERSION or (version == _ONLY_VERSION and rest) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return Parent(trace_id, span_id, bool(int(flags, 16) & _SAMPLED), str(fields.get("tracestate", "")))


def request_id(metadata: Metadata) -> str | None:
    """What a caller knows its request by: its `x-request-id`, or else the id of its trace. Printable, and bounded."""
    for key, value in metadata:
        if key == _REQUEST_ID_KEY and isinstance(value, str) and value:
            return "".join(filter(str.isprintable, value[:_MAX_ID_CHARACTERS]))
    parent = read_parent(metadata)
    return None if parent is None else parent.trace_id
