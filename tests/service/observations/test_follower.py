"""The follower: every version is measured, one that fails keeps no other from it, and nothing retired is held."""

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from proto.observations import Observation, ObservationStore
from proto.repository import Repository
from service.engine import EngineOptions
from service.models import Models, VersionPolicy
from service.observations.answers import Answers
from service.observations.follower import Follower
from service.observations.link import Link
from tests.service.artefacts import exact_celsius, make_artefact, make_softmax


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
    models: Models, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ONNX Runtime raises for one of them."""
    first, second = (models.catalogue.resolve("linear", version) for version in (1, 2))

    def fail(_tensors: object) -> None:
        raise RuntimeError("a kernel failed")

    monkeypatch.setattr(first.engine, "run", fail)
    follower = Follower(link, models, Answers(0), latest=20)
    follower.look()
    assert follower.quality(first) is None
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
