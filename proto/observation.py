"""One observation of a true temperature: what it holds, what it cannot hold, and when two are the same.

An observation is known by its id for ever: the same one sent again is a duplicate, and another one under the same id is
refused.

    ObservationError
    ├── InvalidObservationError   a value that no observation can have
    ├── ConflictError             another observation has this id already
    ├── StoreUrlError             no store can be meant by this URL, or its driver is not installed
    ├── StoreUnavailableError     the database cannot be reached, or did not do it; nothing is known to be stored
    └── StoreSchemaError          the database holds tables of another schema
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np

from proto.artefact import ABSOLUTE_ZERO_FAHRENHEIT

ABSOLUTE_ZERO_CELSIUS: Final = -273.15
MAX_TEXT_CHARACTERS: Final = 120
"""Of an id, of a source, and bytes of a request id."""
MAX_AHEAD_SECONDS: Final = 300.0
"""How far an observation may lie in the future: what clocks differ by."""

_MAX_ROW: Final = 2**31 - 1
_SURELY: Final = 1.0
"""So far from a bound, and below float32's greatest, no rounding matters."""
_SURELY_FINITE: Final = 1e38


class ObservationError(Exception):
    """An observation, or the store of them, is not what it should be; the message says in which way."""


class StoreUrlError(ObservationError):
    """No store can be meant by this URL, or the package that speaks to it is not installed."""


class NoStoreError(StoreUrlError):
    """There is no store where the URL points; whoever writes first makes one."""


class StoreUnavailableError(ObservationError):
    """The database cannot be reached, or failed. What was being added may or may not be there: add it again."""


class StoreSchemaError(ObservationError):
    """The database holds observations in a schema that this program does not know."""


class InvalidObservationError(ObservationError):
    """A field holds what no observation can have."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class ConflictError(ObservationError):
    """Another observation has this id already. Of those added together with it, none was stored."""

    def __init__(self, index: int, known: str) -> None:
        super().__init__(f"another observation has the id {known!r} already")
        self.index = index
        """Its place in what was added."""
        self.id = known


@dataclass(frozen=True, slots=True)
class Observation:
    """A reading, and what the temperature truly was.

    `model`, `version` and `predicted_celsius` are what a server answered for this reading, where that is known.
    """

    id: str
    """Chosen by whoever reports; the same observation sent again has the same one."""
    fahrenheit: float
    celsius: float
    """The true temperature."""
    observed_at_seconds: float
    """Unix time."""
    source: str
    """Who or what observed, such as an instrument's name."""
    request_id: str | None = None
    """The request that asked for this reading's conversion, as its caller named it."""
    row: int | None = None
    """The reading's place in that request, from 0."""
    model: str | None = None
    version: int | None = None
    predicted_celsius: float | None = None

    def reported(self) -> "Observation":
        """Without what was joined: what the reporter said, by which two are the same or not."""
        return replace(self, model=None, version=None, predicted_celsius=None)


class Added(NamedTuple):
    """What became of observations that were added."""

    accepted: int
    """New ones."""
    duplicates: int
    """Those that were there already."""


class Joined(NamedTuple):
    """What a server answered for the reading of an observation."""

    id: str
    model: str
    version: int
    predicted_celsius: float


def check_observation(observation: Observation, now_seconds: float) -> None:
    """Refuse what no observation can have. Readings are compared in float32, as `Convert` does.

    Raises:
        InvalidObservationError: the first field that is wrong, and why.
    """
    for field in ("id", "source"):
        _check_text(field, getattr(observation, field))
    _check_temperature("fahrenheit", observation.fahrenheit, ABSOLUTE_ZERO_FAHRENHEIT, "°F")
    _check_temperature("celsius", observation.celsius, ABSOLUTE_ZERO_CELSIUS, "°C")
    observed_at = observation.observed_at_seconds
    if not math.isfinite(observed_at) or observed_at < 0:
        raise InvalidObservationError("observed_at_seconds", f"{observed_at} is no Unix time from 0")
    if observed_at > now_seconds + MAX_AHEAD_SECONDS:
        ahead = observed_at - now_seconds
        raise InvalidObservationError("observed_at_seconds", f"{observed_at:.12g} lies {ahead:.6g} s in the future")
    if (observation.request_id is None) != (observation.row is None):
        raise InvalidObservationError("row", "goes together with request_id: one is missing")
    if observation.request_id is not None and observation.row is not None:
        _check_text("request_id", observation.request_id)
        if not 0 <= observation.row <= _MAX_ROW:
            raise InvalidObservationError("row", f"{observation.row} is no place in a request")


def _check_text(field: str, text: str) -> None:
    if not text:
        raise InvalidObservationError(field, "is empty")
    if not text.isprintable() or len(text) > MAX_TEXT_CHARACTERS:
        raise InvalidObservationError(
            field, f"is not at most {MAX_TEXT_CHARACTERS} printable characters: {text!r:.200}"
        )


def _check_temperature(field: str, value: float, absolute_zero: float, unit: str) -> None:
    if absolute_zero + _SURELY < value < _SURELY_FINITE:
        return
    with np.errstate(over="ignore"):
        rounded = np.float32(value)
    if not np.isfinite(rounded):
        raise InvalidObservationError(field, f"{value:.9g} is not a temperature")
    if rounded < np.float32(absolute_zero):
        raise InvalidObservationError(field, f"{value:.9g} is below absolute zero ({absolute_zero} {unit})")


def sort_out(
    groups: Sequence[Sequence[Observation]], known: Mapping[str, Observation]
) -> tuple[list[Added | ConflictError], list[Observation]]:
    """Decide what becomes of each group, given what is stored under its ids, and which observations are new."""
    outcomes: list[Added | ConflictError] = []
    stored = dict(known)
    new: list[Observation] = []
    for group in groups:
        fresh: dict[str, Observation] = {}
        conflict: ConflictError | None = None
        for index, observation in enumerate(group):
            said = observation.reported()
            before = stored.get(said.id) or fresh.get(said.id)
            if before is None:
                fresh[said.id] = observation
            elif before.reported() != said:
                conflict = ConflictError(index, said.id)
                break
        if conflict is None:
            stored |= fresh
            new += fresh.values()
        outcomes.append(conflict or Added(len(fresh), len(group) - len(fresh)))
    return outcomes, new
