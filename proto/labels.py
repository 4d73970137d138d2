"""What `labels.json` says of a model: which version each label names, and which it named before.

    {
      "labels": {"canary": 4, "stable": 3},
      "previous": {"stable": [1, 2]},
      "removed_up_to": 5,
      "canary_traffic": {"share": 0.1},
  "canary_since_seconds": 1795360000.0,
      "stable_moves": {"promotions": 2, "rollbacks": 0, "last_seconds": 1795361000.0}
    }

A plain object of label → version is read too, as one without a history. All functions are pure.
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

from proto.traffic import CANARY, NO_TRAFFIC, CanaryTraffic

HISTORY_LENGTH: Final = 16
"""Earlier targets of a label that are remembered; older ones are forgotten."""

NAME_PATTERN: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")

_LABELS: Final = "labels"
_PREVIOUS: Final = "previous"
_REMOVED: Final = "removed_up_to"
_TRAFFIC: Final = "canary_traffic"
_CANARY_SINCE: Final = "canary_since_seconds"
_MOVES: Final = "stable_moves"
_PROMOTIONS: Final = "promotions"
_ROLLBACKS: Final = "rollbacks"
_LAST: Final = "last_seconds"


@dataclass(frozen=True, slots=True)
class StableMoves:
    """How often `stable` has moved from one version to another, and when it last did."""

    promotions: int = 0
    """Moves to a version that it did not come back to."""
    rollbacks: int = 0
    """Moves back to the version that it named before."""
    last_seconds: float = 0.0
    """When, in Unix time; 0 for never."""


NO_MOVES: Final = StableMoves()


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of one model."""

    current: Mapping[str, int] = field(default_factory=dict)
    """Label → version."""
    previous: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Label → the versions it named before, the latest last."""
    removed_up_to: int = 0
    """The greatest version that was ever removed: no number up to it is published again."""
    traffic: CanaryTraffic = NO_TRAFFIC
    """What the version labelled `canary` gets; it goes with the label, and stays when that moves."""
    moves: StableMoves = NO_MOVES
    canary_since_seconds: float = 0.0
    """When `canary` was given to the version that it names, in Unix time; 0 where that is not known."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the file.

        Raises:
            ValueError: it is not JSON, or not of this shape; the message says what is wrong.
        """
        content = json.loads(text)
        if not isinstance(content, dict):
            raise ValueError("not an object")  # noqa: TRY004 - wrong text is a wrong value
        if not isinstance(content.get(_LABELS), dict):
            return cls(_versions(content))
        if unknown := sorted(content.keys() - {_LABELS, _PREVIOUS, _REMOVED, _TRAFFIC, _MOVES, _CANARY_SINCE}):
            raise ValueError(f"unknown key {unknown[0]!r}")
        return cls(
            _versions(_object(content, _LABELS)),
            {_label(label): _history(history) for label, history in _object(content, _PREVIOUS).items()},
            _whole(content.get(_REMOVED, 0), least=0),
            CanaryTraffic.parse(content.get(_TRAFFIC, {})),
            _moves(_object(content, _MOVES)),
            _time(content.get(_CANARY_SINCE, 0.0)),
        )

    def text(self) -> str:
        """Write the file: sorted, for people too. What is empty is left out."""
        content: dict[str, Any] = {_LABELS: dict(self.current)}
        if self.previous:
            content[_PREVIOUS] = {label: list(history) for label, history in self.previous.items()}
        if self.removed_up_to:
            content[_REMOVED] = self.removed_up_to
        if self.traffic:
            content[_TRAFFIC] = self.traffic.plain()
        if self.moves != NO_MOVES:
            content[_MOVES] = {
                _PROMOTIONS: self.moves.promotions,
                _ROLLBACKS: self.moves.rollbacks,
                _LAST: self.moves.last_seconds,
            }
        if self.canary_since_seconds:
            content[_CANARY_SINCE] = self.canary_since_seconds
        return json.dumps(content, indent=2, sort_keys=True) + "\n"

    def moved(self, label: str, version: int) -> "Labels":
        """Let a label name a version, and remember which it named."""
        before = self.current.get(label)
        if before == version:
            return self
        history = (*self.previous.get(label, ()), before)[-HISTORY_LENGTH:] if before is not None else ()
        previous = {**self.previous, label: history} if history else dict(self.previous)
        current = {**self.current, label: version}
        return replace(self, current=current, previous=previous, canary_since_seconds=self._since(label))

    def canary_given(self, now_seconds: float) -> "Labels":
        """Say since when `canary` names the version that it names, where nothing says so."""
        is_known = self.canary_since_seconds or CANARY not in self.current
        return self if is_known else replace(self, canary_since_seconds=now_seconds)

    def _since(self, moved: str) -> float:
        """What is left of `canary_since_seconds` where a label is moved, or taken away: it is of one version."""
        return 0.0 if moved == CANARY else self.canary_since_seconds

    def stand_as_in(self, other: "Labels") -> bool:
        """Whether `stable` and `canary` name what they name there, and `stable` was not moved away and back since."""
        stand = all(
            (self.current.get(label), self.previous.get(label)) == (other.current.get(label), other.previous.get(label))
            for label in ("stable", CANARY)
        )
        return stand and self.moves == other.moves

    def before(self, label: str, versions: Collection[int]) -> int | None:
        """The version that a label named last before this one, of those that are still there; None where none is."""
        current = self.current.get(label)
        earlier = [version for version in self.previous.get(label, ()) if version in versions and version != current]
        return earlier[-1] if earlier else None

    def rolled_back(self, label: str, version: int) -> "Labels":
        """Let a label name the version that it named before, and forget what came after: a second rollback goes on."""
        history = self.previous[label]
        last = len(history) - 1 - history[::-1].index(version)
        previous = {**self.previous, label: history[:last]}
        if not previous[label]:
            del previous[label]
        current = {**self.current, label: version}
        return replace(self, current=current, previous=previous, canary_since_seconds=self._since(label))

    def without(self, label: str) -> "Labels":
        """Take a label away, with its history; with `canary` goes its traffic."""
        current = {name: version for name, version in self.current.items() if name != label}
        previous = {name: history for name, history in self.previous.items() if name != label}
        traffic = NO_TRAFFIC if label == CANARY else self.traffic
        since = self._since(label)
        return replace(self, current=current, previous=previous, traffic=traffic, canary_since_seconds=since)

    def promoted(self, now_seconds: float) -> "Labels":
        """Count a move of `stable` to another version."""
        return replace(self, moves=StableMoves(self.moves.promotions + 1, self.moves.rollbacks, now_seconds))

    def returned(self, now_seconds: float) -> "Labels":
        """Count a move of `stable` back to the version that it named before."""
        return replace(self, moves=StableMoves(self.moves.promotions, self.moves.rollbacks + 1, now_seconds))

    def removing(self, version: int) -> "Labels":
        """Remember that a version is removed."""
        return replace(self, removed_up_to=max(self.removed_up_to, version))


def _object(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key, {})
    if not isinstance(value, dict):
        raise ValueError(f"{key!r} is not an object")  # noqa: TRY004 - as above
    return value


def _versions(content: Mapping[str, Any]) -> dict[str, int]:
    return {_label(label): _whole(version, least=1) for label, version in content.items()}


def _moves(content: Mapping[str, Any]) -> StableMoves:
    if unknown := sorted(content.keys() - {_PROMOTIONS, _ROLLBACKS, _LAST}):
        raise ValueError(f"unknown key {unknown[0]!r} in {_MOVES!r}")
    last = _time(content.get(_LAST, 0.0))
    promotions, rollbacks = content.get(_PROMOTIONS, 0), content.get(_ROLLBACKS, 0)
    return StableMoves(_whole(promotions, least=0), _whole(rollbacks, least=0), last)


def _time(value: Any) -> float:  # noqa: ANN401 - JSON is anything until it is checked
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise ValueError(f"{value!r} is not a time in seconds")
    return float(value)


def _history(value: Any) -> tuple[int, ...]:  # noqa: ANN401 - as above
    if not isinstance(value, list):
        raise ValueError(f"{value!r} is not a list of versions")  # noqa: TRY004 - as above
    return tuple(_whole(version, least=1) for version in value)


def _label(name: str) -> str:
    if not NAME_PATTERN.fullmatch(name):
        raise ValueError(f"{name!r} is not a label")
    return name


def _whole(value: Any, *, least: int) -> int:  # noqa: ANN401 - as above
    if type(value) is not int or value < least:
        raise ValueError(f"{value!r} is not a whole number from {least}")
    return value
