"""Several worker processes behind one port: real ones, over real sockets, really killed."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from urllib.error import HTTPError
from urllib.request import urlopen

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.inference.v2 import open_inference_pb2 as pb
from proto.inference.v2.open_inference_pb2_grpc import GRPCInferenceServiceStub
from proto.quicksilver.v1 import converter_pb2 as api
from proto.quicksilver.v1.converter_pb2_grpc import ConverterServiceStub
from proto.repository import Repository
from service.address import AddressError
from service.config import Settings
from service.workers.supervisor import (
    LONGEST_PAUSE_SECONDS,
    STEADY_SECONDS,
    Supervisor,
    WorkerError,
    all_ready,
    early_ends,
    pause_seconds,
    share,
)
from tests.e2e.processes import FREE_PORTS, quicksilver, serving
from tests.service.artefacts import make_artefact
from tests.service.http2.authority import Authority, secure
from tests.service.http2.raw import RawClient, framed, request
from tests.waiting import until

BODY = framed(api.ConvertRequest(fahrenheit=[50.0]).SerializeToString())
MEDDLED = ("-P", "-m", "tests.service.workers.meddled")
SECONDS = 60.0


# Decisions ------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 64), st.integers(64, 1 << 20), st.integers(64 << 23, 1 << 40))
def test_shares_add_up(workers: int, calls: int, size: int) -> None:
    """What all workers may hold together is exactly what the settings allow, and nobody has less than one less."""
    chosen = {"workers": workers, "max_waiting_calls": calls, "max_waiting_bytes": size}
    settings = Settings.model_validate(chosen)
    shares = [share(settings, slot) for slot in range(workers)]
    for name in ("max_waiting_calls", "max_waiting_bytes", "kept_answer_bytes"):
        parts = [getattr(each, name) for each in shares]
        assert sum(parts) == getattr(settings, name)
        assert max(parts) - min(parts) <= 1
    assert sum(each.observations_per_second for each in shares) == pytest.approx(settings.observations_per_second)
    assert {each.max_connections for each in shares} == {settings.max_connections}
    for each in shares:
        Settings.model_validate_json(each.model_dump_json())


def test_the_first_end_is_no_reason_to_wait_and_a_row_of_them_is() -> None:
    """The pause grows with each early end, up to a bound, and a steady worker makes good for those before it."""
    pauses = [pause_seconds(early) for early in range(200)]
    assert pauses[:2] == [0.0, 0.0]
    assert pauses == sorted(pauses)
    assert pauses[2] > 0
    assert pauses[-1] == LONGEST_PAUSE_SECONDS
    assert early_ends(7, None) == 8
    assert early_ends(7, STEADY_SECONDS / 2) == 8
    assert early_ends(7, STEADY_SECONDS) == 0


@pytest.mark.parametrize(
    ("states", "ready"), [([], False), ([True], True), ([True, True], True), ([True, False], False)]
)
def test_ready_means_somebody_serves_and_all_who_do_are_ready(states: list[bool], ready: bool) -> None:  # noqa: FBT001 - a table
    """A worker that is being replaced does not count."""
    assert all_ready(states) is ready


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"workers": 2, "transport": "grpcio"}, "workers, 2, and transport, grpcio"),
        ({"workers": 3, "max_waiting_calls": 2}, "max_waiting_calls, 2, is less than workers, 3"),
        ({"workers": 33}, "divided by workers, 33, is less than max_message_bytes"),
        ({"workers": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object], complaint: str) -> None:
    """They are refused, and the message names both."""
    with pytest.raises(ValueError, match=complaint):
        Settings.model_validate(settings)


# Doing ----------------------------------------------------------------------------------------------------------------


def alive(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children(pid: int) -> list[int]:
    """The processes that a process started."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended meanwhile
            found += [int(child) for child in (task / "children").read_text("ascii").split()]
    return found


