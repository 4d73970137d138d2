"""What figures were taken on."""

from benchmarks import machine


def test_busy_time_is_all_but_idle_and_waiting() -> None:
    """User, nice, system, interrupt and stolen time count; idle time, waiting for disks, and guests' time do not."""
    assert machine.stat_busy_ticks("cpu  100 10 50 9000 800 4 6 30 77 7\ncpu0 1 1 1 1 1 1 1 1 0 0\n") == 200
