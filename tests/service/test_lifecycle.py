"""Versions come and go while the server runs: what answers before, between and after, and what is left of the old."""

import contextlib
import gc
import json
import os
import shutil
import weakref
from pathlib import Path

import pytest

from proto.model_config import CONFIG_FILE
from proto.repository import LABELS_FILE, Repository
from service.catalogue import Catalogue, VersionState
from service.engine import EngineOptions
from service.errors import NotReadyError, UnknownModelError
from service.models import Models, VersionPolicy
from service.renewal import GONE, SETTLE_SECONDS
from tests.service.artefacts import make_artefact, make_plain

TIMEOUT_SECONDS = 30
CPU = EngineOptions(device="cpu")


class Clock:
    """A clock that stands until it is told to go on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """The time, in seconds."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock for files that may still be written."""
    return Clock()


@pytest.fixture
def models(repository: Repository, clock: Clock) -> Models:
    """The repository in memory: `linear` 1 (stable) and 2, and `plain` 1; the default model is `linear`."""
    models = Models(repository, CPU, policy=VersionPolicy.parse("latest:1"), default_model="linear", clock=clock)
    models.load()
    return models


def answering(catalogue: Catalogue, name: str = "linear", choice: int | str | None = None) -> str:
    """Which version answers a request."""
    return str(catalogue.resolve(name, choice))


def overwrite(path: Path, content: bytes) -> None:
    """Write a file in place, as nobody should."""
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))  # two writes within one tick of the file system


# New versions ---------------------------------------------------------------------------------------------------------


def test_a_new_version_is_loaded_and_the_one_it_replaces_goes(models: Models, repository: Repository) -> None:
    """With `latest:1`, version 3 takes the place of 2; the stable one stays, and goes on answering."""
    repository.publish("linear", make_artefact(offset_celsius=7))
    models.refresh()
    assert answering(models.catalogue, choice=3) == "linear/3"
    assert answering(models.catalogue) == "linear/1"
    with pytest.raises(UnknownModelError, match="no version 2 of 'linear': there are 1, 3"):
        models.catalogue.resolve("linear", 2)


def test_a_catalogue_that_was_taken_does_not_change(models: Models, repository: Repository) -> None:
    """Whoever took the catalogue before a swap works on with it to the end, on the sessions that it holds."""
    before = models.catalogue
    version = before.resolve("linear", 2)
    repository.publish("linear", make_artefact(offset_celsius=7))
    models.refresh()
    assert before.resolve("linear", 2) is version
    assert models.catalogue is not before


def test_nothing_is_loaded_again_that_did_not_change(models: Models, repository: Repository) -> None:
    """A look that finds nothing new leaves the very same catalogue; one that does, the other versions' sessions."""
    before = models.catalogue
    models.refresh()
    assert models.catalogue is before
    repository.publish("linear", make_artefact(offset_celsius=7))
    models.refresh()
    assert models.catalogue.resolve("linear", 1) is before.resolve("linear", 1)
    assert models.catalogue.models["plain"] is before.models["plain"]


def test_the_old_session_is_freed(models: Models, repository: Repository) -> None:
    """When the last run on a retired version is over, its session is gone, without the garbage collector's help."""
    in_flight = models.catalogue.resolve("linear", 2)
    version, session = weakref.ref(in_flight), weakref.ref(in_flight.engine)
    gc.collect()
    gc.disable()
    try:
        repository.publish("linear", make_artefact(offset_celsius=7))
        models.refresh()
        assert version() is in_flight
        del in_flight
        assert (version(), session()) == (None, None)
    finally:
        gc.enable()


def test_a_new_model_is_served_and_a_model_that_is_gone_is_not(models: Models, repository: Repository) -> None:
    """Models come and go with their directories, and nothing of one that went is kept."""
    repository.publish("mlp", make_artefact())
    models.refresh()
    assert answering(models.catalogue, "mlp") == "mlp/1"
    shutil.rmtree(repository.root / "mlp")
    models.refresh()
    with pytest.raises(UnknownModelError, match="no model 'mlp'"):
        models.catalogue.resolve("mlp", None)
    assert "mlp" not in models.load_records()


