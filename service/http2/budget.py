"""What all connections together hold, and when that is too much. Plain counters, owned by one event loop."""

from typing import Final

from service.errors import OverloadedError, Shed
from service.http2.limits import Http2Limits

_LAST_PARTS: Final = 16


class Budget:
    """Bytes and calls in hand over all connections.

    Backpressure comes first: from half the bytes on (`pressed`) no flow-control window is opened. Refusal comes after:
    at all of them, or at all the calls, more is not admitted. Of the last eighth of the calls a connection is given no
    more than makes a sixteenth of what is left, so that it takes a crowd to leave no place for who has none. Whoever
    takes gives back exactly what was taken, once.
    """

    __slots__ = ("_many_calls", "_max_bytes", "_max_calls", "_pressed_bytes", "bytes", "calls")

    def __init__(self, limits: Http2Limits) -> None:
        self._max_bytes = limits.max_bytes_in_hand
        self._pressed_bytes = limits.max_bytes_in_hand // 2
        self._max_calls = limits.max_calls
        self._many_calls = limits.max_calls - limits.max_calls // 8 - 1
        self.bytes = 0
        self.calls = 0

    @property
    def pressed(self) -> bool:
        """Whether windows must stay closed."""
        return self.bytes >= self._pressed_bytes

    @property
    def excess_bytes(self) -> int:
        """How many bytes must be given back until it is no longer pressed; 0 or less where it is not."""
        return self.bytes - self._pressed_bytes + 1

    @property
    def excess_calls(self) -> int:
        """How many calls are open beyond three quarters of those that may be; 0 or less where there are fewer."""
        return self.calls - (self._max_calls - self._max_calls // 4)

    def take(self, size: int) -> None:
        """Count bytes in."""
        self.bytes += size

    def give(self, size: int) -> None:
        """Count bytes out."""
        self.bytes -= size

    def admit_bytes(self) -> None:
        """Refuse where no more bytes may be taken.

        Raises:
            OverloadedError: the message names the setting that has the limit.
        """
        if self.bytes >= self._max_bytes:
            raise OverloadedError(f"{self.bytes} bytes are in hand: max_waiting_bytes is {self._max_bytes}", Shed.BYTES)

    def has_room(self, calls: int, size: int) -> bool:
        """Whether so many calls with so many bytes are admitted, whoever asks: no limit is near."""
        return self.calls + calls <= self._many_calls and self.bytes + size < self._max_bytes

    def admit_call(self, own_calls: int) -> None:
        """Refuse where no more calls may be opened by a connection that has `own_calls` open.

        Raises:
            OverloadedError: the message names the setting that has the limit.
        """
        free = self._max_calls - self.calls
        if free <= 0 or (free < self._max_calls // 8 and own_calls * _LAST_PARTS > free):
            text = f"{self.calls} calls are open, {own_calls} of them here: max_waiting_calls is {self._max_calls}"
            raise OverloadedError(text, Shed.CALLS)
        self.admit_bytes()
