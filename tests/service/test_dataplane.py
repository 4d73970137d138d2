"""Bursts: every call is answered once, with its own rows, whoever else is in the burst."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.quicksilver.v1 import converter_pb2 as api
from proto.repository import Repository
from service.calls import Body, Request
from service.codec import ConvertCodec
from service.dataplane import Dataplane
from service.engine import EngineOptions
from service.errors import (
    CancelledError,
    ExpiredError,
    InternalError,
    InvalidRequestError,
    MalformedError,
    OutsideDomainError,
    ServiceError,
    UnknownModelError,
    UnsupportedError,
)
from service.models import LoadedVersion, Models, VersionPolicy
from service.query import Answer, ConvertQuery, Query
from service.rows import join
from service.run_observers import Served
from service.runs import BatchLimits, Bound, Run, group
from tests.service.artefacts import DOMAIN, exact_celsius, make_artefact, make_plain, make_softmax

NOW = 1000.0
LIMITS = BatchLimits(max_rows_per_request=50, max_batch_rows=20, solo_rows=12)


@dataclass
class Runs:
    """Keeps what the dataplane tells of its runs."""

    rows: list[int] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)

    def ran(
        self,
        version: LoadedVersion,
        rows: int,
        queue_seconds: Sequence[float],
        inference_seconds: float,
        served: Served,
    ) -> None:
        """Keep one run."""
        assert inference_seconds >= 0
        assert [len(array) for arrays in served for array in arrays] == [rows] * 2
        self.versions.append(str(version))
        self.rows.append(rows)
        self.calls.append(len(queue_seconds))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """`linear` in two versions, a plain converter, and a model whose rows depend on each other."""
    repository = Repository(Path(tmp_path_factory.mktemp("models")))
    repository.publish("linear", make_artefact())
    repository.publish("linear", make_artefact(offset_celsius=5.0))
    repository.publish("plain", make_plain())
    repository.publish("softmax", make_softmax())
    models = Models(repository, EngineOptions(device="cpu"), policy=VersionPolicy(), default_model="linear")
    models.load()
    return models


def _dataplane(models: Models, runs: Runs | None = None, limits: BatchLimits = LIMITS) -> Dataplane:
    return Dataplane(models, runs or Runs(), limits, clock=lambda: NOW)


def _request(body: bytes, *, deadline: float = math.inf, cancelled: bool = False) -> Request:
    return Request(ConvertCodec(), body, lambda _: None, NOW - 0.5, deadline, cancelled=cancelled)


def _convert(*fahrenheit: float, **options: object) -> bytes:
    return api.ConvertRequest(fahrenheit=fahrenheit, **options).SerializeToString()  # type: ignore[arg-type] # any field


def _parsed(outcome: Body | ServiceError | None) -> api.ConvertResponse:
    assert outcome is not None
    assert not isinstance(outcome, ServiceError), outcome
    return api.ConvertResponse.FromString(b"".join(outcome))


@st.composite
def calls(draw: st.DrawFn) -> tuple[bytes, float, bool, type[ServiceError] | None, tuple[str, int]]:
    """A call of any kind, the error it must end with, and the version that answers it where it ends well."""
    fahrenheit = draw(st.lists(st.floats(22, 81, width=32), min_size=1, max_size=30))
    model, version = draw(st.sampled_from([("linear", 1), ("linear", 2), ("plain", 1)]))
    good = (_convert(*fahrenheit, model=model, version=version), math.inf, False, None, (model, version))
    bad = st.sampled_from(
        [
            (b"\xff", math.inf, False, MalformedError, ("", 0)),
            (_convert(), math.inf, False, InvalidRequestError, ("", 0)),
            (_convert(50.0, math.nan), math.inf, False, InvalidRequestError, ("", 0)),
            (_convert(*[1.0] * 51), math.inf, False, InvalidRequestError, ("", 0)),
            (_convert(50.0, model="absent"), math.inf, False, UnknownModelError, ("", 0)),
            (_convert(50.0, 500.0, on_extrapolation=2), math.inf, False, OutsideDomainError, ("", 0)),
            (_convert(50.0, model="plain", interval=True), math.inf, False, UnsupportedError, ("", 0)),
            (_convert(50.0), NOW, False, ExpiredError, ("", 0)),
            (_convert(50.0), math.inf, True, CancelledError, ("", 0)),
        ]
    )
    return draw(st.one_of(st.just(good), st.just(good), bad))


@given(burst=st.lists(calls(), max_size=25))
def test_every_call_gets_its_own_answer_or_its_own_error(
    models: Models, burst: list[tuple[bytes, float, bool, type[ServiceError] | None, tuple[str, int]]]
) -> None:
    """Whatever is in a burst, each call ends once, as it would have ended alone, to the bit."""
    runs = Runs()
    requests = [_request(body, deadline=deadline, cancelled=cancelled) for body, deadline, cancelled, _, _ in burst]
    _dataplane(models, runs).answer(requests)
    answered_rows = 0
    for request, (body, _, _, error, version) in zip(requests, burst, strict=True):
        if error is not None:
            assert type(request.outcome) is error
            continue
        answer = _parsed(request.outcome)
        assert (answer.model, answer.version) == version
        alone = _request(body)
        _dataplane(models).answer([alone])
        assert b"".join(request.outcome) == b"".join(alone.outcome)  # type: ignore[arg-type] # parsed above
        answered_rows += len(answer.celsius)
    assert sum(runs.rows) == answered_rows
    assert all(rows <= LIMITS.max_batch_rows or number == 1 for rows, number in zip(runs.rows, runs.calls, strict=True))


@given(sizes=st.lists(st.integers(1, 30), max_size=40), data=st.data())
def test_grouping_keeps_every_call_and_every_bound(models: Models, sizes: list[int], data: st.DataObject) -> None:
    """Each call is in exactly one run, of its own version, in order; no run of several exceeds the bound."""
    choices = [("linear", 1), ("linear", 2), ("softmax", 1)]
    bound = [_bound(models, *data.draw(st.sampled_from(choices)), rows=rows) for rows in sizes]
    runs = group(bound, LIMITS)
    assert sorted(id(call) for run in runs for call in run.calls) == sorted(id(call) for call in bound)
    for run in runs:
        assert all(call.version is run.version for call in run.calls)
        assert run.rows == sum(call.rows for call in run.calls)
        assert [bound.index(call) for call in run.calls] == sorted(bound.index(call) for call in run.calls)
        if len(run.calls) > 1:
            assert run.rows <= LIMITS.max_batch_rows
            assert run.version.rows_independent
            assert all(call.rows < LIMITS.solo_rows for call in run.calls)


def _bound(models: Models, name: str, version: int, rows: int) -> Bound:
    loaded = models.catalogue.resolve(name, version)
    query = ConvertQuery(name, version, np.zeros(rows, np.float32))
    return Bound([_request(b"")], query, loaded, (query.rows.reshape(-1, 1),), rows)


def test_a_burst_shares_one_run_a_version(models: Models) -> None:
    """Calls that arrive together and fit together cost one run."""
    runs = Runs()
    _dataplane(models, runs).answer([_request(_convert(50.0, 51.0, version=number % 2 + 1)) for number in range(8)])
    assert sorted(zip(runs.versions, runs.rows, runs.calls, strict=True)) == [("linear/1", 8, 4), ("linear/2", 8, 4)]


def test_a_large_call_runs_alone(models: Models) -> None:
    """Joining a large call would copy it for nothing, so small ones share a run without it."""
    runs = Runs()
    bodies = [_convert(50.0), _convert(*[50.0] * LIMITS.solo_rows), _convert(51.0)]
    _dataplane(models, runs).answer([_request(body) for body in bodies])
    assert sorted(zip(runs.rows, runs.calls, strict=True)) == [(2, 2), (12, 1)]


@pytest.mark.parametrize("offset", range(9))
def test_rows_are_run_from_an_address_of_their_type(models: Models, offset: int) -> None:
    """Wherever they lay in the request, of one call and of several: moved bit by bit, or as they were."""
    rows = np.linspace(DOMAIN[0], DOMAIN[1], 30, dtype=np.float32)
    moved = np.frombuffer(bytes(offset) + rows.tobytes(), np.float32, offset=offset).reshape(-1, 1)
    call = replace(_bound(models, "linear", 1, 30), tensors=(moved,))
    for calls in ([call], [call, call]):
        (joined,) = join(call.version, calls).tensors
        assert joined.flags.aligned
        assert joined.tobytes() == rows.tobytes() * len(calls)
    if moved.flags.aligned:
        assert join(call.version, [call]).tensors[0] is moved


@pytest.mark.parametrize("rows", [1, 1000, 1 << 20])
def test_rows_that_all_lie_inside_are_told_apart_by_one_that_does_not(models: Models, rows: int) -> None:
    """However many there are, each is told of; of those inside, nothing of their number is held."""
    version = models.catalogue.resolve("linear", 1)
    column = np.full((rows, 1), DOMAIN[0], np.float32)
    inside = version.outside(column)
    assert inside is not None
    assert inside.shape == (rows,)
    assert not inside.any()
    assert inside.strides == (0,)
    column[-1] = DOMAIN[1] + 1
    outside = version.outside(column)
    assert outside is not None
    assert np.flatnonzero(outside).tolist() == [rows - 1]


def test_calls_never_mix_where_rows_depend_on_each_other(models: Models) -> None:
    """A softmax over the batch sums to one for each caller, not over all callers."""
    requests = [_request(_convert(50.0, 51.0, model="softmax")) for _ in range(3)]
    _dataplane(models).answer(requests)
    for request in requests:
        assert sum(_parsed(request.outcome).celsius) == pytest.approx(1.0)


def test_answers_follow_the_law(models: Models) -> None:
    """The numbers are right."""
    values = [DOMAIN[0], 32.0, 50.0, DOMAIN[1]]
    request = _request(_convert(*values))
    _dataplane(models).answer([request])
    assert _parsed(request.outcome).celsius == pytest.approx([exact_celsius(value) for value in values], abs=1e-4)


@pytest.mark.parametrize(
    ("values", "index", "text"),
    [
        ((50.0, math.nan, math.inf), 1, "nan is not a temperature"),
        ((math.inf, 50.0), 0, "inf is not a temperature"),
        ((50.0, 50.0, -math.inf), 2, "-inf is not a temperature"),
        ((-459.68,), 0, "-459.679993 is below absolute zero (-459.67 °F)"),
    ],
)
def test_the_first_impossible_temperature_is_named(
    models: Models, values: tuple[float, ...], index: int, text: str
) -> None:
    """The error names index and value; a good call in the same burst is answered all the same."""
    bad, good = _request(_convert(*values)), _request(_convert(50.0))
    _dataplane(models).answer([bad, good])
    assert isinstance(bad.outcome, InvalidRequestError)
    assert bad.outcome.message == f"fahrenheit[{index}]: {text}"
    assert len(_parsed(good.outcome).celsius) == 1


def test_absolute_zero_itself_is_a_temperature(models: Models) -> None:
    """The bound is compared in float32, the type that crosses the wire."""
    request = _request(_convert(-459.67))
    _dataplane(models).answer([request])
    assert _parsed(request.outcome).celsius == pytest.approx([-273.15], abs=1e-3)


def test_rejecting_names_the_row_and_the_range(models: Models) -> None:
    """Who asked for no extrapolation learns which row it was, and what the model was trained on."""
    request = _request(_convert(50.0, 212.0, on_extrapolation=api.ON_EXTRAPOLATION_REJECT))
    _dataplane(models).answer([request])
    assert isinstance(request.outcome, OutsideDomainError)
    assert request.outcome.message == "row 1, 212, lies outside what linear/1 was trained on: 21.8 … 81.9"


def test_the_edges_of_the_domain_are_inside(models: Models) -> None:
    """The least and the greatest training input are not extrapolation, though float32 rounds them."""
    request = _request(_convert(*DOMAIN))
    _dataplane(models).answer([request])
    assert _parsed(request.outcome).domain_status == api.DOMAIN_STATUS_INSIDE


class _FailingCodec(ConvertCodec):
    """Breaks at one of its two steps, as a bug would."""

    def __init__(self, step: str) -> None:
        self._step = step

    def decode(self, body: bytes) -> ConvertQuery:
        """Break, or read."""
        if self._step == "decode":
            raise ZeroDivisionError("secret")
        return super().decode(body)

    def encode(self, query: Query, answer: Answer) -> Body:
        """Break, or write."""
        if self._step == "encode":
            raise ZeroDivisionError("secret")
        return super().encode(query, answer)


@pytest.mark.parametrize("step", ["decode", "encode"])
def test_a_fault_concerns_one_call_and_tells_nothing_but_its_id(
    models: Models, step: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bug in one call's codec leaves its neighbours alone; the log holds the id that the caller gets."""
    bad, good = _request(_convert(50.0)), _request(_convert(50.0))
    bad.codec = _FailingCodec(step)
    _dataplane(models).answer([bad, good])
    assert isinstance(bad.outcome, InternalError)
    assert "secret" not in bad.outcome.message
    assert bad.outcome.id in capsys.readouterr().out
    assert len(_parsed(good.outcome).celsius) == 1


