"""Rolling restarts under load: two servers behind one client are replaced in turn, and no call is lost.

The short form is part of the suite. `make soak` restarts them forty times, with workers too.
"""

import contextlib
import json
import random
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from proto.quicksilver.v1 import converter_pb2 as api
from proto.quicksilver.v1.converter_pb2_grpc import ConverterServiceStub
from proto.repository import Repository
from tests.e2e.processes import Serving
from tests.e2e.processes import serving as start
from tests.service.artefacts import exact_celsius, make_artefact
from tests.waiting import until

SEED: Final = 20_261_122
AT_ONCE: Final = 16
STREAMED: Final = 10
ENOUGH_CALLS: Final = 50
"""Calls that a server that was restarted must have begun before the other one goes: clients take a while to notice."""

UNAVAILABLE_RETRIED: Final = {
    "maxAttempts": 5,
    "initialBackoff": "0.1s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
POLICIES: Final[dict[str, dict[str, Any]]] = {
    "retries UNAVAILABLE": {"retryPolicy": UNAVAILABLE_RETRIED},
    "retries what was not begun": {},  # what gRPC does by itself
}


@dataclass
class Tally:
    """What came of the calls."""

    answered: int = 0
    lost: list[str] = field(default_factory=list)


class Load:
    """Clients that call as fast as they are answered, over both addresses in turn, and check every answer."""

    def __init__(self, addresses: list[str], policy: dict[str, Any], clients: int) -> None:
        self._target = "ipv4:" + ",".join(addresses)
        config = {"loadBalancingConfig": [{"round_robin": {}}], "methodConfig": [{"name": [{}], **policy}]}
        self._options: list[tuple[str, Any]] = [
            ("grpc.service_config", json.dumps(config)),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        self._stop = threading.Event()
        self.tallies = [Tally() for _ in range(clients)]
        self._threads = [threading.Thread(target=self._client, args=(number,)) for number in range(clients)]

    @property
    def answered(self) -> int:
        """Calls that were answered right."""
        return sum(tally.answered for tally in self.tallies)

    @property
    def lost(self) -> list[str]:
        """Calls that failed, or were answered wrong."""
        return [lost for tally in self.tallies for lost in tally.lost]

    @contextlib.contextmanager
    def flowing(self) -> Iterator[None]:
        """Call meanwhile."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()

    def _client(self, number: int) -> None:
        chance = random.Random(SEED + number)  # noqa: S311 - seeded on purpose
        with grpc.insecure_channel(self._target, options=self._options) as channel:
            stub = ConverterServiceStub(channel)
            while not self._stop.is_set():
                try:
                    self._round(stub, self.tallies[number], chance)
                except grpc.RpcError as error:
                    self.tallies[number].lost.append(f"{error.code()}: {error.details()}")

    def _round(self, stub: ConverterServiceStub, tally: Tally, chance: random.Random) -> None:
        values = [chance.uniform(-40, 212) for _ in range(AT_ONCE)]
        calls = [
            stub.Convert.future(api.ConvertRequest(fahrenheit=[value]), timeout=30, wait_for_ready=True)
            for value in values
        ]
        messages = [api.ConvertStreamRequest(request=api.ConvertRequest(fahrenheit=[value])) for value in values]
        stream = stub.ConvertStream(iter(messages[:STREAMED]), timeout=30, wait_for_ready=True)
        for value, call in zip(values, calls, strict=True):
            _check(tally, value, call.result().celsius)
        streamed = [answer.response.celsius for answer in stream]
        for value, celsius in zip(values[:STREAMED], streamed, strict=True):
            _check(tally, value, celsius)


def _check(tally: Tally, fahrenheit: float, celsius: Any) -> None:  # noqa: ANN401 - protobuf's list of floats
    if len(celsius) == 1 and abs(celsius[0] - exact_celsius(fahrenheit)) < 1e-3:
        tally.answered += 1
    else:
        tally.lost.append(f"{fahrenheit} °F was answered with {list(celsius)}")


def begun(server: Serving) -> float:
    """Calls of Convert that a server has begun."""
    labels = 'grpc_method="Convert",grpc_service="quicksilver.v1.ConverterService",grpc_type="unary"'
    return server.metric(f"grpc_server_started_total{{{labels}}}")


def restart_in_turn(root: Path, restarts: int, policy: dict[str, Any], *flags: str) -> Load:
    """Restart two servers in turn under load, each once the other has taken calls again; return what became of it."""
    with contextlib.ExitStack() as running:
        places = [running.enter_context(contextlib.ExitStack()) for _ in range(2)]
        servers = [place.enter_context(start(root, *flags)) for place in places]
        addresses = [server.address for server in servers]
        load = Load(addresses, policy, clients=3)
        with load.flowing():
            for turn in range(restarts):
                until(lambda: all(begun(server) >= ENOUGH_CALLS for server in servers), "calls of both servers")
                here = turn % 2
                servers[here].signal(signal.SIGTERM)
                assert servers[here].wait() == 0, "not every call was finished"
                places[here].close()
                servers[here] = places[here].enter_context(start(root, *flags, "--listen", addresses[here]))
        return load


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with the exact converter."""
    Repository(tmp_path / "models").publish("linear", make_artefact())
    return tmp_path / "models"


def test_no_call_is_lost_over_four_restarts(root: Path) -> None:
    """A client that retries UNAVAILABLE, as gRPC's own policy has it, has every call answered, and answered right."""
    load = restart_in_turn(root, 4, POLICIES["retries UNAVAILABLE"])
    assert load.lost == []
    assert load.answered > 4 * ENOUGH_CALLS


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("policy", POLICIES)
def test_no_call_is_lost_over_forty_restarts(root: Path, policy: str, workers: str) -> None:
    """Forty restarts, also with several workers, and for clients that retry only what was never begun."""
    load = restart_in_turn(root, 40, POLICIES[policy], "--workers", workers)
    assert load.lost == []
    print(f"40 restarts, {policy}, {workers} workers: {load.answered} answers, none lost")  # noqa: T201 - the figures
