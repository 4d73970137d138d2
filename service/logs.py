"""Structured logs on stderr: for people on a terminal, one JSON object a line elsewhere. Payloads are never logged.

Tracebacks are told without local variables, since those of a failed call hold its temperatures. What libraries log,
what Python warns of, and what ends a thread goes the same way, so that every line is one event.
"""

import logging
import sys
import threading
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, Literal

import structlog
from structlog.tracebacks import ExceptionDictTransformer

log = structlog.get_logger(__name__)

TOPIC: Final = "log/"
"""What is told of a severity to all processes of a server stands under this and its name."""


class LogSwitches:
    """Which severities of the process's log pass. What is critical always does.

    Logging belongs to the process and not to a server in it, and so do the switches: there is one, `SWITCHES`.
    """

    def __init__(self) -> None:
        self._enabled = {level: level != "debug" for level in ("debug", "info", "warning", "error")}

    @property
    def enabled(self) -> Mapping[str, bool]:
        """Each severity, and whether it passes."""
        return dict(self._enabled)

    def set(self, changes: Mapping[str, bool]) -> None:
        """Let severities pass, or hold them back; those not named stay as they are."""
        self._enabled = {level: changes.get(level, passes) for level, passes in self._enabled.items()}
        threshold = next((level for level, passes in self._enabled.items() if passes), "critical")
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, threshold.upper())))
        logging.getLogger().setLevel(threshold.upper())

    def set_least(self, level: str) -> None:
        """Let pass what is at least as severe."""
        least = getattr(logging, level.upper())
        self.set({known: getattr(logging, known.upper()) >= least for known in self._enabled})

    def follow(self, topic: str, passes: bool) -> None:  # noqa: FBT001 - as it is told
        """Do what one of several processes was asked to do, which all shall do."""
        level = topic.removeprefix(TOPIC)
        if level != topic:
            self.set({level: passes})

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
        """Drop the event where its severity does not pass. The threshold alone cannot hold back one between others."""
        if not self._enabled.get(event["level"], True):
            raise structlog.DropEvent
        return event


SWITCHES: Final = LogSwitches()


class _Forwarder(logging.Handler):
    """Hands what is logged through the standard library to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record's message under the name of who logged it."""
        log.log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info)


def configure_logs(style: Literal["auto", "console", "json"], level: str, **constants: object) -> None:
    """Set up logging for the whole process. `auto` means console on a terminal, JSON elsewhere.

    Constants stand in every event.
    """

    def add_constants(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
        return {**event, **constants}

    console = style == "console" or (style == "auto" and sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            SWITCHES,
            add_constants,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *(_for_people() if console else _for_machines()),
        ],
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_Forwarder()], force=True)
    SWITCHES.set_least(level)
    logging.captureWarnings(capture=True)
    threading.excepthook = _log_thread_fault


def _for_people() -> list[Any]:
    traceback = structlog.dev.RichTracebackFormatter(show_locals=False)
    return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=traceback)]


def _for_machines() -> list[Any]:
    transformer = ExceptionDictTransformer(show_locals=False)
    return [structlog.processors.ExceptionRenderer(transformer), structlog.processors.JSONRenderer()]


def _log_thread_fault(fault: threading.ExceptHookArgs) -> None:
    name = fault.thread.name if fault.thread else None
    log.critical("a thread ended with a fault", thread=name, exc_info=fault.exc_value)
