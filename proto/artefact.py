"""One ONNX file is the whole model: the typed reading and writing of the metadata that stands in it.

A converter's file holds, beside its graph, how it was trained and what it may be trusted with. Everything stands in
the ONNX `metadata_props` under keys that start with `quicksilver.`, each value a plain string or JSON. This module
knows the keys and nothing of ONNX itself: `to_metadata` and `from_metadata` are inverse, pure functions.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

SCHEMA_VERSION: Final = 1
PREFIX: Final = "quicksilver."
SCHEMA_KEY: Final = PREFIX + "schema_version"

OUTPUT_NAME: Final = "celsius"
ABSOLUTE_ZERO_FAHRENHEIT: Final = -459.67

_TYPE_NAMES: Final = {int: "a whole number", float: "a number"}


def input_name(columns: int) -> str:
    """Name of the graph's input: `fahrenheit` for one column, `features` for several."""
    return "fahrenheit" if columns == 1 else "features"


class ArtefactError(Exception):
    """The metadata of a model file is missing or wrong; the message names the key."""


class NotAnArtefactError(ArtefactError):
    """The file carries no Quicksilver metadata at all: a plain ONNX model."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of the training inputs between `edges`: `len(counts) + 1` ascending edges, in the column's unit."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        """Raise ValueError unless the edges ascend and frame the counts."""
        if len(self.edges) != len(self.counts) + 1 or not self.counts:
            raise ValueError(f"{len(self.counts)} counts need {len(self.counts) + 1} edges, not {len(self.edges)}")
        if any(low >= high for low, high in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError("edges must ascend")
        if min(self.counts) < 0:
            raise ValueError("counts must not be negative")


@dataclass(frozen=True, slots=True)
class Column:
    """One input column: its name, the range the model was trained on, and how the training data lay in it."""

    name: str
    minimum: float
    maximum: float
    histogram: Histogram

    def __post_init__(self) -> None:
        """Raise ValueError unless minimum < maximum, both finite."""
        if not (math.isfinite(self.minimum) and math.isfinite(self.maximum) and self.minimum < self.maximum):
            raise ValueError(f"the domain of column {self.name!r} is empty: {self.minimum} … {self.maximum}")


@dataclass(frozen=True, slots=True)
class Interval:
    """A symmetric prediction interval: an answer ± `half_width_celsius` holds the truth with probability `coverage`."""

    half_width_celsius: float
    coverage: float
    method: str

    def __post_init__(self) -> None:
        """Raise ValueError unless the half-width is finite and positive, and the coverage between 0 and 1."""
        if not (math.isfinite(self.half_width_celsius) and self.half_width_celsius >= 0):
            raise ValueError(f"half_width_celsius must be finite and not negative, not {self.half_width_celsius}")
        if not 0 < self.coverage < 1:
            raise ValueError(f"coverage must lie between 0 and 1, not {self.coverage}")


@dataclass(frozen=True, slots=True)
class GoldenVectors:
    """Inputs with the answers PyTorch gave: whoever loads the file must answer within the tolerance.

    `inputs` holds rows of columns, `outputs` one answer in °C a row. The tolerance for an answer y is
    `absolute_tolerance + relative_tolerance · |y|`.
    """

    inputs: tuple[tuple[float, ...], ...]
    outputs: tuple[float, ...]
    absolute_tolerance: float
    relative_tolerance: float

    def __post_init__(self) -> None:
        """Raise ValueError unless there is an output for each input, there are some, and no tolerance is negative."""
        if not self.inputs or len(self.inputs) != len(self.outputs):
            raise ValueError(f"{len(self.inputs)} golden inputs stand against {len(self.outputs)} outputs")
        if not (self.absolute_tolerance >= 0 and self.relative_tolerance >= 0):
            raise ValueError(f"tolerances must not be negative: {self.absolute_tolerance}, {self.relative_tolerance}")

    def mismatch(self, answers: Iterable[float]) -> str | None:
        """Say where `answers`, in °C, one an input, leave the tolerance; None where they all keep it."""
        given = list(answers)
        if len(given) != len(self.outputs):
            return f"{len(given)} answers to {len(self.outputs)} golden inputs"
        for row, (answer, expected) in enumerate(zip(given, self.outputs, strict=True)):
            allowed = self.absolute_tolerance + self.relative_tolerance * abs(expected)
            if not abs(answer - expected) <= allowed:  # NaN fails
                return (
                    f"golden vector {row}: input {list(self.inputs[row])} gave {answer!r}, "
                    f"expected {expected!r} ± {allowed:.3g}"
                )
        return None


@dataclass(frozen=True, slots=True)
class Artefact:
    """All that a converter's file states of itself. Losses are mean squared errors in °C²."""

    kind: str
    architecture: Mapping[str, Any]
    parameter_count: int
    seed: int
    hyperparameters: Mapping[str, Any]
    dataset_sha256: str
    dataset_rows: int
    training_loss: float
    validation_loss: float
    epochs: int
    torch_version: str
    onnx_version: str
    git_commit: str | None
    columns: tuple[Column, ...]
    interval: Interval | None
    golden: GoldenVectors
    parity_max_difference_celsius: float
    rows_independent: bool = True
    """Whether an answer depends on its own row alone, so that calls may share a run."""
    observed_until_seconds: float | None = None
    """Unix time of the newest observation that had a part in the fit; None where none had."""
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        """Raise ValueError where the parts contradict each other."""
        if not self.columns:
            raise ValueError("a model needs at least one input column")
        width = len(self.columns)
        if any(len(row) != width for row in self.golden.inputs):
            raise ValueError(f"golden inputs must have {width} columns")


