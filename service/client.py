"""A client of the product's own API: arrays in, arrays of the same shape out.

`Converter` is for threads, `AsyncConverter` for asyncio. Both split what exceeds the server's limits, give every call a
deadline, retry what was not begun (UNAVAILABLE), and raise a ConverterError of the kind that the status code means.
"""

import asyncio
import json
import math
from collections.abc import Iterable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import grpc
from numpy.typing import ArrayLike

from proto.observation import Added, Observation
from proto.quicksilver.v1 import converter_pb2 as api
from service.client_errors import (
    ConverterError,
    DeadlineError,
    InvalidRequestError,
    OutsideDomainError,
    ServerBusyError,
    ServerUnavailableError,
    UnknownModelError,
    UnsupportedError,
    error_from,
)
from service.connection import DEFAULT_ADDRESS
from service.conversion import Choice, Conversion, OnExtrapolation, Options
from service.exchange import CHUNK_ROWS, PARSERS, Asked, Call, Exchange, Exchanges

__all__ = [
    "Added",
    "AsyncConverter",
    "Conversion",
    "Converter",
    "ConverterError",
    "DeadlineError",
    "InvalidRequestError",
    "Observation",
    "OutsideDomainError",
    "ServerBusyError",
    "ServerUnavailableError",
    "UnknownModelError",
    "UnsupportedError",
    "error_from",
]

DEFAULT_TIMEOUT_SECONDS: Final = 10.0

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
    ("grpc.per_rpc_retry_buffer_size", 8 * CHUNK_ROWS),  # gRPC's own, 256 KiB, is less than a full request: no retry
    ("grpc.max_receive_message_length", -1),  # what was asked for is wanted
]

T = TypeVar("T")


