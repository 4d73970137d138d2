"""A real front with a real model behind it: on a thread of this process, or as a process of its own."""

import asyncio
import contextlib
import json
import ssl
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

import uvloop

from proto.quicksilver.v1 import converter_pb2 as api
from proto.repository import Repository
from service.calls import BatchedMethod, Method
from service.closed import Closed
from service.codec import ConvertCodec
from service.dataplane import Dataplane
from service.engine import EngineOptions
from service.errors import Shed
from service.http2 import Certificates, Http2Front, Http2Limits
from service.memory import keep_freed_pages
from service.models import LoadedVersion, Models, VersionPolicy
from service.open_inference import SERVICE, stream
from service.open_inference.infer import InferCodec
from service.run_observers import Served
from service.runs import BatchLimits, Run
from service.status import Code
from tests.service.artefacts import make_artefact
from tests.service.http2.authority import Authority, trusting
from tests.service.http2.raw import CONVERT, SECURED, framed

Result = TypeVar("Result")
ROWS_AT_MOST = 1 << 21
INFER = f"/{SERVICE}/ModelInfer"
INFER_STREAM = f"/{SERVICE}/ModelStreamInfer"


class Tally:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.begun: dict[str, int] = {}
        self.ended: dict[tuple[str, Code], int] = {}
        self.batches: list[int] = []
        self.sheds: Counter[Shed] = Counter()
        self.connections = 0
        self.closed: Counter[Closed] = Counter()

    def started(self, path: str, calls: int = 1) -> None:
        """Count calls."""
        self.begun[path] = self.begun.get(path, 0) + calls

    def handled_many(self, path: str, code: Code, seconds: Sequence[float]) -> None:
        """Count calls."""
        self.ended[path, code] = self.ended.get((path, code), 0) + len(seconds)

    def shed(self, reason: Shed, calls: int = 1) -> None:
        """Count refusals."""
        self.sheds[reason] += calls

    def connection_opened(self) -> None:
        """Count connections."""
        self.connections += 1

    def connection_closed(self, reason: Closed) -> None:
        """Count their ends."""
        self.closed[reason] += 1

    def ran(
        self,
        version: LoadedVersion,
        rows: int,
        queue_seconds: Sequence[float],
        inference_seconds: float,
        served: Served,
    ) -> None:
        """Remember how many calls shared a run."""
        del version, rows, inference_seconds, served
        self.batches.append(len(queue_seconds))


class HeldDataplane(Dataplane):
    """A dataplane whose runs can be held up: a model that takes long, for as long as a test wants."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - whatever a Dataplane takes
        super().__init__(*arguments, **options)
        self.go = threading.Event()
        self.go.set()
        self.held_rows = 1

    def execute(self, run: Run) -> None:
        """Run, once that is allowed; runs of fewer than `held_rows` rows always are."""
        if run.rows >= self.held_rows:
            self.go.wait(60)
        super().execute(run)


def load_models(root: Path) -> Models:
    """A repository with the exact converter in it, loaded."""
    Repository(root).publish("linear", make_artefact())
    models = Models(Repository(root), EngineOptions(device="cpu"), policy=VersionPolicy(), default_model=None)
    models.load()
    return models


def new_loop(kind: str) -> asyncio.AbstractEventLoop:
    """A loop of uvloop's, or of asyncio's own."""
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop() if kind == "uvloop" else asyncio.new_event_loop()
    return loop


class Serving:
    """A front on a thread of its own. Use it as a context."""

    secured: ClassVar["Secured | None"] = None
    """What fronts speak TLS with that are given no certificates, while a test wants them to."""

    def __init__(
        self,
        models: Models,
        limits: Http2Limits | None = None,
        methods: Sequence[Method] = (),
        *,
        address: str = "127.0.0.1:0",
        certificates: Certificates | None = None,
        loop: str = "uvloop",
    ) -> None:
        self.tally = Tally()
        batches = BatchLimits(max_rows_per_request=ROWS_AT_MOST)
        self.dataplane = HeldDataplane(models, self.tally, batches)
        convert = BatchedMethod(CONVERT, ConvertCodec())
        self.methods: Mapping[str, Method] = {method.path: method for method in (convert, *methods)}
        self.front = Http2Front(self.methods, self.dataplane, self.tally, limits)
        self.address = address
        self._certificates: Certificates | None = certificates
        self._context: ssl.SSLContext | None = None
        if certificates is None and self.secured is not None:
            self._certificates, self._context = self.secured.certificates, self.secured.context
        self._loop = new_loop(loop)
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._drained = False

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            [self.address] = self.run(self.front.start([self.address], certificates=self._certificates))
        except BaseException:
            self._stop()
            raise
        if self._context is not None:
            SECURED[self.address] = self._context
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.dataplane.go.set()
        if not self._drained:
            self.drain(0.2)
        self._stop()
        SECURED.pop(self.address, None)

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def drain(self, seconds: float) -> bool:
        """Drain the front."""
        self._drained = True
        return self.run(self.front.drain(seconds))

    def run(self, work: Awaitable[Result]) -> Result:
        """Await something on the front's loop."""

        async def awaited() -> Result:
            return await work

        return asyncio.run_coroutine_threadsafe(awaited(), self._loop).result(60)

    def ask(self, question: Callable[[], Result]) -> Result:
        """Ask something on the front's loop."""

        async def asked() -> Result:
            return question()

        return self.run(asked())


