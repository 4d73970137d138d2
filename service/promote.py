"""`quicksilver promote`: promotes a canary that proved better, and takes back a stable version that turned worse.

Both are decided on observations of true temperatures, by `service.promotion`. One look decides what can be decided; the
test may be looked at as often as one likes, by hand, from a schedule, or with `--watch`.

Exit codes: 0 promoted; 1 it could not be done; 2 the command line makes no sense; 3 the canary was rejected; 4 nothing
is decided yet, or there is no canary; 5 stable was rolled back. With `--watch` it goes on after each, and ends with 0
at SIGTERM or Ctrl-C.
"""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

import numpy as np

from proto import schedule
from proto.labels import Labels
from proto.observation import NoStoreError, ObservationError, StoreUrlError
from proto.repository import CANARY, STABLE, Repository, RepositoryError, UnknownModelError
from service.arguments import Parser
from service.config import Settings, variable
from service.device import Device
from service.prediction import predict_what_it_can
from service.promotion import Evidence, Rule, Trial, Verdict, wanted

if TYPE_CHECKING:
    from proto.observations import Columns, ObservationStore
    from service.loading import LoadedVersion
    from service.promotion import Errors

_MAX_EVIDENCE: Final = 700.0
"""The logarithm of a number that can still be written."""


class CommandError(Exception):
    """Two versions cannot be compared; the message says why."""


class Outcome(Enum):
    """What came of one look; the values are the words people read."""

    PROMOTED = "promoted"
    REJECTED = "rejected"
    WAITING = "not decided"
    ROLLED_BACK = "rolled back"


EXIT_CODES: Final = {Outcome.PROMOTED: 0, Outcome.REJECTED: 3, Outcome.WAITING: 4, Outcome.ROLLED_BACK: 5}
_FAILED: Final = 1
_MISUSED: Final = 2


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate against the version that it would replace."""

    candidate: int
    present: int
    role: str
    """What the candidate is: `canary`, or the version `before`."""
    since_seconds: float
    """From when on observations count, in Unix time."""
    evidence: Evidence


@dataclass(slots=True)
class Look:
    """What one look saw, and what came of it."""

    model: str
    outcome: Outcome = Outcome.WAITING
    comparisons: list[Comparison] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What else is to be said, and what was done, in words."""
    failures: list[str] = field(default_factory=list)
    """What could not be judged, and why, in words."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two versions, and from when on observations count for them, in Unix time: what a trial is about."""

    present: int
    candidate: int
    since_seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """A trial, up to the last observation that it has seen."""

    pair: _Pair
    trial: Trial
    last: int = 0
    """That one's number in the store; 0 for none."""
    last_id: str = ""


