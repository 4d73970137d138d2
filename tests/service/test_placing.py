"""Sessions timed against each other and served as one: real sessions, on a clock that tells what it is told to."""

import math
from collections.abc import Callable, Sequence

import grpc
import numpy as np
import pytest
from onnx import TensorProto, helper

from proto.quicksilver.v1 import converter_pb2 as api
from proto.quicksilver.v1.converter_pb2_grpc import ConverterServiceStub
from proto.repository import Repository
from service import loading
from service.engine import Engine, EngineOptions, Graph, Tensor, available_devices
from service.loading import ModelFile, load_model
from service.placement import Placement, decide
from service.placing import MAX_BYTES, MAX_ROWS, MAX_RUN_SECONDS, Place, PlacedEngine, can_be_placed, measured
from tests.service.artefacts import exact_celsius, make_artefact, make_plain
from tests.service.conftest import StartServer
from tests.service.open_inference import graphs

CPU = EngineOptions(device="cpu")
TWO_THREADS = EngineOptions(device="cpu", intra_op_threads=2)
TWO_PLACES = EngineOptions(device="cpu", large_run_threads=2)
FILE = ModelFile.of(make_artefact())
ROWS = [np.linspace(-40, 212, 1009, dtype=np.float32).reshape(-1, 1)]


class Clock:
    """A clock that stands, but for what runs on it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The time, in seconds."""
        return self.now


