"""Unary methods that take their time: each call is answered on a thread of its own, and the front goes on meanwhile."""

import threading
from collections.abc import Callable
from typing import Final, Generic, TypeVar

import structlog
from google.protobuf.message import Message

from service.calls import Context, Inlet, Outlet, StreamMethod, Submit
from service.codec import parse
from service.errors import InternalError, OverloadedError, ServiceError, Shed
from service.traceparent import request_id

log = structlog.get_logger(__name__)

MAX_CALLS: Final = 16
"""Calls of slow methods at once; further ones are refused."""

MessageT = TypeVar("MessageT", bound=Message)

_places = threading.BoundedSemaphore(MAX_CALLS)


def slow_unary(path: str, request_type: type[MessageT], answer: Callable[[MessageT, Context], Message]) -> StreamMethod:
    """Make a method of a function that may block. What it raises ends the call; its caller's leaving does not end it.

    The function may add to the context's metadata.
    """

    def open_call(outlet: Outlet, _submit: Submit) -> Inlet:
        return _Call(path, request_type, answer, outlet)

    return StreamMethod(path, client_streams=False, server_streams=False, open=open_call)


class _Call(Inlet, Generic[MessageT]):
    """One call: its message starts the work, and the work ends the call."""

    busy = False

    def __init__(
        self, path: str, request_type: type[MessageT], answer: Callable[[MessageT, Context], Message], outlet: Outlet
    ) -> None:
        self._path = path
        self._request_type = request_type
        self._answer = answer
        self._outlet = outlet

    def receive(self, message: bytes) -> None:
        request = parse(self._request_type, message)
        if not _places.acquire(blocking=False):
            raise OverloadedError(f"{MAX_CALLS} calls that take long are at work already", Shed.LONG_CALLS)
        threading.Thread(target=self._work, args=(request,), name="slow", daemon=True).start()

    def half_close(self) -> None:
        """Go on: the answer comes when it is done."""

    def cancel(self) -> None:
        """Go on: what was begun is finished."""

    def _work(self, request: MessageT) -> None:
        try:
            self._outlet.send(self._answer(request, self._outlet.context).SerializeToString())
            self._outlet.close()
        except ServiceError as error:
            self._outlet.close(error)
        except Exception as fault:
            internal = InternalError()
            log.exception(
                "call failed",
                method=self._path,
                error_id=internal.id,
                request_id=request_id(self._outlet.context.metadata),
            )
            self._outlet.close(internal)
            del fault
        finally:
            _places.release()