class Judge:
    """Looks at one model, again and again.

    It holds versions that it loaded, since they never change, and two trials, which are small however many observations
    they have seen; a look reads what is new since the last one. What a look changes in the repository it changes in one
    step, and only where `stable` and `canary` stand as the look found them. It may be killed at any time: whoever
    begins anew reads all, and comes to the same.
    """

    def __init__(self, repository: Repository, name: str, options: argparse.Namespace) -> None:
        self._repository = repository
        self._name = name
        self._device: Device = options.device
        self._rule: Rule = options.rule
        self._bound_celsius: float | None = options.error_bound
        self._since_seconds: float = options.since
        self._loaded: dict[int, LoadedVersion] = {}
        self._known: dict[str, _Known] = {}
        """By the role of the candidate."""

    def look(self, store: "ObservationStore") -> Look:
        """Decide what can be decided, and do it: first whether stable must go back, then whether a canary is better.

        What cannot be judged stands among the look's failures, and keeps nothing else from being judged.

        Raises:
            RepositoryError: there is no such model, or its labels were moved meanwhile: then nothing was done.
            ObservationError: the store cannot be read.
        """
        seen = Look(self._name)
        labels = self._repository.label_history(self._name)
        if STABLE not in labels.current:
            raise UnknownModelError(f"no version of {self._name!r} is labelled {STABLE!r}")
        try:
            self._judge_stable(seen, store, labels)
        except CommandError as error:
            seen.failures.append(f"{self._name}: stable cannot be judged, and is not rolled back: {error}")
        if seen.outcome is not Outcome.WAITING:
            return seen
        try:
            self._judge_canary(seen, store, labels)
        except CommandError as error:
            seen.failures.append(f"{self._name}: the canary cannot be judged, and is not promoted: {error}")
        return seen

    def _judge_stable(self, seen: Look, store: "ObservationStore", labels: Labels) -> None:
        """Roll back where the version before is better on what was observed since, or the error is above its bound."""
        stable, before = labels.current[STABLE], labels.before(STABLE, self._repository.versions(self._name))
        if before is None:
            if set(labels.previous.get(STABLE, ())) - {stable}:
                seen.notes.append(f"{self._name}: stable cannot be rolled back: the versions before it were removed")
            return
        since = self._since(stable, before, labels.moves.last_seconds)
        trial = self._read(store, "before", _Pair(stable, before, since))
        evidence = trial.evidence
        seen.comparisons.append(Comparison(before, stable, "before", since, evidence))
        why = "it is better" if evidence.verdict is Verdict.BETTER else ""
        if not why and trial.exceeds:
            if evidence.candidate_mean_celsius < evidence.mean_celsius:
                why = f"the mean error is above {trial.bound_celsius:g} °C"
            else:
                seen.notes.append(
                    f"{self._name}: the mean error of stable is above {trial.bound_celsius:g} °C, "
                    f"and that of version {before} is no smaller"
                )
        if why:
            self._load_anew(before)
            self._repository.roll_back(self._name, STABLE, expected=before, since=labels)
            seen.outcome = Outcome.ROLLED_BACK
            seen.notes.append(f"{self._name}: stable is version {before} again, since {why}")

    def _judge_canary(self, seen: Look, store: "ObservationStore", labels: Labels) -> None:
        stable, canary = labels.current[STABLE], labels.current.get(CANARY)
        if canary is None or canary == stable:
            seen.notes.append(f"{self._name}: there is no canary")
            return
        since = self._since(stable, canary, 0)
        evidence = self._read(store, CANARY, _Pair(stable, canary, since)).evidence
        seen.comparisons.append(Comparison(canary, stable, CANARY, since, evidence))
        if evidence.verdict is Verdict.BETTER:
            self._load_anew(canary)
            self._repository.promote_canary(self._name, canary, stable, since=labels)
            seen.outcome = Outcome.PROMOTED
            seen.notes.append(f"{self._name}: stable is version {canary}, promoted")
        elif evidence.verdict is Verdict.WORSE:
            self._repository.remove_label(self._name, CANARY, expected=canary, since=labels)
            seen.outcome = Outcome.REJECTED
            seen.notes.append(f"{self._name}: version {canary} is no canary any more, since it is not better")

    def _since(self, one: int, other: int, since: float) -> float:
        """From when on observations are new to two versions: later than their files, and than what these know."""
        return max(self._known_until(one), self._known_until(other), since, self._since_seconds)

    def _known_until(self, version: int) -> float:
        """The first moment, in Unix time, whose observations a version cannot have been fitted to."""
        published = self._file(version).st_mtime
        artefact = self._load(version).artefact
        if artefact is None or artefact.observed_until_seconds is None:
            return published
        return max(published, math.nextafter(artefact.observed_until_seconds, math.inf))

    def _file(self, version: int) -> os.stat_result:
        try:
            return self._repository.model_path(self._name, version).stat()
        except OSError as error:
            raise CommandError(f"{self._name}/{version} cannot be read: {error.strerror}") from error

    def _read(self, store: "ObservationStore", role: str, pair: "_Pair") -> Trial:
        """What is known of two versions from the observations that count, however many there are.

        What an earlier look read is not read again, unless it is no longer what the store holds.
        """
        known = self._known.get(role)
        if known is None or known.pair != pair or not (known.last == 0 or store.holds(known.last, known.last_id)):
            known = _Known(pair, Trial.begin(self._rule, self._bound_celsius))
        for rows in store.arrivals(pair.since_seconds, after=known.last):
            present, candidate = self._errors(pair.present, rows), self._errors(pair.candidate, rows)
            trial = known.trial.after(present, candidate, rows.source)
            self._known[role] = known = _Known(pair, trial, int(rows.number[-1]), rows.id[-1])
        return known.trial

    def _errors(self, version: int, rows: "Columns") -> "Errors":
        """The errors of a version; NaN where it refuses a row, which counts as the greatest loss."""
        loaded = self._load(version)
        try:
            errors: Errors = predict_what_it_can(loaded, rows.fahrenheit.astype(np.float32)) - rows.celsius
        except Exception as fault:  # whatever ONNX Runtime raises: the device, perhaps, and not the version
            raise CommandError(f"{self._name}/{version} could not be run: {fault}") from fault
        return errors

    def _load_anew(self, version: int) -> None:
        """Make sure that what stable is about to name is still there and whole: servers load it only then."""
        self._loaded.pop(version, None)
        self._load(version)

    def _load(self, version: int) -> "LoadedVersion":
        from service.engine import EngineError, EngineOptions  # noqa: PLC0415 - ONNX Runtime takes long; --help must not
        from service.loading import VerificationError, load_version  # noqa: PLC0415 - as above

        if version not in self._loaded:
            try:
                loaded = load_version(self._repository, self._name, version, EngineOptions(device=self._device))
            except (EngineError, VerificationError) as error:
                raise CommandError(f"{self._name}/{version} does not verify: {error}") from error
            if not loaded.converts:
                raise CommandError(f"{loaded} is no converter from one temperature to one: nothing is observed of it")
            if len(self._loaded) > 2:  # noqa: PLR2004 - stable, the version before, a canary: no more are needed at once
                self._loaded.clear()
            self._loaded[version] = loaded
        return self._loaded[version]


