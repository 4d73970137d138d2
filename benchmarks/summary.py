"""From samples to statements: medians with their range, the best of a family, and the ratios that must hold."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from benchmarks.peers import ALL

Samples = Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]
"""Samples by server and workload, one a round."""

RATE: Final = "requests_per_second"
CPU: Final = "cpu_seconds_per_100k"
P50: Final = "p50_seconds"
P99: Final = "p99_seconds"
HIGHER_IS_BETTER: Final = frozenset({RATE, "values_per_second"})


class Spread(NamedTuple):
    """A median, and how far the rounds lay from it."""

    median: float
    low: float
    high: float


def spread(samples: Sequence[Mapping[str, Any]], metric: str) -> Spread | None:
    """The median, least and greatest of a figure over rounds; None where no round has it.

    A round with errors tells nothing of what a right answer costs, and is left out.
    """
    values = [sample[metric] for sample in samples if is_clean(sample) and sample.get(metric) is not None]
    return Spread(statistics.median(values), min(values), max(values)) if values else None


def is_clean(sample: Mapping[str, Any]) -> bool:
    """Whether every call of a measurement was answered, and rightly."""
    return not sample.get("errors") and not sample.get("wrong")


class Best(NamedTuple):
    """The member of a family that does best in one figure."""

    server: str
    spread: Spread


def best(samples: Samples, family: str, workload: str, metric: str) -> Best | None:
    """The server of a family with the best median; every figure of every workload may have another one."""
    found = [
        Best(server.key, value)
        for server in ALL
        if server.family == family and (value := spread(samples.get(server.key, {}).get(workload, ()), metric))
    ]
    if not found:
        return None
    choose = max if metric in HIGHER_IS_BETTER else min
    return choose(found, key=lambda one: one.spread.median)


@dataclass(frozen=True, slots=True)
class Requirement:
    """One ratio that must hold: ours to another's, in one figure of one workload."""

    text: str
    workload: str
    metric: str
    other: str
    """A family, or `onnxruntime` for ONNX Runtime alone."""
    bound: float

    @property
    def at_least(self) -> bool:
        """Whether the ratio must not be less than the bound, rather than not more."""
        return self.metric in HIGHER_IS_BETTER


REQUIREMENTS: Final = (
    Requirement("1 value, 64 in flight: CPU to Triton's", "small", CPU, "triton", 0.35),
    Requirement("1 value, 64 in flight: requests a second to Triton's", "small", RATE, "triton", 2.5),
    Requirement("1 value, 64 in flight: CPU to the better plain grpcio server's", "small", CPU, "grpcio", 0.1),
    Requirement(
        "1 value, 64 in flight: requests a second to the better plain grpcio server's", "small", RATE, "grpcio", 10.0
    ),
    Requirement("1,024 values: CPU to Triton's", "rows_1024", CPU, "triton", 0.5),
    Requirement("65,536 values: requests a second to Triton's", "rows_65536", RATE, "triton", 1.0),
    Requirement("65,536 values: CPU to ONNX Runtime alone", "rows_65536", CPU, "onnxruntime", 2.0),
    Requirement("one client in sequence: p50 to Triton's", "one_client", P50, "triton", 1.0),
    Requirement("open loop, 10,000 a second: p99 to Triton's", "open_10000", P99, "triton", 1.0),
)


class Verdict(NamedTuple):
    """What a run says about a requirement."""

    requirement: Requirement
    ours: float | None
    theirs: float | None
    against: str
    """Key of the server that was compared with, or `onnxruntime`."""

    @property
    def ratio(self) -> float | None:
        """Ours to theirs."""
        return self.ours / self.theirs if self.ours is not None and self.theirs else None

    @property
    def word(self) -> str:
        """`met`, `missed` or `not measured`."""
        if self.ratio is None:
            return "not measured"
        bound = self.requirement.bound
        return "met" if (self.ratio >= bound if self.requirement.at_least else self.ratio <= bound) else "missed"


def onnxruntime_per_100k(limits: Sequence[Mapping[str, Any]], rows: int) -> float | None:
    """CPU-seconds that ONNX Runtime alone takes for 100,000 runs of so many rows: the median of what was taken."""
    seconds = [taken["onnxruntime_seconds"][str(rows)] for taken in limits if str(rows) in taken["onnxruntime_seconds"]]
    return statistics.median(seconds) * 100_000 if seconds else None


def verdicts(results: Mapping[str, Any]) -> list[Verdict]:
    """Hold every requirement against a run. Triton's Python backend stands in where the other one was not measured."""
    return [_verdict(results, requirement) for requirement in REQUIREMENTS]


def _verdict(results: Mapping[str, Any], requirement: Requirement) -> Verdict:
    samples, workload, metric = results["samples"], requirement.workload, requirement.metric
    own = best(samples, "quicksilver", workload, metric)
    ours = own.spread.median if own else None
    if requirement.other == "onnxruntime":
        return Verdict(requirement, ours, onnxruntime_per_100k(results["limits"], 65_536), "onnxruntime")
    families = ("triton", "triton_python") if requirement.other == "triton" else (requirement.other,)
    for family in families:
        other = best(samples, family, workload, metric)
        if other is not None:
            return Verdict(requirement, ours, other.spread.median, other.server)
    return Verdict(requirement, ours, None, requirement.other)
