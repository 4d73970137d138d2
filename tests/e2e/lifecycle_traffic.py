"""Traffic while versions come and go: clients that check every answer against the version that it names.

Each version adds an offset of its own to the exact law, so that its answers cannot be mistaken for another's. Which
offset a version has is known before it can answer.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio

from proto.inference.v2 import open_inference_pb2 as pb
from proto.quicksilver.v1 import converter_pb2 as api
from proto.repository import LabelledError, Repository, UnknownModelError
from tests.service.artefacts import exact_celsius, make_artefact

MODEL: Final = "linear"
PINNED: Final = 1
"""A version that keeps a label of its own, so that it must answer by its number throughout."""
TIMEOUT_SECONDS: Final = 30
TOLERANCE_CELSIUS: Final = 1e-3

_CONVERT: Final = "/quicksilver.v1.ConverterService/Convert"
_INFER: Final = "/inference.GRPCInferenceService/ModelInfer"
_GONE: Final = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE)


@dataclass
class Tally:
    """What came of the calls."""

    answers: Counter[int] = field(default_factory=Counter)
    """Right answers, by the version that gave them."""
    gone: int = 0
    """Calls for a version by its number that was unloaded: refused, as they must be."""
    wrong: list[str] = field(default_factory=list)
    """Failed calls and wrong answers, which there must be none of."""


class Story:
    """What happens to the repository: a seeded sequence of publishing, labelling, damaging, removing.

    `offsets` holds the offset of each good version, from before it is published; `labelled` every version that was ever
    meant to answer by a label.
    """

    def __init__(self, root: Path, seed: int) -> None:
        self.repository = Repository(root)
        self.random = random.Random(seed)  # noqa: S311 - a seeded story, not a secret
        self.offsets: dict[int, float] = {}
        self.labelled: set[int] = set()
        self.broken: set[int] = set()
        self._last = 0

    def begin(self) -> None:
        """Publish the first version, stable and pinned, and the second, the canary."""
        for _ in range(2):
            self.publish(works=True)
        self.move("pinned", PINNED)
        self.move("canary", 2)
        self.labelled.add(PINNED)

    def publish(self, *, works: bool) -> int:
        """Publish the next version; a broken one is cut short, no model at all, or answers wrongly."""
        number = self._last = self._last + 1
        content = make_artefact(offset_celsius=number / 4)
        if works:
            self.offsets[number] = number / 4
            self.repository.publish(MODEL, content, number)
            return number
        self.broken.add(number)
        kind = self.random.choice(["empty", "cut", "by hand", "wrong"])
        if kind == "by hand":
            directory = self.repository.root / MODEL / str(number)
            directory.mkdir()
            (directory / "model.onnx").write_bytes(content[: len(content) // 2])
        else:
            other = make_artefact(offset_celsius=number)
            wrong = content.replace(_golden(content), _golden(other)) if kind == "wrong" else b""
            self.repository.publish(MODEL, {"empty": b"", "cut": content[:-40]}.get(kind, wrong), number)
        return number

    def move(self, label: str, version: int) -> None:
        """Move a label; to a version that works, it will answer."""
        if version in self.offsets:
            self.labelled.add(version)
        self.repository.set_label(MODEL, label, version)

    def step(self, *, works: bool) -> None:
        """Publish a version, and do something else beside it."""
        number = self.publish(works=works)
        there = [version for version in self.repository.versions(MODEL) if version in self.offsets]
        action = self.random.choice(["canary", "promote", "rollback", "remove", "remove", "nothing"])
        if action == "canary":
            self.move("canary", number)  # whether it works or not: a broken one must change nothing
        elif action == "promote":
            self.move("stable", self.random.choice(there[-3:]))
        elif action == "rollback":
            self._roll_back()
        elif action == "remove":
            self._remove(self.random.choice(self.repository.versions(MODEL)))

    def _roll_back(self) -> None:
        try:
            self.move("stable", self.repository.earlier(MODEL, "stable"))
        except UnknownModelError:
            return

    def _remove(self, version: int) -> None:
        try:
            self.repository.remove(MODEL, version)
        except LabelledError:
            return

    def end(self) -> int:
        """Publish one more, let every label but the pinned one name it, remove all others; returns its number."""
        number = self.publish(works=True)
        for label in ("stable", "canary"):
            self.move(label, number)
        for version in self.repository.versions(MODEL):
            self._remove(version)
        return number


def _golden(content: bytes) -> bytes:
    """The golden answers in a file's metadata."""
    start = content.index(b'"outputs": [')
    return content[start : content.index(b"]", start)]


