"""ModelInfer: bytes ↔ queries and answers, for any model.

An answer comes in the encoding of its request: raw contents for raw, typed for typed. Where an output has a datatype
that typed contents cannot hold (FP16, BF16), all outputs come raw.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from proto.inference.v2 import open_inference_pb2 as pb
from service.alike import MAX_BYTES, Bytes, Pattern, bytes_of, table
from service.calls import Body, Codec
from service.engine import Tensor
from service.models import Choice, LoadedVersion
from service.open_inference.datatypes import BOOL, BYTES
from service.open_inference.plan import Plan, Plans
from service.open_inference.request import Asked, Heads
from service.open_inference.tensors import from_raw, from_typed, to_raw, to_typed
from service.query import Answer, OnExtrapolation, Query
from service.remembered import Remembered
from service.wire import LITTLE_ENDIAN, Part, field_head, length_delimited

_ID: Final = pb.ModelInferResponse.ID_FIELD_NUMBER
_OUTPUTS: Final = pb.ModelInferResponse.OUTPUTS_FIELD_NUMBER
_RAW_INPUT: Final = pb.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
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

    @property
    def identity(self) -> bytes:
        """The request's id; empty for none."""
        return self.asked.id

    def bind(self, version: LoadedVersion) -> tuple[Tensor, ...]:
        """Return the arrays in the order of the model's inputs; errors as `Plans.plan`."""
        plan = self.plan = self.plans.plan(self.asked.head, version)
        self.fahrenheit = plan.fahrenheit
        if len(plan.order) == 1:
            return self.tensors
        return tuple(self.tensors[index] for index in plan.order)


class InferCodec(Codec):
    """`inference.ModelInferRequest` and `ModelInferResponse`."""

    def __init__(self) -> None:
        self._heads = Heads()
        self._plans = Plans()
        self._around: Remembered[tuple[bytes, bytes], bool] = Remembered()
        """Whether what stands before and behind raw contents is whole fields, without further contents."""

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
        identity = _identity(query.asked.id)
        if query.asked.raw or not query.asked.typed or plan.raw_only:
            return _raw(plan, identity, arrays)
        return _typed(plan, identity, arrays)

    def pattern(self, body: bytes) -> Pattern | None:
        """Tell where the raw contents of a request stand, if it has one input of plain numbers."""
        asked = self._heads.read(body) if LITTLE_ENDIAN and len(body) <= MAX_BYTES else None
        if asked is None or len(asked.raw) != 1 or not asked.raw[0]:
            return None
        tensor, raw = asked.head.inputs[0], asked.raw[0]
        if tensor.datatype in {BYTES, BOOL} or tensor.raw_bytes != len(raw) or not tensor.shape:
            return None
        head = field_head(_RAW_INPUT, len(raw))
        start = body.rfind(head + raw)
        if start < 0 or not self._is_around(body[:start], body[start + len(head) + len(raw) :]):
            return None

        def query(values: Bytes) -> InferQuery:
            rows = values.view(tensor.datatype.storage).reshape(-1, *tensor.shape[1:])
            return InferQuery(asked, (rows,), self._plans, asked.head.model, asked.head.choice)

        return Pattern(start + len(head), start + len(head) + len(raw), query)

    def _is_around(self, before: bytes, behind: bytes) -> bool:
        known = self._around.get((before, behind))
        if known is None:
            known = _has_no_contents(before) and _has_no_contents(behind)
            self._around.put((before, behind), known)
        return known

    def encode_alike(self, query: Query, answer: Answer, calls: int, rows: int) -> list[Body] | None:
        """Write many answers as one table, where all outputs are plain numbers, a row of which goes with a row in."""
        assert isinstance(query, InferQuery)  # noqa: S101 - a codec encodes what it decoded
        assert query.plan is not None  # noqa: S101 - an answer is to a query that was bound
        plan = query.plan
        arrays = [take(answer) for _, take in plan.outputs]
        if any(datatype is BYTES for datatype, _ in plan.outputs) or any(
            len(array) != calls * rows for array in arrays
        ):
            return None
        prefixes = plan.prefix(tuple([(rows, *array.shape[1:]) for array in arrays]))
        columns: list[bytes | Bytes] = [_identity(query.asked.id)]
        for prefix, array in zip(prefixes, arrays, strict=True):
            columns += [prefix, bytes_of(array, calls)]
        return [[body] for body in table(columns, calls)]


def _has_no_contents(fields: bytes) -> bool:
    try:
        return not pb.ModelInferRequest.FromString(fields).raw_input_contents
    except DecodeError:
        return False


def _identity(identity: bytes) -> bytes:
    return b"".join(map(bytes, length_delimited(_ID, [identity]))) if identity else b""


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
