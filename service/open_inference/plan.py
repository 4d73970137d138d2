"""How a request fits a version: which of its inputs goes where, and how each output that it wants is got and written.

All of it follows from the request's head and the version, so it is worked out once for both and remembered with the
version, for as long as the version lives.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from weakref import WeakKeyDictionary

import numpy as np

from proto.inference.v2 import open_inference_pb2 as pb
from service.engine import Tensor, TensorSpec
from service.errors import InvalidRequestError
from service.models import LoadedVersion
from service.open_inference import datatypes
from service.open_inference.datatypes import BYTES, Datatype
from service.open_inference.request import MAX_SHOWN, InferHead, InputHead
from service.query import Answer, interval_bounds
from service.remembered import Remembered
from service.wire import field_head, length_delimited

_OUTPUTS: Final = pb.ModelInferResponse.OUTPUTS_FIELD_NUMBER
_RAW: Final = pb.ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER


@dataclass(frozen=True, slots=True)
class Output:
    """One output that may be asked for."""

    spec: TensorSpec
    take: Callable[[Answer], Tensor]
    """Gets it out of an answer."""
    by_default: bool
    """Whether it is given to a request that names no output: so are those of the model's own graph."""


@dataclass(slots=True, eq=False)
class Plan:
    """How requests with one head fit one version. It holds nothing of the version that would keep it in memory."""

    order: tuple[int, ...]
    """For each input of the model, its place in the request."""
    outputs: tuple[tuple[Datatype, Callable[[Answer], Tensor]], ...]
    fahrenheit: bool
    """Whether the rows are temperatures, to be refused where physics has none."""
    start: bytes
    """The fields of the answer that are the same for all of them: name and version of the model."""
    names: tuple[str, ...]
    prefixes: Remembered[tuple[tuple[int, ...], ...], tuple[bytes, ...]]
    """What stands before the raw contents of each output, by the shapes of all."""
    tensors: Remembered[tuple[int, tuple[int, ...]], bytes]
    """Each output without its contents, by its place and its shape."""
    raw_only: bool
    """Whether an output has a datatype that typed contents cannot hold."""
    plain: bool
    """Whether all outputs are numbers, whose raw contents have as many bytes as their shape says."""

    def prefix(self, shapes: tuple[tuple[int, ...], ...]) -> tuple[bytes, ...]:
        """What stands before the raw contents of each output: before those of the first all but the answer's id.

        BYTES, whose size does not follow from their shape, still lack the head of their field.
        """
        prefixes = self.prefixes.get(shapes)
        if prefixes is None:
            prefixes = self._prefix(shapes)
            self.prefixes.put(shapes, prefixes)
        return prefixes

    def _prefix(self, shapes: tuple[tuple[int, ...], ...]) -> tuple[bytes, ...]:
        outputs = (length_delimited(_OUTPUTS, [self.tensor(index, shape)]) for index, shape in enumerate(shapes))
        start = self.start + b"".join(part for parts in outputs for part in parts)
        sizes = [
            b"" if datatype is BYTES else field_head(_RAW, math.prod(shape) * datatype.storage.itemsize)
            for (datatype, _), shape in zip(self.outputs, shapes, strict=True)
        ]
        return start + sizes[0], *sizes[1:]

    def tensor(self, index: int, shape: tuple[int, ...]) -> bytes:
        """One output of an answer, without contents."""
        tensor = self.tensors.get((index, shape))
        if tensor is None:
            name, datatype = self.names[index], self.outputs[index][0].name
            message = pb.ModelInferResponse.InferOutputTensor(name=name, datatype=datatype, shape=shape)
            tensor = message.SerializeToString()
            self.tensors.put((index, shape), tensor)
        return tensor


class Plans:
    """Makes plans, and remembers those for heads that are themselves remembered, as long as their version lives."""

    def __init__(self) -> None:
        self._by_version: WeakKeyDictionary[LoadedVersion, Remembered[InferHead, Plan]] = WeakKeyDictionary()

    def plan(self, head: InferHead, version: LoadedVersion) -> Plan:
        """Fit a request to a version.

        Raises:
            InvalidRequestError: an input is missing, unknown, twice there, or of another datatype or shape than the
                model's; or an output is unknown or twice there.
            UnsupportedError: the protocol has no datatype for what the model takes, or gives.
        """
        known = self._by_version.get(version)
        if known is None:
            known = self._by_version.setdefault(version, Remembered())
        plan = known.get(head)
        if plan is None:
            plan = make_plan(head, version)
            known.put(head, plan)
        return plan


