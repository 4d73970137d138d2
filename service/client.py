"""A client of the product's own API: arrays in, arrays of the same shape out.

`Converter` is for threads, `AsyncConverter` for asyncio. Both split what exceeds the server's limit, give every call a
deadline, retry what was not begun (UNAVAILABLE), and raise a ConverterError of the kind that the status code means.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import grpc
import numpy as np
from google.rpc import error_details_pb2, status_pb2
from numpy.typing import ArrayLike, NDArray

from proto.quicksilver.v1 import converter_pb2 as api
from proto.quicksilver.v1.converter_pb2_grpc import ConverterServiceStub
from service.status import DETAILS_KEY, Code

DEFAULT_ADDRESS: Final = "127.0.0.1:50051"
DEFAULT_TIMEOUT_SECONDS: Final = 10.0
CHUNK_ROWS: Final = 1 << 16
"""Rows of one request at the most; fewer where the server takes fewer."""

_ASK_LIMITS_FROM: Final = 256
"""Rows from which the server is asked for its limits first, once; it can't well have set fewer."""

_RETRY: Final = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{"service": "quicksilver.v1.ConverterService"}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)
_CHANNEL_OPTIONS: Final = [
    ("grpc.service_config", _RETRY),
    ("grpc.max_receive_message_length", -1),  # what was asked for is wanted
]


class ConverterError(Exception):
    """The server did not answer. `code` is the gRPC status, `violations` the fields that were wrong, by name."""

    def __init__(self, code: Code, message: str, violations: dict[str, str] | None = None) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message
        self.violations = violations or {}


class InvalidRequestError(ConverterError):
    """The request breaks a rule: INVALID_ARGUMENT."""


class UnknownModelError(ConverterError):
    """There is no such model, version or label: NOT_FOUND."""


class UnsupportedError(ConverterError):
    """The model cannot do what was asked: FAILED_PRECONDITION."""


class OutsideDomainError(ConverterError):
    """A row lies outside the training domain, and the request said to reject it: OUT_OF_RANGE."""


class ServerBusyError(ConverterError):
    """The server has reached a limit: RESOURCE_EXHAUSTED."""


class DeadlineError(ConverterError):
    """No answer came in time: DEADLINE_EXCEEDED."""


class ServerUnavailableError(ConverterError):
    """The server cannot be reached, drains, or its model is not ready: UNAVAILABLE, after several tries."""


_ERRORS: Final[dict[Code, type[ConverterError]]] = {
    Code.INVALID_ARGUMENT: InvalidRequestError,
    Code.NOT_FOUND: UnknownModelError,
    Code.FAILED_PRECONDITION: UnsupportedError,
    Code.OUT_OF_RANGE: OutsideDomainError,
    Code.RESOURCE_EXHAUSTED: ServerBusyError,
    Code.DEADLINE_EXCEEDED: DeadlineError,
    Code.UNAVAILABLE: ServerUnavailableError,
}


@dataclass(frozen=True)
class Conversion:
    """The answer to one conversion; every array has the shape of what was asked."""

    model: str
    version: int
    """The version that answered: the same for all rows."""
    celsius: NDArray[np.float32]
    outside: NDArray[np.bool_] | None
    """Which rows lie outside the training domain; None where the model does not state it or nobody looked."""
    lower: NDArray[np.float32] | None = None
    """Lower bounds of the prediction interval in °C, NaN outside the training domain; None where not asked for."""
    upper: NDArray[np.float32] | None = None
    coverage: float | None = None
    """The probability that the interval holds the true temperature."""


@dataclass(frozen=True)
class _Options:
    """What a call asks for beside its temperatures."""

    model: str
    version: int | None
    label: str | None
    interval: bool
    on_extrapolation: str

    def request(self, fahrenheit: NDArray[np.float32], version: int | None) -> api.ConvertRequest:
        """One request; a version given here (the one that answered the rows before) goes before all else."""
        request = api.ConvertRequest(
            model=self.model,
            interval=self.interval,
            on_extrapolation=_ON_EXTRAPOLATION[self.on_extrapolation],
        )
        wanted = self.version if version is None else version
        if wanted is not None:
            request.version = wanted
        elif self.label is not None:
            request.label = self.label
        request.fahrenheit.extend(fahrenheit.tolist())
        return request


_ON_EXTRAPOLATION: Final[dict[str, api.OnExtrapolation.ValueType]] = {
    "flag": api.ON_EXTRAPOLATION_FLAG,
    "reject": api.ON_EXTRAPOLATION_REJECT,
    "ignore": api.ON_EXTRAPOLATION_IGNORE,
}


