"""What a server does about its memory."""

import subprocess
import sys

SETTLED = """
import gc
from service.memory import settle_memory
kept = [[] for _ in range(1000)]
settle_memory()
assert gc.get_freeze_count() > 1000
assert not any(each is kept for each in gc.get_objects())
cycle = []
cycle.append(cycle)
del cycle
assert gc.collect() >= 1
"""


def test_what_is_there_is_left_alone_and_garbage_is_still_found() -> None:
    """What was there when memory was settled is collected no more; what comes later is."""
    subprocess.run([sys.executable, "-c", SETTLED], check=True)
