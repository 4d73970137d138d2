"""Header blocks that were read before."""

from typing import Final

from service.http2.headers import Headers, Refusal, RequestHead, list_bytes, read_head

_MAX_KNOWN_HEADS: Final = 1024
_MAX_KNOWN_HEAD_BYTES: Final = 1024


class Heads:
    """Header blocks that were read before: clients send the same few again and again.

    Bounded in number and in size; when it is full it starts anew.
    """

    def __init__(self, max_list_bytes: int) -> None:
        self._max_list_bytes = max_list_bytes
        self._known: dict[Headers, RequestHead | Refusal] = {}

    def read(self, headers: Headers) -> RequestHead | Refusal:
        """Read a header block, or remember it."""
        known = self._known.get(headers)
        if known is not None:
            return known
        head = read_head(headers, self._max_list_bytes)
        if list_bytes(headers) <= _MAX_KNOWN_HEAD_BYTES:
            if len(self._known) >= _MAX_KNOWN_HEADS:
                self._known.clear()
            self._known[headers] = head
        return head