class Scrape:
    """One reading of /metrics: its samples, by name and labels as they are written."""

    def __init__(self, http_address: str) -> None:
        with urlopen(f"http://{http_address}/metrics", timeout=20) as response:
            lines = response.read().decode().splitlines()
        parts = [line.rpartition(" ") for line in lines if not line.startswith("#")]
        self.samples = {series: float(value) for series, _, value in parts}

    def total(self, name: str, *parts: str) -> float:
        """The sum of the samples of a name whose labels are written with all of these in them."""
        return sum(self.of(name, *parts).values())

    def of(self, name: str, *parts: str) -> Mapping[str, float]:
        """The samples of a name whose labels are written with all of these in them."""
        chosen = {series: value for series, value in self.samples.items() if series.partition("{")[0] == name}
        return {series: value for series, value in chosen.items() if all(part in series for part in parts)}

    @property
    def calls(self) -> tuple[float, float, float, float]:
        """Calls of Convert begun, ended well, and timed, and the rows of `linear`."""
        method = 'grpc_method="Convert"'
        return (
            self.total("grpc_server_started_total", method),
            self.total("grpc_server_handled_total", method, '"OK"'),
            self.total("grpc_server_handling_seconds_count", method),
            self.total("quicksilver_rows_total", 'model="linear"'),
        )

    @property
    def connections(self) -> list[float]:
        """The connections of each worker."""
        return [value for _, value in sorted(self.of("quicksilver_worker_connections").items())]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """`linear`, the exact law."""
    repository = Repository(tmp_path_factory.mktemp("models"))
    repository.publish("linear", make_artefact())
    return repository


@contextlib.contextmanager
def supervised(repository: Repository, *, meddled: bool = False, **settings: object) -> Iterator[Supervisor]:
    """Two workers over a repository, gone at the end."""
    chosen = {
        "repository": repository.root,
        "workers": 2,
        "listen": "127.0.0.1:0",
        "http_listen": "127.0.0.1:0",
        "default_model": "linear",
        "watch_interval_seconds": 0.1,
        **settings,
    }
    options = {"command": MEDDLED} if meddled else {}
    supervisor = Supervisor(Settings.model_validate(chosen), **options)
    supervisor.start()
    try:
        yield supervisor
    finally:
        last = [member.pid for member in supervisor._members.values()]  # noqa: SLF001 - nobody else needs them
        supervisor.stop()
    assert not any(alive(pid) for pid in last)


@pytest.fixture(scope="module")
def supervisor(repository: Repository) -> Iterator[Supervisor]:
    """Two workers with the settings they ship with; tests must leave them alive."""
    with supervised(repository) as started:
        yield started


def pids(supervisor: Supervisor) -> list[int]:
    """The workers' processes, by their places; all are up."""
    until(lambda: Scrape(supervisor.http_address).total("quicksilver_worker_up") == 2, "both workers to be up")
    return [member.pid for _, member in sorted(supervisor._holders.items())]  # noqa: SLF001 - nobody else needs them


@contextlib.contextmanager
def channels(supervisor: Supervisor, count: int, places: list[int] | None = None) -> Iterator[list[grpc.Channel]]:
    """Connections of their own, opened one after the other; `places` learns which worker each is with."""
    until(lambda: Scrape(supervisor.http_address).connections == [0, 0], "connections to be gone")
    before = [0.0, 0.0]
    with contextlib.ExitStack() as opened:
        made = []
        for _ in range(count):
            options = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 100)]
            made.append(opened.enter_context(grpc.insecure_channel(supervisor.address, options)))
            assert convert(made[-1], 50.0) == [10.0]
            if places is not None:
                now = Scrape(supervisor.http_address).connections
                places.append(0 if now[0] > before[0] else 1)
                before = now
        yield made


def convert(channel: grpc.Channel, *fahrenheit: float) -> list[float]:
    """Convert over a channel, to whole hundredths."""
    answer = ConverterServiceStub(channel).Convert(api.ConvertRequest(fahrenheit=fahrenheit), timeout=20)
    return [round(value, 2) for value in answer.celsius]


def readyz(http_address: str) -> int:
    """The status of /readyz."""
    try:
        with urlopen(f"http://{http_address}/readyz", timeout=20) as response:
            return int(response.status)
    except HTTPError as error:
        with error:
            return error.code


def replaced(supervisor: Supervisor) -> float:
    """How many workers were replaced."""
    return Scrape(supervisor.http_address).total("quicksilver_worker_restarts_total")


