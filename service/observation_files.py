"""Observations ↔ CSV files: a header, then a line an observation. No network and no database.

Columns: `fahrenheit`, `celsius`, and `observed_at_seconds` (Unix time) or `observed_at` (ISO 8601; UTC where no zone is
named); `source`, unless one is given for all; and where there are such, `id`, `request_id`, `row`. A line without an id
gets one that is made of its values: the same file can be read again, and the same line twice counts once.
"""

import csv
import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TextIO

from proto.observation import InvalidObservationError, Observation, check_observation
from service.tables import ReadingError, open_text

_KNOWN: Final = ("id", "fahrenheit", "celsius", "observed_at_seconds", "observed_at", "source", "request_id", "row")
_WRITTEN: Final = (
    "id", "fahrenheit", "celsius", "observed_at_seconds", "source", "request_id", "row",
    "model", "version", "predicted_celsius",
)  # fmt: skip
_JOINED: Final = _WRITTEN[-3:]


def read_observations(path: Path, source: str | None = None) -> list[tuple[int, Observation]]:
    """Read a file, or standard input (`-`), and check all of it: each observation with its line, from 1.

    Raises:
        ReadingError: the file, its columns or a value are not what they should be; the message names the line.
    """
    with open_text(path) as file:
        return list(_parse(file, str(path), source, time.time()))


def _parse(file: TextIO, name: str, source: str | None, now_seconds: float) -> Iterator[tuple[int, Observation]]:
    reader = csv.DictReader(file, strict=True)
    try:
        _check_header(reader.fieldnames or [], name, source)
        for line in reader:
            try:
                observation = _observation(line, source)
                check_observation(observation, now_seconds)
            except InvalidObservationError as error:
                raise ReadingError(f"{name}, line {reader.line_num}: {error}") from error
            yield reader.line_num, observation
    except csv.Error as error:
        raise ReadingError(f"{name}, line {reader.line_num}: {error}") from error


def _check_header(columns: Iterable[str], name: str, source: str | None) -> None:
    there = list(columns)
    if unknown := [column for column in there if column not in {*_KNOWN, *_JOINED}]:
        raise ReadingError(f"{name}: no column {unknown[0]!r} is known; there are {', '.join(_KNOWN)}")
    missing = [column for column in ("fahrenheit", "celsius") if column not in there]
    if not {"observed_at_seconds", "observed_at"} & set(there):
        missing.append("observed_at_seconds' or 'observed_at")
    if "source" not in there and source is None:
        missing.append("source")
    if missing:
        raise ReadingError(f"{name} has no column '{missing[0]}': it has {', '.join(there) or 'none'}")


def _observation(line: Mapping[str, str], source: str | None) -> Observation:
    if None in line or None in line.values():
        raise InvalidObservationError("line", "has not as many values as the header")
    request_id = line.get("request_id") or None
    made = Observation(
        id=line.get("id") or "",
        fahrenheit=_number(line, "fahrenheit"),
        celsius=_number(line, "celsius"),
        observed_at_seconds=_observed_at(line),
        source=line.get("source") or source or "",
        request_id=request_id,
        row=None if request_id is None else _row(line.get("row") or "0"),
    )
    return made if made.id else replace(made, id=content_id(made))


def _number(line: Mapping[str, str], column: str) -> float:
    try:
        return float(line[column])
    except ValueError:
        raise InvalidObservationError(column, f"{line[column]!r} is no number") from None


def _row(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidObservationError("row", f"{text!r} is no whole number") from None


def _observed_at(line: Mapping[str, str]) -> float:
    if line.get("observed_at_seconds"):
        return _number(line, "observed_at_seconds")
    text = line.get("observed_at") or ""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidObservationError("observed_at", f"{text!r} is no time of ISO 8601") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def content_id(observation: Observation) -> str:
    """An id that is made of what an observation says."""
    said = replace(observation.reported(), id="")
    return hashlib.sha256(repr([getattr(said, name) for name in Observation.__slots__]).encode()).hexdigest()[:32]


def write_observations(observations: Iterable[Observation], file: TextIO) -> int:
    """Write observations, so that reading them gives the same ones, and return how many there were."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_WRITTEN)
    count = 0
    for count, observation in enumerate(observations, 1):  # noqa: B007 - how many there were
        values = (getattr(observation, name) for name in _WRITTEN)
        writer.writerow(["" if value is None else value for value in values])
    return count
