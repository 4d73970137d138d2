"""The repository on disk: what it holds whoever is killed when, and what it refuses."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.labels import Labels, StableMoves
from proto.repository import (
    LABELS_FILE,
    MODEL_FILE,
    CorruptLabelsError,
    InvalidNameError,
    LabelledError,
    Repository,
    RepositoryError,
    UnknownModelError,
    VersionExistsError,
    check_name,
    choose_version,
)
from proto.traffic import CanaryTraffic

CRASH = Path(__file__).with_name("crash.py")

pytestmark = pytest.mark.timeout(400)  # a process a step, where writers are killed at each


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """`linear` with the versions 1, stable, and 2."""
    repository = Repository(tmp_path / "models")
    repository.publish("linear", b"first")
    repository.publish("linear", b"second")
    return repository


def contents(repository: Repository) -> dict[str, dict[int, bytes]]:
    """Every model and version a reader sees, with its bytes."""
    return {
        name: {version: repository.model_path(name, version).read_bytes() for version in repository.versions(name)}
        for name in repository.names()
    }


# Publishing and labels ------------------------------------------------------------------------------------------------


def test_first_publish_becomes_stable_and_later_ones_move_no_label(repository: Repository) -> None:
    """Versions count from 1, and only the first takes the label `stable`."""
    assert contents(repository) == {"linear": {1: b"first", 2: b"second"}}
    assert repository.labels("linear") == {"stable": 1}


def test_set_label_replaces_and_keeps_the_others(repository: Repository) -> None:
    """A label moves to the version it is given, and no other label with it."""
    repository.set_label("linear", "canary", 2)
    repository.set_label("linear", "stable", 2)
    assert repository.labels("linear") == {"stable": 2, "canary": 2}


def test_published_version_is_never_replaced(repository: Repository) -> None:
    """Publishing a version that is there already is refused, and leaves it as it was."""
    with pytest.raises(VersionExistsError, match="linear/2"):
        repository.publish("linear", b"other", version=2)
    assert contents(repository)["linear"][2] == b"second"


def test_given_version_numbers_may_leave_gaps(repository: Repository) -> None:
    """A version may be given, and the next one counts on from the greatest."""
    assert repository.publish("linear", b"seventh", version=7) == 7
    assert repository.publish("linear", b"eighth") == 8


def test_files_beside_a_model_appear_with_its_version(tmp_path: Path) -> None:
    """Further files of a version stand in its directory, of a new model's first version as of a later one."""
    repository = Repository(tmp_path)
    for version in (1, 2):
        assert repository.publish("linear", b"model", beside={"verdict.json": b"{}", "verdict.html": b"<p>"}) == version
        directory = repository.model_path("linear", version).parent
        found = {path.name: path.read_bytes() for path in directory.iterdir()}
        assert found == {MODEL_FILE: b"model", "verdict.json": b"{}", "verdict.html": b"<p>"}


@pytest.mark.parametrize("name", [MODEL_FILE, "../verdict.json", ".hidden", "verdict", "a/b.json", ""])
def test_files_beside_a_model_cannot_lie_elsewhere(repository: Repository, name: str) -> None:
    """A name that is the model's, or no plain file name, is refused, and nothing is published."""
    with pytest.raises(RepositoryError, match="may not be the name"):
        repository.publish("linear", b"third", beside={name: b"x"})
    assert repository.versions("linear") == [1, 2]


@pytest.mark.parametrize("version", [0, -1])
def test_version_numbers_start_at_one(repository: Repository, version: int) -> None:
    """A version below 1 is refused."""
    with pytest.raises(RepositoryError, match=str(version)):
        repository.publish("linear", b"x", version=version)


def test_label_of_a_version_that_is_not_there_is_refused(repository: Repository) -> None:
    """A label never names a version that does not exist; the error names those that do."""
    with pytest.raises(UnknownModelError, match=r"\[1, 2\]"):
        repository.set_label("linear", "canary", 3)
    with pytest.raises(UnknownModelError, match="none"):
        repository.set_label("quadratic", "canary", 1)


def test_label_needs_a_valid_name(repository: Repository) -> None:
    """A label obeys the same pattern as a model name."""
    with pytest.raises(InvalidNameError, match="Canary"):
        repository.set_label("linear", "Canary", 1)