_KEYS: Final = tuple(field.name for field in dataclasses.fields(Artefact))
_LATER_KEYS: Final = frozenset({"observed_until_seconds"})
"""Keys that came into the schema after files had been written: where one would say None, it is left out."""


def to_metadata(artefact: Artefact) -> dict[str, str]:
    """Write an artefact as ONNX metadata: one entry a field, strings as they are, everything else as JSON.

    A file that has nothing to say under a key that came later is the file it always was, and readers of before take it.

    Raises:
        ValueError: a number is NaN or infinite, which JSON does not know.
    """
    fields = {
        key: value for key, value in dataclasses.asdict(artefact).items() if not (key in _LATER_KEYS and value is None)
    }
    return {PREFIX + key: value if isinstance(value, str) else _to_json(value) for key, value in fields.items()}


def _to_json(value: Any) -> str:  # noqa: ANN401 - any field's value
    return json.dumps(value, allow_nan=False)


def from_metadata(metadata: Mapping[str, str]) -> Artefact:
    """Read an artefact from ONNX metadata.

    Raises:
        NotAnArtefactError: nothing of ours stands in the metadata.
        ArtefactError: the schema is unknown, a key is missing or not known, or a value is not what its key promises.
    """
    ours = {key: value for key, value in metadata.items() if key.startswith(PREFIX)}
    if not ours:
        raise NotAnArtefactError("the file carries no Quicksilver metadata")
    _check_schema(ours)
    if missing := [key for key in _KEYS if key not in _LATER_KEYS and PREFIX + key not in ours]:
        raise ArtefactError(f"missing metadata key {PREFIX + missing[0]!r}")
    if unknown := sorted(set(ours) - {PREFIX + key for key in _KEYS}):
        raise ArtefactError(f"unknown metadata key {unknown[0]!r} in schema {SCHEMA_VERSION}")
    return _build(_Reader(ours))


def _check_schema(ours: Mapping[str, str]) -> None:
    if SCHEMA_KEY not in ours:
        raise ArtefactError(f"missing metadata key {SCHEMA_KEY!r}")
    if ours[SCHEMA_KEY] != str(SCHEMA_VERSION):
        raise ArtefactError(f"{SCHEMA_KEY} is {ours[SCHEMA_KEY]!r}; this version reads schema {SCHEMA_VERSION}")


def _build(read: "_Reader") -> Artefact:
    try:
        return Artefact(
            kind=read.text("kind"),
            architecture=read.mapping("architecture"),
            parameter_count=read.whole("parameter_count"),
            seed=read.whole("seed"),
            hyperparameters=read.mapping("hyperparameters"),
            dataset_sha256=read.text("dataset_sha256"),
            dataset_rows=read.whole("dataset_rows"),
            training_loss=read.number("training_loss"),
            validation_loss=read.number("validation_loss"),
            epochs=read.whole("epochs"),
            torch_version=read.text("torch_version"),
            onnx_version=read.text("onnx_version"),
            git_commit=read.text_or_none("git_commit"),
            columns=read.columns("columns"),
            interval=read.interval("interval"),
            golden=read.golden("golden"),
            parity_max_difference_celsius=read.number("parity_max_difference_celsius"),
            rows_independent=read.flag("rows_independent"),
            observed_until_seconds=read.number_or_none("observed_until_seconds"),
        )
    except ValueError as error:
        raise ArtefactError(f"the metadata contradicts itself: {error}") from error


