"""ModelInfer: bytes ↔ queries and answers, for any model.

An answer comes in the encoding of its request: raw contents for raw, typed for typed. Where an output has a datatype
that typed contents cannot hold (FP16, BF16), all outputs come raw.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from proto.inference.v2 import open_inference_pb2 as pb
from service.alike import MAX_BYTES, Bytes, Pattern, bytes_of, write_bodies
from service.calls import Body, Codec, Request
from service.engine import Tensor
from service.models import Choice, LoadedVersion
from service.open_inference.datatypes import BOOL, BYTES
from service.open_inference.plan import Plan, Plans
from service.open_inference.request import MAX_REMEMBERED_BYTES, Asked, Heads
from service.open_inference.tensors import from_raw, from_typed, to_raw, to_typed
from service.query import Answer, OnExtrapolation, Query
from service.remembered import Remembered
from service.wire import LITTLE_ENDIAN, SMALL_BYTES, Part, field_head, length_delimited

_ID: Final = pb.ModelInferResponse.ID_FIELD_NUMBER
_OUTPUTS: Final = pb.ModelInferResponse.OUTPUTS_FIELD_NUMBER
_RAW_INPUT: Final = pb.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
_RAW: Final = pb.ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER
_CONTENTS: Final = pb.ModelInferResponse.InferOutputTensor.CONTENTS_FIELD_NUMBER

MAX_SEARCHED_BYTES: Final = 1 << 16
"""In longer requests nobody looks for contents whose place is not known."""
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
    ids: slice | None = None
    """Where their ids stand in the requests, where several with ids of their own share the query."""
    fahrenheit: bool = False
    on_extrapolation: OnExtrapolation = OnExtrapolation.FLAG

    @property
    def identity(self) -> bytes:
        """The request's id; empty for none."""
        return self.asked.id

    def of(self, body: bytes) -> "InferQuery":
        """The same as it is one request's, where requests with ids of their own share it."""
        return self if self.ids is None else replace(self, asked=replace(self.asked, id=body[self.ids]), ids=None)

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
        self._templates: Remembered[int, _Template] = Remembered()
        """By the length of the requests that are like it."""

    def decode(self, body: bytes) -> InferQuery:
        """Read a request; its names and shapes are compared with the model's once that is found.

        Raises:
            MalformedError: the bytes are no ModelInferRequest.
            InvalidRequestError: it contradicts itself: contents that do not fit datatype and shape, or both kinds.
            UnimplementedError: it asks for shared memory or classification.
        """
        template = self._known(body)
        if template is None:
            asked = self._heads.read(body)
            self._learn(body, asked)
            return self.query(asked)
        asked = template.of(body)
        contents = memoryview(body)[template.start : template.stop]
        tensors = (from_raw(asked.head.inputs[0], contents),)
        return InferQuery(asked, tensors, self._plans, asked.head.model, asked.head.choice)

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
        if len(body) > MAX_BYTES:
            return None
        template = self._known(body) or self._learn(body, self._heads.read(body))
        if template is None:
            return None
        asked = template.of(body)
        tensor = asked.head.inputs[0]

        def query(values: Bytes) -> InferQuery:
            rows = values.view(tensor.datatype.storage).reshape(-1, *tensor.shape[1:])
            return InferQuery(asked, (rows,), self._plans, asked.head.model, asked.head.choice, ids=template.identity)

        return Pattern(template.start, template.stop, query, template.identity)

    def _known(self, body: bytes) -> "_Template | None":
        """Find a request among those that were read: one that differs from it in its contents and its id alone."""
        template = self._templates.get(len(body))
        return template if template is not None and template.fits(body) else None

    def _learn(self, body: bytes, asked: Asked) -> "_Template | None":
        """Remember a request that was read; None where it is no plain one, or a wrong one."""
        template = _template(body, asked) if LITTLE_ENDIAN else None
        if template is not None:
            self._templates.put(len(body), template)
        return template

    def encode_alike(self, query: Query, answer: Answer, requests: Sequence[Request], rows: int) -> list[Body] | None:
        """Write many answers at once, where all outputs are plain numbers, a row of which goes with a row in."""
        assert isinstance(query, InferQuery)  # noqa: S101 - a codec encodes what it decoded
        assert query.plan is not None  # noqa: S101 - an answer is to a query that was bound
        plan, calls = query.plan, len(requests)
        arrays = [take(answer) for _, take in plan.outputs]
        if not plan.plain or any([len(array) != calls * rows for array in arrays]):  # noqa: C419 - quicker than a generator
            return None
        prefixes = plan.prefix(tuple([(rows, *array.shape[1:]) for array in arrays]))
        columns = list(zip([bytes_of(array, calls) for array in arrays], [*prefixes[1:], b""], strict=True))
        if query.ids is None:
            return write_bodies(_identity(query.asked.id) + prefixes[0], columns)
        ids = np.frombuffer(b"".join([request.body[query.ids] for request in requests]), np.uint8).reshape(calls, -1)
        return write_bodies(field_head(_ID, ids.shape[1]), [(ids, prefixes[0]), *columns])