def test_empty_directory_is_no_model_and_its_first_publish_becomes_stable(tmp_path: Path) -> None:
    """A directory that somebody made beforehand does not keep the first version from becoming `stable`."""
    (tmp_path / "linear").mkdir()
    repository = Repository(tmp_path)
    assert repository.names() == []
    repository.publish("linear", b"first")
    assert repository.labels("linear") == {"stable": 1}


def test_foreign_files_in_the_way_are_not_removed(tmp_path: Path) -> None:
    """What the repository did not write is never deleted: publishing over it is refused, naming it."""
    foreign = tmp_path / "linear" / "1" / "notes.txt"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("mine")
    repository = Repository(tmp_path)
    with pytest.raises(RepositoryError, match="linear is in the way"):
        repository.publish("linear", b"first")
    assert foreign.read_text() == "mine"


def test_foreign_entries_are_not_versions(repository: Repository) -> None:
    """Only whole numbers from 1 that hold a model file count as versions."""
    directory = repository.root / "linear"
    for name in ("03", "0", "-1", "1.5", "x", "٣", ".incoming-zzz"):
        (directory / name).mkdir()
        (directory / name / MODEL_FILE).write_bytes(b"x")
    (directory / "9").mkdir()
    assert repository.versions("linear") == [1, 2]


@pytest.mark.parametrize("text", ["{", "[]", '{"stable": "1"}', '{"stable": true}', '{"stable": 1.0}', "\xff"])
def test_labels_that_are_not_labels_are_a_named_error(repository: Repository, text: str) -> None:
    """A labels file of any other shape is refused, naming the file."""
    (repository.root / "linear" / LABELS_FILE).write_text(text, "latin-1")
    with pytest.raises(CorruptLabelsError, match=LABELS_FILE):
        repository.labels("linear")


@pytest.mark.parametrize("name", ["", "Linear", "1st", "a/b", "..", ".hidden", "a" * 64, "linear\n", "µ"])
def test_names_that_could_leave_the_repository_are_refused(repository: Repository, name: str) -> None:
    """Only lower-case letters, digits, `_` and `-` make a name, a letter first."""
    with pytest.raises(InvalidNameError):
        check_name(name)
    with pytest.raises(InvalidNameError):
        repository.publish(name, b"x")


def test_repository_that_is_not_there_is_empty(tmp_path: Path) -> None:
    """Reading needs no repository: there are no names, no versions and no labels, and nothing is created."""
    repository = Repository(tmp_path / "nowhere")
    assert repository.names() == []
    assert repository.versions("linear") == []
    assert repository.labels("linear") == {}
    assert not repository.root.exists()


@given(
    versions=st.lists(st.integers(1, 9), unique=True),
    labels=st.dictionaries(st.sampled_from(["stable", "canary"]), st.integers(1, 9)),
)
def test_choice_of_the_version_that_answers(versions: list[int], labels: dict[str, int]) -> None:
    """`stable` answers where it is; the newest answers only for a model that never had a label."""
    chosen = choose_version(versions, labels)
    if "stable" in labels:
        assert chosen == labels["stable"]
    elif labels or not versions:
        assert chosen is None
    else:
        assert chosen == max(versions)


def test_labels_file_is_plain_sorted_json(repository: Repository) -> None:
    """People may read the labels file: sorted JSON that ends with a newline."""
    for label in ("previous", "best"):
        repository.set_label("linear", label, 1)
    text = (repository.root / "linear" / LABELS_FILE).read_text()
    assert text == json.dumps({"labels": {"best": 1, "previous": 1, "stable": 1}}, indent=2) + "\n"


def test_rollback_goes_back_through_what_a_label_named(repository: Repository) -> None:
    """Each rollback goes one move further back; where nothing is known, it is refused and nothing moves."""
    repository.publish("linear", b"third")
    for version in (2, 3):
        repository.set_label("linear", "stable", version)
    assert repository.earlier("linear", "stable") == 2
    assert repository.roll_back("linear", "stable") == 2
    assert repository.roll_back("linear", "stable", expected=1) == 1
    with pytest.raises(UnknownModelError, match="named before"):
        repository.roll_back("linear", "stable")
    with pytest.raises(UnknownModelError, match="no label 'canary'"):
        repository.roll_back("linear", "canary")
    assert repository.labels("linear") == {"stable": 1}


