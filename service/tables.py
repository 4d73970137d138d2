"""What the client commands read and print: temperatures from text and CSV, answers as tables, lines or JSON."""

import contextlib
import csv
import io
import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from proto.quicksilver.v1 import converter_pb2 as api
from service.conversion import Conversion

STANDARD_INPUT: Final = Path("-")

_FIXED_BELOW_CELSIUS: Final = 1e9
"""Answers of at least this size are written with an exponent: two decimals of them mean nothing."""


class ReadingError(Exception):
    """A temperature cannot be read; the message names the place."""


# Reading --------------------------------------------------------------------------------------------------------------


def read_numbers() -> list[float]:
    """Read plain numbers from standard input.

    Raises:
        ReadingError: one is no number, or there are none.
    """
    with open_text(STANDARD_INPUT) as file:
        return _some(parse_numbers(file, _name(STANDARD_INPUT)), _name(STANDARD_INPUT))


def read_csv(path: Path, column: str) -> list[float]:
    """Read temperatures from a CSV file, or from CSV on standard input (`-`).

    Raises:
        ReadingError: the file, the column, or a number is not what it should be, or there are none.
    """
    source = _name(path)
    with open_text(path) as file:
        return _some(parse_csv(file, column, source), source)


@contextlib.contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a file or standard input (`-`) as UTF-8, with or without a byte order mark."""
    try:
        if path == STANDARD_INPUT:
            text = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", newline="")
            yield text
            text.detach()  # standard input is not ours to close
        else:
            with path.open(encoding="utf-8-sig", newline="") as file:
                yield file
    except OSError as error:
        raise ReadingError(f"{_name(path)}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ReadingError(f"{_name(path)} is not UTF-8 text: {error}") from error


def _name(path: Path) -> str:
    return "standard input" if path == STANDARD_INPUT else str(path)


def _some(numbers: Iterable[float], source: str) -> list[float]:
    read = list(numbers)
    if not read:
        raise ReadingError(f"{source} holds no temperature")
    return read


def parse_numbers(lines: Iterable[str], source: str) -> Iterator[float]:
    """Read numbers separated by white space, commas or semicolons."""
    for number, line in enumerate(lines, 1):
        for word in re.split(r"[\s,;]+", line.strip()):
            if word:
                yield _number(word, f"{source}, line {number}")


def parse_csv(file: Iterable[str], column: str, source: str) -> Iterator[float]:
    """Read one column of a CSV file with a header line."""
    rows = csv.DictReader(file, skipinitialspace=True)
    try:
        names = rows.fieldnames or ()
        if column not in names:
            raise ReadingError(f"{source} has no column {column!r}: there are {', '.join(names) or 'none'}")
        for row in rows:
            yield _number(row[column] or "", f"{source}, line {rows.line_num}, column {column!r}")
    except csv.Error as error:
        raise ReadingError(f"{source}, line {rows.line_num}: {error}") from error


def number(text: str) -> float:
    """Read a number. Raise ValueError for what is none, `1_000` included, which only Python's source has."""
    if "_" in text:
        raise ValueError(f"{text!r} is not a number")
    return float(text)


def _number(text: str, place: str) -> float:
    try:
        return number(text)
    except ValueError:
        raise ReadingError(f"{place}: {text!r} is not a number") from None


# Writing --------------------------------------------------------------------------------------------------------------


def conversion_rows(fahrenheit: Sequence[float], conversion: Conversion) -> Iterator[dict[str, Any]]:
    """One dictionary a temperature, with what is known of it. A bound that cannot be stated is None."""
    outside = None if conversion.outside is None else conversion.outside.tolist()
    lower = None if conversion.lower is None else _shortest(conversion.lower)
    upper = None if conversion.upper is None else _shortest(conversion.upper)
    for index, (value, celsius) in enumerate(zip(fahrenheit, _shortest(conversion.celsius), strict=True)):
        row: dict[str, Any] = {"fahrenheit": value, "celsius": celsius}
        if lower is not None and upper is not None:
            row |= {"celsius_lower": _or_none(lower[index]), "celsius_upper": _or_none(upper[index])}
        yield row | {"extrapolated": None if outside is None else outside[index]}


def _shortest(values: NDArray[np.float32]) -> list[float]:
    """The shortest numbers that are these float32 values: 36.6, where float64 shows 36.599998474121094."""
    return [float(str(value)) for value in values]


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def conversion_json(fahrenheit: Sequence[float], conversion: Conversion) -> str:
    """A conversion as one JSON object. An unknown domain is null, as is a bound that cannot be stated."""
    answer: dict[str, Any] = {"model": conversion.model, "version": conversion.version}
    if conversion.coverage is not None:
        answer["coverage"] = conversion.coverage
    return json.dumps(answer | {"conversions": list(conversion_rows(fahrenheit, conversion))})


def message_json(message: Message) -> str:
    """A message of the API as JSON, with the names of its fields as they are."""
    return json.dumps(MessageToDict(message, preserving_proto_field_name=True), indent=2)


