"""The metadata in a model file: what is written is read back, and what is wrong is named."""

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.artefact import (
    PREFIX,
    Artefact,
    ArtefactError,
    Column,
    GoldenVectors,
    Histogram,
    Interval,
    NotAnArtefactError,
    from_metadata,
    input_name,
    to_metadata,
)

EXAMPLE = Artefact(
    kind="mlp",
    architecture={"hidden": [8], "activation": "tanh"},
    parameter_count=25,
    seed=0,
    hyperparameters={"optimizer": "sgd", "patience": None},
    dataset_sha256="ab" * 32,
    dataset_rows=11,
    training_loss=2.1,
    validation_loss=2.0,
    epochs=5000,
    torch_version="2.13.0",
    onnx_version="1.23.2",
    git_commit=None,
    columns=(Column("fahrenheit", 33.9, 81.9, Histogram((33.9, 60.0, 81.9), (4, 5))),),
    interval=Interval(3.5, 0.8, "jackknife-minmax"),
    golden=GoldenVectors(((32.0,), (212.0,)), (0.1, 31.0), 1e-4, 1e-5),
    parity_max_difference_celsius=4e-6,
    observed_until_seconds=1_790_000_000.25,
)
KEYS = [field.name for field in dataclasses.fields(Artefact)]
LATER_KEYS = ["observed_until_seconds"]

# Round trip -----------------------------------------------------------------------------------------------------------

finite = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
json_objects = st.dictionaries(st.text(), json_values, max_size=4)


@st.composite
def histograms(draw: st.DrawFn) -> Histogram:
    """Histograms of one bin or more."""
    edges = sorted(draw(st.lists(finite, min_size=2, max_size=6, unique=True)))
    return Histogram(tuple(edges), tuple(draw(st.integers(0, 10**9)) for _ in edges[1:]))


@st.composite
def columns(draw: st.DrawFn) -> Column:
    """Columns with a domain of any width."""
    low, high = sorted(draw(st.lists(finite, min_size=2, max_size=2, unique=True)))
    return Column(draw(st.text()), low, high, draw(histograms()))


@st.composite
def artefacts(draw: st.DrawFn) -> Artefact:
    """Artefacts with any values that the types allow."""
    made = draw(st.lists(columns(), min_size=1, max_size=3))
    outputs = draw(st.lists(finite, min_size=1, max_size=4))
    tolerance = st.floats(0, 1)
    golden = GoldenVectors(
        tuple(tuple(draw(finite) for _ in made) for _ in outputs), tuple(outputs), draw(tolerance), draw(tolerance)
    )
    coverage = st.floats(0, 1, exclude_min=True, exclude_max=True)
    interval = st.none() | st.builds(Interval, st.floats(0, 1e9), coverage, st.text())
    return Artefact(
        kind=draw(st.text()),
        architecture=draw(json_objects),
        parameter_count=draw(st.integers()),
        seed=draw(st.integers()),
        hyperparameters=draw(json_objects),
        dataset_sha256=draw(st.text()),
        dataset_rows=draw(st.integers()),
        training_loss=draw(finite),
        validation_loss=draw(finite),
        epochs=draw(st.integers()),
        torch_version=draw(st.text()),
        onnx_version=draw(st.text()),
        git_commit=draw(st.none() | st.from_regex(r"[0-9a-f]{40}", fullmatch=True)),
        columns=tuple(made),
        interval=draw(interval),
        golden=golden,
        parity_max_difference_celsius=draw(finite),
        rows_independent=draw(st.booleans()),
        observed_until_seconds=draw(st.none() | finite),
    )


@given(artefacts())
def test_what_is_written_is_read_back(artefact: Artefact) -> None:
    """Reading the metadata gives exactly the artefact that was written, floats to the last bit."""
    assert from_metadata(to_metadata(artefact)) == artefact


def test_every_field_is_a_key() -> None:
    """The metadata holds one key for each field of the artefact, all under the prefix."""
    assert set(to_metadata(EXAMPLE)) == {PREFIX + key for key in KEYS}