def test_rollback_to_another_version_than_was_checked_is_refused(repository: Repository) -> None:
    """Who verified the target before learns that somebody else moved the label meanwhile."""
    repository.set_label("linear", "stable", 2)
    with pytest.raises(RepositoryError, match="moved meanwhile"):
        repository.roll_back("linear", "stable", expected=2)
    assert repository.labels("linear") == {"stable": 2}


def test_labelled_versions_are_not_removed(repository: Repository) -> None:
    """A version that a label names stays, as does one of a model without labels; the error says what to do first."""
    with pytest.raises(LabelledError, match="linear/1 is labelled stable"):
        repository.remove("linear", 1)
    with pytest.raises(UnknownModelError, match=r"\[1, 2\]"):
        repository.remove("linear", 3)
    (repository.root / "linear" / LABELS_FILE).unlink()
    with pytest.raises(LabelledError, match="no label"):
        repository.remove("linear", 1)
    assert repository.versions("linear") == [1, 2]


def test_number_of_a_removed_version_is_not_used_again(repository: Repository) -> None:
    """A version number never stands for two contents: the next one counts on, and asking for it is refused."""
    repository.remove("linear", 2)
    assert contents(repository) == {"linear": {1: b"first"}}
    with pytest.raises(VersionExistsError, match="removed"):
        repository.publish("linear", b"other", version=2)
    assert repository.publish("linear", b"third") == 3


def test_last_label_cannot_be_taken_away(repository: Repository) -> None:
    """Without any label the newest version would answer, which nobody promoted."""
    repository.set_label("linear", "canary", 2)
    repository.remove_label("linear", "canary")
    for label, error in (("canary", UnknownModelError), ("stable", LabelledError)):
        with pytest.raises(error, match=label):
            repository.remove_label("linear", label)
    assert repository.labels("linear") == {"stable": 1}


def test_nothing_is_written_through_links(repository: Repository, tmp_path: Path) -> None:
    """A model that is a link to elsewhere can be read, and no writer touches what it points to."""
    repository.root.joinpath("linked").symlink_to(repository.root / "linear")
    assert repository.versions("linked") == [1, 2]
    for write in (
        lambda: repository.publish("linked", b"third"),
        lambda: repository.set_label("linked", "canary", 2),
        lambda: repository.remove("linked", 2),
    ):
        with pytest.raises(RepositoryError, match="link"):
            write()
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (repository.root / ".lock").unlink()
    (repository.root / ".lock").symlink_to(precious)
    with pytest.raises(OSError, match="symbolic links"):
        repository.publish("linear", b"third")
    assert precious.read_text() == "precious"
    assert contents(repository)["linear"] == {1: b"first", 2: b"second"}


# Crashes --------------------------------------------------------------------------------------------------------------


def killed_at_each_step(template: Path, output: Path, *operation: str) -> list[Repository]:
    """The repositories that killed writers left, one a step, and last the one whose writer came to its end."""
    command = [sys.executable, str(CRASH), str(template), str(output), *operation]
    subprocess.run(command, check=True, timeout=350, env={**os.environ, "PYTHONPATH": str(CRASH.parents[2])})
    roots = sorted(output.iterdir(), key=lambda root: int(root.name))
    assert len(roots) > 30, "the writer was killed at every one of its steps"
    return [Repository(root) for root in roots]


def assert_old_or_new(
    left: list[Repository], old: dict[str, dict[int, bytes]], new: dict[str, dict[int, bytes]]
) -> None:
    """Each is in the old state or the new one; the change happens once, and the last one shows it."""
    states = [contents(repository) for repository in left]
    changed = [state == new for state in states]
    assert all(state in (old, new) for state in states)
    assert changed == sorted(changed)
    assert changed[-1]
    assert not changed[0] or old == new


def test_publish_killed_at_any_step_leaves_the_old_state_or_the_new(repository: Repository, tmp_path: Path) -> None:
    """Whenever the publisher of a further version is killed, readers see the old versions or the new one whole."""
    old = contents(repository)
    left = killed_at_each_step(repository.root, tmp_path / "killed", "publish", "linear", "third")
    assert_old_or_new(left, old, {"linear": {**old["linear"], 3: b"third"}})
    for each in left:
        assert each.labels("linear") == {"stable": 1}