def test_listeners_are_told_of_changes_alone(models: Models, repository: Repository) -> None:
    """Each change is told once, after it took effect; a look that finds nothing is told to nobody."""
    told: list[bool] = []
    models.subscribe(lambda: told.append(3 in models.catalogue.models["linear"].versions))
    models.refresh()
    assert told == []
    repository.publish("linear", make_artefact(offset_celsius=7))
    models.refresh()
    assert told == [True]


# Broken ones ----------------------------------------------------------------------------------------------------------


def test_a_broken_version_takes_no_good_one_down(models: Models, repository: Repository) -> None:
    """It is listed as failed with its reason and counted; the newest that works stays, although `latest:1` is full."""
    repository.publish("linear", b"broken")
    models.refresh()
    entry = models.catalogue.models["linear"].versions[3]
    assert entry.state is VersionState.FAILED
    assert "ONNX Runtime cannot load the file" in entry.reason
    assert answering(models.catalogue, choice=2) == "linear/2"
    assert models.catalogue.ready
    assert models.load_records()["linear"].failures == 1


def test_a_broken_version_is_not_tried_again_until_its_file_changes(
    models: Models, repository: Repository, clock: Clock
) -> None:
    """A half-copied file fails once; when its writer is done and it has settled, it is loaded."""
    path = repository.root / "linear" / "3" / "model.onnx"
    path.parent.mkdir()
    whole = make_artefact(offset_celsius=7)
    path.write_bytes(whole[: len(whole) // 2])
    for _ in range(3):
        assert models.refresh() is None
    assert models.load_records()["linear"].failures == 1
    overwrite(path, whole)
    assert models.refresh() == SETTLE_SECONDS
    assert models.catalogue.models["linear"].versions[3].state is VersionState.FAILED
    clock.now += SETTLE_SECONDS
    assert models.refresh() is None
    assert answering(models.catalogue, choice=3) == "linear/3"
    assert models.load_records()["linear"].failures == 1


def test_a_published_file_that_changes_is_served_only_once_it_proved_itself(
    models: Models, repository: Repository, clock: Clock
) -> None:
    """While it is written, and when it came out broken, the old content answers; another good one takes its place."""
    path = repository.model_path("linear", 1)
    old = models.catalogue.resolve("linear", 1)
    for content in (b"half", b"half and a bit more"):
        overwrite(path, content)
        models.refresh()
        clock.now += SETTLE_SECONDS / 2
        assert models.catalogue.resolve("linear", 1) is old
    clock.now += SETTLE_SECONDS
    models.refresh()
    assert models.catalogue.resolve("linear", 1) is old
    assert "cannot load" in models.catalogue.models["linear"].versions[1].reason
    overwrite(path, make_artefact(offset_celsius=9))
    models.refresh()
    clock.now += SETTLE_SECONDS
    models.refresh()
    new = models.catalogue.resolve("linear", 1)
    assert new.sha256 != old.sha256
    assert models.catalogue.models["linear"].versions[1].reason == ""


def test_a_file_that_was_only_touched_is_not_loaded_again(models: Models, repository: Repository, clock: Clock) -> None:
    """The same content under a new date is the same version."""
    old = models.catalogue.resolve("linear", 1)
    os.utime(repository.model_path("linear", 1))
    models.refresh()
    clock.now += SETTLE_SECONDS
    models.refresh()
    assert models.catalogue.resolve("linear", 1) is old


def test_a_labelled_file_that_vanished_is_served_from_memory(models: Models, repository: Repository) -> None:
    """What a label names is not let go because of its file; the entry says what is wrong."""
    repository.model_path("linear", 1).unlink()
    models.refresh()
    assert answering(models.catalogue) == "linear/1"
    assert models.catalogue.models["linear"].versions[1].reason == GONE


def test_a_repository_that_cannot_be_looked_at_changes_nothing(models: Models, repository: Repository) -> None:
    """A directory that is not mounted for a moment takes no model down."""
    before = models.catalogue
    aside = repository.root.with_name("aside")
    repository.root.rename(aside)
    models.refresh()
    assert models.catalogue is before
    aside.rename(repository.root)


def test_a_model_that_cannot_be_looked_at_stays_and_holds_up_no_other(models: Models, repository: Repository) -> None:
    """A directory that the system will not list keeps what is loaded of it; the others are followed."""
    (repository.root / "plain").rename(repository.root / "aside")
    (repository.root / "plain").symlink_to("plain")  # a loop
    repository.publish("linear", make_artefact(offset_celsius=7))
    models.refresh()
    assert answering(models.catalogue, "plain") == "plain/1"
    assert answering(models.catalogue, choice=3) == "linear/3"


def test_a_new_model_that_is_broken_does_not_take_the_server_out_of_service(
    models: Models, repository: Repository
) -> None:
    """The server stays ready; it waits for the new model only from its first answer on."""
    repository.publish("mlp", b"broken")
    models.refresh()
    assert models.catalogue.ready
    assert not models.catalogue.models["mlp"].ready
    repository.publish("mlp", make_artefact())
    repository.set_label("mlp", "stable", 2)
    models.refresh()
    assert models.catalogue.models["mlp"].required


# Labels ---------------------------------------------------------------------------------------------------------------


def test_a_label_that_moves_takes_effect(models: Models, repository: Repository) -> None:
    """The version that it names answers; it was loaded before the label took effect."""
    repository.set_label("linear", "stable", 2)
    models.refresh()
    assert answering(models.catalogue) == "linear/2"
    repository.roll_back("linear", "stable")
    models.refresh()
    assert answering(models.catalogue) == "linear/1"


def test_a_label_that_names_a_broken_version_stays_in_effect_where_it_was(
    models: Models, repository: Repository
) -> None:
    """The stable version goes on answering, until the one that the label names now can."""
    repository.publish("linear", b"broken")
    repository.set_label("linear", "stable", 3)
    models.refresh()
    assert answering(models.catalogue) == "linear/1"
    assert models.catalogue.models["linear"].labels_of(1) == ["stable"]
    assert models.catalogue.ready
    repository.publish("linear", make_artefact(offset_celsius=7))
    repository.set_label("linear", "stable", 4)
    models.refresh()
    assert answering(models.catalogue) == "linear/4"


def test_labels_that_cannot_be_read_leave_those_in_effect(models: Models, repository: Repository) -> None:
    """A damaged file moves no label; when it is mended it is followed."""
    path = repository.root / "linear" / LABELS_FILE
    path.write_text('{"stable": ')
    models.refresh()
    assert answering(models.catalogue) == "linear/1"
    assert models.catalogue.ready
    path.write_text(json.dumps({"stable": 2}))
    models.refresh()
    assert answering(models.catalogue) == "linear/2"


def test_a_model_that_comes_beside_an_unnamed_default_does_not_end_it(tmp_path: Path) -> None:
    """Requests that name no model go on being answered by the one that answered them."""
    repository = Repository(tmp_path)
    repository.publish("linear", make_artefact())
    models = Models(repository, CPU)
    models.load()
    repository.publish("mlp", make_artefact())
    models.refresh()
    assert answering(models.catalogue, "") == "linear/1"


# Explicit control -----------------------------------------------------------------------------------------------------


@pytest.fixture
def explicit(repository: Repository) -> Models:
    """The same repository where nothing is loaded until it is told."""
    models = Models(repository, CPU, explicit=())
    models.load()
    return models


def test_nothing_is_loaded_until_it_is_told(explicit: Models) -> None:
    """The server is ready, lists what there is, and answers UNAVAILABLE for it."""
    assert explicit.catalogue.ready
    assert explicit.catalogue.models["linear"].versions[1].state is VersionState.UNLOADED
    with pytest.raises(NotReadyError, match="linear/1 cannot answer: it is not loaded"):
        explicit.catalogue.resolve("linear", None)


def test_load_of_what_is_loaded_is_a_no_op(explicit: Models) -> None:
    """The second load leaves the very same catalogue."""
    explicit.load_model("linear")
    before = explicit.catalogue
    explicit.load_model("linear")
    assert explicit.catalogue is before
    assert answering(before) == "linear/1"


def test_an_unload_lets_runs_end_and_frees_the_rest(explicit: Models) -> None:
    """What is in use stays until its run is over; everything else is gone at once."""
    explicit.load_model("linear")
    in_flight = explicit.catalogue.resolve("linear", 1)
    left = explicit.unload_model("linear")
    assert left.left == 1
    assert not left.wait(0)
    with pytest.raises(NotReadyError):
        explicit.catalogue.resolve("linear", None)
    del in_flight
    assert left.wait(TIMEOUT_SECONDS)


def test_what_is_loaded_by_the_api_alone_follows_no_files(explicit: Models, repository: Repository) -> None:
    """New versions, labels, even the removal of its files change nothing until the next load; lists follow."""
    explicit.load_model("linear")
    repository.publish("linear", make_artefact(offset_celsius=7))
    repository.set_label("linear", "stable", 3)
    repository.publish("mlp", make_artefact())
    explicit.refresh()
    assert answering(explicit.catalogue) == "linear/1"
    assert explicit.catalogue.models["mlp"].versions[1].state is VersionState.UNLOADED
    explicit.load_model("linear")
    assert answering(explicit.catalogue) == "linear/3"
    shutil.rmtree(repository.root / "linear")
    explicit.refresh()
    assert answering(explicit.catalogue) == "linear/3"
    explicit.unload_model("linear")
    explicit.refresh()
    with contextlib.suppress(UnknownModelError):
        pytest.fail(str(explicit.catalogue.resolve("linear", None)))


def test_a_model_that_is_not_there_cannot_be_loaded(explicit: Models) -> None:
    """Nothing is remembered of the attempt."""
    before = explicit.catalogue
    assert explicit.load_model("absent") is None
    assert explicit.catalogue is before


@pytest.mark.parametrize("names", [["*"], ["linear", "plain"]])
def test_models_may_be_loaded_at_the_start(repository: Repository, names: list[str]) -> None:
    """Those named, or all with `*`."""
    models = Models(repository, CPU, explicit=names)
    models.load()
    assert [model.ready for model in models.catalogue.models.values()] == [True, True]


def test_an_explicit_load_tries_what_failed_again(tmp_path: Path) -> None:
    """Also where the file did not change: whoever asks may know that something else did."""
    repository = Repository(tmp_path)
    repository.publish("plain", make_plain())
    repository.publish("plain", b"broken")
    models = Models(repository, CPU, explicit=["plain"])
    models.load()
    models.load_model("plain")
    assert models.load_records()["plain"].failures == 2


# Configuration --------------------------------------------------------------------------------------------------------


def test_a_configuration_takes_effect_when_it_changes(models: Models, repository: Repository) -> None:
    """A plain model shares runs once its operator says that its rows are independent, and a probe agrees."""
    assert not models.catalogue.resolve("plain", 1).rows_independent
    path = repository.root / "plain" / CONFIG_FILE
    path.write_text('{"rows_independent": true}')
    models.refresh()
    assert models.catalogue.resolve("plain", 1).rows_independent
    path.unlink()
    models.refresh()
    assert not models.catalogue.resolve("plain", 1).rows_independent


def test_a_configuration_that_cannot_be_read_changes_nothing_that_is_loaded(
    models: Models, repository: Repository
) -> None:
    """What is loaded stays; new versions fail with its reason until it is mended."""
    path = repository.root / "linear" / CONFIG_FILE
    path.write_text('{"rows_independant": true}')
    repository.publish("linear", make_artefact(offset_celsius=7))
    models.refresh()
    assert answering(models.catalogue, choice=2) == "linear/2"
    assert "linear/config.json: unknown key 'rows_independant'" in models.catalogue.models["linear"].versions[3].reason
    path.unlink()
    models.refresh()
    assert answering(models.catalogue, choice=3) == "linear/3"
