"""Readings: what is taken, what is refused, and how they are split."""

from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training import law
from training.dataset import Dataset, built_in, published_split, read, seeded_split
from training.errors import DataError, SplitError, TrainingError

GOOD = "fahrenheit,celsius\n32,0\n50,10.5\n212,100\n"


def written(directory: Path, text: str) -> Path:
    """A CSV file of that text."""
    path = directory / "readings.csv"
    path.write_text(text)
    return path


# Built in -------------------------------------------------------------------------------------------------------------


def test_built_in_readings_are_the_published_eleven() -> None:
    """The exact law leaves the published residuals on them: a loss of 3.26852 °C², from -1.94 to +3.11 °C."""
    readings = built_in()
    residuals = law.celsius(readings.features[:, 0]) - readings.celsius
    assert len(readings) == 11
    assert np.mean(residuals**2) == pytest.approx(3.26852, abs=5e-6)
    assert (residuals.min(), residuals.max()) == pytest.approx((-1.94, 3.11), abs=5e-3)
    assert readings.is_built_in


def test_exact_law_is_exact_at_its_fixed_points() -> None:
    """Water freezes at 32 °F and boils at 212 °F, the scales meet at -40, and absolute zero is absolute zero."""
    answers = law.celsius(np.array([32.0, 212.0, -40.0, -459.67]))
    assert answers.tolist() == pytest.approx([0.0, 100.0, -40.0, law.ABSOLUTE_ZERO_CELSIUS], abs=1e-12)


def test_readings_cannot_be_changed() -> None:
    """The arrays of a dataset are frozen."""
    readings = built_in()
    with pytest.raises(ValueError, match="read-only"):
        readings.features[0, 0] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        readings.celsius[0] = 1.0


def test_dataset_refuses_shapes_that_do_not_go_together() -> None:
    """A name for each column and a truth for each row."""
    with pytest.raises(ValueError, match="columns"):
        Dataset(np.zeros((3, 2)), np.zeros(3), ("one",), "test")
    with pytest.raises(ValueError, match="celsius"):
        Dataset(np.zeros((3, 1)), np.zeros(2), ("one",), "test")


def test_file_by_the_name_of_the_built_in_readings_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user's file is called makes no published readings of it."""
    monkeypatch.chdir(tmp_path)
    Path(built_in().source).write_text(GOOD)
    assert not read(built_in().source).is_built_in


# Files ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "\ufeff" + GOOD,
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("\n", "\n\n"),
        "note,celsius,fahrenheit\na,0,32\nb,10.5,50\nc,1e2,212\n",
        ' fahrenheit , celsius \n 32,0\n"50", 10.5\n212.0,+100\n',
    ],
    ids=["plain", "byte order mark", "CRLF", "blank lines", "other columns", "spaces and quotes"],
)
def test_csv_is_read(tmp_path: Path, text: str) -> None:
    """A CSV file with a header is read whatever its line ends, column order, and further columns."""
    readings = read(written(tmp_path, text))
    assert readings.features.tolist() == [[32.0], [50.0], [212.0]]
    assert readings.celsius.tolist() == [0.0, 10.5, 100.0]
    assert readings.columns == ("fahrenheit",)
    assert not readings.is_built_in


def test_parquet_reads_as_csv_does(tmp_path: Path) -> None:
    """The same readings from a Parquet file, in any numeric type, hash alike."""
    csv = read(written(tmp_path, GOOD))
    table = pa.table(
        {
            "celsius": pa.array([Decimal("0.0"), Decimal("10.5"), Decimal("100.0")]),
            "note": ["a", "b", "c"],
            "fahrenheit": pa.array([32, 50, 212], pa.int16()),
        }
    )
    pa.parquet.write_table(table, tmp_path / "readings.data")
    parquet = read(tmp_path / "readings.data")
    assert parquet.features.tolist() == csv.features.tolist()
    assert parquet.sha256 == csv.sha256


def test_hash_tells_readings_apart(tmp_path: Path) -> None:
    """Another value, another order or another column name gives another hash; the same readings the same."""
    texts = [GOOD, GOOD.replace("10.5", "10.6"), "fahrenheit,celsius\n50,10.5\n32,0\n212,100\n"]
    assert len({read(written(tmp_path, text)).sha256 for text in texts}) == 3
    assert read(written(tmp_path, GOOD)).sha256 == read(written(tmp_path, GOOD)).sha256
    assert built_in().sha256 == built_in().sha256


