"""Traces, as a real collector gets them over OTLP; and the exemplars and ids that lead to them."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.request import Request, urlopen

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as collector
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from proto.quicksilver.v1 import converter_pb2 as api
from proto.quicksilver.v1.converter_pb2_grpc import ConverterServiceStub
from proto.repository import Repository
from service.calls import Metadata
from service.config import Settings
from service.server import Server
from service.traceparent import Parent, read_parent, request_id
from service.workers.supervisor import Supervisor
from tests.e2e.processes import ENVIRONMENT
from tests.e2e.test_imports import BLOCK
from tests.service.conftest import StartServer
from tests.waiting import until

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"
CONVERT = "quicksilver.v1.ConverterService/Convert"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps the spans that are exported to it."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        self._lock = threading.Lock()

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802, ANN401 - as gRPC has it
        """Take spans."""
        del context
        with self._lock:
            for part in request.resource_spans:
                named = {attribute.key: attribute.value.string_value for attribute in part.resource.attributes}
                self.services.add(named["service.name"])
                self.spans += [span for scope in part.scope_spans for span in scope.spans]
        return collector.ExportTraceServiceResponse()

    def named(self, name: str) -> list[Span]:
        """The spans of a name."""
        with self._lock:
            return [span for span in self.spans if span.name == name]

    def wait_for(self, name: str, count: int = 1) -> list[Span]:
        """Wait for spans of a name."""
        until(lambda: len(self.named(name)) >= count, f"{count} spans {name}")
        return self.named(name)

    def children(self, parent: Span) -> list[Span]:
        """The spans below another, in the order of their beginnings."""
        below = [span for span in self.spans if span.parent_span_id == parent.span_id]
        return sorted(below, key=lambda span: span.start_time_unix_nano)


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Collector, str]]:
    """A collector, and where it listens."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    kept = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(kept, server)  # type: ignore[no-untyped-call] # generated
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield kept, f"http://127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def traced(start_server: StartServer, received: tuple[Collector, str]) -> Server:
    """A server that traces what its callers trace, and nothing else."""
    return start_server(otlp_endpoint=received[1], trace_ratio=0)


def convert(address: str, *fahrenheit: float, metadata: Metadata = (), **fields: Any) -> list[float]:  # noqa: ANN401 - any field
    """Convert over a channel of its own."""
    with grpc.insecure_channel(address) as channel:
        request = api.ConvertRequest(fahrenheit=fahrenheit, **fields)
        answer = ConverterServiceStub(channel).Convert(request, timeout=30, metadata=tuple(metadata))
        return list(answer.celsius)


def attributes(span: Span) -> dict[str, Any]:
    """The attributes of a span."""
    return {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in span.attributes}


def test_a_call_is_a_child_of_its_callers_span(traced: Server, received: tuple[Collector, str]) -> None:
    """One span for the call, with queue, run and encode below it, one after the other and within it."""
    kept = received[0]
    assert convert(traced.address, 50, 59, metadata=[("traceparent", SAMPLED)]) == pytest.approx([10, 15], abs=1e-4)
    (call,) = kept.wait_for(CONVERT)
    kept.wait_for("encode")
    assert (call.trace_id.hex(), call.parent_span_id.hex(), call.kind) == (TRACE, SPAN, Span.SPAN_KIND_SERVER)
    assert attributes(call) == {
        "rpc.system": "grpc",
        "rpc.service": "quicksilver.v1.ConverterService",
        "rpc.method": "Convert",
        "rpc.grpc.status_code": 0,
    }
    queue, run, encode = kept.children(call)
    assert [span.name for span in (queue, run, encode)] == ["queue", "run", "encode"]
    told = {"quicksilver.model": "linear", "quicksilver.version": 1, "quicksilver.batch_rows": 2}
    assert told.items() <= attributes(run).items()
    assert call.start_time_unix_nano <= queue.start_time_unix_nano
    assert queue.end_time_unix_nano == run.start_time_unix_nano
    assert run.end_time_unix_nano == encode.start_time_unix_nano
    assert encode.end_time_unix_nano <= call.end_time_unix_nano
    assert {span.trace_id.hex() for span in (queue, run, encode)} == {TRACE}
    assert kept.services == {"quicksilver"}


def test_the_caller_decides(traced: Server, received: tuple[Collector, str]) -> None:
    """What its caller does not record is not recorded here, nor what has no caller that says so at a ratio of 0."""
    convert(traced.address, 50, metadata=[("traceparent", UNSAMPLED)])
    convert(traced.address, 50)
    convert(traced.address, 50, metadata=[("traceparent", "00-nonsense")])
    convert(traced.address, 50, metadata=[("traceparent", SAMPLED)])
    traced.stop()
    assert len(received[0].named(CONVERT)) == 1


def test_a_ratio_of_one_traces_all(start_server: StartServer, received: tuple[Collector, str]) -> None:
    """Roots have ids of their own; a call that fails has its code; what the server is not to blame for is no error."""
    server = start_server(otlp_endpoint=received[1], trace_ratio=1)
    convert(server.address, 50)
    with pytest.raises(grpc.RpcError):
        convert(server.address, 50, model="nope")
    server.stop()
    spans = received[0].named(CONVERT)
    assert sorted(attributes(span)["rpc.grpc.status_code"] for span in spans) == [0, 5]
    assert {span.status.code for span in spans} == {Status.STATUS_CODE_UNSET}
    assert len({span.trace_id for span in spans}) == 2
    assert not any(span.parent_span_id for span in spans)


