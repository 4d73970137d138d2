"""Work for one call that would hold up the event loop: a worker does it, and the loop learns what came of it."""

from collections.abc import Callable
from typing import Generic, TypeVar

import structlog

from service.errors import InternalError, ServiceError, without_frames
from service.http2.streams import Link

log = structlog.get_logger(__name__)

ResultT = TypeVar("ResultT")


class Aside(Generic[ResultT]):
    """One piece of such work. Guarantees: `then` is called once, on the loop's thread, unless it was cancelled before.

    `size` bytes of the request count as being answered for the link until then. What was cancelled before a worker came
    to it is not done, and what it held is let go at once.
    """

    __slots__ = ("_link", "_outcome", "_then", "_work", "size")

    def __init__(
        self, link: Link, size: int, work: Callable[[], ResultT], then: Callable[[ResultT | ServiceError], None]
    ) -> None:
        self._link = link
        self._work: Callable[[], ResultT] | None = work
        self._then: Callable[[ResultT | ServiceError], None] | None = then
        self._outcome: ResultT | ServiceError | None = None
        self.size = size
        link.running(size)
        link.burst.aside(self)

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for it any longer."""
        return self._then is None

    def cancel(self) -> None:
        """Let go of it. Called on the loop's thread; of no consequence where it is over."""
        self._over()

    def work(self) -> None:
        """Do it, on a worker's thread. What it raises becomes its outcome."""
        work = self._work
        if work is None:
            return
        try:
            self._outcome = work()
        except ServiceError as error:
            self._outcome = without_frames(error)
        except Exception:  # a fault concerns its call alone
            internal = InternalError()
            log.exception("work for a call failed", error_id=internal.id)
            self._outcome = internal

    def deliver(self) -> None:
        """Tell what came of it, on the loop's thread."""
        then, outcome = self._over(), self._outcome
        if then is None or outcome is None:
            return
        try:
            then(outcome)
        except Exception:  # as a reply's: a fault of one call must not keep the others from their answers
            log.exception("what came of work for a call could not be told")

    def _over(self) -> Callable[[ResultT | ServiceError], None] | None:
        then, self._then, self._work = self._then, None, None
        if then is not None:
            self._link.running(-self.size)
        return then
