"""Batches of observations that are wrong: of the same kind and size as the right ones they are made of. Seeded."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from proto.observation import Observation

LIE_CELSIUS: Final = 2.2
"""How far off a source is that lies: near enough to two others that no row of it is an outlier by itself."""


def lying(true: Sequence[Observation], source: str = "roof") -> list[Observation]:
    """What is reported where one source is wrong, and always by as much."""
    return [replace(one, celsius=one.celsius + LIE_CELSIUS) if one.source == source else one for one in true]


def shuffled(true: Sequence[Observation]) -> list[Observation]:
    """The same readings and the same truths, but of each other."""
    celsius = np.random.default_rng(3).permutation([one.celsius for one in true])
    return [replace(one, celsius=float(each)) for one, each in zip(true, celsius, strict=True)]
