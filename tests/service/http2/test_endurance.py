"""Attacks that last, and crowds: after them, and while they last, others are answered, and nothing is left behind.

The short forms are part of the suite. `make soak` runs the long ones.
"""

import contextlib
import random
import threading
import time
from collections.abc import Iterator
from typing import Self

import pytest

from tests.service.http2.mutations import conversation
from tests.service.http2.raw import PREFACE, RawClient
from tests.service.http2.serving import ServerProcess, server_process
from tests.service.http2.test_calls import BODY, assert_honest
from tests.service.http2.test_memory import MIB, warmed

SEED = 20_240_917
DESCRIPTORS = 12_000


class Honest:
    """A client that calls all the while, and notes how long each answer took. Use it as a context."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._call)
        self.seconds: list[float] = []
        self.failed: list[Exception] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self._over.set()
        self._thread.join()

    def _call(self) -> None:
        try:
            with RawClient(self._address) as client:
                client.open_windows()
                while not self._over.wait(0.02):
                    began = time.monotonic()
                    assert client.unary(BODY).status == 0
                    self.seconds.append(time.monotonic() - began)
        except (OSError, AssertionError) as error:
            self.failed.append(error)

    def __str__(self) -> str:
        ordered = sorted(self.seconds)
        middle, high, most = (ordered[int(share * (len(ordered) - 1))] * 1e3 for share in (0.5, 0.99, 1))
        return f"{len(ordered)} honest calls: median {middle:.1f} ms, 99 of 100 in {high:.1f} ms, all in {most:.1f} ms"


def converse(server: ServerProcess, seed: int, go_on: Iterator[bool]) -> int:
    """Hold mutated conversations while `go_on` says so, and return how many."""
    generator = random.Random(seed)  # noqa: S311 - seeded on purpose
    conversations = 0
    for _ in go_on:
        with RawClient(server.address, greet=False) as client:
            client.try_send(conversation(generator))
            client.drain(0.002 if generator.random() < 0.9 else 0.02)
        conversations += 1
    return conversations


def for_seconds(seconds: float) -> Iterator[bool]:
    """True until the time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield True


def live_through_mutations(seed: int, warm: Iterator[bool], long: Iterator[bool]) -> str:
    """Hold conversations to warm the server, then those that count; check that it holds what it held before."""
    with server_process(receive_seconds=2, handshake_seconds=2) as server:
        warmed(server)
        descriptors = server.descriptors()
        converse(server, seed, warm)
        before = server.memory_bytes()
        with Honest(server.address) as honest:
            conversations = converse(server, seed + 1, long)
        assert not honest.failed
        while server.descriptors() > descriptors:
            assert_honest(server.address)
        assert server.alive
        after = server.memory_bytes()
        assert after < before + 8 * MIB
        return (
            f"{conversations} mutated conversations; {honest}; memory {before // MIB} MiB before, {after // MIB} after"
        )


def test_mutated_conversations_leave_nothing() -> None:
    """Conversations with frames made up and damaged: others are answered meanwhile, and nothing is left."""
    live_through_mutations(SEED, iter([True] * 100), iter([True] * 300))


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_mutated_conversations_for_five_minutes() -> None:
    """The same for five minutes, with another seed each second."""
    print(live_through_mutations(SEED + 10, for_seconds(20), for_seconds(300)))  # noqa: T201 - the figures


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_two_thousand_prefaces_never_finished() -> None:
    """Two thousand connections that never greet are closed after their time, and others are answered meanwhile."""
    with server_process(handshake_seconds=5, max_descriptors=DESCRIPTORS) as server, contextlib.ExitStack() as opened:
        warmed(server)
        descriptors = server.descriptors()
        silent = [opened.enter_context(RawClient(server.address, greet=False)) for _ in range(2_000)]
        for index, client in enumerate(silent):
            client.try_send(PREFACE[: index % len(PREFACE)])
        with Honest(server.address) as honest:
            for client in silent:
                client.wait_closed()
        assert not honest.failed
        while server.descriptors() > descriptors:
            assert_honest(server.address)
        print(honest)  # noqa: T201 - the figures


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_five_thousand_idle_connections() -> None:
    """Five thousand idle connections cost 20 kB each at the most, and others are answered meanwhile."""
    with server_process(max_descriptors=DESCRIPTORS) as server:
        warmed(server)
        descriptors = server.descriptors()
        with contextlib.ExitStack() as opened:
            for _ in range(100):  # what a first crowd costs once
                opened.enter_context(RawClient(server.address))
            before = server.memory_bytes()
            for _ in range(5_000):
                opened.enter_context(RawClient(server.address))
            each = (server.memory_bytes() - before) / 5_000
            assert each <= 20_000
            with Honest(server.address) as honest:
                time.sleep(5)  # long enough to see what looking after so many costs
            assert not honest.failed
            print(f"{each:.0f} bytes for each of 5,000 idle connections; {honest}")  # noqa: T201 - the figures
        while server.descriptors() > descriptors:
            assert_honest(server.address)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_three_thousand_connect_at_once() -> None:
    """Three thousand connections that come at once are all accepted and greeted."""
    with server_process(max_descriptors=DESCRIPTORS) as server, contextlib.ExitStack() as opened:
        began = time.monotonic()
        clients = [opened.enter_context(RawClient(server.address, greet=False)) for _ in range(3_000)]
        connected = time.monotonic() - began
        for client in clients:
            client.wait(lambda client=client: bool(client.settings))
        print(f"connected in {connected:.2f} s, greeted in {time.monotonic() - began:.2f} s")  # noqa: T201 - the figures
        assert_honest(server.address)
