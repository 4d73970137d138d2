"""The follower: every version is measured, one that fails keeps no other from it, and nothing retired is held."""

import dataclasses
import gc
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, thread_time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.observations import Joined, Observation, ObservationStore
from proto.repository import Repository
from service.engine import EngineOptions
from service.models import Models, VersionPolicy
from service.observations.answers import Answers
from service.observations.follower import LOOK_SECONDS, TIME_SHARE, Follower, rest_seconds
from service.observations.link import Link
from service.query import Answer, ConvertQuery
from tests.service.artefacts import describe, exact_celsius, make_artefact, make_fragile, make_softmax


@pytest.fixture
def models(tmp_path: Path) -> Models:
    """`linear` in two versions, 2 five degrees warmer, and `softmax`, whose rows depend on each other."""
    repository = Repository(tmp_path / "models")
    repository.publish("linear", make_artefact())
    repository.publish("linear", make_artefact(offset_celsius=5.0))
    repository.publish("softmax", make_softmax())
    models = Models(repository, EngineOptions(device="cpu"), policy=VersionPolicy.parse("all"))
    models.load()
    return models


@pytest.fixture
def link(tmp_path: Path) -> Iterator[Link]:
    """A store of 20 observations of the exact law."""
    url = f"sqlite:///{tmp_path}/observations.db"
    with ObservationStore.open(url) as store:
        store.add([Observation(f"o{n}", 40.0 + n, exact_celsius(40.0 + n), 1e9 + n, "bench") for n in range(20)])
    link = Link(url)
    yield link
    link.close()


def test_models_whose_rows_depend_on_each_other_are_measured_row_by_row(models: Models, link: Link) -> None:
    """As a caller with one reading would be answered: softmax of one row is 1."""
    follower = Follower(link, models, Answers(0), latest=20)
    follower.look()
    quality = follower.quality(models.catalogue.resolve("softmax", 1))
    assert quality is not None
    expected = sum(abs(1 - exact_celsius(40.0 + n)) for n in range(20)) / 20
    assert quality.mae_celsius.value == pytest.approx(expected, abs=1e-4)
    assert (quality.coverage, quality.stated_coverage) == (None, None)


