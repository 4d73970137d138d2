"""The model repository on disk: `<root>/<name>/<version>/model.onnx`, and `labels.json` beside the versions.

A version may hold further files, such as the verdict that let it in; servers read the model alone.

What holds at every instant, whoever is killed when:

- A version directory is complete or not there: it is written under a hidden name, synced, and renamed.
- A published version never changes, and a version number is never used for two contents.
- `labels.json` is replaced as a whole. It and the first version of a name appear together.
- No label names a version that was removed: a version goes with one rename, after it was checked under the lock.

Writers take one file lock over the repository; readers take none. Standard library only: both sides import it.
"""

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from proto.labels import NAME_PATTERN, Labels
from proto.traffic import CANARY, CanaryTraffic

__all__ = [
    "CANARY",
    "LABELS_FILE",
    "MODEL_FILE",
    "NAME_PATTERN",
    "STABLE",
    "VERDICT_FILES",
    "CorruptLabelsError",
    "InvalidNameError",
    "LabelledError",
    "Repository",
    "RepositoryError",
    "UnknownModelError",
    "VersionExistsError",
    "check_name",
    "choose_version",
    "sync_directory",
]

MODEL_FILE: Final = "model.onnx"
LABELS_FILE: Final = "labels.json"
VERDICT_FILES: Final = ("verdict.json", "verdict.html")
"""What let a version in, beside its model: for programs, and for people."""
STABLE: Final = "stable"

_STAGING_PREFIX: Final = ".incoming-"
_FILE_PATTERN: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}\.[a-z]{1,8}")


class RepositoryError(Exception):
    """The repository cannot do what was asked; the message says why."""


class InvalidNameError(RepositoryError):
    """A model name or label is not made of lower-case letters, digits, `_` and `-`, a letter first."""


class UnknownModelError(RepositoryError):
    """No model of that name, or no such version or label of it; the message names what there is."""


class VersionExistsError(RepositoryError):
    """The version to be published is there already, or once was; versions never change."""


class LabelledError(RepositoryError):
    """A version cannot be removed while a label names it, nor the last label of a model be taken away."""


class CorruptLabelsError(RepositoryError):
    """`labels.json` is not what `Labels.parse` reads."""


