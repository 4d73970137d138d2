"""What Prometheus reads, after real calls."""

import re
from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.request import Request, urlopen

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from proto.quicksilver.v1 import converter_pb2 as api
from proto.quicksilver.v1.converter_pb2_grpc import ConverterServiceStub
from proto.repository import Repository
from service.client import Converter
from service.config import Settings
from service.metrics import Histogram
from service.server import Server
from service.snapshot import INFERENCE_SECONDS_BOUNDS, ROWS_BOUNDS, SECONDS_BOUNDS
from service.status import Code
from tests.service.conftest import StartServer
from tests.waiting import until

SERVICE = "quicksilver.v1.ConverterService"
OURS = {
    "grpc_server_started": {"grpc_type", "grpc_service", "grpc_method"},
    "grpc_server_handled": {"grpc_type", "grpc_service", "grpc_method", "grpc_code"},
    "grpc_server_handling_seconds": {"grpc_type", "grpc_service", "grpc_method"},
    "quicksilver_in_flight_calls": set(),
    "quicksilver_rows": {"model", "version"},
    "quicksilver_batch_rows": {"model", "version"},
    "quicksilver_batch_calls": {"model", "version"},
    "quicksilver_queue_seconds": {"model", "version"},
    "quicksilver_inference_seconds": {"model", "version"},
    "quicksilver_model_info": {"model", "version", "kind", "sha256", "device"},
    "quicksilver_model_ready": {"model"},
    "quicksilver_version_failed": {"model", "version"},
    "quicksilver_shed_calls": {"reason"},
    "quicksilver_connections": set(),
    "quicksilver_connections_opened": set(),
    "quicksilver_connections_closed": {"reason"},
    "quicksilver_label_info": {"model", "label", "version"},
    "quicksilver_device_info": {"requested", "used"},
    "quicksilver_golden_deviation_celsius": {"model", "version"},
    "quicksilver_sampled_rows": {"model", "version"},
    "quicksilver_outside_domain_rows": {"model", "version"},
    "quicksilver_error_against_exact_law_celsius": {"model", "version"},
    "quicksilver_drift_window_rows": {"model", "version"},
    "quicksilver_drift_psi": {"model", "version"},
}
WITHOUT_SERIES = {"quicksilver_version_failed", "quicksilver_drift_psi"}
WITHOUT_SERIES_OF_GRPCIO = {
    "quicksilver_connections",
    "quicksilver_connections_opened",
    "quicksilver_connections_closed",
}


class _Scrape:
    """One reading of /metrics, once no call is in flight: a call counts as ended a moment after its answer went out."""

    def __init__(self, server: Server) -> None:
        until(partial(self._is_settled, server), "calls in flight to end")

    def _is_settled(self, server: Server) -> bool:
        with urlopen(f"http://{server.http_address}/metrics") as response:
            self.text = response.read().decode()
        self.families = {family.name: family for family in text_string_to_metric_families(self.text)}
        return self.value("quicksilver_in_flight_calls") == 0

    def series(self) -> set[tuple[str, ...]]:
        """Every series: its name, and the values of its labels."""
        return {
            (sample.name, *sample.labels.values()) for family in self.families.values() for sample in family.samples
        }

    def value(self, sample_name: str, **labels: str) -> float:
        """Sum of the samples of a name whose labels include those given."""
        found = [
            sample.value
            for family in self.families.values()
            for sample in family.samples
            if sample.name == sample_name and labels.items() <= sample.labels.items()
        ]
        assert found, f"no {sample_name} with {labels}"
        return sum(found)


@pytest.fixture
def stub(channel: grpc.Channel) -> ConverterServiceStub:
    """The generated client."""
    return ConverterServiceStub(channel)


def _convert(stub: ConverterServiceStub, *fahrenheit: float, **fields: Any) -> api.ConvertResponse:  # noqa: ANN401 - any field
    return stub.Convert(api.ConvertRequest(fahrenheit=fahrenheit, **fields), timeout=30)


def test_every_family_stands_there_from_the_beginning_with_its_labels(server: Server, transport: str) -> None:
    """A dashboard made against an idle server finds every name it will ever need."""
    families = _Scrape(server).families
    absent = WITHOUT_SERIES | (WITHOUT_SERIES_OF_GRPCIO if transport == "grpcio" else set())
    for name, labels in OURS.items():
        assert families[name].documentation.endswith(".")
        found = {key for sample in families[name].samples for key in sample.labels} - {"le"}
        assert found == (set() if name in absent else labels), name
    assert {*OURS} <= {*families}


def test_the_process_itself_is_measured(server: Server) -> None:
    """Memory, CPU time and open files under the names everybody knows."""
    scrape = _Scrape(server)
    for name in ("process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"):
        assert scrape.value(name) > 0
    assert scrape.value("python_info") == 1


