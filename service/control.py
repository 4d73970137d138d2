"""Load, unload and label as callers of an API ask for it: what is wrong with it, what goes to disk, what is loaded.

What is sent is verified in memory first, on the device that will serve it, and then published as any trainer would
publish it: whole, under a version that never changes. Names and paths match strict patterns, and paths are never
joined from what was sent: nothing can be written outside the repository. A label moves only to a version that verifies
here.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Literal

import structlog

from proto.model_config import ModelConfigError
from proto.repository import (
    MODEL_FILE,
    InvalidNameError,
    Repository,
    RepositoryError,
    VersionExistsError,
    check_name,
)
from proto.repository import UnknownModelError as NotInRepositoryError
from proto.upload import file_key
from service.catalogue import ModelEntry
from service.engine import EngineError, EngineOptions
from service.errors import (
    AlreadyExistsError,
    InvalidRequestError,
    NotReadyError,
    UnknownModelError,
    UnsupportedError,
)
from service.loading import ModelFile, VerificationError, load_model, load_version
from service.models import Models

log = structlog.get_logger(__name__)

ModelControl = Literal["watch", "explicit", "none"]

_TOPIC: Final = "model/"
"""What is told of a model stands under this and its name."""


class RepositoryControl:
    """Does what callers ask of the repository and of the models in memory.

    Guarantees: a file that does not verify is not written; a version that is there is not replaced; several files are
    all verified before the first is written; no label moves to a version that does not verify. Where several processes
    serve, what returns was done by all of them, and what raises names those that could not. The methods may take long,
    and may be called by any thread.
    """

    def __init__(
        self,
        models: Models,
        repository: Repository,
        options: EngineOptions,
        mode: ModelControl,
        drain_seconds: float,
    ) -> None:
        self._models = models
        self._repository = repository
        self._options = options
        self._mode = mode
        self._drain_seconds = drain_seconds
        self.tell: Callable[[str, bool], Sequence[str]] = lambda _topic, _loaded: ()
        """Where several processes serve, tells all of them what `follow` then does, and returns when they did: what
        kept some from it, one line each."""

    def load(self, name: str, files: Mapping[int | None, Mapping[str, bytes]]) -> list[int]:
        """Publish the files sent, if there are any, and load the model; return the versions that were published.

        `files` maps versions to their files by name, a model among them; None stands for the number that comes next. A
        model that is loaded already and did not change stays as it is.

        Raises:
            InvalidRequestError: the name is not one, or a file does not verify.
            AlreadyExistsError: a version is there already.
            UnknownModelError: there is no such model, and none was sent.
            NotReadyError: no version of it can be loaded, or not by every process; the message says why.
            UnsupportedError: this server's models are fixed, or its repository cannot be written.
        """
        self._need_mode("watch", "explicit")
        _check_name(name)
        published = self._publish(name, files) if files else []
        self._load(name)
        self._tell_all(name, loaded=True)
        return published

    def unload(self, name: str) -> None:
        """Let a model answer no more calls, and return when its last run has ended. Not loaded already: nothing to do.

        Raises:
            InvalidRequestError: the name is not one.
            UnknownModelError: there is no such model.
            NotReadyError: not every process did; the message says why.
            UnsupportedError: the server loads its models by itself, and would load this one again.
        """
        self._need_mode("explicit")
        _check_name(name)
        if name not in self._models.catalogue.models:
            raise UnknownModelError(f"no model {name!r}")
        retired = self._models.unload_model(name)
        if not retired.wait(self._drain_seconds):
            log.warning("a run goes on after its model was unloaded", model=name, seconds=self._drain_seconds)
        self._tell_all(name, loaded=False)

    def set_label(self, name: str, label: str, version: int) -> None:
        """Let a label name a version that verifies here, and have it answer for it where the model is loaded.

        Raises:
            InvalidRequestError: the name or the label is not one.
            UnknownModelError: there is no such version.
            UnsupportedError: the version does not verify; this server's models are fixed; its repository cannot be
                written.
            NotReadyError: the label stands in the repository, and not every process follows it; the message says why.
        """
        self._check_label(name, label)
        with _told_plainly(name):
            self._verify_version(name, version)
            self._repository.set_label(name, label, version)
        self._follow_label(name, label, version)

    def roll_back(self, name: str, label: str) -> int:
        """Let a label name the version that it named before, and return that; otherwise as `set_label`."""
        self._check_label(name, label)
        with _told_plainly(name):
            version = self._repository.earlier(name, label)
            self._verify_version(name, version)
            self._repository.roll_back(name, label, expected=version)
        self._follow_label(name, label, version)
        return version

    def remove_label(self, name: str, label: str) -> None:
        """Take a label away; otherwise as `set_label`.

        Raises:
            UnsupportedError: besides, it is the model's last one.
        """
        self._check_label(name, label)
        with _told_plainly(name):
            self._repository.remove_label(name, label)
        self._follow_label(name, label, None)

    def follow(self, topic: str, loaded: bool) -> None:  # noqa: FBT001 - as it is told
        """Do what one of several processes was asked to do, which all shall do.

        Raises:
            ServiceError: this one cannot; the message says why.
        """
        name = topic.removeprefix(_TOPIC)
        if name == topic:
            return
        if loaded:
            self._load(name)
        elif not self._models.unload_model(name).wait(self._drain_seconds):
            log.warning("a run goes on after its model was unloaded", model=name, seconds=self._drain_seconds)

    def _load(self, name: str) -> None:
        try:
            entry = self._models.load_model(name)
        except OSError as error:
            raise NotReadyError(f"the repository cannot be looked at: {error.strerror}") from error
        if entry is None:
            known = ", ".join(sorted(self._models.catalogue.models)) or "none"
            raise UnknownModelError(f"no model {name!r} in the repository: there are {known}")
        if not entry.loaded:
            raise NotReadyError(f"no version of {name!r} can be loaded: {_reasons(entry)}")

    def _tell_all(self, name: str, *, loaded: bool) -> None:
        if problems := self.tell(_TOPIC + name, loaded):
            raise NotReadyError(
                f"{name!r} is {'' if loaded else 'un'}loaded, but not in every process: {'; '.join(problems)}"
            )

    def _check_label(self, name: str, label: str) -> None:
        self._need_mode("watch", "explicit")
        _check_name(name)
        _check_name(label, "label")

    def _verify_version(self, name: str, version: int) -> None:
        existing = self._repository.versions(name)
        if version not in existing:
            raise UnknownModelError(f"no version {version} of {name!r}: there are {existing or 'none'}")
        try:
            load_version(self._repository, name, version, self._options)
        except (EngineError, VerificationError, ModelConfigError) as error:
            raise UnsupportedError(f"{name}/{version} does not verify, so no label moves to it: {error}") from error

    def _follow_label(self, name: str, label: str, version: int | None) -> None:
        """Have all processes follow a label that moved, where the model is loaded; None for one that was taken away."""
        held = self._models.catalogue.models.get(name)
        if held is None or not held.wanted:
            return  # it takes effect when the model is loaded
        self._load(name)
        self._tell_all(name, loaded=True)
        now = self._models.catalogue.models[name].labels.get(label)
        if now != version:
            raise NotReadyError(f"{label!r} of {name!r} stands in the repository, and is not in effect: it names {now}")

    def _need_mode(self, *modes: ModelControl) -> None:
        if self._mode not in modes:
            raise UnsupportedError(f"model_control is {self._mode!r} on this server; this needs {' or '.join(modes)}")

    def _publish(self, name: str, files: Mapping[int | None, Mapping[str, bytes]]) -> list[int]:
        if there := [number for number in self._repository.versions(name) if number in files]:
            raise AlreadyExistsError(f"{name}/{there[0]} is published already, and versions never change")
        for number, contents in files.items():
            self._verify(name, number, contents[MODEL_FILE])
        with _told_plainly(name):
            try:
                return [self._publish_version(name, number, contents) for number, contents in files.items()]
            except VersionExistsError as error:
                raise AlreadyExistsError(str(error)) from error

    def _publish_version(self, name: str, number: int | None, contents: Mapping[str, bytes]) -> int:
        beside = {file: content for file, content in contents.items() if file != MODEL_FILE}
        return self._repository.publish(name, contents[MODEL_FILE], number, beside=beside)

    def _verify(self, name: str, number: int | None, content: bytes) -> None:
        try:
            load_model(name, number or 0, ModelFile.of(content), self._options)
        except (VerificationError, EngineError) as error:
            raise InvalidRequestError(file_key(number), str(error)) from error


@contextlib.contextmanager
def _told_plainly(name: str) -> Iterator[None]:
    """Tell what the repository refuses in words for callers, without a path of this machine."""
    try:
        yield
    except NotInRepositoryError as error:
        raise UnknownModelError(str(error)) from error
    except RepositoryError as error:
        raise UnsupportedError(str(error)) from error
    except OSError as error:
        log.exception("the repository cannot be written", model=name)
        raise UnsupportedError(f"the server's repository cannot be written: {error.strerror}") from error


def _check_name(name: str, field: str = "model_name") -> None:
    try:
        check_name(name)
    except InvalidNameError as error:
        raise InvalidRequestError(field, str(error)) from error


def _reasons(entry: ModelEntry) -> str:
    return "; ".join(f"version {number}: {version.reason}" for number, version in sorted(entry.versions.items()))
