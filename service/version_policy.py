"""Which versions of a model are loaded beside the labelled ones: the latest that work, all, or named ones."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

_LATEST = "latest:"


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """`latest:N`, `all`, or `1,3,7`. With neither `latest` nor `named` it takes all.

    `latest` counts versions that work: a broken one never takes the place of a good one.
    """

    latest: int | None = None
    named: frozenset[int] | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a policy as the settings write it.

        Raises:
            ValueError: it is none.
        """
        if text == "all":
            return cls()
        try:
            if text.startswith(_LATEST):
                return cls(latest=_number(text.removeprefix(_LATEST)))
            return cls(named=frozenset(_number(word) for word in text.split(",")))
        except ValueError:
            raise ValueError(f"{text!r} is not 'latest:N', 'all', or version numbers with commas between") from None

    def __str__(self) -> str:
        if self.latest is not None:
            return f"{_LATEST}{self.latest}"
        return "all" if self.named is None else ",".join(map(str, sorted(self.named)))

    def choose(self, versions: Iterable[int], works: Callable[[int], bool]) -> list[int]:
        """Choose from the versions there are, the newest first, asking of each whether it works.

        What was asked about and does not work is chosen too, so that it is listed with its reason.
        """
        newest_first = sorted(versions, reverse=True)
        if self.latest is None:
            return [number for number in newest_first if self.named is None or number in self.named]
        chosen: list[int] = []
        working = 0
        for number in newest_first:
            if working == self.latest:
                break
            chosen.append(number)
            working += works(number)
        return chosen


def _number(text: str) -> int:
    if not (text.strip().isascii() and text.strip().isdigit() and int(text) >= 1):
        raise ValueError(text)
    return int(text)
