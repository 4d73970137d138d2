"""Accept, choose, pass: with real sockets, and a worker's end at the other side."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.closed import Closed
from service.workers.dispatch import Dispatcher, choose
from service.workers.handoff import Arrivals, pass_on
from tests.waiting import loop_until

MANY = 600
"""More connections than fit into a socketpair before the other end takes them."""


class Accepted:
    """Connections as they are accepted, by which their descriptors are known, whatever else the process opens."""

    def __init__(self) -> None:
        self._sockets: set[str] = set()

    def note(self, connection: socket.socket) -> None:
        """Know one by the name that the system has for it."""
        self._sockets.add(_name(Path(f"/proc/self/fd/{connection.fileno()}")))

    def descriptors(self) -> int:
        """How many descriptors of theirs this process has open."""
        return sum(_name(file) in self._sockets for file in Path("/proc/self/fd").iterdir())


def _name(file: Path) -> str:
    """What a descriptor is of; nothing where it was closed meanwhile."""
    try:
        return str(file.readlink())
    except FileNotFoundError:
        return ""


class End:
    """A worker's end, in this process: takes connections up, says a byte to each, and can be slow to begin."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.taken: list[socket.socket] = []
        self.over = 0
        self.arrivals = Arrivals(self.theirs, self._tell_over)

    def begin(self) -> None:
        """Take up what comes."""
        self.arrivals.start(asyncio.get_running_loop(), self._adopt)

    def close(self) -> None:
        """Close everything."""
        for connection in self.taken:
            connection.close()
        self.ours.close()
        self.theirs.close()

    def _adopt(self, connection: socket.socket) -> None:
        self.taken.append(connection)
        connection.sendall(b"!")

    def _tell_over(self, connections: int) -> None:
        self.over += connections


@pytest.fixture
async def ends() -> AsyncIterator[list[End]]:
    """Two workers' ends."""
    made = [End(), End()]
    yield made
    for end in made:
        end.close()


@pytest.fixture
async def dispatcher(ends: list[End]) -> AsyncIterator[Dispatcher[int]]:
    """One that may pass many, and is closed before the ends are."""
    del ends
    made: Dispatcher[int] = Dispatcher(asyncio.get_running_loop(), MANY)
    yield made
    made.close()


@contextlib.contextmanager
def clients(  # type: ignore[no-untyped-def] # noqa: ANN201 - an iterator of sockets
    dispatcher: Dispatcher[int], count: int, known: Accepted | None = None
):
    """Connections that were accepted, from their clients' side."""
    with contextlib.ExitStack() as opened:
        made = []
        for _ in range(count):
            client, accepted = socket.socketpair()
            made.append(opened.enter_context(client))
            client.settimeout(20)
            if known is not None:
                known.note(accepted)
            dispatcher.accept(accepted)
        yield made


@given(st.dictionaries(st.integers(), st.integers(0, 100)))
def test_fewest_connections_is_chosen(connections: dict[int, int]) -> None:
    """Nobody has fewer than the one chosen, and where there is nobody, nobody is."""
    chosen = choose(connections)
    assert (chosen is None) == (not connections)
    assert chosen is None or connections[chosen] == min(connections.values())


async def test_connections_spread_evenly(dispatcher: Dispatcher[int], ends: list[End]) -> None:
    """Each worker has as many as the other, counts what it has, and is given more when some are over."""
    for number, end in enumerate(ends):
        dispatcher.add(number, end.ours)
        end.begin()
    with clients(dispatcher, 10):
        await loop_until(lambda: [len(end.taken) for end in ends] == [5, 5], "connections to be taken up")
        dispatcher.over(1, 3)
        with clients(dispatcher, 3):
            await loop_until(lambda: [len(end.taken) for end in ends] == [5, 8], "connections to be taken up")
        assert dispatcher.connections() == {0: 5, 1: 5}


async def test_what_a_worker_does_not_take_up_waits(dispatcher: Dispatcher[int], ends: list[End]) -> None:
    """Many at once, to a worker that is slow: each is served, and none of their descriptors stays here."""
    dispatcher.add(0, ends[0].ours)
    accepted = Accepted()
    with clients(dispatcher, MANY, accepted) as connected:
        ends[0].begin()
        await loop_until(lambda: len(ends[0].taken) == MANY, "connections to be taken up")
        assert {client.recv(1) for client in connected} == {b"!"}
        # the other end's; ours is closed once it is passed
        await loop_until(lambda: accepted.descriptors() == MANY, "our descriptors to be closed")
    for connection in ends[0].taken:
        connection.close()
    assert accepted.descriptors() == 0


