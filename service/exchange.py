"""What a client says to a server, one call after the other, without saying how a call is made.

An exchange is a generator: it yields calls, is sent their answers, or has their ConverterErrors thrown into it, and
returns its result. Where another exchange asks the same just then, it yields that one's Future and is sent its result,
or has its error thrown into it. Whoever gives an exchange up closes it. `Converter` makes the calls with threads,
`AsyncConverter` with asyncio; this is all they share.
"""

import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from google.protobuf.message import Message
from numpy.typing import ArrayLike

from proto.observation import Added, Observation
from proto.quicksilver.v1 import converter_pb2 as api
from service.client_errors import ConverterError
from service.conversion import (
    Choice,
    Conversion,
    Options,
    at_callers_index,
    at_callers_observation,
    encode_report,
    encode_request,
    join_answers,
    temperatures,
)
from service.status import Code

REPORT_OBSERVATIONS: Final = 1000
"""Observations of one request at the most."""
CHUNK_ROWS: Final = 1 << 16
"""Rows of one request at the most; fewer where the server takes fewer."""
_OTHER_FIELDS_BYTES: Final = 512
"""Room for everything in a request beside its temperatures."""

_LIMIT_CODES: Final = {Code.RESOURCE_EXHAUSTED, Code.INVALID_ARGUMENT}
"""How a server refuses a request with too many bytes or too many rows; also others, for other reasons."""

_CONVERT: Final = "/quicksilver.v1.ConverterService/Convert"
_LIST_MODELS: Final = "/quicksilver.v1.ConverterService/ListModels"
_REPORT: Final = "/quicksilver.v1.ConverterService/ReportObservations"
_GET_MODEL: Final = "/quicksilver.v1.ConverterService/GetModel"

PARSERS: Final[dict[str, Callable[[bytes], Message]]] = {
    _CONVERT: api.ConvertResponse.FromString,
    _LIST_MODELS: api.ListModelsResponse.FromString,
    _GET_MODEL: api.GetModelResponse.FromString,
    _REPORT: api.ReportObservationsResponse.FromString,
}
"""How the answer of each method is read."""


class Call(NamedTuple):
    """One unary call: the method's path, and the serialised request."""

    path: str
    request: bytes
    admin: bool = False
    """Whether the method wants the admin token, where there is one."""


Asked: TypeAlias = Future[int | None]
"""The rows of one request, as an exchange found them; None where it was given up before it knew."""

T = TypeVar("T")
Exchange: TypeAlias = Generator[Call | Asked, Any, T]


class Exchanges:
    """The exchanges of one client, which share its defaults and what it has learned of the server's limits.

    They may run in several threads: the server is asked for its limits by one of them, and the others wait for that
    answer, or share its failure, after which the next exchange asks anew.
    """

    def __init__(self, default: Choice) -> None:
        self._default = default
        self._lock = threading.Lock()
        self._asked: Asked | None = None

    def convert(self, fahrenheit: ArrayLike, choice: Choice, options: Options) -> Exchange[Conversion]:
        """Convert temperatures in as many requests as the server's limits make of them.

        The model and the version that answered the first request are named in the others, so that all rows come from
        one version, whatever happens to labels meanwhile. No rows make one request, which the server refuses. Where a
        request may have been too large for a server that was restarted with smaller limits, it is asked for them again,
        once, and the rows go on in smaller requests.
        """
        rows = temperatures(fahrenheit)
        flat = rows.reshape(-1)
        choice = choice.or_default(self._default)
        limit, asked = yield from self._limit_for(len(flat))
        if options.request_id and len(flat) > limit:
            raise ValueError(f"request_id names one request, and this server takes {limit} temperatures in one")
        answers: list[api.ConvertResponse] = []
        start, has_asked_again = 0, False
        while start < len(flat) or not answers:
            part = flat[start : start + limit]
            try:
                answer = yield Call(_CONVERT, encode_request(choice, options, part))
            except ConverterError as error:
                if not has_asked_again and len(part) > 1 and error.code in _LIMIT_CODES:
                    has_asked_again = True
                    limit, asked = yield from self._limit_after(asked)
                    if limit < len(part):
                        continue
                raise at_callers_index(error, start, rows.shape) from error
            answers.append(answer)
            start += max(1, len(part))
            choice = Choice(answer.model, answer.version)
        return join_answers(answers, options, rows.shape)

    def report(self, observations: Iterable[Observation]) -> Exchange[Added]:
        """Report observations in requests of bounded size, one after the other."""
        reported = list(observations)
        accepted = duplicates = 0
        for start in range(0, max(1, len(reported)), REPORT_OBSERVATIONS):
            request = encode_report(reported[start : start + REPORT_OBSERVATIONS])
            try:
                answer: api.ReportObservationsResponse = yield Call(_REPORT, request, admin=True)
            except ConverterError as error:
                raise at_callers_observation(error, start) from error
            accepted += answer.accepted
            duplicates += answer.duplicates
        return Added(accepted, duplicates)

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

    def _limit_for(self, rows: int) -> Exchange[tuple[int, Asked | None]]:
        """Rows of one request, and the asking that found them; a single row needs no asking."""
        if rows <= 1:
            return 1, None
        while True:
            with self._lock:
                is_first = self._asked is None
                asked = self._asked = self._asked or Future()
            limit = yield from (self._ask(asked) if is_first else _found(asked))
            if limit is not None:
                return limit, asked

    def _limit_after(self, stale: Asked | None) -> Exchange[tuple[int, Asked | None]]:
        """Rows of one request by a newer asking than the one given, which another exchange may have begun."""
        self._forget(stale)
        return (yield from self._limit_for(2))

    def _ask(self, asked: Asked) -> Exchange[int]:
        """Ask the server, and let those know who wait for the answer, whatever it is."""
        try:
            limit = chunk_rows((yield from self.models()).limits)
        except BaseException as error:
            self._forget(asked)
            if isinstance(error, ConverterError):
                asked.set_exception(error)
            else:
                asked.set_result(None)  # given up: whoever waits asks for itself
            raise
        asked.set_result(limit)
        return limit

    def _forget(self, asked: Asked | None) -> None:
        with self._lock:
            if self._asked is asked:
                self._asked = None


def _found(asked: Asked) -> Exchange[int | None]:
    """What another exchange found, or finds; None where it was given up."""
    if asked.done():
        return asked.result()
    limit: int | None = yield asked
    return limit


def chunk_rows(limits: api.Limits) -> int:
    """Choose the rows of one request: within the server's limits on rows and, at 4 bytes a row, on bytes."""
    by_bytes = (limits.max_message_bytes - _OTHER_FIELDS_BYTES) // 4
    return max(1, min(CHUNK_ROWS, limits.max_rows_per_request, by_bytes))