def test_a_call_counts_once_in_every_metric(server: Server, stub: ConverterServiceStub) -> None:
    """Begun, ended, timed; its rows, its run, its wait."""
    _convert(stub, 32, 50, 68)
    scrape = _Scrape(server)
    method = {"grpc_type": "unary", "grpc_service": SERVICE, "grpc_method": "Convert"}
    assert scrape.value("grpc_server_started_total", **method) == 1
    assert scrape.value("grpc_server_handled_total", **method) == 1
    assert scrape.value("grpc_server_handled_total", **method, grpc_code="OK") == 1
    assert scrape.value("grpc_server_handling_seconds_count", **method) == 1
    assert scrape.value("grpc_server_handling_seconds_sum", **method) > 0
    version = {"model": "linear", "version": "1"}
    assert scrape.value("quicksilver_rows_total", **version) == 3
    assert scrape.value("quicksilver_batch_rows_sum", **version) == 3
    assert scrape.value("quicksilver_batch_calls_bucket", **version, le="1.0") == 1
    assert scrape.value("quicksilver_queue_seconds_count", **version) == 1
    assert scrape.value("quicksilver_inference_seconds_count", **version) == 1
    assert scrape.value("quicksilver_in_flight_calls") == 0


def _is_counted_once(server: Server, code: str) -> bool:
    return _Scrape(server).value("grpc_server_handled_total", grpc_method="Convert", grpc_code=code) == 1


def test_errors_count_under_their_code_and_run_nothing(server: Server, stub: ConverterServiceStub) -> None:
    """As the ecosystem writes codes: words run together."""
    for code, fields in (
        ("InvalidArgument", {"fahrenheit": [float("nan")]}),
        ("NotFound", {"fahrenheit": [1], "model": "nope"}),
        ("OutOfRange", {"fahrenheit": [212], "on_extrapolation": api.ON_EXTRAPOLATION_REJECT}),
        ("FailedPrecondition", {"fahrenheit": [1], "model": "plain", "interval": True}),
    ):
        with pytest.raises(grpc.RpcError):
            stub.Convert(api.ConvertRequest(**fields), timeout=30)
        until(
            partial(_is_counted_once, server, code), f"the count of {code}"
        )  # books are kept after the answer went out
    assert _Scrape(server).value("quicksilver_rows_total") == 0


def test_a_stream_is_one_call_with_many_rows(server: Server, stub: ConverterServiceStub) -> None:
    """Begun once and ended once, however many requests it carries."""

    def requests() -> Iterator[api.ConvertStreamRequest]:
        for _ in range(5):
            yield api.ConvertStreamRequest(request=api.ConvertRequest(fahrenheit=[50, 60]))

    assert len(list(stub.ConvertStream(requests(), timeout=30))) == 5
    scrape = _Scrape(server)
    method = {"grpc_type": "bidi_stream", "grpc_method": "ConvertStream"}
    assert scrape.value("grpc_server_started_total", **method) == 1
    assert scrape.value("grpc_server_handled_total", **method, grpc_code="OK") == 1
    assert scrape.value("quicksilver_rows_total", model="linear") == 10
    assert scrape.value("quicksilver_batch_calls_sum", model="linear", version="1") == 5, "what a share refused is of"


def test_no_caller_can_make_a_series(server: Server, channel: grpc.Channel, stub: ConverterServiceStub) -> None:
    """Unknown methods are `other`; unknown models leave no trace among the labels."""
    before = _Scrape(server).series()
    for path in ("/evil.Service/Method1", "/evil.Service/Method2", f"/{SERVICE}/Nope"):
        with pytest.raises(grpc.RpcError):
            channel.unary_unary(path, request_serializer=bytes)(b"", timeout=30)
    with pytest.raises(grpc.RpcError):
        _convert(stub, 1, model="evil")
    scrape = _Scrape(server)
    assert scrape.series() == before
    assert scrape.value("grpc_server_handled_total", grpc_service="other", grpc_code="Unimplemented") == 3


def test_all_methods_and_codes_begin_at_zero(server: Server) -> None:
    """A first error is an increase, which an alert can see."""
    samples = _Scrape(server).families["grpc_server_handled"].samples
    codes = {sample.labels["grpc_code"] for sample in samples if sample.labels["grpc_method"] == "Convert"}
    assert len(codes) == len(Code)
    assert all(re.fullmatch("OK|([A-Z][a-z]+)+", code) for code in codes)
    assert {sample.value for sample in samples} == {0}


def test_models_tell_what_is_loaded_where(start_server: StartServer, repository: Repository) -> None:
    """Version, hash and the device that really runs it; whether a model answers; what could not be loaded."""
    repository.publish("broken", b"no model")
    scrape = _Scrape(start_server(device="cpu"))
    sha256 = {sample.labels["sha256"] for sample in scrape.families["quicksilver_model_info"].samples}
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in sha256)
    assert scrape.value("quicksilver_model_info", model="linear", version="1", kind="linear", device="cpu") == 1
    assert scrape.value("quicksilver_model_info", model="plain", kind="onnx") == 1
    assert scrape.value("quicksilver_model_ready", model="linear") == 1
    assert scrape.value("quicksilver_model_ready", model="broken") == 0
    assert scrape.value("quicksilver_version_failed", model="broken", version="1") == 1