class Clients:
    """Many clients, each with a connection of its own, that call as fast as they are answered."""

    def __init__(self, address: str, story: Story, count: int, seed: int) -> None:
        self._address = address
        self._story = story
        self._count = count
        self._seed = seed
        self._stopping = False
        self.tally = Tally()

    async def during(self, work: Callable[[], Any]) -> Tally:
        """Call while `work` is done on a thread, and until the last call is answered."""
        calling = [asyncio.create_task(self._client(number)) for number in range(self._count)]
        try:
            await asyncio.to_thread(work)
        finally:
            self._stopping = True
            await asyncio.gather(*calling)
        return self.tally

    async def _client(self, number: int) -> None:
        chance = random.Random(self._seed + number)  # noqa: S311 - as above
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(self._address, options=options) as channel:
            convert: Any = channel.unary_unary(_CONVERT, response_deserializer=api.ConvertResponse.FromString)
            infer: Any = channel.unary_unary(_INFER, response_deserializer=pb.ModelInferResponse.FromString)
            while not self._stopping:
                fahrenheit = chance.uniform(-40, 212)
                if chance.random() < 0.25:
                    await self._infer(infer, fahrenheit)
                else:
                    await self._convert(convert, fahrenheit, chance)

    async def _convert(self, convert: Any, fahrenheit: float, chance: random.Random) -> None:  # noqa: ANN401 - a stub
        choice: dict[str, Any] = chance.choice(
            [{}, {"label": "stable"}, {"label": "canary"}, {"version": PINNED}, {"version": self._any(chance)}]
        )
        request = api.ConvertRequest(model=MODEL, fahrenheit=[fahrenheit], **choice)
        try:
            answer = await convert(request.SerializeToString(), timeout=TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            self._failed(choice, error)
            return
        self._check(choice, fahrenheit, answer.version, list(answer.celsius))

    async def _infer(self, infer: Any, fahrenheit: float) -> None:  # noqa: ANN401 - a stub
        request = pb.ModelInferRequest(model_name=MODEL)
        tensor = request.inputs.add(name="fahrenheit", datatype="FP32", shape=[1, 1])
        tensor.contents.fp32_contents.append(fahrenheit)
        try:
            answer = await infer(request.SerializeToString(), timeout=TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            self._failed({}, error)
            return
        celsius = [value for output in answer.outputs[:1] for value in output.contents.fp32_contents]
        self._check({}, fahrenheit, int(answer.model_version), celsius)

    def _any(self, chance: random.Random) -> int:
        return chance.choice(list(self._story.offsets))

    def _failed(self, choice: dict[str, Any], error: grpc.aio.AioRpcError) -> None:
        if error.code() in _GONE and choice.get("version", PINNED) != PINNED:
            self.tally.gone += 1
        else:
            self.tally.wrong.append(f"{choice}: {error.code()}: {error.details()}")

    def _check(self, choice: dict[str, Any], fahrenheit: float, version: int, celsius: list[float]) -> None:
        offset = self._story.offsets.get(version)
        may = {choice["version"]} if "version" in choice else self._story.labelled
        right = (
            offset is not None
            and version in may
            and len(celsius) == 1
            and abs(celsius[0] - exact_celsius(fahrenheit) - offset) < TOLERANCE_CELSIUS
        )
        if right:
            self.tally.answers[version] += 1
        else:
            self.tally.wrong.append(f"{choice}, {fahrenheit} °F: version {version} answered {celsius}")


def tell(story: Story, versions: int, broken: int, seconds: float) -> None:
    """Publish so many versions in about so many seconds, some of them broken, each with what goes on beside it."""
    kinds = [number >= broken for number in range(versions)]
    story.random.shuffle(kinds)
    began = time.monotonic()
    for number, works in enumerate(kinds):
        story.step(works=works)
        time.sleep(max(0.0, began + (number + 1) * seconds / versions - time.monotonic()))