# The command ----------------------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """The parser of `quicksilver promote`."""
    rule = Rule()
    made = Parser(
        prog="quicksilver promote",
        description="Promote a model's canary once observations of true temperatures prove it better than stable, on "
        "the same rows, newer than both; take its label away once they prove that it is not; and roll stable back once "
        "they prove the version before better since the last move. May be asked as often as one likes.",
        epilog="Exit codes: 0 promoted; 1 it could not be done; 2 usage; 3 the canary was rejected; 4 nothing is "
        "decided yet, or there is no canary; 5 stable was rolled back. With --watch it goes on after each, and ends "
        "with 0 at SIGTERM or Ctrl-C.",
    )
    made.add_argument("name", metavar="NAME", help="the model")
    repository = os.environ.get(variable("repository")) or str(Settings.model_fields["repository"].default)
    made.add_argument(
        "--repository", type=Path, default=Path(repository), metavar="DIR", help="the model repository [%(default)s]"
    )
    store = variable("observations")
    made.add_argument(
        "--store", "--observations", dest="store", default=os.environ.get(store), metavar="URL",
        help=f"the observations [{store}]",
    )  # fmt: skip
    made.add_argument("--watch", action="store_true", help="look again and again, until SIGTERM or Ctrl-C")
    made.add_argument(
        "--interval",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="from the start of one look to that of the next [%(default)s]",
    )
    _add_rule(made, rule)
    made.add_argument("--device", choices=get_args(Device), default="auto", help="where versions run [%(default)s]")
    made.add_argument("--json", action="store_true", help="print one JSON object a look")
    return made


def _add_rule(made: argparse.ArgumentParser, rule: Rule) -> None:
    made.add_argument(
        "--rate", type=float, default=rule.rate, metavar="P",
        help="probability of a wrong promotion, at the most, over all looks [%(default)s]",
    )  # fmt: skip
    made.add_argument(
        "--margin", type=float, default=rule.margin_celsius, metavar="CELSIUS",
        help="by how much the mean error must be smaller [%(default)s]",
    )  # fmt: skip
    made.add_argument(
        "--error-cap", type=float, default=rule.cap_celsius, metavar="CELSIUS",
        help="what one row's error counts at the most [%(default)s]",
    )  # fmt: skip
    made.add_argument(
        "--error-bound", type=float, metavar="CELSIUS",
        help="roll back, too, once stable's mean error is proven to be above this [none]",
    )  # fmt: skip
    made.add_argument(
        "--least-rows", type=int, default=rule.least_rows, metavar="ROWS",
        help="fewer observations decide nothing [%(default)s]",
    )  # fmt: skip
    made.add_argument(
        "--block-rows", type=int, default=rule.block_rows, metavar="ROWS",
        help="rows, one after the other, that are one bet: at least twice as many as hang together [%(default)s]",
    )  # fmt: skip
    made.add_argument(
        "--least-sources", type=int, default=rule.least_sources, metavar="SOURCES",
        help="fewer sources decide nothing [%(default)s]",
    )  # fmt: skip
    made.add_argument(
        "--since", type=float, default=0.0, metavar="SECONDS",
        help="Unix time before which observations count no more; those older than a version never do [%(default)s]",
    )  # fmt: skip


