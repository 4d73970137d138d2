"""What the log says of a fault: one event, with the id that the caller was told and the one that it brought.

That an event is one line of JSON, whose traceback holds no payload, is tested with the log itself.
"""

from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from proto.quicksilver.v1 import converter_pb2 as api
from proto.quicksilver.v1.converter_pb2_grpc import ConverterServiceStub
from service import converter_api
from service.server import Server

PAYLOAD = 123.4375
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-00"

Events = list[MutableMapping[str, Any]]


@pytest.fixture
def events(server: Server) -> Iterator[Events]:
    """What is logged from when the server is up."""
    del server
    with capture_logs() as captured:
        yield captured


def broken(*_: object) -> Any:  # noqa: ANN401 - stands for anything
    """A part of the server that fails, with a payload at hand."""
    fahrenheit = [PAYLOAD]
    raise RuntimeError(f"broken with {len(fahrenheit)} value")


def failure(call: Callable[[], object]) -> grpc.RpcError:
    """The error that a call ends with."""
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return raised.value


@pytest.mark.parametrize(
    ("metadata", "known"),
    [
        ((("x-request-id", "order-66"),), ["order-66"]),
        ((("traceparent", TRACEPARENT),), [TRACE]),
        ((("traceparent", TRACEPARENT), ("x-request-id", "order-66")), ["order-66"]),
        ((), []),
    ],
)
def test_a_run_that_fails(
    server: Server, events: Events, metadata: tuple[tuple[str, str], ...], known: list[str]
) -> None:
    """Its event has the id that the caller knows its request by, and the caller gets the id of the event."""
    request = api.ConvertRequest(fahrenheit=[PAYLOAD])
    with pytest.MonkeyPatch.context() as patched, grpc.insecure_channel(server.address) as channel:
        patched.setattr(server.models.catalogue.resolve("linear", None).engine, "run", broken)
        error = failure(lambda: ConverterServiceStub(channel).Convert(request, timeout=30, metadata=metadata))
    (event,) = events
    assert (event["event"], event["log_level"], event["request_ids"]) == ("run failed", "error", known)
    assert event["error_id"] in str(error)
    assert str(PAYLOAD) not in str({key: value for key, value in event.items() if key != "exc_info"})
    assert "broken with" not in str(error)


def test_a_method_that_fails(channel: grpc.Channel, monkeypatch: pytest.MonkeyPatch, events: Events) -> None:
    """Likewise one that is no conversion."""
    monkeypatch.setattr(converter_api, "list_models", broken)
    stub = ConverterServiceStub(channel)
    metadata = (("x-request-id", "order-67"),)
    error = failure(lambda: stub.ListModels(api.ListModelsRequest(), timeout=30, metadata=metadata))
    (event,) = events
    assert (event["event"], event["request_id"]) == ("call failed", "order-67")
    assert event["error_id"] in str(error)


def test_a_call_that_is_refused_leaves_no_event(channel: grpc.Channel, events: Events) -> None:
    """What a caller did wrong is told to it, and counted: nobody can fill the log."""
    failure(lambda: ConverterServiceStub(channel).Convert(api.ConvertRequest(fahrenheit=[-500]), timeout=30))
    assert events == []