def test_publish_killed_at_any_step_leaves_no_version_without_its_files(repository: Repository, tmp_path: Path) -> None:
    """The files beside a model are there with its version, or neither is."""
    words = ("publish", "linear", "third", "verdict.json")
    left = killed_at_each_step(repository.root, tmp_path / "killed", *words)
    published = [each for each in left if 3 in each.versions("linear")]
    assert published
    for each in published:
        assert (each.root / "linear" / "3" / "verdict.json").read_bytes() == b"beside"


def test_first_publish_killed_at_any_step_leaves_no_model_without_its_label(
    repository: Repository, tmp_path: Path
) -> None:
    """A new name appears together with its first version and its label, or not at all."""
    old = contents(repository)
    left = killed_at_each_step(repository.root, tmp_path / "killed", "publish", "mlp", "new")
    assert_old_or_new(left, old, {**old, "mlp": {1: b"new"}})
    for each in left:
        assert each.labels("mlp") == ({"stable": 1} if each.versions("mlp") else {})


def test_set_label_killed_at_any_step_leaves_labels_that_can_be_read(repository: Repository, tmp_path: Path) -> None:
    """Whenever the mover of a label is killed, the labels are the old ones or the new ones."""
    old, new = {"stable": 1}, {"stable": 2}
    left = killed_at_each_step(repository.root, tmp_path / "killed", "label", "linear", "stable", "2")
    moved = [each.labels("linear") == new for each in left]
    assert all(each.labels("linear") in (old, new) for each in left)
    assert moved == sorted(moved)
    assert (moved[0], moved[-1]) == (False, True)


def test_rollback_killed_at_any_step_leaves_the_label_and_its_history_together(
    repository: Repository, tmp_path: Path
) -> None:
    """Whenever a rollback is killed, the label and what it named before are both the old ones or both the new ones."""
    repository.set_label("linear", "stable", 2)
    old, new = Labels({"stable": 2}, {"stable": (1,)}), Labels({"stable": 1})
    left = killed_at_each_step(repository.root, tmp_path / "killed", "rollback", "linear", "stable")
    found = [each.label_history("linear") for each in left]
    states = [replace(labels, moves=StableMoves()) for labels in found]
    assert {labels.moves.rollbacks for labels in found} == {0, 1}
    assert all(state in (old, new) for state in states)
    assert (states[0], states[-1]) == (old, new)


def test_promotion_killed_at_any_step_moves_both_labels_and_the_traffic_or_nothing(
    repository: Repository, tmp_path: Path
) -> None:
    """Whenever the promotion of a canary is killed, it is the canary with its traffic still, or stable without any."""
    repository.set_label("linear", "canary", 2)
    repository.set_canary_traffic("linear", CanaryTraffic(share=0.5))
    left = killed_at_each_step(repository.root, tmp_path / "killed", "promote", "linear", "2", "1")
    found = [each.label_history("linear") for each in left]
    states = [(dict(labels.current), labels.traffic.share, labels.moves.promotions) for labels in found]
    old, new = ({"stable": 1, "canary": 2}, 0.5, 0), ({"stable": 2}, 0.0, 1)
    assert all(state in (old, new) for state in states)
    assert (states[0], states[-1]) == (old, new)
    assert found[-1].previous == {"stable": (1,)}


def test_promotion_of_another_canary_than_was_judged_is_refused(repository: Repository) -> None:
    """Who judged two versions learns that somebody else moved a label meanwhile, and nothing moves."""
    repository.set_label("linear", "canary", 2)
    for canary, stable in ((1, 1), (2, 2)):
        with pytest.raises(RepositoryError, match="moved meanwhile: canary is 2, stable is 1"):
            repository.promote_canary("linear", canary, stable)
    with pytest.raises(RepositoryError, match="moved meanwhile"):
        repository.remove_label("linear", "canary", expected=1)
    assert repository.labels("linear") == {"stable": 1, "canary": 2}


