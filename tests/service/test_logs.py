"""What stands on stderr."""

import json
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import structlog

from service.logs import configure_logs

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Leave the process's logging as it was."""
    hook, root = threading.excepthook, logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with warnings.catch_warnings():
        yield
        logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    threading.excepthook = hook
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Lines:
    """Reads what was logged since: every line must be a JSON object."""
    return lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def _fail(fahrenheit: list[float]) -> None:
    secret_rows = np.array(fahrenheit)
    raise RuntimeError(f"could not run {secret_rows.shape}")


def _log_a_fault() -> None:
    try:
        _fail([123.456789])
    except RuntimeError as fault:
        structlog.get_logger().error("run failed", exc_info=fault, error_id="abc")


def test_an_event_is_one_json_object_in_one_line(lines: Lines) -> None:
    """Its facts are fields; level and time, in UTC, stand beside them."""
    configure_logs("json", "info")
    structlog.get_logger().info("version loaded\nin two lines", model="linear", version=3)
    (event,) = lines()
    assert event["timestamp"].endswith("Z")
    del event["timestamp"]
    assert event == {"event": "version loaded\nin two lines", "level": "info", "model": "linear", "version": 3}


def test_a_traceback_is_structured_and_holds_no_payload(lines: Lines) -> None:
    """Frames with their lines, the fault's type and words; never the temperatures that a local variable held."""
    configure_logs("json", "info")
    _log_a_fault()
    (event,) = lines()
    assert event["error_id"] == "abc"
    (exception,) = event["exception"]
    assert (exception["exc_type"], exception["exc_value"]) == ("RuntimeError", "could not run (1,)")
    assert [frame["name"] for frame in exception["frames"]] == ["_log_a_fault", "_fail"]
    assert "123.456789" not in json.dumps(event)


def test_a_console_shows_the_traceback_without_local_variables(capsys: pytest.CaptureFixture[str]) -> None:
    """What a person reads holds no payload either."""
    configure_logs("console", "info")
    _log_a_fault()
    printed = capsys.readouterr().err
    assert "run failed" in printed
    assert "could not run" in printed
    assert "secret_rows = array" not in printed
    assert "fahrenheit = [" not in printed


def test_auto_means_json_where_no_terminal_is(lines: Lines) -> None:
    """A pipe is read by a machine."""
    configure_logs("auto", "info")
    structlog.get_logger().info("serving")
    assert lines()[0]["event"] == "serving"


@pytest.mark.parametrize(("level", "seen"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_what_is_less_severe_is_not_logged(lines: Lines, level: str, seen: int) -> None:
    """For our own events and those of libraries alike."""
    configure_logs("json", level)
    ours, theirs = structlog.get_logger(), logging.getLogger("library")
    for name in ("debug", "info", "warning", "error"):
        getattr(ours, name)(name)
        getattr(theirs, name)(name)
    assert [line["level"] for line in lines()[::2]] == ["debug", "info", "warning", "error"][-seen:]


def test_what_libraries_log_is_an_event_too(lines: Lines) -> None:
    """With its traceback and the name of who logged it."""
    configure_logs("json", "info")
    try:
        _fail([])
    except RuntimeError:
        logging.getLogger("grpc._server").exception("exception in %s", "a handler")
    (event,) = lines()
    assert (event["event"], event["logger"], event["level"]) == ("exception in a handler", "grpc._server", "error")
    assert event["exception"][0]["exc_type"] == "RuntimeError"


def test_a_warning_is_an_event_too(lines: Lines) -> None:
    """Python's own would be two lines of plain text."""
    configure_logs("json", "info")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("beware", stacklevel=1)
    (event,) = lines()
    assert "beware" in event["event"]
    assert event["level"] == "warning"


def test_a_thread_that_ends_with_a_fault_is_an_event_too(lines: Lines) -> None:
    """It names the thread."""
    configure_logs("json", "info")
    thread = threading.Thread(target=_fail, args=([1.0],), name="runner")
    thread.start()
    thread.join()
    (event,) = lines()
    assert (event["level"], event["thread"]) == ("critical", "runner")
    assert event["exception"][0]["exc_value"] == "could not run (1,)"