class _Rows:
    """The rows of one conversion on their way: cut into requests, and put together from answers."""

    def __init__(self, fahrenheit: ArrayLike) -> None:
        values = np.asarray(fahrenheit, dtype=np.float64)
        with np.errstate(over="ignore"):  # beyond float32 is infinite, which the server refuses by its index
            self._flat = values.astype(np.float32).ravel()
        self._shape = values.shape
        self._answers: list[api.ConvertResponse] = []

    def __len__(self) -> int:
        return len(self._flat)

    def chunks(self, rows: int) -> Iterator[NDArray[np.float32]]:
        """Rows of each request; one empty request for no rows, so that the server says what it thinks of that."""
        for start in range(0, max(1, len(self._flat)), rows):
            yield self._flat[start : start + rows]

    @property
    def version(self) -> int | None:
        """The version that answered first; the other requests name it, so that all rows come from one."""
        return self._answers[0].version if self._answers else None

    def add(self, answer: api.ConvertResponse) -> None:
        """Take the answer to the next request."""
        self._answers.append(answer)

    def conversion(self, options: _Options) -> Conversion:
        """Put all answers together."""
        first = self._answers[0]
        interval = options.interval
        return Conversion(
            model=first.model,
            version=first.version,
            celsius=self._join([answer.celsius for answer in self._answers]),
            outside=self._outside(),
            lower=self._join([answer.interval.celsius_lower for answer in self._answers]) if interval else None,
            upper=self._join([answer.interval.celsius_upper for answer in self._answers]) if interval else None,
            coverage=first.interval.coverage if interval else None,
        )

    def _join(self, parts: Sequence[Sequence[float]]) -> NDArray[np.float32]:
        return np.concatenate([np.array(part, dtype=np.float32) for part in parts]).reshape(self._shape)

    def _outside(self) -> NDArray[np.bool_] | None:
        if self._answers[0].domain_status in {api.DOMAIN_STATUS_UNSPECIFIED, api.DOMAIN_STATUS_UNKNOWN}:
            return None
        outside = np.zeros(len(self._flat), dtype=np.bool_)
        start = 0
        for answer in self._answers:
            outside[start + np.array(answer.extrapolated_rows, dtype=np.int64)] = True
            start += len(answer.celsius)
        return outside.reshape(self._shape)


class Converter:
    """Converts temperatures with a running server. Safe to share between threads; a context manager, or call `close`.

    `model`, `version` and `label` are the defaults of every call. Each request has `timeout_seconds` to be answered.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        model: str = "",
        version: int | None = None,
        label: str | None = None,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._defaults = _Defaults(model, version, label)
        self._timeout = timeout_seconds
        self._channel = (
            grpc.secure_channel(address, credentials, options=_CHANNEL_OPTIONS)
            if credentials
            else grpc.insecure_channel(address, options=_CHANNEL_OPTIONS)
        )
        self._stub = ConverterServiceStub(self._channel)
        self._chunk_rows: int | None = None

    def convert(
        self,
        fahrenheit: ArrayLike,
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        interval: bool = False,
        on_extrapolation: str = "flag",
    ) -> Conversion:
        """Convert temperatures in °F, a number or any nesting of numbers; the answer's arrays have the same shape.

        `on_extrapolation` is "flag", "reject" or "ignore".

        Raises:
            ConverterError: the server did not answer; the subclass says in which way.
        """
        options = self._defaults.options(model, version, label, interval=interval, on_extrapolation=on_extrapolation)
        rows = _Rows(fahrenheit)
        for chunk in rows.chunks(self._chunk(len(rows))):
            rows.add(self._call(self._stub.Convert, options.request(chunk, rows.version)))
        return rows.conversion(options)

    def models(self) -> api.ListModelsResponse:
        """List the server's models."""
        answer: api.ListModelsResponse = self._call(self._stub.ListModels, api.ListModelsRequest())
        return answer

    def model(self, model: str = "", *, version: int | None = None, label: str | None = None) -> api.GetModelResponse:
        """Describe one version of a model."""
        answer: api.GetModelResponse = self._call(self._stub.GetModel, _get_model_request(model, version, label))
        return answer

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _chunk(self, rows: int) -> int:
        if rows < _ASK_LIMITS_FROM:
            return _ASK_LIMITS_FROM
        if self._chunk_rows is None:
            self._chunk_rows = chunk_rows(self.models().limits)
        return self._chunk_rows

    def _call(self, method: Any, request: Any) -> Any:  # noqa: ANN401 - one place for three methods
        try:
            return method(request, timeout=self._timeout)
        except grpc.RpcError as error:
            raise error_from(error) from error


