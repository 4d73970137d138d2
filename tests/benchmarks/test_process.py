"""Process trees, as /proc tells of them."""

import os
import sys
from pathlib import Path

import pytest

from benchmarks import process
from tests.waiting import until

CHILD = (
    "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; sum(range(10**7)); time.sleep(60)'])"
)


def test_cpu_time_is_own_and_of_children_that_ended() -> None:
    """User and system time of a process and of the children it waited for count; its name may hold anything."""
    ticks = os.sysconf("SC_CLK_TCK")
    stat = f"42 (a ) name) S 1 42 42 0 -1 0 0 0 0 0 {3 * ticks} {2 * ticks} {ticks} {ticks} 20 0 1 0"
    assert process.stat_cpu_seconds(stat) == pytest.approx(7)


def test_the_peak_of_memory_is_read() -> None:
    """The peak resident set is in bytes; a kernel thread has none."""
    assert process.status_peak_bytes("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n") == 2048 * 1024
    assert process.status_peak_bytes("Name:\tkthreadd\n") == 0


def test_a_tree_is_all_below_its_root() -> None:
    """Children's children belong to a tree, siblings do not."""
    assert sorted(process.descendants(1, {2: 1, 3: 2, 4: 9, 5: 3})) == [1, 2, 3, 5]


def test_a_server_ends_with_everything_it_started(tmp_path: Path) -> None:
    """A child's time and memory count for the server, and stopping it leaves no process behind."""
    log = tmp_path / "log"
    with process.ServerProcess([sys.executable, "-c", CHILD], cores="0", log=log, environment={}) as server:
        pids = server._tree  # noqa: SLF001 - to see that they end
        until(lambda: server.cpu_seconds() >= 0.1 and len(pids()) >= 2, "the child's work")
        tree = pids()
        assert len(tree) == 2
        assert server.peak_bytes() > 1 << 20
    assert not [pid for pid in tree if process.is_running(pid)]


def test_a_server_that_ended_is_an_error_that_shows_its_last_words(tmp_path: Path) -> None:
    """A command that ends by itself is reported, with what it printed."""
    command = [sys.executable, "-c", "print('no such model'); raise SystemExit(3)"]
    with process.ServerProcess(command, cores="0", log=tmp_path / "log", environment={}) as server:
        server.wait()
        with pytest.raises(process.ServerFailedError, match=r"status 3.*no such model"):
            server.check_alive()
