"""What a client says to a server, one call after the other, without saying how a call is made.

An exchange is a generator: it yields calls, is sent their answers, or has their ConverterErrors thrown into it, and
returns its result. `Converter` makes the calls with threads, `AsyncConverter` with asyncio; this is all they share.
"""

from collections.abc import Callable, Generator
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from google.protobuf.message import Message
from numpy.typing import ArrayLike

from proto.quicksilver.v1 import converter_pb2 as api
from service.client_errors import ConverterError
from service.conversion import (
    Choice,
    Conversion,
    Options,
    at_callers_index,
    encode_request,
    join_answers,
    temperatures,
)

CHUNK_ROWS: Final = 1 << 16
"""Rows of one request at the most; fewer where the server takes fewer."""
_OTHER_FIELDS_BYTES: Final = 512
"""Room for everything in a request beside its temperatures."""

_CONVERT: Final = "/quicksilver.v1.ConverterService/Convert"
_LIST_MODELS: Final = "/quicksilver.v1.ConverterService/ListModels"
_GET_MODEL: Final = "/quicksilver.v1.ConverterService/GetModel"

PARSERS: Final[dict[str, Callable[[bytes], Message]]] = {
    _CONVERT: api.ConvertResponse.FromString,
    _LIST_MODELS: api.ListModelsResponse.FromString,
    _GET_MODEL: api.GetModelResponse.FromString,
}
"""How the answer of each method is read."""


class Call(NamedTuple):
    """One unary call: the method's path, and the serialised request."""

    path: str
    request: bytes


T = TypeVar("T")
Exchange: TypeAlias = Generator[Call, Any, T]


class Exchanges:
    """The exchanges of one client, which share its defaults and what it has learned of the server's limits."""

    def __init__(self, default: Choice) -> None:
        self._default = default
        self._chunk_rows: int | None = None

    def convert(self, fahrenheit: ArrayLike, choice: Choice, options: Options) -> Exchange[Conversion]:
        """Convert temperatures in as many requests as the server's limits make of them.

        The model and the version that answered the first request are named in the others, so that all rows come from
        one version, whatever happens to labels meanwhile. No rows make one request, which the server refuses.
        """
        rows = temperatures(fahrenheit)
        flat = rows.reshape(-1)
        choice = choice.or_default(self._default)
        chunk_rows = yield from self._chunks_of(len(flat))
        answers: list[api.ConvertResponse] = []
        for start in range(0, max(1, len(flat)), chunk_rows):
            try:
                answer = yield Call(_CONVERT, encode_request(choice, options, flat[start : start + chunk_rows]))
            except ConverterError as error:
                raise at_callers_index(error, start, rows.shape) from error
            answers.append(answer)
            choice = Choice(answer.model, answer.version)
        return join_answers(answers, options, rows.shape)

    def models(self) -> Exchange[api.ListModelsResponse]:
        """List the server's models."""
        answer: api.ListModelsResponse = yield Call(_LIST_MODELS, b"")
        return answer

    def model(self, choice: Choice) -> Exchange[api.GetModelResponse]:
        """Describe one version of a model."""
        request = api.GetModelRequest()
        choice.or_default(self._default).fill(request)
        answer: api.GetModelResponse = yield Call(_GET_MODEL, request.SerializeToString())
        return answer

    def _chunks_of(self, rows: int) -> Exchange[int]:
        """Rows of one request. The server is asked for its limits once; a single row needs no asking."""
        if rows <= 1:
            return 1
        if self._chunk_rows is None:
            self._chunk_rows = chunk_rows((yield from self.models()).limits)
        return self._chunk_rows


def chunk_rows(limits: api.Limits) -> int:
    """Choose the rows of one request: within the server's limits on rows and, at 4 bytes a row, on bytes."""
    by_bytes = (limits.max_message_bytes - _OTHER_FIELDS_BYTES) // 4
    return max(1, min(CHUNK_ROWS, limits.max_rows_per_request, by_bytes))