async def test_what_was_not_passed_goes_to_another(dispatcher: Dispatcher[int], ends: list[End]) -> None:
    """When a worker goes, connections that it was not passed yet go to one that lives, and wait where there is none."""
    dispatcher.add(0, ends[0].ours)
    with clients(dispatcher, MANY) as connected:
        await asyncio.sleep(0)
        dispatcher.remove(0)
        assert dispatcher.connections() == {}
        dispatcher.add(1, ends[1].ours)
        ends[1].begin()
        ends[0].begin()
        await loop_until(lambda: len(ends[0].taken) + len(ends[1].taken) == MANY, "connections to be taken up")
        assert ends[0].taken
        assert ends[1].taken
        assert {client.recv(1) for client in connected} == {b"!"}


async def test_one_that_finds_nobody_waits(dispatcher: Dispatcher[int], ends: list[End]) -> None:
    """A connection that comes while all workers are gone is served by the next."""
    with clients(dispatcher, 1) as (client,):
        await asyncio.sleep(0.01)
        dispatcher.add(0, ends[0].ours)
        ends[0].begin()
        await loop_until(lambda: len(ends[0].taken) == 1, "connections to be taken up")
        assert client.recv(1) == b"!"


async def test_the_limit_holds_over_all(ends: list[End]) -> None:
    """Connections over `max_connections` are closed as they come, whichever worker the others are with."""
    dispatcher: Dispatcher[int] = Dispatcher(asyncio.get_running_loop(), 3)
    for number, end in enumerate(ends):
        dispatcher.add(number, end.ours)
        end.begin()
    with clients(dispatcher, 5) as connected:
        await loop_until(lambda: sum(len(end.taken) for end in ends) == 3, "connections to be taken up")
        assert [client.recv(1) for client in connected] == [b"!"] * 3 + [b""] * 2
        assert dispatcher.refused == {Closed.FULL: 2}
        dispatcher.over(0, 1)
        with clients(dispatcher, 1) as (further,):
            await loop_until(lambda: sum(len(end.taken) for end in ends) == 4, "connections to be taken up")
            assert further.recv(1) == b"!"
    dispatcher.close()


async def test_a_worker_that_leaves_is_passed_nothing_more(dispatcher: Dispatcher[int], ends: list[End]) -> None:
    """Its connections still count, its end sees that no more will come, and those passed before are taken up."""
    for number, end in enumerate(ends):
        dispatcher.add(number, end.ours)
    ends[1].begin()
    with clients(dispatcher, 4):
        dispatcher.leave(0)
        with clients(dispatcher, 2):
            await loop_until(lambda: len(ends[1].taken) == 4, "connections to be taken up")
            assert dispatcher.connections() == {0: 2, 1: 4}
            ends[0].begin()
            ends[0].arrivals.finish()
            assert len(ends[0].taken) == 2


async def test_closing_leaves_nothing(ends: list[End]) -> None:
    """What found no worker is closed, and so is what comes afterwards."""
    accepted = Accepted()
    dispatcher: Dispatcher[int] = Dispatcher(asyncio.get_running_loop(), 10)
    with clients(dispatcher, 2, accepted) as connected:
        dispatcher.close()
        with clients(dispatcher, 1, accepted) as late:
            assert [client.recv(1) for client in (*connected, *late)] == [b""] * 3
    assert accepted.descriptors() == 0
    assert ends[0].taken == []


async def test_closed_connections_are_told_once_a_turn(ends: list[End]) -> None:
    """Those that end in one turn of the loop are told of together, and each once."""
    told: list[int] = []
    arrivals = Arrivals(ends[0].theirs, told.append)
    arrivals.start(asyncio.get_running_loop(), lambda connection: connection.close())
    for _ in range(5):
        arrivals.over()
    await asyncio.sleep(0.01)
    arrivals.over()
    await asyncio.sleep(0.01)
    assert told == [5, 1]
    arrivals.finish()


def test_a_passed_descriptor_is_not_inherited() -> None:
    """A program that a worker might start does not get its clients' connections."""
    ours, theirs = socket.socketpair()
    client, accepted = socket.socketpair()
    with ours, theirs, client, accepted:
        pass_on(ours, accepted)
        taken: list[socket.socket] = []
        loop = asyncio.new_event_loop()
        arrivals = Arrivals(theirs, lambda _: None)
        arrivals.start(loop, taken.append)
        arrivals.finish()
        loop.close()
        with taken[0]:
            assert not os.get_inheritable(taken[0].fileno())