def test_columns_are_chosen_by_name(tmp_path: Path) -> None:
    """Several input columns keep their names and their order as asked for."""
    path = written(tmp_path, "p,t,true\n1000,32,0\n1010,50,10\n990,70,20\n")
    readings = read(path, ("t", "p"), "true")
    assert readings.columns == ("t", "p")
    assert readings.features.tolist() == [[32.0, 1000.0], [50.0, 1010.0], [70.0, 990.0]]
    assert readings.fahrenheit is None


def test_single_column_is_taken_for_fahrenheit_under_any_name(tmp_path: Path) -> None:
    """One input column is a reading in °F, so it is named and checked as one."""
    readings = read(written(tmp_path, "dial,celsius\n32,0\n50,10\n212,100\n"), ("dial",))
    assert readings.columns == ("fahrenheit",)
    with pytest.raises(DataError, match=r"line 3, column 'dial'.*absolute zero"):
        read(written(tmp_path, "dial,celsius\n32,0\n-460,10\n212,100\n"), ("dial",))


# What is refused ------------------------------------------------------------------------------------------------------

HEADER = "fahrenheit,celsius\n"


@pytest.mark.parametrize(
    ("text", "line", "column", "says"),
    [
        ("", None, None, "empty"),
        ("f,c\n1,2\n", None, "fahrenheit", "there are f, c"),
        ("fahrenheit,c\n1,2\n", None, "celsius", "no such column"),
        ("fahrenheit,fahrenheit,celsius\n1,1,2\n", None, "fahrenheit", "more than once"),
        (HEADER + "\n32,0\n\n\nwarm,10\n212,100\n", 6, "fahrenheit", "'warm' is not a number"),
        (HEADER + "\n32,0\n\n50,inf\n212,100\n", 5, "celsius", "inf is not finite"),
        (HEADER + "32,0\nwarm,10\n212,100\n", 3, "fahrenheit", "'warm' is not a number"),
        (HEADER + '32,0\n50,"10,5"\n212,100\n', 3, "celsius", "'10,5' is not a number"),
        (HEADER + "32,0\n50,1_0\n212,100\n", 3, "celsius", "'1_0' is not a number"),
        (HEADER + "32,0\n50,10\n212,\n", 4, "celsius", "no value"),
        (HEADER + "32,0\n50\n212,100\n", 3, None, "1 cells under a header of 2"),
        (HEADER + "32,0\n50,10,1\n212,100\n", 3, None, "3 cells under a header of 2"),
        (HEADER + "nan,0\n50,10\n212,100\n", 2, "fahrenheit", "nan is not finite"),
        (HEADER + "32,0\n50,inf\n212,100\n", 3, "celsius", "inf is not finite"),
        (HEADER + "32,0\n50,-Infinity\n212,100\n", 3, "celsius", "-inf is not finite"),
        (HEADER + "32,0\n1e39,10\n212,100\n", 3, "fahrenheit", "too large"),
        (HEADER + "32,0\n50,10\n-459.68,-273\n", 4, "fahrenheit", "below absolute zero (-459.67 °F)"),
        (HEADER + "32,0\n50,10\n-450,-273.16\n", 4, "celsius", "below absolute zero (-273.15 °C)"),
        (HEADER + "32,0\n50,10\n", None, None, "2 rows; a fit needs at least 3"),
        (HEADER, None, None, "0 rows"),
        (HEADER + "50,0\n50,10\n50,20\n", None, "fahrenheit", "all 3 values are equal: 50"),
        (HEADER + "1,7\n2,7\n3,7\n", None, "celsius", "all 3 values are equal: 7"),
        (HEADER + "50,0\n50.000000001,10\n50,20\n", None, "fahrenheit", "equal"),
        (HEADER + '32,0\n"50,10\n', 3, None, "not CSV"),
    ],
)
def test_bad_csv_is_an_error_that_names_its_place(
    tmp_path: Path, text: str, line: int | None, column: str | None, says: str
) -> None:
    """What is wrong with a file is told with file, line and column where it has them, blank lines counted."""
    path = written(tmp_path, text)
    with pytest.raises(DataError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert says in message
    assert (caught.value.line, caught.value.column) == (line, column)
    assert line is None or f"line {line}" in message
    assert column is None or repr(column) in message


def test_coldest_readings_are_taken(tmp_path: Path) -> None:
    """Absolute zero itself is a reading."""
    readings = read(written(tmp_path, HEADER + "-459.67,-273.15\n50,10\n212,100\n"))
    assert readings.features[0, 0] == -459.67


def test_only_fahrenheit_has_an_absolute_zero_among_several_columns(tmp_path: Path) -> None:
    """A column of another kind may hold what a temperature may not."""
    text = "fahrenheit,depth,celsius\n32,-1000,0\n50,-2000,10\n-460,-3000,20\n"
    with pytest.raises(DataError, match="line 4, column 'fahrenheit'"):
        read(written(tmp_path, text), ("fahrenheit", "depth"))
    assert len(read(written(tmp_path, text.replace("-460", "60")), ("fahrenheit", "depth"))) == 3


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"fahrenheit": [1.0, 2.0, 3.0]}, "column 'celsius': no such column"),
        ({"fahrenheit": ["a", "b", "c"], "celsius": [1, 2, 3]}, "column 'fahrenheit': holds string"),
        ({"fahrenheit": [1.0, None, 3.0], "celsius": [1, 2, 3]}, "row 2, column 'fahrenheit': no value"),
        ({"fahrenheit": [1.0, 2.0, float("nan")], "celsius": [1, 2, 3]}, "row 3, column 'fahrenheit': nan"),
        ({"fahrenheit": [True, False, True], "celsius": [1, 2, 3]}, "column 'fahrenheit': holds bool"),
    ],
)
def test_bad_parquet_is_an_error_that_names_its_place(
    tmp_path: Path, columns: dict[str, list[object]], says: str
) -> None:
    """A Parquet file is checked as a CSV file is."""
    path = tmp_path / "readings.parquet"
    pa.parquet.write_table(pa.table(columns), path)
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value).startswith(str(path))
    assert says in str(caught.value)


