"""The `onnx` package's own backend test data, served and asked over a real channel, and why what fails fails.

`python -m tests.service.open_inference.onnx_suite` runs all of it and prints the counts that stand in
docs/open_inference.md; `test_onnx_suite.py` runs a sample of it.
"""

import importlib
import logging
import pkgutil
import random
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np
import onnx
import structlog
from onnx import TensorProto, helper, numpy_helper

from proto.inference.v2 import open_inference_pb2 as pb
from proto.inference.v2.open_inference_pb2_grpc import GRPCInferenceServiceStub
from proto.repository import Repository
from proto.runtime import onnxruntime
from service.config import Settings
from service.server import Server
from tests.service.open_inference.calls import Array, outputs_of, request
from tests.service.open_inference.graphs import ELEMENT_TYPES

TIMEOUT_SECONDS: Final = 120
MESSAGE_BYTES: Final = 64 << 20

DATATYPES: Final = {int(element): name for name, element in ELEMENT_TYPES.items()}

RIGHT: Final = "right answer"


@dataclass(frozen=True)
class Case:
    """One model with one set of inputs and the outputs expected of it."""

    kind: str
    name: str
    model: onnx.ModelProto
    inputs: Sequence[Any]
    outputs: Sequence[Any]
    relative_tolerance: float
    absolute_tolerance: float


@dataclass(frozen=True)
class Verdict:
    """What became of a case: `RIGHT`, or why not."""

    case: Case
    reason: str
    detail: str = ""


# Cases ----------------------------------------------------------------------------------------------------------------


def all_cases() -> Iterator[Case]:
    """Every case of every kind, the first data set of each."""
    from onnx.backend.test.case import node  # noqa: PLC0415 - makes a thousand models; only the full run needs it
    from onnx.backend.test.loader import load_model_tests  # noqa: PLC0415 - as above

    yield from _from_tests("node", node.collect_testcases(None))
    for kind in ("simple", "pytorch-converted", "pytorch-operator", "real"):
        yield from _from_tests(kind, load_model_tests(kind=kind))


def sample_cases(operators: int, seed: int) -> Iterator[Case]:
    """The cases of some operators, chosen by a seed, and every `simple` one."""
    from onnx.backend.test.case import node  # noqa: PLC0415 - as above
    from onnx.backend.test.loader import load_model_tests  # noqa: PLC0415 - as above

    names = sorted(module.name for module in pkgutil.iter_modules(node.__path__) if not module.name.startswith("_"))
    before = len(node._NodeTestCases)  # noqa: SLF001 - the package makes its cases when a module of it is imported
    for name in random.Random(seed).sample(names, operators):  # noqa: S311 - a choice of tests
        importlib.import_module(f"{node.__name__}.{name}")
    yield from _from_tests("node", node._NodeTestCases[before:])  # noqa: SLF001 - as above
    yield from _from_tests("simple", load_model_tests(kind="simple"))


def _from_tests(kind: str, tests: Iterable[Any]) -> Iterator[Case]:
    for test in tests:
        model = test.model or onnx.load(_model_path(test))
        inputs, outputs = test.data_sets[0] if test.data_sets else _read_data(test, model)
        yield Case(kind, test.name, model, inputs, outputs, test.rtol, test.atol)


def _model_path(test: Any) -> Path:  # noqa: ANN401 - onnx publishes no types for it
    if test.url:
        return Path(onnx.__file__).parent.parent.joinpath(test.url)
    return Path(test.model_dir) / "model.onnx"


def _read_data(test: Any, model: onnx.ModelProto) -> tuple[list[Any], list[Any]]:  # noqa: ANN401 - as above
    """The data beside a model; for the large ones, whose weights are made up, made up as the package does it."""
    if test.url:
        stem = _model_path(test).with_suffix("")
        (given,) = _inputs(model)
        shape = [dimension.dim_value or 1 for dimension in given.type.tensor_type.shape.dim]
        ramp = (np.arange(np.prod(shape)) / np.prod(shape)).reshape(shape).astype(np.float32)
        return [ramp], [_read(Path(f"{stem}_output_0.pb"), model.graph.output[0])]
    directory = Path(test.model_dir) / "test_data_set_0"
    inputs = [_read(directory / f"input_{index}.pb", info) for index, info in enumerate(_inputs(model))]
    return inputs, [_read(directory / f"output_{index}.pb", info) for index, info in enumerate(model.graph.output)]