def run(arguments: Sequence[str]) -> int:
    """Look once, or again and again, and return the exit code."""
    made = parser()
    options = made.parse_args(arguments)
    if options.store is None:
        made.error(f"name the observations with --store or {variable('observations')}")
    try:
        options.rule = Rule(
            options.rate,
            options.margin,
            options.error_cap,
            options.least_rows,
            options.block_rows,
            options.least_sources,
        )
        if options.error_bound is not None and not 0 < options.error_bound < options.error_cap:
            raise ValueError(f"--error-bound is above 0 and below --error-cap, {options.error_cap:g}")  # noqa: TRY301 - told as Rule's own
        if not 0 < options.interval < math.inf:
            raise ValueError("--interval is a number of seconds above 0")  # noqa: TRY301 - as above
    except ValueError as error:
        made.error(str(error))
    judge = Judge(Repository(options.repository), options.name, options)
    return _watch(judge, options) if options.watch else _look_once(judge, options)


def _watch(judge: Judge, options: argparse.Namespace) -> int:
    """Look again and again, until a signal, or until it turns out that the command line makes no sense."""

    def look() -> int | None:
        return _MISUSED if _look_once(judge, options) == _MISUSED else None

    return schedule.repeat(options.interval, look)


def _look_once(judge: Judge, options: argparse.Namespace) -> int:
    from proto.observations import ObservationStore  # noqa: PLC0415 - SQLAlchemy takes a while; --help must not

    try:
        with ObservationStore.open(options.store, create=False) as store:
            seen = judge.look(store)
    except NoStoreError as error:  # with --watch it may come yet
        return _complain(str(error), _FAILED)
    except StoreUrlError as error:
        return _complain(str(error), _MISUSED)
    except (RepositoryError, ObservationError) as error:
        return _complain(str(error), _FAILED)
    except OSError as error:
        return _complain(f"{error.filename or options.repository}: {error.strerror}", _FAILED)
    if said := [to_json(seen)] if options.json else describe(seen, options.rule):
        print("\n".join(said), flush=True)  # noqa: T201 - asked for
    for failure in seen.failures:
        _complain(failure, _FAILED)
    return _FAILED if seen.failures and seen.outcome is Outcome.WAITING else EXIT_CODES[seen.outcome]


def describe(seen: Look, rule: Rule) -> list[str]:
    """What a look saw, in lines for people."""
    return [*(_sentence(seen.model, each, rule) for each in seen.comparisons), *seen.notes]


def _sentence(model: str, made: Comparison, rule: Rule) -> str:
    evidence = made.evidence
    since = datetime.fromtimestamp(made.since_seconds, UTC).isoformat(timespec="seconds")
    candidate = f"canary {made.candidate}" if made.role == CANARY else f"version {made.candidate}, before it,"
    head = f"{model}: {candidate} against stable {made.present}: {evidence.rows} observations since {since}"
    if not evidence.rows:
        return head
    return (
        f"{head}, {evidence.sources} sources; mean error {evidence.candidate_mean_celsius:.3f} against "
        f"{evidence.mean_celsius:.3f} °C, smaller by {evidence.gain_celsius:.3f} "
        f"({evidence.gain_lower_celsius:.3f} … {evidence.gain_upper_celsius:.3f}); evidence for it "
        f"{_plain(evidence.log_evidence_better):.3g}, against it {_plain(evidence.log_evidence_worse):.3g}, "
        f"{_plain(wanted(rule)):.3g} decides: {evidence.verdict.value}"
    )


def _plain(logarithm: float) -> float:
    return math.exp(min(logarithm, _MAX_EVIDENCE))


def to_json(seen: Look) -> str:
    """What a look saw, as one JSON object; a mean of no rows is null."""
    comparisons = [_plain_object(asdict(each)) for each in seen.comparisons]
    return json.dumps(
        {
            "model": seen.model,
            "outcome": seen.outcome.value,
            "at_seconds": round(time.time(), 3),
            "comparisons": comparisons,
            "notes": seen.notes,
            "failures": seen.failures,
        },
        ensure_ascii=False,
    )


def _plain_object(content: dict[str, Any]) -> dict[str, Any]:
    def plain(value: Any) -> Any:  # noqa: ANN401 - JSON is anything
        if isinstance(value, dict):
            return _plain_object(value)
        if isinstance(value, Enum):
            return value.value
        return None if isinstance(value, float) and math.isnan(value) else value

    return {key: plain(value) for key, value in content.items()}


def _complain(message: str, code: int) -> int:
    for line in message.splitlines():
        print(f"quicksilver promote: {line}", file=sys.stderr, flush=True)  # noqa: T201 - the terminal is who asked
    return code
