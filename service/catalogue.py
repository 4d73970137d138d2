"""What the server holds at one instant, as a value that never changes: models, versions, labels, and who answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from proto.labels import NO_MOVES, StableMoves
from proto.model_config import ModelConfig
from proto.repository import CANARY, STABLE, choose_version
from proto.traffic import NO_TRAFFIC, CanaryTraffic
from service.errors import InvalidRequestError, NotReadyError, UnknownModelError
from service.loading import LoadedVersion, Signature
from service.remembered import Remembered

Choice: TypeAlias = int | str | None
"""How a request names a version: by number, by label, or not at all."""


class VersionState(Enum):
    """Whether a version can answer; the values are the words people read."""

    READY = "ready"
    FAILED = "failed"
    """It could not be loaded; the reason stands beside."""
    UNLOADED = "unloaded"
    """It is in the repository, and nobody asked for it to be loaded."""


@dataclass(frozen=True, slots=True)
class FileChange:
    """A new state of a file, and since when it is known, in seconds of the monotonic clock."""

    signature: Signature | None
    since_seconds: float


@dataclass(frozen=True, slots=True)
class VersionEntry:
    """One version of the repository: loaded, or not, and then the reason why not."""

    version: int
    loaded: LoadedVersion | None
    reason: str = ""
    """Why it does not answer; of one that answers, what is wrong with its file by now."""
    wanted: bool = True
    """Whether it is to be loaded at all: see `VersionState.UNLOADED`."""
    signature: Signature | None = None
    """The state of the file when it was last read; None where there was none."""
    config: ModelConfig | None = None
    """What the operator said of the model by then; None where that could not be read."""
    change: FileChange | None = None
    """Another state of the file, which is not read yet since its writer may not be done."""

    @property
    def state(self) -> VersionState:
        """Whether it can answer."""
        if self.loaded is not None:
            return VersionState.READY
        return VersionState.FAILED if self.wanted else VersionState.UNLOADED


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """A canary in effect: both versions can answer, and they are two."""

    stable: LoadedVersion
    canary: LoadedVersion
    traffic: CanaryTraffic


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model: the versions this server looked at, and the labels that name them."""

    name: str
    versions: Mapping[int, VersionEntry]
    labels: Mapping[str, int]
    """The labels in effect. Where one was moved to a version that cannot answer, it still names the one before."""
    problem: str = ""
    """Why the labels are not known, where they are not: then nothing answers by default but what did before."""
    config_problem: str = ""
    """Why what the operator says of it is not known, where it is not: versions that are loaded keep what was said."""
    required: bool = True
    """Whether the server is ready only when this model is. False for one that came while the server ran and has not
    answered yet, and for one that was unloaded: neither may take a serving server out of service."""
    traffic: CanaryTraffic = NO_TRAFFIC
    """What the canary gets, where it can answer."""
    moves: StableMoves = NO_MOVES
    """How often `stable` was moved on disk."""

    @property
    def trial(self) -> Trial | None:
        """The canary in effect.

        There is none while one of the two versions cannot answer, both are one, or they differ in what they take or
        give: then no request that names no version could go to either.
        """
        if not self.traffic or STABLE not in self.labels or CANARY not in self.labels:
            return None
        stable, canary = self._loaded_as(STABLE), self._loaded_as(CANARY)
        if stable is None or canary is None or stable is canary:
            return None
        is_alike = (stable.engine.inputs, stable.engine.outputs) == (canary.engine.inputs, canary.engine.outputs)
        return Trial(stable, canary, self.traffic) if is_alike else None

    def _loaded_as(self, label: str) -> LoadedVersion | None:
        entry = self.versions.get(self.labels[label])
        return None if entry is None else entry.loaded

    @property
    def default_version(self) -> int | None:
        """The version that answers a request that names none: `stable`, or the newest that can answer."""
        if self.problem and not self.labels:
            return None
        ready = [number for number, entry in self.versions.items() if entry.loaded]
        return choose_version(ready or list(self.versions), self.labels)

    @property
    def ready(self) -> bool:
        """Whether a request that names no version is answered."""
        entry = self.versions.get(self.default_version or 0)
        return entry is not None and entry.loaded is not None

    @property
    def wanted(self) -> bool:
        """Whether it is to be loaded at all."""
        return any(entry.wanted for entry in self.versions.values())

    @property
    def loaded(self) -> list[LoadedVersion]:
        """The versions that can answer, ascending."""
        return [entry.loaded for _, entry in sorted(self.versions.items()) if entry.loaded is not None]

    def labels_of(self, version: int) -> list[str]:
        """Labels that name a version, in order."""
        return sorted(label for label, labelled in self.labels.items() if labelled == version)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Everything the server holds at one instant. It never changes; a new one takes its place."""

    models: Mapping[str, ModelEntry]
    default_model: str | None
    may_be_empty: bool = False
    """Whether a server that holds nothing is ready all the same: one that is told by its API what to load."""
    trials: Mapping[LoadedVersion, Trial] = field(init=False, repr=False, compare=False)
    """The canaries in effect, by the stable version whose requests they get."""
    _resolved: Remembered[tuple[str, Choice], LoadedVersion] = field(
        default_factory=Remembered, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        """Find the canaries once, so that no request has to."""
        trials = (model.trial for model in self.models.values())
        object.__setattr__(self, "trials", {trial.stable: trial for trial in trials if trial is not None})

    @property
    def ready(self) -> bool:
        """Whether every model answers that must, the default one among them, and there is one."""
        required = [model for model in self.models.values() if model.required]
        if not all(model.ready for model in required):
            return False
        return self.may_be_empty or (bool(required) and self.default_model in {None, *self.models})

    def resolve(self, name: str, choice: Choice) -> LoadedVersion:
        """Find the version that answers.

        Raises:
            InvalidRequestError: no model is named, and none is the default.
            UnknownModelError: no such model, version or label.
            NotReadyError: it is known but cannot answer.
        """
        known = self._resolved.get((name, choice))
        if known is not None:
            return known
        model, entry = self.find(name, choice)
        if entry.loaded is None:
            raise NotReadyError(f"{model.name}/{entry.version} cannot answer: {entry.reason}")
        self._resolved.put((name, choice), entry.loaded)
        return entry.loaded

    def find(self, name: str, choice: Choice) -> tuple[ModelEntry, VersionEntry]:
        """Find a version, whether it can answer or not.

        Raises:
            InvalidRequestError: no model is named, and none is the default.
            UnknownModelError: no such model, version or label.
            NotReadyError: the model's labels are not known, and the request needs them.
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

    def answering(self) -> set[str]:
        """What a request can name and is answered: models, their versions and labels, each as `name_of` writes it."""
        return {
            name_of(name, choice)
            for name, model in self.models.items()
            for choice in (None, *model.versions, *model.labels)
            if _answers(model, choice)
        }

    def holds(self, version: LoadedVersion) -> bool:
        """Whether this very version can be asked for, and was not replaced or unloaded."""
        model = self.models.get(version.name)
        entry = model and model.versions.get(version.version)
        return entry is not None and entry.loaded is version


