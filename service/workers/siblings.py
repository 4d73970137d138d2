"""All workers of a server, as one sees them: what one tells, all do, in one order; what all did, it can ask."""

import threading
from collections.abc import Callable
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any, Final

import structlog

from service.errors import ServiceError
from service.workers.control import Channel, Heard, Heeded, Survey, Surveyed, Tell, Told

log = structlog.get_logger(__name__)

Listener = Callable[[str, Any], None]

_HEED_SECONDS: Final = 60.0
_SURVEY_SECONDS: Final = 10.0
"""Far more than the parent waits for any of its workers."""


class SiblingsError(Exception):
    """The parent does not answer in time."""


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
        self._waiting: dict[int, SimpleQueue[Heeded | Surveyed]] = {}

    def tell(self, topic: str, content: Any, *, seconds: float = _HEED_SECONDS) -> list[str]:  # noqa: ANN401 - whatever JSON knows
        """Tell all workers, and return when all that are up acted on it: what kept them from it, one line each.

        Any thread may, but for a listener's: there it would wait for itself.
        """
        number = next(self._numbers)
        answer = self._answer(number, Tell(number, topic, content), seconds)
        if not isinstance(answer, Heeded):
            return [f"not every worker did it within {seconds:g} seconds"]
        return [f"worker {place}: {problem}" for place, problem in sorted(answer.problems.items())]

    def survey(self, *, seconds: float = _SURVEY_SECONDS) -> list[Any]:
        """Return the statistics of all workers together, as `service.open_inference.tables.to_plain` writes them.

        Raises:
            SiblingsError: they do not come in time.
        """
        number = next(self._numbers)
        answer = self._answer(number, Survey(number), seconds)
        if not isinstance(answer, Surveyed):
            raise SiblingsError(f"the workers' statistics did not come within {seconds:g} seconds")
        return answer.statistics

    def _answer(self, number: int, message: Tell | Survey, seconds: float) -> Heeded | Surveyed | None:
        """Send a message, and wait for what the parent says under its number; None where that does not come in time."""
        answers = self._waiting[number] = SimpleQueue()
        self._channel.send(message)
        try:
            return answers.get(timeout=seconds)
        except Empty:
            return None
        finally:
            self._waiting.pop(number, None)

    def listen(self, listener: Listener) -> None:
        """Have a function act on what is told, on a thread of its own. Before the worker starts.

        A ServiceError that it raises is what whoever told it learns.
        """
        self._listeners.append(listener)

    # Told by the parent -----------------------------------------------------------------------------------------------

    def hear(self, told: Told) -> None:
        """Learn what was told; listeners follow when it is their turn."""
        self._told.put(told)

    def answered(self, answer: Heeded | Surveyed) -> None:
        """Learn what came of something that was told or asked here."""
        waiting = self._waiting.get(answer.number)
        if waiting is not None:
            waiting.put(answer)

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
        self._channel.send(Heard(told.number, self._act(told.topic, told.content)))

    def _act(self, topic: str, content: Any) -> str:  # noqa: ANN401 - whatever JSON knows
        """Act on what was told, and return why that could not be done; nothing where it could."""
        problems = []
        for listener in self._listeners:
            try:
                listener(topic, content)
            except ServiceError as error:
                log.error("what was told could not be done", topic=topic, reason=error.message)
                problems.append(error.message)
            except Exception as fault:
                log.exception("what was told could not be done", topic=topic)
                problems.append(f"a fault, {type(fault).__name__}; its log tells more")
        return "; ".join(problems)
