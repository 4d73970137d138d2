"""What a `ModelInferRequest` asks for, apart from its elements and its id: the same for one call after another.

A client that sends row after row repeats everything but the row. So the part of a request that repeats is read once
and found again by its own bytes, after the raw contents and the id were taken out of it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from proto.inference.v2 import open_inference_pb2 as pb
from proto.repository import NAME_PATTERN
from service.codec import parse
from service.errors import InvalidRequestError, MalformedError, TooManyFieldsError, UnimplementedError
from service.fields import MAX_FIELDS, check_fields
from service.models import Choice
from service.open_inference import datatypes
from service.open_inference.datatypes import Datatype
from service.remembered import Remembered
from service.wire import take_out

_ID: Final = pb.ModelInferRequest.ID_FIELD_NUMBER
_RAW: Final = pb.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER

MAX_REMEMBERED_BYTES: Final = 1024
"""A head whose bytes are more is read each time, so that nobody can fill the memory with names."""
MAX_DIMENSIONS: Final = 64
"""As many as NumPy has."""
MAX_SHOWN: Final = 80
"""Characters of a client's own text that an error repeats."""
COPIED_BYTES: Final = 4096
"""Up to here protobuf copies a request's raw contents faster than the fields are walked to make views of them."""
_MAX_VERSION_DIGITS: Final = 18
_FINAL: Final = "triton_enable_empty_final_response"

UNREADABLE: Final = (MalformedError, TooManyFieldsError)
"""Errors of requests of which nothing is known, not even their id."""


@dataclass(frozen=True)
class InputHead:
    """One input of a request without its elements."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]

    @cached_property
    def field(self) -> str:
        """How errors call it."""
        return field_of("inputs", self.name)

    @cached_property
    def elements(self) -> int:
        """How many elements the shape holds; of any size, unlike NumPy's product."""
        return math.prod(self.shape)

    @cached_property
    def raw_bytes(self) -> int:
        """How many bytes of raw contents there must be; BYTES have no fixed size."""
        return self.elements * self.datatype.storage.itemsize


@dataclass(frozen=True, slots=True, eq=False)
class InferHead:
    """A request without its id and its elements. Two requests with the same head share this very object."""

    model: str
    choice: Choice
    inputs: tuple[InputHead, ...]
    outputs: tuple[str, ...]
    """Names of the outputs that are wanted; none for those of the model's own graph."""
    tells_final: bool
    """Whether an answer on a stream shall say that it is the last one to its request."""


@dataclass(slots=True)
class Asked:
    """A request that was read: its head, its id, and where its elements are."""

    head: InferHead
    id: bytes
    """UTF-8; empty for none."""
    raw: Sequence[bytes | memoryview]
    """Raw contents, one entry an input; empty where the contents are typed."""
    typed: Sequence[pb.InferTensorContents] = ()
    """Typed contents, one entry an input; empty where they are raw."""
    raw_start: int | None = None
    """Where the last raw contents begin in the request; None where they are no view of it."""


class Heads:
    """Reads requests, and remembers their heads."""

    def __init__(self) -> None:
        self._heads: Remembered[bytes, InferHead] = Remembered()

    def read(self, body: bytes) -> Asked:
        """Read a request.

        Raises:
            MalformedError: the bytes are no ModelInferRequest.
            TooManyFieldsError: it has more fields than are read.
            InvalidRequestError: it contradicts itself.
            UnimplementedError: it asks for something of the protocol that is not here.
        """
        check_fields(pb.ModelInferRequest, body)
        taken = take_out(body, _ID, _RAW, MAX_FIELDS) if len(body) > COPIED_BYTES else None
        if taken is None or not taken.second:
            return self._read_message(parse(pb.ModelInferRequest, body))
        return self._read_raw(taken.rest, _checked_text(taken.first), taken.second, taken.start)

    def _read_message(self, message: pb.ModelInferRequest) -> Asked:
        identity = message.id.encode()
        message.ClearField("id")
        raw = message.raw_input_contents[:]
        if raw:
            message.ClearField("raw_input_contents")
            return self._read_raw(message.SerializeToString(), identity, raw)
        typed = [tensor.contents for tensor in message.inputs]
        for tensor in message.inputs:
            tensor.ClearField("contents")
        return Asked(self._head(message.SerializeToString()), identity, (), typed)

    def _read_raw(
        self, rest: bytes, identity: bytes, raw: Sequence[bytes | memoryview], start: int | None = None
    ) -> Asked:
        head = self._head(rest)
        if len(raw) != len(head.inputs):
            raise InvalidRequestError("raw_input_contents", f"{len(raw)} entries for {len(head.inputs)} inputs")
        return Asked(head, identity, raw, raw_start=start)

    def _head(self, rest: bytes) -> InferHead:
        """Read a request without its id and its contents, or find it among those that were read."""
        head = self._heads.get(rest)
        if head is None:
            head = _read_head(parse(pb.ModelInferRequest, rest))
            if len(rest) <= MAX_REMEMBERED_BYTES:
                self._heads.put(rest, head)
        return head