def counted_since(supervisor: Supervisor, before: Sequence[float], timed: int) -> list[float]:
    """What was counted since a scrape, once so many calls are timed: a busy worker may be late to tell its counts."""

    def counts() -> list[float]:
        return [now - then for now, then in zip(Scrape(supervisor.http_address).calls, before, strict=True)]

    until(lambda: counts()[2] >= timed, f"{timed} calls to be counted")
    return counts()


def test_values_are_right_and_connections_even(supervisor: Supervisor) -> None:
    """Whichever worker answers, it answers right, and each has half of the connections."""
    before = Scrape(supervisor.http_address)
    with channels(supervisor, 10) as connected:
        for channel in connected:
            assert convert(channel, 32, 98.6, 212) == [0.0, 37.0, 100.0]
        assert Scrape(supervisor.http_address).connections == [5, 5]
    assert counted_since(supervisor, before.calls, 20) == [20, 20, 20, 40]
    until(lambda: Scrape(supervisor.http_address).connections == [0, 0], "connections to be gone")


def test_a_scrape_is_as_that_of_one_process(supervisor: Supervisor) -> None:
    """A loaded version is told of once, what is of one process names it, and no series comes twice."""
    scrape = Scrape(supervisor.http_address)
    (info,) = scrape.of("quicksilver_model_info", 'model="linear"').values()
    assert info == 1
    assert list(scrape.of("quicksilver_model_ready", '"linear"').values()) == [1]
    for name in ("process_resident_memory_bytes", "python_gc_collections_total", "process_open_fds"):
        named = {re.findall(r'worker="(\w+)"', series)[0] for series in scrape.of(name)}
        assert named == {"0", "1", "parent"}, name
    with urlopen(f"http://{supervisor.http_address}/metrics", timeout=20) as response:
        lines = [line.rpartition(" ")[0] for line in response.read().decode().splitlines() if not line.startswith("#")]
    assert len(lines) == len(set(lines))


def test_a_killed_worker_is_replaced_and_what_it_counted_stays(supervisor: Supervisor) -> None:
    """Totals are the calls made, before its death and after; the server is ready all the while."""
    begun = Scrape(supervisor.http_address).calls
    deaths = replaced(supervisor)
    with channels(supervisor, 4) as connected:
        for channel in connected * 5:
            convert(channel, 1.0)
        assert counted_since(supervisor, begun, 24) == [24, 24, 24, 24]
        before = Scrape(supervisor.http_address).calls
        os.kill(pids(supervisor)[0], signal.SIGKILL)
        assert readyz(supervisor.http_address) == 200
        until(lambda: replaced(supervisor) == deaths + 1, "the death to be counted")
        assert Scrape(supervisor.http_address).calls == before
        pids(supervisor)
    with channels(supervisor, 4):
        assert counted_since(supervisor, before, 4) == [4, 4, 4, 4]


def test_only_its_own_connections_notice_a_death(supervisor: Supervisor) -> None:
    """Under load, calls on the other worker's connections all succeed, and no counter goes back.

    A stream is certainly in flight when its worker dies; of the calls beside it, one may just have ended.
    """
    failures = [0, 0, 0, 0]
    stop = threading.Event()

    def load(index: int, channel: grpc.Channel) -> None:
        while not stop.is_set():
            try:
                assert convert(channel, 50.0) == [10.0]
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017 - what else failed ends the thread
                failures[index] += 1

    places: list[int] = []
    with channels(supervisor, 4, places) as connected:
        streams = [Stream(channel) for channel in connected]
        assert [stream.convert(50) for stream in streams] == [10] * 4
        threads = [threading.Thread(target=load, args=each) for each in enumerate(connected)]
        for thread in threads:
            thread.start()
        deaths = replaced(supervisor)
        last = Scrape(supervisor.http_address).calls
        victim = places[0]
        os.kill(pids(supervisor)[victim], signal.SIGKILL)
        while replaced(supervisor) == deaths:
            now = Scrape(supervisor.http_address).calls
            assert all(new >= old for new, old in zip(now, last, strict=True))
            last = now
        pids(supervisor)
        stop.set()
        for thread in threads:
            thread.join()
        assert [ended(stream) for stream in streams] == [
            grpc.StatusCode.UNAVAILABLE if place == victim else grpc.StatusCode.OK for place in places
        ]
        assert not any(count for count, place in zip(failures, places, strict=True) if place != victim)
        for channel in connected:
            assert convert(channel, 50.0) == [10.0]


