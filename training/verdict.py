"""What came of a retraining: every figure and every reason, as a value that is written as JSON and as a page."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from proto.artefact import Interval
from proto.repository import VERDICT_FILES
from training.challengers import Figures, Recipe
from training.gate import Bounds, Check, GroupErrors, SourceErrors
from training.observed import Observed, Rules, SourceCounts
from training.telemetry import Verdict as Word

SCHEMA_VERSION: Final = 1
JSON_FILE, PAGE_FILE = VERDICT_FILES


ACCEPTED: Final = 0
"""Exit code: a challenger was accepted and published; or, with `--if-drift`, there was nothing to do."""
FAILED: Final = 1
"""Exit code: no verdict was reached, and stderr says why. Nothing was published."""
MISUSED: Final = 2
"""Exit code: the command line makes no sense."""
REJECTED: Final = 3
"""Exit code: the challenger did not pass the gate. Nothing was published."""
NOT_ENOUGH_DATA: Final = 4
"""Exit code: too few observations, or from too few sources, to judge by. Nothing was fitted."""
BUSY: Final = 5
"""Exit code: another job retrains this model just now. Nothing was done."""

EXIT_CODES: Final[Mapping[Word, int]] = {
    "accepted": ACCEPTED,
    "rejected": REJECTED,
    "not_enough_data": NOT_ENOUGH_DATA,
    "failed": FAILED,
}


@dataclass(frozen=True, slots=True)
class PartFigures:
    """A part of the observations that were used: how many rows, from when to when (Unix times), by which sources."""

    rows: int
    since_seconds: float | None
    until_seconds: float | None
    sources: tuple[str, ...]

    @classmethod
    def of(cls, part: Observed) -> "PartFigures":
        """Of one part."""
        if not len(part):
            return cls(0, None, None, ())
        sources = tuple(sorted(set(part.source.tolist())))
        return cls(len(part), float(part.seconds[0]), float(part.seconds[-1]), sources)


@dataclass(frozen=True, slots=True)
class ObservationFigures:
    """The observations read, and what became of them."""

    read: int
    used: int
    since_seconds: float
    by_source: Mapping[str, SourceCounts]
    parts: Mapping[str, PartFigures]


@dataclass(frozen=True, slots=True)
class ChampionFigures:
    """The version that answered by default when this was judged."""

    version: int
    kind: str
    sha256: str
    observed_until_seconds: float | None


@dataclass(frozen=True, slots=True)
class ChallengerFigures:
    """The fit that was judged, and its file."""

    fit: Figures
    sha256: str
    size_bytes: int
    parameter_count: int
    epochs: int
    training_loss: float
    """Mean squared error in °C² over the rows it was fitted to."""
    validation_loss: float
    observed_until_seconds: float | None
    interval: Interval | None
    parity_max_difference_celsius: float


@dataclass(frozen=True, slots=True)
class EndedTrial:
    """A version whose trial nothing had decided for too long, so that its label was taken away before this round."""

    version: int
    since_seconds: float
    """When it was labelled, in Unix time, as far as is known."""
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """All of it. What a verdict did not come to is empty or None. The version is not in it: the file lies beside it."""

    name: str
    outcome: Word
    reasons: tuple[str, ...]
    made_at_seconds: float
    label: str | None
    """The label that an accepted challenger is given beside what a first version gets by itself."""
    base_data: str | None
    observations: ObservationFigures
    champion: ChampionFigures | None
    rules: Rules
    bounds: Bounds
    recipe: Recipe
    challenger: ChallengerFigures | None = None
    candidates: tuple[Figures, ...] = ()
    checks: tuple[Check, ...] = ()
    errors_by_source: tuple[SourceErrors, ...] = ()
    errors_over_time: tuple[GroupErrors, ...] = ()
    ended_trial: EndedTrial | None = None

    @property
    def exit_code(self) -> int:
        """With which the command ends."""
        return EXIT_CODES[self.outcome]


def as_json(verdict: Verdict) -> str:
    """A verdict as one JSON object; times are Unix times, errors are in °C."""
    content = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(verdict)}
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def summary(verdict: Verdict) -> list[str]:
    """A verdict in a few lines."""
    observations = verdict.observations
    sources = sum(counts.used > 0 for counts in observations.by_source.values())
    lines = [
        f"{verdict.name}: {verdict.outcome.replace('_', ' ')}",
        f"  observations   {observations.read} read, {observations.used} used, from {sources} sources",
    ]
    if verdict.ended_trial is not None:
        lines.append(f"  ended          {verdict.ended_trial.reason}")
    if verdict.challenger is not None:
        fit = verdict.challenger.fit
        lines.append(
            f"  challenger     {fit.kind}, seed {fit.seed}, fitted to {fit.training_rows} rows "
            f"(newest {fit.recent:g} of the observations), best of {len(verdict.candidates)}"
        )
    if verdict.champion is not None:
        lines.append(f"  champion       version {verdict.champion.version}, {verdict.champion.kind}")
    lines += [
        f"  {'passed' if check.passed else 'FAILED'}         {check.name}: {check.found}" for check in verdict.checks
    ]
    return lines + [f"  because        {reason}" for reason in verdict.reasons]
