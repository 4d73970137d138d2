"""What this server and its models are: liveness, readiness, names, tensors, configuration, the repository's index."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from typing import Any, Final

from proto.inference.v2 import open_inference_pb2 as pb
from proto.repository import MODEL_FILE
from service.engine import TensorSpec
from service.errors import NotReadyError, UnimplementedError, UnknownModelError
from service.health import Health
from service.models import Catalogue, LoadedVersion, ModelEntry, Models, VersionEntry
from service.open_inference.datatypes import BY_ONNX_TYPE
from service.open_inference.plan import outputs_of
from service.open_inference.request import choice_of
from service.version_policy import VersionPolicy

SERVER_NAME: Final = "quicksilver"
DISTRIBUTION: Final = "quicksilver-serving"
PLATFORM: Final = "onnxruntime_onnx"
BACKEND: Final = "onnxruntime"
READY: Final = "READY"
UNAVAILABLE: Final = "UNAVAILABLE"

_INSTANCE_KINDS: Final = {"cpu": pb.ModelInstanceGroup.KIND_CPU, "cuda": pb.ModelInstanceGroup.KIND_GPU}


@dataclass(frozen=True, slots=True)
class Metadata:
    """Answers questions about the server and its models, from the catalogue as it stands."""

    models: Models
    health: Health
    """Knows whether the server accepts calls, and what all of its processes answer."""
    extensions: Sequence[str]
    """Names of the protocol's extensions that exist here."""
    max_batch_rows: int
    """Rows up to which calls share a run, where they do."""
    version_policy: VersionPolicy
    """Which versions are loaded beside the labelled ones."""

    def server_live(self, _request: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        """Tell that the server is there."""
        return pb.ServerLiveResponse(live=True)

    def server_ready(self, _request: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        """Tell whether the server accepts calls and every model answers."""
        return pb.ServerReadyResponse(ready=self.health.ready)

    def model_ready(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        """Tell whether a version answers: a client may ask about one that is still to come, and learns that not yet.

        Raises:
            InvalidRequestError: what stands for a version is none.
        """
        choice = choice_of(request.version, "version")
        try:
            found = self.models.catalogue.resolve(request.name, choice)
        except (UnknownModelError, NotReadyError):
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=self.health.answers(found.name, choice))

    def server_metadata(self, _request: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        """Tell the product, its version, and the extensions that exist."""
        version = installed_version(DISTRIBUTION)
        return pb.ServerMetadataResponse(name=SERVER_NAME, version=version, extensions=self.extensions)

    def model_metadata(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        """Tell a version's inputs and outputs.

        Raises:
            ServiceError: as `Catalogue.resolve`, and where what stands for a version is none.
        """
        model, loaded = _find(self.models.catalogue, request.name, request.version)
        versions = [loaded.version] if request.version else _ready_versions(model)
        return pb.ModelMetadataResponse(
            name=loaded.name,
            versions=map(str, versions),
            platform=PLATFORM,
            inputs=map(_tensor, loaded.engine.inputs),
            outputs=[_tensor(output.spec) for output in outputs_of(loaded)],
        )

    def model_config(self, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        """Tell how a version is served; errors as `model_metadata`."""
        _, loaded = _find(self.models.catalogue, request.name, request.version)
        config = describe_config(loaded, self.max_batch_rows)
        config.version_policy.CopyFrom(describe_policy(self.version_policy))
        return pb.ModelConfigResponse(config=config)

    def repository_index(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        """List the versions this server looked at, with the reason of those that do not answer.

        Raises:
            UnimplementedError: a repository is named; there is one, which has no name.
        """
        refuse_repository_name(request.repository_name)
        models = sorted(self.models.catalogue.models.items())
        entries = (_index(model, entry) for _, model in models for _, entry in sorted(model.versions.items()))
        return pb.RepositoryIndexResponse(
            models=[entry for entry in entries if entry.state == READY or not request.ready]
        )


def refuse_repository_name(name: str) -> None:
    """Raise UnimplementedError where a request names a repository."""
    if name:
        raise UnimplementedError(f"repository_name is {name!r}: there is one repository here, and it has no name")


def describe_config(loaded: LoadedVersion, max_batch_rows: int) -> pb.ModelConfig:
    """How a version is served. Where calls share runs, dimensions are told without the first, as Triton does."""
    shares = loaded.rows_independent
    config = pb.ModelConfig(
        name=loaded.name,
        platform=PLATFORM,
        backend=BACKEND,
        max_batch_size=max_batch_rows if shares else 0,
        input=[pb.ModelInput(**_config_tensor(spec, shares)) for spec in loaded.engine.inputs],
        output=[pb.ModelOutput(**_config_tensor(output.spec, shares)) for output in outputs_of(loaded)],
        instance_group=[pb.ModelInstanceGroup(name=loaded.name, count=1, kind=_INSTANCE_KINDS[loaded.engine.device])],
        default_model_filename=MODEL_FILE,
        parameters={"sha256": pb.ModelParameter(string_value=loaded.sha256)},
        model_transaction_policy=pb.ModelTransactionPolicy(decoupled=False),
    )
    if shares:
        config.dynamic_batching.SetInParent()
    return config


def describe_policy(policy: VersionPolicy) -> pb.ModelVersionPolicy:
    """Which versions are loaded, in the protocol's words."""
    if policy.latest is not None:
        return pb.ModelVersionPolicy(latest=pb.ModelVersionPolicy.Latest(num_versions=policy.latest))
    if policy.named is not None:
        return pb.ModelVersionPolicy(specific=pb.ModelVersionPolicy.Specific(versions=sorted(policy.named)))
    return pb.ModelVersionPolicy(all=pb.ModelVersionPolicy.All())


def _find(catalogue: Catalogue, name: str, version: str) -> tuple[ModelEntry, LoadedVersion]:
    choice = choice_of(version, "version")
    return catalogue.model(name), catalogue.resolve(name, choice)


def _ready_versions(model: ModelEntry) -> Iterable[int]:
    return sorted(number for number, entry in model.versions.items() if entry.loaded is not None)


def _tensor(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    datatype = BY_ONNX_TYPE.get(spec.onnx_type)
    return pb.ModelMetadataResponse.TensorMetadata(
        name=spec.name, datatype=datatype.name if datatype else spec.onnx_type, shape=_dims(spec.shape)
    )


def _config_tensor(spec: TensorSpec, shares: bool) -> dict[str, Any]:  # noqa: FBT001 - said by its name
    datatype = BY_ONNX_TYPE.get(spec.onnx_type)
    tensor: dict[str, Any] = {
        "name": spec.name,
        "data_type": datatype.config if datatype else pb.TYPE_INVALID,
        "dims": _dims(spec.shape[1:] if shares else spec.shape),
    }
    if not tensor["dims"]:  # a configuration has at least one dimension, and says that the graph's has none
        tensor |= {"dims": [1], "reshape": pb.ModelTensorReshape()}
    return tensor


def _dims(shape: Iterable[int | None]) -> list[int]:
    return [-1 if size is None else size for size in shape]


def _index(model: ModelEntry, entry: VersionEntry) -> pb.RepositoryIndexResponse.ModelIndex:
    return pb.RepositoryIndexResponse.ModelIndex(
        name=model.name,
        version=str(entry.version),
        state=UNAVAILABLE if entry.loaded is None else READY,
        reason=entry.reason,
    )