def test_a_worker_that_is_terminated_drains_and_is_replaced(supervisor: Supervisor) -> None:
    """Its call in flight is answered, new connections go to others, and everything it counted is in the total."""
    workers = pids(supervisor)
    deaths = replaced(supervisor)
    before = Scrape(supervisor.http_address).calls
    until(lambda: Scrape(supervisor.http_address).connections == [0, 0], "connections to be gone")
    with RawClient(supervisor.address) as client:
        stream = client.call(BODY[:7], request(), end=False)
        leaving = workers[Scrape(supervisor.http_address).connections.index(1)]
        os.kill(leaving, signal.SIGTERM)
        client.wait(lambda: client.goaways)
        client.send(client.data_frame(stream, BODY[7:], end=True))
        assert client.finish(stream).status == 0
        client.wait_closed()
    until(lambda: not alive(leaving), "the worker to leave")
    assert replaced(supervisor) == deaths + 1
    assert counted_since(supervisor, before, 1) == [1, 1, 1, 1]
    assert leaving not in pids(supervisor)


def test_a_version_that_retires_leaves_no_series(supervisor: Supervisor, repository: Repository) -> None:
    """Both workers notice by themselves; the old version's series are gone, also those of workers that died."""
    repository.publish("moving", make_artefact())
    until(lambda: Scrape(supervisor.http_address).of("quicksilver_model_ready", '"moving"'), "the new model")
    repository.publish("moving", make_artefact(offset_celsius=5.0))
    series = 'model="moving",version="1"'
    until(
        lambda: Scrape(supervisor.http_address).of("quicksilver_rows_total", 'model="moving",version="2"'),
        "the new version",
    )
    os.kill(pids(supervisor)[0], signal.SIGKILL)
    repository.set_label("moving", "stable", 2)
    until(
        lambda: not Scrape(supervisor.http_address).of("quicksilver_rows_total", series),
        "the old version's series to go",
    )
    pids(supervisor)
    until(
        lambda: not any(series in sample for sample in Scrape(supervisor.http_address).samples),
        "the old version's series to go everywhere",
    )


def test_descriptors_do_not_add_up(supervisor: Supervisor) -> None:
    """After hundreds of connections, neither the parent nor a worker has more descriptors than before."""

    def open_now() -> list[int]:
        return [len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in (os.getpid(), *workers)]

    workers = pids(supervisor)
    with channels(supervisor, 2):
        pass
    until(lambda: Scrape(supervisor.http_address).connections == [0, 0], "connections to be gone")
    before = open_now()
    for _ in range(5):
        with contextlib.ExitStack() as opened:
            for client in [opened.enter_context(RawClient(supervisor.address, greet=False)) for _ in range(50)]:
                client.send(b"PRI * HTTP/2.0\r\n")
    until(lambda: Scrape(supervisor.http_address).connections == [0, 0], "connections to be gone")
    until(lambda: all(now <= then for now, then in zip(open_now(), before, strict=True)), "descriptors to be closed")


def test_the_limit_on_connections_holds_over_all(repository: Repository, tmp_path: Path) -> None:
    """Over a Unix socket, with a model that cannot be served: not ready, and three connections, not four."""
    path = tmp_path / "front.sock"
    broken = Repository(tmp_path / "models")
    broken.publish("linear", repository.model_path("linear", 1).read_bytes())
    broken.publish("broken", b"no model")
    with supervised(broken, listen=f"unix:{path}", max_connections=3) as supervisor:
        assert supervisor.address == f"unix:{path}"
        assert readyz(supervisor.http_address) == 503
        with contextlib.ExitStack() as opened:
            clients = [opened.enter_context(RawClient(supervisor.address)) for _ in range(3)]
            with RawClient(supervisor.address, greet=False) as further:
                further.wait_closed()
            assert [client.unary(BODY).status for client in clients] == [0, 0, 0]
            scrape = Scrape(supervisor.http_address)
            assert sorted(scrape.connections) == [1, 2]
            assert scrape.of("quicksilver_version_failed", '"broken"').values()
    assert not path.exists()


