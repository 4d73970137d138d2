"""Who serves, and what to do when one dies: several worker processes behind one port, looked after by their parent."""

import asyncio
import gc
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from time import monotonic
from typing import Any, Final, TypeVar

import structlog
from prometheus_client import CollectorRegistry

from service.address import split_host_port
from service.config import Settings
from service.http_endpoint import HttpEndpoint
from service.listen import Acceptor, name_of, open_socket
from service.logs import SWITCHES
from service.open_inference import tables
from service.snapshot import from_plain
from service.workers import control
from service.workers.control import (
    Heard,
    Heeded,
    Leaving,
    Message,
    Over,
    Report,
    Start,
    Survey,
    Surveyed,
    Tell,
    Told,
    Whole,
)
from service.workers.dispatch import Dispatcher
from service.workers.member import COMMAND, Member, spawn
from service.workers.merge import Ledger, merge
from service.workers.scrape import PARENT, Place, Process, State, WorkersCollector, refused_by_parent

log = structlog.get_logger(__name__)

ResultT = TypeVar("ResultT")

STEADY_SECONDS: Final = 10.0
"""A worker that was up for so long was all right: its end says nothing about the one that replaces it."""
FIRST_PAUSE_SECONDS: Final = 0.25
LONGEST_PAUSE_SECONDS: Final = 15.0

_REPORT_SECONDS: Final = 0.5
"""Between two reports of a worker: what it counted in the last such time is lost when it is killed."""
_CATCH_UP_SECONDS: Final = 10.0
"""Until a worker that comes later takes connections, though others have not acted on what it acted on."""
_STATISTICS_EVERY: Final = 10
"""Reports of which one has the statistics with it, which are larger."""
_LINGER_SECONDS: Final = 15.0
"""Beyond `drain_seconds`, until a worker that does not end is killed: cutting calls off takes time too."""
_BACKLOG: Final = 4096


class WorkerError(Exception):
    """A worker cannot start; the message says why."""


# Decisions ------------------------------------------------------------------------------------------------------------


def share(settings: Settings, slot: int) -> Settings:
    """The settings of one worker: bounds that hold over all are divided; the parent itself holds `max_connections`."""

    def part(whole: int) -> int:
        return whole // settings.workers + (slot < whole % settings.workers)

    return settings.model_copy(
        update={
            "workers": 1,
            "max_waiting_calls": part(settings.max_waiting_calls),
            "max_waiting_bytes": part(settings.max_waiting_bytes),
            "observations_per_second": settings.observations_per_second / settings.workers,
            "kept_answer_bytes": part(settings.kept_answer_bytes),
        }
    )


def early_ends(before: int, up_seconds: float | None) -> int:
    """How many workers of one place ended early in a row, after another ended that was up for so long, or never was."""
    return 0 if up_seconds is not None and up_seconds >= STEADY_SECONDS else before + 1


def pause_seconds(early: int) -> float:
    """How long to wait before the next is started. The first end is no reason to wait, a row of them is."""
    return min(FIRST_PAUSE_SECONDS * 2.0 ** (early - 2), LONGEST_PAUSE_SECONDS) if early > 1 else 0.0


def all_ready(states: Sequence[bool]) -> bool:
    """Whether a server is ready: somebody serves, and everybody who does is ready. Replacements do not count before."""
    return bool(states) and all(states)


def whole(states: Sequence[control.State]) -> Whole:
    """What is true of a server, by what those of its workers say that serve."""
    answering = set.intersection(*(set(state.answering) for state in states)) if states else set()
    models = {model for state in states for model in state.models}
    return Whole(all_ready([state.ready for state in states]), sorted(answering), sorted(models))


@dataclass(frozen=True, slots=True)
class _Tidings:
    """Something that was told: the workers that have not acted on it yet, and what to do when all have."""

    awaited: set[int]
    heeded: Callable[[dict[str, str]], None]
    """Is given what kept workers from it, by their places."""
    problems: dict[str, str] = field(default_factory=dict)


# Doing ----------------------------------------------------------------------------------------------------------------


