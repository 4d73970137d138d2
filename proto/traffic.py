"""What the version labelled `canary` gets of the requests that name no version: a share of them, or copies.

All functions are pure. Which version a request goes to follows from its id alone, so that every worker and every
server chooses alike, and a share that grows takes nobody back who was in it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

CANARY: Final = "canary"
"""The label whose version is tried."""

_SHARE: Final = "share"
_SHADOW: Final = "shadow"
_GOLDEN_RATIO: Final = (5**0.5 - 1) / 2


@dataclass(frozen=True, slots=True)
class CanaryTraffic:
    """The rule of one model. Either a share is answered by the canary, or it runs in the shadow, or neither."""

    share: float = 0.0
    """The part of the requests that name no version which the canary answers, from 0 to 1."""
    shadow: bool = False
    """Whether the canary runs on copies of the rows, after the stable version's answer was given."""

    def __post_init__(self) -> None:
        """Raise ValueError for a rule that makes no sense."""
        if not 0 <= self.share <= 1:
            raise ValueError(f"a share is a number from 0 to 1, not {self.share!r}")
        if self.share and self.shadow:
            raise ValueError("a canary takes a share or runs in the shadow, not both")

    def __bool__(self) -> bool:
        return self.shadow or self.share > 0

    @classmethod
    def parse(cls, content: Any) -> Self:  # noqa: ANN401 - JSON is anything until it is checked
        """Read what `plain` wrote.

        Raises:
            ValueError: it is nothing of the kind; the message says what is wrong.
        """
        if not isinstance(content, Mapping):
            raise ValueError(f"{content!r} is not a rule for a canary")  # noqa: TRY004 - wrong text is a wrong value
        if unknown := sorted(content.keys() - {_SHARE, _SHADOW}):
            raise ValueError(f"unknown key {unknown[0]!r} in the rule for a canary")
        share, shadow = content.get(_SHARE, 0.0), content.get(_SHADOW, False)
        if isinstance(share, bool) or not isinstance(share, (int, float)):
            raise ValueError(f"{share!r} is not a share")  # noqa: TRY004 - as above
        if not isinstance(shadow, bool):
            raise ValueError(f"{shadow!r} is neither true nor false")  # noqa: TRY004 - as above
        return cls(float(share), shadow)

    def plain(self) -> dict[str, float | bool]:
        """Write it in what JSON knows; nothing for no traffic."""
        if self.shadow:
            return {_SHADOW: True}
        return {_SHARE: self.share} if self.share else {}


NO_TRAFFIC: Final = CanaryTraffic()


def place_of_id(request_id: bytes, salt: bytes) -> float:
    """Where a request with an id lies in [0, 1): the same for the same id, and even over ids.

    The salt is another for each canary, so that not the same callers try every new version.
    """
    digest = hashlib.blake2b(request_id, digest_size=8, key=salt).digest()
    return (int.from_bytes(digest) >> 11) / (1 << 53)


def place_of_number(number: int) -> float:
    """Where the `number`-th request without an id lies in [0, 1).

    The multiples of the golden ratio: whatever the share, of any run of requests that share goes to the canary, but for
    a few requests at the most (Weyl 1916; the discrepancy of N of them is O(log N / N)).
    """
    return (number * _GOLDEN_RATIO) % 1.0


def is_for_canary(place: float, share: float) -> bool:
    """Whether a request goes to the canary. With a greater share, those stay that were in a smaller one."""
    return place < share