def check_name(name: str) -> str:
    """Return a model name or label unchanged.

    Raises:
        InvalidNameError: it does not match `NAME_PATTERN`.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise InvalidNameError(
            f"{name!r} is not a valid name: a lower-case letter, then up to 62 lower-case letters, digits, '_' or '-'"
        )
    return name


def choose_version(versions: list[int], labels: Mapping[str, int]) -> int | None:
    """Choose the version that answers a request that names none: `stable`, or the newest where no label ever was."""
    if STABLE in labels:
        return labels[STABLE]
    return max(versions, default=None) if not labels else None


class Repository:
    """Reads and writes one repository directory. It is created by the first publish."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    # Reading ----------------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Names of the models that have a complete version, in order; empty where there is no repository."""
        with contextlib.suppress(FileNotFoundError):
            return [name for name in self.directories() if self.versions(name)]
        return []

    def directories(self) -> list[str]:
        """Names of what may be models, in order, without a look inside.

        Raises:
            OSError: the repository cannot be read, or is not there.
        """
        return sorted(entry.name for entry in self.root.iterdir() if NAME_PATTERN.fullmatch(entry.name))

    def versions(self, name: str) -> list[int]:
        """Complete versions of a model, ascending; empty where there is no such model."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return sorted(
                int(entry.name)
                for entry in (self.root / check_name(name)).iterdir()
                if _is_version(entry.name) and (entry / MODEL_FILE).is_file()
            )
        return []

    def labels(self, name: str) -> dict[str, int]:
        """Labels of a model and the versions they name; empty where it has none.

        Raises:
            CorruptLabelsError: the file is there but is not what it should be.
        """
        return dict(self.label_history(name).current)

    def label_history(self, name: str) -> Labels:
        """Labels of a model, and what they named before.

        Raises:
            CorruptLabelsError: the file is there but is not what it should be.
        """
        path = self.root / check_name(name) / LABELS_FILE
        try:
            return Labels.parse(path.read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return Labels()
        except (ValueError, RecursionError) as error:
            raise CorruptLabelsError(f"{name}/{LABELS_FILE} is not a file of labels: {error}") from error

    def labels_state(self, name: str) -> str:
        """Tell one writing of the labels from every other, also where they say the same again; empty where none are.

        It comes from the file, which each writing replaces: a copy of the repository has other states.
        """
        try:
            status = (self.root / check_name(name) / LABELS_FILE).stat()
        except (FileNotFoundError, NotADirectoryError):
            return ""
        return f"{status.st_ino}-{status.st_mtime_ns}"

    def canary_since(self, name: str) -> float | None:
        """When `canary` was given to the version that it names, in Unix time; None where nothing has the label.

        Labels that do not say so were written without this class, or before it wrote that down: then it is when they
        were last written, since the label is as old as that at least.

        Raises:
            CorruptLabelsError: the file is there but is not what it should be.
        """
        labels = self.label_history(name)
        if CANARY not in labels.current:
            return None
        return labels.canary_since_seconds or (self.root / check_name(name) / LABELS_FILE).stat().st_mtime

    def need_state(self, name: str, state: str | None) -> None:
        """Raise RepositoryError where the labels were written since `labels_state` gave `state`; with None never."""
        if state is not None and self.labels_state(name) != state:
            raise RepositoryError(f"the labels of {name!r} were changed meanwhile: {_assigned(self.labels(name))}")

    def model_path(self, name: str, version: int) -> Path:
        """Path of a version's model file, whether it is there or not."""
        return self.root / check_name(name) / str(version) / MODEL_FILE

    # Writing ----------------------------------------------------------------------------------------------------------

    def publish(
        self, name: str, model: bytes, version: int | None = None, *, beside: Mapping[str, bytes] | None = None
    ) -> int:
        """Publish a model file as a new version, and return its number: the next one where none is given.

        The first version of a name becomes `stable`; later ones move no label. `beside` holds further files of the
        version, by name, which appear with it and change as little. Returns once everything is on disk.

        Raises:
            InvalidNameError: the name is not one.
            VersionExistsError: the version is there already.
            RepositoryError: the version is not a whole number from 1, or a file beside the model may not be called so.
        """
        check_name(name)
        files = {MODEL_FILE: model, **_checked_files(beside or {})}
        if version is not None and version < 1:
            raise RepositoryError(f"a version is a whole number from 1, not {version}")
        with self._locked(name):
            existing, labels = self.versions(name), self.label_history(name)
            number = max([*existing, labels.removed_up_to]) + 1 if version is None else version
            if number in existing:
                raise VersionExistsError(f"{name}/{number} is published already, and versions never change")
            if number <= labels.removed_up_to:
                raise VersionExistsError(
                    f"{name}/{labels.removed_up_to} was published and removed, and no number up to it is used again"
                )
            if existing or labels.current:
                self._add_version(name, number, files)
            else:
                self._add_model(name, number, files)
            return number

    def set_label(self, name: str, label: str, version: int, *, state: str | None = None) -> None:
        """Let a label name a version.

        Raises:
            InvalidNameError: the label is not a name.
            UnknownModelError: the version is not there.
            RepositoryError: the labels were written since `labels_state` gave `state`.
        """
        check_name(label)
        with self._locked(name):
            self.need_state(name, state)
            self._need_version(name, version)
            labels = self.label_history(name)
            moved = labels.moved(label, version)
            if label == CANARY:
                moved = moved.canary_given(time.time())
            is_promotion = label == STABLE and labels.current.get(STABLE) not in {None, version}
            self._replace_labels(name, moved.promoted(time.time()) if is_promotion else moved)

    def promote_canary(self, name: str, canary: int, stable: int, *, since: Labels | None = None) -> None:
        """Let `stable` name the canary, and take the label `canary` away with its traffic: all of it in one step.

        Raises:
            RepositoryError: the labels no longer name the versions given: somebody else moved one of them; or one of
                the two labels was moved `since` the labels were so.
        """
        with self._locked(name):
            labels = self._unmoved(name, since)
            if (labels.current.get(CANARY), labels.current.get(STABLE)) != (canary, stable):
                raise RepositoryError(f"the labels of {name!r} were moved meanwhile: {_assigned(labels.current)}")
            self._need_version(name, canary)
            self._replace_labels(name, labels.moved(STABLE, canary).without(CANARY).promoted(time.time()))

    def end_trial(self, name: str, canary: int, state: str) -> None:
        """Take the label `canary` away from a version, with its traffic.

        Raises:
            RepositoryError: it names another one, or the labels were written since `labels_state` gave `state`.
        """
        with self._locked(name):
            self.need_state(name, state)
            labels = self.label_history(name)
            if labels.current.get(CANARY) != canary:
                raise RepositoryError(f"{CANARY!r} of {name!r} was moved meanwhile: {_assigned(labels.current)}")
            self._replace_labels(name, labels.without(CANARY))

    def set_canary_traffic(self, name: str, traffic: CanaryTraffic) -> None:
        """Say what the version labelled `canary` gets of the requests that name no version.

        Raises:
            UnknownModelError: it shall get something, and there is no such label, or no `stable` to share with.
        """
        with self._locked(name):
            labels = self.label_history(name)
            if missing := [label for label in (CANARY, STABLE) if traffic and label not in labels.current]:
                raise UnknownModelError(f"no label {missing[0]!r} on {name!r}: there are {_list(labels.current)}")
            self._replace_labels(name, replace(labels, traffic=traffic))

    def earlier(self, name: str, label: str) -> int:
        """Find the version that a label named before, of those still there.

        Raises:
            UnknownModelError: there is no such label, or none is known that it named before.
        """
        labels = self.label_history(name)
        if label not in labels.current:
            raise UnknownModelError(f"no label {label!r} on {name!r}: there are {_list(labels.current)}")
        version = labels.before(label, self.versions(name))
        if version is None:
            raise UnknownModelError(f"no version is known that {label!r} of {name!r} named before, and is still there")
        return version

    def roll_back(self, name: str, label: str, expected: int | None = None, *, since: Labels | None = None) -> int:
        """Let a label name the version that it named before, and return that. A second rollback goes further back.

        Raises:
            UnknownModelError: there is no such label, or none is known that it named before.
            RepositoryError: it would be another version than `expected`: somebody else moved the label; or `stable` or
                `canary` was moved `since` the labels were so.
        """
        with self._locked(name):
            self._unmoved(name, since)
            version = self.earlier(name, label)
            if expected not in {None, version}:
                raise RepositoryError(f"{label!r} of {name!r} was moved meanwhile: before it named {version}")
            labels = self.label_history(name).rolled_back(label, version)
            if label == CANARY:
                labels = labels.canary_given(time.time())
            self._replace_labels(name, labels.returned(time.time()) if label == STABLE else labels)
            return version

    def remove_label(self, name: str, label: str, expected: int | None = None, *, since: Labels | None = None) -> None:
        """Take a label away; with `canary` goes its traffic.

        Raises:
            UnknownModelError: there is no such label.
            RepositoryError: it names another version than `expected`: somebody else moved it; or `stable` or `canary`
                was moved `since` the labels were so.
            LabelledError: it is the model's last one: without any, the newest version would answer.
        """
        with self._locked(name):
            labels = self._unmoved(name, since)
            if label not in labels.current:
                raise UnknownModelError(f"no label {label!r} on {name!r}: there are {_list(labels.current)}")
            if expected not in {None, labels.current[label]}:
                raise RepositoryError(f"{label!r} of {name!r} was moved meanwhile: {_assigned(labels.current)}")
            if len(labels.current) == 1:
                raise LabelledError(f"{label!r} is the last label of {name!r}: without it the newest version answers")
            self._replace_labels(name, labels.without(label))

    def remove(self, name: str, version: int) -> None:
        """Remove a version that no label names. Its number is never used again.

        Raises:
            UnknownModelError: the version is not there.
            LabelledError: a label names it, or it is the last one of a model without labels.
        """
        with self._locked(name):
            self._need_version(name, version)
            labels = self.label_history(name)
            if naming := sorted(label for label, labelled in labels.current.items() if labelled == version):
                raise LabelledError(f"{name}/{version} is labelled {', '.join(naming)}: move the label first")
            if not labels.current:
                raise LabelledError(f"{name!r} has no label: without one the newest version answers; set one first")
            self._replace_labels(name, labels.removing(version))  # first, so that no crash frees the number
            directory = self.root / name
            with self._staging(directory) as staging:
                (directory / str(version)).rename(staging / str(version))
                sync_directory(directory)

    def _unmoved(self, name: str, since: Labels | None) -> Labels:
        """The labels, where `stable` and `canary` stand as they stood; with None, in any case."""
        labels = self.label_history(name)
        if since is not None and not labels.stand_as_in(since):
            raise RepositoryError(f"the labels of {name!r} were moved meanwhile: {_assigned(labels.current)}")
        return labels

    def _need_version(self, name: str, version: int) -> None:
        existing = self.versions(name)
        if version not in existing:
            raise UnknownModelError(f"no version {version} of {name!r}: there are {existing or 'none'}")

    def _add_model(self, name: str, version: int, files: Mapping[str, bytes]) -> None:
        """Put a new model's directory in place whole: its first version and its labels together."""
        with self._staging(self.root) as staging:
            (staging / str(version)).mkdir()
            _write_all_synced(staging / str(version), files)
            _write_synced(staging / LABELS_FILE, Labels({STABLE: version}).text().encode())
            sync_directory(staging)
            _move(staging, self.root / name)  # takes the place of an empty directory, if somebody made one
            sync_directory(self.root)

    def _add_version(self, name: str, version: int, files: Mapping[str, bytes]) -> None:
        directory = self.root / name
        with self._staging(directory) as staging:
            _write_all_synced(staging, files)
            _move(staging, directory / str(version))
            sync_directory(directory)

    def _replace_labels(self, name: str, labels: Labels) -> None:
        directory = self.root / name
        with self._staging(directory) as staging:
            _write_synced(staging / LABELS_FILE, labels.text().encode())
            (staging / LABELS_FILE).rename(directory / LABELS_FILE)
            sync_directory(directory)

    @contextlib.contextmanager
    def _staging(self, parent: Path) -> Iterator[Path]:
        """A hidden directory to write in. The lock is held, so whatever a killed writer left there goes first."""
        for stale in parent.glob(_STAGING_PREFIX + "*"):
            shutil.rmtree(stale, ignore_errors=True)
        staging = Path(tempfile.mkdtemp(prefix=_STAGING_PREFIX, dir=parent))
        staging.chmod(0o755)  # mkdtemp's is private to one user; a trainer and a server may be two
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Keep other writers out. A model that is a link is refused: what it points to may lie anywhere."""
        if not self.root.is_dir():
            self.root.mkdir(parents=True, exist_ok=True)
            sync_directory(self.root.parent)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(self.root / ".lock", flags, 0o666), "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (self.root / check_name(name)).is_symlink():
                raise RepositoryError(f"{name!r} is a link in the repository, and nothing is written through links")
            yield


def _is_version(text: str) -> bool:
    return text.isascii() and text.isdigit() and text[0] != "0"


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _assigned(labels: Mapping[str, int]) -> str:
    return ", ".join(f"{label} is {version}" for label, version in sorted(labels.items())) or "there are none"


def _move(staging: Path, place: Path) -> None:
    try:
        staging.rename(place)
    except OSError as error:  # something that is not a complete version stands there: not ours to remove
        raise RepositoryError(f"{place} is in the way: {error.strerror}") from error


def _checked_files(beside: Mapping[str, bytes]) -> Mapping[str, bytes]:
    for name in beside:
        if name == MODEL_FILE or not _FILE_PATTERN.fullmatch(name):
            raise RepositoryError(f"{name!r} may not be the name of a file beside {MODEL_FILE}")
    return beside


def _write_all_synced(directory: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        _write_synced(directory / name, content)
    sync_directory(directory)


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Put on disk which files a directory holds."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
