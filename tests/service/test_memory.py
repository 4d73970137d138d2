"""What a server does about its memory."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

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


FREED = """
import resource
from service.memory import keep_freed_pages

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    crowd = [bytes([1]) * (1 << 18) for _ in range(100)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

assert keep_freed_pages()
assert faults() > 6000
assert faults() < 600
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators have settings of their own")
def test_what_was_freed_is_used_again_without_faults() -> None:
    """A second crowd of buffers of 256 KiB lives in the pages of the first."""
    subprocess.run([sys.executable, "-c", FREED], check=True)


SHARED = """
import resource, threading
from service.memory import keep_freed_pages

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    crowd = [bytes([1]) * (1 << 18) for _ in range(100)]
    counted.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

counted = []
assert keep_freed_pages()
faults()
worker = threading.Thread(target=faults)
worker.start()
worker.join()
assert counted[0] > 6000
assert counted[1] < 600
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators have settings of their own")
def test_what_one_thread_freed_another_uses() -> None:
    """What requests took on the loop's thread is there for the answers of a worker's."""
    subprocess.run([sys.executable, "-c", SHARED], check=True)


STARTED = """
import gc, sys
from pathlib import Path
from service.cli import _start_server
from service.config import load_settings
given = {"repository": Path(sys.argv[1]), "listen": "127.0.0.1:0", "http_listen": "127.0.0.1:0"}
settled = []
server = _start_server(load_settings(given, None, {}), lambda: settled.append(gc.get_freeze_count() > 10_000))
assert settled == [True]
assert server.stop()
"""


def test_server_settles_its_memory_before_anybody_can_connect(tmp_path: Path) -> None:
    """The one process of `quicksilver serve` does so once models are loaded; workers before connections are passed."""
    subprocess.run([sys.executable, "-c", STARTED, str(tmp_path)], check=True)
