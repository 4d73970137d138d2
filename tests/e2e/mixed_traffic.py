"""Clients of every temper at once: small and large calls, streams, cancels, deadlines, disconnects; all checked.

A seed decides what each client does next. What may come of a call is stated beside it, and anything else is wrong.
"""

import asyncio
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import grpc.aio
import numpy as np

from proto.inference.v2 import open_inference_pb2 as pb
from proto.quicksilver.v1 import converter_pb2 as api
from tests.service.artefacts import exact_celsius
from tests.service.http2.raw import PREFACE, RawClient, request
from tests.service.http2.serving import convert_body

TIMEOUT_SECONDS: Final = 60
TOLERANCE_CELSIUS: Final = 1e-3
COLDEST, HOTTEST = -400.0, 1_000.0

_CONVERT: Final = "/quicksilver.v1.ConverterService/Convert"
_STREAM: Final = "/quicksilver.v1.ConverterService/ConvertStream"
_INFER: Final = "/inference.GRPCInferenceService/ModelInfer"
_OPTIONS: Final = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
_NO_LINGER: Final = struct.pack("ii", 1, 0)


@dataclass
class Tally:
    """What came of the calls: how many, by what was tried and what came of it; and what must not have come."""

    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @property
    def tried(self) -> set[str]:
        """The kinds of calls that something came of."""
        return {outcome.partition(":")[0] for outcome in self.outcomes}

    def note(self, tried: str, outcome: str, *, allowed: Sequence[str]) -> None:
        """Count an outcome, and remember one that is not allowed."""
        self.outcomes[f"{tried}: {outcome}"] += 1
        if outcome not in allowed:
            self.wrong.append(f"{tried}: {outcome}")