def test_files_that_are_not_there_or_not_text_are_data_errors(tmp_path: Path) -> None:
    """A missing file, a directory, other bytes and a broken Parquet file are named, not traced."""
    (tmp_path / "bytes.csv").write_bytes(b"fahrenheit,celsius\n\xff\xfe,1\n")
    (tmp_path / "zero.csv").write_bytes(b"fahrenheit,celsius\n\x00,1\n")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    for name in ("nowhere.csv", ".", "bytes.csv", "zero.csv", "broken.parquet"):
        with pytest.raises(DataError, match=str(tmp_path)):
            read(tmp_path / name)


@pytest.mark.parametrize("features", [(), ("celsius",), ("a", "a")])
def test_columns_asked_for_must_differ(tmp_path: Path, features: tuple[str, ...]) -> None:
    """The target is not an input, and no input is taken twice."""
    with pytest.raises(DataError, match="must differ"):
        read(written(tmp_path, GOOD), features)


@given(st.binary(max_size=300))
def test_any_bytes_read_or_are_a_data_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Whatever a file holds, reading it gives readings or a DataError, and nothing else."""
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(HEADER.encode() + content)
    try:
        readings = read(path)
    except TrainingError:
        return
    assert np.isfinite(readings.features).all()


# Splits ---------------------------------------------------------------------------------------------------------------


def test_published_splits_hold_out_the_published_rows() -> None:
    """The first holds out the truths -4 and 21, the second the scaled readings 5.82 and 3.39."""
    readings = built_in()
    first, second = published_split("first"), published_split("second")
    assert readings.celsius[first.validation].tolist() == [-4.0, 21.0]
    assert readings.features[second.validation, 0].tolist() == [58.2, 33.9]
    assert (readings.features[first.training].min(), readings.features[first.training].max()) == (33.9, 81.9)


@given(rows=st.integers(3, 300), seed=st.integers(0, 2**63 - 1), fraction=st.floats(0.0, 0.3))
def test_seeded_split_divides_the_rows(rows: int, seed: int, fraction: float) -> None:
    """Each row is in exactly one part, in order; the same seed draws the same rows; one row at least is held out."""
    split = seeded_split(rows, seed, fraction)
    assert sorted([*split.training, *split.validation]) == list(range(rows))
    assert len(split.validation) == max(1, int(fraction * rows))
    assert np.all(np.diff(split.training) > 0)
    again = seeded_split(rows, seed, fraction)
    assert split.validation.tolist() == again.validation.tolist()


def test_seeds_draw_different_splits() -> None:
    """The rows held out depend on the seed."""
    assert len({tuple(seeded_split(50, seed).validation) for seed in range(10)}) == 10


def test_split_that_leaves_too_little_is_refused() -> None:
    """A model needs two rows to be fitted to."""
    with pytest.raises(SplitError, match="holding out 2 of 3 rows"):
        seeded_split(3, 0, 0.7)