def _read(path: Path, info: onnx.ValueInfoProto) -> Any:  # noqa: ANN401 - an array, or what is none
    if info.type.WhichOneof("value") != "tensor_type":
        return None
    return numpy_helper.to_array(TensorProto.FromString(path.read_bytes()))


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    constants = {constant.name for constant in model.graph.initializer}
    return [info for info in model.graph.input if info.name not in constants]


# Serving --------------------------------------------------------------------------------------------------------------


def run(cases: Sequence[Case]) -> list[Verdict]:
    """Serve every case's model from one server, and ask each for its outputs."""
    with tempfile.TemporaryDirectory() as directory:
        repository = Repository(Path(directory) / "models")
        for index, case in enumerate(cases):
            repository.publish(f"case-{index}", case.model.SerializeToString())
        addresses: dict[str, Any] = {"listen": "127.0.0.1:0", "http_listen": "127.0.0.1:0"}
        options: dict[str, Any] = {"device": "cpu", "max_message_bytes": MESSAGE_BYTES, **addresses}
        server = Server(Settings(repository=repository.root, **options))
        server.start()
        try:
            with grpc.insecure_channel(
                server.address, options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
            ) as channel:
                stub = GRPCInferenceServiceStub(channel)
                return [_judge(stub, f"case-{index}", case) for index, case in enumerate(cases)]
        finally:
            server.stop()


def _judge(stub: GRPCInferenceServiceStub, name: str, case: Case) -> Verdict:
    unspeakable = [_type_name(info) for info in (*_inputs(case.model), *case.model.graph.output) if not _speaks(info)]
    try:
        answer = stub.ModelInfer(_request(name, case), timeout=TIMEOUT_SECONDS)
    except _UnspeakableError as error:
        return Verdict(case, f"the protocol has no datatype for {error}")
    except grpc.RpcError as error:
        return Verdict(case, _reason(case, error, unspeakable), str(error.details()))
    problem = _difference(case, outputs_of(answer))
    if problem is None:
        return Verdict(case, RIGHT)
    return Verdict(case, _whose_fault(case), problem)


def _request(name: str, case: Case) -> pb.ModelInferRequest:
    inputs: dict[str, tuple[str, Array]] = {}
    for info, value in zip(_inputs(case.model), case.inputs, strict=False):
        if not _speaks(info):
            raise _UnspeakableError(_type_name(info))
        inputs[info.name] = DATATYPES[info.type.tensor_type.elem_type], _array(value)
    return request(name, inputs)


class _UnspeakableError(Exception):
    """An input has a type that the protocol has no datatype for."""


def _array(value: Any) -> Array:  # noqa: ANN401 - an array or a TensorProto
    array = np.asarray(numpy_helper.to_array(value) if isinstance(value, TensorProto) else value)
    if array.dtype.name == "bfloat16":
        return array.view(np.uint16)
    if array.dtype.kind in "US":
        return array.astype(str).astype(np.object_)
    return array


def _speaks(info: onnx.ValueInfoProto) -> bool:
    return info.type.WhichOneof("value") == "tensor_type" and info.type.tensor_type.elem_type in DATATYPES


def _type_name(info: onnx.ValueInfoProto) -> str:
    kind = str(info.type.WhichOneof("value")).removesuffix("_type")
    if kind != "tensor":
        return f"{kind}s"
    return str(helper.tensor_dtype_to_string(info.type.tensor_type.elem_type)).removeprefix("TensorProto.")


# Judging --------------------------------------------------------------------------------------------------------------