def test_each_request_of_a_stream_is_below_its_call(traced: Server, received: tuple[Collector, str]) -> None:
    """One span for the stream, and three for each request."""
    with grpc.insecure_channel(traced.address) as channel:
        requests = [api.ConvertStreamRequest(request=api.ConvertRequest(fahrenheit=[50])) for _ in range(3)]
        stub = ConverterServiceStub(channel)
        assert len(list(stub.ConvertStream(iter(requests), timeout=30, metadata=(("traceparent", SAMPLED),)))) == 3
    traced.stop()
    (call,) = received[0].named("quicksilver.v1.ConverterService/ConvertStream")
    names = [span.name for span in received[0].children(call)]
    assert sorted(names) == ["encode"] * 3 + ["queue"] * 3 + ["run"] * 3


def test_a_bucket_leads_to_a_trace(traced: Server) -> None:
    """Whoever asks for OpenMetrics finds the trace of a call in the bucket that counted it; others find none."""
    convert(traced.address, 50, metadata=[("traceparent", SAMPLED)])
    wanted = Request(f"http://{traced.http_address}/metrics", headers={"Accept": "application/openmetrics-text"})
    until(lambda: exemplars(wanted), "an exemplar")
    ((value, trace, bound),) = exemplars(wanted)
    assert trace == TRACE
    assert 0 < value <= bound
    with urlopen(f"http://{traced.http_address}/metrics", timeout=30) as response:
        assert TRACE not in response.read().decode()


def exemplars(wanted: Request) -> list[tuple[float, str, float]]:
    """The exemplars of a scrape: value, trace, and the bound of the bucket."""
    with urlopen(wanted, timeout=30) as response:  # noqa: S310 - our own server
        text = response.read().decode()
    families = text_string_to_metric_families(text)  # type: ignore[no-untyped-call] # prometheus_client types only its main parser
    return [
        (sample.exemplar.value, sample.exemplar.labels["trace_id"], float(sample.labels["le"]))
        for family in families
        for sample in family.samples
        if sample.exemplar is not None
    ]


def test_workers_trace_and_their_exemplars_are_joined(repository: Repository, received: tuple[Collector, str]) -> None:
    """Through the parent's scrape, too, a bucket leads to the trace that a worker sent."""
    chosen: dict[str, Any] = {"listen": "127.0.0.1:0", "http_listen": "127.0.0.1:0", "default_model": "linear"}
    chosen |= {"workers": 2, "otlp_endpoint": received[1], "trace_ratio": 0}
    supervisor = Supervisor(Settings(repository=repository.root, **chosen))
    supervisor.start()
    try:
        convert(supervisor.address, 50, metadata=[("traceparent", SAMPLED)])
        received[0].wait_for(CONVERT)
        headers = {"Accept": "application/openmetrics-text"}
        wanted = Request(f"http://{supervisor.http_address}/metrics", headers=headers)
        until(lambda: exemplars(wanted), "an exemplar")
        assert [trace for _, trace, _ in exemplars(wanted)] == [TRACE]
    finally:
        supervisor.stop()


def test_calls_do_not_wait_for_a_collector_that_is_not_there(start_server: StartServer) -> None:
    """Traced calls are answered, and the server stops."""
    server = start_server(otlp_endpoint="http://127.0.0.1:9", trace_ratio=1)
    assert convert(server.address, 50) == pytest.approx([10], abs=1e-4)


def test_nothing_is_imported_where_nothing_is_traced() -> None:
    """A server without a collector runs without OpenTelemetry."""
    program = (
        BLOCK.format(module="service.server", blocked={"opentelemetry"})
        + "\nassert 'service.tracing' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=ENVIRONMENT, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_a_missing_extra_is_named() -> None:
    """Exit code 1 and one line that says what to install."""
    program = BLOCK.format(module="service.cli", blocked={"opentelemetry"}) + (
        "\nfrom service.cli import main\n"
        "sys.exit(main(['serve', '--listen', '127.0.0.1:0', '--http-listen', '127.0.0.1:0',"
        " '--otlp-endpoint', 'http://127.0.0.1:4317']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=ENVIRONMENT, timeout=60
    )
    assert done.returncode == 1, done.stderr
    assert "pip install --constraint constraints.txt --editable '.[tracing]'" in done.stderr
    assert "Traceback" not in done.stderr


# What is read from metadata -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sampled"),
    [(SAMPLED, True), (UNSAMPLED, False), (f"00-{TRACE}-{SPAN}-03", True), (f"cc-{TRACE}-{SPAN}-01-what-comes", True)],
)
def test_a_parent_is_read(text: str, sampled: bool) -> None:  # noqa: FBT001 - a table
    """Of version 00, or of one that is not known yet, whose further fields mean nothing here."""
    assert read_parent([("traceparent", text), ("tracestate", "a=1")]) == Parent(TRACE, SPAN, sampled, "a=1")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
    ],
)
def test_what_is_no_parent(text: str) -> None:
    """Then the call has none."""
    assert read_parent([("traceparent", text)]) is None


@pytest.mark.parametrize(
    ("metadata", "known"),
    [
        ((), None),
        ([("x-request-id", "abc-1")], "abc-1"),
        ([("traceparent", UNSAMPLED), ("x-request-id", "abc-1")], "abc-1"),
        ([("traceparent", UNSAMPLED)], TRACE),
        ([("x-request-id", "a\x1b[31m\nb")], "a[31mb"),
        ([("x-request-id", "x" * 1000)], "x" * 128),
    ],
)
def test_what_a_caller_knows_its_request_by(metadata: Metadata, known: str | None) -> None:
    """Its own id before that of its trace; nothing that a terminal would act on, and not too much of it."""
    assert request_id(metadata) == known
