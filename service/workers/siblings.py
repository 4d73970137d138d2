"""All workers of a server, as one of them sees them: what one tells, all do, in one order."""

import threading
from collections.abc import Callable
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any, Final

import structlog

from service.workers.control import Channel, Heard, Tell, Told

log = structlog.get_logger(__name__)

Listener = Callable[[str, Any], None]

_HEED_SECONDS: Final = 60.0


class Siblings:
    """Tells all workers something, this one included, and has listeners act on what is told.

    Guarantees: all act on the same things in the same order; one that comes later acts on the last of each topic before
    it takes connections. What is told is whatever JSON knows.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._told: SimpleQueue[Told] = SimpleQueue()
        self._listeners: list[Listener] = []
        self._numbers = count(1)
        self._waiting: dict[int, threading.Event] = {}

    def tell(self, topic: str, content: Any, *, seconds: float = _HEED_SECONDS) -> bool:  # noqa: ANN401 - whatever JSON knows
        """Tell all workers, and return whether all that are up acted on it in time.

        Any thread may, but for a listener's: there it would wait for itself.
        """
        number = next(self._numbers)
        heeded = self._waiting[number] = threading.Event()
        self._channel.send(Tell(number, topic, content))
        in_time = heeded.wait(seconds)
        self._waiting.pop(number, None)
        return in_time

    def listen(self, listener: Listener) -> None:
        """Have a function act on what is told, on a thread of its own. Before the worker starts."""
        self._listeners.append(listener)

    # Told by the parent -----------------------------------------------------------------------------------------------

    def hear(self, told: Told) -> None:
        """Learn what was told; listeners follow when it is their turn."""
        self._told.put(told)

    def heeded(self, number: int) -> None:
        """Learn that all acted on what was told here under a number."""
        waiting = self._waiting.get(number)
        if waiting is not None:
            waiting.set()

    def catch_up(self, told: dict[str, Any]) -> None:
        """Act on what was told before this worker came, and while it started; from then on as it comes."""
        for topic, content in told.items():
            self._act(topic, content)
        while True:
            try:
                self._act_on(self._told.get_nowait())
            except Empty:
                break
        threading.Thread(target=self._work, name="siblings", daemon=True).start()

    def _work(self) -> None:
        while True:
            self._act_on(self._told.get())

    def _act_on(self, told: Told) -> None:
        self._act(told.topic, told.content)
        self._channel.send(Heard(told.number))

    def _act(self, topic: str, content: Any) -> None:  # noqa: ANN401 - whatever JSON knows
        for listener in self._listeners:
            try:
                listener(topic, content)
            except Exception:
                log.exception("what was told could not be done", topic=topic)
