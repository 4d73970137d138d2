"""Who uses the servers: a steady load of conversions, and a reporter of what was true. Both go on through kills."""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import grpc
import numpy as np

from proto.observation import Observation
from proto.quicksilver.v1 import converter_pb2 as api
from proto.quicksilver.v1.converter_pb2_grpc import ConverterServiceStub
from service.client import Conversion, Converter, ServerUnavailableError

LIMIT_SECONDS: Final = 120.0
GROUP_ROWS: Final = 20
"""Observations of one message."""
KEPT_ANSWERS: Final = 200
"""Answers of each version that are kept, to be held against the version that they name."""


class Asking:
    """Converts, and asks again while the answer is UNAVAILABLE: what a caller has to do who must lose nothing."""

    def __init__(self, target: str) -> None:
        self._converter = Converter(target, timeout_seconds=LIMIT_SECONDS)
        self.repeated = 0
        """Calls that the client's own retries did not bring through, and a second attempt did."""

    def convert(self, fahrenheit: np.ndarray, *, request_id: str = "", version: int | None = None) -> Conversion:
        """Convert readings [N]."""
        end = time.monotonic() + LIMIT_SECONDS
        while True:
            try:
                return self._converter.convert(fahrenheit, request_id=request_id, version=version)
            except ServerUnavailableError:
                assert time.monotonic() < end, "no server came back"
                self.repeated += 1
                time.sleep(0.02)

    def close(self) -> None:
        """Close the connection."""
        self._converter.close()


class Load:
    """Conversions without pause, on a thread, of what the thermometer shows; every failure, and some of the answers."""

    def __init__(self, target: str, readings: Callable[[], np.ndarray]) -> None:
        self.versions: Counter[int] = Counter()
        self.failures: list[str] = []
        self.kept: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
        """By version, some readings and what they were answered."""
        self._readings = readings
        self._asking = Asking(target)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="load")
        self._thread.start()

    @property
    def answers(self) -> int:
        """How many calls were answered."""
        return sum(self.versions.values())

    @property
    def repeated(self) -> int:
        """How many had to be asked again."""
        return self._asking.repeated

    def stop(self) -> None:
        """End it."""
        self._stopping.set()
        self._thread.join()
        self._asking.close()

    def _work(self) -> None:
        while not self._stopping.wait(0.01):
            fahrenheit = self._readings()
            try:
                answer = self._asking.convert(fahrenheit)
            except Exception as error:  # noqa: BLE001 - any is one too many, and is told
                self.failures.append(repr(error))
                continue
            self.versions[answer.version] += 1
            kept = self.kept.setdefault(answer.version, [])
            if len(kept) < KEPT_ANSWERS:
                kept.append((fahrenheit, answer.celsius))


class Reporter:
    """Streams observations in bulk, and sends again what was not acknowledged.

    `faults` are what is done once so many are acknowledged: the stream is then in full flow. After a refusal
    `on_refusal` is called with what the server said.
    """

    def __init__(self, target: str) -> None:
        self._channel = grpc.insecure_channel(target)
        self._stub = ConverterServiceStub(self._channel)
        self.sent: dict[str, Observation] = {}
        self.acknowledged: set[str] = set()
        self.faults: list[tuple[int, Callable[[], None]]] = []
        self.on_refusal: Callable[[str], None] = lambda _said: None

    def report(self, observations: Iterable[Observation]) -> None:
        """Report, and return when everything is acknowledged."""
        reported = tuple(observations)
        groups = deque(reported[start : start + GROUP_ROWS] for start in range(0, len(reported), GROUP_ROWS))
        self.sent.update({one.id: one for group in groups for one in group})
        end = time.monotonic() + LIMIT_SECONDS
        while groups:
            try:
                self._stream(groups)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > end:
                    raise
                self.on_refusal(error.details() or "")
                time.sleep(0.02)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def _stream(self, groups: "deque[tuple[Observation, ...]]") -> None:
        """Stream what is left of the groups; those that are answered leave it."""
        messages = _messages(list(groups))
        for answer in self._stub.StreamObservations(messages, timeout=LIMIT_SECONDS, wait_for_ready=True):
            group = groups.popleft()
            assert answer.accepted + answer.duplicates == len(group)
            self.acknowledged.update(one.id for one in group)
            while self.faults and len(self.acknowledged) >= self.faults[0][0]:
                self.faults.pop(0)[1]()


def _messages(groups: Iterable[tuple[Observation, ...]]) -> Iterator[api.StreamObservationsRequest]:
    for group in groups:
        yield api.StreamObservationsRequest(observations=[_message(one) for one in group])


def _message(one: Observation) -> api.Observation:
    return api.Observation(
        id=one.id,
        fahrenheit=one.fahrenheit,
        celsius=one.celsius,
        observed_at_seconds=one.observed_at_seconds,
        source=one.source,
        request_id=one.request_id or "",
        row=one.row or 0,
    )
