"""What all connections together hold, and when that is too much. Plain counters, owned by one event loop."""

from service.errors import OverloadedError, Shed
from service.http2.limits import Http2Limits


class Budget:
    """Bytes and calls in hand over all connections.

    Backpressure comes first: from half the bytes on (`pressed`) no flow-control window is opened. Refusal comes after:
    at all of them, or at all the calls, more is not admitted. Whoever takes gives back exactly what was taken, once.
    """

    __slots__ = ("_max_bytes", "_max_calls", "_pressed_bytes", "bytes", "calls", "given_bytes")

    def __init__(self, limits: Http2Limits) -> None:
        self._max_bytes = limits.max_bytes_in_hand
        self._pressed_bytes = limits.max_bytes_in_hand // 2
        self._max_calls = limits.max_calls
        self.bytes = 0
        self.calls = 0
        self.given_bytes = 0
        """All bytes ever given back: while it grows, there is progress."""

    @property
    def pressed(self) -> bool:
        """Whether windows must stay closed."""
        return self.bytes >= self._pressed_bytes

    def take(self, size: int) -> None:
        """Count bytes in."""
        self.bytes += size

    def give(self, size: int) -> None:
        """Count bytes out."""
        self.bytes -= size
        self.given_bytes += size

    def admit_bytes(self) -> None:
        """Refuse where no more bytes may be taken.

        Raises:
            OverloadedError: the message names the setting that has the limit.
        """
        if self.bytes >= self._max_bytes:
            raise OverloadedError(f"{self.bytes} bytes are in hand: max_waiting_bytes is {self._max_bytes}", Shed.BYTES)

    def admit_call(self) -> None:
        """Refuse where no more calls may be opened.

        Raises:
            OverloadedError: the message names the setting that has the limit.
        """
        if self.calls >= self._max_calls:
            raise OverloadedError(f"{self.calls} calls are open: max_waiting_calls is {self._max_calls}", Shed.CALLS)
        self.admit_bytes()
