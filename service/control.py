"""Load and unload as callers of an API ask for them: what is wrong with the request, what goes to disk, what is loaded.

What is sent is verified in memory first, on the device that will serve it, and then published as any trainer would
publish it: whole, under a version that never changes. Names and paths match strict patterns, and paths are never
joined from what was sent: nothing can be written outside the repository.
"""

from collections.abc import Callable, Mapping
from typing import Final, Literal

import structlog

from proto.repository import (
    InvalidNameError,
    Repository,
    RepositoryError,
    VersionExistsError,
    check_name,
)
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
from service.loading import ModelFile, VerificationError, load_model
from service.models import Models

log = structlog.get_logger(__name__)

ModelControl = Literal["watch", "explicit", "none"]

_TOPIC: Final = "model/"
"""What is told of a model stands under this and its name."""


class RepositoryControl:
    """Does what callers ask of the repository and of the models in memory.

    Guarantees: a file that does not verify is not written; a version that is there is not replaced; several files are
    all verified before the first is written. Both methods may take long, and may be called by any thread.
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
        self.tell: Callable[[str, bool], object] = lambda _topic, _loaded: None
        """Where several processes serve, tells all of them what `follow` then does, and returns when they did."""

    def load(self, name: str, files: Mapping[int | None, bytes]) -> list[int]:
        """Publish the files sent, if there are any, and load the model; return the versions that were published.

        `files` maps versions to the content of their model files; None stands for the number that comes next. A model
        that is loaded already and did not change stays as it is.

        Raises:
            InvalidRequestError: the name is not one, or a file does not verify.
            AlreadyExistsError: a version is there already.
            UnknownModelError: there is no such model, and none was sent.
            NotReadyError: no version of it can be loaded; the message says why.
            UnsupportedError: this server's models are fixed, or its repository cannot be written.
        """
        self._need_mode("watch", "explicit")
        _check_name(name)
        published = self._publish(name, files) if files else []
        entry = self._models.load_model(name)
        if entry is None:
            known = ", ".join(sorted(self._models.catalogue.models)) or "none"
            raise UnknownModelError(f"no model {name!r} in the repository: there are {known}")
        if not entry.loaded:
            raise NotReadyError(f"no version of {name!r} can be loaded: {_reasons(entry)}")
        self.tell(_TOPIC + name, True)
        return published

    def unload(self, name: str) -> None:
        """Let a model answer no more calls, and return when its last run has ended. Not loaded already: nothing to do.

        Raises:
            InvalidRequestError: the name is not one.
            UnknownModelError: there is no such model.
            UnsupportedError: the server loads its models by itself, and would load this one again.
        """
        self._need_mode("explicit")
        _check_name(name)
        if name not in self._models.catalogue.models:
            raise UnknownModelError(f"no model {name!r}")
        retired = self._models.unload_model(name)
        if not retired.wait(self._drain_seconds):
            log.warning("a run goes on after its model was unloaded", model=name, seconds=self._drain_seconds)
        self.tell(_TOPIC + name, False)

    def follow(self, topic: str, loaded: bool) -> None:  # noqa: FBT001 - as it is told
        """Do what one of several processes was asked to do, which all shall do."""
        name = topic.removeprefix(_TOPIC)
        if name == topic:
            return
        if loaded:
            self._models.load_model(name)
        elif not self._models.unload_model(name).wait(self._drain_seconds):
            log.warning("a run goes on after its model was unloaded", model=name, seconds=self._drain_seconds)

    def _need_mode(self, *modes: ModelControl) -> None:
        if self._mode not in modes:
            raise UnsupportedError(f"model_control is {self._mode!r} on this server; this needs {' or '.join(modes)}")

    def _publish(self, name: str, files: Mapping[int | None, bytes]) -> list[int]:
        if there := [number for number in self._repository.versions(name) if number in files]:
            raise AlreadyExistsError(f"{name}/{there[0]} is published already, and versions never change")
        for number, content in files.items():
            self._verify(name, number, content)
        try:
            return [self._repository.publish(name, content, number) for number, content in files.items()]
        except VersionExistsError as error:
            raise AlreadyExistsError(str(error)) from error
        except RepositoryError as error:
            raise UnsupportedError(str(error)) from error
        except OSError as error:
            log.exception("nothing can be published", model=name)
            raise UnsupportedError(f"the server's repository cannot be written: {error.strerror}") from error

    def _verify(self, name: str, number: int | None, content: bytes) -> None:
        try:
            load_model(name, number or 0, ModelFile.of(content), self._options)
        except (VerificationError, EngineError) as error:
            raise InvalidRequestError(file_key(number), str(error)) from error


def _check_name(name: str) -> None:
    try:
        check_name(name)
    except InvalidNameError as error:
        raise InvalidRequestError("model_name", str(error)) from error


def _reasons(entry: ModelEntry) -> str:
    return "; ".join(f"version {number}: {version.reason}" for number, version in sorted(entry.versions.items()))
