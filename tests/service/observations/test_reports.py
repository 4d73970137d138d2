"""Reports over real connections to real servers with real stores: durable, idempotent, guarded, bounded, measured."""

import contextlib
import io
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest

from proto.observations import Added as Stored
from proto.observations import ObservationStore
from proto.quicksilver.v1 import converter_pb2 as api
from proto.quicksilver.v1.converter_pb2_grpc import ConverterServiceStub
from proto.repository import Repository
from service.calls import Body, Context, StreamMethod
from service.client import (
    Added,
    AsyncConverter,
    Converter,
    ConverterError,
    InvalidRequestError,
    Observation,
    ServerBusyError,
)
from service.errors import ServiceError
from service.observations import StoreSettingError
from service.observations.reports import methods
from service.server import Server
from service.status import Code
from tests.databases.postgres import Postgres
from tests.service.artefacts import DOMAIN, HALF_WIDTH_CELSIUS, exact_celsius
from tests.service.conftest import StartServer
from tests.waiting import until

if TYPE_CHECKING:
    from service.observations.recorder import Report

pytestmark = pytest.mark.timeout(900)  # the first run may install PostgreSQL, and wait for others that install

TIMEOUT_SECONDS = 30.0
BEGAN_SECONDS = time.time() - 3600
TOKEN = "sixteen-characters-or-more"  # noqa: S105 - of a server that lives for one test