def test_traffic_needs_a_canary_and_goes_with_it(repository: Repository) -> None:
    """A rule for a label that is not there is refused; one that is there stays as the label moves, and ends with it."""
    with pytest.raises(UnknownModelError, match="no label 'canary'"):
        repository.set_canary_traffic("linear", CanaryTraffic(shadow=True))
    repository.set_canary_traffic("linear", CanaryTraffic())
    repository.set_label("linear", "canary", 2)
    repository.set_canary_traffic("linear", CanaryTraffic(shadow=True))
    repository.publish("linear", b"third")
    repository.set_label("linear", "canary", 3)
    assert repository.label_history("linear").traffic == CanaryTraffic(shadow=True)
    repository.remove_label("linear", "canary")
    assert not repository.label_history("linear").traffic


def test_moves_of_stable_are_counted_with_their_time(repository: Repository) -> None:
    """Promotions and rollbacks are counted where every server can read them; a label set where it was is neither."""
    began = time.time()
    for version in (1, 2, 2):
        repository.set_label("linear", "stable", version)
    repository.set_label("linear", "canary", 1)
    repository.roll_back("linear", "stable")
    moves = repository.label_history("linear").moves
    assert (moves.promotions, moves.rollbacks) == (1, 1)
    assert began <= moves.last_seconds <= time.time()


def test_unlabelling_killed_at_any_step_leaves_labels_that_can_be_read(repository: Repository, tmp_path: Path) -> None:
    """Whenever the taking away of a label is killed, it is there or it is not, and the others are."""
    repository.set_label("linear", "canary", 2)
    left = killed_at_each_step(repository.root, tmp_path / "killed", "unlabel", "linear", "canary")
    states = [each.labels("linear") for each in left]
    assert all(state in ({"stable": 1, "canary": 2}, {"stable": 1}) for state in states)
    assert states[-1] == {"stable": 1}


def test_removal_killed_at_any_step_leaves_the_version_whole_or_gone(repository: Repository, tmp_path: Path) -> None:
    """Whenever a removal is killed, the version is whole or gone, labels hold, and its number is not used again."""
    old = contents(repository)
    left = killed_at_each_step(repository.root, tmp_path / "killed", "remove", "linear", "2")
    assert_old_or_new(left, old, {"linear": {1: b"first"}})
    for each in left:
        assert each.labels("linear") == {"stable": 1}
        assert each.publish("linear", b"third") == 3
        assert list((each.root / "linear").glob(".*")) == []


