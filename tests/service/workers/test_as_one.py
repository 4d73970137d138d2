"""Several workers are one server: whatever one of them is asked or told, all do, and each tells of all."""

import contextlib
import os
import resource
import signal
from collections.abc import Iterator
from itertools import count
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from proto.inference.v2 import open_inference_pb2 as pb
from proto.inference.v2.open_inference_pb2_grpc import GRPCInferenceServiceStub
from proto.quicksilver.v1 import converter_pb2 as api
from proto.quicksilver.v1.converter_pb2_grpc import ConverterServiceStub
from proto.repository import Repository
from proto.upload import file_key
from service.logs import SWITCHES
from service.workers.supervisor import Supervisor
from tests.service.artefacts import exact_celsius, make_artefact
from tests.service.test_lifecycle_model import Expected
from tests.service.workers.test_supervisor import Scrape, pids, supervised
from tests.waiting import until

SECONDS = 60.0
FAHRENHEIT = 50.0
BROKEN = b"broken"
MAX_DEATHS = 2
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """`linear`, the exact law."""
    repository = Repository(tmp_path_factory.mktemp("models"))
    repository.publish("linear", make_artefact())
    return repository


@pytest.fixture(scope="module")
def supervisor(repository: Repository) -> Iterator[Supervisor]:
    """Two workers that load what they are told to; `linear` they load by themselves."""
    enabled = SWITCHES.enabled
    with supervised(repository, model_control="explicit", load_models="linear") as started:
        yield started
    SWITCHES.set(enabled)


class Worker:
    """A connection to one worker, and what can be asked of it."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._inference, self._converter = GRPCInferenceServiceStub(channel), ConverterServiceStub(channel)
        self._health = HealthStub(channel)

    def convert(self, model: str = "linear", *rows: float, **choice: Any) -> float | grpc.StatusCode:  # noqa: ANN401 - a version or a label
        """The first answer, in °C, or the code of a call that failed."""
        request = api.ConvertRequest(model=model, fahrenheit=rows or [FAHRENHEIT], **choice)
        try:
            return self._converter.Convert(request, timeout=SECONDS).celsius[0]
        except grpc.RpcError as error:
            return error.code()

    def load(self, name: str, content: bytes | None = None) -> None:
        """Load a model, or publish its next version and load it."""
        request = pb.RepositoryModelLoadRequest(model_name=name)
        if content is not None:
            request.parameters[file_key(None)].bytes_param = content
        self._inference.RepositoryModelLoad(request, timeout=SECONDS)

    def unload(self, name: str) -> None:
        """Unload a model."""
        self._inference.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name=name), timeout=SECONDS)

    def label(self, name: str, label: str, version: int | None) -> int:
        """Move a label, or roll it back; the version that it names then."""
        request = api.SetLabelRequest(model=name, label=label, previous=True)
        if version is not None:
            request.version = version
        return self._converter.SetLabel(request, timeout=SECONDS).version

    def statistics(self, name: str) -> pb.ModelStatistics:
        """What a model's one loaded version has done."""
        (told,) = self._inference.ModelStatistics(pb.ModelStatisticsRequest(name=name), timeout=SECONDS).model_stats
        return told

    def logs(self, **switches: bool) -> dict[str, bool]:
        """Change the log's switches, and read them back."""
        request = pb.LogSettingsRequest()
        for name, value in switches.items():
            request.settings[name].bool_param = value
        answer = self._inference.LogSettings(request, timeout=SECONDS).settings
        return {name: answer[name].bool_param for name in ("log_info", "log_warning", "log_error")}

    def model_ready(self, name: str, version: str = "") -> bool:
        """ModelReady."""
        return self._inference.ModelReady(pb.ModelReadyRequest(name=name, version=version), timeout=SECONDS).ready

    def health(self, name: str) -> int:
        """The status of a model, by a watch's first word, which knows unknown ones."""
        watch = self._health.Watch(health_pb2.HealthCheckRequest(service=f"models/{name}"), timeout=SECONDS)
        try:
            return int(next(watch).status)
        finally:
            watch.cancel()

    def watch(self, name: str) -> Iterator[int]:
        """The states of a model, as they come."""
        request = health_pb2.HealthCheckRequest(service=f"models/{name}")
        return (answer.status for answer in self._health.Watch(request, timeout=SECONDS))