class Client:
    """One client: a connection, now and then a new one, and one call after the other until it is told to stop."""

    def __init__(self, address: str, seed: int, tally: Tally) -> None:
        self._address = address
        self._chance = random.Random(seed)  # noqa: S311 - seeded on purpose
        self._tally = tally
        self._actions: list[tuple[int, Callable[[grpc.aio.Channel], Awaitable[None]]]] = [
            (30, self._small),
            (3, self._large),
            (3, self._compressed),
            (8, self._infer),
            (6, self._stream),
            (5, self._refused),
            (6, self._cancelled),
            (6, self._late),
            (3, self._left_stream),
            (3, self._vanished),
            (1, self._silent),
        ]

    async def run(self, stopping: Callable[[], bool]) -> None:
        """Call until told to stop."""
        weights = [weight for weight, _ in self._actions]
        while not stopping():
            async with grpc.aio.insecure_channel(self._address, options=_OPTIONS) as channel:
                for _ in range(self._chance.randrange(5, 200)):
                    if stopping():
                        return
                    [(_, act)] = self._chance.choices(self._actions, weights)
                    await act(channel)

    # What is answered -------------------------------------------------------------------------------------------------

    async def _small(self, channel: grpc.aio.Channel) -> None:
        await self._convert(channel, "small", self._values(self._chance.randrange(1, 30)))

    async def _large(self, channel: grpc.aio.Channel) -> None:
        await self._convert(channel, "large", self._values(self._chance.randrange(10_000, 80_000)))

    async def _compressed(self, channel: grpc.aio.Channel) -> None:
        await self._convert(channel, "compressed", self._values(2_000), compression=grpc.Compression.Gzip)

    async def _convert(
        self,
        channel: grpc.aio.Channel,
        tried: str,
        values: np.ndarray[Any, Any],
        compression: grpc.Compression | None = None,
    ) -> None:
        answer = await self._outcome(
            _unary(channel, _CONVERT)(_request(values), timeout=TIMEOUT_SECONDS, compression=compression),
            lambda body: _right(values, api.ConvertResponse.FromString(body).celsius),
        )
        self._tally.note(tried, answer, allowed=["right"])

    async def _infer(self, channel: grpc.aio.Channel) -> None:
        values = self._values(self._chance.randrange(1, 100))
        message = pb.ModelInferRequest(model_name="linear", raw_input_contents=[values.astype("<f4").tobytes()])
        message.inputs.add(name="fahrenheit", datatype="FP32", shape=[len(values), 1])

        def right(body: bytes) -> bool:
            return _right(values, np.frombuffer(pb.ModelInferResponse.FromString(body).raw_output_contents[0], "<f4"))

        call = _unary(channel, _INFER)(message.SerializeToString(), timeout=TIMEOUT_SECONDS)
        self._tally.note("infer", await self._outcome(call, right), allowed=["right"])

    async def _stream(self, channel: grpc.aio.Channel) -> None:
        asked = [self._values(self._chance.randrange(1, 50)) for _ in range(self._chance.randrange(1, 150))]
        call = _duplex(channel)(_messages(asked), timeout=TIMEOUT_SECONDS)
        outcome = "right"
        try:
            got = [api.ConvertStreamResponse.FromString(body) async for body in call]
            if len(got) != len(asked):
                outcome = f"{len(got)} answers to {len(asked)} requests"
            elif not all(_right(sent, each.response.celsius) for sent, each in zip(asked, got, strict=True)):
                outcome = "wrong"
        except grpc.aio.AioRpcError as error:
            outcome = _told(error)
        self._tally.note("stream", outcome, allowed=["right"])

    # What is not, or may not be ---------------------------------------------------------------------------------------

    async def _refused(self, channel: grpc.aio.Channel) -> None:
        values = self._values(3)
        values[1] = self._chance.choice([float("nan"), float("inf"), -500.0])
        call = _unary(channel, _CONVERT)(_request(values), timeout=TIMEOUT_SECONDS)
        self._tally.note("refused", await self._outcome(call, lambda _: False), allowed=["INVALID_ARGUMENT"])

    async def _cancelled(self, channel: grpc.aio.Channel) -> None:
        values = self._values(self._chance.choice([1, 1_000, 50_000]))
        call = _unary(channel, _CONVERT)(_request(values), timeout=TIMEOUT_SECONDS)
        asyncio.get_running_loop().call_later(self._chance.uniform(0, 0.01), call.cancel)
        outcome = await self._outcome(call, lambda body: _right(values, api.ConvertResponse.FromString(body).celsius))
        self._tally.note("cancelled", outcome, allowed=["right", "CANCELLED"])

    async def _late(self, channel: grpc.aio.Channel) -> None:
        values = self._values(self._chance.choice([1, 1_000, 50_000]))
        call = _unary(channel, _CONVERT)(_request(values), timeout=self._chance.uniform(0.0001, 0.01))
        outcome = await self._outcome(call, lambda body: _right(values, api.ConvertResponse.FromString(body).celsius))
        self._tally.note("late", outcome, allowed=["right", "DEADLINE_EXCEEDED"])

    async def _left_stream(self, channel: grpc.aio.Channel) -> None:
        asked = [self._values(10) for _ in range(50)]
        call = _duplex(channel)(_messages(asked), timeout=TIMEOUT_SECONDS)
        outcome = "CANCELLED"
        try:
            first = await call.read()
            right = _right(asked[0], api.ConvertStreamResponse.FromString(first).response.celsius)
            outcome = "CANCELLED" if right else "wrong"
        except grpc.aio.AioRpcError as error:
            outcome = _told(error)
        call.cancel()
        self._tally.note("left stream", outcome, allowed=["CANCELLED"])

    async def _vanished(self, _channel: grpc.aio.Channel) -> None:
        """Send calls, whole and half, and close the connection on them, with and without a word."""
        await asyncio.to_thread(self._vanish)
        self._tally.note("vanished", "gone", allowed=["gone"])

    def _vanish(self) -> None:
        with RawClient(self._address) as client:
            for _ in range(self._chance.randrange(1, 20)):
                client.call(convert_body(*[50.0] * self._chance.choice([1, 100, 3_000])))
            client.call(convert_body(50.0)[:-1], end=False)
            client.send(client.headers_frame(request(), client.new_stream())[:-2])
            if self._chance.random() < 0.5:
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)

    async def _silent(self, _channel: grpc.aio.Channel) -> None:
        """Connect, say half a greeting, and leave."""
        await asyncio.to_thread(self._say_half)
        self._tally.note("silent", "gone", allowed=["gone"])

    def _say_half(self) -> None:
        with RawClient(self._address, greet=False) as client:
            client.send(PREFACE[: self._chance.randrange(len(PREFACE))])

    async def _outcome(self, call: Any, right: Callable[[bytes], bool]) -> str:  # noqa: ANN401 - grpcio's, without types
        try:
            return "right" if right(await call) else "wrong"
        except grpc.aio.AioRpcError as error:
            return _told(error)
        except asyncio.CancelledError:
            return "CANCELLED"

    def _values(self, count: int) -> np.ndarray[Any, Any]:
        return np.array([self._chance.uniform(COLDEST, HOTTEST) for _ in range(min(count, 64))] * (count // 64 + 1))[
            :count
        ]


async def traffic(address: str, clients: int, seconds: float, seed: int, least: Collection[str] = frozenset()) -> Tally:
    """Let so many clients call for so long, and on until at least these kinds of calls were tried."""
    tally = Tally()
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds

    def is_over() -> bool:
        return loop.time() >= end and tally.tried.issuperset(least)

    await asyncio.gather(*(Client(address, seed + number, tally).run(is_over) for number in range(clients)))
    return tally


def _unary(channel: grpc.aio.Channel, path: str) -> Any:  # noqa: ANN401 - grpcio's, without types
    return channel.unary_unary(path)


def _duplex(channel: grpc.aio.Channel) -> Any:  # noqa: ANN401 - grpcio's, without types
    return channel.stream_stream(_STREAM)


def _request(values: np.ndarray[Any, Any]) -> bytes:
    return api.ConvertRequest(fahrenheit=values.tolist()).SerializeToString()


async def _messages(asked: list[np.ndarray[Any, Any]]) -> AsyncIterator[bytes]:
    for values in asked:
        message = api.ConvertStreamRequest(request=api.ConvertRequest(fahrenheit=values.tolist()))
        yield message.SerializeToString()


def _right(fahrenheit: np.ndarray[Any, Any], celsius: Any) -> bool:  # noqa: ANN401 - protobuf's list, or an array
    got = np.asarray(celsius, np.float64)
    return len(got) == len(fahrenheit) and bool(np.all(np.abs(got - exact(fahrenheit)) < TOLERANCE_CELSIUS))


def exact(fahrenheit: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The exact law, elementwise."""
    slope, offset = exact_celsius(1.0) - exact_celsius(0.0), exact_celsius(0.0)
    return fahrenheit * slope + offset


def _told(error: grpc.aio.AioRpcError) -> str:
    expected = {grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.INVALID_ARGUMENT}
    return error.code().name if error.code() in expected else f"{error.code().name}: {error.details()}"
