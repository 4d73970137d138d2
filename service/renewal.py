"""What becomes of one version when its file is looked at: it stays, is loaded, is loaded anew, or fails."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import structlog

from proto.model_config import ModelConfig
from proto.repository import Repository
from service.catalogue import FileChange, VersionEntry
from service.engine import DeviceError, EngineError, EngineOptions
from service.loading import LoadedVersion, ModelFile, Signature, VerificationError, load_model, read_model
from service.scan import OnDisk

log = structlog.get_logger(__name__)

SETTLE_SECONDS: Final = 1.0
"""A file that changed in place is read again once it has been unchanged for so long: its writer may not be done."""

GONE: Final = "its file is gone from the repository; it is served from memory"


@dataclass(slots=True)
class LoadRecord:
    """What is counted of a model's loads, for the metrics."""

    failures: int = 0
    """Attempts to load a version that failed, since the server started."""
    last_load_timestamp_seconds: float | None = None
    """When a version of it was last loaded, in Unix time."""


class Renewal:
    """Loads versions and counts how that went. One thread at a time.

    Guarantees: a version that is loaded stays, whatever becomes of its file, until another content proved itself. Only
    before `serving` is set does it raise, and only for a device that cannot be had.
    """

    def __init__(self, repository: Repository, options: EngineOptions, clock: Callable[[], float]) -> None:
        self._repository = repository
        self._options = options
        self._clock = clock
        self._records: dict[str, LoadRecord] = {}
        self.serving = False

    def records(self) -> Mapping[str, LoadRecord]:
        """What is counted of each model's loads. Any thread may ask."""
        return {name: replace(record) for name, record in self._records.copy().items()}

    def forget(self, name: str) -> None:
        """Learn that a model is gone."""
        self._records.pop(name, None)

    def renew(self, name: str, number: int, held: VersionEntry | None, disk: OnDisk, *, patient: bool) -> VersionEntry:
        """Say what a version is now.

        With `patient`, a version that failed is tried again only when its file or its model's configuration changed,
        and a file that changed is read only when it has settled.
        """
        signature = disk.versions.get(number)
        if held is None:
            return self._load(name, VersionEntry(number, None, signature=signature), disk)
        if held.signature != signature:
            if held.loaded is not None and signature is None:
                return replace(held, reason=GONE, signature=None, change=None)
            if patient and not self._settled(held.change, signature):
                return held if held.change and held.change.signature == signature else self._changing(held, signature)
        elif held.config == disk.config and (held.loaded is not None or patient):
            return held if held.change is None else replace(held, change=None)
        return self._load(name, replace(held, signature=signature), disk)

    def _settled(self, change: FileChange | None, signature: Signature | None) -> bool:
        if change is None or change.signature != signature:
            return False
        return self._clock() - change.since_seconds >= SETTLE_SECONDS

    def _changing(self, held: VersionEntry, signature: Signature | None) -> VersionEntry:
        return replace(held, change=FileChange(signature, self._clock()))

    def _load(self, name: str, held: VersionEntry, disk: OnDisk) -> VersionEntry:
        """Read a version, and load it where it is another than is held, or is told to be served otherwise."""
        held = replace(held, reason="", config=disk.config, change=None)
        try:
            file = read_model(self._repository.model_path(name, held.version))
            held = replace(held, signature=file.signature)
            if held.loaded is not None and _is_same(held.loaded, file, disk.config):
                return held
            loaded = load_model(name, held.version, file, self._options, _config(disk))
        except Exception as error:  # one version's fault, of whatever kind, must not keep the others from changing
            if isinstance(error, DeviceError) and not self.serving:
                raise
            return self._failed(name, replace(held, reason=_reason(error)), error)
        self._tell(held, loaded)
        self._record(name).last_load_timestamp_seconds = time.time()
        return replace(held, loaded=loaded)

    def _tell(self, held: VersionEntry, loaded: LoadedVersion) -> None:
        if held.loaded is not None and held.loaded.sha256 != loaded.sha256:
            log.warning("a published file was changed; its new content is served", model=loaded.name,
                        version=loaded.version)  # fmt: skip
        log.info("version loaded", model=loaded.name, version=loaded.version, device=loaded.engine.device,
                 sha256=loaded.sha256)  # fmt: skip

    def _failed(self, name: str, entry: VersionEntry, error: Exception) -> VersionEntry:
        expected = isinstance(error, (VerificationError, EngineError, OSError))
        log.error(
            "version cannot be served" if entry.loaded is None else "version cannot be reloaded; the one before stays",
            model=name,
            version=entry.version,
            reason=entry.reason,
            exc_info=None if expected else error,
        )
        self._record(name).failures += 1
        return entry

    def _record(self, name: str) -> LoadRecord:
        return self._records.setdefault(name, LoadRecord())


def _config(disk: OnDisk) -> ModelConfig:
    if disk.config is None:
        raise VerificationError(disk.config_problem)
    return disk.config


def _is_same(loaded: LoadedVersion, file: ModelFile, config: ModelConfig | None) -> bool:
    """Whether a file is what is loaded. A configuration that cannot be read changes nothing."""
    return loaded.sha256 == file.sha256 and config in {None, loaded.config}


def _reason(error: Exception) -> str:
    """What callers may know: never a path of this machine, nor the text of a fault."""
    if isinstance(error, OSError):
        return f"its file cannot be read: {error.strerror}"
    if isinstance(error, (VerificationError, EngineError)):
        return str(error)
    return f"a fault of the server, {type(error).__name__}; its log tells more"