class Converter:
    """Converts temperatures with a running server. Safe to share between threads; a context manager, or call `close`.

    `model`, `version` and `label` are the defaults of calls that name none of them. Each request has `timeout_seconds`
    to be answered, its retries included; a conversion over the server's limits is several requests. `admin_token` goes
    to the methods that want it, as `report` does where the server has one.
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
        admin_token: str | None = None,
    ) -> None:
        self._exchanges = Exchanges(Choice(model, version, label))
        self._authorization = authorization(admin_token)
        self._timeout = _grpc_timeout(timeout_seconds)
        self._address = address
        self._channel = (
            grpc.secure_channel(address, credentials, options=_CHANNEL_OPTIONS)
            if credentials
            else grpc.insecure_channel(address, options=_CHANNEL_OPTIONS)
        )
        self._methods: dict[str, grpc.UnaryUnaryMultiCallable[bytes, Any]] = {
            path: self._channel.unary_unary(path, response_deserializer=parse) for path, parse in PARSERS.items()
        }

    def convert(
        self,
        fahrenheit: ArrayLike,
        *,
        model: str = "",
        version: int | None = None,
        label: str | None = None,
        interval: bool = False,
        on_extrapolation: OnExtrapolation = "flag",
        request_id: str = "",
    ) -> Conversion:
        """Convert temperatures in °F, a number or any nesting of numbers; the answer's arrays have the same shape.

        They travel as float32. Several requests are answered by one version. `on_extrapolation` is "flag", "reject" or
        "ignore". An error about one temperature names its index in what was given. With a `request_id`, observations of
        these temperatures can be joined to what was answered; there are then no more rows than one request takes.

        Raises:
            TypeError: a temperature is not a real number.
            ValueError: the nesting is ragged, or an option makes no sense.
            ConverterError: the server did not answer; the subclass says in which way. No temperature at all is an
                InvalidRequestError.
        """
        return self._run(
            self._exchanges.convert(
                fahrenheit, Choice(model, version, label), Options(interval, on_extrapolation, request_id)
            )
        )

    def report(self, observations: Iterable[Observation]) -> Added:
        """Report what true temperatures were observed, and return how many were new when all of them are durable.

        It may be called again with the same ones after any error: those that were stored are duplicates. An error about
        one of them names its index in what was given; of those before it, a part may be stored.

        Raises:
            ConverterError: the server did not store them; the subclass says in which way.
        """
        return self._run(self._exchanges.report(observations))

    def models(self) -> api.ListModelsResponse:
        """List the server's models."""
        return self._run(self._exchanges.models())

    def model(self, model: str = "", *, version: int | None = None, label: str | None = None) -> api.GetModelResponse:
        """Describe one version of a model."""
        return self._run(self._exchanges.model(Choice(model, version, label)))

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, exchange: Exchange[T]) -> T:
        """Make the calls of an exchange, and return its result."""
        try:
            call = next(exchange)
            while True:
                try:
                    answer = self._answer(call)
                except ConverterError as error:
                    call = exchange.throw(error)
                else:
                    call = exchange.send(answer)
        except StopIteration as done:
            result: T = done.value
            return result
        finally:
            exchange.close()

    def _answer(self, call: Call | Asked) -> Any:  # noqa: ANN401 - the answer to any call
        if isinstance(call, Future):
            return call.result()
        try:
            metadata = self._authorization if call.admin else None
            return self._methods[call.path](call.request, timeout=self._timeout, metadata=metadata)
        except grpc.RpcError as error:
            raise error_from(error, self._address) from error


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
        admin_token: str | None = None,
    ) -> None:
        self._exchanges = Exchanges(Choice(model, version, label))
        self._authorization = authorization(admin_token)
        self._timeout = _grpc_timeout(timeout_seconds)
        self._address = address
        self._channel = (
            grpc.aio.secure_channel(address, credentials, options=_CHANNEL_OPTIONS)
            if credentials
            else grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
        )
        self._methods: dict[str, grpc.aio.UnaryUnaryMultiCallable[bytes, Any]] = {
            path: self._channel.unary_unary(path, response_deserializer=parse) for path, parse in PARSERS.items()
        }

    async def convert(
        self,
        fahrenheit: ArrayLike,
        *,
        model: str = "",
        version: int | None = None,
        label: str | None = None,
        interval: bool = False,
        on_extrapolation: OnExtrapolation = "flag",
        request_id: str = "",
    ) -> Conversion:
        """Convert temperatures in °F, as `Converter.convert`."""
        return await self._run(
            self._exchanges.convert(
                fahrenheit, Choice(model, version, label), Options(interval, on_extrapolation, request_id)
            )
        )

    async def report(self, observations: Iterable[Observation]) -> Added:
        """Report what true temperatures were observed, as `Converter.report`."""
        return await self._run(self._exchanges.report(observations))

    async def models(self) -> api.ListModelsResponse:
        """List the server's models."""
        return await self._run(self._exchanges.models())

    async def model(
        self, model: str = "", *, version: int | None = None, label: str | None = None
    ) -> api.GetModelResponse:
        """Describe one version of a model."""
        return await self._run(self._exchanges.model(Choice(model, version, label)))

    async def close(self) -> None:
        """Close the connection; calls in flight are cancelled."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, exchange: Exchange[T]) -> T:
        """Make the calls of an exchange, and return its result."""
        try:
            call = next(exchange)
            while True:
                try:
                    answer = await self._answer(call)
                except ConverterError as error:
                    call = exchange.throw(error)
                else:
                    call = exchange.send(answer)
        except StopIteration as done:
            result: T = done.value
            return result
        finally:
            exchange.close()

    async def _answer(self, call: Call | Asked) -> Any:  # noqa: ANN401 - the answer to any call
        if isinstance(call, Future):
            return await asyncio.shield(asyncio.wrap_future(call))  # shielded: it is another task's as well
        try:
            metadata = self._authorization if call.admin else None
            return await self._methods[call.path](call.request, timeout=self._timeout, metadata=metadata)
        except grpc.RpcError as error:
            raise error_from(error, self._address) from error


def authorization(token: str | None) -> tuple[tuple[str, str], ...] | None:
    """The metadata that carries an admin token."""
    return None if token is None else (("authorization", f"Bearer {token}"),)


def _grpc_timeout(seconds: float) -> float | None:
    """Check a timeout; one that is infinite is none for gRPC."""
    if not seconds > 0:
        raise ValueError(f"timeout_seconds must be more than 0, not {seconds}")
    return None if math.isinf(seconds) else seconds