def test_a_version_that_fails_keeps_no_other_from_being_measured(
    models: Models, link: Link, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever ONNX Runtime raises for one of them; the log says it once, and not at every look."""
    first, second = (models.catalogue.resolve("linear", version) for version in (1, 2))

    def fail(_tensors: object) -> None:
        raise RuntimeError("a kernel failed")

    monkeypatch.setattr(first.engine, "run", fail)
    follower = Follower(link, models, Answers(0), latest=20)
    follower.look()
    link.store().add([Observation("new", 50.0, exact_celsius(50.0), 2e9, "bench")])
    follower.look()
    assert follower.quality(first) is None
    assert capsys.readouterr().out.count("a kernel failed") == 1
    quality = follower.quality(second)
    assert quality is not None
    assert quality.mae_celsius.value == pytest.approx(5.0, abs=1e-4)


def test_a_retired_version_is_not_held(models: Models, link: Link) -> None:
    """Its memory is free while its figures still stand."""
    follower = Follower(link, models, Answers(0), latest=20)
    follower.look()
    retired = weakref.ref(models.catalogue.resolve("linear", 2))
    models.unload_model("linear")
    gc.collect()
    assert retired() is None


def test_new_observations_and_new_versions_are_seen(models: Models, link: Link, tmp_path: Path) -> None:
    """At the next look, whoever brought them."""
    follower = Follower(link, models, Answers(0), latest=50)
    follower.look()
    Repository(tmp_path / "models").publish("linear", make_artefact(offset_celsius=1.0))
    models.refresh()
    third = models.catalogue.resolve("linear", 3)
    assert follower.quality(third) is None
    follower.look()
    quality = follower.quality(third)
    assert quality is not None
    assert quality.observations == 20
    link.store().add([Observation("new", 50.0, exact_celsius(50.0), 2e9, "bench")])
    follower.look()
    renewed = follower.quality(third)
    assert renewed is not None
    assert (renewed.observations, renewed.newest_observed_at_seconds) == (21, 2e9)


def test_a_version_is_measured_on_what_it_was_not_fitted_to(models: Models, link: Link, tmp_path: Path) -> None:
    """Of 20 observations those later than the time its file states; with none of them there is nothing to say."""
    repository = Repository(tmp_path / "models")
    for until in (1e9 + 7, 1e9 + 19):
        fitted = dataclasses.replace(describe(), observed_until_seconds=until)
        repository.publish("linear", make_artefact(fitted, offset_celsius=2.0))
    models.refresh()
    follower = Follower(link, models, Answers(0), latest=20)
    follower.look()
    first, _, some, none = (follower.quality(models.catalogue.resolve("linear", version)) for version in (1, 2, 3, 4))
    assert first is not None
    assert some is not None
    assert (first.observations, first.oldest_observed_at_seconds) == (20, 1e9)
    assert (some.observations, some.oldest_observed_at_seconds) == (12, 1e9 + 8)
    assert some.mae_celsius.value == pytest.approx(2.0, abs=1e-4)
    assert none is None
    link.store().add([Observation("new", 50.0, exact_celsius(50.0), 1e9 + 20, "bench")])
    follower.look()
    again = follower.quality(models.catalogue.resolve("linear", 4))
    assert again is not None
    assert again.observations == 1


def test_what_a_version_answered_counts_for_it_also_where_older_rows_do_not(
    models: Models, link: Link, tmp_path: Path
) -> None:
    """An answer is found by its row, whatever was left out before it."""
    fitted = dataclasses.replace(describe(), observed_until_seconds=1e9 + 17)
    Repository(tmp_path / "models").publish("linear", make_artefact(fitted))
    models.refresh()
    link.store().join([Joined("o19", "linear", 3, exact_celsius(59.0) + 8.0), Joined("o3", "linear", 3, 1e6)])
    follower = Follower(link, models, Answers(0), latest=20)
    follower.look()
    quality = follower.quality(models.catalogue.resolve("linear", 3))
    assert quality is not None
    assert quality.observations == 2
    assert quality.mae_celsius.value == pytest.approx(4.0, abs=1e-4)


def test_readings_that_a_version_refuses_are_left_out(models: Models, link: Link, tmp_path: Path) -> None:
    """Twenty observations that it answers, and five of which each fails its run: it is measured on the twenty."""
    Repository(tmp_path / "models").publish("linear", make_fragile(250.0, offset_celsius=1.0))
    models.refresh()
    link.store().add([Observation(f"hot{n}", 300.0, 149.0, 1e9 + 100 + n, "bench") for n in range(5)])
    follower, of_hot_ones = (Follower(link, models, Answers(0), latest) for latest in (25, 5))
    follower.look()
    of_hot_ones.look()
    fragile = models.catalogue.resolve("linear", 3)
    quality = follower.quality(fragile)
    assert quality is not None
    assert (quality.observations, quality.newest_observed_at_seconds) == (20, 1e9 + 19)
    assert quality.mae_celsius.value == pytest.approx(1.0, abs=1e-4)
    assert of_hot_ones.quality(fragile) is None


def test_what_is_too_much_for_one_look_is_joined_by_the_next(
    models: Models, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look goes on where the one before ended, until all that was answered here is joined."""
    monkeypatch.setattr("service.observations.follower.MOST_UNJOINED", 4)
    answers = Answers(1 << 20)
    version: Any = SimpleNamespace(name="linear", version=1)
    query = ConvertQuery("", None, np.full(10, 50, np.float32), request_id="r")
    answers.keep(query, Answer(version, [np.full((10, 1), 10, np.float32)], None, inside=True))
    link.store().add([Observation(f"asked{row}", 50.0, 10.0, 2e9, "bench", "r", row) for row in range(10)])
    follower = Follower(link, models, answers, latest=20)
    joined = []
    for _ in range(4):
        follower.look()
        joined.append(link.store().stats().joined)
    assert joined == [4, 8, 10, 10]


@given(st.floats(0, 100))
def test_the_rest_is_in_proportion_to_what_a_look_takes(spent: float) -> None:
    """Looks take their share of a core at the most, however long one is."""
    rest = rest_seconds(spent)
    assert rest >= LOOK_SECONDS / 10
    assert spent <= (spent + rest) * TIME_SHARE * (1 + 1e-9)


@pytest.mark.parametrize("works", [True, False], ids=["works", "waits"])
def test_a_look_that_waits_is_followed_by_no_long_rest(
    models: Models, link: Link, monkeypatch: pytest.MonkeyPatch, *, works: bool
) -> None:
    """What counts is what a look takes of the processor: a database that hung is looked at again soon."""
    follower = Follower(link, models, Answers(0), latest=20)
    spent: list[float] = []
    looked = threading.Event()

    def look() -> None:
        began = monotonic(), thread_time()
        while not works and monotonic() - began[0] < 0.5:
            threading.Event().wait(0.05)
        while works and thread_time() - began[1] < 0.5:
            sum(range(1000))

    def rest(spent_seconds: float) -> float:
        spent.append(spent_seconds)
        looked.set()
        return 0.01

    monkeypatch.setattr(follower, "look", look)
    monkeypatch.setattr("service.observations.follower.rest_seconds", rest)
    follower.start()
    assert looked.wait(60)
    follower.stop()
    assert spent[0] >= 0.5 if works else spent[0] < 0.25


def test_a_stream_of_reports_does_not_shorten_the_rest(
    models: Models, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody reports all the time: after every look it rests as long as that asks for, and then looks again."""
    follower = Follower(link, models, Answers(0), latest=20)
    rests: list[float] = []
    looks: list[float] = []
    enough = threading.Event()

    class Stopping(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            follower.wake()  # a report comes while it rests
            rests.append(timeout or 0.0)
            if len(rests) == 5:
                enough.set()
            return super().wait(0)

    class Waking(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            looks.append(timeout or 0.0)
            return super().wait(timeout)

    monkeypatch.setattr(follower, "_stopping", Stopping())
    monkeypatch.setattr(follower, "_wake", Waking())
    monkeypatch.setattr("service.observations.follower.rest_seconds", lambda spent: 0.5 + (spent < 0))
    follower.start()
    assert enough.wait(60)
    follower.stop()
    assert set(rests) == {0.5}
    assert set(looks) == {0.5}
