"""A server under mixed load for long: every answer right, and afterwards it holds what it held before.

The short form is part of the suite. `make soak` is the long one: ten minutes, 24 clients.
"""

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from proto.repository import Repository
from tests.e2e.footprint import SETTLED_SECONDS, Footprint
from tests.e2e.mixed_traffic import Tally, traffic
from tests.e2e.processes import Serving
from tests.e2e.processes import serving as start
from tests.service.artefacts import make_artefact
from tests.waiting import until

SEED = 20_261_122
MAX_GROWTH_BYTES = 24 << 20
"""Allocators keep some of what they once had."""
MAX_THREADS = 2
"""A pool's thread that nothing needed while the server was warmed."""
KINDS = {"small", "large", "stream", "cancelled", "late", "vanished"}
"""What is tried, however few calls a busy machine makes meanwhile."""
IN_FLIGHT = "quicksilver_in_flight_calls"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Serving]:
    """A server as it ships."""
    Repository(tmp_path / "models").publish("linear", make_artefact())
    with start(tmp_path / "models") as serving:
        yield serving
        serving.signal(signal.SIGTERM)
        assert serving.wait() == 0
        assert {event["level"] for event in serving.logged} <= {"info"}, "nothing that clients do is worth a warning"


@dataclass
class Course:
    """Resident memory while the load lasts, by seconds from its beginning."""

    samples: list[tuple[float, int]]

    @contextlib.contextmanager
    def watching(self, process: int, every_seconds: float) -> Iterator[None]:
        """Sample meanwhile."""
        over = threading.Event()
        began = time.monotonic()

        def watch() -> None:
            while not over.wait(every_seconds):
                self.samples.append((time.monotonic() - began, Footprint.of(process).resident_bytes))

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def growth_bytes(self) -> int:
        """How much more was held in the last quarter than in the second, each at its median: the first warms up."""
        held = [size for _, size in self.samples]
        quarter = len(held) // 4
        return sorted(held[-quarter:])[quarter // 2] - sorted(held[quarter : 2 * quarter])[quarter // 2]


def load(server: Serving, clients: int, seconds: float) -> tuple[Tally, Course]:
    """Warm the server, load it, and check the answers, and that what it holds is back where it was."""
    asyncio.run(traffic(server.address, clients, min(seconds, 20), SEED))
    until(lambda: server.metric(IN_FLIGHT) == 0, "calls in flight to end")
    before, course = Footprint.of(server.process.pid), Course([])
    with course.watching(server.process.pid, max(0.25, seconds / 100)):
        tally = asyncio.run(traffic(server.address, clients, seconds, SEED + clients, KINDS))
    assert tally.wrong[:5] == []
    until(lambda: server.metric(IN_FLIGHT) == 0, "calls in flight to end")
    with contextlib.suppress(AssertionError):  # what is not back then is told by the next lines
        until(
            lambda: Footprint.of(server.process.pid).descriptors <= before.descriptors,
            "descriptors to be closed",
            SETTLED_SECONDS,
        )
    after = Footprint.of(server.process.pid)
    assert after.descriptors <= before.descriptors
    assert after.threads <= before.threads + MAX_THREADS
    assert after.resident_bytes <= before.resident_bytes + MAX_GROWTH_BYTES
    print(f"before {before}, after {after}; {tally.outcomes.total()} calls: {dict(tally.outcomes)}")  # noqa: T201 - the figures
    return tally, course


def test_mixed_load(server: Serving) -> None:
    """Whatever clients do to their calls, each answer is the right one or the one that was asked for."""
    tally, _ = load(server, clients=8, seconds=3)
    assert tally.tried >= KINDS


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_mixed_load_for_ten_minutes(server: Serving) -> None:
    """The same for ten minutes, in which memory does not grow."""
    _, course = load(server, clients=24, seconds=600)
    print("resident MB:", [(round(at), size >> 20) for at, size in course.samples[::5]])  # noqa: T201 - the figures
    assert course.growth_bytes() < MAX_GROWTH_BYTES