class Stream:
    """A ConvertStream that lasts until it is told to end."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._requests: SimpleQueue[api.ConvertStreamRequest | None] = SimpleQueue()
        self._call = ConverterServiceStub(channel).ConvertStream(iter(self._requests.get, None), timeout=SECONDS)

    def convert(self, fahrenheit: float) -> float:
        """Send a temperature, and return the answer."""
        self._requests.put(api.ConvertStreamRequest(request=api.ConvertRequest(fahrenheit=[fahrenheit])))
        return float(round(next(self._call).response.celsius[0], 2))

    def end(self) -> grpc.StatusCode:
        """Send no more, and return the status of the call."""
        self._requests.put(None)
        assert list(self._call) == []
        return self._call.code()


def ended(stream: Stream) -> grpc.StatusCode:
    """End a stream, or find that it has ended, and return its status."""
    try:
        return stream.end()
    except grpc.RpcError as error:
        return error.code()


def refused(address: str) -> bool:
    """Whether nobody listens."""
    try:
        RawClient(address, greet=False).socket.close()
    except OSError:
        return True
    return False


def test_a_drain_answers_what_is_in_flight(repository: Repository, tmp_path: Path) -> None:
    """With TLS, which workers speak: calls in flight with both are answered, new ones refused, and `stop` says so."""
    authority = Authority(tmp_path, "authority")
    certificate, key = authority.issue("server")
    with (
        supervised(repository, tls_certificate=certificate, tls_key=key) as supervisor,
        contextlib.ExitStack() as opened,
    ):
        connected = [opened.enter_context(secure(supervisor.address, authority)) for _ in range(2)]
        streams = [Stream(channel) for channel in connected]
        assert [stream.convert(212) for stream in streams] == [100, 100]
        finished: list[bool] = []
        stopping = threading.Thread(target=lambda: finished.append(supervisor.stop()))
        stopping.start()
        until(lambda: refused(supervisor.address), "the drain")
        assert readyz(supervisor.http_address) == 503
        assert [stream.convert(50) for stream in streams] == [10, 10]
        assert Scrape(supervisor.http_address).total("grpc_server_started_total", '"ConvertStream"') == 2
        assert [stream.end() for stream in streams] == [grpc.StatusCode.OK] * 2
        stopping.join()
        assert finished == [True]


def test_all_hear_what_one_tells(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every worker hears the parent and its siblings; one that comes later, the last of each topic; and a place whose
    workers die as they start is tried again, while the other serves.
    """  # noqa: D205 - one sentence
    monkeypatch.setenv("MEDDLE", str(tmp_path))

    def heard(place: int) -> list[str]:
        file = tmp_path / str(place)
        return file.read_text("utf-8").splitlines() if file.exists() else []

    with supervised(repository, meddled=True) as supervisor:
        supervisor.broadcast("topic", 1)
        supervisor.broadcast("topic", 2)
        supervisor.broadcast("ask", None)
        until(lambda: len(heard(0)) == len(heard(1)) == 5, "five words to be heard by both")
        assert heard(0) == heard(1)
        assert heard(0)[:3] == ["topic=1", "topic=2", "ask=None"]
        assert sorted(heard(0)[3:]) == ["answer=0", "answer=1"]
        victim = pids(supervisor)[0]
        (tmp_path / "0").unlink()
        (tmp_path / "broken").touch()
        os.kill(victim, signal.SIGKILL)
        until(lambda: replaced(supervisor) >= 2, "a second death")
        with grpc.insecure_channel(supervisor.address) as channel:
            assert convert(channel, 50.0) == [10.0]
        assert Scrape(supervisor.http_address).of("quicksilver_worker_up", '"0"') == {
            'quicksilver_worker_up{worker="0"}': 0.0
        }
        assert readyz(supervisor.http_address) == 200
        (tmp_path / "broken").unlink()
        pids(supervisor)
        until(lambda: len(heard(0)) >= 3, "the new worker to hear what was told before")
        assert heard(0)[0] == "topic=2"