def print_conversion(fahrenheit: Sequence[float], conversion: Conversion) -> None:
    """Print a table on a terminal, and tab-separated lines elsewhere."""
    header = ["°F", "°C"]
    if conversion.coverage is not None:
        header.append(f"{conversion.coverage:.0%} interval, °C")
    lines = [_conversion_line(row, conversion) for row in conversion_rows(fahrenheit, conversion)]
    _print_table(f"{conversion.model}, version {conversion.version}", [*header, ""], lines)


def _conversion_line(row: dict[str, Any], conversion: Conversion) -> list[str]:
    cells = [f"{row['fahrenheit']:.9g}", _celsius(row["celsius"])]
    if conversion.coverage is not None:
        known = row["celsius_lower"] is not None
        cells.append(f"{_celsius(row['celsius_lower'])} … {_celsius(row['celsius_upper'])}" if known else "none")
    notes = {True: "outside the training range", False: "", None: "training range unknown"}
    return [*cells, notes[row["extrapolated"]]]


def _celsius(value: float) -> str:
    return f"{value:.2f}" if abs(value) < _FIXED_BELOW_CELSIUS else f"{value:.7g}"


def print_models(answer: api.ListModelsResponse) -> None:
    """Print the models of a server, a line a version."""
    lines = [
        [
            model.name,
            str(version.version),
            _state(version),
            ", ".join(version.labels),
            "answers by default" if version.version == model.default_version else _traffic(version),
        ]
        for model in answer.models
        for version in model.versions
    ]
    count = f"{len(answer.models)} model{'' if len(answer.models) == 1 else 's'}"
    default = f"default model: {answer.default_model}" if answer.default_model else "no default model"
    _print_table(f"{count}; {default}", ["model", "version", "state", "labels", ""], lines)


def print_model(answer: api.GetModelResponse) -> None:
    """Print what is known of a version, a line a fact."""
    _print_table(f"{answer.model}, version {answer.version.version}", ["", ""], [list(fact) for fact in _facts(answer)])


def _facts(answer: api.GetModelResponse) -> Iterator[tuple[str, str]]:
    yield "state", _state(answer.version)
    yield "labels", ", ".join(answer.version.labels) or "none"
    if traffic := _traffic(answer.version):
        yield "canary", traffic
    yield "kind", answer.kind or "not stated"
    yield "device", answer.device or "none"
    if answer.HasField("placement"):
        ranges = [f"{step.place} from {step.from_rows} rows" for step in answer.placement.ranges]
        yield "runs on", "; ".join(ranges)
    yield "file", f"{answer.size_bytes} bytes, sha256 {answer.sha256}" if answer.sha256 else "not loaded"
    for column in answer.domain:
        yield f"domain of {column.name}", f"{column.minimum:g} … {column.maximum:g}"
    if answer.HasField("interval"):
        stated = answer.interval
        yield "interval", f"± {stated.half_width_celsius:.3f} °C at {stated.coverage:.0%}, {stated.method}"
    if answer.HasField("training"):
        run = answer.training
        yield "training", f"{run.epochs} epochs, seed {run.seed}, {run.dataset_rows} rows, sha256 {run.dataset_sha256}"
        yield "losses", f"training {run.training_loss:.4f} °C², validation {run.validation_loss:.4f} °C²"
    if answer.HasField("live_quality"):
        yield from _live_facts(answer.live_quality)


def _live_facts(quality: api.LiveQuality) -> Iterator[tuple[str, str]]:
    yield "observed", f"{quality.observations} times: error {_estimate(quality.mae_celsius, '.3f', ' °C')}"
    if quality.HasField("coverage"):
        stated = f"{quality.stated_coverage:.0%} stated"
        yield "covered", f"{_estimate(quality.coverage, '.1%')}, {stated}"


def _estimate(estimate: api.Estimate, form: str, unit: str = "") -> str:
    """A figure with its bounds, where it has some."""
    value = f"{estimate.value:{form}}{unit}"
    if not estimate.HasField("lower"):
        return value
    return f"{value} ({estimate.lower:{form}} … {estimate.upper:{form}} at 95 %)"


def _state(version: api.ModelVersion) -> str:
    name = api.VersionState.Name(version.state).removeprefix("VERSION_STATE_").lower()
    return f"{name}: {version.reason}" if version.reason else name


def _traffic(version: api.ModelVersion) -> str:
    """What a canary gets of the requests that name no version; empty for nothing."""
    if version.shadow:
        return "runs in the shadow"
    return f"answers {version.canary_share:.4g} of what names no version" if version.canary_share else ""


def _print_table(title: str, header: list[str], lines: list[list[str]]) -> None:
    console = Console(markup=False, emoji=False, highlight=False)  # a reason may hold brackets and colons
    if not console.is_terminal:
        written = [line for line in [[title], header, *lines] if any(line)]
        print(*("\t".join(map(_one_line, line)).rstrip("\t") for line in written), sep="\n")  # noqa: T201 - asked for
        return
    table = Table(title=title, title_justify="left", show_header=any(header))
    for name in header:
        table.add_column(name, justify="right" if name in {"°F", "°C"} else "left", overflow="fold")
    for line in lines:
        table.add_row(*line)
    console.print(table)


def _one_line(cell: str) -> str:
    """A cell in a line of tab-separated ones: what a reason says may hold both."""
    return re.sub(r"[\t\r\n]+", " ", cell)