class AsyncConverter:
    """The same as `Converter`, for asyncio. To be made and used in one event loop."""

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        model: str = "",
        version: int | None = None,
        label: str | None = None,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._defaults = _Defaults(model, version, label)
        self._timeout = timeout_seconds
        self._channel = (
            grpc.aio.secure_channel(address, credentials, options=_CHANNEL_OPTIONS)
            if credentials
            else grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
        )
        self._stub: Any = ConverterServiceStub(self._channel)
        self._chunk_rows: int | None = None

    async def convert(
        self,
        fahrenheit: ArrayLike,
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        interval: bool = False,
        on_extrapolation: str = "flag",
    ) -> Conversion:
        """Convert temperatures in °F, as `Converter.convert`."""
        options = self._defaults.options(model, version, label, interval=interval, on_extrapolation=on_extrapolation)
        rows = _Rows(fahrenheit)
        for chunk in rows.chunks(await self._chunk(len(rows))):
            rows.add(await self._call(self._stub.Convert, options.request(chunk, rows.version)))
        return rows.conversion(options)

    async def models(self) -> api.ListModelsResponse:
        """List the server's models."""
        answer: api.ListModelsResponse = await self._call(self._stub.ListModels, api.ListModelsRequest())
        return answer

    async def model(
        self, model: str = "", *, version: int | None = None, label: str | None = None
    ) -> api.GetModelResponse:
        """Describe one version of a model."""
        answer: api.GetModelResponse = await self._call(self._stub.GetModel, _get_model_request(model, version, label))
        return answer

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _chunk(self, rows: int) -> int:
        if rows < _ASK_LIMITS_FROM:
            return _ASK_LIMITS_FROM
        if self._chunk_rows is None:
            self._chunk_rows = chunk_rows((await self.models()).limits)
        return self._chunk_rows

    async def _call(self, method: Any, request: Any) -> Any:  # noqa: ANN401 - one place for three methods
        try:
            return await method(request, timeout=self._timeout)
        except grpc.RpcError as error:
            raise error_from(error) from error


@dataclass(frozen=True)
class _Defaults:
    """Which version answers where a call does not say."""

    model: str
    version: int | None
    label: str | None

    def options(
        self, model: str | None, version: int | None, label: str | None, *, interval: bool, on_extrapolation: str
    ) -> _Options:
        """Complete what a call says; where it names a model, version or label, no default version or label joins it."""
        if version is not None and label is not None:
            raise ValueError("name a version or a label, not both")
        if on_extrapolation not in _ON_EXTRAPOLATION:
            raise ValueError(f"on_extrapolation is one of {', '.join(_ON_EXTRAPOLATION)}, not {on_extrapolation!r}")
        if model is None and version is None and label is None:
            version, label = self.version, self.label
        return _Options(self.model if model is None else model, version, label, interval, on_extrapolation)


def chunk_rows(limits: api.Limits) -> int:
    """Choose the rows of one request: within the server's limits on rows and, at 4 bytes a row, on bytes."""
    by_bytes = (limits.max_message_bytes - 512) // 4  # 512: the other fields
    return max(1, min(CHUNK_ROWS, limits.max_rows_per_request, by_bytes))


def error_from(error: Any) -> ConverterError:  # noqa: ANN401 - a grpc.RpcError that is also a grpc.Call, sync or asyncio
    """Make the typed error of a failed call, with the fields that `google.rpc.BadRequest` names."""
    code = Code(error.code().value[0])
    violations = {}
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY:
            violations = _violations(value)
    return _ERRORS.get(code, ConverterError)(code, error.details() or "", violations)


def _violations(serialised: bytes) -> dict[str, str]:
    bad_request = error_details_pb2.BadRequest()
    violations: dict[str, str] = {}
    for detail in status_pb2.Status.FromString(serialised).details:
        if detail.Unpack(bad_request):
            violations |= {violation.field: violation.description for violation in bad_request.field_violations}
    return violations


def _get_model_request(model: str, version: int | None, label: str | None) -> api.GetModelRequest:
    request = api.GetModelRequest(model=model)
    if version is not None:
        request.version = version
    elif label is not None:
        request.label = label
    return request
