"""The fast front as a whole: it listens, keeps time, and drains. What happens on a connection is in `connection`."""

import asyncio
import contextlib
import math
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from time import monotonic
from typing import Final

import structlog

from service.calls import Method, Tracer
from service.closed import Closed
from service.dataplane import Dataplane
from service.errors import DrainingError, OverloadedError, Shed
from service.http2.budget import Budget
from service.http2.burst import Burst, Flushable, FrontObserver
from service.http2.connection import Peer
from service.http2.deadlines import Wheel
from service.http2.heads import Heads
from service.http2.limits import Http2Limits
from service.http2.shared import Shared
from service.http2.stalls import Watch, idle_holders, slow_holders
from service.http2.streams import CLOSED, Stream
from service.http2.tls import Certificates
from service.listen import Acceptor, name_of, open_socket

log = structlog.get_logger(__name__)

_TICK_SECONDS: Final = 0.02
_IDLE_TICK_SECONDS: Final = 0.1
_ROUND_SECONDS: Final = 0.5
"""Each connection is looked at about this often."""
_CERTIFICATES_SECONDS: Final = 5.0


class Http2Front:
    """Serves methods over gRPC. It lives in one event loop: `start` and `drain` are called there, once each.

    Guarantees: what peers can make it hold is bounded by its limits, whatever they send; one peer's misuse ends that
    peer's calls, not others'; every call is answered or reset; after `drain` nothing of it is left. `over` is called
    once for each connection that was accepted or adopted, when it is closed.
    """

    def __init__(
        self,
        methods: Mapping[str, Method],
        dataplane: Dataplane,
        observer: FrontObserver,
        limits: Http2Limits | None = None,
        *,
        over: Callable[[], None] = lambda: None,
        tracer: Tracer | None = None,
    ) -> None:
        self._methods = {path.encode(): method for path, method in methods.items()}
        self._dataplane = dataplane
        self._observer = observer
        self._limits = limits or Http2Limits()
        self._budget = Budget(self._limits)
        self._peers: dict[Peer, None] = {}
        self._ring: deque[Peer] = deque()
        self._acceptors: list[Acceptor] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening = 0
        self._ssl_context: ssl.SSLContext | None = None
        self._certificates: Certificates | None = None
        self._certificates_seen = -math.inf
        self._bytes_press = Watch()
        self._calls_press = Watch()
        self._looked = -math.inf
        """When it was last decided whom to cut."""
        self._timer: asyncio.TimerHandle | None = None
        self._draining = False
        self._empty = asyncio.Event()
        self._over = over
        self._tracer = tracer

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return len(self._peers)

    @property
    def calls(self) -> int:
        """Calls that are open."""
        return self._budget.calls

    @property
    def bytes_in_hand(self) -> int:
        """Bytes of unanswered requests and untaken answers."""
        return self._budget.bytes

    async def start(
        self,
        addresses: Iterable[str] = (),
        *,
        sockets: Iterable[socket.socket] = (),
        certificates: Certificates | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> list[str]:
        """Listen, and return the addresses with their real ports. Certificates are read again when they change.

        Raises:
            AddressError: an address cannot be listened on; then none is.
        """
        self._loop = asyncio.get_running_loop()
        self._certificates = certificates
        self._ssl_context = certificates.context if certificates else ssl_context
        now = monotonic()
        listening = list(sockets)
        with contextlib.ExitStack() as opened:
            for address in addresses:
                listening.append(open_socket(address, self._limits.backlog))
                opened.callback(listening[-1].close)
            opened.pop_all()
        self._burst = Burst(self._loop, self._dataplane, self._limits, self._budget, self._observer)
        self._wheel: Wheel[Stream] = Wheel(now)
        self._waiters: set[Flushable] = set()
        self._shared = Shared(
            methods=self._methods,
            limits=self._limits,
            burst=self._burst,
            budget=self._budget,
            heads=Heads(self._limits.max_header_list_bytes),
            wheel=self._wheel,
            waiters=self._waiters,
            gone=self._gone,
            tracer=self._tracer,
        )
        self._acceptors = [Acceptor(self._loop, each, self.adopt) for each in listening]
        self._tick()
        return [name_of(each) for each in listening]

    def adopt(self, connection: socket.socket) -> None:
        """Serve a connection that was accepted, here or by another process."""
        self._observer.connection_opened()
        if self._draining or len(self._peers) + self._opening >= self._limits.max_connections:
            connection.close()
            self._ended(Closed.DRAINING if self._draining else Closed.FULL)
            return
        self._opening += 1
        task = self._loop.create_task(self._adopt(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _adopt(self, connection: socket.socket) -> None:
        context = self._certificates.context if self._certificates else self._ssl_context
        handshake_seconds = self._limits.handshake_seconds if context else None
        peer = Peer(self._shared)  # ours to keep: with TLS, uvloop returns a protocol of its own
        try:
            connection.setblocking(False)
            if connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(
                lambda: peer,
                connection,
                ssl=context,
                ssl_handshake_timeout=handshake_seconds,
            )
        except (OSError, ssl.SSLError) as error:
            log.debug("connection came to nothing", reason=str(error))
            connection.close()
            self._ended(Closed.HANDSHAKE)
            return
        except asyncio.CancelledError:
            if not peer.begun:  # else its transport closes it
                connection.close()
                self._ended(Closed.DRAINING)
            raise
        finally:
            self._opening -= 1
        if peer.lost:
            return
        self._peers[peer] = None
        self._ring.append(peer)

    def _ended(self, why: Closed) -> None:
        """Tell whoever wants to know that a connection is closed."""
        self._observer.connection_closed(why)
        self._over()

    def _gone(self, peer: Peer, why: Closed) -> None:
        self._peers.pop(peer, None)
        self._ended(why)
        if not self._peers:
            self._empty.set()

    async def drain(self, seconds: float) -> bool:
        """Accept nothing more, let open calls finish, close, and tell whether all of them did within the time given.

        Calls that are left then end with UNAVAILABLE.
        """
        self._draining = True
        for acceptor in self._acceptors:
            acceptor.close()
        await asyncio.sleep(0)  # connections that were just accepted begin to open
        if self._ssl_context is not None:
            for task in self._tasks:  # in the middle of a handshake no call was sent: they can all go elsewhere
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        now = monotonic()
        for peer in list(self._peers):
            peer.drain(now, seconds, Closed.DRAINING)
        finished = await self._emptied(seconds)
        if not finished:
            for peer in list(self._peers):
                peer.cut(DrainingError("the server is stopping"), Closed.DRAINING)
            await self._emptied(self._limits.linger_seconds)
            for peer in list(self._peers):
                peer.abort()
            await self._emptied(self._limits.linger_seconds)
        if self._timer is not None:
            self._timer.cancel()
        await self._burst.stop()
        return finished

    async def _emptied(self, seconds: float) -> bool:
        if not self._peers:
            return True
        self._empty.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), seconds)
        return not self._peers

    # As time passes ---------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        now = monotonic()
        for stream in self._wheel.due(now):
            stream.armed = False
            stream.look(now)
            if stream.phase != CLOSED and now < stream.due < math.inf:
                self._wheel.add(stream, stream.due)
                stream.armed = True
        for peer in list(self._waiters):
            self._burst.touch(peer)
        tick = _TICK_SECONDS if self._wheel or self._waiters else _IDLE_TICK_SECONDS
        self._look_around(now, tick)
        self._watch_for_stalls(now)
        self._refresh_certificates(now)
        self._timer = self._loop.call_later(tick, self._tick)

    def _look_around(self, now: float, tick: float) -> None:
        """Look at as many connections as it takes to see each once a round."""
        for _ in range(math.ceil(len(self._ring) * tick / _ROUND_SECONDS)):
            peer = self._ring.popleft()
            if not peer.lost:
                self._ring.append(peer)
                peer.look(now)

    def _watch_for_stalls(self, now: float) -> None:
        """Where bytes or calls press for long, end the calls of those who let them, until they press no longer."""
        stall_seconds, budget = self._limits.stall_seconds, self._budget
        bytes_seconds = self._bytes_press.pressed_seconds(now, pressed=budget.pressed)
        calls_seconds = self._calls_press.pressed_seconds(now, pressed=budget.excess_calls > 0)
        if max(bytes_seconds, calls_seconds) < stall_seconds or now < self._looked + _ROUND_SECONDS:
            return
        self._looked = now
        staying = [peer for peer in self._peers if not peer.leaving]
        if bytes_seconds >= stall_seconds:
            flows = {peer: flow for peer in staying if (flow := peer.flow) is not None}
            on_the_way = sum(peer.held_bytes if peer.leaving else peer.running_bytes for peer in self._peers)
            text = "too much is in hand, and too much of it waits for this connection's peer"
            self._cut(slow_holders(flows, budget.excess_bytes - on_the_way, self._limits.receive_seconds), text)
        if calls_seconds >= stall_seconds:
            idle = {peer: peer.idle_calls(now - stall_seconds) for peer in staying if not peer.leaving}
            text = "too many calls are open, and too many of those on this connection do nothing"
            self._cut(idle_holders(idle, budget.excess_calls), text)

    def _cut(self, peers: Iterable[Peer], text: str) -> None:
        for peer in peers:
            peer.cut(OverloadedError(text, Shed.STALLED), Closed.STALLED, enough=True)

    def _refresh_certificates(self, now: float) -> None:
        if self._certificates is not None and now >= self._certificates_seen + _CERTIFICATES_SECONDS:
            self._certificates_seen = now
            self._certificates.refresh()
