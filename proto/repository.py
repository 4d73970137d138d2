"""The model repository on disk: `<root>/<name>/<version>/model.onnx`, and `labels.json` beside the versions.

What holds at every instant, whoever is killed when:

- A version directory is complete or not there: it is written under a hidden name, synced, and renamed.
- A published version never changes, and a version number is never used for two contents.
- `labels.json` is replaced as a whole. It and the first version of a name appear together.

Writers take one file lock over the repository; readers take none. Standard library only: both sides import it.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

MODEL_FILE: Final = "model.onnx"
LABELS_FILE: Final = "labels.json"
STABLE: Final = "stable"

NAME_PATTERN: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_STAGING_PREFIX: Final = ".incoming-"


class RepositoryError(Exception):
    """The repository cannot do what was asked; the message says why."""


class InvalidNameError(RepositoryError):
    """A model name or label is not made of lower-case letters, digits, `_` and `-`, a letter first."""


class UnknownModelError(RepositoryError):
    """No model of that name, or no such version or label of it; the message names what there is."""


class VersionExistsError(RepositoryError):
    """The version to be published is there already; versions never change."""


class CorruptLabelsError(RepositoryError):
    """`labels.json` is not a JSON object of label → version."""


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
        """Names of the models that have a complete version, in order."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(
                entry.name
                for entry in self.root.iterdir()
                if NAME_PATTERN.fullmatch(entry.name) and self.versions(entry.name)
            )
        return []

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
        path = self.root / check_name(name) / LABELS_FILE
        try:
            labels = json.loads(path.read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except ValueError as error:
            raise CorruptLabelsError(f"{path} is not JSON: {error}") from error
        if not isinstance(labels, dict) or not all(type(version) is int for version in labels.values()):
            raise CorruptLabelsError(f"{path} is not an object of label → version")
        return labels

    def model_path(self, name: str, version: int) -> Path:
        """Path of a version's model file, whether it is there or not."""
        return self.root / check_name(name) / str(version) / MODEL_FILE

    # Writing ----------------------------------------------------------------------------------------------------------

    def publish(self, name: str, model: bytes, version: int | None = None) -> int:
        """Publish a model file as a new version, and return its number: the next one where none is given.

        The first version of a name becomes `stable`; later ones move no label. Returns once everything is on disk.

        Raises:
            InvalidNameError: the name is not one.
            VersionExistsError: the version is there already.
            RepositoryError: the version is not a whole number from 1.
        """
        check_name(name)
        if version is not None and version < 1:
            raise RepositoryError(f"a version is a whole number from 1, not {version}")
        with self._locked():
            existing = self.versions(name)
            number = version if version is not None else max(existing, default=0) + 1
            if number in existing:
                raise VersionExistsError(f"{name}/{number} is published already, and versions never change")
            if existing or self.labels(name):
                self._add_version(name, number, model)
            else:
                self._add_model(name, number, model)
            return number

    def set_label(self, name: str, label: str, version: int) -> None:
        """Let a label name a version.

        Raises:
            InvalidNameError: the label is not a name.
            UnknownModelError: the version is not there.
        """
        check_name(label)
        with self._locked():
            existing = self.versions(name)
            if version not in existing:
                raise UnknownModelError(f"no version {version} of {name!r}: there are {existing or 'none'}")
            self._replace_labels(self.root / name, {**self.labels(name), label: version})

    def _add_model(self, name: str, version: int, model: bytes) -> None:
        """Put a new model's directory in place whole: its first version and its labels together."""
        with self._staging(self.root) as staging:
            (staging / str(version)).mkdir()
            _write_synced(staging / str(version) / MODEL_FILE, model)
            _sync_directory(staging / str(version))
            _write_synced(staging / LABELS_FILE, _labels_text({STABLE: version}))
            _sync_directory(staging)
            _move(staging, self.root / name)  # takes the place of an empty directory, if somebody made one
            _sync_directory(self.root)

    def _add_version(self, name: str, version: int, model: bytes) -> None:
        directory = self.root / name
        with self._staging(directory) as staging:
            _write_synced(staging / MODEL_FILE, model)
            _sync_directory(staging)
            _move(staging, directory / str(version))
            _sync_directory(directory)

    def _replace_labels(self, directory: Path, labels: Mapping[str, int]) -> None:
        with self._staging(directory) as staging:
            _write_synced(staging / LABELS_FILE, _labels_text(labels))
            (staging / LABELS_FILE).rename(directory / LABELS_FILE)
            _sync_directory(directory)

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
    def _locked(self) -> Iterator[None]:
        if not self.root.is_dir():
            self.root.mkdir(parents=True, exist_ok=True)
            _sync_directory(self.root.parent)
        with (self.root / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _is_version(text: str) -> bool:
    return text.isascii() and text.isdigit() and text[0] != "0"


def _labels_text(labels: Mapping[str, int]) -> bytes:
    return (json.dumps(dict(sorted(labels.items())), indent=2) + "\n").encode()


def _move(staging: Path, place: Path) -> None:
    try:
        staging.rename(place)
    except OSError as error:  # something that is not a complete version stands there: not ours to remove
        raise RepositoryError(f"{place} is in the way: {error.strerror}") from error


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
