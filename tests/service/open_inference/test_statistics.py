"""ModelStatistics: what is counted is what happened, in nanoseconds that add up."""

from concurrent.futures import ThreadPoolExecutor
from time import time

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.inference.v2 import open_inference_pb2 as pb
from proto.inference.v2.open_inference_pb2_grpc import GRPCInferenceServiceStub
from proto.repository import Repository
from service.engine import EngineOptions
from service.models import Models
from service.open_inference.statistics import Statistics
from service.open_inference.tables import MAX_BATCH_SIZES
from service.run_observers import RunTimes
from tests.service.artefacts import make_artefact, make_plain
from tests.service.open_inference.calls import TIMEOUT_SECONDS, fahrenheit, request

TIMES = RunTimes(queue_seconds=0.25, join_seconds=0.001, inference_seconds=0.002, encode_seconds=0.004)


@pytest.fixture
def stub(channel: grpc.Channel) -> GRPCInferenceServiceStub:
    """The generated client."""
    return GRPCInferenceServiceStub(channel)


def _statistics(stub: GRPCInferenceServiceStub, name: str = "", version: str = "") -> list[pb.ModelStatistics]:
    message = pb.ModelStatisticsRequest(name=name, version=version)
    return list(stub.ModelStatistics(message, timeout=TIMEOUT_SECONDS).model_stats)


def test_calls_runs_and_rows_are_counted(stub: GRPCInferenceServiceStub) -> None:
    """One at a time, each is a run of its own size."""
    before = time()
    for rows in (1, 1, 3):
        stub.ModelInfer(fahrenheit(*[50.0] * rows), timeout=TIMEOUT_SECONDS)
    (told,) = _statistics(stub, "linear", "1")
    assert (told.name, told.version) == ("linear", "1")
    assert (told.inference_count, told.execution_count, told.inference_stats.success.count) == (5, 3, 3)
    assert before * 1000 - 1 <= told.last_inference <= time() * 1000 + 1
    assert [(size.batch_size, size.compute_infer.count) for size in told.batch_stats] == [(1, 2), (3, 1)]
    stats = told.inference_stats
    steps = stats.compute_input.ns + stats.compute_infer.ns + stats.compute_output.ns
    assert 0 < stats.compute_infer.ns < steps + stats.queue.ns <= stats.success.ns + 10
    assert sum(size.compute_infer.ns for size in told.batch_stats) == pytest.approx(stats.compute_infer.ns, abs=5)
    assert (stats.fail.count, stats.cache_hit.count, stats.cache_miss.count) == (0, 0, 0)


def test_failures_of_a_version_are_counted(stub: GRPCInferenceServiceStub) -> None:
    """Those found before the run and in it; a model that does not exist has no statistics to count them in."""
    wrong = [
        fahrenheit(-500),
        fahrenheit(1, outputs=["kelvin"]),
        request("linear", {"fahrenheit": ("FP32", np.zeros(3, dtype=np.float32))}),
        fahrenheit(1, model="absent"),
    ]
    for message in wrong:
        with pytest.raises(grpc.RpcError):
            stub.ModelInfer(message, timeout=TIMEOUT_SECONDS)
    (told,) = _statistics(stub, "linear", "stable")
    assert (told.inference_stats.fail.count, told.inference_stats.success.count, told.execution_count) == (3, 0, 0)
    assert told.inference_stats.fail.ns > 0


def test_calls_of_convert_count_too(channel: grpc.Channel, stub: GRPCInferenceServiceStub) -> None:
    """A version's statistics are about the version, whichever API was called."""
    from proto.quicksilver.v1 import converter_pb2 as api  # noqa: PLC0415 - of this test alone
    from proto.quicksilver.v1.converter_pb2_grpc import ConverterServiceStub  # noqa: PLC0415 - as above

    ConverterServiceStub(channel).Convert(api.ConvertRequest(fahrenheit=[32, 50]), timeout=TIMEOUT_SECONDS)
    (told,) = _statistics(stub, "linear", "1")
    assert (told.inference_count, told.inference_stats.success.count) == (2, 1)


