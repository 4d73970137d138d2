"""Waiting for what other threads and programs do, where nothing tells of it."""

import asyncio
import time
from collections.abc import Callable
from urllib.request import urlopen

LIMIT_SECONDS = 100.0
"""Longer than anything takes on a busy machine, and less than a test may last: it fails by saying what did not come."""
_PAUSE_SECONDS = 0.02


def until(holds: Callable[[], object], what: str, limit_seconds: float = LIMIT_SECONDS) -> None:
    """Look until something holds; fail, saying what was waited for, where it does not come about."""
    end = time.monotonic() + limit_seconds
    while not holds():
        assert time.monotonic() < end, f"waited {limit_seconds:g} s in vain for {what}"
        time.sleep(_PAUSE_SECONDS)


async def loop_until(holds: Callable[[], object], what: str) -> None:
    """Let the event loop turn until something holds; fail as `until` does."""
    end = time.monotonic() + LIMIT_SECONDS
    while not holds():
        assert time.monotonic() < end, f"waited {LIMIT_SECONDS:g} s in vain for {what}"
        await asyncio.sleep(0.001)


def answers(url: str) -> bool:
    """Whether an HTTP server answers, and well."""
    try:
        with urlopen(url, timeout=5):  # noqa: S310 - an address of ours
            return True
    except OSError:
        return False