@dataclass
class Secured:
    """Both ends of TLS: what a front has, and what raw clients trust."""

    certificates: Certificates
    context: ssl.SSLContext

    @classmethod
    def by(cls, authority: Authority) -> Self:
        """With a certificate of an authority's."""
        return cls(Certificates(*authority.issue("server")), trusting(authority))


@contextlib.contextmanager
def secured(ends: Secured) -> Iterator[None]:
    """Have all fronts that start meanwhile speak TLS, and raw clients with them."""
    Serving.secured = ends
    try:
        yield
    finally:
        Serving.secured = None


class ServerProcess:
    """A front as a process of its own, whose memory and descriptors can be read."""

    def __init__(self, process: "subprocess.Popen[str]", address: str) -> None:
        self.process = process
        self.address = address

    def memory_bytes(self, field: str = "VmRSS") -> int:
        """Resident memory now, or at its highest (`VmHWM`)."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text("ascii").splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"no {field}")

    def descriptors(self) -> int:
        """Open descriptors."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None


@contextlib.contextmanager
def server_process(
    *,
    max_descriptors: int | None = None,
    hold_seconds: float = 0,
    authority: Authority | None = None,
    **limits: float,
) -> Iterator[ServerProcess]:
    """Start a front as a process of its own, and end it; over TLS where an authority is given.

    Its model stalls for the first seconds.
    """
    arguments = {
        "limits": limits,
        "max_descriptors": max_descriptors,
        "hold_seconds": hold_seconds,
        "certificate": authority and [str(path) for path in authority.issue("server")],
    }
    command = [sys.executable, "-m", "tests.service.http2.serving", json.dumps(arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = ""
        try:
            address = process.stdout.readline().strip()
            assert address, process.stderr.read() if process.stderr else ""
            if authority is not None:
                SECURED[address] = trusting(authority)
            yield ServerProcess(process, address)
        finally:
            SECURED.pop(address, None)
            process.terminate()
            process.communicate(timeout=20)


def convert_body(*fahrenheit: float) -> bytes:
    """A framed ConvertRequest."""
    return framed(api.ConvertRequest(fahrenheit=fahrenheit).SerializeToString())


def celsius(message: bytes) -> list[float]:
    """The temperatures of a ConvertResponse."""
    return list(api.ConvertResponse.FromString(message).celsius)


def main(arguments: Mapping[str, Any]) -> None:
    """Serve until terminated; the address goes to standard output, what is logged to standard error."""
    import resource  # noqa: PLC0415 - of the process of its own only

    import structlog  # noqa: PLC0415 - likewise

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger("info"),  # what peers can make it say is less than that
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    keep_freed_pages()  # as `quicksilver serve` does: the bounds on memory are to hold with it
    limits = Http2Limits(**arguments["limits"])
    with tempfile.TemporaryDirectory() as root:
        codec = InferCodec()
        infer: list[Method] = [BatchedMethod(INFER, codec), stream.method(codec)]
        certificates = Certificates(*map(Path, arguments["certificate"])) if arguments["certificate"] else None
        serving = Serving(load_models(Path(root)), limits, infer, certificates=certificates)
        with serving:
            if arguments["max_descriptors"]:
                resource.setrlimit(resource.RLIMIT_NOFILE, (arguments["max_descriptors"],) * 2)
            if arguments["hold_seconds"]:
                serving.dataplane.go.clear()
                threading.Timer(arguments["hold_seconds"], serving.dataplane.go.set).start()
            print(serving.address, flush=True)  # noqa: T201 - read by whoever started it
            threading.Event().wait()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