class _Template(NamedTuple):
    """A request with one raw input of plain numbers, and what the same but for its contents and its id looks like."""

    before: bytes
    """Whole fields, and the head of the id; without one, that of the contents."""
    between: bytes
    """Behind the id: whole fields, and the head of the contents; empty without an id."""
    behind: bytes
    """Whole fields."""
    identity: slice | None
    """Where the id stands; None where there is none, or its place is not plain to see: then all have the same."""
    start: int
    stop: int
    asked: Asked
    """Without the contents."""

    def fits(self, body: bytes) -> bool:
        """Whether a request of the same length is like it; one whose id is not ASCII is left to protobuf."""
        return (
            body.startswith(self.before)
            and body.endswith(self.behind)
            and (
                self.identity is None
                or (body.startswith(self.between, self.identity.stop) and body[self.identity].isascii())
            )
        )

    def of(self, body: bytes) -> Asked:
        """What a request that is like it asks for, without the contents."""
        return self.asked if self.identity is None else Asked(self.asked.head, body[self.identity], (b"",))


def _template(body: bytes, asked: Asked) -> _Template | None:
    if len(asked.raw) != 1 or not asked.raw[0]:
        return None
    tensor, raw = asked.head.inputs[0], asked.raw[0]
    if tensor.datatype in {BYTES, BOOL} or tensor.raw_bytes != len(raw) or not tensor.shape:
        return None
    start = _found(body, raw) if asked.raw_start is None else asked.raw_start
    if start is None or len(body) - len(raw) > MAX_REMEMBERED_BYTES:
        return None
    stop = start + len(raw)
    identity = _found_id(body, asked.id, start)
    before, between = (body[:start], b"") if identity is None else (body[: identity.start], body[identity.stop : start])
    return _Template(before, between, body[stop:], identity, start, stop, Asked(asked.head, asked.id, (b"",)))


def _found(body: bytes, raw: bytes | memoryview) -> int | None:
    """Where the raw contents of a short request begin; None where that is not plain to see."""
    if len(body) > MAX_SEARCHED_BYTES:
        return None
    head = field_head(_RAW_INPUT, len(raw))
    field = body.rfind(head + raw)
    start = field + len(head)
    if field < 0 or not _has_no_contents(body[:field]) or not _has_no_contents(body[start + len(raw) :]):
        return None
    return start


def _found_id(body: bytes, identity: bytes, contents: int) -> slice | None:
    """Where the id stands in a short request, before its contents; None where that is not plain to see.

    It is where whole fields come before what looks like its field, and nothing else in the request is an id.
    """
    if not identity or len(body) > MAX_SEARCHED_BYTES:
        return None
    head = field_head(_ID, len(identity))
    field = body.find(head + identity)
    start = field + len(head)
    stop = start + len(identity)
    if field < 0 or stop > contents or not _has_no_id(body[:field]) or not _has_no_id(body[:field] + body[stop:]):
        return None
    return slice(start, stop)


def _has_no_id(fields: bytes) -> bool:
    try:
        return not pb.ModelInferRequest.FromString(fields).id
    except DecodeError:
        return False


def _has_no_contents(fields: bytes) -> bool:
    try:
        return not pb.ModelInferRequest.FromString(fields).raw_input_contents
    except DecodeError:
        return False


def _identity(identity: bytes) -> bytes:
    return b"".join(map(bytes, length_delimited(_ID, [identity]))) if identity else b""


def _raw(plan: Plan, identity: bytes, arrays: Sequence[Tensor]) -> Body:
    if len(arrays) == 1 and arrays[0].nbytes <= SMALL_BYTES and plan.outputs[0][0] is not BYTES and LITTLE_ENDIAN:
        (prefix,) = plan.prefix((arrays[0].shape,))
        return [identity + prefix + arrays[0].tobytes()]
    parts: list[Part] = []
    size = 0
    for prefix, (datatype, _), array in zip(
        plan.prefix(tuple([array.shape for array in arrays])), plan.outputs, arrays, strict=True
    ):
        contents = to_raw(datatype, array)
        head = prefix + field_head(_RAW, len(contents)) if datatype is BYTES else prefix
        parts += [head if parts else identity + head, contents]
        size += array.nbytes
    return [b"".join(parts)] if size <= JOINED_BYTES else parts


def _typed(plan: Plan, identity: bytes, arrays: Sequence[Tensor]) -> Body:
    parts: list[Part] = [plan.start + identity]
    for index, array in enumerate(arrays):
        contents = length_delimited(_CONTENTS, to_typed(plan.outputs[index][0], array))
        parts += length_delimited(_OUTPUTS, [plan.tensor(index, array.shape), *contents])
    return [b"".join(parts)] if sum(map(len, parts)) <= JOINED_BYTES else parts