def name_of(model: str, choice: Choice) -> str:
    """Write what a request names: `linear`, `linear/3`, `linear/stable`."""
    return model if choice is None else f"{model}/{choice}"


def _answers(model: ModelEntry, choice: Choice) -> bool:
    try:
        return _entry(model, choice).loaded is not None
    except (UnknownModelError, NotReadyError):
        return False


def _entry(model: ModelEntry, choice: Choice) -> VersionEntry:
    number = _labelled(model, choice) if isinstance(choice, str) else _default(model) if choice is None else choice
    try:
        return model.versions[number]
    except KeyError:
        raise UnknownModelError(f"no version {number} of {model.name!r}: there are {_list(model.versions)}") from None


def _labelled(model: ModelEntry, label: str) -> int:
    if label in model.labels:
        return model.labels[label]
    _need_labels(model)
    raise UnknownModelError(f"no label {label!r} on {model.name!r}: there are {_list(model.labels)}")


def _default(model: ModelEntry) -> int:
    number = model.default_version
    if number is not None:
        return number
    _need_labels(model)
    raise UnknownModelError(f"no version of {model.name!r} is labelled 'stable': there are {_list(model.labels)}")


def _need_labels(model: ModelEntry) -> None:
    if model.problem:
        raise NotReadyError(f"the labels of {model.name!r} are not known: {model.problem}")


def _list(things: Mapping[str, object] | Mapping[int, object]) -> str:
    return ", ".join(str(thing) for thing in sorted(things, key=str)) or "none"