class _Reader:
    """Takes typed values out of the metadata; an ArtefactError names the key that holds something else."""

    def __init__(self, ours: Mapping[str, str]) -> None:
        self._ours = ours

    def text(self, key: str) -> str:
        return self._ours[PREFIX + key]

    def text_or_none(self, key: str) -> str | None:
        return None if self.text(key) == "null" else self.text(key)

    def whole(self, key: str) -> int:
        return int(self._typed(key, self._json(key), int))

    def number(self, key: str) -> float:
        value = self._typed(key, self._json(key), int, float)
        with self._shape(key):
            return _finite(value)

    def number_or_none(self, key: str) -> float | None:
        """None where the key is not there."""
        return self.number(key) if PREFIX + key in self._ours else None

    def flag(self, key: str) -> bool:
        value = self._json(key)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        value = self._json(key)
        if not isinstance(value, dict):
            raise self._wrong(key, "a JSON object")
        return value

    def columns(self, key: str) -> tuple[Column, ...]:
        with self._shape(key):
            return tuple(
                Column(
                    name=_text(column["name"]),
                    minimum=_finite(column["minimum"]),
                    maximum=_finite(column["maximum"]),
                    histogram=Histogram(
                        edges=_floats(column["histogram"]["edges"]),
                        counts=tuple(_whole(count) for count in column["histogram"]["counts"]),
                    ),
                )
                for column in self._json(key)
            )

    def interval(self, key: str) -> Interval | None:
        value = self._json(key)
        if value is None:
            return None
        with self._shape(key):
            return Interval(_finite(value["half_width_celsius"]), _finite(value["coverage"]), _text(value["method"]))

    def golden(self, key: str) -> GoldenVectors:
        value = self._json(key)
        with self._shape(key):
            return GoldenVectors(
                inputs=tuple(_floats(row) for row in value["inputs"]),
                outputs=_floats(value["outputs"]),
                absolute_tolerance=_finite(value["absolute_tolerance"]),
                relative_tolerance=_finite(value["relative_tolerance"]),
            )

    def _json(self, key: str) -> Any:  # noqa: ANN401 - JSON is anything until it is checked
        try:
            return json.loads(self.text(key), parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise self._wrong(key, "JSON") from error

    def _typed(self, key: str, value: Any, *types: type) -> Any:  # noqa: ANN401 - as above
        if isinstance(value, bool) or not isinstance(value, types):
            raise self._wrong(key, _TYPE_NAMES[types[-1]])
        return value

    def _shape(self, key: str) -> "_Shape":
        return _Shape(PREFIX + key, self._wrong(key, "of the documented shape"))

    def _wrong(self, key: str, expected: str) -> ArtefactError:
        return ArtefactError(f"metadata key {PREFIX + key!r} is not {expected}: {self.text(key)[:80]!r}")


class _Shape:
    """Turns the errors of reaching into JSON of the wrong shape, or with wrong values, into one that names the key."""

    def __init__(self, key: str, error: ArtefactError) -> None:
        self._key = key
        self._error = error

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, (KeyError, TypeError, AttributeError, IndexError)):
            raise self._error from error
        if isinstance(error, (ValueError, OverflowError)):
            raise ArtefactError(f"metadata key {self._key!r}: {error}") from error


def _finite(value: Any) -> float:  # noqa: ANN401 - JSON is anything until it is checked
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is not a number")
    if not math.isfinite(value):
        raise ValueError(f"{value!r} is not finite")
    return float(value)


def _floats(values: Sequence[Any]) -> tuple[float, ...]:
    return tuple(_finite(value) for value in values)


def _whole(value: Any) -> int:  # noqa: ANN401 - as above
    if type(value) is not int:
        raise TypeError(f"{value!r} is not a whole number")
    return value


def _text(value: Any) -> str:  # noqa: ANN401 - as above
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
