"""Versions come, go, and are labelled while traffic flows: nothing fails, nothing is wrong, nothing is left over.

The short form is part of the suite. `make soak` is the long one: 60 seconds, 32 clients, 200 versions, 20 of them
broken, with one process and with two workers.
"""

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from service.client import Converter
from tests.e2e.footprint import SETTLED_SECONDS, Footprint
from tests.e2e.lifecycle_traffic import MODEL, PINNED, Clients, Story, tell
from tests.e2e.processes import Serving
from tests.e2e.processes import serving as start
from tests.waiting import until

SEED = 20_261_122
MAX_GROWTH_BYTES = 24 << 20
"""Of all processes together: allocators keep some of what they once had."""
MAX_POOL_THREADS = 4
"""Of all processes together: pools start a thread when they first need another. One a version would be far more."""


def versions_of(address: str) -> list[tuple[int, list[str]]]:
    """The versions of the model that a server has, with their labels."""
    with Converter(address) as converter:
        (model,) = converter.models().models
        return [(version.version, sorted(version.labels)) for version in model.versions]


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    seconds: float
    clients: int
    versions: int
    broken: int


SHORT = Scale(seconds=5, clients=8, versions=30, broken=3)
LONG = Scale(seconds=60, clients=32, versions=200, broken=20)


@pytest.fixture
def story(tmp_path: Path) -> Story:
    """A repository with its first two versions."""
    story = Story(tmp_path / "models", SEED)
    story.begin()
    return story


@pytest.fixture(params=["1", "2"])
def serving(story: Story, request: pytest.FixtureRequest) -> Iterator[Serving]:
    """A server of one process, and one of two workers, that follow the repository."""
    flags = ("--version-policy", "latest:2", "--watch-interval-seconds", "1", "--workers", request.param)
    with start(story.repository.root, *flags) as serving:
        yield serving
        serving.signal(signal.SIGTERM)
        assert serving.wait() == 0


def live_through(serving: Serving, story: Story, scale: Scale) -> None:
    """Let traffic flow while the story is told; then check what came of the calls, and what is left."""
    address, process = serving.address, serving.process.pid
    warm = Scale(min(3, scale.seconds), scale.clients, max(4, scale.versions // 10), 0)
    asyncio.run(
        Clients(address, story, scale.clients, SEED).during(lambda: tell(story, warm.versions, 0, warm.seconds))
    )
    _start_threads(address)
    _settle(address, story)
    before = Footprint.of(process)

    clients = Clients(address, story, scale.clients, SEED + 1)
    tally = asyncio.run(clients.during(lambda: tell(story, scale.versions, scale.broken, scale.seconds)))
    assert tally.wrong[:5] == []
    assert len(tally.answers) > scale.versions // 10, "many versions answered"
    assert not tally.answers.keys() & story.broken

    _settle(address, story)
    with contextlib.suppress(AssertionError):  # what is not back then is told by the next line
        until(lambda: _is_back(Footprint.of(process), before), "what it held before", SETTLED_SECONDS)
    after = Footprint.of(process)
    assert _is_back(after, before), f"before {before}, after {after}"
    print(  # noqa: T201 - the figures are what a long run is for
        f"{tally.answers.total()} right answers of {len(tally.answers)} versions, {tally.gone} refused for versions "
        f"that were gone, 0 wrong; before {before}, after {after}"
    )


def _start_threads(address: str) -> None:
    """Let every process run something long, for which it starts a thread that it keeps from then on."""
    with contextlib.ExitStack() as stack:
        converters = [stack.enter_context(Converter(address, model=MODEL)) for _ in range(4)]
        for converter in converters:  # connections that are open at once are shared out evenly
            converter.models()
        for converter in converters:
            converter.convert(np.full(1 << 18, 50.0))


def _settle(address: str, story: Story) -> None:
    """End with one version under every label, and wait until nothing else is loaded."""
    last = story.end()
    wanted = [(PINNED, ["pinned"]), (last, ["canary", "stable"])]
    until(lambda: versions_of(address) == wanted, "one version under every label")


def _is_back(now: Footprint, before: Footprint) -> bool:
    return (
        now.threads <= before.threads + MAX_POOL_THREADS
        and now.descriptors <= before.descriptors
        and now.resident_bytes <= before.resident_bytes + MAX_GROWTH_BYTES
    )


def test_nothing_fails_while_versions_come_and_go(serving: Serving, story: Story) -> None:
    """In a short while, with few clients."""
    live_through(serving, story, SHORT)


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_nothing_fails_for_a_minute(serving: Serving, story: Story) -> None:
    """For a minute, with 32 clients, 200 versions, 20 of them broken."""
    live_through(serving, story, LONG)


def test_all_series_of_versions_that_are_gone_are_removed(serving: Serving, story: Story) -> None:
    """`/metrics` tells of loaded versions alone, and counts the loads that failed."""
    clients = Clients(serving.address, story, 4, SEED)
    asyncio.run(clients.during(lambda: tell(story, 10, 2, 2)))
    _settle(serving.address, story)
    last = max(story.offsets)

    def named() -> set[str]:
        lines = serving.get("/metrics")[1].splitlines()
        return {line.split('version="')[1].split('"')[0] for line in lines if f'model="{MODEL}",version="' in line}

    until(lambda: named() == {str(PINNED), str(last)}, "the series of versions that are gone to go")
    story.publish(works=False)  # nothing newer comes after it, so that it is tried for certain
    until(
        lambda: serving.metric(f'quicksilver_load_failures_total{{model="{MODEL}"}}') >= 1,
        "the count of the load that failed",
    )
