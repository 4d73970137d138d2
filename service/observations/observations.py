"""Everything about observations as one part of the server: made of the settings, started, stopped."""

from collections.abc import Mapping

from service.calls import Method
from service.codec import Keep
from service.config import Settings
from service.errors import UnsupportedError
from service.models import LoadedVersion, Models
from service.observations.answers import Answers
from service.observations.figures import LiveQuality
from service.observations.follower import Follower
from service.observations.link import Link
from service.observations.recorder import Recorder, Report
from service.observations.reports import Guard, methods


class Observations:
    """Takes observations in, and knows how the loaded versions do against them. Without a store it refuses reports."""

    def __init__(self, settings: Settings, models: Models) -> None:
        self._answers = Answers(settings.kept_answer_bytes)
        self._link = Link(settings.observations) if settings.observations else None
        self._follower = Follower(self._link, models, self._answers, settings.live_observations) if self._link else None
        self._recorder = (
            Recorder(self._link, settings.observations_per_second, self._follower.wake)
            if self._link and self._follower
            else None
        )

    @property
    def keep(self) -> Keep | None:
        """What learns of answers to requests with an id."""
        return self._answers.keep if self._recorder and self._answers.max_bytes else None

    def methods(self, service: str, guard: Guard) -> list[Method]:
        """The methods of a service that take reports."""
        return methods(service, self._record, guard)

    def quality(self, version: LoadedVersion) -> LiveQuality | None:
        """How a version does against the latest observations; None where that is not known."""
        return self._follower.quality(version) if self._follower else None

    def counts(self) -> Mapping[str, int]:
        """How many observations came to what."""
        return self._recorder.counts if self._recorder else {}

    def start(self) -> None:
        """Begin to store, and to look at the store.

        Raises:
            StoreSettingError: the setting names no store that can be used.
        """
        if self._link and self._recorder and self._follower:
            self._link.check()
            self._recorder.start()
            self._follower.start()

    def stop(self) -> None:
        """Store what was accepted, and close the store."""
        if self._link and self._recorder and self._follower:
            self._recorder.stop()
            self._follower.stop()
            self._link.close()

    def _record(self, report: Report) -> None:
        if self._recorder is None:
            raise UnsupportedError("this server stores no observations: start it with --observations URL")
        self._recorder.submit(report)