def test_what_one_worker_is_asked_to_load_all_load(repository: Repository, tmp_path: Path) -> None:
    """A load through the API has returned when every worker answers, an unload when none does, also after a death."""
    models = Repository(tmp_path / "models")
    models.publish("linear", repository.model_path("linear", 1).read_bytes())

    def codes() -> set[grpc.StatusCode]:
        return {code_of(channel) for channel in connected}

    with (
        supervised(models, model_control="explicit") as supervisor,
        channels(supervisor, 0),
        grpc.insecure_channel(supervisor.address, [("grpc.use_local_subchannel_pool", 1)]) as one,
        grpc.insecure_channel(supervisor.address, [("grpc.use_local_subchannel_pool", 1)]) as other,
    ):
        connected = (one, other)
        control = GRPCInferenceServiceStub(one)
        assert codes() == {grpc.StatusCode.UNAVAILABLE}
        assert Scrape(supervisor.http_address).connections == [1, 1]
        control.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="linear"), timeout=20)
        assert codes() == {grpc.StatusCode.OK}
        control.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="linear"), timeout=20)
        assert codes() == {grpc.StatusCode.UNAVAILABLE}
        control.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="linear"), timeout=20)
        os.kill(pids(supervisor)[0], signal.SIGKILL)
        until(lambda: replaced(supervisor) == 1, "the death to be counted")
        pids(supervisor)
        with contextlib.ExitStack() as opened:
            clients = [opened.enter_context(RawClient(supervisor.address)) for _ in range(4)]
            assert [client.unary(BODY).status for client in clients] == [0] * 4


def code_of(channel: grpc.Channel) -> grpc.StatusCode:
    """How a call of Convert ends."""
    try:
        convert(channel, 50.0)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_a_start_that_fails_leaves_nothing(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that dies as it starts, or an address that is taken, is told of, and no process is left."""
    monkeypatch.setenv("MEDDLE", str(tmp_path))
    (tmp_path / "broken").touch()
    before = children(os.getpid())
    with pytest.raises(WorkerError, match="SIGKILL"), supervised(repository, meddled=True):
        pass
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(AddressError, match=address), supervised(repository, listen=address):
            pass
    assert set(children(os.getpid())) <= set(before)


def test_the_parent_imports_nothing_that_workers_need() -> None:
    """It is small and starts quickly: neither ONNX Runtime nor gRPC nor NumPy is loaded there."""
    names = "{'onnxruntime', 'grpc', 'numpy', 'service.http2'}"
    check = f"import sys, service.workers.supervisor; print({names} & {{*sys.modules}})"
    answer = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert answer.stdout == "set()\n"


# The command ----------------------------------------------------------------------------------------------------------


def test_a_killed_parent_leaves_no_process(repository: Repository) -> None:
    """When the parent is killed, its workers end by themselves, and with them their connections."""
    with serving(repository.root, "--default-model", "linear", "--workers", "2") as server:
        workers = children(server.process.pid)
        assert len(workers) == 2
        with RawClient(server.address) as client:
            assert client.unary(BODY).status == 0
            server.signal(signal.SIGKILL)
            client.wait_closed()
        until(lambda: not any(alive(pid) for pid in workers), "the workers to end")


def test_a_second_signal_ends_it_at_once(repository: Repository) -> None:
    """Whoever asks twice does not wait for a call in flight; no process is left then, either."""
    with serving(repository.root, "--default-model", "linear", "--workers", "2", "--drain-seconds", "600") as server:
        workers = children(server.process.pid)
        with grpc.insecure_channel(server.address) as channel:
            stream = Stream(channel)
            stream.convert(50)
            server.signal(signal.SIGTERM)
            until(lambda: refused(server.address), "the drain")
            server.signal(signal.SIGTERM)
            assert server.wait() == -signal.SIGTERM
            until(lambda: not any(alive(pid) for pid in workers), "the workers to end")


def test_a_device_that_cannot_be_had_is_told_as_by_one_process(repository: Repository) -> None:
    """The same words and the same exit code, however many workers there are."""
    arguments = ["serve", "--repository", str(repository.root), *FREE_PORTS, "--device", "cuda"]
    one = quicksilver(*arguments, CUDA_VISIBLE_DEVICES="-1")
    two = quicksilver(*arguments, "--workers", "2", CUDA_VISIBLE_DEVICES="-1")
    assert one.returncode == two.returncode == 1
    assert one.stderr.splitlines()[-1] == two.stderr.splitlines()[-1]
    assert "cuda" in two.stderr.lower()
