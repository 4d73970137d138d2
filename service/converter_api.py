"""The methods of `quicksilver.v1.ConverterService`, for any front."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from proto.quicksilver.v1 import converter_pb2 as api
from proto.traffic import NO_TRAFFIC
from service.calls import BatchedMethod, Context, Inlet, Method, Outlet, StreamMethod, Submit
from service.codec import ConvertCodec, ConvertStreamCodec, Keep, choice_of, parse, unary
from service.errors import InvalidRequestError
from service.models import Catalogue, LoadedVersion, ModelEntry, Models, VersionEntry, VersionState
from service.observations.figures import Estimate, LiveQuality
from service.ordered_stream import OrderedStream
from service.placement import Placement
from service.slow import slow_unary

SERVICE: Final = "quicksilver.v1.ConverterService"

_STATES: Final = {
    VersionState.READY: api.VERSION_STATE_READY,
    VersionState.FAILED: api.VERSION_STATE_FAILED,
    VersionState.UNLOADED: api.VERSION_STATE_UNLOADED,
}


class LabelControl(Protocol):
    """Moves labels. Each returns when it is done, and raises a ServiceError where it cannot be."""

    def set_label(self, name: str, label: str, version: int) -> None:
        """Let a label name a version."""

    def roll_back(self, name: str, label: str) -> int:
        """Let a label name the version that it named before, and return that."""

    def remove_label(self, name: str, label: str) -> None:
        """Take a label away."""


@dataclass(frozen=True, slots=True)
class LabelAdmin:
    """Who moves labels, and who lets callers do it: `guard` raises a ServiceError where a caller may not."""

    control: LabelControl
    guard: Callable[[Context], None]


class Observed(Protocol):
    """What is known of observations, and what shall be known of answers to join them to."""

    @property
    def keep(self) -> Keep | None:
        """What learns of answers to requests with an id."""

    def quality(self, version: LoadedVersion) -> LiveQuality | None:
        """How a version does against observations; None where that is not known."""


def methods(models: Models, limits: api.Limits, labels: LabelAdmin, observed: Observed) -> list[Method]:
    """Return the service's methods over the models given. `limits` is what clients are told of this server's bounds."""
    keep = observed.keep

    def open_stream(outlet: Outlet, submit: Submit) -> Inlet:
        return OrderedStream(
            outlet, submit, lambda message: ConvertStreamCodec(parse(api.ConvertStreamRequest, message), keep)
        )

    def describe(request: api.GetModelRequest) -> api.GetModelResponse:
        return get_model(models.catalogue, request, observed)

    return [
        BatchedMethod(f"/{SERVICE}/Convert", ConvertCodec(keep)),
        StreamMethod(f"/{SERVICE}/ConvertStream", client_streams=True, server_streams=True, open=open_stream),
        unary(f"/{SERVICE}/ListModels", api.ListModelsRequest, lambda _: list_models(models.catalogue, limits)),
        unary(f"/{SERVICE}/GetModel", api.GetModelRequest, describe),
        slow_unary(f"/{SERVICE}/SetLabel", api.SetLabelRequest, lambda *asked: set_label(labels, *asked)),
    ]


def list_models(catalogue: Catalogue, limits: api.Limits) -> api.ListModelsResponse:
    """Describe every model in brief."""
    models = [
        api.Model(
            name=name,
            versions=[describe_version(model, entry) for _, entry in sorted(model.versions.items())],
            default_version=model.default_version or 0,
        )
        for name, model in sorted(catalogue.models.items())
    ]
    return api.ListModelsResponse(models=models, default_model=catalogue.default_model or "", limits=limits)


def describe_version(model: ModelEntry, entry: VersionEntry) -> api.ModelVersion:
    """Describe one version in brief."""
    trial = model.trial
    traffic = trial.traffic if trial is not None and trial.canary is entry.loaded else NO_TRAFFIC
    return api.ModelVersion(
        version=entry.version,
        state=_STATES[entry.state],
        reason=entry.reason,
        labels=model.labels_of(entry.version),
        canary_share=traffic.share,
        shadow=traffic.shadow,
    )


def get_model(catalogue: Catalogue, request: api.GetModelRequest, observed: Observed) -> api.GetModelResponse:
    """Describe one version in full; of one that could not be loaded, what is known.

    Raises:
        ServiceError: as `Catalogue.find`.
    """
    model, entry = catalogue.find(request.model, choice_of(request))
    response = api.GetModelResponse(model=model.name, version=describe_version(model, entry))
    if entry.loaded is not None:
        _describe_loaded(response, entry.loaded)
        if (quality := observed.quality(entry.loaded)) is not None:
            response.live_quality.CopyFrom(live_quality(quality))
    return response


def live_quality(quality: LiveQuality) -> api.LiveQuality:
    """Write how a version does against observations."""
    message = api.LiveQuality(
        observations=quality.observations,
        oldest_observed_at_seconds=quality.oldest_observed_at_seconds,
        newest_observed_at_seconds=quality.newest_observed_at_seconds,
        mae_celsius=_estimate(quality.mae_celsius),
        mse_celsius2=_estimate(quality.mse_celsius2),
        stated_coverage=quality.stated_coverage or 0.0,
    )
    if quality.coverage is not None:
        message.coverage.CopyFrom(_estimate(quality.coverage))
    return message


def _estimate(estimate: Estimate) -> api.Estimate:
    return api.Estimate(value=estimate.value, lower=estimate.lower, upper=estimate.upper)


def _describe_loaded(response: api.GetModelResponse, loaded: LoadedVersion) -> None:
    response.sha256 = loaded.sha256
    response.size_bytes = loaded.size_bytes
    response.device = loaded.engine.device
    response.metadata.update(loaded.engine.metadata)
    if loaded.placement is not None:
        response.placement.CopyFrom(describe_placement(loaded.placement))
    artefact = loaded.artefact
    if artefact is None:
        return
    response.kind = artefact.kind
    for column in artefact.columns:
        response.domain.add(name=column.name, minimum=column.minimum, maximum=column.maximum)
    if artefact.interval is not None:
        response.interval.half_width_celsius = artefact.interval.half_width_celsius
        response.interval.coverage = artefact.interval.coverage
        response.interval.method = artefact.interval.method
    response.training.seed = artefact.seed
    response.training.epochs = artefact.epochs
    response.training.training_loss = artefact.training_loss
    response.training.validation_loss = artefact.validation_loss
    response.training.dataset_sha256 = artefact.dataset_sha256
    response.training.dataset_rows = artefact.dataset_rows


def describe_placement(placement: Placement) -> api.Placement:
    """Tell where runs go, and the times that decided it."""
    return api.Placement(
        same_bits=placement.same_bits,
        ranges=[api.PlacementRange(from_rows=rows, place=place) for rows, place in placement.ranges()],
        measurements=[
            api.PlacementMeasurement(rows=each.rows, place=place, seconds=seconds if math.isfinite(seconds) else None)
            for each in placement.measured
            for place, seconds in zip(placement.places, each.seconds, strict=True)
        ],
    )


def set_label(labels: LabelAdmin, request: api.SetLabelRequest, context: Context) -> api.SetLabelResponse:
    """Move a label, or take it away.

    Raises:
        InvalidRequestError: the request does not say what the label shall name.
        ServiceError: the caller may not, or as `LabelControl`.
    """
    labels.guard(context)
    target = request.WhichOneof("target")
    if target is None or getattr(request, target) < 1:
        raise InvalidRequestError("target", "name a version from 1, or say previous or none")
    if target == "previous":
        return api.SetLabelResponse(version=labels.control.roll_back(request.model, request.label))
    if target == "none":
        labels.control.remove_label(request.model, request.label)
    else:
        labels.control.set_label(request.model, request.label, request.version)
    return api.SetLabelResponse(version=request.version)
