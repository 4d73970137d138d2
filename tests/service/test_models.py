"""Versions in memory: what is served was proved first; what cannot be served says why."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from proto.artefact import Artefact, GoldenVectors, to_metadata
from proto.repository import Repository
from service.engine import EngineOptions
from service.errors import InvalidRequestError, NotReadyError, UnknownModelError
from service.loading import outside_of
from service.models import Models, VerificationError, VersionPolicy, choose_default_model, load_version
from tests.service.artefacts import describe, make_artefact, make_linear, make_plain

CPU = EngineOptions(device="cpu")


def _models(repository: Repository, *, policy: str = "latest:1", default_model: str | None = None) -> Models:
    models = Models(repository, CPU, policy=VersionPolicy.parse(policy), default_model=default_model)
    models.load()
    return models


def _wrong_golden() -> bytes:
    """A file whose graph does not answer as its metadata says."""
    return make_linear(1.0, 0.0, to_metadata(describe()))


def test_stable_answers_a_request_that_names_nothing(repository: Repository) -> None:
    """A later version does not take over by itself."""
    catalogue = _models(repository, default_model="linear").catalogue
    assert str(catalogue.resolve("", None)) == "linear/1"
    assert str(catalogue.resolve("linear", "stable")) == "linear/1"
    assert str(catalogue.resolve("linear", 2)) == "linear/2"


def test_the_newest_answers_where_no_label_ever_was(tmp_path: Path) -> None:
    """A repository filled by hand, without labels, serves its newest version that works."""
    repository = Repository(tmp_path)
    for version, content in ((1, make_artefact()), (2, make_artefact(offset_celsius=1)), (3, b"broken")):
        repository.publish("linear", content, version)
    (tmp_path / "linear" / "labels.json").unlink()
    assert str(_models(repository, policy="all").catalogue.resolve("linear", None)) == "linear/2"


@pytest.mark.parametrize("content", [b"broken", _wrong_golden()])
def test_a_bad_version_takes_no_good_one_down(repository: Repository, content: bytes) -> None:
    """The stable version goes on; the bad one is known, cannot answer, and says why."""
    repository.publish("linear", content)
    catalogue = _models(repository).catalogue
    assert str(catalogue.resolve("linear", None)) == "linear/1"
    assert catalogue.ready
    with pytest.raises(NotReadyError, match="linear/3 cannot answer: "):
        catalogue.resolve("linear", 3)


def test_a_label_on_a_bad_version_is_not_hidden(repository: Repository) -> None:
    """Where stable itself is broken nothing else answers in its place, and the server is not ready."""
    repository.publish("linear", b"broken")
    repository.set_label("linear", "stable", 3)
    catalogue = _models(repository).catalogue
    assert not catalogue.ready
    with pytest.raises(NotReadyError):
        catalogue.resolve("linear", None)
    assert str(catalogue.resolve("plain", None)) == "plain/1"


def test_golden_vectors_are_answered_before_a_version_is_served(tmp_path: Path) -> None:
    """The reason names the vector, what came out, and what was expected."""
    repository = Repository(tmp_path)
    repository.publish("linear", _wrong_golden())
    with pytest.raises(VerificationError, match=r"golden vector 1: input \[32.0\] gave 32.0, expected 0.0"):
        load_version(repository, "linear", 1, CPU)


def test_golden_vectors_that_do_not_fit_the_graph_are_refused(tmp_path: Path) -> None:
    """Metadata of two columns on a graph of one is found at load time, not by a caller."""
    one = describe()
    column = one.columns[0]
    golden = GoldenVectors(((1.0, 2.0),), (3.0,), 1e-5, 1e-5)
    two = replace(one, columns=(column, replace(column, name="pressure")), golden=golden)
    repository = Repository(tmp_path)
    repository.publish("linear", make_linear(1.0, 0.0, to_metadata(two)))
    with pytest.raises(VerificationError, match="cannot be run"):
        load_version(repository, "linear", 1, CPU)


@pytest.mark.parametrize("key", sorted(to_metadata(describe())))
def test_metadata_that_lacks_a_key_is_refused_by_its_name(tmp_path: Path, key: str) -> None:
    """A file that is ours is read strictly."""
    metadata = to_metadata(describe())
    del metadata[key]
    repository = Repository(tmp_path)
    repository.publish("linear", make_linear(5 / 9, -160 / 9, metadata))
    with pytest.raises(VerificationError, match=key):
        load_version(repository, "linear", 1, CPU)


def test_a_plain_file_serves_without_what_it_does_not_state(tmp_path: Path) -> None:
    """No domain, no interval, no sharing of runs: nothing is invented."""
    repository = Repository(tmp_path)
    repository.publish("plain", make_plain())
    loaded = load_version(repository, "plain", 1, CPU)
    assert (loaded.artefact, loaded.domain, loaded.interval) == (None, None, None)
    assert loaded.converts
    assert not loaded.rows_independent
    assert loaded.outside(np.zeros((1, 1), np.float32)) is None


@given(
    data=st.data(),
    ranges=st.lists(st.tuples(st.integers(-9, 0), st.integers(0, 9)), min_size=1, max_size=5),
    rows=st.integers(0, 40),
)
def test_a_row_is_outside_where_one_of_its_values_is(
    data: st.DataObject, ranges: list[tuple[int, int]], rows: int
) -> None:
    """Of any number of columns, each with its own range, its ends included; NaN lies in none."""
    values = st.sampled_from([-np.inf, -10.0, -9.0, -1.0, -0.0, 0.5, 9.0, 9.5, np.inf, np.nan])
    table = data.draw(hnp.arrays(np.float32, (rows, len(ranges)), elements=values))
    low, high = (np.array(ends, np.float32) for ends in zip(*ranges, strict=True))
    expected = [
        not all(least <= value <= most for value, (least, most) in zip(row, ranges, strict=True))
        for row in table.tolist()
    ]
    assert outside_of(table, low, high).tolist() == expected


def test_what_does_not_exist_is_answered_with_what_does(repository: Repository) -> None:
    """An unknown model, version or label is named beside those that there are."""
    catalogue = _models(repository).catalogue
    for name, choice, text in (
        ("absent", None, "no model 'absent': there are linear, plain"),
        ("linear", 9, "no version 9 of 'linear': there are 1, 2"),
        ("linear", "canary", "no label 'canary' on 'linear': there are stable"),
    ):
        with pytest.raises(UnknownModelError, match=text):
            catalogue.resolve(name, choice)
    with pytest.raises(InvalidRequestError, match="name one: no model is the default; there are linear, plain"):
        catalogue.resolve("", None)


def test_unreadable_labels_promote_nothing(repository: Repository) -> None:
    """A damaged labels file lets no version answer by default that nobody promoted; versions answer by number."""
    (repository.root / "linear" / "labels.json").write_text("{")
    catalogue = _models(repository).catalogue
    for choice in (None, "stable", "canary"):
        with pytest.raises(NotReadyError, match=r"the labels of 'linear' are not known: linear/labels.json"):
            catalogue.resolve("linear", choice)
    assert str(catalogue.resolve("linear", 2)) == "linear/2"
    assert not catalogue.ready


def test_a_default_model_that_is_not_there_is_not_ready(repository: Repository) -> None:
    """A server on which every request that names no model fails does not claim to be ready."""
    assert not _models(repository, default_model="absent").catalogue.ready
    assert _models(repository, default_model="plain").catalogue.ready


def test_an_empty_repository_is_not_ready(tmp_path: Path) -> None:
    """Where nothing can be answered, nothing is claimed."""
    assert not _models(Repository(tmp_path / "nowhere")).catalogue.ready


@given(
    versions=st.sets(st.integers(1, 50)),
    broken=st.sets(st.integers(1, 50)),
    latest=st.integers(1, 5),
    named=st.booleans(),
)
def test_a_policy_counts_versions_that_work(versions: set[int], broken: set[int], latest: int, *, named: bool) -> None:
    """`latest:N` chooses the newest N that work, and of those that do not only newer ones; names choose themselves."""
    if named:
        policy = VersionPolicy.parse(",".join(map(str, sorted(broken | {1}))))
        assert set(policy.choose(versions, lambda _: True)) == versions & (broken | {1})
        return
    chosen = VersionPolicy.parse(f"latest:{latest}").choose(versions, lambda number: number not in broken)
    working = sorted(versions - broken)[-latest:]
    assert [number for number in chosen if number not in broken] == working[::-1]
    oldest = working[0] if len(working) == latest else 0
    assert {number for number in chosen if number in broken} == {n for n in versions & broken if n > oldest}
    assert set(VersionPolicy.parse("all").choose(versions, lambda _: False)) == versions


@pytest.mark.parametrize("text", ["latest:1", "latest:12", "all", "1,3,7"])
def test_a_policy_is_written_as_it_is_read(text: str) -> None:
    """Reading and writing are inverse."""
    assert str(VersionPolicy.parse(text)) == text


@pytest.mark.parametrize("text", ["", "latest", "latest:0", "latest:-1", "latest:x", "0", "1,,2", "1;2", "٣", "ALL"])
def test_what_is_no_policy_is_refused(text: str) -> None:
    """The error names the three forms."""
    with pytest.raises(ValueError, match="latest:N"):
        VersionPolicy.parse(text)


@pytest.mark.parametrize(
    ("names", "configured", "chosen"),
    [(["a"], None, "a"), (["a", "b"], None, None), ([], None, None), (["a", "b"], "b", "b"), (["a"], "z", "z")],
)
def test_the_default_model_is_never_guessed(names: list[str], configured: str | None, chosen: str | None) -> None:
    """The configured one, or the only one there is."""
    assert choose_default_model(names, configured) == chosen


def test_the_metadata_read_back_is_what_was_written(tmp_path: Path) -> None:
    """ONNX Runtime hands the file's statements on unchanged."""
    artefact: Artefact = describe()
    repository = Repository(tmp_path)
    repository.publish("linear", make_artefact(artefact))
    assert load_version(repository, "linear", 1, CPU).artefact == artefact