def make_plan(head: InferHead, version: LoadedVersion) -> Plan:
    """Fit a request to a version; errors as `Plans.plan`."""
    given = _by_name(head, version)
    for spec in version.engine.inputs:
        _check_input(given[spec.name][1], spec)
    if version.rows_independent:
        _check_rows(head)
    chosen = _choose_outputs(head, version)
    outputs = tuple((datatypes.of(output.spec), output.take) for output in chosen)
    return Plan(
        order=tuple(given[spec.name][0] for spec in version.engine.inputs),
        outputs=outputs,
        fahrenheit=version.artefact is not None and version.converts,
        start=pb.ModelInferResponse(model_name=version.name, model_version=str(version.version)).SerializeToString(),
        names=tuple(output.spec.name for output in chosen),
        prefixes=Remembered(),
        tensors=Remembered(),
        raw_only=any(datatype.contents is None for datatype, _ in outputs),
        plain=all(datatype is not BYTES for datatype, _ in outputs),
    )


def outputs_of(version: LoadedVersion) -> list[Output]:
    """Every output that may be asked for: those of the graph, then those that a converter's metadata allows."""
    graph = version.engine.outputs
    outputs = [Output(spec, _Nth(index), by_default=True) for index, spec in enumerate(graph)]
    names = {spec.name for spec in graph}
    derived = _derived(version)
    return [*outputs, *(output for output in derived if output.spec.name not in names)]


@dataclass(frozen=True, slots=True)
class _Nth:
    """Takes one output of the graph."""

    index: int

    def __call__(self, answer: Answer) -> Tensor:
        return answer.outputs[self.index]


def _derived(version: LoadedVersion) -> list[Output]:
    derived = []
    if version.interval is not None and version.converts:
        derived += [
            Output(_column("celsius_lower", datatypes.FP32), lambda answer: _rows(interval_bounds(answer)[0]), False),
            Output(_column("celsius_upper", datatypes.FP32), lambda answer: _rows(interval_bounds(answer)[1]), False),
        ]
    if version.domain is not None:
        derived.append(Output(_column("extrapolated", datatypes.BOOL), _extrapolated, False))
    return derived


def _column(name: str, datatype: Datatype) -> TensorSpec:
    return TensorSpec(name, datatype.storage.type, (None, 1), datatype.onnx_type)


def _rows(values: Tensor) -> Tensor:
    return values.reshape(-1, 1)


def _extrapolated(answer: Answer) -> Tensor:
    assert answer.outside is not None  # noqa: S101 - offered only where the domain is stated
    return _rows(np.ascontiguousarray(answer.outside))


def _by_name(head: InferHead, version: LoadedVersion) -> dict[str, tuple[int, InputHead]]:
    given: dict[str, tuple[int, InputHead]] = {}
    wanted = [spec.name for spec in version.engine.inputs]
    for index, tensor in enumerate(head.inputs):
        if tensor.name in given:
            raise InvalidRequestError("inputs", f"{_shown(tensor.name)} is there twice")
        if tensor.name not in wanted:
            raise InvalidRequestError(
                "inputs", f"{version} has no input {_shown(tensor.name)}: it takes {_list(wanted)}"
            )
        given[tensor.name] = index, tensor
    if missing := [name for name in wanted if name not in given]:
        raise InvalidRequestError("inputs", f"{missing[0]!r} is missing: {version} takes {_list(wanted)}")
    return given


def _check_input(given: InputHead, spec: TensorSpec) -> None:
    datatype = datatypes.of(spec)
    if given.datatype is not datatype:
        raise InvalidRequestError(
            f"{given.field}.datatype", f"is {given.datatype.name}; the model takes {datatype.name}"
        )
    if not spec.shape:  # one element, or any shape at all: ONNX Runtime does not tell which, and takes either
        return
    fits = len(given.shape) == len(spec.shape) and all(
        wanted in (None, size) for size, wanted in zip(given.shape, spec.shape, strict=True)
    )
    if not fits:
        wanted = [-1 if size is None else size for size in spec.shape]
        raise InvalidRequestError(f"{given.field}.shape", f"is {list(given.shape)}; the model takes {wanted}")


def _check_rows(head: InferHead) -> None:
    """Every input must have as many rows as the others, since each row is answered on its own."""
    rows = {tensor.shape[0] for tensor in head.inputs}
    if len(rows) > 1:
        sizes = _list([f"{tensor.name} {tensor.shape[0]}" for tensor in head.inputs])
        raise InvalidRequestError("inputs", f"must have as many rows as one another, not {sizes}")


def _choose_outputs(head: InferHead, version: LoadedVersion) -> list[Output]:
    offered = {output.spec.name: output for output in outputs_of(version)}
    if not head.outputs:
        return [output for output in offered.values() if output.by_default]
    if unknown := [name for name in head.outputs if name not in offered]:
        raise InvalidRequestError(
            "outputs", f"{version} has no output {_shown(unknown[0])}: it gives {_list(list(offered))}"
        )
    if len(set(head.outputs)) != len(head.outputs):
        raise InvalidRequestError("outputs", f"one is asked for twice: {_list(list(head.outputs))}")
    return [offered[name] for name in head.outputs]


def _shown(name: str) -> str:
    return repr(name[:MAX_SHOWN])


def _list(names: list[str]) -> str:
    return ", ".join(names) or "none"