class Timed:
    """A session whose runs take as long as is said, on a clock."""

    def __init__(self, engine: Graph, clock: Clock, seconds: Callable[[int], float], device: str = "cpu") -> None:
        self.inputs, self.outputs, self.metadata, self.device = engine.inputs, engine.outputs, engine.metadata, device
        self.ran: list[int] = []
        self._engine, self._clock, self._seconds = engine, clock, seconds

    def run(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Run it; one that takes for ever fails."""
        self.ran.append(len(tensors[0]))
        seconds = self._seconds(len(tensors[0]))
        if math.isinf(seconds):
            raise MemoryError("no room for so many rows")
        self._clock.now += seconds
        return self._engine.run(tensors)


@pytest.fixture
def clock() -> Clock:
    """A clock for runs."""
    return Clock()


def make_wide() -> bytes:
    """A graph that gives back what it gets: float32, any number of rows and columns."""
    names: list[str | int | None] = ["rows", "columns"]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, names) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "wide", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def linear(overhead: float, each: float, most: float = math.inf) -> Callable[[int], float]:
    """Times of a place: so long for a run, and so long for a row; it fails above so many rows."""
    return lambda rows: overhead + each * rows if rows <= most else math.inf


def test_runs_go_where_they_were_faster(clock: Clock) -> None:
    """Each session runs what it was chosen for, and the answers are the same bits as those of one session alone."""
    alone = Engine(FILE.content, CPU)
    near = Timed(alone, clock, linear(1e-6, 1e-8))
    far = Timed(Engine(FILE.content, TWO_THREADS), clock, linear(2e-5, 2e-9))
    placement = measured([Place("near", near), Place("far", far)], ROWS, 16384, clock)
    assert placement.same_bits
    assert list(placement.ranges()) == [(0, "near"), (4096, "far")]
    placed = PlacedEngine([near, far], placement)
    near.ran.clear()
    far.ran.clear()
    for rows in (1, 4095, 4096, 100_000):
        tensors = [np.resize(ROWS[0], (rows, 1))]
        assert placed.run(tensors)[0].tobytes() == alone.run(tensors)[0].tobytes()
    assert (near.ran, far.ran) == ([1, 4095], [4096, 100_000])


def test_places_on_other_devices_never_split_what_calls_share(clock: Clock) -> None:
    """Even where the bits that were tried are the same: other kernels may differ on other rows."""
    near = Timed(Engine(FILE.content, CPU), clock, linear(1e-6, 1e-8))
    far = Timed(Engine(FILE.content, CPU), clock, linear(2e-5, 1e-9), device="cuda")
    placement = measured([Place("cpu", near), Place("cuda", far)], ROWS, 16384, clock)
    assert not placement.same_bits
    assert list(placement.ranges()) == [(0, "cpu"), (65536, "cuda")]
    assert PlacedEngine([near, far], placement).device == "cuda"


def test_other_bits_are_noticed(clock: Clock) -> None:
    """A session that answers otherwise in the last place is told from one that does not."""
    other = Engine(make_plain(bias=-160.0 / 9.0 + 1e-5), CPU)
    places = [
        Place("one", Timed(Engine(FILE.content, CPU), clock, linear(1e-5, 1e-8))),
        Place("other", Timed(other, clock, linear(1e-5, 1e-9))),
    ]
    assert not measured(places, ROWS, 16384, clock).same_bits


def test_a_rival_that_fails_is_tried_no_further(clock: Clock) -> None:
    """Its times are infinite from there on, and no such run goes there."""
    near = Timed(Engine(FILE.content, CPU), clock, linear(1e-6, 1e-8))
    far = Timed(Engine(FILE.content, CPU), clock, linear(1e-7, 1e-9, most=5000))
    placement = measured([Place("near", near), Place("far", far)], ROWS, 16384, clock)
    assert [each.seconds[1] for each in placement.measured if each.rows > 4096] == [math.inf] * 4
    assert len([rows for rows in far.ran if rows > 4096]) == 1
    assert placement.places[placement.place(MAX_ROWS)] == "near"


def test_sizes_end_where_they_would_take_too_long_or_too_much(clock: Clock) -> None:
    """Measuring is bounded in time, in rows, and in bytes; nor does it go on where the first place fails."""
    engine = Engine(FILE.content, CPU)

    def largest(seconds: Callable[[int], float], rows: Sequence[Tensor] = ROWS, graph: Graph = engine) -> int:
        places = [Place(name, Timed(graph, clock, seconds)) for name in ("one", "other")]
        return measured(places, rows, 16384, clock).measured[-1].rows

    assert largest(linear(0, 1e-9)) == MAX_ROWS
    assert largest(linear(0, MAX_RUN_SECONDS)) == 4
    assert largest(linear(0, 1e-9, most=1024)) == 1024
    wide = [np.zeros((1, 1 << 20), np.float32)]  # 4 MiB a row
    assert largest(linear(0, 1e-9), wide, Engine(make_wide(), CPU)) == MAX_BYTES >> 22


def test_a_rival_that_answers_wrongly_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its golden vectors say so; the model is served without it."""

    class Wrong(Engine):
        def run(self, tensors: Sequence[Tensor]) -> list[Tensor]:
            answers = super().run(tensors)
            return [answer + np.float32(self.threads - 1) for answer in answers]

        def __init__(self, model: bytes, options: EngineOptions) -> None:
            super().__init__(model, options)
            self.threads = options.intra_op_threads

    monkeypatch.setattr(loading, "Engine", Wrong)
    loaded = load_model("linear", 1, FILE, TWO_PLACES)
    assert loaded.placement is None
    assert loaded.engine.run(ROWS)[0][0, 0] == pytest.approx(-40.0)


def test_where_there_is_one_place_nothing_is_measured() -> None:
    """As it is by default, on the CPU; nor are models whose rows cannot be counted."""
    assert load_model("linear", 1, FILE, CPU).placement is None
    assert CPU.rivals() == {}
    assert EngineOptions(device="cpu", intra_op_threads=4, large_run_threads=4).rivals() == {}
    for content in (graphs.scalar(), graphs.fixed(), graphs.sequence_of()):
        assert not can_be_placed(Engine(content, CPU))
        assert load_model("other", 1, ModelFile.of(content), TWO_PLACES).placement is None


def test_rivals_are_what_the_machine_has() -> None:
    """CUDA is one under `auto` where ONNX Runtime was built for it, and stands last; asked for by name it is alone."""
    auto = EngineOptions(device="auto", large_run_threads=0)
    names = ["cpu, all threads"] + ["cuda"] * ("cuda" in available_devices())
    assert list(auto.rivals()) == names
    assert EngineOptions(device="cuda", large_run_threads=4).rivals() == {}
    assert next(iter(auto.rivals().values())).intra_op_threads == 0


@pytest.mark.parametrize(
    "content",
    [
        make_artefact(),
        make_plain(),
        graphs.two_by_two(),
        graphs.lookup(),
        graphs.softmax_over_rows(),
        *map(graphs.identity, graphs.ELEMENT_TYPES),
    ],
    ids=["converter", "plain", "two_by_two", "lookup", "softmax_over_rows", *graphs.ELEMENT_TYPES],
)
def test_a_second_session_answers_the_same_bits(content: bytes) -> None:
    """With metadata and without, of one input and of several: whatever was chosen, as a session alone."""
    loaded = load_model("any", 1, ModelFile.of(content), TWO_PLACES)
    placement = loaded.placement
    if placement is None:
        assert not can_be_placed(loaded.engine)
        return
    assert placement.places == ("cpu", "cpu, 2 threads")
    assert placement.same_bits
    assert [each.rows for each in placement.measured][:3] == [1, 4, 16]


def test_what_was_measured_is_told(start_server: StartServer, repository: Repository) -> None:
    """By GetModel, with every time; and the server converts rightly on both sides of whatever line was drawn."""
    repository.publish("wide", make_artefact())
    server = start_server(device="cpu", large_run_threads=2)
    with grpc.insecure_channel(server.address) as channel:
        stub = ConverterServiceStub(channel)
        told = stub.GetModel(api.GetModelRequest(model="wide"), timeout=30)
        for rows in (1, 100_000):
            fahrenheit = np.linspace(0, 100, rows)
            answer = stub.Convert(api.ConvertRequest(model="wide", fahrenheit=fahrenheit), timeout=30)
            np.testing.assert_allclose(answer.celsius, [exact_celsius(value) for value in fahrenheit], atol=1e-3)
    placement = told.placement
    assert placement.same_bits
    assert (placement.ranges[0].from_rows, placement.ranges[0].place in {"cpu", "cpu, 2 threads"}) == (0, True)
    assert {each.place for each in placement.measurements} == {"cpu", "cpu, 2 threads"}
    assert all(each.seconds > 0 for each in placement.measurements)
    sizes = [each.rows for each in placement.measurements]
    assert sizes == sorted(sizes)
    assert len(sizes) >= 2 * 3
    assert told.device == "cpu"


def test_only_sessions_that_are_chosen_are_kept(clock: Clock) -> None:
    """One that no run goes to would hold its weights and threads for nothing."""
    near, far = (Timed(Engine(FILE.content, CPU), clock, linear(0, 0)) for _ in range(2))
    placement: Placement = decide(["near", "far"], [], same_bits=True, together_up_to_rows=0)
    placed = PlacedEngine([near, far], placement)
    assert list(placed._engines.values()) == [near]  # noqa: SLF001 - nobody else needs them
