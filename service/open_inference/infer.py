"""ModelInfer: bytes ↔ queries and answers, for any model.

An answer comes in the encoding of its request: raw contents for raw, typed for typed. Where an output has a datatype
that typed contents cannot hold (FP16, BF16), all outputs come raw.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from proto.inference.v2 import open_inference_pb2 as pb
from service.calls import Body
from service.engine import Tensor
from service.models import Choice, LoadedVersion
from service.open_inference.datatypes import BYTES
from service.open_inference.plan import Plan, Plans
from service.open_inference.request import Asked, Heads
from service.open_inference.tensors import from_raw, from_typed, to_raw, to_typed
from service.query import Answer, OnExtrapolation, Query
from service.wire import Part, length_delimited

_ID: Final = pb.ModelInferResponse.ID_FIELD_NUMBER
_OUTPUTS: Final = pb.ModelInferResponse.OUTPUTS_FIELD_NUMBER
_RAW: Final = pb.ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER
_CONTENTS: Final = pb.ModelInferResponse.InferOutputTensor.CONTENTS_FIELD_NUMBER

JOINED_BYTES: Final = 4096
"""Contents up to this are put behind the rest of their answer as one piece; larger ones stay views."""


@dataclass(slots=True, eq=False)
class InferQuery:
    """Tensors for a model, as a request gave them."""

    asked: Asked
    tensors: tuple[Tensor, ...]
    """One array for each input of the request, in its order."""
    plans: Plans
    model: str
    choice: Choice
    plan: Plan | None = None
    """How the request fits the version that answers it; known once it is bound."""
    fahrenheit: bool = False
    on_extrapolation: OnExtrapolation = OnExtrapolation.FLAG

    def bind(self, version: LoadedVersion) -> tuple[Tensor, ...]:
        """Return the arrays in the order of the model's inputs; errors as `Plans.plan`."""
        plan = self.plan = self.plans.plan(self.asked.head, version)
        self.fahrenheit = plan.fahrenheit
        if len(plan.order) == 1:
            return self.tensors
        return tuple(self.tensors[index] for index in plan.order)


class InferCodec:
    """`inference.ModelInferRequest` and `ModelInferResponse`."""

    def __init__(self) -> None:
        self._heads = Heads()
        self._plans = Plans()

    def decode(self, body: bytes) -> InferQuery:
        """Read a request; its names and shapes are compared with the model's once that is found.

        Raises:
            MalformedError: the bytes are no ModelInferRequest.
            InvalidRequestError: it contradicts itself: contents that do not fit datatype and shape, or both kinds.
            UnimplementedError: it asks for shared memory or classification.
        """
        return self.query(self._heads.read(body))

    def read(self, body: bytes) -> Asked:
        """Read a request up to its contents; errors as `decode`."""
        return self._heads.read(body)

    def query(self, asked: Asked) -> InferQuery:
        """Read the contents of a request; errors as `decode`."""
        head = asked.head
        if not asked.raw:
            tensors = tuple(map(from_typed, head.inputs, asked.typed))
        elif len(asked.raw) == 1:
            tensors = (from_raw(head.inputs[0], asked.raw[0]),)
        else:
            tensors = tuple(map(from_raw, head.inputs, asked.raw))
        return InferQuery(asked, tensors, self._plans, head.model, head.choice)

    def encode(self, query: Query, answer: Answer) -> Body:
        """Write an answer in parts."""
        assert isinstance(query, InferQuery)  # noqa: S101 - a codec encodes what it decoded
        assert query.plan is not None  # noqa: S101 - an answer is to a query that was bound
        plan = query.plan
        arrays = [take(answer) for _, take in plan.outputs]
        identity = b"".join(map(bytes, length_delimited(_ID, [query.asked.id]))) if query.asked.id else b""
        if query.asked.raw or not query.asked.typed or plan.raw_only:
            return _raw(plan, identity, arrays)
        return _typed(plan, identity, arrays)


def _raw(plan: Plan, identity: bytes, arrays: Sequence[Tensor]) -> Body:
    parts: list[Part] = [identity]
    size = 0
    for prefix, (datatype, _), array in zip(
        plan.prefix(tuple([array.shape for array in arrays])), plan.outputs, arrays, strict=True
    ):
        parts.append(prefix)
        contents = to_raw(datatype, array)
        if datatype is BYTES:
            parts += length_delimited(_RAW, [contents])
        else:
            parts.append(contents)
        size += array.nbytes
    return [b"".join(parts)] if size <= JOINED_BYTES else parts


def _typed(plan: Plan, identity: bytes, arrays: Sequence[Tensor]) -> Body:
    parts: list[Part] = [plan.start + identity]
    for index, array in enumerate(arrays):
        contents = length_delimited(_CONTENTS, to_typed(plan.outputs[index][0], array))
        parts += length_delimited(_OUTPUTS, [plan.tensor(index, array.shape), *contents])
    return [b"".join(parts)] if sum(map(len, parts)) <= JOINED_BYTES else parts