def test_labels_the_device_and_the_golden_check_are_told(start_server: StartServer, repository: Repository) -> None:
    """Which version a label names, where runs really happen, how far golden vectors are off; plain files tell none."""
    repository.set_label("linear", "canary", 2)
    scrape = _Scrape(start_server(device="cpu"))
    assert scrape.value("quicksilver_label_info", model="linear", label="stable", version="1") == 1
    assert scrape.value("quicksilver_label_info", model="linear", label="canary", version="2") == 1
    assert scrape.value("quicksilver_device_info", requested="cpu", used="cpu") == 1
    assert 0 < scrape.value("quicksilver_golden_deviation_celsius", model="linear", version="1") < 1e-4
    models = {sample.labels["model"] for sample in scrape.families["quicksilver_golden_deviation_celsius"].samples}
    assert models == {"linear"}


@pytest.mark.parametrize("transport", ["http2"])
def test_connections_are_counted(server: Server) -> None:
    """Each that comes and each that goes, and those that are open."""
    before = _Scrape(server)
    with Converter(server.address, model="linear") as converter:
        converter.convert(32)
        assert _Scrape(server).value("quicksilver_connections") == 1
    until(lambda: _Scrape(server).value("quicksilver_connections") == 0, "the connection to be gone")
    after = _Scrape(server)
    assert before.value("quicksilver_connections_opened_total") == 0
    assert after.value("quicksilver_connections_opened_total") == 1
    assert after.value("quicksilver_connections_closed_total", reason="peer") == 1


def test_openmetrics_is_spoken_to_who_asks(server: Server, stub: ConverterServiceStub) -> None:
    """The stricter format parses as well."""
    _convert(stub, 32)
    request = Request(f"http://{server.http_address}/metrics", headers={"Accept": "application/openmetrics-text"})
    with urlopen(request) as response:  # noqa: S310 - as above
        text = response.read().decode()
    families = parse_openmetrics(text)  # type: ignore[no-untyped-call] # prometheus_client types only its main parser
    assert {family.name for family in families} >= {*OURS}


def test_the_registry_is_the_one_given(repository: Repository) -> None:
    """Two servers in one process do not share counters."""
    addresses = {"listen": "127.0.0.1:0", "http_listen": "127.0.0.1:0"}
    settings = Settings.model_validate({"repository": repository.root, **addresses})
    registries = [CollectorRegistry(), CollectorRegistry()]
    servers = [Server(settings, registry) for registry in registries]
    try:
        for server in servers:
            server.start()
        with Converter(servers[0].address, model="linear") as converter:
            converter.convert(32)
        assert _Scrape(servers[0]).value("quicksilver_in_flight_calls") == 0
        labels = {"model": "linear", "version": "1"}
        assert [registry.get_sample_value("quicksilver_rows_total", labels) for registry in registries] == [1, 0]
    finally:
        for server in servers:
            server.stop()


@given(st.lists(st.floats(min_value=0, max_value=20)), st.sampled_from([SECONDS_BOUNDS, INFERENCE_SECONDS_BOUNDS]))
def test_a_histogram_counts_every_value_once(values: list[float], bounds: tuple[float, ...]) -> None:
    """Each bucket holds the values up to its bound, its bound included, and the last one all."""
    histogram = Histogram(bounds)
    for value in values:
        histogram.observe(value)
    for bound, count in histogram.distribution().buckets(bounds):
        assert count == sum(value <= float(bound) for value in values)
    assert histogram.total == pytest.approx(sum(values))


@given(st.lists(st.tuples(st.sampled_from([0.0, 1e-4, 0.0012, 0.5, 30.0]), st.integers(1, 20)), max_size=4))
def test_values_that_come_together_count_as_each_alone(together: list[tuple[float, int]]) -> None:
    """None, one value many times, several: the buckets and the sum are those of one after the other."""
    values = [value for value, times in together for _ in range(times)]
    alone, at_once = Histogram(SECONDS_BOUNDS), Histogram(SECONDS_BOUNDS)
    for value in values:
        alone.observe(value)
    at_once.observe_all(values)
    assert at_once.counts == alone.counts
    assert at_once.total == pytest.approx(alone.total)


@pytest.mark.parametrize("bounds", [SECONDS_BOUNDS, INFERENCE_SECONDS_BOUNDS, ROWS_BOUNDS])
def test_bounds_ascend(bounds: tuple[float, ...]) -> None:
    """As Prometheus needs them."""
    assert list(bounds) == sorted(set(bounds))