def identity_of(body: bytes) -> str:
    """Return the id of a request; empty for none. Its contents, which may be long, are not made objects for that.

    Raises:
        MalformedError: the bytes are no ModelInferRequest.
        TooManyFieldsError: it has more fields than are read.
    """
    check_fields(pb.ModelInferRequest, body)
    taken = take_out(body, _ID, _RAW, MAX_FIELDS)
    return parse(pb.ModelInferRequest, body).id if taken is None else _checked_text(taken.first).decode()


def field_of(kind: str, name: str) -> str:
    """How errors call an input or output, by the beginning of its name: a client may send any."""
    return f"{kind}[{name[:MAX_SHOWN]}]"


def choice_of(version: str, field: str = "model_version") -> Choice:
    """Return the version or label that a text names, or None for an empty one.

    Raises:
        InvalidRequestError: it is neither a whole number from 1 nor a label.
    """
    if not version:
        return None
    if version.isascii() and version.isdigit() and version[0] != "0" and len(version) <= _MAX_VERSION_DIGITS:
        return int(version)
    if NAME_PATTERN.fullmatch(version):
        return version
    raise InvalidRequestError(field, f"{version[:MAX_SHOWN]!r} is neither a whole number from 1 nor a label")


def _checked_text(text: bytes) -> bytes:
    try:
        text.decode()
    except UnicodeDecodeError:
        raise MalformedError("the bytes are not an inference.ModelInferRequest: its id is not UTF-8") from None
    return text


def _read_head(message: pb.ModelInferRequest) -> InferHead:
    return InferHead(
        message.model_name,
        choice_of(message.model_version),
        tuple(_read_input(tensor) for tensor in message.inputs),
        tuple(_read_output(output) for output in message.outputs),
        _FINAL in message.parameters and message.parameters[_FINAL].bool_param,
    )


def _read_input(tensor: pb.ModelInferRequest.InferInputTensor) -> InputHead:
    field = field_of("inputs", tensor.name)
    if tensor.contents.ListFields():
        raise InvalidRequestError(f"{field}.contents", "is set beside raw_input_contents: one of them, not both")
    _refuse_shared_memory(field, tensor)
    if len(tensor.shape) > MAX_DIMENSIONS:
        raise InvalidRequestError(f"{field}.shape", f"has {len(tensor.shape)} dimensions; {MAX_DIMENSIONS} may be")
    shape = tuple(tensor.shape)
    if any(size < 0 for size in shape):
        raise InvalidRequestError(f"{field}.shape", f"{list(shape)} has a negative dimension")
    return InputHead(tensor.name, datatypes.named(tensor.datatype, f"{field}.datatype"), shape)


def _read_output(output: pb.ModelInferRequest.InferRequestedOutputTensor) -> str:
    field = field_of("outputs", output.name)
    _refuse_shared_memory(field, output)
    if "classification" in output.parameters and output.parameters["classification"].int64_param:
        raise UnimplementedError(f"{field}: the classification extension is not here; ask for the output itself")
    return output.name


def _refuse_shared_memory(
    field: str, tensor: pb.ModelInferRequest.InferInputTensor | pb.ModelInferRequest.InferRequestedOutputTensor
) -> None:
    if "shared_memory_region" in tensor.parameters:
        raise UnimplementedError(f"{field}: the shared memory extensions are not here; send the contents")
