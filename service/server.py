"""The composition root: makes every part, wires them, starts them in order, and drains them in order."""

import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import structlog
from prometheus_client import CollectorRegistry

from proto.quicksilver.v1 import converter_pb2 as api
from proto.repository import Repository
from service import converter_api, health, reflection
from service.address import split_host_port
from service.admin import Gate
from service.canary import Canaries
from service.config import Settings, SettingsError
from service.control import RepositoryControl
from service.dataplane import Dataplane
from service.engine import EngineOptions, check_device
from service.errors import NotReadyError
from service.fronts import make_front
from service.health import Health
from service.http_endpoint import HttpEndpoint
from service.logs import SWITCHES
from service.logs import TOPIC as LOG_TOPIC
from service.metrics import Metrics
from service.models import Models
from service.observations import Observations
from service.open_inference import SERVICE as OPEN_INFERENCE
from service.open_inference import api as open_inference
from service.open_inference import tables
from service.open_inference.statistics import Statistics
from service.runs import BatchLimits
from service.shadow import Shadow, ShadowLimits
from service.version_policy import VersionPolicy
from service.watch import Watcher
from service.workers.handoff import Arrivals
from service.workers.siblings import Siblings, SiblingsError

if TYPE_CHECKING:
    from service import tracing

log = structlog.get_logger(__name__)


class Server:
    """One process that serves the models of a repository.

    `start` returns when calls are answered; `stop` drains. After `start`, `address` and `http_address` hold the real
    ports. Making a Server reads nothing and opens nothing but the HTTP port. With `arrivals` it is one of several
    workers: it has no ports, and serves the connections that come from there; its `siblings` load what it is told to.
    Making one raises SettingsError where it needs what is not installed.
    """

    def __init__(
        self,
        settings: Settings,
        registry: CollectorRegistry | None = None,
        *,
        arrivals: Arrivals | None = None,
        siblings: Siblings | None = None,
    ) -> None:
        self._settings = settings
        repository, options = Repository(settings.repository), _engine_options(settings)
        self.models = Models(
            repository,
            options,
            policy=VersionPolicy.parse(settings.version_policy),
            default_model=settings.default_model,
            explicit=_named(settings.load_models) if settings.model_control == "explicit" else None,
        )
        self.health = Health(self.models, [converter_api.SERVICE, OPEN_INFERENCE])
        limits = api.Limits(
            max_rows_per_request=settings.max_rows_per_request, max_message_bytes=settings.max_message_bytes
        )
        self.statistics = Statistics(self.models)
        self._gate = Gate([settings.listen], settings.admin_token_file)
        control = RepositoryControl(self.models, repository, options, settings.model_control, settings.drain_seconds)
        if siblings is not None:
            _join(siblings, control, self.statistics)
        self._observations = Observations(settings, self.models)
        served = [
            *converter_api.methods(
                self.models, limits, converter_api.LabelAdmin(control, self._gate.check), self._observations
            ),
            *self._observations.methods(converter_api.SERVICE, self._gate.check),
            *open_inference.methods(
                self.models,
                self.statistics,
                self.health,
                max_batch_rows=settings.max_batch_rows,
                version_policy=VersionPolicy.parse(settings.version_policy),
                admin=open_inference.Admin(
                    self._gate.check,
                    repository=control,
                    change_logs=partial(_change_logs, siblings) if siblings else None,
                ),
            ),
            *self.health.methods(),
            *reflection.methods([converter_api.SERVICE, OPEN_INFERENCE, health.SERVICE]),
        ]
        shadow = Shadow(ShadowLimits(settings.shadow_queue_bytes, settings.shadow_time_share))
        self._canaries = Canaries(self.models, shadow)
        self.metrics = Metrics(served, self.models, settings.device, self._observations, sources=[self._canaries])
        registry = CollectorRegistry() if registry is None else registry
        self.metrics.register(registry)
        batch_limits = BatchLimits(settings.max_rows_per_request, settings.max_batch_rows, settings.solo_rows)
        self._tracer = _tracer(settings, self.metrics)
        dataplane = Dataplane(
            self.models,
            self.metrics,
            batch_limits,
            statistics=self.statistics,
            canaries=self._canaries,
            traced=self._tracer is not None,
        )
        self.models.subscribe(self.health.changed)
        self.models.subscribe(self.metrics.forget_retired)
        self.models.subscribe(self._canaries.forget_retired)
        self._watcher = Watcher(
            settings.repository, self.models.refresh, settings.watch, settings.watch_interval_seconds
        )
        methods = {method.path: method for method in served}
        self._front = make_front(settings, methods, dataplane, self.metrics, arrivals, self._tracer)
        self._http = None if arrivals else _http_endpoint(settings, registry, self.health)
        self._stopped = threading.Event()
        self.address = settings.listen
        self.http_address = settings.http_listen

    def start(self, loaded: Callable[[], None] = lambda: None) -> None:
        """Load the models, call `loaded`, open the ports, and say that the server is ready.

        Raises:
            DeviceError: the device that was asked for cannot be had.
            AddressError: an address cannot be listened on.
            TokenFileError: the file of the admin token cannot be used.
            StoreSettingError: there can be no store of observations where the setting says.
        """
        self._gate.check_file()
        check_device(self._settings.device)  # no model may be there yet to find out with
        if self._http is not None:
            self.http_address = self._http.start()
        self.models.load()
        loaded()
        self._observations.start()
        self.address = self._front.start()
        self.health.accept()
        if self._settings.model_control != "none":
            self._watcher.start()
        models = self.models.catalogue.models
        if not models:
            log.warning(
                "the repository holds no models; nothing can be answered", repository=str(self._settings.repository)
            )
        event = "serving" if self._http is not None else "worker up"
        log.info(event, grpc=self.address, http=self.http_address, ready=self.health.ready, models=sorted(models))

    def stop(self) -> bool:
        """Say not ready, refuse new calls, finish those in flight, close. Tell whether all of them finished in time.

        May be called more than once; only the first call does anything.
        """
        if self._stopped.is_set():
            return True
        self._stopped.set()
        log.info("draining", seconds=self._settings.drain_seconds)
        self.health.drain()
        self._watcher.stop()
        finished = self._front.stop(self._settings.drain_seconds)
        if not finished:
            log.warning("calls were cut off: they took longer than drain_seconds")
        self._observations.stop()
        self._canaries.stop()
        if self._tracer is not None:
            self._tracer.stop()
        if self._http is not None:
            self._http.stop()
        log.info("stopped")
        return finished


