"""Reports in, durable observations out: one thread that stores everything that waits with one commit, and repeats.

A commit waits for the disk; while it does, the next reports gather. So one report alone is stored at once, and many
share the wait, without a timer.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import structlog

from proto.observation import (
    Added,
    ConflictError,
    InvalidObservationError,
    Observation,
    ObservationError,
    check_observation,
)
from proto.quicksilver.v1 import converter_pb2 as api
from service.codec import parse
from service.errors import (
    AlreadyExistsError,
    DrainingError,
    InternalError,
    InvalidRequestError,
    OverloadedError,
    ServiceError,
    Shed,
    StoreError,
    without_frames,
)
from service.observations.link import Link

log = structlog.get_logger(__name__)

MAX_OBSERVATIONS: Final = 10_000
"""Of one message."""
MAX_WAITING_BYTES: Final = 32 << 20
"""Of reports that wait; more are refused."""
_MOST_FIELDS: Final = 2 * MAX_OBSERVATIONS
"""Of a message that is read at all. One with more is refused uncounted; up to here the refusal tells the number."""
_COMMIT_BYTES: Final = 2 << 20
"""Of reports that share a commit, unless a single one has more."""

Outcome: TypeAlias = Added | ServiceError
RESULTS: Final = ("accepted", "duplicate", "refused", "unavailable")
"""What an observation can come to: refused for what it is or for the rate, unavailable for the store's sake."""


@dataclass(frozen=True, slots=True)
class Report:
    """A serialised ReportObservationsRequest, and who waits for what becomes of it.

    `done` is called once, on the recorder's thread, when the observations are durable or the report is refused.
    """

    body: bytes
    done: Callable[[Outcome], None]


class Allowance:
    """So many observations a second, with up to a second's worth saved. One report may overdraw it, and the next waits.

    A report larger than a second's worth could otherwise never be stored.
    """

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._clock = clock
        self._left = per_second
        self._refilled = clock()

    def take(self, observations: int) -> None:
        """Take observations from what is left.

        Raises:
            OverloadedError: nothing is left; the message says when to come again.
        """
        now = self._clock()
        self._left = min(self._per_second, self._left + (now - self._refilled) * self._per_second)
        self._refilled = now
        if self._left <= 0:
            seconds = (1 - self._left) / self._per_second
            raise OverloadedError(
                f"more than {self._per_second:g} observations a second: come again in {seconds:.3g} s",
                Shed.OBSERVATIONS,
            )
        self._left -= observations


