"""Single tanh neurons of one input, and what they compose into: small enough to be written as a formula."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from training.plots import MINUS, short


def formula(terms: Iterable[tuple[float, str]]) -> str:
    """Write a sum of factors times names the way one writes it: `2x − 3`. A name may be empty: a constant."""
    written = ""
    for factor, name in terms:
        if factor == 0:
            continue
        space = " " if len(name) > 1 else ""
        size = name if abs(factor) == 1 and name else f"{short(abs(factor))}{space}{name}"
        sign = MINUS if factor < 0 else "+"
        written += f" {sign} {size}" if written else f"{sign.lstrip('+')}{size}"
    return written or "0"


class Neuron(NamedTuple):
    """One tanh neuron of one input: x becomes tanh(weight · x + bias)."""

    weight: float
    bias: float

    def __call__(self, x: Tensor) -> Tensor:
        """Answer for each x."""
        return torch.tanh(self.weight * x + self.bias)

    def __str__(self) -> str:
        """Write the neuron as a formula."""
        return f"tanh({formula([(self.weight, 'x'), (self.bias, '')])})"


class Term(NamedTuple):
    """A neuron and the weight that the next layer gives its answer."""

    neuron: Neuron
    weight: float

    def __call__(self, x: Tensor) -> Tensor:
        """What the next layer receives, for each x."""
        return self.weight * self.neuron(x)

    def __str__(self) -> str:
        """Write the term as a formula."""
        return formula([(self.weight, str(self.neuron))])


class TwoLayers(NamedTuple):
    """A neuron of the second layer, fed by weighted neurons of the first, which are called A, B, C and so on."""

    first: tuple[Term, ...]
    bias: float

    def __str__(self) -> str:
        """Write what the second layer receives as a formula."""
        names = "ABCDEFGH"
        return formula([*((term.weight, name) for term, name in zip(self.first, names, strict=False)), (self.bias, "")])

    def received(self, x: Tensor) -> Tensor:
        """The weighted sum with its bias: what the second neuron takes in, for each x."""
        return torch.stack([term(x) for term in self.first]).sum(dim=0) + self.bias

    def __call__(self, x: Tensor) -> Tensor:
        """Answer of the second neuron for each x."""
        return torch.tanh(self.received(x))
