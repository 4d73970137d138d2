"""Looks at the store, joins observations to answers, and measures every loaded version against the latest of them."""

import threading
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import structlog

from proto.observation import Joined, ObservationError
from service.models import LoadedVersion, Models
from service.observations.answers import Answers
from service.observations.figures import LiveQuality, measure
from service.observations.link import Link
from service.prediction import predict

if TYPE_CHECKING:
    from proto.observations import Columns, ObservationStore

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 1.0
"""Between two looks at the store: others may write to it."""
RENEW_SECONDS: Final = 30.0
"""After so long the figures are made anew, even where nothing seems to have changed."""

Identity: TypeAlias = tuple[str, int, str]
"""Name, number and hash of a version."""

_OVERLAP: Final = 1000
"""Numbers that are looked at once more: of two transactions at once, the one with the lower numbers may end later."""


class Follower:
    """Keeps live quality true to the store, on a thread of its own.

    Guarantees: a quality is that of the latest observations, as many as the setting says, and there is one for every
    converter that was loaded when it last looked; nothing here runs on a thread that answers calls, and nothing keeps a
    retired version in memory. While the store is away the last figures stay. What a version answered, where that is
    known, counts as its prediction; elsewhere it is run.
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
        self._measured: tuple[int, list[Identity]] = (-1, [])
        self._measured_seconds = 0.0
        self._away = False
        self._qualities: Mapping[Identity, LiveQuality] = {}

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
            if self._wake.wait(LOOK_SECONDS):
                self._wake.clear()
                self._stopping.wait(LOOK_SECONDS / 10)  # so that many reports make few looks

    def look(self) -> None:
        """Look once.

        Raises:
            ObservationError: the store cannot be read.
        """
        store = self._link.store()
        mark = store.mark()
        if mark != self._looked_up_to:
            self._join(store)
            self._looked_up_to = mark
        versions = converters(self._models)
        subject = mark, [identity(version) for version in versions]
        if subject != self._measured or monotonic() - self._measured_seconds > RENEW_SECONDS:
            self._qualities = measure_all(versions, store.read(latest=self._latest))
            self._measured, self._measured_seconds = subject, monotonic()

    def _join(self, store: "ObservationStore") -> None:
        """Note in the store what this process answered for new observations."""
        if not len(self._answers):
            return
        joined = []
        for observation in store.unjoined(self._looked_up_to - _OVERLAP):
            assert observation.request_id is not None  # noqa: S101 - those alone are asked for
            given = self._answers.find(observation.request_id, observation.row or 0, observation.fahrenheit)
            if given is not None:
                joined.append(Joined(observation.id, given.model, given.version, given.celsius))
        store.join(joined)


def identity(version: LoadedVersion) -> Identity:
    """What tells one version from every other, and from itself with another content."""
    return version.name, version.version, version.sha256


def converters(models: Models) -> list[LoadedVersion]:
    """The loaded versions that take a temperature and give one."""
    loaded = (version for model in models.catalogue.models.values() for version in model.loaded)
    return [version for version in loaded if version.converts]


def measure_all(versions: Sequence[LoadedVersion], columns: "Columns") -> dict[Identity, LiveQuality]:
    """Measure versions against observations; of none there is nothing to say."""
    qualities: dict[Identity, LiveQuality] = {}
    for version in versions if len(columns) else ():
        try:
            qualities[identity(version)] = quality_of(version, columns)
        except Exception as fault:  # whatever ONNX Runtime raises, it concerns this version alone
            log.warning("no live quality of a version", model=version.name, version=version.version, exc_info=fault)
    return qualities


def quality_of(version: LoadedVersion, columns: "Columns") -> LiveQuality:
    """Measure a version against observations."""
    rows = columns.fahrenheit.astype(np.float32)
    predicted = predict(version, rows)
    pairs = zip(columns.model, columns.version, strict=True)
    answered = np.array([pair == (version.name, version.version) for pair in pairs])
    predicted[answered] = columns.predicted_celsius[answered]
    outside = version.outside(rows.reshape(-1, 1))
    return measure(
        predicted - columns.celsius,
        columns.observed_at_seconds,
        None if outside is None else ~outside,
        None if version.interval is None else version.interval.half_width_celsius,
        None if version.interval is None else version.interval.coverage,
    )
