"""Who shares a run: rows that are independent, as declared and as probed, and never others."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest

from proto.inference.v2.open_inference_pb2_grpc import GRPCInferenceServiceStub
from proto.model_config import CONFIG_FILE, ModelConfig, ModelConfigError, parse_config, read_config
from proto.repository import Repository
from service import independence
from service.engine import Engine, EngineOptions
from service.models import Models
from service.server import Server
from tests.service.artefacts import make_artefact, make_plain, make_softmax
from tests.service.conftest import StartServer
from tests.service.open_inference import graphs
from tests.service.open_inference.calls import TIMEOUT_SECONDS, outputs_of, request
from tests.service.open_inference.conftest import declare_independent

CPU = EngineOptions(device="cpu")
LIARS = ("softmax_over_rows", "mean_over_rows", "less_mean_over_rows", "running_sum")


def _contradiction(model: bytes) -> str | None:
    return independence.contradiction(Engine(model, CPU))


@pytest.mark.parametrize("name", ["double", "two_by_two", "lookup"])
def test_a_probe_agrees_where_rows_are_independent(name: str) -> None:
    """Also with several inputs, and with indices."""
    assert _contradiction(getattr(graphs, name)()) is None


def test_a_probe_sees_kernels_that_change_with_the_number_of_rows() -> None:
    """Where it agrees to a matrix product, rows come out bit for bit the same in a run of any size."""
    engine = Engine(graphs.wide(), CPU)
    rows = np.random.default_rng(5).standard_normal((150, 64)).astype(np.float32)
    alone = [engine.run([rows[index : index + 1]])[0].tobytes() for index in range(len(rows))]
    same = all(
        [row.tobytes() for row in engine.run([rows[:size]])[0]] == alone[:size] for size in range(1, len(rows) + 1)
    )
    assert same or independence.contradiction(engine) is not None


@pytest.mark.parametrize("datatype", graphs.ELEMENT_TYPES)
def test_every_datatype_can_be_probed(datatype: str) -> None:
    """Numbers, texts, truths, and bfloat16, with another free dimension."""
    assert _contradiction(graphs.identity(datatype, ["rows", "columns"])) is None


@pytest.mark.parametrize("name", LIARS)
def test_a_probe_finds_rows_that_look_at_each_other(name: str) -> None:
    """Softmax, mean and running sum over axis 0."""
    assert "'y'" in str(_contradiction(getattr(graphs, name)()))


@pytest.mark.parametrize(
    ("model", "text"),
    [(graphs.fixed(), r"\[4, 2\], has no free first dimension"), (graphs.scalar(), "no free first dimension")],
)
def test_a_graph_without_rows_has_none_that_are_independent(model: bytes, text: str) -> None:
    """Nothing can be joined where the first dimension is not free."""
    with pytest.raises(AssertionError, match=text):
        assert _contradiction(model) is None, _contradiction(model)


@pytest.mark.parametrize(
    ("model", "declared", "shares"),
    [
        (make_artefact(), False, True),
        (make_plain(), False, False),
        (make_plain(), True, True),
        (make_softmax(), True, False),
        (graphs.mean_over_rows(), True, False),
    ],
)
def test_both_the_declaration_and_the_probe_must_agree(
    repository: Repository,
    model: bytes,
    declared: bool,  # noqa: FBT001 - a parameter of the test
    shares: bool,  # noqa: FBT001 - as above
) -> None:
    """A converter's metadata declares, or the model's configuration; neither is believed against the probe."""
    repository.publish("probed", model)
    if declared:
        declare_independent(repository, "probed")
    models = Models(repository, CPU)
    models.load()
    assert models.catalogue.resolve("probed", None).rows_independent is shares


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "Expecting value"),
        ("[]", "it is not a JSON object"),
        ('{"rows_independent": 1}', "rows_independent is not true or false: 1"),
        ('{"row_independent": true}', "unknown key 'row_independent': there is rows_independent"),
        ('{"rows_independent": true, "rows_independent": false}', "a key stands there twice"),
        ("[" * 100_000, "it is nested too deeply"),
    ],
)
def test_a_configuration_is_read_strictly(repository: Repository, text: str, problem: str) -> None:
    """The version is not served, and the reason names file and key."""
    path = repository.root / "plain" / CONFIG_FILE
    path.write_text(text, "utf-8")
    with pytest.raises(ModelConfigError, match=problem):
        read_config(path.parent)
    models = Models(repository, CPU)
    models.load()
    assert problem in models.catalogue.models["plain"].versions[1].reason
    assert models.catalogue.models["linear"].ready


def test_a_configuration_may_be_absent_or_say_nothing(tmp_path: Path) -> None:
    """Then nothing is declared."""
    assert read_config(tmp_path) == parse_config("{}") == ModelConfig(rows_independent=False)
    assert parse_config(json.dumps({"rows_independent": True})) == ModelConfig(rows_independent=True)


def _at_once(server: Server, model: str, rows: list[float]) -> list[float]:
    """Ask for each row in a call of its own, many calls at once."""
    with grpc.insecure_channel(server.address) as channel, ThreadPoolExecutor(len(rows)) as pool:
        stub = GRPCInferenceServiceStub(channel)

        def ask(value: float) -> float:
            array = np.array([[value]], dtype=np.float32)
            answer = stub.ModelInfer(request(model, {"x": ("FP32", array)}), timeout=TIMEOUT_SECONDS)
            return float(outputs_of(answer)["y"].item())

        return list(pool.map(ask, rows))


@pytest.mark.parametrize("name", LIARS)
def test_callers_are_never_mixed(start_server: StartServer, repository: Repository, name: str) -> None:
    """However many ask at once, and though the operator declared what is not so: each gets what it gets alone."""
    repository.publish(name, getattr(graphs, name)())
    declare_independent(repository, name)
    server = start_server()
    rows = [float(value) for value in range(1, 33)]
    alone = {"softmax_over_rows": 1.0, "less_mean_over_rows": 0.0}
    for _ in range(5):
        assert _at_once(server, name, rows) == [alone.get(name, value) for value in rows]
    assert server.models.catalogue.resolve(name, None).rows_independent is False


def test_calls_share_a_run_where_rows_are_independent(start_server: StartServer, repository: Repository) -> None:
    """A plain model that declares it: fewer runs than calls, and each call has its own answer."""
    repository.publish("double", graphs.double())
    declare_independent(repository, "double")
    server = start_server()
    rows = [float(value) for value in range(32)]
    for _ in range(5):
        assert _at_once(server, "double", rows) == [2 * value for value in rows]
    assert server.models.catalogue.resolve("double", None).rows_independent


def test_a_call_that_fails_a_shared_run_fails_alone(start_server: StartServer, repository: Repository) -> None:
    """One caller's index that does not exist costs its neighbours nothing."""
    repository.publish("lookup", graphs.lookup())
    declare_independent(repository, "lookup")
    server = start_server()
    assert server.models.catalogue.resolve("lookup", None).rows_independent
    with grpc.insecure_channel(server.address) as channel, ThreadPoolExecutor(16) as pool:
        stub = GRPCInferenceServiceStub(channel)

        def ask(index: int) -> object:
            message = request("lookup", {"x": ("INT64", np.array([index], dtype=np.int64))})
            try:
                return outputs_of(stub.ModelInfer(message, timeout=TIMEOUT_SECONDS))["y"].tolist()
            except grpc.RpcError as error:
                return error.code()

        asked = [0, 1, 7, 2] * 16
        answers = list(pool.map(ask, asked))
    expected = [grpc.StatusCode.INVALID_ARGUMENT if index == 7 else [10.0 * (index + 1)] for index in asked]
    assert answers == expected


def test_inputs_of_a_shared_run_have_as_many_rows_as_each_other(
    start_server: StartServer, repository: Repository
) -> None:
    """Otherwise one caller's rows would meet another's."""
    repository.publish("two_by_two", graphs.two_by_two())
    declare_independent(repository, "two_by_two")
    with grpc.insecure_channel(start_server().address) as channel:
        rows = np.zeros((2, 3), dtype=np.float32)
        inputs = {"a": ("FP32", rows), "b": ("FP32", rows[:1]), "flag": ("BOOL", np.array([True, False]))}
        with pytest.raises(grpc.RpcError, match="must have as many rows as one another, not a 2, b 1, flag 2"):
            GRPCInferenceServiceStub(channel).ModelInfer(request("two_by_two", inputs), timeout=TIMEOUT_SECONDS)
