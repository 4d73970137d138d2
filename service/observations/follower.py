"""Looks at the store, joins observations to answers, and measures every loaded version against the latest of them."""

import threading
from collections.abc import Mapping, Sequence
from time import monotonic, thread_time
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import structlog
from numpy.typing import NDArray

from proto.observation import Joined, ObservationError
from service.models import LoadedVersion, Models
from service.observations.answers import Answers
from service.observations.figures import LiveQuality, measure
from service.observations.link import Link
from service.prediction import predict_what_it_can

if TYPE_CHECKING:
    from proto.observations import Columns, ObservationStore

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 1.0
"""Between two looks at the store: others may write to it."""
RENEW_SECONDS: Final = 30.0
"""After so long the figures are made anew, even where nothing seems to have changed."""
TIME_SHARE: Final = 0.1
"""The part of one core that looks at the store take, at the most."""
MOST_UNJOINED: Final = 4096
"""Observations that one look tries to join; it goes on with the next."""

Identity: TypeAlias = tuple[str, int, str]
"""Name, number and hash of a version."""


class Follower:
    """Keeps live quality true to the store, on a thread of its own.

    Guarantees: a quality is that of the latest observations, as many as the setting says, less those that the version
    may have been fitted to, and there is one for every converter that was loaded when it last looked; nothing here runs
    on a thread that answers calls, and nothing keeps a retired version in memory. Looks take no more than `TIME_SHARE`
    of one core, however much is reported, and what one holds in memory is bounded. While the store is away the last
    figures stay. What a version answered, where that is known, counts as its prediction; elsewhere it is run.
    """

    def __init__(self, link: Link, models: Models, answers: Answers, latest: int) -> None:
        self._link = link
        self._models = models
        self._answers = answers
        self._latest = latest
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="live-quality", daemon=True)
        self._looked_up_to = 0
        self._measured: tuple[int, int, list[Identity]] = (-1, 0, [])
        self._measured_seconds = 0.0
        self._away = False
        self._qualities: Mapping[Identity, LiveQuality] = {}
        self._failed: frozenset[Identity] = frozenset()
        """What could not be measured at the last look, and was told of."""

    def quality(self, version: LoadedVersion) -> LiveQuality | None:
        """How a version does; None where there is no observation, or nobody looked yet."""
        return self._qualities.get(identity(version))

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def wake(self) -> None:
        """Look soon: there is something new."""
        self._wake.set()

    def stop(self) -> None:
        """Look no more, and return when the last look is over."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            began = thread_time()
            try:
                self.look()
                if self._away:
                    log.info("the store of observations is back")
                self._away = False
            except ObservationError as error:
                if not self._away:
                    log.error("the store of observations cannot be read; live quality stays", reason=str(error))
                self._away = True
            except Exception:
                log.exception("live quality could not be measured")
            rest = rest_seconds(thread_time() - began)
            if not self._stopping.wait(rest):
                self._wake.wait(max(0.0, LOOK_SECONDS - rest))

    def look(self) -> None:
        """Look once.

        Raises:
            ObservationError: the store cannot be read.
        """
        store = self._link.store()
        mark = store.mark()
        if mark != self._looked_up_to:
            self._looked_up_to = self._join(store, mark)
        versions = converters(self._models)
        subject = mark, self._looked_up_to, [identity(version) for version in versions]
        if subject != self._measured or monotonic() - self._measured_seconds > RENEW_SECONDS:
            self._qualities, failed = measure_all(versions, store.read(latest=self._latest))
            for name, number, sha256 in failed.keys() - self._failed:
                reason = failed[name, number, sha256]
                log.warning("no live quality of a version", model=name, version=number, reason=reason)
            self._failed = frozenset(failed)
            self._measured, self._measured_seconds = subject, monotonic()

    def _join(self, store: "ObservationStore", mark: int) -> int:
        """Note in the store what this process answered for new observations, and return how far they were looked at."""
        if not len(self._answers):
            return mark
        joined = []
        waiting = store.unjoined(self._looked_up_to, mark, MOST_UNJOINED)
        for observation in waiting.observations:
            assert observation.request_id is not None  # noqa: S101 - those alone are asked for
            given = self._answers.find(observation.request_id, observation.row or 0, observation.fahrenheit)
            if given is not None:
                joined.append(Joined(observation.id, given.model, given.version, given.celsius))
        store.join(joined)
        return waiting.looked_up_to


def rest_seconds(spent_seconds: float) -> float:
    """How long to rest after a look: in proportion to the processor's time it took, and till reports have gathered.

    Waiting takes no such time: a database that hung for a while is looked at again soon.
    """
    return max(LOOK_SECONDS / 10, spent_seconds * (1 / TIME_SHARE - 1))


def identity(version: LoadedVersion) -> Identity:
    """What tells one version from every other, and from itself with another content."""
    return version.name, version.version, version.sha256


def converters(models: Models) -> list[LoadedVersion]:
    """The loaded versions that take a temperature and give one."""
    loaded = (version for model in models.catalogue.models.values() for version in model.loaded)
    return [version for version in loaded if version.converts]


def measure_all(
    versions: Sequence[LoadedVersion], columns: "Columns"
) -> tuple[dict[Identity, LiveQuality], dict[Identity, str]]:
    """Measure versions against observations, and tell why some cannot be; of none there is nothing to say."""
    qualities: dict[Identity, LiveQuality] = {}
    failed: dict[Identity, str] = {}
    for version in versions:
        try:
            quality = quality_of(version, columns)
            if quality is not None:
                qualities[identity(version)] = quality
        except Exception as fault:  # noqa: BLE001 - whatever ONNX Runtime raises, it concerns this version alone
            failed[identity(version)] = f"{type(fault).__name__}: {fault}"
    return qualities, failed


def quality_of(version: LoadedVersion, columns: "Columns") -> LiveQuality | None:
    """Measure a version against the observations that are new to it and that it answers; None where there are none."""
    new = np.flatnonzero(is_new(version, columns.observed_at_seconds))
    predicted = predict_what_it_can(version, columns.fahrenheit[new].astype(np.float32))
    mine = version.name, version.version
    answered = np.array([(columns.model[row], columns.version[row]) == mine for row in new], bool)
    predicted[answered] = columns.predicted_celsius[new][answered]
    is_finite = np.isfinite(predicted)
    counted, predicted = new[is_finite], predicted[is_finite]
    if not len(counted):
        return None
    outside = version.outside(columns.fahrenheit[counted].astype(np.float32).reshape(-1, 1))
    return measure(
        predicted - columns.celsius[counted],
        columns.observed_at_seconds[counted],
        None if outside is None else ~outside,
        None if version.interval is None else version.interval.half_width_celsius,
        None if version.interval is None else version.interval.coverage,
    )


def is_new(version: LoadedVersion, observed_at_seconds: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which observations `[N]` a version cannot have been fitted to: those later than the time that its file states.

    All of them, where it states none: then it was not fitted to observations.
    """
    until = None if version.artefact is None else version.artefact.observed_until_seconds
    new: NDArray[np.bool_] = observed_at_seconds > (-np.inf if until is None else until)
    return new
