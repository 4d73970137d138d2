"""Waiting for what other programs do, which nobody tells of."""

import time
from collections.abc import Callable

LIMIT_SECONDS = 120
"""Longer than anything takes on a busy machine."""


def until(happened: Callable[[], object], what: str) -> None:
    """Look until something is so; fail, saying what was waited for, where it does not come to be."""
    limit = time.monotonic() + LIMIT_SECONDS
    while not happened():
        assert time.monotonic() < limit, f"{what} did not happen"
        time.sleep(0.05)
