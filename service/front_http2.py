"""The fast front in a thread of its own: an event loop that nothing else runs in, started and stopped from outside."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

import structlog

from service.calls import Method, Tracer
from service.dataplane import Dataplane
from service.http2 import Certificates, Http2Front, Http2Limits
from service.http2.burst import FrontObserver
from service.workers.handoff import Arrivals

log = structlog.get_logger(__name__)

ResultT = TypeVar("ResultT")


class Http2LoopThread:
    """Serves methods over the fast front. `start` and `stop` are called once each, on any thread.

    The loop is uvloop's where that can be imported, asyncio's own elsewhere. With `arrivals` it listens nowhere and
    serves what comes from there.
    """

    def __init__(
        self,
        methods: Mapping[str, Method],
        dataplane: Dataplane,
        observer: FrontObserver,
        limits: Http2Limits,
        *,
        address: str,
        certificates: Certificates | None = None,
        arrivals: Arrivals | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._address = address
        self._arrivals = arrivals
        self._certificates = certificates
        self._loop = _new_event_loop()()
        over = arrivals.over if arrivals is not None else _nothing
        self._front = Http2Front(methods, dataplane, observer, limits, over=over, tracer=tracer)
        self._thread = threading.Thread(target=self._loop.run_forever, name="http2", daemon=True)

    def start(self) -> str:
        """Listen, and return the address with its real port.

        Raises:
            AddressError: the address cannot be listened on.
        """
        self._thread.start()
        return self._run(self._start())

    def stop(self, drain_seconds: float) -> bool:
        """Refuse new calls, let those in flight finish, and tell whether all did within the time given."""
        if not self._thread.is_alive():  # it never started: another part of the server could not
            self._loop.close()
            return True
        finished = self._run(self._drain(drain_seconds))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        return finished

    async def _start(self) -> str:
        addresses = [self._address] if self._arrivals is None else []
        names = await self._front.start(addresses, certificates=self._certificates)
        if self._arrivals is not None:
            self._arrivals.start(self._loop, self._front.adopt)
        return names[0] if names else self._address

    async def _drain(self, seconds: float) -> bool:
        if self._arrivals is not None:
            self._arrivals.finish()
        return await self._front.drain(seconds)

    def _run(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def _nothing() -> None:
    """Nobody wants to know when a connection is over."""


def _new_event_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop  # noqa: PLC0415 - absent where it has no wheel; asyncio's own loop serves as well, slower
    except ImportError as error:
        log.warning("uvloop cannot be imported; asyncio's own event loop serves, slower", reason=str(error))
        return asyncio.new_event_loop
    return uvloop.new_event_loop
