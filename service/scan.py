"""What a repository holds now, as far as it shows without reading a model: versions, the states of files, labels."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import structlog

from proto.labels import Labels
from proto.model_config import ModelConfig, ModelConfigError, read_config
from proto.repository import CorruptLabelsError, Repository
from service.loading import DEFAULT_CONFIG, Signature, signature_of

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class OnDisk:
    """One model's directory at one instant."""

    versions: Mapping[int, Signature]
    file: Labels
    """What its file of labels says; nothing where that cannot be read."""
    problem: str = ""
    """Why the labels are not known, where they are not."""
    config: ModelConfig | None = DEFAULT_CONFIG
    """What the operator says of the model; None where that cannot be read."""
    config_problem: str = ""
    """Why not."""

    @property
    def labels(self) -> Mapping[str, int]:
        """Label → version."""
        return self.file.current


def scan(repository: Repository) -> dict[str, OnDisk | None]:
    """Look at every model: None for one that cannot be looked at now, of which nothing is known then.

    Raises:
        OSError: the repository itself cannot be looked at, or is not there.
    """
    found = {name: _scanned(repository, name) for name in repository.directories()}
    return {name: disk for name, disk in found.items() if disk is None or disk.versions}


def _scanned(repository: Repository, name: str) -> OnDisk | None:
    try:
        return scan_model(repository, name)
    except OSError as error:
        log.error("model cannot be looked at; what is loaded stays", model=name, reason=error.strerror)
        return None


def scan_model(repository: Repository, name: str) -> OnDisk:
    """Look at one model. One without versions is as good as not there.

    Raises:
        OSError: it cannot be looked at now.
    """
    signatures = {number: signature_of(repository.model_path(name, number)) for number in repository.versions(name)}
    versions = {number: signature for number, signature in signatures.items() if signature is not None}
    return _with_config(OnDisk(versions, *_labels(repository, name)), repository, name)


def _labels(repository: Repository, name: str) -> tuple[Labels, str]:
    try:
        return repository.label_history(name), ""
    except CorruptLabelsError as error:
        return Labels(), str(error)


def _with_config(disk: OnDisk, repository: Repository, name: str) -> OnDisk:
    try:
        return replace(disk, config=read_config(repository.root / name))
    except ModelConfigError as error:
        return replace(disk, config=None, config_problem=str(error))
