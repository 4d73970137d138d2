"""The same thing again and again, so often: a round that fails ends no other, and SIGTERM ends it at once.

For commands of both sides.
"""

import signal
import time
import traceback
from collections.abc import Callable
from types import FrameType

ENDED = 0
"""Exit code after SIGTERM or Ctrl-C: that is how it is meant to end."""


class _Ended(BaseException):
    """SIGTERM or Ctrl-C came, wherever it found us."""


def next_start(previous: float, every: float, now: float) -> float:
    """When the next round begins: so long after the last one began, or at once where that is past. None is caught up.

    >>> next_start(100.0, 60.0, 130.0)
    160.0
    >>> next_start(100.0, 60.0, 400.0)
    400.0
    """
    return max(previous + every, now)


def repeat(every_seconds: float, make_round: Callable[[], int | None]) -> int:
    """Make rounds until SIGTERM or Ctrl-C, the first at once; return the exit code.

    A round that returns a number ends it with that exit code. One that raises an error is told on stderr, and the next
    one comes in its time. A signal in the middle of a round ends it where it stands, as a kill would, also in the first
    process of a container: rounds are made to bear that.
    """
    previous = {number: signal.signal(number, _end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        started = time.monotonic()
        while (code := _survive(make_round)) is None:
            started = next_start(started, every_seconds, time.monotonic())
            time.sleep(max(0.0, started - time.monotonic()))
    except _Ended:
        return ENDED
    else:
        return code
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _end(_number: int, _frame: FrameType | None) -> None:
    raise _Ended


def _survive(make_round: Callable[[], int | None]) -> int | None:
    try:
        return make_round()
    except Exception:  # noqa: BLE001 - whatever it was, the next round shall come
        traceback.print_exc()
        return None
