"""The readings: the eleven built-in ones, or a user's CSV or Parquet file, checked before anything is fitted."""

import contextlib
import csv
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from proto.artefact import ABSOLUTE_ZERO_FAHRENHEIT
from training.errors import DataError, SplitError
from training.law import ABSOLUTE_ZERO_CELSIUS

FAHRENHEIT: Final = "fahrenheit"
CELSIUS: Final = "celsius"
BUILT_IN: Final = "built-in"
MINIMUM_ROWS: Final = 3
_GREATEST_FLOAT32: Final = float(np.finfo(np.float32).max)

_BUILT_IN_FAHRENHEIT: Final = (35.7, 55.9, 58.2, 81.9, 56.3, 48.9, 33.9, 21.8, 48.4, 60.4, 68.4)
_BUILT_IN_CELSIUS: Final = (0.5, 14.0, 15.0, 28.0, 11.0, 8.0, 3.0, -4.0, 6.0, 13.0, 21.0)

PublishedSplit = Literal["first", "second"]
# Rows held out for validation in the two published runs, counted from 0.
_HELD_OUT: Final[dict[PublishedSplit, tuple[int, ...]]] = {"first": (7, 10), "second": (2, 6)}


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Readings with their true temperatures: `features` float64 [N, N_in], `celsius` float64 [N]; neither changes.

    `columns` names the feature columns, `source` says where the readings come from. `is_built_in` is true of the eleven
    readings alone, to which the published scaling and splits belong. What `read` lets through is finite, in float32
    too, and no column is constant. `observed_until_seconds` is the Unix time of the newest observation among them;
    None where there is none.
    """

    features: NDArray[np.float64]
    celsius: NDArray[np.float64]
    columns: tuple[str, ...]
    source: str
    is_built_in: bool = False
    observed_until_seconds: float | None = None

    def __post_init__(self) -> None:
        """Freeze the arrays. Raise ValueError where the shapes do not go together."""
        rows, width = self.features.shape
        if self.celsius.shape != (rows,) or len(self.columns) != width:
            raise ValueError(f"features {self.features.shape}, celsius {self.celsius.shape}, columns {self.columns}")
        self.features.setflags(write=False)
        self.celsius.setflags(write=False)

    def __len__(self) -> int:
        return len(self.celsius)

    @property
    def fahrenheit(self) -> NDArray[np.float64] | None:
        """The readings [N] where the only column is in °F, so that the exact law holds; None otherwise."""
        return self.features[:, 0] if self.columns == (FAHRENHEIT,) else None

    @property
    def sha256(self) -> str:
        """Hash of the names and values, as little-endian float64: the same readings from any file hash alike."""
        digest = hashlib.sha256("\0".join(self.columns).encode())
        digest.update(np.ascontiguousarray(self.features, dtype="<f8").tobytes())
        digest.update(np.ascontiguousarray(self.celsius, dtype="<f8").tobytes())
        return digest.hexdigest()


def built_in() -> Dataset:
    """The eleven readings of the old thermometer, with the noise of a person reading a dial."""
    features, celsius = np.array(_BUILT_IN_FAHRENHEIT)[:, None], np.array(_BUILT_IN_CELSIUS)
    return Dataset(features, celsius, (FAHRENHEIT,), BUILT_IN, is_built_in=True)


# Reading a file -------------------------------------------------------------------------------------------------------


class _Table(NamedTuple):
    """What a file holds: values [N, names], and the line that each row ends on, counted from 1; None in Parquet."""

    values: NDArray[np.float64]
    lines: Sequence[int] | None = None

    def place(self, row: int) -> dict[str, int]:
        """Where a row, counted from 0, stands, as a DataError says it: by its line, or by its number from 1."""
        return {"row": row + 1} if self.lines is None else {"line": self.lines[row]}


def read(path: Path | str, features: Sequence[str] = (FAHRENHEIT,), target: str = CELSIUS) -> Dataset:
    """Read a CSV file with a header, or a Parquet file (known by its first bytes), and check it.

    Where one feature column is named, it is taken to be a reading in °F whatever its name in the file, and is called
    `fahrenheit` from then on.

    Raises:
        DataError: naming file, line (in Parquet: row) and column; see `_check`.
    """
    source = Path(path)
    names = (*features, target)
    if not features or len(set(names)) != len(names):
        raise DataError(source, f"the columns asked for must differ from one another: {', '.join(names)}")
    try:
        with source.open("rb") as file:
            is_parquet = file.read(4) == b"PAR1"
        table = _Table(_read_parquet(source, names)) if is_parquet else _read_csv(source, names)
    except OSError as error:
        raise DataError(source, error.strerror or str(error)) from error
    _check(source, table, names)
    values = table.values
    columns = (FAHRENHEIT,) if len(features) == 1 else tuple(features)
    return Dataset(np.ascontiguousarray(values[:, :-1]), np.ascontiguousarray(values[:, -1]), columns, str(source))


def _read_csv(source: Path, names: Sequence[str]) -> _Table:
    """The columns of those names, blank lines skipped."""
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            filled = ((reader.line_num, cells) for cells in reader if cells)
            _, names_found = next(filled, (0, []))
            header = [name.strip() for name in names_found]
            places = _places(source, header, names)
            lines, rows = [], []
            for line, cells in filled:
                lines.append(line)
                rows.append(
                    [_number(source, line, name, _cell(source, line, cells, header, at)) for name, at in places]
                )
    except UnicodeDecodeError as error:
        raise DataError(source, f"not UTF-8 text: {error.reason} at byte {error.start}") from error
    except csv.Error as error:
        raise DataError(source, f"not CSV: {error}", line=reader.line_num) from error
    return _Table(np.array(rows, dtype=np.float64).reshape(-1, len(names)), lines)


def _places(source: Path, header: list[str], names: Sequence[str]) -> list[tuple[str, int]]:
    if not header:
        raise DataError(source, "the file is empty: it needs a header that names the columns")
    for name in names:
        if name not in header:
            raise DataError(source, f"no such column: there are {', '.join(header)}", column=name)
        if header.count(name) > 1:
            raise DataError(source, "the header names this column more than once", column=name)
    return [(name, header.index(name)) for name in names]


def _cell(source: Path, line: int, cells: list[str], header: list[str], place: int) -> str:
    if len(cells) != len(header):
        raise DataError(source, f"{len(cells)} cells under a header of {len(header)}", line=line)
    return cells[place]


def _number(source: Path, line: int, column: str, cell: str) -> float:
    with contextlib.suppress(ValueError):
        if "_" not in cell:  # Python's own digit separator, which no data file means
            return float(cell)
    problem = f"{cell[:40]!r} is not a number" if cell.strip() else "no value"
    raise DataError(source, problem, line=line, column=column)


def _read_parquet(source: Path, names: Sequence[str]) -> NDArray[np.float64]:
    """Values [N, names]. Imports pyarrow, which only users of Parquet need."""
    import pyarrow as pa  # noqa: PLC0415 - as above
    from pyarrow import parquet  # noqa: PLC0415 - as above

    try:
        with parquet.ParquetFile(source) as file:
            _places(source, file.schema_arrow.names, names)
            table = file.read(columns=list(names))
    except pa.ArrowException as error:
        raise DataError(source, f"not a Parquet file that can be read: {error}") from error
    return np.column_stack([_parquet_column(source, name, table.column(name)) for name in names])


def _parquet_column(source: Path, name: str, column: Any) -> NDArray[np.float64]:  # noqa: ANN401 - pyarrow has no types
    import pyarrow as pa  # noqa: PLC0415 - as above

    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise DataError(source, f"holds {kind}, not numbers", column=name)
    if column.null_count:
        raise DataError(source, "no value", row=column.is_null().to_pylist().index(True) + 1, column=name)
    return np.array([float(value) for value in column.to_pylist()], dtype=np.float64)


# Checking -------------------------------------------------------------------------------------------------------------


def _check(source: Path | str, table: _Table, names: Sequence[str]) -> None:
    """Check the values [N, names] of a table, the last column being the target in °C.

    Raises:
        DataError: fewer than 3 rows, a value that is NaN, infinite, too large for float32 or below absolute zero, or a
            column of one value only.
    """
    values = table.values
    if len(values) < MINIMUM_ROWS:
        raise DataError(source, f"{len(values)} rows; a fit needs at least {MINIMUM_ROWS}")
    for column, name, lowest, unit in _bounds(names):
        for row, value in enumerate(values[:, column]):
            if problem := _fault(float(value), lowest, unit):
                raise DataError(source, problem, column=name, **table.place(row))
        if np.ptp(values[:, column].astype(np.float32)) == 0:  # float32 is what the model sees
            raise DataError(source, f"all {len(values)} values are equal: {values[0, column]:g}", column=name)


def _bounds(names: Sequence[str]) -> Iterator[tuple[int, str, float, str]]:
    """For each column: its place, its name, and the lowest value that nature allows, with its unit."""
    *features, target = names
    for place, name in enumerate(features):
        is_fahrenheit = name == FAHRENHEIT or len(features) == 1
        yield place, name, ABSOLUTE_ZERO_FAHRENHEIT if is_fahrenheit else -np.inf, "°F"
    yield len(features), target, ABSOLUTE_ZERO_CELSIUS, "°C"


def _fault(value: float, lowest: float, unit: str) -> str | None:
    """Say what is wrong with a value; None where nothing is."""
    if not np.isfinite(value):
        return f"{value} is not finite"
    if abs(value) > _GREATEST_FLOAT32:
        return f"{value:g} is too large for single precision"
    if value < lowest:
        return f"{value:g} {unit} is below absolute zero ({lowest:g} {unit})"
    return None


# Splitting ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Row numbers from 0, ascending, each row in one of the two: `training` is fitted to, `validation` is not.

    `name` says how the split was made, so that it can be made again.
    """

    training: NDArray[np.int64]
    validation: NDArray[np.int64]
    name: str = "custom"


def published_split(which: PublishedSplit = "first") -> Split:
    """One of the two published splits of the eleven readings: 9 rows to train on, 2 held out."""
    held_out = np.array(_HELD_OUT[which])
    return Split(np.setdiff1d(np.arange(len(_BUILT_IN_CELSIUS)), held_out), held_out, f"published, {which}")


def seeded_split(rows: int, seed: int, fraction: float = 0.2) -> Split:
    """Draw `int(fraction · rows)` rows, at least one, for validation; the same rows for the same seed.

    Raises:
        SplitError: fewer than two rows would be left to train on.
    """
    held_out = max(1, int(fraction * rows))
    if rows - held_out < MINIMUM_ROWS - 1:
        raise SplitError(f"holding out {held_out} of {rows} rows leaves {rows - held_out} to train on; it takes two")
    order = np.random.default_rng(seed).permutation(rows)
    name = f"seeded, seed {seed}, fraction {fraction:g}"
    return Split(np.sort(order[held_out:]), np.sort(order[:held_out]), name)
