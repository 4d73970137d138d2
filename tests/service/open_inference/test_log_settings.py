"""LogSettings over a real channel: what is switched is what is logged."""

import io
import logging
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import structlog

from proto.inference.v2 import open_inference_pb2 as pb
from proto.inference.v2.open_inference_pb2_grpc import GRPCInferenceServiceStub
from service.logs import SWITCHES, configure_logs
from tests.service.conftest import StartServer
from tests.service.open_inference.calls import TIMEOUT_SECONDS

DEFAULTS = {
    "log_file": "",
    "log_format": "default",
    "log_info": True,
    "log_warning": True,
    "log_error": True,
    "log_verbose_level": 0,
}
SEVERITIES = ("debug", "info", "warning", "error", "critical")


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What the process logs, as configured for machines; what was configured before comes back."""
    structlog_before, logging_before = structlog.get_config(), (logging.root.handlers[:], logging.root.level)
    enabled_before, stderr = SWITCHES.enabled, io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)
    configure_logs("json", "info")
    yield stderr
    SWITCHES.set(enabled_before)
    structlog.configure(**structlog_before)
    logging.captureWarnings(capture=False)
    logging.root.handlers[:], logging.root.level = logging_before


@pytest.fixture
def stub(lines: io.StringIO, channel: grpc.Channel) -> GRPCInferenceServiceStub:
    """The generated client, of a server whose process logs to `lines`."""
    assert lines is not None
    return GRPCInferenceServiceStub(channel)


def _settings(stub: GRPCInferenceServiceStub, **settings: Any) -> dict[str, Any]:  # noqa: ANN401 - any value
    fields = {bool: "bool_param", int: "uint32_param", str: "string_param"}
    message = pb.LogSettingsRequest(
        settings={
            name: pb.LogSettingsRequest.SettingValue(**{fields[type(value)]: value}) for name, value in settings.items()
        }
    )
    answer = stub.LogSettings(message, timeout=TIMEOUT_SECONDS)
    return {name: getattr(value, str(value.WhichOneof("parameter_choice"))) for name, value in answer.settings.items()}


def _logged(lines: io.StringIO) -> list[str]:
    lines.seek(0)
    lines.truncate()
    for severity in SEVERITIES:
        getattr(structlog.get_logger("test"), severity)(f"a line of {severity}")
    return [severity for severity in SEVERITIES if f"a line of {severity}" in lines.getvalue()]


def test_settings_are_told(stub: GRPCInferenceServiceStub) -> None:
    """All of them, with what was configured at the start."""
    assert _settings(stub) == DEFAULTS


@pytest.mark.parametrize(
    ("changes", "logged"),
    [
        ({}, ["info", "warning", "error", "critical"]),
        ({"log_verbose_level": 1}, list(SEVERITIES)),
        ({"log_info": False}, ["warning", "error", "critical"]),
        ({"log_warning": False}, ["info", "error", "critical"]),
        ({"log_info": False, "log_warning": False, "log_error": False}, ["critical"]),
        ({"log_info": False, "log_verbose_level": 3}, ["debug", "warning", "error", "critical"]),
        ({"log_file": "", "log_format": "default"}, ["info", "warning", "error", "critical"]),
    ],
)
def test_what_is_switched_is_what_is_logged(
    stub: GRPCInferenceServiceStub, lines: io.StringIO, changes: dict[str, Any], logged: list[str]
) -> None:
    """Each severity by itself, at once, and back again."""
    told = _settings(stub, **changes)
    assert told == {**DEFAULTS, **changes, "log_verbose_level": int(changes.get("log_verbose_level", 0) > 0)}
    assert _logged(lines) == logged
    back = {"log_info": True, "log_warning": True, "log_error": True, "log_verbose_level": 0}
    assert _settings(stub, **back) == DEFAULTS
    assert _logged(lines) == ["info", "warning", "error", "critical"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"log_file": "/tmp/x"}, "settings[log_file]: is '' and cannot be changed"),  # noqa: S108 - a name that is refused
        ({"log_format": "ISO8601"}, "settings[log_format]: is 'default' and cannot be changed"),
        ({"log_debug": True}, "settings[log_debug]: there is no such setting: there are log_info"),
        ({"log_info": 1}, "settings[log_info]: is not true or false"),
        ({"log_verbose_level": True}, "settings[log_verbose_level]: is not a whole number"),
    ],
)
def test_what_cannot_be_set_changes_nothing(stub: GRPCInferenceServiceStub, changes: dict[str, Any], text: str) -> None:
    """Not even the settings beside it."""
    with pytest.raises(grpc.RpcError) as caught:
        _settings(stub, log_warning=False, **changes)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert text in str(caught.value.details())
    assert _settings(stub) == DEFAULTS


def test_elsewhere_settings_are_told_and_not_changed(lines: io.StringIO, start_server: StartServer) -> None:
    """A server that others can reach does not let them change it."""
    address = start_server(listen="0.0.0.0:0").address
    with grpc.insecure_channel(f"127.0.0.1:{address.rpartition(':')[2]}") as channel:
        stub = GRPCInferenceServiceStub(channel)
        assert _settings(stub) == DEFAULTS
        with pytest.raises(grpc.RpcError) as caught:
            _settings(stub, log_info=False)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert _logged(lines) == ["info", "warning", "error", "critical"]