def test_calls_that_share_runs_add_up(channel: grpc.Channel, stub: GRPCInferenceServiceStub) -> None:
    """However they were joined: rows are rows, calls are calls, and the sizes of the runs hold all rows."""
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: stub.ModelInfer(fahrenheit(50, 51), timeout=TIMEOUT_SECONDS), range(100)))
    assert channel is not None
    (told,) = _statistics(stub, "linear", "1")
    assert (told.inference_count, told.inference_stats.success.count) == (200, 100)
    assert told.inference_stats.compute_infer.count == told.inference_stats.queue.count == 100
    assert sum(size.compute_infer.count for size in told.batch_stats) == told.execution_count <= 100
    assert sum(size.compute_infer.count * size.batch_size for size in told.batch_stats) == 200


def test_models_can_be_asked_about_one_by_one_or_all_at_once(stub: GRPCInferenceServiceStub) -> None:
    """Those that did nothing yet are told with zeros; those that are not there are not found."""
    assert [(told.name, told.version) for told in _statistics(stub)] == [
        ("linear", "1"),
        ("linear", "2"),
        ("plain", "1"),
    ]
    assert [told.version for told in _statistics(stub, "linear")] == ["1", "2"]
    for name, version in (("absent", ""), ("linear", "9")):
        with pytest.raises(grpc.RpcError) as caught:
            _statistics(stub, name, version)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """`linear`, whose rows are independent, and `plain`, of which that is not known."""
    repository = Repository(tmp_path_factory.mktemp("models"))
    repository.publish("linear", make_artefact())
    repository.publish("plain", make_plain())
    models = Models(repository, EngineOptions(device="cpu"))
    models.load()
    return models


def _told(statistics: Statistics, name: str) -> pb.ModelStatistics:
    return statistics.answer(pb.ModelStatisticsRequest(name=name)).model_stats[0]


@given(runs=st.lists(st.tuples(st.integers(1, 50), st.integers(1, 9)), max_size=30))
def test_totals_are_the_sums_of_what_was_told(models: Models, runs: list[tuple[int, int]]) -> None:
    """For any runs: each call counts the time of its whole run, each run counts once under its size."""
    statistics = Statistics(models, wall_clock=lambda: 12.5)
    version = models.catalogue.resolve("linear", None)
    for rows, calls in runs:
        statistics.ran(version, rows, [0.5] * calls, TIMES)
    told = _told(statistics, "linear")
    calls = sum(count for _, count in runs)
    assert told.inference_count == sum(rows for rows, _ in runs)
    assert told.inference_stats.success == pb.StatisticDuration(count=calls, ns=calls * 500_000_000)
    assert told.inference_stats.queue == pb.StatisticDuration(count=calls, ns=len(runs) * 250_000_000)
    assert told.inference_stats.compute_infer.ns == pytest.approx(calls * 2_000_000, abs=10)
    assert {size.batch_size for size in told.batch_stats} == {rows for rows, _ in runs}
    assert sum(size.compute_output.ns for size in told.batch_stats) == pytest.approx(len(runs) * 4_000_000, abs=50)
    assert told.last_inference == (12_500 if runs else 0)


def test_where_calls_never_share_a_run_each_counts_as_one(models: Models) -> None:
    """What lies along the first dimension need not be rows then."""
    statistics = Statistics(models)
    statistics.ran(models.catalogue.resolve("plain", None), 1000, [0.5], TIMES)
    told = _told(statistics, "plain")
    assert (told.inference_count, [size.batch_size for size in told.batch_stats]) == (1, [1])


def test_sizes_that_are_told_apart_are_bounded(models: Models) -> None:
    """A caller that varies the size fills no memory; totals still hold everything."""
    statistics = Statistics(models)
    version = models.catalogue.resolve("linear", None)
    for rows in range(1, MAX_BATCH_SIZES + 100):
        statistics.ran(version, rows, [0.5], TIMES)
    told = _told(statistics, "linear")
    assert len(told.batch_stats) == MAX_BATCH_SIZES
    assert told.execution_count == MAX_BATCH_SIZES + 99


def test_versions_that_are_gone_leave_no_table(repository: Repository) -> None:
    """So that a server that lives through many versions does not grow."""
    models = Models(repository, EngineOptions(device="cpu"))
    models.load()
    statistics = Statistics(models)
    for number in range(3, 8):
        repository.publish("linear", make_artefact(offset_celsius=number))
        repository.set_label("linear", "stable", number)
        models.refresh()
        statistics.ran(models.catalogue.resolve("linear", None), 1, [0.5], TIMES)
    held = {(told.name, int(told.version)) for told in statistics.answer(pb.ModelStatisticsRequest()).model_stats}
    assert set(statistics._tables) <= held  # noqa: SLF001 - the bound is what is promised
