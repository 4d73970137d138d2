"""What was written to a connection with TLS: encrypted a part at a time, so that what waits for its peer is counted."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from service.http2.sending import Part

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
        self.full = False
        """Whether the transport wants no more for now, as it says."""
        self._transport = transport
        self._waiting: deque[Part] = deque()
        transport.set_write_buffer_limits(_ENCRYPTED_BYTES)

    def write(self, parts: Sequence[Part], size: int) -> None:
        """Have parts encrypted in their turn, which must not change any more; they have so many bytes."""
        if size <= _ENCRYPTED_BYTES and not self.full and not self._waiting:
            self._transport.write(b"".join(parts))
            return
        self._waiting += parts
        self.waiting_bytes += size
        self.go_on()

    def go_on(self) -> None:
        """Encrypt what waits, as far as the transport takes it."""
        while self._waiting and not self.full:
            self._transport.write(b"".join(self._next()))

    def _next(self) -> list[Part]:
        """Take from what waits as much as is encrypted at once."""
        taken: list[Part] = []
        left = _ENCRYPTED_BYTES
        while left and self._waiting:
            part = self._waiting.popleft()
            if len(part) > left:
                view = memoryview(part)
                self._waiting.appendleft(view[left:])
                part = view[:left]
            taken.append(part)
            left -= len(part)
        self.waiting_bytes -= _ENCRYPTED_BYTES - left
        return taken