class Supervisor:
    """Serves the models of a repository with `settings.workers` processes behind one port.

    `start`, `stop`, `address` and `http_address` are those of a `Server`. Guarantees: each connection goes to the
    worker that has fewest; a worker that ends is replaced, and only its own connections notice; the settings' bounds
    hold over all workers; the metrics are those of all of them, also of those that are gone; after `stop`, and when
    this process is killed, no worker is left.
    """

    def __init__(self, settings: Settings, *, command: Sequence[str] = COMMAND) -> None:
        self._settings = settings
        self._command = command
        registry = CollectorRegistry()
        WorkersCollector(self._scrape).register(registry)
        self._http = HttpEndpoint(*split_host_port(settings.http_listen), registry, lambda: self.ready)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="workers", daemon=True)
        self._dispatcher: Dispatcher[int] = Dispatcher(self._loop, settings.max_connections)
        self._acceptor: Acceptor | None = None
        self._ledger = Ledger()
        self._tables = tables.TablesLedger()
        self._whole: Whole | None = None
        self._members: dict[int, Member] = {}
        self._holders: dict[int, Member] = {}
        """Who has each place now."""
        self._replacements = [0] * settings.workers
        self._told: dict[str, Any] = {}
        self._tidings: dict[int, _Tidings] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = count(1)
        self._serving = False
        self._stopped = threading.Event()
        self._drained = asyncio.Event()
        self.address = settings.listen
        self.http_address = settings.http_listen

    @property
    def ready(self) -> bool:
        """Whether calls are accepted, and every model answers."""
        return self._serving and whole(self._states()).ready

    def start(self, loaded: Callable[[], None] = lambda: None) -> None:
        """Start the workers, call `loaded` when all are up, open the port, and say that the server is ready.

        Raises:
            WorkerError: a worker cannot start. Then none is left.
            AddressError: an address cannot be listened on. Likewise.
        """
        self.http_address = self._http.start()
        self._thread.start()
        try:
            self._run(self._start())
            loaded()
            self.address = self._run(self._listen())
        except BaseException:
            self._run(self._end(0.0))
            self._close()
            raise
        self._serving = True
        log.info("serving", grpc=self.address, http=self.http_address, ready=self.ready, workers=self._settings.workers)

    def stop(self) -> bool:
        """Say not ready, pass no more connections, let all workers finish. Tell whether all calls ended in time.

        May be called more than once; only the first call does anything.
        """
        if self._stopped.is_set():
            return True
        self._stopped.set()
        self._serving = False
        log.info("draining", seconds=self._settings.drain_seconds)
        finished = self._run(self._end(self._settings.drain_seconds + _LINGER_SECONDS))
        self._close()
        log.info("stopped")
        return finished

    def broadcast(self, topic: str, content: Any) -> None:  # noqa: ANN401 - whatever JSON knows
        """Tell all workers something, those that come later too: they hear the last of each topic. Any thread may."""
        self._loop.call_soon_threadsafe(self._tell, topic, content, lambda _problems: None)

    def _run(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _close(self) -> None:
        self._http.stop()
        self._run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # On the loop: beginning and end -----------------------------------------------------------------------------------

    async def _start(self) -> None:
        """Start a worker in every place, and return when all are up."""
        first = [self._member(slot) for slot in range(self._settings.workers)]
        for member in first:
            await _either(member.up, member.over)
            if not member.up.is_set():
                raise WorkerError(member.reason)
        for member in first:
            self._spawn_task(self._keep(member))
        self._spawn_task(self._ask_regularly())

    async def _listen(self) -> str:
        listening = open_socket(self._settings.listen, _BACKLOG)
        self._acceptor = Acceptor(self._loop, listening, self._dispatcher.accept)
        return name_of(listening)

    async def _end(self, seconds: float) -> bool:
        """Let workers that serve finish within the time given, end the others, and tell whether all finished."""
        self._drained.set()
        if self._acceptor is not None:
            self._acceptor.close()
        self._dispatcher.close()
        members = list(self._members.values())
        for member in members:
            if member.up.is_set() and seconds > 0:
                member.drain()
            else:
                member.kill()
        if members:
            await asyncio.wait([self._loop.create_task(member.over.wait()) for member in members], timeout=seconds)
        for member in members:
            if not member.over.is_set():
                log.error("worker killed: it did not end in time", worker=member.slot)
                member.kill()
                await member.over.wait()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        return all(member.finished for member in members)

    # On the loop: keeping the places ----------------------------------------------------------------------------------

    def _member(self, slot: int) -> Member:
        """Start a worker in a place."""
        member = Member(next(self._numbers), slot, spawn(self._command), self._hear)
        self._members[member.number] = self._holders[slot] = member
        self._spawn_task(self._look_after(member))
        return member

    async def _look_after(self, member: Member) -> None:
        """Listen to a worker from its beginning to its end, and pass it connections in between."""
        passing = self._spawn_task(self._pass_while_up(member))
        await member.live(Start(member.slot, share(self._settings, member.slot).model_dump_json(), dict(self._told)))
        await passing
        self._dispatcher.remove(member.number)
        self._ledger.leave(member.number)
        self._tables.leave(member.number)
        for number in list(self._tidings):
            self._heard(number, member)
        del self._members[member.number]
        self._tell_whole()

    async def _pass_while_up(self, member: Member) -> None:
        await _either(member.up, member.leaving)
        await self._tell_again()
        if member.serves and not self._drained.is_set():
            self._dispatcher.add(member.number, member.handoff)
            await member.leaving.wait()
            self._dispatcher.leave(member.number)
        else:
            member.handoff.close()

    async def _keep(self, member: Member) -> None:
        """Put another worker in the place of one that leaves, as long as the server serves."""
        early = 0
        while True:
            await _either(member.leaving, self._drained)
            if self._drained.is_set():
                return
            early = 0 if member.told_to_end else early_ends(early, member.up_seconds)
            pause = pause_seconds(early)
            if not member.told_to_end:
                await member.over.wait()
                log.error("worker ended", worker=member.slot, reason=member.reason, next_in_seconds=pause)
            await _either(self._drained, timeout=pause)
            if self._drained.is_set():
                return
            self._replacements[member.slot] += 1
            member = self._member(member.slot)

    def _hear(self, member: Member, message: Message) -> None:
        if isinstance(message, Over):
            self._dispatcher.over(member.number, message.connections)
        elif isinstance(message, Report):
            self._ledger.report(member.number, from_plain(message.snapshot))
            if message.statistics is not None:
                self._tables.report(member.number, tables.from_plain(message.statistics))
        elif isinstance(message, control.State):
            self._tell_whole(member)
        else:
            self._hear_of_others(member, message)

    def _hear_of_others(self, member: Member, message: Message) -> None:
        """Hear what a worker says about all of them."""
        if isinstance(message, Tell):
            number = message.number
            self._tell(message.topic, message.content, lambda problems: member.send(Heeded(number, problems)))
        elif isinstance(message, Heard):
            self._heard(message.number, member, message.problem)
        elif isinstance(message, Survey):
            self._spawn_task(self._survey(member, message.number))
        elif isinstance(message, Leaving):
            log.info("worker leaves: it was asked to", worker=member.slot)
            member.drain()
            self._tell_whole()

    def _states(self) -> list[control.State]:
        return [member.state for member in list(self._members.values()) if member.serves]

    def _tell_whole(self, told_anyway: Member | None = None) -> None:
        """Let all workers know what is true of them together, where that is news; to one of them it may be."""
        now = whole(self._states())
        for member in self._members.values():
            if now != self._whole or member is told_anyway:
                member.send(now)
        self._whole = now

    async def _survey(self, member: Member, number: int) -> None:
        await self._ask_all(statistics=True)
        member.send(Surveyed(number, tables.to_plain(self._tables.total())))

    def _tell(self, topic: str, content: Any, heeded: Callable[[dict[str, str]], None]) -> None:  # noqa: ANN401 - as above
        SWITCHES.follow(topic, content)  # this process logs too
        self._told[topic] = content
        number = next(self._numbers)
        awaited = {member.number for member in self._members.values() if member.serves}
        self._tidings[number] = _Tidings(awaited, heeded)
        for member in self._members.values():
            member.send(Told(number, topic, content))

    async def _tell_again(self) -> None:
        """Tell all workers what was told before one came, and wait until they have acted on it, or for long enough.

        The one that came acted on it already: on the repository as it is now, which may be another than the others saw.
        """
        acted = []
        for topic, content in list(self._told.items()):
            done = asyncio.Event()
            acted.append(self._loop.create_task(done.wait()))
            self._tell(topic, content, partial(_note, done))
        if acted:
            _, late = await asyncio.wait(acted, timeout=_CATCH_UP_SECONDS)
            for waiting in late:
                waiting.cancel()

    def _heard(self, number: int, member: Member, problem: str = "") -> None:
        """Learn that a worker acted on what was told, or could not, or is gone; then whoever told it learns that."""
        tidings = self._tidings.get(number)
        if tidings is None:
            return
        if problem:
            tidings.problems[str(member.slot)] = problem
        tidings.awaited.discard(member.number)
        if not tidings.awaited:
            del self._tidings[number]
            tidings.heeded(tidings.problems)

    # On the loop: what Prometheus asks --------------------------------------------------------------------------------

    def _scrape(self) -> State:
        """Answer a scrape, on its thread."""
        return self._run(self._state())

    async def _state(self) -> State:
        await self._ask_all()
        connections = self._dispatcher.connections()
        now = monotonic()
        places = [
            Place(
                slot,
                up=member.serves,
                connections=connections.get(member.number, 0),
                replacements=self._replacements[slot],
                report_age_seconds=now - member.reported_at if member.reported_at else None,
            )
            for slot, member in sorted(self._holders.items())
        ]
        alive = [member for member in self._holders.values() if not member.over.is_set()]
        processes = [Process(member.pid, str(member.slot), member.garbage) for member in alive]
        joined = merge((self._ledger.total(), refused_by_parent(self._dispatcher.refused)))
        return State(joined, places, [Process(os.getpid(), PARENT, gc.get_stats()), *processes])

    async def _ask_all(self, *, statistics: bool = False) -> None:
        """Have every worker report; those that do not answer soon have reported not long ago."""
        up = [member for member in self._members.values() if member.up.is_set()]
        await asyncio.gather(*(member.ask(statistics=statistics) for member in up))

    async def _ask_regularly(self) -> None:
        for turn in count():
            if self._drained.is_set():
                return
            await self._ask_all(statistics=turn % _STATISTICS_EVERY == 0)
            await _either(self._drained, timeout=_REPORT_SECONDS)

    def _spawn_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("the supervision failed", exc_info=error)


def _note(done: asyncio.Event, _problems: dict[str, str]) -> None:
    """Note that all have acted on something; what kept some from it stands in their logs."""
    done.set()


async def _either(*events: asyncio.Event, timeout: float | None = None) -> None:  # noqa: ASYNC109 - a pause that events end
    """Wait until one of the events is set, or the time is over."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiting:
            each.cancel()
