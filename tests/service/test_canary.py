"""What canaries get of a burst, and that nobody who did not ask for one is the worse for it."""

import math
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.inference.v2 import open_inference_pb2 as pb
from proto.quicksilver.v1 import converter_pb2 as api
from proto.repository import Repository
from proto.traffic import NO_TRAFFIC, CanaryTraffic, is_for_canary, place_of_id
from service.calls import Request
from service.canary import REQUEST_ID_KEY, Canaries
from service.codec import ConvertCodec
from service.dataplane import Dataplane
from service.engine import EngineOptions
from service.errors import CancelledError, ExpiredError, InvalidRequestError, OutsideDomainError, ServiceError
from service.models import Models, VersionPolicy
from service.open_inference.infer import InferCodec
from service.runs import BatchLimits
from service.shadow import Shadow, ShadowLimits
from service.snapshot import FAMILIES, Distribution, Labels
from tests.service.artefacts import describe, exact_celsius, make_artefact, make_fragile, make_slow, make_softmax
from tests.service.test_dataplane import NOW, Runs
from tests.waiting import until

TIMEOUT_SECONDS = 30
OFFSETS = {1: 0.0, 2: 5.0}
HALF = CanaryTraffic(share=0.5)
SHADOW = CanaryTraffic(shadow=True)
FRAGILE_ABOVE = 300.0
QUICK = ShadowLimits(time_share=1.0, gather_seconds=0.0)


def load(repository: Repository) -> Models:
    """The models of a repository."""
    models = Models(repository, EngineOptions(device="cpu"), policy=VersionPolicy(), default_model="linear")
    models.load()
    return models


def tried(root: Path, canary: bytes, traffic: CanaryTraffic = HALF, stable: bytes | None = None) -> Repository:
    """A model whose stable version follows the law, with a canary."""
    repository = Repository(root)
    repository.publish("linear", stable or make_artefact())
    repository.publish("linear", canary)
    repository.set_label("linear", "canary", 2)
    repository.set_canary_traffic("linear", traffic)
    return repository


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """`linear` 1 is stable; 2, five degrees warmer, answers half of the requests, and fails above 300 °F."""
    root = tmp_path_factory.mktemp("tried") / "models"
    return load(tried(root, make_fragile(FRAGILE_ABOVE, offset_celsius=OFFSETS[2])))


class Plane:
    """A dataplane with canaries, and what they count."""

    def __init__(self, models: Models, limits: ShadowLimits = QUICK) -> None:
        self.runs = Runs()
        self.shadow = Shadow(limits)
        self.canaries = Canaries(models, self.shadow)
        batches = BatchLimits(max_rows_per_request=5000, max_batch_rows=20, solo_rows=12)
        self.dataplane = Dataplane(models, self.runs, batches, clock=lambda: NOW, canaries=self.canaries)

    def answer(self, requests: list[Request]) -> None:
        """Answer a burst as a front does: then each reply is called."""
        self.dataplane.answer(requests)
        self.deliver(requests)

    def deliver(self, requests: list[Request]) -> None:
        """Give the answers, and say so."""
        for request in requests:
            request.deliver()
        self.dataplane.delivered(requests)

    def counted(self, family: str, *labels: str) -> Any:  # noqa: ANN401 - a number, or a Distribution
        """What one series stands at."""
        numbers: dict[str, dict[Labels, float]] = {name: {} for name in FAMILIES}
        distributions: dict[str, dict[Labels, Distribution]] = {name: {} for name in FAMILIES}
        self.canaries.add_to(numbers, distributions)
        name = f"quicksilver_{family}"
        return distributions[name].get(labels) or numbers[name].get(labels, 0)

    def wait_for_shadow(self, rows: int, version: str = "2") -> None:
        """Wait until a version has run so many rows in the shadow."""
        until(lambda: self.counted("shadow_rows", "linear", version) == rows, f"row {rows} in the shadow")


def convert(*fahrenheit: float, request_id: str = "", metadata_id: str | None = None, **options: Any) -> Request:  # noqa: ANN401 - any field
    """A Convert request."""
    body = api.ConvertRequest(fahrenheit=fahrenheit, request_id=request_id, **options).SerializeToString()
    metadata = [] if metadata_id is None else [(REQUEST_ID_KEY, metadata_id)]
    return Request(ConvertCodec(), body, lambda _: None, NOW - 0.5, metadata=metadata)


CODEC = ConvertCodec()
INFER_CODEC = InferCodec()


def infer(*fahrenheit: float, request_id: str = "", metadata_id: str | None = None) -> Request:
    """A ModelInfer request; those of one id differ in their values alone."""
    message = pb.ModelInferRequest(model_name="linear", id=request_id)
    message.inputs.add(name="fahrenheit", datatype="FP32", shape=[len(fahrenheit), 1])
    message.raw_input_contents.append(np.array(fahrenheit, "<f4").tobytes())
    metadata = [] if metadata_id is None else [(REQUEST_ID_KEY, metadata_id)]
    return Request(INFER_CODEC, message.SerializeToString(), lambda _: None, NOW - 0.5, metadata=metadata)