def test_next_writer_goes_on_after_a_kill_and_clears_up(repository: Repository, tmp_path: Path) -> None:
    """After a kill at any step the next publish succeeds under the next number, and nothing hidden stays behind."""
    for each in killed_at_each_step(repository.root, tmp_path / "killed", "publish", "linear", "third"):
        before = each.versions("linear")
        assert each.publish("linear", b"after") == before[-1] + 1
        assert contents(each)["linear"][before[-1] + 1] == b"after"
        assert list((each.root / "linear").glob(".*")) == []
    for each in killed_at_each_step(repository.root, tmp_path / "killed-first", "publish", "mlp", "new"):
        each.publish("mlp", b"after")
        assert each.labels("mlp") == {"stable": 1}
        assert [entry.name for entry in each.root.glob(".*")] == [".lock"]


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_everything_is_on_disk_before_it_can_be_seen(
    repository: Repository, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut cannot leave a version visible but empty: all its parts are synced before the rename, it after."""
    synced: list[str] = []
    unsynced_at_rename: list[str] = []
    real_sync, real_rename = os.fsync, Path.rename

    def sync(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real_sync(descriptor)

    def rename(source: Path, target: Path) -> Path:
        parts = [source, *source.rglob("*")]
        unsynced_at_rename.extend(str(part) for part in parts if str(part) not in synced)
        synced.clear()
        return real_rename(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "rename", rename)
    repository.publish(name, b"new")
    assert unsynced_at_rename == []
    assert synced == [str(repository.root / name if name == "linear" else repository.root)]


def test_no_space_left_is_an_error_that_leaves_the_old_state(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that fails publishes nothing and leaves nothing behind."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    old = contents(repository)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        repository.publish("linear", b"third")
    assert contents(repository) == old
    assert list((repository.root / "linear").glob(".*")) == []


# Concurrency ----------------------------------------------------------------------------------------------------------

_PUBLISHER = """
import sys
from proto.repository import Repository
sys.stdin.readline()
for round in range(20):
    Repository(sys.argv[1]).publish("linear", f"{sys.argv[2]} {round}".encode() * 1000)
"""


def test_two_publishing_processes_never_share_a_version(tmp_path: Path) -> None:
    """Two processes that publish at once get versions of their own, each whole, and readers see only whole ones."""
    root = tmp_path / "models"
    command = [sys.executable, "-c", _PUBLISHER, str(root)]
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(subprocess.Popen([*command, name], stdin=subprocess.PIPE, text=True))
            for name in ("one", "two")
        ]
        reading = Reader(Repository(root))
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write("go\n")
            writer.stdin.close()
        codes = [writer.wait(timeout=60) for writer in writers]
        torn = reading.stop()
    assert codes == [0, 0]
    assert torn == []
    versions = contents(Repository(root))["linear"]
    assert sorted(versions) == list(range(1, 41))
    assert set(versions.values()) == {f"{name} {n}".encode() * 1000 for name in ("one", "two") for n in range(20)}
    assert Repository(root).labels("linear") == {"stable": 1}


class Reader:
    """Reads a repository over and over in a thread, and keeps what was ever incomplete."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._stopped = threading.Event()
        self._torn: list[str] = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while not self._stopped.is_set():
            for name, versions in contents(self._repository).items():
                if self._repository.labels(name) != {"stable": 1}:
                    self._torn.append("labels")
                self._torn += [f"{version}" for version, content in versions.items() if not is_whole(content)]

    def stop(self) -> list[str]:
        """End the reading, and say what was ever incomplete."""
        self._stopped.set()
        self._thread.join()
        return self._torn


def is_whole(content: bytes) -> bool:
    """Whether a publisher's content is there from beginning to end."""
    text = content.decode()
    return len(text) > 0 and text == text[: len(text) // 1000] * 1000


def test_each_writing_of_the_labels_has_a_state_of_its_own(tmp_path: Path) -> None:
    """Also one after which they say what they said before; reading and publishing change nothing."""
    written = Repository(tmp_path)
    assert written.labels_state("linear") == ""
    written.publish("linear", b"model")
    first = written.labels_state("linear")
    written.publish("linear", b"another")
    assert written.labels_state("linear") == first
    written.set_label("linear", "canary", 2)
    second = written.labels_state("linear")
    written.remove_label("linear", "canary")
    assert written.labels("linear") == {"stable": 1}
    assert len({first, second, written.labels_state("linear")}) == 3


def test_a_canary_is_dated_when_its_label_is_given(repository: Repository) -> None:
    """Not when its version was made; traffic changes nothing. Labels that do not say it are as old as their file."""
    assert repository.canary_since("linear") is None
    began = time.time()
    repository.set_label("linear", "canary", 2)
    since = repository.canary_since("linear")
    assert since is not None
    assert began <= since <= time.time()
    repository.set_canary_traffic("linear", CanaryTraffic(shadow=True))
    repository.set_label("linear", "canary", 2)
    repository.set_label("linear", "stable", 2)
    assert repository.canary_since("linear") == since
    repository.set_label("linear", "canary", 1)
    moved = repository.canary_since("linear")
    repository.roll_back("linear", "canary")
    back = repository.canary_since("linear")
    assert moved is not None
    assert back is not None
    assert since < moved < back
    path = repository.root / "linear" / LABELS_FILE
    path.write_text('{"stable": 1, "canary": 2}')
    os.utime(path, (1000.0, 1000.0))
    assert repository.canary_since("linear") == 1000.0


def test_a_trial_is_ended_only_where_nothing_was_written_since(repository: Repository) -> None:
    """Nor is a label given: whoever decided on labels that were written meanwhile learns that, and nothing moves."""
    before = repository.labels_state("linear")
    repository.set_label("linear", "canary", 2, state=before)
    state = repository.labels_state("linear")
    for canary, seen in ((2, before), (1, state)):
        with pytest.raises(RepositoryError, match="meanwhile: canary is 2, stable is 1"):
            repository.end_trial("linear", canary, seen)
    with pytest.raises(RepositoryError, match="meanwhile: canary is 2, stable is 1"):
        repository.set_label("linear", "stable", 2, state=before)
    assert repository.labels("linear") == {"stable": 1, "canary": 2}
    repository.set_canary_traffic("linear", CanaryTraffic(shadow=True))
    repository.end_trial("linear", 2, repository.labels_state("linear"))
    assert repository.labels("linear") == {"stable": 1}
    assert not repository.label_history("linear").traffic
