"""One coarse timer for all calls: they lie in slots of time, and the slots that are over come out together."""

from typing import Final, Generic, TypeVar

SLOT_SECONDS: Final = 0.02

Timed = TypeVar("Timed")


class Wheel(Generic[Timed]):
    """Things that are due some time.

    Guarantees: `due(now)` returns each thing once, not before its time and at most one slot after it, given that it is
    called often enough; adding and discarding cost the same however many there are.
    """

    def __init__(self, now: float) -> None:
        self._slots: dict[int, set[Timed]] = {}
        self._next = int(now / SLOT_SECONDS)

    def __bool__(self) -> bool:
        return bool(self._slots)

    def add(self, thing: Timed, when: float) -> None:
        """Let a thing come out at a time of the monotonic clock."""
        slot = max(int(when / SLOT_SECONDS), self._next)
        self._slots.setdefault(slot, set()).add(thing)

    def discard(self, thing: Timed, when: float) -> None:
        """Forget a thing that was added for this time; it need not be there."""
        slot = int(when / SLOT_SECONDS)
        things = self._slots.get(slot)
        if things is None:
            return
        things.discard(thing)
        if not things:
            del self._slots[slot]

    def due(self, now: float) -> list[Timed]:
        """Take out what is due."""
        end = int(now / SLOT_SECONDS)
        if end - self._next > len(self._slots):  # after a long pause: look at the slots there are
            over = sorted(slot for slot in self._slots if slot < end)
        else:
            over = [slot for slot in range(self._next, end) if slot in self._slots]
        self._next = max(end, self._next)
        return [thing for slot in over for thing in self._slots.pop(slot)]