def answer_of(request: Request) -> tuple[int, list[float]]:
    """Which version a request's answer names, and its numbers."""
    assert request.outcome is not None
    assert not isinstance(request.outcome, ServiceError), request.outcome.message
    body = b"".join(request.outcome)
    if isinstance(request.codec, InferCodec):
        inferred = pb.ModelInferResponse.FromString(body)
        return int(inferred.model_version), np.frombuffer(inferred.raw_output_contents[0], "<f4").tolist()
    converted = api.ConvertResponse.FromString(body)
    return converted.version, list(converted.celsius)


def check(request: Request, fahrenheit: tuple[float, ...]) -> int:
    """Check that an answer is what the version that it names gives, and return that."""
    version, celsius = answer_of(request)
    assert celsius == pytest.approx([exact_celsius(value) + OFFSETS[version] for value in fahrenheit], abs=1e-3)
    return version


ROWS = st.lists(st.sampled_from([-40.0, 50.0, 77.5, 212.0, 301.0]), min_size=1, max_size=13).map(tuple)
IDS = st.sampled_from(["", "", "a", "b", "kelvin"])


@given(st.lists(st.tuples(st.sampled_from([convert, infer]), ROWS, IDS, IDS, st.integers(1, 6)), max_size=12))
def test_every_call_of_any_burst_is_answered_by_the_version_it_names(
    models: Models, asked: list[tuple[Callable[..., Request], tuple[float, ...], str, str, int]]
) -> None:
    """Each call has its own rows back, from the version that its id says, or the stable one where the canary fails."""
    calls = [
        (make(*rows, request_id=request_id, metadata_id=metadata_id), rows, request_id or metadata_id)
        for make, rows, request_id, metadata_id, copies in asked
        for _ in range(copies)
    ]
    Plane(models).answer([request for request, _, _ in calls])
    for request, rows, request_id in calls:
        version = check(request, rows)
        if max(rows) > FRAGILE_ABOVE:
            assert version == 1
        elif request_id:
            assert (version == 2) == is_for_canary(place_of_id(request_id.encode(), b"linear/2"), 0.5)


def test_each_of_many_like_calls_goes_where_its_own_id_says(models: Models) -> None:
    """Also where they differ in nothing but their ids, and so share a query."""
    ids = [f"{number:04}" for number in range(40)]
    requests = [infer(50.0, request_id=each) for each in ids]
    Plane(models).answer(requests)
    versions = [check(request, (50.0,)) for request in requests]
    assert versions == [2 if is_for_canary(place_of_id(each.encode(), b"linear/2"), 0.5) else 1 for each in ids]
    assert set(versions) == {1, 2}


def test_a_request_that_names_a_version_gets_it(models: Models) -> None:
    """The rule concerns those alone that leave the choice to the server."""
    requests = [convert(50.0, request_id=str(number), version=1) for number in range(20)]
    requests += [convert(50.0, request_id=str(number), label="stable") for number in range(20)]
    Plane(models).answer(requests)
    assert {check(request, (50.0,)) for request in requests} == {1}


def test_the_share_of_requests_without_an_id_is_met_at_once(models: Models) -> None:
    """They are counted, so that of 100 calls 50 go to the canary, give or take one, whether they are alike or not."""
    for make in (convert, infer):
        plane = Plane(models)
        requests = [make(50.0) for _ in range(100)]
        plane.answer(requests[:60])
        for request in requests[60:]:
            plane.answer([request])
        versions = Counter(check(request, (50.0,)) for request in requests)
        assert abs(versions[2] - 50) <= 1
        assert plane.counted("canary_calls", "linear", "2") == versions[2]
        assert plane.counted("canary_fallback_calls", "linear", "2") == 0


