"""What small calls of one client notice of another: of one that breaks HTTP/2, and of those that send a lot."""

import contextlib
import multiprocessing
import random
import time
from collections.abc import Callable, Iterator
from typing import Final

import grpc
import numpy as np

from benchmarks import wire
from proto.inference.v2 import open_inference_pb2 as open_inference
from tests.service.http2.mutations import conversation
from tests.service.http2.raw import CONVERT, RawClient
from tests.service.http2.serving import INFER, convert_body

SEED: Final = 20_261_122
ROWS: Final = 1_000_000
"""Of a large request: nearly as many as a message may have."""
VARINTS: Final = 4_000_000
"""Of one that no converter takes, a byte each."""
PAUSE_SECONDS: Final = 0.02
"""Between two small calls."""
_SPAWN: Final = multiprocessing.get_context("spawn")


class Turns:
    """When a neighbour, in a process of its own, does what it does: it waits for its turn before each call."""

    def __init__(self) -> None:
        self._active = _SPAWN.Event()
        self._waits = _SPAWN.Event()

    def wait(self) -> bool:
        """Wait for a turn; always true."""
        if not self._active.is_set():
            self._waits.set()
            self._active.wait()
            self._waits.clear()
        return True

    def until_it_waits(self) -> None:
        """Return when nothing of the neighbour's is under way."""
        if not self._waits.wait(60):
            raise RuntimeError("a neighbour failed: it said why")

    @contextlib.contextmanager
    def given(self) -> Iterator[None]:
        """Have the neighbour act meanwhile."""
        self._active.set()
        yield
        self._active.clear()
        self.until_it_waits()


def mutate(address: str, turns: Turns) -> None:
    """Hold one mutated conversation after the other while that is asked for."""
    generator = random.Random(SEED)  # noqa: S311 - seeded on purpose
    while turns.wait():
        with contextlib.suppress(OSError), RawClient(address, greet=False) as client:
            client.try_send(conversation(generator))
            client.drain(0.002 if generator.random() < 0.9 else 0.02)  # noqa: PLR2004 - mostly short


def convert(address: str, turns: Turns) -> None:
    """Send large `Convert`s, one after the other, inside what the model was trained on."""
    _send(address, turns, CONVERT, wire.convert_request(wire.readings(ROWS)))


def extrapolate(address: str, turns: Turns) -> None:
    """The same outside, where every row is listed in the answer."""
    _send(address, turns, CONVERT, wire.convert_request(np.linspace(1000, 2000, ROWS, dtype=np.float32)))


def convert_compressed(address: str, turns: Turns) -> None:
    """Send them compressed."""
    _send(address, turns, CONVERT, wire.convert_request(wire.readings(ROWS)), grpc.Compression.Gzip)


def infer_raw(address: str, turns: Turns) -> None:
    """Send large `ModelInfer`s with raw contents."""
    _send(address, turns, INFER, wire.infer_request(wire.readings(ROWS)))


def infer_typed(address: str, turns: Turns) -> None:
    """Send them with typed contents."""
    request = open_inference.ModelInferRequest(model_name=wire.MODEL)
    tensor = request.inputs.add(name="fahrenheit", datatype="FP32", shape=[ROWS, 1])
    tensor.contents.fp32_contents.extend(wire.readings(ROWS).tolist())
    _send(address, turns, INFER, request.SerializeToString())


def infer_varints(address: str, turns: Turns) -> None:
    """Send whole numbers, which are read and then refused."""
    request = open_inference.ModelInferRequest(model_name=wire.MODEL)
    tensor = request.inputs.add(name="fahrenheit", datatype="INT64", shape=[VARINTS, 1])
    tensor.contents.int64_contents.extend([1] * VARINTS)
    _send(address, turns, INFER, request.SerializeToString(), refused=grpc.StatusCode.INVALID_ARGUMENT)


def _send(  # noqa: PLR0917 - a call and its options
    address: str,
    turns: Turns,
    path: str,
    body: bytes,
    compression: grpc.Compression = grpc.Compression.NoCompression,
    refused: grpc.StatusCode | None = None,
) -> None:
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(address, options, compression) as channel:
        method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
        while turns.wait():
            try:
                method(body, timeout=60)
            except grpc.RpcError as error:
                if error.code() is not refused:
                    raise


NEIGHBOURS: Final[dict[str, Callable[[str, Turns], None]]] = {
    "mutated conversations": mutate,
    f"`Convert`, {ROWS:,} values": convert,
    "`Convert`, as many, all outside the training range": extrapolate,
    "`Convert`, as many, with gzip": convert_compressed,
    f"`ModelInfer`, {ROWS:,} values, raw": infer_raw,
    "`ModelInfer`, as many, typed": infer_typed,
    f"`ModelInfer`, {VARINTS:,} whole numbers, refused": infer_varints,
}


def beside_neighbours(address: str, seconds: float, rounds: int) -> dict[str, list[float]]:
    """Seconds of each small call, by whom it had beside it, in turn."""
    took: dict[str, list[float]] = {name: [] for name in ("nobody", *NEIGHBOURS)}
    with contextlib.ExitStack() as started:
        neighbours = {name: started.enter_context(_neighbour(address, act)) for name, act in NEIGHBOURS.items()}
        for _ in range(rounds):
            took["nobody"] += _call(address, seconds)
            for name, turns in neighbours.items():
                with turns.given():
                    took[name] += _call(address, seconds)
    return took


@contextlib.contextmanager
def _neighbour(address: str, act: Callable[[str, Turns], None]) -> Iterator[Turns]:
    turns = Turns()
    process = _SPAWN.Process(target=act, args=(address, turns), daemon=True)
    process.start()
    try:
        turns.until_it_waits()
        yield turns
    finally:
        process.terminate()
        process.join()


def _call(address: str, seconds: float) -> list[float]:
    """Seconds that each small call took. One that fails ends the benchmark."""
    body, took = convert_body(50.0), []
    end = time.perf_counter() + seconds
    with RawClient(address) as client:
        while (began := time.perf_counter()) < end:
            if client.unary(body).status != 0:
                raise RuntimeError("a small call was refused")
            took.append(time.perf_counter() - began)
            time.sleep(PAUSE_SECONDS)
    return took
