"""Faults of the server in answering requests: the log has all of it, callers an id."""

from collections.abc import Sequence
from typing import Final

import structlog

from service.calls import Request
from service.errors import InternalError
from service.traceparent import request_id

log = structlog.get_logger(__name__)

_IDS_TOLD: Final = 8
"""Requests of a run that failed whose ids the log has."""


def tell_fault(fault: Exception, event: str, requests: Sequence[Request], **facts: object) -> InternalError:
    """Log a fault under a new id, beside those of the requests, and return the error that tells the id alone."""
    error = InternalError()
    ids = [known for request in requests[:_IDS_TOLD] if (known := request_id(request.metadata)) is not None]
    log.error(event, error_id=error.id, request_ids=ids, exc_info=fault, **facts)
    return error
