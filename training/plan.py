"""What a round of retraining is asked to do, and what came of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from proto.repository import Repository, check_name
from training.challengers import Recipe
from training.dataset import Dataset
from training.gate import Bounds
from training.observed import Rules
from training.verdict import Verdict

Deliver = Callable[[bytes, Mapping[str, bytes]], int]
"""Publishes a model file, with the files that are to stand beside it where that can be, and returns the version."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What a round is asked to do."""

    repository: Repository
    name: str
    observations: str
    """URL of the store."""
    base: Dataset | None
    """Readings that are fitted to beside all of the observations."""
    rules: Rules
    bounds: Bounds
    recipe: Recipe
    reports: Path
    label: str
    """Given to an accepted version, unless it is the first of its name, which becomes `stable`."""
    deliver: Deliver
    give_label: Callable[[str, int, str], None]
    """Lets a label name a version, where `deliver` published it, as long as the labels are in a state."""
    end_trial: Callable[[int, str], None]
    """Takes the label `canary` from a version there, as long as the labels are in a state."""

    @property
    def directory(self) -> Path:
        """Where the reports on this model go."""
        return self.reports / check_name(self.name)

    @property
    def lock_path(self) -> Path:
        """What a job on this model locks, in the repository: whoever retrains it, with whatever reports."""
        return self._in_repository("lock")

    @property
    def intent_path(self) -> Path:
        """Which label an accepted version is to get; it stands here from before it is published until it has it."""
        return self._in_repository("intent.json")

    def _in_repository(self, what: str) -> Path:
        return self.repository.root / _DIRECTORY / f"{check_name(self.name)}.{what}"


_DIRECTORY = ".retrain"
"""Hidden, so that neither a server nor whoever lists models takes it for one."""


@dataclass(frozen=True, slots=True)
class Round:
    """A verdict, and where it can be read: beside the version that it let in, or among the reports."""

    verdict: Verdict
    report: Path
    version: int | None = None
    remark: str | None = None
    """What could not be done after publishing."""