def test_keys_of_others_are_left_alone() -> None:
    """Metadata that other tools wrote into the file neither disturbs nor is read."""
    assert from_metadata({**to_metadata(EXAMPLE), "author": "somebody"}) == EXAMPLE


def test_not_a_number_is_never_written() -> None:
    """A loss that is NaN cannot be written, for it could not be read back."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_metadata(dataclasses.replace(EXAMPLE, training_loss=math.nan))


# Strict reading -------------------------------------------------------------------------------------------------------


def test_plain_model_is_told_from_a_broken_artefact() -> None:
    """A file without any key of ours is a plain model, which has an error of its own."""
    with pytest.raises(NotAnArtefactError):
        from_metadata({"author": "somebody"})


@pytest.mark.parametrize("key", LATER_KEYS)
def test_a_later_key_may_be_missing(key: str) -> None:
    """A file from before the key was known reads as one that has nothing to say under it, and is written as it was."""
    metadata = to_metadata(EXAMPLE)
    del metadata[PREFIX + key]
    read = from_metadata(metadata)
    assert getattr(read, key) is None
    assert to_metadata(read) == metadata


@pytest.mark.parametrize("key", [key for key in KEYS if key not in LATER_KEYS])
def test_missing_key_is_named(key: str) -> None:
    """Each key is required, and the error names the one that is missing."""
    metadata = to_metadata(EXAMPLE)
    del metadata[PREFIX + key]
    with pytest.raises(ArtefactError, match=f"missing metadata key '{PREFIX}{key}'"):
        from_metadata(metadata)


def test_unknown_key_is_named() -> None:
    """A key of ours that this schema does not know is an error that names it."""
    with pytest.raises(ArtefactError, match=r"quicksilver\.colour"):
        from_metadata({**to_metadata(EXAMPLE), "quicksilver.colour": "red"})


@pytest.mark.parametrize("version", ["2", "0", "01", "one", ""])
def test_unknown_schema_is_refused(version: str) -> None:
    """Only the schema that this version writes is read."""
    with pytest.raises(ArtefactError, match="schema_version"):
        from_metadata({**to_metadata(EXAMPLE), PREFIX + "schema_version": version})


NOT_WHOLE = ["1.5", "true", '"1"', "null", "[]", "one", "", "NaN"]
NOT_A_NUMBER = ["true", '"1"', "null", "{}", "NaN", "Infinity", "-Infinity", "1" + "0" * 400, "1e400", ""]
NOT_AN_OBJECT = ["[]", "null", "1", "{", '{"a": NaN}', "[" * 100_000]
HISTOGRAM = {"edges": [0, 1], "counts": [1]}
COLUMN = {"name": "a", "minimum": 0, "maximum": 1, "histogram": HISTOGRAM}
GOLDEN = {"inputs": [[1.0]], "outputs": [1.0], "absolute_tolerance": 0, "relative_tolerance": 0}
INTERVAL = {"half_width_celsius": 1.0, "coverage": 0.8, "method": "m"}


def without(value: dict[str, Any], key: str) -> dict[str, Any]:
    """The object less a key."""
    return {name: inner for name, inner in value.items() if name != key}


BAD_COLUMNS: list[Any] = [
    *[[without(COLUMN, key)] for key in COLUMN],
    *[[COLUMN | {"minimum": value}] for value in (None, "0", True, 1, 2)],
    *[[COLUMN | {"name": value}] for value in (None, 1)],
    *[[COLUMN | {"histogram": HISTOGRAM | {"counts": value}}] for value in ([], [1, 2], ["1"], [1.5], [-1], 1)],
    *[[COLUMN | {"histogram": HISTOGRAM | {"edges": value}}] for value in ([1, 0], [0, 0], [0], [None, 1], "ab")],
    1,
    {"a": 1},
    [1],
    None,
]
BAD_GOLDEN: list[Any] = [
    *[without(GOLDEN, key) for key in GOLDEN],
    *[GOLDEN | {"inputs": value} for value in ([], [1.0], [["1"]], [[1.0], [2.0]])],
    *[GOLDEN | {"outputs": value} for value in ([], [None], [10**400], 1)],
    GOLDEN | {"absolute_tolerance": -1},
    GOLDEN | {"relative_tolerance": "0"},
    None,
    [],
]
BAD_INTERVAL: list[Any] = [
    *[without(INTERVAL, key) for key in INTERVAL],
    *[INTERVAL | {"coverage": value} for value in (0, 1, 1.2, "0.8", None)],
    *[INTERVAL | {"half_width_celsius": value} for value in (-1, None, True)],
    INTERVAL | {"method": 1},
    [],
    1,
]
WRONG = [
    *[(key, text) for key in ("parameter_count", "seed", "dataset_rows", "epochs") for text in NOT_WHOLE],
    *[
        (key, text)
        for key in ("training_loss", "validation_loss", "parity_max_difference_celsius", "observed_until_seconds")
        for text in NOT_A_NUMBER
    ],
    *[(key, text) for key in ("architecture", "hyperparameters") for text in NOT_AN_OBJECT],
    *[("rows_independent", text) for text in ("1", '"true"', "null", "True")],
    *[("columns", json.dumps(value)) for value in BAD_COLUMNS],
    *[("golden", json.dumps(value)) for value in BAD_GOLDEN],
    *[("interval", json.dumps(value)) for value in BAD_INTERVAL],
]


@pytest.mark.parametrize(("key", "text"), WRONG, ids=lambda value: value[:40])
def test_malformed_value_is_named(key: str, text: str) -> None:
    """A value that is not what its key promises is an error that names the key."""
    with pytest.raises(ArtefactError, match=PREFIX + key):
        from_metadata({**to_metadata(EXAMPLE), PREFIX + key: text})


def test_keys_with_values_other_than_text_are_all_tried() -> None:
    """The malformed values above leave out no key but those that may hold any text, and the schema's own."""
    free = {"kind", "dataset_sha256", "torch_version", "onnx_version", "git_commit", "schema_version"}
    assert {key for key, _ in WRONG} == set(KEYS) - free


