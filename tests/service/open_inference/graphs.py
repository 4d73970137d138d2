"""Small graphs for tests of any model: each datatype, several inputs and outputs, rows that look at each other."""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Dimensions = Sequence[str | int]

ELEMENT_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
    "BF16": TensorProto.BFLOAT16,
}


def tensor(name: str, shape: Dimensions, datatype: str = "FP32") -> onnx.ValueInfoProto:
    """An input or output; a name for a dimension leaves it free."""
    return helper.make_tensor_value_info(name, ELEMENT_TYPES[datatype], list(shape))


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: Sequence[onnx.TensorProto] = (),
) -> bytes:
    """A checked model file."""
    graph = helper.make_graph(list(nodes), "graph", list(inputs), list(outputs), list(constants))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(made, full_check=True)
    return bytes(made.SerializeToString())


def identity(datatype: str, shape: Dimensions = ("rows", 2)) -> bytes:
    """Gives back what it takes."""
    node = helper.make_node("Identity", ["x"], ["y"])
    return model([node], [tensor("x", shape, datatype)], [tensor("y", shape, datatype)])


def two_by_two() -> bytes:
    """`total = a + b` and `flipped = not flag`: inputs of two types, and outputs of two types."""
    nodes = [helper.make_node("Add", ["a", "b"], ["total"]), helper.make_node("Not", ["flag"], ["flipped"])]
    inputs = [tensor("a", ["rows", 3]), tensor("b", ["rows", 3]), tensor("flag", ["rows"], "BOOL")]
    outputs = [tensor("total", ["rows", 3]), tensor("flipped", ["rows"], "BOOL")]
    return model(nodes, inputs, outputs)


def scalar() -> bytes:
    """Doubles one number without any dimension."""
    return model([helper.make_node("Add", ["x", "x"], ["y"])], [tensor("x", [])], [tensor("y", [])])


def fixed() -> bytes:
    """A batch of exactly four."""
    return model([helper.make_node("Neg", ["x"], ["y"])], [tensor("x", [4, 2])], [tensor("y", [4, 2])])


def softmax_over_rows() -> bytes:
    """Each answer depends on all rows."""
    node = helper.make_node("Softmax", ["x"], ["y"], axis=0)
    return model([node], [tensor("x", ["rows", 1])], [tensor("y", ["rows", 1])])


def mean_over_rows() -> bytes:
    """One answer for all rows, which keeps its first dimension."""
    node = helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=1)
    axes = numpy_helper.from_array(np.array([0], dtype=np.int64), "axes")
    return model([node], [tensor("x", ["rows", 1])], [tensor("y", [1, 1])], [axes])


def less_mean_over_rows() -> bytes:
    """Each row less the mean of all: as many answers as rows, and each depends on all."""
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    axes = numpy_helper.from_array(np.array([0], dtype=np.int64), "axes")
    return model(nodes, [tensor("x", ["rows", 1])], [tensor("y", ["rows", 1])], [axes])


def running_sum() -> bytes:
    """Each answer depends on the rows before it."""
    node = helper.make_node("CumSum", ["x", "axis"], ["y"])
    axis = numpy_helper.from_array(np.array(0, dtype=np.int64), "axis")
    return model([node], [tensor("x", ["rows", 1])], [tensor("y", ["rows", 1])], [axis])


def double() -> bytes:
    """Doubles every row on its own."""
    return model([helper.make_node("Add", ["x", "x"], ["y"])], [tensor("x", ["rows", 1])], [tensor("y", ["rows", 1])])


def lookup() -> bytes:
    """Looks each index up in a table of three; another index is refused by ONNX Runtime while it runs."""
    table = numpy_helper.from_array(np.array([10.0, 20.0, 30.0], dtype=np.float32), "table")
    node = helper.make_node("Gather", ["table", "x"], ["y"], axis=0)
    return model([node], [tensor("x", ["rows"], "INT64")], [tensor("y", ["rows"])], [table])


def wide(columns: int = 64, outputs: int = 8) -> bytes:
    """A matrix product and a tanh: the kind of graph whose kernels change with the number of rows."""
    weights = np.random.default_rng(1).standard_normal((columns, outputs)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "weights"], ["product"]), helper.make_node("Tanh", ["product"], ["y"])]
    inputs, results = [tensor("x", ["rows", columns])], [tensor("y", ["rows", outputs])]
    return model(nodes, inputs, results, [numpy_helper.from_array(weights, "weights")])


def sequence_of() -> bytes:
    """Gives a sequence of tensors, which the protocol has no datatype for, beside a plain output."""
    nodes = [
        helper.make_node("SequenceConstruct", ["x"], ["pieces"]),
        helper.make_node("Neg", ["x"], ["y"]),
    ]
    pieces = helper.make_tensor_sequence_value_info("pieces", TensorProto.FLOAT, None)
    return model(nodes, [tensor("x", ["rows"])], [pieces, tensor("y", ["rows"])])