class Recorder:
    """Stores reports on a thread of its own.

    Guarantees: each accepted report has `done` called exactly once, also when the recorder stops; with an Added only
    when all its observations are durable; in the order in which reports came.
    """

    def __init__(
        self,
        link: Link,
        per_second: float,
        stored: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._link = link
        self._allowance = Allowance(per_second)
        self._stored = stored
        self._clock = clock
        self._arrived = threading.Condition()
        self._waiting: list[Report] = []
        self._waiting_bytes = 0
        self._stopping = False
        self._counts = dict.fromkeys(RESULTS, 0)
        self._thread = threading.Thread(target=self._work, name="observations", daemon=True)

    @property
    def counts(self) -> Mapping[str, int]:
        """How many observations came to what."""
        return self._counts

    def start(self) -> None:
        """Begin to store."""
        self._thread.start()

    def submit(self, report: Report) -> None:
        """Let a report wait for the next commit.

        Raises:
            DrainingError: the recorder is stopping.
            OverloadedError: too much waits already.
        """
        with self._arrived:
            if self._stopping:
                raise DrainingError("the server is stopping")
            if self._waiting and self._waiting_bytes + len(report.body) > MAX_WAITING_BYTES:
                raise OverloadedError(
                    f"{self._waiting_bytes} bytes of observations wait to be stored already", Shed.OBSERVATIONS
                )
            self._waiting.append(report)
            self._waiting_bytes += len(report.body)
            self._arrived.notify()

    def stop(self) -> None:
        """Accept nothing more, store what was accepted, and return when it is."""
        with self._arrived:
            self._stopping = True
            self._arrived.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        while reports := self._take():
            outcomes = self._store(reports)
            self._stored()
            for report, outcome in zip(reports, outcomes, strict=True):
                try:
                    report.done(outcome)
                except Exception:  # a fault of one call's handler must not keep the others from their answers
                    log.exception("reply failed")

    def _take(self) -> list[Report]:
        """Wait for reports, and take as many as shall share a commit; an empty list means that there will be none."""
        with self._arrived:
            while not self._waiting and not self._stopping:
                self._arrived.wait()
            taken, size = 0, 0
            for report in self._waiting:
                size += len(report.body)
                if taken and size > _COMMIT_BYTES:
                    break
                taken += 1
            reports, self._waiting = self._waiting[:taken], self._waiting[taken:]
            self._waiting_bytes -= sum(len(report.body) for report in reports)
            return reports

    def _store(self, reports: Sequence[Report]) -> list[Outcome]:
        """Store what can be stored, with one commit, and tell what became of each report."""
        read = [self._read(report.body) for report in reports]
        groups = [observations for observations in read if isinstance(observations, list)]
        stored = iter(self._commit(groups) if groups else ())
        return [next(stored) if isinstance(observations, list) else observations for observations in read]

    def _read(self, body: bytes) -> list[Observation] | ServiceError:
        observations = 0
        try:
            message = parse(api.ReportObservationsRequest, body, _MOST_FIELDS)
            observations = len(message.observations)
            found = observations_of(message, self._clock())
            self._allowance.take(observations)
        except ServiceError as error:
            self._counts["refused"] += observations
            return without_frames(error)
        except Exception as fault:  # noqa: BLE001 - whatever it is, it concerns this report alone
            return _fault(fault)
        return found

    def _commit(self, groups: Sequence[list[Observation]]) -> list[Outcome]:
        try:
            outcomes = self._link.store().add_groups(groups)
        except ObservationError as error:
            log.error("observations cannot be stored", reason=str(error), reports=len(groups))
            self._counts["unavailable"] += sum(map(len, groups))
            return [StoreError("the store of observations failed; send them again: none is known to be stored")] * len(
                groups
            )
        except Exception as fault:  # noqa: BLE001 - whatever it is, every report must have an outcome
            return [_fault(fault)] * len(groups)
        return [self._counted(outcome, len(group)) for outcome, group in zip(outcomes, groups, strict=True)]

    def _counted(self, outcome: Added | ConflictError, observations: int) -> Outcome:
        if isinstance(outcome, ConflictError):
            self._counts["refused"] += observations
            return AlreadyExistsError(f"observations[{outcome.index}].id: {outcome}")
        self._counts["accepted"] += outcome.accepted
        self._counts["duplicate"] += outcome.duplicates
        return outcome


def observations_of(message: api.ReportObservationsRequest, now_seconds: float) -> list[Observation]:
    """Read and check the observations of a request.

    Raises:
        InvalidRequestError: there is none, there are too many, or one cannot be; it names the first, by its index.
    """
    if not message.observations:
        raise InvalidRequestError("observations", "is empty; report at least one")
    if len(message.observations) > MAX_OBSERVATIONS:
        raise InvalidRequestError(
            "observations", f"{len(message.observations)} are more than {MAX_OBSERVATIONS} in one message"
        )
    found = [_observation(observation) for observation in message.observations]
    for index, observation in enumerate(found):
        try:
            check_observation(observation, now_seconds)
        except InvalidObservationError as error:
            raise InvalidRequestError(f"observations[{index}].{error.field}", error.reason) from error
    return found


def _observation(message: api.Observation) -> Observation:
    asked = message.request_id or None
    return Observation(
        id=message.id,
        fahrenheit=message.fahrenheit,
        celsius=message.celsius,
        observed_at_seconds=message.observed_at_seconds,
        source=message.source,
        request_id=asked,
        row=None if asked is None else message.row,
    )


def _fault(fault: Exception) -> InternalError:
    error = InternalError()
    log.error("observations could not be stored", error_id=error.id, exc_info=fault)
    return error
