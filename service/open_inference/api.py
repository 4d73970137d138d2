"""The methods of `inference.GRPCInferenceService`, for any front."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from proto.inference.v2 import open_inference_pb2 as pb
from service.calls import BatchedMethod, Context, Method
from service.codec import unary
from service.health import Health
from service.models import Models
from service.open_inference import SERVICE, repository_control, stream
from service.open_inference.infer import InferCodec
from service.open_inference.logs import LogControl
from service.open_inference.metadata import Metadata
from service.open_inference.repository_control import RepositoryControl
from service.open_inference.statistics import Statistics
from service.slow import slow_unary
from service.version_policy import VersionPolicy

_ALWAYS: Final = ("model_configuration", "statistics")


@dataclass(frozen=True, slots=True)
class Admin:
    """What lets callers change the server. Where it is not there, neither are the methods."""

    guard: Callable[[Context], None]
    """Raises a ServiceError where the caller may not."""
    logs: bool = True
    """Whether the log settings may be told and changed."""
    change_logs: Callable[[Mapping[str, bool]], None] | None = None
    """Where several processes serve: lets severities pass, or holds them back, in all of them."""
    repository: RepositoryControl | None = None
    """Who loads and unloads models."""


def methods(
    models: Models,
    statistics: Statistics,
    health: Health,
    *,
    max_batch_rows: int,
    version_policy: VersionPolicy,
    admin: Admin | None = None,
) -> list[Method]:
    """Return the service's methods over the models given."""
    changing, extensions = _changing(admin)
    metadata = Metadata(models, health, (*_ALWAYS, *extensions), max_batch_rows, version_policy)
    codec = InferCodec()
    return [
        BatchedMethod(_path("ModelInfer"), codec),
        stream.method(codec),
        unary(_path("ServerLive"), pb.ServerLiveRequest, metadata.server_live),
        unary(_path("ServerReady"), pb.ServerReadyRequest, metadata.server_ready),
        unary(_path("ModelReady"), pb.ModelReadyRequest, metadata.model_ready),
        unary(_path("ServerMetadata"), pb.ServerMetadataRequest, metadata.server_metadata),
        unary(_path("ModelMetadata"), pb.ModelMetadataRequest, metadata.model_metadata),
        unary(_path("ModelConfig"), pb.ModelConfigRequest, metadata.model_config),
        slow_unary(
            _path("ModelStatistics"), pb.ModelStatisticsRequest, lambda request, _context: statistics.answer(request)
        ),
        unary(_path("RepositoryIndex"), pb.RepositoryIndexRequest, metadata.repository_index),
        *changing,
    ]


def _changing(admin: Admin | None) -> tuple[list[Method], list[str]]:
    """The methods that change the server, and the extensions of the protocol that they make up."""
    found: list[Method] = []
    extensions = []
    if admin is not None and admin.logs:
        found.append(LogControl(admin.guard, admin.change_logs).method())
        extensions.append("logging")
    if admin is not None and admin.repository is not None:
        found += repository_control.methods(admin.repository, admin.guard)
        extensions.append("model_repository")
    return found, extensions


def _path(name: str) -> str:
    return f"/{SERVICE}/{name}"
