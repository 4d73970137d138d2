"""ModelStreamInfer: many inferences over one stream, answered in the order they came.

An error stands in its own answer and the stream goes on; where the call's metadata has `triton_grpc_error: true`, the
first error ends the stream with its real status code instead.
"""

from typing import Final

from proto.inference.v2 import open_inference_pb2 as pb
from service.calls import Body, Codec, Inlet, Outlet, StreamMethod, Submit
from service.errors import ServiceError
from service.open_inference import SERVICE
from service.open_inference.infer import InferCodec, InferQuery
from service.open_inference.request import UNREADABLE, Asked, identity_of
from service.ordered_stream import OrderedStream
from service.query import Answer, Query
from service.wire import length_delimited

GRPC_ERROR_KEY: Final = "triton_grpc_error"

_INFER_RESPONSE: Final = pb.ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER
_FINAL: Final = pb.ModelInferResponse(
    parameters={"triton_final_response": pb.InferParameter(bool_param=True)}
).SerializeToString()
"""The parameter by which a client that asked for it learns that no further answer to a request follows."""


def method(codec: InferCodec) -> StreamMethod:
    """The method, over the codec that ModelInfer has."""

    def open_stream(outlet: Outlet, submit: Submit) -> Inlet:
        ends_on_error = _wants_grpc_errors(outlet)
        return OrderedStream(outlet, submit, lambda message: InferStreamCodec(codec, message, ends_on_error))

    return StreamMethod(f"/{SERVICE}/ModelStreamInfer", client_streams=True, server_streams=True, open=open_stream)


class InferStreamCodec(Codec):
    """One request of a stream, and `ModelStreamInferResponse`.

    What cannot be read ends the call, since the id that its answer needs is not known.
    """

    def __init__(self, codec: InferCodec, message: bytes, ends_on_error: bool) -> None:  # noqa: FBT001 - by its name
        self._codec = codec
        self._message = message
        self._ends_on_error = ends_on_error
        self._asked: Asked | None = None

    def decode(self, body: bytes) -> InferQuery:
        """Read a request; errors as `InferCodec.decode`."""
        self._asked = self._codec.read(body)
        return self._codec.query(self._asked)

    def encode(self, query: Query, answer: Answer) -> Body:
        """Write an answer in parts."""
        parts = list(self._codec.encode(query, answer))
        if self._asked is not None and self._asked.head.tells_final:
            parts.append(_FINAL)
        return length_delimited(_INFER_RESPONSE, parts)

    def encode_error(self, error: ServiceError) -> Body | None:
        """Write the error beside the id of its request, or let it end the call."""
        identity = None if self._ends_on_error or isinstance(error, UNREADABLE) else self._identity()
        if identity is None:
            return None
        response = pb.ModelStreamInferResponse(
            error_message=error.message, infer_response=pb.ModelInferResponse(id=identity)
        )
        return [response.SerializeToString()]

    def _identity(self) -> str | None:
        """The request's id, also where it was not read or is wrong; None where it cannot be read."""
        if self._asked is not None:
            return self._asked.id.decode()
        try:
            return identity_of(self._message)
        except UNREADABLE:
            return None


def _wants_grpc_errors(outlet: Outlet) -> bool:
    return any(key == GRPC_ERROR_KEY and value in ("true", b"true") for key, value in outlet.context.metadata)
