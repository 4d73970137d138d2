"""A shared run that fails: its calls are run alone, and each fails or not for reasons of its own."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.quicksilver.v1 import converter_pb2 as api
from proto.repository import Repository
from service.calls import Request
from service.codec import ConvertCodec
from service.dataplane import FAULTS_ALONE, Dataplane
from service.engine import EngineOptions, InputsRefusedError
from service.errors import InternalError, InvalidRequestError, ServiceError
from service.models import LoadedVersion, Models
from service.run_observers import RunTimes
from tests.service.artefacts import exact_celsius, make_artefact


class Kept:
    """Keeps what the dataplane tells of runs and failures."""

    def __init__(self) -> None:
        self.answered = 0
        self.failures = 0

    def ran(self, version: LoadedVersion, rows: int, answered_seconds: Sequence[float], times: RunTimes) -> None:
        """Keep a run."""
        assert rows >= len(answered_seconds)
        assert str(version) == "linear/1"
        assert min(times.queue_seconds, times.join_seconds, times.inference_seconds, times.encode_seconds) >= 0
        self.answered += len(answered_seconds)

    def failed(self, version: LoadedVersion, seconds: Sequence[float]) -> None:
        """Keep failures."""
        assert str(version) == "linear/1"
        self.failures += len(seconds)


class Unobserved:
    """Keeps nothing."""

    def ran(self, *_: object) -> None:
        """Keep nothing."""


@pytest.fixture
def models(tmp_path: Path) -> Models:
    """One converter."""
    repository = Repository(tmp_path)
    repository.publish("linear", make_artefact())
    models = Models(repository, EngineOptions(device="cpu"))
    models.load()
    return models


def _answer(models: Models, values: Sequence[float], kept: Kept) -> list[Request]:
    bodies = [api.ConvertRequest(model="linear", fahrenheit=[value]).SerializeToString() for value in values]
    requests = [Request(ConvertCodec(), body, lambda _: None, 0.0, math.inf) for body in bodies]
    Dataplane(models, Unobserved(), statistics=kept).answer(requests)
    return requests


def _poison(models: Models, monkeypatch: pytest.MonkeyPatch, poison: float, fault: Exception) -> list[int]:
    """Let every run fail that holds a value; return the list that the sizes of runs are put on."""
    engine = models.catalogue.resolve("linear", None).engine
    run, sizes = engine.run, list[int]()

    def poisoned(tensors: Sequence[Any]) -> list[Any]:
        sizes.append(len(tensors[0]))
        if (tensors[0] == np.float32(poison)).any():
            raise fault
        return run(tensors)

    monkeypatch.setattr(engine, "run", poisoned)
    return sizes


@given(values=st.lists(st.sampled_from([32.0, 50.0, 66.0, 68.0]), min_size=1, max_size=12))
def test_every_call_has_its_own_outcome(tmp_path_factory: pytest.TempPathFactory, values: list[float]) -> None:
    """Whoever's rows are refused fails; everybody else is answered, and all of it is counted once."""
    repository = Repository(tmp_path_factory.mktemp("models"))
    repository.publish("linear", make_artefact())
    models, kept = Models(repository, EngineOptions(device="cpu")), Kept()
    models.load()
    with pytest.MonkeyPatch.context() as monkeypatch:
        _poison(models, monkeypatch, 66.0, InputsRefusedError("66 is refused"))
        requests = _answer(models, values, kept)
    for value, request in zip(values, requests, strict=True):
        if value == 66.0:
            assert isinstance(request.outcome, InvalidRequestError)
            assert request.outcome.message == "inputs: 66 is refused"
        else:
            assert request.outcome is not None
            assert not isinstance(request.outcome, ServiceError)
            answer = api.ConvertResponse.FromString(b"".join(map(bytes, request.outcome)))
            assert list(answer.celsius) == pytest.approx([exact_celsius(value)], abs=1e-4)
    assert (kept.failures, kept.answered) == (values.count(66.0), len(values) - values.count(66.0))


def test_a_fault_of_one_call_is_its_own(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where ONNX Runtime does not say that the rows are to blame."""
    sizes = _poison(models, monkeypatch, 66.0, RuntimeError("no kernel"))
    requests = _answer(models, [50.0, 66.0, 68.0], Kept())
    assert [isinstance(request.outcome, InternalError) for request in requests] == [False, True, False]
    assert sizes == [3, 1, 1, 1]


def test_where_nothing_runs_not_every_call_is_tried(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken device costs a few runs, not one for each call; all calls learn of it."""
    sizes = _poison(models, monkeypatch, 50.0, RuntimeError("the device is gone"))
    kept = Kept()
    requests = _answer(models, [50.0] * 20, kept)
    assert all(isinstance(request.outcome, InternalError) for request in requests)
    assert sizes == [20] + [1] * FAULTS_ALONE
    assert (kept.failures, kept.answered) == (20, 0)
