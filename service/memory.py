"""What a server does about its memory beside using it."""

import ctypes
import gc
from typing import Final

KEPT_BYTES: Final = 64 << 20
"""What is freed at the end of an arena of glibc's stays with the process, up to this."""
_MAPPED_BYTES: Final = 32 << 20
"""Buffers from here on are mapped, each by itself, and given back when they are freed; the most that glibc takes."""
_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_ARENA_MAX: Final = -8


def settle_memory() -> None:
    """Let the garbage collector never again look at what is there now: once a server is up, that stays.

    Modules, classes, compiled messages and the models' tables are a hundred thousand objects or more. A full collection
    would walk all of them, for tens of milliseconds, during which no call is answered; and since they are never garbage
    it would find nothing. What comes later is collected as ever.
    """
    gc.collect()
    gc.freeze()


def keep_freed_pages() -> bool:
    """Have freed memory used again rather than given back, and tell whether it will be: with glibc alone.

    To be called before threads start: they are to share one arena, so that answers, which a worker's thread makes,
    take the place of requests, which the loop's thread freed. What lies below a buffer that is still in use stays as
    well, up to the most that was ever in hand.

    A call of 65,536 values has four or five buffers of 256 KiB and more. glibc gives the pages of such back as they are
    freed, and each of the next one's is mapped and zeroed anew at its first touch: 50 to 80 faults a call.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, _MAPPED_BYTES), (_TRIM_THRESHOLD, KEPT_BYTES))
    return all([mallopt(*setting) for setting in settings])  # noqa: C419 - each is to be made
