"""The versions in memory: which are loaded, when one takes another's place, and when one goes.

The catalogue is a function of the one before and of what the repository holds; every change makes a new one and puts it
in place with one assignment, between two runs. Whoever took the old one works on with it; what only it held is freed
when the last of them is done.
"""

import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Final

import structlog

from proto.repository import CANARY, Repository
from service.catalogue import Catalogue, Choice, ModelEntry, VersionEntry, VersionState
from service.engine import EngineOptions
from service.loading import LoadedVersion, Signature, VerificationError, load_version
from service.renewal import SETTLE_SECONDS, LoadRecord, Renewal
from service.retired import Retired
from service.scan import OnDisk, scan, scan_model
from service.version_policy import VersionPolicy

__all__ = [
    "Catalogue",
    "Choice",
    "LoadedVersion",
    "ModelEntry",
    "Models",
    "VerificationError",
    "VersionEntry",
    "VersionPolicy",
    "VersionState",
    "load_version",
]

log = structlog.get_logger(__name__)

ALL_MODELS: Final = "*"
"""Stands for every model that the repository holds at the start."""


class Models:
    """Keeps the catalogue true to the repository. Readers take `catalogue` once and work with it.

    Guarantees: a version is in the catalogue only after it proved itself in this process; one that fails to load, or
    whose file is half there, takes the place of none that answers; and a label that was moved to it stays in effect
    where it was. Methods may be called by any thread; one change happens at a time. `explicit` names the models to
    load at first (`*`: all), where others are left alone until `load_model`; None loads and follows all.
    """

    def __init__(
        self,
        repository: Repository,
        options: EngineOptions,
        *,
        policy: VersionPolicy | None = None,
        default_model: str | None = None,
        explicit: Collection[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._repository = repository
        self._renewal = Renewal(repository, options, clock)
        self._policy = policy or VersionPolicy()
        self._default_model = default_model
        self._explicit = None if explicit is None else set(explicit)
        self._turn = threading.Lock()
        self._listeners: list[Callable[[], None]] = []
        self.catalogue = Catalogue({}, default_model, may_be_empty=explicit is not None)

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Have a function called after every change of the catalogue, on the thread that changed it."""
        self._listeners.append(listener)

    def load_records(self) -> Mapping[str, LoadRecord]:
        """What is counted of the loads of each model there is."""
        return self._renewal.records()

    # Changes ----------------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Load what the repository holds, before anything is served. A version that cannot be is kept with its reason.

        Raises:
            DeviceError: the device that was asked for cannot be had, which no version can mend.
        """
        if self._explicit is not None and ALL_MODELS in self._explicit:
            self._explicit = set(self._repository.names())
        self.refresh()
        self._renewal.serving = True

    def refresh(self) -> float | None:
        """Look at the repository, and follow what changed.

        Returns the seconds after which to look again at a file that may still be written, or None.
        """
        with self._turn:
            try:
                found = scan(self._repository)
            except OSError as error:
                if self.catalogue.models:
                    log.error("the repository cannot be looked at; what is loaded stays", reason=str(error))
                return None
            for name in self.catalogue.models.keys() - found.keys():
                if not self._told_to_hold(name):
                    self._forget(name)
            for name, disk in found.items():
                if disk is not None and not (self._renewal.serving and self._told_to_hold(name)):
                    self._follow(name, disk, patient=True)
            return SETTLE_SECONDS if self._is_changing() else None

    def load_model(self, name: str) -> ModelEntry | None:
        """Load a model, or follow what changed of it; versions that failed are tried again. None where there is none.

        What is loaded already, and did not change, stays as it is.

        Raises:
            OSError: what the repository holds of it cannot be looked at now; what is loaded stays.
        """
        with self._turn:
            disk = scan_model(self._repository, name)
            if disk.versions:
                if self._explicit is not None:
                    self._explicit.add(name)
                self._follow(name, disk, patient=False)
            return self.catalogue.models.get(name)

    def unload_model(self, name: str) -> Retired:
        """Let a model answer no more calls until it is loaded again, and return what was loaded of it."""
        with self._turn:
            if self._explicit is not None:
                self._explicit.discard(name)
            held = self.catalogue.models.get(name)
            if held is None:
                return Retired([])
            entries = {number: _unloaded(number, entry.signature) for number, entry in held.versions.items()}
            self._put(ModelEntry(name, entries, held.labels, held.problem, required=False))
            return Retired(held.loaded)

    def _told_to_hold(self, name: str) -> bool:
        return self._explicit is not None and name in self._explicit

    def _follow(self, name: str, disk: OnDisk, *, patient: bool) -> None:
        """Make a model's entry anew, and put it in place where it is another."""
        held = self.catalogue.models.get(name)
        if self._explicit is None or name in self._explicit:
            look = _Look(self._renewal, name, disk, held, patient=patient)
            entry = _next_entry(look, self._policy, first=not self._renewal.serving)
        else:
            entries = {number: _unloaded(number, signature) for number, signature in disk.versions.items()}
            entry = ModelEntry(name, entries, disk.labels, disk.problem, required=False)
        if entry != held:
            _tell_problems(entry, held)
            _tell_moves(entry, held)
            self._put(entry)

    def _is_changing(self) -> bool:
        models = self.catalogue.models.values()
        return any(entry.change is not None for model in models for entry in model.versions.values())

    # The catalogue ----------------------------------------------------------------------------------------------------

    def _put(self, entry: ModelEntry) -> None:
        self._replace({**self.catalogue.models, entry.name: entry})

    def _forget(self, name: str) -> None:
        log.info("model gone", model=name)
        self._renewal.forget(name)
        self._replace({known: model for known, model in self.catalogue.models.items() if known != name})

    def _replace(self, models: Mapping[str, ModelEntry]) -> None:
        before = self.catalogue
        kept = before.default_model if self._renewal.serving and before.default_model in models else None
        wanted = [model.name for model in models.values() if model.wanted]
        default = choose_default_model(wanted, self._default_model, kept)
        self.catalogue = Catalogue(models, default, before.may_be_empty)
        for version in (version for model in before.models.values() for version in model.loaded):
            if not self.catalogue.holds(version):
                log.info("version retired", model=version.name, version=version.version)
        if self._renewal.serving and _is_crowded(before, self.catalogue, self._default_model):
            log.warning(
                "another model came beside the default one; set default_model, or after a restart none is",
                default_model=default,
                models=sorted(models),
            )
        for listener in self._listeners:
            listener()


class _Look:
    """One look at a model: each of its versions is renewed at most once, when it is first asked about."""

    def __init__(self, renewal: Renewal, name: str, disk: OnDisk, held: ModelEntry | None, *, patient: bool) -> None:
        self.name = name
        self.disk = disk
        self.held = held
        self._renewal = renewal
        self._patient = patient
        self._entries: dict[int, VersionEntry] = {}

    def entry(self, number: int) -> VersionEntry:
        """What a version is now; it is loaded, where it has to be."""
        if number not in self._entries:
            held = self.held.versions.get(number) if self.held else None
            self._entries[number] = self._renewal.renew(
                self.name,
                number,
                held if held is not None and held.wanted else None,
                self.disk,
                patient=self._patient,
            )
        return self._entries[number]

    def works(self, number: int) -> bool:
        """Whether a version can answer."""
        return self.entry(number).loaded is not None


def _next_entry(look: _Look, policy: VersionPolicy, *, first: bool) -> ModelEntry:
    """What a model is now: the versions that the policy chooses, and those that a label names or still means."""
    disk, held = look.disk, look.held
    chosen = policy.choose(disk.versions, look.works)
    labels = effective_labels(disk, {} if held is None else held.labels, look.works)
    wanted = sorted({*chosen, *disk.labels.values(), *labels.values()})
    entry = ModelEntry(
        look.name, {number: look.entry(number) for number in wanted}, labels, disk.problem, disk.config_problem
    )
    kept = held if disk.problem and held is not None else None
    return replace(
        entry,
        required=first or entry.ready or (held is not None and held.required),
        traffic=kept.traffic if kept else disk.file.traffic,
        moves=kept.moves if kept else disk.file.moves,
    )


def _tell_problems(entry: ModelEntry, held: ModelEntry | None) -> None:
    """Log what is wrong with a model's files, once."""
    if entry.problem and (held is None or entry.problem != held.problem):
        log.error("labels cannot be read; those in effect stay", model=entry.name, reason=entry.problem)
    if entry.config_problem and (held is None or entry.config_problem != held.config_problem):
        log.error(
            "the configuration cannot be read; what is loaded stays", model=entry.name, reason=entry.config_problem
        )


def _tell_moves(entry: ModelEntry, held: ModelEntry | None) -> None:
    """Log that another version answers by default, and that the canary gets other traffic."""
    if held is not None and held.default_version is not None and entry.default_version != held.default_version:
        log.info("stable moved", model=entry.name, version=entry.default_version, before=held.default_version)
    if held is None and not entry.traffic:
        return
    if held is None or entry.traffic != held.traffic or entry.labels.get(CANARY) != held.labels.get(CANARY):
        log.info("canary traffic", model=entry.name, version=entry.labels.get(CANARY), share=entry.traffic.share,
                 shadow=entry.traffic.shadow)  # fmt: skip


def effective_labels(disk: OnDisk, held: Mapping[str, int], works: Callable[[int], bool]) -> dict[str, int]:
    """The labels in effect: as they stand on disk, but none moves from a version that works to one that does not.

    Where those on disk cannot be read, those that were in effect stay.
    """
    if disk.problem:
        return dict(held)
    return {
        label: held[label] if label in held and not works(target) and works(held[label]) else target
        for label, target in disk.labels.items()
    }


def choose_default_model(names: list[str], configured: str | None, kept: str | None = None) -> str | None:
    """Choose the model for requests that name none: the configured one, `kept`, or the only one there is.

    `kept` is what was chosen before: a model that comes beside it must not make requests fail that name none.
    """
    return configured or kept or (names[0] if len(names) == 1 else None)


def _is_crowded(before: Catalogue, after: Catalogue, configured: str | None) -> bool:
    """Whether a model came beside one that is the default only because it was alone."""
    return configured is None and after.default_model is not None and len(before.models) == 1 < len(after.models)


def _unloaded(number: int, signature: Signature | None) -> VersionEntry:
    return VersionEntry(number, None, "it is not loaded", wanted=False, signature=signature)
