"""Structured logs on stderr: for people on a terminal, one JSON object a line elsewhere. Payloads are never logged."""

import logging
import sys
from typing import Literal

import structlog


def configure_logs(style: Literal["auto", "console", "json"], level: str) -> None:
    """Set up logging for the whole process. `auto` means console on a terminal, JSON elsewhere."""
    console = style == "console" or (style == "auto" and sys.stderr.isatty())
    ending: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
        if console
        else [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *ending,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
