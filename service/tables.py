"""What the client commands read and print: temperatures from text and CSV, answers as tables, lines or JSON."""

import csv
import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table

from proto.quicksilver.v1 import converter_pb2 as api
from service.client import Conversion


class ReadingError(Exception):
    """A temperature cannot be read; the message names the place."""


def read_fahrenheit(path: Path | None, column: str) -> list[float]:
    """Read temperatures from a CSV file, from CSV on standard input (`-`), or from plain numbers there (None).

    Raises:
        ReadingError: the file, the column, or a number is not what it should be.
    """
    if path is None:
        return list(parse_numbers(sys.stdin, "standard input"))
    if str(path) == "-":
        return list(parse_csv(sys.stdin, column, "standard input"))
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(parse_csv(file, column, str(path)))
    except (OSError, UnicodeDecodeError) as error:
        raise ReadingError(f"{path}: {error}") from error


def parse_numbers(lines: Iterable[str], source: str) -> Iterator[float]:
    """Read numbers separated by white space, commas or semicolons."""
    for number, line in enumerate(lines, 1):
        for word in re.split(r"[\s,;]+", line.strip()):
            if word:
                yield _number(word, f"{source}, line {number}")


def parse_csv(file: TextIO, column: str, source: str) -> Iterator[float]:
    """Read one column of a CSV file with a header line."""
    rows = csv.DictReader(file)
    if column not in (rows.fieldnames or ()):
        raise ReadingError(f"{source} has no column {column!r}: there are {', '.join(rows.fieldnames or ()) or 'none'}")
    for row in rows:
        yield _number(row[column] or "", f"{source}, line {rows.line_num}, column {column!r}")


def _number(text: str, place: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ReadingError(f"{place}: {text!r} is not a number") from None


def conversion_rows(fahrenheit: Sequence[float], conversion: Conversion) -> Iterator[dict[str, Any]]:
    """One dictionary a temperature, with what is known of it. A bound that cannot be stated is None."""
    outside = None if conversion.outside is None else conversion.outside.tolist()
    lower = None if conversion.lower is None else conversion.lower.tolist()
    upper = None if conversion.upper is None else conversion.upper.tolist()
    for index, (value, celsius) in enumerate(zip(fahrenheit, conversion.celsius.tolist(), strict=True)):
        row = {"fahrenheit": value, "celsius": celsius}
        if lower is not None and upper is not None:
            row |= {"celsius_lower": _or_none(lower[index]), "celsius_upper": _or_none(upper[index])}
        yield row | {"extrapolated": None if outside is None else outside[index]}


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
    cells = [f"{row['fahrenheit']:g}", f"{row['celsius']:.2f}"]
    if conversion.coverage is not None:
        known = row["celsius_lower"] is not None
        cells.append(f"{row['celsius_lower']:.2f} … {row['celsius_upper']:.2f}" if known else "none")
    notes = {True: "outside the training range", False: "", None: "training range unknown"}
    return [*cells, notes[row["extrapolated"]]]


def print_models(answer: api.ListModelsResponse) -> None:
    """Print the models of a server, a line a version."""
    lines = [
        [
            model.name,
            str(version.version),
            _state(version),
            ", ".join(version.labels),
            "answers by default" if version.version == model.default_version else "",
        ]
        for model in answer.models
        for version in model.versions
    ]
    default = f"default model: {answer.default_model}" if answer.default_model else "no default model"
    _print_table(f"{len(answer.models)} models; {default}", ["model", "version", "state", "labels", ""], lines)


def print_model(answer: api.GetModelResponse) -> None:
    """Print what is known of a version, a line a fact."""
    facts = [
        ("state", _state(answer.version)),
        ("labels", ", ".join(answer.version.labels) or "none"),
        ("kind", answer.kind or "not stated"),
        ("device", answer.device or "none"),
        ("file", f"{answer.size_bytes} bytes, sha256 {answer.sha256}" if answer.sha256 else "not loaded"),
        *((f"domain of {column.name}", f"{column.minimum:g} … {column.maximum:g}") for column in answer.domain),
    ]
    if answer.HasField("interval"):
        stated = answer.interval
        facts.append(("interval", f"± {stated.half_width_celsius:.3f} °C at {stated.coverage:.0%}, {stated.method}"))
    if answer.HasField("training"):
        run = answer.training
        facts += [
            ("training", f"{run.epochs} epochs, seed {run.seed}, {run.dataset_rows} rows, sha256 {run.dataset_sha256}"),
            ("losses", f"training {run.training_loss:.4f} °C², validation {run.validation_loss:.4f} °C²"),
        ]
    _print_table(f"{answer.model}, version {answer.version.version}", ["", ""], [list(fact) for fact in facts])


def _state(version: api.ModelVersion) -> str:
    name = api.VersionState.Name(version.state).removeprefix("VERSION_STATE_").lower()
    return f"{name}: {version.reason}" if version.reason else name


def _print_table(title: str, header: list[str], lines: list[list[str]]) -> None:
    console = Console()
    if not console.is_terminal:
        written = [line for line in [[title], header, *lines] if any(line)]
        print(*("\t".join(line).rstrip("\t") for line in written), sep="\n")  # noqa: T201 - asked for
        return
    table = Table(title=title, title_justify="left")
    for name in header:
        table.add_column(name, justify="right" if name in {"°F", "°C"} else "left", overflow="fold")
    for line in lines:
        table.add_row(*line)
    console.print(table)