def test_a_run_that_fails_gives_each_of_its_calls_an_error(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for ever when the engine breaks, and other versions go on."""
    broken = models.catalogue.resolve("linear", 1)
    monkeypatch.setattr(broken.engine, "run", lambda _: 1 / 0)
    requests = [_request(_convert(50.0, version=number)) for number in (1, 1, 2)]
    _dataplane(models).answer(requests)
    assert [type(request.outcome) is InternalError for request in requests] == [True, True, False]


def test_a_deadline_that_passes_during_the_run_before_is_kept(models: Models) -> None:
    """Rows whose caller gave up while an earlier run was under way are not run."""
    times = iter([0.0, 0.0, 0.0, 1.0, 9.0, 9.0, 9.0])
    dataplane = Dataplane(models, Runs(), LIMITS, clock=lambda: next(times))
    requests = [_request(_convert(50.0, version=1), deadline=5), _request(_convert(50.0, version=2), deadline=5)]
    dataplane.answer(requests)
    assert not isinstance(requests[0].outcome, ServiceError)
    assert isinstance(requests[1].outcome, ExpiredError)


def test_a_cancelled_run_is_not_run(models: Models) -> None:
    """Where every caller of a run has left, the engine is not asked."""
    runs = Runs()
    dataplane = _dataplane(models, runs)
    request = _request(_convert(50.0))
    planned = dataplane.plan([request])
    request.cancelled = True
    for run in planned:
        dataplane.execute(run)
    assert isinstance(request.outcome, CancelledError)
    assert runs.rows == []


def test_an_empty_burst_is_nothing() -> None:
    """No calls make no runs."""
    assert group([], LIMITS) == []
    assert Run.__slots__  # a run is made for every burst: it has no dictionary of its own
