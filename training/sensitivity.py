"""Where an elementwise function is sensitive to its input and where it is saturated, measured by autograd.

A function is *sensitive* where the size of its slope is at least `SENSITIVE_SHARE` of the greatest it has anywhere.
Elsewhere it is *saturated*: the input may change, the output hardly does, and next to no gradient flows back.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final, NamedTuple, TypeAlias

import torch
from torch import Tensor

from training.plots import short

SENSITIVE_SHARE: Final = 0.05
"""The share of its greatest slope below which a function counts as saturated."""

MEASURED: Final = (-20.0, 20.0)
"""The inputs, without unit, over which slopes are measured; a range that reaches an end is taken to go on."""

_SAMPLES: Final = 4001  # over MEASURED: steps of 0.01
_BISECTIONS: Final = 40  # from such a step down to the resolution of float64

Function: TypeAlias = Callable[[Tensor], Tensor]


class Range(NamedTuple):
    """An open interval of inputs; an end that is infinite is not there."""

    low: float
    high: float

    def __str__(self) -> str:
        """Write the range as a condition on x: `|x| < 2.18`, `x > 0`."""
        low, high = short(self.low), short(self.high)
        if math.isinf(self.low) and math.isinf(self.high):
            return "every x"
        if math.isinf(self.high):
            return f"x > {low}"
        if math.isinf(self.low):
            return f"x < {high}"
        return f"|x| < {high}" if math.isclose(self.low, -self.high, abs_tol=1e-6) else f"{low} < x < {high}"


def slope(function: Function, inputs: Tensor) -> Tensor:
    """Slope of an elementwise function at each of `inputs`, by autograd; the shape of `inputs`."""
    leaf = inputs.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(leaf).sum(), leaf)
    return gradient


def sensitive_ranges(function: Function, share: float = SENSITIVE_SHARE) -> list[Range]:
    """Where the size of a function's slope is at least `share` of its greatest over `MEASURED`, in ascending order.

    The ends are exact to about 1e-12. A range or a gap narrower than 0.01 can be missed.
    """
    grid = torch.linspace(*MEASURED, _SAMPLES, dtype=torch.float64)
    threshold = share * float(slope(function, grid).abs().max())

    def is_sensitive(inputs: Tensor) -> Tensor:
        return slope(function, inputs).abs() >= threshold

    sensitive = is_sensitive(grid).tolist()
    ends = [-math.inf] if sensitive[0] else []
    for index, (here, there) in enumerate(pairwise(sensitive)):
        if here != there:
            ends.append(_boundary(is_sensitive, float(grid[index]), float(grid[index + 1])))
    ends += [math.inf] if sensitive[-1] else []
    return [Range(low, high) for low, high in zip(ends[::2], ends[1::2], strict=True)]


def _boundary(is_sensitive: Function, low: float, high: float) -> float:
    """Where the answer changes between `low` and `high`, by bisection."""

    def answer(at: float) -> bool:
        return bool(is_sensitive(torch.tensor(at, dtype=torch.float64)))

    answer_low = answer(low)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if answer(middle) == answer_low:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def saturated_ranges(sensitive: Sequence[Range]) -> list[Range]:
    """Where a function is not sensitive, given where it is: the gaps, in ascending order."""
    ends = [-math.inf, *(end for each in sensitive for end in each), math.inf]
    return [Range(low, high) for low, high in zip(ends[::2], ends[1::2], strict=True) if low < high]


def remaining_slope(function: Function, saturated: Range) -> float:
    """Slope that is left at the far end of a saturated range: 0 where saturation is for good."""
    far = max(saturated.low, MEASURED[0]) if math.isinf(saturated.low) else min(saturated.high, MEASURED[1])
    return float(slope(function, torch.tensor(far, dtype=torch.float64)))
