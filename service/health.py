"""grpc.health.v1 for any front: is the server ready, and is each model?

The names that can be asked about: the empty one and each served API mean the whole server; `models/NAME` means one
model. The server is SERVING when every model answers a request that names no version, and until it drains. Where
several processes serve, each tells what is true of all of them.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from grpc_health.v1 import health_pb2 as pb

from service.calls import Inlet, Method, Outlet, StreamMethod, Submit
from service.catalogue import Choice, name_of
from service.codec import parse, unary
from service.errors import DrainingError, UnknownModelError
from service.models import Models

SERVICE: Final = "grpc.health.v1.Health"
MODEL_PREFIX: Final = "models/"

_SERVING: Final = pb.HealthCheckResponse.SERVING
_NOT_SERVING: Final = pb.HealthCheckResponse.NOT_SERVING
_SERVICE_UNKNOWN: Final = pb.HealthCheckResponse.SERVICE_UNKNOWN


@dataclass(frozen=True, slots=True)
class _Whole:
    """What is true of all processes of a server together."""

    ready: bool
    answering: frozenset[str]
    models: frozenset[str]


class Health:
    """Knows the state of the server and its models, and tells whoever watches when it changes."""

    def __init__(self, models: Models, apis: Iterable[str]) -> None:
        self._models = models
        self._apis = ("", *apis)
        self._accepting = False
        self._draining = False
        self._whole: _Whole | None = None
        self._lock = threading.Lock()
        self._watches: set[_Watch] = set()

    @property
    def ready(self) -> bool:
        """Whether the server accepts calls and every model answers, in all of its processes."""
        return self.own_ready and (self._whole is None or self._whole.ready)

    @property
    def own_ready(self) -> bool:
        """Whether this process accepts calls and every model answers."""
        return self._accepting and self._models.catalogue.ready

    def answers(self, model: str, choice: Choice) -> bool:
        """Whether every process answers for a model, a version or a label that this one answers for."""
        return self._whole is None or name_of(model, choice) in self._whole.answering

    def learn(self, ready: bool, answering: Iterable[str], models: Iterable[str]) -> None:  # noqa: FBT001 - as it is told
        """Learn what is true of all processes together: what each can answer for, and the models that any knows."""
        self._whole = _Whole(ready, frozenset(answering), frozenset(models))
        self.changed()

    def accept(self) -> None:
        """Learn that the server accepts calls."""
        self._accepting = True
        self.changed()

    def drain(self) -> None:
        """Learn that no more calls are accepted: tell the watchers, and end their calls, which would last for ever."""
        with self._lock:
            self._accepting, self._draining = False, True
        for watch in self._all_watches():
            watch.end()

    def changed(self) -> None:
        """Tell the watchers, after the models changed."""
        for watch in self._all_watches():
            watch.update()

    def states(self) -> dict[str, int]:
        """The status of every name that can be asked about."""
        models = self._models.catalogue.models
        ready = dict.fromkeys(self._apis, self.ready)
        if self._whole is not None:
            ready |= {MODEL_PREFIX + name: False for name in self._whole.models}
        ready |= {
            MODEL_PREFIX + name: self._accepting and model.ready and self.answers(name, None)
            for name, model in models.items()
        }
        return {name: _SERVING if is_ready else _NOT_SERVING for name, is_ready in ready.items()}

    def methods(self) -> list[Method]:
        """The methods of the health service."""
        return [
            unary(f"/{SERVICE}/Check", pb.HealthCheckRequest, self._check),
            unary(f"/{SERVICE}/List", pb.HealthListRequest, self._list),
            StreamMethod(f"/{SERVICE}/Watch", client_streams=False, server_streams=True, open=self._watch),
        ]

    def _check(self, request: pb.HealthCheckRequest) -> pb.HealthCheckResponse:
        states = self.states()
        if request.service not in states:
            known = ", ".join(repr(name) for name in sorted(states))
            raise UnknownModelError(f"nothing is known of {request.service!r}: ask about one of {known}")
        return pb.HealthCheckResponse(status=states[request.service])

    def _list(self, _request: pb.HealthListRequest) -> pb.HealthListResponse:
        statuses = {name: pb.HealthCheckResponse(status=status) for name, status in self.states().items()}
        return pb.HealthListResponse(statuses=statuses)

    def _watch(self, outlet: Outlet, _submit: Submit) -> Inlet:
        return _Watch(self, outlet)

    def _all_watches(self) -> "list[_Watch]":
        with self._lock:
            return list(self._watches)

    def _add(self, watch: "_Watch") -> bool:
        """Have a watch told of changes; False where there will be none, since the server drains."""
        with self._lock:
            if not self._draining:
                self._watches.add(watch)
            return not self._draining

    def _remove(self, watch: "_Watch") -> None:
        with self._lock:
            self._watches.discard(watch)


class _Watch(Inlet):
    """One call of Watch: sends the status at once, and again whenever it changed, until the caller leaves."""

    busy = False

    def __init__(self, health: Health, outlet: Outlet) -> None:
        self._health = health
        self._outlet = outlet
        self._service: str | None = None
        self._sent: int | None = None
        self._lock = threading.Lock()

    def receive(self, message: bytes) -> None:
        """Begin to watch the name asked for."""
        self._service = parse(pb.HealthCheckRequest, message).service
        if self._health._add(self):  # noqa: SLF001 - two halves of one thing
            self.update()
        else:
            self.end()

    def update(self) -> None:
        """Send the status, where it is another than was sent last."""
        with self._lock:
            status = self._health.states().get(self._service or "", _SERVICE_UNKNOWN)
            if status != self._sent:
                self._sent = status
                self._outlet.send(pb.HealthCheckResponse(status=status).SerializeToString())

    def end(self) -> None:
        """Tell the last status, and end the call from this side."""
        self.update()
        self._outlet.close(DrainingError("the server is stopping"))

    def half_close(self) -> None:
        """Go on: the client of a server stream sends one message and listens."""

    def cancel(self) -> None:
        """Stop watching."""
        self._health._remove(self)  # noqa: SLF001 - two halves of one thing
