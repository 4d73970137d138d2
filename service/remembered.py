"""A small table of things worked out before, for what the same few callers send again and again."""

from typing import Final, Generic, TypeVar

MAX_REMEMBERED: Final = 1024
"""Entries of one table; when it is reached, all are forgotten and begun anew."""

Key = TypeVar("Key")
Value = TypeVar("Value")


class Remembered(Generic[Key, Value]):
    """A table that never holds more than `MAX_REMEMBERED` entries. Any thread may use it."""

    __slots__ = ("_entries", "get")

    def __init__(self) -> None:
        self._entries: dict[Key, Value] = {}
        self.get = self._entries.get

    def put(self, key: Key, value: Value) -> None:
        """Remember a value; where the table is full, forget all others first."""
        if len(self._entries) >= MAX_REMEMBERED:
            self._entries.clear()
        self._entries[key] = value

    def __len__(self) -> int:
        return len(self._entries)
