"""What was written to a connection with TLS: encrypted a part at a time, so that what waits for its peer is counted."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from service.http2.sending import Part, take_parts

_ENCRYPTED_BYTES: Final = 1 << 16
"""Encrypted at once, and about how much of it lies there before the transport wants no more.

OpenSSL's buffers grow with what is put into them at once, and stay as large for as long as the connection is open.
"""


class Encryption:
    """The writing side of a transport with TLS. It goes on until the transport is full, and from when it is not.

    A transport with TLS encrypts at once whatever it is given, and counts nothing of it once the event loop has it,
    which takes all as soon as it takes any: of large answers to a slow peer most would lie there, and not be seen.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self.waiting_bytes = 0
        """Written, and not encrypted yet."""
        self._transport = transport
        self._waiting: deque[Part] = deque()
        transport.set_write_buffer_limits(_ENCRYPTED_BYTES)

    def write(self, parts: Sequence[Part], size: int) -> None:
        """Have parts encrypted in their turn, which must not change any more; they have so many bytes."""
        self._waiting += parts
        self.waiting_bytes += size
        self.go_on()

    def go_on(self) -> None:
        """Encrypt what waits, until the transport has so much that it says when it has less."""
        while self._waiting and self._transport.get_write_buffer_size() <= _ENCRYPTED_BYTES:
            part = b"".join(take_parts(self._waiting, _ENCRYPTED_BYTES))
            self.waiting_bytes -= len(part)
            self._transport.write(part)
