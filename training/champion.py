"""The version that answers by default now: read once, run through ONNX Runtime as a server runs it."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from proto.artefact import Artefact
from proto.repository import STABLE, Repository, choose_version
from training.dataset import FAHRENHEIT
from training.errors import ChampionError, TrainingError
from training.parity import Engine
from training.publish import read_artefact


@dataclass(frozen=True, slots=True, eq=False)
class Champion:
    """A published version, ready to answer."""

    version: int
    sha256: str
    artefact: Artefact
    engine: Engine

    def answer(self, fahrenheit: NDArray[np.float64]) -> NDArray[np.float32]:
        """Answers in °C [N] to readings [N]."""
        return answer(self.engine, fahrenheit)


def answer(engine: Engine, fahrenheit: NDArray[np.float64]) -> NDArray[np.float32]:
    """Answers in °C [N] of a converter of one column to readings [N]."""
    return engine.answer(fahrenheit.astype(np.float32)[:, None])


def current_version(repository: Repository, name: str) -> int | None:
    """The version that answers a request that names none; None for a model that has no version.

    Raises:
        ChampionError: there are versions, and none of them answers by default.
        RepositoryError: the name is not one, or its labels cannot be read.
    """
    versions = repository.versions(name)
    chosen = choose_version(versions, repository.labels(name))
    if versions and chosen is None:
        raise ChampionError(f"{name!r} has versions {versions}, but none is labelled {STABLE!r}: there is no champion")
    return chosen


def read_champion(repository: Repository, name: str) -> Champion | None:
    """Read the version that answers now; None for a model that has no version.

    Raises:
        ChampionError: it cannot be read or run, or its metadata does not say what it was trained on.
        RepositoryError: as `current_version`.
    """
    version = current_version(repository, name)
    if version is None:
        return None
    try:
        model = repository.model_path(name, version).read_bytes()
        artefact = read_artefact(model)
        engine = Engine(model)
    except (OSError, TrainingError) as error:
        raise ChampionError(f"the champion, {name}/{version}, cannot be judged against: {error}") from error
    if artefact is None or [column.name for column in artefact.columns] != [FAHRENHEIT]:
        raise ChampionError(f"the champion, {name}/{version}, is no converter of one column in °F")
    return Champion(version, hashlib.sha256(model).hexdigest(), artefact, engine)
