"""Requests that differ in their values alone are read as one, and answered as if each had come by itself."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.inference.v2 import open_inference_pb2 as pb
from proto.quicksilver.v1 import converter_pb2 as api
from proto.repository import Repository
from service.alike import MIN_CALLS, bytes_of, crowds, write_bodies
from service.calls import Codec, Request
from service.codec import ConvertCodec
from service.dataplane import Dataplane
from service.engine import EngineOptions
from service.errors import ServiceError
from service.models import Models, VersionPolicy
from service.open_inference.infer import InferCodec
from service.runs import BatchLimits
from tests.service.artefacts import DOMAIN, make_artefact, make_softmax
from tests.service.test_dataplane import Runs

LIMITS = BatchLimits(max_rows_per_request=3, max_batch_rows=20, solo_rows=12)

VALUES = st.sampled_from([50.0, 51.5, 60.0, *DOMAIN, 451.0, -459.67, -500.0, math.nan, math.inf])
"""Temperatures inside the training domain, on its edges, outside, and impossible ones."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """A converter, and a model whose rows depend on each other."""
    repository = Repository(Path(tmp_path_factory.mktemp("models")))
    repository.publish("linear", make_artefact())
    repository.publish("softmax", make_softmax())
    models = Models(repository, EngineOptions(device="cpu"), policy=VersionPolicy(), default_model="linear")
    models.load()
    return models


def _convert(values: Sequence[float], model: str, *, interval: bool) -> bytes:
    return api.ConvertRequest(model=model, fahrenheit=values, interval=interval).SerializeToString()


def _infer(values: Sequence[float], model: str, identity: str = "", *, typed: bool = False) -> bytes:
    request = pb.ModelInferRequest(model_name=model, id=identity)
    tensor = request.inputs.add(name="fahrenheit", datatype="FP32", shape=[len(values), 1])
    if typed:
        tensor.contents.fp32_contents[:] = values
    else:
        request.raw_input_contents.append(np.array(values, "<f4").tobytes())
    return request.SerializeToString()


def _shared_memory() -> bytes:
    """A request whose values lie in memory that client and server share, which is not offered here."""
    request = pb.ModelInferRequest(model_name="linear")
    tensor = request.inputs.add(name="fahrenheit", datatype="FP32", shape=[1, 1])
    tensor.parameters["shared_memory_region"].string_param = "region"
    return request.SerializeToString()


def _contents_too_many() -> bytes:
    """A request with two raw contents for one input."""
    request = pb.ModelInferRequest.FromString(_infer([50.0], "linear"))
    request.raw_input_contents.append(b"\0\0\0\0")
    return request.SerializeToString()


WRONG = st.sampled_from([b"\xff" * 20, b"", b"\x0a\x7f", _shared_memory(), _contents_too_many()])
"""What no codec reads, or the one of them alone."""

CONVERT = st.builds(
    _convert,
    st.lists(VALUES, min_size=1, max_size=4),
    st.sampled_from(["linear", "linear", "softmax", "nowhere"]),
    interval=st.sampled_from([False, False, True]),
)
INFER = st.builds(
    _infer,
    st.lists(VALUES, min_size=1, max_size=4),
    st.sampled_from(["linear", "linear", "softmax"]),
    st.sampled_from(["", "", "ab", "cd", "é", "z"]),
    typed=st.sampled_from([False, False, True]),
)


def _outcomes(
    models: Models, calls: Sequence[tuple[Codec, bytes]], limits: BatchLimits = LIMITS
) -> list[tuple[str, bytes]]:
    requests = [Request(codec, body, lambda _: None, 0.0) for codec, body in calls]
    Dataplane(models, Runs(), limits).answer(requests)
    return [_outcome(request) for request in requests]


def _outcome(request: Request) -> tuple[str, bytes]:
    outcome = request.outcome
    assert outcome is not None
    if isinstance(outcome, ServiceError):
        return type(outcome).__name__, outcome.message.encode()
    return "", b"".join(map(bytes, outcome))


@given(data=st.data())
def test_a_burst_answers_every_call_as_if_it_were_alone(models: Models, data: st.DataObject) -> None:
    """Whatever the others are, the answer is the same, byte for byte, and so is the error."""
    convert, infer = ConvertCodec(), InferCodec()
    bodies: list[tuple[Codec, bytes]] = [(convert, body) for body in data.draw(st.lists(CONVERT, max_size=4))]
    bodies += [(infer, body) for body in data.draw(st.lists(INFER, max_size=4))]
    copies = data.draw(st.integers(1, 8))
    values = data.draw(st.lists(st.lists(VALUES, min_size=1, max_size=1), max_size=12))
    bodies += [(convert, _convert(each, "linear", interval=False)) for each in values]
    bodies += [(infer, _infer(each, "linear")) for each in values]
    bodies += [(data.draw(st.sampled_from([convert, infer])), body) for body in data.draw(st.lists(WRONG, max_size=2))]
    calls = data.draw(st.permutations(bodies * copies))
    _outcomes(models, calls)  # so that the codecs have read their like before
    alone = [_outcomes(models, [(type(codec)(), body)])[0] for codec, body in calls]
    assert _outcomes(models, calls) == alone


@pytest.mark.parametrize(
    ("body", "error"),
    [
        pytest.param(b"\xff" * 20, "MalformedError", id="garbage"),
        pytest.param(_shared_memory(), "UnimplementedError", id="shared memory"),
        pytest.param(_contents_too_many(), "InvalidRequestError", id="contents too many"),
    ],
)
def test_many_that_nothing_reads_are_each_told_and_fail_no_others(models: Models, body: bytes, error: str) -> None:
    """As many as would share a query, from one peer; the calls of the others beside them are answered."""
    codec, good = InferCodec(), _infer([50.0], "linear")
    told = _outcomes(models, [(codec, body)] * MIN_CALLS + [(codec, good)] * MIN_CALLS)
    assert [name for name, _ in told] == [error] * MIN_CALLS + [""] * MIN_CALLS


@pytest.mark.parametrize(("codec", "write"), [(ConvertCodec(), _convert), (InferCodec(), _infer)])
def test_calls_that_differ_in_their_values_are_decoded_once(models: Models, codec: Codec, write: object) -> None:
    """One query stands for all of them, with the rows in the order of the calls."""
    make = _infer if write is _infer else lambda values, model: _convert(values, model, interval=False)
    bodies = [make([50.0 + index], "linear") for index in range(10)]
    codec.decode(bodies[0])
    (crowd,), single = crowds([Request(codec, body, lambda _: None, 0.0) for body in [*bodies, bodies[0] + b"\n\0"]])
    assert [request.body for request in crowd.requests] == bodies
    assert len(single) == 1
    (version,) = models.catalogue.models["linear"].loaded
    (rows,) = crowd.query.bind(version)
    assert rows.ravel().tolist() == [50.0 + index for index in range(10)]


@pytest.mark.parametrize(("values", "together"), [(1_000, 8), (4_000, 8), (5_000, 0)])
def test_long_requests_share_a_query_up_to_a_size_and_are_answered_as_if_alone(
    models: Models, values: int, together: int
) -> None:
    """So are they where one has an impossible value, and one an id that the others have not."""
    rows = np.random.default_rng(3).uniform(40.0, 80.0, (9, values))
    rows[4, -1] = -500.0
    bodies = [_infer(row.tolist(), "linear", "a" if index == 2 else "") for index, row in enumerate(rows)]
    codec, limits = InferCodec(), BatchLimits()
    found, _ = crowds([Request(codec, body, lambda _: None, 0.0) for body in bodies])
    assert sum(len(crowd.requests) for crowd in found) == together
    alone = [_outcomes(models, [(InferCodec(), body)], limits)[0] for body in bodies]
    assert _outcomes(models, [(codec, body) for body in bodies], limits) == alone
    assert [kind for kind, _ in alone] == [""] * 4 + ["InvalidRequestError"] + [""] * 4


def test_calls_with_ids_of_their_own_share_a_query_and_get_them_back(models: Models) -> None:
    """But for an id that is not ASCII, which is read by itself, one that is not UTF-8, and whatever else differs."""
    bodies = [_infer([50.0 + index], "linear", f"{index:03}") for index in range(12)]
    bodies[3] = bodies[3].replace(b"003", "é3".encode())
    bodies[5] = bodies[5].replace(b"005", b"\xff05")
    bodies[7] = bodies[7].replace(b"fahrenheit", b"Fahrenheit")
    codec, others = InferCodec(), [bodies[3], bodies[5], bodies[7]]
    (crowd,), single = crowds([Request(codec, body, lambda _: None, 0.0) for body in bodies])
    assert [request.body for request in crowd.requests] == [body for body in bodies if body not in others]
    assert [request.body for request in single] == others
    answers = _outcomes(models, [(codec, body) for body in bodies], BatchLimits())
    assert answers == [_outcomes(models, [(InferCodec(), body)])[0] for body in bodies]
    assert [error for error, _ in answers if error] == ["MalformedError", "InvalidRequestError"]
    assert _ids(answers) == ["000", "001", "002", "é3", "004", "006", "008", "009", "010", "011"]


@pytest.mark.parametrize("left", [1, 2, 7])
def test_what_is_left_of_calls_with_ids_of_their_own_keeps_them(models: Models, left: int) -> None:
    """Where the rows of all others must not be run; also of a single one, whose answer is written by itself."""
    codec = InferCodec()
    bodies = [_infer([50.0 if index >= 12 - left else -500.0], "linear", f"{index:03}") for index in range(12)]
    answers = _outcomes(models, [(codec, body) for body in bodies])
    assert _ids(answers) == [f"{index:03}" for index in range(12 - left, 12)]


def _ids(answers: Sequence[tuple[str, bytes]]) -> list[str]:
    return [pb.ModelInferResponse.FromString(body).id for error, body in answers if not error]


def test_few_calls_are_left_alone() -> None:
    """A table of two rows is not worth making."""
    codec = ConvertCodec()
    body = _convert([50.0], "linear", interval=False)
    codec.decode(body)
    requests = [Request(codec, body, lambda _: None, 0.0) for _ in range(MIN_CALLS - 1)]
    assert crowds(requests) == ([], requests)


def test_a_value_that_looks_like_what_is_around_it_misleads_nobody() -> None:
    """Contents that hold the bytes of a field's head are contents all the same."""
    codec = InferCodec()
    head = b"\x3a\x04"
    tricky = [np.frombuffer(head + bytes([index, 66]), "<f4").tolist() for index in range(6)]
    requests = [Request(codec, _infer(values, "linear"), lambda _: None, 0.0) for values in tricky]
    (crowd,), single = crowds(requests)
    assert not single
    assert [request.body for request in crowd.requests] == [request.body for request in requests]


@given(
    st.integers(1, 9),
    st.binary(max_size=5),
    st.lists(st.tuples(st.sampled_from([0, 1, 3, 400]), st.binary(max_size=5)), min_size=1, max_size=4),
)
def test_bodies_are_their_columns_side_by_side(calls: int, head: bytes, columns: list[tuple[int, bytes]]) -> None:
    """Each is the head, and then its own part of each array, with what follows it, in order."""
    arrays = [(np.arange(calls * width, dtype=np.float32).reshape(calls, width), behind) for width, behind in columns]
    written = write_bodies(head, [(bytes_of(array, calls), behind) for array, behind in arrays])
    for array, _ in arrays:
        array.fill(math.nan)  # what was written is nobody else's
    assert written == [
        [b"".join([head, *(part for width, behind in columns for part in (_floats(call, width), behind))])]
        for call in range(calls)
    ]


def _floats(call: int, width: int) -> bytes:
    """What a call has of whole numbers that count up, so many a call."""
    return np.arange(call * width, (call + 1) * width, dtype=np.float32).tobytes()
