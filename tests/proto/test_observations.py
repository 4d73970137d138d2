"""The store of observations: durable, idempotent by id, and strict about values."""

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from proto.observations import (
    Added,
    ConflictError,
    InvalidObservationError,
    Joined,
    Observation,
    ObservationStore,
    StoreSchemaError,
    StoreUrlError,
    check_observation,
    parse_url,
)

NOW = 1_700_000_000.0


def observation(number: int = 0, **others: Any) -> Observation:  # noqa: ANN401 - any field
    """An observation by the exact law, one a second."""
    made = Observation(f"o{number}", 50.0 + number, 10.0 + number * 5 / 9, NOW + number, "bench")
    return replace(made, **others)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ObservationStore]:
    """An empty store."""
    with ObservationStore.open(f"sqlite:///{tmp_path}/observations.db") as store:
        yield store


def test_what_was_added_is_read_as_columns_in_the_order_of_time(store: ObservationStore) -> None:
    """Columns are float64 and come in the order of observation, between two times."""
    assert store.add([observation(2), observation(0), observation(1)]) == Added(3, 0)
    columns = store.read(NOW, NOW + 2)
    assert columns.id == ["o0", "o1"]
    assert columns.source == ["bench", "bench"]
    assert columns.fahrenheit.dtype == columns.celsius.dtype == columns.observed_at_seconds.dtype == np.float64
    assert columns.observed_at_seconds.tolist() == [NOW, NOW + 1]
    assert store.read(latest=1).id == ["o2"]
    assert len(store.read(NOW + 3)) == 0


def test_the_same_observation_again_is_a_duplicate(store: ObservationStore) -> None:
    """Adding again changes nothing and says so, within one addition too."""
    assert store.add([observation(), observation(1), observation()]) == Added(2, 1)
    assert store.add([observation(), observation(2)]) == Added(1, 1)
    assert store.stats().observations == 3


def test_another_observation_under_a_known_id_is_refused_by_name(store: ObservationStore) -> None:
    """A conflict names its place and id, and of its group nothing is stored; other groups are."""
    store.add([observation(1)])
    other = observation(1, celsius=1.0)
    with pytest.raises(ConflictError, match="'o1'") as caught:
        store.add([observation(5), other])
    assert caught.value.index == 1
    outcomes = store.add_groups([[observation(6)], [observation(7), other], [observation(7)]])
    assert outcomes[0] == outcomes[2] == Added(1, 0)
    assert isinstance(outcomes[1], ConflictError)
    assert sorted(store.read().id) == ["o1", "o6", "o7"]


def test_what_a_server_answered_is_joined_once(store: ObservationStore) -> None:
    """The first answer noted stays, and an observation that comes again is still the same one."""
    store.add([observation(0, request_id="r", row=3)])
    store.join([Joined("o0", "linear", 2, 9.5)])
    store.join([Joined("o0", "linear", 3, 8.5)])
    assert store.add([observation(0, request_id="r", row=3)]) == Added(0, 1)
    (found,) = store.observations()
    assert (found.model, found.version, found.predicted_celsius) == ("linear", 2, 9.5)
    assert store.stats().joined == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", ""),
        ("id", "x" * 121),
        ("source", "a\nb"),
        ("fahrenheit", float("nan")),
        ("fahrenheit", -459.68),
        ("fahrenheit", 1e39),
        ("celsius", float("inf")),
        ("celsius", -273.16),
        ("observed_at_seconds", -1.0),
        ("observed_at_seconds", NOW + 301),
        ("row", 1),
    ],
)
def test_what_cannot_be_observed_is_refused_by_field(field: str, value: Any) -> None:  # noqa: ANN401 - any field
    """Each bad value is named by its field."""
    check_observation(observation(), NOW)
    with pytest.raises(InvalidObservationError) as caught:
        check_observation(replace(observation(), **{field: value}), NOW)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "url", ["", "nonsense", "mysql://h/d", "sqlite://", "sqlite:///:memory:", "sqlite:////none/x.db"]
)
def test_a_url_of_no_store_is_refused(url: str) -> None:
    """What cannot be a store is refused before anything is made."""
    with pytest.raises(StoreUrlError):
        ObservationStore.open(url)


def test_a_password_is_not_repeated() -> None:
    """An error about a URL does not hold its password."""
    with pytest.raises(StoreUrlError) as caught:
        parse_url("mysql://user:secret@host/base")
    assert "secret" not in str(caught.value)


def test_a_store_of_another_schema_is_refused(store: ObservationStore, tmp_path: Path) -> None:
    """A store that another version of this program made is not written to."""
    store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "observations.db")) as connection, connection:
        connection.execute("UPDATE observations_schema SET version = 99")
    with pytest.raises(StoreSchemaError, match="99"):
        ObservationStore.open(f"sqlite:///{tmp_path}/observations.db")
