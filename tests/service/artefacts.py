"""Model files for tests, written with onnx alone: the same kind of file that training exports, in milliseconds."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from proto.artefact import Artefact, Column, GoldenVectors, Histogram, Interval, to_metadata

DOMAIN = (21.8, 81.9)
HALF_WIDTH_CELSIUS = 2.5
GOLDEN_FAHRENHEIT = (-40.0, 32.0, 50.0, 98.6, 212.0)


def exact_celsius(fahrenheit: float) -> float:
    """The exact law."""
    return (fahrenheit - 32.0) * 5.0 / 9.0


def describe(golden: Sequence[float] = GOLDEN_FAHRENHEIT, *, interval: bool = True) -> Artefact:
    """The metadata of a converter that follows the exact law."""
    histogram = Histogram(edges=(20.0, 40.0, 60.0, 82.0), counts=(3, 5, 3))
    return Artefact(
        kind="linear",
        architecture={"inputs": 1},
        parameter_count=2,
        seed=7,
        hyperparameters={"optimizer": "sgd", "learning_rate": 1e-2},
        dataset_sha256="0" * 64,
        dataset_rows=11,
        training_loss=2.9,
        validation_loss=3.9,
        epochs=3000,
        torch_version="2.13.0",
        onnx_version="1.23.2",
        git_commit=None,
        columns=(Column("fahrenheit", *DOMAIN, histogram),),
        interval=Interval(HALF_WIDTH_CELSIUS, 0.8, "leave-one-out") if interval else None,
        golden=GoldenVectors(
            inputs=tuple((fahrenheit,) for fahrenheit in golden),
            outputs=tuple(exact_celsius(fahrenheit) for fahrenheit in golden),
            absolute_tolerance=1e-4,
            relative_tolerance=1e-5,
        ),
        parity_max_difference_celsius=1e-6,
    )


def make_artefact(artefact: Artefact | None = None, *, offset_celsius: float = 0.0) -> bytes:
    """A converter after the exact law, with its metadata; an offset makes one that can be told from the others.

    The golden vectors follow the offset, so that every version verifies.
    """
    return make_linear(5.0 / 9.0, -160.0 / 9.0 + offset_celsius, _described(offset_celsius, artefact))


def make_plain(weight: float = 5.0 / 9.0, bias: float = -160.0 / 9.0) -> bytes:
    """The same graph without any metadata: a plain ONNX file."""
    return make_linear(weight, bias, {})


def make_linear(weight: float, bias: float, metadata: dict[str, str]) -> bytes:
    """A graph `celsius = fahrenheit · weight + bias`, float32 `[N, 1]` → `[N, 1]`."""
    nodes = [
        helper.make_node("Mul", ["fahrenheit", "weight"], ["scaled"]),
        helper.make_node("Add", ["scaled", "bias"], ["celsius"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([[value]], dtype=np.float32), name)
        for name, value in (("weight", weight), ("bias", bias))
    ]
    return _model(nodes, constants, metadata)


def make_fragile(limit_fahrenheit: float, *, offset_celsius: float = 0.0) -> bytes:
    """A converter that verifies like any other, and whose every run fails that holds a row above a limit."""
    nodes = [
        helper.make_node("Greater", ["fahrenheit", "limit"], ["is_above"]),
        helper.make_node("Cast", ["is_above"], ["place"], to=TensorProto.INT64),
        helper.make_node("Gather", ["only_place", "place"], ["nothing"]),  # there is no place 1
        *_LINEAR,
        helper.make_node("Add", ["converted", "nothing"], ["celsius"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([[limit_fahrenheit]], np.float32), "limit"),
        numpy_helper.from_array(np.zeros(1, np.float32), "only_place"),
        *_law(offset_celsius),
    ]
    return _model(nodes, constants, _described(offset_celsius))


def make_slow(*, size: int = 700, offset_celsius: float = 0.0) -> bytes:
    """A converter that multiplies two square matrices of a size for every run, and gives the same for it."""
    nodes = [
        helper.make_node("ReduceMax", ["fahrenheit"], ["greatest"], keepdims=0),
        helper.make_node("ConstantOfShape", ["square"], ["zeros"]),
        helper.make_node("Add", ["zeros", "greatest"], ["matrix"]),
        helper.make_node("MatMul", ["matrix", "matrix"], ["product"]),
        helper.make_node("ReduceMax", ["product"], ["reached"], keepdims=0),
        helper.make_node("Mul", ["reached", "zero"], ["nothing"]),
        *_LINEAR,
        helper.make_node("Add", ["converted", "nothing"], ["celsius"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([size, size], np.int64), "square"),
        numpy_helper.from_array(np.zeros((), np.float32), "zero"),
        *_law(offset_celsius),
    ]
    return _model(nodes, constants, _described(offset_celsius))


_LINEAR = [
    helper.make_node("Mul", ["fahrenheit", "weight"], ["scaled"]),
    helper.make_node("Add", ["scaled", "bias"], ["converted"]),
]


def _law(offset_celsius: float) -> list[TensorProto]:
    parameters = {"weight": 5.0 / 9.0, "bias": -160.0 / 9.0 + offset_celsius}
    return [numpy_helper.from_array(np.array([[value]], np.float32), name) for name, value in parameters.items()]


def _described(offset_celsius: float, artefact: Artefact | None = None) -> dict[str, str]:
    described = artefact or describe()
    golden = described.golden
    shifted = replace(golden, outputs=tuple(output + offset_celsius for output in golden.outputs))
    return to_metadata(replace(described, golden=shifted))


def make_softmax() -> bytes:
    """A plain graph whose rows depend on each other: softmax over axis 0."""
    return _model([helper.make_node("Softmax", ["fahrenheit"], ["celsius"], axis=0)], [], {})


def make_thief(location: str, length_bytes: int, place: str) -> bytes:
    """A graph that gives out a file of the machine that loads it, as weights that stand outside of the model."""
    stolen = TensorProto(name="stolen", data_type=TensorProto.INT8, dims=[length_bytes])
    stolen.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("length", str(length_bytes))):
        stolen.external_data.add(key=key, value=value)
    output = helper.make_tensor_value_info("celsius", TensorProto.INT8, [length_bytes])
    give = helper.make_node("Identity", ["stolen"], ["celsius"])
    always = helper.make_tensor("always", TensorProto.BOOL, [], [True])
    branch = helper.make_graph([give], "branch", [], [output], [stolen])
    nodes, constants = {
        "initializer": ([give], [stolen]),
        "constant": ([helper.make_node("Constant", [], ["celsius"], value=stolen)], []),
        "subgraph": (
            [helper.make_node("If", ["always"], ["celsius"], then_branch=branch, else_branch=branch)],
            [always],
        ),
    }[place]
    graph = helper.make_graph(nodes, "thief", [], [output], constants)
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()
    )


def _model(nodes: list[onnx.NodeProto], constants: list[TensorProto], metadata: dict[str, str]) -> bytes:
    shape: list[str | int | None] = ["batch", 1]
    graph = helper.make_graph(
        nodes,
        "converter",
        [helper.make_tensor_value_info("fahrenheit", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("celsius", TensorProto.FLOAT, shape)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())