def _join(siblings: Siblings, control: RepositoryControl, statistics: Statistics) -> None:
    """Let this process do what others are asked, have them do what it is asked, and have it tell what all did."""
    siblings.listen(control.follow)
    siblings.listen(SWITCHES.follow)
    control.tell = siblings.tell
    statistics.gather = partial(_survey, siblings)


def _survey(siblings: Siblings) -> tables.Tables:
    try:
        return tables.from_plain(siblings.survey())
    except SiblingsError as error:
        raise NotReadyError(str(error)) from error


def _change_logs(siblings: Siblings, changes: Mapping[str, bool]) -> None:
    """Change the log's switches in all processes: each is told by itself, so that one that comes later hears of all."""
    problems = [problem for level, passes in changes.items() for problem in siblings.tell(LOG_TOPIC + level, passes)]
    if problems:
        raise NotReadyError(f"the log settings are not changed in every process: {'; '.join(problems)}")


def _tracer(settings: Settings, metrics: Metrics) -> "tracing.Tracer | None":
    """What follows calls, where traces are to go somewhere.

    Raises:
        SettingsError: the extra that it needs is not installed.
    """
    if settings.otlp_endpoint is None:
        return None
    try:
        from service.tracing import Tracer  # noqa: PLC0415 - OpenTelemetry, for those who want it
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "opentelemetry":
            raise
        raise SettingsError(
            "otlp_endpoint: traces need the extra 'tracing': in the checkout, "
            ".venv/bin/pip install --constraint constraints.txt --editable '.[tracing]'"
        ) from error
    return Tracer(settings.otlp_endpoint, settings.trace_ratio, metrics.exemplar)


def _http_endpoint(settings: Settings, registry: CollectorRegistry, health: Health) -> HttpEndpoint:
    return HttpEndpoint(*split_host_port(settings.http_listen), registry, lambda: health.ready)


def _engine_options(settings: Settings) -> EngineOptions:
    return EngineOptions(
        device=settings.device,
        intra_op_threads=settings.intra_op_threads,
        inter_op_threads=settings.inter_op_threads,
        spinning=settings.spinning,
        large_run_threads=settings.large_run_threads,
        max_shared_rows=settings.max_batch_rows,
    )


def _named(names: str | None) -> list[str]:
    return names.split(",") if names else []
