"""Model versions in memory: found on disk, verified, warmed, and looked up by name, version or label."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeAlias

import numpy as np
import structlog
from numpy.typing import NDArray

from proto.artefact import Artefact, ArtefactError, Interval, NotAnArtefactError, from_metadata
from proto.repository import CorruptLabelsError, Repository, choose_version
from service.engine import DeviceError, Engine, EngineError, EngineOptions, TensorSpec
from service.errors import InvalidRequestError, NotReadyError, UnknownModelError

log = structlog.get_logger(__name__)

Choice: TypeAlias = int | str | None
"""How a request names a version: by number, by label, or not at all."""

WARM_BATCHES: Final = (1, 2, 32, 1024)
"""Rows of the runs that warm a session, so that no caller pays for its first allocations."""


class VerificationError(Exception):
    """A version must not be served; the message says why."""


@dataclass(frozen=True, eq=False)
class LoadedVersion:
    """A version that answered its golden vectors right in this process, on the device that serves it."""

    name: str
    version: int
    engine: Engine
    artefact: Artefact | None
    """What the file states of itself; None for a plain ONNX file."""
    sha256: str
    size_bytes: int

    @cached_property
    def converts(self) -> bool:
        """Whether it takes one float32 a row and gives one."""
        return _one_float(self.engine.inputs) and _one_float(self.engine.outputs)

    @cached_property
    def rows_independent(self) -> bool:
        """Whether an answer depends on its own row alone, so that calls may share a run."""
        return self.artefact is not None and self.artefact.rows_independent

    @cached_property
    def interval(self) -> Interval | None:
        """The prediction interval that the file states."""
        return None if self.artefact is None else self.artefact.interval

    @cached_property
    def domain(self) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """Least and greatest value of each input column in training; None where the file does not state them."""
        return None if self.artefact is None else _domain(self.artefact)

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"

    def outside(self, rows: NDArray[np.float32]) -> NDArray[np.bool_] | None:
        """Tell which rows of `[N, columns]` lie outside the training domain; None where it is not stated."""
        if self.domain is None:
            return None
        low, high = self.domain
        inside = np.logical_and(rows >= low, rows <= high).all(axis=1)
        return np.logical_not(inside)  # so that NaN is outside


@dataclass(frozen=True, slots=True)
class VersionEntry:
    """One version on disk: loaded, or the reason why not."""

    version: int
    loaded: LoadedVersion | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model: the versions this server looked at, and the labels that name them."""

    name: str
    versions: Mapping[int, VersionEntry]
    labels: Mapping[str, int]

    @property
    def default_version(self) -> int | None:
        """The version that answers a request that names none: `stable`, or the newest that can answer."""
        ready = [number for number, entry in self.versions.items() if entry.loaded]
        return choose_version(ready or list(self.versions), self.labels)

    @property
    def ready(self) -> bool:
        """Whether a request that names no version is answered."""
        entry = self.versions.get(self.default_version or 0)
        return entry is not None and entry.loaded is not None

    def labels_of(self, version: int) -> list[str]:
        """Labels that name a version, in order."""
        return sorted(label for label, labelled in self.labels.items() if labelled == version)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Everything the server holds at one instant. It never changes; a new one takes its place."""

    models: Mapping[str, ModelEntry]
    default_model: str | None

    @property
    def ready(self) -> bool:
        """Whether there is a model, and every model answers."""
        return bool(self.models) and all(model.ready for model in self.models.values())

    def resolve(self, name: str, choice: Choice) -> LoadedVersion:
        """Find the version that answers.

        Raises:
            InvalidRequestError: no model is named, and none is the default.
            UnknownModelError: no such model, version or label.
            NotReadyError: it is known but cannot answer.
        """
        model, entry = self.find(name, choice)
        if entry.loaded is None:
            raise NotReadyError(f"{model.name}/{entry.version} cannot answer: {entry.reason}")
        return entry.loaded

    def find(self, name: str, choice: Choice) -> tuple[ModelEntry, VersionEntry]:
        """Find a version, whether it can answer or not.

        Raises:
            InvalidRequestError: no model is named, and none is the default.
            UnknownModelError: no such model, version or label.
        """
        model = self.model(name)
        return model, _entry(model, choice)

    def model(self, name: str) -> ModelEntry:
        """Find a model by name, or the default one for an empty name."""
        wanted = name or self.default_model
        if wanted is None:
            raise InvalidRequestError("model", f"name one: no model is the default; there are {_list(self.models)}")
        try:
            return self.models[wanted]
        except KeyError:
            raise UnknownModelError(f"no model {wanted!r}: there are {_list(self.models)}") from None


class Models:
    """The current catalogue. Readers take `catalogue` once and work with it; loading replaces it whole."""

    def __init__(
        self, repository: Repository, options: EngineOptions, *, latest: int, default_model: str | None
    ) -> None:
        self._repository = repository
        self._options = options
        self._latest = latest
        self._default_model = default_model
        self.catalogue = Catalogue({}, default_model)

    def load(self) -> None:
        """Load what the repository holds: of each model the labelled versions and the latest ones.

        A version that cannot be served is kept with its reason.

        Raises:
            DeviceError: the device that was asked for cannot be had, which no version can mend.
        """
        models = {name: self._load_model(name) for name in self._repository.names()}
        self.catalogue = Catalogue(models, choose_default_model(list(models), self._default_model))

    def _load_model(self, name: str) -> ModelEntry:
        try:
            labels = self._repository.labels(name)
        except CorruptLabelsError as error:
            log.error("labels are unreadable; the newest version answers", model=name, error=str(error))
            labels = {}
        wanted = choose_versions(self._repository.versions(name), labels, self._latest)
        return ModelEntry(name, {number: self._load_version(name, number) for number in wanted}, labels)

    def _load_version(self, name: str, number: int) -> VersionEntry:
        try:
            loaded = load_version(self._repository, name, number, self._options)
        except DeviceError:
            raise
        except (VerificationError, EngineError, OSError) as error:
            log.error("version cannot be served", model=name, version=number, reason=str(error))
            return VersionEntry(number, None, str(error))
        log.info("version loaded", model=name, version=number, device=loaded.engine.device, sha256=loaded.sha256)
        return VersionEntry(number, loaded)


def choose_versions(versions: list[int], labels: Mapping[str, int], latest: int) -> list[int]:
    """Choose what to load: labelled versions, whether there or not, and the `latest` newest (0: all), ascending."""
    newest = versions[-latest:] if latest else versions
    return sorted({*newest, *labels.values()})


def choose_default_model(names: list[str], configured: str | None) -> str | None:
    """Choose the model for requests that name none: the configured one, or the only one there is."""
    if configured is not None:
        return configured
    return names[0] if len(names) == 1 else None


def load_version(repository: Repository, name: str, number: int, options: EngineOptions) -> LoadedVersion:
    """Read a version, make its session, prove that it answers right on this device, and warm it.

    Raises:
        OSError: the file cannot be read.
        EngineError: ONNX Runtime cannot load it, or not on the device asked for.
        VerificationError: its metadata is wrong, or a golden vector came out wrong.
    """
    model = repository.model_path(name, number).read_bytes()
    engine = Engine(model, options)
    loaded = LoadedVersion(
        name=name,
        version=number,
        engine=engine,
        artefact=_read_artefact(engine),
        sha256=hashlib.sha256(model).hexdigest(),
        size_bytes=len(model),
    )
    verify(loaded)
    warm(loaded)
    return loaded


def verify(loaded: LoadedVersion) -> None:
    """Let a version answer its golden vectors. A plain ONNX file has none, and nothing is proved of it.

    Raises:
        VerificationError: an answer lies outside the tolerance the file states, or the graph does not take the rows.
    """
    if loaded.artefact is None:
        return
    golden = loaded.artefact.golden
    try:
        answers = loaded.engine.run([np.array(golden.inputs, dtype=np.float32)])[0]
    except Exception as error:  # whatever ONNX Runtime raises: the file's graph and its metadata do not agree
        raise VerificationError(f"its golden vectors cannot be run: {error}") from error
    if mismatch := golden.mismatch(answers.ravel().tolist()):
        raise VerificationError(mismatch)


def warm(loaded: LoadedVersion) -> None:
    """Run batches of several sizes and forget the answers. Only for inputs whose rows are known to be free."""
    if loaded.artefact is None:
        return
    row = np.array(loaded.artefact.golden.inputs[:1], dtype=np.float32)
    for rows in WARM_BATCHES:
        loaded.engine.run([np.repeat(row, rows, axis=0)])


def _read_artefact(engine: Engine) -> Artefact | None:
    try:
        return from_metadata(engine.metadata)
    except NotAnArtefactError:
        return None
    except ArtefactError as error:
        raise VerificationError(str(error)) from error


def _entry(model: ModelEntry, choice: Choice) -> VersionEntry:
    if isinstance(choice, str):
        if choice not in model.labels:
            raise UnknownModelError(f"no label {choice!r} on {model.name!r}: there are {_list(model.labels)}")
        number: int | None = model.labels[choice]
    else:
        number = model.default_version if choice is None else choice
    if number is None:
        raise UnknownModelError(f"no version of {model.name!r} is labelled 'stable': there are {_list(model.labels)}")
    try:
        return model.versions[number]
    except KeyError:
        raise UnknownModelError(f"no version {number} of {model.name!r}: there are {_list(model.versions)}") from None


def _list(things: Mapping[str, object] | Mapping[int, object]) -> str:
    return ", ".join(str(thing) for thing in sorted(things, key=str)) or "none"


def _one_float(specs: tuple[TensorSpec, ...]) -> bool:
    return len(specs) == 1 and specs[0].dtype is np.float32 and specs[0].shape == (None, 1)


def _domain(artefact: Artefact) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    low = np.array([column.minimum for column in artefact.columns], dtype=np.float32)
    high = np.array([column.maximum for column in artefact.columns], dtype=np.float32)
    return low, high