def test_what_a_canary_fails_is_answered_by_the_stable_version(
    models: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    """Callers that did not ask for it see nothing of its faults; they are counted, and logged where they are faults."""
    plane = Plane(models)
    requests = [infer(FRAGILE_ABOVE + 1) for _ in range(40)]
    plane.answer(requests)
    assert {check(request, (FRAGILE_ABOVE + 1,)) for request in requests} == {1}
    assert abs(plane.counted("canary_fallback_calls", "linear", "2") - 20) <= 1
    asked = convert(FRAGILE_ABOVE + 1, version=2)
    plane.answer([asked])
    assert isinstance(asked.outcome, ServiceError), "who asks for the canary is told of its faults"
    assert "secret" not in capsys.readouterr().out


def test_a_caller_s_own_error_is_the_same_with_a_canary(models: Models) -> None:
    """What the stable version refuses as well is refused; nobody's rows are hidden behind the canary's."""
    plane = Plane(models)
    requests = [convert(math.nan, request_id=str(number)) for number in range(20)]
    plane.answer(requests)
    assert all(isinstance(request.outcome, InvalidRequestError) for request in requests)
    assert {str(request.outcome) for request in requests} == {"fahrenheit[0]: nan is not a temperature"}
    assert plane.counted("canary_fallback_calls", "linear", "2") == 0


def test_nothing_is_run_again_for_callers_that_left(models: Models) -> None:
    """A call that was cancelled, or whose deadline passed, between its canary's run and the stable one's is dropped."""
    plane = Plane(models)
    runs = plane.dataplane.plan([convert(50.0, request_id=str(number)) for number in range(40)])
    requests = [request for run in runs for request in run.requests]
    for request in requests[::2]:
        request.cancelled = True
    for request in requests[1::2]:
        request.deadline_seconds = NOW - 1
    for run in runs:
        plane.dataplane.execute(run)
    assert {type(request.outcome) for request in requests} == {CancelledError, ExpiredError}
    assert plane.runs.rows == []


def test_a_canary_that_cannot_give_what_is_asked_for_is_not_asked(tmp_path: Path) -> None:
    """Requests for an interval that it does not state, or outside its narrower domain, go to the stable version."""
    narrow = describe(interval=False)
    column = replace(narrow.columns[0], minimum=60.0)
    canary = make_artefact(replace(narrow, columns=(column,)), offset_celsius=OFFSETS[2])
    plane = Plane(load(tried(tmp_path / "models", canary, CanaryTraffic(share=1.0))))
    with_interval, rejecting = convert(50.0, interval=True), convert(50.0, on_extrapolation=api.ON_EXTRAPOLATION_REJECT)
    outside = convert(90.0, on_extrapolation=api.ON_EXTRAPOLATION_REJECT)
    plane.answer([with_interval, rejecting, outside])
    assert check(with_interval, (50.0,)) == 1
    assert check(rejecting, (50.0,)) == 1
    assert isinstance(outside.outcome, OutsideDomainError)
    assert "linear/1" in outside.outcome.message


def test_a_canary_whose_rows_depend_on_each_other_answers_each_call_alone(tmp_path: Path) -> None:
    """Calls that came alike and were read as one are parted for it."""
    plane = Plane(load(tried(tmp_path / "models", make_softmax(), CanaryTraffic(share=1.0))))
    requests = [infer(50.0, 51.0) for _ in range(8)]
    plane.answer(requests)
    assert all(answer_of(request)[0] == 2 for request in requests)
    assert all(sum(answer_of(request)[1]) == pytest.approx(1.0) for request in requests)


@pytest.mark.parametrize("case", ["off", "broken", "the same", "of another shape", "unlabelled"])
def test_without_a_canary_that_can_take_their_place_all_go_to_the_stable_version(tmp_path: Path, case: str) -> None:
    """No rule, a canary that does not load, one that is the stable version, or that takes something else: no trial."""
    from tests.service.open_inference.graphs import double  # noqa: PLC0415 - a graph of another interface

    content = {"broken": b"broken", "of another shape": double()}.get(case, make_artefact(offset_celsius=5))
    repository = tried(tmp_path / "models", content, CanaryTraffic(share=1.0))
    if case == "off":
        repository.set_canary_traffic("linear", NO_TRAFFIC)
    elif case == "the same":
        repository.set_label("linear", "canary", 1)
    elif case == "unlabelled":
        repository.remove_label("linear", "canary")
    models = load(repository)
    assert not models.catalogue.trials
    requests = [convert(50.0) for _ in range(8)]
    Plane(models).answer(requests)
    assert {check(request, (50.0,)) for request in requests} == {1}


def test_the_rule_follows_the_repository(tmp_path: Path) -> None:
    """Each look takes over the share, as labels do; a file of labels that cannot be read leaves it as it was."""
    repository = tried(tmp_path / "models", make_artefact(offset_celsius=5))
    models = load(repository)
    for traffic in (CanaryTraffic(share=0.25), SHADOW):
        repository.set_canary_traffic("linear", traffic)
        models.refresh()
        (trial,) = models.catalogue.trials.values()
        assert trial.traffic == traffic
    labels = repository.root / "linear" / "labels.json"
    text = labels.read_text()
    labels.write_text(text[:-10])
    models.refresh()
    assert len(models.catalogue.trials) == 1
    labels.write_text(text)
    repository.promote_canary("linear", 2, 1)
    models.refresh()
    assert not models.catalogue.trials
    assert str(models.catalogue.resolve("linear", None)) == "linear/2"
    assert Plane(models).counted("promotions", "linear") == 1


# The shadow -----------------------------------------------------------------------------------------------------------


def test_the_shadow_runs_the_same_rows_and_measures_the_difference(tmp_path: Path) -> None:
    """Every row of requests that name no version; callers get the stable version's answers."""
    plane = Plane(load(tried(tmp_path / "models", make_artefact(offset_celsius=5), SHADOW)))
    requests = [infer(50.0) for _ in range(30)] + [convert(60.0, 70.0), convert(80.0, version=1)]
    plane.answer(requests)
    assert [check(request, (50.0,)) for request in requests[:30]] == [1] * 30
    plane.wait_for_shadow(32)
    measured = plane.counted("shadow_difference_celsius", "linear", "2")
    assert sum(measured.counts) == 32
    assert measured.total == pytest.approx(32 * 5, abs=0.01)
    assert plane.counted("shadow_failed_rows", "linear", "2") == 0
    assert plane.counted("canary_calls", "linear", "2") == 0
    plane.canaries.stop()


def test_copies_run_only_after_the_answer_is_given(tmp_path: Path) -> None:
    """Nothing waits for the shadow, and it waits for the reply: without one there is no copy."""
    plane = Plane(load(tried(tmp_path / "models", make_artefact(offset_celsius=5), SHADOW)))
    request = convert(50.0)
    plane.dataplane.answer([request])
    assert plane.shadow.waiting_bytes == 0, "nothing was offered"
    assert plane.counted("shadow_rows", "linear", "2") == 0
    plane.deliver([request])
    plane.wait_for_shadow(1)
    plane.canaries.stop()


def test_a_canary_that_fails_in_the_shadow_harms_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its rows are counted as failed, the log says why once, and it goes on with the next ones."""
    plane = Plane(load(tried(tmp_path / "models", make_fragile(FRAGILE_ABOVE), SHADOW)))
    for fahrenheit in (FRAGILE_ABOVE + 1, FRAGILE_ABOVE + 1, 50.0):
        before = plane.counted("shadow_rows", "linear", "2")
        request = convert(fahrenheit)
        plane.answer([request])
        assert check(request, (fahrenheit,)) == 1
        plane.wait_for_shadow(before + 1)
    assert plane.counted("shadow_failed_rows", "linear", "2") == 2
    assert capsys.readouterr().out.count("canary failed in the shadow") == 1
    plane.canaries.stop()


def test_copies_that_are_too_many_are_dropped_and_counted(tmp_path: Path) -> None:
    """A canary too slow for the traffic runs what it can: each row is run or dropped, and the queue keeps its bound."""
    models = load(tried(tmp_path / "models", make_slow(), SHADOW))
    plane = Plane(models, ShadowLimits(queue_bytes=4000, gather_seconds=0.0))
    threads = threading.active_count()
    for _ in range(60):
        requests = [convert(*[50.0] * 10) for _ in range(10)]
        plane.answer(requests)
        assert {check(request, (50.0,) * 10) for request in requests} == {1}
        assert plane.shadow.waiting_bytes <= 4000

    def all_told() -> bool:
        ran, dropped = plane.counted("shadow_rows", "linear", "2"), plane.counted("shadow_dropped_rows", "linear")
        return bool(ran + dropped == 6000 and ran and dropped)

    until(all_told, "every row to be run or dropped")
    assert threading.active_count() <= threads + 1
    plane.canaries.stop()


def test_without_a_thread_for_the_shadow_callers_are_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the process can have no further thread copies are dropped and counted; where it can again they run."""
    plane = Plane(load(tried(tmp_path / "models", make_artefact(offset_celsius=5), SHADOW)))

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    request = convert(50.0, 60.0)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        plane.answer([request])
    assert check(request, (50.0, 60.0)) == 1
    assert plane.counted("shadow_dropped_rows", "linear") == 2
    plane.answer([convert(50.0)])
    plane.wait_for_shadow(1)
    plane.canaries.stop()


def test_what_was_counted_of_a_version_goes_with_it(tmp_path: Path) -> None:
    """Series of versions that are gone are removed; a copy that was under way makes no new ones."""
    repository = tried(tmp_path / "models", make_artefact(offset_celsius=5), SHADOW)
    models = load(repository)
    plane = Plane(models)
    models.subscribe(plane.canaries.forget_retired)
    plane.answer([convert(50.0)])
    plane.wait_for_shadow(1)
    late = convert(50.0)
    plane.dataplane.answer([late])
    repository.publish("linear", make_artefact(offset_celsius=7))
    repository.set_label("linear", "canary", 3)
    repository.remove("linear", 2)
    models.refresh()
    plane.deliver([late])
    assert plane.counted("shadow_rows", "linear", "2") == 0
    plane.answer([convert(50.0)])
    plane.wait_for_shadow(1, "3")
    assert plane.counted("shadow_rows", "linear", "2") == 0
    plane.canaries.stop()