def observation(number: int, *, error_celsius: float = 0.0, fahrenheit: float | None = None) -> Observation:
    """An observation that the exact law is wrong about by so much."""
    reading = 40.0 + number % 30 if fahrenheit is None else fahrenheit
    truth = exact_celsius(reading) - error_celsius
    return Observation(f"o{number}", reading, truth, BEGAN_SECONDS + number / 100, "bench")


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store of SQLite."""
    return f"sqlite:///{tmp_path}/observations.db"


@pytest.fixture
def observing(start_server: StartServer, url: str) -> Server:
    """A server with a store, whose versions are all loaded."""
    return start_server(observations=url, version_policy="all")


@pytest.fixture
def converter(observing: Server) -> Iterator[Converter]:
    """A client of it."""
    with Converter(observing.address, timeout_seconds=TIMEOUT_SECONDS) as converter:
        yield converter


def numbers(server: Server, family: str) -> dict[tuple[str, ...], float]:
    """The series of a family, by their labels."""
    return dict(server.metrics.snapshot().numbers.get(family, {}))


def test_what_was_reported_is_stored_once(observing: Server, converter: Converter, url: str) -> None:
    """The answer comes when it is durable; the same again is a duplicate; the metrics count both."""
    reported = [observation(number) for number in range(2500)]
    assert converter.report(reported) == Added(2500, 0)
    with ObservationStore.open(url) as store:
        assert sorted(store.observations(), key=lambda one: one.observed_at_seconds) == reported
    assert converter.report([*reported[:10], observation(9999)]) == Added(1, 10)
    counted = numbers(observing, "quicksilver_observations")
    assert counted == {("accepted",): 2501, ("duplicate",): 10, ("refused",): 0, ("unavailable",): 0}


def test_a_bad_value_is_refused_by_its_index(observing: Server, converter: Converter, url: str) -> None:
    """Also where it is far down; and of its request nothing is stored."""
    bad = [*(observation(number) for number in range(1200)), observation(1200, fahrenheit=float("nan"))]
    with pytest.raises(
        InvalidRequestError, match=r"observations\[1200\]\.fahrenheit: nan is not a temperature"
    ) as caught:
        converter.report(bad)
    assert list(caught.value.violations) == ["observations[1200].fahrenheit"]
    with pytest.raises(InvalidRequestError, match="at least one"):
        converter.report([])
    with ObservationStore.open(url) as store:
        assert store.stats().observations == 1000
    assert numbers(observing, "quicksilver_observations")["refused",] == 201


def test_another_observation_under_a_known_id_is_refused_by_name(converter: Converter) -> None:
    """An id keeps the content that came first."""
    first = observation(1)
    converter.report([first])
    with pytest.raises(ConverterError, match=r"observations\[1\]\.id: another observation has the id 'o1'") as caught:
        converter.report([observation(2), observation(1, error_celsius=1.0)])
    assert caught.value.code is Code.ALREADY_EXISTS
    assert converter.report([first, observation(2)]) == Added(1, 1)


def test_a_server_without_a_store_says_how_it_gets_one(start_server: StartServer) -> None:
    """FAILED_PRECONDITION, naming the flag."""
    with (
        Converter(start_server().address) as converter,
        pytest.raises(ConverterError, match="--observations") as caught,
    ):
        converter.report([observation(1)])
    assert caught.value.code is Code.FAILED_PRECONDITION


def test_reports_are_guarded_like_the_admin_methods(start_server: StartServer, url: str, tmp_path: Path) -> None:
    """Without the token, and with a wrong one, nothing is stored, by neither method; with it all is."""
    token = tmp_path / "token"
    token.write_text(TOKEN)
    server = start_server(observations=url, admin_token_file=token)
    for given, code in ((None, Code.UNAUTHENTICATED), ("wrong-characters-sixteen", Code.PERMISSION_DENIED)):
        with Converter(server.address, admin_token=given) as converter, pytest.raises(ConverterError) as caught:
            converter.report([observation(1)])
        assert caught.value.code is code
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as failed:
        list(ConverterServiceStub(channel).StreamObservations(_messages(3), timeout=TIMEOUT_SECONDS))
    assert failed.value.code() is grpc.StatusCode.UNAUTHENTICATED
    with Converter(server.address, admin_token=TOKEN) as converter:
        assert converter.report([observation(1)]) == Added(1, 0)


def _messages(count: int, spoil: int | None = None) -> Iterator[api.StreamObservationsRequest]:
    for number in range(count):
        one = observation(number)
        message = api.Observation(
            id=one.id,
            fahrenheit=-500 if number == spoil else one.fahrenheit,
            celsius=one.celsius,
            observed_at_seconds=one.observed_at_seconds,
            source=one.source,
        )
        yield api.StreamObservationsRequest(observations=[message])


def test_a_stream_is_answered_message_by_message(observing: Server, url: str) -> None:
    """One answer each; a bad message ends the stream with its error, and what was answered before stays stored."""
    with grpc.insecure_channel(observing.address) as channel:
        stub = ConverterServiceStub(channel)
        assert [one.accepted for one in stub.StreamObservations(_messages(300), timeout=TIMEOUT_SECONDS)] == [1] * 300
        answered: list[api.StreamObservationsResponse] = []
        with pytest.raises(grpc.RpcError, match="absolute zero") as failed:
            answered.extend(stub.StreamObservations(_messages(300, spoil=250), timeout=TIMEOUT_SECONDS))
        assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert all(one.duplicates == 1 for one in answered)
    assert len(answered) <= 250
    with ObservationStore.open(url) as store:
        assert store.stats().observations == 300


def test_more_a_second_than_the_setting_says_are_refused(start_server: StartServer, url: str) -> None:
    """The first report may overdraw the allowance; the next is refused, and says when to come again."""
    server = start_server(observations=url, observations_per_second=0.5)
    with Converter(server.address) as converter:
        assert converter.report([observation(number) for number in range(50)]) == Added(50, 0)
        with pytest.raises(ServerBusyError, match="come again in"):
            converter.report([observation(51)])
    until(lambda: numbers(server, "quicksilver_shed_calls")["observations",] == 1, "the count of the refusal")
    assert numbers(server, "quicksilver_observations")["refused",] == 1


def test_an_id_names_one_request(start_server: StartServer, url: str) -> None:
    """More temperatures than the server takes in one request cannot have one, and are not sent."""
    server = start_server(observations=url, max_rows_per_request=10)
    with Converter(server.address) as converter:
        assert converter.convert(range(10), request_id="r").celsius.shape == (10,)
        with pytest.raises(ValueError, match="request_id names one request"):
            converter.convert(range(11), request_id="r")


async def test_the_asyncio_client_reports_too(observing: Server) -> None:
    """As the other one does, and its request ids join as well."""
    async with AsyncConverter(observing.address) as converter:
        await converter.convert([50.25], request_id="a")
        reported = [Observation("one", 50.25, 10.0, BEGAN_SECONDS, "bench", "a", 0)]
        assert await converter.report(reported) == Added(1, 0)
        assert await converter.report(reported) == Added(0, 1)


def test_many_reporters_at_once_lose_and_double_nothing(observing: Server, url: str) -> None:
    """Overlapping reports on connections of their own: each id is accepted exactly once."""
    added: list[Added] = []

    def report(seed: int) -> None:
        mine = np.random.default_rng(seed).permutation(120)[:90]
        with Converter(observing.address, timeout_seconds=TIMEOUT_SECONDS) as converter:
            added.extend(converter.report([shared[number]]) for number in mine)

    shared = [observation(number) for number in range(120)]
    threads = [threading.Thread(target=report, args=(seed,)) for seed in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with ObservationStore.open(url) as store:
        assert sum(one.accepted for one in added) == store.stats().observations
    assert sum(one.accepted + one.duplicates for one in added) == 5 * 90


def test_an_id_comes_back_with_the_answer(observing: Server) -> None:
    """From Convert and from a stream, and none where there was none."""
    with grpc.insecure_channel(observing.address) as channel:
        stub = ConverterServiceStub(channel)
        requests = [api.ConvertRequest(fahrenheit=[50.0], request_id=known) for known in ("a-1", "", "é", "a-2")]
        assert [stub.Convert(request).request_id for request in requests] == ["a-1", "", "é", "a-2"]
        stream = stub.ConvertStream(api.ConvertStreamRequest(request=request) for request in requests)
        assert [answer.response.request_id for answer in stream] == ["a-1", "", "é", "a-2"]


def test_observations_are_joined_to_what_was_answered(converter: Converter, url: str) -> None:
    """By request and row, with the version that answered; not where another reading was asked for."""
    answered = converter.convert([50.25, 60.5], version=2, request_id="r-1")
    base = observation(1, fahrenheit=60.5)
    converter.report(
        [
            Observation("right", 60.5, base.celsius, base.observed_at_seconds, "bench", "r-1", 1),
            Observation("other-row", 60.5, base.celsius, base.observed_at_seconds, "bench", "r-1", 0),
            Observation("unknown", 60.5, base.celsius, base.observed_at_seconds, "bench", "r-2", 0),
        ]
    )
    with ObservationStore.open(url) as store:
        until(lambda: store.stats().joined > 0, "a joined observation")
        found = {one.id: (one.model, one.version, one.predicted_celsius) for one in store.observations()}
    assert found["right"] == ("linear", 2, float(answered.celsius[1]))
    assert found["other-row"] == found["unknown"] == (None, None, None)


def test_a_stream_of_conversions_is_joined_too(observing: Server, converter: Converter, url: str) -> None:
    """A request on a stream has its id like any other."""
    with grpc.insecure_channel(observing.address) as channel:
        requests = [api.ConvertStreamRequest(request=api.ConvertRequest(fahrenheit=[50.25], request_id="s-1"))]
        assert len(list(ConverterServiceStub(channel).ConvertStream(iter(requests)))) == 1
    converter.report([Observation("on-stream", 50.25, 10.0, BEGAN_SECONDS, "bench", "s-1", 0)])
    with ObservationStore.open(url) as store:
        until(lambda: store.stats().joined == 1, "the observation to be joined")


def test_the_example_of_the_page_works(observing: Server) -> None:
    """What docs/observations.md shows in Python runs, and prints what its comments say."""
    page = (Path(__file__).parents[3] / "docs" / "observations.md").read_text("utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(example.replace("127.0.0.1:50051", observing.address), {})  # noqa: S102 - our own page
    assert printed.getvalue() == "Added(accepted=1, duplicates=0)\n"


def test_live_quality_is_measured_for_every_loaded_version(observing: Server, converter: Converter) -> None:
    """In GetModel and in the metrics: what NumPy makes of the same observations, for readings nobody converted too."""
    errors = np.random.default_rng(3).normal(0, 2, 200)
    reported = [observation(number, error_celsius=error) for number, error in enumerate(errors.tolist())]
    reported.append(observation(999, error_celsius=20.0, fahrenheit=DOMAIN[1] + 50))
    converter.report(reported)
    until(
        lambda: converter.model("linear", version=2).live_quality.observations == 201, "all observations to be followed"
    )
    for version, offset in ((1, 0.0), (2, 5.0)):
        expected = np.array([*errors, 20.0]) + offset
        quality = converter.model("linear", version=version).live_quality
        assert quality.mae_celsius.value == pytest.approx(np.abs(expected).mean(), abs=1e-4)
        assert quality.mse_celsius2.value == pytest.approx((expected**2).mean(), rel=1e-4)
        assert quality.mae_celsius.lower < quality.mae_celsius.value < quality.mae_celsius.upper
        assert quality.coverage.value == pytest.approx((np.abs(expected[:-1]) <= HALF_WIDTH_CELSIUS).mean(), abs=0.011)
        assert quality.stated_coverage == 0.8
        labels = ("linear", str(version))
        assert numbers(observing, "quicksilver_live_mae_celsius")[labels] == quality.mae_celsius.value
        assert numbers(observing, "quicksilver_live_mae_upper_celsius")[labels] == quality.mae_celsius.upper
        assert numbers(observing, "quicksilver_live_mse_celsius2")[labels] == quality.mse_celsius2.value
        assert numbers(observing, "quicksilver_live_mse_lower_celsius2")[labels] == quality.mse_celsius2.lower
        assert numbers(observing, "quicksilver_live_mse_upper_celsius2")[labels] == quality.mse_celsius2.upper
        assert numbers(observing, "quicksilver_live_coverage_ratio")[labels] == quality.coverage.value
        assert numbers(observing, "quicksilver_live_coverage_lower_ratio")[labels] == quality.coverage.lower
        assert numbers(observing, "quicksilver_live_coverage_upper_ratio")[labels] == quality.coverage.upper
        assert quality.coverage.lower < quality.coverage.value < quality.coverage.upper
        assert numbers(observing, "quicksilver_live_observations")[labels] == 201
    assert not converter.model("plain").live_quality.HasField("coverage")
    for name in ("coverage", "coverage_lower", "coverage_upper"):
        assert ("plain", "1") not in numbers(observing, f"quicksilver_live_{name}_ratio")


def test_live_quality_is_that_of_the_latest(start_server: StartServer, url: str) -> None:
    """Of as many observations as the setting says; after a restart it is the same, made of the store."""
    with ObservationStore.open(url) as store:
        store.add([observation(number, error_celsius=9.0) for number in range(50)])
        store.add([observation(number, error_celsius=1.0) for number in range(50, 70)])
    server = start_server(observations=url, live_observations=20)
    with Converter(server.address) as converter:
        until(lambda: converter.model().live_quality.observations == 20, "the latest observations")
        assert converter.model().live_quality.mae_celsius.value == pytest.approx(1.0, abs=1e-4)
        with ObservationStore.open(url) as store:  # somebody else writes to the store
            store.add([observation(number, error_celsius=3.0) for number in range(70, 90)])
        until(lambda: converter.model().live_quality.mae_celsius.value > 2, "what somebody else wrote")


def test_a_removed_version_has_no_live_quality(observing: Server, converter: Converter, repository: Repository) -> None:
    """Its series go with it."""
    converter.report([observation(number) for number in range(20)])
    until(lambda: ("linear", "2") in numbers(observing, "quicksilver_live_mae_celsius"), "the series of version 2")
    repository.remove("linear", 2)
    until(
        lambda: ("linear", "2") not in numbers(observing, "quicksilver_live_mae_celsius"),
        "the end of the series of version 2",
    )
    assert ("linear", "1") in numbers(observing, "quicksilver_live_mae_celsius")


@pytest.mark.parametrize("url", ["sqlite:////nowhere/at/all.db"])
def test_a_store_that_cannot_be_is_refused_at_the_start(start_server: StartServer, url: str) -> None:
    """A directory that is missing is not waited for."""
    with pytest.raises(StoreSettingError, match="/nowhere/at"):
        start_server(observations=url)


@pytest.mark.parametrize("transport", ["http2"])
def test_conversions_go_on_while_the_database_is_killed(start_server: StartServer, postgres: Postgres) -> None:
    """Reports are then unavailable and nothing is lost; with the database back they are stored, with no restart."""
    url = postgres.new_database()
    server = start_server(observations=url)
    over = threading.Event()
    converted: list[int] = []
    load = threading.Thread(target=_convert_until, args=(server.address, over, converted))
    load.start()
    try:
        with Converter(server.address, timeout_seconds=TIMEOUT_SECONDS) as converter:
            assert converter.report([observation(1)]) == Added(1, 0)
            with postgres.killed(), pytest.raises(ConverterError) as caught:
                converter.report([observation(2)])
            assert caught.value.code is Code.UNAVAILABLE
            until(lambda: _stored(converter, observation(3)), "the database to take observations again")
            assert converter.report([observation(1), observation(2), observation(3)]).duplicates >= 2
    finally:
        over.set()
        load.join()
    with ObservationStore.open(url) as store:
        assert sorted(store.read().id) == ["o1", "o2", "o3"]
    assert converted == [0]


def _stored(converter: Converter, one: Observation) -> bool:
    try:
        return converter.report([one]).accepted == 1
    except ConverterError:
        return False


def _convert_until(address: str, over: threading.Event, failed: list[int]) -> None:
    """Convert all the while, and say how many calls failed."""
    failures = 0
    with Converter(address, timeout_seconds=TIMEOUT_SECONDS) as converter:
        while not over.is_set():
            try:
                converter.convert([50.0], request_id="load")
            except ConverterError:
                failures += 1
            time.sleep(0.005)
    failed.append(failures)


@pytest.mark.parametrize("transport", ["http2"])
def test_a_database_that_is_away_at_the_start_is_waited_for(start_server: StartServer, postgres: Postgres) -> None:
    """The server starts and converts; when the database comes, reports are stored."""
    url = postgres.new_database()
    with postgres.killed():
        server = start_server(observations=url)
        with Converter(server.address, timeout_seconds=TIMEOUT_SECONDS) as converter:
            assert converter.convert(50.0).version == 1
    with Converter(server.address, timeout_seconds=TIMEOUT_SECONDS) as converter:
        until(lambda: _stored(converter, observation(1)), "the database to take an observation")


class Recorded:
    """An outlet on which the client's half-close always comes in just before an answer."""

    context = Context([])
    full = False

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.before_send: Callable[[], None] = lambda: None

    def send(self, message: bytes | Body) -> None:
        """Note an answer."""
        self.before_send()
        assert isinstance(message, bytes)
        self.seen.append(f"{api.ReportObservationsResponse.FromString(message).accepted} accepted")

    def close(self, error: ServiceError | None = None) -> None:
        """Note the end."""
        self.seen.append("end" if error is None else str(error))


def test_a_half_close_between_storing_and_answering_loses_no_answer() -> None:
    """The call ends after its last answer, and once."""
    reports: list[Report] = []
    method = methods("service", reports.append, lambda _: None)[1]
    assert isinstance(method, StreamMethod)
    outlet = Recorded()
    inlet = method.open(outlet, lambda _: None)
    outlet.before_send = inlet.half_close
    inlet.receive(b"one")
    reports[0].done(Stored(1, 0))
    assert outlet.seen == ["1 accepted", "end"]