@contextlib.contextmanager
def both(supervisor: Supervisor) -> Iterator[list[Worker]]:
    """A connection to each worker, by their places."""
    pids(supervisor)
    until(lambda: Scrape(supervisor.http_address).connections == [0, 0], "connections to be gone")
    with contextlib.ExitStack() as opened:
        workers, first_is_second = [], False
        for _ in range(2):
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = opened.enter_context(grpc.insecure_channel(supervisor.address, options))
            grpc.channel_ready_future(channel).result(SECONDS)
            workers.append(Worker(channel))
            taken = Scrape(supervisor.http_address).connections
            first_is_second = first_is_second or taken == [0, 1]
        assert taken == [1, 1]
        yield workers[::-1] if first_is_second else workers


def kill_one(supervisor: Supervisor, place: int = 0) -> None:
    """Kill a worker, and return when another has taken its place."""
    victim = pids(supervisor)[place]
    os.kill(victim, signal.SIGKILL)
    until(lambda: victim not in pids(supervisor), "another worker")


@contextlib.contextmanager
def out_of_descriptors(process: int) -> Iterator[None]:
    """Let a process open no file: what it has it keeps."""
    before = resource.prlimit(process, resource.RLIMIT_NOFILE)
    resource.prlimit(process, resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.prlimit(process, resource.RLIMIT_NOFILE, before)


def test_statistics_are_those_of_all(supervisor: Supervisor, repository: Repository) -> None:
    """Whichever worker is asked, it tells the calls, runs, rows and sizes of all, and of one that was killed since.

    A worker keeps its books after its answers went out: another that is asked at that very instant may be told before.
    """

    def told_of(worker: Worker) -> tuple[int, int]:
        stats = worker.statistics("counted").inference_stats
        return stats.success.count, stats.fail.count

    repository.publish("counted", make_artefact())
    with both(supervisor) as workers:
        workers[0].load("counted")
        for worker, calls in zip(workers, (2, 3), strict=True):
            for _ in range(calls):
                worker.convert("counted", *range(calls))
        assert workers[0].convert("counted", -500.0) is grpc.StatusCode.INVALID_ARGUMENT
        until(lambda: told_of(workers[0]) == told_of(workers[1]) == (5, 1), "both to tell of all calls")
        told = [worker.statistics("counted") for worker in workers]
        assert told[0] == told[1]
        stats = told[0].inference_stats
        assert (told[0].inference_count, told[0].execution_count) == (2 * 2 + 3 * 3, 5)
        assert (stats.success.count, stats.fail.count, stats.compute_infer.count) == (5, 1, 5)
        assert [(size.batch_size, size.compute_infer.count) for size in told[0].batch_stats] == [(2, 2), (3, 3)]
        assert sum(size.compute_infer.ns for size in told[0].batch_stats) == pytest.approx(
            stats.compute_infer.ns, abs=10
        )
    kill_one(supervisor)
    with both(supervisor) as workers:
        assert [worker.statistics("counted") for worker in workers] == told
        workers[0].convert("counted")
        until(lambda: told_of(workers[1]) == (6, 1), "one to tell of the other's call")


def test_log_settings_are_those_of_all(supervisor: Supervisor) -> None:
    """What is switched at one worker is switched at all, in their parent, and in one that comes later."""
    with both(supervisor) as workers:
        assert workers[0].logs(log_info=False, log_warning=False)["log_info"] is False
        assert workers[1].logs() == {"log_info": False, "log_warning": False, "log_error": True}
        workers[1].logs(log_warning=True)
        assert workers[0].logs() == {"log_info": False, "log_warning": True, "log_error": True}
        assert (SWITCHES.enabled["info"], SWITCHES.enabled["warning"]) == (False, True)
    kill_one(supervisor)
    with both(supervisor) as workers:
        for worker in workers:
            assert worker.logs() == {"log_info": False, "log_warning": True, "log_error": True}
        workers[0].logs(log_info=True)


def test_a_load_that_fails_in_one_worker_is_told(supervisor: Supervisor, repository: Repository) -> None:
    """The caller learns which and why; health and readiness say no on every connection, until it is asked again."""
    repository.publish("halfway", make_artefact())
    second = pids(supervisor)[1]
    with both(supervisor) as workers:
        until(lambda: [worker.health("halfway") for worker in workers] == [NOT_SERVING] * 2, "both to see the model")
        watch = workers[0].watch("halfway")
        assert next(watch) == NOT_SERVING
        with out_of_descriptors(second):
            with pytest.raises(grpc.RpcError, match=r"worker 1: .*Too many open files") as caught:
                workers[0].load("halfway")
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert workers[0].convert("halfway") == pytest.approx(exact_celsius(FAHRENHEIT))
        assert [worker.health("halfway") for worker in workers] == [NOT_SERVING, NOT_SERVING]
        assert [worker.model_ready("halfway") for worker in workers] == [False, False]
        workers[0].load("halfway")
        assert [worker.health("halfway") for worker in workers] == [SERVING, SERVING]
        assert [worker.model_ready("halfway", version) for worker in workers for version in ("", "1", "stable")] == [
            True
        ] * 6
        assert workers[0].model_ready("halfway", "2") is False
        assert next(watch) == SERVING  # and never before
        workers[1].unload("halfway")
        assert next(watch) == NOT_SERVING
        assert [worker.health("halfway") for worker in workers] == [NOT_SERVING, NOT_SERVING]


def test_one_that_comes_later_does_not_see_another_repository(supervisor: Supervisor, repository: Repository) -> None:
    """What changed on disk since the last load takes effect in all workers when one comes, or in none."""
    repository.publish("changed", make_artefact())
    with both(supervisor) as workers:
        workers[0].load("changed")
        repository.publish("changed", make_artefact(offset_celsius=2.0))
        repository.set_label("changed", "stable", 2)
        assert [worker.convert("changed") for worker in workers] == [pytest.approx(exact_celsius(FAHRENHEIT))] * 2
    kill_one(supervisor, 1)
    with both(supervisor) as workers:
        for choice in ({}, {"version": 2}, {"label": "stable"}):
            answers = [worker.convert("changed", **choice) for worker in workers]
            assert answers == [pytest.approx(exact_celsius(FAHRENHEIT) + 2.0)] * 2
        assert [worker.model_ready("changed", "1") for worker in workers] == [False, False]


class Lifecycle(RuleBasedStateMachine):
    """One model behind two workers, beside what should be true of it; either worker may be asked, or killed."""

    numbers = count(1)
    deaths = 0
    """Of all examples together: each costs the start of a process."""

    def __init__(self, supervisor: Supervisor, repository: Repository) -> None:
        super().__init__()
        self.supervisor, self.repository = supervisor, repository
        self.name = f"model-{next(self.numbers)}"
        self.expected = Expected()
        self.exit = contextlib.ExitStack()
        self.workers = self.exit.enter_context(both(supervisor))

    def teardown(self) -> None:
        """Leave nothing loaded, and no connection."""
        if self.expected.told:
            self.workers[0].unload(self.name)
        self.exit.close()

    @rule(asked=st.integers(0, 1), works=st.sampled_from([True, True, False]))
    def send(self, asked: int, *, works: bool) -> None:
        """A retraining job sends a version."""
        number = self.expected.greatest + 1
        content = make_artefact(offset_celsius=number) if works else BROKEN
        if not works:
            with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT"):
                self.workers[asked].load(self.name, content)
            return
        self.workers[asked].load(self.name, content)
        if not self.expected.labels:
            self.expected.move("stable", number)
        self.expected.disk[number], self.expected.greatest = float(number), number
        self.follow()

    @precondition(lambda self: self.expected.disk)
    @rule(asked=st.integers(0, 1))
    def load(self, asked: int) -> None:
        """A caller asks for a load."""
        self.workers[asked].load(self.name)
        self.follow()

    @precondition(lambda self: self.expected.told)
    @rule(asked=st.integers(0, 1))
    def unload(self, asked: int) -> None:
        """A caller asks for an unload."""
        self.workers[asked].unload(self.name)
        self.expected.memory, self.expected.in_effect, self.expected.told = {}, {}, False

    @precondition(lambda self: self.expected.disk)
    @rule(asked=st.integers(0, 1), label=st.sampled_from(["stable", "canary"]), data=st.data())
    def label(self, asked: int, label: str, data: st.DataObject) -> None:
        """Somebody moves a label."""
        version = data.draw(st.integers(1, self.expected.greatest))
        assert self.workers[asked].label(self.name, label, version) == version
        self.expected.move(label, version)
        if self.expected.told:
            self.follow()

    @precondition(lambda self: self.expected.target_of_rollback("stable") is not None)
    @rule(asked=st.integers(0, 1))
    def roll_back(self, asked: int) -> None:
        """Somebody takes the last move of a label back."""
        target = self.expected.target_of_rollback("stable")
        assert self.workers[asked].label(self.name, "stable", None) == target
        history = self.expected.history["stable"]
        while history.pop() != target:
            pass
        assert target is not None
        self.expected.labels["stable"] = target
        if self.expected.told:
            self.follow()

    @precondition(lambda self: self.expected.disk and Lifecycle.deaths < MAX_DEATHS)
    @rule(place=st.integers(0, 1))
    def kill(self, place: int) -> None:
        """A worker dies, and another comes."""
        Lifecycle.deaths += 1
        self.exit.close()
        kill_one(self.supervisor, place)
        self.workers = self.exit.enter_context(both(self.supervisor))

    def follow(self) -> None:
        """What is loaded is what the disk says."""
        self.expected.told = True
        self.expected.follow(latest=1)

    @invariant()
    def all_answer_alike(self) -> None:
        """Every version and label answers as it should on each worker, and is said to be ready where it does."""
        known = {str(version): self.expected.memory.get(version) for version in range(1, self.expected.greatest + 2)}
        known |= {label: self.expected.memory.get(target) for label, target in self.expected.in_effect.items()}
        known |= {"": self.expected.memory.get(self.expected.in_effect.get("stable", 0))}
        for worker in self.workers:
            for named, offset in known.items():
                self.check(worker, named, offset)

    def check(self, worker: Worker, named: str, offset: float | None) -> None:
        """A version or label answers with an offset, or not at all where there is none."""
        choice: dict[str, Any] = {"version": int(named)} if named.isdigit() else {"label": named} if named else {}
        answer = worker.convert(self.name, **choice)
        assert worker.model_ready(self.name, named) is (offset is not None)
        if offset is None:
            assert answer in {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE}
        else:
            assert answer == pytest.approx(exact_celsius(FAHRENHEIT) + offset, abs=1e-3)


@pytest.mark.timeout(600)  # seconds on two quiet cores; starts of processes on busy ones are minutes
def test_the_lifecycle_holds_over_all_workers(supervisor: Supervisor, repository: Repository) -> None:
    """Any order of sends, loads, unloads, labels, rollbacks and deaths leaves every worker with the same answers."""

    class OverThese(Lifecycle):
        def __init__(self) -> None:
            super().__init__(supervisor, repository)

    run_state_machine_as_test(OverThese, settings=settings(max_examples=4, stateful_step_count=12, deadline=None))