@pytest.mark.parametrize("columns", [[], [COLUMN, COLUMN]])
def test_parts_that_contradict_each_other_are_refused(columns: list[dict[str, Any]]) -> None:
    """A model without columns, or with golden inputs of another width, is an error that says so."""
    with pytest.raises(ArtefactError, match=r"contradicts itself: .*column"):
        from_metadata({**to_metadata(EXAMPLE), PREFIX + "columns": json.dumps(columns)})


@given(st.dictionaries(st.sampled_from([PREFIX + key for key in KEYS]), st.text() | json_values.map(json.dumps)))
def test_any_metadata_reads_or_is_a_named_error(damage: dict[str, str]) -> None:
    """Whatever stands in the metadata, reading it gives an artefact or an ArtefactError, and nothing else."""
    try:
        read = from_metadata({**to_metadata(EXAMPLE), **damage})
    except ArtefactError:
        return
    assert isinstance(read, Artefact)


# Golden vectors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ([0.1, 31.0], None),
        ([0.1, 31.0 + 4e-4], None),
        ([0.1, 31.0 + 5e-4], "golden vector 1"),
        ([0.1 - 2e-4, 31.0], "golden vector 0"),
        ([math.nan, 31.0], "golden vector 0"),
        ([0.1], "1 answers to 2"),
        ([0.1, 31.0, 1.0], "3 answers to 2"),
    ],
)
def test_golden_mismatch_is_found_and_told(answers: list[float], says: str | None) -> None:
    """Answers within `absolute + relative · |answer|` pass; anything else, NaN too, is told with its row."""
    mismatch = EXAMPLE.golden.mismatch(answers)
    assert mismatch is None if says is None else says in str(mismatch)


def test_input_is_named_for_its_columns() -> None:
    """One column is `fahrenheit`, several are `features`."""
    assert (input_name(1), input_name(2)) == ("fahrenheit", "features")