def _reason(case: Case, error: grpc.RpcError, unspeakable: Sequence[str]) -> str:
    text = str(error.details())
    if "cannot answer: ONNX Runtime cannot load" in text:
        return "ONNX Runtime cannot load it: " + _cause(text)
    if unspeakable:
        return f"the protocol has no datatype for {unspeakable[0]}"
    try:
        _run_directly(case)
    except Exception:  # noqa: BLE001 - whatever ONNX Runtime raises: the server could not have done better
        return "ONNX Runtime itself fails to run it"
    return f"refused with {error.code().name}"


def _cause(text: str) -> str:
    if "IR version" in text:
        return "the file format is newer than it reads"
    if "is under development" in text or "opset" in text.lower():
        return "the operator set is newer than it knows"
    if "NOT_IMPLEMENTED" in text:
        return "it has no kernel for an operator and these types"
    if "is not a registered function/op" in text or "No Op registered" in text:
        return "it does not know an operator"
    return "it finds the graph invalid"


def _difference(case: Case, given: dict[str, Array]) -> str | None:
    for info, value in zip(case.model.graph.output, case.outputs, strict=True):
        expected, got = _comparable(info, _array(value)), _comparable(info, given[info.name])
        if expected.shape != got.shape or expected.dtype != got.dtype:
            return f"{info.name}: {got.dtype}{list(got.shape)}, expected {expected.dtype}{list(expected.shape)}"
        if expected.dtype == np.object_:
            if expected.tolist() != got.tolist():
                return f"{info.name}: {got.tolist()}, expected {expected.tolist()}"
        elif not np.allclose(got, expected, rtol=case.relative_tolerance, atol=case.absolute_tolerance, equal_nan=True):
            return f"{info.name}: {got.ravel()[:4]}, expected {expected.ravel()[:4]}"
    return None


def _comparable(info: onnx.ValueInfoProto, array: Array) -> Array:
    """Numbers that can be compared: bfloat16 as the float32 that it is the upper half of."""
    if info.type.tensor_type.elem_type == TensorProto.BFLOAT16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array


def _whose_fault(case: Case) -> str:
    """An answer that is wrong without a server too is ONNX Runtime's own."""
    if _difference(case, _run_directly(case)) is not None:
        return "ONNX Runtime itself answers otherwise than onnx expects"
    return "wrong answer"


def _run_directly(case: Case) -> dict[str, Array]:
    """Run a model without a server. Raises whatever ONNX Runtime raises."""
    session = onnxruntime.InferenceSession(case.model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [info.name for info in case.model.graph.output]
    feeds = {info.name: _array(value) for info, value in zip(_inputs(case.model), case.inputs, strict=False)}
    return dict(zip(names, session.run(names, feeds), strict=True))


def main() -> int:
    """Run everything, print the counts, and each case that failed with its reason."""
    warnings.simplefilter("ignore")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    verdicts = run(list(all_cases()))
    kinds = Counter(verdict.case.kind for verdict in verdicts)
    right = Counter(verdict.case.kind for verdict in verdicts if verdict.reason == RIGHT)
    print("| kind | models | right answer |\n| --- | ---: | ---: |")  # noqa: T201 - this is a program
    for kind, count in kinds.items():
        print(f"| {kind} | {count} | {right[kind]} |")  # noqa: T201 - as above
    print(f"| all | {kinds.total()} | {right.total()} |\n\n| why not | models |\n| --- | ---: |")  # noqa: T201 - as above
    for reason, count in Counter(v.reason for v in verdicts if v.reason != RIGHT).most_common():
        print(f"| {reason} | {count} |")  # noqa: T201 - as above
    for verdict in verdicts:
        if verdict.reason != RIGHT:
            print(f"{verdict.case.kind} {verdict.case.name}: {verdict.reason}. {verdict.detail[:200]}", file=sys.stderr)  # noqa: T201 - as above
    return 0


if __name__ == "__main__":
    sys.exit(main())
