"""Canaries on a real server under steady load: no call fails, and each answer is right for the version it names."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import numpy as np
import pytest

from proto.inference.v2 import open_inference_pb2 as pb
from proto.observation import Observation
from proto.observations import ObservationStore
from proto.quicksilver.v1 import converter_pb2 as api
from proto.repository import Repository
from proto.traffic import CanaryTraffic, is_for_canary, place_of_id
from service.canary import REQUEST_ID_KEY
from tests.e2e.processes import Serving, quicksilver, serving
from tests.service.artefacts import exact_celsius, make_artefact, make_fragile, make_slow
from tests.waiting import until

TIMEOUT_SECONDS: Final = 30
CLIENTS: Final = 6
OFFSETS: Final = {1: 0.0, 2: 5.0, 3: 7.0, 4: 9.0}
FRAGILE: Final = 3
FRAGILE_ABOVE: Final = 300.0
SLOW: Final = 4
IDS: Final = [f"caller-{number}" for number in range(24)]
CONVERT: Final = "/quicksilver.v1.ConverterService/Convert"
INFER: Final = "/inference.GRPCInferenceService/ModelInfer"


@dataclass
class Load:
    """Clients that call without a pause longer than a few milliseconds, and check what they are answered."""

    address: str
    stopping: bool = False
    answers: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    async def during(self, work: Callable[[], None]) -> None:
        """Call while `work` is done on a thread."""
        calling = [asyncio.create_task(self._client(number)) for number in range(CLIENTS)]
        try:
            await asyncio.to_thread(work)
        finally:
            self.stopping = True
            await asyncio.gather(*calling)

    async def _client(self, number: int) -> None:
        chance = random.Random(number)  # noqa: S311 - a seeded load, not a secret
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(self.address, options=options) as channel:
            convert: Any = channel.unary_unary(CONVERT, response_deserializer=api.ConvertResponse.FromString)
            infer: Any = channel.unary_unary(INFER, response_deserializer=pb.ModelInferResponse.FromString)
            while not self.stopping:
                fahrenheit = chance.choice([-40.0, 50.0, 77.5, 212.0, FRAGILE_ABOVE + 1])
                request_id = chance.choice(["", *IDS])
                try:
                    if chance.random() < 0.5:
                        version, celsius = await ask(convert, fahrenheit, request_id)
                    else:
                        version, celsius = await ask_inference(infer, fahrenheit, request_id, chance)
                except grpc.aio.AioRpcError as error:
                    self.wrong.append(f"{request_id} {fahrenheit}: {error.code()}: {error.details()}")
                    continue
                self._check(fahrenheit, version, celsius)
                await asyncio.sleep(0.002)

    def _check(self, fahrenheit: float, version: int, celsius: float) -> None:
        is_right = abs(celsius - exact_celsius(fahrenheit) - OFFSETS[version]) < 1e-3
        if is_right and not (version == FRAGILE and fahrenheit > FRAGILE_ABOVE):
            self.answers[version] += 1
        else:
            self.wrong.append(f"version {version} answered {celsius} to {fahrenheit}")


async def ask(convert: Any, fahrenheit: float, request_id: str) -> tuple[int, float]:  # noqa: ANN401 - a stub
    """One Convert, with the id in its message."""
    message = api.ConvertRequest(model="linear", fahrenheit=[fahrenheit], request_id=request_id)
    answer = await convert(message.SerializeToString(), timeout=TIMEOUT_SECONDS)
    assert answer.request_id == request_id
    return answer.version, answer.celsius[0]


async def ask_inference(
    infer: Any,  # noqa: ANN401 - a stub
    fahrenheit: float,
    request_id: str,
    chance: random.Random,
) -> tuple[int, float]:
    """One ModelInfer, with the id in its message or its metadata."""
    in_message = chance.random() < 0.5
    message = pb.ModelInferRequest(model_name="linear", id=request_id if in_message else "")
    message.inputs.add(name="fahrenheit", datatype="FP32", shape=[1, 1])
    message.raw_input_contents.append(np.array([fahrenheit], "<f4").tobytes())
    metadata = () if in_message or not request_id else ((REQUEST_ID_KEY, request_id),)
    answer = await infer(message.SerializeToString(), timeout=TIMEOUT_SECONDS, metadata=metadata)
    return int(answer.model_version), float(np.frombuffer(answer.raw_output_contents[0], "<f4")[0])


class Story:
    """What happens to the repository while the load goes on, each step once the last one shows everywhere."""

    def __init__(self, repository: Repository, server: Serving, store: str) -> None:
        self.repository = repository
        self.server = server
        self.store = store
        self._observed = 0

    def tell(self) -> None:
        """The whole life."""
        self.share(2, 0.3)
        self.share(2, 0.8)
        self.shadow(2)
        self.share(2, 0.5)
        self.observe(5.0)
        assert self.promote() == 0
        self.settles(2, 2, 0.0)
        self.observe(0.0)
        assert self.promote() == 5
        self.settles(1, 1, 0.0)
        self.share(FRAGILE, 0.5)
        until(lambda: self.metric("canary_fallback_calls_total", FRAGILE) > 0, "calls that fall back")
        self.shadow(FRAGILE)
        until(lambda: self.metric("shadow_failed_rows_total", FRAGILE) > 0, "rows that fail in the shadow")
        self.shadow(SLOW)
        self.repository.set_label("linear", "canary", 2)
        self.repository.remove("linear", SLOW)
        self.settles(1, 2, 0.0)
        self.repository.set_canary_traffic("linear", CanaryTraffic())
        assert self.totals() == (1, 1), "counted once, however many workers there are"

    def share(self, canary: int, share: float) -> None:
        """Let a canary take a share, and wait until every caller is where it belongs, in every worker."""
        self.repository.set_label("linear", "canary", canary)
        self.repository.set_canary_traffic("linear", CanaryTraffic(share=share))
        self.settles(1, canary, share)
        until(lambda: self.metric("canary_calls_total", canary) > 0, "calls of the canary")

    def shadow(self, canary: int) -> None:
        """Let it run in the shadow, and wait until it does, and answers nobody."""
        self.repository.set_label("linear", "canary", canary)
        self.repository.set_canary_traffic("linear", CanaryTraffic(shadow=True))
        self.settles(1, canary, 0.0)
        until(lambda: self.metric("shadow_rows_total", canary) > 0, "rows in the shadow")

    def settles(self, stable: int, canary: int, share: float) -> None:
        """Wait until each of many callers, over several connections, gets the version that its id says."""
        salt = f"linear/{canary}".encode()
        expected = {
            request_id: canary if is_for_canary(place_of_id(request_id.encode(), salt), share) else stable
            for request_id in IDS
        }
        with ExitStack() as stack:
            options = [("grpc.use_local_subchannel_pool", 1)]
            channels = [stack.enter_context(grpc.insecure_channel(self.server.address, options)) for _ in range(4)]
            until(lambda: all(_versions(channel) == expected for channel in channels), "every caller's version")

    def observe(self, offset_celsius: float) -> None:
        """Report a thermometer that is so many degrees off, by observations that are newer than everything."""
        with ObservationStore.open(self.store) as store:
            now, self._observed = time.time(), self._observed + 1
            store.add(
                [
                    Observation(
                        id=f"{self._observed}-{row}",
                        fahrenheit=50.0 + row / 10,
                        celsius=exact_celsius(50.0 + row / 10) + offset_celsius,
                        observed_at_seconds=now,
                        source=f"thermometer {row % 2}",
                    )
                    for row in range(200)
                ]
            )

    def promote(self) -> int:
        """Run the command."""
        where = ["--repository", str(self.repository.root), "--store", self.store]
        return quicksilver("promote", "linear", *where).returncode

    def metric(self, name: str, version: int) -> float:
        """A metric of one version; 0 where there is none yet."""
        try:
            return self.server.metric(f'quicksilver_{name}{{model="linear",version="{version}"}}')
        except IndexError:
            return 0.0

    def totals(self) -> tuple[float, float]:
        """Promotions and rollbacks."""
        promotions, rollbacks = (
            self.server.metric(f'quicksilver_{name}_total{{model="linear"}}') for name in ("promotions", "rollbacks")
        )
        return promotions, rollbacks


def _versions(channel: grpc.Channel) -> dict[str, int]:
    convert: Any = channel.unary_unary(CONVERT, response_deserializer=api.ConvertResponse.FromString)
    made = {
        request_id: api.ConvertRequest(model="linear", fahrenheit=[50.0], request_id=request_id) for request_id in IDS
    }
    futures = {
        request_id: convert.future(message.SerializeToString(), timeout=TIMEOUT_SECONDS)
        for request_id, message in made.items()
    }
    return {request_id: future.result().version for request_id, future in futures.items()}


@pytest.fixture(params=["http2, one process", "http2, two workers", "grpcio, one process"])
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Serving]:
    """A server over four versions, each off the law by an offset of its own."""
    repository = Repository(tmp_path / "models")
    for version, offset in OFFSETS.items():
        if version == FRAGILE:
            content = make_fragile(FRAGILE_ABOVE, offset_celsius=offset)
        elif version == SLOW:
            content = make_slow(size=300, offset_celsius=offset)
        else:
            content = make_artefact(offset_celsius=offset)
        repository.publish("linear", content, version)
    transport, _, processes = request.param.partition(", ")
    flags = ("--transport", transport, "--workers", "2" if processes == "two workers" else "1")
    with serving(repository.root, *flags, "--watch-interval-seconds", "1", "--version-policy", "all") as server:
        yield server


def test_no_call_fails_while_canaries_come_and_go(server: Serving, tmp_path: Path) -> None:
    """Shares change, labels move, a canary fails, one is slow, one is promoted and goes back: every answer is right."""
    story = Story(Repository(tmp_path / "models"), server, f"sqlite:///{tmp_path / 'observations.sqlite'}")
    load = Load(server.address)
    asyncio.run(load.during(story.tell))
    assert load.wrong[:5] == []
    assert {1, 2, FRAGILE} <= load.answers.keys()
    assert SLOW not in load.answers, "it only ever ran in the shadow"
    assert any('"event": "stable moved"' in line for line in server.lines)
