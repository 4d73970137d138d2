"""From samples to statements."""

from typing import Any

import pytest

from benchmarks import summary
from benchmarks.summary import CPU, RATE


def results(**samples: Any) -> dict[str, Any]:  # noqa: ANN401 - samples of any workload
    """A run with these samples by server, and ONNX Runtime at 1 ms for 65,536 rows."""
    return {"samples": samples, "limits": [{"onnxruntime_seconds": {"65536": 0.001}}]}


def small(rate: float, cpu: float, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - any other figure
    """A server's samples of the small workload: one round."""
    return {"small": [{RATE: rate, CPU: cpu, **more}]}


def verdict(of: dict[str, Any], workload: str, metric: str, other: str) -> summary.Verdict:
    """What a run says about one requirement."""
    return next(
        found
        for found in summary.verdicts(of)
        if (found.requirement.workload, found.requirement.metric, found.requirement.other) == (workload, metric, other)
    )


def test_the_middle_round_counts() -> None:
    """A spread is the median of the rounds, the least, and the greatest."""
    rounds = [{CPU: 3.0}, {CPU: 1.0}, {CPU: 2.0}]
    assert summary.spread(rounds, CPU) == (2.0, 1.0, 3.0)


def test_rounds_with_errors_do_not_count() -> None:
    """What failed calls cost is no figure; where no round was clean, there is none."""
    assert summary.spread([{CPU: 1.0, "errors": 1}, {CPU: 5.0, "errors": 0}], CPU) == (5.0, 5.0, 5.0)
    assert summary.spread([{CPU: 1.0, "wrong": ["a value is off"]}], CPU) is None


def test_the_best_configuration_is_chosen_by_figure() -> None:
    """One configuration of a peer may be compared with in throughput, and another in CPU."""
    samples = {"triton_1": small(10_000, 5.0), "triton_2_batching": small(20_000, 6.0)}
    fastest = summary.best(samples, "triton", "small", RATE)
    cheapest = summary.best(samples, "triton", "small", CPU)
    assert fastest is not None
    assert cheapest is not None
    assert (fastest.server, cheapest.server) == ("triton_2_batching", "triton_1")


@pytest.mark.parametrize(("cpu", "word"), [(3.5, "met"), (3.6, "missed")])
def test_a_cost_has_an_upper_bound(cpu: float, word: str) -> None:
    """A ratio of costs is met up to its bound."""
    run = results(quicksilver=small(1, cpu), triton_1=small(1, 10.0))
    assert verdict(run, "small", CPU, "triton").word == word


@pytest.mark.parametrize(("rate", "word"), [(25_000, "met"), (24_000, "missed")])
def test_a_throughput_has_a_lower_bound(rate: float, word: str) -> None:
    """A ratio of throughputs is met from its bound on."""
    run = results(quicksilver=small(rate, 1), triton_1=small(10_000, 1))
    assert verdict(run, "small", RATE, "triton").word == word


def test_the_python_backend_stands_in() -> None:
    """Without Triton's ONNX Runtime backend its Python backend is compared with, and named."""
    run = results(quicksilver=small(1, 1.0), triton_python=small(1, 10.0))
    assert verdict(run, "small", CPU, "triton").against == "triton_python"


def test_what_was_not_measured_is_called_that() -> None:
    """Without a figure of ours or of theirs there is no ratio."""
    assert {found.word for found in summary.verdicts(results())} == {"not measured"}


def test_onnxruntime_alone_is_a_limit() -> None:
    """At 65,536 values our cost is held against that of as many runs of ONNX Runtime alone."""
    run = results(quicksilver={"rows_65536": [{RATE: 1, CPU: 150.0}]})
    found = verdict(run, "rows_65536", CPU, "onnxruntime")
    assert found.ratio == pytest.approx(1.5)
    assert found.word == "met"
